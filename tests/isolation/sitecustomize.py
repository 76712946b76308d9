"""Closes a Python process that has this folder on its PYTHONPATH: foreign imports, connections and writing fail.

$CLOSED is JSON: `foreign` modules, and a folder that is `read_only`.
"""

import json
import os
import sys

_rules = json.loads(os.environ["CLOSED"])
_foreign = set(_rules["foreign"])
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Blind:
    """A finder of modules that does not see the foreign ones."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if path is None and name in _foreign else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def _watch(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        raise OSError(f"the network is closed: {event} {arguments}")
    if event == "open" and not (arguments[2] or 0) & _WRITING:
        return
    if event in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"):
        for path in arguments[:2]:
            if isinstance(path, str) and path.startswith(_rules["read_only"]):
                raise PermissionError(f"read-only: {event} {path}")


sys.meta_path[:] = map(_Blind, sys.meta_path)
sys.addaudithook(_watch)

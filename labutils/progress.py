"""One progress bar for the terminal and for notebooks: one line, also in a saved notebook."""

from __future__ import annotations

import io
import sys

from tqdm import tqdm

DELAY = 5  # seconds of work before a bar appears


class _DisplayLine(io.StringIO):
    """A file that shows the last text written to it in one notebook output, updated in place."""

    handle = None

    def write(self, text: str) -> int:
        from IPython.display import display

        line = text.strip("\r\n ")
        if line and self.handle is None:
            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        elif line:
            self.handle.update({"text/plain": line}, raw=True)
        return len(text)


def progress(iterable=None, *, desc: str = "", total: int | None = None, unit: str = "it"):
    """A tqdm bar with rate and remaining time that appears after five seconds of work. For `fit`."""
    if "ipykernel" in sys.modules:
        options = {"file": _DisplayLine(), "ncols": 88, "mininterval": 0.5}
    elif sys.stderr.isatty():
        options = {"dynamic_ncols": True, "mininterval": 0.5}
    else:  # a log file: a line now and then
        options = {"ncols": 88, "mininterval": 15}
    return tqdm(iterable, desc=desc, total=total, unit=unit, delay=DELAY, **options)

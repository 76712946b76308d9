"""What a notebook's code needs as a plain script: parameters from the command line, figures and sounds as files."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

from ..lab import plain_parameters

_output = {"stem": "", "folder": Path(), "numbers": count(1)}  # of the script that runs in this process


def begin(file: str, namespace: dict) -> None:
    """Take NAME=VALUE arguments of the command line as parameters, and let `display` write files from now on.

    `namespace` holds the parameters with their defaults; `output_dir` becomes `output/` beside the script.
    """
    import IPython.display
    import matplotlib

    matplotlib.use("Agg")
    IPython.display.display = display  # what `plots.show` calls
    defaults = plain_parameters(namespace)
    for pair in sys.argv[1:]:
        name, equals, text = pair.partition("=")
        if not equals or name not in defaults:
            sys.exit(f"{Path(file).name}: {pair}: write parameters as NAME=VALUE; there are {', '.join(defaults)}")
        namespace[name] = _read(pair, text, defaults[name])
    namespace["output_dir"] = namespace["output_dir"] or str(Path(file).resolve().parent / "output")
    _output.update(stem=Path(file).stem, folder=Path(namespace["output_dir"]) / "figures", numbers=count(1))
    _output["folder"].mkdir(parents=True, exist_ok=True)


def _read(pair: str, text: str, default):
    """The value, of the type of the default; what is not text is written as in JSON."""
    try:
        value = text if isinstance(default, str) else json.loads(text)
    except ValueError:
        value = None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        sys.exit(f"{pair}: should be a value like {json.dumps(default)}")
    return value


def display(*things, metadata=None, **_) -> None:
    """Stands for IPython's: pictures and sounds go to numbered files, tables and text to the terminal.

    Of source code only the names are printed: it lies in `labutils/` beside the script.
    """
    from IPython.display import HTML, Code, Image

    for thing in things:
        audio = re.search(r"<figcaption>(.*?)</.*base64,([^\"]+)", thing.data) if isinstance(thing, HTML) else None
        if isinstance(thing, Image):
            _save(thing.data, "png", (metadata or {}).get("image/png", {}).get("alt", ""))
        elif audio:
            _save(base64.b64decode(audio[2]), "mp3", audio[1])
        elif isinstance(thing, Code):
            print("see labutils/:", ", ".join(re.findall(r"^(?:def|class) \w+", thing.data, re.M)))
        elif thing is not None:
            table = getattr(thing, "data", thing)  # of a styled table, or text
            print(table.to_string() if hasattr(table, "to_string") else table)


def _save(content: bytes, suffix: str, text: str) -> None:
    path = _output["folder"] / f"{_output['stem']}_{next(_output['numbers']):02d}.{suffix}"
    path.write_bytes(content)
    print(f"[{path.name}] {text}")


def main(file: str) -> int:
    """Run the scripts beside `file` in order, each in a process of its own; 1 if one of them failed.

    Arguments: numbers or names of scripts (none: all), and NAME=VALUE for each script that has the parameter.
    """
    scripts = {path.stem: path for path in sorted(Path(file).resolve().parent.glob("[0-9]*.py"))}
    known = {word: name for name in scripts for word in (name, name.split("_")[0])}
    pairs = [word for word in sys.argv[1:] if "=" in word]
    words = [word for word in sys.argv[1:] if "=" not in word]
    if lost := [word for word in words if word not in known]:
        sys.exit(f"{lost[0]}: no such script; there are {', '.join(scripts)}")
    chosen, failed = sorted({known[word] for word in words or known}), []
    heads = {name: scripts[name].read_text(encoding="utf-8").partition("\nscript.begin(")[0] for name in chosen}
    owned = {name: [pair for pair in pairs if f"\n{pair.partition('=')[0]} = " in heads[name]] for name in chosen}
    if lost := set(pairs) - {pair for mine in owned.values() for pair in mine}:
        sys.exit(f"{min(lost)}: no script has this parameter; write NAME=VALUE")
    for name in chosen:
        print(f"\n=== {name}", flush=True)
        done = subprocess.run([sys.executable, str(scripts[name]), *owned[name]])
        failed += [name] if done.returncode else []
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nall {len(chosen)} scripts ran")
    return 1 if failed else 0

"""The command `labutils`, also `python -m labutils`. Exit codes: 0 fine, 1 failed work, 2 wrong use."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings

from . import __version__

EXAMPLES = """\
examples:
  labutils doctor                                     is everything here that is needed?
  labutils run                                        all notebooks, on the default data
  labutils run --data ~/music --only 05,06 -p seed=1  two notebooks, on your data, with another seed
  labutils data build --audio clips/ --labels clips.csv --out ~/music
  labutils predict song.mp3 --data ~/music            what the trained models hear in it, over time
"""
RUN_EXAMPLES = """\
examples:
  labutils run
  labutils run --data ~/music --out runs/music --jobs 2
  labutils run --only 05,06 -p num_epochs=5 -p seed=1
  labutils run --params params/smoke.yaml

A parameter file holds lines NAME: VALUE, for every notebook that has the parameter. A key that is a notebook's name
or number, such as 05, holds a section for that notebook only.

OUT holds afterwards: notebooks/ (executed), html/, records/, results.csv, results.png, and index.html to begin with.
"""
DATA_EXAMPLES = """\
examples:
  labutils data demo
  labutils data demo --out /tmp/tiny --size tiny --seed 1
  labutils data build --audio clips/ --labels clips.csv --out ~/music
  labutils data info ~/music
  labutils data difficulty
"""
PREDICT_EXAMPLES = """\
examples:
  labutils predict song.mp3
  labutils predict concert/*.flac --data ~/music --out ~/predictions

The models are those that the notebooks 07, 08 and 10 train on the data set; where they are not in the cache, they are
trained now. For each file: a table, and a figure of genre probabilities and affect over time in DIR.
"""

PUBLISH_EXAMPLES = """\
examples:
  labutils publish bundle --only 05
  labutils publish bundle --target kaggle --user NAME
  labutils publish scripts --out ~/lab
  labutils publish handout --only 05 --out ~/course
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process); returns the exit code."""
    args = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    sys.modules.setdefault("rfc3987_syntax", None)  # starts 1.5 s sooner where notebooks are read: see batch.START
    try:
        if argv is None:  # a process of its own: stop tidily also when a scheduler says so
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return args.handler(args)
    except KeyboardInterrupt:
        print("\nlabutils: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as in `labutils doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Errors of our own classes name what is wrong and the fix; so do those of the file system.
        if not (isinstance(error, OSError) or type(error).__module__.startswith("labutils.")):
            raise
        print(f"labutils: error: {error}", file=sys.stderr)
        return 2 if type(error).__name__ == "UsageError" else 1


def _doctor(args) -> int:
    from .doctor import doctor

    return 1 if doctor() else 0


def _data_demo(args) -> int:
    from .build import make_demo

    root = make_demo(args.out, size=args.size, seed=args.seed, seconds=args.seconds, jobs=args.jobs)
    print(f"The default data is in {root}")
    return 0


def _data_build(args) -> int:
    from .build import from_audio

    root = from_audio(args.audio, args.labels, args.out, jobs=args.jobs)
    print(f"The data set is in {root}\nNext: labutils data info {root}")
    return 0


def _data_info(args) -> int:
    from .lab import describe

    print(describe(args.root))
    return 0


def _data_difficulty(args) -> int:
    from .build import difficulty
    from .lab import find_data

    root = find_data(args.root)
    print(f"How hard {root} is for simple models")
    for name, value in difficulty(root).items():
        print(f"  {name:<32} {value:6.3f}")
    return 0


def _publish_handout(args) -> int:
    from .batch import default_folder
    from .handout import publish

    out = publish(default_folder(args.notebooks), args.out or "runs/handout", args.only)
    for reader in ("student", "teacher"):
        print(f"{reader}: {out / reader / 'notebooks'}\n         {out / reader / 'book' / 'index.html'}")
    return 0


def _run(args) -> int:
    from .batch import run

    notebooks = run(
        data=args.data, out=args.out, notebooks=args.notebooks, params=args.params, pairs=args.pairs, only=args.only,
        jobs=args.jobs, time_limit=args.time_limit, in_place=args.in_place,
    )  # fmt: skip
    return 0 if all(notebook.state == "ok" for notebook in notebooks) else 1


def _predict(args) -> int:
    import matplotlib

    from .lab import choose_device, find_data
    from .prediction import predict_files

    matplotlib.use("Agg")  # figures go to files only
    device, _ = choose_device()
    return 1 if predict_files(args.files, find_data(args.data), args.out, device=device) else 0


def _publish_bundle(args) -> int:
    from .publish import bundle, check_kernel

    written = bundle(_chosen(args), args.target, args.out, user=args.user, gpu=args.gpu)
    for path in written:
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")
        for problem in check_kernel(path.parent) if args.target == "kaggle" else []:
            print(f"  kernel-metadata.json: {problem}")
    return 0


def _publish_scripts(args) -> int:
    from .publish import scripts

    print(f"Run them all: python {scripts(_chosen(args), args.out)[-1]}")
    return 0


def _chosen(args) -> list:
    from .batch import default_folder
    from .parameters import load_notebooks, select

    return select(load_notebooks(default_folder(args.notebooks)), args.only)


def _parser() -> argparse.ArgumentParser:
    parser = _command(None, "labutils", "Ten notebooks on music genre and affect recognition.", EXAMPLES)
    parser.add_argument("--version", action="version", version=f"labutils {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    doctor = _command(commands, "doctor", "check packages, device, disk, kernel and data; one line each with the fix")
    doctor.set_defaults(handler=_doctor)
    _add_data(commands)
    _add_run(commands)
    predict = _command(commands, "predict", "genre and affect over time of your own audio", PREDICT_EXAMPLES)
    predict.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg or mp3")
    predict.add_argument(
        "--data", default="", metavar="ROOT", help="data set to learn from (default: the default data)"
    )
    predict.add_argument(
        "--out", default="predictions", metavar="DIR", help="folder of figures (default: predictions/)"
    )
    predict.set_defaults(handler=_predict)
    _add_publish(commands)
    return parser


def _command(commands, name: str, text: str, examples: str | None = None) -> argparse.ArgumentParser:
    """A parser for one command whose examples keep their line breaks."""
    options = {
        "description": text[0].upper() + text[1:], "epilog": examples, "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }  # fmt: skip
    return commands.add_parser(name, help=text, **options) if commands else argparse.ArgumentParser(name, **options)


def _add_data(commands) -> None:
    data = _command(commands, "data", "make, build and look at data sets", DATA_EXAMPLES)
    kinds = data.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(kinds, "demo", "make the default data: procedural, labelled music")
    demo.add_argument("--out", metavar="DIR", help="folder (default: beside the other generated data)")
    demo.add_argument("--seed", type=int, default=0, help="another seed, other clips (default: 0)")
    demo.add_argument("--size", choices=("tiny", "default"), default="default")
    demo.add_argument("--seconds", type=_positive, default=10.0, metavar="S", help="length of a clip (default: 10)")
    demo.add_argument("--jobs", type=_count, metavar="N", help="processes (default: one per core)")
    demo.set_defaults(handler=_data_demo)

    build = _command(kinds, "build", "make a data set from a folder of audio and a table of labels")
    build.add_argument("--audio", required=True, metavar="DIR", help="folder of wav, flac, ogg or mp3 files")
    build.add_argument("--labels", required=True, metavar="CSV", help="columns file, genre, split, and any axes")
    build.add_argument("--out", required=True, metavar="ROOT", help="folder for the data set")
    build.add_argument("--jobs", type=_count, metavar="N", help="processes (default: one per core)")
    build.set_defaults(handler=_data_build)

    info = _command(kinds, "info", "classes, axes, splits, lengths, provenance and problems of a data set")
    info.add_argument("root", metavar="ROOT")
    info.set_defaults(handler=_data_info)

    difficulty = _command(kinds, "difficulty", "how well simple models do on a data set")
    difficulty.add_argument("root", metavar="ROOT", nargs="?", default="", help="(default: the default data)")
    difficulty.set_defaults(handler=_data_difficulty)


def _add_run(commands) -> None:
    run = _command(commands, "run", "run notebooks and collect their results", RUN_EXAMPLES)
    run.add_argument("--data", default="", metavar="ROOT", help="data set (default: the default data)")
    run.add_argument("--out", metavar="DIR", help="folder for what is made (default: runs/<data set>)")
    run.add_argument("--params", metavar="FILE", help="yaml file of parameters")
    run.add_argument("-p", dest="pairs", action="append", default=[], metavar="NAME=VALUE", help="one parameter")
    run.add_argument("--only", default="", metavar="05,06", help="these notebooks, by number or name")
    run.add_argument("--jobs", type=_count, metavar="N", help="notebooks at a time (default: one per core)")
    run.add_argument("--time-limit", type=_positive, default=1800.0, metavar="SECONDS",
                     help="for one notebook (default: 1800)")  # fmt: skip
    run.add_argument("--notebooks", metavar="DIR", help="folder of the notebooks (default: notebooks/)")
    run.add_argument("--in-place", action="store_true", help="write the outputs into the source notebooks too")
    run.set_defaults(handler=_run)


def _add_publish(commands) -> None:
    publish = _command(commands, "publish", "write copies of the notebooks for other hands", PUBLISH_EXAMPLES)
    kinds = publish.add_subparsers(title="commands", metavar="COMMAND", required=True)

    bundle = _command(kinds, "bundle", "notebooks that carry the package: one file each, to upload as it is")
    bundle.add_argument("--target", choices=("plain", "colab", "kaggle"), default="plain",
                        help="kaggle: a folder each, for `kaggle kernels push` (default: plain)")  # fmt: skip
    bundle.add_argument("--user", default="", metavar="NAME", help="Kaggle user name (default: $KAGGLE_USERNAME)")
    bundle.add_argument("--gpu", action="store_true", help="ask Kaggle or Colab for a GPU (default: none is needed)")
    bundle.set_defaults(handler=_publish_bundle)

    scripts = _command(kinds, "scripts", "plain scripts, and a main.py that runs them all")
    scripts.set_defaults(handler=_publish_scripts)

    handout = _command(kinds, "handout", "student and teacher copies, and a book of each to read and print")
    handout.set_defaults(handler=_publish_handout)

    folders = (bundle, "published/TARGET"), (scripts, "published/scripts"), (handout, "runs/handout")
    for kind, folder in folders:
        kind.add_argument("--only", default="", metavar="05,06", help="these notebooks, by number or name")
        kind.add_argument("--out", metavar="DIR", help=f"folder for what is made (default: {folder})")
        kind.add_argument("--notebooks", metavar="DIR", help="folder of the notebooks (default: notebooks/)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings of this package in one line, without their source; other packages' as Python does."""
    if category.__module__.startswith("labutils."):
        print(f"warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


if __name__ == "__main__":
    sys.exit(main())

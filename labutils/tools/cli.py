"""The command `labutils`, also `python -m labutils`. Exit codes: 0 fine, 1 failed work, 2 wrong use."""

from __future__ import annotations

import os
import signal
import sys
import warnings

import click

from .. import __version__

EXAMPLES = """\
examples:
  labutils doctor                                     is everything here that is needed?
  labutils run --data ~/music --only 05,06 -p seed=1  two notebooks, on your data, with another seed
  labutils data build --audio clips/ --labels clips.csv --out ~/music
  labutils predict song.mp3 --data ~/music            what the trained models hear in it, over time
"""
RUN_EXAMPLES = """\
examples:
  labutils run --data ~/music --out runs/music --jobs 2

A parameter file holds lines NAME: VALUE, for every notebook that has the parameter. A key that is a notebook's name
or number, such as 05, holds a section for that notebook only.

OUT holds afterwards: notebooks/ (executed), html/, records/, results.csv, results.png, and index.html to begin with.
"""
DATA_EXAMPLES = """\
examples:
  labutils data demo --size tiny --seed 1 --out /tmp/tiny
  labutils data build --audio clips/ --labels clips.csv --out ~/music
  labutils data info ~/music
"""
PREDICT_EXAMPLES = """\
examples:
  labutils predict concert/*.flac --data ~/music --out ~/predictions

The models are those that the notebooks 07, 08 and 10 train on the data set; where they are not in the cache, they are
trained now. For each file: a table, and a figure of genre probabilities and affect over time in DIR.
"""

PUBLISH_EXAMPLES = """\
examples:
  labutils publish bundle --target kaggle --user NAME
"""
COUNT, POSITIVE = click.IntRange(min=1), click.FloatRange(min=0, min_open=True, max=float("inf"), max_open=True)


class Command(click.Command):
    """A command whose examples keep their line breaks, and whose line in a list of commands is not cut."""

    def format_epilog(self, ctx, formatter):
        if self.epilog:
            formatter.write("\n" + self.epilog)

    def get_short_help_str(self, limit=45):
        return self.help


class Group(Command, click.Group):
    """The same for a group of commands, listed in the order in which they are written here."""

    command_class, group_class = Command, type  # groups in a group are of this class

    def list_commands(self, ctx):
        return list(self.commands)


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process); returns the exit code."""
    warnings.showwarning = _show_warning
    sys.modules.setdefault("rfc3987_syntax", None)  # starts 1.5 s sooner where notebooks are read: see run.START
    try:
        if argv is None:  # a process of its own: stop tidily also when a scheduler says so
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Not labutils.main(), which answers interrupts and broken pipes itself.
        with labutils.make_context("labutils", list(sys.argv[1:] if argv is None else argv)) as context:
            return labutils.invoke(context) or 0
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
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


def jobs(text: str):
    return click.option("--jobs", type=COUNT, metavar="N", help=f"{text} (default: one per core)")


def copies(folder: str):
    """The options of every command that takes notebooks and fills a folder."""
    only = click.option("--only", default="", metavar="05,06", help="these notebooks, by number or name")
    out = click.option("--out", metavar="DIR", help=f"folder for what is made (default: {folder})")
    notebooks = click.option("--notebooks", metavar="DIR", help="folder of the notebooks (default: notebooks/)")
    return lambda function: only(out(notebooks(function)))


@click.group(cls=Group, no_args_is_help=False, epilog=EXAMPLES)
@click.version_option(__version__, message="%(prog)s %(version)s")
def labutils():
    """Ten notebooks on music genre and affect recognition."""


@labutils.command()
def doctor():
    """Check packages, device, disk, kernel and data; one line each with the fix."""
    from .doctor import doctor

    return 1 if doctor() else 0


@labutils.group("data", no_args_is_help=False, epilog=DATA_EXAMPLES)
def data():
    """Make, build and look at data sets."""


@data.command("demo")
@click.option("--out", metavar="DIR", help="folder (default: beside the other generated data)")
@click.option("--seed", default=0, help="another seed, other clips (default: 0)")
@click.option("--size", type=click.Choice(["tiny", "default"]), default="default")
@click.option("--seconds", type=POSITIVE, default=10.0, metavar="S", help="length of a clip (default: 10)")
@jobs("processes")
def data_demo(out, **options):
    """Make the default data: procedural, labelled music."""
    from ..corpus.build import make_demo

    print(f"The default data is in {make_demo(out, **options)}")


@data.command("build")
@click.option("--audio", required=True, metavar="DIR", help="folder of wav, flac, ogg or mp3 files")
@click.option("--labels", required=True, metavar="CSV", help="columns file, genre, split, group if known, and any axes")
@click.option("--out", required=True, metavar="ROOT", help="folder for the data set")
@jobs("processes")
def data_build(audio, labels, out, jobs):
    """Make a data set from a folder of audio and a table of labels."""
    from ..corpus.build import from_audio

    root = from_audio(audio, labels, out, jobs=jobs)
    print(f"The data set is in {root}\nNext: labutils data info {root}")


@data.command("info")
@click.argument("root")
def data_info(root):
    """Classes, axes, splits, lengths, provenance and problems of a data set."""
    from .info import describe

    print(describe(root))


@data.command("difficulty")
@click.argument("root", default="")
def data_difficulty(root):
    """How well simple models do on a data set (default: the default data)."""
    from ..corpus.build import difficulty
    from ..lab import find_data

    root = find_data(root)
    print(f"How hard {root} is for simple models")
    for name, value in difficulty(root).items():
        print(f"  {name:<32} {value:6.3f}")


@labutils.command(epilog=RUN_EXAMPLES)
@click.option("--data", default="", metavar="ROOT", help="data set (default: the default data)")
@copies("runs/<data set>")
@click.option("--params", metavar="FILE", help="yaml file of parameters")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="one parameter")
@jobs("notebooks at a time")
@click.option("--time-limit", type=POSITIVE, default=1800.0, metavar="SECONDS", help="for one notebook (default: 1800)")
@click.option("--in-place", is_flag=True, help="write the outputs into the source notebooks too")
def run(**options):
    """Run notebooks and collect their results."""
    from .run import run

    return 0 if all(notebook.state == "ok" for notebook in run(**options)) else 1


@labutils.command(epilog=PREDICT_EXAMPLES)
@click.argument("files", nargs=-1, required=True)
@click.option("--data", default="", metavar="ROOT", help="data set to learn from (default: the default data)")
@click.option("--out", default="predictions", metavar="DIR", help="folder of figures (default: predictions/)")
def predict(files, data, out):
    """Genre and affect over time of your own audio: wav, flac, ogg or mp3."""
    import matplotlib

    from ..lab import choose_device, find_data
    from ..recipes import Experiment
    from .predict import predict_files

    matplotlib.use("Agg")  # figures go to files only
    device, _ = choose_device()
    return 1 if predict_files(files, Experiment(root=find_data(data), device=device), out) else 0


@labutils.group("publish", no_args_is_help=False, epilog=PUBLISH_EXAMPLES)
def publish():
    """Write copies of the notebooks for other hands."""


def _chosen(notebooks, only) -> list:
    from .parameters import load_notebooks, select
    from .run import default_folder

    return select(load_notebooks(default_folder(notebooks)), only)


@publish.command("bundle")
@click.option("--target", type=click.Choice(["plain", "colab", "kaggle"]), default="plain",
              help="kaggle: a folder each, for `kaggle kernels push` (default: plain)")  # fmt: skip
@click.option("--user", default="", metavar="NAME", help="Kaggle user name (default: $KAGGLE_USERNAME)")
@click.option("--gpu", is_flag=True, help="ask Kaggle or Colab for a GPU (default: none is needed)")
@copies("published/TARGET")
def publish_bundle(notebooks, only, target, out, user, gpu):
    """Notebooks that carry the package: one file each, to upload as it is."""
    from .publish import bundle

    for path in bundle(_chosen(notebooks, only), target, out, user=user, gpu=gpu):
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


@publish.command("scripts")
@copies("published/scripts")
def publish_scripts(notebooks, only, out):
    """Plain scripts, and a main.py that runs them all."""
    from .publish import scripts

    print(f"Run them all: python {scripts(_chosen(notebooks, only), out)[-1]}")


@publish.command("handout")
@copies("runs/handout")
def publish_handout(notebooks, only, out):
    """Student and teacher copies, and a book of each to read and print."""
    from .handout import publish
    from .run import default_folder

    out = publish(default_folder(notebooks), out or "runs/handout", only)
    for reader in ("student", "teacher"):
        print(f"{reader}: {out / reader / 'notebooks'}\n         {out / reader / 'book' / 'index.html'}")


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings of this package in one line, without their source; other packages' as Python does."""
    if category.__module__.startswith("labutils."):
        print(f"warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

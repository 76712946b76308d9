"""The command `labutils`, also `python -m labutils`. Exit codes: 0 fine, 1 failed work, 2 wrong use."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import click

from .. import __version__

# What `--help` shows below the options, by command
EXAMPLES = (Path(__file__).parent / "assets" / "examples.txt").read_text(encoding="utf-8").split("## ")[1:]
EXAMPLES = dict(text.split("\n", 1) for text in EXAMPLES)
COUNT, POSITIVE = click.IntRange(min=1), click.FloatRange(min=0, min_open=True, max=float("inf"), max_open=True)


class Command(click.Command):
    """A command whose examples keep their line breaks, and whose line in a list of commands is not cut."""

    def format_epilog(self, ctx, formatter):
        if self.epilog:
            formatter.write("\n" + self.epilog)

    def get_short_help_str(self, limit=45):
        return self.help


class Group(Command, click.Group):
    """The same for a group of commands."""

    command_class, group_class = Command, type  # groups in a group are of this class


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process); returns the exit code."""
    warnings.showwarning = _show_warning
    sys.modules.setdefault("rfc3987_syntax", None)  # starts 1.5 s sooner where notebooks are read: see run.START
    try:
        if argv is None:  # a process of its own: stop tidily also when a scheduler says so
            for name in ("SIGTERM", "SIGHUP"):  # or that its terminal is closed, unless `nohup` ignores it
                if signal.getsignal(number := getattr(signal, name, signal.SIGTERM)) != signal.SIG_IGN:
                    signal.signal(number, signal.default_int_handler)
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


strict = click.option("--strict", is_flag=True, help="exit with 1 if any file failed, not only if all did")


def copies(folder: str):
    """The options of every command that takes notebooks and fills a folder."""
    only = click.option("--only", default="", metavar="05,06", help="these notebooks, by number or name")
    out = click.option("--out", metavar="DIR", help=f"folder for what is made (default: {folder})")
    notebooks = click.option("--notebooks", metavar="DIR", help="folder of the notebooks (default: notebooks/)")
    return lambda function: only(out(notebooks(function)))


@click.group(cls=Group, no_args_is_help=False, epilog=EXAMPLES["labutils"])
@click.version_option(__version__, message="%(prog)s %(version)s")
def labutils():
    """Ten notebooks on music genre and affect recognition."""


@labutils.command()
def doctor():
    """Check packages, device, disk, kernel and data; one line each with the fix."""
    from .doctor import doctor

    return 1 if doctor() else 0


@labutils.group("data", no_args_is_help=False, epilog=EXAMPLES["data"])
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
@strict
def data_build(audio, labels, out, jobs, strict):
    """Make a data set from a folder of audio and a table of labels."""
    from ..corpus.build import from_audio

    root = from_audio(audio, labels, out, jobs=jobs)
    print(f"The data set is in {root}\nNext: labutils data info {root}")
    return 1 if strict and (root / "failed.csv").exists() else 0


@data.command("info")
@click.argument("root")
def data_info(root):
    """Classes, axes, splits, lengths, provenance and problems of a data set."""
    from .info import describe

    print(describe(root))


@labutils.command(epilog=EXAMPLES["run"])
@click.option("--data", default="", metavar="ROOT", help="data set (default: the default data)")
@copies("runs/<data set>")
@click.option("--params", metavar="FILE", help="yaml file of parameters")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="one parameter")
@jobs("notebooks at a time")
@click.option("--time-limit", type=POSITIVE, default=1800.0, metavar="SECONDS", help="for one notebook (default: 1800)")
@click.option("--in-place", is_flag=True, help="write the outputs into the source notebooks too")
@click.option("--fresh", is_flag=True, help="run those too that DIR holds already, of this code and data")
def run(notebooks, only, params, pairs, in_place, **options):
    """Run notebooks and collect their results."""
    from .run import choose, run

    done = run(choose(notebooks, only, params, pairs, in_place), in_place=in_place, **options)
    return 0 if all(notebook.state == "ok" for notebook in done) else 1


@labutils.command(epilog=EXAMPLES["predict"])
@click.argument("files", nargs=-1, required=True)
@click.option("--data", default="", metavar="ROOT", help="data set to learn from (default: the default data)")
@click.option("--out", default="predictions", metavar="DIR", help="folder of figures (default: predictions/)")
@strict
def predict(files, data, out, strict):
    """Genre and affect over time of your own audio: wav, flac, ogg or mp3."""
    import matplotlib

    from ..lab import choose_device, find_data
    from ..recipes import Experiment
    from .predict import predict_files

    matplotlib.use("Agg")  # figures go to files only
    device, _ = choose_device()
    failed = predict_files(files, Experiment(root=find_data(data), device=device), out)
    return 1 if failed == len(files) or (strict and failed) else 0


@labutils.command()
@click.option("--data", default="", metavar="ROOT", help="have it hear this data set (default: the default data)")
@jobs("processes")
def pretrained(data, jobs):
    """Fetch the network that has heard 200,000 songs (29 MB), for notebooks 06 to 10, and keep what it hears."""
    from joblib import Parallel, cpu_count, delayed

    from ..corpus.weights import get
    from ..data import FOLDERS, SpectrogramDataset
    from ..lab import find_data
    from ..pretrained import embed

    print(f"The network is here: {get()}")
    root, jobs = find_data(data), jobs or cpu_count()
    folders = [(task, split) for task, time in FOLDERS if time == "raw" for split in ("train", "test")]
    parts = [SpectrogramDataset(root, *pair) for pair in folders if (root / FOLDERS[pair[0], "raw"] / pair[1]).is_dir()]
    shares = [part.subset(list(range(k, len(part), jobs))) for part in parts for k in range(jobs)]
    Parallel(jobs)(delayed(embed)(share, source=source) for source in ("auto", "mel") for share in shares)


@labutils.group("publish", no_args_is_help=False, epilog=EXAMPLES["publish"])
def publish():
    """Write copies of the notebooks for other hands."""


def _chosen(notebooks, only, plain=False) -> list:
    from .parameters import load_notebooks, select
    from .run import default_folder

    return select(load_notebooks(default_folder(notebooks), plain=plain), only)


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

    print(f"Run them all: python {scripts(_chosen(notebooks, only, True), out)[-1]}")


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

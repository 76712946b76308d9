"""The versions that labutils supports, each in an environment of its own: `make matrix`, or `nox -s lowest` for one.

Every environment gets the installed package, not the checkout's, and runs the unit tests and the ten notebooks with
small parameters. This is no part of continuous integration: on Linux torch comes as a CUDA build of gigabytes unless
pip is told of the CPU index.
"""

import nox

nox.needs_version = ">=2024.4.15"
nox.options.error_on_missing_interpreters = True
TORCH = "torch==2.13.0"


@nox.session(python=["3.11", "3.12", "3.13"])
def tested(session: nox.Session) -> None:
    """The versions of constraints.txt: librosa 0.11 on Python 3.11, 1.0 from 3.12 on."""
    session.install(TORCH)
    session.install("-r", "requirements.txt", "-c", "constraints.txt")
    check(session)


@nox.session(python="3.11")
def librosa_0_10(session: nox.Session) -> None:
    """The last librosa 0.10, with the newest versions of all else that it permits."""
    session.install(TORCH)
    session.install("-r", "requirements.txt", "librosa==0.10.*")
    check(session)


@nox.session(python="3.11", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The lower bounds of requirements.txt: what Kaggle and Colab preinstall lags behind."""
    session.install("--resolution", "lowest-direct", "-r", "requirements.txt")
    check(session)


def check(session: nox.Session) -> None:
    """Install the package, print the versions, run the tests."""
    session.create_tmp()  # holds the mark that librosa's numba code is compiled
    session.install("--no-deps", ".")
    session.run("labutils", "doctor")
    session.run("pytest", "-q", "-n", "2", "--dist", "loadfile", "tests/unit", "tests/notebooks/test_smoke.py")

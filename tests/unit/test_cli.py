"""The command line: help, exit codes, and what an import costs."""

import subprocess
import sys
import warnings

import pytest

from labutils.files import DataError, DataWarning
from labutils.tools import cli, doctor
from labutils.tools.cli import main


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_import_is_light():
    code = "import labutils.tools.cli, sys; print([m for m in ('numpy', 'torch', 'librosa') if m in sys.modules])"
    assert run("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("command", [[], ["data"], ["run"], ["predict"], ["publish"]])
def test_help_has_examples(command, capsys):
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "examples:\n  labutils " in printed and printed.startswith("Usage: labutils")


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["data"], ["data", "build"], ["publish"], ["run", "--red"], ["run", "--o", "x"]]
)
def test_wrong_use_exits_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Usage: labutils" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["data", "info"], ["predict", "x.wav", "--data"]])
def test_a_missing_data_set_is_one_line_and_exit_code_1(arguments, tmp_path, capsys):
    assert main([*arguments, str(tmp_path / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labutils: error: ") and "absent: does not exist" in error and error.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("labutils.tools.info.describe", lambda root: {}["missing"])
    with pytest.raises(KeyError):
        main(["data", "info", "x"])


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    def interrupted(root):
        raise KeyboardInterrupt

    monkeypatch.setattr("labutils.tools.info.describe", interrupted)
    assert main(["data", "info", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_warnings_about_data_are_one_line(monkeypatch, capsys):
    def describe(root):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = cli._show_warning
            warnings.warn("2 files left out", DataWarning, stacklevel=1)
        raise DataError(f"{root}: nothing left")

    monkeypatch.setattr("labutils.tools.info.describe", describe)
    assert main(["data", "info", "x"]) == 1
    assert capsys.readouterr().err == "warning: 2 files left out\nlabutils: error: x: nothing left\n"


def test_data_commands_pass_their_options_on(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(
        "labutils.corpus.build.make_demo", lambda *args, **options: calls.append((args, options)) or tmp_path
    )
    monkeypatch.setattr(
        "labutils.corpus.build.from_audio", lambda *args, **options: calls.append((args, options)) or tmp_path
    )
    assert main(["data", "demo", "--size", "tiny", "--seed", "3", "--seconds", "2.5", "--jobs", "1"]) == 0
    assert main(["data", "build", "--audio", "a", "--labels", "b.csv", "--out", "c"]) == 0
    assert calls == [
        ((None,), {"size": "tiny", "seed": 3, "seconds": 2.5, "jobs": 1}),
        (("a", "b.csv", "c"), {"jobs": None}),
    ]
    assert str(tmp_path) in capsys.readouterr().out


def test_doctor_names_what_it_checks(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path))
    monkeypatch.delenv("LABUTILS_DATA", raising=False)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("[OK]   ", "[FAIL] ")) for line in lines)
    for what in ("Python 3.", "numpy ", "torch ", "torch device", "disk", "Jupyter kernel", "data set"):
        assert any(what in line for line in lines), what


def test_doctor_fails_with_the_fix(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path))
    monkeypatch.setenv("LABUTILS_DATA", str(tmp_path / "absent"))
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy>=99", "surely-not-installed>=1"])
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "[FAIL] numpy " in printed and 'needs >=99; pip install "numpy>=99"' in printed
    assert '[FAIL] surely-not-installed: missing; pip install "surely-not-installed>=1"' in printed
    assert "[FAIL] data set: " in printed and "absent" in printed

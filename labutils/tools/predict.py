"""What the trained models say of audio files: `labutils predict`."""

from __future__ import annotations

import sys
from pathlib import Path

from .. import audio, plots, prediction
from ..data import provenance
from ..files import DataError, blame, output_folder
from ..recipes import Experiment


def predict_files(files, experiment: Experiment, out, num_seeds: int = 2) -> int:
    """Print a table for each audio file and draw its figure in the folder `out`; returns how many files failed.

    Notebook 10. A file that cannot be used is named on stderr with the reason, and the others go on.
    `experiment`, `num_seeds`: which models, see `load_models`.
    """
    paths, record, ensemble, failed = [Path(file) for file in files], provenance(experiment.root), None, 0
    out, note = output_folder(out, experiment.root, *paths), f"models trained on {record['name']}"
    if record["kind"] == "procedural":
        note = "models trained on procedural music: what they say of real music means nothing"
    for i, path in enumerate(paths):
        samples = _attempt(path, prediction.Recording, path)
        if samples is not None and ensemble is None:
            print(f"Models of {experiment.root}: from the cache, or trained now where it has none ...", flush=True)
            ensemble = prediction.load_models(experiment, num_seeds)
            print("\n".join([*ensemble.found, f"{ensemble.trained} models trained now; {note}"]), flush=True)
        found = None if samples is None else _attempt(path, prediction.predict, ensemble, samples)
        if found is None:
            failed += 1
            continue
        same = sum(earlier.name == path.name for earlier in paths[:i])  # from another folder
        figure = out / f"{path.name[:200]}{f'-{same + 1}' if same else ''}.png"
        plots.save(prediction.draw(found, f"{path.name} ({note})"), figure)
        print(f"\n{path}: {found.seconds:.1f} s, {len(found.times)} window{'s' * (len(found.times) > 1)}")
        print(f"{prediction.summary(found).to_string(float_format='%.2f')}\nfigure: {figure}", flush=True)
    if failed:
        print(f"{failed} of {len(paths)} files failed", file=sys.stderr)
    return failed


def _attempt(path: Path, function, *arguments):
    """What the function returns; None after an error, which costs this file only and is named."""
    try:
        with blame(path, "convert it to wav, flac, ogg or mp3"):
            return function(*arguments)
    except (DataError, audio.AudioError) as error:
        print(f"labutils: error: {error}", file=sys.stderr)
        return None

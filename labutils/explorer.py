"""The explorer of notebook 01: a clip, its mel spectrogram, chromagram and beats, and a cursor that follows the sound.

The pictures and the player are plain HTML that every page keeps; the cursor is added by a script where one may run,
the menus by ipywidgets where it is installed and somebody is there to use them.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import numpy as np

from . import audio, plots
from .corpus import build


def view(samples: np.ndarray, title: str):
    """Mel spectrogram over chromagram with the beats dashed, and a player: float32 [N] -> HTML. For `explore`.

    Where scripts run, a cursor follows the player, and a click on the picture moves both.
    """
    from IPython.display import HTML

    spectrum = audio.stft(samples)
    beats = audio.beat_frames(samples, spectrum) * audio.HOP_LENGTH / audio.SAMPLE_RATE  # s
    axes = plots.panels(2, size=(9, 2.1), share="x")
    plots.mark_beats(plots.plot_mel(audio.to_db(audio.mel_power(spectrum)), ax=axes[0], title=title), beats)
    plots.mark_beats(plots.plot_chroma(audio.chroma(samples, spectrum), ax=axes[1]), beats)
    picture = plots.png(axes[0].figure, crop=False)
    upper, lower = (ax.get_position() for ax in axes)  # shares of the picture, from below
    seconds = spectrum.shape[1] * audio.HOP_LENGTH / audio.SAMPLE_RATE
    place = {"left": upper.x0, "width": upper.width, "top": 1 - upper.y1, "height": upper.y1 - lower.y0}
    place = {name: round(100 * float(share), 2) for name, share in place.items()}  # %
    place |= {"seconds": round(seconds, 3), "beats": beats.round(3).tolist()}
    script = (Path(__file__).parent / "assets" / "explorer.js").read_text(encoding="utf-8")
    alt = f"{title}: log-mel spectrogram above, chromagram below, {len(beats)} beats as dashed lines across both."
    return HTML(
        f'<figure class="explorer" style="margin: 0; max-width: 900px" data-place="{html.escape(json.dumps(place))}">'
        f'<div style="position: relative"><img alt="{html.escape(alt)}" style="display: block; width: 100%" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"></div>'
        f'<audio controls style="width: 100%" aria-label="{html.escape(title)}" '
        f'src="{plots.sound_url(samples)}"></audio>'
        f"<p></p></figure><script>{script}</script>"
    )


def explore(dataset, root, *, start: int = 0, seconds: float = 10.0) -> None:
    """Show clip `start` of a genre data set, with menus for genre and clip where somebody can use them. Notebook 01.

    Without ipywidgets, and where a notebook runs with nobody in front of it, the view of the first clip remains.
    """
    from IPython.display import display

    def clip_view(i):
        sound = build.load_audio(root, dataset.ids[i])
        if sound is None:  # the data set holds features only
            sound = audio.sonify(dataset.frames(i)[:, : audio.NUM_MELS].T)
        name = f"{dataset.classes[dataset.labels[i]]}, clip {dataset.ids[i]}"
        return view(sound[: int(seconds * audio.SAMPLE_RATE)], name)

    menus = _menus(dataset, start)
    if menus:
        display(menus)
    shown = display(clip_view(start), display_id=True)
    if menus:
        menus.children[1].observe(lambda change: shown.update(clip_view(change["new"])), "value")


def _menus(dataset, start: int):
    """Menus for genre and clip; None without ipywidgets or without a reader."""
    from IPython import get_ipython

    # A front end in which `input()` may ask has a reader; papermill, nbval and nbconvert forbid it.
    if not getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False):
        return None
    try:
        from ipywidgets import Dropdown, HBox
    except ImportError:
        return None

    def clips_of(label):
        return [(dataset.ids[i], int(i)) for i in np.flatnonzero(dataset.labels == label)]

    label = int(dataset.labels[start])
    present = [(name, n) for n, name in enumerate(dataset.classes) if (dataset.labels == n).any()]
    genre = Dropdown(options=present, value=label, description="genre")
    clip = Dropdown(options=clips_of(label), value=start, description="clip")
    genre.observe(lambda change: setattr(clip, "options", clips_of(change["new"])), "value")
    return HBox([genre, clip])

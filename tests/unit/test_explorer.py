"""The explorer: pictures and player without a script, menus only where somebody can use them."""

import html
import json
import re
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from labutils import audio, explorer
from labutils.data import SpectrogramDataset

matplotlib.use("Agg")

CLICKS = np.zeros(4 * audio.SAMPLE_RATE, np.float32)
CLICKS[:: audio.SAMPLE_RATE // 2] = 0.9  # two a second


def test_a_view_holds_picture_player_and_where_the_cursor_goes():
    page = explorer.view(CLICKS, 'Rock & "Roll"').data
    assert 'src="data:image/png;base64,' in page and 'src="data:audio/mpeg;base64,' in page
    assert 'alt="Rock &amp; &quot;Roll&quot;: log-mel' in page
    place = json.loads(html.unescape(re.search(r'data-place="([^"]+)"', page).group(1)))
    assert place["seconds"] == pytest.approx(4, abs=0.05) and len(place["beats"]) >= 5
    assert 0 < place["left"] < 20 and 50 < place["width"] < 100 - place["left"]
    assert 0 < place["top"] < 20 and 60 < place["height"] < 100 - place["top"]


@pytest.fixture
def shown(monkeypatch, layout):
    """Explore a data set without audio; returns what was displayed, given who is there."""

    def run(reader, ipywidgets=True):
        seen = []
        shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=reader))
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)
        monkeypatch.setattr("IPython.display.display", lambda thing, **_: seen.append(thing))
        if not ipywidgets:
            monkeypatch.setitem(sys.modules, "ipywidgets", None)
        dataset = SpectrogramDataset(layout, time="raw", feature="fused", class_mapping="none")
        monkeypatch.setattr(audio, "sonify", lambda mel: CLICKS)
        explorer.explore(dataset, layout, start=3)
        return seen, dataset

    return run


@pytest.mark.parametrize(("reader", "ipywidgets"), [(False, True), (True, False)])
def test_without_a_reader_or_without_ipywidgets_one_view_remains(shown, reader, ipywidgets):
    (view,), dataset = shown(reader, ipywidgets)
    assert f"clip {dataset.ids[3]}" in view.data


def test_choosing_a_genre_offers_its_clips(layout, monkeypatch):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    dataset = SpectrogramDataset(layout, time="raw", feature="fused", class_mapping="none")
    genre, clip = explorer._menus(dataset, 3).children
    assert dict(genre.options).keys() == set(dataset.classes) and clip.value == 3
    other = next(label for label in dict(genre.options).values() if label != genre.value)
    genre.value = other
    assert {index for _, index in clip.options} == set(np.flatnonzero(dataset.labels == other))
    assert dataset.labels[clip.value] == other

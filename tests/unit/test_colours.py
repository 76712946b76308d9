"""Figures can be read without seeing all colours: simulated colour blindness, and print in grey.

The simulation is that of Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB; distances are those of
CIELAB, where about 2 is just noticeable side by side.
"""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from labutils import plots
from labutils.data import Batch

MACHADO = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def seen(colours, eye) -> np.ndarray:
    """sRGB [N, 3] in [0, 1] as an eye sees it, in CIELAB [N, 3]."""
    srgb = np.asarray(colours, dtype=float)[:, :3]
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(MACHADO.get(eye, np.eye(3))).T, 0, 1) @ TO_XYZ.T / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("eye", ["normal", *MACHADO])
def test_every_two_colours_of_the_palette_differ(eye):
    lab = seen([to_rgb(color) for color in plots.COLORS], eye)
    assert min(np.linalg.norm(lab[a] - lab[b]) for a, b in combinations(range(len(lab)), 2)) > 15


def test_red_and_green_of_one_lightness_would_not_pass():
    red, green = seen([(0.80, 0.25, 0.20), (0.42, 0.50, 0.10)], "deuteranopia")
    assert np.linalg.norm(red - green) < 15


SCALES = {  # of the figures that have one, as they are drawn
    "mel": lambda: plots.plot_mel(np.zeros((128, 4)) - 10),
    "chroma": lambda: plots.plot_chroma(np.zeros((12, 4))),
    "batch": lambda: plots.plot_batch(Batch(torch.zeros(2, 4, 3), torch.tensor([4, 4]), torch.zeros(2))),
    "confusion": lambda: plots.plot_confusion(np.eye(3, dtype=int), list("abc")),
    "probabilities": lambda: plots.plot_probabilities([0, 1, 2], np.eye(2), ["a", "b"]),
}
SIGNED = {
    "maps": lambda: plots.plot_maps({"input": np.ones((1, 3, 3))})[0],
    "occlusion": lambda: plots.plot_occlusion(np.ones((3, 3)), 1.0),
}


def colour_map(ax):
    return (*ax.images, *ax.collections)[0].get_cmap()


@pytest.mark.parametrize("eye", ["normal", *MACHADO])
@pytest.mark.parametrize("name", SCALES)
def test_scales_run_evenly_from_dark_to_light(name, eye):
    lab = seen(colour_map(SCALES[name]())(np.linspace(0, 1, 11)), eye)
    steps = np.diff(lab[:, 0])  # lightness alone: what is left in grey print
    assert (steps > 2).all() or (steps < -2).all()
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 5


@pytest.mark.parametrize("eye", ["normal", *MACHADO])
@pytest.mark.parametrize("name", SIGNED)
def test_the_two_sides_of_the_scale_of_signed_maps_differ(name, eye):
    below, above = seen(colour_map(SIGNED[name]())([0.1, 0.25, 0.4, 0.6, 0.75, 0.9]), eye).reshape(2, 3, 3)
    assert np.linalg.norm(below - above[::-1], axis=1).min() > 15


def styles(ax):
    """Dashes and marker of each line in the legend of a figure."""
    handles = ax.figure.legends[0].legend_handles
    return [(line._dash_pattern, line.get_marker()) for line in handles]


def test_series_of_one_figure_differ_in_line_or_marker_too():
    x, history = np.arange(3), [{"epoch": e, "train_loss": 1 / e, "val_loss": 1, "val_score": 0} for e in (1, 2, 3)]
    figures = {
        4: plots.plot_curves(x, {name: x for name in "abcd"}),
        5: plots.plot_curves(x, {name: [x, x] for name in "abcd"}, markers=True, line=(1, "best")),
        3: plots.plot_history(history),
        2: plots.plot_spread({"random": {"a": [1, 2]}, "stratified": {"a": [1, 2]}}),
        12: plots.plot_latent(np.ones((12, 2)), np.arange(12), list("abcdefghijkl")),
    }
    for number, ax in figures.items():
        assert len(styles(ax)) == number
        assert len({repr(style) for style in styles(ax)}) == number

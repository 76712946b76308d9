"""Every figure draws, names its axes with units, and leaves nothing behind."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from labutils import plots
from labutils.evaluation import Estimate

RNG = np.random.default_rng(0)
HISTORY = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_score": -1.2 / e} for e in range(1, 5)]
FIGURES = {
    "mel": lambda ax=None: plots.plot_mel(RNG.uniform(-80, 0, (128, 40)), ax=ax),
    "chroma": lambda ax=None: plots.plot_chroma(RNG.random((12, 40)), ax=ax),
    "counts": lambda ax=None: plots.plot_counts({"Rock": 3, "Jazz": 5}, ax=ax),
    "loss": lambda ax=None: plots.plot_loss([1, 0.1, 0.01], ax=ax),
    "history": lambda ax=None: plots.plot_history(HISTORY, ax=ax),
    "confusion": lambda ax=None: plots.plot_confusion(np.array([[3, 1], [0, 4]]), ["a", "b"], ax=ax),
    "estimates": lambda ax=None: plots.plot_estimates(
        {"x": Estimate(0.5, 0.05, 10)}, references={"x": 0.2, "y": 1}, line=(0.1, "majority"), ax=ax
    ),
    "truth": lambda ax=None: plots.plot_truth(RNG.random(9), RNG.random(9), ax=ax, axis="energy"),
    "latent": lambda ax=None: plots.plot_latent(RNG.random((9, 2)), np.arange(9) % 3, ["a", "b", "c"], ax=ax),
    "probabilities": lambda ax=None: plots.plot_probabilities([0, 2, 5.0], RNG.random((2, 3)), ["a", "b", "c"], ax=ax),
    "bands": lambda ax=None: plots.plot_bands(
        [10, 20], {"x": RNG.random((3, 2))}, line=(0.9, "best"), xlabel="clips", ax=ax
    ),
}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_labels_both_axes_and_draws_where_it_is_told(name):
    ax = FIGURES[name]()
    assert ax.get_xlabel() and ax.get_ylabel()
    _, mine = plt.subplots()
    assert FIGURES[name](mine) is mine
    mine.figure.canvas.draw()


def test_beat_synchronous_data_is_drawn_in_seconds():
    ax = plots.plot_mel(RNG.uniform(-80, 0, (128, 4)), times=np.array([0, 5.0, 12, 20, 30]))
    assert ax.get_xlim() == pytest.approx((0, 30)) and "(s)" in ax.get_xlabel()


def test_raw_frames_end_at_the_clips_duration():
    assert plots.plot_mel(np.zeros((128, 1293))).get_xlim()[1] == pytest.approx(30.02, abs=0.02)


def test_maps_share_one_symmetric_scale():
    (mosaic,) = plots.plot_maps(np.stack([np.full((3, 3), -2.0), np.full((3, 3), 1.0)]), title="x").get_images()
    assert mosaic.get_clim() == (-2, 2)
    assert mosaic.get_array()[:3, :7].filled(0).tolist() == [[-2, -2, -2, 0, 1, 1, 1]] * 3  # a gap between the two


def test_tiles_below_zero_are_marked_in_grey_too():
    ax = plots.plot_occlusion(np.array([[1.0, -1.0], [0.0, -0.1]]), 10)
    assert ax.lines[0].get_xydata().tolist() == [[7.5, 32.0]] and ax.get_xlim() == (0, 10) and ax.get_ylim() == (0, 128)


def test_show_attaches_the_alternative_text(monkeypatch):
    shown = {}
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.update(metadata))
    plots.show(FIGURES["loss"](), alt="The loss falls.")
    assert shown == {"image/png": {"alt": "The loss falls."}} and not plt.get_fignums()


def test_save_writes_a_whole_png_into_a_new_folder_and_closes_the_figure(tmp_path):
    plots.save(FIGURES["loss"](), tmp_path / "new" / "loss.png")
    assert (tmp_path / "new" / "loss.png").read_bytes().startswith(b"\x89PNG") and not plt.get_fignums()
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_the_player_is_small_and_playable_everywhere():
    html = plots.player(np.sin(np.arange(22050 * 10) / 10).astype(np.float32), "a sine").data
    assert '<audio controls src="data:audio/mpeg;base64,' in html and "a sine" in html and len(html) < 250_000

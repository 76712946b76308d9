"""Every figure shows what it was given, names its axes with units, and leaves nothing behind."""

import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from labutils import plots
from labutils.data import Batch
from labutils.evaluation import Estimate

RNG = np.random.default_rng(0)
HISTORY = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_score": -abs(e - 3)} for e in range(1, 5)]
ESTIMATES = {"x": Estimate(0.5, 0.05, 10), "z": Estimate(0.7, 0.1, 10)}
BATCH = Batch(torch.zeros(2, 4, 3), torch.tensor([4, 2]), torch.zeros(2))
FIGURES = {
    "curves": lambda ax=None: plots.plot_curves([0, 1], {"a": [0, 1], "b": [1, 0]}, line=(0.5, "half"), ax=ax),
    "mel": lambda ax=None: plots.plot_mel(RNG.uniform(-80, 0, (128, 40)), ax=ax),
    "chroma": lambda ax=None: plots.plot_chroma(RNG.random((12, 40)), ax=ax),
    "batch": lambda ax=None: plots.plot_batch(BATCH, ax=ax),
    "counts": lambda ax=None: plots.plot_counts({"Rock": 3, "Jazz": 5}, ax=ax),
    "spread": lambda ax=None: plots.plot_spread({"s": {"a": [1, 2]}}, xlabel="clips", ylabel="genre", ax=ax),
    "loss": lambda ax=None: plots.plot_loss([1, 0.1, 0.01], ax=ax),
    "history": lambda ax=None: plots.plot_history(HISTORY, ax=ax),
    "confusion": lambda ax=None: plots.plot_confusion(np.array([[3, 1], [0, 4]]), ["a", "b"], ax=ax),
    "estimates": lambda ax=None: plots.plot_estimates(
        ESTIMATES, references={"x": 0.2, "y": 1}, line=(0.1, "majority"), band=(-0.1, 0.1, "chance"), ax=ax
    ),
    "truth": lambda ax=None: plots.plot_truth(RNG.random(9), RNG.random(9), ax=ax, axis="energy"),
    "latent": lambda ax=None: plots.plot_latent(RNG.random((9, 2)), np.arange(9) % 3, ["a", "b", "c"], ax=ax),
    "occlusion": lambda ax=None: plots.plot_occlusion(RNG.normal(size=(8, 20)), 10, ax=ax),
    "probabilities": lambda ax=None: plots.plot_probabilities([0, 2, 5.0], RNG.random((2, 3)), ["a", "b", "c"], ax=ax),
}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def texts(labels):
    return [label.get_text() for label in labels]


def legend(ax):
    """Labels of the one legend of a figure."""
    assert not any(panel.get_legend() for panel in ax.figure.axes)
    (found,) = ax.figure.legends
    return texts(found.get_texts())


def bars(ax):
    """Labels of the colour bars of a figure."""
    return [panel.get_ylabel() for panel in ax.figure.axes if panel.get_label() == "<colorbar>"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_labels_both_axes_and_draws_where_it_is_told(name):
    with warnings.catch_warnings(action="error"):
        warnings.simplefilter("ignore", DeprecationWarning)  # which no notebook shows
        ax = FIGURES[name]()
        assert ax.get_xlabel() and ax.get_ylabel()
        _, mine = plt.subplots()
        assert FIGURES[name](mine) is mine
        mine.figure.canvas.draw()


@pytest.mark.parametrize("name", FIGURES)
def test_the_theme_stays_in_the_figure(name):
    before = dict(matplotlib.rcParams)
    ax = FIGURES[name]()
    assert dict(matplotlib.rcParams) == before
    assert not ax.spines["top"].get_visible() and ax.xaxis.label.get_fontsize() == plots.THEME["axes.labelsize"]


def test_what_the_reader_sets_has_the_last_word():
    ax = plots.plot_curves([1, 10], {"a": [1, 2]}, title="t", xlabel="x", ylim=(0, 9), xscale="log")
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylim(), ax.get_xscale()) == ("t", "x", (0, 9), "log")
    assert plots.plot_batch(BATCH, xlabel="beat").get_xlabel() == "beat"


def test_curves_are_drawn_as_given_and_those_without_a_name_are_in_no_legend():
    ax = plots.plot_curves([0, 1, 2], {"_3": [5, 6, 7], "_4": [0, np.nan, 2]})
    assert ax.lines[0].get_xydata().tolist() == [[0, 5], [1, 6], [2, 7]]
    assert {line.get_linestyle() for line in ax.lines} == {"-"} and not ax.figure.legends
    assert legend(FIGURES["curves"]()) == ["a", "b", "half"]


def test_curves_of_several_seeds_have_a_band_from_the_lowest_to_the_highest():
    ax = plots.plot_curves([10, 20], {"a": [[1, 2], [3, 6]], "b": [[0, 0], [0, 0]]}, markers=True)
    assert ax.lines[0].get_xydata().tolist() == [[10, 2], [20, 4]]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.tolist()} == {(10, 1), (20, 2), (20, 6), (10, 3)}


def test_the_kept_epoch_is_that_of_the_best_score():
    ax = FIGURES["history"]()
    assert ax.lines[-1].get_xdata()[0] == 3 and legend(ax) == ["training", "validation", "epoch that is kept"]


def test_panels_share_one_legend_and_are_labelled_at_the_edge_only():
    axes = plots.panels(2, 2)
    for ax in axes:
        plots.plot_history(HISTORY, ax=ax)
    assert legend(axes[0]) == ["training", "validation", "epoch that is kept"]
    assert [ax.get_xlabel() for ax in axes] == ["", "", "epoch", "epoch"]
    assert [ax.get_ylabel() for ax in axes] == ["loss", "", "loss", ""]
    axes = plots.panels(2, share="x")
    FIGURES["mel"](axes[0]), FIGURES["chroma"](axes[1])
    assert [ax.get_xlabel() for ax in axes] == ["", "time (s)"] and all(ax.get_ylabel() for ax in axes)


def test_panels_of_one_scale_share_a_colour_bar():
    axes = plots.panels(3, share="x")
    FIGURES["mel"](axes[0]), FIGURES["mel"](axes[1]), FIGURES["chroma"](axes[2])
    assert bars(axes[0]) == ["power (dB re maximum)", "strength (1 = strongest)"]
    axes[0].figure.canvas.draw()
    places = [ax.get_position() for ax in axes]
    assert len({(place.x0, place.x1) for place in places}) == 1  # one time axis
    bar = axes[0].figure.axes[-2].get_position()
    assert bar.y0 < places[1].y1 and bar.y1 > places[0].y0  # beside both


def test_a_logarithmic_axis_has_plain_numbers():
    ax = plots.log_x(plots.plot_curves([20, 3000], {"_": [0, 1]}))
    ax.figure.canvas.draw()
    assert {"50", "1,000", "2,000"} <= set(texts(ax.get_xticklabels()))
    assert plots.log_x(FIGURES["curves"](), [33, 342]).get_xticks().tolist() == [33, 342]


def test_mel_bands_are_equally_high_and_frequencies_below_500_hz_are_named():
    ax = FIGURES["mel"]()
    assert {"250", "500", "1000", "8000"} <= set(texts(ax.get_yticklabels()))
    heights = np.diff(ax.yaxis.get_transform().transform(ax.collections[0].get_coordinates()[:, 0, 1]))
    assert np.allclose(heights, heights[0]) and len(heights) == 128
    assert plots.plot_mel(np.zeros((1025, 4)), scale="linear").get_yscale() == "linear"


def test_all_twelve_pitch_classes_are_named():
    assert texts(FIGURES["chroma"]().get_yticklabels()) == "C C# D D# E F F# G G# A A# B".split()


def test_beat_synchronous_data_is_drawn_in_seconds():
    ax = plots.plot_mel(RNG.uniform(-80, 0, (128, 4)), times=np.array([0, 5.0, 12, 20, 30]))
    assert ax.get_xlim() == pytest.approx((0, 30)) and "(s)" in ax.get_xlabel()


def test_raw_frames_end_at_the_clips_duration():
    assert plots.plot_mel(np.zeros((128, 1293))).get_xlim()[1] == pytest.approx(30.02, abs=0.02)


def test_beats_cross_the_whole_height_whatever_the_scale():
    ax = plots.mark_beats(FIGURES["mel"](), [1, 2])
    assert [path.vertices.tolist() for path in ax.collections[-1].get_paths()] == [[[1, 0], [1, 1]], [[2, 0], [2, 1]]]


def test_the_largest_class_is_on_top_with_its_number():
    ax = FIGURES["counts"]()
    assert texts(ax.get_yticklabels()) == ["Jazz", "Rock"] and texts(ax.texts) == ["5", "3"] and ax.yaxis_inverted()


def test_a_spread_shows_every_value_and_the_mean():
    ax = plots.plot_spread({"random": {"a": [1, 2, 6], "b": [0, 0, 3]}, "stratified": {"a": [3, 3], "b": [1, 1]}})
    dots = np.concatenate([dots.get_offsets() for dots in ax.collections])
    assert sorted(dots[:, 0]) == sorted([1, 2, 6, 0, 0, 3, 3, 3, 1, 1]) and texts(ax.get_yticklabels()) == ["a", "b"]
    means = {line.get_marker(): line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata())}
    assert means == {"o": [3, 1], "s": [3, 1]} and legend(ax) == ["random", "stratified"]


def test_histograms_count_all_values_and_mark_the_mean():
    axes = plots.plot_histograms({"energy": [0.0, 0.02, 1.0, 0.58], "valence": [0.5]}, unit="0 to 1")
    heights = [bar.get_height() for bar in axes[0].patches]
    assert len(heights) == 20 and heights[0] == 2 and heights[-1] == 1 and sum(heights) == 4
    assert axes[0].get_title() == "mean 0.40" and axes[0].lines[0].get_xdata()[0] == pytest.approx(0.4)


def test_a_confusion_matrix_shows_shares_as_colours_and_clips_as_numbers():
    ax = FIGURES["confusion"]()
    assert ax.collections[0].get_array().ravel().tolist() == [0.75, 0.25, 0, 1]
    assert texts(ax.texts) == ["3", "1", "", "4"] and texts(ax.get_yticklabels()) == ["a", "b"] and ax.yaxis_inverted()
    assert bars(ax) == ["share of the true genre"]


def test_estimates_stand_in_their_rows_the_first_on_top():
    ax = FIGURES["estimates"]()
    assert texts(ax.get_yticklabels()) == ["x", "z"] and ax.yaxis_inverted()
    assert ax.lines[0].get_xydata().tolist() == [[0.5, 0], [0.7, 1]]
    intervals = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert intervals == [[[each.low, y], [each.high, y]] for y, each in enumerate(ESTIMATES.values())]
    assert ax.lines[1].get_xydata().tolist() == [[0.2, 0]]
    assert legend(ax) == ["here, with 95 % interval", "the report, on its own data", "majority", "chance"]


def test_points_of_other_classes_are_grey():
    ax = plots.plot_latent(np.eye(4)[:, :2], np.arange(4), list("abcd"), shown=["d", "b"])
    assert ax.lines[-1].get_xydata().tolist() == [[1, 0], [0, 0]] and legend(ax) == ["d", "b", "any other"]
    assert ax.collections[0].get_offsets().tolist() == [[0, 1], [0, 0]]


def test_maps_share_one_symmetric_scale():
    stack = np.stack([np.full((3, 3), -2.0), np.full((3, 3), 1.0)])
    axes = plots.plot_maps({"activations": stack, "gradients": torch.tensor(stack / 10)}, title="x")
    first, second = (image for ax in axes for image in ax.get_images())
    assert first.get_clim() == (-2, 2) and second.get_clim() == (-0.2, 0.2) and len(bars(axes[0])) == 2
    assert first.get_array()[:3, :7].filled(0).tolist() == [[-2, -2, -2, 0, 1, 1, 1]] * 3  # a gap between the two
    assert [ax.get_title() for ax in axes] == ["activations", "gradients"]


def test_tiles_below_zero_are_marked_in_grey_too_on_the_axis_of_the_mel_spectrogram():
    ax, mel = plots.plot_occlusion(np.array([[1.0, -1.0], [0.0, -0.1]]), 10), FIGURES["mel"]()
    ((seconds, hertz),) = ax.lines[0].get_xydata().tolist()
    assert seconds == 7.5 and hertz == mel.collections[0].get_coordinates()[32, 0, 1]  # of the 64 bands below
    assert ax.get_xlim() == (0, 10) and ax.get_ylim() == mel.get_ylim()
    assert ax.get_yticks().tolist() == mel.get_yticks().tolist()


def test_probabilities_stand_where_their_windows_are():
    ax = FIGURES["probabilities"]()
    assert ax.collections[0].get_coordinates()[0, :, 0].tolist() == [0, 2, 5]
    assert texts(ax.get_yticklabels()) == ["a", "b", "c"] and ax.yaxis_inverted()


def test_show_attaches_the_alternative_text(monkeypatch):
    shown = {}
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.update(metadata))
    ax = FIGURES["loss"]()
    ax.axhline(0.5, label="guessing")
    plots.show(ax, alt="The loss falls.")
    assert shown == {"image/png": {"alt": "The loss falls."}} and not plt.get_fignums()
    assert legend(ax) == ["guessing"]  # what was added later


def test_save_writes_a_whole_png_into_a_new_folder_and_closes_the_figure(tmp_path):
    plots.save(FIGURES["loss"](), tmp_path / "new" / "loss.png")
    assert (tmp_path / "new" / "loss.png").read_bytes().startswith(b"\x89PNG") and not plt.get_fignums()
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_the_player_is_small_and_playable_everywhere():
    html = plots.player(np.sin(np.arange(22050 * 10) / 10).astype(np.float32), "a sine").data
    assert '<audio controls src="data:audio/mpeg;base64,' in html and "a sine" in html and len(html) < 250_000

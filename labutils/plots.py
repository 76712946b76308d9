"""Every figure of the notebooks.

Functions draw into `ax` (or a new figure), label units and return the Axes; they never show anything. `show` puts a
figure into the notebook with its alternative text, `player` a sound.
"""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .audio import HOP_LENGTH, SAMPLE_RATE, frame_times

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe and Ito (2008)
MARKERS = "osD^vP*XhdpH<>8"


def show(figure, alt: str) -> None:
    """Show a figure (or the figure of an Axes) in the notebook with its alternative text. All notebooks."""
    from IPython.display import display

    figure = figure if isinstance(figure, Figure) else np.ravel(figure)[0].figure
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def player(samples: np.ndarray, title: str = ""):
    """A player for float32 [N] in [-1, 1] at 22,050 Hz, as MP3 so that a saved notebook stays small. Notebook 01."""
    import soundfile
    from IPython.display import HTML, Audio

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, format="MP3")
    audio = Audio(file.getvalue(), rate=SAMPLE_RATE)
    audio.mimetype = "audio/mpeg"
    return HTML(f"<figure><figcaption>{title}</figcaption>{audio._repr_html_()}</figure>")


def _axes(ax, figsize=(8, 3)):
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def plot_mel(mel, *, times=None, ax=None, title=None):
    """Log-mel spectrogram [128, T] in dB, frequency in Hz up, time in seconds to the right. Notebook 01.

    `times`: edges of the columns in seconds [T + 1]; default: frames of 23.2 ms.
    """
    from librosa.display import specshow

    ax = _axes(ax)
    times = frame_times(mel.shape[1]) if times is None else times
    image = specshow(
        mel, x_coords=times, x_axis="time", y_axis="mel", sr=SAMPLE_RATE, hop_length=HOP_LENGTH, ax=ax,
        cmap="magma", vmin=-80, vmax=0,
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="power (dB below maximum)")
    ax.set(title=title, xlabel="time (s)", ylabel="frequency (Hz)")
    return ax


def plot_chroma(chroma, *, times=None, ax=None, title=None):
    """Chromagram [12, T] in [0, 1], pitch classes up, time in seconds to the right. Notebook 03."""
    from librosa.display import specshow

    ax = _axes(ax)
    times = frame_times(chroma.shape[1]) if times is None else times
    image = specshow(
        chroma, x_coords=times, x_axis="time", y_axis="chroma", sr=SAMPLE_RATE, hop_length=HOP_LENGTH, ax=ax,
        cmap="cividis", vmin=0, vmax=1,
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="strength (1 = strongest)")
    ax.set(title=title, xlabel="time (s)", ylabel="pitch class")
    return ax


def plot_counts(counts: dict[str, int], *, ax=None, title=None, color=COLORS[0]):
    """Histogram of clips per class, largest first, with the numbers. Notebook 04."""
    ax = _axes(ax, (8, 0.28 * len(counts) + 1))
    names = sorted(counts, key=counts.get)
    bars = ax.barh(names, [counts[name] for name in names], color=color)
    ax.bar_label(bars, padding=3)
    ax.set(title=title, xlabel="clips", ylabel="genre")
    ax.margins(x=0.1)
    return ax


def plot_loss(losses, *, ax=None, title=None, label=None, color=COLORS[0]):
    """Loss of each training step, logarithmic. Notebook 05."""
    ax = _axes(ax, (6, 3))
    ax.semilogy(np.arange(1, len(losses) + 1), losses, color=color, label=label)
    ax.set(title=title, xlabel="step", ylabel="loss (log scale)")
    return ax


def plot_history(history: list[dict], *, ax=None, title=None, ylabel="loss"):
    """Learning curves: training and validation loss per epoch, the kept epoch marked. Notebook 05."""
    ax = _axes(ax, (5, 3))
    epochs = [row["epoch"] for row in history]
    best = max(history, key=lambda row: row["val_score"])
    ax.plot(epochs, [row["train_loss"] for row in history], color=COLORS[0], marker="o", ms=3, label="training")
    ax.plot(epochs, [row["val_loss"] for row in history], color=COLORS[1], marker="s", ms=3, label="validation")
    ax.axvline(best["epoch"], color=COLORS[7], ls=":", label=f"kept: epoch {best['epoch']}")
    ax.set(title=title, xlabel="epoch", ylabel=ylabel)
    ax.legend(fontsize="small")
    return ax


def plot_confusion(counts, classes, *, ax=None, title=None):
    """Confusion matrix [C, C]: colour is the share of the true class, the number the clips. Notebook 06."""
    ax = _axes(ax, (0.55 * len(classes) + 2, 0.5 * len(classes) + 1))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if share[row, column] > 0.5 else "black"
        ax.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize="small")
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(title=title, xlabel="predicted genre", ylabel="true genre")
    ax.figure.colorbar(image, ax=ax, label="share of the true genre")
    return ax


def plot_estimates(estimates: dict, *, references=None, line=None, ax=None, title=None, xlabel="macro F1"):
    """Estimates with their 95 % intervals, one row each. Notebook 06.

    `references`: figures of the report by row name, drawn as crosses; `line`: (value, label) of a vertical line such
    as the majority class or the best attainable rho.
    """
    ax = _axes(ax, (7, 0.38 * len(estimates) + 1.2))
    for y, (name, estimate) in enumerate(estimates.items()):
        ax.plot([estimate.low, estimate.high], [y, y], color=COLORS[0], lw=2)
        ax.plot(estimate.value, y, "o", color=COLORS[0], label="here, with 95 % interval" if y == 0 else None)
    for i, name in enumerate(name for name in references or {} if name in estimates):
        y = list(estimates).index(name)
        ax.plot(references[name], y, "x", color=COLORS[1], label="the report, on its own data" if i == 0 else None)
    if line:
        ax.axvline(line[0], color=COLORS[7], ls="--", label=line[1])
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.invert_yaxis()
    ax.set(title=title, xlabel=xlabel, ylabel="model")
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_truth(y_true, y_pred, *, ax=None, title=None, axis="value"):
    """Truth against prediction of one affect axis, with the diagonal. Notebook 08."""
    ax = _axes(ax, (4, 3.6))
    ax.plot([0, 1], [0, 1], color=COLORS[7], ls="--", label="perfect")
    ax.plot(y_true, y_pred, "o", ms=4, alpha=0.5, color=COLORS[0], label="clip")
    ax.set(title=title, xlabel=f"true {axis} (0 to 1)", ylabel=f"predicted {axis} (0 to 1)")
    ax.legend(fontsize="small")
    return ax


def plot_maps(maps, *, title=None, columns=8, cmap="RdBu_r"):
    """A grid of small images [C, H, W]: activations, gradients or filters, on one symmetric scale. Notebook 07."""
    maps = np.asarray(maps)
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, rows + 0.4), layout="constrained", squeeze=False)
    limit = float(np.abs(maps).max()) or 1.0
    for ax in axes.flat:
        ax.axis("off")
    for number, (ax, image) in enumerate(zip(axes.flat, maps)):
        drawn = ax.imshow(image, cmap=cmap, vmin=-limit, vmax=limit)
        ax.set_title(str(number), fontsize="x-small", pad=1)
    figure.colorbar(drawn, ax=axes, shrink=0.8, format="%.2g")
    figure.suptitle(title, fontsize="medium")
    return figure


def plot_latent(points, labels, classes, *, ax=None, title=None, method="PCA"):
    """Clips in two dimensions [N, 2], coloured and marked by class. Notebook 10."""
    ax = _axes(ax, (5, 4))
    for label, name in enumerate(classes):
        chosen = points[np.asarray(labels) == label]
        style = {"color": COLORS[label % len(COLORS)], "marker": MARKERS[label % len(MARKERS)]}
        ax.scatter(*chosen.T, s=18, alpha=0.8, label=name, **style)
    ax.set(title=title, xlabel=f"{method} 1 (no unit)", ylabel=f"{method} 2 (no unit)")
    ax.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_bands(x, curves: dict, *, line=None, ax=None, title=None, xlabel="", ylabel="Spearman's rho"):
    """Mean over seeds as a line, lowest to highest seed as a band: curves {name: [S, len(x)]}. Notebook 09."""
    ax = _axes(ax, (6, 3.6))
    for number, (name, values) in enumerate(curves.items()):
        values, color = np.asarray(values), COLORS[number % len(COLORS)]
        ax.plot(x, values.mean(axis=0), marker=MARKERS[number], color=color, label=name)
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)
    if line:
        ax.axhline(line[0], color=COLORS[7], ls="--", label=line[1])
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize="small")
    return ax

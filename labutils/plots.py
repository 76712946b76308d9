"""Every figure of the notebooks.

Functions draw into `ax` (or a new figure), label units and return the Axes; they never show anything. `show` puts a
figure into the notebook with its alternative text, `player` a sound.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .audio import HOP_LENGTH, SAMPLE_RATE, frame_times
from .store import whole_file

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#666666")  # Okabe, Ito; grey
MARKERS = "osD^vP*XhdpH<>8"
LINES = ("-", "--", "-.", ":")  # what colours say is said by lines and markers too: for print, and for weak eyes


def show(figure, alt: str) -> None:
    """Show a figure (or the figure of an Axes) in the notebook with its alternative text. All notebooks."""
    from IPython.display import Image, display

    figure = figure if isinstance(figure, Figure) else np.ravel(figure)[0].figure
    for ax in figure.axes:  # panels on common axes are labelled at the edge only
        if len(ax.get_shared_y_axes().get_siblings(ax)) > 1:
            ax.label_outer()
    display(Image(png(figure)), metadata={"image/png": {"alt": alt}})


def png(figure: Figure, *, crop: bool = True) -> bytes:
    """A figure as PNG, without its margins if `crop`; the figure is closed. All notebooks.

    The picture is stored with a palette of 256 colours: it looks the same and halves the saved notebook.
    """
    from PIL import Image as Pillow

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight" if crop else None)
    few = Pillow.open(drawn).convert("RGB").quantize(256, Pillow.Quantize.MAXCOVERAGE, dither=Pillow.Dither.NONE)
    few.save(small, "PNG", optimize=True)  # no colour of a scale is off by more than a few levels
    plt.close(figure)
    return small.getvalue()


def sound_url(samples: np.ndarray) -> str:
    """A sound, float32 [N] in [-1, 1] at 22,050 Hz, as the address of an MP3 that holds it. Notebook 01."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode()


def save(axes, path) -> None:
    """Write the figure of some Axes as a PNG file, in folders made for it, and close it. Notebook 10."""
    figure = np.ravel(axes)[0].figure
    with whole_file(Path(path)) as part:
        figure.savefig(part, format="png", dpi=120)
    plt.close(figure)


def player(samples: np.ndarray, title: str = ""):
    """A player for float32 [N] in [-1, 1] at 22,050 Hz, as MP3 so that a saved notebook stays small. Notebook 01."""
    from IPython.display import HTML

    # JupyterLab strips a <source> from notebooks that the reader has not run yet, but not the src of <audio>.
    title = html.escape(title)
    audio = f'<audio controls src="{sound_url(samples)}" aria-label="{title}" style="max-width: 100%"></audio>'
    return HTML(f'<figure style="margin: 0"><figcaption>{title}</figcaption>{audio}</figure>')


def panels(rows: int = 1, columns: int = 1, *, size=(8, 2.4), share: bool = True) -> np.ndarray:
    """Empty axes [rows * columns] in one figure, `size` inches each, on common axes if `share`. Notebook 01."""
    _, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), sharex=share, sharey=share, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    return axes.ravel()


def _axes(ax, figsize=(8, 3)):
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def plot_curves(x, curves: dict, *, ax=None, title=None, xlabel="time (s)", ylabel="strength (no unit)"):
    """Curves {name: [len(x)]} over one x; a name that begins with "_" gets no line in the legend. Notebook 01."""
    ax = _axes(ax)
    for number, (name, values) in enumerate(curves.items()):
        line = "-" if name.startswith("_") else LINES[number % len(LINES)]
        ax.plot(x, values, color=COLORS[number % len(COLORS)], ls=line, lw=1, label=name)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if any(not name.startswith("_") for name in curves):
        ax.legend(fontsize="small", loc="upper right")
    return ax


def mark_beats(ax, times, *, color="white"):
    """Vertical lines at `times` (s) across a picture over time. Notebook 02."""
    ax.vlines(times, *ax.get_ylim(), color=color, lw=0.8, ls="--")
    return ax


def plot_mel(mel, *, times=None, ax=None, title=None, scale="mel"):
    """Log-mel spectrogram [128, T] in dB, frequency in Hz up, time in seconds to the right. Notebook 01.

    `times`: edges of the columns in seconds [T + 1]; default: frames of 23.2 ms. `scale="linear"`: the rows are not
    mel bands but the bins of the STFT, [1025, T].
    """
    from librosa import hz_to_mel, mel_to_hz
    from librosa.display import specshow

    ax = _axes(ax)
    times = frame_times(mel.shape[1]) if times is None else times
    edges = np.linspace(0, SAMPLE_RATE / 2, len(mel) + 1)  # Hz, where one row ends and the next begins
    if scale == "mel":
        edges = mel_to_hz(hz_to_mel(SAMPLE_RATE / 2) * (np.arange(len(mel) + 1) + 0.5) / (len(mel) + 1))
    image = specshow(
        mel, x_coords=times, y_coords=edges, x_axis="time", y_axis=scale, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, ax=ax,
        cmap="magma", vmin=-80, vmax=0,
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="power (dB re maximum)")
    ax.set(title=title, xlabel="time (s)", ylabel="frequency (Hz)")
    return ax


def plot_chroma(chroma, *, times=None, ax=None, title=None):
    """Chromagram [12, T] in [0, 1], pitch classes up, time in seconds to the right. Notebook 03."""
    from librosa.display import specshow

    ax = _axes(ax)
    times = frame_times(chroma.shape[1]) if times is None else times
    image = specshow(
        chroma, x_coords=times, y_coords=np.arange(len(chroma) + 1) - 0.5, x_axis="time", y_axis="chroma",
        sr=SAMPLE_RATE, hop_length=HOP_LENGTH, ax=ax,
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


def plot_batch(batch, *, ax=None, title=None, xlabel="frame"):
    """A padded batch [B, T, F] as an image: mean over the features in dB, one clip a row. Notebook 04."""
    ax = _axes(ax, (8, 0.08 * len(batch.x) + 1.4))
    image = ax.imshow(batch.x.mean(dim=2), aspect="auto", cmap="magma", interpolation="nearest", origin="upper")
    ax.figure.colorbar(image, ax=ax, label="mean level (dB)")
    ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    ax.set(title=title, xlabel=xlabel, ylabel="clip in the batch")
    return ax


def plot_spread(values: dict, *, ax=None, title=None, xlabel="", ylabel="", label=None, color=COLORS[0], offset=0.0):
    """Repeated measurements {name: [R]}, one row each: every value a dot, the mean a bar. Notebook 04."""
    ax = _axes(ax, (7, 0.38 * len(values) + 1.2))
    marker = MARKERS[COLORS.index(color)]
    for y, numbers in enumerate(values.values()):
        ax.plot(numbers, np.full(len(numbers), y + offset), marker, ls="", ms=4, alpha=0.25, mew=0, color=color)
        ax.plot(np.mean(numbers), y + offset, "|", ms=12, mew=2, color=color, label=label if y == 0 else None)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(len(values) - 0.4, -0.6))
    if label:
        ax.legend(title="mean of", fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_histograms(values: dict, *, title=None, unit=""):
    """Histograms side by side {name: [N]}, on the same axes, the mean marked. Notebook 04."""
    figure, axes = plt.subplots(
        1, len(values), figsize=(3.2 * len(values), 2.6), sharey=True, layout="constrained", squeeze=False
    )
    for ax, (name, numbers) in zip(axes.flat, values.items()):
        ax.hist(numbers, bins=np.linspace(0, 1, 21), color=COLORS[0])
        ax.axvline(np.mean(numbers), color=COLORS[1], ls="--")
        ax.set(title=f"mean {np.mean(numbers):.2f} (dashed)", xlabel=f"{name} ({unit})", ylabel="clips")
    figure.suptitle(title)
    return figure


def plot_loss(losses, *, ax=None, title=None, label=None, color=COLORS[0]):
    """Loss of each training step, logarithmic. Notebook 05."""
    ax = _axes(ax, (6, 3))
    ax.semilogy(np.arange(1, len(losses) + 1), losses, color=color, label=label)
    ax.set(title=title, xlabel="step", ylabel="loss (nats, log scale)")
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


def plot_estimates(estimates: dict, *, references=None, line=None, ax=None, title=None, xlabel="macro F1",
                   ylabel="model"):  # fmt: skip
    """Estimates with their 95 % intervals, one row each. Notebook 06.

    `references`: figures of the report by row name, drawn as crosses; `line`: (value, label) of a vertical line such
    as the majority class or the best attainable rho.
    """
    ax = _axes(ax, (7, 0.38 * len(estimates) + 1.2))
    for y, estimate in enumerate(estimates.values()):
        ax.plot([estimate.low, estimate.high], [y, y], color=COLORS[0], lw=2)
        ax.plot(estimate.value, y, "o", color=COLORS[0], label="here, with 95 % interval" if y == 0 else None)
    for i, name in enumerate(name for name in references or {} if name in estimates):
        y = list(estimates).index(name)
        ax.plot(references[name], y, "x", color=COLORS[1], label="the report, on its own data" if i == 0 else None)
    if line:
        ax.axvline(line[0], color=COLORS[7], ls="--", label=line[1])
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.set_ylim(len(estimates) - 0.5, -0.5)  # the first row on top
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
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


def plot_maps(maps, *, ax=None, title=None, columns=8):
    """Small images [C, H, W] side by side, activations, gradients or filters, on one symmetric scale. Notebook 07."""
    maps = np.asarray(maps)
    count, height, width = maps.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    gap = max(1, width // 6)  # pixels between the images
    mosaic = np.full((rows * (height + gap), columns * (width + gap)), np.nan)
    ax = _axes(ax, (columns + 1, rows * height / width + 0.5))
    for number, image in enumerate(maps):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        mosaic[y : y + height, x : x + width] = image
        ax.text(x - 0.5, y - 0.6, number, fontsize="x-small", va="bottom")
    limit = float(np.abs(maps).max()) or 1.0
    drawn = ax.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.axis("off")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.8, format="%.2g")
    ax.set_title(title, fontsize="medium", pad=12)
    return ax


def plot_occlusion(fall, seconds, *, ax=None, title=None):
    """Fall of a genre's log odds [bands, steps] when a tile of the mel spectrogram is covered. Notebook 07."""
    ax = _axes(ax)
    limit = float(np.abs(fall).max()) or 1.0
    image = ax.imshow(
        fall, origin="lower", aspect="auto", extent=(0, seconds, 0, 128), cmap="RdBu_r", vmin=-limit, vmax=limit
    )
    rows, columns = np.nonzero(fall < -limit / 4)  # in grey print the two sides of the scale look alike
    centres = (columns + 0.5) * seconds / fall.shape[1], (rows + 0.5) * 128 / fall.shape[0]
    ax.plot(*centres, "_", color="black")
    ax.figure.colorbar(image, ax=ax, label="fall (nats; bar: a rise)")
    ax.set(title=title, xlabel="time (s)", ylabel="mel band")
    return ax


def plot_probabilities(edges, probabilities, classes, *, ax=None, title=None):
    """Genre probabilities [W, C] of windows that meet at `edges` (s) [W + 1], the first class on top. Notebook 10."""
    ax = _axes(ax, (9, 0.25 * len(classes) + 1.2))
    image = ax.pcolormesh(edges, np.arange(len(classes) + 1) - 0.5, np.asarray(probabilities).T, vmin=0, vmax=1)
    image.set_cmap("cividis")
    ax.figure.colorbar(image, ax=ax, label="probability")
    ax.set_yticks(range(len(classes)), classes)
    ax.yaxis.set_inverted(True)
    ax.set(title=title, xlabel="time (s)", ylabel="genre")
    return ax


def plot_latent(points, labels, classes, *, ax=None, title=None, method="PCA"):
    """Clips in two dimensions [N, 2], coloured and marked by class. Notebook 10."""
    ax = _axes(ax, (5, 4))
    for label, name in enumerate(classes):
        chosen = points[np.asarray(labels) == label]
        color, again = COLORS[label % len(COLORS)], label >= len(COLORS)  # then hollow, with another marker
        style = {"marker": MARKERS[(label + again) % len(MARKERS)], "edgecolors": color}
        style["facecolors"] = "none" if again else color
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

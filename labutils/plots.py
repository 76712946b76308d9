"""Every figure of the notebooks.

Functions draw into `ax` (or a new figure), label units and return the Axes; they never show anything. `look`: a title,
other labels, and what else `Axes.set` takes. `show` puts a figure into the notebook with its alternative text, `player`
a sound. A figure has one legend, below its panels, and one colour bar for all panels of one scale.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from .audio import NUM_MELS, SAMPLE_RATE, frame_times
from .files import whole_file

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#666666")  # Okabe, Ito; grey
MARKERS = tuple("osD^vP*XhdpH<>8")  # what colours say is said by markers and dashes too: for print, and for weak eyes
DASHES = ("", (4, 2), (6, 2, 1, 2), (1, 1.5))
NOTES = "C C# D D# E F F# G G# A A# B".split()
# of our figures only: matplotlib's own settings stay as they are
THEME = sns.axes_style("ticks") | sns.plotting_context("paper")
THEME |= {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.5}


def show(figure, alt: str) -> None:
    """Show a figure (or the figure of an Axes) in the notebook with its alternative text. All notebooks."""
    from IPython.display import Image, display

    figure = figure if isinstance(figure, Figure) else np.ravel(figure)[0].figure
    _finish(figure.axes[0], {})  # with what the notebook added
    display(Image(png(figure)), metadata={"image/png": {"alt": alt}})


def png(figure: Figure, *, crop: bool = True) -> bytes:
    """A figure as PNG, without its margins if `crop`; the figure is closed. For `show` and `save`.

    The picture is stored with a palette of 256 colours: it looks the same and halves the saved notebook.
    """
    from PIL import Image as Pillow

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight" if crop else None)
    few = Pillow.open(drawn).convert("RGB").quantize(256, Pillow.Quantize.MAXCOVERAGE, dither=Pillow.Dither.NONE)
    few.save(small, "PNG", optimize=True)  # no colour of a scale is off by more than a few levels
    plt.close(figure)
    return small.getvalue()


def save(axes, path) -> None:
    """Write the figure of some Axes as a PNG file, in folders made for it, and close it. For `draw`."""
    with whole_file(Path(path)) as part:
        part.write_bytes(png(np.ravel(axes)[0].figure))


def sound_url(samples: np.ndarray) -> str:
    """A sound, float32 [N] in [-1, 1] at 22,050 Hz, as the address of an MP3 that holds it. For `player`."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode()


def player(samples: np.ndarray, title: str = ""):
    """A player for float32 [N] in [-1, 1] at 22,050 Hz, as MP3 so that a saved notebook stays small. Notebook 01."""
    from IPython.display import HTML

    # JupyterLab strips a <source> from notebooks that the reader has not run yet, but not the src of <audio>.
    title = html.escape(title)
    audio = f'<audio controls src="{sound_url(samples)}" aria-label="{title}" style="max-width: 100%"></audio>'
    return HTML(f'<figure style="margin: 0"><figcaption>{title}</figcaption>{audio}</figure>')


def panels(rows: int = 1, columns: int = 1, *, size=(8, 3), share: bool | str = True) -> np.ndarray:
    """Empty axes [rows * columns], `size` inches each, on common axes if `share` ("x": x axis only). Notebook 01."""
    options = {"sharex": bool(share), "sharey": share is True, "squeeze": False, "layout": "constrained"}
    with plt.rc_context(THEME):
        return plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), **options)[1].ravel()


def _finish(ax, look: dict, **usual):
    """Label some Axes; give their figure one legend, below, and its panels on common axes no labels in between."""
    ax.set(**usual | look)
    figure, named = ax.figure, {}
    for panel in figure.axes:
        named |= {label: line for line, label in zip(*panel.get_legend_handles_labels())}
        if len(panel.get_shared_x_axes().get_siblings(panel)) > 1 and not panel.get_subplotspec().is_last_row():
            panel.set_xlabel("")
        if len(panel.get_shared_y_axes().get_siblings(panel)) > 1 and not panel.get_subplotspec().is_first_col():
            panel.set_ylabel("")
    for legend in filter(None, [*figure.legends, *(panel.get_legend() for panel in figure.axes)]):
        legend.remove()
    if named:
        width, widths = figure.get_figwidth(), [0.5 + 0.06 * len(label) for label in named]  # inches
        columns = len(named) if sum(widths) < width else max(int(width / max(widths)), 1)
        style = {"loc": "outside lower center", "ncols": columns, "fontsize": "small", "frameon": False}
        figure.legend(named.values(), named, **style)
    return ax


def _bar(image, label: str = "", **style) -> None:
    """A colour bar for an image: one for all panels of the figure that show the same quantity on the same scale."""
    image.set_label(f"_{label}")  # in no legend
    drawn = [other for ax in image.figure.axes for other in (*ax.images, *ax.collections)]
    same = [other for other in drawn if (other.get_label(), other.get_clim()) == (f"_{label}", image.get_clim())]
    for other in same:
        if other.colorbar:
            other.colorbar.remove()
    style |= {"ax": [other.axes for other in same], "aspect": 8 * image.figure.get_figheight()}  # 1/8 inch wide
    with plt.rc_context(THEME):
        image.figure.colorbar(image, label=label, **style).outline.set_visible(False)


def log_x(ax, ticks=None):
    """Make the x axis logarithmic, with plain numbers at `ticks`, or at 1, 2, 5, 10, 20, ... Notebook 01."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if ticks is None else FixedLocator(ticks))
    ax.xaxis.set(minor_locator=NullLocator(), major_formatter="{x:,g}")
    return ax


def plot_curves(x, curves: dict, *, markers=False, line=None, ax=None, **look):
    """Curves {name: [X]} over x [X]; of [S, X] the mean, with a band from the lowest to the highest. Notebook 01.

    A name that begins with "_" is not in the legend. `markers`: at the points; `line`: (value in the unit of the
    curves, label) of a horizontal line.
    """
    ax, number = ax or panels()[0], len(curves)
    table = pd.DataFrame({name: np.ravel(values) for name, values in curves.items()})
    table.index, several = np.resize(x, len(table)), len(table) > len(x)
    style = {"estimator": "mean", "errorbar": ("pi", 100)} if several else {"estimator": None}
    style["dashes"] = (DASHES * number)[:number] if all(name[0] != "_" for name in curves) else False
    style["markers"] = MARKERS[:number] if markers else None
    sns.lineplot(table, palette=(COLORS * number)[:number], lw=1.2, ax=ax, **style)
    if line:
        ax.axhline(line[0], color=COLORS[7], ls="--", lw=1, label=line[1])
    return _finish(ax, look, xlabel="time (s)", ylabel="strength (no unit)")


def plot_loss(losses, *, ax=None, **look):
    """Loss of each training step, in nats, logarithmic. Notebook 05."""
    ax = ax or panels(size=(6, 3))[0]
    ax.semilogy(np.arange(1, len(losses) + 1), losses, color=COLORS[0], lw=1)
    return _finish(ax, look, xlabel="step", ylabel="loss (nats, log scale)")


def plot_history(history: list[dict], *, ax=None, **look):
    """Learning curves: training and validation loss per epoch, the kept epoch marked. Notebook 05."""
    table = pd.DataFrame(history).set_index("epoch")
    curves = {"training": table["train_loss"], "validation": table["val_loss"]}
    ax = plot_curves(table.index, curves, markers=True, ax=ax or panels(size=(5, 3))[0])
    ax.axvline(table["val_score"].idxmax(), color=COLORS[7], ls=":", label="epoch that is kept")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(ax, look, xlabel="epoch", ylabel="loss")


def mark_beats(ax, times, *, color="white"):
    """Vertical lines at `times` (s) across a picture over time. Notebook 02."""
    ax.vlines(times, 0, 1, transform=ax.get_xaxis_transform(), color=color, lw=0.8, ls="--")
    return ax


def _mel_axis(ax, num_bands: int = NUM_MELS) -> np.ndarray:
    """Make all mel bands equally high on a frequency axis; returns their edges in Hz [num_bands + 1]."""
    from librosa import hz_to_mel, mel_to_hz

    ax.set_yscale("function", functions=(hz_to_mel, mel_to_hz))
    ax.set_yticks([250, 500, 1000, 2000, 4000, 8000])
    ax.set_yticks([*range(100, 1000, 100), *range(1000, 11001, 1000)], minor=True)
    return mel_to_hz(hz_to_mel(SAMPLE_RATE / 2) * (np.arange(num_bands + 1) + 0.5) / (num_bands + 1))


def plot_mel(mel, *, times=None, scale="mel", ax=None, **look):
    """Log-mel spectrogram [128, T] in dB, frequency in Hz up, time in seconds to the right. Notebook 01.

    `times`: edges of the columns in seconds [T + 1]; default: frames of 23.2 ms. `scale="linear"`: the rows are not
    mel bands but the bins of the STFT, [1025, T].
    """
    ax = ax or panels()[0]
    times = frame_times(mel.shape[1]) if times is None else times
    edges = _mel_axis(ax, len(mel)) if scale == "mel" else np.linspace(0, SAMPLE_RATE / 2, len(mel) + 1)
    _bar(ax.pcolormesh(times, edges, mel, cmap="magma", vmin=-80, vmax=0), "power (dB re maximum)")
    return _finish(ax, look, xlabel="time (s)", ylabel="frequency (Hz)")


def plot_chroma(chroma, *, times=None, ax=None, **look):
    """Chromagram [12, T] in [0, 1], pitch classes up, time in s to the right; `times` as in `plot_mel`. Notebook 03."""
    ax = ax or panels()[0]
    times = frame_times(chroma.shape[1]) if times is None else times
    image = ax.pcolormesh(times, np.arange(13) - 0.5, chroma, cmap="cividis", vmin=0, vmax=1)
    _bar(image, "strength (1 = strongest)")
    ax.set_yticks(range(12), NOTES, fontsize="x-small")
    return _finish(ax, look, xlabel="time (s)", ylabel="pitch class")


def plot_batch(batch, *, ax=None, **look):
    """A padded batch [B, T, F] as an image: mean over the features in dB, one clip a row. Notebook 04."""
    ax = ax or panels(size=(8, 0.08 * len(batch.x) + 1.4))[0]
    _bar(ax.imshow(batch.x.mean(dim=2).numpy(), aspect="auto", cmap="magma", interpolation="none"), "mean level (dB)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(ax, look, xlabel="frame", ylabel="clip in the batch")


def plot_counts(counts: dict[str, int], *, ax=None, **look):
    """Bars of the clips per class, largest first, with the numbers. Notebook 04."""
    ax, bars = ax or panels(size=(8, 0.28 * len(counts) + 1))[0], pd.Series(counts).sort_values(kind="stable")
    sns.barplot(bars[::-1], orient="h", color=COLORS[0], saturation=1, ax=ax)
    ax.bar_label(ax.containers[0], padding=3, fontsize="small")
    return _finish(ax, look, xlabel="clips", ylabel="genre")


def plot_spread(values: dict, *, ax=None, **look):
    """Repeated measurements {series: {name: [R]}}: a row for each name, each value a dot, means larger. Notebook 04."""
    table = pd.DataFrame(values).melt(ignore_index=False).explode("value").reset_index(names="name")
    table, number = table.astype({"value": float}), len(values)
    ax = ax or panels(size=(7, 0.38 * table["name"].nunique() + 1.4))[0]
    where = {"x": "value", "y": "name", "hue": "variable", "palette": COLORS[:number], "ax": ax}
    mean = {"errorbar": None, "linestyle": "none", "markers": list(MARKERS[:number]), "markersize": 5}
    sns.stripplot(table, **where, dodge=True, jitter=0.15, size=3, alpha=0.3, legend=False)
    sns.pointplot(table, **where, dodge=0.8 - 0.8 / number, **mean)
    return _finish(ax, look, xlabel="", ylabel="")


def plot_histograms(values: dict, *, title=None, unit=""):
    """Histograms side by side {name: [N]}, from 0 to 1 on the same axes, the mean marked: Axes. Notebook 04."""
    axes = panels(1, len(values), size=(3.2, 2.6))
    for ax, (name, numbers) in zip(axes, values.items()):
        sns.histplot(x=np.asarray(numbers), bins=20, binrange=(0, 1), color=COLORS[0], alpha=1, ec="white", ax=ax)
        ax.axvline(np.mean(numbers), color=COLORS[1], ls="--", label="mean")
        _finish(ax, {}, title=f"mean {np.mean(numbers):.2f}", xlabel=f"{name} ({unit})", ylabel="clips")
    axes[0].figure.suptitle(title)
    return axes


def plot_confusion(counts, classes, *, ax=None, **look):
    """Confusion matrix [C, C]: colour is the share of the true class, the number the clips. Notebook 06."""
    ax = ax or panels(size=(0.55 * len(classes) + 2, 0.5 * len(classes) + 1))[0]
    share = pd.DataFrame(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), classes, classes)
    text = {"annot": np.where(counts, counts.astype(str), ""), "fmt": "", "annot_kws": {"fontsize": "small"}}
    sns.heatmap(share, cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=0.5, linecolor="0.9", ax=ax, **text)
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    plt.setp(ax.get_yticklabels(), rotation=0)
    _bar(ax.collections[0], "share of the true genre")
    return _finish(ax, look, xlabel="predicted genre", ylabel="true genre")


def plot_estimates(estimates: dict, *, references=None, line=None, band=None, ax=None, **look):
    """Estimates with their 95 % intervals, one row each, in the unit of the x axis. Notebook 06.

    `references`: figures of the report by row name, drawn as crosses; `line`: (value, label) of a vertical line such
    as the majority class or the best attainable rho; `band`: (low, high, label) of a grey one such as that of chance.
    """
    ax = ax or panels(size=(7, 0.34 * len(estimates) + 1.4))[0]
    rows, every = range(len(estimates)), estimates.values()
    ax.hlines(rows, [each.low for each in every], [each.high for each in every], color=COLORS[0], lw=2)
    ax.plot([each.value for each in every], rows, "o", color=COLORS[0], label="here, with 95 % interval")
    if crosses := {y: references[name] for y, name in enumerate(estimates) if name in (references or {})}:
        ax.plot([*crosses.values()], [*crosses], "x", color=COLORS[1], label="the report, on its own data")
    if line:
        ax.axvline(line[0], color=COLORS[7], ls="--", lw=1, label=line[1])
    if band:
        ax.axvspan(*band[:2], color=COLORS[7], alpha=0.2, lw=0, label=band[2])
    ax.set_yticks(rows, list(estimates))
    return _finish(ax, look, xlabel="macro F1", ylabel="model", ylim=(len(estimates) - 0.5, -0.5))  # first on top


def plot_truth(y_true, y_pred, *, axis="value", ax=None, **look):
    """Truth against prediction [N] of one affect axis, 0 to 1, with the diagonal. Notebook 08."""
    ax = ax or panels(size=(4, 3.6))[0]
    ax.plot([0, 1], [0, 1], color=COLORS[7], ls="--", label="perfect")
    sns.scatterplot(x=y_true, y=y_pred, s=20, alpha=0.5, color=COLORS[0], label="clip", ax=ax)
    return _finish(ax, look, xlabel=f"true {axis} (0 to 1)", ylabel="prediction (0 to 1)")


def plot_latent(points, labels, classes, *, shown=None, method="PCA", ax=None, **look):
    """Clips in two dimensions [N, 2], coloured and marked by class; all but the names in `shown` grey. Notebook 10."""
    ax, shown = ax or panels(size=(6, 4.2))[0], list(shown or classes)
    table = pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "genre": np.asarray(classes)[np.asarray(labels)]})
    rest, number = ~table["genre"].isin(shown), len(shown)
    style = {"palette": (COLORS * number)[:number], "markers": MARKERS[:number], "s": 30, "linewidth": 0.4}
    kinds = {"hue": "genre", "hue_order": shown, "style": "genre", "style_order": shown}
    sns.scatterplot(table[~rest], x="x", y="y", ax=ax, **kinds, **style)
    if rest.any():
        ax.plot(table["x"][rest], table["y"][rest], "o", ms=3, mew=0, color="0.75", zorder=0, label="any other")
    return _finish(ax, look, xlabel=f"{method} 1 (no unit)", ylabel=f"{method} 2 (no unit)")


def plot_maps(stacks: dict, *, title=None, columns=8):
    """Small images {name: [C, H, W]}, activations, gradients or filters: Axes, a symmetric scale each. Notebook 07."""
    count, height, width = next(iter(stacks.values())).shape
    columns, gap = min(columns, count), max(1, width // 6)  # pixels between the images
    rows = -(-count // columns)
    axes = panels(len(stacks), size=(columns + 1, rows * height / width + 0.5), share=False)
    for ax, (name, maps) in zip(axes, stacks.items()):
        mosaic, limit = np.full((rows * (height + gap), columns * (width + gap)), np.nan), float(abs(maps).max()) or 1.0
        for number, image in enumerate(maps):
            y, x = number // columns * (height + gap), number % columns * (width + gap)
            mosaic[y : y + height, x : x + width] = image
            ax.text(x - 0.5, y - 0.6, number, fontsize="x-small", va="bottom")
        _bar(ax.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none"), shrink=0.8, format="%.2g")
        ax.axis("off")
        ax.set_title(name, pad=12)
    axes[0].figure.suptitle(title)
    return axes


def plot_occlusion(fall, seconds, *, ax=None, **look):
    """Fall of a genre's log odds (nats) [bands, steps] when a tile of the mel spectrogram is covered. Notebook 07."""
    ax, limit, (bands, steps) = ax or panels()[0], float(np.abs(fall).max()) or 1.0, fall.shape
    times = np.linspace(0, seconds, 2 * steps + 1)  # s, of the tiles' edges and middles, as the frequencies in Hz
    frequencies = _mel_axis(ax)[NUM_MELS * np.arange(2 * bands + 1) // (2 * bands)]
    image = ax.pcolormesh(times[::2], frequencies[::2], fall, cmap="RdBu_r", vmin=-limit, vmax=limit)
    _bar(image, "fall (nats; bar: a rise)")
    rows, columns = np.nonzero(fall < -limit / 4)  # in grey print the two sides of the scale look alike
    ax.plot(times[1::2][columns], frequencies[1::2][rows], "_", color="black")
    return _finish(ax, look, xlabel="time (s)", ylabel="frequency (Hz)")


def plot_probabilities(edges, probabilities, classes, *, ax=None, **look):
    """Probabilities [W, C] of classes in windows that meet at `edges` (s) [W + 1], the first on top. Notebook 09."""
    ax = ax or panels(size=(9, 0.25 * len(classes) + 1.2))[0]
    rows = np.arange(len(classes) + 1) - 0.5
    _bar(ax.pcolormesh(edges, rows, np.transpose(probabilities), cmap="cividis", vmin=0, vmax=1), "probability")
    ax.set_yticks(range(len(classes)), classes)
    return _finish(ax, look, xlabel="time (s)", ylabel="genre", ylim=(len(classes) - 0.5, -0.5))

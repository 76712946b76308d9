"""What a run of notebooks leaves behind: `results.csv`, pages to read, and the tables at its end."""

from __future__ import annotations

import contextlib
import html
import math
import re
import sys
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd

from ..evaluation import REPORT, Estimate
from ..files import DataError, blame, read_json, save_json, save_text, seal
from .parameters import Notebook

ASSETS = Path(__file__).parent / "assets"
COLUMNS = ["notebook", "metric", "value", "ci_low", "ci_high", "n", "seed", "dataset"]
GENRE_ROWS = {  # of the picture of results
    "LSTM mel raw": "lstm.mel_raw", "LSTM mel beat": "lstm.mel_beat", "LSTM chroma raw": "lstm.chroma_raw",
    "LSTM chroma beat": "lstm.chroma_beat", "LSTM fused raw": "lstm.fused_raw", "LSTM fused beat": "lstm.fused_beat",
    "CNN mel raw": "cnn.mel_raw", "AST mel raw": "ast.mel_raw", "ensemble, raw": "ensemble.raw",
    "SVM, mel statistics": "baseline.mel_raw", "largest class": "majority", "pretrained network": "pretrained.msd",
}  # fmt: skip
AFFECT_ROWS = {
    "LSTM": "lstm.affect", "CNN": "cnn.affect", "AST": "ast.affect", "CNN from genres": "transfer.finetuned",
    "multitask": "multitask", "ensemble": "ensemble.affect", "SVR, fused statistics": "svr.affect",
    "ridge, fused statistics": "ridge.affect", "pretrained network": "pretrained.msd",
}  # fmt: skip
PICTURE = "Scores of all models with 95 % intervals, for genre and for each axis; crosses are the report's figures"
MISSING = Estimate(math.nan, math.nan, 0)
DEMO_NOTE = "Made from the procedural default data: these numbers say nothing about real music."


def write(notebooks: list[Notebook], out: Path) -> None:
    """Make `results.csv`, the HTML pages and `index.html` in OUT, then print what came out."""
    table, note = collect(out)
    save_text(out / "results.csv", table.to_csv(index=False))
    _write_pages(notebooks, out)
    draw(table, note, out / "results.png")
    rows = headlines(table)
    save_text(out / "index.html", _index(out, rows, note, len(table)))

    print("\nNotebooks\n" + "\n".join(f"  {state_line(notebook)}" for notebook in notebooks))
    if not rows.empty:
        print(f"\nResults beside the report's (real data)\n{rows.to_string(index=False)}")
    print(f"\n{note}".rstrip())
    for what in ("notebooks", "records", "results.csv", "results.png", "index.html"):
        if (out / what).exists():
            print(f"  {out / what}")


def states(out: Path) -> dict[str, dict]:
    """What became of each notebook in all runs into OUT, by name; none if the list is damaged: then they run again."""
    found = {}
    with contextlib.suppress(DataError), blame(out / "run.json", "remove it"):
        for name, state in read_json(out / "run.json", "remove it").items():
            found[name] = {key: str(state[key]) for key in ("state", "reason", "key", "sealed")}
            found[name]["seconds"] = float(state["seconds"])
    return found


def remember(notebook: Notebook, out: Path) -> None:
    """Add what became of a notebook to the list of OUT, where `--only` and the next run find it."""
    state = {"state": notebook.state, "seconds": round(notebook.seconds, 1), "reason": notebook.reason}
    state |= {"key": notebook.key, "sealed": _sealed(notebook, out)}
    save_json(out / "run.json", dict(sorted({**states(out), notebook.name: state}.items())))


def is_finished(notebook: Notebook, out: Path) -> bool:
    """Whether OUT holds the whole results of the same code, parameters and data."""
    state = states(out).get(notebook.name, {"state": ""})
    return state["state"] == "ok" and state["key"] == notebook.key and state["sealed"] == _sealed(notebook, out)


def _sealed(notebook: Notebook, out: Path) -> str:
    return " ".join([*seal(out / "notebooks" / notebook.path.name), *seal(out / "records" / f"{notebook.name}.json")])


def collect(out: Path) -> tuple[pd.DataFrame, str]:
    """All records in OUT as one table with the columns `COLUMNS`, and the sentence that must stand beside them.

    A record of a notebook that failed since, or one that is damaged, is left out; the damaged one is named.
    """
    rows, procedural, known = [], False, states(out)
    for path in sorted((out / "records").glob("*.json")):
        if known.get(path.stem, {"state": "ok"})["state"] != "ok":
            continue
        try:
            with blame(path, "run its notebook again"):
                record = read_json(path, "run its notebook again")
                data = record["dataset"]
                for metric in record["metrics"]:
                    numbers = {key: float("nan" if metric[key] is None else metric[key]) for key in COLUMNS[2:5]}
                    texts = {"notebook": str(record["notebook"]), "dataset": str(data["name"]), "seed": metric["seed"]}
                    rows.append({**texts, "metric": str(metric["metric"]), **numbers, "n": int(metric["n"])})
                procedural |= data["kind"] == "procedural"
        except DataError as error:
            print(f"warning: {error}", file=sys.stderr)
    return pd.DataFrame(rows, columns=COLUMNS), DEMO_NOTE if procedural else ""


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The metrics that the report gives as well: value, interval, the report's figure."""
    rows = []
    for row in table[table["metric"].isin(REPORT)].itertuples():
        interval = "" if pd.isna(row.ci_low) else f"[{row.ci_low:.2f}, {row.ci_high:.2f}]"
        rows.append((row.metric, f"{row.value:.2f}", interval, f"{REPORT[row.metric]:.2f}", row.dataset))
    return pd.DataFrame(rows, columns=["metric", "value", "95 % interval", "report", "data"])


def draw(table: pd.DataFrame, note: str, path: Path) -> None:
    """The picture of results: genre, and each affect axis, with intervals and the report's figures beside them."""
    from .. import plots  # takes a second

    found = {  # the interval is all that is known of the error
        row.metric: Estimate(row.value, math.inf, row.n, limits=(row.ci_low, row.ci_high)) for row in table.itertuples()
    }
    axes = [name.split(".")[2] for name in found if re.fullmatch(r"cnn\.affect\.(?!mean)[^.]+\.test\.spearman", name)]
    wanted = {"genre": ("macro F1", {row: f"{start}.test.macro_f1" for row, start in GENRE_ROWS.items()})}
    for axis in axes:
        rows = {row: f"{start}.{axis}.test.spearman" for row, start in AFFECT_ROWS.items()}
        wanted[axis] = ("Spearman's rho", rows)
    panels, references = {}, {}
    for title, (score, rows) in wanted.items():
        if any(name in found for name in rows.values()):  # a row without a value stays empty
            panels[title] = (score, {row: found.get(name, MISSING) for row, name in rows.items()})
            references[title] = {row: REPORT[name] for row, name in rows.items() if name in REPORT}
    path.unlink(missing_ok=True)
    if panels:
        plots.save(plot_results(panels, references, title=note), path)


def plot_results(panels: dict, references: dict, *, title=None):
    """Panels {title: (name of the score, {row: Estimate})} side by side, as `plot_estimates`; returns their Axes.

    `references`: figures of the report {title: {row: value}}.
    """
    from .. import plots

    size = (2.1 + 2.4 / len(panels), 0.3 * max(len(rows) for _, rows in panels.values()) + 1.4)  # inches
    axes, before = plots.panels(1, len(panels), size=size, share="x"), None
    for ax, (name, (score, rows)) in zip(axes, panels.items()):
        look = {"title": name.capitalize(), "xlabel": score, "ylabel": ""}
        plots.plot_estimates(rows, references=references.get(name), ax=ax, **look)
        ax.axvline(0, color=plots.COLORS[7], lw=0.8)
        ax.tick_params(labelleft=list(rows) != before)  # the same rows again: named once
        before = list(rows)
    axes[0].figure.suptitle(title)
    return axes


def state_line(notebook: Notebook) -> str:
    """State, name, seconds and, where something went wrong, the reason."""
    return f"{notebook.state:<8} {notebook.name:<24} {notebook.seconds:6.0f} s  {notebook.reason}".rstrip()


def failure(executed: Path, log: Path) -> str:
    """Which cell failed and why, from the executed notebook; else the last line of the log."""
    where = last = ""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError):  # not there, or cut off while it was written
        executed.unlink(missing_ok=True)
        cells = []
    for number, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        first_line = next(iter(cell.source.strip().splitlines()), "")
        for output in cell.outputs:
            if output.output_type == "error":
                message = (output.evalue.strip().splitlines() or [""])[0]
                return f"cell [{cell.execution_count or number}] {first_line!r}: {output.ename}: {message}"
        if cell.metadata.get("papermill", {}).get("status") == "running":
            where = f"in cell [{number}] {first_line!r}"
    if log.exists():
        text = re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace").strip())
        last = next((line.strip() for line in reversed(text) if line.strip() and "Executing:" not in line), "")
    return ": ".join(filter(None, [where, last])) or f"see {log}"


def _write_pages(notebooks: list[Notebook], out: Path) -> None:
    """HTML of what was executed; the "classic" template keeps the alternative text of figures."""
    from nbconvert import HTMLExporter

    exporter, darker = HTMLExporter(template_name="classic"), (ASSETS / "page.html").read_text(encoding="utf-8")
    for notebook in notebooks:
        executed = out / ("notebooks" if notebook.state == "ok" else "logs") / notebook.path.name
        if executed.exists():
            page = exporter.from_filename(str(executed))[0].replace("</head>", f"{darker}</head>", 1)
            save_text(out / "html" / f"{notebook.name}.html", page)


def _index(out: Path, rows: pd.DataFrame, note: str, num_metrics: int) -> str:
    table = []
    for name, state in states(out).items():
        link = html.escape(name)
        if (out / "html" / f"{name}.html").exists():
            link = f'<a href="html/{quote(name, safe="")}.html">{link}</a>'
        table.append([link, html.escape(state["state"]), f"{state['seconds']:.0f}", html.escape(state["reason"])])
    columns = ["notebook", "state", "seconds", "reason"]
    notebooks = pd.DataFrame(table, columns=columns).to_html(index=False, escape=False, border=0)
    picture = f'<img src="results.png" alt="{PICTURE}">' if (out / "results.png").exists() else ""
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    return page.format(
        notebooks=notebooks, note=note, picture=picture, headlines=rows.to_html(index=False, border=0),
        num_metrics=num_metrics,
    )  # fmt: skip

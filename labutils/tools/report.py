"""What a run of notebooks leaves behind: `results.csv`, pages to read, and the tables at its end."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import nbformat
import pandas as pd

from .. import plots
from ..evaluation import REPORT, Estimate
from ..store import save_text
from .parameters import Notebook

COLUMNS = ["notebook", "metric", "value", "ci_low", "ci_high", "n", "seed", "dataset"]
GENRE_ROWS = {  # of the picture of results
    "LSTM mel raw": "lstm.mel_raw", "LSTM mel beat": "lstm.mel_beat", "LSTM chroma raw": "lstm.chroma_raw",
    "LSTM chroma beat": "lstm.chroma_beat", "LSTM fused raw": "lstm.fused_raw", "LSTM fused beat": "lstm.fused_beat",
    "CNN mel raw": "cnn.mel_raw", "AST mel raw": "ast.mel_raw", "ensemble, raw": "ensemble.raw",
    "SVM, mel statistics": "baseline.mel_raw", "largest class": "majority",
}  # fmt: skip
AFFECT_ROWS = {
    "LSTM": "lstm.affect", "CNN": "cnn.affect", "AST": "ast.affect", "CNN from genres": "transfer.finetuned",
    "multitask": "multitask", "ensemble": "ensemble.affect", "SVR, fused statistics": "svr.affect",
    "ridge, fused statistics": "ridge.affect",
}  # fmt: skip
PICTURE = (
    "Scores of all models with 95 % intervals, for genre and for each affect axis; crosses are the report's figures"
)
# Pygments' purple, the template's orange numbers and its grey captions are too pale to read for weak eyes
DARKER = """<style>
.highlight .ow, .highlight .nd { color: #8a10d0 }
div.prompt.output_prompt { color: #b3370f }
caption { color: #555 }
</style>
"""
MISSING = Estimate(math.nan, math.nan, 0)
DEMO_NOTE = "Made from the procedural default data: these numbers say nothing about real music."


def write(notebooks: list[Notebook], out: Path) -> None:
    """Make `results.csv`, the HTML pages and `index.html` in OUT, then print what came out."""
    table, note = collect(out)
    save_text(out / "results.csv", table.to_csv(index=False))
    states_path = out / "run.json"  # of all runs into OUT: `--only` adds to earlier ones
    states = json.loads(states_path.read_text(encoding="utf-8")) if states_path.exists() else {}
    for notebook in notebooks:
        seconds = round(notebook.seconds, 1)
        states[notebook.name] = {"state": notebook.state, "seconds": seconds, "reason": notebook.reason}
    save_text(states_path, json.dumps(dict(sorted(states.items())), indent=1))
    _write_pages(notebooks, out)
    draw(table, note, out / "results.png")
    save_text(out / "index.html", _index(out, states, headlines(table), note, len(table)))

    print("\nNotebooks\n" + "\n".join(f"  {state_line(notebook)}" for notebook in notebooks))
    if not (rows := headlines(table)).empty:
        print(f"\nResults beside the report's (real data)\n{rows.to_string(index=False)}")
    print(f"\n{note}".rstrip())
    for what in ("notebooks", "records", "results.csv", "results.png", "index.html"):
        if (out / what).exists():
            print(f"  {out / what}")


def collect(out: Path) -> tuple[pd.DataFrame, str]:
    """All records in OUT as one table with the columns `COLUMNS`, and the sentence that must stand beside them."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "records").glob("*.json"))]
    rows = [
        {"notebook": record["notebook"], "dataset": record["dataset"]["name"], **metric}
        for record in records
        for metric in record["metrics"]
    ]
    procedural = any(record["dataset"]["kind"] == "procedural" for record in records)
    return pd.DataFrame(rows, columns=COLUMNS), DEMO_NOTE if procedural else ""


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The metrics that the report gives as well: value, interval, the report's figure."""
    rows = table[table["metric"].isin(REPORT)]
    interval = [
        "" if pd.isna(low) else f"[{low:.2f}, {high:.2f}]" for low, high in zip(rows["ci_low"], rows["ci_high"])
    ]
    return pd.DataFrame({
        "metric": rows["metric"],
        "value": [f"{value:.2f}" for value in rows["value"]],
        "95 % interval": interval,
        "report": [f"{REPORT[name]:.2f}" for name in rows["metric"]],
        "data": rows["dataset"],
    })  # fmt: skip


def draw(table: pd.DataFrame, note: str, path: Path) -> None:
    """The picture of results: genre, and each affect axis, with intervals and the report's figures beside them."""
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
        plots.save(plot_results(panels, references, title=note).axes, path)


def plot_results(panels: dict, references: dict, *, title=None):
    """Panels {title: (name of the score, {row: Estimate})} side by side, as `plot_estimates`; returns the Figure.

    `references`: figures of the report {title: {row: value}}.
    """
    size = (2.1 * len(panels) + 2.4, 0.3 * max(len(rows) for _, rows in panels.values()) + 1.4)
    figure, axes = plots.plt.subplots(1, len(panels), figsize=size, sharex=True, squeeze=False, layout="constrained")
    before = None
    for ax, (name, (score, rows)) in zip(axes.flat, panels.items()):
        plots.plot_estimates(rows, references=references.get(name), ax=ax, title=name, xlabel=score, ylabel="")
        ax.get_legend().remove()
        ax.axvline(0, color=plots.COLORS[7], lw=0.8)
        ax.tick_params(labelleft=list(rows) != before)  # the same rows again: named once
        before = list(rows)
    lines = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(title)
    return figure


def state_line(notebook: Notebook) -> str:
    """State, name, seconds and, where something went wrong, the reason."""
    return f"{notebook.state:<8} {notebook.name:<24} {notebook.seconds:6.0f} s  {notebook.reason}".rstrip()


def forget(notebook: Notebook, out: Path) -> None:
    """Remove what an earlier run left of a notebook, so that it is not mistaken for a result of this one."""
    for name in (f"notebooks/{notebook.path.name}", f"records/{notebook.name}.json", f"html/{notebook.name}.html"):
        (out / name).unlink(missing_ok=True)


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

    exporter = HTMLExporter(template_name="classic")
    for notebook in notebooks:
        executed = out / "notebooks" / notebook.path.name
        if executed.exists():
            page = exporter.from_filename(str(executed))[0].replace("</head>", DARKER + "</head>", 1)
            save_text(out / "html" / f"{notebook.name}.html", page)


def _index(out: Path, states: dict, rows: pd.DataFrame, note: str, num_metrics: int) -> str:
    table = []
    for name, state in states.items():
        page = f"html/{name}.html"
        link = f'<a href="{page}">{html.escape(name)}</a>' if (out / page).exists() else html.escape(name)
        table.append([link, state["state"], f"{state['seconds']:.0f}", html.escape(state["reason"])])
    columns = ["notebook", "state", "seconds", "reason"]
    notebooks = pd.DataFrame(table, columns=columns).to_html(index=False, escape=False, border=0)
    picture = f'<img src="results.png" alt="{PICTURE}">' if (out / "results.png").exists() else ""
    page = (Path(__file__).parent / "assets" / "index.html").read_text(encoding="utf-8")
    return page.format(
        notebooks=notebooks, note=note, picture=picture, headlines=rows.to_html(index=False, border=0),
        num_metrics=num_metrics,
    )  # fmt: skip

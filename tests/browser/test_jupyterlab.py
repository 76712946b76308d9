"""Notebooks in JupyterLab as a reader uses it: opened, run from the menu, scrolled through, looked at, listened to."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from labutils.corpus import build

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240  # seconds for one notebook, on a small data set with short training

# What JupyterLab knows of the open notebook, whether or not a cell is in view
CELLS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
    .filter(cell => cell.type === "code").map(cell => cell.toJSON())"""
IDLE = "() => window.jupyterapp.shell.currentWidget?.sessionContext.session?.kernel?.status === 'idle'"
# What is in view: figures, players, and whatever JupyterLab shows of an error
VIEW = """() => {
    const shown = [...document.querySelectorAll(".jp-OutputArea-output")];
    const all = (query) => shown.flatMap(output => [...output.querySelectorAll(query)]);
    return {
        figures: all("img").map(img => [img.src.slice(-60), img.complete ? img.naturalWidth : -1, img.clientWidth,
                                        img.closest(".jp-OutputArea-output").clientWidth]),
        players: all("audio").map(audio => [audio.src.slice(-60), audio.getAttribute("aria-label"), audio.duration,
                                            audio.error?.message, audio.clientWidth,
                                            audio.closest(".jp-OutputArea-output").clientWidth]),
        errors: [...document.querySelectorAll("[data-mime-type*=error], [data-mime-type*=stderr], .jp-Dialog")]
            .map(node => node.innerText),
    };
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on copies of the notebooks 01 and 05, with the tiny data set and the parameters of smoke.yaml."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("lab")
    data = build.make_demo(ROOT / "data" / "demo-tiny", size="tiny")  # kept, as by `labutils data demo --size tiny`
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    for path in [*(ROOT / "notebooks").glob("01_*.ipynb"), *(ROOT / "notebooks").glob("05_*.ipynb")]:
        notebook = load_notebook_node(str(path))
        for cell in notebook.cells:
            if cell.cell_type == "code":  # what is seen later is of this run
                cell.update(outputs=[], execution_count=None)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        known = {name: value for name, value in smoke.items() if f"\n{name} = " in "\n" + cell.source}
        nbformat.write(parameterize_notebook(notebook, known), folder / path.name)

    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # the network is not asked

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--port-retries=0"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = {**os.environ, "LABUTILS_HOME": str(home), "LABUTILS_DATA": str(data)}
    environment |= {"LABUTILS_OUTPUT": str(home / "out"), "PYTHONPATH": str(ROOT)}
    environment |= {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "desks")}
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_up(port, server), 60, lambda: (home / "log").read_text())
            yield f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()
            server.wait(20)


def is_up(port, server):
    assert server.poll() is None, "JupyterLab ended"
    try:
        return json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status"))["started"]
    except OSError:
        return False


def wait_for(ready, seconds, what):
    """Until `ready()` is true; after `seconds` the test fails and says `what()`."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"after {seconds} s: {what()}"
        time.sleep(0.25)


def run_all(page, lab, name):
    """Open a notebook and run all its cells from the menu."""
    page.goto(f"{lab}/tree/{name}.ipynb?reset")  # no notebook of an earlier page
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    page.wait_for_function(IDLE, timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def state():
        cells = page.evaluate(CELLS)
        failed = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
        assert not failed, "\n".join([failed[0]["evalue"], *failed[0]["traceback"][-3:]])
        return [cell["execution_count"] for cell in cells]

    counts = list(range(1, len(state()) + 1))
    start = time.monotonic()
    wait_for(lambda: state() == counts, LIMIT, lambda: f"{name} is in cell {sum(map(bool, state()))} of {len(counts)}")
    print(f"{name}: {time.monotonic() - start:.1f} s")
    page.wait_for_function(IDLE)


def look_through(page, pictures, name):
    """Scroll from top to bottom, with a screenshot of every step; what was seen, each thing once."""
    seen = {"figures": {}, "players": {}, "errors": {}}
    scroller = page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer").first
    scroller.evaluate("node => node.scrollTop = 0")
    for step in range(100):
        page.wait_for_timeout(200)
        page.screenshot(path=pictures / f"{name}-{page.viewport_size['width']}-{step:02d}.png")
        for kind, things in page.evaluate(VIEW).items():
            seen[kind] |= {json.dumps(thing): thing for thing in things}
        before, after = scroller.evaluate("n => [n.scrollTop, (n.scrollBy(0, 0.9 * n.clientHeight), n.scrollTop)]")
        if after == before:
            return {kind: list(things.values()) for kind, things in seen.items()}
    raise AssertionError("no end of the notebook in 100 steps")


def play(page, audio):
    """Press the play button as a reader does; the seconds played after one and a half."""
    audio.scroll_into_view_if_needed()
    box = audio.bounding_box()
    page.mouse.click(box["x"] + 25, box["y"] + box["height"] / 2)
    page.wait_for_timeout(1500)
    seconds = audio.evaluate("audio => audio.currentTime")
    audio.evaluate("audio => audio.pause()")
    return seconds


def check_what_was_seen(seen, min_figures):
    assert not seen["errors"]
    assert len(seen["figures"]) >= min_figures
    for _, width, shown, room in seen["figures"]:
        assert width > 0 and 0 < shown <= room + 1, (width, shown, room)  # loaded, and not cut off
    for _, title, duration, error, shown, room in seen["players"]:
        assert title and duration and duration > 1 and not error, (title, duration, error)
        assert 0 < shown <= room + 1, (title, shown, room)


def test_notebook_01_shows_its_figures_and_plays(page, lab, pictures):
    run_all(page, lab, "01_mel_spectrograms")
    seen = look_through(page, pictures, "01")
    check_what_was_seen(seen, min_figures=10)
    assert len(seen["players"]) >= 2

    # the explorer: menus, a cursor that follows the sound, another clip
    page.evaluate("""() => { const notebook = window.jupyterapp.shell.currentWidget.content;
        return notebook.scrollToItem(notebook.widgets.findIndex(cell => cell.model.id === "explorer"), "start"); }""")
    explorer = page.locator("figure.explorer")
    assert play(page, explorer.locator("audio")) > 0.5
    time_and_beat = explorer.locator("p").inner_text()
    assert float(time_and_beat.split()[0]) > 0.5
    place = explorer.locator("span").evaluate("cursor => parseFloat(cursor.style.left)")
    page.screenshot(path=pictures / "explorer-playing.png")
    before = explorer.locator("img").get_attribute("alt")
    genres = page.get_by_label("genre")
    other = next(name for name in genres.locator("option").all_inner_texts() if not before.startswith(name))
    genres.select_option(other)
    page.locator(f'figure.explorer img[alt^="{other}"]').wait_for(timeout=20_000)
    assert explorer.locator("span").evaluate("cursor => parseFloat(cursor.style.left)") < place  # back at the start
    page.screenshot(path=pictures / "explorer-other-clip.png")

    page.set_viewport_size({"width": 600, "height": 900})  # half of a laptop's screen
    check_what_was_seen(look_through(page, pictures, "01"), min_figures=10)


def test_notebook_05_trains_and_shows_its_figures(page, lab, pictures):
    run_all(page, lab, "05_lstm")
    check_what_was_seen(look_through(page, pictures, "05"), min_figures=6)

"""The notebooks in JupyterLab, as `make lab` starts it, in a real browser: `make test-browser`.

Screenshots are left in build/browser. Notebooks run from a copy, in the smoke profile, so that nothing in the
checkout changes.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
import skimage.data
from PIL import Image

from consensus_lib.experiments.notebooks import read_profile

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build" / "browser"
PATIENCE = 900  # seconds; on a busy machine a notebook takes minutes


class Lab:
    """A server of JupyterLab on a copy of the notebooks, and one page of a browser."""

    def __init__(self, folder: Path, runs: Path, port: int, page):
        self.folder, self.runs, self.port, self.page = folder, runs, port, page

    def api(self, path: str, method: str = "GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def open(self, name: str) -> None:
        self.page.goto(f"http://127.0.0.1:{self.port}/lab/tree/{name}.ipynb?reset")
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=PATIENCE * 1000)
        wait_for(lambda: self.kernel(name) == "idle")

    def kernel(self, name: str) -> str | None:
        found = [one for one in self.api("sessions") if one["path"].endswith(f"{name}.ipynb")]
        return found[0]["kernel"]["execution_state"] if found else None

    def menu(self, name: str, entry: str) -> None:
        self.page.locator(".lm-MenuBar-item", has_text=name).first.click()
        self.page.locator(".lm-Menu-item", has_text=entry).first.click()

    def run_all(self, name: str) -> None:
        self.menu("Run", "Run All Cells")
        self.wait_until_idle(name)

    def wait_until_idle(self, name: str) -> None:
        queued = self.page.locator(".jp-Notebook:visible .jp-InputPrompt", has_text="[*]")
        time.sleep(2)
        wait_for(lambda: not queued.count() and self.kernel(name) == "idle")
        time.sleep(1)

    def saved(self, name: str):
        """Save the notebook and return it as it lies on the disk."""
        file = self.folder / f"{name}.ipynb"
        before = file.stat().st_mtime_ns
        self.page.locator(".jp-Notebook").first.click(position={"x": 5, "y": 5})
        self.page.keyboard.press("Control+s")
        wait_for(lambda: file.stat().st_mtime_ns != before)
        time.sleep(1)
        return nbformat.read(file, as_version=4)

    def end_kernels(self) -> None:
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


def wait_for(condition, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.3)


def in_smoke(source: Path, target: Path, **changes) -> None:
    """Copy a notebook with the parameters of the smoke profile, without its outputs."""
    book = nbformat.read(source, as_version=4)
    values = read_profile("synthetic", "smoke").get(source.stem, {}) | changes
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            lines = cell.source.splitlines()
            for number, line in enumerate(lines):
                name = line.split(":")[0]
                if name in values:
                    lines[number] = f"{name} = {values[name]!r}"
            cell.source = "\n".join(lines)
    nbformat.write(book, target)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("*.ipynb", "__pycache__"))
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        in_smoke(source, folder / source.name)
    baseline = ROOT / "notebooks/02_pixelwise_baseline.ipynb"
    in_smoke(baseline, folder / "interrupted.ipynb", epochs=8, seed=7)
    in_smoke(baseline, folder / "training.ipynb", epochs=12, seed=5)
    book = nbformat.read(folder / "training.ipynb", as_version=4)
    shown = next(n for n, cell in enumerate(book.cells) if "training.show(" in cell.source)
    book.cells = book.cells[: shown + 1]
    nbformat.write(book, folder / "training.ipynb")
    runs = tmp_path_factory.mktemp("runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token="
    options += " --ServerApp.disable_check_xsrf=True"
    command = ["make", "-o", ".venv/.ready", "lab", f"NOTEBOOKS={folder}", f"LAB_OPTIONS={options}"]
    about = {"CONSENSUS_RUNS_DIR": str(runs), "CONSENSUS_DATA_DIR": str(runs / "data")}
    about |= {"JUPYTERLAB_WORKSPACES_DIR": str(runs / "workspaces")}  # no tabs of an earlier session
    about |= {"JUPYTERLAB_SETTINGS_DIR": str(runs / "settings")}
    log = (runs / "lab.log").open("w")
    server = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | about, stdout=log, stderr=log, start_new_session=True
    )
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(PATIENCE * 1000)
            made = Lab(folder, runs, port, page)
            wait_for(lambda: _answers(made))
            yield made
            with contextlib.suppress(OSError):
                made.end_kernels()
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        log.close()


def _answers(lab) -> bool:
    try:
        return bool(lab.api("status"))
    except OSError:
        return False


def assert_all_ran(book) -> None:
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    errors = [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert not errors, "\n".join(errors[0].traceback)
    assert all(cell.execution_count for cell in code)


def pictures_in(box) -> list[str]:
    return box.locator("img").evaluate_all("all => all.map(one => one.src)")


def changes(box, act) -> None:
    """Do something, and wait until the picture of a widget is another one."""
    wait_for(lambda: pictures_in(box), 60)  # a cell far below is drawn when it comes into view
    before = pictures_in(box)
    act()
    wait_for(lambda: pictures_in(box) != before, 60)


def move_sliders(lab, name: str, chosen: Sequence[int]) -> None:
    """Move sliders by the keyboard and by the mouse, and see the picture below each change."""
    handles = lab.page.locator(".widget-slider .noUi-handle")
    for number in chosen:
        handle = handles.nth(number)
        box = handle.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
        handle.scroll_into_view_if_needed()
        changes(box, lambda handle=handle: (handle.focus(), lab.page.keyboard.press("ArrowRight")))

        def drag(handle=handle):
            place = handle.bounding_box()
            x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
            lab.page.mouse.move(x, y)
            lab.page.mouse.down()
            lab.page.mouse.move(x + 60, y, steps=4)
            lab.page.mouse.up()

        changes(box, drag)
    lab.picture(f"{name}_sliders")


def test_lab_opens_on_the_start_page_and_its_photograph_can_be_changed(lab):
    lab.page.goto(f"http://127.0.0.1:{lab.port}/")
    lab.page.locator(".lm-TabBar-tabLabel", has_text="00_start_here.ipynb").first.wait_for()
    lab.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    wait_for(lambda: lab.kernel("00_start_here") == "idle")
    lab.picture("00_opened")
    lab.run_all("00_start_here")
    assert_all_ran(lab.saved("00_start_here"))
    file = lab.folder / "portrait.png"
    Image.fromarray(skimage.data.astronaut()[:256]).save(file)
    upload = lab.page.locator(".jupyter-widgets.widget-upload")
    box = lab.page.locator(".widget-vbox", has=upload).last

    def choose():
        with lab.page.expect_file_chooser() as chooser:
            upload.click()
        chooser.value.set_files(file)

    changes(box, choose)
    lab.picture("00_photograph")


def test_a_face_is_covered_by_mouse_and_keyboard(lab):
    canvas = lab.page.get_by_role("img", name="The face.")
    box = lab.page.locator(".widget-vbox", has=canvas).last
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    x, y, side = place["x"], place["y"], place["width"]

    def drag():
        lab.page.mouse.move(x + 0.3 * side, y + 0.5 * side)
        lab.page.mouse.down()
        lab.page.mouse.move(x + 0.7 * side, y + 0.5 * side, steps=6)
        lab.page.mouse.up()

    changes(box, drag)

    def press():
        canvas.focus()
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "Enter"):
            lab.page.keyboard.press(key)

    changes(box, press)
    time.sleep(2)  # until it is answered
    canvas.press("Enter")  # in the same place: the picture stays, and the next steps must still be heard
    time.sleep(2)
    box.get_by_role("button", name="drop a hand").click()
    where = {"x": 0.5 * side, "y": 0.7 * side}  # on the canvas, which may have moved with the page
    changes(box, lambda: canvas.click(position=where))
    lab.picture("00_covered")
    changes(box, box.get_by_role("button", name="uncover all").click)


def test_a_saved_notebook_reopens_with_its_widgets(lab):
    lab.saved("00_start_here")
    lab.end_kernels()
    lab.open("00_start_here")
    lab.page.locator(".widget-vbox img").first.wait_for()
    assert lab.page.get_by_text("model not found").count() == 0
    lab.picture("00_reopened")
    lab.end_kernels()


def test_the_loss_laboratory_moves(lab):
    lab.open("03_consensus_loss")
    lab.picture("03_opened")
    lab.run_all("03_consensus_loss")
    assert_all_ran(lab.saved("03_consensus_loss"))
    move_sliders(lab, "03", range(3))
    lab.end_kernels()


def test_the_baseline_runs(lab):
    lab.open("02_pixelwise_baseline")
    lab.run_all("02_pixelwise_baseline")
    assert_all_ran(lab.saved("02_pixelwise_baseline"))
    lab.picture("02_run")
    move_sliders(lab, "02", (2, 3, 4))  # of the browser, number and opacity; the wipe of the comparer
    lab.end_kernels()


def test_a_training_is_started_paused_resumed_and_stopped_by_its_buttons(lab):
    def epochs():
        files = sorted(lab.runs.rglob("cross-entropy-seed5-*/history.jsonl"))
        return files[0].read_text().splitlines() if files else []

    lab.open("training")
    lab.run_all("training")
    box = lab.page.locator(".widget-vbox", has=lab.page.locator(".widget-label", has_text="seed 5")).last
    state = box.locator(".widget-label")

    def wait_until(text):
        wait_for(lambda: text in state.inner_text())

    def button(name):
        return box.get_by_role("button", name=name, exact=True)

    assert button("Stop").is_disabled()
    changes(box, button("Start").click)
    changes(box, lambda: None)  # the next epoch is drawn
    button("Pause").focus()
    lab.page.keyboard.press("Enter")
    wait_until("paused")
    lab.picture("02_training_paused")
    seen, picture = epochs(), pictures_in(box)
    assert 2 <= len(seen) < 12
    time.sleep(3)
    assert (epochs(), pictures_in(box)) == (seen, picture)
    button("Resume").focus()
    changes(box, lambda: lab.page.keyboard.press("Space"))
    button("Stop").click()
    wait_until("stopped")
    stopped = epochs()
    assert len(seen) < len(stopped) < 12
    button("Resume").click()
    wait_until("finished")
    assert epochs()[: len(stopped)] == stopped
    assert len(epochs()) == 12
    lab.picture("02_training_finished")
    lab.end_kernels()


def test_an_interrupted_training_says_how_to_resume_and_is_resumed(lab):
    def epochs():
        files = sorted(lab.runs.rglob("cross-entropy-seed7-*/history.jsonl"))
        return [json.loads(line) for line in files[0].read_text().splitlines()] if files else []

    lab.open("interrupted")
    lab.menu("Run", "Run All Cells")
    wait_for(lambda: len(epochs()) >= 2)
    lab.page.locator('[data-command="notebook:interrupt-kernel"]').first.click()
    lab.wait_until_idle("interrupted")
    stopped = epochs()
    assert 2 <= len(stopped) < 8
    book = lab.saved("interrupted")
    (error,) = [o for cell in book.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert error.traceback == [
        "cross-entropy, seed 7: stopped. Run the cell again to resume after its last epoch."
    ]
    message = lab.page.get_by_text("Run the cell again to resume").first
    message.scroll_into_view_if_needed()
    assert message.bounding_box()["height"] < 100
    lab.picture("02_interrupted")
    lab.run_all("interrupted")
    assert_all_ran(lab.saved("interrupted"))
    assert epochs()[: len(stopped)] == stopped
    assert len(epochs()) == 8
    lab.picture("02_resumed")

import datetime
import io
import time
import types

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from consensus_lib.data import FaceDataset, open_splits
from consensus_lib.experiments import notebook
from consensus_lib.experiments.train import Config, run
from support import diagrams, widgets

COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


def pixels(control):
    """Return the picture of a control, uint8 ``[H,W,3]``."""
    return np.asarray(Image.open(io.BytesIO(control.children[-1].value)).convert("RGB"))


def text_of(control):
    return next(part.value for part in control.children if isinstance(part, ipywidgets.Label))


def test_the_consensus_toy_redraws_what_its_sliders_say(monkeypatch):
    drawn, real = [], diagrams.toy_panel
    monkeypatch.setattr(diagrams, "toy_panel", lambda *arguments: drawn.append(arguments) or real(*arguments))
    labels = np.array([[0, 1], [0, 1]])
    logits = np.stack([np.zeros((2, 2)), np.array([[-2.0, 2.0], [-2.0, 1.0]])])
    toy = widgets.consensus_toy(labels, logits, pixel=(1, 1))
    alpha, beta, logit, _ = toy.children
    assert (alpha.value, beta.value, logit.value) == (1.0, 1.0, 1.0)
    before = pixels(toy)

    logit.value = -3.0
    assert (pixels(toy) != before).any()
    probability, pull, blobs, mark = drawn[-1]
    np.testing.assert_allclose(probability[1, 1], 1 / (1 + np.exp(3.0)))
    np.testing.assert_allclose(probability[0, 1], 1 / (1 + np.exp(-2.0)))
    assert pull[1, 1] > 0 > pull[0, 1]  # the wrong pixel is pulled up; the sure one meets it half-way
    assert (blobs == labels).all()
    assert mark == (1, 1)

    alpha.value = beta.value = 0.0
    assert (drawn[-1][1] == 0).all()
    assert not plt.get_fignums()


def test_the_data_browser_filters_and_shows_labels(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    browser = widgets.data_browser(data)
    _, share, components, number, opacity, outlines, _, _ = browser.children
    assert text_of(browser).startswith(f"{len(data)} of {len(data)} left · sample 0 · 2 components")
    number.value = 1
    assert "sample 1" in text_of(browser)
    outlines.value = False
    opacity.value = 0.0
    left, right = np.split(pixels(browser), 2, axis=1)
    assert (left == right).all()
    opacity.value = 1.0
    assert (pixels(browser) != np.hstack([left, right])).any()
    share.value = 40.0
    components.value = 2
    assert text_of(browser).startswith("no sample is left")


def test_the_mask_comparer_wipes_from_one_method_to_the_other(tiny_folder):
    data = FaceDataset(tiny_folder, "test", "parts")
    truth = torch.stack([data[i]["labels"] for i in range(len(data))])
    background = torch.zeros_like(truth)
    comparer = widgets.mask_comparer(data, 1, {"one": truth, "two": background})
    _, _, view, wipe, _, _ = comparer.children
    wrong = (truth[1] > 0).double().mean().item()
    assert "one: 2 components, 0.0% of the pixels wrong" in text_of(comparer)
    assert f"two: 0 components, {wrong:.1%} of the pixels wrong" in text_of(comparer)
    view.value = "error"
    size = widgets.HEIGHT
    marked = np.array([214, 94, 0])  # the colour of an error, to rounding
    wipe.value = 32
    assert not (abs(pixels(comparer)[:, 2 * size :].astype(int) - marked) < 2).all(-1).any()
    wipe.value = 0
    share = (abs(pixels(comparer)[:, 2 * size :].astype(int) - marked) < 2).all(-1).mean()
    assert share == pytest.approx(wrong, abs=0.01)


def test_what_is_painted_or_dropped_on_a_face_is_what_the_networks_see():
    seen = []

    def predict(image):
        seen.append(image.copy())
        return {"dark": (image[..., 0] < 0.5).astype(int)}

    hand = np.zeros((4, 2, 4))
    hand[:2, :, 3] = 1  # black; its lower half cannot be seen
    cover = widgets.cover_the_face(np.ones((20, 20, 3)), predict, {"dark": COLOURS}, hand)
    tool, radius, shade, clear, _, canvas, counts, _ = cover.children
    radius.value, shade.value = 6.0, 0.0
    before = canvas.picture

    def touch(*places):
        canvas._handle_custom_msg({"places": places}, [])

    touch([0.125, 0.525], [0.875, 0.525])  # a line along row 10, one pixel to each side of it
    assert (seen[-1][10, 2:18] == 0).all()
    assert (seen[-1] == 0).all(-1).sum() == 18 + 2 * 16
    assert counts.value == "dark: 1 components, 0 before"
    assert canvas.picture != before
    tool.value = "uncover"
    touch([0.525, 0.525])
    assert (seen[-1][10, 10] == 1).all()
    tool.value = "drop a hand"
    touch([0.0, 0.2])
    assert (seen[-1][2:4, :1] == 0).all()
    assert (seen[-1][4:9] == 1).all()
    assert counts.value.startswith("dark: 3 components")
    clear.click()
    assert (seen[-1] == 1).all()


def test_an_upload_is_parsed_and_a_file_that_is_no_picture_is_explained():
    half = np.zeros((64, 64), np.uint8)
    half[:, :32] = 1
    face = types.SimpleNamespace(labels=half, colours=COLOURS, classes=("background", "face", "hair"))
    seen = []
    shown = widgets.your_photograph(
        {"mine": lambda photo: seen.append(photo) or [face]}, np.zeros((64, 64, 3), np.uint8)
    )
    assert "mine: 1 face(s)" in text_of(shown)
    before = pixels(shown)
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    upload = shown.children[0]
    about = {"name": "a.png", "type": "image/png", "size": 1, "last_modified": datetime.datetime(2020, 1, 1)}
    upload.value = [about | {"content": memoryview(file.getvalue())}]
    assert seen[-1].getpixel((0, 0)) == (255, 0, 0)
    assert (pixels(shown) != before).any()
    upload.value = [about | {"content": memoryview(b"text")}]
    assert text_of(shown).startswith("this cannot be parsed: ")


def test_a_widget_is_shown_with_a_still(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **about: shown.append((data, about)))
    toy = widgets.consensus_toy(np.array([[0, 1]]), torch.zeros(2, 1, 2).numpy(), pixel=(0, 1))
    widgets.show(toy, "a toy")
    ((data, about),) = shown
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} < set(data)
    assert about["metadata"] == {"image/png": {"alt": "a toy"}}


def wait_for(control, state):
    deadline = time.monotonic() + 60
    while state not in control.children[1].value:
        assert time.monotonic() < deadline, control.children[1].value
        time.sleep(0.01)


@pytest.fixture
def data(tiny_folder):
    return open_splits(str(tiny_folder), "parts", size=32)


SMALL = {"size": 32, "images": 0, "width": 0.0625, "batch_size": 4}


def test_a_training_that_was_paused_and_stopped_ends_as_one_that_was_not(data, tmp_path):
    config = Config(loss="cross-entropy", epochs=4, dropout=0.1, **SMALL)
    whole = run(config, data, out=tmp_path / "whole", device="cpu", progress=False)

    lesson = notebook.Lesson("a", torch.device("cpu"), tmp_path)
    training = widgets.Training(lesson, config, data)
    first, stop = training.control.children[0].children
    assert (first.description, stop.disabled) == ("Start", True)
    empty = pixels(training.control)
    first.click()
    first.click()
    wait_for(training.control, "paused · epoch 1 of 4")
    assert first.description == "Resume"
    assert (pixels(training.control) != empty).any()
    time.sleep(0.2)
    assert "epoch 1 of 4" in training.control.children[1].value
    stop.click()
    wait_for(training.control, "stopped")

    again = widgets.Training(lesson, config, data)  # as after the kernel was restarted
    result = again.result()
    assert again.result() is result
    assert "finished · epoch 4 of 4" in again.control.children[1].value
    assert [row["loss"] for row in result.history] == [row["loss"] for row in whole.history]
    torch.testing.assert_close(result.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)


def test_a_training_that_fails_says_why_and_raises_where_it_is_waited_for(data, tmp_path):
    config = Config(loss=lambda logits, labels: logits.sum() * float("nan"), title="nan", epochs=2, **SMALL)
    training = widgets.Training(notebook.Lesson("a", torch.device("cpu"), tmp_path), config, data)
    with pytest.raises(FloatingPointError, match="finite"):
        training.result()
    assert "nan, seed 0: failed: loss: expected a finite mean" in training.control.children[1].value

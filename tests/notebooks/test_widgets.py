import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from consensus_lib.experiments.sweeps import Progress
from support import diagrams, widgets


@pytest.fixture
def drawn(monkeypatch):
    """What the widget hands to the figure, call by call."""
    matplotlib.use("Agg")
    calls = []
    real = diagrams.toy_panel
    monkeypatch.setattr(diagrams, "toy_panel", lambda *arguments: calls.append(arguments) or real(*arguments))
    return calls


def test_the_consensus_toy_redraws_what_its_sliders_say(drawn):
    labels = np.array([[0, 1], [0, 1]])
    logits = np.stack([np.zeros((2, 2)), np.array([[-2.0, 2.0], [-2.0, 1.0]])])
    alpha, beta, logit, picture = widgets.consensus_toy(labels, logits, pixel=(1, 1)).children
    assert (alpha.value, beta.value, logit.value) == (1.0, 1.0, 1.0)
    before = bytes(picture.value)
    assert before.startswith(b"\x89PNG")

    logit.value = -3.0
    assert bytes(picture.value) != before
    probability, pull, blobs = drawn[-1]
    np.testing.assert_allclose(probability[1, 1], 1 / (1 + np.exp(3.0)))
    np.testing.assert_allclose(probability[0, 1], 1 / (1 + np.exp(-2.0)))
    assert pull[1, 1] > 0 > pull[0, 1]  # the wrong pixel is pulled up; the sure one meets it half-way
    assert (blobs == labels).all()

    alpha.value = beta.value = 0.0
    assert (drawn[-1][1] == 0).all()
    assert not plt.get_fignums()


def test_the_progress_of_a_sweep_is_a_table_that_changes():
    table, update = widgets.sweep_progress()
    for progress, shown in ((Progress(1, 2, 3, 4, 90.0), "1.5 min"), (Progress(10, 0, 0, 0, None), "?")):
        update(progress)
        cells = [part.split("<")[0].split(">")[-1] for part in table.value.split("<td")[1:]]
        assert cells[:5] == ["done", "running", "failed", "waiting", "time left"]
        assert cells[5:] == [*map(str, progress[:4]), shown]

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

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

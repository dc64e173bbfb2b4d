import matplotlib
import pytest
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def _figures_are_drawn_without_a_screen_and_closed():
    matplotlib.use("Agg")
    yield
    plt.close("all")

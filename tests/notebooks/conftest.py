import sys

import pytest


@pytest.fixture(autouse=True)
def _figures_are_plotted_without_a_screen_and_closed(monkeypatch):
    # Not imported here: the tests of the GPU programme also run where matplotlib is not installed.
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].use("Agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

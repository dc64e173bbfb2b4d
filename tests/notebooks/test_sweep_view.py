import json

import pytest

from consensus_lib import paths
from consensus_lib.experiments import sweep_run
from consensus_lib.experiments.sweep_plan import Sweep
from support import sweep_view


@pytest.fixture
def sweep(tmp_path):
    """Three runs: one is done, one failed, of the third there is nothing yet."""
    for number, name, state in (
        ("a", "result.json", {"seconds": 4.0}),
        ("b", "status.json", {"status": "failed", "error": "ValueError: beta", "seconds": 2.0}),
    ):
        (tmp_path / number).mkdir()
        (tmp_path / number / name).write_text(json.dumps(state))
    runs = {number: {"beta": beta, "width": 1} for number, beta in zip("abc", (0.0, 1.0, 2.0), strict=True)}
    return Sweep(tmp_path / "book.ipynb", runs, ("beta",), "code")


def test_what_is_shown_of_a_sweep_is_what_lies_on_the_disk(sweep, tmp_path):
    table = sweep_view.read_progress(sweep, tmp_path)
    assert list(table.columns) == ["beta", "state", "seconds", "error"]
    assert table.state.tolist() == ["done", "failed", "waiting"]
    assert table.error.tolist() == ["", "ValueError: beta", ""]
    assert not (tmp_path / "c").exists()

    progress = sweep_view.SweepProgress(sweep, tmp_path)
    with paths.locked(tmp_path / "c" / sweep_run.LOCK):
        assert progress.refresh()
        assert "1 of 3 done" in progress.table.value
        assert "1 running · about 3 s left" in progress.table.value.replace("1 failed · ", "")
    (tmp_path / "c" / "result.json").write_text(json.dumps({"seconds": 6.0}))
    assert not progress.refresh()
    assert "2 of 3 done" in sweep_view.SweepProgress(sweep, tmp_path).table.value

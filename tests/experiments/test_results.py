"""What a training files, and tables of it."""

import math

import pandas as pd
import pytest

from consensus_lib.experiments import results

GOOD = {
    "notebook": "02",
    "dataset": "d",
    "split": "test",
    "task": "parts",
    "loss": "pixelwise",
    "seed": 0,
    "epochs": 2,
    "image_size": 32,
    "width": 0.25,
    "mean_iou": 0.5,
    "pixel_accuracy": 0.9,
    "component_error": 1.0,
    "holes": 0.5,
    "seconds": 2.0,
    "device": "cpu",
}


def test_a_result_comes_back(tmp_path):
    results.write_result(tmp_path / "b", **GOOD, iou_face=0.5, absent=["hair"])
    results.write_result(tmp_path / "a", **GOOD | {"seed": 1})
    found = results.read_results(tmp_path)
    assert [result["seed"] for result in found] == [1, 0]
    assert found[1]["absent"] == ["hair"]
    assert found[1]["folder"] == str(tmp_path / "b")
    assert "mean IoU" in results.as_text(found)
    assert len(results.as_text(found).splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mean_iou": math.nan}, "expected a finite value for 'mean_iou', got nan"),
        ({"scores": {"a": 1}}, "expected a flat value for 'scores', got dict"),
    ],
)
def test_a_result_that_is_not_flat_or_finite_is_refused(tmp_path, change, expected):
    with pytest.raises(ValueError, match=expected):
        results.write_result(tmp_path, **GOOD | change)
    assert not list(tmp_path.rglob("result.json"))


def test_a_result_without_a_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got none for \['seed'\]"):
        results.write_result(tmp_path, **{key: value for key, value in GOOD.items() if key != "seed"})


def test_results_gather_in_one_table(tmp_path):
    for name, more in {"b": {}, "a": {"seed": 1, "iou_face": 1 / 3, "absent": ["hair"]}}.items():
        results.write_result(tmp_path / name, **GOOD | more)
    found = results.read_results(tmp_path / "b", tmp_path / "a")
    results.write_table(tmp_path / "table.csv", found, "python study.py")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.seed.tolist() == [0, 1]
    assert table.iou_face[1] == 0.3333
    assert set(table) == {*GOOD, "iou_face", "command"}


def test_the_table_is_also_parquet_where_pyarrow_is(tmp_path, monkeypatch):
    rows = {"id": ["a", "b"], "anything": [1, "text"], "rate": [1.0, None], "deep": [True, None]}
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda name: None)
    assert results.write_tables(pd.DataFrame(rows), tmp_path) == [tmp_path / "table.csv"]
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.undo()
    assert len(results.write_tables(pd.DataFrame(rows), tmp_path)) == 2
    found = pd.read_parquet(tmp_path / "table.parquet")
    assert found.anything.tolist() == ["1", "text"]
    assert found.rate.isna().tolist() == found.deep.isna().tolist() == [False, True]

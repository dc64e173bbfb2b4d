"""What a training files, and tables of it."""

import math

import numpy as np
import pandas as pd
import pytest

from consensus_lib.experiments import results


def test_results_come_back_and_gather_in_one_table(result, tmp_path):
    more = {"seed": 1, "data_folder": "mine", "iou_face": 1 / 3, "absent": ["hair"]}
    results.write_result(tmp_path / "b", **result)
    results.write_result(tmp_path / "a", **result | more)
    found = results.read_results(tmp_path)
    assert [row["seed"] for row in found] == [1, 0]
    assert found[0]["absent"] == ["hair"]
    assert found[1]["folder"] == str(tmp_path / "b")
    assert "mean IoU" in results.as_text(found)
    assert len(results.as_text(found).splitlines()) == 3
    results.write_table(tmp_path / "table.csv", found, "python study.py")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.seed.tolist() == [1, 0]
    assert table.iou_face[0] == 0.3333
    assert set(table) == {*result, "iou_face", "command"}


@pytest.mark.parametrize("wrong", [{"mean_iou": math.nan}, {"scores": {"a": 1}}, {"seed": ...}], ids=str)
def test_a_result_that_is_not_flat_finite_and_whole_is_refused(result, tmp_path, wrong):
    values = {key: value for key, value in (result | wrong).items() if value is not ...}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        results.write_result(tmp_path, **values)
    assert not list(tmp_path.rglob("result.json"))


def test_masks_of_a_lost_epoch_are_replaced(tmp_path):
    for epoch, value in ((1, 1), (2, 2), (3, 3), (2, 4)):
        results.add_masks(tmp_path, epoch, np.full((1, 2, 2), value, np.uint8))
    assert {epoch: masks.max() for epoch, masks in results.read_masks(tmp_path).items()} == {1: 1, 2: 4}

import pytest

from support.costs import measure_costs


def test_costs_are_rows_of_ratios():
    rows = measure_costs(["dice", "recommended", "flip"], size=32, batch_size=2, rounds=1)
    assert [row["name"] for row in rows] == ["dice", "recommended", "flip"]
    assert [row["acts"] for row in rows] == ["training", "training", "inference"]
    assert all(row["loss"] > 0 and row["training"] > 0 and row["inference"] == 1 for row in rows[:2])
    assert (rows[2]["loss"], rows[2]["training"]) == (None, 1)
    assert rows[2]["inference"] > 0
    with pytest.raises(ValueError, match=r"names: expected some of .*'focal', .*, got 'dise'"):
        measure_costs(["dise"])

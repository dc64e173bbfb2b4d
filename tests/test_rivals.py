import pytest
import torch
from torch import nn

from consensus_lib.data import FaceDataset
from consensus_lib.experiments.rivals import RIVALS, MostFrequentLabel, measure_costs, options_at
from consensus_lib.training.trainer import evaluate, predict


def test_it_predicts_the_most_frequent_label_of_each_pixel(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    votes = torch.stack([torch.nn.functional.one_hot(data[i]["labels"], 3) for i in range(len(data))]).sum(0)
    expected = votes.argmax(-1)
    predicted = predict(MostFrequentLabel(data), FaceDataset(tiny_folder, "test", "parts"))
    assert all(torch.equal(one.long(), expected) for one in predicted)


def test_aligned_faces_make_it_a_high_floor(tiny_folder):
    floor = MostFrequentLabel(FaceDataset(tiny_folder, "train", "parts"))
    assert 0.3 < evaluate(floor, FaceDataset(tiny_folder, "test", "parts")).compute()["mean_iou"] < 0.95


def test_an_image_of_another_size_is_refused(tiny_folder):
    with pytest.raises(ValueError, match=r"image: expected \[B,3,32,32\], got \[1, 3, 16, 16\]"):
        MostFrequentLabel(FaceDataset(tiny_folder, "train", "parts"))(torch.zeros(1, 3, 16, 16))


def test_all_rivals_are_in_the_table():
    titles = [rival.title for rival in RIVALS.values()]
    assert len(set(titles)) == len(RIVALS) == 12
    assert {rival.acts for rival in RIVALS.values()} == {"training", "inference"}
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    for name, rival in RIVALS.items():
        if rival.acts == "training":
            loss = rival.make()
            assert loss(logits, torch.randint(3, (2, 8, 8))).dim() == 0
            assert " at 0x" not in repr(loss), name  # it stands in checkpoints
            assert rival.differs, name
        else:
            refined = rival.make(nn.Conv2d(3, 4, 1))
            assert refined(torch.randn(2, 3, 8, 8)).shape == (2, 4, 8, 8)
    assert RIVALS["components"].make(nn.Identity(), min_size=5).options["min_size"] == 5
    assert RIVALS["focal"].make(gamma=1.0).options["gamma"] == 1.0


def test_costs_are_rows_of_ratios():
    rows = measure_costs(["dice", "component_dice", "flip"], size=32, batch_size=2, rounds=1)
    assert [row["name"] for row in rows] == ["dice", "component_dice", "flip"]
    for row in rows[:2]:
        assert row["loss"] > 0
        assert row["training"] > 0
        assert row["inference"] == 1
    assert rows[2]["loss"] is None
    assert rows[2]["training"] == 1
    assert rows[2]["inference"] > 0
    with pytest.raises(ValueError, match=r"names: expected some of \['focal', .*\], got 'dise'"):
        measure_costs(["dise"])


def test_sizes_in_pixels_follow_the_image():
    assert options_at(128) == {"components": {"min_size": 16}, "holes": {"max_size": 16}}
    assert options_at(64)["components"]["min_size"] == 4
    assert options_at(16)["holes"]["max_size"] == 2
    for name, options in options_at(64).items():
        RIVALS[name].make(nn.Conv2d(3, 4, 1), **options)

import pytest
import torch

from consensus_lib.datasets import FaceDataset
from consensus_lib.rivals import MostFrequentLabel
from consensus_lib.training import evaluate, predict


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

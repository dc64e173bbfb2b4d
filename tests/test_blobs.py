import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consensus_lib import IGNORE
from consensus_lib.blobs import blobs_from_ids, label_blobs

MAPS = arrays(
    np.int64,
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([0, 1, 2, IGNORE]),
)


@given(MAPS, st.sampled_from(["class", "component", "pixel"]))
def test_the_tables_describe_the_map(maps, kind):
    labels = torch.from_numpy(maps)
    blobs = label_blobs(labels, kind)
    assert torch.equal(blobs.ids == -1, labels == IGNORE)
    for number, (label, image, size) in enumerate(zip(blobs.labels, blobs.image, blobs.size, strict=True)):
        where = blobs.ids == number
        assert where.sum() == size > 0
        assert (labels[where] == label).all()
        assert where[image].sum() == size  # an id belongs to one image
    assert (blobs.image.diff() >= 0).all()


def test_class_blobs_are_one_for_each_class_and_image():
    labels = torch.tensor([[[0, 1, 0]], [[1, 1, IGNORE]]])
    blobs = label_blobs(labels, "class")
    assert blobs.ids.tolist() == [[[0, 1, 0]], [[2, 2, -1]]]
    assert blobs.labels.tolist() == [0, 1, 1]
    assert blobs.image.tolist() == [0, 0, 1]
    assert blobs.size.tolist() == [2, 1, 2]


def test_ids_handed_in_are_split_by_image_and_label():
    ids = torch.tensor([[[5, 5, -1]], [[5, 7, 7]]])
    labels = torch.tensor([[[0, 1, 1]], [[0, 0, IGNORE]]])
    blobs = blobs_from_ids(ids, labels)
    assert blobs.ids.tolist() == [[[0, 1, -1]], [[2, 3, -1]]]
    assert blobs.size.tolist() == [1, 1, 1, 1]


def test_an_empty_batch_has_no_blobs():
    for kind in ("class", "component", "pixel"):
        assert len(label_blobs(torch.zeros(0, 4, 4, dtype=torch.int64), kind).size) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"labels": torch.zeros(4, 4, dtype=torch.int64)}, r"labels: expected integers \[B,H,W\]"),
        ({"labels": torch.zeros(1, 4, 4)}, r"labels: expected integers \[B,H,W\], got torch.float32"),
        (
            {"labels": torch.zeros(1, 4, 4, dtype=torch.int64), "kind": "cloud"},
            "kind: expected one of .* got 'cloud'",
        ),
        (
            {"labels": torch.zeros(1, 4, 4, dtype=torch.int64), "connectivity": 6},
            "connectivity: expected 4 or 8",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        label_blobs(**arguments)


def test_ids_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="ids: expected integers of the shape of labels"):
        blobs_from_ids(torch.zeros(1, 3, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64))

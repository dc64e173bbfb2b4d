import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consensus_lib import IGNORE
from consensus_lib.losses.blobs import blobs_from_ids, join_blobs, label_blobs

MAPS = arrays(
    np.int64,
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([0, 1, 2, IGNORE]),
)


@given(MAPS, st.sampled_from(["class", "component", "occlusion", "pixel"]))
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


def test_ids_handed_in_are_split_by_image_and_label():
    ids = torch.tensor([[[5, 5, -1]], [[5, 7, 7]]])
    labels = torch.tensor([[[0, 1, 1]], [[0, 0, IGNORE]]])
    blobs = blobs_from_ids(ids, labels)
    assert blobs.ids.tolist() == [[[0, 1, -1]], [[2, 3, -1]]]
    assert blobs.labels.tolist() == [0, 1, 0, 0]
    assert blobs.image.tolist() == [0, 0, 1, 1]
    assert blobs.group.tolist() == [5, 5, 5, 7]


def test_occlusion_blobs_are_those_of_equation_2():
    labels = torch.tensor([[[2, 0, 2], [1, 0, 1]], [[2, 2, IGNORE], [1, 1, 2]]])
    blobs = label_blobs(labels, "occlusion")
    assert blobs.labels.tolist() == [0, 1, 2, 2, 1, 2, 2]
    assert blobs.group.tolist() == [0, 1, 2, 3, 1, 2, 3]
    assert blobs.image.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert blobs.size.tolist() == [2, 2, 1, 1, 2, 2, 1]


def test_superpixels_have_one_label_and_follow_colour():
    image = torch.full((1, 3, 16, 16), -1.0)
    image[..., 8:] = 1
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, 8:] = 1
    blobs = label_blobs(labels, "superpixel", image=image, segments=16)
    assert sorted(set(blobs.labels.tolist())) == [0, 1]
    for number in range(len(blobs.size)):
        where = blobs.ids[0] == number
        assert len(labels[0][where].unique()) == len(image[0, 0][where].unique()) == 1


def test_specks_are_dropped_or_join_the_blob_around_them():
    labels = torch.tensor([[[0, 0, 1], [0, 2, 1], [0, 0, 1]]])
    dropped = label_blobs(labels, "component", min_size=2)
    assert dropped.ids.tolist() == [[[0, 0, 1], [0, -1, 1], [0, 0, 1]]]
    assert dropped.size.tolist() == [5, 3]
    merged = label_blobs(labels, "component", min_size=2, specks="merge")
    assert merged.ids.tolist() == [[[0, 0, 1], [0, 0, 1], [0, 0, 1]]]
    assert merged.size.tolist() == [6, 3]
    assert merged.labels.tolist() == [0, 1]


@given(MAPS, st.sampled_from(["drop", "merge"]), st.integers(2, 9))
def test_no_speck_is_left(maps, specks, min_size):
    labels = torch.from_numpy(maps)
    before = label_blobs(labels, "component")
    blobs = label_blobs(labels, "component", min_size=min_size, specks=specks)
    assert torch.equal(torch.bincount(blobs.ids[blobs.ids >= 0], minlength=len(blobs.size)), blobs.size)
    assert (blobs.size >= min_size).all()
    large = [before.ids == number for number in (before.size >= min_size).nonzero()]
    assert len(blobs.size) == len(large)
    for number, where in enumerate(large):  # they stay what they were, and may grow
        assert (blobs.ids[where] == number).all()
        assert (labels[where] == blobs.labels[number]).all()


@pytest.mark.parametrize("kind", ["class", "component"])
def test_blobs_split_by_image_and_joined_are_the_same(kind):
    labels = torch.randint(0, 3, (4, 6, 5), generator=torch.Generator().manual_seed(0))
    labels[2] = IGNORE  # an image without blobs
    blobs = label_blobs(labels, kind)
    parts = blobs.to("cpu").split()
    for part, one in zip(parts, labels, strict=True):
        assert torch.equal(part.ids, label_blobs(one[None], kind).ids)
    for found, expected in zip(join_blobs(parts), blobs, strict=True):
        assert found is expected is None or torch.equal(found, expected)


ZEROS = torch.zeros(1, 4, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: label_blobs(ZEROS[0]), "labels"),
        (lambda: label_blobs(ZEROS.float()), "labels"),
        (lambda: label_blobs(ZEROS, "cloud"), "kind"),
        (lambda: label_blobs(ZEROS + 3, "occlusion"), "labels"),
        (lambda: label_blobs(ZEROS, "superpixel"), "image"),
        (lambda: label_blobs(ZEROS, connectivity=6), "connectivity"),
        (lambda: label_blobs(ZEROS, specks="eat"), "specks"),
        (lambda: blobs_from_ids(ZEROS[:, 1:], ZEROS), "ids"),
        (lambda: blobs_from_ids(ZEROS, ZEROS - 1), "labels"),
        (lambda: blobs_from_ids(ZEROS + 2**60, ZEROS), "ids"),
    ],
)
def test_wrong_arguments_are_named(make, argument):
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        make()

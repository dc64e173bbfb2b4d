import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consensus_lib.data.tasks import TASKS
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.teacher.factorise import OPENING, PAPER, Cleaning, clean, factorise, kernel_size
from synthetic_faces import CLASSES, OCCLUDERS, Recipe, draw_face


def mask(*rows):
    """Return a mask drawn with # and dots."""
    return np.array([[c == "#" for c in row] for row in rows])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"face": np.ones((4, 5), bool)}, "face"),
        ({"face": np.ones((1, 4, 4), bool)}, "face"),
        ({"extent": np.ones((4, 4))}, "extent"),
        ({"connectivity": 6}, "connectivity"),
    ],
)
def test_wrong_arguments_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        factorise(**{"extent": np.ones((4, 4), bool), "face": np.ones((4, 4), bool)} | wrong)


def test_the_papers_kernels_have_its_sizes_at_its_crop():
    sizes = [kernel_size(part, 500, times=2) for part in PAPER.erosion]
    assert sizes + [kernel_size(part, 500) for part in PAPER.dilation] == [25, 7, 45, 45]


@given(st.floats(0, 1), st.integers(1, 600), st.integers(1, 3))
def test_kernels_are_odd_and_nearest(part, side, times):
    size = kernel_size(part, side, times)
    assert size % 2 == 1
    assert size >= 1
    reach = [abs(times * (k - 1) + 1 - times * part * side) for k in (size - 2, size, size + 2) if k > 0]
    assert part == 0 or min(reach) == pytest.approx(abs(times * (size - 1) + 1 - times * part * side))


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([(3, 1), (1, 3), (3, 3), (5, 3)]), st.sampled_from([1, 3, 5])
)
def test_cleaning_is_two_erosions_and_a_dilation(seed, kernel, oval):
    """Erosion treats the outside of the image as residual, dilation as none."""
    width, height = kernel
    expected = residual = np.random.default_rng(seed).random((12, 12)) < 0.8
    for _ in range(2):
        framed = np.pad(expected, ((height // 2,) * 2, (width // 2,) * 2), constant_values=True)
        windows = np.lib.stride_tricks.sliding_window_view(framed, (height, width))
        expected = windows.all((2, 3))
    y, x = np.mgrid[:12, :12]
    near = [(y - v) ** 2 + (x - u) ** 2 <= oval**2 / 4 for v, u in np.argwhere(expected)]
    # Of a side of 12: parts that round to the kernels' sizes, in the middle of their range.
    parts = tuple((k - 0.5) / 12 if k > 1 else 0 for k in kernel)
    found = clean(residual, Cleaning(parts, (oval / 12, oval / 12)))
    assert np.array_equal(found, np.any(near, 0) if near else expected)


def test_the_default_takes_off_rims_and_gives_the_rest_back_whole():
    residual = np.zeros((128, 128), bool)
    residual[30:60, 40:80] = True  # an object
    residual[70:100, 20:23] = True  # a rim, three pixels wide
    found = clean(residual, OPENING)
    assert not found[70:100].any()
    assert not found[~residual].any()
    assert residual[:70].sum() - found.sum() <= 12  # three pixels of each corner


def test_an_image_taken_apart_by_hand():
    extent = mask("####.", "####.", "####.")
    face = mask("..###", ".##..", "###..")
    found = factorise(extent, face, None)
    assert found.difference.tolist() == [[1, 1, 0, 0, -1], [1, 0, 0, 1, 0], [0, 0, 0, 1, 0]]
    assert np.array_equal(found.residual, mask("##...", "#..#.", "...#."))
    assert found.ids.tolist() == [[2, 2, 1, 1, 1], [2, 1, 1, 3, 0], [1, 1, 1, 3, 0]]
    assert found.labels.tolist() == [[2, 2, 1, 1, 1], [2, 1, 1, 2, 0], [1, 1, 1, 2, 0]]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([4, 8]),
    st.sampled_from([None, Cleaning((0.2, 0)), Cleaning((0, 0), (0.3, 0.3))]),
)
def test_ids_are_those_that_the_losses_find_in_the_labels(seed, connectivity, cleaning):
    extent, face = np.random.default_rng(seed).random((2, 9, 11)) < 0.6
    found = factorise(extent, face, cleaning, connectivity)
    blobs = label_blobs(torch.from_numpy(found.labels)[None], "occlusion", connectivity)
    assert np.array_equal(blobs.group[blobs.ids[0]].numpy(), found.ids)
    # Occlusion goes before face and stays in the extent; what nothing claims is background.
    assert np.array_equal(found.cleaned, clean(found.residual, cleaning) & extent)
    assert np.array_equal(found.labels, np.where(found.cleaned, 2, face))


def test_an_empty_extent_or_face_is_no_error():
    none, all_ = np.zeros((9, 9), bool), np.ones((9, 9), bool)
    assert (factorise(none, all_).labels == 1).all()
    assert (factorise(all_, none).ids == 2).all()


@pytest.mark.slow
def test_what_covers_rendered_faces_is_recovered():
    others = tuple((name, odds) for name, odds in OCCLUDERS.items() if name != "strands")  # hair
    recipe = Recipe(occluded=1.0, occluders=others)
    samples = [draw_face(7, index, 128, recipe=recipe) for index in range(40)]
    samples = [sample for sample in samples if sample.record["occlusion"] > 0.01]

    def recovered(sample, cleaning):
        visible = TASKS["occlusion"].table(CLASSES)[sample.labels]
        counts = sample.labels != CLASSES.index("hair")  # which Eq. 1 cannot tell
        found = (factorise(sample.face, visible == 1, cleaning).labels == 2) & counts
        truth = sample.face & (visible == 2) & counts
        return (found & truth).sum() / (found | truth).sum()

    default, paper = (np.mean([recovered(one, how) for one in samples]) for how in (OPENING, PAPER))
    assert len(samples) > 25
    assert default > 0.75
    assert default > paper + 0.05

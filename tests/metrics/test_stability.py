import pytest
import torch

from consensus_lib.metrics.stability import flicker
from support.examples import flickering


def test_a_shift_worked_by_hand():
    # The mask is a square of 32×32. One pixel up or left, the second predictor sees it where it was, so that
    # moved back it is one off, wrong in 2 lines of 32; one pixel down or right, four fewer, so three off.
    image, steady, stepping = flickering()
    assert torch.equal(steady(image), stepping(image))
    assert flicker(steady, image)["flicker_shift"] == 0
    inside = (64 - 8) ** 2
    up, down = ((-1, 0),), ((1, 0),)
    one, three = (flicker(stepping, image, shifts=s, angles=())["flicker_shift"][0] for s in (up, down))
    assert {round(one * inside), round(three * inside)} == {2 * 32 * 1, 2 * 32 * 3}


def test_who_looks_at_each_pixel_moves_with_the_image():
    images = torch.rand(3, 4, 20, 33, generator=torch.Generator().manual_seed(0))
    shares = flicker(lambda x: x.argmax(1), images, shifts=((2, -3), (0, 1)), angles=(), border=3)
    assert list(shares) == ["flicker_shift"]
    assert shares["flicker_shift"].tolist() == [0, 0, 0]


def test_rotations_turn_the_right_way():
    # A smooth picture: bilinear sampling then changes little, and only the sense of the turn can be wrong.
    y, x = torch.meshgrid(torch.arange(56.0), torch.arange(64.0), indexing="ij")
    image = torch.sin(x / 7 + y / 11)[None, None]
    shares = flicker(lambda x: (x[:, 0] > 0).long(), image, shifts=(), angles=(10.0, -7.0), border=12)
    assert shares["flicker_rotation"][0] < 0.02
    frozen = (image[:, 0] > 0).long()
    still = flicker(lambda x: frozen, image, shifts=(), angles=(10.0, -7.0), border=12)
    assert still["flicker_rotation"][0] > 3 * shares["flicker_rotation"][0]


def test_the_floor_is_what_turning_labels_changes():
    image = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    shares = flicker(lambda x: (x[:, 0] > 0.5).long(), image, shifts=())
    assert (shares["flicker_rotation_floor"] > 0).all()
    none = flicker(lambda x: torch.zeros(len(x), 96, 96, dtype=torch.long), image)
    assert all((values == 0).all() for values in none.values())
    still = flicker(lambda x: (x[:, 0] > 0.5).long(), image, shifts=(), angles=(0.0,))
    assert still["flicker_rotation"].tolist() == still["flicker_rotation_floor"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"border": 16}, "border"),
        ({"shifts": ((3, 0),)}, "border"),
        ({"angles": (30.0,)}, "border"),
        ({"images": torch.zeros(3, 32, 32)}, "images"),
    ],
)
def test_wrong_arguments_are_named(about, name):
    about = {"images": torch.zeros(1, 3, 32, 32)} | about
    with pytest.raises(ValueError, match=name):
        flicker(lambda x: x[:, 0].long(), about.pop("images"), **about)

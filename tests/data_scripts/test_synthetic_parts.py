"""The generator's shelves one by one: solids, noise, colours, light, layers and photographs."""

import dataclasses
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from synthetic_faces import (
    CLASSES,
    Recipe,
    chance,
    colour,
    draw_face,
    hair,
    head,
    layers,
    light,
    mesh,
    occluders,
    photographs,
    recipe,
    skin,
)
from synthetic_faces.mesh import Solid
from synthetic_faces.person import draw_person, solids
from synthetic_faces.recipe import OCCLUDERS

VIEW = mesh.View(scale=1.0, centre=(64.0, 64.0), distance=1e9, size=128)


def ball(radius: float, rows: int = 41, columns: int = 81) -> np.ndarray:
    """A ball as a tube whose rings are circles."""
    t = np.linspace(0, np.pi, rows)
    y, r = -radius * np.cos(t), radius * np.sin(t)
    return mesh.tube(np.stack([y, r, r, -r, 0 * r], axis=1), rows, columns, exponent=1.0)


@pytest.fixture(scope="module")
def person():
    return draw_person(0, 3, Recipe())


def test_a_ball_covers_a_disc_at_the_right_depth():
    seen = mesh.rasterise(VIEW, ball(40.0))
    x, y = seen.pixel % 128 + 0.5 - 64, seen.pixel // 128 + 0.5 - 64
    assert len(seen.pixel) == pytest.approx(np.pi * 40**2, rel=0.01)
    inner = np.hypot(x, y) < 36
    assert np.abs(seen.depth - np.sqrt(np.maximum(40**2 - x**2 - y**2, 0)))[inner].max() < 0.5
    outward = np.stack([x, y, seen.depth], axis=1) / 40
    assert np.abs(seen.normal - outward)[inner].max() < 0.06
    assert np.abs(seen.place - np.stack([x, y, seen.depth], axis=1))[inner].max() < 0.5
    assert len(np.unique(seen.pixel)) == len(seen.pixel)


def test_the_back_of_a_ball_lies_behind_its_front():
    front, back = (mesh.rasterise(VIEW, ball(40.0), sides=sides) for sides in ("front", "back"))
    shared = np.intersect1d(front.pixel, back.pixel)
    assert len(shared) > 0.98 * len(front.pixel)
    front, back = (part[np.isin(part.pixel, shared)] for part in (front, back))
    assert np.abs(front.depth + back.depth).max() < 1.0
    assert (back.normal[:, 2] >= 0).all()


def test_rasteriser_covers_the_pixels_of_a_slow_loop():
    grid = np.random.default_rng(0).uniform(-12, 12, (4, 5, 3)).cumsum(0) * 0.6
    view = mesh.View(1.0, (16.0, 16.0), 1e9, 32)
    seen = mesh.rasterise(view, grid, closed=False, sides="both")
    expected = set()
    for a, b, c in view.project(grid).reshape(-1, 3)[mesh._grid_faces(4, 5), :2]:
        system = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
        for pixel in range(32 * 32):
            centre = [pixel % 32 + 0.5, pixel // 32 + 0.5, 1]
            if (np.linalg.solve(system, centre) >= 0).all():
                expected.add(pixel)
    assert len(expected ^ set(seen.pixel.tolist())) <= 2  # rounding on an edge


def test_nearer_part_hides_the_other():
    near, far = (mesh.rasterise(VIEW, ball(20.0) + np.array([0, 0, z])) for z in (50.0, -50.0))
    for parts in ({"near": near, "far": far}, {"far": far, "near": near}):
        visible, depth = mesh.resolve(parts, 128)
        assert len(visible["far"].pixel) == 0
        assert np.array_equal(np.sort(visible["near"].pixel), np.sort(near.pixel))
        assert np.isneginf(depth).sum() == 128 * 128 - len(near.pixel)


def test_rotation_conventions():
    nose = np.array([0.0, 0.0, 1.0])
    assert (mesh.rotation(30, 0, 0) @ nose)[0] > 0.4  # to the viewer's right
    assert (mesh.rotation(0, 20, 0) @ nose)[1] > 0.3  # down
    assert (mesh.rotation(0, 0, 10) @ np.array([1.0, 0, 0]))[1] > 0.1  # clockwise
    turn = mesh.rotation(31, -12, 7)
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_spline_goes_through_its_knots():
    knots = np.random.default_rng(0).normal(size=(6, 5))
    assert np.allclose(mesh._spline(6, 6) @ knots, knots)
    fine = mesh._spline(6, 51) @ knots
    assert np.allclose(fine[::10], knots)
    assert np.abs(np.diff(fine, axis=0)).max() < 0.6 * np.abs(np.diff(knots, axis=0)).max()


@given(seed=st.integers(0, 2**32 - 1), index=st.integers(0, 2**32 - 1))
def test_streams_differ_by_every_key(seed, index):
    def first(*key):
        return chance.stream(*key).integers(2**63, size=2).tolist()

    base = first(seed, index, "hair")
    assert base == first(seed, index, "hair")
    assert base != first(seed, index, "light")
    assert base != first((seed + 1) % 2**32, index, "hair")
    assert base != first(seed, (index + 1) % 2**32, "hair")


def test_noise_is_smooth_standard_and_repeats():
    u = np.linspace(0, 32, 4001)
    values = chance.field(np.random.default_rng(1), u, 0 * u + 3.3)
    assert np.abs(np.diff(values)).max() < 0.1
    assert values[0] == pytest.approx(values[-1], abs=1e-3)
    v = np.random.default_rng(2).uniform(0, 32, (2, 5000))
    assert abs(chance.field(np.random.default_rng(3), *v).mean()) < 0.2
    along = chance.profile(np.random.default_rng(4), np.linspace(-5, 600, 9001))
    assert np.abs(np.diff(along)).max() < 0.6


def test_normal_is_bounded_and_choose_follows_odds():
    rng = np.random.default_rng(0)
    draws = [chance.normal(rng, 10, 2, bound=1.5) for _ in range(500)]
    assert 7 <= min(draws) < max(draws) <= 13
    picks = [chance.choose(rng, {"a": 3, "b": 1, "c": 0}) for _ in range(400)]
    assert picks.count("c") == 0
    assert picks.count("a") == pytest.approx(300, abs=40)


def test_colours_return_from_linear():
    values = np.arange(256, dtype=np.uint8)
    assert np.abs(colour.screen(colour.linear(values)).astype(int) - values).max() <= 5  # 12 bits, dark end
    assert (np.diff(colour.screen(np.linspace(-1, 2, 500)).astype(int)) >= 0).all()
    assert np.array_equal(colour.linear("#ff0080"), colour.linear([255, 0, 128]))


def test_skin_tones_darken_along_the_scale():
    luminance = [colour.skin_colour(tone, 0) @ [0.2126, 0.7152, 0.0722] for tone in np.linspace(4, 10, 25)]
    assert (np.diff(luminance) < 0).all()
    assert np.allclose(colour.skin_colour(7, 0), colour.MONK[6])
    assert np.allclose(colour.skin_colour(10, 0), colour.MONK[9])


def test_shape_modes_move_the_head(person):
    mean = head.SECTIONS[:, 1].max()
    wide = dataclasses.replace(person.shape, weights={**dict.fromkeys(head.MODES, 0.0), "breadth": 2.0})
    assert head.sections(wide)[:, 1].max() > mean + 4
    opened = dataclasses.replace(wide, jaw_open=20.0)
    assert (
        head.head_grid(opened)[..., 1].max()
        > head.head_grid(dataclasses.replace(wide, jaw_open=0.0))[..., 1].max() + 8
    )


def test_every_part_is_a_finite_mesh(person):
    for index in range(12):
        for name, solid in solids(draw_person(5, index, Recipe())).items():
            assert np.isfinite(solid.grid).all(), name
            if solid.closed:
                assert np.allclose(solid.grid[:, 0], solid.grid[:, -1], atol=1.5), name


def test_each_hair_style_can_be_drawn(person, monkeypatch):
    for kind in hair.KINDS:
        monkeypatch.setattr(hair, "MASCULINE", {"bald": 0.0, "receding": 0.0} | {kind: 1.0})
        look = dataclasses.replace(person.look, feminine=0, tone=3.0)
        shape = dataclasses.replace(person.shape, age=0.2)
        style = hair.draw_style(np.random.default_rng(0), shape, look)
        assert style.kind == kind
        grid, place = hair.hair_grid(shape, style, np.random.default_rng(1))
        kept = hair.keeps(style, np.random.default_rng(2))(place.reshape(-1, 3))
        assert np.isfinite(grid).all()
        assert kept.any()
        assert not kept.all()


def test_coverage_is_half_on_the_edge():
    assert np.allclose(skin.soft(np.array([-9.0, 0.0, 9.0]), 2.0), [1, 0.5, 0])
    square = layers.polygon(16, np.array([[4, 4], [11.99, 4], [11.99, 11.99], [4, 11.99]]))
    assert square[4:12, 4:12].min() > 0.9
    assert square.sum() == pytest.approx(64, abs=2)
    assert layers.strokes(16, [np.array([[2.0, 8.0], [14.0, 8.0]])], 2.0).sum() == pytest.approx(24, rel=0.25)


def test_layer_covers_and_shades(person):
    image, labels = np.ones((32, 32, 3), np.float32), np.ones((32, 32), np.uint8)
    cover = np.zeros((32, 32), np.float32)
    cover[10:20, 10:20] = 1
    lamps = light.draw_light(np.random.default_rng(0))
    covered = layers.lay(image, labels, layers.Layer(cover, np.zeros(3, np.float32), 11, 0.8), lamps)
    assert np.array_equal(covered, cover == 1)
    assert (labels[covered] == 11).all()
    assert image[covered].max() == 0
    assert image[~covered].min() < 1  # the shadow
    assert image[0, 0, 0] == 1
    tint = layers.lay(image, labels, layers.Layer(cover, np.ones(3, np.float32), None, 0.0), lamps)
    assert not tint.any()
    assert (labels[covered] == 11).all()


def test_shadow_falls_behind_what_the_lamp_sees(person):
    lamps = light.draw_light(np.random.default_rng(3))
    depths = light.shadow_map(lamps, [Solid(ball(40.0), np.column_stack([np.eye(3), np.zeros(3)]))], 128)
    points = np.stack([40 * lamps.key, -90 * lamps.key, 90 * lamps.key]).astype(np.float32)
    lit = light.lit(lamps, depths, points.T)
    assert lit[0] > 0.7
    assert lit[1] < 0.05
    assert lit[2] == 1


def test_lamp_frame_is_a_rotation():
    for seed in range(20):
        frame = light._lamp_frame(light.draw_light(np.random.default_rng(seed)).key)
        assert np.allclose(frame @ frame.T, np.eye(3))
        assert np.linalg.det(frame) == pytest.approx(1)


def test_turning_the_head_turns_the_face():
    """The eyes' middle moves to the side that the face turns to."""
    eyes = CLASSES.index("eyes")
    for index in range(40):
        sample = draw_face(8, index, 96, recipe=Recipe(occluded=0, people=0))
        yaw = sample.record["pose"]["yaw"]
        if abs(yaw) > 15 and (sample.complete == eyes).sum() > 8:
            x = np.nonzero(sample.complete == eyes)[1].mean()
            head_x = np.nonzero(np.isin(sample.complete, [1, 2, 3, 4, 5, 6]))[1].mean()
            assert np.sign(x - head_x) == np.sign(yaw)


def test_labels_are_connected_and_small_parts_lie_where_they_should():
    for index in range(12):
        sample = draw_face(6, index, recipe=Recipe(occluded=0, people=0, camera=False))
        person = sample.labels > 0
        pieces, count = ndimage.label(person, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert count >= 1
        assert sizes.max() > 0.985 * person.sum()
        rows = {name: np.nonzero(sample.labels == CLASSES.index(name))[0] for name in CLASSES}
        if len(rows["eyes"]) and len(rows["mouth"]):
            assert rows["brows"].mean() < rows["eyes"].mean() < rows["nose"].mean() < rows["mouth"].mean()


def test_occlusion_covers_the_whole_range():
    shares = [
        draw_face(12, index, 48, recipe=Recipe(occluded=1.0)).record["occlusion"] for index in range(150)
    ]
    assert min(shares) < 0.05
    assert max(shares) > 0.45
    assert max(shares) <= 1


def test_photographs_are_bundled_and_need_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(photographs.names()) >= 8
    for name in photographs.names():
        picture = photographs.photograph(name)
        assert picture.mode == "RGB"
        assert min(picture.size) >= 40


def test_generator_does_without_photographs(monkeypatch):
    monkeypatch.setattr(photographs, "names", lambda: ())
    for index in range(6):
        draw_face(1, index, 48, recipe=Recipe(occluded=1.0, occluders=(("scarf", 1.0), ("cup", 1.0))))


def test_generator_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, synthetic_faces; sys.exit(bool({'torch', 'matplotlib', 'skimage'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_occluder_has_a_place_in_the_order():
    assert set(occluders.FAR_TO_NEAR) == set(OCCLUDERS) == {*occluders.KINDS, "person"}
    assert recipe.Recipe().occluders == tuple(OCCLUDERS.items())

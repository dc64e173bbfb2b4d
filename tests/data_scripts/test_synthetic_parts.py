"""The renderer's parts one by one: solids, noise, colours, light, hair and layers."""

import numpy as np
import pytest

from synthetic_faces import chance, layers, light, mesh

VIEW = mesh.View(scale=1.0, centre=(64.0, 64.0), distance=1e9, size=128)


def ball(radius: float, sides: str = "front", away: float = 0.0) -> mesh.Solid:
    """A ball as a tube whose rings are circles."""
    t = np.linspace(0, np.pi, 41)
    y, r = -radius * np.cos(t), radius * np.sin(t)
    grid = mesh.tube(np.stack([y, r, r, -r, 0 * r], axis=1), 41, 81, exponent=1.0)
    return mesh.Solid(grid, np.column_stack([np.eye(3), [0, 0, -away]]), sides=sides)


def test_a_ball_covers_a_disc_at_the_right_depth():
    seen, back = mesh.rasterise(VIEW, [ball(40.0), ball(40.0, "back")])
    x, y = seen.pixel % 128 + 0.5 - 64, seen.pixel // 128 + 0.5 - 64
    assert len(np.unique(seen.pixel)) == len(seen.pixel) == pytest.approx(np.pi * 40**2, rel=0.01)
    inner = np.hypot(x, y) < 36
    points = np.stack([x, y, np.sqrt(np.maximum(40**2 - x**2 - y**2, 0))], axis=1)
    assert np.abs(seen.depth - points[:, 2])[inner].max() < 0.5
    assert np.abs(seen.place - points)[inner].max() < 0.5
    assert np.abs(seen.normal - points / 40)[inner].max() < 0.06
    both, at_front, at_back = np.intersect1d(seen.pixel, back.pixel, return_indices=True)
    assert len(both) > 0.98 * len(seen.pixel)
    assert np.abs(seen.depth[at_front] + back.depth[at_back]).max() < 1.0
    assert (back.normal[:, 2] >= 0).all()


def test_rasteriser_covers_the_pixels_of_a_slow_loop():
    grid = np.random.default_rng(0).uniform(-12, 12, (4, 5, 3)).cumsum(0) * 0.6
    view = mesh.View(1.0, (16.0, 16.0), 1e9, 32)
    (seen,) = mesh.rasterise(view, [mesh.Solid(grid, np.eye(3), closed=False, sides="both")])
    points, expected = view.project(grid)[..., :2], set()
    y, x = np.mgrid[:32, :32].reshape(2, -1) + 0.5
    for i, j, far in np.ndindex(3, 4, 2):  # two triangles of each cell
        corners = points[i, j + 1], points[i + 1, j], points[i + far, j + far]
        system = np.vstack([np.transpose(corners), np.ones(3)])
        inside = (np.linalg.solve(system, np.stack([x, y, np.ones_like(x)])) >= 0).all(0)
        expected.update(np.flatnonzero(inside).tolist())
    assert len(expected ^ set(seen.pixel.tolist())) <= 2  # rounding on an edge


def test_nearer_part_hides_the_other():
    near, far = mesh.rasterise(VIEW, [ball(20.0, away=-50.0), ball(20.0, away=50.0)])
    for parts in ({"near": near, "far": far}, {"far": far, "near": near}):
        visible, depth = mesh.resolve(parts, 128)
        assert len(visible["far"].pixel) == 0
        assert np.array_equal(visible["near"].pixel, near.pixel)
        assert np.isneginf(depth).sum() == 128 * 128 - len(near.pixel)


def test_streams_differ_by_every_key_and_noise_repeats():
    keys = [(0, 1, "hair"), (1, 1, "hair"), (0, 2, "hair"), (0, 1, "light")]
    assert len({chance.stream(*key).integers(2**63) for key in keys}) == 4
    u = np.linspace(0, 32, 4001)
    values = chance.field(np.random.default_rng(1), u, 0 * u + 3.3)
    assert np.abs(np.diff(values)).max() < 0.1
    assert values[0] == pytest.approx(values[-1], abs=1e-3)
    picks = [chance.choose(np.random.default_rng(i), {"a": 3, "b": 1, "c": 0}) for i in range(400)]
    assert (picks.count("a"), picks.count("c")) == (pytest.approx(300, abs=40), 0)


def test_layer_covers_and_shades():
    image, labels = np.ones((32, 32, 3), np.float32), np.ones((32, 32), np.uint8)
    cover = np.zeros((32, 32), np.float32)
    cover[10:20, 10:20] = 1
    lamps = light.sample_light(np.random.default_rng(0))
    covered = layers.lay(image, labels, layers.Layer(cover, np.zeros(3, np.float32), 11, 0.8), lamps)
    assert np.array_equal(covered, cover == 1)
    assert np.array_equal(labels, np.where(covered, 11, 1))
    assert image[covered].max() == 0
    assert image[~covered].min() < 1 == image[0, 0, 0]  # the shadow


def test_shadow_falls_behind_what_the_lamp_sees():
    for seed in range(4):
        lamps = light.sample_light(np.random.default_rng(seed))
        depths = light.shadow_map(lamps, [ball(40.0)], 128)
        points = np.stack([40 * lamps.key, -90 * lamps.key, 90 * lamps.key]).astype(np.float32)
        on, behind, before = light.lit(lamps, depths, points.T)
        assert on > 0.7
        assert behind < 0.05
        assert before == 1

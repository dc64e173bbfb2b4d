"""Light: a key light, a fill light and the sky, with shadows that the person casts on themselves.

Whether the key light reaches a point is looked up in a shadow map: the meshes as the lamp sees them. What
the lamp sees is lit; what lies deeper is in shadow. Nose, brow ridge, hair and jaw all cast shadows
that way, consistent with the pose.
"""

import dataclasses
import itertools

import numpy as np

from synthetic_faces.chance import normal
from synthetic_faces.mesh import View, rasterise

_REACH = 330.0  # millimetres from the middle of the shadow map to its edge


@dataclasses.dataclass(frozen=True)
class Light:
    """The light of one photograph. Unit vectors point towards a lamp in the camera's frame."""

    key: np.ndarray  # unit vector [3]
    fill: np.ndarray  # unit vector [3]
    key_rgb: np.ndarray  # linear colours times strength
    fill_rgb: np.ndarray
    sky_rgb: np.ndarray
    ground_rgb: np.ndarray
    softness: float  # 0 a bare bulb to 1 an overcast sky; softens the edge of shadows and their depth


def _towards(azimuth: float, elevation: float) -> np.ndarray:
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), -np.sin(e), np.cos(a) * np.cos(e)])


def flat_light() -> Light:
    """Return light that comes from everywhere: shading without shadows, for the ablation."""
    ones = np.ones(3)
    return Light(_towards(0, 0), _towards(0, 0), 0.25 * ones, 0 * ones, 0.8 * ones, 0.7 * ones, 1.0)


def sample_light(rng: np.random.Generator) -> Light:
    """Sample flash, daylight, stage or window light."""
    if rng.random() < 0.4:  # on-camera flash
        key = _towards(normal(rng, 0, 12), rng.uniform(0, 35))
        strength, ambient = rng.uniform(0.9, 1.2), rng.uniform(0.06, 0.22)
    else:
        key = _towards(normal(rng, 0, 42), rng.uniform(8, 65))
        strength, ambient = rng.uniform(0.7, 1.3), rng.uniform(0.06, 0.40)
    warm = normal(rng, 0.05, 0.10)
    tint = np.exp(np.array([warm, 0.0, -warm]))
    sky = np.exp(np.array([1, 0, -1]) * normal(rng, 0, 0.10))
    side = -np.sign(key[0] or 1.0)
    fill = _towards(side * rng.uniform(20, 100), rng.uniform(-20, 40))
    fill_strength = rng.uniform(0, 0.45) * (rng.random() < 0.6)
    fill_rgb = fill_strength * np.exp(np.array([1, 0, -1]) * normal(rng, 0, 0.2))
    ground_rgb = ambient * rng.uniform(0.4, 0.9) * sky[::-1]
    return Light(key, fill, strength * tint, fill_rgb, ambient * sky, ground_rgb, rng.uniform(0.0, 0.8))


def _lamp_frame(direction: np.ndarray) -> np.ndarray:
    """Return the rotation ``[3,3]`` into a frame whose z axis points at the lamp."""
    x, y, z = direction
    level = np.hypot(x, z)  # lamps are never straight overhead, so this is not zero
    return np.array([[z / level, 0, -x / level], [-x * y / level, level, -z * y / level], direction])


def shadow_map(light: Light, casters: list, size: int) -> np.ndarray:
    """Return the depth of solids towards the key lamp, float32 ``[M,M]``, finer for larger images."""
    side = int(np.clip(3 * size // 4, 96, 384))
    frame = _lamp_frame(light.key)
    view = View(side / (2 * _REACH), (side / 2, side / 2), 1e9, side)
    depth = np.full(side * side, -1e4, np.float32)
    if side < 192:
        casters = [solid.coarser() for solid in casters]  # fine enough
    turned = [dataclasses.replace(solid, turn=frame @ solid.turn, sides="both") for solid in casters]
    for seen in rasterise(view, turned):
        depth[seen.pixel] = np.maximum(depth[seen.pixel], seen.depth)
    return depth.reshape(side, side)


def lit(light: Light, depths: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the share 0-1 of key light that reaches points ``[3,N]`` (camera frame, millimetres)."""
    u, v, depth = _lamp_frame(light.key).astype(np.float32) @ points
    side = len(depths)
    # A fine map's edge shows steps; the mean over some millimetres around a point does not.
    steps = [0.0] if side == 96 else np.array([-1.0, -0.4, 0.4, 1.0]) * 5 * side / (2 * _REACH)
    u, v = (c * np.float32(side / (2 * _REACH)) + np.float32(side / 2 - 0.5) for c in (u, v))
    edge = np.float32(4 + 10 * light.softness)  # millimetres over which a shadow begins
    share = np.zeros(len(u), np.float32)
    for du, dv in itertools.product(steps, steps):
        near_u, near_v = (np.clip(c, 0, side - 1.001) for c in (u + np.float32(du), v + np.float32(dv)))
        iu, iv = near_u.astype(np.intp), near_v.astype(np.intp)
        fu, fv, here = near_u - iu, near_v - iv, np.zeros(len(u), np.float32)
        weights = (1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv
        for offset, weight in zip((0, 1, side, side + 1), weights, strict=True):
            behind = depths.take(iv * side + iu + offset) - depth - 7  # a map's pixel is that deep on a slope
            here += weight * np.clip(1 - behind / edge, 0, 1)
        share += here
    return share / len(steps) ** 2


def shade(light: Light, paint, normal: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Return the light, linear float32 ``[N,3]``, that painted points send to the camera.

    Points have unit normals ``[N,3]`` and the share of the key light that ``reached`` them ``[N]``.
    """
    reached = 1 - (1 - reached) * np.float32(1 - 0.5 * light.softness)
    wrap = np.float32(0.15 + 0.2 * light.softness)
    towards = normal @ np.stack([light.key, light.fill], axis=1).astype(np.float32)  # [N, 2]
    strength = np.empty((len(normal), 4), np.float32)
    strength[:, 0] = np.maximum((towards[:, 0] + wrap) / (1 + wrap), 0) * reached
    strength[:, 1] = np.maximum(towards[:, 1], 0)
    strength[:, 2] = 0.5 - 0.5 * normal[:, 1]
    strength[:, 3] = 1 - strength[:, 2]
    lamps = np.stack([light.key_rgb, light.fill_rgb, light.sky_rgb, light.ground_rgb]).astype(np.float32)
    diffuse = strength @ lamps  # [N, 3]
    half = light.key + np.array([0, 0, 1.0])
    half = (half / np.linalg.norm(half)).astype(np.float32)
    spark = np.maximum(normal @ half, 0)
    # Two lobes: a broad sheen and a small highlight.
    sheen = spark**2 * spark**2
    sheen *= sheen  # spark**8
    glint = sheen**2 * sheen**2  # spark**32
    shine = paint.gloss * reached * (0.18 * sheen + 0.45 * glint)
    return paint.albedo * diffuse + shine[:, None] * light.key_rgb.astype(np.float32)

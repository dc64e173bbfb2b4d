"""Composed photographs: the renderer's occluders laid over a real labelled photograph, so truth is known.

The renderer's mean head is fitted to the photograph's labels. It says where a mask, a hand or a phone goes,
and where the face ends and neck and ears begin. The light on the occluder is the one that explains the
shading of the face; its blur and noise are the photograph's.
"""

import dataclasses
import functools
import math
from types import SimpleNamespace

import numpy as np
from scipy import ndimage, optimize

from synthetic_faces import layers, occluders, skin
from synthetic_faces.chance import check_integer, stream
from synthetic_faces.face import choose_occluders
from synthetic_faces.head import ear_grid, head_grid, neck_grid, sample_shape
from synthetic_faces.light import Light
from synthetic_faces.mesh import Fragments, Solid, View, mask, rasterise, rotation
from synthetic_faces.paint import linear, screen
from synthetic_faces.recipe import Recipe

FACE, HAIR = 1, 2
# A generator that gives the middle of every distribution: of a mean person.
_MIDDLE = SimpleNamespace(
    standard_normal=lambda: 0.0,
    random=lambda: 0.5,
    uniform=lambda low, high: (low + high) / 2,
    choice=lambda values, p: values[0],
    beta=lambda a, b: a / (a + b),
)
_SHAPE = sample_shape(_MIDDLE)
_SOLIDS = head_grid(_SHAPE), neck_grid(52), ear_grid(_SHAPE, -1), ear_grid(_SHAPE, 1)
_START = np.array([np.log(0.00295), 0.5, 0.448, 0, 0, 0])  # log scale, place (sides), yaw, pitch, roll
_SPREAD = np.array([0.12, 0.04, 0.04, 25.0, 10.0, 10.0])


@dataclasses.dataclass(frozen=True)
class Composed:
    """A photograph with something before the face."""

    image: np.ndarray  # uint8 [S,S,3]
    labels: np.ndarray  # uint8 [S,S]: 0 background, 1 face, 2 occlusion, that is occluder before the face
    complete: np.ndarray  # bool [S,S], the face without the occluder: its face and its occlusion
    occluder: np.ndarray  # bool [S,S], the whole occluder, beside the face too
    hair: np.ndarray  # bool [S,S], hair still seen where the fitted head has its face: fringe or beard
    share: float  # of the complete face that is covered, 0 to 1
    kinds: tuple[str, ...]  # of the occluders, keys of OCCLUDERS


def occlude(photo: np.ndarray, labels: np.ndarray, seed: int, recipe: Recipe | None = None) -> Composed:
    """Lay an occluder over a labelled photograph of one face, with equal bytes for equal arguments.

    *Complete face* is what the labels call face, from hairline to jaw: the fitted head leaves out neck and
    ears. Hair before the face, a fringe or a beard, is background, as in the task ``"occlusion"``.
    *Occlusion* is the part of the occluder that covers the complete face (Eq. 2); the rest of it is
    background. What covered the face in the photograph already is whatever the labels say.

    Args:
        photo: uint8 ``[S,S,3]``, cut out as a prepared folder's images or a ``FaceParser``'s window.
        labels: integers ``[S,S]``, classes of the task ``"parts"``: 0 background, 1 face, 2 hair.
        seed: chooses kinds and places, 0 to 2³²-1.
        recipe: odds and most occluders; at least one is laid over whatever ``occluded`` is.

    Raises:
        ValueError: an argument differs from the above, or less than 1% of the labels is face.

    >>> composed = occlude(photo, labels, seed=0)                     # doctest: +SKIP
    """
    photo, labels = _checked(photo, labels, seed)
    size, picture = len(labels), linear(photo)
    view, turn = _fitted(labels.astype(np.uint8).tobytes())
    seen = _rasterise(view, turn)
    depth = np.full(size * size, -np.inf, np.float32)
    depth[seen[0].pixel] = seen[0].depth
    on_face = mask(size, seen[0].pixel[skin.on_face(seen[0].place, _SHAPE)])
    # Something white: the 98th percentile, but at least twice as bright as the skin.
    white = np.clip(np.quantile(picture.mean(2), 0.98), 2 * _median(picture, labels == FACE).mean(), 1.0)
    picture /= (white := float(white))
    lamps = _explain(picture, labels == FACE, seen[0])
    flesh, hair = (_median(picture, labels == part) for part in (FACE, HAIR))
    stage = layers.Stage(view, turn, _SHAPE, flesh, hair, lamps, depth)
    recipe = dataclasses.replace(recipe or Recipe(), occluded=1.0)
    style = "long" if (labels == HAIR).mean() > 0.02 else "bald"
    kinds = choose_occluders(stream(seed, 0, "occluders"), recipe, style)
    # What layers do to a picture is linear: a factor, which is less than 1 in their shadow too, and a sum.
    on_black, on_white = np.zeros_like(picture), np.ones_like(picture)
    occluder = np.zeros((size, size), bool)
    for number, kind in enumerate(kinds):
        for layer in occluders.KINDS[kind](stage, stream(seed, 0, f"occluder {number}")):
            layers.lay(on_white, labels.copy(), layer, lamps)
            occluder |= layers.lay(on_black, labels.copy(), layer, lamps)
    blur = estimate_blur(photo)
    added, factor = (ndimage.gaussian_filter(p, (blur, blur, 0)) for p in (on_black, on_white - on_black))
    noise = stream(seed, 0, "noise").standard_normal(picture.shape, dtype=np.float32)
    noise *= estimate_noise(photo) * (1 - factor.clip(0, 1))
    result = screen((picture * factor + added) * white).astype(np.float32) + noise
    touched = np.abs(1 - factor) + added > 1e-3
    result = np.where(touched, result.round().clip(0, 255), screen(picture * white))
    complete = (labels == FACE) & on_face
    truth = np.where(complete, np.where(occluder, 2, 1), 0).astype(np.uint8)
    share = float((truth == 2).sum() / max(1, complete.sum()))
    fringe = (labels == HAIR) & on_face & ~occluder
    return Composed(result.astype(np.uint8), truth, complete, occluder, fringe, share, tuple(kinds))


@functools.lru_cache(1024)  # the same photograph is often given several occluders
def _fitted(labels: bytes) -> tuple[View, np.ndarray]:
    """Return the view and the turn ``[3,3]`` in which the mean head explains labels ``[S,S]`` best."""
    size = math.isqrt(len(labels))
    step = max(1, size // 64)
    small = np.frombuffer(labels, np.uint8).reshape(size, size)[step // 2 :: step, step // 2 :: step]
    face, hair = small == FACE, small == HAIR

    def posed(values: np.ndarray, side: int) -> tuple[View, np.ndarray]:
        scale, across, down, *angles = values
        return View(np.exp(scale) * side, (across * side, down * side), 1500.0, side), rotation(*angles)

    def cost(values: np.ndarray) -> float:
        head, *others = _rasterise(*posed(values, len(small)), coarse=True)
        within = mask(len(small), head.pixel[skin.on_face(head.place, _SHAPE)])
        missing = face & ~mask(len(small), head.pixel, *(seen.pixel for seen in others))
        wrong = (within & ~face & ~hair).sum() + 0.3 * (within & hair).sum()
        away = (((values - _START) / _SPREAD) ** 2).sum()
        return (missing.sum() + wrong) / max(1, face.sum()) + 0.03 * away

    simplex = np.stack([_START, *(_START + np.diag(0.6 * _SPREAD))])
    options = {"initial_simplex": simplex, "maxfev": 80, "xatol": 1e-3}
    best = optimize.minimize(cost, _START, method="Nelder-Mead", options=options)
    return posed(best.x, size)


def _explain(picture: np.ndarray, face: np.ndarray, head: Fragments) -> Light:
    """Return the light that explains the shading of a face: a key light and an even one (Lambert's law).

    Both are fitted to the brightness of a linear ``picture`` over the normals of the fitted head, so that
    skin of the median colour is as bright as in it.
    """
    seen = head[face.ravel()[head.pixel]]
    slope = np.array([0.0, -0.1, 0.3])
    if len(seen.pixel) > 50:
        shade = picture.mean(2).ravel()[seen.pixel]
        shade = shade / max(float(np.median(shade)), 1e-3)
        kept = (shade > 0.2) & (shade < 2.5)  # neither brows and nostrils nor highlights
        design = np.column_stack([seen.normal, np.ones(len(shade))])[kept]
        across, down, near, _ = np.linalg.lstsq(design, shade[kept], rcond=None)[0]
        slope = np.array([across, min(down, -0.05), max(near, 0.1)])  # lamps are above and in front
    strength = float(np.clip(np.linalg.norm(slope), 0.2, 0.9))
    key = slope / np.linalg.norm(slope)
    even = np.full(3, 1 - 0.75 * strength)
    return Light(key, key, np.full(3, strength), np.zeros(3), 1.15 * even, 0.85 * even, softness=0.5)


def estimate_blur(photo: np.ndarray) -> float:
    """Return the standard deviation in pixels of a photograph's blur at its sharpest edges.

    A step blurred by σ has a gradient of 1/σ; blurred again by 1 pixel, of 1/√(σ²+1), so their ratio tells σ
    (S. Zhuo and T. Sim, Defocus map estimation from a single image, Pattern Recognition 44, 2011).

    Args:
        photo: uint8 ``[H,W,3]``.
    """
    grey = photo.mean(2)
    once = np.hypot(*np.gradient(ndimage.gaussian_filter(grey, 0.3)))
    again = np.hypot(*np.gradient(ndimage.gaussian_filter(grey, 1.04)))
    peak = (once == ndimage.maximum_filter(once, 3)) & (once > np.quantile(once, 0.95))
    ratio = np.median(once[peak] / np.maximum(again[peak], 1e-3)) if peak.any() else 1.4
    return float(np.clip(1 / np.sqrt(max(ratio**2 - 1, 0.05)), 0.4, 0.03 * max(grey.shape)))


def estimate_noise(photo: np.ndarray) -> float:
    """Return the standard deviation of a photograph's noise in steps of 255.

    The median response to a difference of Laplacians, which even slopes do not excite (J. Immerkær, Fast
    noise variance estimation, 1996); the median leaves edges out.

    Args:
        photo: uint8 ``[H,W,3]``.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = ndimage.convolve(photo.astype(np.float32), kernel[..., None])
    return float(min(np.median(np.abs(response)) / 0.6745 / 6, 8.0))


def _rasterise(view: View, turn: np.ndarray, coarse: bool = False) -> list[Fragments]:
    """Return what is seen of head, neck and ears, without those that others hide."""
    solids = [
        Solid(grid, turn, closed=number < 2, sides="front" if number < 2 else "both")
        for number, grid in enumerate(_SOLIDS)
    ]
    return rasterise(view, [solid.coarser() for solid in solids] if coarse else solids)


def _median(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the median colour ``[3]``; dark brown where there is nothing."""
    return np.median(picture[where], 0) if where.any() else linear("#3a2a20")


def _checked(photo, labels, seed) -> tuple[np.ndarray, np.ndarray]:
    photo, labels = np.asarray(photo), np.asarray(labels)
    if photo.dtype != np.uint8 or photo.shape != (len(photo), len(photo), 3) or len(photo) < 32:
        raise ValueError(
            f"photo: expected uint8 [S,S,3], S at least 32, got {photo.dtype} {list(photo.shape)}"
        )
    if labels.shape != photo.shape[:2] or labels.dtype.kind not in "iu":
        wanted = f"integers {list(photo.shape[:2])} like the photo"
        raise ValueError(f"labels: expected {wanted}, got {labels.dtype} {list(labels.shape)}")
    if not 0 <= labels.min() <= labels.max() <= HAIR or (labels == FACE).mean() < 0.01:
        values = np.unique(labels)[:9].tolist()
        raise ValueError(f"labels: expected 0 background, 1 face (at least 1%) and 2 hair, got {values}")
    check_integer("seed", seed, 0, 2**32 - 1)
    return photo, labels

"""One sample: from (seed, index) to a photograph with exact labels, by way of scene, light and camera."""

import dataclasses
import io

import numpy as np
from PIL import Image
from scipy import ndimage

from synthetic_faces import layers, light, occluders, paint, scene
from synthetic_faces.chance import check_integer, choose, normal, stream
from synthetic_faces.mesh import View
from synthetic_faces.person import render, sample_person
from synthetic_faces.recipe import BACKGROUND, CLASSES, Recipe

_ROOTS = np.linspace(0, 1, 1024)


@dataclasses.dataclass(frozen=True)
class FaceSample:
    """A synthetic photograph of a face, its labels and its record."""

    image: np.ndarray  # uint8 [H,W,3], sRGB
    labels: np.ndarray  # uint8 [H,W], the class of each pixel, numbered as in CLASSES
    complete: np.ndarray  # uint8 [H,W], the labels if nothing covered the person
    face: np.ndarray  # bool [H,W], the complete face from hairline to jaw, hidden parts included
    record: dict  # pose, skin tone, hair, light, occluders and so on, ready for JSON


def draw_face(seed: int, index: int, size: int = 128, *, recipe: Recipe | None = None) -> FaceSample:
    """Render sample ``index`` of the endless series ``seed``, with equal bytes in any order and process.

    Args:
        seed: names the series, 0 to 2³²-1.
        index: number of the sample, 0 to 2³²-1.
        size: height and width in pixels, 32 to 1024.
        recipe: which ingredients to use.

    Raises:
        ValueError: an argument is out of its range.

    >>> sample = draw_face(0, 1, size=64)
    >>> sample.image.shape, sample.labels.dtype.name
    ((64, 64, 3), 'uint8')
    """
    check_integer("seed", seed, 0, 2**32 - 1)
    check_integer("index", index, 0, 2**32 - 1)
    check_integer("size", size, 32, 1024)
    seed, index, size = int(seed), int(index), int(size)
    recipe = recipe or Recipe()
    person = sample_person(seed, index)
    view = _aim(stream(seed, index, "view"), person, size)
    lamps = light.sample_light(stream(seed, index, "light")) if recipe.light else light.flat_light()
    image, record = _backdrop(seed, index, recipe, view, lamps)
    shown = render(person, view, lamps, recipe)
    image.reshape(-1, 3)[shown.pixel] = shown.colour
    labels, face = np.zeros((size, size), np.uint8), np.zeros((size, size), bool)
    labels.flat[shown.pixel], face.flat[shown.face] = shown.label, True
    flesh = paint.skin_colour(person.look.tone, person.look.blood + 0.3)
    stage = layers.Stage(view, person.turn, person.shape, flesh, person.look.hair_rgb, lamps, shown.depth)
    rng = stream(seed, index, "glasses")
    record["glasses"] = bool(rng.random() < 0.08 + 0.25 * person.shape.age)
    for layer in occluders.spectacles(stage, rng) if record["glasses"] else ():
        layers.lay(image, labels, layer, lamps)
    complete, covered = labels.copy(), np.zeros((size, size), bool)
    rng = stream(seed, index, "occluders")
    record["occluders"] = choose_occluders(rng, recipe, person.style.kind)
    for number, kind in enumerate(record["occluders"]):
        for layer in occluders.KINDS[kind](stage, stream(seed, index, f"occluder {number}")):
            covered |= layers.lay(image, labels, layer, lamps)
    outside = _corners(stream(seed, index, "corners"), size, face) & recipe.camera
    labels[outside] = complete[outside] = BACKGROUND
    covered &= ~outside

    rng = stream(seed, index, "camera")
    # A camera meters the whole picture: dark skin stays darker, or the background would burn out.
    level = np.exp(normal(rng, np.log(0.20), 0.32) - 0.09 * max(0, person.look.tone - 4))
    pull, bare = rng.uniform(0.5, 0.85), face & ~covered
    if bare.any():  # pull 1 would bring every face to the same level
        image = image * np.float32((level / max(float(image[bare].mean()), 1e-4)) ** pull)
    image[outside] = 0
    picture = _develop(image, outside, rng) if recipe.camera else paint.screen(image)
    hidden = np.count_nonzero(face & covered) / max(np.count_nonzero(face), 1)
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES)).tolist()
    yaw, pitch, roll = (round(float(angle), 2) for angle in person.pose)
    described = {
        "seed": seed,
        "index": index,
        "size": size,
        "pose": {"yaw": yaw, "pitch": pitch, "roll": roll},
        "skin_tone": {"scale": "Monk", "value": round(person.look.tone, 2)},
        "hair": {"kind": person.style.kind, "colour": person.look.hair, "beard": person.look.beard},
        "light": {"key": [round(float(v), 3) for v in lamps.key], "softness": round(lamps.softness, 3)},
        **record,
        "occlusion": round(hidden, 6),
        "pixels": dict(zip(CLASSES, counts, strict=True)),
    }
    return FaceSample(picture, labels, complete, face, described)


def _aim(rng: np.random.Generator, person, size: int) -> View:
    """Return the view that a face detector and an aligner leave: the face near the middle, at one scale."""
    scale = 0.00295 * size * np.exp(normal(rng, 0, 0.06))
    view = View(scale, (0, 0), rng.uniform(900, 3000), size)
    x, y = view.project((np.array([0, 30, 32.0]) @ person.turn.T)[None])[0, :2]
    target = size * np.array([normal(rng, 0.5, 0.014), normal(rng, 0.536, 0.016)])
    return dataclasses.replace(view, centre=(target[0] - x, target[1] - y))


def _backdrop(seed: int, index: int, recipe: Recipe, view: View, lamps: light.Light) -> tuple:
    """Return the background with its bystanders, linear float32 ``[H,W,3]``, and the record's entries."""
    size = view.size
    if recipe.background == "plain":
        return np.full((size, size, 3), 0.2, np.float32), {"background": "plain", "others": 0}
    image, kind = scene.background(stream(seed, index, "background"), size, recipe.background == "all")
    rng = stream(seed, index, "others")
    if rng.random() >= recipe.people:
        return image, {"background": kind, "others": 0}
    others = int(rng.choice([1, 2], p=[0.8, 0.2]))
    side = rng.choice([-1, 1])
    half = (size + 1) // 2  # they are out of focus: half the resolution will do
    for number in range(others):
        person = sample_person(seed, index, key=f"other {number}")
        scale = view.scale * rng.uniform(0.55, 1.15) / 2
        x = half * (0.5 + side * rng.uniform(0.36, 0.62))
        centre, side = (x, view.centre[1] / 2 + rng.normal(0, 0.12) * half), -side
        shown = render(person, View(scale, centre, 2500, half), lamps, recipe, rough=True)
        small = np.zeros((half, half, 4), np.float32)
        small.reshape(-1, 4)[shown.pixel] = np.column_stack([shown.colour, np.ones(len(shown.pixel))])
        small[..., :3] *= np.float32(rng.uniform(0.4, 1.1))
        blur = max(0.5, rng.uniform(0, 0.015) * half)
        small = ndimage.gaussian_filter(small, (blur, blur, 0), truncate=2.0)
        large = small.repeat(2, axis=0).repeat(2, axis=1)[:size, :size]
        image += large[..., :3] - large[..., 3:] * image
    return image, {"background": kind, "others": others}


def _develop(image: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn linear light ``[H,W,3]`` into a uint8 picture: cast, contrast, blur, noise and JPEG.

    ``outside`` ``[H,W]`` stays black.
    """
    image = image * np.exp(np.array([1, 0, -1]) * normal(rng, 0.0, 0.07)).astype(np.float32)
    # A shoulder, so that highlights roll off instead of clipping hard.
    bright = image > 0.6
    image[bright] = 0.6 + 0.4 * np.tanh((image[bright] - 0.6) / 0.4)
    blur = (0.45 + 0.7 * rng.uniform() ** 2) * image.shape[0] / 128
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=2.5)
    # The curve, looked up by the root of the light, which keeps the dark end fine.
    curve = 255 * np.minimum(0.2 * (_ROOTS**2 / 0.2) ** normal(rng, 1.15, 0.15), 1) ** (1 / 2.2)
    root = np.sqrt(np.clip(image, 0, 1)) * np.float32(len(_ROOTS) - 1)
    picture = curve.astype(np.float32).take((root + np.float32(0.5)).astype(np.intp))
    noise = rng.uniform(0, 1) ** 2 * 7
    if noise > 0.7:  # less is lost in rounding
        picture += noise * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    picture[outside] = 0
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(55, 98)))
    return np.asarray(Image.open(file))


def _corners(rng: np.random.Generator, size: int, face: np.ndarray) -> np.ndarray:
    """Return the pixels, bool ``[H,W]``, that lie outside the original photograph after an alignment.

    It turns and moves photographs, which leaves black corners; one that would touch the face is left out.
    """
    outside = np.zeros((size, size), bool)
    if rng.random() < 0.15:
        return outside
    angle, place = np.radians(normal(rng, 0, 5)), np.arange(size) + 0.5 - size / 2
    for turn in angle + np.arange(4) * np.pi / 2:
        inset = size * (0.5 - max(0.0, normal(rng, 0.012, 0.04)))
        away = np.cos(turn) * place[None, :] + np.sin(turn) * place[:, None]
        if not ((away > inset - size / 64) & face).any():
            outside |= away > inset
    return outside


def choose_occluders(rng: np.random.Generator, recipe: Recipe, hair: str) -> list[str]:
    """Return the kinds of occluder of one sample, farthest first; strands for long enough ``hair`` only."""
    if recipe.most == 0 or rng.random() >= recipe.occluded:
        return []
    odds = {name: value for name, value in recipe.occluders if value > 0}
    if len(odds) > 1 and hair in ("bald", "buzz", "receding"):
        odds.pop("strands", None)
    count = min(int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05])), recipe.most, len(odds))
    kinds = set()
    for _ in range(count):
        kinds.add(choose(rng, {name: value for name, value in odds.items() if name not in kinds}))
    return [kind for kind in occluders.KINDS if kind in kinds]

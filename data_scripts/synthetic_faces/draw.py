"""Drawing a sample: from (seed, index) to a photograph with exact labels."""

import dataclasses

import numpy as np
from scipy import ndimage

from synthetic_faces import camera, colour, layers, light, occluders, scene, worn
from synthetic_faces.chance import choose, normal, stream
from synthetic_faces.classes import BACKGROUND, CLASSES, OCCLUDER
from synthetic_faces.mesh import View
from synthetic_faces.person import Person, draw_person, render
from synthetic_faces.recipe import Recipe

CONTOUR_POINTS = 64


@dataclasses.dataclass(frozen=True)
class FaceSample:
    """A synthetic photograph of a face and everything that is true about it.

    Attributes:
        image: uint8 ``[H,W,3]``, sRGB.
        labels: uint8 ``[H,W]``, what each pixel shows, numbered as in ``CLASSES``.
        complete: uint8 ``[H,W]``, what it would show if nothing covered the person.
        face: bool ``[H,W]``, the complete face from hairline to jaw, hidden parts included.
        contour: float64 ``[64,2]``, outline of the complete face: (x, y) in pixels, pixel centres at +0.5.
        record: what was drawn, ready for JSON.
    """

    image: np.ndarray
    labels: np.ndarray
    complete: np.ndarray
    face: np.ndarray
    contour: np.ndarray
    record: dict


def draw_face(seed: int, index: int, size: int = 128, *, recipe: Recipe | None = None) -> FaceSample:
    """Draw sample ``index`` of the endless series ``seed``.

    Every sample depends on its own (seed, index) only, so any part of a series can be drawn alone, in any
    order and by any process, on one platform with equal bytes.

    Args:
        seed: names the series, 0 to 2³²-1.
        index: number of the sample, 0 to 2³²-1.
        size: height and width in pixels, 32 to 1024.
        recipe: which ingredients to use.

    Returns:
        the sample.

    Raises:
        ValueError: an argument is out of its range.

    >>> sample = draw_face(0, 1, size=64)
    >>> sample.image.shape, sample.labels.dtype.name
    ((64, 64, 3), 'uint8')
    """
    seed, index, size = _checked(seed=seed, index=index, size=size)
    recipe = recipe or Recipe()
    person = draw_person(seed, index, recipe)
    view = _aim(stream(seed, index, "view"), person, size)
    lamps = light.draw_light(stream(seed, index, "light")) if recipe.light else light.flat_light()
    image, record = _backdrop(seed, index, recipe, view, lamps)
    drawn = render(person, view, lamps, recipe)
    image.reshape(-1, 3)[drawn.pixel] = drawn.colour
    labels, face = np.zeros((size, size), np.uint8), np.zeros((size, size), bool)
    labels.ravel()[drawn.pixel] = drawn.label
    face.ravel()[drawn.face] = True

    photos = recipe.background == "all"
    stage = layers.Stage(
        view, person.turn, person.shape, person.look, person.style, lamps, drawn.depth, photos
    )
    record["glasses"] = _spectacles(seed, index, stage, image, labels)
    complete = labels.copy()
    record["occluders"], covered = _occlude(seed, index, recipe, stage, image, labels)
    outside = np.zeros((size, size), bool)
    if recipe.camera:
        outside = camera.corners(stream(seed, index, "corners"), size, face)
    labels[outside] = complete[outside] = BACKGROUND
    covered &= ~outside

    rng = stream(seed, index, "camera")
    # A camera meters the whole picture: dark skin stays darker, or the background would burn out.
    level = np.exp(normal(rng, np.log(0.20), 0.32) - 0.09 * max(0, person.look.tone - 4))
    image = camera.expose(image, face & ~covered, level, pull=rng.uniform(0.5, 0.85))
    image[outside] = 0
    picture = camera.develop(image, outside, rng) if recipe.camera else colour.screen(image)
    hidden = np.count_nonzero(face & covered) / max(np.count_nonzero(face), 1)
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES)).tolist()
    record = {
        "seed": seed,
        "index": index,
        "size": size,
        **_describe(person, lamps),
        **record,
        "occlusion": round(hidden, 6),
        "pixels": dict(zip(CLASSES, counts, strict=True)),
    }
    return FaceSample(picture, labels, complete, face, outline(face), record)


def _checked(**numbers) -> list[int]:
    """Return the arguments of :func:`draw_face` as plain integers, or complain."""
    limits = {"seed": (0, 2**32), "index": (0, 2**32), "size": (32, 1025)}
    for name, value in numbers.items():
        low, high = limits[name]
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not low <= value < high:
            raise ValueError(f"{name}: expected an integer from {low} to {high - 1}, got {value!r}")
    return [int(value) for value in numbers.values()]


def _describe(person: Person, lamps: light.Light) -> dict:
    """Return the record's entries about the person and the light."""
    yaw, pitch, roll = (round(float(angle), 2) for angle in person.pose)
    return {
        "pose": {"yaw": yaw, "pitch": pitch, "roll": roll},
        "skin_tone": {"scale": "Monk", "value": round(person.look.tone, 2)},
        "hair": {"kind": person.style.kind, "colour": person.look.hair, "beard": person.look.beard},
        "light": {"key": [round(float(v), 3) for v in lamps.key], "softness": round(lamps.softness, 3)},
        "age": round(person.shape.age, 3),
        "smile": round(person.shape.smile, 3),
        "clothes": person.outfit["kind"],
    }


def _aim(rng: np.random.Generator, person: Person, size: int) -> View:
    """Return the view that a face detector and an aligner leave: the face near the middle, at one scale."""
    scale = 0.00295 * size * np.exp(normal(rng, 0, 0.06))
    distance = rng.uniform(900, 3000)
    view = View(scale, (0, 0), distance, size)
    x, y = view.project((np.array([0, 30, 32.0]) @ person.turn.T)[None])[0, :2]
    target = size * np.array([normal(rng, 0.5, 0.014), normal(rng, 0.536, 0.016)])
    return dataclasses.replace(view, centre=(target[0] - x, target[1] - y))


def _backdrop(
    seed: int, index: int, recipe: Recipe, view: View, lamps: light.Light
) -> tuple[np.ndarray, dict]:
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
        person = draw_person(seed, index, recipe, key=f"other {number}")
        scale = view.scale * rng.uniform(0.55, 1.15) / 2
        centre = (
            half * (0.5 + side * rng.uniform(0.36, 0.62)),
            view.centre[1] / 2 + rng.normal(0, 0.12) * half,
        )
        side = -side
        drawn = render(person, View(scale, centre, 2500, half), lamps, recipe, rough=True)
        small = np.zeros((half, half, 4), np.float32)
        small.reshape(-1, 4)[drawn.pixel] = np.column_stack([drawn.colour, np.ones(len(drawn.pixel))])
        small[..., :3] *= np.float32(rng.uniform(0.4, 1.1))
        blur = max(0.5, float(rng.choice([0, rng.uniform(0, 0.02)])) * half)
        small = ndimage.gaussian_filter(small, (blur, blur, 0), truncate=2.0)
        large = small.repeat(2, axis=0).repeat(2, axis=1)[:size, :size]
        image += large[..., :3] - large[..., 3:] * image
    return image, {"background": kind, "others": others}


def _spectacles(seed: int, index: int, stage: layers.Stage, image: np.ndarray, labels: np.ndarray) -> bool:
    """Put glasses on some, more often on older people; say whether."""
    rng = stream(seed, index, "glasses")
    if rng.random() >= 0.08 + 0.25 * stage.shape.age:
        return False
    for layer in worn.spectacles(stage, rng, dark=False):
        layers.lay(image, labels, layer, stage.light)
    return True


def _occlude(
    seed: int, index: int, recipe: Recipe, stage: layers.Stage, image: np.ndarray, labels: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Lay occluders over image and labels; return their kinds and where they cover, bool ``[H,W]``."""
    kinds = _choose_occluders(stream(seed, index, "occluders"), recipe, stage.style.kind)
    covered = np.zeros(labels.shape, bool)
    for number, kind in enumerate(kinds):
        rng = stream(seed, index, f"occluder {number}")
        if kind == "person":
            pile = [_stranger(stage, rng, draw_person(seed, index, recipe, key="stranger"), recipe)]
        else:
            pile = occluders.KINDS[kind](stage, rng)
        for layer in pile:
            covered |= layers.lay(image, labels, layer, stage.light)
    return kinds, covered


def _choose_occluders(rng: np.random.Generator, recipe: Recipe, hair: str) -> list[str]:
    """Return the kinds of occluder of one sample, farthest first, each at most once.

    Nobody whose hair is too short for it gets strands in the face, unless nothing else is allowed.
    """
    if recipe.most == 0 or rng.random() >= recipe.occluded:
        return []
    odds = {name: value for name, value in recipe.occluders if value > 0}
    if len(odds) > 1 and hair in ("bald", "buzz", "receding"):
        odds.pop("strands", None)
    count = min(int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05])), recipe.most, len(odds))
    kinds = []
    for _ in range(count):
        kinds.append(choose(rng, {name: value for name, value in odds.items() if name not in kinds}))
    return sorted(kinds, key=occluders.FAR_TO_NEAR.index)


def _stranger(stage: layers.Stage, rng: np.random.Generator, person: Person, recipe: Recipe) -> layers.Layer:
    """Return another person, who stands in front and is cut by the frame, as a layer."""
    size = stage.view.size
    scale = stage.view.scale * rng.uniform(1.0, 1.6)
    side = rng.choice([-1, 1])
    centre = (size / 2 + side * rng.uniform(0.36, 0.55) * size, size * rng.uniform(0.6, 1.05))
    drawn = render(person, View(scale, centre, 2500, size), stage.light, recipe, rough=True)
    cover, shown = np.zeros(size * size, np.float32), np.zeros((size * size, 3), np.float32)
    cover[drawn.pixel], shown[drawn.pixel] = 1, drawn.colour
    return layers.Layer(cover.reshape(size, size), shown.reshape(size, size, 3), OCCLUDER, 0.2)


def outline(face: np.ndarray, points: int = CONTOUR_POINTS) -> np.ndarray:
    """Return the outline of a mask as seen from its middle.

    Args:
        face: bool ``[H,W]``, star-shaped as seen from its centroid up to small dents.
        points: number of rays.

    Returns:
        float64 ``[points,2]``, (x, y) in pixels with pixel centres at +0.5; the first point lies to the
        right of the middle, the others follow clockwise. Zeros if the mask is empty.
    """
    if not face.any():
        return np.zeros((points, 2))
    y, x = np.nonzero(face)
    middle = np.array([x.mean(), y.mean()])
    angle = 2 * np.pi * np.arange(points) / points
    aim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    far = np.sqrt(((x - middle[0]) ** 2 + (y - middle[1]) ** 2).max())
    steps = np.arange(0, far + 2, 0.5)
    rays = steps[:, None] * aim.T[:, None, :] + (middle + 1.5)[:, None, None]  # [2, S, P]
    # A frame of empty pixels answers for rays that leave the image.
    framed = np.pad(face, 1)
    column, row = np.minimum(np.maximum(rays, 0), face.shape[0] + 1).astype(np.intp)
    inside = framed[row, column]
    last = len(steps) - 1 - inside[::-1].argmax(0)
    edge = middle + 0.5 + (steps[last] + 0.25)[:, None] * aim
    return np.clip(edge, 0, face.shape[0])

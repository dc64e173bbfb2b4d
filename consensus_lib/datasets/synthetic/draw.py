"""Drawing a sample: from (seed, index) to a photograph with exact labels."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from consensus_lib.datasets.synthetic import camera, hair, head, layers, light, occluders, scene, skin, worn
from consensus_lib.datasets.synthetic.chance import choose, normal, stream
from consensus_lib.datasets.synthetic.classes import BACKGROUND, CLASSES, NECK, OCCLUDER
from consensus_lib.datasets.synthetic.mesh import Fragments, View, rasterise, resolve, rotation
from consensus_lib.datasets.synthetic.recipe import Recipe

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


@dataclasses.dataclass(frozen=True)
class Person:
    """One person: shape, look, hair, clothes and how they stand. ``turn`` ``[3,3]``, ``body`` ``[3,4]``."""

    shape: head.Shape
    look: skin.Look
    style: hair.Style
    outfit: dict
    pose: tuple[float, float, float]
    turn: np.ndarray
    body: np.ndarray
    neck: float
    drop: float
    key: str


def draw_person(seed: int, index: int, recipe: Recipe, key: str = "person") -> Person:
    """Draw a person; ``key`` names the streams, so that bystanders differ from the sitter."""
    shape = head.draw_shape(stream(seed, index, f"{key}/shape"))
    look = skin.draw_look(stream(seed, index, f"{key}/look"), shape, recipe.tones)
    style = hair.draw_style(stream(seed, index, f"{key}/hair"), shape, look)
    outfit = scene.draw_outfit(stream(seed, index, f"{key}/clothes"), look)
    rng = stream(seed, index, f"{key}/pose")
    yaw, pitch, roll = (recipe.turn * normal(rng, 0, deviation, 2.2) for deviation in (19, 8, 5))
    across = 0.35 * yaw + recipe.turn * normal(rng, 0, 14)
    body = np.column_stack([rotation(across, 0, 0.2 * roll), [0, 0, 0]])
    # The neck is fixed below the skull's base, which moves a little as the head nods and tilts.
    base = np.array([0, 70, -20.0])
    turn = rotation(yaw, pitch, roll)
    body[:, 3] = turn @ base - body[:, :3] @ base
    neck = normal(rng, 54 - 7 * look.feminine, 4)
    return Person(shape, look, style, outfit, (yaw, pitch, roll), turn, body, neck, normal(rng, 144, 8), key)


@dataclasses.dataclass(frozen=True)
class Solid:
    """A mesh ``grid`` ``[R,C,3]`` and how to draw it; the other fields are as in :func:`rasterise`.

    ``keep`` says which of its fragments exist, given their places; None keeps all.
    """

    grid: np.ndarray
    turn: np.ndarray
    place: np.ndarray | None = None
    keep: Callable[[np.ndarray], np.ndarray] | None = None
    closed: bool = True
    sides: str = "front"


def _solids(person: Person, seed: int, index: int) -> dict[str, Solid]:
    """Return every part of a person by name."""
    shape = person.shape
    fixed = np.column_stack([person.turn, np.zeros(3)])
    solids = {
        "neck": Solid(head.neck_grid(shape, person.neck), person.body),
        "torso": Solid(head.torso_grid(person.neck, person.drop), person.body),
        "head": Solid(head.head_grid(shape), fixed),
        "left ear": Solid(head.ear_grid(shape, -1), fixed, closed=False, sides="both"),
        "right ear": Solid(head.ear_grid(shape, 1), fixed, closed=False, sides="both"),
    }
    if person.style.kind != "bald":
        rng = stream(seed, index, f"{person.key}/hair shape")
        grid, place = hair.hair_grid(shape, person.style, rng)
        keep = hair.keeps(person.style, shape, rng)
        solids["hair"] = Solid(grid, fixed, place, keep)
        if person.style.length > 80:
            # Where the near side of hanging hair is cut away, its far side shows: two solids, not one.
            solids["hair inside"] = Solid(grid, fixed, place, keep, sides="back")
    return solids


@dataclasses.dataclass(frozen=True)
class Rendering:
    """A person on pixels: flat ``pixel`` ``[N]``, linear ``colour`` ``[N,3]``, ``label`` ``[N]``; the head's
    visible ``face`` pixels with the hair taken off; and the depth map ``[H*W]``."""

    pixel: np.ndarray
    colour: np.ndarray
    label: np.ndarray
    face: np.ndarray
    depth: np.ndarray


def render(
    person: Person,
    view: View,
    lamps: light.Light,
    seed: int,
    index: int,
    recipe: Recipe,
    shadows: bool = True,
) -> Rendering:
    """Project, light and paint a person; without ``shadows`` they throw none on themselves."""
    parts, solids = {}, _solids(person, seed, index)
    for name, solid in solids.items():
        seen = rasterise(
            view, solid.grid, solid.turn, place=solid.place, closed=solid.closed, sides=solid.sides
        )
        parts[name] = seen if solid.keep is None else seen[solid.keep(seen.place)]
    on_face = parts["head"][skin.on_face(parts["head"].place, person.shape)].pixel
    visible, depth = resolve(parts, view.size)
    depths = None
    if recipe.light and shadows:
        depths = light.shadow_map(lamps, [solids[name] for name in ("head", "hair") if name in solids])
    pixels, colours, labels = [], [], []
    for name, seen in visible.items():
        if len(seen.pixel) == 0:
            continue
        paint = _paint(name, seen, person, view, stream(seed, index, f"{person.key}/paint {name}"))
        if not recipe.texture:
            _flatten(paint)
        reached = np.ones(len(seen.pixel), np.float32)
        if depths is not None:
            reached = light.lit(lamps, depths, _unproject(view, seen))
        pixels.append(seen.pixel)
        colours.append(light.shade(lamps, paint, seen.normal, reached))
        labels.append(paint.label)
    return Rendering(np.concatenate(pixels), np.concatenate(colours), np.concatenate(labels), on_face, depth)


def _paint(name: str, seen: Fragments, person: Person, view: View, rng: np.random.Generator) -> skin.Paint:
    """Paint the visible fragments of one part."""
    shape, look, pixel = person.shape, person.look, 1 / view.scale
    if name == "head":
        return skin.paint_head(seen, shape, look, pixel, rng)
    if name == "neck":
        return skin.paint_neck(seen, shape, look, rng)
    if "ear" in name:
        return skin.paint_ear(seen, look, rng)
    if "hair" in name:
        paint = hair.paint_hair(seen.place, person.style, look, shape, rng)
        if name == "hair inside":
            paint.darken(np.full(len(seen.pixel), 0.55, np.float32))
        return paint
    paint = scene.paint_clothes(seen, person.outfit, person.drop, pixel, rng)
    if person.outfit["kind"] == "low":
        bare = scene.is_bare(seen.place, person.outfit, person.drop)
        flesh = skin.paint_neck(seen, shape, look, rng)
        paint.albedo[bare], paint.label[bare] = flesh.albedo[bare], NECK
    return paint


def _flatten(paint: skin.Paint) -> None:
    """Give every class of a part its mean colour."""
    for number in np.unique(paint.label):
        same = paint.label == number
        paint.albedo[same] = paint.albedo[same].mean(0)


def _unproject(view: View, seen: Fragments) -> np.ndarray:
    """Return the points ``[N,3]`` in millimetres that fragments show."""
    zoom = view.scale * view.distance / (view.distance - seen.depth)
    x, y = seen.pixel % view.size + 0.5, seen.pixel // view.size + 0.5
    return np.stack([(x - view.centre[0]) / zoom, (y - view.centre[1]) / zoom, seen.depth], 1).astype(
        np.float32
    )


def _aim(rng: np.random.Generator, person: Person, size: int) -> View:
    """Return the view that a face detector and an aligner leave: the face near the middle, at one scale."""
    scale = 0.00295 * size * np.exp(normal(rng, 0, 0.06))
    distance = rng.uniform(900, 3000)
    view = View(scale, (0, 0), distance, size)
    x, y = view.project((np.array([0, 30, 32.0]) @ person.turn.T)[None])[0, :2]
    target = size * np.array([normal(rng, 0.5, 0.014), normal(rng, 0.536, 0.016)])
    return dataclasses.replace(view, centre=(target[0] - x, target[1] - y))


def draw_face(
    seed: int, index: int, size: int = 128, *, recipe: Recipe | None = None, supersample: int = 1
) -> FaceSample:
    """Draw sample ``index`` of the endless series ``seed``.

    Every sample depends on its own (seed, index) only, so any part of a series can be drawn alone, in any
    order and by any process, on one platform with equal bytes.

    Args:
        seed: names the series, 0 to 2³²-1.
        index: number of the sample, 0 to 2³²-1.
        size: height and width in pixels, 32 to 1024.
        recipe: which ingredients to use.
        supersample: draw at so many times the size and reduce; 4 for figures at 512 pixels.

    Returns:
        the sample.

    Raises:
        ValueError: an argument is out of its range.

    >>> sample = draw_face(0, 1, size=64)
    >>> sample.image.shape, sample.labels.dtype.name
    ((64, 64, 3), 'uint8')
    """
    for name, value, low, high in (
        ("seed", seed, 0, 2**32),
        ("index", index, 0, 2**32),
        ("size", size, 32, 1025),
        ("supersample", supersample, 1, 9),
    ):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not low <= value < high:
            raise ValueError(f"{name}: expected an integer from {low} to {high - 1}, got {value!r}")
    seed, index, size = int(seed), int(index), int(size)
    recipe = recipe or Recipe()
    full = size * supersample
    person = draw_person(seed, index, recipe)
    view = _aim(stream(seed, index, "view"), person, full)
    lamps = light.draw_light(stream(seed, index, "light")) if recipe.light else light.flat_light()
    image, backdrop, others = _backdrop(seed, index, full, recipe, view, lamps)
    drawn = render(person, view, lamps, seed, index, recipe)
    image.reshape(-1, 3)[drawn.pixel] = drawn.colour
    labels = np.zeros((full, full), np.uint8)
    labels.reshape(-1)[drawn.pixel] = drawn.label
    face = np.zeros((full, full), bool)
    face.reshape(-1)[drawn.face] = True

    stage = layers.Stage(
        view,
        person.turn,
        person.shape,
        person.look,
        person.style,
        lamps,
        drawn.depth,
        recipe.background == "all",
    )
    rng = stream(seed, index, "glasses")
    wears_glasses = rng.random() < 0.08 + 0.25 * person.shape.age
    if wears_glasses:
        for layer in worn.spectacles(stage, rng, dark=False):
            layers.lay(image, labels, layer, lamps)
    complete = labels.copy()
    kinds = _choose_occluders(stream(seed, index, "occluders"), recipe, person.style)
    covered = np.zeros((full, full), bool)
    for number, kind in enumerate(kinds):
        rng = stream(seed, index, f"occluder {number}")
        covering = (
            [_stranger(stage, rng, seed, index, recipe)]
            if kind == "person"
            else occluders.KINDS[kind](stage, rng)
        )
        for layer in covering:
            covered |= layers.lay(image, labels, layer, lamps)
    outside = np.zeros((full, full), bool)
    if recipe.camera:
        rng = stream(seed, index, "corners")
        outside = camera.corners(rng, full, ndimage.binary_dilation(face, iterations=max(1, full // 64)))
    for map_ in (labels, complete):
        map_[outside] = BACKGROUND
    covered &= ~outside
    image, labels, complete, face, covered, outside = _reduce(
        supersample, image, labels, complete, face, covered, outside
    )

    rng = stream(seed, index, "camera")
    # A camera meters the whole picture: dark skin stays darker, or the background would burn out.
    level = np.exp(normal(rng, np.log(0.20), 0.32) - 0.09 * max(0, person.look.tone - 4))
    pull = rng.uniform(0.5, 0.85)
    image = camera.expose(image, np.flatnonzero(face & ~covered), level, pull)
    image[outside] = 0
    if recipe.camera:
        picture = camera.develop(image, outside, rng)
    else:
        from consensus_lib.datasets.synthetic.colour import screen

        picture = screen(image)
    hidden = int((face & covered).sum())
    record = {
        "seed": seed,
        "index": index,
        "size": size,
        "pose": dict(zip(("yaw", "pitch", "roll"), (round(angle, 2) for angle in person.pose), strict=True)),
        "skin_tone": {"scale": "Monk", "value": round(person.look.tone, 2)},
        "hair": {"kind": person.style.kind, "colour": person.look.hair, "beard": person.look.beard},
        "light": {"key": [round(float(v), 3) for v in lamps.key], "softness": round(lamps.softness, 3)},
        "age": round(person.shape.age, 3),
        "smile": round(person.shape.smile, 3),
        "glasses": bool(wears_glasses),
        "clothes": person.outfit["kind"],
        "background": backdrop,
        "others": others,
        "occluders": kinds,
        "occlusion": round(hidden / max(int(face.sum()), 1), 6),
        "pixels": {
            name: int(count)
            for name, count in zip(CLASSES, np.bincount(labels.ravel(), minlength=len(CLASSES)), strict=True)
        },
    }
    return FaceSample(picture, labels, complete, face, outline(face), record)


def _backdrop(
    seed: int, index: int, size: int, recipe: Recipe, view: View, lamps
) -> tuple[np.ndarray, str, int]:
    """Return the background with its bystanders, what it is, and how many people stand there."""
    if recipe.background == "plain":
        return np.full((size, size, 3), 0.2, np.float32), "plain", 0
    rng = stream(seed, index, "background")
    image, kind = scene.background(rng, size, recipe.background == "all")
    rng = stream(seed, index, "others")
    others = 0
    if rng.random() < recipe.people:
        others = int(rng.choice([1, 2], p=[0.65, 0.35]))
        side = rng.choice([-1, 1])
        for number in range(others):
            person = draw_person(seed, index, recipe, key=f"other {number}")
            scale = view.scale * rng.uniform(0.55, 1.15)
            away = side * rng.uniform(0.36, 0.62) * size
            side = -side
            other = View(scale, (size / 2 + away, view.centre[1] + rng.normal(0, 0.12) * size), 2500, size)
            drawn = render(person, other, lamps, seed, index, recipe, shadows=False)
            image.reshape(-1, 3)[drawn.pixel] = drawn.colour * np.float32(rng.uniform(0.4, 1.1))
        blur = float(rng.choice([0, rng.uniform(0, 0.02)])) * size
        if blur > 0.3:
            image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=2.0)
    return image, kind, others


def _choose_occluders(rng: np.random.Generator, recipe: Recipe, style: hair.Style) -> list[str]:
    """Return the kinds of occluder of one sample, farthest first, each at most once.

    Nobody whose hair is too short for it gets strands in the face, unless nothing else is allowed.
    """
    if recipe.most == 0 or rng.random() >= recipe.occluded:
        return []
    odds = {name: value for name, value in recipe.occluders if value > 0}
    if len(odds) > 1 and style.kind in ("bald", "buzz", "receding"):
        odds.pop("strands", None)
    count = min(int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05])), recipe.most, len(odds))
    kinds = []
    for _ in range(count):
        kinds.append(choose(rng, {name: value for name, value in odds.items() if name not in kinds}))
    return sorted(kinds, key=occluders.FAR_TO_NEAR.index)


def _stranger(stage: layers.Stage, rng, seed: int, index: int, recipe: Recipe) -> layers.Layer:
    """Return another person who stands in front, cut by the frame, as a layer."""
    size = stage.view.size
    person = draw_person(seed, index, recipe, key="stranger")
    scale = stage.view.scale * rng.uniform(1.0, 1.6)
    side = rng.choice([-1, 1])
    centre = (size / 2 + side * rng.uniform(0.36, 0.55) * size, size * rng.uniform(0.6, 1.05))
    drawn = render(person, View(scale, centre, 2500, size), stage.light, seed, index, recipe, shadows=False)
    cover, colour = np.zeros(size * size, np.float32), np.zeros((size * size, 3), np.float32)
    cover[drawn.pixel], colour[drawn.pixel] = 1, drawn.colour
    return layers.Layer(cover.reshape(size, size), colour.reshape(size, size, 3), OCCLUDER, 0.2)


def _reduce(factor: int, image, *maps):
    """Average the image over blocks of ``factor`` pixels; give each map's block its most frequent value."""
    if factor == 1:
        return image, *maps
    size = image.shape[0] // factor
    small = [image.reshape(size, factor, size, factor, 3).mean((1, 3))]
    for values in maps:
        votes = values.reshape(size, factor, size, factor)
        if values.dtype == bool:
            small.append(votes.mean((1, 3)) >= 0.5)
        else:
            counts = np.stack([(votes == number).sum((1, 3)) for number in range(len(CLASSES))])
            small.append(counts.argmax(0).astype(np.uint8))
    return small


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
    steps = np.arange(0, np.hypot(np.ptp(x), np.ptp(y)) + 2, 0.25)
    rays = (middle + 0.5 + steps[:, None, None] * aim).astype(np.intp)  # [S, P, 2]
    # A frame of empty pixels answers for rays that leave the image.
    framed = np.pad(face, 1)
    column, row = np.clip(rays + 1, 0, face.shape[0] + 1).transpose(2, 0, 1)
    inside = framed[row, column]
    last = len(steps) - 1 - inside[::-1].argmax(0)
    edge = middle + 0.5 + (steps[last] + 0.125)[:, None] * aim
    return np.clip(edge, 0, face.shape[0])

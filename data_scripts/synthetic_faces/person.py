"""A person: shape, look, hair, clothes and pose, drawn from their streams and put on pixels.

The sitter, the bystanders behind and the stranger in front are all persons; they differ in the view only.
"""

import dataclasses

import numpy as np

from synthetic_faces import hair, head, light, scene, skin
from synthetic_faces.chance import normal, stream
from synthetic_faces.classes import NECK
from synthetic_faces.mesh import Fragments, Solid, View, rasterise_all, resolve, rotation
from synthetic_faces.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Person:
    """One person.

    Attributes:
        shape, look, style, outfit: see the modules ``head``, ``skin``, ``hair`` and ``scene``.
        pose: yaw, pitch and roll of the head in degrees; see :func:`rotation`.
        turn: rotation of the head ``[3,3]``.
        body: rotation and shift of neck and torso ``[3,4]``.
        neck: half width of the neck in millimetres.
        drop: height y of the shoulders below the eyes in millimetres.
        key: names the person's streams.
        seed, index: the sample they belong to.
    """

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
    seed: int
    index: int


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
    return Person(
        shape=shape,
        look=look,
        style=style,
        outfit=outfit,
        pose=(yaw, pitch, roll),
        turn=turn,
        body=body,
        neck=normal(rng, 54 - 7 * look.feminine, 4),
        drop=normal(rng, 144, 8),
        key=key,
        seed=seed,
        index=index,
    )


def solids(person: Person) -> dict[str, Solid]:
    """Return every part of a person by name."""
    shape, style = person.shape, person.style
    fixed = np.column_stack([person.turn, np.zeros(3)])
    parts = {
        "neck": Solid(head.neck_grid(shape, person.neck), person.body),
        "torso": Solid(head.torso_grid(person.neck, person.drop), person.body),
        "head": Solid(head.head_grid(shape), fixed),
        "left ear": Solid(head.ear_grid(shape, -1), fixed, closed=False, sides="both"),
        "right ear": Solid(head.ear_grid(shape, 1), fixed, closed=False, sides="both"),
    }
    if style.kind == "bald":
        return parts
    rng = stream(person.seed, person.index, f"{person.key}/hair shape")
    grid, place = hair.hair_grid(shape, style, rng)
    keep = hair.keeps(style, rng)
    parts["hair"] = Solid(grid, fixed, place, keep)
    if style.hangs or style.sides > 14:
        # Where the near side of hanging or thick hair is cut away, its far side shows: a second solid.
        parts["hair inside"] = Solid(grid, fixed, place, keep, sides="back")
    if style.bun:
        grid, place = hair.bun_grid(shape, style)
        parts["hair bun"] = Solid(grid, fixed, place)
    return parts


@dataclasses.dataclass(frozen=True)
class Rendering:
    """A person on pixels: flat ``pixel`` ``[N]``, linear ``colour`` ``[N,3]``, ``label`` ``[N]``; the head's
    visible ``face`` pixels with the hair taken off; and the depth map ``[H*W]``."""

    pixel: np.ndarray
    colour: np.ndarray
    label: np.ndarray
    face: np.ndarray
    depth: np.ndarray


def render(person: Person, view: View, lamps: light.Light, recipe: Recipe, rough: bool = False) -> Rendering:
    """Project, light and paint a person; a ``rough`` one has coarser meshes and throws no shadows."""
    meshes = solids(person)
    drawn = [solid.coarser() if rough else solid for solid in meshes.values()]
    parts = dict(zip(meshes, rasterise_all(view, drawn), strict=True))
    on_face = parts["head"][skin.on_face(parts["head"].place, person.shape)].pixel
    visible, depth = resolve(parts, view.size)
    visible = {name: seen for name, seen in visible.items() if len(seen.pixel)}
    if not visible:  # wholly outside the frame
        none = np.zeros(0, np.intp)
        return Rendering(none, np.zeros((0, 3), np.float32), none, on_face, depth)
    pixel = np.concatenate([seen.pixel for seen in visible.values()])
    reached = np.ones(len(pixel), np.float32)
    if recipe.light and not rough:
        casters = [meshes[name] for name in ("head", "hair") if name in meshes]
        depths = light.shadow_map(lamps, casters, view.size)
        reached = light.lit(lamps, depths, _unproject(view, pixel, depth[pixel]))
    bare = [name for name in visible if _shows_skin(name, person)]
    rng = stream(person.seed, person.index, f"{person.key}/paint skin")
    flesh = skin.flesh([visible[name].place for name in bare], person.look, 1 / view.scale, rng)
    flesh = dict(zip(bare, flesh, strict=True))
    paints = [_paint(name, seen, flesh.get(name), person, 1 / view.scale) for name, seen in visible.items()]
    if not recipe.texture:
        for paint in paints:
            _flatten(paint)
    paint = skin.Paint.joined(paints)
    normal = np.concatenate([seen.normal for seen in visible.values()])
    return Rendering(pixel, light.shade(lamps, paint, normal, reached), paint.label, on_face, depth)


def _shows_skin(name: str, person: Person) -> bool:
    """Say whether a part is skin, or cloth with an opening."""
    return (
        name in ("head", "neck")
        or name.endswith(" ear")
        or (name == "torso" and person.outfit["kind"] == "low")
    )


def _paint(name: str, seen: Fragments, flesh: skin.Paint | None, person: Person, pixel: float) -> skin.Paint:
    """Paint the visible fragments of one part.

    Args:
        name: the part.
        seen: its fragments.
        flesh: the same as plain skin, for a part that shows any.
        person: whose it is.
        pixel: a pixel's width in millimetres.
    """
    shape, look = person.shape, person.look
    rng = stream(person.seed, person.index, f"{person.key}/paint {name}")
    if name == "head":
        return skin.paint_head(flesh, seen.place, shape, look, pixel, rng)
    if name == "neck":
        return skin.paint_neck(flesh, seen.place, shape, rng)
    if "hair" in name:
        paint = hair.paint_hair(seen.place, person.style, look, rng)
        if name == "hair inside":
            paint.darken(np.full(len(seen.pixel), 0.55, np.float32))
        return paint
    if name.endswith(" ear"):
        return skin.paint_ear(flesh, seen.place)
    paint = scene.paint_clothes(seen, person.outfit, person.drop, pixel, rng)
    if flesh is not None:
        open_ = scene.is_bare(seen.place, person.outfit, person.drop)
        flesh = skin.paint_neck(flesh, seen.place, shape, rng)
        paint.albedo[open_], paint.label[open_], paint.gloss[open_] = flesh.albedo[open_], NECK, 0.25
    return paint


def _flatten(paint: skin.Paint) -> None:
    """Give every class of a part its mean colour."""
    for number in np.unique(paint.label):
        same = paint.label == number
        paint.albedo[same] = paint.albedo[same].mean(0)


def _unproject(view: View, pixel: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the points ``[3,N]`` in millimetres that are seen at pixels ``[N]`` in a depth ``[N]``."""
    zoom = (view.distance - depth) / np.float32(view.scale * view.distance)
    row, column = np.divmod(pixel.astype(np.int32), np.int32(view.size))
    points = np.stack(
        [column - np.float32(view.centre[0] - 0.5), row - np.float32(view.centre[1] - 0.5), depth]
    )
    points[:2] *= zoom
    return points.astype(np.float32)

"""A person, sitter or bystander: shape, look, hair, clothes and pose, sampled and rendered."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from synthetic_faces import hair, head, light, scene, skin
from synthetic_faces.chance import normal, stream
from synthetic_faces.mesh import Solid, View, rasterise, resolve, rotation
from synthetic_faces.paint import Paint, bump, ridge
from synthetic_faces.recipe import EARS, NECK, Recipe


def sample_person(seed: int, index: int, key: str = "person") -> SimpleNamespace:
    """Sample a person; ``key`` names the streams, so that bystanders differ from the sitter."""

    def random(purpose: str) -> np.random.Generator:
        return stream(seed, index, f"{key}/{purpose}")

    shape, rng = head.sample_shape(random("shape")), random("pose")
    look = skin.sample_look(random("look"), shape)
    pose = yaw, pitch, roll = [normal(rng, 0, deviation, 2.2) for deviation in (19, 8, 5)]  # degrees
    turn, across = rotation(yaw, pitch, roll), rotation(0.35 * yaw + normal(rng, 0, 14), 0, 0.2 * roll)
    # The neck is fixed below the skull's base, which moves a little as the head nods and tilts.
    base = np.array([0, 70, -20.0])
    return SimpleNamespace(
        shape=shape,
        look=look,
        style=hair.sample_style(random("hair"), shape, look),
        outfit=scene.sample_outfit(random("clothes"), look),
        pose=pose,
        turn=turn,  # of the head [3,3]
        body=np.column_stack([across, turn @ base - across @ base]),  # rotation and shift of the torso [3,4]
        neck=normal(rng, 54 - 7 * look.feminine, 4),  # half width, millimetres
        drop=normal(rng, 144, 8),  # height y of the shoulders below the eyes, millimetres
        random=random,
    )


def solids(person: SimpleNamespace) -> dict[str, Solid]:
    """Return every part of a person by name."""
    shape, style, turn = person.shape, person.style, person.turn
    parts = {
        "neck": Solid(head.neck_grid(person.neck), person.body),
        "torso": Solid(head.torso_grid(person.neck, person.drop), person.body),
        "head": Solid(head.head_grid(shape), turn),
        "left ear": Solid(head.ear_grid(shape, -1), turn, closed=False, sides="both"),
        "right ear": Solid(head.ear_grid(shape, 1), turn, closed=False, sides="both"),
    }
    if style.kind != "bald":
        rng = person.random("hair shape")
        grid, place = hair.hair_grid(shape, style, rng)
        parts["hair"] = Solid(grid, turn, place, hair.keeps(style, rng))
        if style.hangs or style.sides > 14:
            # Where the near side of hanging or thick hair is cut away, its far side shows: a second solid.
            parts["hair inside"] = dataclasses.replace(parts["hair"], sides="back")
    return parts


def render(person, view: View, lamps: light.Light, recipe: Recipe, rough: bool = False) -> SimpleNamespace:
    """Project, light and paint a person; a ``rough`` one has coarser meshes and throws no shadows."""
    meshes = solids(person)
    parts = rasterise(view, [solid.coarser() if rough else solid for solid in meshes.values()])
    parts = dict(zip(meshes, parts, strict=True))
    on_face = parts["head"][skin.on_face(parts["head"].place, person.shape)].pixel
    visible, depth = resolve(parts, view.size)
    pixel = np.concatenate([seen.pixel for seen in visible.values()])
    reached = np.ones(len(pixel), np.float32)
    if recipe.light and not rough:
        casters = [meshes[name] for name in ("head", "hair") if name in meshes]
        depths = light.shadow_map(lamps, casters, view.size)
        reached = light.lit(lamps, depths, view.unproject(pixel, depth[pixel]))
    paints = [_paint(name, seen.place, person, 1 / view.scale) for name, seen in visible.items()]
    if not recipe.texture:
        for paint in paints:
            for number in np.unique(paint.label):  # every class of a part gets its mean colour
                same = paint.label == number
                paint.albedo[same] = paint.albedo[same].mean(0)
    paint = Paint.joined(paints)
    normal = np.concatenate([seen.normal for seen in visible.values()])
    return SimpleNamespace(
        pixel=pixel,  # flat indices of the pixels that show the person [N]
        colour=light.shade(lamps, paint, normal, reached),  # linear [N,3]
        label=paint.label,  # [N]
        face=on_face,  # flat indices of the pixels of the face without hair
        depth=depth,  # [H*W], -inf where nothing is
    )


def _paint(name: str, place: np.ndarray, person: SimpleNamespace, pixel: float) -> Paint:
    """Paint places ``[N,3]`` of the part ``name``; ``pixel`` is a pixel's width in millimetres."""
    rng = person.random(f"paint {name}")
    if "hair" in name:
        paint = hair.paint_hair(place, person.style, person.look, rng)
        paint.albedo *= 0.45 if name == "hair inside" else 1
        return paint
    if name == "torso":
        paint = scene.paint_clothes(place, person.outfit, person.drop, pixel, rng)
        if person.outfit["kind"] != "low":
            return paint
    flesh = skin.flesh(place, person.look, pixel, person.random("paint skin"))
    if name == "head":
        skin.paint_head(flesh, place, person.shape, person.look, pixel, rng)
        return flesh
    if name.endswith(" ear"):  # redder than the face, dark inside the bowl
        flesh.label[:] = EARS
        flesh.albedo *= np.array([1.05, 0.9, 0.88], np.float32)
        flesh.darken(0.45 * bump(place[:, 1], place[:, 2], 10, -15, 16, 8))
        return flesh
    flesh.label[:] = NECK
    cord = np.abs(place[:, 0]) - (52 - 0.3 * (place[:, 1] - 80))  # from the ears to the breastbone
    flesh.darken(0.12 * ridge(cord, 7))
    if name == "neck":
        return flesh
    bare = np.flatnonzero(scene.is_bare(place, person.outfit, person.drop))
    paint[bare] = flesh[bare]
    return paint

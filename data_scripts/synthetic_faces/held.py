"""Held occluders: hands and what they hold, drawn as round sticks and flat shapes in front of the face."""

import numpy as np

from synthetic_faces import photographs
from synthetic_faces.chance import choose, normal
from synthetic_faces.colour import linear, skin_colour
from synthetic_faces.layers import FRONT, Layer, Stage, lit_colour, polygon, rounded
from synthetic_faces.scene import random_colour


def _frame(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors up and across, in pixels, of something leaning right by ``angle`` (radians)."""
    up = np.array([np.sin(angle), -np.cos(angle)])
    return up, np.array([np.cos(angle), np.sin(angle)])


def _flesh(stage: Stage, rng: np.random.Generator) -> np.ndarray:
    """Return the linear colour of a hand: the face's own tone, a little redder, or now and then a glove."""
    if rng.random() < 0.07:
        return random_colour(rng)
    return skin_colour(stage.look.tone, stage.look.blood + 0.3) * np.float32(rng.uniform(0.85, 1.1))


def _arm(stage: Stage, rng: np.random.Generator, wrist, elbow, grow: float, tone) -> list[Layer]:
    """Return forearm and, mostly, a sleeve from ``wrist`` to ``elbow`` (pixels)."""
    layers = [rounded(stage, np.stack([wrist, elbow]), np.array([27, 45]) * grow, tone, 0.2, 0.4)]
    if rng.random() < 0.7:
        cuff = wrist + (elbow - wrist) * rng.uniform(0.0, 0.25)
        layers.append(
            rounded(
                stage, np.stack([cuff, elbow]), np.array([36, 58]) * grow, random_colour(rng, 0.7), 0.05, 0.3
            )
        )
    return layers


def _finger(stage: Stage, base, aim, bend, length: float, width: float, tone) -> Layer:
    """Return a finger of three joints from ``base`` along ``aim``, curving by ``bend``; all in pixels."""
    joints = np.stack(
        [
            base,
            base + aim * 0.45 * length,
            base + (aim + bend) * 0.78 * length,
            base + (aim + 2 * bend) * length,
        ]
    )
    return rounded(stage, joints, width * np.array([1.0, 0.98, 0.9, 0.75]), tone, 0.25, 0.45)


def _grip(stage: Stage, rng: np.random.Generator, middle, up, out, wide: float, grow: float) -> list[Layer]:
    """Return four fingers that come round an object from the side ``out``, with back of the hand and arm."""
    tone = _flesh(stage, rng)
    hold = middle + out * (wide + 12 * grow)
    wrist = hold - up * 62 * grow + out * 8 * grow
    layers = _arm(stage, rng, wrist, wrist - up * 240 * grow + out * rng.uniform(-10, 90) * grow, grow, tone)
    palm = np.stack([hold + up * 18 * grow, hold - up * 30 * grow, wrist])
    layers.append(rounded(stage, palm, np.array([26, 30, 26]) * grow, tone, 0.2, 0.3))
    for k in rng.permutation(4):
        base = middle + up * (26 - 18.5 * k) * grow + out * (wide + 6 * grow)
        length = wide * rng.uniform(0.9, 1.3) + (6, 12, 10, 2)[k] * grow
        layers.append(
            _finger(stage, base, -out + 0.1 * up * rng.normal(), 0.05 * up, length, 10 * grow, tone)
        )
    return layers


def hand(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A hand with bent fingers on the cheek, over the mouth, under the chin or before the eyes."""
    shape, mm = stage.shape, stage.view.scale
    side = rng.choice([-1, 1])
    target = choose(
        rng, {"cheek": 1.0, "mouth": 1.0, "chin": 1.5, "eyes": 0.4, "brow": 0.5, "beside": 0.7, "fist": 0.8}
    )
    spot = {
        "cheek": (side * 52, 40, 60),
        "mouth": (side * 12, shape.mouth_y, 90),
        "chin": (side * 10, 118, 80),
        "fist": (side * 25, 118, 70),
        "eyes": (side * 18, 4, 80),
        "brow": (side * 40, -45, 70),
        "beside": (side * 95, 70, 60),
    }[target]
    grow = mm * normal(rng, 1.0, 0.08)
    tip = stage.at(spot)[0] + rng.normal(0, 4, 2) * mm
    # Fingers point from the wrist, which comes from below or from the side, to the target.
    up, across = _frame(-np.radians(normal(rng, 25, 18)) * side)
    reach = {"chin": rng.uniform(15, 50), "fist": rng.uniform(8, 22)}.get(target, rng.uniform(35, 85))
    palm = tip - up * (reach + 35) * grow
    wrist = palm - up * 75 * grow
    tone = _flesh(stage, rng)
    layers = _arm(stage, rng, wrist, wrist - up * 260 * grow + side * across * 60 * grow, grow, tone)
    back = np.stack([wrist, palm - up * 45 * grow, palm])
    layers.append(rounded(stage, back, np.array([27, 34, 40]) * grow, tone, 0.2, 0.4))
    spread, curl = rng.uniform(0.0, 0.16), rng.uniform(-0.12, 0.12)
    for k in rng.permutation(4):
        base = palm + across * (k - 1.5) * 19.5 * grow + up * 18 * grow
        aim = up + across * ((k - 1.5) * spread + rng.normal(0, 0.05))
        length = reach * (1.0, 1.12, 1.05, 0.85)[k] * grow
        layers.append(_finger(stage, base, aim, across * curl, length, 10.5 * grow, tone))
    thumb = across * side * (1 if rng.random() < 0.8 else -1)
    aim = up * rng.uniform(0.2, 1.0) + thumb * rng.uniform(0.2, 1.0)
    aim /= np.linalg.norm(aim)
    base = palm - up * 25 * grow + thumb * 34 * grow
    layers.append(_finger(stage, base, aim, 0.1 * up, 62 * grow, 12.5 * grow, tone))
    return layers


def microphone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """One to three microphones that come from below, some as far as the mouth."""
    size, mm = stage.view.size, stage.view.scale
    layers = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        head = stage.at((rng.normal(0, 28), stage.shape.mouth_y + rng.uniform(8, 90), 130))[0]
        up, across = _frame(normal(rng, 0, 0.5))
        grow = mm * rng.uniform(0.8, 1.5)
        stick = linear("#16161a") * np.float32(rng.uniform(0.5, 2))
        handle = np.stack([head - up * 20 * grow, head - up * 320 * grow])
        layers.append(rounded(stage, handle, np.array([13, 11]) * grow, stick, 0.4, 0.25))
        ball = random_colour(rng) if rng.random() < 0.4 else linear("#35363a")
        grid = np.arange(size, dtype=np.float32) * 2 * np.pi / (5 * mm)
        gauze = 1 + 0.25 * np.sin(grid[:, None] + grid) * np.sin(grid[:, None] - grid)
        ends = np.stack([head - up * 12 * grow, head + up * 12 * grow])
        layers.append(rounded(stage, ends, np.array([21, 24]) * grow, ball * gauze[..., None], 0.3, 0.3))
        if rng.random() < 0.3:  # the station's cube
            middle, half = head - up * 55 * grow, np.array([22, 20]) * grow
            square = [
                middle + a * half[0] * across + b * half[1] * up
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            layers.append(Layer(polygon(size, np.stack(square)), random_colour(rng) + 0.02, shadow=0.2))
    return layers


def phone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A phone at the ear or before the face, held by a hand."""
    size, mm = stage.view.size, stage.view.scale
    side = rng.choice([-1, 1])
    middle = stage.at((side * rng.uniform(45, 90), rng.uniform(10, 60), 70))[0]
    up, across = _frame(side * rng.uniform(0.0, 0.6))
    half = np.array([rng.uniform(20, 37), rng.uniform(55, 80)]) * mm
    angle = np.linspace(0, 2 * np.pi, 41)
    round_x, round_y = (np.sign(f(angle)) * np.abs(f(angle)) ** 0.25 for f in (np.cos, np.sin))
    outline = middle + half[0] * round_x[:, None] * across + half[1] * round_y[:, None] * up
    colour = linear(str(rng.choice(["#141416", "#2a2c30", "#d9dadb", "#7c2231"])))
    body = Layer(polygon(size, outline), lit_colour(stage.light, FRONT, colour, 0.15)[0])
    return [body, *_grip(stage, rng, middle, up, side * across, half[0], mm)]


def cup(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A cup or glass at the mouth, with fingers around it."""
    size, mm = stage.view.size, stage.view.scale
    middle = stage.at((rng.normal(0, 14), stage.shape.mouth_y + rng.uniform(10, 60), 110))[0]
    up, across = _frame(rng.normal(0, 0.15))
    wide, high = rng.uniform(34, 46) * mm, rng.uniform(36, 60) * mm
    angle = np.linspace(0, np.pi, 12)
    rim = [middle + up * (high + 0.18 * wide * np.sin(a)) + across * wide * np.cos(a) for a in angle]
    foot = [middle - up * (high + 0.15 * wide * np.sin(a)) - across * 0.75 * wide * np.cos(a) for a in angle]
    grid = np.arange(size) + 0.5
    x = ((grid[None, :] - middle[0]) * across[0] + (grid[:, None] - middle[1]) * across[1]) / wide
    x = np.clip(x, -0.98, 0.98)
    normals = np.stack([x, 0 * x, np.sqrt(1 - x**2)], axis=-1)
    colour = random_colour(rng) if rng.random() < 0.5 else linear("#e6e4df")
    if stage.photos and photographs.names() and rng.random() < 0.5:
        names = photographs.names()
        colour = photographs.crop(rng, names[rng.integers(len(names))], size, 0.6)
    vessel = Layer(polygon(size, np.stack(rim + foot)), lit_colour(stage.light, normals, colour, 0.5))
    return [vessel, *_grip(stage, rng, middle, up, rng.choice([-1, 1]) * across, wide, mm)]


def food(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Something to eat at the mouth: an apple, a roll, an ice cream; held from below."""
    size, mm = stage.view.size, stage.view.scale
    middle = stage.at((rng.normal(0, 12), stage.shape.mouth_y + rng.uniform(6, 28), 112))[0]
    up, across = _frame(rng.normal(0, 0.5))
    colour = linear(str(rng.choice(["#a32a20", "#7d9a32", "#c4904a", "#e8d9b0", "#5a3420", "#e6a0a8"])))
    radius, stretch = rng.uniform(22, 38) * mm, rng.uniform(0, 40) * mm
    grid = np.arange(size, dtype=np.float32) / mm
    speckle = 1 + 0.2 * np.sin(grid[:, None] * 0.9 + 3 * np.sin(grid / 9)) * np.sin(grid * 0.7)
    ends = np.stack([middle - across * stretch, middle + across * stretch])
    bite = rounded(stage, ends, np.full(2, radius), colour * speckle[..., None], 0.3, 0.4)
    return [
        bite,
        *_grip(stage, rng, middle - up * 0.5 * radius, up, rng.choice([-1, 1]) * across, radius, mm),
    ]

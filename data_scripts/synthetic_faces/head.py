"""The head: a mean shape in millimetres, its linear variation, expression, and where the features lie.

The mean has the usual proportions of adults. A shape is the mean plus a weighted sum of modes, each a smooth
change of the horizontal sections; features move with it.
"""

from types import SimpleNamespace

import numpy as np

from synthetic_faces.chance import normal
from synthetic_faces.mesh import tube
from synthetic_faces.paint import bump, ridge

# fmt: off
#        y    width front back widest
SECTIONS = np.array([
    [-108,     0,  -12, -12, -12],
    [-106,    25,   14, -42, -12],
    [-97,     48,   44, -70, -11],
    [-77,     66,   69, -90, -10],
    [-48,     75,   82, -98, -8],
    [-16,     76,   87, -98, -6],
    [12,      74,   82, -92, -4],
    [38,      70,   79, -78, -2],
    [62,      63,   78, -54, 4],
    [84,      54,   78, -26, 14],
    [101,     42,   77, 4, 28],
    [112,     28,   73, 30, 42],
    [117,     12,   66, 46, 54],
    [117.5,    0,   58, 56, 57],
], float)
# fmt: on

_HEIGHT = SECTIONS[:, 0]
_LOWER, _UPPER = np.clip(_HEIGHT / 117, 0, 1), np.clip(-_HEIGHT / 108, 0, 1)
_ROUND = np.sqrt(np.clip(SECTIONS[:, 1] / 76, 0, 1))


def _mode(dy=0.0, width=0.0, front=0.0, back=0.0) -> np.ndarray:
    zero = np.zeros(len(SECTIONS))
    return np.stack([zero + dy, (zero + width) * _ROUND, zero + front, zero + back, zero], axis=1)


# Change of the sections for one standard deviation of each mode, in millimetres.
MODES = {
    "breadth": _mode(width=3.6),
    "length": _mode(dy=6.0 * _LOWER),
    "forehead": _mode(dy=-4.5 * _UPPER, front=1.5 * ridge(_HEIGHT + 60, 40)),
    "jaw": _mode(width=5.0 * ridge(_HEIGHT - 92, 26)),
    "cheek": _mode(width=3.2 * ridge(_HEIGHT - 35, 30)),
    "temple": _mode(width=2.5 * ridge(_HEIGHT + 30, 30)),
    "depth": _mode(front=2.0, back=-5.0),
    "chin": _mode(front=3.5 * ridge(_HEIGHT - 108, 20)),
}


def sample_shape(rng: np.random.Generator) -> SimpleNamespace:
    """Sample head shape and expression: lengths in millimetres, y down from the line of the eyes."""
    weights = {name: normal(rng, 0, 1) for name in MODES}
    stretch = 1 + weights["length"] * 6.0 / 117
    smile = float(rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.35, 0.65]))
    return SimpleNamespace(
        weights=weights,  # of each mode, in standard deviations
        stretch=stretch,  # length of the face below the eyes, as a multiple of the mean
        eye_x=normal(rng, 31.5, 1.6),  # half the distance of the pupils
        eye_width=normal(rng, 14.5, 1.0),  # half width of an eye
        eye_open=max(1.0, normal(rng, 9.5, 1.8) - 2.5 * smile),  # full opening of an eye
        eye_tilt=normal(rng, 0.05, 0.05),  # slope of the line from inner to outer corner
        gaze=(normal(rng, 0, 2.2), normal(rng, 0, 1.0)),  # offset of the iris (x, y)
        brow_y=normal(rng, -19.5, 2.5),
        brow_arch=normal(rng, 4, 2),
        brow_weight=normal(rng, 5.5, 1.5),  # thickness
        nose_length=normal(rng, 47, 3) * stretch,  # bridge to base
        nose_width=normal(rng, 17.5, 2.0),  # half width at the base
        nose_height=normal(rng, 25, 4),  # of the tip
        mouth_y=normal(rng, 70, 2.5) * stretch,
        mouth_width=normal(rng, 25, 2) + 8 * smile,  # half width
        lip=normal(rng, 9, 2.2) - 2 * smile,  # thickness of the lower lip
        smile=smile,  # corners up, 0 to 1
        jaw_open=rng.uniform(4, 20) if rng.random() < 0.3 else rng.uniform(1, 14) * smile,
        hairline=normal(rng, 64, 6),  # height above the eyes
        ear=normal(rng, 62, 4),  # length
        ear_out=normal(rng, 17, 4),  # how far it stands off
        age=float(rng.beta(1.6, 1.8)),  # 0 young to 1 old
    )


def sections(shape: SimpleNamespace) -> np.ndarray:
    """Return the sections ``[14,5]`` of a person's head with the jaw closed."""
    return SECTIONS + sum(weight * MODES[name] for name, weight in shape.weights.items())


def head_grid(shape: SimpleNamespace) -> np.ndarray:
    """Return the head's mesh ``[39,41,3]`` with nose, sockets, cheeks, lips and the open jaw."""
    grid = tube(sections(shape), 39)
    x, y, z = np.moveaxis(grid, -1, 0)
    front = np.clip((z - 15) / 35, 0, 1)
    grid[..., 2] += front * relief(shape, np.abs(x), y)
    # The lower jaw swings down as one piece.
    hinge = np.clip((y - shape.mouth_y + 4) / 10, 0, 1) * np.clip((z + 10) / 50, 0, 1)
    grid[..., 1] += 0.75 * shape.jaw_open * hinge
    return grid


def relief(shape: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far the face stands out of the smooth head at (``|x|``, y), in millimetres."""
    length, mouth = shape.nose_length, shape.mouth_y
    knots = [-0.3, 0, 0.35, 0.8, 0.95, 1.05, 1.16, 1.3]
    bridge = np.interp(y / length, knots, [0, 0.12, 0.42, 0.95, 1, 0.7, 0.14, 0])
    spread = np.interp(y / length, [0, 0.4, 0.8, 1.0], [8, 9, 12, 14]) * shape.nose_width / 17.5
    nose = shape.nose_height * bridge * np.exp(-((x / spread) ** 2))
    hills = [  # centre, spread, height
        (0.72 * shape.nose_width, 0.9 * length, 6, 7, 0.3 * shape.nose_height),
        (shape.eye_x, 0, 17, 11, -8.5),
        (shape.eye_x, 0, 10, 8, 5),
        (24, shape.brow_y + 3, 20, 8, 4),
        (44, 26, 15, 13, 5 + 2.5 * shape.smile),
        (36, 52, 14, 14, -2.5 - 2 * shape.age),
        (0, mouth - 6, 20, 6, 4),
        (0, mouth + 7, 17, 6, 4.5),
        (0, mouth, 24, 2.5, -3),
        (0, mouth + 17, 22, 5, -3.5),
        (0, 106 * shape.stretch, 17, 11, 5),
    ]
    return nose + sum(height * bump(x, y, *where) for *where, height in hills)


def ear_grid(shape: SimpleNamespace, side: int) -> np.ndarray:
    """Return one ear's mesh ``[6,17,3]``; ``side`` is -1 for the viewer's left, 1 for the right."""
    radius = np.linspace(0, 1, 6)[:, None]
    angle = np.linspace(-np.pi, np.pi, 17)[None, :]
    lobe = 1 - 0.25 * np.clip(np.sin(angle), 0, 1)  # narrower below
    back = -radius * np.cos(angle) * 17 * lobe  # front edge towards +z
    down = radius * np.sin(angle) * shape.ear / 2
    # A bowl: deep in the middle, a raised rim, standing off more at the back.
    lift = shape.ear_out * (0.25 + 0.75 * np.clip((back + 17) / 34, 0, 1)) * (0.35 + 0.65 * radius**2)
    knots = sections(shape)[:-2]
    x = side * (np.interp(6, knots[:, 0], knots[:, 1]) - 6 + lift)
    grid = np.stack([x + 0 * angle, 10 + down, -12 - back - 4], axis=-1)
    return grid if side > 0 else grid[:, ::-1]


# fmt: off
_NECK = np.array([  # y, multiple of the half width, front, back, widest
    [40,  0.92, 33,  -62, -14],
    [90,  0.95, 36,  -68, -14],
    [120, 1.0,  38,  -76, -16],
    [165, 1.1,  42,  -88, -22],
    [200, 1.5,  46, -100, -30],
    [240, 2.0,  50, -104, -32],
])
_TORSO = np.array([  # y below the shoulders' beginning, and the same
    [-14, 1.12, 46,   -90, -20],
    [-8,  1.3,  51,   -98, -22],
    [4,   1.9,  58,  -104, -24],
    [20,  3.0,  68,  -108, -24],
    [48,  3.65, 78,  -112, -24],
    [110, 3.95, 98,  -118, -24],
    [260, 3.9,  108, -120, -24],
])
# fmt: on


def neck_grid(breadth: float) -> np.ndarray:
    """Return the neck's mesh: a tube of half width ``breadth`` from inside the head to the chest."""
    return tube(_NECK * [1, breadth, 1, 1, 1], 13, 25, 0.95)


def torso_grid(breadth: float, drop: float) -> np.ndarray:
    """Return shoulders and chest: half width of the neck and how far the shoulders lie below the eyes."""
    return tube(_TORSO * [1, breadth, 1, 1, 1] + [drop, 0, 0, 0, 0], 16, 33, 0.9)

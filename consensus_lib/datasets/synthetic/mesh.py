"""Solids: tube-shaped meshes in millimetres, a view that projects them, and a small rasteriser.

Coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the ears at the
height of the eyes. A mesh is a grid of rings, ``[R,C,3]``: a ring is a horizontal section that starts and
ends at the back, so the first and the last column coincide.

The rasteriser answers, for every pixel centre, which triangle is seen there and which point of it. It hands
back *fragments*: one entry for each covered pixel with its depth and the interpolated attributes. Fragments
of several meshes are then resolved against each other by depth. Edges are hard here, so that a label is
never a mixture; the camera's blur, or supersampling, makes them soft in the image.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class View:
    """A camera: pixels for each millimetre at z = 0, where the origin falls, and how far the eye is.

    Attributes:
        scale: pixels per millimetre in the plane z = 0.
        centre: pixel coordinates (x, y) of the origin.
        distance: from the eye to the origin in millimetres; near parts look larger.
        size: height and width of the image in pixels.
    """

    scale: float
    centre: tuple[float, float]
    distance: float
    size: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return pixel x, pixel y and depth in millimetres (larger is nearer) of points ``[...,3]``."""
        zoom = self.scale * self.distance / (self.distance - points[..., 2])
        return np.stack(
            [self.centre[0] + zoom * points[..., 0], self.centre[1] + zoom * points[..., 1], points[..., 2]],
            axis=-1,
        )


@dataclasses.dataclass(frozen=True)
class Fragments:
    """What of a mesh falls on which pixel.

    Attributes:
        pixel: intp ``[N]``, flat pixel index, each at most once.
        depth: float32 ``[N]``, millimetres, larger is nearer.
        place: float32 ``[N,3]``, the point on the unturned mesh in millimetres.
        normal: float32 ``[N,3]``, unit normal of the turned mesh.
    """

    pixel: np.ndarray
    depth: np.ndarray
    place: np.ndarray
    normal: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> "Fragments":
        """Return the fragments that a boolean mask or an index array ``[N]`` selects."""
        return Fragments(self.pixel[keep], self.depth[keep], self.place[keep], self.normal[keep])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the matrix ``[3,3]`` that nods by pitch, then turns by yaw, then tilts by roll (degrees).

    Positive yaw turns the face to the viewer's right, positive pitch lowers the chin, positive roll tilts
    clockwise.
    """
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilt @ turn @ nod


def power(values: np.ndarray, exponent: float) -> np.ndarray:
    """Return ``|values| ** exponent`` with the sign of ``values``."""
    return np.sign(values) * np.abs(values) ** exponent


@functools.cache
def azimuths(columns: int, crowding: float = 0.5) -> np.ndarray:
    """Return ``[columns]`` angles from -π (back) over 0 (front) to π, crowded towards the front."""
    u = np.linspace(-1, 1, columns)
    return np.pi * ((1 - crowding) * u + crowding * u**3)


def tube(rings: np.ndarray, columns: int = 49, exponent: float = 0.87) -> np.ndarray:
    """Build a tube from its rings.

    Args:
        rings: ``[R,5]``: height y, half width, z of the front, z of the back, z of the widest place.
        columns: number of points on a ring; the last one equals the first.
        exponent: 1 gives half ellipses, smaller values squarer sections.

    Returns:
        float64 ``[R,columns,3]``.
    """
    y, width, front, back, centre = (column[:, None] for column in rings.T)
    angle = azimuths(columns)
    across, along = power(np.sin(angle), exponent), power(np.cos(angle), exponent)
    z = centre + np.where(along > 0, front - centre, centre - back) * along
    return np.stack([width * across, np.broadcast_to(y, z.shape), z], axis=-1)


@functools.cache
def _grid_faces(rows: int, columns: int) -> np.ndarray:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, below = corner + 1, corner + columns
    return np.concatenate([np.stack([corner, right, below], 1), np.stack([right, below + 1, below], 1)])


def grid_normals(grid: np.ndarray, closed: bool = True) -> np.ndarray:
    """Return outward unit normals ``[R,C,3]`` of a grid of rings (``closed``) or of an open sheet."""
    down = np.gradient(grid, axis=0)
    if closed:
        ring = np.concatenate([grid[:, -2:-1], grid, grid[:, 1:2]], axis=1)
        across = ring[:, 2:] - ring[:, :-2]
    else:
        across = np.gradient(grid, axis=1)
    normal = np.cross(across, down)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def rasterise(
    view: View,
    grid: np.ndarray,
    turn: np.ndarray | None = None,
    *,
    place: np.ndarray | None = None,
    closed: bool = True,
    both_sides: bool = False,
) -> Fragments:
    """Find which point of a mesh each pixel shows.

    Args:
        view: the camera.
        grid: ``[R,C,3]`` in millimetres.
        turn: rotation ``[3,3]``, or rotation and shift ``[3,4]``; None leaves the mesh as it is.
        place: ``[R,C,3]`` to report instead of ``grid``, such as the unstyled shape.
        closed: whether the grid's first and last column coincide (for the normals).
        both_sides: whether to draw triangles seen from behind, with their normals turned round.

    Returns:
        the fragments, at most one for each pixel.
    """
    rows, columns = grid.shape[:2]
    faces = _grid_faces(rows, columns)
    normals = grid_normals(grid, closed).reshape(-1, 3)
    points = grid.reshape(-1, 3)
    if turn is not None:
        points = points @ turn[:, :3].T + (turn[:, 3] if turn.shape[1] == 4 else 0)
        normals = normals @ turn[:, :3].T
    screen = view.project(points)
    pixel, face, weights = _cover(screen, faces, view.size, both_sides)
    attributes = np.concatenate(
        [screen[:, 2:], (grid if place is None else place).reshape(-1, 3), normals], axis=1
    ).astype(np.float32)
    mixed = np.einsum("nk,nka->na", weights.astype(np.float32), attributes[faces[face]])
    normal = mixed[:, 4:]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    if both_sides:
        normal *= np.where(normal[:, 2:] < 0, np.float32(-1), np.float32(1))
    return Fragments(pixel, mixed[:, 0], mixed[:, 1:4], normal)


def _cover(screen: np.ndarray, faces: np.ndarray, size: int, both_sides: bool):
    """Return pixel ``[N]``, face ``[N]`` and barycentric weights ``[N,3]`` of the nearest faces."""
    (ax, bx, cx), (ay, by, cy) = screen[faces, 0].T, screen[faces, 1].T
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    # A pixel centre lies at +0.5, so pixel i is inside [low, high] when low - 0.5 <= i <= high - 0.5.
    left = np.ceil(np.maximum(np.minimum(np.minimum(ax, bx), cx), 0) - 0.5).astype(np.intp)
    right = np.floor(np.minimum(np.maximum(np.maximum(ax, bx), cx), size) - 0.5).astype(np.intp)
    top = np.ceil(np.maximum(np.minimum(np.minimum(ay, by), cy), 0) - 0.5).astype(np.intp)
    bottom = np.floor(np.minimum(np.maximum(np.maximum(ay, by), cy), size) - 0.5).astype(np.intp)
    wide, high = np.maximum(right - left + 1, 0), np.maximum(bottom - top + 1, 0)
    seen = np.flatnonzero((wide * high > 0) & (np.abs(area) > 1e-9 if both_sides else area > 1e-9))
    # Painter's order: nearest triangle last, so that it overwrites the ones behind.
    seen = seen[np.argsort(screen[faces[seen], 2].sum(1), kind="stable")]
    count = (wide * high)[seen]
    face = np.repeat(seen, count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x = left[face] + step % wide[face]
    y = top[face] + step // wide[face]
    px, py = x + 0.5, y + 0.5
    first = (bx[face] - px) * (cy[face] - py) - (by[face] - py) * (cx[face] - px)
    second = (cx[face] - px) * (ay[face] - py) - (cy[face] - py) * (ax[face] - px)
    first, second = first / area[face], second / area[face]
    third = 1 - first - second
    inside = np.flatnonzero((first >= 0) & (second >= 0) & (third >= 0))
    flat = y[inside] * size + x[inside]
    winner = np.full(size * size, -1, np.intp)
    winner[flat] = inside  # numpy keeps the last of several values for one place
    pixel = np.flatnonzero(winner >= 0)
    winner = winner[pixel]
    return pixel, face[winner], np.stack([first[winner], second[winner], third[winner]], axis=1)


def resolve(
    parts: dict[str, Fragments], size: int, depth: np.ndarray | None = None
) -> tuple[dict[str, Fragments], np.ndarray]:
    """Keep of each part what no nearer part hides.

    Args:
        parts: fragments by name.
        size: image size in pixels.
        depth: float32 ``[size*size]`` of what is there already; -inf where nothing is.

    Returns:
        the visible fragments by name, and the depth map with the parts in it.
    """
    depth = np.full(size * size, -np.inf, np.float32) if depth is None else depth.copy()
    owner = np.full(size * size, -1, np.int8)
    for number, part in enumerate(parts.values()):
        nearer = part.depth > depth[part.pixel]
        pixel = part.pixel[nearer]
        depth[pixel] = part.depth[nearer]
        owner[pixel] = number
    return {
        name: part[owner[part.pixel] == number] for number, (name, part) in enumerate(parts.items())
    }, depth

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

    The normals are interpolated when first asked for: most fragments are hidden before that.

    Attributes:
        pixel: intp ``[N]``, flat pixel index, each at most once.
        depth: float32 ``[N]``, millimetres, larger is nearer.
        place: float32 ``[N,3]``, the point on the unturned mesh in millimetres.
        corner: intp ``[3,N]``, the vertices of the triangle that is seen.
        weight: float32 ``[3,N,1]``, their barycentric weights.
        normals: float32 ``[V,3]``, unit normals of all vertices of the turned mesh.
        inner: whether inner sides may be seen, whose normals are turned round.
    """

    pixel: np.ndarray
    depth: np.ndarray
    place: np.ndarray
    corner: np.ndarray
    weight: np.ndarray
    normals: np.ndarray
    inner: bool

    def __getitem__(self, keep: np.ndarray) -> "Fragments":
        """Return the fragments that a boolean mask or an index array ``[N]`` selects."""
        keep = np.flatnonzero(keep) if keep.dtype == bool else keep
        return dataclasses.replace(
            self,
            pixel=self.pixel[keep],
            depth=self.depth[keep],
            place=self.place[keep],
            corner=self.corner[:, keep],
            weight=self.weight[:, keep],
        )

    @functools.cached_property
    def normal(self) -> np.ndarray:
        """Return float32 ``[N,3]``, unit normals of the turned mesh."""
        normal = _mix(self.normals, self.corner, self.weight)
        normal /= np.maximum(np.sqrt((normal**2).sum(1, keepdims=True)), np.float32(1e-6))
        if self.inner:
            normal *= np.where(normal[:, 2:] < 0, np.float32(-1), np.float32(1))
        return normal


def _mix(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ``values`` ``[V,A]`` of vertices interpolated between ``corner`` ``[3,N]``: ``[N,A]``."""
    mixed = np.take(values, corner[0], axis=0) * weight[0]
    mixed += np.take(values, corner[1], axis=0) * weight[1]
    mixed += np.take(values, corner[2], axis=0) * weight[2]
    return mixed


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


@functools.cache
def _spline(knots: int, rows: int) -> np.ndarray:
    """Return the matrix ``[rows,knots]`` that draws a Catmull-Rom curve through evenly spaced knots."""
    place = np.linspace(0, knots - 1, rows)
    left = np.minimum(place.astype(int), knots - 2)
    t = (place - left)[:, None]
    weights = 0.5 * np.concatenate(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )
    matrix = np.zeros((rows, knots))
    for step in range(4):
        np.add.at(matrix, (np.arange(rows), np.clip(left + step - 1, 0, knots - 1)), weights[:, step])
    return matrix


@functools.cache
def _section(columns: int, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far across and how far along the points ``[columns]`` of a unit ring lie."""
    angle = azimuths(columns)
    return power(np.sin(angle), exponent), power(np.cos(angle), exponent)


def tube(rings: np.ndarray, rows: int, columns: int = 41, exponent: float = 0.87) -> np.ndarray:
    """Build a tube from rings.

    Args:
        rings: ``[K,5]``: height y, half width, z of the front, z of the back, z of the widest place.
        rows: number of rings of the result, on smooth curves through the given ones.
        columns: number of points on a ring; the last one equals the first.
        exponent: 1 gives half ellipses, smaller values squarer sections.

    Returns:
        float64 ``[rows,columns,3]``.
    """
    y, width, front, back, centre = (_spline(len(rings), rows) @ rings).T[:, :, None]
    across, along = _section(columns, exponent)
    z = centre + np.where(along > 0, front - centre, centre - back) * along
    return np.stack([width * across, np.broadcast_to(y, z.shape), z], axis=-1)


@functools.cache
def _grid_faces(rows: int, columns: int) -> np.ndarray:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, below = corner + 1, corner + columns
    return np.concatenate([np.stack([corner, right, below], 1), np.stack([right, below + 1, below], 1)])


def grid_normals(grid: np.ndarray, closed: bool = True) -> np.ndarray:
    """Return outward unit normals ``[R,C,3]`` of a grid of rings (``closed``) or of an open sheet."""
    down = _slope(grid)
    if closed:
        across = np.empty_like(grid)
        across[:, 1:-1] = grid[:, 2:] - grid[:, :-2]
        across[:, 0] = across[:, -1] = grid[:, 1] - grid[:, -2]
    else:
        across = _slope(grid.swapaxes(0, 1)).swapaxes(0, 1)
    (ax, ay, az), (dx, dy, dz) = np.moveaxis(across, -1, 0), np.moveaxis(down, -1, 0)
    normal = np.stack([ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx], axis=-1)
    return normal / np.maximum(np.sqrt((normal**2).sum(-1, keepdims=True)), 1e-9)


def _slope(grid: np.ndarray) -> np.ndarray:
    """Return differences along the first axis, central inside and one-sided at the ends."""
    slope = np.empty_like(grid)
    slope[1:-1] = grid[2:] - grid[:-2]
    slope[0], slope[-1] = grid[1] - grid[0], grid[-1] - grid[-2]
    return slope


def rasterise(
    view: View,
    grid: np.ndarray,
    turn: np.ndarray | None = None,
    *,
    place: np.ndarray | None = None,
    closed: bool = True,
    sides: str = "front",
) -> Fragments:
    """Find which point of a mesh each pixel shows.

    Args:
        view: the camera.
        grid: ``[R,C,3]`` in millimetres.
        turn: rotation ``[3,3]``, or rotation and shift ``[3,4]``; None leaves the mesh as it is.
        place: ``[R,C,3]`` to report instead of ``grid``, such as the unstyled shape.
        closed: whether the grid's first and last column coincide (for the normals).
        sides: ``"front"`` draws triangles whose outer side is seen, ``"back"`` those whose inner side is
            seen, with their normals turned round, ``"both"`` the nearer of either.

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
    pixel, face, weights = _cover(screen, faces, view.size, sides)
    corner, weight = np.take(faces, face, axis=0).T, weights.T[:, :, None]
    place = (grid if place is None else place).reshape(-1, 3)
    mixed = _mix(np.column_stack([screen[:, 2], place]).astype(np.float32), corner, weight)
    inner = sides != "front"
    return Fragments(pixel, mixed[:, 0], mixed[:, 1:], corner, weight, normals.astype(np.float32), inner)


def _cover(screen: np.ndarray, faces: np.ndarray, size: int, sides: str):
    """Return pixel ``[N]``, face ``[N]`` and barycentric weights ``[N,3]`` of the nearest faces."""
    x, y, depth = np.take(screen.astype(np.float32).T, faces.T, axis=1)  # [3, F] each
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    facing = {"front": area, "back": -area, "both": np.abs(area)}[sides] > 1e-6
    # Painter's order: nearest triangle last, so that it overwrites the ones behind.
    seen = np.flatnonzero(facing)
    seen = seen[np.argsort(depth[:, seen].sum(0), kind="stable")]
    area, (ax, bx, cx), (ay, by, cy) = area[seen], x[:, seen], y[:, seen]
    # A pixel centre lies at +0.5, so pixel i is inside [low, high] when low - 0.5 <= i <= high - 0.5.
    left, right = _pixels(ax, bx, cx, size)
    top, bottom = _pixels(ay, by, cy, size)
    wide, high = np.maximum(right - left + 1, 0), np.maximum(bottom - top + 1, 0)
    # Barycentric weights are linear in the pixel's offset from the box's first pixel: [F, 6].
    x0, y0 = left + np.float32(0.5), top + np.float32(0.5)
    plane = np.stack(
        [
            (bx - x0) * (cy - y0) - (by - y0) * (cx - x0), by - cy, cx - bx,
            (cx - x0) * (ay - y0) - (cy - y0) * (ax - x0), cy - ay, ax - cx,
        ],
        axis=1,
    )  # fmt: skip
    plane = (plane / area[:, None]).astype(np.float32, copy=False)
    count = wide * high
    face = np.repeat(np.arange(len(seen), dtype=np.int32), count)
    first = np.cumsum(count) - count
    step = np.arange(len(face), dtype=np.int32) - np.repeat(first.astype(np.int32), count)
    dy, dx = np.divmod(step, np.repeat(wide.astype(np.int32), count))
    terms = np.take(plane, face, axis=0).T  # [6, candidates]
    one = terms[0] + terms[1] * dx + terms[2] * dy
    two = terms[3] + terms[4] * dx + terms[5] * dy
    inside = np.flatnonzero((one >= 0) & (two >= 0) & (one + two <= 1))
    inner = face[inside]
    flat = (top[inner] + dy[inside]) * size + left[inner] + dx[inside]
    winner = np.full(size * size, -1, np.intp)
    winner[flat] = inside  # numpy keeps the last of several values for one place
    pixel = np.flatnonzero(winner >= 0)
    winner = winner[pixel]
    one, two = one[winner], two[winner]
    return pixel, seen[face[winner]], np.stack([one, two, 1 - one - two], axis=1)


def _pixels(a: np.ndarray, b: np.ndarray, c: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last pixel whose centre can lie inside triangles, along one axis."""
    low = np.maximum(np.minimum(np.minimum(a, b), c), 0) - 0.5
    high = np.minimum(np.maximum(np.maximum(a, b), c), size) - 0.5
    return np.ceil(low).astype(np.int32), np.floor(high).astype(np.int32)


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

"""Solids: tube-shaped meshes in millimetres, a view that projects them, and a small rasteriser.

Coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the ears at the
height of the eyes. A mesh is a grid of rings, ``[R,C,3]``: a ring is a horizontal section that starts and
ends at the back, so the first and the last column coincide.

The rasteriser answers, for every pixel centre, which triangle is seen there and which point of it. It hands
back *fragments*: one entry for each covered pixel with its depth and the interpolated attributes. Fragments
of several meshes are then resolved against each other by depth. Edges are hard here, so that a label is
never a mixture; the camera's blur makes them soft in the image.
"""

import dataclasses
import functools
from collections.abc import Callable

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

    The normals are computed when first asked for: most fragments are hidden before that.

    Attributes:
        pixel: intp ``[N]``, flat pixel index, each at most once.
        depth: float32 ``[N]``, millimetres, larger is nearer.
        place: float32 ``[N,3]``, the point on the unturned mesh in millimetres.
        face: intp ``[N]``, the triangle that is seen.
        weight: float32 ``[N,3]``, barycentric weights of its corners.
        solid: the mesh they belong to.
    """

    pixel: np.ndarray
    depth: np.ndarray
    place: np.ndarray
    face: np.ndarray
    weight: np.ndarray
    solid: "Solid"

    def __getitem__(self, keep: np.ndarray) -> "Fragments":
        """Return the fragments that a boolean mask or an index array ``[N]`` selects."""
        keep = np.flatnonzero(keep) if keep.dtype == bool else keep
        values = (self.pixel, self.depth, self.place, self.face, self.weight)
        return Fragments(*(value.take(keep, axis=0) for value in values), self.solid)

    @functools.cached_property
    def normal(self) -> np.ndarray:
        """Return float32 ``[N,3]``, unit normals of the turned mesh."""
        normals = grid_normals(self.solid.grid, self.solid.closed).reshape(-1, 3)
        if self.solid.turn is not None:
            normals = normals @ self.solid.turn[:, :3].T
        corner = _grid_faces(*self.solid.grid.shape[:2]).take(self.face, axis=0)
        normal = _mix(normals.astype(np.float32), corner, self.weight)
        normal /= np.maximum(np.sqrt(np.einsum("nc,nc->n", normal, normal)), np.float32(1e-6))[:, None]
        if self.solid.sides != "front":  # an inner side's normal is turned round
            normal *= np.where(normal[:, 2:] < 0, np.float32(-1), np.float32(1))
        return normal


def _mix(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ``values`` ``[V,A]`` of vertices interpolated between ``corner`` ``[N,3]``: ``[N,A]``."""
    mixed = values.take(corner[:, 0], axis=0) * weight[:, :1]
    mixed += values.take(corner[:, 1], axis=0) * weight[:, 1:2]
    mixed += values.take(corner[:, 2], axis=0) * weight[:, 2:]
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
    planes = np.ascontiguousarray(grid.transpose(2, 0, 1))  # [3, R, C]
    (dx, dy, dz), across = _slope(planes.swapaxes(0, 1)).swapaxes(0, 1), np.empty_like(planes)
    across[..., 1:-1] = planes[..., 2:] - planes[..., :-2]
    across[..., 0], across[..., -1] = planes[..., 1] - planes[..., 0], planes[..., -1] - planes[..., -2]
    if closed:
        across[..., 0] += across[..., -1]
        across[..., -1] = across[..., 0]
    ax, ay, az = across
    normal = np.empty_like(planes)
    normal[0], normal[1], normal[2] = ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx
    normal /= np.maximum(np.sqrt(np.einsum("arc,arc->rc", normal, normal)), 1e-9)
    return normal.transpose(1, 2, 0)


def _slope(grid: np.ndarray) -> np.ndarray:
    """Return differences along the first axis, central inside and one-sided at the ends."""
    slope = np.empty_like(grid)
    slope[1:-1] = grid[2:] - grid[:-2]
    slope[0], slope[-1] = grid[1] - grid[0], grid[-1] - grid[-2]
    return slope


@dataclasses.dataclass(frozen=True)
class Solid:
    """A mesh and how to draw it.

    Attributes:
        grid: ``[R,C,3]`` in millimetres.
        turn: rotation ``[3,3]``, or rotation and shift ``[3,4]``; None leaves the mesh as it is.
        place: ``[R,C,3]`` to report instead of ``grid``, such as the unstyled shape.
        keep: says which of its fragments exist, given their places; None keeps all.
        closed: whether the grid's first and last column coincide (for the normals).
        sides: ``"front"`` draws triangles whose outer side is seen, ``"back"`` those whose inner side is
            seen, with their normals turned round, ``"both"`` the nearer of either.
    """

    grid: np.ndarray
    turn: np.ndarray | None = None
    place: np.ndarray | None = None
    keep: Callable[[np.ndarray], np.ndarray] | None = None
    closed: bool = True
    sides: str = "front"

    def coarser(self) -> "Solid":
        """Return the solid with every other ring and column."""
        place = None if self.place is None else self.place[::2, ::2]
        return dataclasses.replace(self, grid=self.grid[::2, ::2], place=place)


def rasterise(view: View, grid: np.ndarray, turn: np.ndarray | None = None, **options) -> Fragments:
    """Find which point of a mesh each pixel shows; arguments as for :class:`Solid`.

    Returns:
        the fragments, at most one for each pixel.
    """
    return rasterise_all(view, [Solid(grid, turn, **options)])[0]


def rasterise_all(view: View, solids: list[Solid]) -> list[Fragments]:
    """Rasterise several meshes, none of which hides another: much quicker than one at a time."""
    points, places, faces, first, counts = [], [], [], 0, []
    for solid in solids:
        vertices = solid.grid.reshape(-1, 3)
        places.append(vertices if solid.place is None else solid.place.reshape(-1, 3))
        if solid.turn is not None:
            vertices = vertices @ solid.turn[:, :3].T + (solid.turn[:, 3] if solid.turn.shape[1] == 4 else 0)
        points.append(vertices)
        faces.append(_grid_faces(*solid.grid.shape[:2]) + first)
        first += len(vertices)
        counts.append(len(faces[-1]))
    screen = view.project(np.concatenate(points)).astype(np.float32)
    values = np.column_stack([screen[:, 2], np.concatenate(places)]).astype(np.float32)
    faces, layer = np.concatenate(faces), np.repeat(np.arange(len(solids), dtype=np.int32), counts)
    sign = np.array([{"front": 1, "back": -1, "both": 0}[solid.sides] for solid in solids], np.int8)
    pixel, face, weight = _cover(screen, faces, sign.take(layer), layer, view.size)
    mixed = _mix(values, faces.take(face, axis=0), weight)
    ends = np.searchsorted(pixel, np.arange(len(solids) + 1) * view.size**2)
    parts, first = [], 0
    for number, solid in enumerate(solids):
        part = slice(ends[number], ends[number + 1])
        pixels, depth, place = pixel[part] - number * view.size**2, mixed[part, 0], mixed[part, 1:]
        seen = Fragments(pixels, depth, place, face[part] - first, weight[part], solid)
        first += counts[number]
        parts.append(seen if solid.keep is None else seen[solid.keep(place)])
    return parts


def _cover(screen: np.ndarray, faces: np.ndarray, sign: np.ndarray, layer: np.ndarray, size: int):
    """Return which face is seen where.

    Args:
        screen: projected vertices, float32 ``[V,3]``.
        faces: their triangles, ``[F,3]``.
        sign: 1 for a face to be seen from outside only, -1 from inside, 0 from both, ``[F]``.
        layer: faces of one layer hide each other, int32 ``[F]``.
        size: image size in pixels.

    Returns:
        pixel plus size² for each layer, sorted, ``[N]``; face ``[N]``; barycentric weights ``[N,3]``.
    """
    x, y, depth = screen.T.take(faces.T, axis=1)  # [3, F] each
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    seen = np.flatnonzero(np.where(sign == 0, np.abs(area), sign * area) > 1e-6)
    # Painter's order: nearest triangle last, so that it overwrites the ones behind.
    near = depth.take(seen, axis=1).sum(0)
    near = (near - near.min(initial=0)) * np.float32(
        65535 / max(float(np.ptp(near)), 1e-6) if len(near) else 0
    )
    seen = seen[np.argsort(near.astype(np.uint16), kind="stable")]  # 16 bits are sorted faster than floats
    x, y = x.take(seen, axis=1), y.take(seen, axis=1)
    (left, right), (top, bottom) = _pixels(x, size), _pixels(y, size)
    # Barycentric weights are linear in the offset from the box's first pixel.
    x, y = x - (left + np.float32(0.5)), y - (top + np.float32(0.5))
    scale = 1 / area.take(seen)
    start, along, down = (np.empty((3, len(seen)), np.float32) for _ in range(3))
    for k, (i, j) in enumerate(((1, 2), (2, 0))):
        start[k] = (x[i] * y[j] - y[i] * x[j]) * scale
        along[k], down[k] = (y[i] - y[j]) * scale, (x[j] - x[i]) * scale
    start[2], along[2], down[2] = 1 - start[0] - start[1], -along[0] - along[1], -down[0] - down[1]
    # In every row, a triangle runs from the last edge that is entered to the first that is left.
    row, dy = _runs(np.where(right >= left, bottom - top + 1, 0))
    enters = along >= 0
    inverse = -1 / np.where(along == 0, np.float32(np.inf), along)
    # A little more than the triangle, or rounding would leave holes between two.
    edge = ((start + np.float32(1e-4)) * inverse).take(row, axis=1)
    edge += (down * inverse).take(row, axis=1) * dy
    enters = enters.take(row, axis=1)
    low = np.ceil(np.where(enters, edge, 0).max(0, initial=0)).astype(np.int32)
    high = np.where(enters, np.float32(size), edge).min(0, initial=size)
    high = np.floor(np.minimum(high, (right - left).take(row))).astype(np.int32)
    run, dx = _runs(high - low + 1)
    dx += low.take(run)
    dy, owner = dy.take(run), row.take(run)
    base = (layer.take(seen) * size + top) * size + left
    winner = np.zeros((layer[-1] + 1) * size * size, np.int32)
    winner[base.take(owner) + dy * size + dx] = np.arange(1, len(run) + 1, dtype=np.int32)  # the last stays
    pixel = np.flatnonzero(winner)
    winner = winner.take(pixel) - 1
    dx, dy, owner = dx.take(winner), dy.take(winner), owner.take(winner)
    weight = np.empty((3, len(pixel)), np.float32)
    for k in range(2):
        weight[k] = start[k].take(owner) + along[k].take(owner) * dx + down[k].take(owner) * dy
    weight[2] = 1 - weight[0] - weight[1]
    return pixel, seen.take(owner), weight.T


def _runs(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the run and the place in it of each member of runs of ``count`` members."""
    count = np.maximum(count, 0)
    end = np.cumsum(count, dtype=np.int32)
    total = int(end[-1]) if len(end) else 0
    run = np.repeat(np.arange(len(count), dtype=np.int32), count)
    return run, np.arange(total, dtype=np.int32) - (end - count).take(run)


def _pixels(corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last pixel whose centre can lie inside triangles ``[3,F]``, on one axis."""
    low, high = corners.min(0), corners.max(0)
    # A pixel centre lies at +0.5, so pixel i is inside [low, high] when low - 0.5 <= i <= high - 0.5.
    low, high = np.ceil(low - np.float32(0.5)), np.floor(high - np.float32(0.5))
    return np.clip(low, 0, size).astype(np.int32), np.clip(high, -1, size - 1).astype(np.int32)


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

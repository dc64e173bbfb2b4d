"""Solids: tube-shaped meshes in millimetres, a view that projects them, and a small rasteriser.

Coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the ears at the
height of the eyes. A mesh is a grid of rings, ``[R,C,3]``: a ring is a horizontal section that starts and
ends at the back, so the first and the last column coincide.

The rasteriser finds the triangle at every pixel centre and returns *fragments*: one entry for each covered
pixel. Fragments of several meshes are then resolved by depth. Edges are hard here, so that a label is never
a mixture; the camera's blur makes them soft in the image.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicHermiteSpline


@dataclasses.dataclass(frozen=True)
class View:
    """A camera that looks at the origin from ``distance`` millimetres; near parts look larger."""

    scale: float  # pixels per millimetre in the plane z = 0
    centre: tuple[float, float]  # pixel coordinates (x, y) of the origin
    distance: float
    size: int  # height and width of the image in pixels

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return pixel x, pixel y and depth in millimetres (larger is nearer) of points ``[...,3]``."""
        zoom = self.scale * self.distance / (self.distance - points[..., 2])
        x, y = (self.centre[axis] + zoom * points[..., axis] for axis in (0, 1))
        return np.stack([x, y, points[..., 2]], axis=-1)

    def unproject(self, pixel: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the points, float32 ``[3,N]`` in millimetres, at flat pixels ``[N]`` and depths ``[N]``."""
        row, column = np.divmod(pixel.astype(np.int32), np.int32(self.size))
        zoom = (self.distance - depth) / np.float32(self.scale * self.distance)
        x, y = column - np.float32(self.centre[0] - 0.5), row - np.float32(self.centre[1] - 0.5)
        return np.stack([x * zoom, y * zoom, depth]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Fragments:
    """The points of a mesh that pixels show, at most one for each pixel."""

    pixel: np.ndarray  # intp [N], flat pixel index
    depth: np.ndarray  # float32 [N], millimetres, larger is nearer
    place: np.ndarray  # float32 [N,3], the point on the unturned mesh in millimetres
    face: np.ndarray  # intp [N], the triangle that is seen
    weight: np.ndarray  # float32 [N,3], barycentric weights of its corners
    solid: "Solid"  # the mesh they belong to

    def __getitem__(self, keep: np.ndarray) -> "Fragments":
        """Return the fragments that a boolean mask or an index array ``[N]`` selects."""
        keep = np.flatnonzero(keep) if keep.dtype == bool else keep
        values = (self.pixel, self.depth, self.place, self.face, self.weight)
        return Fragments(*(value.take(keep, axis=0) for value in values), self.solid)

    @functools.cached_property
    def normal(self) -> np.ndarray:
        """Return unit normals of the turned mesh, float32 ``[N,3]``; only visible fragments need them."""
        normals = grid_normals(self.solid.grid, self.solid.closed).reshape(-1, 3)
        normals = normals @ self.solid.turn[:, :3].T
        corner = _grid_faces(*self.solid.grid.shape[:2]).take(self.face, axis=0)
        normal = _mix(normals.astype(np.float32), corner, self.weight)
        normal /= np.maximum(np.sqrt(np.einsum("nc,nc->n", normal, normal)), np.float32(1e-6))[:, None]
        if self.solid.sides != "front":  # an inner side's normal is turned round
            normal *= np.where(normal[:, 2:] < 0, np.float32(-1), np.float32(1))
        return normal


def mask(size: int, *pixels: np.ndarray) -> np.ndarray:
    """Return bool ``[size,size]``, True at flat pixels."""
    found = np.zeros(size * size, bool)
    found[np.concatenate(pixels)] = True
    return found.reshape(size, size)


def _mix(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ``values`` ``[V,A]`` of vertices interpolated between ``corner`` ``[N,3]``: ``[N,A]``."""
    return sum(values.take(corner[:, k], axis=0) * weight[:, k : k + 1] for k in range(3))


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the matrix ``[3,3]`` that nods by pitch, turns by yaw, then tilts by roll, in degrees.

    Positive ones lower the chin, turn the face to the viewer's right and tilt it clockwise.
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
def azimuths(columns: int) -> np.ndarray:
    """Return ``[columns]`` angles from -π (back) over 0 (front) to π, crowded towards the front."""
    u = np.linspace(-1, 1, columns)
    return 0.5 * np.pi * (u + u**3)


@functools.cache
def _spline(knots: int, rows: int) -> np.ndarray:
    """Return the matrix ``[rows,knots]`` that evaluates a Catmull-Rom curve through evenly spaced knots."""
    slopes = np.gradient(np.eye(knots), axis=0)
    curve = CubicHermiteSpline(np.arange(knots), np.eye(knots), slopes)
    return curve(np.linspace(0, knots - 1, rows))


def tube(rings: np.ndarray, rows: int, columns: int = 41, exponent: float = 0.87) -> np.ndarray:
    """Build a tube ``[rows,columns,3]`` on smooth curves through rings.

    Args:
        rings: ``[K,5]``: height y, half width, z of the front, z of the back, z of the widest place.
        rows: number of rings of the result.
        columns: number of points on a ring; the last one equals the first.
        exponent: 1 gives half ellipses, smaller values squarer sections.
    """
    y, width, front, back, centre = (_spline(len(rings), rows) @ rings).T[:, :, None]
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
    planes = np.ascontiguousarray(grid.transpose(2, 0, 1))  # [3, R, C]
    (dx, dy, dz), across = np.gradient(planes, axis=1), np.gradient(planes, axis=2)
    if closed:
        across[..., 0] += across[..., -1]
        across[..., -1] = across[..., 0]
    ax, ay, az = across
    normal = np.stack([ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx], axis=-1)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


@dataclasses.dataclass(frozen=True)
class Solid:
    """A mesh and how to render it."""

    grid: np.ndarray  # [R,C,3] in millimetres
    turn: np.ndarray  # rotation [3,3], or rotation and shift [3,4]
    place: np.ndarray | None = None  # [R,C,3] to report instead of the grid, such as the unstyled shape
    keep: Callable[[np.ndarray], np.ndarray] | None = None  # finds the fragments that exist, by their places
    closed: bool = True  # whether the grid's first and last column coincide, for the normals
    sides: str = "front"  # show the outer sides of triangles, the inner ("back"), or "both"

    def coarser(self) -> "Solid":
        """Return the solid with every other ring and column."""
        place = None if self.place is None else self.place[::2, ::2]
        return dataclasses.replace(self, grid=self.grid[::2, ::2], place=place)


def rasterise(view: View, solids: list[Solid]) -> list[Fragments]:
    """Return the fragments of each solid; solids do not hide each other here."""
    points, places, faces, first, counts = [], [], [], 0, []
    for solid in solids:
        vertices = solid.grid.reshape(-1, 3)
        places.append(vertices if solid.place is None else solid.place.reshape(-1, 3))
        points.append(vertices @ solid.turn[:, :3].T + solid.turn[:, 3:].sum(1))
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
    parts = []
    for number, solid in enumerate(solids):
        part = slice(ends[number], ends[number + 1])
        pixels, depth, place = pixel[part] - number * view.size**2, mixed[part, 0], mixed[part, 1:]
        seen = Fragments(pixels, depth, place, face[part] - sum(counts[:number]), weight[part], solid)
        parts.append(seen if solid.keep is None else seen[solid.keep(place)])
    return parts


def _cover(screen: np.ndarray, faces: np.ndarray, sign: np.ndarray, layer: np.ndarray, size: int):
    """Find the triangle of each layer at each pixel.

    Projected vertices ``screen`` ``[V,3]`` make triangles ``faces`` ``[F,3]``, each seen from outside
    (``sign`` 1), inside (-1) or both (0); those of one ``layer`` hide each other. Returns pixel plus size²
    for each layer, sorted, ``[N]``, face ``[N]`` and barycentric weights ``[N,3]``.
    """
    x, y, depth = screen.T.take(faces.T, axis=1)  # [3, F] each
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    seen = np.flatnonzero(np.where(sign == 0, np.abs(area), sign * area) > 1e-6)
    # Painter's order: nearest triangle last, so that it overwrites the ones behind.
    near = depth.take(seen, axis=1).sum(0)
    near -= near.min(initial=np.inf)
    near *= 65535 / max(float(near.max(initial=0)), 1e-6)
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


def resolve(parts: dict[str, Fragments], size: int) -> tuple[dict[str, Fragments], np.ndarray]:
    """Return the fragments that no nearer part hides, and the depth map, -inf where nothing is."""
    depth = np.full(size * size, -np.inf, np.float32)
    owner = np.full(size * size, -1, np.int8)
    for number, part in enumerate(parts.values()):
        nearer = part.depth > depth[part.pixel]
        pixel = part.pixel[nearer]
        depth[pixel], owner[pixel] = part.depth[nearer], number
    visible = {name: part[owner[part.pixel] == n] for n, (name, part) in enumerate(parts.items())}
    return visible, depth

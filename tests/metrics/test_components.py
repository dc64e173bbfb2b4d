import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consensus_lib.metrics.components import count_by_class, hole_areas, piece_areas, run_graph

MAPS = arrays(
    np.int64,
    st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(1, 8)),
    elements=st.integers(0, 2),
)


def flood_fill(labels, connectivity):
    """The slow way: grow each component pixel by pixel."""
    ids, count = np.full(labels.shape, -1), 0
    straight = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps = straight if connectivity == 4 else [*straight, (1, 1), (1, -1), (-1, 1), (-1, -1)]
    for start in np.ndindex(labels.shape):
        if ids[start] >= 0:
            continue
        stack, ids[start] = [start], count
        while stack:
            y, x = stack.pop()
            for near in ((y + down, x + right) for down, right in steps):
                inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
                if inside and ids[near] < 0 and labels[near] == labels[start]:
                    ids[near] = count
                    stack.append(near)
        count += 1
    return ids, count


@given(MAPS, st.sampled_from([4, 8]))
def test_components_are_those_of_a_flood_fill(maps, connectivity):
    graph = run_graph(maps, connectivity)
    fast = np.repeat(graph.component, graph.length).reshape(maps.shape)
    slow = [flood_fill(one, connectivity) for one in maps]
    assert len(np.unique(fast)) == sum(count for _, count in slow)
    for ours, (theirs, count) in zip(fast, slow, strict=True):
        assert len(set(zip(ours.flat, theirs.flat, strict=True))) == len(np.unique(ours)) == count


@settings(max_examples=50)
@given(MAPS)
def test_counts_and_areas_are_those_of_a_flood_fill(maps):
    pieces, holes = piece_areas(maps), hole_areas(maps, 3)
    for i, (one, counts) in enumerate(zip(maps, count_by_class(maps, 3), strict=True)):
        ids, count = flood_fill(one, 8)
        slow = sorted((one[ids == n][0], (ids == n).sum()) for n in range(count))
        here = pieces.image == i
        assert sorted(zip(pieces.label[here], pieces.area[here], strict=True)) == slow
        for c in range(3):
            assert counts[c, 0] == sum(label == c for label, _ in slow)
            outside = np.pad(one != c, 1, constant_values=True)
            ids, _ = flood_fill(outside.astype(int), 4)
            areas = sorted((ids == n).sum() for n in np.unique(ids[outside]) if n != ids[0, 0])
            assert sorted(holes.area[(holes.image == i) & (holes.label == c)]) == areas
            assert counts[c, 1] == len(areas)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="maps"):
        run_graph(np.zeros((4, 4), int), 4)
    with pytest.raises(ValueError, match="connectivity"):
        run_graph(np.zeros((1, 4, 4), int), 6)

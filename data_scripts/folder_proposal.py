"""What the masks of a folder seem to mean: a proposal for the YAML file of ``prepare_folder.py``."""

import colorsys
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from consensus_lib import IGNORE
from consensus_lib.data.folder import DatasetError
from consensus_lib.data.images import open_image
from consensus_lib.data.tasks import sides
from folder_layout import DISTANCE, MOST_CLASSES, Layout, Sample
from pictures import NUMBERS, read_layer, unpack, values_of

_RARE = 2e-4
"""A colour with fewer of all pixels is no class of a proposal."""

_ALIKE = 16
"""Difference in a channel from which on neighbours do not look alike."""

_LOOK = 200
"""Masks that a proposal is made from, evenly over the folder."""


def propose(samples: Sequence[Sample], name: str) -> tuple[Layout, list[str]]:
    """Count what masks hold; return the layout that they suggest, and what was understood, as sentences.

    Args:
        samples: of :func:`find_samples`; those whose masks cannot be read are passed over here.
        name: of the data set.

    Raises:
        DatasetError: no mask can be read, or they have fewer than 2 or more than 150 classes.
    """
    marked = [sample for sample in samples if sample.mask]
    if not marked:
        raise DatasetError(f"{samples[0].image}: expected a mask of this or another image, found none")
    looked = marked[:: max(1, math.ceil(len(marked) / _LOOK))]
    said = [f"{len(samples):,} images, {len(marked):,} with masks; {len(looked):,} masks were looked at"]
    if isinstance(marked[0].mask, dict):
        return _propose_files(marked, looked, name, said)
    seen = []
    for sample in tqdm(looked, "look at masks", leave=False):
        with contextlib.suppress(DatasetError):
            seen.append(_look(sample.mask))
    where = Path(looked[0].mask).parent
    if not seen:
        raise DatasetError(f"{where}: expected masks that can be read, got none")
    indices = {(value, colour) for mask in seen for value, colour in mask.palette.items()}
    if len(indices) > len(dict(indices)):  # an index has two colours
        seen = [mask.by_palette() for mask in seen]
        said.append("palettes differ from mask to mask: their colours tell the classes, not their indices")
    coded = _check_one_kind(seen, where)
    counts, flat = Counter(), Counter()
    for mask in seen:
        grey = 0x010101 if coded and mask.kind == "grey" else 1
        counts.update({value * grey: number for value, number in mask.counts.items()})
        flat.update({value * grey: number for value, number in mask.flat.items()})
    ignore, total = None, sum(counts.values())
    if coded:
        chosen = _clear_colours(flat)
        values = shown = tuple(map(unpack, chosen))
        other = 1 - sum(counts[value] for value in chosen) / total
        said.append(
            f"masks of {len(values)} colours; {other:.2%} of their pixels have another one, and go to the "
            f"nearest one within {DISTANCE} in each channel, or are ignored"
        )
    else:
        found = sorted(counts)
        ends = sum(counts[value] for value in found if value <= 24 or value >= 231) / total
        if len(found) > 8 and {0, 255} <= set(found) and ends > 0.9:
            said.append("masks of 0 and 255 with grey edges, which go to the nearer one or are ignored")
            found = [0, 255]
        elif len(found) > 2 and found[-1] == IGNORE:
            _check_ignore(seen, where)
            said.append("255 is taken for ignore: no loss counts these pixels")
            ignore = found.pop()
        values = tuple(found)
        said.append(
            "masks of numbers: " + ", ".join(f"{value} ({counts[value]:,} pixels)" for value in found[:20])
        )
        own = tuple(map(dict(indices).get, values))
        shown = own if None not in own and len(set(own)) == len(own) else _palette(len(values))
    if not 2 <= len(values) <= MOST_CLASSES:
        raise DatasetError(f"{where}: expected 2 to {MOST_CLASSES} values in the masks, got {len(values)}")
    classes = ("background", *(f"class_{number}" for number in range(1, len(values))))
    if len(values) == 2:
        classes = ("background", "face")
    said.append(f"class 0, {values[0]}, is taken for the background; the names are placeholders")
    return Layout(name, "colours" if coded else "numbers", classes, values, shown, ignore=ignore), said


class _Mask(NamedTuple):
    """What one mask holds: how often each value occurs, and the colour of each in its palette, if any.

    ``kind`` is ``"numbers"``, ``"colours"`` (packed), or ``"grey"`` for grey stored as colours, and for 0
    alone: it goes with both. ``flat`` counts pixels whose neighbours look alike: no edges between classes,
    where colours are mixed.
    """

    path: str
    mode: str
    kind: str
    counts: dict[int, int]
    flat: dict[int, int]
    palette: dict[int, tuple[int, int, int]]

    def by_palette(self) -> "_Mask":
        """Return the mask with colours instead of indices."""
        if not self.palette:
            return self
        counts: Counter = Counter()
        for value, number in self.counts.items():
            red, green, blue = self.palette.get(value, (0, 0, 0))
            counts[red << 16 | green << 8 | blue] += number
        return self._replace(kind="colours", counts=counts, flat=counts, palette={})


def _look(path: str) -> _Mask:
    picture, _ = open_image(path)
    plain = picture.mode in NUMBERS
    values = values_of(picture, colours=not plain)
    counts = flat = _count(values)
    kind, palette = "numbers" if plain else "colours", {}
    if picture.mode == "P":
        colours = picture.getpalette("RGB")
        palette = {v: tuple(colours[3 * v : 3 * v + 3]) for v in counts if 3 * v + 2 < len(colours)}
    elif not plain and all(len(set(unpack(value))) == 1 for value in counts):
        kind, counts = "grey", _count(values & 255)
        flat = counts
    elif not plain:
        parts = np.stack(unpack(values))  # [3, H, W]
        corners = [
            parts[:, y : parts.shape[1] - 1 + y, x : parts.shape[2] - 1 + x] for y in (0, 1) for x in (0, 1)
        ]
        alike = (np.max(corners, 0) - np.min(corners, 0)).max(0) < _ALIKE  # [H - 1, W - 1]
        flat = _count(values[:-1, :-1][alike])
    if set(counts) == {0}:
        kind = "grey"
    return _Mask(path, picture.mode, kind, counts, flat, palette)


def _count(values: np.ndarray) -> dict[int, int]:
    found, numbers = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))


def _check_one_kind(seen: Sequence[_Mask], where: Path) -> bool:
    """Say whether the masks are of colours; raise DatasetError if some are, and some are of numbers."""
    first = {kind: next((m for m in seen if m.kind == kind), None) for kind in ("numbers", "colours")}
    if all(first.values()):
        got = " and ".join(f"{kind} (mode {one.mode}) in {one.path}" for kind, one in first.items())
        raise DatasetError(f"{where}: expected masks of one kind, got {got}")
    return first["colours"] is not None


def _check_ignore(seen: Sequence[_Mask], where: Path) -> None:
    """Raise DatasetError if 255 stands beside 0 alone in some masks, and in no mask beside other numbers."""
    kinds = {frozenset(mask.counts) - {0}: mask for mask in reversed(seen)}
    only, beside = kinds.pop(frozenset({IGNORE}), None), [found for found in kinds if IGNORE in found]
    if only and not beside:
        other = next(mask for found, mask in kinds.items() if found)
        raise DatasetError(
            f"{where}: expected masks of one kind, got 0 and 255 in {only.path}, and "
            f"{sorted(other.counts)[:9]} in {other.path}; if 255 is to be ignored, a --config says so"
        )


def _propose_files(marked, looked, name: str, said: list[str]) -> tuple[Layout, list[str]]:
    """Propose for one mask for each class and image: large classes first, so that small ones cover them."""
    files = Counter(suffix for sample in marked for suffix in sample.mask)
    area: Counter = Counter()
    for sample in tqdm(looked, "look at masks", leave=False):
        for suffix, path in sample.mask.items():
            with contextlib.suppress(DatasetError):
                area[suffix] += float((read_layer(path) > 0).mean())
    order = tuple(sorted(files, key=lambda suffix: (suffix != "background", -area[suffix], suffix)))
    values = order if "background" in files else (None, *order)
    classes = tuple(value or "background" for value in values)
    said.append(
        "one mask for each class and image: " + ", ".join(f"{key} ({files[key]:,} files)" for key in order)
    )
    said.append("where two masks overlap, the class later in the list covers the earlier one")
    if pairs := sides(classes):
        said.append("left and right, exchanged in flips: " + ", ".join(map(" – ".join, pairs)))
    return Layout(name, "files", classes, values, _palette(len(classes)), sides(classes)), said


def _clear_colours(counts: Counter) -> list[int]:
    """Return the colours that are classes: frequent ones, none near a more frequent one.

    Black comes first, else the most frequent one; the others by their frequency.
    """
    chosen: list[int] = []
    for value, number in counts.most_common(5_000):
        if number < _RARE * counts.total() and len(chosen) >= 2:
            break
        colour = np.array(unpack(value))
        if all(np.abs(colour - unpack(other)).max() > DISTANCE for other in chosen):
            chosen.append(value)
    return sorted(chosen, key=lambda value: value != 0)


def _palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours for classes: black, then hues that stay apart, light and dark in turn."""
    hues = [number * 0.618034 % 1 for number in range(count - 1)]
    colours = [
        colorsys.hsv_to_rgb(h, (1, 0.55, 0.8)[k % 3], (0.9, 1, 0.6)[k % 3]) for k, h in enumerate(hues)
    ]
    return ((0, 0, 0), *(tuple(round(255 * part) for part in colour) for colour in colours))

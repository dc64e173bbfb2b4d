"""Folders of images and masks: which belong together, what the masks mean, and how they are read.

:class:`Layout` is the YAML file that ``prepare_folder.py`` describes.
"""

import colorsys
import contextlib
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image
from scipy.spatial import cKDTree
from tqdm import tqdm

from consensus_lib import IGNORE
from consensus_lib.data.folder import DatasetError, DatasetInfo
from consensus_lib.data.images import open_image, to_rgb
from consensus_lib.data.tasks import sides
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.paths import atomic

SPLITS = ("train", "validation", "test", "unlabelled")
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
MOST_CLASSES = 150
DISTANCE = 40.0
"""A colour belongs to the nearest class within this Euclidean distance in RGB, 0-255, or is ignored."""

UNCLEAR = 0.05
"""The share of a mask's pixels that may be of no clear class; a mask with more is refused."""

_RARE = 2e-4
"""A colour with fewer of all pixels is no class of a proposal."""

_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
"""Picture modes whose values are numbers."""

_LOOK = 200
"""Masks that a proposal is made from, evenly over the folder."""


class Sample(NamedTuple):
    """An image and its mask: a file, or class suffix → file; None where there is no mask."""

    stem: str
    image: Path
    mask: Path | dict[str, Path] | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the masks mean; the head of ``prepare_folder.py`` explains each field.

    Raises:
        DatasetError: a field is not as it is said there.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    values: tuple
    colours: tuple[tuple[int, int, int], ...]
    mirrored: tuple[tuple[str, str], ...] = ()
    ignore: int | tuple[int, int, int] | None = None
    splits: dict = dataclasses.field(default_factory=lambda: {"train": 0.7, "validation": 0.15, "test": 0.15})
    subject: str | None = None
    tasks: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    source: str = "a folder of images and masks"
    licence: str = "not stated"

    def __post_init__(self):
        if not 2 <= len(self.classes) <= MOST_CLASSES or len(self.values) != len(self.classes):
            raise DatasetError(
                f"classes and values: expected 2 to {MOST_CLASSES} classes with a value each, "
                f"got {len(self.classes)} and {len(self.values)}"
            )
        kinds = {"numbers": int, "colours": tuple, "files": str}
        if self.kind not in kinds:
            raise DatasetError(f"kind: expected one of {list(kinds)}, got {self.kind!r}")
        wrong = [value for value in self.values if not isinstance(value, kinds[self.kind])]
        if wrong and not (self.kind == "files" and wrong == [None]):
            raise DatasetError(f"values: expected {self.kind} of the masks, got {wrong[:3]}")
        shares = [share for share in self.splits.values() if not isinstance(share, list)]
        if (
            set(self.splits) - set(SPLITS)
            or not all(0 <= share <= 1 for share in shares)
            or sum(shares) > 1.001
        ):
            raise DatasetError(f"splits: expected shares of {SPLITS}, at most 1 in all, got {self.splits}")

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Read a YAML file.

        Raises:
            DatasetError: it is no such file, or a key is missing or unknown.
        """
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DatasetError(f"{path}: expected a YAML file, got: {error}") from None
        known = {field.name: field for field in dataclasses.fields(cls)}
        needed = {"name", "kind", "classes", "values", "colours"}
        if not isinstance(given, dict) or set(given) - set(known) or needed - set(given):
            raise DatasetError(
                f"{path}: expected the keys {sorted(known)}, with {sorted(needed)}, got {given!r:.200}"
            )
        try:
            return cls.of(given)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}: {error}") from None

    @classmethod
    def of(cls, given: dict) -> "Layout":
        """Return the layout of a dictionary of lists, as YAML and JSON hold it."""
        return cls(**{name: _tuples(value) if name != "splits" else value for name, value in given.items()})

    def write(self, path: Path, remarks: Sequence[str]) -> None:
        """Write a YAML file that starts with remarks."""
        fields = {name: _lists(value) for name, value in dataclasses.asdict(self).items()}
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
        with atomic(path) as part:
            part.write_text("".join(f"# {line}\n" for line in remarks) + text, encoding="utf-8")

    def info(self, size: int, notes: dict) -> DatasetInfo:
        """Return what ``dataset.json`` is to say; a ValueError names what is wrong in the layout."""
        named = (self.name, self.classes, self.colours, self.source, self.licence, size)
        info = DatasetInfo(*named, notes=notes, mirrored=self.mirrored, tasks=self.tasks)
        for name in self.tasks:
            task_by_name(name, info).table(self.classes)
        return info


# Finding


def find_samples(images: Path, masks: Path | None) -> list[Sample]:
    """Pair images and masks by their stem, in the order of the stems.

    Where two images have one stem, in two sub-folders, the path inside the folder stands for the stem.

    Args:
        images, masks: folders, searched with their sub-folders; no masks are None.

    Raises:
        DatasetError: there are no images, two files of one stem, or masks without an image.
    """
    found, labels = _by_stem(images), {} if masks is None else _by_stem(masks)
    if len(labels) == 0 and masks is not None:
        raise DatasetError(f"{masks}: expected masks ({', '.join(sorted(SUFFIXES))}), found none")
    if not found:
        raise DatasetError(f"{images}: expected images ({', '.join(sorted(SUFFIXES))}), found none")
    paired = {stem: labels[stem] for stem in found if stem in labels}
    if labels and not paired:
        paired = _by_class(found, labels)
    used = {
        path for mask in paired.values() for path in (mask.values() if isinstance(mask, dict) else [mask])
    }
    lost = [path for path in labels.values() if path not in used]
    if lost:
        raise DatasetError(
            f"{lost[0]}: expected an image of this stem, or of that in STEM_CLASS, in {images}, found none "
            f"({len(lost):,} of {len(labels):,} masks have none)"
        )
    return [Sample(stem, path, paired.get(stem)) for stem, path in found.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return stem → file, sorted; of stems that occur twice the path inside the folder."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    stems = {path.stem: path for path in files}
    if len(stems) < len(files):
        stems = {"-".join(path.relative_to(folder).with_suffix("").parts): path for path in files}
    if len(stems) < len(files):
        twice = next(path for path in files if path not in set(stems.values()))
        raise DatasetError(
            f"{twice}: expected one image of this stem in its folder, got another extension, too"
        )
    return {stem: stems[stem] for stem in sorted(stems)}


def _by_class(found: dict[str, Path], labels: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """Return stem → class → mask for masks named STEM_CLASS; 00007_l_eye is of 7.jpg, too."""
    plain = {stem.lstrip("0") or "0": stem for stem in found}
    paired: dict[str, dict[str, Path]] = {}
    for path in labels.values():
        for cut in (match.start() for match in re.finditer("_", path.stem)):
            stem = (
                path.stem[:cut] if path.stem[:cut] in found else plain.get(path.stem[:cut].lstrip("0") or "0")
            )
            if stem is not None:
                parts, name = paired.setdefault(stem, {}), path.stem[cut + 1 :]
                if name in parts:
                    raise DatasetError(
                        f"{path}: expected one mask of {stem!r} and {name!r}, got {parts[name]}, too"
                    )
                parts[name] = path
                break
    return paired


# Proposing


def propose(samples: Sequence[Sample], name: str) -> tuple[Layout, list[str]]:
    """Count what masks hold; return the layout that they suggest, and what was understood, as sentences.

    Args:
        samples: of :func:`find_samples`; those whose masks cannot be read are passed over here.
        name: of the data set.

    Raises:
        DatasetError: no mask can be read, or they have fewer than 2 or more than 150 classes.
    """
    marked = [sample for sample in samples if sample.mask]
    looked = marked[:: max(1, math.ceil(len(marked) / _LOOK))]
    said = [f"{len(samples):,} images, {len(marked):,} with masks; {len(looked):,} masks were looked at"]
    if isinstance(marked[0].mask, dict):
        return _propose_files(marked, looked, name, said)
    counts: Counter = Counter()
    modes, palette, readable = set(), None, 0
    for sample in tqdm(looked, "look at masks", leave=False):
        with contextlib.suppress(DatasetError):
            picture, _ = open_image(sample.mask)
            colours, readable = picture.mode not in _NUMBERS, readable + 1
            modes.add(colours)
            palette = palette or (picture.mode == "P" and picture.getpalette("RGB"))
            values, number = np.unique(_values(picture, colours), return_counts=True)
            counts.update(dict(zip(values.tolist(), number.tolist(), strict=True)))
    if not readable or len(modes) > 1:
        got = "both" if readable else "none that can be read"
        raise DatasetError(f"{looked[0].mask.parent}: expected masks of numbers or of colours, got {got}")
    ignore, total = None, sum(counts.values())
    coded = modes == {True} and any(len(set(_unpacked(value))) > 1 for value in counts)
    if coded:
        chosen = _clear_colours(counts, total)
        values = shown = tuple(map(_unpacked, chosen))
        other = 1 - sum(counts[value] for value in chosen) / total
        said.append(
            f"masks of {len(values)} colours; {other:.2%} of their pixels have another one, and go to the "
            f"nearest within {DISTANCE:g} (Euclidean, RGB) or are ignored"
        )
    else:
        if modes == {True}:  # grey stored as RGB
            counts = Counter({value & 255: number for value, number in counts.items()})
        found = sorted(counts)
        ends = sum(counts[value] for value in found if value <= 24 or value >= 231) / total
        if len(found) > 8 and {0, 255} <= set(found) and ends > 0.9:
            said.append("masks of 0 and 255 with grey edges, which go to the nearer one or are ignored")
            found = [0, 255]
        elif len(found) > 2 and found[-1] == IGNORE:
            said.append("255 is taken for ignore: no loss counts these pixels")
            ignore = found.pop()
        values = tuple(found)
        said.append(
            "masks of numbers: " + ", ".join(f"{value} ({counts[value]:,} pixels)" for value in found[:20])
        )
        shown = _palette(len(values))
        if palette and max(values) < len(palette) // 3:
            own = tuple(tuple(palette[3 * value : 3 * value + 3]) for value in values)
            shown = own if len(set(own)) == len(own) else shown
    if not 2 <= len(values) <= MOST_CLASSES:
        raise DatasetError(
            f"{looked[0].mask.parent}: expected 2 to {MOST_CLASSES} values in the masks, got {len(values)}"
        )
    classes = ("background", *(f"class_{number}" for number in range(1, len(values))))
    if len(values) == 2:
        classes = ("background", "face")
    said.append(f"class 0, {values[0]}, is taken for the background; the names are placeholders")
    return Layout(name, "colours" if coded else "numbers", classes, values, shown, ignore=ignore), said


def _propose_files(marked, looked, name: str, said: list[str]) -> tuple[Layout, list[str]]:
    """Propose for one mask for each class and image: large classes first, so that small ones cover them."""
    files = Counter(suffix for sample in marked for suffix in sample.mask)
    area: Counter = Counter()
    for sample in tqdm(looked, "look at masks", leave=False):
        for suffix, path in sample.mask.items():
            with contextlib.suppress(DatasetError):
                area[suffix] += float((np.asarray(open_image(path)[0].convert("L")) > 0).mean())
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


# Reading


def read_sample(
    sample: Sample, layout: Layout, *, rescale: bool = False
) -> tuple[Image.Image, np.ndarray | None, int]:
    """Return an RGB image, upright, its labels uint8 ``[H,W]``, and how many pixels are of no clear class.

    Args:
        sample: of :func:`find_samples`.
        layout: what the masks mean.
        rescale: bring a mask to the image's size where both have one shape, within a pixel.

    Raises:
        DatasetError: a file cannot be read, sizes differ, or more than ``UNCLEAR`` of a mask is of no class.
    """
    picture = to_rgb(*open_image(sample.image), sample.image)
    if sample.mask is None:
        return picture, None, 0
    if layout.kind == "files":
        labels, unclear = _join(sample, layout), 0
    else:
        labels, unclear = _decode(sample.mask, layout)
    if labels.shape != picture.size[::-1]:
        height, width = labels.shape
        alike = abs(width * picture.height - height * picture.width) <= max(width, height, *picture.size)
        where = next(iter(sample.mask.values())) if isinstance(sample.mask, dict) else sample.mask
        if not (alike and rescale):
            raise DatasetError(
                f"{where}: expected {picture.width}×{picture.height} (width×height) as {sample.image.name}, "
                f"got {width}×{height}"
                + ("; --rescale brings masks of another scale to their image" if alike else "")
            )
        labels = _resized(labels, picture.size)
    return picture, labels, unclear


def _decode(path: Path, layout: Layout) -> tuple[np.ndarray, int]:
    """Return labels of one mask and the number of pixels of no clear class, which are ignored."""
    picture, _ = open_image(path)
    found, inverse = np.unique(_values(picture, layout.kind == "colours", path), return_inverse=True)
    known = [*layout.values, *([] if layout.ignore is None else [layout.ignore])]
    numbers = np.array([*range(len(layout.values)), IGNORE][: len(known)], np.uint8)
    places = np.array(known, float).reshape(len(known), -1)  # [K, 1 or 3]
    seen = np.stack(_unpacked(found), 1) if layout.kind == "colours" else found[:, None]
    far, nearest = cKDTree(places).query(seen)
    # Numbers far apart, 0 and 255, may have grey edges; class numbers have none.
    limit = DISTANCE if layout.kind == "colours" or np.diff(sorted(known)).min() > 2 * DISTANCE else 0
    table = np.where(far <= limit, numbers[nearest], IGNORE).astype(np.uint8)
    counts = np.bincount(inverse.ravel(), minlength=len(found)) * (far > limit)
    unclear = int(counts.sum())
    if unclear > UNCLEAR * inverse.size:
        worst = found[counts.argmax()]
        raise DatasetError(
            f"{path}: expected the {layout.kind} {known}, but {unclear / inverse.size:.1%} of the pixels "
            f"(more than {UNCLEAR:.0%}) are further than {limit:g} from each, such as "
            f"{_unpacked(int(worst)) if layout.kind == 'colours' else int(worst)}"
        )
    return table[inverse].reshape(picture.size[::-1]), unclear


def _join(sample: Sample, layout: Layout) -> np.ndarray:
    """Return the labels that one mask for each class gives; a later class covers an earlier one."""
    unknown = sorted(set(sample.mask) - set(layout.values))
    if unknown:
        raise DatasetError(
            f"{sample.mask[unknown[0]]}: expected one of the classes {layout.values}, got {unknown[0]!r}"
        )
    labels = first = None
    for number, suffix in enumerate(layout.values):
        if suffix not in sample.mask:
            continue
        values = np.asarray(open_image(sample.mask[suffix])[0].convert("L"))
        if labels is None:
            labels, first = np.zeros(values.shape, np.uint8), sample.mask[suffix]
        if values.shape != labels.shape:
            height, width = values.shape
            raise DatasetError(
                f"{sample.mask[suffix]}: expected {labels.shape[1]}×{labels.shape[0]} (width×height) as "
                f"{first.name}, got {width}×{height}"
            )
        labels[values > values.max() / 2] = number
    return labels


def _values(picture: Image.Image, colours: bool, name: object = "mask") -> np.ndarray:
    """Return numbers, or colours packed as 0xRRGGBB, int64 ``[H,W]``."""
    if not colours and picture.mode in _NUMBERS:
        return np.asarray(picture).astype(np.int64)
    parts = np.asarray(picture.convert("RGB")).astype(np.int64)  # [H, W, 3]
    if colours:
        return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
    if (parts != parts[..., :1]).any():
        raise DatasetError(f"{name}: expected numbers, got colours (mode {picture.mode})")
    return parts[..., 0]


def _unpacked(value):
    """Return red, green and blue of 0xRRGGBB, a number or an array."""
    return value >> 16, value >> 8 & 255, value & 255


def _clear_colours(counts: Counter, total: int) -> list[int]:
    """Return the colours that are classes: frequent ones, none near a more frequent one.

    Black comes first, else the most frequent one; the others by their frequency.
    """
    chosen: list[int] = []
    for value, number in counts.most_common(5_000):
        if number < _RARE * total and len(chosen) >= 2:
            break
        colour = np.array(_unpacked(value))
        if all(np.linalg.norm(colour - _unpacked(other)) > DISTANCE for other in chosen):
            chosen.append(value)
    return sorted(chosen, key=lambda value: value != 0)


def _palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours for classes: black, then hues that stay apart, light and dark in turn."""
    hues = [number * 0.618034 % 1 for number in range(count - 1)]
    colours = [
        colorsys.hsv_to_rgb(h, (1, 0.55, 0.8)[k % 3], (0.9, 1, 0.6)[k % 3]) for k, h in enumerate(hues)
    ]
    return ((0, 0, 0), *(tuple(round(255 * part) for part in colour) for colour in colours))


def _resized(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return labels at (width, height): the nearest pixel, as they are brought to the final size later."""
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value):
    return list(map(_lists, value)) if isinstance(value, list | tuple) else value

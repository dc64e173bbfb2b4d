"""Folders of images and masks: which belong together, what the masks mean, and how they are read.

:class:`Layout` is the YAML file that ``prepare_folder.py`` describes.
"""

import dataclasses
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from consensus_lib.data.folder import DatasetError, DatasetInfo
from consensus_lib.data.images import open_image
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.paths import atomic
from pictures import classes_of, fit, join_layers, open_rgb, values_of
from sets import SPLITS

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
MOST_CLASSES = 150
DISTANCE = 40
"""A colour that differs from the nearest class by at most this in each channel, 0-255, belongs to it."""

UNCLEAR = 0.05
"""The share of a mask's pixels that may be of no clear class; a mask with more is refused."""


class Sample(NamedTuple):
    """An image and its mask: a file, or class suffix → file; None where there is no mask."""

    stem: str
    image: str
    mask: str | dict[str, str] | None


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
        if twice := [value for value, count in Counter(self.values).items() if count > 1]:
            raise DatasetError(f"values: expected another one for each class, got {twice} for several")
        shares = [share for share in self.splits.values() if not isinstance(share, list)]
        if (
            set(self.splits) - set(SPLITS)
            or not all(0 <= share <= 1 for share in shares)
            or sum(shares) > 1.001
        ):
            raise DatasetError(f"splits: expected shares of {SPLITS}, at most 1 in all, got {self.splits}")

    @property
    def tolerance(self) -> int:
        """How far a value may be from a class: numbers far apart, 0 and 255, may have grey edges."""
        if self.kind == "colours":
            return DISTANCE
        known = sorted([*self.values, *([] if self.ignore is None else [self.ignore])])
        return DISTANCE if np.diff(known).min() > 2 * DISTANCE else 0

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
    paired: dict = {stem: labels[stem] for stem in found if stem in labels}
    lost = {stem: path for stem, path in labels.items() if stem not in paired}
    parts, lost = _by_class(found, lost) if lost else ({}, [])
    if lost:
        raise DatasetError(
            f"{lost[0]}: expected an image of this stem, or of that in STEM_CLASS, in {images}, found none "
            f"({len(lost):,} of {len(labels):,} masks have none)"
        )
    if paired and parts:
        whole, part = next(iter(paired.values())), next(iter(next(iter(parts.values())).values()))
        raise DatasetError(
            f"{masks}: expected masks of one kind, got one for each image, {whole}, and one for each class "
            f"and image, {part}"
        )
    paired |= parts
    return [Sample(stem, path, paired.get(stem)) for stem, path in found.items()]


def _by_stem(folder: Path) -> dict[str, str]:
    """Return stem → file, sorted; of stems that occur twice the path inside the folder."""
    files = sorted(
        os.path.join(inside, name)  # text, not Path: there may be half a million
        for inside, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
    )
    # Letters with accents are written in two ways; who copied the files decides which.
    stems = {
        unicodedata.normalize("NFC", os.path.splitext(os.path.basename(path))[0]): path for path in files
    }
    if len(stems) < len(files):
        stems = {"-".join(Path(path).relative_to(folder).with_suffix("").parts): path for path in files}
    if len(stems) < len(files):
        twice = next(path for path in files if path not in set(stems.values()))
        raise DatasetError(
            f"{twice}: expected one image of this stem in its folder, got another extension, too"
        )
    return {stem: stems[stem] for stem in sorted(stems)}


def _by_class(found: dict[str, str], labels: dict[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return stem → class → mask of masks named STEM_CLASS, and masks of no image; 00007_eye is of 7.jpg."""
    plain = {stem.lstrip("0") or "0": stem for stem in found}
    paired: dict[str, dict[str, str]] = {}
    lost = []
    for name, path in labels.items():
        for cut in (match.start() for match in re.finditer("_", name)):
            stem = name[:cut] if name[:cut] in found else plain.get(name[:cut].lstrip("0") or "0")
            if stem is not None:
                parts, suffix = paired.setdefault(stem, {}), sys.intern(name[cut + 1 :])
                if suffix in parts:
                    raise DatasetError(
                        f"{path}: expected one mask of {stem!r} and {suffix!r}, got {parts[suffix]}, too"
                    )
                parts[suffix] = path
                break
        else:
            lost.append(path)
    return paired, lost


# Reading


def read_sample(
    sample: Sample, layout: Layout, size: int, *, rescale: bool = False, crop: str = "pad"
) -> dict:
    """Return ``image``, ``labels`` where there is a mask, and the number of ``unclear`` pixels of the mask.

    Args:
        sample: of :func:`find_samples`.
        layout: what the masks mean.
        size, rescale, crop: see :func:`pictures.fit`.

    Raises:
        DatasetError: a file cannot be read, sizes differ, or more than ``UNCLEAR`` of a mask is of no class.
    """
    image, mask, unclear = open_rgb(sample.image), sample.mask, 0
    if mask is None:
        return fit(image, None, size, crop=crop)
    if isinstance(mask, dict) != (layout.kind == "files"):
        where, got = (next(iter(mask.values())), "for each class") if isinstance(mask, dict) else (mask, "")
        raise DatasetError(f"{where}: expected masks of the kind {layout.kind}, got one {got or 'in all'}")
    if isinstance(mask, dict):
        if unknown := sorted(set(mask) - set(layout.values)):
            where = mask[unknown[0]]
            raise DatasetError(f"{where}: expected one of the classes {layout.values}, got {unknown[0]!r}")
        layers = {number: mask[name] for number, name in enumerate(layout.values) if name in mask}
        labels, where = join_layers(layers), next(iter(layers.values()))
    else:
        values, where = values_of(open_image(mask)[0], layout.kind == "colours", mask), mask
        known = {"ignore": layout.ignore, "within": layout.tolerance, "most": UNCLEAR}
        labels, unclear = classes_of(values, layout.values, where, **known)
    made = fit(image, labels, size, where, rescale=rescale, crop=crop)
    return made | {"unclear": unclear}


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value):
    return list(map(_lists, value)) if isinstance(value, list | tuple) else value

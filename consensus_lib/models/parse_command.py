"""The command ``python -m consensus_lib parse``: photographs in, masks out.

For each face it writes an indexed PNG at the photograph's size, for each photograph an overlay, and for all
of them one ``summary.csv``. A photograph that cannot be parsed costs one line and the exit code 1; the others
are still done.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from consensus_lib import paths
from consensus_lib.experiments.command_line import Parser, folder, number, refusing
from consensus_lib.metrics.components import count_by_class
from consensus_lib.models.parser import FaceParser, ParsedFace
from consensus_lib.models.photo import PhotoError, open_photo


def main(argv: list[str]) -> int:
    """Parse the photographs that ``argv`` names; return 0, or 1 where one of them could not be."""
    parser = Parser("python -m consensus_lib parse", description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--out", type=folder, default=Path("masks"), help="folder of the masks (%(default)s)")
    parser.add_argument(
        "--weights", default="parts", help="parts, occlusion, a file of weights or a training's folder"
    )
    parser.add_argument(
        "--box",
        nargs=4,
        type=number(),
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="a face, from brow to chin, in pixels; once for each face of one photograph",
    )
    parser.add_argument("--whole", action="store_true", help="take each picture as one face, cut out already")
    parser.add_argument("--no-flip", action="store_true", help="do not average with the mirrored face")
    parser.add_argument("--device", default="auto")
    a = parser.parse_args(argv)
    if a.box and (a.whole or len(a.photos) > 1):
        parser.error("--box: expected one photograph, without --whole")
    with refusing(parser):
        parse = FaceParser.from_pretrained(a.weights, flip=not a.no_flip, device=a.device)
    names, rows, failed = _names(a.photos), [], 0
    for photo, name in zip(
        tqdm(a.photos, "parse", unit="photo", disable=len(a.photos) < 2), names, strict=True
    ):
        try:
            picture = open_photo(photo)
            faces = parse(picture, boxes=a.box, whole=a.whole)
        except (PhotoError, ValueError) as error:
            failed += 1
            tqdm.write(
                f"{photo}: {str(error).removeprefix(f'{photo}: ').removeprefix('photo: ')}", file=sys.stderr
            )
            continue
        a.out.mkdir(parents=True, exist_ok=True)
        for number_, face in enumerate(faces, 1):
            file = f"{name}.png" if len(faces) == 1 else f"{name}-{number_}.png"
            _write(a.out / file, _indexed(face))
            rows.append({"photo": str(photo), "mask": file, **_summary(face)})
        _write(a.out / f"{name}-overlay.png", draw_overlay(picture, faces))
    if rows:
        with (
            paths.atomic(a.out / "summary.csv") as part,
            part.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        parsed = f"{len(a.photos) - failed} of {len(a.photos)} photographs"
        print(f"{len(rows)} faces in {parsed}: {paths.shown(a.out)}")
    return int(failed > 0)


def draw_overlay(picture: Image.Image, faces: list[ParsedFace], opacity: float = 0.5) -> Image.Image:
    """Return the photograph with the classes of all faces laid over it; the background stays as it is."""
    result = np.asarray(picture).astype(np.float32)
    for face in faces:
        colours = np.asarray(face.colours, np.float32)[face.labels]
        marked = face.labels > 0
        result[marked] += opacity * (colours[marked] - result[marked])
    return Image.fromarray(result.round().astype(np.uint8))


def _indexed(face: ParsedFace) -> Image.Image:
    picture = Image.fromarray(face.labels)
    picture.putpalette(np.asarray(face.colours, np.uint8).tobytes())
    return picture


def _summary(face: ParsedFace) -> dict:
    """Return the box, and each class's share of the window with its components and holes."""
    row = dict(zip(("left", "top", "right", "bottom"), (round(n, 1) for n in face.box), strict=True))
    window = (face.window[2] - face.window[0]) ** 2
    counts = count_by_class(face.labels[None], len(face.classes))[0]
    for number_, name in enumerate(face.classes[1:], 1):
        row[f"{name}_share"] = round(float((face.labels == number_).sum() / window), 4)
        row[f"{name}_components"], row[f"{name}_holes"] = map(int, counts[number_])
    return row


def _names(photos: list[Path]) -> list[str]:
    """Return a name for each photograph's masks: its stem, with the folder where two have one stem."""
    stems = [photo.stem for photo in photos]
    names = [
        stem if stems.count(stem) == 1 else f"{photo.parent.name}-{photo.name}"
        for stem, photo in zip(stems, photos, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names)]


def _write(file: Path, picture: Image.Image) -> None:
    with paths.atomic(file) as part, part.open("wb") as stream:
        picture.save(stream, "PNG")

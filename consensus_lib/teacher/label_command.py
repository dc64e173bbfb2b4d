"""The command ``python -m consensus_lib label``: photographs in, a prepared folder of occlusion labels out.

Faces are found and cut out; the shipped parser tells the visible and the complete face, and what is missing
is occlusion (Eq. 1 and 2). No human labels anything. Faces that are labelled are the split ``train``, those
not to be believed are ``unlabelled``; ``records.csv`` says how sure the parser was.
"""

import re
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from consensus_lib import paths
from consensus_lib.data.folder import DatasetError, DatasetInfo, read_info
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.experiments.command_line import Parser, folder, number, refusing, whole
from consensus_lib.models.parser import FaceParser
from consensus_lib.models.photo import PhotoError, cut_window, open_photo
from consensus_lib.teacher.pseudo_labels import CONFIDENCE, prepare_pseudo_labels
from consensus_lib.teacher.teachers import ParserExtent, ParserTeacher


def main(argv: list[str]) -> int:
    """Label the faces in the photographs that ``argv`` names; return 0, or 1 where one could not be."""
    parser = Parser("python -m consensus_lib label", description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--out", type=folder, required=True, help="the folder to make")
    parser.add_argument("--size", type=whole(16), default=128, help="side of a face in pixels (%(default)s)")
    parser.add_argument(
        "--confidence",
        type=number(0, 1),
        default=CONFIDENCE,
        help="least mean confidence over a complete face that is labelled (%(default)s)",
    )
    parser.add_argument("--whole", action="store_true", help="take each picture as one face, cut out already")
    parser.add_argument("--device", default="auto")
    a = parser.parse_args(argv)
    with refusing(parser):
        parse = FaceParser.from_pretrained("occlusion", device=a.device)
    teacher = ParserTeacher(parse)
    cuts, failed = {}, 0
    for place, photo in enumerate(tqdm(a.photos, "cut out", unit="photo", disable=len(a.photos) < 2)):
        try:
            picture = open_photo(photo)
            windows = [face.window for face in parse(picture, whole=a.whole)]
        except PhotoError as error:
            failed += 1
            text = str(error).removeprefix(f"{photo}: ").removeprefix("photo: ")
            tqdm.write(f"{photo}: {text}", file=sys.stderr)
            continue
        name = re.sub(r"[^\w .-]", "_", photo.stem)
        for face, window in enumerate(windows, 1):
            cuts[f"{place:05d} {name} {face}"] = cut_window(picture, window, a.size)
    if not cuts:
        return 1
    info = DatasetInfo("photographs", ("unknown",), ((0, 0, 0),), "photographs", "their owners'", a.size)
    with tempfile.TemporaryDirectory() as work:
        with DatasetWriter(Path(work) / "faces", info) as writer:
            for id, image in cuts.items():
                writer.add(id, "unlabelled", id, image=image)
        try:
            prepare_pseudo_labels(
                a.out,
                Path(work) / "faces",
                teacher,
                extent=ParserExtent(teacher),
                rules={"confidence": a.confidence},
                progress=len(cuts) > 1,
            )
        except (DatasetError, FileExistsError) as error:
            print(f"--out: {error}", file=sys.stderr)
            return 1
    counts = read_info(a.out).counts
    told = f"{counts.get('train', 0)} faces labelled, {counts.get('unlabelled', 0)} left out"
    print(f"{told}, of {len(a.photos) - failed} of {len(a.photos)} photographs: {paths.shown(a.out)}")
    return int(failed > 0)

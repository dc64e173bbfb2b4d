"""How long the shipped parser takes for one face, and for the labels of three thousand photographs."""

import time

import numpy as np
import pytest
import torch

from consensus_lib.data import DatasetInfo, DatasetWriter
from consensus_lib.models import FaceParser
from consensus_lib.teacher.pseudo_labels import prepare_pseudo_labels
from consensus_lib.teacher.teachers import ParserExtent, ParserTeacher

IMAGES, SIDE = 96, 250


def test_three_thousand_photographs(tmp_path):
    rng = np.random.default_rng(0)
    info = DatasetInfo("photographs", ("background",), ((0, 0, 0),), "made here", "none", SIDE)
    with DatasetWriter(tmp_path / "photographs", info) as writer:
        for i in range(IMAGES):
            small = rng.integers(0, 256, (10, 10, 3), np.uint8)
            picture = small.repeat(SIDE // 10, 0).repeat(SIDE // 10, 1)
            writer.add(f"{i:03d}", "unlabelled", str(i), image=picture, jpeg=True)
    teacher = ParserTeacher()
    begin = time.perf_counter()
    prepare_pseudo_labels(
        tmp_path / "labelled", tmp_path / "photographs", teacher, extent=ParserExtent(teacher)
    )
    seconds = (time.perf_counter() - begin) * 3000 / IMAGES
    print(f"\n3,000 photographs of {SIDE}×{SIDE}, labelled: {seconds:.0f} s")


@pytest.mark.parametrize("name", ["parts", "occlusion"])
@pytest.mark.parametrize("flip", [False, True])
def test_one_face(name, flip):
    parser = FaceParser.from_pretrained(name, flip=flip, device="cpu")
    face = torch.zeros(1, 3, parser.size, parser.size)
    times = []
    for _ in range(25):
        begin = time.process_time()  # of all threads, whatever else the machine does
        parser.predict(face)
        times.append(1e3 * (time.process_time() - begin))
    way = f"{name}, {'flips averaged' if flip else 'no flips'}, {torch.get_num_threads()} threads"
    print(f"\n{way}: one face takes {np.median(times[5:]):.1f} ms of one core (median of 20)")

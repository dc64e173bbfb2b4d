"""Pseudo-labels: how long the embedded teacher takes for three thousand photographs."""

import time

import numpy as np

from consensus_lib.data import DatasetInfo, DatasetWriter
from consensus_lib.models.networks import UNet
from consensus_lib.teacher.pseudo_labels import prepare_pseudo_labels
from consensus_lib.teacher.teachers import NetworkTeacher, TeacherExtent

IMAGES, SIDE = 96, 250


def test_three_thousand_photographs(tmp_path):
    rng = np.random.default_rng(0)
    info = DatasetInfo("photographs", ("background",), ((0, 0, 0),), "made here", "none", SIDE)
    with DatasetWriter(tmp_path / "photographs", info) as writer:
        for i in range(IMAGES):
            small = rng.integers(0, 256, (10, 10, 3), np.uint8)
            picture = small.repeat(SIDE // 10, 0).repeat(SIDE // 10, 1)
            writer.add(f"{i:03d}", "unlabelled", str(i), image=picture, jpeg=True)
    teacher = NetworkTeacher(UNet(3, 0.5), ("background", "face", "occluder"), size=128)
    begin = time.perf_counter()
    prepare_pseudo_labels(
        tmp_path / "labelled", tmp_path / "photographs", teacher, extent=TeacherExtent(teacher)
    )
    seconds = (time.perf_counter() - begin) * 3000 / IMAGES
    print(f"\n3,000 photographs of {SIDE}×{SIDE}, seen at 128: {seconds:.0f} s")
    assert seconds <= 600

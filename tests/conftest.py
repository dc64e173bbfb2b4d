"""Fixtures that several test files share: tiny data sets made on the spot."""

import hypothesis
import numpy as np
import pytest

from consensus_lib.datasets import DatasetInfo, DatasetWriter

hypothesis.settings.register_profile("shared machines", deadline=None)  # time is checked by `make bench` alone
hypothesis.settings.load_profile("shared machines")

TINY_CLASSES = ("background", "face", "hair")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Keep caches and runs of a test out of the user's folders."""
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONSENSUS_RUNS_DIR", str(tmp_path / "runs"))


@pytest.fixture
def tiny_folder(tmp_path):
    """A prepared data set of 32×32 pixels: a face-coloured disc under a hair-coloured band."""
    info = DatasetInfo("tiny", TINY_CLASSES, ((0, 0, 0), (0, 255, 0), (255, 0, 0)), "made here", "none", 32)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    with DatasetWriter(tmp_path / "tiny", info) as writer:
        for split, count in (("train", 12), ("validation", 4), ("test", 4), ("unlabelled", 2)):
            for i in range(count):
                cx, cy = rng.uniform(13, 19, 2)
                labels = ((x - cx) ** 2 + (y - cy) ** 2 < 81).astype(np.uint8)
                labels[(labels == 1) & (y < cy - 4)] = 2
                image = np.array([(40, 60, 90), (220, 170, 140), (70, 40, 20)], np.uint8)[labels]
                image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
                writer.add(f"{split}_{i:02d}", split, f"{split}{i}", image=image,
                           labels=None if split == "unlabelled" else labels,
                           superpixels=(y // 8 * 4 + x // 8) if split == "test" else None)
    return tmp_path / "tiny"

"""Fixtures that several test files share: tiny data sets, and archives in a real layout."""

import hashlib
import io
import shutil
import tarfile

import hypothesis
import numpy as np
import pytest
import torch

from consensus_lib.data import DatasetInfo, DatasetWriter

hypothesis.settings.register_profile(
    "shared machines", deadline=None
)  # time is checked by `make bench` alone
hypothesis.settings.load_profile("shared machines")

torch.set_num_threads(1)  # the networks here are tiny: more threads would wait for each other

TINY_CLASSES = ("background", "face", "hair")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Keep caches and runs of a test out of the user's folders."""
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONSENSUS_RUNS_DIR", str(tmp_path / "runs"))


def _write_tiny(folder):
    info = DatasetInfo("tiny", TINY_CLASSES, ((0, 0, 0), (0, 255, 0), (255, 0, 0)), "made here", "none", 32)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    with DatasetWriter(folder, info) as writer:
        for split, count in (("train", 12), ("validation", 4), ("test", 4), ("unlabelled", 2)):
            for i in range(count):
                cx, cy = rng.uniform(13, 19, 2)
                labels = ((x - cx) ** 2 + (y - cy) ** 2 < 81).astype(np.uint8)
                labels[(labels == 1) & (y < cy - 4)] = 2
                image = np.array([(40, 60, 90), (220, 170, 140), (70, 40, 20)], np.uint8)[labels]
                image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
                writer.add(
                    f"{split}_{i:02d}",
                    split,
                    f"{split}{i}",
                    image=image,
                    labels=None if split == "unlabelled" else labels,
                    superpixels=(y // 8 * 4 + x // 8) if split == "test" else None,
                )
    return folder


@pytest.fixture(scope="session")
def write_tiny():
    """Return a function that writes a tiny prepared data set into a folder, and returns the folder."""
    return _write_tiny


@pytest.fixture(scope="session")
def _tiny(tmp_path_factory):
    return _write_tiny(tmp_path_factory.mktemp("shared") / "tiny")


@pytest.fixture
def tiny_folder(tmp_path, _tiny):
    """A prepared data set of 32×32 pixels: a face-coloured disc under a hair-coloured band."""
    return shutil.copytree(_tiny, tmp_path / "tiny")


def _write_tgz(path, entries):
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                name, content = entry
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


def _write_registry(folder):
    files = sorted(path for path in folder.iterdir() if path.name != "registry.txt")
    lines = [f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files]
    (folder / "registry.txt").write_text("".join(lines))


@pytest.fixture(scope="session")
def write_tgz():
    """Return a function that writes a ``.tgz`` of ``(name, bytes)`` pairs and ready ``TarInfo`` headers."""
    return _write_tgz


@pytest.fixture(scope="session")
def write_registry():
    """Return a function that makes a folder of files a mirror: it writes their hashes to registry.txt."""
    return _write_registry

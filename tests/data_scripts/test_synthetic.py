"""The renderer: samples that depend on seed and index alone, labels that fit the picture, folders."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consensus_lib.data import DatasetError, prepared_folder
from consensus_lib.data.folder import read_index, read_info
from synthetic_faces import CLASSES, COLOURS, OCCLUDERS, Recipe, draw_face, read_truth, store
from synthetic_faces.__main__ import main as command_line
from synthetic_faces.store import prepare_synthetic, synthetic_folder

C = {name: number for number, name in enumerate(CLASSES)}
ON_FACE = [C[name] for name in ("skin", "brows", "eyes", "nose", "mouth")]
FEW = dict(size=48, workers=0, progress=False)


@pytest.fixture(scope="module")
def samples():
    return [draw_face(3, index) for index in range(24)]


def same(one, other) -> bool:
    return all(np.array_equal(value, getattr(other, name)) for name, value in vars(one).items())


def test_shapes_types_and_records(samples):
    assert len(CLASSES) == len(COLOURS) == len(set(COLOURS)) == 13
    for sample in samples:
        for name, kind in (("image", np.uint8), ("labels", np.uint8), ("complete", np.uint8), ("face", bool)):
            assert (getattr(sample, name).shape[:2], getattr(sample, name).dtype) == ((128, 128), kind)
        assert json.loads(json.dumps(sample.record)) == sample.record
        counts = np.bincount(sample.labels.ravel(), minlength=len(CLASSES)).tolist()
        assert list(sample.record["pixels"].values()) == counts
        if "strands" not in sample.record["occluders"]:  # hair over hair covers and changes no class
            share = (sample.face & (sample.labels != sample.complete)).sum() / sample.face.sum()
            assert sample.record["occlusion"] == pytest.approx(share, abs=1e-6)


def test_a_sample_depends_on_seed_and_index_alone(samples):
    assert same(draw_face(3, 2), samples[2])
    images = {sample.image.tobytes() for sample in (*samples, draw_face(4, 0), draw_face(4, 1))}
    assert len(images) == len(samples) + 2


def test_a_version_stands_for_its_pictures():
    """Other pictures need another VERSION, or caches would take old ones for them."""
    recipes = (None, Recipe(occluded=1.0, people=1.0), Recipe(light=False, texture=False, background="plain"))
    found = [draw_face(1, index, 64, recipe=recipe) for index, recipe in enumerate(recipes)]
    assert store.VERSION == 5
    pixels = [[sample.record["pixels"][name] for name in ("skin", "hair")] for sample in found]
    np.testing.assert_allclose(pixels, [(755, 860), (586, 721), (879, 975)], atol=3)  # processors round apart
    means = [(87.36, 66.54, 52.79), (141.83, 128.89, 88.40), (92.01, 76.21, 62.23)]
    np.testing.assert_allclose([sample.image.mean((0, 1)) for sample in found], means, atol=0.1)


def test_an_ingredient_leaves_the_others_alone():
    full, bare = draw_face(3, 0), draw_face(3, 0, recipe=Recipe(occluded=0.0, camera=False))
    assert [bare.record[key] for key in ("pose", "hair")] == [full.record[key] for key in ("pose", "hair")]
    assert np.array_equal(bare.face, full.face)
    assert np.array_equal(bare.labels, bare.complete)
    plain = Recipe(light=False, texture=False, background="plain", occluded=0.0, camera=False)
    assert np.array_equal(draw_face(3, 0, recipe=plain).labels, bare.labels)
    assert not np.array_equal(draw_face(3, 0, recipe=plain).image, bare.image)


def test_labels_agree_with_the_complete_ones(samples):
    for sample in samples:
        changed = sample.labels != sample.complete
        assert np.isin(sample.labels[changed], [C["occluder"], C["sunglasses"], C["hair"]]).all()
        assert C["occluder"] not in sample.complete
        assert sample.record["occluders"] or not changed.any()
        allowed = [*ON_FACE, C["hair"], C["glasses"], C["ears"]]
        assert np.isin(sample.complete[sample.face], allowed).mean() > 0.98
        features = np.isin(sample.complete, [C["eyes"], C["nose"], C["mouth"]])
        assert (features & ~sample.face).sum() <= 0.02 * features.sum() + 1


def test_label_edges_lie_on_image_edges_and_the_face_turns_with_the_head():
    """Between two classes the picture changes more than inside one."""
    ratios = []
    for index in range(10):
        sample = draw_face(5, index, recipe=Recipe(occluded=0, people=0, camera=False))
        step = np.abs(np.diff(sample.image.astype(float).mean(2), axis=1))
        merged = np.isin(sample.labels, [*ON_FACE, C["neck"]])  # one skin: no edge is due inside it
        labels = np.where(merged, C["skin"], sample.labels)
        edge = labels[:, 1:] != labels[:, :-1]
        ratios.append(np.median(step[edge]) / max(np.median(step[~edge]), 0.5))
        eyes = np.nonzero(sample.labels == C["eyes"])[1].mean()
        head = np.nonzero(np.isin(sample.labels, [*ON_FACE, C["hair"]]))[1].mean()
        yaw = sample.record["pose"]["yaw"]
        assert abs(yaw) <= 15 or np.sign(eyes - head) == np.sign(yaw)
    assert np.median(ratios) > 4


@pytest.mark.parametrize("kind", OCCLUDERS)
def test_every_occluder_covers_something(kind):
    recipe = Recipe(occluded=1.0, occluders=((kind, 1.0),), most=1)
    found = [draw_face(11, index, 48, recipe=recipe) for index in range(6)]
    changed = [sample.labels != sample.complete for sample in found]
    assert all(sample.record["occluders"] == [kind] for sample in found)
    assert sum(where.any() for where in changed) >= 4
    label = C[{"sunglasses": "sunglasses", "strands": "hair"}.get(kind, "occluder")]
    assert all((sample.labels[where] == label).all() for sample, where in zip(found, changed, strict=True))


def test_occluders_come_alone_or_together_and_cover_little_or_much():
    found = [draw_face(12, index, 32, recipe=Recipe(occluded=1.0)).record for index in range(40)]
    assert {len(record["occluders"]) for record in found} == {1, 2, 3}
    shares = [record["occlusion"] for record in found]
    assert min(shares) < 0.05
    assert 0.4 < max(shares) <= 1
    for index in range(6):
        sample = draw_face(11, index, 48, recipe=Recipe(occluded=0.0))
        assert not sample.record["occluders"]
        assert C["sunglasses"] not in sample.labels
        assert (C["glasses"] in sample.labels) == sample.record["glasses"]


WRONG = [(-1, 0), (2**32, 0), (0, -1), (0, 0, 31), (0, 0, 2000), (0.5, 0), (0, True)]


@pytest.mark.parametrize("arguments", WRONG)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=r"^(seed|index|size):"):
        draw_face(*arguments)


BAD = [{"background": "sea"}, {"people": 2}, {"most": -1}, {"occluders": [("cat", 1)]}]


@pytest.mark.parametrize("wrong", [*BAD, {"occluders": [("hand", 0)]}])
def test_recipe_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_prepare_writes_the_format_and_is_idempotent(tmp_path):
    counts = {"train": 3, "validation": 1, "test": 2}
    folder = prepare_synthetic(tmp_path / "faces", counts=counts, **FEW)
    info = read_info(folder)
    assert (info.classes, info.counts, info.notes["version"]) == (CLASSES, counts, store.VERSION)
    trained = [row.id for row in read_index(folder) if row.split == "train"]
    assert trained == [f"train_{n:06d}" for n in range(3)]
    sample = draw_face(0, store.FIRST["test"] + 1, 48)
    assert np.array_equal(np.asarray(Image.open(folder / "images/test_000001.png")), sample.image)
    assert np.array_equal(np.asarray(Image.open(folder / "labels/test_000001.png")), sample.labels)
    complete, face, record = read_truth(folder, "test_000001")
    assert same(dataclasses.replace(sample, complete=complete, face=face, record=record), sample)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    prepare_synthetic(folder, counts=counts, **FEW)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    with pytest.raises(DatasetError, match="same parameters"):
        prepare_synthetic(folder, seed=1, counts=counts, **FEW)
    assert np.diff(sorted(store.FIRST.values())).min() >= 1_000_000_000  # splits share no sample


@pytest.mark.parametrize("counts", [{}, {"train": 0}, {"training": 3}, {"train": -1}, {"train": 2.5}])
def test_counts_out_of_range(tmp_path, counts):
    with pytest.raises(ValueError, match="counts"):
        prepare_synthetic(tmp_path / "faces", counts=counts, **FEW)


@pytest.mark.slow
def test_processes_render_the_same_bytes_for_a_script_without_a_main_guard(tmp_path):
    # Each process would run the script anew, and wait for the lock that the first one holds.
    script = tmp_path / "unguarded.py"
    script.write_text(
        "print('run')\nfrom synthetic_faces import synthetic_folder\n"
        "print(synthetic_folder(counts={'train': 16}, size=32, workers=2))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    said, folder = done.stdout.split()
    assert said == "run"  # once
    here = prepare_synthetic(tmp_path / "here", counts={"train": 16}, **FEW | {"size": 32})
    files = {path.relative_to(here) for path in here.rglob("*.png")}
    assert len(files) == 48
    assert all((here / name).read_bytes() == (Path(folder) / name).read_bytes() for name in files)


def test_a_name_and_its_command_share_a_folder_that_its_parameters_name(capsys):
    folder = prepared_folder("synthetic", size=32, images=2)
    counts = {"train": 2, "validation": 24, "test": 48}
    command_line(["--size=32", *(f"--{split}={count}" for split, count in counts.items())])
    assert capsys.readouterr().out.splitlines() == [str(folder)]
    with pytest.raises(SystemExit, match="counts"):
        command_line(["--out", "nowhere"])
    with pytest.raises(ValueError, match="images: expected at least 1"):
        prepared_folder("synthetic", images=0)
    others = ({}, {"seed": 1}, {"recipe": Recipe(light=False)}, {})
    folders = [synthetic_folder(counts={"test": 1}, **FEW, **other) for other in others]
    assert folders[0] == folders[3]
    assert len(set(folders)) == 3

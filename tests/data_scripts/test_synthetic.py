"""The synthetic faces: same numbers, same bytes; and labels that agree with the picture they belong to."""

import dataclasses
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from consensus_lib.data import open_splits
from consensus_lib.data.folder import DatasetError, read_index, read_info
from consensus_lib.teacher.factorise import hull_mask
from synthetic_faces import (
    CLASSES,
    COLOURS,
    OCCLUDERS,
    DrawnExtent,
    Recipe,
    draw_face,
    prepare_synthetic,
    read_truth,
    store,
    synthetic_folder,
)
from synthetic_faces.__main__ import main as command_line
from synthetic_faces.draw import outline

C = {name: number for number, name in enumerate(CLASSES)}
ON_FACE = [C[name] for name in ("skin", "brows", "eyes", "nose", "mouth")]


@pytest.fixture(scope="module")
def samples():
    return [draw_face(3, index) for index in range(24)]


def only(kind: str, **changes) -> Recipe:
    return Recipe(occluded=1.0, occluders=((kind, 1.0),), most=1, **changes)


def same(one, other) -> bool:
    return (
        all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("image", "labels", "complete", "face", "contour")
        )
        and one.record == other.record
    )


def test_shapes_types_and_ranges(samples):
    for sample in samples:
        assert sample.image.shape == (128, 128, 3)
        assert sample.image.dtype == np.uint8
        for labels in (sample.labels, sample.complete):
            assert labels.shape == (128, 128)
            assert labels.dtype == np.uint8
            assert labels.max() < len(CLASSES)
        assert sample.face.shape == (128, 128)
        assert sample.face.dtype == bool
        assert sample.contour.shape == (64, 2)
        assert sample.contour.dtype == np.float64
        assert json.loads(json.dumps(sample.record)) == sample.record


def test_classes_and_colours_match():
    assert len(CLASSES) == len(COLOURS) == len(set(COLOURS)) == 13
    assert COLOURS[0] == (0, 0, 0)


def test_order_of_drawing_does_not_matter(samples):
    for index in (7, 2):
        assert same(draw_face(3, index), samples[index])


def test_another_process_draws_the_same(samples):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert same(pool.submit(draw_face, 3, 5).result(), samples[5])


def test_seeds_and_indices_differ(samples):
    images = [sample.image.tobytes() for sample in samples] + [
        draw_face(4, index).image.tobytes() for index in range(3)
    ]
    assert len(set(images)) == len(images)


def test_an_ingredient_leaves_the_others_alone():
    full, bare = draw_face(3, 0), draw_face(3, 0, recipe=Recipe(occluded=0.0, camera=False))
    assert bare.record["pose"] == full.record["pose"]
    assert bare.record["hair"] == full.record["hair"]
    assert np.array_equal(bare.face, full.face)
    assert np.array_equal(bare.labels, bare.complete)
    plain = draw_face(
        3, 0, recipe=Recipe(light=False, texture=False, background="plain", occluded=0.0, camera=False)
    )
    assert np.array_equal(plain.labels, bare.labels)
    assert not np.array_equal(plain.image, bare.image)


def test_only_covered_pixels_differ_from_the_complete_map(samples):
    for sample in samples:
        changed = sample.labels != sample.complete
        allowed = np.isin(sample.labels, [C["occluder"], C["sunglasses"], C["hair"]])
        assert not (changed & ~allowed).any()
        assert C["occluder"] not in sample.complete
        if not sample.record["occluders"]:
            assert not changed.any()


def test_contour_and_face_agree(samples):
    for sample in samples:
        assert (sample.contour >= 0).all()
        assert (sample.contour <= 128).all()
        fine = Image.new("1", (1024, 1024))
        ImageDraw.Draw(fine).polygon([tuple(point) for point in sample.contour * 8], fill=1)
        drawn = np.asarray(fine).reshape(128, 8, 128, 8).mean((1, 3)) >= 0.5
        assert (drawn & sample.face).sum() / (drawn | sample.face).sum() >= 0.97


def test_outline_of_a_disc():
    y, x = np.mgrid[:64, :64] + 0.5
    disc = np.hypot(x - 30, y - 34) < 20
    radius = np.hypot(*(outline(disc) - [30, 34]).T)
    assert np.abs(radius - 20).max() < 0.8
    assert not outline(np.zeros((8, 8), bool)).any()


def test_face_holds_the_features(samples):
    for sample in samples:
        for name in ("eyes", "nose", "mouth"):
            part = sample.complete == C[name]
            assert (part & ~sample.face).sum() <= 0.02 * part.sum() + 1
        assert (
            np.isin(sample.complete[sample.face], [*ON_FACE, C["hair"], C["glasses"], C["ears"]]).mean()
            > 0.98
        )


def test_record_counts(samples):
    for sample in samples:
        assert sample.record["pixels"] == {
            name: int((sample.labels == number).sum()) for name, number in C.items()
        }
        share = (sample.face & (sample.labels != sample.complete)).sum() / sample.face.sum()
        # A strand over hair covers without changing the class.
        assert sample.record["occlusion"] == pytest.approx(share, abs=0.12)
        if "strands" not in sample.record["occluders"]:
            assert sample.record["occlusion"] == pytest.approx(share, abs=1e-6)


def test_label_edges_lie_on_image_edges():
    """Between two classes the picture changes more than inside one."""
    ratios = []
    for index in range(12):
        sample = draw_face(5, index, recipe=Recipe(camera=False))
        grey = sample.image.astype(float).mean(2)
        step = np.abs(np.diff(grey, axis=1))
        merged = np.isin(sample.labels, [*ON_FACE, C["neck"]])  # one skin: no edge is due inside it
        labels = np.where(merged, C["skin"], sample.labels)
        edge = labels[:, 1:] != labels[:, :-1]
        ratios.append(np.median(step[edge]) / max(np.median(step[~edge]), 0.5))
    assert np.median(ratios) > 4


@pytest.mark.parametrize("kind", OCCLUDERS)
def test_every_occluder_covers_something(kind):
    drawn = [draw_face(11, index, 64, recipe=only(kind)) for index in range(6)]
    assert all(sample.record["occluders"] == [kind] for sample in drawn)
    assert sum((sample.labels != sample.complete).any() for sample in drawn) >= 4


def test_a_person_of_whom_no_skin_is_in_the_picture_is_drawn():
    assert draw_face(0, 1144, 48).record["others"]  # one of the others stands almost outside


def test_sunglasses_have_a_class_and_clear_glasses_do_not():
    for index in range(8):
        dark = draw_face(11, index, 64, recipe=only("sunglasses"))
        changed = dark.labels != dark.complete
        assert (dark.labels[changed] == C["sunglasses"]).all()
        clear = draw_face(11, index, 64, recipe=Recipe(occluded=0.0))
        assert C["sunglasses"] not in clear.labels
        assert (C["glasses"] in clear.labels) == clear.record["glasses"]


def test_occluders_can_be_turned_off_and_mixed():
    assert not any(
        draw_face(1, index, 48, recipe=Recipe(occluded=0.0)).record["occluders"] for index in range(8)
    )
    most = [
        len(draw_face(1, index, 48, recipe=Recipe(occluded=1.0)).record["occluders"]) for index in range(20)
    ]
    assert set(most) <= {1, 2, 3}
    assert len(set(most)) > 1


@pytest.mark.parametrize(
    "arguments",
    [(-1, 0), (2**32, 0), (0, -1), (0, 2**32), (0, 0, 31), (0, 0, 2000), (0.5, 0), (0, True), (0, 0, 64.0)],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=r"^(seed|index|size): expected an integer"):
        draw_face(*arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"background": "sea"},
        {"people": 2},
        {"occluded": -0.1},
        {"most": -1},
        {"turn": -1},
        {"occluders": (("cat", 1),)},
        {"occluders": (("hand", 0),)},
        {"tones": (1,) * 9},
    ],
)
def test_recipe_refuses(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Recipe(**changes)


def test_recipe_survives_json():
    recipe = only("hand")
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_prepare_writes_the_format_and_is_idempotent(tmp_path, monkeypatch):
    counts = {"train": 3, "validation": 1, "test": 2}
    folder = prepare_synthetic(tmp_path / "faces", counts=counts, size=48, workers=0, progress=False)
    info, rows = read_info(folder), read_index(folder)
    assert info.classes == CLASSES
    assert info.counts == counts
    assert info.notes["version"] == store.VERSION
    assert [row.id for row in rows if row.split == "train"] == [f"train_{n:06d}" for n in range(3)]
    sample = draw_face(0, store.FIRST["test"] + 1, 48)
    assert np.array_equal(np.asarray(Image.open(folder / "images/test_000001.png")), sample.image)
    assert np.array_equal(np.asarray(Image.open(folder / "labels/test_000001.png")), sample.labels)
    complete, face, contour, record = read_truth(folder, "test_000001")
    assert np.array_equal(complete, sample.complete)
    assert np.array_equal(face, sample.face)
    assert np.abs(contour - sample.contour).max() < 1e-3
    assert record == sample.record
    monkeypatch.setattr(store, "_encode", None)  # a second call draws nothing
    prepare_synthetic(folder, counts=counts, size=48, workers=0, progress=False)
    with pytest.raises(DatasetError, match="same parameters"):
        prepare_synthetic(folder, seed=1, counts=counts, size=48, workers=0, progress=False)


def test_prepare_takes_up_an_interrupted_call(tmp_path, monkeypatch):
    draw, drawn = store._encode, []

    def interrupted(task):
        drawn.append(task[0])
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(task)

    monkeypatch.setattr(store, "_encode", interrupted)
    arguments = dict(counts={"train": 4}, size=48, workers=0, progress=False)
    with pytest.raises(KeyboardInterrupt):
        prepare_synthetic(tmp_path / "faces", **arguments)
    assert not (tmp_path / "faces").exists()
    prepare_synthetic(tmp_path / "faces", **arguments)
    assert drawn == [f"train_{n:06d}" for n in (0, 1, 2, 2, 3)]
    whole = prepare_synthetic(tmp_path / "whole", **arguments)
    for row in read_index(whole):
        for name in (row.image, row.labels, f"complete/{row.id}.png"):
            assert (whole / name).read_bytes() == (tmp_path / "faces" / name).read_bytes()


def test_parallel_drawing_gives_the_same_bytes(tmp_path):
    arguments = dict(counts={"train": 16}, size=48, progress=False)
    one = prepare_synthetic(tmp_path / "one", workers=0, **arguments)
    two = prepare_synthetic(tmp_path / "two", workers=2, **arguments)
    for row in read_index(one):
        assert (one / row.image).read_bytes() == (two / row.image).read_bytes()
        assert (one / row.labels).read_bytes() == (two / row.labels).read_bytes()


def test_splits_are_disjoint():
    assert np.diff(sorted(store.FIRST.values())).min() >= 1_000_000_000


@pytest.mark.parametrize("counts", [{}, {"train": 0}, {"training": 3}, {"train": -1}, {"train": 2.5}])
def test_counts_out_of_range(tmp_path, counts):
    with pytest.raises(ValueError, match="counts"):
        prepare_synthetic(tmp_path / "faces", counts=counts, progress=False)
    assert not list(tmp_path.iterdir())


def test_synthetic_folder_is_named_by_its_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path))
    arguments = dict(counts={"test": 1}, size=48, workers=0, progress=False)
    folder = synthetic_folder(**arguments)
    assert folder.parent == tmp_path
    assert synthetic_folder(**arguments) == folder
    assert synthetic_folder(**arguments, recipe=Recipe(light=False)) != folder
    assert synthetic_folder(**arguments, seed=1) != folder


def test_a_script_without_a_main_guard_draws(tmp_path):
    # Each drawing process would run it anew, and wait for the lock that the first one holds.
    script = tmp_path / "unguarded.py"
    script.write_text(
        "print('run')\n"
        "from synthetic_faces import synthetic_folder\n"
        "print(synthetic_folder(counts={'train': 32}, size=32, workers=2))\n"
        "import sys\n"
        "assert sys.modules['__main__'].__file__ == __file__\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    said, folder = done.stdout.split()
    assert said == "run"  # once
    assert read_info(folder).counts == {"train": 32}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces") / "drawn"
    return prepare_synthetic(folder, counts={"train": 2}, size=64, workers=0, progress=False)


@pytest.mark.parametrize("side", [64, 32, 96])
def test_drawn_faces_know_their_outline(drawn, side):
    contours = DrawnExtent(drawn)(torch.zeros(2, 3, side, side), ["train_000001", "train_000000"])
    for contour, id in zip(contours, ("train_000001", "train_000000"), strict=True):
        _, face, truth, _ = read_truth(drawn, id)
        np.testing.assert_allclose(contour, truth * side / 64)
        assert hull_mask(contour, side, side).mean() == pytest.approx(face.mean(), rel=0.08)


def test_ids_and_folders_that_are_not_drawn_are_refused(drawn, tiny_folder):
    with pytest.raises(ValueError, match=r"ids: expected samples of .*got 'nobody'"):
        DrawnExtent(drawn)(torch.zeros(1, 3, 64, 64), ["nobody"])
    with pytest.raises(ValueError, match="ids: expected one for each of 2 images, got 1"):
        DrawnExtent(drawn)(torch.zeros(2, 3, 64, 64), ["train_000000"])
    with pytest.raises(DatasetError, match="folder: expected drawn faces"):
        DrawnExtent(tiny_folder)


def test_a_name_is_drawn_by_its_command_and_a_path_is_opened(capsys):
    splits = open_splits("synthetic", "parts", size=32, images=2)
    folder = splits.train.folder
    counts = {"train": 2, "validation": 24, "test": 48}
    assert read_info(folder).counts == counts
    command_line([f"--{split}={count}" for split, count in counts.items()])
    assert capsys.readouterr().out.splitlines() == [str(folder)]  # the same parameters, the same folder
    found = open_splits(folder, "parts", size=32, images=0)
    assert [split.fingerprint for split in found] == [split.fingerprint for split in splits]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capfd):
    with pytest.raises(SystemExit, match="synthetic_faces: counts: expected at least one sample"):
        command_line(["--out", str(tmp_path / "faces")])
    with pytest.raises(DatasetError, match="synthetic_faces: expected `python -m synthetic_faces --size=128"):
        open_splits("synthetic", "parts", size=32, images=2_000_000_000)
    assert "counts['train']: expected" in capfd.readouterr().err
    with pytest.raises(ValueError, match="images: expected at least 1"):
        open_splits("synthetic", "parts", images=0)

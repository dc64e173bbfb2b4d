"""The scripts of the public data sets, on tiny trees in the original layouts, whole and spoilt."""

import csv
import json
import shutil
import threading

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import cofw_protocol
import paste_cutouts
import prepare_cofw
import prepare_faceocc
import sets
from consensus_lib import IGNORE
from consensus_lib.data import DatasetInfo, FaceDataset, read_info
from consensus_lib.data.folder import read_index
from prepare_celebamask_hq import CELEBAMASK_HQ
from prepare_cofw import COFW
from prepare_easyportrait import EASYPORTRAIT
from prepare_fasseg import FASSEG
from prepare_helen import HELEN
from prepare_lapa import LAPA


def stripes(dataset, seed, height=48, width=40):
    """Return classes in stripes around a disc, uint8 [height, width], and an image in their colours."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    last = len(dataset.classes) - 1
    labels = np.array([0, last // 3, 2 * last // 3, last], np.uint8)[row * 4 // height]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    labels[(row - centre[0]) ** 2 + (column - centre[1]) ** 2 < 64] = 1
    return labels, np.array(list(dataset.classes.values()), np.uint8)[labels]


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **lossless, **options)


def build_lapa(tree, dataset):
    for k, (folder, name) in enumerate([("train", "1_0"), ("train", "2_0"), ("val", "3_0"), ("test", "4_0")]):
        labels, image = stripes(dataset, k)
        save(tree / f"LaPa/{folder}/images/{name}.jpg", image)
        save(tree / f"LaPa/{folder}/labels/{name}.png", labels)


def build_easyportrait(tree, dataset):
    lines = ["\timage_name\tuser_id\theight\twidth\tset\tbrightness"]
    for k, (folder, name, user) in enumerate(
        [("train", "a-1", "u1"), ("val", "b-2", "u2"), ("test", "c-3", "u1")]
    ):
        labels, image = stripes(dataset, k, 30, 60)
        save(tree / f"images/{folder}/{name}.jpg", image)
        save(tree / f"annotations/{folder}/{name}.png", labels)
        lines.append(f"{k}\t{name}\t{user}\t30\t60\t{folder}\t126")
    (tree / "meta.csv").write_text("\n".join(lines))


def build_celebamask_hq(tree, dataset):
    folder = tree / "CelebAMask-HQ"
    lines = ["idx\t orig_idx\t orig_file"]
    for number, original in [(0, 119614), (1, 162770), (2, 162771), (2000, 182638)]:
        labels, image = stripes(dataset, number, 64, 64)
        save(folder / f"CelebA-HQ-img/{number}.jpg", image.repeat(2, 0).repeat(2, 1))  # twice the masks' size
        for k, name in enumerate(dataset.classes):
            if k:
                mask = np.where((labels == k)[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
                save(folder / f"CelebAMask-HQ-mask-anno/{number // 2000}/{number:05d}_{name}.png", mask)
        lines.append(f"{number:<12}{original - 1:<12}{original:06d}.jpg")
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")


def build_helen(tree, dataset):
    folder = tree / "SmithCVPR2013_dataset_resized"
    lists = {"exemplars.txt": ["1_1", "2_1"], "tuning.txt": ["3_1"], "testing.txt": ["4_1"]}
    for file, names in lists.items():
        for k, name in enumerate(names):
            labels, image = stripes(dataset, len(file) + k)
            save(folder / f"images/{name}.jpg", image)
            for number in range(11):
                soft = np.where(labels == number, 200, 5).astype(np.uint8)
                save(folder / f"labels/{name}/{name}_lbl{number:02d}.png", soft)
        (folder / file).write_text("".join(f"{k} , {name}\n" for k, name in enumerate(names, 1)))


def build_fasseg(tree, dataset):
    for folder, count in (("Train", 5), ("Test", 2)):
        for k in range(1, count + 1):
            _, image = stripes(dataset, k)
            save(tree / f"FASSEG-repository-master/V2/{folder}_RGB/{k}.bmp", image)
            blurred = image.copy()
            blurred[0, 0] = image[0, 0] // 2 + 60  # of no class
            blurred[5, 5] = image[5, 5] * 0.9 + 12  # near one
            save(tree / f"FASSEG-repository-master/V2/{folder}_Labels/{k}.bmp", blurred)


def build_cofw(tree, dataset):
    tree.mkdir(parents=True, exist_ok=True)
    for split, (name, ending, skip) in prepare_cofw.FILES.items():
        with h5py.File(tree / name, "w") as mat:
            count = skip + (10 if skip else 1)
            images = mat.create_dataset(f"Is{ending}", (1, count), h5py.ref_dtype)
            mat[f"bboxes{ending}"] = np.tile([[11.0], [21], [20], [16]], count)
            x, y = np.full((29, count), 21.0), np.full((29, count), 29.0)
            mat[f"phis{ending}"] = np.concatenate([x, y, np.eye(29, count)])
            for k in range(skip, count):
                labels, image = stripes(dataset, k)
                stored = image.transpose(2, 1, 0) if k % 2 else image[..., 0].T
                images[0, k] = mat.create_dataset(f"image{ending}{k}", data=stored).ref
                save(tree / f"masks/{split}/{k + 1:04d}.png", labels * 255)


BUILD = {
    LAPA: (build_lapa, {"train": 2, "validation": 1, "test": 1}),
    EASYPORTRAIT: (build_easyportrait, {"train": 1, "validation": 1, "test": 1}),
    CELEBAMASK_HQ: (build_celebamask_hq, {"train": 2, "validation": 1, "test": 1}),
    HELEN: (build_helen, {"train": 2, "validation": 1, "test": 1}),
    FASSEG: (build_fasseg, {"train": 4, "validation": 1, "test": 2}),
    COFW: (build_cofw, {"train": 9, "validation": 1, "test": 1}),
}


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "tree"


def build(dataset, tree):
    BUILD[dataset][0](tree, dataset)
    return tree


def run(dataset, tree, out, size=40):
    return sets.main(dataset, ["--from", str(tree), "--out", str(out), "--size", str(size)])


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dataset", BUILD, ids=lambda dataset: dataset.name)
@pytest.mark.filterwarnings("ignore:.*no pixel is")  # four classes of each set occur
def test_every_set_is_prepared(dataset, tree, tmp_path, capsys):
    out = tmp_path / "out"
    tree.mkdir()
    (tree / "thesis.tex").touch()
    assert run(dataset, tree, out) == 1
    said = capsys.readouterr().err
    assert "thesis.tex" in said
    assert "http" in said  # where to get the right one
    assert not out.exists()
    assert run(dataset, build(dataset, tree), out) == 0
    info = read_info(out)
    assert (info.name, info.classes, info.size) == (dataset.name, tuple(dataset.classes), 40)
    assert info.counts == BUILD[dataset][1]
    assert len(set(info.colours)) == len(info.classes)
    said = capsys.readouterr().out
    assert "the complete distribution has" in said
    assert ("1 people are in more than one split, such as u1" in said) == (dataset is EASYPORTRAIT)
    data = FaceDataset(out, "train", progress=False)
    assert data.task.unpaired == ()  # left and right
    if "hair" in info.classes:  # the others have no task parts
        parts = FaceDataset(out, "train", "parts", progress=False)
        assert torch.equal(parts[0]["labels"] == 2, data[0]["labels"] == info.classes.index("hair"))
    else:
        assert not info.tasks
    for row in read_index(out):
        image, labels = read(out / row.image).astype(int), read(out / row.labels)
        known = labels != IGNORE
        assert known.mean() > 0.4
        near = np.abs(image[:, :, None] - np.array(info.colours)).sum(3).argmin(2)
        if dataset.name != "cofw" or image.std(2).any():  # a grey photograph has lost its colours
            assert (near == labels)[known].mean() > 0.85  # narrow stripes, at another size
    assert run(dataset, tree, out) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert run(dataset, tree, out, size=32) == 1
    assert "'size'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_gives_what_its_folder_gives(kind, tree, tmp_path):
    assert run(LAPA, build(LAPA, tree), tmp_path / "out") == 0
    archive = shutil.make_archive(str(tmp_path / "whole"), kind, tree)
    assert run(LAPA, archive, tmp_path / "packed") == 0
    assert contents(tmp_path / "packed") == contents(tmp_path / "out")
    assert list((tmp_path / "data/downloads/unpacked").iterdir()) == []


def spoil(tree, name, how):
    """Take a file or folder away, cut it, copy it to another name, or give it another content."""
    path = next(tree.rglob(name))
    if isinstance(how, np.ndarray):
        save(path, how)
    elif how == "remove":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "copy":
        shutil.copy(path, path.with_stem("9999"))
    else:
        path.write_text(how)


def plain(value, *shape):
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize(
    ("dataset", "name", "how", "named"),
    [
        (LAPA, "val/labels/3_0.png", "remove", "3_0.jpg"),
        (LAPA, "val/images/3_0.jpg", "remove", "3_0.png"),
        (LAPA, "train/images/2_0.jpg", "cut", "2_0.jpg"),
        (LAPA, "train/labels/2_0.png", plain(11, 48, 40), "2_0.png"),
        (LAPA, "train/labels/2_0.png", plain(1, 48, 20), "2_0.png"),
        (LAPA, "train/labels/2_0.png", plain(1, 48, 40, 3), "2_0.png"),
        (EASYPORTRAIT, "meta.csv", "a,b\n1,2\n", "meta.csv"),
        (EASYPORTRAIT, "annotations/test/*.png", "copy", "9999"),
        (CELEBAMASK_HQ, "CelebA-HQ-img/2.jpg", "remove", "2.jpg"),
        (CELEBAMASK_HQ, "00001_hat.png", "cut", "00001_hat"),
        (CELEBAMASK_HQ, "00001_hat.png", plain(255, 48, 40), "_hat"),
        (CELEBAMASK_HQ, "CelebAMask-HQ-mask-anno/1", "remove", "02000"),
        (CELEBAMASK_HQ, "CelebA-HQ-to-CelebA-mapping.txt", "h\n0 1\n", "line 2"),
        (HELEN, "tuning.txt", "1 , 1_1\n", "tuning.txt"),
        (HELEN, "tuning.txt", "1 , ../3_1\n", "tuning.txt"),
        (HELEN, "3_1_lbl10.png", "remove", "3_1_lbl10.png"),
        (FASSEG, "V2/Test_Labels/1.bmp", plain(77, 48, 40, 3), "1.bmp"),
        (COFW, "COFW_test_color.mat", "cut", "COFW_test_color.mat"),
        (COFW, "masks/test/0001.png", "remove", "0001.png"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_no_data_set(dataset, name, how, named, tree, tmp_path, capsys):
    spoil(build(dataset, tree), name, how)
    assert run(dataset, tree, tmp_path / "out") == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cofw_files_that_change_places_are_refused(tree, tmp_path, capsys):
    shutil.copy(build(COFW, tree) / "COFW_train_color.mat", tree / "COFW_test_color.mat")
    assert run(COFW, tree, tmp_path / "out") == 1
    assert "COFW_test" in capsys.readouterr().err


def test_a_failed_call_is_resumed(tree, tmp_path, capsys):
    build(LAPA, tree)
    bad = tree / "LaPa/test/images/4_0.jpg"  # the last
    kept = bad.read_bytes()
    bad.write_bytes(b"")
    assert run(LAPA, tree, tmp_path / "out") == 1
    stored = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".out.partial/images").iterdir()}
    assert len(stored) == 3
    bad.write_bytes(kept)
    assert run(LAPA, tree, tmp_path / "out") == 0
    assert "3 images were there" in capsys.readouterr().out
    assert all((tmp_path / "out/images" / name).stat().st_mtime_ns == then for name, then in stored.items())


def test_an_interrupt_is_no_error(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert sets.run(interrupted) == 130
    assert "resumes" in capsys.readouterr().err


def test_reading_stays_a_few_images_ahead(tmp_path):
    made, lock = [], threading.Lock()

    def read(size):
        with lock:
            made.append(len(list((tmp_path / ".out.partial/images").glob("[!.]*"))))
        return {"image": np.zeros((size, size, 3), np.uint8)}

    info = DatasetInfo("x", ("a", "b"), ((0, 0, 0), (1, 1, 1)), "", "", 8)
    sets.make(tmp_path / "out", info, [sets.Sample(f"{k:03d}", "unlabelled", "x", read) for k in range(60)])
    assert max(k - written for k, written in enumerate(made)) <= 9


def test_celebamask_hq_takes_one_mask_of_19_classes_and_identities(tree, tmp_path):
    dataset = CELEBAMASK_HQ
    folder = build(dataset, tree) / "CelebAMask-HQ"
    for number in (0, 1, 2, 2000):
        save(folder / f"mask/{number}.png", np.full((64, 64), 17, np.uint8))
    (folder / "identity_CelebA.txt").write_text("119614.jpg 2880\n162770.jpg 2880\n")
    assert run(dataset, tree, tmp_path / "out") == 0
    assert (read(tmp_path / "out/labels/00000.png") == 17).all()
    rows = {row.id: (row.split, row.subject) for row in read_index(tmp_path / "out")}
    assert rows["00000"] == rows["00001"] == ("train", "2880")
    assert rows["02000"] == ("test", "182638.jpg")


def test_cofw_boxes_and_landmarks_move_with_the_image(tree, tmp_path):
    assert run(COFW, build(COFW, tree), tmp_path / "out", size=60) == 0
    # A box of 20 × 16 at column 10, row 20: a square of 30 about (20, 28), so from (5, 13); twice as large.
    assert cofw_protocol.read_boxes(tmp_path / "out")["train_0846"] == (10, 14, 40, 32)
    with (tmp_path / "out/annotations.csv").open() as lines:
        row = next(line for line in csv.DictReader(lines) if line["id"] == "train_0846")
    assert [float(row[f"{name}1"]) for name in ("x", "y", "occluded")] == [(20.5 - 5) * 2, (28.5 - 13) * 2, 0]
    shutil.rmtree(tree / "masks")
    assert run(COFW, tree, tmp_path / "without") == 0
    assert {row.labels for row in read_index(tmp_path / "without")} == {""}


def test_face_box_scores_by_hand():
    target = np.zeros((4, 4), int)
    target[:2] = 1
    target[0, 0] = IGNORE
    prediction = np.zeros((4, 4), int)
    prediction[:, :2] = 1
    prediction[:, 2:] = 2  # occlusion is non-face
    # Image 1, all of it: TP 3, FN 4, FP 4, TN 4. Image 2, its upper half: TP 4, FN 4, and no non-face.
    boxes = [(0, 0, 4, 4), (0, 0, 4, 2)]
    scores = cofw_protocol.face_box_scores([prediction] * 2, [target, np.ones((4, 4))], boxes)
    names = ("iou_face", "accuracy", "rec_face", "rec_all")
    first, both = (3 / 11, 7 / 15, 3 / 7, (3 / 7 + 0.5) / 2), (7 / 19, 11 / 23, 7 / 15, (7 / 15 + 0.5) / 2)
    assert scores["each"][0] == dict(zip(names, first, strict=True))
    assert np.isnan(scores["each"][1]["rec_all"])
    assert scores["set"] == dict(zip(names, both, strict=True))
    assert scores["images"]["accuracy"] == (7 / 15 + 0.5) / 2
    assert scores["images"]["rec_all"] == scores["each"][0]["rec_all"]
    inside = cofw_protocol.face_box_scores([prediction], [target], [(1.4, 0.6, 1.2, 2)])["set"]
    assert inside["accuracy"] == 2 / 4  # rows 1 and 2, columns 1 and 2: TP, FN, FP, TN
    with pytest.raises(ValueError, match="predictions"):
        cofw_protocol.face_box_scores([prediction[1:]], [target], [(0, 0, 4, 4)])


def build_faceocc(tree):
    for name in ("CelebAHQ/7.png", "ffhq/8.png", "internet/mask/9.png", "texture/1.png"):
        pixels = np.zeros((32, 24, 4), np.uint8)
        pixels[4:24, 2:12] = (200, 10, 10, 255)
        save(tree / name, pixels)
    return tree


def test_faceocc_gives_cut_outs_with_alpha(tree, tmp_path):
    out = tmp_path / "out"
    assert prepare_faceocc.main(["--from", str(build_faceocc(tree)), "--out", str(out), "--size", "16"]) == 0
    with (out / "cutouts.csv").open() as lines:
        rows = {row["id"]: row for row in csv.DictReader(lines)}
    assert set(rows) == {"celeba_7", "ffhq_8", "internet_mask_9"}
    pixels = read(out / rows["internet_mask_9"]["file"])
    assert pixels.shape == (16, 8, 4)
    assert (pixels == (200, 10, 10, 255)).all()
    assert json.loads((out / "cutouts.json").read_text())["counts"] == {"celeba": 1, "ffhq": 1, "internet": 1}


@pytest.mark.parametrize("pixels", [np.zeros((8, 8, 4), np.uint8), np.ones((8, 8, 3), np.uint8)])
def test_faceocc_refuses_what_is_no_cut_out(pixels, tree, tmp_path, capsys):
    save(build_faceocc(tree) / "internet/mask/9.png", pixels)
    assert prepare_faceocc.main(["--from", str(tree), "--out", str(tmp_path / "out")]) == 1
    assert "9.png" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


def test_cut_outs_cover_faces(tree, tmp_path, tiny_folder):
    cut_outs, out = tmp_path / "cut_outs", tmp_path / "out"
    assert prepare_faceocc.main(["--from", str(build_faceocc(tree)), "--out", str(cut_outs)]) == 0
    assert paste_cutouts.main([str(tiny_folder), str(cut_outs), "--out", str(out)]) == 0
    before = {row.id: row for row in read_index(tiny_folder)}
    covered = 0
    for row in read_index(out):
        assert row.split == before[row.id].split != "unlabelled"
        labels, image = read(out / row.labels), read(out / row.image).astype(int)
        there = labels == 3
        covered += there.any()
        assert np.abs(image[there] - (200, 10, 10)).max(initial=0) < 128
        assert np.array_equal(labels[~there], read(tiny_folder / before[row.id].labels)[~there])
    assert 3 < covered < 17  # of 20
    task = FaceDataset(out, "train", "occlusion", progress=False).task
    assert task.table(("background", "face", "hair", "occluder"))[:4].tolist() == [0, 1, 0, 2]
    assert FaceDataset(out, "train", "parts", progress=False).task.classes == ("background", "face", "hair")
    assert paste_cutouts.main([str(out), str(cut_outs), "--out", str(tmp_path / "twice")]) == 1
    assert paste_cutouts.main([str(tiny_folder), str(out), "--out", str(tmp_path / "none")]) == 1


def test_a_set_without_a_form_is_downloaded(tree, tmp_path, write_registry, monkeypatch, capsys):
    build(FASSEG, tree)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.make_archive(str(mirror / "fasseg"), "zip", tree)
    write_registry(mirror)
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", str(mirror))
    assert sets.main(FASSEG, ["--out", str(tmp_path / "out"), "--size", "32"]) == 0
    assert sum(read_info(tmp_path / "out").counts.values()) == 7
    assert sets.main(LAPA, ["--out", str(tmp_path / "lapa")]) == 1
    assert "Google Drive" in capsys.readouterr().err

"""data_scripts/prepare_folder.py: a folder of images and masks, of any kind, becomes a prepared data set."""

import functools
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import prepare_celebamask_hq
from consensus_lib import IGNORE
from consensus_lib.data import DatasetError, FaceDataset
from consensus_lib.data.folder import read_index, read_info
from consensus_lib.experiments.notebooks import read_profile
from consensus_lib.experiments.results import read_results
from prepare_folder import main, prepare_folder, verify

CHECKOUT = Path(__file__).resolve().parents[2]
prepare = functools.partial(prepare_folder, progress=False)
COLOURS = np.array([(0, 0, 0), (0, 200, 0), (220, 30, 30)], np.uint8)
# As CelebAMask-HQ calls them; with the background, 19 classes.
CELEBA = list(prepare_celebamask_hq.CLASSES)[1:]


def scene(number, side=48):
    """Return an image uint8 [H,W,3] and its labels 0, 1, 2: a disc under a band, somewhere."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side]
    cx, cy = rng.uniform(0.4, 0.6, 2) * side
    labels = ((x - cx) ** 2 + (y - cy) ** 2 < (0.3 * side) ** 2).astype(np.uint8)
    labels[(labels == 1) & (y < cy - 0.1 * side)] = 2
    image = np.array([(40, 60, 90), (220, 170, 140), (70, 40, 20)])[labels]
    image = image + rng.normal(0, 8, image.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def write(folder, count=10, mask=lambda labels: Image.fromarray(COLOURS[labels]), suffix="png", **options):
    """Write images and masks in the way of a user; return both folders."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number in range(count):
        image, labels = scene(number)
        name = f"p{number // 2:02d}_{number:03d}"
        Image.fromarray(image).save(images / f"{name}.jpg", quality=95)
        mask(labels).save(masks / f"{name}.{suffix}", **options)
    return images, masks


def block(k):
    """Return where class k of CELEBA is, bool [48,48]: a square of 4 pixels, apart from the others'."""
    there = np.zeros((48, 48), bool)
    there[16 + k // 6 * 4 :, 12 + k % 6 * 4 :][:4, :4] = True
    return there


def write_celeba(folder, count=12):
    """Write the layout of CelebAMask-HQ: 0.jpg …, and 0/00000_skin.png …, each white where the class is."""
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        image, labels = scene(number)
        Image.fromarray(image).save(folder / f"images/{number}.jpg")
        (folder / f"masks/{number % 2}").mkdir(parents=True, exist_ok=True)
        for k, name in enumerate(CELEBA):
            if name in ("hat", "cloth") and number == 5:  # absent parts have no file
                continue
            there = labels > 0 if name == "skin" else block(k)
            Image.fromarray(np.repeat(255 * there.astype(np.uint8)[..., None], 3, 2)).save(
                folder / f"masks/{number % 2}/{number:05d}_{name}.png"
            )
    return folder / "images", folder / "masks"


def labels_of(folder, row):
    return np.asarray(Image.open(folder / row.labels))


def proposal(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folders of 24 images and masks that tests only read, and the file that was proposed for them."""
    folder = tmp_path_factory.mktemp("given")
    images, masks = write(folder, count=24)
    prepare(images, masks, folder / "out", 16)
    return images, masks, folder / "out.yaml"


@pytest.fixture
def prepare_with(given, tmp_path):
    """Return a function that prepares the given folders by the proposed file, changed."""

    def prepare_with(name, **changes):
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(proposal(given[2]) | changes), encoding="utf-8")
        return prepare(*given[:2], tmp_path / name, 16, config=config)[0]

    return prepare_with


def paletted(labels):
    picture = Image.fromarray(labels)
    picture.putpalette(COLOURS.tobytes())
    return picture


def paletted_anyhow(labels):
    """Return a mask whose palette has another order where the face is on the left."""
    if labels[:, :20].sum() < labels[:, -20:].sum():
        return paletted(labels)
    picture = Image.fromarray(2 - labels)
    picture.putpalette(COLOURS[::-1].tobytes())
    return picture


RGB = [[0, 0, 0], [0, 200, 0], [220, 30, 30]]


@pytest.mark.parametrize(
    ("mask", "kind", "values"),
    [
        (lambda labels: Image.fromarray(COLOURS[labels]), "colours", RGB),
        (lambda labels: Image.fromarray(COLOURS[labels]).convert("RGBA"), "colours", RGB),
        (paletted, "numbers", [0, 1, 2]),
        (paletted_anyhow, "colours", RGB),
        (lambda labels: Image.fromarray(labels), "numbers", [0, 1, 2]),
        (lambda labels: Image.fromarray(labels).convert("RGB"), "numbers", [0, 1, 2]),
        (lambda labels: Image.fromarray(labels.astype(np.uint16) * 300), "numbers", [0, 300, 600]),
        (lambda labels: Image.fromarray(np.where(labels == 2, 255, labels)), "numbers", [0, 1, 255]),
    ],
    ids=["colours", "rgba", "palette", "palettes", "numbers", "grey as rgb", "16 bits", "ignore"],
)
def test_what_masks_hold_is_understood(tmp_path, mask, kind, values):
    info, sheet = prepare(*write(tmp_path, mask=mask), tmp_path / "out", 48)
    found = proposal(tmp_path / "out.yaml")
    assert found["kind"] == kind
    numbers = [found["values"].index(value) if value != 255 else IGNORE for value in values]
    assert numbers[0] == 0
    assert len(info.classes) == len(found["values"]) == 3 - numbers.count(IGNORE)
    assert info.counts.keys() == {"train", "validation", "test"}
    row = read_index(tmp_path / "out")[3]
    assert np.array_equal(labels_of(tmp_path / "out", row), np.array(numbers)[scene(3)[1]])
    assert verify(tmp_path / "out") == []
    with Image.open(sheet) as picture:
        assert picture.width > 400


def test_masks_of_0_and_255_are_two_classes_whatever_their_edges(tmp_path):
    def smooth(labels):
        return Image.fromarray(255 * (labels > 0).astype(np.uint8))

    images, masks = write(tmp_path, mask=smooth, suffix="jpg", quality=40)
    info, _ = prepare(images, masks, tmp_path / "out", 48)
    assert info.classes == ("background", "face")
    for number, row in enumerate(read_index(tmp_path / "out")):
        found, truth = labels_of(tmp_path / "out", row), scene(number)[1] > 0
        assert set(np.unique(found)) <= {0, 1, IGNORE}
        assert (found == truth)[found != IGNORE].mean() > 0.99
        assert (found == IGNORE).mean() < 0.05


def test_jpeg_masks_go_to_the_nearest_colour_or_are_refused(tmp_path, capsys):
    images, masks = write(tmp_path, suffix="JPG", quality=75, subsampling=0)
    info, _ = prepare(images, masks, tmp_path / "out", 48)
    assert len(info.classes) == 3
    assert info.notes["unclear_pixels"] > 0
    Image.new("RGB", (48, 48), (90, 90, 250)).save(masks / "p00_000.JPG")
    again = functools.partial(prepare, images, masks, tmp_path / "again", 48, config=tmp_path / "out.yaml")
    with pytest.raises(DatasetError, match=r"p00_000\.JPG"):
        again()
    assert not (tmp_path / "again").exists()
    info, _ = again(skip_bad=True)
    assert sum(info.counts.values()) == 9
    assert list(info.notes["left_out"]) == ["p00_000"]
    assert "left out p00_000: " in capsys.readouterr().out


def test_one_mask_for_each_class_and_image(tmp_path):
    images, masks = write_celeba(tmp_path)
    info, _ = prepare(images, masks, tmp_path / "out", 48)
    assert len(info.classes) == 19
    assert info.classes[:2] == ("background", "skin")  # the largest first: smaller ones cover it
    assert {frozenset(pair) for pair in info.mirrored} == {
        frozenset(pair) for pair in (("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear"))
    }
    rows = {row.id: row for row in read_index(tmp_path / "out")}
    found = labels_of(tmp_path / "out", rows["5"])
    assert np.array_equal(found == info.classes.index("l_eye"), block(CELEBA.index("l_eye")))
    assert info.classes.index("hat") not in found
    data = FaceDataset(tmp_path / "out", "train", size=16)
    assert data.task.mirror[info.classes.index("l_eye")] == info.classes.index("r_eye")


def test_splits_keep_subjects_together(prepare_with, tmp_path):
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    info = prepare_with("by_pattern", subject=r"^(p\d+)_", splits=shares)
    assert info.counts == {"train": 12, "validation": 6, "test": 6}
    assert verify(tmp_path / "by_pattern") == []
    assert len({row.subject for row in read_index(tmp_path / "by_pattern")}) == 12
    info = prepare_with("by_lists", splits={"test": ["p00_000", "p00_001"], "train": 1.0})
    assert info.counts == {"train": 22, "test": 2}


def test_a_table_names_subjects_and_splits(prepare_with, tmp_path):
    lines = ["stem,subject,split"]
    lines += [f"p{n // 2:02d}_{n:03d},s{n // 4},{'test' if n < 8 else ''}" for n in range(24)]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    info = prepare_with("out", subject="people.csv", splits={"train": 0.5, "validation": 0.5})
    assert info.counts == {"train": 8, "validation": 8, "test": 8}
    assert {row.subject for row in read_index(tmp_path / "out") if row.split == "test"} == {"s0", "s1"}
    (tmp_path / "people.csv").write_text("\n".join(lines[:9]))
    with pytest.raises(DatasetError, match="subject"):
        prepare_with("none", subject="people.csv")
    (tmp_path / "people.csv").unlink()
    with pytest.raises(DatasetError, match=r"people\.csv"):
        prepare_with("none", subject="people.csv")


def test_a_task_takes_the_classes_as_the_file_says(prepare_with, tmp_path):
    names = ["wall", "front", "top"]
    tasks = {
        "parts": {"wall": "background", "front": "face", "top": "hair"},
        "head": {"wall": "rest", "front": "head", "top": "head"},
    }
    prepare_with("out", classes=names, tasks=tasks)
    parts, head, source = (FaceDataset(tmp_path / "out", "train", task) for task in ("parts", "head", None))
    assert parts.task.classes == ("background", "face", "hair")
    assert head.task.classes == ("rest", "head")
    assert head[0]["labels"].max() == 1
    assert source.task.classes == tuple(names)


FIRST = "p00_000"


def spoil_scale(images, masks):
    Image.fromarray(COLOURS[scene(0, 24)[1]]).save(masks / f"{FIRST}.png")


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda images, masks: Image.new("RGB", (24, 30)).save(masks / f"{FIRST}.png"),
        spoil_scale,
        lambda images, masks: cut(images / f"{FIRST}.jpg"),
        lambda images, masks: cut(masks / f"{FIRST}.png"),
        lambda images, masks: (images / f"{FIRST}.jpg").unlink(),
        lambda images, masks: Image.new("RGB", (48, 48)).save(images / f"{FIRST}.png"),
    ],
)
def test_what_is_wrong_names_the_file(tmp_path, spoil, capsys):
    images, masks = write(tmp_path, count=6)
    spoil(images, masks)
    assert main([str(images), str(masks), "--out", str(tmp_path / "out"), "--size", "16"]) == 1
    assert re.search(rf"error: .*{FIRST}\.(jpg|png)", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def mix_255(masks):
    for number, path in enumerate(sorted(masks.iterdir())):
        labels = scene(number)[1]
        Image.fromarray(labels if number else 255 * (labels > 0).astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("mix", "named"),
    [
        (lambda masks: Image.fromarray(scene(0)[1]).save(masks / f"{FIRST}.png"), "p00_000.*p00_001"),
        (mix_255, "p00_000.*p00_001"),
        (lambda masks: (masks / f"{FIRST}.png").rename(masks / f"{FIRST}_skin.png"), "p00_001.*p00_000_skin"),
    ],
    ids=["numbers and colours", "255 alone and numbers", "in all and for each class"],
)
def test_masks_of_two_kinds_are_refused_with_a_file_of_each(tmp_path, mix, named):
    images, masks = write(tmp_path, count=6)
    mix(masks)
    with pytest.raises(DatasetError, match=named):
        prepare(images, masks, tmp_path / "out", 16)
    assert not (tmp_path / "out.yaml").exists()


def test_masks_of_another_scale_are_brought_to_the_image_when_asked(tmp_path):
    images, masks = write(tmp_path, count=6)
    spoil_scale(images, masks)
    prepare(images, masks, tmp_path / "out", 48, rescale=True)
    found = labels_of(tmp_path / "out", read_index(tmp_path / "out")[0])
    values = yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))["values"]
    truth = np.array([values.index(colour.tolist()) for colour in COLOURS])[scene(0)[1]]
    assert (found == truth).mean() > 0.95


@pytest.mark.parametrize("crop", ["pad", "centre"])
def test_images_that_are_not_square_turned_or_in_other_places(tmp_path, crop):
    images, masks = write(tmp_path, count=6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image, labels = scene(0)
    for pixels, path in ((image, images / "p00_000.jpg"), (COLOURS[labels], masks / "p00_000.png")):
        Image.fromarray(pixels[:32]).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    (images / "p00_001.jpg").rename(images / "été 安 1.JPEG")
    (masks / "p00_001.png").rename(masks / unicodedata.normalize("NFD", "été 安 1.PNG"))
    (images / "deep/er").mkdir(parents=True)
    (images / "p01_002.jpg").rename(images / "deep/er/p01_002.jpg")
    (images / "p02_005.jpg").unlink()
    Image.fromarray(scene(5)[0][..., 0].astype(np.uint16) * 257).save(images / "p02_005.tif")
    info, _ = prepare(images, masks, tmp_path / "out", 48, crop=crop)
    rows = read_index(tmp_path / "out")
    assert "été 安 1" in {row.id for row in rows}
    assert sum(info.counts.values()) == 6
    border = labels_of(tmp_path / "out", rows[0])[:8]
    assert (border == IGNORE).all() == (crop == "pad")
    assert verify(tmp_path / "out") == []


def test_images_without_masks_are_unlabelled(given, tmp_path):
    images, masks, config = given
    info, _ = prepare(images, None, tmp_path / "bare", 16, config=config)
    assert info.counts == {"unlabelled": 24}
    some = shutil.copytree(masks, tmp_path / "some")
    (some / "p00_000.png").unlink()
    info, _ = prepare(images, some, tmp_path / "out", 16)
    assert info.counts["unlabelled"] == 1


def test_two_photographs_of_one_name_lie_in_folders_of_their_own(given, tmp_path):
    for who in ("anna", "bob"):
        for folder in given[:2]:
            shutil.copytree(folder, tmp_path / folder.name / who)
    prepare(tmp_path / "images", tmp_path / "masks", tmp_path / "out", 16)
    assert [row.id for row in read_index(tmp_path / "out")][::24] == ["anna-p00_000", "bob-p00_000"]


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("classes", ["one"]),
        ("kind", "letters"),
        ("values", [0, 1, "two"]),
        ("mirrored", [["class_1", "nose"]]),
        ("splits", {"train": 0.9, "test": 0.9}),
        ("splits", {"exam": 1}),
        ("colour", 1),
        ("task", {"parts": {"background": "background"}}),
        ("subject", "p.*"),
    ],
)
def test_a_wrong_file_is_named(prepare_with, named, wrong):
    with pytest.raises(ValueError, match=named):
        prepare_with("out", **{"tasks" if named == "task" else named: wrong})


def test_verify_repairs_only_what_is_broken(tmp_path, tiny_folder):
    assert verify(tiny_folder) == []  # of any script
    images, masks = write(tmp_path)
    Image.new("RGB", (48, 40)).save(images / "p00_000.jpg")  # of one class, and with a border to ignore
    Image.new("RGB", (48, 40)).save(masks / "p00_000.png")
    out = tmp_path / "out"
    prepare(images, masks, out, 32)
    rows = read_index(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    kept = (out / rows[2].image).stat().st_mtime_ns
    (out / rows[0].labels).unlink()
    (out / rows[4].image).write_bytes(b"half")
    Image.new("L", (32, 32), 1).save(out / rows[5].labels)  # a label map, but not the one that was written
    wrong = verify(out)
    assert [any(row.id in line for line in wrong) for row in rows].count(True) == len(wrong) == 3
    assert main(["--verify", str(out)]) == 1
    assert main(["--verify", str(out), str(images), str(masks)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (out / rows[2].image).stat().st_mtime_ns == kept
    Image.fromarray(scene(99)[0]).save(images / f"{rows[4].id}.jpg")
    (out / rows[4].image).unlink()
    with pytest.raises(DatasetError, match=rows[4].id):
        verify(out, images, masks)
    assert verify(tmp_path)[0].startswith(str(tmp_path))


def test_verify_sees_people_in_two_splits(prepare_with, tmp_path):
    lines = [f"p{n // 2:02d}_{n:03d},same{n % 12},{('train', 'test')[n > 11]}" for n in range(24)]
    (tmp_path / "people.csv").write_text("\n".join(["stem,subject,split", *lines]))
    prepare_with("shared", subject="people.csv")
    assert [line.split(":")[0][:12] for line in verify(tmp_path / "shared")] == ["subject same"] * 12


def test_its_path_stands_for_the_data_set_in_the_notebooks(tiny_folder):
    photographs, rendered = (read_profile(data, "smoke") for data in ("lfw_part_labels", "synthetic"))
    given = read_profile(str(tiny_folder), "smoke")
    own = {"dataset": str(tiny_folder), "task": "source"}
    assert given["02_pixelwise_baseline"] == photographs["02_pixelwise_baseline"] | own
    assert given["04_teacher_distillation"] == rendered["04_teacher_distillation"]


@pytest.mark.slow
def test_the_notebooks_that_show_or_train_on_a_data_set_run_on_such_a_folder(tmp_path):
    """As a user does it: ``prepare_folder.py``, ``train``, ``make run``, ``make figures``."""

    def do(*words):
        done = subprocess.run([sys.executable, *words], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    images, masks = write_celeba(tmp_path / "parts")
    out, runs = str(tmp_path / "celeba"), str(tmp_path / "run")
    do("data_scripts/prepare_folder.py", str(images), str(masks), "--out", out, "--size", "32")
    settings = "--size 32 --epochs 1 --batch-size 2 --width 0.125 --device cpu"
    do("-m", "consensus_lib", "train", "--data", out, "--out", f"{runs}/own", *settings.split())
    books = ("01", "02", "03", "05", "06")  # 00 and 04 take none
    do("-m", "consensus_lib", "run", "--data", out, "--profile", "smoke", "--out", runs, "--only", *books)
    do("-m", "consensus_lib", "run", "--only", "07", "--out", runs)  # make figures
    names = read_info(out).classes
    assert len(names) == 19
    found = [one for one in read_results(runs) if one["dataset"] == "celeba"]
    trained = {"training", "02_pixelwise_baseline", "03_consensus_loss", "05_artifact_analysis"}
    assert trained <= {one["notebook"] for one in found}
    assert all({f"iou_{name}" for name in names} <= set(one) for one in found)
    figures = {path.stem for path in (tmp_path / "run/07_paper_figures/figures").glob("*.pdf")}
    assert {"fig3b", "fig4a", "fig4c", "fig6"} <= figures

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from consensus_lib import IGNORE, paths
from consensus_lib.data import (
    TASKS,
    Augment,
    DatasetError,
    DatasetInfo,
    DatasetWriter,
    FaceDataset,
    Task,
    is_prepared,
    loader,
    open_splits,
)
from consensus_lib.data.folder import read_index, read_info
from consensus_lib.losses.blobs import label_blobs
from synthetic_faces import CLASSES as SYNTHETIC_CLASSES


def test_a_sample_has_the_promised_shapes_and_ranges(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    sample = data[3]
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 32, 32), torch.float32)
    assert -1 <= sample["image"].min() < sample["image"].max() <= 1
    assert (sample["labels"].shape, sample["labels"].dtype) == ((32, 32), torch.int64)
    assert sample["index"] == 3
    assert "superpixels" not in sample
    assert FaceDataset(tiny_folder, "test", "parts")[0]["superpixels"].unique().numel() == 16
    assert "superpixels" not in FaceDataset(tiny_folder, "test", "parts", augment=Augment())[0]
    counted = torch.stack([one["labels"] for one in data]).flatten().bincount(minlength=3)
    np.testing.assert_allclose(data.class_shares(), counted / counted.sum())


@pytest.mark.parametrize(
    ("split", "task", "limit", "named"),
    [
        ("train+nowhere", "parts", None, "split"),
        ("unlabelled", "parts", None, "labels"),
        ("train", "occlusion", None, "occluder"),
        ("train", "teeth", None, "task"),
        ("train", ["parts"], None, "task"),
        ("train", "parts", 0, "limit"),
    ],
)
def test_what_cannot_be_served_is_named(tiny_folder, split, task, limit, named):
    with pytest.raises(ValueError, match=named):
        FaceDataset(tiny_folder, split, task, limit=limit)


def test_a_split_is_decoded_once_for_all_its_samples(tiny_folder):
    def cache():
        return {file.name for file in (paths.data_dir() / "cache").iterdir()}

    train, test = FaceDataset(tiny_folder, "train", "parts"), FaceDataset(tiny_folder, "test", "parts")
    before = cache()
    shutil.rmtree(tiny_folder / "images")
    few = FaceDataset(tiny_folder, "train", "parts", limit=3, seed=1)
    some = FaceDataset(tiny_folder, "test", "parts", ids=["test_03", "test_01"])
    joined = FaceDataset(tiny_folder, "test+train", "parts")
    assert [len(few), len(some), len(joined)] == [3, 2, 16]
    assert cache() == before
    whole = {row.id: sample for data in (train, test) for row, sample in zip(data.rows, data, strict=True)}
    for data in (few, some, joined):
        batch = data.__getitems__(range(len(data)))
        for row, image, labels in zip(data.rows, batch["image"], batch["labels"], strict=True):
            assert torch.equal(image, whole[row.id]["image"])
            assert torch.equal(labels, whole[row.id]["labels"])
    FaceDataset(tiny_folder, "train", own_task())
    assert len(cache()) == len(before) + 1  # labels as another task calls them


def test_tasks_take_the_synthetic_classes_and_refuse_unknown_ones():
    for task in TASKS.values():
        table = task.table(SYNTHETIC_CLASSES)
        assert set(table[: len(SYNTHETIC_CLASSES)]) == {0, 1, 2}
        assert (table[len(SYNTHETIC_CLASSES) :] == IGNORE).all()
    table = TASKS["parts"].table(SYNTHETIC_CLASSES)
    names = {c: [s for s, t in zip(SYNTHETIC_CLASSES, table, strict=False) if t == c] for c in range(3)}
    assert (names[0], names[2]) == (["background", "cloth", "occluder"], ["hair"])
    assert {"ears", "neck", "glasses"} < set(names[1])
    with pytest.raises(DatasetError, match=r"with \['tail'\]"):
        TASKS["parts"].table(("background", "face", "hair", "tail"))


def write_stripes(folder, classes, mirrored=()):
    """Write images whose columns are all classes, from left to right, each in a grey of its own."""
    colours = tuple((k, k, k) for k in range(len(classes)))
    info = DatasetInfo("stripes", tuple(classes), colours, "", "", 32, mirrored=mirrored)
    labels = (np.arange(32 * 32) * len(classes) // 32**2).reshape(32, 32).T
    image = np.repeat(labels[..., None], 3, axis=2).astype(np.uint8)
    with DatasetWriter(folder, info) as writer:
        for number in range(8):
            writer.add(f"train {number}", "train", str(number), image=image, labels=labels)
    return folder


def test_the_classes_of_a_data_set_are_a_task(tmp_path):
    data = FaceDataset(write_stripes(tmp_path / "stripes", [f"class {k}" for k in range(150)]), "train")
    assert data.task == Task.of(data.info)
    assert data.task.classes == data.info.classes
    assert data.absent == ()
    assert (data.class_shares() > 0).all()


EYES = ("skin", "l_eye", "r_eye")


def own_task(**changes):
    """A task of one's own: hair is background."""
    fields = {
        "name": "skin",
        "classes": ("rest", "skin"),
        "colours": ((0, 0, 0), (255, 255, 255)),
        "members": {"background": "rest", "hair": "rest", "face": "skin"},
        "needs": ("face",),
    }
    return Task(**fields | changes)


def test_a_task_of_ones_own_is_taken_wherever_a_name_is(tiny_folder, tmp_path, monkeypatch):
    data, parts = FaceDataset(tiny_folder, "train", own_task()), FaceDataset(tiny_folder, "train", "parts")
    for ours, theirs in zip(data, parts, strict=True):
        assert torch.equal(ours["labels"], (theirs["labels"] == 1).long())
    (paths.data_dir() / "lfw_part_labels-128").symlink_to(tiny_folder)
    (paths.data_dir() / "mine-128").symlink_to(tiny_folder)
    for name, task in (("lfw_part_labels", own_task()), ("mine", None), (str(tiny_folder), "parts")):
        assert is_prepared(name)
        splits = open_splits(name, task, size=32, images=0)
        assert splits.test.task.classes == (task.classes if isinstance(task, Task) else parts.task.classes)
    assert len({own_task(), own_task(), own_task(name="other")}) == 2  # it can be a key
    assert not is_prepared("nobody")
    assert not is_prepared(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="dataset"):
        open_splits("nobody", None)
    with pytest.raises(DatasetError, match="nowhere"):
        open_splits(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("skin",), "members": {"face": "skin"}},
        {"classes": ("skin", "skin")},
        {"classes": tuple(map(str, range(151)))},
        {"colours": ((0, 0, 0),)},
        {"colours": ((0, 0, 0), (0, 0, 256))},
        {"members": {"face": "nose"}},
        {"members": {}},
        {"needs": ("nose",)},
        {"mirrored": (("rest", "nose"),)},
        {"mirrored": (("rest",),)},
        {"mirrored": (("rest", "skin"), ("skin", "rest"))},
    ],
)
def test_a_task_checks_itself(changes):
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}: expected"):
        own_task(**changes)


def test_sided_names_are_seen():
    names = ("l_eye", "u_lip", "r_eye", "l_lip", "ear_r", "brow-left", "brow-right", "LeftEar", "rightear")
    info = DatasetInfo("x", names, ((0, 0, 0),) * len(names), "", "", 8)
    pairs = (("l_eye", "r_eye"), ("brow-left", "brow-right"), ("LeftEar", "rightear"))
    assert Task.of(info).unpaired == pairs
    assert Task.of(replace(info, mirrored=pairs[:1])).unpaired == pairs[1:]
    assert all(task.unpaired == () for task in TASKS.values())


def test_flips_without_pairs_are_warned_of(tmp_path):
    folder = write_stripes(tmp_path / "eyes", EYES)
    with pytest.warns(UserWarning, match="mirrored=.*l_eye"):
        FaceDataset(folder, "train", augment=Augment())
    FaceDataset(folder, "train", augment=Augment(flip=0))
    paired = replace(Task.of(read_info(folder)), mirrored=(("l_eye", "r_eye"),))
    FaceDataset(folder, "train", paired, augment=Augment())


@pytest.mark.parametrize("augment", [Augment(flip=0.5), Augment(flip=0.5, rotation=1e-6)])
def test_flipped_samples_alone_exchange_left_and_right(tmp_path, augment):
    folder = write_stripes(tmp_path / "eyes", EYES, mirrored=(("l_eye", "r_eye"),))
    (folder / "probabilities").mkdir()
    for row in read_index(folder):
        labels = np.asarray(Image.open(folder / row.labels))
        layers = np.concatenate([255 * (labels == k).astype(np.uint8) for k in range(3)])
        Image.fromarray(layers).save(folder / f"probabilities/{row.id}.png")
    still = FaceDataset(folder, "train")[0]["labels"]
    data = FaceDataset(folder, "train", probabilities=True, augment=augment).with_blobs(kind="component")
    for epoch in (0, 1):  # the second time from what was kept
        batch = data.__getitems__([(epoch, index) for index in range(8)])
        flipped = augment.flipped(0, epoch, range(8))
        assert 0 < flipped.sum() < 8
        expected = torch.tensor([0, 2, 1])[still.flip(1)]
        assert torch.equal(batch["labels"], torch.where(flipped[:, None, None], expected, still))
        assert torch.equal(batch["probabilities"].argmax(1), batch["labels"])
        assert same_cut(batch["blobs"], label_blobs(batch["labels"], kind="component"))


# What hand-made folders may hold


def change_labels(folder, change):
    """Change the label maps of the training images, as somebody may who makes a folder by hand."""
    for file in (folder / "labels").glob("train_*"):
        Image.fromarray(change(np.asarray(Image.open(file)))).save(file)


@pytest.mark.parametrize(
    ("name", "picture"), [("labels", Image.new("L", (32, 32), 3)), ("images", Image.new("RGB", (32, 64)))]
)
def test_what_is_wrong_in_a_folder_is_named_and_not_kept(tiny_folder, name, picture):
    picture.save(tiny_folder / name / "train_00.png")
    with pytest.raises(DatasetError, match=rf"{name}/train_00\.png"):
        FaceDataset(tiny_folder, "train", "parts")
    assert not list((paths.data_dir() / "cache").glob(f"*{name}*"))


def test_labels_of_another_size_lie_where_the_image_does(tiny_folder, tmp_path, monkeypatch):
    before = FaceDataset(tiny_folder, "train", "parts", size=16)[0]["labels"]
    change_labels(tiny_folder, lambda labels: labels.repeat(2, 0).repeat(2, 1))
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path / "another cache"))
    after = FaceDataset(tiny_folder, "train", "parts", size=16)[0]["labels"]
    assert (before == after).float().mean() > 0.98


def test_masks_of_0_and_255_are_never_read_as_ignored(tiny_folder):
    change_labels(tiny_folder, lambda labels: np.where(labels, 255, 0).astype(np.uint8))
    with pytest.raises(DatasetError, match=r"split 'train'.* write 1 for 'face'"):
        FaceDataset(tiny_folder, "train", "parts")
    with pytest.warns(UserWarning, match="write 1 for 'face'"):  # a few photographs may well be so
        FaceDataset(tiny_folder, "train", "parts", limit=2)


def test_a_class_that_never_occurs_is_said(tiny_folder):
    change_labels(tiny_folder, lambda labels: np.minimum(labels, 1))
    with pytest.warns(UserWarning, match="hair"):
        data = FaceDataset(tiny_folder, "train", "parts")
    assert data.absent == ("hair",)
    assert FaceDataset(tiny_folder, "train", "parts", limit=3).absent == ("hair",)
    assert FaceDataset(tiny_folder, "train+test", "parts").absent == ()


# Processes


AUGMENT = Augment(flip=0.5, rotation=20, scale=0.8, shift=0.1, crop=0.8, colour=0.3)


@pytest.mark.parametrize(("split", "augment"), [("train", AUGMENT), ("test", None)])
def test_a_data_set_is_handed_on_without_its_pixels(tiny_folder, split, augment):
    data = FaceDataset(tiny_folder, split, "parts", augment=augment).with_blobs(kind="class")
    data[0]
    sent = pickle.dumps(data)  # as to a worker that is spawned
    pixels = sum(file.stat().st_size for file in (paths.data_dir() / "cache").iterdir())
    assert len(sent) < 10_000 < pixels
    ours, theirs = (one.__getitems__([2, 0, 3]) for one in (data, pickle.loads(sent)))
    assert all(map(torch.equal, ours.pop("blobs")[:4], theirs.pop("blobs")[:4]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_epoch_and_index_only(tiny_folder, workers):
    data = FaceDataset(tiny_folder, "train", "parts", augment=AUGMENT, seed=7)
    batches, orders = loader(data, 4, shuffle=True, workers=workers, first_epoch=3), []
    for epoch in (3, 4):
        for batch in batches:
            orders += batch["index"].tolist()
            for image, labels, index in zip(batch["image"], batch["labels"], batch["index"], strict=True):
                alone = data[(epoch, int(index))]
                torch.testing.assert_close(image, alone["image"])
                assert torch.equal(labels, alone["labels"])
    assert sorted(orders[:12]) == sorted(orders[12:]) == list(range(12))
    assert orders[:12] != orders[12:]
    assert not torch.equal(data[(3, 1)]["image"], data[(4, 1)]["image"])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_each_batch(tiny_folder, world):
    data = FaceDataset(tiny_folder, "train+validation", "parts", limit=13)

    def indices(share, **options):
        return [batch["index"] for batch in loader(data, 4 * world, share=share, **options)]

    shares = [indices((rank, world), shuffle=True, first_epoch=2) for rank in range(world)]
    whole = indices((0, 1), shuffle=True, first_epoch=2)
    assert {len(part) for parts in shares for part in parts} == {4}
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat(parts), batch)
    # Without shuffling, each has a slice of the data, none twice, of about the same size.
    slices = [torch.cat(indices((rank, world))) for rank in range(world)]
    assert torch.cat(slices).tolist() == list(range(len(data)))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1
    few = FaceDataset(tiny_folder, "train", "parts", limit=2)
    assert [len(list(loader(few, 1, share=(rank, 3)))) for rank in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("batch_size", [0, 5, 14])
def test_a_batch_that_cannot_be_made_or_shared_is_refused(tiny_folder, batch_size):
    data = FaceDataset(tiny_folder, "train", "parts")
    with pytest.raises(ValueError, match="batch_size"):
        loader(data, batch_size, shuffle=True, share=(0, 2))
    with pytest.raises(ValueError, match="keys"):
        data.__getitems__([(0, 1), (1, 2)])  # of two epochs


def test_image_and_labels_move_together():
    # The image *is* the label map, so after any movement the two must still agree.
    labels = torch.zeros(64, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 5:17] = 1
    images = (labels[:, None].float() * 2 - 1).expand(-1, 3, -1, -1)
    augment = Augment(flip=0.5, rotation=30, scale=0.7, shift=0.2, crop=0.7)
    moved, moved_labels = augment(images, labels, 0, 0, range(64))
    inside = moved_labels != IGNORE
    assert ((moved[:, 0] > 0) == (moved_labels == 1))[inside].float().mean() > 0.99
    assert not inside.all()  # some views reach beyond the image
    assert not torch.equal(moved_labels, labels)


def test_a_flip_alone_is_exact_and_colour_leaves_labels_and_range():
    images, labels = torch.rand(4, 3, 16, 16) * 2 - 1, torch.randint(0, 3, (4, 16, 16))
    for flip, order in ((0.0, range(16)), (1.0, range(15, -1, -1))):
        moved, moved_labels = Augment(flip=flip)(images, labels, 0, 0, range(4))
        assert torch.equal(moved, images[..., list(order)])
        coloured, coloured_labels = Augment(flip=flip, colour=0.5)(images, labels, 0, 0, range(4))
        assert torch.equal(moved_labels, labels[..., list(order)])
        assert torch.equal(coloured_labels, moved_labels)
        assert not torch.equal(coloured, moved)
        assert coloured.abs().max() <= 1
    assert 0.2 < Augment(flip=0.3).flipped(0, 0, range(400)).float().mean() < 0.4


@pytest.mark.parametrize(("name", "value"), [("flip", 1.5), ("rotation", -1), ("scale", 0), ("crop", 1.2)])
def test_an_augmentation_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Augment(**{name: value})


def test_channels_that_are_no_probabilities_are_refused():
    images, labels = torch.zeros(1, 5, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match="images"):
        Augment()(images, labels, 0, 0, [0], mirror=[0, 2, 1])


def same_cut(found, expected):
    """Whether two cuts are one but for the numbers of their blobs."""
    pairs = torch.stack([found.ids.flatten(), expected.ids.flatten()], 1).unique(dim=0)
    ours, theirs = pairs[(pairs >= 0).any(1)].T
    one_to_one = len(ours) == len(ours.unique()) == len(found.size) == len(expected.size)
    fields = [(getattr(found, name), getattr(expected, name)) for name in ("labels", "image", "size")]
    return one_to_one and all(torch.equal(a[ours], b[theirs]) for a, b in fields)


@pytest.mark.parametrize("kind", ["component", "superpixel", "pixel"])
@pytest.mark.parametrize(
    "augment", [None, Augment(flip=0.5, colour=0.2), AUGMENT], ids=["still", "flip", "move"]
)
def test_blobs_of_a_batch_are_those_of_its_labels(tiny_folder, kind, augment):
    cut = {"kind": kind, "min_size": 3, "specks": "merge"}
    plain = FaceDataset(tiny_folder, "train", "parts", augment=augment)
    data = plain.with_blobs(**cut)
    for epoch in (0, 1):  # the second time from what was kept
        keys = [(epoch, i) for i in (4, 1, 7, 0)]
        batch = data.__getitems__(keys)
        assert torch.equal(batch["labels"], plain.__getitems__(keys)["labels"])
        if kind != "superpixel":  # these follow the image, which a flip or other colours change a little
            assert same_cut(batch["blobs"], label_blobs(batch["labels"], **cut))
        inside = batch["blobs"].ids >= 0
        counted = torch.bincount(batch["blobs"].ids[inside], minlength=len(batch["blobs"].size))
        assert torch.equal(counted, batch["blobs"].size)
    assert "blobs" not in plain.__getitems__(keys)


@pytest.mark.parametrize(("augment", "times"), [(None, 1), (Augment(flip=0.5), 1), (AUGMENT, 3)])
def test_an_image_is_cut_once_unless_it_is_moved(tiny_folder, augment, times, monkeypatch):
    cut = []
    monkeypatch.setattr(
        "consensus_lib.data.dataset.label_blobs",
        lambda labels, **options: cut.append(len(labels)) or label_blobs(labels, options["kind"]),
    )
    data = FaceDataset(tiny_folder, "train", "parts", augment=augment).with_blobs(kind="component")
    for epoch in range(3):
        for batch in loader(data, 4, shuffle=True, first_epoch=epoch):
            assert len(batch["blobs"].ids) == 4
    assert sum(cut) == times * len(data)

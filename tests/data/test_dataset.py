import pickle
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
from consensus_lib.losses import ConsensusLoss
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.training.trainer import fit
from synthetic_faces import CLASSES as SYNTHETIC_CLASSES


def test_a_sample_has_the_promised_shapes_and_ranges(tiny_folder):
    sample = FaceDataset(tiny_folder, "train", "parts")[3]
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.float32
    assert -1 <= sample["image"].min() < sample["image"].max() <= 1
    assert sample["labels"].shape == (32, 32)
    assert sample["labels"].dtype == torch.int64
    assert set(sample["labels"].unique().tolist()) == {0, 1, 2}
    assert sample["index"] == 3
    assert FaceDataset(tiny_folder, "test", "parts")[0]["superpixels"].unique().numel() == 16
    assert "superpixels" not in FaceDataset(tiny_folder, "test", "parts", augment=Augment())[0]
    assert "superpixels" not in sample


def test_splits_can_be_joined_and_limited(tiny_folder):
    joined = FaceDataset(tiny_folder, "train+validation", "parts")
    assert len(joined) == 16
    few = FaceDataset(tiny_folder, "train", "parts", limit=5)
    assert len(few) == 5
    assert [row.id for row in few.rows] == [
        row.id for row in FaceDataset(tiny_folder, "train", "parts", limit=5).rows
    ]


def test_class_shares_sum_to_one_and_match_a_count(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    counted = torch.stack([data[i]["labels"] for i in range(len(data))]).flatten().bincount(minlength=3)
    np.testing.assert_allclose(data.class_shares(), counted / counted.sum())


@pytest.mark.parametrize(
    ("error", "split", "task", "limit", "expected"),
    [
        (DatasetError, "nowhere", "parts", None, "split"),
        (DatasetError, "train+nowhere", "parts", None, "split"),
        (DatasetError, "unlabelled", "parts", None, "expected labels, but 2 images"),
        (DatasetError, "train", "occlusion", None, "without \\['occluder'\\]"),
        (ValueError, "train", "teeth", None, "task: .*'teeth'"),
        (ValueError, "train", ["parts"], None, "task"),
        (ValueError, "train", "parts", 0, "limit"),
    ],
)
def test_what_cannot_be_served_is_named(tiny_folder, error, split, task, limit, expected):
    with pytest.raises(error, match=expected):
        FaceDataset(tiny_folder, split, task, limit=limit)


def test_images_are_decoded_once(tiny_folder):
    first = FaceDataset(tiny_folder, "train", "parts")[0]
    for file in (tiny_folder / "images").iterdir():
        file.unlink()
    torch.testing.assert_close(FaceDataset(tiny_folder, "train", "parts")[0], first)


def test_samples_of_a_split_share_one_copy_of_its_pixels(tiny_folder):
    def cache():
        return {file.name for file in (paths.data_dir() / "cache").iterdir()}

    train, test = FaceDataset(tiny_folder, "train", "parts"), FaceDataset(tiny_folder, "test", "parts")
    before = cache()
    few = FaceDataset(tiny_folder, "train", "parts", limit=3, seed=1)
    some = FaceDataset(tiny_folder, "test", "parts", ids=["test_03", "test_01"])
    joined = FaceDataset(tiny_folder, "test+train", "parts")
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


def write_stripes(folder, classes, mirrored=(), size=32, split="train", images=4):
    """Write images whose columns are all classes, from left to right, each in a grey of its own."""
    colours = tuple((k, k, k) for k in range(len(classes)))
    info = DatasetInfo("stripes", tuple(classes), colours, "", "", size, mirrored=mirrored)
    labels = np.tile(np.arange(size * size) * len(classes) // size**2, (1, 1)).reshape(size, size).T
    with DatasetWriter(folder, info) as writer:
        for number in range(images):
            image = np.repeat(labels[..., None] * 255 // (len(classes) - 1), 3, axis=2).astype(np.uint8)
            writer.add(f"{split} {number}", split, str(number), image=image, labels=labels)
    return folder


@pytest.mark.parametrize("count", [2, 19, 150])
def test_the_classes_of_a_data_set_are_a_task(tmp_path, count):
    folder = write_stripes(tmp_path / "stripes", [f"class {k}" for k in range(count)])
    data = FaceDataset(folder, "train")
    assert data.task == Task.of(read_info(folder))
    assert data.task.classes == data.info.classes
    assert data.absent == ()
    assert (data.class_shares() > 0).all()
    (epoch,) = fit(FaceOccNet(count, 0.125), data, ConsensusLoss(), epochs=1, batch_size=2, progress=False)
    assert np.isfinite(epoch["loss"])


EYES = ("skin", "l_eye", "r_eye")
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


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
    with pytest.raises(ValueError, match=r"dataset: expected one of .* got 'nobody'"):
        open_splits("nobody", None)
    with pytest.raises(DatasetError, match="nowhere: expected a prepared data set"):
        open_splits(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("skin",), "members": {"face": "skin"}},
        {"classes": ("skin", "skin")},
        {"classes": tuple(map(str, range(151)))},
        {"colours": ((0, 0, 0),)},
        {"colours": ((0, 0, 0), (0, 0, 256))},
        {"colours": ((0, 0, 0), (0, 0))},
        {"members": {"face": "nose"}},
        {"members": {}},
        {"needs": ("nose",)},
        {"mirrored": (("rest", "nose"),)},
        {"mirrored": (("rest", "rest"),)},
        {"mirrored": (("rest",),)},
        {"mirrored": (("rest", "skin"), ("skin", "rest"))},
    ],
)
def test_a_task_checks_itself(changes):
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}: expected"):
        own_task(**changes)


def test_mirror_is_which_class_each_is_in_a_flipped_image():
    classes = ("a", "b", "c", "d", "e")
    task = own_task(classes=classes, colours=((0, 0, 0),) * 5, members={"face": "a"}, mirrored=(("e", "b"),))
    assert task.mirror.tolist() == [0, 4, 2, 3, 1]
    assert own_task().mirror.tolist() == [0, 1]


def test_sided_names_are_seen():
    names = ("l_eye", "u_lip", "r_eye", "l_lip", "ear_r", "brow-left", "brow-right", "LeftEar", "rightear")
    info = DatasetInfo("x", names, ((0, 0, 0),) * len(names), "", "", 8)
    pairs = (("l_eye", "r_eye"), ("brow-left", "brow-right"), ("LeftEar", "rightear"))
    assert Task.of(info).unpaired == pairs
    assert Task.of(replace(info, mirrored=pairs[:1])).unpaired == pairs[1:]
    assert all(task.unpaired == () for task in TASKS.values())


def test_flips_without_pairs_are_warned_of(tmp_path):
    folder = write_stripes(tmp_path / "eyes", EYES)
    with pytest.warns(UserWarning, match=r"flips take left for right.*mirrored=\(\('l_eye', 'r_eye'\),\)"):
        FaceDataset(folder, "train", augment=Augment())
    FaceDataset(folder, "train", augment=Augment(flip=0))
    FaceDataset(
        folder,
        "train",
        replace(Task.of(read_info(folder)), mirrored=(("l_eye", "r_eye"),)),
        augment=Augment(),
    )


@pytest.mark.parametrize("kind", ["class", "component", "pixel"])
@pytest.mark.parametrize("augment", [Augment(flip=1), Augment(flip=1, rotation=1e-6)], ids=["flip", "move"])
def test_a_flip_exchanges_left_and_right(tmp_path, augment, kind):
    folder = write_stripes(tmp_path / "eyes", EYES, mirrored=(("l_eye", "r_eye"),))
    (folder / "probabilities").mkdir()
    for row in read_index(folder):
        labels = np.asarray(Image.open(folder / row.labels))
        layers = np.concatenate([255 * (labels == k).astype(np.uint8) for k in range(3)])
        Image.fromarray(layers).save(folder / f"probabilities/{row.id}.png")
    still = FaceDataset(folder, "train", probabilities=True)[0]["labels"]
    data = FaceDataset(folder, "train", probabilities=True, augment=augment).with_blobs(kind=kind)
    for _ in range(2):  # the second time from what was kept
        batch = data.__getitems__([0, 1])
        expected = torch.tensor([0, 2, 1])[still.flip(1)]
        assert torch.equal(batch["labels"][0], expected)
        assert torch.equal(batch["probabilities"].argmax(1), batch["labels"])
        inside = batch["blobs"].ids >= 0
        assert torch.equal(batch["blobs"].labels[batch["blobs"].ids][inside], batch["labels"][inside])
        assert same_cut(batch["blobs"], label_blobs(batch["labels"], kind=kind))


def test_only_flipped_samples_exchange_left_and_right():
    augment = Augment(flip=0.5, rotation=30, scale=0.7, shift=0.2, crop=0.7)
    images, labels = torch.rand(64, 3 + 3, 16, 16), torch.randint(1, 3, (64, 16, 16))
    labels[:, :2] = IGNORE
    plain = augment(images, labels, 0, 0, range(64))
    swapped = augment(images, labels, 0, 0, range(64), mirror=[0, 2, 1])
    flipped = augment.flipped(0, 0, range(64))
    assert 20 < flipped.sum() < 44
    for i in range(64):
        order, names = ([0, 1, 2, 3, 5, 4], [0, 2, 1]) if flipped[i] else ([*range(6)], [0, 1, 2])
        assert torch.equal(swapped[0][i], plain[0][i][order])
        table = torch.arange(256)
        table[:3] = torch.tensor(names)
        assert torch.equal(swapped[1][i], table[plain[1][i]])
    with pytest.raises(ValueError, match=r"images: expected 3 or 3 \+ 3 channels, got 5"):
        augment(images[:, :5], labels, 0, 0, range(64), mirror=[0, 2, 1])


# What hand-made folders may hold


def rewrite(folder, row, name, picture):
    """Put another picture in a sample's place, as somebody does who makes a folder by hand."""
    picture.save(folder / getattr(row, name), "PNG")


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("labels", Image.new("L", (32, 32), 3), r"labels/train_00\.png: expected class numbers"),
        ("image", Image.new("RGB", (32, 64)), r"images/train_00\.png: expected a square image"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tiny_folder, name, picture, expected):
    rewrite(tiny_folder, next(row for row in read_index(tiny_folder) if row.id == "train_00"), name, picture)
    with pytest.raises(DatasetError, match=expected):
        FaceDataset(tiny_folder, "train", "parts")
    assert not list((paths.data_dir() / "cache").glob(f"*{name}*"))


def test_labels_of_another_size_lie_where_the_image_does(tiny_folder):
    row = next(row for row in read_index(tiny_folder) if row.id == "train_00")
    before = FaceDataset(tiny_folder, "train", "parts", ids=["train_00"], size=16)[0]["labels"]
    labels = np.asarray(Image.open(tiny_folder / row.labels))
    rewrite(tiny_folder, row, "labels", Image.fromarray(labels.repeat(2, 0).repeat(2, 1)))
    for file in (paths.data_dir() / "cache").iterdir():
        file.unlink()
    after = FaceDataset(tiny_folder, "train", "parts", ids=["train_00"], size=16)[0]["labels"]
    assert (before == after).float().mean() > 0.98


def masks_of_0_and_255(folder):
    for row in read_index(folder):
        if row.labels:
            labels = np.asarray(Image.open(folder / row.labels))
            rewrite(folder, row, "labels", Image.fromarray(np.where(labels, 255, 0).astype(np.uint8)))


def test_masks_of_0_and_255_are_never_read_as_ignored(tiny_folder):
    masks_of_0_and_255(tiny_folder)
    told = r"split 'train' of .*got \['background'\] and 255 alone\. 255 means ignore.*write 1 for 'face'"
    with pytest.raises(DatasetError, match=told):
        FaceDataset(tiny_folder, "train", "parts")
    with pytest.warns(UserWarning, match=told):  # a few photographs without the class may well be so
        FaceDataset(tiny_folder, "train", "parts", limit=2)


def test_a_class_that_never_occurs_is_said(tiny_folder):
    for row in read_index(tiny_folder):
        if row.split == "train":
            labels = np.asarray(Image.open(tiny_folder / row.labels))
            rewrite(tiny_folder, row, "labels", Image.fromarray(np.minimum(labels, 1)))
    with pytest.warns(UserWarning, match=r"split 'train' of .*tiny: no pixel is hair$"):
        data = FaceDataset(tiny_folder, "train", "parts")
    assert data.absent == ("hair",)
    assert FaceDataset(tiny_folder, "train", "parts", limit=3).absent == ("hair",)
    assert FaceDataset(tiny_folder, "train+test", "parts").absent == ()


# Processes


def batches_of(data, **options):
    return [batch for batch in loader(data, 4, shuffle=True, **options)]


def test_a_data_set_is_handed_on_without_its_pixels(tiny_folder):
    for split, augment in (("train", AUGMENT), ("test", None)):  # the latter with superpixels
        data = FaceDataset(tiny_folder, split, "parts", augment=augment).with_blobs(kind="class")
        before = batches_of(data)
        sent = pickle.dumps(data)
        pixels = sum(file.stat().st_size for file in (paths.data_dir() / "cache").iterdir())
        assert len(sent) < 10_000 < pixels
        for ours, theirs in zip(before, batches_of(pickle.loads(sent)), strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "blobs")


@pytest.mark.slow
def test_workers_that_are_spawned_read_the_same_pixels_and_cut_the_same_blobs(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts", augment=Augment()).with_blobs(kind="component")
    spawned = loader(data, 4, shuffle=True, workers=1)
    spawned.multiprocessing_context = "spawn"
    for ours, theirs in zip(batches_of(data), spawned, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "blobs")
        assert all(map(torch.equal, ours["blobs"][:4], theirs["blobs"][:4]))


AUGMENT = Augment(flip=0.5, rotation=20, scale=0.8, shift=0.1, crop=0.8, colour=0.3)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_epoch_and_index_only(tiny_folder, workers):
    data = FaceDataset(tiny_folder, "train", "parts", augment=AUGMENT, seed=7)
    batches = loader(data, 5, shuffle=True, workers=workers, first_epoch=3)
    for epoch in (3, 4):
        for batch in batches:
            for image, labels, index in zip(batch["image"], batch["labels"], batch["index"], strict=True):
                alone = data[(epoch, int(index))]
                torch.testing.assert_close(image, alone["image"])
                assert torch.equal(labels, alone["labels"])


def test_each_epoch_has_another_order_and_another_variation(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts", augment=AUGMENT)
    batches = loader(data, 12, shuffle=True)
    first, second = next(iter(batches)), next(iter(batches))
    assert sorted(first["index"]) == sorted(second["index"]) == list(range(12))
    assert not torch.equal(first["index"], second["index"])
    assert not torch.equal(data[(0, 1)]["image"], data[(1, 1)]["image"])


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


def test_more_processes_than_samples_leave_some_without(tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts", limit=2)
    assert [len(loader(data, 1, share=(rank, 3))) for rank in range(3)] == [1, 1, 0]
    assert list(loader(data, 1, share=(2, 3))) == []


SHARED = {"shuffle": True, "share": (0, 2)}


@pytest.mark.parametrize(("batch_size", "options"), [(0, {}), (5, SHARED), (14, SHARED)])
def test_a_batch_that_cannot_be_made_or_shared_is_refused(tiny_folder, batch_size, options):
    data = FaceDataset(tiny_folder, "train", "parts")
    with pytest.raises(ValueError, match="batch_size"):
        loader(data, batch_size, **options)


def test_a_batch_of_two_epochs_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="keys"):
        FaceDataset(tiny_folder, "train", "parts").__getitems__([(0, 1), (1, 2)])


def test_image_and_labels_move_together():
    # The image *is* the label map, so after any movement the two must still agree.
    labels = torch.zeros(64, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 5:17] = 1
    images = (labels[:, None].float() * 2 - 1).expand(-1, 3, -1, -1)
    moved, moved_labels = Augment(flip=0.5, rotation=30, scale=0.7, shift=0.2, crop=0.7)(
        images, labels, 0, 0, range(64)
    )
    inside = moved_labels != IGNORE
    agrees = ((moved[:, 0] > 0) == (moved_labels == 1))[inside].float().mean()
    assert agrees > 0.99
    assert (moved_labels == IGNORE).any()  # some views reach beyond the image
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
    with pytest.raises(ValueError, match=f"{name}: expected a value in"):
        Augment(**{name: value})


def same_cut(found, expected):
    """Whether two cuts are one but for the numbers of their blobs."""
    pairs = torch.stack([found.ids.flatten(), expected.ids.flatten()], 1).unique(dim=0)
    pairs = pairs[(pairs >= 0).any(1)]
    numbered = len(pairs) == len(expected.size) == len(found.size) == len(pairs[:, 0].unique())
    a, b = (
        getattr(blobs, name)[pairs[:, i]] for i, blobs in enumerate((found, expected)) for name in ["size"]
    )
    labels = found.labels[pairs[:, 0]], expected.labels[pairs[:, 1]]
    images = found.image[pairs[:, 0]], expected.image[pairs[:, 1]]
    return numbered and all(torch.equal(*pair) for pair in ((a, b), labels, images))


@pytest.mark.parametrize("kind", ["class", "component", "superpixel", "pixel"])
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

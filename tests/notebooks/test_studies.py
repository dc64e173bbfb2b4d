"""The studies that notebooks read: they run, resume where they stopped, and their tables are whole."""

import itertools
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import baselines
import claims
import consensus
import distillation
import evidence
import evidence_data
import evidence_plan
import evidence_unlabelled
import interval_coverage
import transfer
from consensus_lib import paths
from consensus_lib.data import Augment
from consensus_lib.losses import BASELINES, PRESETS, pixelwise_loss
from consensus_lib.metrics.comparison import read_differences
from consensus_lib.models import POSTPROCESSING
from consensus_lib.teacher.pseudo_labels import choose
from support import verdict

SMALL = ["--size", "32", "--width", "0.0625"]


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch):
    """Run a study on a tiny data set; return its table, after a second call that must train nothing."""
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")

    def study(module, options):
        table = tmp_path / "table.csv"
        module.main([*options, *SMALL], table)
        found = pd.read_csv(table)
        monkeypatch.setattr("consensus_lib.training.trainer.train_epoch", None)
        module.main([*options, *SMALL], table)
        pd.testing.assert_frame_equal(pd.read_csv(table), found)
        whole = found.loc[:, ~found.columns.str.startswith("precision")]  # none for a class never predicted
        assert not whole.isna().any(axis=None)
        assert found.test_images.eq(4).all()
        return found

    return study


@pytest.mark.slow
def test_transfer(run):
    options = "--recipes all --seeds 1 --images 16 --epochs 1 --few 8 --few-epochs 1 --rates 0.01"
    found = run(transfer, options.split())
    assert found[["study", "variant", "train_images"]].values.tolist() == [
        ["ablation", "all", 16],
        ["start", "scratch", 8],
        ["start", "rendered faces", 8],
    ]
    assert found.command[0] == " ".join(["python notebooks/studies/transfer.py", options, *SMALL])


@pytest.mark.slow
def test_consensus(run):
    found = run(consensus, ["--losses", "CE", "--tuned", "Eq. 8, classes", "--seeds", "3", "--epochs", "2"])
    assert found[["variant", "seed", "epochs"]].values.tolist() == [
        ["CE", 3, 2],
        ["CE, then Eq. 8, classes", 3, 1],
    ]
    with pytest.raises(SystemExit):
        consensus.main(["--epochs", "3"])


@pytest.mark.slow
def test_distillation(run, monkeypatch):
    monkeypatch.setattr(distillation, "HUMAN", {50: 1, 0: 1})
    monkeypatch.setattr(distillation, "choose", lambda records: choose(records, face_area=(0.0, 1.0)))
    options = ["--seeds", "3", "--rendered", "32", "--photographs", "20", "--epochs", "1", "--human", "50"]
    found = run(distillation, options)
    assert found[["first", "human_labels", "network", "epochs"]].values.tolist() == [
        ["teacher", 0, "UNet", 1],
        ["nothing", 12, "FaceOccNet", 2],
        [distillation.LONG, 12, "FaceOccNet", 1],
        ["rendered faces", 0, "FaceOccNet", 1],
        ["rendered faces", 12, "FaceOccNet", 1],
        ["pseudo-labels", 0, "FaceOccNet", 1],
        ["pseudo-labels", 12, "FaceOccNet", 1],
        ["pseudo-labels, soft", 0, "FaceOccNet", 1],
        ["pseudo-labels, consensus", 0, "FaceOccNet", 1],
        ["pseudo-labels, consensus", 12, "FaceOccNet", 1],
    ]


def test_distillation_without_a_teacher(run, monkeypatch):
    monkeypatch.setattr(distillation, "HUMAN", {50: 1})
    found = run(distillation, ["--first", "nothing", "--seeds", "3"])
    assert found["first"].tolist() == ["nothing"]


@pytest.mark.slow
def test_baselines(run, tmp_path):
    names = [baselines.BASE, baselines.RECOMMENDED]
    found = run(
        baselines, ["--losses", *names, "--seeds", "3", "4", "--epochs", "1", "--split", "validation"]
    )
    assert found.split.eq("validation").all()
    repairs = [method.title for method in POSTPROCESSING.values()]
    assert found.variant.tolist() == [names[0], *repairs, names[1]] * 2
    for base, others in ((names[0], [*repairs, names[1]]), (names[1], [names[0], *repairs])):
        differences = read_differences(tmp_path / "table-differences.csv", base)
        assert set(differences) == set(baselines.SCORES)
        for key, gains in differences.items():
            assert list(gains) == others
            means = found.groupby("variant")[key].mean()
            for name, gain in gains.items():
                assert [gain.first, gain.second] == pytest.approx([means[base], means[name]], abs=1e-3)
                assert len(gain.of_trainings) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--size", "50"], "image: expected"),
        (["--width", "0"], "width: expected"),
        (["--epochs", "0"], "argument --epochs: expected"),
        ([], "expected a prepared data set in"),
    ],
)
@pytest.mark.parametrize("module", [transfer, consensus, distillation, baselines])
def test_wrong_values_are_named_in_one_line(module, arguments, named, tiny_folder, tmp_path, capsys):
    if arguments:
        shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    with pytest.raises(SystemExit) as left:
        module.main(arguments, tmp_path / "table.csv")
    assert left.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not paths.runs_dir().exists()


@pytest.mark.parametrize("module", [transfer, consensus, distillation, baselines])
def test_the_stored_table_is_whole(module):
    found = pd.read_csv(module.TABLE)
    assert not found.isna().any(axis=None)
    assert found.command.nunique() == 1, "rows of different settings in one table"
    kinds = [c for c in ("study", "variant", "first", "human_labels", "learning_rate") if c in found]
    assert set(found.groupby(kinds).seed.apply(tuple)) == {(0, 1, 2)}
    known = {
        transfer: transfer.RECIPES,
        consensus: consensus.LOSSES,
        distillation: distillation.FIRST,
        baselines: {*baselines.LOSSES} - {BASELINES["scnp"].title},  # newer than the table
    }
    assert set(known[module]) <= set(found["first" if module is distillation else "variant"])


def test_what_was_chosen_is_stored_once_more_with_other_seeds_and_images():
    found = pd.read_csv(baselines.TABLE.with_stem("baselines-again"))
    assert not found.isna().any(axis=None)
    assert found.split.eq("validation").all()
    chosen = [baselines.BASE, "Lovász-Softmax", *(preset.title for preset in PRESETS.values())]
    for name in chosen:
        assert found[found.variant == name].seed.tolist() == [3, 4, 5]


@pytest.fixture
def small_evidence(tiny_folder, tmp_path):
    """Run the evidence study on a tiny data set; return a function of the phase and more options."""
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    fast = ["--epochs", "1", "--choose-epochs", "1", "--face-epochs", "1", "--batch", "4", *SMALL]

    def study(phase, *options):
        sizes = ["--faces", "8", "4", "4", "--seeds", "1", "2", "--phase", phase]
        evidence.main([*sizes, *fast, *options], tmp_path / "evidence.csv")

    return study


WITHOUT_LABELS = [evidence_unlabelled.SUPERVISED, "match and deviation, late"]
METHODS = ["--methods", evidence.CE, evidence_plan.LOVASZ_CE, evidence.BY_SIZE, *WITHOUT_LABELS]


@pytest.mark.slow
def test_evidence_chooses_tests_and_compares(small_evidence, tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        small_evidence("test", *METHODS)  # nothing is chosen yet
    small_evidence("choose", *METHODS)
    choices = pd.read_csv(tmp_path / "evidence-choices.csv")
    tries = choices.groupby("method").size().to_dict()
    assert tries == dict.fromkeys(METHODS[1:], 3) | {evidence_unlabelled.SUPERVISED: 1}
    assert choices.scored.eq("validation").all()
    assert choices.seed.eq(0).all()
    assert choices[choices.chosen].method.tolist() == METHODS[1:]
    assert choices[choices.recommended].method.isin(evidence_plan.CONSENSUS).all()
    small_evidence("all", *METHODS)
    found = pd.read_csv(tmp_path / "evidence.csv")
    tested = found[(found.part != "choose") & (found.method != evidence.CONSTANT)]
    assert (tested.scored == np.where(tested.part == "epochs", "validation", "test")).all()
    seeds = tested.groupby(["part", "data", "method"]).seed.apply(sorted).map(tuple)
    assert seeds["factorial", "photographs"][METHODS[1:3]].tolist() == [(1, 2, 6, 7)] * 2
    assert seeds["control", "photographs"].tolist() == [(1, 2, 6, 7), (1, 2)]
    assert set(seeds.drop(["factorial", "control"], level="part")) == {(1, 2)}
    assert tested.data.nunique() == 11
    assert evidence_plan.CONTROL in set(tested.method)
    monkeypatch.setattr("consensus_lib.training.trainer.train_epoch", None)
    shutil.rmtree(paths.runs_dir())
    small_evidence("all", *METHODS)  # all is in the two files
    small_evidence("compare")
    epochs = pd.read_csv(tmp_path / "evidence-epochs.csv").set_index(["method", "seed", "epoch"])
    last = tested[tested.part == "epochs"].set_index(["method", "seed"])
    assert set(last.index) == set(itertools.product([*METHODS[1:4]], [1, 2]))
    assert epochs.component_error.xs(1, level="epoch").to_dict() == pytest.approx(
        last.component_error.to_dict()
    )
    where = pd.read_csv(tmp_path / "evidence-where.csv")
    assert where.groupby("by")["where"].nunique().loc["class"] == 2
    thirds = where[(where.part == "occlusion") & (where.method == evidence.CE) & (where.by != "class")]
    means = tested[(tested.part == "occlusion") & (tested.method == evidence.CE)].component_error.mean()
    for _, of_share in thirds.groupby("by"):
        assert np.average(of_share.component_error, weights=of_share.images) == pytest.approx(means, abs=1e-3)
    differences = pd.read_csv(tmp_path / "evidence-differences.csv")
    decided = differences.score.isin(["mean_iou", "component_error"])
    assert (differences.p_holm.notna() == decided).all()
    assert (differences.p_holm >= differences.p)[decided].all()
    assert differences.word[decided].isin(["too few seeds", "collapsed"]).all()
    row = differences.query("part == 'factorial' and method == 'Lovász + cross-entropy'").iloc[0]
    assert differences[differences.part == "unlabelled"].base.eq(evidence_unlabelled.SUPERVISED).all()
    means = tested[tested.part == "factorial"].groupby("method").mean_iou.mean()
    assert row[["first", "second"]].tolist() == pytest.approx(means[[row.base, row.method]], abs=1e-3)


@pytest.mark.slow
def test_evidence_begins_nothing_without_a_budget(small_evidence, tmp_path):
    small_evidence("all", *METHODS, "--budget", "0")
    assert not list(tmp_path.glob("evidence*"))


@pytest.mark.parametrize("how", evidence_plan.BAD)
def test_spoilt_labels(how):
    labels = np.zeros((64, 64), np.uint8)
    labels[8:40, 16:48], labels[:8, 8:56], labels[60:] = 1, 2, 255
    spoilt = evidence_data.spoil(labels, how, np.random.default_rng(0))
    changed = spoilt != labels
    assert (spoilt[labels == 255] == 255).all()
    assert set(np.unique(spoilt)) == {0, 1, 2, 255}
    if how.startswith("specks"):
        share = float(how.split()[1].rstrip("%")) / 100
        for c in (0, 1, 2):
            assert changed[labels == c].mean() == pytest.approx(share, rel=0.3)
    elif how == "pieces":
        assert (spoilt[changed] == 0).all()
        c = labels[changed].max()
        assert 0.05 < changed[labels == c].mean() <= 0.5
    else:
        assert len(np.unique(spoilt[changed])) == 1


@pytest.mark.parametrize(
    ("data", "labelled", "free"), [("50 labels", 12, 0), (evidence_plan.FEW_AND_FREE, 2, 2)]
)
def test_few_labels_are_repeated_to_as_many(tiny_folder, data, labelled, free):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    train = evidence_data.splits("photographs", "lfw_part_labels", 32, 0, (1, 1, 1), 0, "test").train
    few = evidence_data.FaceDataset(evidence_data.altered(data, train, 0), "train", "parts", size=32)
    labels = few.__getitems__(range(len(few)))["labels"]
    assert (labels == 255).flatten(1).all(1).tolist() == [False] * labelled + [True] * free


def test_segments_move_with_their_photograph(tiny_folder):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    data = evidence_plan.FEW_AND_FREE
    train = evidence_data.splits(data, "lfw_part_labels", 32, 0, (1, 1, 1), 0, "test").train
    still = evidence_data.FaceDataset(train.folder, "train", "parts", size=32)
    free = range(len(train) - len(train.segments), len(train))
    assert [len(np.unique(one)) > 9 for one in train.segments] == [True] * len(free)
    bright = lambda batch: (batch["image"].mean(1) > 0).numpy()  # noqa: E731
    train.segments = bright(still.__getitems__(free)).astype(np.uint8)
    train.augment = Augment(flip=0.5, rotation=20, shift=0.2)
    for epoch in range(3):
        batch = train.__getitems__([(epoch, index) for index in range(len(train))])
        moved = batch["segments"].numpy()
        assert (moved[: free.start] == 255).all()
        moved, found = moved[free.start :], bright(batch)[free.start :]
        assert (moved == 255).any()
        assert (moved == found)[moved != 255].mean() > 0.9


SHARES = {
    "deviation": (1, 1, 1),
    "deviation, mean held": (1, 1, 1),
    "deviation, mean held, rising": (0, 0.5, 1),
}
"""How much of the weight there is after no, a quarter and half of the training; the others begin there."""


@pytest.mark.parametrize("name", evidence_unlabelled.UNLABELLED)
def test_losses_of_images_without_labels(name):
    loss = evidence_plan.WITHOUT_LABELS[name].make(weight=2.0)
    random = torch.Generator().manual_seed(0)
    segments = torch.arange(16).view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1).repeat(2, 1, 1)
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[1] = 255
    even = torch.tensor([0.95, 0.05]).log()[None, :, None, None].repeat(2, 1, 32, 32)
    noisy = (even + torch.randn(even.shape, generator=random)).requires_grad_()

    def added(logits, progress=0.5):
        loss.progress = progress
        return loss(logits, labels, segments) - pixelwise_loss(logits, labels)

    no_deviation = -2 * math.log(0.95) * ("match" in name or "pseudo" in name)
    assert added(even).item() == pytest.approx(no_deviation, abs=1e-6)
    shares = [added(noisy, progress).item() / added(noisy).item() for progress in (0, 0.25, 0.5)]
    assert shares == pytest.approx(SHARES.get(name, (0, 0, 1)), abs=1e-4)
    added(noisy).backward()
    assert not noisy.grad[0].any()
    assert noisy.grad[1].any()


def test_the_order_of_what_is_trained_for_the_headline():
    settings = {name: "" for name in evidence_plan.METHODS}
    jobs = evidence_plan.testing(settings, evidence_plan.RECOMMENDED, ["headline", "epochs"], [1, 2])
    assert {(job.part, job.seed) for job in jobs if job.part != "epochs"} == {
        *itertools.product(["factorial", "control"], [6, 7])
    }
    assert {job.scored for job in jobs if job.part == "epochs"} == {"validation"}


def test_the_scores_of_the_model_card_are_those_of_the_table():
    rows = pd.read_csv(evidence.FOLDER / "weights.csv").fillna({"iou_hair": -1}).to_dict("records")
    text = (paths.root() / "consensus_lib/models/weights/README.md").read_text("utf-8")
    lines = [line.split(" | ") for line in text.splitlines() if " to " in line and line.startswith("| `")]
    assert len(lines) == 11
    for name, where, *scores in lines:
        subset = where.partition(", ")[2] or "all"
        real = "photographs" in where
        (row,) = (
            row
            for row in rows
            if (row["weights"], row["subset"]) == (name.strip("| `"), subset)
            and (row["test_data"] == "lfw_part_labels") == real
        )
        assert int(where.split()[0]) == row["images"]
        last = "iou_occlusion" if row["weights"] == "occlusion" else "iou_hair"
        for key, said in zip(("mean_iou", "iou_face", last), scores, strict=True):
            low, high = map(float, row[f"{key}_interval"].split(".."))
            assert said.rstrip(" |") == f"{row[key]:.3f} ({low:.3f} to {high:.3f})"
    (covered,) = (row for row in rows if row["weights"] == "occlusion" and row["subset"] == "all")
    assert f"an IoU of {covered['complete_iou']:.3f}" in text
    assert f"and of {covered['complete_iou_covered_0.4_0.7']:.3f} where" in text


def test_coverage(tmp_path):
    interval_coverage.main(["--draws", "20", "--images", "10"], tmp_path / "interval_coverage.csv")
    found = pd.read_csv(tmp_path / "interval_coverage.csv")
    assert found.covered.between(0.5, 1).all()


def test_the_stored_coverage_is_what_the_protocol_says():
    five = pd.read_csv(interval_coverage.TABLE).query("seeds == 5")
    assert five.covered.between(0.93, 0.985).all()
    assert five.query("seed_sd >= 1 or own < 0.9").covered.between(0.93, 0.97).all()


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=[claim.sentence[:40] for claim in claims.CLAIMS])
def test_a_claim_stands_where_it_should_and_says_what_its_row_says(claim):
    file = paths.root() / claim.file
    if file.suffix == ".ipynb":
        text = " ".join("".join(cell["source"]) for cell in json.loads(file.read_text("utf-8"))["cells"])
    else:
        text = file.read_text("utf-8")
    assert " ".join(claim.sentence.split()) in " ".join(text.split())
    row = claims.find(pd.read_csv(claims.DIFFERENCES), *claim[2:4], claim.base, claim.part, claim.data)
    assert row.word == claim.says


def stored(end=""):
    return pd.read_csv(evidence.FOLDER / f"evidence{end}.csv")


def test_the_stored_evidence_is_whole():
    choices, rows = stored("-choices"), stored()
    asked = {name: len(evidence_plan.ALL[name].tries) for name in choices.method}
    assert choices.groupby("method").size().to_dict() == asked
    assert asked.keys() >= evidence.METHODS.keys()
    assert choices.groupby("method").chosen.sum().eq(1).all()
    best = choices[~choices.collapsed].sort_values("mean_iou").groupby("method").tail(1)
    assert best.chosen.all(), "the try with the best mean IoU among those without a collapsed class"
    settings = choices[choices.chosen].set_index("method").setting
    tested = rows[rows.part == "factorial"].query("method != 'constant prediction'")
    assert (tested.setting == tested.method.map(settings)).all()
    seeds = tested.groupby("method").seed.apply(set).to_dict()
    assert seeds.keys() == evidence.METHODS.keys()
    assert all(one >= set(evidence_plan.SEEDS) for one in seeds.values())
    with np.load(evidence.FOLDER / "evidence-images.npz") as images:
        kept = {key.rpartition("|")[0] for key in images.files}
    ids = {evidence.Job(*row).id for row in rows[list(evidence.Job._fields)].fillna("").values}
    assert kept == ids


def test_the_stored_thirds_are_of_the_stored_rows():
    thirds, rows = stored("-where"), stored()
    means = rows.groupby(["part", "method"]).component_error.mean()
    for (part, method, _), of_share in thirds[thirds.by != "class"].groupby(["part", "method", "by"]):
        assert len(of_share) == 3
        mean = np.average(of_share.component_error, weights=of_share.images)
        assert mean == pytest.approx(means[part, method], abs=2e-4)
    # As the README says:
    of_faces = thirds[(thirds.part == "factorial")].set_index(["method", "where"]).component_error
    assert (of_faces[evidence_plan.RECOMMENDED] < of_faces[evidence.CE]).all()
    covered = thirds[thirds.by == "occlusion's share of the face"].groupby("method").component_error
    for name in (evidence_plan.RECOMMENDED, evidence.CE):
        assert np.argmax(covered.get_group(name)) == 2


def test_the_numbers_of_the_evidence_in_the_readme():
    against, rows = stored("-differences"), stored()
    tested = rows[rows.part.isin(["factorial", "control"])].groupby("method")
    against = against[against.part.isin(["factorial", "control"])]
    text = (evidence.FOLDER / "README.md").read_text("utf-8").partition("### What came of it")[2]
    lines = [line for line in text.splitlines() if line[:1] == "|"]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert len(table) == 12
    short = {"mean IoU": "mean_iou", "component error": "component_error"}
    for method, seeds, mean_iou, component_error, words in table[2:]:
        name = method.removeprefix("*control:* ")
        means = tested.get_group(name)[list(short.values())].mean()
        assert mean_iou == f"{means.mean_iou:.3f}"
        assert component_error == f"{means.component_error:.2f}"
        if not words:
            continue
        assert int(seeds) == len(tested.get_group(name))
        of_both = [
            claims.find(against, name, score, evidence.CE, part, "photographs")
            for score, part in itertools.product(short.values(), ("factorial", "control"))
        ]
        found = {row.score: row.word for row in of_both if row is not None}
        if words == "not decided" or words.startswith("better in both"):
            assert set(found.values()) == {words.partition(" in both")[0]}
        else:
            said = dict(reversed(one.split(" in ")) for one in words.split(", "))
            assert found == {score: said.get(label, "not decided") for label, score in short.items()}


def test_the_stored_differences_are_those_of_the_stored_rows():
    against, rows = stored("-differences"), stored()
    five = rows[(rows.part == "factorial") & rows.seed.isin([0, *evidence_plan.SEEDS])]
    means = five.groupby("method")[["mean_iou", "component_error"]].mean()
    decided = against[(against.part == "factorial") & against.word.notna() & against.seeds.eq(5)]
    for _, row in decided.iterrows():
        assert [row["first"], row.second] == pytest.approx(
            [means[row.score][name] for name in (row.base, row.method)], abs=2e-4
        )
        significant = row.p_holm < 0.05 and not row.collapsed
        better = (row.difference > 0) == (row.score == "mean_iou")
        assert row.word == (["worse", "better"][better] if significant else "not decided")
    shown = verdict.factorial(against, rows, "factorial")
    assert shown.shape == (6, 6)
    constant = f"{verdict.constant_prediction().component_error:.3f}"
    assert shown.loc["constant prediction"].tolist()[3:] == [constant, "", ""]
    base = shown.loc["cross-entropy"]
    assert base["mean IoU", "alone"] == f"{means.mean_iou['cross-entropy']:.3f}"
    assert base["component error", "+ deviation"].endswith(", not decided")

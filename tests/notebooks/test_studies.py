"""The studies that notebooks read: they run, resume where they stopped, and their tables are whole."""

import shutil

import pandas as pd
import pytest

import baselines
import consensus
import distillation
import transfer
from consensus_lib import paths
from consensus_lib.losses import PRESETS
from consensus_lib.metrics.comparison import read_differences
from consensus_lib.models import POSTPROCESSING
from consensus_lib.teacher.pseudo_labels import choose

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


def test_transfer(run):
    options = {
        "recipes": "all",
        "seeds": 1,
        "images": 16,
        "epochs": 1,
        "few": 8,
        "few-epochs": 1,
        "rates": 0.01,
    }
    options = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    found = run(transfer, options)
    assert found[["study", "variant", "train_images"]].values.tolist() == [
        ["ablation", "all", 16],
        ["start", "scratch", 8],
        ["start", "drawn faces", 8],
    ]
    assert found.command[0] == "python notebooks/studies/transfer.py " + " ".join([*options, *SMALL])


def test_consensus(run):
    found = run(consensus, ["--losses", "CE", "--tuned", "Eq. 8, classes", "--seeds", "3", "--epochs", "2"])
    assert found[["variant", "seed", "epochs"]].values.tolist() == [
        ["CE", 3, 2],
        ["CE, then Eq. 8, classes", 3, 1],
    ]
    with pytest.raises(SystemExit):
        consensus.main(["--epochs", "3"])


def test_distillation(run, monkeypatch):
    monkeypatch.setattr(distillation, "HUMAN", {50: 1, 0: 1})
    monkeypatch.setattr(distillation, "choose", lambda records: choose(records, face_area=(0.0, 1.0)))
    options = ["--seeds", "3", "--drawn", "32", "--photographs", "20", "--epochs", "1", "--human", "50"]
    found = run(distillation, options)
    assert found[["first", "human_labels", "network", "epochs"]].values.tolist() == [
        ["teacher", 0, "UNet", 1],
        ["nothing", 12, "FaceOccNet", 2],
        [distillation.LONG, 12, "FaceOccNet", 1],
        ["drawn faces", 0, "FaceOccNet", 1],
        ["drawn faces", 12, "FaceOccNet", 1],
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
    ("arguments", "expected"),
    [
        (["--size", "50"], "image: expected [B,3,H,W] with H and W divisible by"),
        (["--size", "0"], "argument --size: expected a whole number of at least 1, got 0"),
        (["--width", "0"], "width: expected at least 0."),
        (["--width", "nan"], "argument --width: expected a finite number of at least 0, got nan"),
        (["--epochs", "0"], "argument --epochs: expected a whole number of at least"),
        (["--seeds", "-1"], "argument --seeds: expected a whole number of at least"),
        ([], "expected a prepared data set in"),
    ],
)
@pytest.mark.parametrize("module", [transfer, consensus, distillation, baselines])
def test_wrong_values_are_named_in_one_line(module, arguments, expected, request, tmp_path, capsys):
    if arguments:
        request.getfixturevalue("run")  # prepares the photographs
    with pytest.raises(SystemExit) as left:
        module.main(arguments, tmp_path / "table.csv")
    assert left.value.code == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert not paths.runs_dir().exists()


@pytest.mark.parametrize("module", [transfer, consensus, distillation, baselines])
def test_the_stored_table_is_whole(module):
    found = pd.read_csv(module.TABLE)
    assert not found.isna().any(axis=None)
    assert found.command.nunique() == 1, "rows of different settings in one table"
    kinds = [c for c in ("study", "variant", "first", "human_labels", "learning_rate") if c in found]
    seeds = found.groupby(kinds).seed.apply(sorted)
    assert {tuple(one) for one in seeds} == {(0, 1, 2)}
    known = {
        transfer: transfer.RECIPES,
        consensus: consensus.LOSSES,
        distillation: distillation.FIRST,
        baselines: baselines.LOSSES,
    }
    assert set(known[module]) <= set(found["first" if module is distillation else "variant"])


def test_what_was_chosen_is_stored_once_more_with_other_seeds_and_images():
    found = pd.read_csv(baselines.TABLE.with_stem("baselines-again"))
    assert not found.isna().any(axis=None)
    assert found.split.eq("validation").all()
    chosen = [baselines.BASE, "Lovász-Softmax", *(preset.title for preset in PRESETS.values())]
    for name in chosen:
        assert found[found.variant == name].seed.tolist() == [3, 4, 5]

"""The programme for a GPU: pieces and their budget, what it trains on, and that no kill loses anything."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from consensus_lib.data import Augment, FaceDataset, loader
from consensus_lib.metrics.comparison import paired_bootstrap
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import FaceOccNet
from gpu import estimates, fast, right, scoring
from gpu.__main__ import main, measured, shown
from gpu.data import Arrays, Resident, rendered
from gpu.filing import VERSION, Filing, Piece
from gpu.recipes import BASE, PROFILES, RECIPES, TUNED
from gpu.trainings import NEAR, TABLE3, Trainings

ROOT = Path(__file__).parents[2]
SMOKE = PROFILES["smoke"]
NOT_THERE = ["papermill", "pooch", "yaml", "matplotlib", "ipywidgets", "nbformat", "IPython"]
ABOUT = {"profile": "smoke", "device": "cpu"}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def filing(folder, budget=1000.0, clock=None, about=ABOUT, score=scoring.score):
    return Filing(folder / "out", folder / "work", budget, about, score, clock=clock or Clock())


def piece(run, id="1-x/a", kind="a kind", **more):
    return Piece(id, kind, (1.0, 0.0), run, **more)


def log(work):
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def training(filed, profile=SMOKE):
    return Trainings(profile, torch.device("cpu"), filed, None, None, 1)


def every(filed, profile=SMOKE):
    trainings = training(filed, profile)
    yield from right.pieces(profile, torch.device("cpu"))
    yield from fast.pieces(profile, torch.device("cpu"), trainings)
    yield from trainings.table3()
    yield from trainings.occlusion()


def test_a_budget_of_20_seconds_is_kept_to(tmp_path):
    calls = []
    row = {"seconds": 3.0, "mean_iou": 0.5, "rate": 0.003, "recipe": "consensus", "epochs": 1}
    for _ in range(100):
        clock = Clock()
        filed = filing(tmp_path, 20, clock)

        def fake(piece, clock=clock):
            def run():
                calls.append(piece.id)
                clock.now += 3
                return row | ({"train_images": 16} if piece.id.endswith("faces") else {})

            # Half of them take longer than was estimated: measured, they no longer do.
            return piece._replace(run=run, estimate=(2.0, 0.0), needs=(), keeps=None)

        filed.go(map(fake, every(filed)))
        assert clock.now <= 20 + 1
        if not filed.left:
            break
        assert all("would take" in reason for reason in filed.left.values())
        assert "left: would take" in shown(filed)
    ids = [piece.id for piece in every(filing(tmp_path))]
    assert sorted(calls) == sorted({*ids}) == sorted(ids)


def test_a_piece_is_expected_to_take_what_the_last_of_its_kind_took(tmp_path):
    filed = filing(tmp_path, budget=100)
    filed.go([piece(lambda: {"seconds": 60.0}, units=2.0), piece(dict, id="1-x/b", units=4.0)])
    assert filed.left == {"1-x/b": "would take 120 s of 100 s"}
    assert filed.cost(piece(dict, kind="another kind")) == 1.0


def test_a_failed_piece_is_filed_and_tried_again(tmp_path, capsys):
    def fail():
        raise RuntimeError("out of memory\nand more")

    filed = filing(tmp_path)
    waits = piece(dict, "1-x/b", needs=("1-x/a",))
    filed.go([piece(fail), waits])
    assert "out of memory" in capsys.readouterr().err
    assert filed.left == {"1-x/b": "waits for 1-x/a"}
    assert measured(filed)[0]["state"] == "failed: RuntimeError: out of memory"
    again = filing(tmp_path)
    again.go([piece(lambda: {"answer": 42}), waits])
    assert again.done("1-x/b")
    assert again.rows["1-x/a"]["answer"] == 42


def test_rows_of_another_version_are_made_anew_and_of_another_device_refused(tmp_path, monkeypatch):
    filing(tmp_path).go([piece(dict)])
    assert filing(tmp_path).rows.keys() == {"1-x/a"}
    for other in ({"device": "cuda"}, {"profile": "full"}):
        with pytest.raises(ValueError, match="out: expected"):
            filing(tmp_path, about=ABOUT | other)
    monkeypatch.setattr("gpu.filing.VERSION", VERSION + 1)
    assert not filing(tmp_path).rows


def test_a_piece_whose_file_is_gone_is_done_again(tmp_path):
    file, runs = tmp_path / "faces", []
    keeps = piece(lambda: runs.append(file.touch()) or {}, keeps=file)
    for _ in range(2):
        filing(tmp_path).go([keeps])
    assert len(runs) == 1
    file.unlink()
    filing(tmp_path).go([keeps])
    assert len(runs) == 2


def test_masks_of_a_killed_call_are_scored_by_the_next(tmp_path):
    def masks():
        (tmp_path / "work/masks").mkdir(parents=True, exist_ok=True)
        (tmp_path / "work/masks/a.masks").write_bytes(b"masks")
        return tmp_path / "work/masks/a.masks"

    class Killed(BaseException):
        pass

    def kill(file):
        raise Killed

    with pytest.raises(Killed):
        filing(tmp_path, score=kill).go([piece(masks)])
    again = filing(tmp_path, score=lambda file: ({"mean_iou": 1.0}, {"confusion": []}))
    again.go([piece(masks)])
    assert again.rows["1-x/a"]["mean_iou"] == 1.0
    assert [line["id"] for line in log(tmp_path / "work") if "cost" in line] == ["1-x/a"]
    assert not [*(tmp_path / "work/masks").iterdir()]
    assert json.loads((tmp_path / "out/images.jsonl").read_text()) == {"id": "1-x/a", "confusion": []}


@pytest.mark.parametrize("augment", [None, Augment(flip=0.5), Augment(rotation=20, scale=0.8, colour=0.2)])
def test_epochs_on_the_device_are_those_of_the_loader(tiny_folder, augment):
    data = FaceDataset(tiny_folder, "train", "parts", augment=augment, seed=3)
    still = FaceDataset(tiny_folder, "train", "parts").__getitems__(range(12))
    images = ((still["image"] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    resident = Resident(Arrays(images, still["labels"].byte().numpy()), torch.device("cpu"))
    batches = loader(data, 5, shuffle=True)
    for epoch in resident.epochs(2, 3, 5, augment, {"kind": "component"}):
        for expected, batch in zip(batches, epoch, strict=True):
            assert torch.equal(batch.images, expected["image"])
            assert torch.equal(batch.labels, expected["labels"])
            assert torch.equal(batch.blobs.ids >= 0, batch.labels != 255)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augment", [Augment(flip=0.5), Augment(rotation=20, scale=0.8, colour=0.2)])
def test_cuda_augmentation_equals_the_cpus(augment):
    """Images to 1e-3 of their range of 2; of the moved labels one in a thousand may fall to a neighbour."""
    arrays = rendered("train", 8, 64, "parts", None)
    pair = [Resident(arrays, torch.device(name)).epoch(0, 1, 8, augment)[0] for name in ("cpu", "cuda")]
    torch.testing.assert_close(pair[1].images.cpu(), pair[0].images, atol=1e-3, rtol=0)
    off = (pair[1].labels.cpu() != pair[0].labels).float().mean()
    assert off <= (0 if augment.flips_only else 1e-3)


def scored(tmp_path, seed, n=6, k=3):
    """Return the scores that the programme and the library take of the same random masks."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(generator.integers(0, k, (n, 8, 8)), 4, 1), 4, 2).astype(np.uint8)
    pred = np.where(generator.random(truth.shape) < 0.1, generator.integers(0, k, truth.shape), truth)
    pred, truth[:, :2] = pred.astype(np.uint8), 255
    file, names = tmp_path / f"{seed}.npz", ["background", "face", "hair"]
    np.savez(file, pred=pred, truth=truth, classes=np.array(names), row=json.dumps({"split": "test"}))
    expected = StructureScores(names)
    expected.update(torch.from_numpy(pred), torch.from_numpy(truth))
    return scoring.score(str(file)), expected


def test_scores_and_intervals_are_those_of_the_library(tmp_path):
    found, expected = zip(*(scored(tmp_path, seed) for seed in range(4)), strict=True)
    for (row, _), scores in zip(found, expected, strict=True):
        kept = {k: v for k, v in scores.compute().items() if k.startswith(scoring.SCORES)}
        assert len(kept) > 15
        assert row.items() >= kept.items()
    filed = [scoring.Filed(json.loads(json.dumps(images))) for _, images in found]
    for key in ("mean_iou", *scoring.KEPT):
        ours, theirs = (paired_bootstrap(which[:2], which[2:], key) for which in (filed, expected))
        assert ours[1:5] == pytest.approx(theirs[1:5], abs=1e-4)


def test_operations_are_those_of_the_convolutions():
    flops = []
    network = FaceOccNet(3, 0.25)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda conv, _, out: flops.append(2 * out.numel() * conv.weight[0].numel())
            )
    network(torch.zeros(1, 3, 64, 64))
    work = estimates.work(3, 0.25, 64)
    assert work.flops == 3 * sum(flops) - flops[0]  # the image has no gradient
    assert 0 < work.saved_bytes < work.bytes


def test_the_committed_estimates_are_what_the_function_gives(tmp_path):
    main(["--estimates", "--out", str(tmp_path / "estimates.csv")])
    found, kept = (pd.read_csv(file) for file in (tmp_path / "estimates.csv", estimates.TABLE))
    pd.testing.assert_frame_equal(found, kept, rtol=0.02)
    assert kept.seconds[kept.kind == "training"].max() <= 90


def test_the_fewest_epochs_near_the_best_are_chosen(tmp_path):
    filed = filing(tmp_path)
    trainings = training(filed)
    assert trainings.chosen() == {"rates": dict.fromkeys(TUNED, 3e-3), "epochs": 2, "choice": "none yet"}
    for name, best in (("cross-entropy", 0.01), ("consensus", 0.003)):
        for rate in SMOKE.rates:
            row = {"recipe": name, "rate": rate, "epochs": 1, "mean_iou": 0.8 + 0.01 * (rate == best)}
            filed.rows[f"{TABLE3}/tune/{name}/rate {rate:g}"] = row
        row = {"recipe": name, "rate": best, "epochs": 2, "mean_iou": 0.81 + NEAR / 2}
        filed.rows[f"{TABLE3}/tune/{name}/epochs 2"] = row
    chosen = trainings.choose()
    assert (chosen["rates"], chosen["epochs"]) == ({"cross-entropy": 0.01, "consensus": 0.003}, 1)
    filed.rows[f"{TABLE3}/tune/consensus/epochs 2"]["mean_iou"] = 0.9
    assert trainings.choose()["epochs"] == 2


@pytest.mark.parametrize("wrong", [["--device", "cpu"], ["--profile", "smoke", "--data", "nowhere"]], ids=str)
def test_wrong_arguments_are_named(wrong, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    assert f"{wrong[-2]}: expected" in capsys.readouterr().err


def test_the_full_profile_trains_on_no_stand_ins(tmp_path):
    filed = filing(tmp_path)
    ids = [piece.id for piece in every(filed, profile=PROFILES["full"])]
    assert not [id for id in ids if id.startswith(TABLE3)]
    assert filed.left == {TABLE3: "needs photographs: DATA=FOLDER"}


def test_faces_are_drawn_again_only_if_a_training_needs_them(tmp_path):
    trainings = training(filed := filing(tmp_path))
    faces, *others = trainings.occlusion()
    filed.rows = {piece.id: {"train_images": 16} for piece in (faces, *others)}
    assert next(trainings.occlusion()).keeps is None
    del filed.rows[others[-1].id]
    assert next(trainings.occlusion()).keeps == trainings.faces


@pytest.mark.slow
def test_killed_in_each_part_nothing_is_lost_and_nothing_repeated(tmp_path):
    """As a GPU machine runs it: without what is not there; each call is killed in the middle of a part."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nfor name in {NOT_THERE}: sys.modules[name] = None\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    command = f"{sys.executable} -m notebooks.studies.gpu --profile smoke --out {out} --workers".split()
    run = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}

    def lines():
        return [line for file in (tmp_path / "runs").glob(".gpu/*/log.jsonl") for line in log(file.parent)]

    def begun(part):
        return [line for line in lines() if "cost" in line and line["id"].startswith(part)]

    def filed():
        return {k: v for file in out.glob("*.json") for k, v in json.loads(file.read_text()).items()}

    kept, interrupted = {}, set()
    for part in "1234":
        # With a scorer for part 3 alone: it loads torch once more.
        process = subprocess.Popen([*command, "1" if part == "3" else "0"], **run)
        while len(begun(part)) < 2 and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        scorers = psutil.Process(process.pid).children()
        process.kill()
        process.communicate()
        assert not psutil.wait_procs(scorers, timeout=60)[1]
        kept |= filed()
        interrupted.add(lines()[-1]["id"] if "cost" in lines()[-1] else begun(part)[-1]["id"])
    done = subprocess.run([*command, "0"], stdout=subprocess.PIPE, **run)
    assert done.returncode == 0, done.stderr
    rows = filed()
    assert kept.items() <= rows.items()
    assert rows.keys() == {piece.id for piece in every(filing(tmp_path / "none"))}
    starts = [line for line in lines() if "cost" in line]
    again = {id for id in rows if sum(line["id"] == id for line in starts) > 1}
    assert again <= interrupted
    assert all(line["cost"] <= line["remaining"] for line in starts)
    assert f"{len(rows)} done, 0 left" in done.stdout
    assert rows["1-right/losses"]["right"]
    assert len(list(out.iterdir())) <= 8
    for row in rows.values():
        assert row.keys() >= {"device", "torch", "commit", "command", "seconds", "peak_gib", "estimate"}
        assert row.get("data") in (None, "rendered faces")
    with (out / "differences.csv").open() as file:
        assert {row["recipe"] for row in csv.DictReader(file)} == {r.name for r in RECIPES if r.name != BASE}

"""Two processes do what one does. They are real processes, and talk by gloo on loopback."""

import datetime
import json
import os
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from consensus_lib.data import Augment, FaceDataset
from consensus_lib.experiments.train_command import main
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.training import cosine, distributed, evaluate, fit, load_checkpoint

ROOT = Path(__file__).parents[2]
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
TIMES = {"seconds", "images_per_second", "evaluation_seconds"}


class Interrupt(Exception):
    """Stands for a kill."""


def interrupt(*_):
    raise Interrupt


def plain(seed=0):
    """Return a network without batch statistics and dropout: what it does to an image is its own affair."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 3, 3, padding=1))


def face_net(seed=0):
    torch.manual_seed(seed)
    return FaceOccNet(width=0.0625, dropout=0.2)


def train(folder, model, **options):
    augment = Augment(flip=0.5, rotation=10, scale=0.9)  # leaves ignored pixels
    data = FaceDataset(folder, "train", "parts", augment=augment, progress=False)
    options = {
        "loss": ConsensusLoss("component"),
        "epochs": 2,
        "batch_size": 4,
        "validation": FaceDataset(folder, "validation", "parts", progress=False, limit=3),
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        "schedule": cosine,
        "device": "cpu",
        "precision": "float32",
        "progress": False,
        **options,
    }
    history = fit(model, data, options.pop("loss"), **options)
    return weights(model), history


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


SEEDS = {}


def watched(logits, labels):
    """Be a loss that notes the seeds of steps, in their order."""
    SEEDS[torch.initial_seed()] = None
    return pixelwise_loss(logits, labels)


def trainings(folder, out):
    """Train and evaluate in every way, in this process or together with another one."""
    rank, found = distributed.rank(), {}
    # Each process begins with other weights: those of the first one count.
    found["plain"] = train(folder, plain(rank), out=out / "plain")
    SEEDS.clear()
    found["faces"] = train(folder, face_net(rank), loss=watched)
    found["seeds"] = list(SEEDS)
    with pytest.raises(Interrupt):
        train(folder, face_net(rank), loss=watched, out=out / "faces", on_epoch=interrupt)
    found["resumed faces"] = train(folder, face_net(99), loss=watched, out=out / "faces")
    for split in ("train", "test"):
        data = FaceDataset(folder, split, "parts", progress=False, limit=3)  # shares of 2 and 1
        scores = evaluate(plain(), data, scores=StructureScores)
        found[split] = scores.compute(), scores.per_image()
    return found


def fails_in_the_second_process(logits, labels):
    return interrupt() if distributed.rank() == 1 else pixelwise_loss(logits, labels)


def work(rank, folder, out, meeting):
    """Be one of two processes."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{meeting}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    found = trainings(folder, out / "two")
    found["from one"] = train(folder, plain(99), out=out / "from one")
    with pytest.raises(Interrupt):
        train(folder, plain(), out=out / "from two", on_epoch=interrupt)
    with pytest.raises(ValueError, match="batch_size"):
        train(folder, plain(), batch_size=5, out=out / "refused")
    began = time.monotonic()
    with pytest.raises(Interrupt if rank == 1 else RuntimeError):  # the connection closes
        train(folder, plain(), loss=fails_in_the_second_process)
    found["ended after"] = time.monotonic() - began
    dist.destroy_process_group()
    torch.save(found, out / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_tiny):
    """What one process found, and what each of two did."""
    out = tmp_path_factory.mktemp("distributed")
    folder = write_tiny(out / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONSENSUS_DATA_DIR", str(out / "data"))
        patch.setenv("GLOO_SOCKET_IFNAME", LOOPBACK)
        with pytest.raises(Interrupt):
            train(folder, plain(), out=out / "from one", on_epoch=interrupt)
        one = trainings(folder, out / "one")
        torch.multiprocessing.spawn(work, (folder, out, out / "meeting"), nprocs=2)
        two = [torch.load(out / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
        one["from two"] = train(folder, plain(99), out=out / "from two")
    return types.SimpleNamespace(out=out, one=one, two=two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "faces", "resumed faces", "from one"])
def test_both_processes_end_with_the_same_weights_and_history(runs, name):
    first, second = (found[name] for found in runs.two)
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(second[0][key], value) for key, value in first[0].items())
    assert first[1] == second[1]  # times too: the rate is that of both


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [("plain", None), ("from one", ["processes: 1 → 2"]), ("from two", ["processes: 2 → 1"])],
)
def test_two_processes_train_like_one_and_a_training_moves_from_one_to_two_and_back(runs, name, changes):
    got, history = (runs.one if name == "from two" else runs.two[0])[name]
    expected, whole = runs.one["plain"]
    start = weights(plain())
    for key, value in expected.items():  # two processes add in another order: the last digits differ
        torch.testing.assert_close(got[key], value, rtol=0, atol=1e-5)
        assert (value - start[key]).abs().max() > 1e-2
    for row, wanted in zip(history, whole, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert row["mean_iou"] == pytest.approx(wanted["mean_iou"], abs=2e-3)  # a pixel may turn
        assert all(row[key] == wanted[key] for key in ("epoch", "step", "lr", "images"))
    assert [row.get("changes") for row in history] == [None, changes]


@pytest.mark.slow
def test_batch_statistics_are_shared_and_the_training_resumes_to_the_bit(runs):
    for found in runs.two:
        (resumed, history), (whole, expected) = found["resumed faces"], found["faces"]
        assert all(torch.equal(resumed[name], value) for name, value in whole.items())
        for row, wanted in zip(history, expected, strict=True):
            assert all(row[key] == wanted[key] for key in wanted.keys() - TIMES)
    losses = [row["loss"] for row in runs.two[0]["faces"][1]]
    assert losses == pytest.approx([row["loss"] for row in runs.one["faces"][1]], rel=0.2)


@pytest.mark.slow
def test_dropout_differs_by_process_and_epoch_only(runs):
    first, second = (found["seeds"] for found in runs.two)
    assert first == runs.one["seeds"]
    assert len({*first, *second}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_scores_are_those_of_one_process_in_the_order_of_the_data(runs, split):
    scores, images = runs.one[split]
    assert scores["images"] == 3
    for found in runs.two:
        assert found[split][0] == scores
        for name, values in images.items():
            np.testing.assert_array_equal(found[split][1][name], values)


@pytest.mark.slow
def test_the_first_process_alone_writes(runs):
    assert not (runs.out / "refused").exists()
    one, two = runs.out / "one/faces", runs.out / "two/faces"
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    states = [json.loads((folder / "checkpoint.json").read_text()) for folder in (one, two)]
    assert [state.pop("machine")["processes"] for state in states] == [1, 2]
    assert states[0] == states[1]
    model, _ = load_checkpoint(two)  # no other names than one process gives
    assert all(torch.equal(v, runs.two[0]["faces"][0][k]) for k, v in model.state_dict().items())


@pytest.mark.slow
def test_a_process_does_not_wait_for_one_that_failed(runs):
    assert max(found["ended after"] for found in runs.two) < 30


def test_synchronised_batch_normalisation_keeps_parameters_and_names():
    model = face_net()
    image, before = torch.rand(2, 3, 32, 32), dict(model.named_parameters())
    expected, names = model.eval()(image), list(model.state_dict())
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # what happens on CUDA
    assert list(model.state_dict()) == names
    assert all(before[name] is parameter for name, parameter in model.named_parameters())
    assert torch.equal(model(image), expected)  # it scores without a process group, on any device


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert distributed.init("mps") == "mps"
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.all_gather_object(3) == [3]
    assert distributed.broadcast_object(4) == distributed.main_process_first(lambda: 4) == 4
    model = plain()
    assert distributed.wrap_ddp(model, torch.device("cpu")) is model
    distributed.shutdown()
    for rank, device in (("0", "mps"), ("99", "cuda")):  # not for several, and no GPU for each
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(ValueError, match="device"):
            distributed.init(device)


@pytest.mark.slow
def test_the_entry_point_trains_with_torchrun_and_goes_on_alone(tmp_path, write_tiny, capsys):
    write_tiny(tmp_path / "data/lfw_part_labels-128")
    out = tmp_path / "out"
    line = "--data lfw_part_labels --size 32 --images 8 --width 0.0625 --epochs 1 --batch-size 4 --device cpu"
    arguments = [*line.split(), "--loss-options", "beta=2", "--out", str(out)]
    torchrun = "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2"
    settings = {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": LOOPBACK, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *torchrun.split(), "-m", "consensus_lib", "train", *arguments],
        env=os.environ | settings | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    together = json.loads((out / "result.json").read_text())
    found = [together[key] for key in ("processes", "loss_options", "images")]
    assert found == [2, "beta=2", 4]
    assert done.stdout.count("mean IoU") == 1  # one of them speaks
    # The checkpoint does not tell how many processes made it: one finds the training finished.
    weights = (out / "checkpoint-0001.safetensors").read_bytes()
    assert main(arguments) == 0
    assert json.loads((out / "result.json").read_text()) == together | {"processes": 1}
    assert (out / "checkpoint-0001.safetensors").read_bytes() == weights

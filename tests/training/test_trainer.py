import itertools
import json
import math
import types
from functools import partial

import pytest
import torch
from torch import nn

from consensus_lib.data import Augment, FaceDataset
from consensus_lib.losses import ConsensusLoss, PixelwiseLoss, consensus_loss, pixelwise_loss
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import NETWORKS, FaceOccNet
from consensus_lib.training import CheckpointError, cosine, evaluate, fit, load_checkpoint, predict


class Interrupt(Exception):
    """Stands for a kill: raised by ``on_epoch`` after the epoch was stored."""


def begin(data, out, epochs=1, **options):
    """Leave a training after so many epochs."""

    def stop(history):
        if len(history) == epochs:
            raise Interrupt

    with pytest.raises(Interrupt):
        train(data, out=out, on_epoch=stop, **options)


def network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return FaceOccNet(width=0.0625, dropout=dropout)


def train(data, model=None, **options):
    options = {
        "epochs": 3,
        "batch_size": 4,
        "device": "cpu",
        "precision": "float32",
        "progress": False,
        "schedule": cosine,
        **options,
    }
    model = model or network()
    return model, fit(model, data, options.pop("loss", pixelwise_loss), **options)


def refused(data, out, message, **options):
    """Check that a training is not resumed, and that nothing has changed."""
    model = options.pop("model", None) or network(seed=99)
    start, content = weights(model), {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(CheckpointError, match=message):
        train(data, model, out=out, **options)
    assert torch.equal(weights(model), start)
    assert {path: path.read_bytes() for path in out.iterdir()} == content


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.state_dict().values()])


def untimed(history):
    times = {"seconds", "images_per_second", "evaluation_seconds"}
    return [{key: value for key, value in row.items() if key not in times} for row in history]


def rising(progress):
    return 5 * progress


def falling(progress):
    return 2 - 2 * progress


def one_cycle(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_tiny):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def data(folder):
    return FaceDataset(folder, "train", "parts", augment=Augment(flip=0.5, rotation=10, scale=0.9))


@pytest.fixture(scope="module")
def validation(folder):
    return FaceDataset(folder, "validation", "parts")


@pytest.fixture(scope="module")
def whole(data, validation, tmp_path_factory):
    """A training that was never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    model, history = train(data, validation=validation, out=out)
    return types.SimpleNamespace(model=model, history=history, out=out)


def test_training_learns_keeps_a_history_and_scores_what_it_predicts(data, validation):
    adam = partial(torch.optim.Adam, lr=1e-2)
    model, history = train(data, epochs=24, validation=validation, evaluate_every=5, optimizer=adam)
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert [row["epoch"] for row in history] == list(range(1, 25))
    assert [row["step"] for row in history] == list(range(3, 73, 3))
    assert all(b["seconds"] > a["seconds"] > 0 for a, b in itertools.pairwise(history))
    assert [row["epoch"] for row in history if "mean_iou" in row] == [5, 10, 15, 20, 24]

    labels = torch.stack([validation[i]["labels"] for i in range(len(validation))])
    predicted, scores = predict(model, validation), evaluate(model, validation, scores=StructureScores)
    assert scores.compute()["mean_iou"] == history[-1]["mean_iou"] > 0.7
    assert predicted.dtype == torch.uint8
    assert (predicted == labels).double().mean().item() == scores.compute()["pixel_accuracy"]
    assert len(scores.per_image()["hausdorff95"]) == len(validation)
    assert model.training  # evaluation leaves the mode as it was


def test_the_folder_holds_what_is_promised_and_a_finished_training_is_not_repeated(data, validation, whole):
    names = {path.name for path in whole.out.iterdir()}
    assert names == {"checkpoint.json", "checkpoint-0003.safetensors", "history.jsonl"}
    lines = [json.loads(line) for line in (whole.out / "history.jsonl").read_text().splitlines()]
    assert lines == whole.history
    loaded, record = load_checkpoint(whole.out)
    assert torch.equal(weights(loaded), weights(whole.model))
    assert record["classes"] == ["background", "face", "hair"]
    assert not loaded.training
    again, same = train(data, network(seed=99), out=whole.out, on_epoch=pytest.fail)
    assert torch.equal(weights(again), weights(whole.model))
    assert same == whole.history


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (1, {}),
        (2, {"schedule": None}),
        (2, {"schedule": one_cycle}),
        (1, {"loss": ConsensusLoss("component", alpha=rising, beta=falling, pixel_weight=1.0)}),
    ],
    ids=["cosine", "constant", "one cycle", "loss"],
)
def test_an_interrupted_training_ends_with_the_same_bits(data, validation, tmp_path, whole, stop, options):
    options = options | {"validation": validation}
    model, history = train(data, **options) if len(options) > 1 else (whole.model, whole.history)
    begin(data, tmp_path / "run", stop, **options)
    # Resumed in another process, the network starts from other weights: all must come from the file.
    resumed, resumed_history = train(data, network(seed=99), out=tmp_path / "run", **options)
    assert torch.equal(weights(resumed), weights(model))
    assert untimed(resumed_history) == untimed(history)


def test_an_interrupt_in_the_first_epoch_can_be_resumed(data, tmp_path, whole):
    def interrupted(*_):
        raise Interrupt

    loss = PixelwiseLoss()
    handle = loss.register_forward_pre_hook(interrupted)
    with pytest.raises(Interrupt):
        train(data, loss=loss, out=tmp_path / "run")
    handle.remove()
    resumed, _ = train(data, network(seed=99), loss=loss, out=tmp_path / "run")
    assert torch.equal(weights(resumed), weights(whole.model))


def test_a_training_keeps_its_precision_on_a_machine_that_would_take_another(data, tmp_path):
    model, history = train(data, precision="bfloat16")
    begin(data, tmp_path / "run", precision="bfloat16")
    resumed, resumed_history = train(data, network(seed=99), precision="auto", out=tmp_path / "run")
    assert torch.equal(weights(resumed), weights(model))
    assert untimed(resumed_history) == untimed(history)
    assert [row["precision"] for row in resumed_history] == ["bfloat16"] * 3


def test_more_epochs_at_a_constant_rate_are_those_of_a_longer_training(data, tmp_path):
    constant = {"schedule": None, "loss": ConsensusLoss("component")}
    whole, history = train(data, epochs=4, **constant)
    train(data, epochs=2, out=tmp_path / "run", **constant)
    longer, found = train(data, network(seed=99), epochs=4, out=tmp_path / "run", **constant)
    assert torch.equal(weights(longer), weights(whole))
    assert found[2].pop("changes") == ["epochs: 2 → 4"]
    assert untimed(found) == untimed(history)
    refused(data, tmp_path / "run", "epochs", epochs=3, **constant)


def grouped(rate, first=1):
    """Return a maker of an optimiser whose last parameters have a rate of their own."""

    def make(parameters):
        parameters = list(parameters)
        return torch.optim.Adam([{"params": parameters[:first]}, {"params": parameters[first:], "lr": rate}])

    return make


PLANNED = {"schedule": None, "loss": ConsensusLoss(beta=rising)}


@pytest.mark.parametrize(
    ("named", "first", "second"),
    [
        ("epochs", {}, {"epochs": 2}),  # the schedules of the rate and of the loss were planned for one
        ("epochs", PLANNED, PLANNED | {"epochs": 2}),
        ("precision", {"precision": "bfloat16"}, {"precision": "float32"}),
        ("batch_size", {"batch_size": 4}, {"batch_size": 6}),
        *(
            (name, {name: make(0)}, {name: make(1)})
            for name, make in (
                ("loss", lambda n: partial(consensus_loss, alpha=n)),
                ("schedule", lambda n: partial(torch.optim.lr_scheduler.StepLR, gamma=0.1 + n)),
                ("optimizer", lambda n: grouped(0.01 + n)),
                ("optimizer", lambda n: grouped(0.01, 1 + n)),
                ("model", lambda n: nn.Conv2d(3, 3, 3 + 2 * n, padding=1 + n)),
                ("model", lambda n: nn.Conv2d(3, 3, 3, padding=1 + n, dilation=1 + n)),
            )
        ),
    ],
)
def test_another_setting_is_refused(data, tmp_path, named, first, second):
    train(data, out=tmp_path / "run", **{"epochs": 1} | first)
    refused(data, tmp_path / "run", rf"\b{named}: expected", **{"epochs": 1} | second)


def test_what_cannot_be_described_trains_but_is_not_resumed(data, tmp_path):
    def loss(logits, labels):
        return pixelwise_loss(logits, labels)

    train(data, loss=loss, epochs=1, out=tmp_path / "run")
    refused(data, tmp_path / "run", "loss", loss=loss)
    assert len(train(data, loss=loss, epochs=1, out=tmp_path / "run", resume=False)[1]) == 1


def test_workers_and_blobs_from_the_data_do_not_change_the_result(data):
    loss = ConsensusLoss("component", min_size=4)
    model, history = train(data, loss=loss, epochs=2)
    prepared, other = train(data.with_blobs(**loss.blob_options), loss=loss, epochs=2, workers=2)
    assert torch.equal(weights(prepared), weights(model))
    assert untimed(other) == untimed(history)


def test_a_loss_gets_what_it_asks_for_and_is_told_the_progress(data):
    class Asking(nn.Module):
        batch_keys, progress = ("index", "not there"), 0.0

        def forward(self, logits, labels, index):
            seen.append((self.progress, index.tolist()))
            return pixelwise_loss(logits, labels)

    seen = []
    train(data, loss=Asking(), epochs=2)
    progress, indices = zip(*seen, strict=True)
    assert progress == pytest.approx([i / 6 for i in range(6)])
    assert sorted(itertools.chain(*indices[:3])) == list(range(12))


def test_a_loss_that_is_not_finite_stops_the_training(data, tmp_path):
    def broken(logits, labels):
        return logits.mean() * math.nan

    with pytest.raises(FloatingPointError, match="loss"):
        train(data, loss=broken, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/checkpoint.json").read_text())["epoch"] == 0


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_checkpoint_says_which_network_it_is_of(data, tmp_path, kind):
    model, _ = train(data, kind(width=0.125, dropout=0.1), epochs=1, out=tmp_path / "run")
    loaded, _ = load_checkpoint(tmp_path / "run")
    assert type(loaded) is kind
    assert (loaded.num_classes, loaded.width, loaded.dropout) == (3, 0.125, 0.1)
    assert torch.equal(weights(loaded), weights(model))


def test_a_checkpoint_that_does_not_fit_is_named(data, tmp_path):
    out, record = tmp_path / "run", tmp_path / "run/checkpoint.json"
    model, _ = train(data, nn.Conv2d(3, 3, 1), epochs=1, out=out)
    with pytest.raises(CheckpointError, match="model"):  # of a network of one's own
        load_checkpoint(out)
    with pytest.raises(CheckpointError, match="FaceOccNet"):
        load_checkpoint(out, network())

    state = json.loads(record.read_text())
    del state["format"]  # an earlier version's loads, and is not resumed
    record.write_text(json.dumps(state))
    refused(data, out, "format", model=nn.Conv2d(3, 3, 1))
    assert torch.equal(weights(load_checkpoint(out, nn.Conv2d(3, 3, 1))[0]), weights(model))

    (out / "checkpoint-0001.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="checkpoint-0001"):
        load_checkpoint(out, model)
    record.write_text("{")
    for folder in (out, tmp_path):
        with pytest.raises(CheckpointError, match=folder.name):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 0}, {"evaluate_every": 0}, {"device": "tpu9"}, {"precision": "int4"}],
    ids=str,
)
def test_wrong_arguments_are_named(data, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        train(data, **wrong)


def test_the_global_random_state_is_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = network()
    torch.manual_seed(5)
    train(data, model, epochs=1)
    assert torch.equal(torch.rand(3), expected)

import itertools
import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from consensus_lib.data import Augment, FaceDataset
from consensus_lib.losses import ConsensusLoss, consensus_loss, pixelwise_loss
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import NETWORKS, FaceOccNet
from consensus_lib.training import (
    CheckpointError,
    cosine,
    evaluate,
    fit,
    load_checkpoint,
    predict,
)

AUGMENT = Augment(flip=0.5, rotation=10, scale=0.9)


def rising(progress):
    return 5 * progress


def falling(progress):
    return 2 - 2 * progress


@pytest.fixture
def data(tiny_folder):
    return FaceDataset(tiny_folder, "train", "parts", augment=AUGMENT)


@pytest.fixture
def validation(tiny_folder):
    return FaceDataset(tiny_folder, "validation", "parts")


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


class Interrupt(Exception):
    """Stands for a kill: raised by ``on_epoch`` after the epoch was stored."""


def one_cycle(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)


def stop_after(epochs):
    def stop(history):
        if len(history) == epochs:
            raise Interrupt

    return stop


def untimed(history):
    times = {"seconds", "images_per_second", "evaluation_seconds"}
    return [{key: value for key, value in row.items() if key not in times} for row in history]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.state_dict().values()])


def test_training_learns_and_keeps_a_history(data, validation):
    model, history = train(
        data, epochs=24, validation=validation, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2)
    )
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert history[-1]["mean_iou"] > 0.7 > history[0]["mean_iou"]
    assert [row["epoch"] for row in history] == list(range(1, 25))
    assert [row["step"] for row in history] == list(range(3, 73, 3))
    assert all(b["seconds"] > a["seconds"] > 0 for a, b in itertools.pairwise(history))
    assert history[-1]["component_error"] >= 0
    assert evaluate(model, validation).compute()["mean_iou"] == history[-1]["mean_iou"]


@pytest.mark.parametrize(("stop", "schedule"), [(1, cosine), (2, None), (2, one_cycle)])
def test_an_interrupted_training_ends_with_the_same_bits(data, validation, tmp_path, stop, schedule):
    whole, history = train(data, validation=validation, schedule=schedule)
    begin(data, tmp_path / "run", stop, validation=validation, schedule=schedule)
    # Resumed in another process, the network starts from other weights: all must come from the file.
    options = {"validation": validation, "schedule": schedule, "out": tmp_path / "run"}
    resumed, resumed_history = train(data, network(seed=99), **options)
    assert torch.equal(weights(resumed), weights(whole))
    assert untimed(resumed_history) == untimed(history)


def test_an_interrupt_in_the_first_epoch_can_be_resumed(data, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    class Loss(nn.Module):
        forward = staticmethod(pixelwise_loss)

    loss = Loss()
    handle = loss.register_forward_pre_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data, loss=loss, out=tmp_path / "run")
    handle.remove()
    resumed, _ = train(data, network(seed=99), loss=loss, out=tmp_path / "run")
    assert torch.equal(weights(resumed), weights(train(data, loss=loss)[0]))


def test_a_finished_training_is_not_repeated(data, tmp_path):
    first, history = train(data, out=tmp_path / "run")
    again, same = train(data, network(seed=99), out=tmp_path / "run", on_epoch=stop_after(1))
    assert torch.equal(weights(first), weights(again))
    assert same == history


def begin(data, out, epochs=1, **options):
    """Leave a training after so many epochs."""
    with pytest.raises(Interrupt):
        train(data, out=out, on_epoch=stop_after(epochs), **options)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(data, out, message, **options):
    """Check that a training is not resumed, and that nothing has changed."""
    model, before = options.pop("model", None) or network(seed=99), content(out)
    start = weights(model)
    with pytest.raises(CheckpointError, match=message):
        train(data, model, out=out, **options)
    assert torch.equal(weights(model), start)
    assert content(out) == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_keeps_its_precision_on_a_machine_that_would_take_another(data, tmp_path, precision):
    whole, history = train(data, precision=precision)
    begin(data, tmp_path / "run", precision=precision)
    resumed, resumed_history = train(data, network(seed=99), precision="auto", out=tmp_path / "run")
    assert torch.equal(weights(resumed), weights(whole))
    assert untimed(resumed_history) == untimed(history)
    assert [row["precision"] for row in resumed_history] == [precision] * 3
    other = "float32" if precision == "bfloat16" else "bfloat16"
    refused(data, tmp_path / "run", f"precision: expected '{precision}', got '{other}'", precision=other)


def test_another_machine_is_recorded_where_it_trained(data, tmp_path):
    begin(data, tmp_path / "run")
    file = tmp_path / "run/checkpoint.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"machine": state["machine"] | {"device": "another"}}))
    _, history = train(data, out=tmp_path / "run")
    ours = state["machine"]["device"]
    assert [row.get("changes") for row in history] == [None, [f"device: another → {ours}"], None]


@pytest.mark.parametrize(("stop", "loss"), [(2, pixelwise_loss), (3, ConsensusLoss("component"))])
def test_more_epochs_at_a_constant_rate_are_those_of_a_longer_training(data, tmp_path, loss, stop):
    whole, history = train(data, epochs=5, schedule=None, loss=loss)
    if stop == 2:
        begin(data, tmp_path / "run", stop, schedule=None, loss=loss)
    else:
        train(data, out=tmp_path / "run", schedule=None, loss=loss)
    longer, found = train(data, network(seed=99), epochs=5, schedule=None, loss=loss, out=tmp_path / "run")
    assert torch.equal(weights(longer), weights(whole))
    assert found[stop].pop("changes") == ["epochs: 3 → 5"]
    assert untimed(found) == untimed(history)
    refused(data, tmp_path / "run", "epochs: expected 5, got 4", epochs=4, schedule=None, loss=loss)


@pytest.mark.parametrize(
    "planned",
    [{}, {"schedule": None, "loss": ConsensusLoss("component", beta=rising)}],
    ids=["rate", "loss"],
)
def test_more_epochs_than_a_schedule_was_planned_for_are_refused(data, tmp_path, planned):
    train(data, epochs=2, out=tmp_path / "run", **planned)
    refused(data, tmp_path / "run", "epochs: expected 2, got 3", epochs=3, **planned)


def grouped(rate, first=1):
    """Return a maker of an optimiser whose last parameters have a rate of their own."""

    def make(parameters):
        parameters = list(parameters)
        return torch.optim.Adam([{"params": parameters[:first]}, {"params": parameters[first:], "lr": rate}])

    return make


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("loss", partial(consensus_loss, alpha=1.0), partial(consensus_loss, alpha=99.0)),
        ("loss", nn.CrossEntropyLoss(ignore_index=255), nn.CrossEntropyLoss(ignore_index=0)),
        ("loss", *(nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, w]), ignore_index=255) for w in (1, 2))),
        ("optimizer", grouped(0.01), grouped(0.5)),
        ("optimizer", grouped(0.01, 1), grouped(0.01, 2)),
        ("schedule", cosine, one_cycle),
        ("schedule", *(partial(torch.optim.lr_scheduler.StepLR, gamma=g) for g in (0.1, 0.2))),
        ("batch_size", 4, 6),
    ],
    ids=["partial", "module", "weights", "rate", "members", "schedule", "gamma", "batch size"],
)
def test_a_changed_setting_is_seen(data, tmp_path, key, first, second):
    begin(data, tmp_path / "run", **{key: first})
    refused(data, tmp_path / "run", rf"settings.*{key}: expected .*, got ", **{key: second})
    _, history = train(data, out=tmp_path / "run", **{key: first})
    assert len(history) == 3


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: pixelwise_loss(logits, labels),
        partial(lambda logits, labels, weight: weight * pixelwise_loss(logits, labels), weight=1.0),
        ConsensusLoss(beta=lambda progress: progress),
    ],
    ids=["lambda", "partial", "schedule"],
)
def test_what_cannot_be_described_trains_but_is_not_resumed(data, tmp_path, loss):
    begin(data, tmp_path / "run", loss=loss)
    refused(data, tmp_path / "run", "loss: expected a function of a module", loss=loss)
    assert len(train(data, loss=loss, out=tmp_path / "run", resume=False)[1]) == 3


@pytest.mark.parametrize("second", [nn.Conv2d(3, 3, 5, padding=2), nn.Conv2d(3, 3, 3, padding=2, dilation=2)])
def test_another_network_is_refused_and_left_alone(data, tmp_path, second):
    begin(data, tmp_path / "run", model=nn.Conv2d(3, 3, 3, padding=1))
    refused(data, tmp_path / "run", "model: expected .*'layers': ", model=second)


def test_workers_do_not_change_the_result(data):
    assert torch.equal(weights(train(data, workers=2, epochs=2)[0]), weights(train(data, epochs=2)[0]))


def test_blobs_from_the_data_do_not_change_the_result(data):
    loss = ConsensusLoss("component", min_size=4)
    runs = [train(made, loss=loss) for made in (data, data.with_blobs(**loss.blob_options))]
    losses = [[row["loss"] for row in history] for _, history in runs]
    assert losses[0] == losses[1]


def test_a_loss_gets_what_it_asks_for(data):
    class Asking(nn.Module):
        batch_keys = ("index", "not there")

        def forward(self, logits, labels, index):
            seen.extend(index.tolist())
            return pixelwise_loss(logits, labels)

    seen = []
    train(data, loss=Asking(), epochs=1)
    assert sorted(seen) == list(range(12))


def test_the_folder_holds_what_is_promised(data, validation, tmp_path):
    model, history = train(data, validation=validation, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint.json", "checkpoint-0003.safetensors", "history.jsonl"}
    lines = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert lines == history
    loaded, record = load_checkpoint(tmp_path / "run")
    assert torch.equal(weights(loaded), weights(model))
    assert record["classes"] == ["background", "face", "hair"]
    assert not loaded.training


def test_evaluation_happens_at_intervals_and_at_the_end(data, validation):
    _, history = train(data, epochs=5, validation=validation, evaluate_every=2)
    assert [row["epoch"] for row in history if "mean_iou" in row] == [2, 4, 5]


def test_a_loss_that_is_not_finite_stops_the_training(data, tmp_path):
    def broken(logits, labels):
        return logits.mean() * math.nan

    with pytest.raises(FloatingPointError, match=r"loss: .* epoch 1"):
        train(data, loss=broken, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/checkpoint.json").read_text())["epoch"] == 0


def test_predictions_are_those_that_are_scored(data, validation):
    model, _ = train(data)
    labels = torch.stack([validation[i]["labels"] for i in range(len(validation))])
    predicted, scores = predict(model, validation), evaluate(model, validation, scores=StructureScores)
    assert predicted.dtype == torch.uint8
    assert predicted.shape == labels.shape
    assert (predicted == labels).double().mean().item() == scores.compute()["pixel_accuracy"]
    assert len(scores.per_image()["hausdorff95"]) == len(validation)
    assert model.training  # evaluation leaves the mode as it was


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_checkpoint_says_which_network_it_is_of(data, tmp_path, kind):
    model, _ = train(data, kind(width=0.125, dropout=0.1), epochs=1, out=tmp_path / "run")
    loaded, _ = load_checkpoint(tmp_path / "run")
    assert type(loaded) is kind
    assert (loaded.num_classes, loaded.width, loaded.dropout) == (3, 0.125, 0.1)
    assert torch.equal(weights(loaded), weights(model))


def test_a_checkpoint_that_does_not_fit_is_named(data, tmp_path):
    model, _ = train(data, nn.Conv2d(3, 3, 1), out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="model: expected"):  # of a network of one's own
        load_checkpoint(tmp_path / "run")
    with pytest.raises(CheckpointError, match="run: expected the weights of FaceOccNet"):
        load_checkpoint(tmp_path / "run", network())
    assert torch.equal(weights(load_checkpoint(tmp_path / "run", nn.Conv2d(3, 3, 1))[0]), weights(model))

    record = tmp_path / "run/checkpoint.json"
    state = json.loads(record.read_text())
    del state["format"]  # an earlier version's loads, and is not resumed
    record.write_text(json.dumps(state))
    refused(data, tmp_path / "run", "run: expected a checkpoint of format", model=nn.Conv2d(3, 3, 1))
    assert torch.equal(weights(load_checkpoint(tmp_path / "run", nn.Conv2d(3, 3, 1))[0]), weights(model))

    (tmp_path / "run/checkpoint-0003.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"checkpoint-0003\.safetensors: expected"):
        load_checkpoint(tmp_path / "run")
    record.write_text("{")
    for folder in (tmp_path / "run", tmp_path):
        with pytest.raises(CheckpointError, match=f"{folder.name}.*: expected"):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"device": "tpu9"}, {"precision": "int4"}], ids=str
)
def test_wrong_arguments_are_named(data, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        train(data, **wrong)


def test_the_global_random_state_is_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = network()
    torch.manual_seed(5)
    train(data, model, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_schedule_in_the_loss_survives_an_interruption(data, tmp_path):
    def scheduled():
        return ConsensusLoss("component", alpha=rising, beta=falling, pixel_weight=1.0)

    seen = []

    class Watched(ConsensusLoss):
        def forward(self, logits, labels):
            seen.append(self.progress)
            return super().forward(logits, labels)

    train(data, loss=Watched(), epochs=2)
    assert seen == pytest.approx([i / 6 for i in range(6)])
    whole, _ = train(data, loss=scheduled())
    with pytest.raises(Interrupt):
        train(data, loss=scheduled(), out=tmp_path / "run", on_epoch=stop_after(1))
    resumed, _ = train(data, network(seed=99), loss=scheduled(), out=tmp_path / "run")
    assert torch.equal(weights(resumed), weights(whole))

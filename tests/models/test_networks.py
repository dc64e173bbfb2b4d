import pytest
import torch
import torch.nn.functional as F

from consensus_lib.data import FaceDataset
from consensus_lib.models.networks import NETWORKS, FaceOccNet, MostFrequentLabel, count_parameters
from consensus_lib.training import evaluate, predict


def test_full_width_has_the_published_number_of_parameters():
    assert count_parameters(FaceOccNet(num_classes=3, width=1.0)) == 4_524_323


def published(network, image):
    """Return the logits of the published network for the weights of ``network``, layer by layer.

    Reflected borders everywhere but in the head, which pads with zeros; dropout of single elements.
    """
    weights = iter(list(network.state_dict().values()))

    def conv_elu_norm(x, stride=1, dilation=1, norm=True):
        x = F.pad(x, [dilation] * 4, mode="reflect")
        x = F.elu(F.conv2d(x, next(weights), next(weights), stride, dilation=dilation))
        if not norm:
            return x
        scale, shift, mean, variance, _ = (next(weights) for _ in range(5))
        return F.batch_norm(x, mean, variance, scale, shift)

    x = conv_elu_norm(image, norm=False)
    for stride in (2, 1, 1, 2):
        x = conv_elu_norm(x, stride)
    context = conv_elu_norm(conv_elu_norm(x, dilation=4), dilation=3)
    x = F.dropout(torch.cat([x, context], 1), network.drop.p, network.drop.training)
    x = F.pixel_shuffle(conv_elu_norm(x), 2)
    x = F.pixel_shuffle(conv_elu_norm(conv_elu_norm(x)), 2)
    x = conv_elu_norm(conv_elu_norm(x, norm=False), norm=False)
    return F.conv2d(x, next(weights), next(weights), padding=1)


@torch.no_grad()
def test_logits_are_those_of_the_published_network_to_the_bit():
    torch.manual_seed(0)
    network, image = FaceOccNet(width=0.25, dropout=0.2).eval(), torch.randn(1, 3, 32, 32)
    assert torch.equal(network(image), published(network, image))  # the frame included
    network.drop.train()
    logits = [(torch.manual_seed(1), run(image))[1] for run in (network, lambda x: published(network, x))]
    assert torch.equal(*logits)  # the same elements are dropped


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def kind(request):
    return request.param


@pytest.mark.parametrize(("count", "classes", "width", "side"), [(1, 2, 0.125, 32), (2, 11, 0.25, 48)])
def test_logits_have_the_size_of_the_image(kind, count, classes, width, side):
    image = torch.zeros(count, 3, side, side + 16)
    assert kind(classes, width)(image).shape == (count, classes, side, side + 16)


def test_dropout_acts_in_training_only(kind):
    torch.manual_seed(0)
    network, image = kind(width=0.125, dropout=0.2), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        network(image)
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("width", [0.125, 0.25])  # four and eight channels
def test_narrow_networks_train_with_channels_last(kind, width):
    """A step that writes out of bounds ends the process, or leaves another gradient behind."""
    torch.manual_seed(0)
    network, image = kind(width=width).double(), torch.randn(4, 3, 64, 64, dtype=torch.float64)
    network(image).square().mean().backward()
    expected = [p.grad.float().clone() for p in network.parameters()]
    network = network.float().to(memory_format=torch.channels_last)
    network.zero_grad()
    network(image.float().to(memory_format=torch.channels_last)).square().mean().backward()
    for p, gradient in zip(network.parameters(), expected, strict=True):
        assert gradient.norm() > 0
        assert (p.grad - gradient).norm() < 0.02 * gradient.norm() + 1e-4  # a ReLU may flip in float32


def test_wrong_arguments_are_named(kind):
    for name, value in (("num_classes", 1), ("width", 0.0), ("dropout", 1.0)):
        with pytest.raises(ValueError, match=name):
            kind(**{name: value})
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32), (1, 3, 16, 16)):
        with pytest.raises(ValueError, match="image"):
            kind(width=0.125)(torch.zeros(shape))


def test_the_constant_prediction_is_the_most_frequent_label_of_each_pixel(tiny_folder):
    data, test = (FaceDataset(tiny_folder, split, "parts") for split in ("train", "test"))
    votes = torch.stack([F.one_hot(data[i]["labels"], 3) for i in range(len(data))]).sum(0)
    constant = MostFrequentLabel(data)
    assert all(torch.equal(one.long(), votes.argmax(-1)) for one in predict(constant, test))
    assert 0.3 < evaluate(constant, test).compute()["mean_iou"] < 0.95
    with pytest.raises(ValueError, match="image"):
        constant(torch.zeros(1, 3, 16, 16))

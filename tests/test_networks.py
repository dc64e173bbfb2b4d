import pytest
import torch

from consensus_lib.networks import FaceOccNet, count_parameters


def test_full_width_has_the_published_number_of_parameters():
    assert count_parameters(FaceOccNet(num_classes=3, width=1.0)) == 4_524_323


@pytest.mark.parametrize(("classes", "width", "side"), [(2, 0.125, 32), (3, 0.25, 64), (11, 0.5, 48)])
def test_logits_have_the_size_of_the_image(classes, width, side):
    image = torch.zeros(2, 3, side, side + 8)
    assert FaceOccNet(classes, width)(image).shape == (2, classes, side, side + 8)


def test_width_scales_the_parameters_about_quadratically():
    ratio = count_parameters(FaceOccNet(width=0.5)) / count_parameters(FaceOccNet(width=0.25))
    assert 3.5 < ratio < 4.1


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network, image = FaceOccNet(width=0.125, dropout=0.2), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        network(image)
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


def test_every_parameter_gets_a_gradient():
    network = FaceOccNet(width=0.125)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32), (1, 3, 16, 16)])
def test_a_wrong_image_is_refused(shape):
    with pytest.raises(ValueError, match="image: expected"):
        FaceOccNet(width=0.125)(torch.zeros(shape))


@pytest.mark.parametrize("arguments", [{"num_classes": 1}, {"width": 0.0}, {"dropout": 1.0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}: expected"):
        FaceOccNet(**arguments)

"""Networks: logits from images, nothing else. A network knows neither data nor losses."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

FIRST, MIDDLE, DEEP, JOINED = 64, 128, 256, 512
"""Channels of FaceOccNet at width 1: first convolution, half resolution, quarter resolution, joined."""

STAGES = (32, 64, 128, 256, 512)
"""Channels of UNet at width 1, from the full resolution to a sixteenth of it."""


class FaceOccNet(nn.Module):
    """The paper's face parser: an encoder to a quarter of the size, a dilated branch, two pixel shuffles.

    A block is a 3×3 convolution with reflected borders, ELU, then batch normalisation; the last convolution
    alone pads with zeros. At ``width=1`` and three classes it has exactly the 4,524,323 parameters of the
    published model, and with the same weights the same logits. Notebook 02 draws it.

    Source: Masi et al., CVPR 2020, Sec. 3 and the sizes printed by the authors' evaluation notebook.

    Args:
        num_classes: K, the number of output channels.
        width: factor on all channel counts; 0.25 trains in minutes on a laptop.
        dropout: probability of dropping an element of the joined features (the paper's "+reg" uses 0.2).

    Shapes: float ``[B,3,H,W]`` with H and W divisible by 4 and at least 20 (the dilated convolutions
    reflect four pixels at a quarter of the size) → logits float ``[B,K,H,W]``.

    Raises:
        ValueError: an argument, or the input's shape, is out of range.

    >>> FaceOccNet(width=0.25)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(self, num_classes: int = 3, width: float = 1.0, dropout: float = 0.0):
        super().__init__()
        _check(num_classes, width, dropout, 4 / FIRST)
        self.num_classes, self.width, self.dropout = num_classes, width, dropout
        first, half, quarter, joined = (_channels(n, width) for n in (FIRST, MIDDLE, DEEP, JOINED))
        self.encoder = nn.Sequential(
            _block(3, first, norm=False),
            _block(first, half, stride=2),
            _block(half, half),
            _block(half, half),
            _block(half, quarter, stride=2),
        )  # [B, 256w, H/4, W/4]
        self.context = nn.Sequential(
            _block(quarter, quarter, dilation=4), _block(quarter, quarter, dilation=3)
        )
        self.drop = nn.Dropout(dropout)
        self.decoder = nn.Sequential(
            _block(2 * quarter, joined),
            nn.PixelShuffle(2),  # [B, 128w, H/2, W/2]
            _block(joined // 4, half),
            _block(half, half),
            nn.PixelShuffle(2),  # [B, 32w, H, W]
            _block(half // 4, half // 4, norm=False),
            _block(half // 4, half // 4, norm=False),
        )
        self.head = nn.Conv2d(half // 4, num_classes, 3, padding=1)
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``image``."""
        _check_image(image, 4, 20)
        deep = self.encoder(image)
        joined = torch.cat([deep, self.context(deep)], dim=1)  # [B, 512w, H/4, W/4]
        return self.head(self.decoder(self.drop(joined)))


class UNet(nn.Module):
    """A larger parser: the four stages of ResNet-18 behind a stem at full resolution, and a U-Net's decoder.

    14.2 million parameters at ``width=1`` and three classes. Notebook 04 trains it as the teacher.

    Source: Ronneberger et al., MICCAI 2015; blocks: He et al., CVPR 2016.

    Args:
        num_classes: K, the number of output channels.
        width: factor on all channel counts.
        dropout: probability of dropping a channel of the deepest features.

    Shapes: float ``[B,3,H,W]`` with H and W divisible by 16 and at least 32 → logits float ``[B,K,H,W]``.

    Raises:
        ValueError: an argument, or the input's shape, is out of range.

    >>> UNet(width=0.25)(torch.zeros(2, 3, 64, 48)).shape
    torch.Size([2, 3, 64, 48])
    """

    def __init__(self, num_classes: int = 3, width: float = 1.0, dropout: float = 0.0):
        super().__init__()
        _check(num_classes, width, dropout, 4 / STAGES[0])
        self.num_classes, self.width, self.dropout = num_classes, width, dropout
        stages = [_channels(n, width) for n in STAGES]
        pairs = list(itertools.pairwise(stages))
        self.stem = nn.Sequential(*_conv_norm(3, stages[0]), nn.ReLU(inplace=True))  # [B, 32w, H, W]
        self.encoder = nn.ModuleList(
            nn.Sequential(_Residual(few, many, stride=2), _Residual(many, many)) for few, many in pairs
        )  # to [B, 512w, H/16, W/16]
        self.drop = nn.Dropout2d(dropout)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(many, few, 2, stride=2) for few, many in pairs[::-1])
        self.join = nn.ModuleList(
            nn.Sequential(
                *_conv_norm(2 * few, few), nn.ReLU(inplace=True), *_conv_norm(few, few), nn.ReLU(inplace=True)
            )
            for few, _ in pairs[::-1]
        )
        self.head = nn.Conv2d(stages[0], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``image``."""
        _check_image(image, 16, 32)
        seen = [self.stem(image)]
        for stage in self.encoder:
            seen.append(stage(seen[-1]))
        deep = self.drop(seen.pop())
        for enlarge, join in zip(self.enlarge, self.join, strict=True):
            deep = join(torch.cat([enlarge(deep), seen.pop()], dim=1))
        return self.head(deep)


NETWORKS = {network.__name__: network for network in (FaceOccNet, UNet)}
"""Networks that a checkpoint names, and that ``num_classes``, ``width`` and ``dropout`` describe."""


def check_network(kind: type[nn.Module], size: int, width: float, dropout: float = 0.0) -> None:
    """Check without memory that such a network exists and takes images of ``size`` × ``size``.

    Raises:
        ValueError: an argument or the size does not suit it.

    >>> check_network(NETWORKS["UNet"], 40, 0.25)
    Traceback (most recent call last):
        ...
    ValueError: image: expected [B,3,H,W] with H and W divisible by 16 and at least 32, got [1, 3, 40, 40]
    """
    with torch.device("meta"):
        kind(width=width, dropout=dropout).eval()(torch.zeros(1, 3, size, size))


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _check(num_classes: int, width: float, dropout: float, least: float) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
    if width < least:
        raise ValueError(f"width: expected at least {least}, got {width}")


def _check_image(image: torch.Tensor, step: int, least: int) -> None:
    if image.dim() != 4 or image.shape[1] != 3 or any(n % step or n < least for n in image.shape[2:]):
        size = f"H and W divisible by {step} and at least {least}"
        raise ValueError(f"image: expected [B,3,H,W] with {size}, got {list(image.shape)}")


class MostFrequentLabel(nn.Module):
    """The constant prediction: at each pixel the most frequent training label, for any image.

    Args:
        data: the training samples, a :class:`~consensus_lib.data.FaceDataset`. Images to predict must have
            its size.

    >>> constant = evaluate(MostFrequentLabel(train), test)      # doctest: +SKIP
    """

    def __init__(self, data):
        super().__init__()
        self.register_buffer("labels", torch.from_numpy(data.most_frequent_labels()).long())
        self.num_classes = len(data.task.classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return one-hot logits float ``[B,K,H,W]`` for images ``[B,3,H,W]``."""
        if image.shape[-2:] != self.labels.shape:
            raise ValueError(
                f"image: expected [B,3,{','.join(map(str, self.labels.shape))}], got {list(image.shape)}"
            )
        one_hot = F.one_hot(self.labels, self.num_classes).permute(2, 0, 1)  # [K, H, W]
        return one_hot.to(image.dtype).expand(len(image), -1, -1, -1)


class _Residual(nn.Module):
    """Two convolutions beside a short cut; the first may reduce the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(inputs, outputs, stride), nn.ReLU(inplace=True), *_conv_norm(outputs, outputs)
        )
        # Pooled, not strided: no pixel is skipped. And the gradient of a strided 1×1 convolution with eight
        # channels or fewer, channels last, writes out of bounds in torch 2.13 on the CPU.
        pool = [nn.AvgPool2d(stride)] if stride > 1 else []
        same = inputs == outputs and stride == 1
        self.short = nn.Sequential(*([] if same else [*pool, *_conv_norm(inputs, outputs, side=1)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def _conv_norm(inputs: int, outputs: int, stride: int = 1, side: int = 3) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


def _channels(full: int, width: float) -> int:
    return max(4, round(full * width / 4) * 4)  # a multiple of 4, for the pixel shuffle


def _block(
    inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1, norm: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, padding_mode="reflect"),
        nn.ELU(inplace=True),
    ]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs)) if norm else nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=2**0.5)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)

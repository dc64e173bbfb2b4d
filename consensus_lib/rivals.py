"""What the loss is compared with. For now the lowest rival: a prediction that does not look at the image."""

import torch
import torch.nn.functional as F
from torch import nn

from consensus_lib.datasets import FaceDataset


class MostFrequentLabel(nn.Module):
    """Predict each pixel's most frequent label in ``data``, whatever the image.

    On aligned faces it is the floor that any network must beat, and belongs beside every score.

    Args:
        data: the training samples; images to predict must have their size.

    >>> floor = evaluate(MostFrequentLabel(train), test)      # doctest: +SKIP
    """

    def __init__(self, data: FaceDataset):
        super().__init__()
        labels = torch.from_numpy(data.most_frequent_labels()).long()
        self.register_buffer("labels", labels)
        self.num_classes = len(data.task.classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return one-hot logits float ``[B,K,H,W]`` for images ``[B,3,H,W]``."""
        if image.shape[-2:] != self.labels.shape:
            raise ValueError(
                f"image: expected [B,3,{','.join(map(str, self.labels.shape))}], got {list(image.shape)}"
            )
        one_hot = F.one_hot(self.labels, self.num_classes).permute(2, 0, 1)  # [K, H, W]
        return one_hot.to(image.dtype).expand(len(image), -1, -1, -1)

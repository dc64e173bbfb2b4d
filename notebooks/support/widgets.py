"""Interactive controls of the notebooks. Each is built from plain arrays and redraws by itself."""

import io

import ipywidgets
import numpy as np
import torch
from matplotlib import pyplot as plt

from consensus_lib.losses import consensus_loss
from support import diagrams


def consensus_toy(labels: np.ndarray, logits: np.ndarray, pixel: tuple[int, int]) -> ipywidgets.VBox:
    """Let a reader move α, β and one pixel's logit, and see probabilities, blob means and pulls.

    Args:
        labels: integer ``[H,W]``, classes 0 and 1; each class is one blob.
        logits: float ``[2,H,W]``.
        pixel: row and column of the pixel whose logit moves.

    Returns:
        Three sliders and the picture below them.
    """
    target = torch.as_tensor(labels).long()[None]
    start = torch.as_tensor(logits).double()[None]
    row, column = pixel
    margin = start[0, 1, row, column] - start[0, 0, row, column]

    def slider(name, value, low, high):
        return ipywidgets.FloatSlider(
            value=value, min=low, max=high, step=0.1, description=name, style={"description_width": "9em"},
            layout={"width": "26em"},
        )  # fmt: skip

    alpha, beta = slider("α, match", 1.0, 0.0, 10.0), slider("β, deviation", 1.0, 0.0, 10.0)
    logit = slider("logit of the pixel", round(float(margin), 1), -8.0, 8.0)
    picture = ipywidgets.Image(format="png")

    def redraw(*_):
        said = start.clone()
        said[0, :, row, column] = torch.tensor([0.0, logit.value])
        said.requires_grad_()
        loss = consensus_loss(said, target, alpha=alpha.value, beta=beta.value)
        (gradient,) = torch.autograd.grad(loss, said)
        pull = (gradient[0, 0] - gradient[0, 1]).numpy()
        figure = diagrams.toy_panel(said.detach().softmax(1)[0, 1].numpy(), pull, labels)
        figure.suptitle(f"loss {loss.item():.3f}", fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
        picture.value = file.getvalue()

    for control in (alpha, beta, logit):
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([alpha, beta, logit, picture])

"""Losses: what is minimised. Names are loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blobs": ["Blobs", "blobs_from_ids", "label_blobs"],
        "consensus": [
            "ConsensusLoss",
            "PixelwiseLoss",
            "consensus_loss",
            "pixelwise_loss",
            "size_marginalised_loss",
        ],
        "distillation": ["DistillationLoss", "soft_loss"],
        "registry": ["BASELINES", "LOSSES", "PRESETS", "WithConsensus", "make_loss"],
    },
)

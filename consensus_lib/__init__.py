"""Structure via consensus for face segmentation and parsing (Masi, Mathai, AbdAlmageed, CVPR 2020).

Each folder answers one question; the README has the map. Names are loaded on first use, so that importing the
package costs nothing, and a training script pays only for what it names:

>>> from consensus_lib import consensus_loss, label_blobs
"""

import lazy_loader

__version__ = "0.1.0"

IGNORE = 255
"""The label that no loss, no blob and no metric counts, everywhere in this project."""

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["data", "experiments", "losses", "metrics", "models", "teacher", "training", "viz"],
    submod_attrs={
        "data": ["FaceDataset"],
        "losses": ["ConsensusLoss", "consensus_loss", "label_blobs"],
        "metrics": ["SegmentationScores"],
        "models": ["FaceOccNet", "FaceParser"],
        "training": ["evaluate", "fit"],
    },
)

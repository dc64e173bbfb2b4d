"""Structure via consensus for face segmentation and parsing (Masi, Mathai, AbdAlmageed, CVPR 2020).

Each module is one room with one purpose; the README has the map. Importing the package itself loads
nothing but the standard library, so that a training script pays only for the modules that it names:

>>> from consensus_lib.losses import consensus_loss
"""

__version__ = "0.1.0"

IGNORE = 255
"""The label that no loss, no blob and no metric counts, everywhere in this project."""

"""Synthetic faces: photographs that never were, with labels that are exact.

This is the data set that comes with the library: what a newcomer trains on first, and the only one in which
the truth under an occluder is known. A person is a head of 3D shape with skin, hair and clothes; lamps light
it, a camera takes it, and something may cover it. Every label comes from the geometry that also made the
picture.

One room, several shelves: ``head`` (shape), ``skin``, ``hair``, ``scene`` (background, clothes), ``light``,
``occluders``, ``camera``, ``draw`` (puts them together), ``store`` (data sets on disk), and below them
``mesh`` (solids to pixels), ``colour``, ``chance`` (streams and noise) and ``photographs``.
"""

from consensus_lib.datasets.synthetic.classes import CLASSES, COLOURS
from consensus_lib.datasets.synthetic.draw import FaceSample, draw_face
from consensus_lib.datasets.synthetic.recipe import OCCLUDERS, Recipe
from consensus_lib.datasets.synthetic.store import prepare_synthetic, read_truth, synthetic_folder

__all__ = [
    "CLASSES",
    "COLOURS",
    "OCCLUDERS",
    "FaceSample",
    "Recipe",
    "draw_face",
    "prepare_synthetic",
    "read_truth",
    "synthetic_folder",
]

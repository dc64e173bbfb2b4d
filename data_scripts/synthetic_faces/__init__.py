"""Synthetic faces: rendered photographs with exact labels.

This is the data set that needs no download, and the only one in which the truth under an occluder is known.
A person is a head of 3D shape with skin, hair and clothes; lamps light it, a camera takes it, and something
may cover it. Every label comes from the geometry that also made the picture::

    recipe                         names, numbers and colours of the labels; the ingredients
    head  skin  hair  scene        shape, face, hair; background, bundled pictures among them, and clothes
    person  light                  the four together, on pixels; light
    occluders  layers              things that cover a face, and how they are laid over
    face  store                    one sample, from (seed, index), its camera and file; data sets on disk
    compose                        occluders over a labelled photograph
    mesh  paint  chance            rasteriser; painting and colours; noise
"""

from synthetic_faces.compose import Composed, occlude
from synthetic_faces.face import FaceSample, draw_face
from synthetic_faces.recipe import CLASSES, COLOURS, OCCLUDERS, Recipe
from synthetic_faces.store import prepare_synthetic, read_truth, synthetic_folder

__all__ = [
    "CLASSES", "COLOURS", "OCCLUDERS", "Composed", "FaceSample", "Recipe", "draw_face",
    "occlude", "prepare_synthetic", "read_truth", "synthetic_folder",
]  # fmt: skip

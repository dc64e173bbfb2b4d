"""Synthetic faces: photographs that never were, with labels that are exact.

This is the data set that needs no download: what a newcomer trains on first, and the only one in which
the truth under an occluder is known. A person is a head of 3D shape with skin, hair and clothes; lamps light
it, a camera takes it, and something may cover it. Every label comes from the geometry that also made the
picture.

One room, several shelves::

    classes                        names and numbers of the labels; the tasks made of them
    recipe                         which ingredients go in
    head  skin  hair  scene        shape, face, hair; background and clothes
    person                         the four together, on pixels
    light  camera                  what happens before and after
    occluders  worn  held  layers  what covers a face, and how it is laid over
    draw                           one sample, from (seed, index)
    store  extent                  data sets on disk; their truth about how far a face reaches
    mesh  colour  chance  photographs   solids to pixels, colours, streams and noise, bundled pictures
"""

from synthetic_faces.classes import CLASSES, COLOURS
from synthetic_faces.draw import FaceSample, draw_face
from synthetic_faces.extent import DrawnExtent
from synthetic_faces.recipe import OCCLUDERS, Recipe
from synthetic_faces.store import prepare_synthetic, read_truth, synthetic_folder

__all__ = [
    "CLASSES",
    "COLOURS",
    "OCCLUDERS",
    "DrawnExtent",
    "FaceSample",
    "Recipe",
    "draw_face",
    "prepare_synthetic",
    "read_truth",
    "synthetic_folder",
]

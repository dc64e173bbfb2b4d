"""Photographs that installed packages bring along: backgrounds without a download.

scikit-image and matplotlib carry a few freely usable pictures inside their wheels. Only those are read, none
is fetched. Pictures of faces are cropped to the parts without one: no network here sees a real face.
"""

import functools
from importlib import resources

import numpy as np
from PIL import Image

from synthetic_faces.colour import linear

# name: package, file, (left, top, right, bottom) of the usable part in pixels, or None for all of it.
PHOTOGRAPHS = {
    "coffee": ("skimage", "data/coffee.png", None),
    "camera": ("skimage", "data/camera.png", (230, 0, 512, 512)),
    "brick": ("skimage", "data/brick.png", None),
    "grass": ("skimage", "data/grass.png", None),
    "gravel": ("skimage", "data/gravel.png", None),
    "motorcycle": ("skimage", "data/motorcycle_left.png", None),
    "rocket": ("skimage", "data/rocket.jpg", None),
    "cat": ("skimage", "data/chelsea.png", None),
    "coins": ("skimage", "data/coins.png", None),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg", None),
    "page": ("skimage", "data/page.png", None),
    "flag": ("skimage", "data/astronaut.png", (0, 0, 128, 300)),
    "suit": ("skimage", "data/astronaut.png", (120, 300, 512, 512)),
    "uniform": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (60, 400, 460, 600)),
}


@functools.cache
def names() -> tuple[str, ...]:
    """Return the photographs that the installed packages really hold, in a fixed order."""
    files = {name: resources.files(package) / file for name, (package, file, _) in PHOTOGRAPHS.items()}
    return tuple(name for name, file in files.items() if file.is_file())


@functools.cache
def photograph(name: str) -> Image.Image:
    """Return one photograph as RGB, its longer side at most 320 pixels."""
    package, file, box = PHOTOGRAPHS[name]
    with resources.files(package).joinpath(file).open("rb") as stream:
        picture = Image.open(stream).convert("RGB")
    picture = picture if box is None else picture.crop(box)
    picture.thumbnail((320, 320), Image.Resampling.LANCZOS)
    return picture


def crop(rng: np.random.Generator, name: str, size: int, share: float) -> np.ndarray:
    """Return a random square of a photograph, linear float32 ``[size,size,3]``.

    Its side is a ``share``, 0 to 1, of the picture's shorter side.
    """
    picture = photograph(name)
    side = max(8.0, share * min(picture.size))
    left, top = rng.uniform(0, picture.width - side), rng.uniform(0, picture.height - side)
    box = (left, top, left + side, top + side)
    tile = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))
    return linear(tile[:, ::-1] if rng.random() < 0.5 else tile)

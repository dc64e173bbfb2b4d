"""How far a drawn face reaches, hidden parts included: known exactly, because it was drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from consensus_lib.data.folder import DatasetError, read_info
from synthetic_faces.store import read_truth


class DrawnExtent:
    """The outline of drawn faces, for whatever takes a :class:`~consensus_lib.teacher.teachers.FaceExtent`.

    Args:
        folder: a data set of :func:`~synthetic_faces.prepare_synthetic`.

    Raises:
        DatasetError: the folder is not such a data set.
    """

    name = "drawn"

    def __init__(self, folder: str | Path):
        self.folder, self._size = Path(folder), read_info(folder).size
        if not (self.folder / "complete").is_dir():
            raise DatasetError(f"folder: expected drawn faces with complete/, got {self.folder} without it")

    def __call__(self, images, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return for each image contour points float ``[P,2]``, or None where there is no face.

        Args:
            images: ``[B,3,H,W]``, of which the size alone is used.
            ids: their ids in the data set.

        Returns:
            (x, y) in pixels of these images, the centre of the first pixel at (0.5, 0.5).

        Raises:
            ValueError: an id is not in the folder, or there are more or fewer than images.
        """
        if len(ids) != len(images):
            raise ValueError(f"ids: expected one for each of {len(images)} images, got {len(ids)}")
        contours = []
        for id in ids:
            try:
                _, face, contour, _ = read_truth(self.folder, id)
            except FileNotFoundError:
                raise ValueError(f"ids: expected samples of {self.folder}, got {id!r}") from None
            scale = images.shape[3] / self._size, images.shape[2] / self._size
            contours.append(contour * scale if face.any() else None)
        return contours

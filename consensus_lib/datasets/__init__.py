"""Data: one on-disk format, the data set that reads it, tasks, augmentation and the synthetic faces."""

from consensus_lib.datasets.augment import Augment
from consensus_lib.datasets.face_dataset import FaceDataset, loader
from consensus_lib.datasets.folder import IGNORE, DatasetError, DatasetInfo, DatasetWriter, read_info
from consensus_lib.datasets.prepared import Splits, is_prepared, open_splits, prepared_folder
from consensus_lib.datasets.tasks import TASKS, Task

__all__ = [
    "IGNORE",
    "TASKS",
    "Augment",
    "DatasetError",
    "DatasetInfo",
    "DatasetWriter",
    "FaceDataset",
    "Splits",
    "Task",
    "is_prepared",
    "loader",
    "open_splits",
    "prepared_folder",
    "read_info",
]

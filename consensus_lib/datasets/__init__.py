"""Data: one on-disk format, the data set that reads it, tasks, augmentation and the synthetic faces.

Names are loaded when they are first asked for: the data scripts and the processes that draw faces then do
without torch.
"""

import importlib

_HOME = {
    "DatasetError": "folder",
    "DatasetInfo": "folder",
    "DatasetWriter": "folder",
    "read_info": "folder",
    "ids_without_subjects_of": "folder",
    "TASKS": "tasks",
    "Task": "tasks",
    "MILD": "augment",
    "Augment": "augment",
    "FaceDataset": "face_dataset",
    "loader": "face_dataset",
    "Splits": "prepared",
    "is_prepared": "prepared",
    "open_splits": "prepared",
    "prepared_folder": "prepared",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

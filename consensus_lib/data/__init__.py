"""Data: what is fed? One format on disk, the data set that reads it, tasks and augmentation.

Names are loaded on first use, so that scripts that only write data sets do without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augment": ["MILD", "Augment"],
        "dataset": ["FaceDataset"],
        "folder": ["DatasetError", "DatasetInfo", "ids_without_subjects_of", "is_folder", "read_info"],
        "loading": ["loader"],
        "prepared": ["Splits", "is_prepared", "open_splits", "prepared_folder"],
        "tasks": ["TASKS", "Task"],
        "writer": ["DatasetWriter"],
    },
)

"""Training: how does a network learn, and how are its weights kept? Names are loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["CheckpointError", "load_checkpoint"],
        "devices": ["pick_device", "pick_precision"],
        "trainer": ["cosine", "evaluate", "fit", "predict"],
    },
)

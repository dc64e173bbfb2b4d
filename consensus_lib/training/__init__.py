"""Training: how does a network learn, and how are its weights kept? Names are loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "trainer": [
            "CheckpointError",
            "cosine",
            "evaluate",
            "fit",
            "load_checkpoint",
            "measure_flicker",
            "pick_device",
            "predict",
        ],
    },
)

"""Metrics: how good is a prediction? Names are loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["paired_bootstrap", "pareto_front"],
        "segmentation": ["SegmentationScores"],
        "structure": ["StructureScores"],
    },
)

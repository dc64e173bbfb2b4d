"""Models: what predicts? Networks, and what corrects their predictions. Names are loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "networks": ["NETWORKS", "FaceOccNet", "MostFrequentLabel", "UNet", "count_parameters"],
        "postprocess": ["POSTPROCESSING", "FlipAveraged", "Relabelled", "WithCRF"],
    },
)

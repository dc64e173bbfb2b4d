"""Models: what predicts? Networks, what corrects their masks, a parser of photographs; all loaded lazily."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "networks": ["NETWORKS", "FaceOccNet", "MostFrequentLabel", "UNet", "count_parameters"],
        "parser": ["FaceParser", "ParsedFace"],
        "postprocess": ["POSTPROCESSING", "FlipAveraged", "Relabelled", "WithCRF"],
    },
)

"""The names, numbers and colours of the label map; a task maps the names to what a network learns."""

CLASSES = (
    "background", "skin", "hair", "brows", "eyes", "nose", "mouth", "ears", "neck", "cloth", "glasses",
    "occluder", "sunglasses",
)  # fmt: skip

# Wong's palette for colour-blind readers (Nature Methods 8, 441, 2011), with tints of it for the classes
# that lie inside or beside the face, so that neighbours differ in lightness too.
COLOURS = (
    (0, 0, 0), (230, 159, 0), (0, 114, 178), (92, 58, 0), (255, 255, 255), (240, 228, 66), (213, 94, 0),
    (204, 121, 167), (255, 205, 130), (0, 158, 115), (86, 180, 233), (150, 150, 150), (85, 85, 85),
)  # fmt: skip

# Sunglasses hide the face as an occluder does, but Part Labels counts them as face: they are a class apart.
BACKGROUND, SKIN, HAIR, BROWS, EYES, NOSE, MOUTH, EARS, NECK, CLOTH, GLASSES, OCCLUDER, SUNGLASSES = range(13)

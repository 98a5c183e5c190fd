"""CamVid's classes, as the report's study reads them and as generated street scenes have them."""

from __future__ import annotations

from typing import TypedDict

from cvhw4.labels import VOID, Colour

# In the order of their numbers in the label pictures, 0 to 10, with the colours of CamVid's own.
COLOURS: dict[str, Colour] = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (0, 0, 192),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
    VOID: (0, 0, 0),
}
CLASSES = tuple(name for name in COLOURS if name != VOID)


class _Layout(TypedDict):
    classes: tuple[str, ...]
    ignore: int
    colours: dict[str, Colour]


# The SegNet tutorial's copy: `Scenes(folder, **CAMVID)`.
CAMVID: _Layout = {"classes": CLASSES, "ignore": len(CLASSES), "colours": COLOURS}

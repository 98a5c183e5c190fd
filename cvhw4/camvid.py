"""CamVid's classes, as the report's study reads them and as generated street scenes have them: those of the SegNet
tutorial's copy (Badrinarayanan et al. 2017), which merges the 32 of CamVid (Brostow et al. 2009) into 11 and void."""

from __future__ import annotations

from typing import Any

from cvhw4.labels import VOID, Colour

# In the order of their numbers in the label pictures, 0 to 10, and 11 for void, with colours (RGB).
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
CAMVID: dict[str, Any] = {"classes": CLASSES, "ignore": len(CLASSES), "colours": COLOURS}
"""What `Scenes` has to know of CamVid: `Scenes(folder, **CAMVID)`. 11 classes in the order of their numbers, 11 for
void, and their colours, of the SegNet tutorial's copy (Brostow et al. 2009, Badrinarayanan et al. 2017)."""

"""The experiments of a 2019 homework report as a study, made with the public interface like anyone's.

`study` makes it: at full size, as the report's protocol has it, on the user's own data; "full-lite0" likewise, with a
network whose ImageNet weights come as a Python package in place of the pretrained ones; at quick size with that network
on generated pictures, as two CPU cores train it. In pytest, options choose between them (`cvhw4.homework.options`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cvhw4 import CAMVID, Generated, InputError, NotGiven, Pictures, Scenes, Study
from cvhw4.homework.claims import CLAIMS
from cvhw4.homework.controls import CONTROLS
from cvhw4.homework.published import IMAGES, PUBLISHED, TABLES
from cvhw4.homework.rows import SIZES as _SIZES
from cvhw4.homework.rows import rows_at, stand_ins
from cvhw4.homework.sections import SECTIONS

SIZES = tuple(_SIZES)
BOUNDS = Path("benchmarks", "bounds.toml")  # in a checkout
_SHOWN: Any = {name: CAMVID[name] for name in ("classes", "colours")}  # of stored runs, without the folder
_PORTRAITS, _SCENES = "Q1: pictures in two classes", "Q2: street scenes"


def study(
    size: Literal["quick", "full", "full-lite0"] = "quick",
    *,
    portraits: Path | None = None,
    camvid: Path | None = None,
    redraw: bool = True,
    bounds: Path | None = None,
) -> Study:
    """The report's study at a size.

    Args:
        size: "full", the report's networks, sizes and recipes; "full-lite0", its sizes and recipes with EfficientNet-
            Lite0 for networks that start from ImageNet weights; or "quick", these with this project's sizes and
            recipes, for two CPU cores.
        portraits: folder of two classes of pictures for Q1, `{train,val}/<class>/`; None for generated ones (quick) or
            none (others). This and other paths are relative to the current folder.
        camvid: CamVid's folder for Q2, likewise.
        redraw: whether each seed draws its own generated pictures.
        bounds: the file of calibrated bounds; None for none.

    Raises:
        InputError: no such size, or what `cvhw4.Study` refuses.
    """
    if size not in SIZES:
        raise InputError(f"the homework of size {size!r:.40}", "does not exist", f"choose one of {', '.join(SIZES)}")
    portraits, camvid, bounds = (path and Path(path).expanduser().absolute() for path in (portraits, camvid, bounds))
    quick = size == "quick"
    at_size = rows_at(size)
    about = (
        "The claims about 0.895 and about the whole face are about portraits by make-up: on pictures "
        "of other classes they have no verdict. CamVid's 101 validation images are every second frame of seven seconds "
        "of one drive, which the training images show too: a verdict on CamVid is about frames like these."
    )
    if size != "full":
        swaps = ", ".join(f"{ours} stands in for {theirs}" for theirs, ours in stand_ins().items())
        swaps = swaps.replace(" for alexnet", " for pretrained alexnet (from scratch it is alexnet itself)")
        easier = (
            "Generated scenes were made easier until every comparison of them had the sign that it has on CamVid, so "
            "that their agreement is by design. "
        )
        about = (
            f"Here {swaps}. Only the full size, with the report's own pictures and networks, can tell whether a "
            f"verdict carries over to these. {easier * quick}{about}"
        )
    return Study(
        size,
        title=f"The 2019 report's experiments, {size} size",
        about=about,
        data=[
            Pictures(portraits, resize=128 if quick else 512, classes=2, title=_PORTRAITS)
            if portraits is not None
            else Generated("portraits", redraw=redraw, title=_PORTRAITS)
            if quick
            else NotGiven("classification", "give --portraits DIR", title=_PORTRAITS),
            Scenes(camvid, **CAMVID, resize=(132, 176) if quick else None, title=_SCENES)
            if camvid is not None
            else Generated("scenes", redraw=redraw, title=_SCENES)
            if quick
            else NotGiven("segmentation", "give --camvid DIR", title=_SCENES, **_SHOWN),
        ],
        rows=at_size,
        claims=[claim for claim in CLAIMS if at_size.keys() >= set(claim.rows)],
        controls=[control for control in CONTROLS if control.row in at_size],
        bounds=bounds,
        published=PUBLISHED,
        published_images=IMAGES,
        sections=SECTIONS,
        tables=TABLES,
        also_after={"segmentation": 3 if quick else 20},  # the template's epochs; the report's best are 41 and 20
    )


def studies() -> list[Study]:
    """The study at every size, for the command line; with the bounds of the checkout that it is called in, if any."""
    here = Path.cwd()
    bounds = next((folder / BOUNDS for folder in (here, *here.parents) if (folder / BOUNDS.parent).is_dir()), None)
    return [study(size, bounds=bounds) for size in ("quick", "full-lite0", "full")]

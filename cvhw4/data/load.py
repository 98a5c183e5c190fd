"""From where a study says that its pictures are to the decoded data set."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cvhw4.data.dataset import Dataset
from cvhw4.errors import Unavailable
from cvhw4.study import Generated, NotGiven, Pictures, Scenes, Source


def load(source: Source, seed: int | None = None) -> Dataset:
    """The data set of a source, decoded and checked; kept for the next call.

    Args:
        source: where it comes from.
        seed: whose pictures, where each seed draws its own; left out, pictures of that kind that no seed draws.

    Raises:
        InputError: a folder that cannot be used.
        Unavailable: the user has to name the data.
    """
    if isinstance(source, NotGiven):
        raise Unavailable(f"needs real data for {source.task}: {source.hint}")
    return _load(source, seed if isinstance(source, Generated) and source.redraw else None)


@lru_cache
def _load(source: Pictures | Scenes | Generated, seed: int | None) -> Dataset:
    if isinstance(source, Pictures):
        from cvhw4.data.pictures import read_pictures

        return read_pictures(Path(source.folder), short_side=source.resize, classes=source.classes or 2)
    if isinstance(source, Scenes):
        from cvhw4.data.scenes import read_scenes

        return read_scenes(source)
    from cvhw4.data.embedded import embedded_portraits, embedded_scenes

    draw = embedded_portraits if source.kind == "portraits" else embedded_scenes
    if not source.redraw:
        fixed = draw()
        return replace(fixed, name=f"{fixed.name} (one set)")
    first = draw(1)  # what the generator draws for seed 0 tells it from another
    population = hashlib.sha256(f"redrawn {first.fingerprint}".encode()).hexdigest()
    return replace(draw(seed + 1) if seed else first, drawn_from=population)

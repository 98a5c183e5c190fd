"""`cvhw4 fetch`: the real data sets."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Annotated

import typer

from cvhw4.cli.common import fetch, folder_of, say


@fetch.command("camvid")
def fetch_camvid(
    destination: Annotated[Path, typer.Argument(help="Folder to make.", parser=folder_of)] = Path("local/CamVid"),
    source: Annotated[
        str | None,
        typer.Option("--from", help="A zip or folder of the SegNet tutorial you have already.", parser=expanduser),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What an earlier fetch reported; anything else is refused.")
    ] = None,
) -> None:
    """Downloads CamVid (the SegNet tutorial's copy, 480x360, 11 classes and void) and checks it.

    Example: cvhw4 fetch camvid, then pytest benchmarks --camvid local/CamVid
    """
    from cvhw4.data.fetch import fetch_camvid as fetch

    typer.echo(f"ready: {fetch(destination, source=source, sha256=sha256, progress=say)}")


@fetch.command("portraits")
def fetch_portraits(
    celeba: Annotated[
        Path, typer.Option("--celeba", help="Your copy of CelebA (aligned pictures, attribute list).", parser=folder_of)
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to make.", parser=folder_of)] = Path("local/portraits"),
) -> None:
    """Builds the report's 2000 training and 400 validation portraits by make-up from a copy of CelebA.

    Example: cvhw4 fetch portraits --celeba ~/CelebA, then pytest benchmarks --portraits local/portraits
    """
    from cvhw4.data.fetch import fetch_portraits as fetch

    typer.echo(f"ready: {fetch(celeba, destination)}")

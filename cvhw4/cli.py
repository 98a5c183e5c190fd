"""`cvhw4`: data, tables and bounds from the command line. Training is pytest's: `pytest benchmarks`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cvhw4.errors import InputError, printable
from cvhw4.experiments import PROFILES, Profile

app = typer.Typer(
    help="Ablation studies in computer vision that a build can check. Train with: pytest benchmarks",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
fetch = typer.Typer(help="Get the real data sets.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of records and tables.")]
ProfileOption = Annotated[str, typer.Option("--profile", help=f"One of: {', '.join(PROFILES)}.")]
AblationOption = Annotated[
    Path | None, typer.Option("--ablation", help="File that makes your own ablation; --profile names one of several.")
]
BoundsOption = Annotated[Path, typer.Option("--bounds", help="File of calibrated bounds.")]

USAGE_ERRORS: Any = typer.BadParameter.__bases__  # click's, wherever this version of typer keeps it
RESULTS, BOUNDS = Path("results"), Path("benchmarks/bounds.toml")


def main() -> None:
    """Runs a command; unusable input ends it with one line and exit code 4, a warning is one line."""
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    try:
        code = app(prog_name="cvhw4", standalone_mode=False)
    except InputError as error:
        _end(str(error))
    except USAGE_ERRORS as error:
        if not (problem := error.format_message()):
            raise SystemExit(2) from None  # no command was named, and the help is told
        _end(
            f"{printable(problem.rstrip('.'))}. To mend: see {error.ctx.command_path if error.ctx else 'cvhw4'} --help."
        )
    except typer.Abort:
        raise SystemExit(1) from None
    raise SystemExit(code)


def _end(problem: str) -> NoReturn:
    typer.echo(f"error: {problem}", err=True)
    raise SystemExit(4) from None


@fetch.command("camvid")
def fetch_camvid(
    destination: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("local/CamVid"),
    source: Annotated[
        str | None, typer.Option("--from", help="A zip or folder of the SegNet tutorial you have already.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What an earlier fetch reported; anything else is refused.")
    ] = None,
) -> None:
    """Downloads CamVid (the SegNet tutorial's copy, 480x360, 11 classes and void) and checks it.

    Example: cvhw4 fetch camvid, then pytest benchmarks --camvid local/CamVid
    """
    from cvhw4.data.fetch import fetch_camvid as fetch

    typer.echo(f"ready: {fetch(destination, source=source, sha256=sha256, progress=_say)}")


@fetch.command("portraits")
def fetch_portraits(
    celeba: Annotated[Path, typer.Option("--celeba", help="Your copy of CelebA (aligned pictures, attribute list).")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("local/portraits"),
) -> None:
    """Builds the report's 2000 training and 400 validation portraits by make-up from a copy of CelebA.

    Example: cvhw4 fetch portraits --celeba ~/CelebA, then pytest benchmarks --portraits local/portraits
    """
    from cvhw4.data.fetch import fetch_portraits as fetch

    typer.echo(f"ready: {fetch(celeba, destination)}")


@app.command()
def report(
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    bounds: BoundsOption = BOUNDS,
    ablation: AblationOption = None,
) -> None:
    """Writes report.md anew from the stored runs, and verdicts.md: which of the report's claims hold, and how sure."""
    from cvhw4.records.store import Store
    from cvhw4.report.page import write_report
    from cvhw4.report.verdicts import write_verdicts
    from cvhw4.statistics.bounds import NO_BOUNDS, load_bounds

    chosen = profile_of(profile, ablation)
    named = bounds != BOUNDS
    bounded = not chosen.own and (named or bounds.exists())
    judged_by = load_bounds(bounds, chosen.name, named=named) if bounded else NO_BOUNDS
    store = Store(results, chosen.name)
    if not os.path.isdir(store.folder):
        raise InputError(store.folder, "is no folder of runs", "name one with --results")
    typer.echo(write_report(chosen, store, judged_by, {}))
    typer.echo(write_verdicts(chosen, store, judged_by))


@app.command()
def calibrate(
    results: ResultsOption = RESULTS,
    profile: ProfileOption = "quick",
    bounds: BoundsOption = BOUNDS,
    false_alarms: Annotated[
        float, typer.Option(help="Share of nightly sessions in which any bound at all may be missed by chance.")
    ] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a nightly session.")] = 3,
) -> None:
    """Writes the bounds file anew from the stored runs on embedded data (five seeds of every row or more).

    Example: pytest benchmarks --seeds 20 --results calibration, then cvhw4 calibrate --results calibration
    """
    from cvhw4.records.store import Store, latest_studies, write_atomically
    from cvhw4.statistics.bounds import calibrate as make_bounds
    from cvhw4.statistics.bounds import to_toml

    chosen = profile_of(profile)
    records = latest_studies(Store(results, profile).load())
    write_atomically(bounds, to_toml(profile, make_bounds(chosen, records, false_alarms, seeds)))
    typer.echo(f"wrote {bounds} from {len(records)} runs")


@app.command()
def floors(results: ResultsOption = RESULTS, profile: ProfileOption = "quick", device: str = "cpu") -> None:
    """Measures this machine and writes floors.md: what every row costs at least, and how far above it its runs were.

    Example: cvhw4 floors --profile full --device cuda
    """
    import torch

    from cvhw4.records.environment import device_name
    from cvhw4.records.store import Store, latest_studies, write_atomically
    from cvhw4.report.floors import floors_page
    from cvhw4.report.tables import by_id
    from cvhw4.study import pick_device
    from cvhw4.training.cost import measure_machine

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}", "is not a device", "choose one of auto, cpu, cuda")
    chosen, where, store = profile_of(profile), pick_device(device), Store(results, profile)
    records = latest_studies(store.load())
    here = [r for r in records if r.environment["device_name"] == device_name(where)]
    machine = measure_machine(torch.device(where), "float32" if where.type == "cpu" else "bfloat16")
    path = store.folder / "floors.md"
    write_atomically(path, floors_page(profile, chosen.rows, by_id(here), machine))
    typer.echo(path)


@app.command()
def rows(profile: ProfileOption = "quick", ablation: AblationOption = None) -> None:
    """Lists the rows of a profile and what each trains."""
    import pandas as pd

    from cvhw4.report.tables import markdown, setting

    chosen = profile_of(profile, ablation)
    for question in ("q1", "q2"):
        lines = [
            {"row": e.id, **setting(e), "size": e.recipe.size, "batch": e.recipe.batch, "epochs": e.recipe.epochs}
            for e in chosen.of(question)
        ]
        if lines:
            typer.echo(markdown(pd.DataFrame(lines)) + "\n")


def profile_of(name: str, ablation_file: Path | None = None) -> Profile:
    """The profile of that name, or the own ablation that a file makes: of several that of the name.

    Raises:
        InputError: there is none.
    """
    if ablation_file is not None:
        from cvhw4.ablation import load_profile

        return load_profile(ablation_file, None if name in ("full", "quick") else name)
    if name not in PROFILES:
        raise InputError(f"--profile {name}", "is not a profile", f"choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


def _say(*parts: Any) -> None:
    typer.echo(" ".join(str(p) for p in parts), err=True)

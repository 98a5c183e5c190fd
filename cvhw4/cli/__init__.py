"""`cvhw4`: data, stored runs, tables and bounds from the command line. Training is pytest's: `pytest benchmarks`."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from cvhw4.cli import data, pages, papers, reading, seeds  # the commands, in the order of the help
from cvhw4.cli.common import app, fetch
from cvhw4.errors import InputError, printable

__all__ = ["app", "data", "fetch", "main", "pages", "papers", "reading", "seeds"]

_USAGE_ERRORS: Any = typer.BadParameter.__bases__  # click's, wherever this version of typer keeps it


def main() -> None:
    """Runs a command; unusable input ends it with one line and exit code 4, a warning is one line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # where the locale has no bars and dashes
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    gc.set_threshold(100_000, 20, 20)  # 700 by default: looking through ever more records costs a tenth of a report
    try:
        code = app(prog_name="cvhw4", standalone_mode=False)
    except InputError as error:
        _end(str(error))
    except _USAGE_ERRORS as error:
        problem = error.format_message()
        if not problem or problem.startswith("Usage: "):  # no command was named: its message is the help
            typer.echo(problem, err=True)
            raise SystemExit(2) from None
        _end(f"{printable(problem.rstrip('.'))}. Fix: see {error.ctx.command_path if error.ctx else 'cvhw4'} --help.")
    except typer.Abort:
        raise SystemExit(1) from None
    raise SystemExit(code)


def _end(problem: str) -> NoReturn:
    typer.echo(f"error: {problem}", err=True)
    raise SystemExit(4) from None


def _version(asked: bool) -> None:
    if not asked:
        return
    from cvhw4 import __version__

    typer.echo(f"cvhw4 {__version__}")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass

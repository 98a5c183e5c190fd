"""The end of a session: comparison tables on the terminal, and the pages in the results folder."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest

from cvhw4.errors import InputError, printable
from cvhw4.files import write_atomically
from cvhw4.plugin.collection import Collection, load
from cvhw4.plugin.session import Session, issue, postponed
from cvhw4.records.schema import RunRecord
from cvhw4.report.text import wrapped
from cvhw4.study import Study


class Summary:
    """Writes them."""

    def __init__(self, session: Session, collection: Collection) -> None:
        self.session, self.collection, self.config = session, collection, session.config

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """The comparison tables of this session, and where the page with all runs is; what cannot be written or read
        any more is one line, and an exit code that is not 0."""
        error: InputError | Warning | str = self.collection.unusable
        warned: list[warnings.WarningMessage] = []
        try:
            with postponed(warned):
                self._summarise(terminalreporter, exitstatus)
        except InputError as found:
            error = found
        error = error or issue(warned) or ""
        done = self.session.runs or terminalreporter.stats.get("passed") or self.collection.part[1] > 1 or error
        nothing = self.session.missing and not done and exitstatus == pytest.ExitCode.OK
        if nothing and terminalreporter._session is not None:
            terminalreporter.write_line("no row was trained, and no other test has passed: exit code 5")
            terminalreporter._session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        if error:
            terminalreporter.write_line(f"ERROR: {error}", red=True)
            fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
            if exitstatus in fine and terminalreporter._session is not None:
                terminalreporter._session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _summarise(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Writes the tables, on the terminal and into the results folder.

        Raises:
            InputError: a page cannot be written, or a record or the bounds cannot be read.
        """
        session = self.session
        keyword = self.config.option.keyword
        if keyword and self.collection.asked and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            terminalreporter.write_line(wrapped(f"-k {printable(keyword)} selects nothing. {self._rows_to_select()}"))
        if not (session.smoke or session.runs or session.missing or session.failed):
            return
        self.collection.warn(self.collection.warned)
        if session.smoke:
            return
        if self.collection.part[1] > 1:
            terminalreporter.write_line("a part of a study: its tables are written by a session with --reuse alone")
            return
        pages: list[tuple[Path, str]] = []
        for name, file in session.trained.items():
            found = self._study(name, file)
            if found is None:
                terminalreporter.write_line(wrapped(f"study {name}: no tables, as {file} cannot be imported here"))
                continue
            pages += self._summarise_study(terminalreporter, found)
        pages += self._write_table(terminalreporter)
        if session.in_runs and session.make_cluster is None:  # not with xdist, whose workers train
            wall = time.monotonic() - session.began
            overhead = wall - session.in_runs
            terminalreporter.write_line(
                f"\noverhead (start, data, records, tables): {overhead:.1f} s of {wall:.0f} s,"
                f" {100 * overhead / wall:.1f} %"
            )
        terminalreporter.write_line("")
        for page, what in pages:
            terminalreporter.write_line(f"{what}: {page}")

    def _rows_to_select(self) -> str:
        """The rows that tests train, and those that none does."""
        text = ""
        for name, of_study in self.collection.asked.items():
            tested, others = (", ".join(row for row in of_study if of_study[row] == way) for way in (True, False))
            text += f"Rows of study {name}: {tested or 'none'}. "
            if others:
                text += (
                    f"No test collected here trains {others}: a test whose mark, pytest.mark.study, names them has to. "
                )
        return text

    def _study(self, name: str, file: Path) -> Study | None:
        """A study of this session; of one whose tests xdist's workers alone have imported, the file is imported."""
        if name not in self.session.studies.by_name:
            self.session.studies_of(file)
        return self.session.studies.by_name.get(name) or next(
            (study for study in self.session.studies_of(file) if study.name == name), None
        )

    def _summarise_study(self, terminalreporter: pytest.TerminalReporter, study: Study) -> list[tuple[Path, str]]:
        """Writes the tables of one study; the pages, and what they are.

        Raises:
            InputError: as `_summarise`.
        """
        from cvhw4.report.page import write_pages
        from cvhw4.report.summary import session_summary

        session, records = self.session, self._records(study)
        bounds, store = load(self.config, study), session.studies.make_runner(study).store
        broken = [f for f in store.failures() if (study.name, f.row, f.seed) in session.failed]
        missing = {row: reason for (name, row), reason in session.missing.items() if name == study.name}
        tables = session_summary(study, records, broken, bounds, missing)
        self.config.hook.pytest_cvhw4_tables(config=self.config, study=study, records=records, tables=tables)
        terminalreporter.section(f"ablation study {study.name}")
        for line in tables:
            terminalreporter.write_line(line)
        return write_pages(study, store, bounds, missing)

    def _records(self, study: Study) -> list[RunRecord]:
        """The session's runs of a study."""
        paths = [path for (name, _, _), path in self.session.runs.items() if name == study.name]
        return [RunRecord.from_json(path.read_text("utf-8"), path) for path in paths]

    def _write_table(self, terminalreporter: pytest.TerminalReporter) -> list[tuple[Path, str]]:
        """Writes what `--table` names; raises InputError as `_summarise`."""
        from cvhw4.report.papers import check_table, rendered, results_table

        path: Path | None = self.config.getoption("cvhw4_table")
        if path is None:
            return []
        style, found = check_table(path), (self._study(name, file) for name, file in self.session.trained.items())
        tables = [table for study in found if study for table in results_table(study, self._records(study), style)]
        if not tables:
            terminalreporter.write_line(wrapped(f"{path} is not written, as no run of this session has finished"))
            return []
        write_atomically(path, rendered(tables, path.suffix))
        return [(path, "table for a paper")]

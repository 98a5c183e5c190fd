"""The page of agreement: whether generated pictures answer a study's claims as real ones do, a small size as the full
one, and both as what is published; made from the records of several results folders."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from cvhw4.errors import InputError
from cvhw4.records.schema import RunRecord
from cvhw4.records.store import Store, latest_runs
from cvhw4.report.numbers import ENOUGH, difference, ends, interval, interval_of, number, signed, verdict
from cvhw4.report.runs import by_row, class_names, days, device, grouped, metric_name, of_class, of_study, with_metric
from cvhw4.report.tables import Table, section
from cvhw4.report.text import escape
from cvhw4.statistics.agreement import Order, order, sides
from cvhw4.statistics.bounds import NO_BOUNDS, bounds_of
from cvhw4.statistics.intervals import OTHER_PICTURES, Estimate, estimate
from cvhw4.statistics.published import stated
from cvhw4.statistics.verdicts import Outcome, judge_all
from cvhw4.study import Claim, Generated, Study
from cvhw4.tasks import SEGMENTATION

DETECTED = 0.05  # IoU above which a class counts as detected
_ORDERED = 4  # rows from which on an order is shown: three are in the same one by chance once in six
_MISSING = "not measured yet"
_OPPOSITE = {
    "differ": "in the opposite sign",
    "open, means differ": "with means that are not on one side, undecided",
}


@dataclass(frozen=True)
class Setting:
    """Where claims are measured: a study, on generated or on real pictures.

    Attributes:
        runs: by the folder that holds them, those of each row alike but for the seed.
        whole: whether as they ended: only of such runs the study's bounds know something.
    """

    study: Study
    generated: bool
    runs: Mapping[Path, Sequence[RunRecord]]
    whole: bool = True

    @property
    def name(self) -> str:
        """ "real, full"."""
        return f"{'generated' if self.generated else 'real'}, {self.study.name}"

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """What the runs say, by claim; of several data sets, pictures that each of several seeds drew anew before
        others, then the one with the most seeds."""
        return self._best(lambda o: (o.redrawn and o.difference.n > 1, o.difference.n))

    @cached_property
    def fixed(self) -> dict[str, Outcome]:
        """Likewise, of pictures that all seeds saw before others."""
        return self._best(lambda o: (not o.redrawn, o.difference.n))

    def _best(self, key: Callable[[Outcome], tuple[bool, int]]) -> dict[str, Outcome]:
        return {o.claim.id: o for o in sorted(self._judged, key=key)}

    @cached_property
    def _judged(self) -> list[Outcome]:
        """Those of one folder are judged together, as on its own pages."""
        bounds = bounds_of(self.study) if self.whole else NO_BOUNDS
        return [o for records in self.runs.values() for o in judge_all(self.study, records, bounds=bounds)]

    @cached_property
    def rows(self) -> dict[str, list[RunRecord]]:
        """The runs of each row on one data set, the one with the most seeds. Rows of a task are compared on the same
        pictures: on those that each seed drew anew where enough rows for an order have such runs, else on others."""
        sets = [
            (row, of_set)
            for records in self.runs.values()
            for row, runs in by_row(records).items()
            for of_set in grouped(runs, lambda r: r.data.fingerprint).values()
        ]
        drawn = {row: of_set[0].task for row, of_set in sets if of_set[0].data.redrawn}
        redrawn = {task for task, n in Counter(drawn.values()).items() if n >= _ORDERED}
        kept = [pair for pair in sets if pair[1][0].data.redrawn == (pair[1][0].task in redrawn)]
        best = dict(sorted(kept, key=lambda pair: len(pair[1])))
        return {row: best[row] for row in self.study.rows if row in best}

    def figures(self, metric: str) -> dict[str, Estimate]:
        """Mean figure by row, of those that have it."""
        of_rows = {row: with_metric(runs, metric) for row, runs in self.rows.items()}
        found = {r: estimate([x.figure(f"{self.study.epoch} {metric}") for x in of]) for r, of in of_rows.items() if of}
        return {row: one for row, one in found.items() if math.isfinite(one.mean)}


def settings_of(studies: Sequence[Study], folders: Sequence[Path]) -> list[Setting]:
    """Where claims of some studies are measured, or could be: of each study generated pictures, if it has any, and real
    ones.

    Args:
        studies: the same experiments, from the smallest to the one that answers best.
        folders: results folders; each holds the runs of a study in `<study>` or `<name>/<study>`. InputError is raised
            where none holds a run of any of them.
    """
    found = []
    for study in studies:
        runs: dict[Path, list[RunRecord]] = {}
        for folder in folders:
            for results in [folder, *sorted(path for path in folder.glob("*") if path.name != study.name)]:
                store = Store(results, study.name)
                if os.path.isdir(store.runs):
                    runs[store.folder] = of_study(study, latest_runs(store.load(), study))
        for generated in (True, False):
            these = {f: [r for r in rs if r.data.embedded == generated] for f, rs in runs.items()}
            these = {folder: records for folder, records in these.items() if records}
            if these or not generated or any(isinstance(s, Generated) for s in study.sources.values()):
                found.append(Setting(study, generated, these))
    if not any(setting.runs for setting in found):
        names = ", ".join(study.name for study in studies)
        hold = f"hold{'s' * (len(folders) == 1)} no runs of {names}"
        raise InputError(", ".join(map(str, folders)), hold, "name the folders given as --results")
    return found


def agreement_page(settings: Sequence[Setting], folder: Path) -> str:
    """The page in Markdown, its links relative to a folder; settings that answer best come last."""
    claims = list({claim.id: claim for s in settings for claim in s.study.claims}.values())
    parts = [
        "# Do generated pictures answer as real ones do?",
        "Written by `cvhw4 agreement` from the stored runs, nothing by hand. Every figure is the mean over seeds of "
        f"the difference after the {settings[0].study.epoch} epoch, with its 95 % interval over seeds; verdicts as "
        "on the pages linked at the end. Where seeds also drew their own pictures (*redrawn*), claims are of "
        "those runs, and their intervals about other pictures too. What is published is of best epochs.",
        *_signs(settings, claims),
        *_real(settings, claims),
        *section("Every claim in every setting", "", _every(settings, claims)),
        *_redrawn(settings, claims),
        *_orders(settings),
        *_equal_steps(settings, claims),
        *_detected(settings),
        "## Settings",
        _sources(settings, folder),
        *_limits(settings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sources(settings: Sequence[Setting], folder: Path) -> str:
    lines = []
    for setting in settings:
        if not setting.runs:
            lines.append({"setting": setting.name, "data": _MISSING})
        for store, records in setting.runs.items():
            pages = [store / f"{name}.md" for name in ("verdicts", "report")]  # the first only of several seeds
            links = [f"[{page.stem}]({os.path.relpath(page, folder)})" for page in pages if page.exists()]
            rows = by_row(records)
            networks = dict.fromkeys(str(r.settings.get("network", r.weights.network)) for r in records)  # or the loop
            lines.append(
                {
                    "setting": setting.name,
                    "data": escape("; ".join(sorted({r.data.name for r in records}))),
                    "rows": str(len(rows)),
                    "seeds a row": ends(sorted({len({r.seed for r in of_row}) for of_row in rows.values()})),
                    "networks": escape(", ".join(networks)),
                    "precision": ", ".join(sorted({str(r.environment.get("precision", "float32")) for r in records})),
                    "device": escape("; ".join(sorted({_processor(r) for r in records}))),
                    "days": days(records),
                    "pages": ", ".join(links) or "-",
                }
            )
    return Table.of(lines).markdown()


def _limits(settings: Sequence[Setting]) -> list[str]:
    """What the studies say of themselves, each sentence once, with whose it is."""
    whose: dict[str, list[str]] = {}
    for study in dict.fromkeys(s.study.name for s in settings):
        about = next(s.study.about for s in settings if s.study.name == study)
        for sentence in re.split(r"(?<=\.) (?=[A-Z])", about) if about else ():
            whose.setdefault(sentence, []).append(study)
    together = grouped(whose, lambda sentence: ", ".join(whose[sentence]))
    return [f"*{names}*: {escape(' '.join(sentences))}" for names, sentences in together.items()]


def _processor(record: RunRecord) -> str:
    """ "AMD EPYC, cpu (1 thread)", or a GPU's name."""
    return ", ".join(dict.fromkeys((record.environment["device_name"], device(record))))


def _real(settings: Sequence[Setting], claims: Sequence[Claim]) -> list[str]:
    """What real pictures say, in short."""
    lines = []
    for claim in claims:
        found = [s for s in reversed(settings) if not s.generated and claim.id in s.outcomes]
        cells = {s.name: f"{s.study.name}, {_cell(s.outcomes[claim.id])}" for s in found}
        more = [s for s in found if s.outcomes[claim.id].difference.n > found[0].outcomes[claim.id].difference.n]
        shown = [s.outcomes[claim.id].data for s in (*found[:1], *more[:1])]
        lines.append(
            {
                "claim": _words(claim),
                "published": _published(settings, claim),
                "closest to the publication": cells[found[0].name] if found else _MISSING,
                "with more seeds": cells[more[0].name] if more else "-",
                "pictures": escape("; ".join(dict.fromkeys(shown))) or "-",
            }
        )
    about = (
        "*Closest to the publication*: the size most like the publication's at which the claim has runs; *with more "
        "seeds*: the next size below that has more seeds."
    )
    return section("On real pictures", about, Table.of(lines, optional=("published", "with more seeds", "pictures")))


def _every(settings: Sequence[Setting], claims: Sequence[Claim]) -> list[dict[str, str]]:
    lines = []
    for claim in claims:
        line = {"claim": _words(claim), "figure": metric_name(claim.metric)}
        real = dict.fromkeys(s.outcomes[claim.id].data for s in settings if claim.id in s.outcomes and not s.generated)
        line["real pictures"] = escape("; ".join(real)) or "-"
        for setting in settings:
            o = setting.outcomes.get(claim.id)
            impossible = setting.generated and claim.worse is None
            mixed = len({o.redrawn for o in setting.outcomes.values()}) > 1
            made = "not judged on generated pictures" if impossible else _MISSING
            absent = made if claim.id in {c.id for c in setting.study.claims} else "-"
            line[setting.name] = _cell(o, mixed) if o else absent
        lines.append(line | {"published": _published(settings, claim)})
    return lines


def _redrawn(settings: Sequence[Setting], claims: Sequence[Claim]) -> list[str]:
    """What it changes that each seed draws its own pictures."""
    lines = []
    for setting in settings:
        for claim in claims:
            drawn, fixed = setting.outcomes.get(claim.id), setting.fixed.get(claim.id)
            if drawn is not None and fixed is not None and drawn.redrawn and not fixed.redrawn:
                lines.append(
                    {
                        "claim": _words(claim),
                        "figure": metric_name(claim.metric),
                        "the same pictures": _cell(fixed),
                        "redrawn": _cell(drawn),
                        "redrawn less the same": _change(fixed, drawn),
                    }
                )
    return section(
        "The same pictures for all seeds, or each its own",
        "*Redrawn*: each seed drew its own training and validation pictures, in as large numbers, so that the interval "
        "is about other pictures of that kind too; on the same pictures it is about other seeds alone. *Redrawn less "
        "the same*: seed by seed, as a seed's start and order are the same in both, with its 95 % interval (Student's "
        "t, for this claim alone); it leaves 0 out by chance, as that one set of pictures differs from the average "
        "one, or as the runs are of other code and machines.",
        lines,
    )


def _change(before: Outcome, after: Outcome) -> str:
    """ "-0.031 [-0.061, -0.001]": the mean of the differences seed by seed, over the seeds of both."""
    first, then = (dict(zip(o.seeds, o.differences, strict=True)) for o in (before, after))
    changes = [then[seed] - first[seed] for seed in first if seed in then]
    if len(changes) < 2:
        return "-"
    found = estimate(changes)
    return f"{number(found.mean, sign='+')} {interval(found)}"


def _signs(settings: Sequence[Setting], claims: Sequence[Claim]) -> list[str]:
    """Whether settings agree in sign, claim by claim, and in words."""
    lines, tally = [], dict[str, dict[str, list[str]]]()
    for claim in claims:
        found_in = [s for s in settings if claim.id in s.outcomes and s.outcomes[claim.id].verdict != OTHER_PICTURES]
        real = [s for s in found_in if not s.generated]
        if not real:
            continue
        seeds = {s.name: s.outcomes[claim.id].difference.n for s in real}
        best = next((s for least in (ENOUGH, 2) for s in reversed(real) if seeds[s.name] >= least), real[-1])
        against = best.outcomes[claim.id].difference
        line = {"claim": _words(claim), "held against": best.name}
        for setting in settings:
            o = setting.outcomes.get(claim.id)
            if setting is best or o is None or setting not in found_in:
                line[setting.name] = "-"
                continue
            found = sides(o.difference, against, claim.margin)
            line[setting.name] = f"**{found}**" if found == "differ" else found
            tally.setdefault(setting.name, {}).setdefault(found, []).append(escape(claim.sentence))
        one = _stated(settings, claim)
        same = (one - claim.margin) * (against.mean - claim.margin) > 0
        unknown = math.isnan(one) or claim.worse is None or claim.margin in (one, against.mean)
        line["published"] = "-" if unknown else "same sign" if same else "**other sign**"
        lines.append(line)
    words = []
    for name, found_here in tally.items():
        total = sum(map(len, found_here.values()))
        agree, means = (len(found_here.get(kind, [])) for kind in ("agree", "open, means agree"))
        controls = ", controls included," * any(c.control for c in claims)
        text = f"- **{name}**: of {total} claim{'s' * (total > 1)}{controls} {agree} agree{'s' * (agree == 1)} in sign"
        if means:
            text += f"; {means} more {'have means that agree' if means > 1 else 'has means that agree'}, undecided"
        for kind, what in _OPPOSITE.items():
            if names := found_here.get(kind):
                text += f"; {len(names)} {what}: {'; '.join(names)}"
        words.append(text + ".")
    return [
        "## Signs",
        "\n".join(words),
        "Each difference is compared with the one in the setting under *held against*: real pictures, at the size "
        f"closest to the publication at which {ENOUGH} seeds or more have the claim, or else two, or one. *Agree* and "
        "*differ*: both intervals leave zero (the claim's margin) out. *Open*: one of them does not, or is of one run; "
        "then the means alone agree or differ. Of what is published only the sign is compared; a published figure by "
        "itself says nothing about other pictures.",
        Table.of(lines).markdown() or "No claim has been measured on real pictures yet.",
    ]


def _orders(settings: Sequence[Setting]) -> list[str]:
    lines = []
    metrics = dict.fromkeys(metric for s in settings for task in s.study.tasks for metric in s.study.shown(task))
    for metric in metrics:
        having = [(s, figures) for s in settings if (figures := s.figures(metric))]
        for (setting, figures), (other, against) in combinations(having, 2):
            found = order(figures, against)
            if found is None or found.rows < _ORDERED:
                continue
            lines.append(
                {
                    "figure": metric_name(metric),
                    "setting": setting.name,
                    "held against": other.name,
                    "rows": str(found.rows),
                    "tau": "-" if math.isnan(found.tau) else f"{found.tau:.2f}",
                    "swapped": _swapped(found),
                    "open": str(found.open),
                }
            )
    return [
        "## Order of the rows",
        f"By mean figure after the {settings[0].study.epoch} epoch, as Kendall's tau-b (1: the same order, -1: the "
        f"reverse), where {_ORDERED} rows or more are in both. *Swapped*: pairs in another order whose 95 % "
        "intervals do not overlap in either setting; *open*: the other pairs in another order.",
        Table.of(lines).markdown() or f"No two settings have {_ORDERED} rows in common yet.",
    ]


def _swapped(order: Order) -> str:
    """ "a, b above c here alone": those above the same rows together."""
    below: dict[str, list[str]] = {}
    for a, b in order.swapped:
        below.setdefault(a, []).append(b)
    alike = grouped(below, lambda a: ", ".join(below[a]))
    return "; ".join(f"{', '.join(above)} above {rows} here alone" for rows, above in alike.items()) or "none"


def _equal_steps(settings: Sequence[Setting], claims: Sequence[Claim]) -> list[str]:
    """The claims for which settings differ in how long they train, where each trains about as long as the shortest."""
    if any(s.study.train is not None for s in settings):  # whose steps only its training loop knows
        return []
    rows = grouped((r for s in settings for rs in s.runs.values() for r in rs), lambda r: r.row)
    totals = {row: min(map(_steps, of_row)) for row, of_row in rows.items()}  # of the shortest setting
    cut = [
        replace(s, runs={f: [_first(totals[r.row], r) for r in rs] for f, rs in s.runs.items()}, whole=False)
        for s in settings
    ]
    lines = []
    for claim in claims:
        cells, shorter = {}, False
        for whole, setting in zip(settings, cut, strict=True):
            o = setting.outcomes.get(claim.id)
            if o is None:
                continue
            steps, before = (
                sorted({_steps(r) for rs in s.runs.values() for r in rs if r.row in claim.rows})
                for s in (setting, whole)
            )
            cells[setting.name] = f"{_cell(o)} ({ends(steps)} steps)"
            shorter = shorter or steps != before
        if len(cells) > 1 and shorter:
            lines.append({"claim": _words(claim), "figure": metric_name(claim.metric), **cells})
    return section(
        "After as many optimizer steps",
        "Where settings differ in how long they train, each ends here with the epoch after which it had taken about as "
        "many steps as the shortest one, at the learning rates of its own schedule: what agrees here and not above "
        "depends on how long one trains, not on the pictures.",
        lines,
    )


def _steps(record: RunRecord) -> int:
    return _steps_an_epoch(record) * len(record.epochs)


def _steps_an_epoch(record: RunRecord) -> int:
    return math.ceil(record.data.train / record.settings["recipe"]["batch"])


def _first(steps: int, record: RunRecord) -> RunRecord:
    """The run as if it had ended with the epoch that is nearest to so many steps."""
    return replace(record, epochs=record.epochs[: max(round(steps / _steps_an_epoch(record)), 1)])


def _detected(settings: Sequence[Setting]) -> list[str]:
    """How many classes segmentation detects at all, by row."""
    found: dict[str, dict[str, str]] = {}
    for setting in settings:
        for row, runs in setting.rows.items():
            if runs[0].task != SEGMENTATION.name:
                continue
            classes = dict(zip(class_names(runs[0]), of_class(runs, "iou"), strict=True))
            missed = [escape(name) for name, e in classes.items() if e is None or e.mean <= DETECTED]
            text = f"{len(classes) - len(missed)} of {len(classes)}" + (f" (not {'; '.join(missed)})" if missed else "")
            found.setdefault(row, {})[setting.name] = text
    return section(
        "Classes detected",
        f"Classes whose IoU by image after the last epoch is above {DETECTED:g} in the mean over seeds.",
        [
            {"row": row, **{s.name: of_row.get(s.name, _MISSING if row in s.study.rows else "-") for s in settings}}
            for row, of_row in found.items()
        ],
    )


def _words(claim: Claim) -> str:
    return escape(claim.sentence) + (" *(control)*" if claim.control else "")


def _cell(o: Outcome, mixed: bool = False) -> str:
    """ "+0.126 [0.116, 0.136], 20 seeds: **supported**"; "redrawn" is said where cells beside it are `mixed`."""
    n = o.difference.n
    width = f" {interval_of(o)}" if n > 1 else ""
    return f"{difference(o)}{width}, {n} seed{'s' * (n > 1)}{', redrawn' * (mixed and o.redrawn)}: {verdict(o)}"


def _stated(settings: Sequence[Setting], claim: Claim) -> float:
    """The published difference, NaN where there is none."""
    of_claim = [s.study for s in settings if claim.id in {c.id for c in s.study.claims}]
    return stated(claim, of_claim[-1]).difference


def _published(settings: Sequence[Setting], claim: Claim) -> str:
    one = _stated(settings, claim)
    return "-" if math.isnan(one) else signed(one, claim)

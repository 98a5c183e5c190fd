"""Tables for papers: figures and tests by hand, every format as a renderer reads it, the command."""

import csv
import io
import math
import re
import shutil
import subprocess
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_rel
from typer.testing import CliRunner

import cvhw4
from cvhw4 import Claim, InputError, Study, Style, claims_figure, curves_figure, results_table
from cvhw4 import stored as stored_runs
from cvhw4.cli import app
from cvhw4.records.store import Store
from cvhw4.report.marks import marks_note, marks_of_claims
from cvhw4.report.page import tables_in
from cvhw4.report.papers import FORMATS, read_style, rendered
from cvhw4.statistics.intervals import estimate
from tests.helpers import ROOT
from tests.helpers.tiny import QUICK, record

# Accuracies of 400 validation images, four seeds: q1_2 beats both others in every seed.
SEEDS = {"q1_1": (0.80, 0.82, 0.81, 0.83), "q1_2": (0.90, 0.91, 0.92, 0.91), "q1_3": (0.57, 0.83, 0.60, 0.75)}


def runs(seeds=SEEDS):
    return [record(row, s, figures=((v,), (v - 0.01,))) for row, values in seeds.items() for s, v in enumerate(values)]


def made(seeds=SEEDS, **style):
    (table,) = results_table(QUICK, runs(seeds), Style(**{"columns": {"accuracy": "Acc."}, "epoch": "best"} | style))
    return table


def flat(text):
    return " ".join(text.replace("\\", "").split())


def cells(table):
    return {name.split("-")[0]: cell for name, (cell,) in table.rows}


def test_cells_are_means_and_spreads_of_the_best_or_last_epoch():
    values = pd.Series(SEEDS["q1_1"])
    cell = cells(made(epoch="best"))["q1_1"]
    assert cells(made(epoch=""))["q1_1"] == cells(made(epoch="last"))["q1_1"]  # as the study's claims are judged
    assert cell[:3] == pytest.approx((values.mean(), values.std(), 4))
    half = values.sem() * 3.182446  # Student's t, 3 degrees of freedom
    assert cells(made(spread="interval"))["q1_1"].spread == pytest.approx(half, rel=1e-6)
    skewed = {"q1_1": [0.5] + [0.8] * 19, "q1_2": [0.9] * 20}  # whose interval reaches farther down than up
    table = made(skewed, spread="interval", baseline="q1_2-finetune", differences=True)
    e = estimate(skewed["q1_1"])
    assert e.mean - e.low > 1.2 * (e.high - e.mean)
    ((_, (own, difference)), _) = table.rows
    assert (own.spread, difference.spread) == (pytest.approx(e.mean - e.low), pytest.approx(e.mean - e.low))
    last = cells(made(epoch="last", percent=True))["q1_1"]
    assert last[:2] == pytest.approx((100 * (values.mean() - 0.01), 100 * values.std()))
    assert math.isnan(cells(made(spread="none"))["q1_1"].spread)


def test_shares_are_in_percent_where_they_are_named_and_figures_above_1_are_none():
    table = made(percent=["accuracy"])
    assert cells(table)["q1_2"].mean == pytest.approx(91.0) and "91.0 ± 0.8" in table.markdown()
    with pytest.raises(InputError, match="column beauty: is a figure that no run has"):
        made(percent=["beauty"])
    many, wrong = runs({"q1_2": (70.0, 71.5)}), "column accuracy: has figures above 1, so it is no share. Fix: "
    for run in many:
        run.epochs[-1].figures["auc"] = 0.5
    fixes = {("accuracy",): "leave percent out", ("accuracy", "auc"): r'shares: percent = \["auc"\] in a file'}
    for columns, fix in fixes.items():
        with pytest.raises(InputError, match=f"{wrong}.*{fix}"):
            results_table(QUICK, many, Style(columns=dict.fromkeys(columns, ""), percent=True, epoch="last"))


def test_bold_is_what_beats_every_other_row_and_nothing_else():
    assert [row for row, cell in cells(made()).items() if cell.bold] == ["q1_2"]
    p = [ttest_rel(SEEDS["q1_2"], SEEDS[row]).pvalue for row in ("q1_1", "q1_3")]
    assert max(2 * min(p), max(p)) < 0.05  # Holm, by hand
    unsure = SEEDS | {"q1_1": (0.70, 0.95, 0.89, 0.93)}  # the best by its mean is not sure
    for seeds in (unsure, {row: v[:1] for row, v in SEEDS.items()}, {"q1_2": SEEDS["q1_2"]}):
        assert not any(cell.bold for cell in cells(made(seeds)).values())


def test_lower_is_better_for_a_loss():
    low = [record(row, s, loss=0.2 + i + s / 100) for i, row in enumerate(("q1_1", "q1_2")) for s in range(4)]
    for run in low:
        run.epochs[-1].figures["loss"] = run.epochs[-1].loss
    (table,) = results_table(QUICK, low, Style(columns={"loss": ""}, epoch="last"))
    assert [row for row, cell in cells(table).items() if cell.bold] == ["q1_1"]


def test_marks_are_against_the_baseline_alone():
    marks = {row: cell.mark for row, cell in cells(made(baseline="q1_1")).items()}
    p = ttest_rel(SEEDS["q1_3"], SEEDS["q1_1"]).pvalue
    assert p > 0.05 and marks == {"q1_1": "", "q1_2": "*", "q1_3": ""}
    assert cells(made(baseline="q1_2"))["q1_1"].mark == "†"
    assert any("2 paired t tests" in note for note in made(baseline="q1_1").notes)
    assert {cell.mark for cell in cells(made()).values()} == {""}


def test_bold_says_no_more_than_the_marks_beside_it():
    """One column's test is sure by itself, and not among those of both columns."""
    gains = ((0.02, 0.01), (0.012, -0.01), (0.03, 0.01), (0.008, -0.01))
    runs = [record("q2_1b", s, figures=((0.3, 0.8, 0.3, 0.8),)) for s in range(4)]
    runs += [record("q2_1a", s, figures=((0.3 + a, 0.8 + b, 0.3, 0.8),)) for s, (a, b) in enumerate(gains)]
    for baseline, bold in (("", True), ("q2_1b", False), ("q2_1a", False)):
        (table,) = results_table(QUICK, runs, Style(columns={"miou": "", "pixel_accuracy": ""}, baseline=baseline))
        found = {name.split("-")[0]: of[0] for name, of in table.rows}
        assert (found["q2_1a"].bold, found["q2_1b"].mark) == (bold, "") and not found["q2_1b"].bold
        assert any(note.startswith("mIoU and pixel accuracy by image") for note in table.notes)


def test_differences_are_columns_beside_their_figures():
    table = made(baseline="q1_1", differences=True)
    assert table.columns == ("Acc.", "Acc., difference") and "+0.095 ± 0.021" in table.markdown()
    found = {name.split("-")[0]: cells[1] for name, cells in table.rows}
    gap = pd.Series(SEEDS["q1_3"]) - pd.Series(SEEDS["q1_1"])
    assert found["q1_1"] is None and found["q1_3"][:3] == pytest.approx((gap.mean(), gap.sem() * 3.182446, 4))
    assert table.frame()["Acc., difference", "n"].tolist() == [0, 4, 4] and "reach of their 95 %" in table.notes[-1]
    with pytest.raises(InputError, match="the table: has differences or marks from no row"):
        made(differences=True)


def test_marks_may_be_the_verdicts_on_the_studys_claims():
    table = made(baseline="q1_1", marks="claims", epoch="")
    assert {row: cell.mark for row, cell in cells(table).items()} == {"q1_1": "", "q1_2": "*", "q1_3": ""}
    assert "* above, † below q1_1-features (2 claims of the study, judged with its others, Holm, 5 %)." in table.notes
    none = made(baseline="q1_3", marks="claims", epoch="", rows={"q1_3": "", "q1_5": ""})
    assert "Without marks: no claim of the study is about one of these rows and q1_3-scratch." in none.notes
    with pytest.raises(InputError, match="marks: are of claims, which go by the last epoch"):
        made(baseline="q1_1", marks="claims")


@pytest.mark.parametrize(
    ("better", "verdict", "lowest", "mark"),
    [
        ("a", "supported", (), "*"),
        ("a", "contradicted", (), "†"),
        ("b", "supported", (), "†"),
        ("a", "supported", ("x",), "†"),
        ("a", "equivalent", (), "‡"),
        ("a", "undecided", (), ""),
        ("a", "about other pictures", (), ""),
    ],
)
def test_the_mark_of_a_against_b(better, verdict, lowest, mark):
    claim = Claim(better=better, worse="b" if better == "a" else "a", metric="x")
    made = marks_of_claims([SimpleNamespace(claim=claim, verdict=verdict)], "b", lowest)
    assert made == {("a", "x"): mark} and ("‡" in marks_note(made, "b", True)[0]) == (mark == "‡")
    of_a_difference = SimpleNamespace(claim=Claim(better=("a", "b"), metric="x"), verdict=verdict)
    assert marks_of_claims([of_a_difference], "b", lowest) == {}


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.80, 0.82, 0.81, 0.83), "0.815 ± 0.013"),
        ((0.8123, 0.8124, 0.8125, 0.8126), "0.81245 ± 0.00013"),
        ((0.3, 0.9, 0.5, 0.1), "0.45 ± 0.34"),
        ((0.5, 0.5, 0.5, 0.5), "0.500 ± 0.000"),
        ((0.9,), "0.900"),  # one seed has no spread
    ],
)
def test_digits_fit_the_spread(values, shown):
    table = made({"q1_2": values})
    assert f"| q1_2-finetune | {shown} |" in flat(table.markdown()) and "q1_1" not in table.markdown()
    assert len(values) > 1 or table.notes == ("Mean over 1 seed, best epoch.",)
    assert "| 0.8 ± 0.0 |" in flat(made({"q1_2": (0.80, 0.82)}, digits=1).markdown())


NASTY = "[α]→Ω: 100 % of_A & {B} #1 $x$ ~^ \\ <b>*[_]*</b> | †±"


@pytest.mark.parametrize("style", [{}, {"siunitx": True}, {"caption": NASTY, "label": "tab:a"}], ids=str)
def test_latex_compiles(style, tmp_path):
    table = made(rows={"q1_2": NASTY, "q1_1": "features"}, baseline="q1_1", **style)
    text = rendered([table, made()], ".tex")
    assert text.count(r"\begin{tabular}") == 2 and r"{\boldmath\bfseries $0.910 \pm 0.008$}\ensuremath{^{*}}" in text
    assert ("siunitx" in style) == (r"\num[separate-uncertainty=true]{0.815 +- 0.013}" in text)
    sty = ["kpsewhich", "booktabs.sty", *(["siunitx.sty"] if style.get("siunitx") else [])]
    if not shutil.which("pdflatex") or subprocess.run(sty, stdout=subprocess.DEVNULL).returncode:
        pytest.skip("no pdflatex, or not its packages")
    packages = r"\usepackage{booktabs}" + (r"\usepackage{siunitx}" if style.get("siunitx") else "")
    page = r"\documentclass{article}" + packages + r"\begin{document}" + "\n" + text + r"\end{document}"
    (tmp_path / "t.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert fonts((tmp_path / "t.pdf").read_bytes()) == {"Type1"}


def fonts(pdf):
    """What kinds of fonts a PDF has, most of which are described in streams that are compressed."""
    texts = [pdf]
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        with suppress(zlib.error):  # a stream that is not compressed
            texts.append(zlib.decompressobj().decompress(stream))
    return {kind.decode() for kind in re.findall(rb"/Subtype\s*/(Type\d|TrueType|CIDFont\w*)\b", b"\n".join(texts))}


def test_committed_tables_have_outlines_as_fonts():
    """None of dots (Type 3), which publishers refuse; matplotlib's, by default, are some."""
    pages = [*(ROOT / "results" / "quick" / "tables").glob("*.pdf")]
    assert len(pages) == 3 and all(fonts(page.read_bytes()) == {"Type1"} for page in pages)
    figure, buffer = Figure(), io.BytesIO()
    figure.text(0.5, 0.5, "a")
    figure.savefig(buffer, format="pdf")
    assert fonts(buffer.getvalue()) == {"Type3"}


def test_signs_that_latex_and_typst_read_otherwise():
    table = made(rows={"q1_2": "1. base | a\u00a0%", "q1_1": "x"}, baseline="q1_1", caption="c")
    body = table.latex().partition(r"\toprule")[2]
    assert r"1. base \textbar{} a" in body and "|" not in body
    assert "[1\\. base | a\u00a0%]" in table.typst() and "figure.caption(position: top)[" in table.typst()


@pytest.mark.parametrize("style", [{}, {"caption": NASTY, "label": "tab-a"}], ids=str)
def test_typst_compiles(style, tmp_path):
    typst = pytest.importorskip("typst")
    (tmp_path / "t.typ").write_text(made(rows={"q1_2": NASTY, "q1_1": "x"}, baseline="q1_1", **style).typst())
    assert typst.compile(str(tmp_path / "t.typ")).startswith(b"%PDF")


def visible(text):
    """What the reader of the made document sees: without comments and escapes."""
    lines = (line for line in text.splitlines() if not line.startswith(("%", "//")))
    return "\n".join(lines).replace(r"\ensuremath{\pm}", "±").replace("\\", "")


@pytest.mark.parametrize("kind", [".tex", ".typ", ".md", ".html"])
@pytest.mark.parametrize(("caption", "shown"), [("", ""), ("One network", "One network."), ("Which? ", "Which?")])
def test_caption_and_notes_are_shown_in_every_format(kind, caption, shown):
    notes = ("Mean ± standard deviation over 4 seeds, best epoch.", "Bold: better than every other row")
    text = visible(rendered([made(caption=caption)], kind))
    assert shown in text and all(note in text for note in notes)
    assert f"{shown} {notes[0]}" in text or not caption or kind in (".md", ".html")
    assert ("2019 report" in text) == (kind == ".html" and not caption)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("caption", ["", "One network"])
def test_several_tables_in_one_file_say_which_is_which(kind, caption):
    """Two data sets of one name among them."""
    many = [*runs(), *(replace(r, data=replace(r.data, fingerprint="f" * 64)) for r in runs())]
    tables = results_table(QUICK, many, Style(columns={"accuracy": ""}, caption=caption, label="tab"))
    title = QUICK.title + ": embedded, classification"
    assert [(t.title, t.style.label) for t in tables] == [(title, "tab"), (f"{title} (2)", "tab-2")]
    assert tables.frame().index.get_level_values("table").unique().tolist() == [t.title for t in tables]
    text, alone = rendered([*tables], kind), rendered(tables[:1], kind)
    if kind == ".csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        assert [line["table"] for line in lines] == [t.title for t in tables for _ in t.rows]
    else:
        titles = [t.title.replace("'", "&#x27;") if kind == ".html" else t.title for t in tables]
        assert [visible(text).count(f"{t}. {caption}".rstrip()) for t in titles] == [1, 1]
        assert "(2)" not in alone and (kind == ".html" or "2019 report" not in visible(alone))


def test_a_study_shows_its_stored_runs_in_a_notebook(tmp_path):
    with pytest.raises(InputError, match="quick: has no runs"):
        QUICK.table(tmp_path)
    for run in [*runs(), record("q2_1a")]:
        Store(tmp_path, "quick").save(run)
    study, found = stored_runs(QUICK, tmp_path)
    assert study is QUICK and len(found) == len(runs()) + 1
    with pytest.raises(InputError, match=r"none.py: is not a file"):
        stored_runs(tmp_path / "none.py", tmp_path)
    tables = QUICK.table(tmp_path, columns={"accuracy": "Acc."}, epoch="best")
    assert tables == results_table(QUICK, runs(), Style(columns={"accuracy": "Acc."}, epoch="best"))
    assert tables.frame().equals(tables[0].frame()) and tables._repr_html_() == tables[0]._repr_html_()
    both = QUICK.table(tmp_path)
    assert both._repr_html_().count("<table>") == 2 and both.frame().index.nlevels == 2
    with pytest.raises(InputError, match=r"the style: .*colour.*Fix: use rows, columns, baseline, marks"):
        QUICK.table(tmp_path, colour="red")


def test_html_and_csv_and_pandas_say_the_same():
    table = made(rows={"q1_2": NASTY, "q1_1": "b", "q1_3": ""})
    read = ElementTree.fromstring(f"<div>{table.html()}</div>")
    first = ["".join(cell.itertext()).strip() for cell in read.findall(".//tr")[1]]
    assert first == [NASTY, "0.910 ± 0.008"] and read.find(".//b") is not None
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [line["row"] for line in lines] == [NASTY, "b", "q1_3-scratch"]
    frame = table.frame()
    assert frame["Acc.", "mean"].tolist() == [float(line["mean"]) for line in lines]
    assert frame["Acc.", "sd"].tolist() == [float(line["sd"]) for line in lines]
    assert ("Acc.", "reach") in made(spread="interval", columns={"accuracy": "Acc."}).frame()
    assert frame["Acc.", "n"].tolist() == [4, 4, 4] and [line["bold"] for line in lines] == ["True", "False", "False"]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    store = Store(tmp_path / "results", "quick")
    for run in [*runs(), *(record("q2_1a", s, figures=((0.2 + s / 100,),)) for s in range(2))]:
        store.save(run)
    return tmp_path


def command(*arguments, of="table"):
    return CliRunner().invoke(app, [of, "--study", "quick", *map(str, arguments)])


def test_the_command_prints_a_table_for_each_task_and_writes_every_format(stored):
    printed = flat(command().stdout)
    assert "| q1_1-features | 0.805 ± 0.013" in printed and "| q2_1a-skip" in printed
    for ending in FORMATS:
        assert command("q1_2", "q1_1", "--output", stored / f"t{ending}").exit_code == 0
        text = (stored / f"t{ending}").read_text().replace("\\", "")
        assert text.index("q1_2-finetune") < text.index("q1_1-features") and "q1_3" not in text


def test_a_studys_own_tables_are_written_at_once(stored, monkeypatch):
    done = command("--all")
    assert done.exit_code == 0, done.exception
    folder = stored / "results" / "quick" / "tables"
    assert "Fine-tuned & " in (folder / "q1_4.tex").read_text()
    assert "With skip connections & $0.205" in (folder / "q2_1.tex").read_text()
    assert not (folder / "q2_4.tex").exists()  # none of its rows was trained
    linked = [path for path in tables_in(QUICK, folder.parent) if path.endswith(".tex")]
    assert linked == ["tables/q1_4.tex", "tables/q2_1.tex"]
    if shutil.which("pdflatex"):
        first = (folder / "q1_4.pdf").read_bytes()
        command("--all")
        assert first.startswith(b"%PDF") and first == (folder / "q1_4.pdf").read_bytes()
    monkeypatch.setenv("PATH", "")
    for name in ("q1_4", "q2_1"):  # an old PDF of a table that is as it was, and of one that changed
        (folder / f"{name}.pdf").write_bytes(b"%PDF of before")
    (folder / "q2_1.tex").write_text("another table")
    with pytest.warns(UserWarning, match="no PDFs are made of the tables: pdflatex is not installed"):
        assert command("--all").exit_code == 0
    assert [path.name for path in folder.glob("*.pdf")] == ["q1_4.pdf"]


def test_a_style_file_names_rows_and_columns_and_options_come_before_it(stored):
    (stored / "paper.toml").write_text(
        'percent = true\nbaseline = "q1_1"\n[rows]\nq1_2 = "Fine-tuned"\nq1_1 = "Features"\n'
        '[columns]\naccuracy = "Acc."\n'
    )
    assert read_style(stored / "paper.toml").rows == {"q1_2": "Fine-tuned", "q1_1": "Features"}
    for names in ((), ("q1_2-finetune", "q1_1")):  # also by another of its names
        done = command(*names, "--style", stored / "paper.toml")
        assert r"0.8**\*" in done.stdout and "| Fine-tuned | **90.0 ± 0.8*** |" in flat(done.stdout)
    done = command("q1_1", "--style", stored / "paper.toml", "--spread", "none", "--digits", "0")
    assert "| Features | 80 " in flat(done.stdout) and "Fine" not in done.stdout


def test_figures_for_papers_are_of_a_columns_width_with_fonts_embedded(stored):
    for arguments in (
        "claims claims.pdf --width 3.3",
        "claims once/more.pdf --width 3.3",
        "curves curves.svg q1_1 q1_2 --width 3.3",
        "curves curves.png q2_1a",
        "curves together.svg q1_1 q1_2 --together",
    ):
        done = command(*arguments.split(), of="figure")
        assert done.exit_code == 0, done.exception
    pdf, svg = (stored / "claims.pdf").read_bytes(), (stored / "curves.svg").read_text()
    assert fonts(pdf) == {"Type0", "CIDFontType2"} and b"/MediaBox [ 0 0 237.6 " in pdf  # 3.3 inches, TrueType
    assert pdf == (stored / "once" / "more.pdf").read_bytes()
    assert 'width="237.6pt"' in svg and "<text" not in svg and "q1_3" not in svg
    assert (stored / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (stored / "together.svg").read_text().count('id="axes_') == 1 < svg.count('id="axes_')


def test_figures_show_what_is_named_by_its_name():
    many = [*runs(), *(record("q2_1a", s) for s in range(2))]
    whole = claims_figure(QUICK, many)
    assert "fine-tuned network beats" in whole.alt
    one = claims_figure(QUICK, many, 3.3, {"q1_4-finetune_above_features": "Tuning helps"})
    assert one.alt.startswith("The claims as a forest plot. Tuning helps: +0.") and ";" not in one.alt
    assert one.alt.split(": ")[-1].rstrip(".") in whole.alt  # judged with the others
    with pytest.raises(InputError, match=r"claims: has claim='q1'\. Fix: choose one of q1_4-"):
        claims_figure(QUICK, many, names=["q1"])
    both = curves_figure(QUICK, many, {"q1_2": "Tuned", "q1_1": ""}, together=True)
    assert "after the last one Tuned 0.9" in both.alt
    titles = [t for t in re.findall(r">([^<>]+)</text>", both.svg) if "(n = " in t]
    assert titles == ["Tuned (n = 4)", "q1_1-features (n = 4)"]
    again = [replace(r, data=replace(r.data, name="a, b", fingerprint="a" * 64)) for r in many]
    told = r"of embedded; a, b\. Fix: name rows that ran on one of them alone, or keep the runs of each"
    with pytest.raises(InputError, match=told):
        curves_figure(QUICK, [*many, *again], ["q1_2"])


def test_claims_without_words_of_their_own_call_rows_by_their_labels():
    claims = [
        Claim(better="a", worse="b", metric="x"),
        Claim(better=("a", "b"), worse="b", metric="x", id="more", margin=0.1),
        Claim(better="a", worse="b", metric="x", id="own", sentence="a is better than b"),
    ]
    labels = {"b": "no skip", "a": "A"}
    study = Study("s", train=fit, rows={"a": {}, "b": {}}, primary="x", claims=claims, labels=labels)
    assert [c.words(study.labels) for c in study.claims] == [
        "A beats no skip in x", "A less no skip beats no skip by 0.1 in x", "a is better than b",
    ]  # fmt: skip


def test_curves_in_one_panel_are_told_apart():
    """Each by its colour and its dashes, as many as there are; more are refused."""
    names = [f"r{i}" for i in range(29)]
    study = Study("s", train=fit, rows={name: {"i": name} for name in names}, primary="x")
    many = [replace(r, row=name, task="custom") for name in names for r in runs({"q1_1": (0.1, 0.2)})]
    for run in many:
        for epoch in run.epochs:
            epoch.figures["x"] = epoch.figures["accuracy"]
    picture = curves_figure(study, many, names[:28], "x", together=True)
    lines = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="fill: none; (stroke.*?: #[^"]*)"', picture.svg)
    assert len(lines) == len({*lines}) == 28
    with pytest.raises(InputError, match=r"curves: have 29 rows together\. Fix: name 28 at most"):
        curves_figure(study, many, names, "x", together=True)


def fit(run):
    yield {"x": 0.0}


def test_what_the_documentation_does_in_a_notebook(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.cvhw4]\nstudies = "cvhw4.homework:studies"\n')
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reports.md").read_text(), re.DOTALL)
    exec(block, {"cvhw4": cvhw4})
    sides = [re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) ", Path(name).read_bytes()).groups()
             for name in ("decomposition.pdf", "claims.pdf")]  # fmt: skip
    assert {width for width, _ in sides} == {b"237.6"} and float(sides[0][1]) > 300  # panels one below the other


def test_the_pictures_of_a_studys_sections_are_figures_too(stored):
    named = command("decomposition", "x.pdf", "q2_1a", "--results", ROOT / "results", of="figure")
    assert "figure decomposition: takes no names" in str(named.exception) and not (stored / "x.pdf").exists()
    (stored / "paper.toml").write_text("[rows]\nq2_1a = 'With skips'\n")  # which is for other figures too
    style = ("--style", stored / "paper.toml")
    done = command("decomposition", "d.pdf", "--results", ROOT / "results", *style, of="figure")
    assert done.exit_code == 0 and "The rise of the mIoU from 11 to 3 classes" in done.stdout, done.exception
    assert (stored / "d.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("of", "arguments", "told"),
    [
        ("figure", "claims x.docx", "x.docx: is of a kind that no picture is saved as. Fix: end it in pdf, svg, png"),
        ("figure", "claims x.pdf --width 99", "--width 99: is no width of a figure"),
        ("figure", "curves x.pdf q1_8", "curves: have no runs with any metric. Fix: train these rows"),
        ("figure", "curves x.pdf --metric beauty", "curves: have no runs with beauty. Fix: name another metric: acc"),
        ("figure", "portrait x.pdf", "portrait: is not a picture that these runs make. Fix: choose one of claims, cu"),
        ("figure", "claim x.pdf q2_2-skip_miou", "claim: is not a picture that these runs make. Fix: choose one of cl"),
        ("figure", "claims x.pdf --metric accuracy", "figure claims: takes no metric. Fix: leave it out, or draw cur"),
        ("figure", "claims x.pdf --together", "figure claims: takes no together"),
        ("table", "--all --percent", "--all: takes no percent. Fix: leave it out, or give it to Study(tables=...)"),
        ("table", "q1_1 --all", "--all: takes no rows"),
        ("table", "nowhere", "nowhere: is not a row of study quick"),
        ("table", "--metric beauty", "column beauty: is a figure that no run has. Fix: use accuracy"),
        ("table", "--baseline q1_1 q1_2", "baseline q1_1-features: is not among the rows of the table"),
        ("table", "--epoch first", "the options: is no style of a table (epoch: Input should be 'best', 'last' or ''"),
        ("table", "--digits 12", "(digits: Input should be less than or equal to 9, not 12)"),
        ("table", "--output x.docx", "x.docx: is of a kind that no table is written as. Fix: end it in .tex"),
        ("table", "--style none.toml", "none.toml: cannot be read"),
        ("table", "q1_8", "quick: has no runs of these rows"),
    ],
)
def test_what_cannot_be_is_one_line(stored, of, arguments, told):
    done = command(*arguments.split(), of=of)
    assert isinstance(done.exception, InputError) and told in str(done.exception)
    assert not list(stored.glob("x.*"))

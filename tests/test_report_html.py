"""`report.html`: the pages in Markdown as one file, as a browser shows it; names from outside stay text."""

import base64
import hashlib
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cvhw4.errors import InputError
from cvhw4.report.html import html_page, inline_svg
from cvhw4.report.page import write_html
from cvhw4.report.plots import curves
from cvhw4.report.results import report_page
from tests.helpers.pages import ALL, HOSTILE, failed, named
from tests.helpers.records import committed_results
from tests.helpers.tiny import QUICK

UNPACKED = TemporaryDirectory()
RESULTS = committed_results(Path(UNPACKED.name)) / "quick"
PICTURES = {f"figures/{path.name}": path.read_text("utf-8") for path in (RESULTS / "figures").glob("*.svg")}


@cache
def page_of(text):
    """A page in whose records every text from outside is the given one, with a picture."""
    runs = [r for name in ("q1_1", "q1_2", "q2_1a") for r in named(name, text)]
    row = QUICK.row("q1_1")
    drawn = curves("curves-a", text, {row.name: runs[:3]}, [row], "accuracy", QUICK)
    pictures = {("classification", text): [("Learning curves", drawn)]}
    report = report_page(QUICK, runs, None, {"q1_3-scratch": text}, [failed(text)], pictures)
    return html_page(report, "", {"figures/curves-a.svg": drawn.svg})


class Elements(HTMLParser):
    """Every element of a page with the names of its attributes, and the page's text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, *sorted(name for name, _ in attributes)))

    def handle_comment(self, data):
        self.found.append(("comment", data))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def committed():
    report, verdicts = ((RESULTS / name).read_text("utf-8") for name in ("report.md", "verdicts.md"))
    return html_page(report, verdicts, PICTURES)


@pytest.mark.parametrize("text", [*HOSTILE, ALL, "Größe 日本"])
def test_names_make_no_elements_and_links_lead_to_sections_whatever_these_are_called(text):
    page = page_of(text)
    drop = {"path", "defs", "text", "use"}  # letters of tick labels and titles do not come from names
    hostile, plain = ([e for e in Elements(p).found if e[0] not in drop] for p in (page, page_of("x")))
    assert hostile == plain
    links = re.findall('<a href="#(s[0-9]+)">', page[page.index("<main") :])
    assert links and all(page.count(f'id="{link}"') == 1 for link in links)
    assert not re.search('<a href="(?!#)', page)


def test_names_are_shown():
    assert "<script>alert(1)</script>" in "".join(Elements(page_of("<script>alert(1)</script>")).text)


def test_html_in_markdown_stays_text():
    page = html_page("# a <b>\n\n<script>x()</script>\n\n| <i>h</i> |\n|---|\n| <img src=x onerror=y> |\n", "", {})
    assert {"script", "img", "i", "b"} & {tag for tag, *_ in Elements(page).found[12:]} == set()
    assert "&lt;img src=x onerror=y&gt;" in page


def test_a_number_with_words_may_wrap_and_others_stay_on_a_line():
    cells = {"0.8523 at epoch 41": "", "48 to 50, median 49": "", "0.852 ± 0.003": "short", "q1_2-finetune": "short"}
    page = html_page(f"# a\n\n| a | {' | '.join(cells)} |\n{'|---' * 5}|\n| b | {' | '.join(cells)} |\n", "", {})
    assert {text: kind for kind, text in re.findall(r'<td class="(.*?)">(.*?)</td>', page)} == cells


def test_the_policy_lets_no_script_run_but_the_pages_own(committed):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', committed)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", committed, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none'")
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]+"', "", committed))


def test_the_answer_comes_first(committed):
    assert committed.index('<main id="main"') < committed.index("7 supported") < committed.index("<tbody>")
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", committed)
    assert titles[:2] == ["Summary", "The claims"] and titles.count("The claims") == 1 and titles[2].startswith("Q1")
    summary = committed[committed.index(">Summary</h2>") : committed.index(">The claims</h2>")]
    shown, _, _ = summary.partition("<details>")
    assert shown.count("<li>") == 7 + sum(not claim.control and claim.worse is not None for claim in QUICK.claims)
    links = re.findall('<a href="(#s[0-9]+)">(.*?)</a>', shown)
    places = [re.search(rf'<h2 id="{link[1:]}">(.*?)</h2>', committed)[1] for link, _ in links]
    assert [text for _, text in links[:2]] == places[:2] == titles[2:4]
    assert links[2][1] == "how sure the verdicts are" and places[2] == "By the best epoch, and as published"
    first = committed[committed.index(">The claims</h2>") : committed.index("<h2", committed.index(">The claims</h2>"))]
    assert len(re.findall("<table>", first)) == 2 and len(re.findall("<svg", first)) == 1
    places = [first.index(text) for text in ("<table>", "<svg", "How to read this", ">Controls</h3>")]
    assert places == sorted(places)
    assert re.search(r"<th scope=\"col\">claim</th><th scope=\"col\">verdict</th>", first)


def test_everything_on_the_pages_is_on_it(committed):
    shown = " ".join("".join(Elements(committed).text).split())
    texts = ((RESULTS / name).read_text("utf-8") for name in ("report.md", "verdicts.md"))
    lines = [line for text in texts for line in text.splitlines() if line.startswith("| q")]
    assert lines and all(cell.strip(" *") in shown for line in lines for cell in line.split("|")[1:4])
    assert committed.count("<svg") == len(PICTURES)


def test_without_verdicts_there_is_a_page(tmp_path):
    page = html_page("# a\n\n1 run.\n\n## Q1\n\n![what is seen](figures/gone.svg)\\\nbelow\n", "", {})
    assert "<p>what is seen</p>" in page and "<figcaption>" in page and "below" in page
    (tmp_path / "report.md").write_text("# a\n")
    assert write_html(tmp_path).read_text().count("<h1>a</h1>") == 1
    (tmp_path / "verdicts.md").write_text("# b\n\nabout\n\n## c\n\nno more\n")
    page = write_html(tmp_path).read_text()  # with the page beside it, whoever wrote that
    assert page.index("<p>about</p>") < page.index("<p>no more</p>")
    failed = f"- {'of *a* seeds failed ' * 9}\n" * 3
    assert "How to read this" not in html_page("# a\n\n## The claims\n\nb\n", f"## The claims\n\n{failed}", {})


def test_without_its_package_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    with pytest.raises(InputError, match=r"^report.html: needs markdown-it-py. Fix: pip install markdown-it-py.$"):
        html_page("# a\n", "", {})


def test_an_svg_brings_shapes_and_text_alone():
    svg = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="x()" id="r"
    width="720pt" viewBox="0 0 9 9"><style>*{color:red}</style><script>x()</script><foreignObject><p/></foreignObject>
    <!-- a --><a href="javascript:x()"><path/></a><defs><path id="m"/></defs><use xlink:href="#m"/><image href="http://a/b"/>
    <g clip-path="url(#c)" onclick="x()"><text>&lt;b&gt;</text></g></svg>"""
    made = inline_svg(svg, "p1-", 'a "b" <c>')
    root = ET.fromstring(made)
    assert [e.tag for e in root.iter()] == ["svg", "defs", "path", "use", "image", "g", "text"]
    assert 'id="p1-m"' in made and 'href="#p1-m"' in made and "url(#p1-c)" in made and "&lt;b&gt;" in made
    assert not re.search("x\\(\\)|http://a|on(load|click)", made)
    assert root.get("aria-label") == 'a "b" <c>' and root.get("style") == "min-width:600px"


# In a browser


@pytest.fixture(scope="module")  # what uses it is an integration test, see conftest.py
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    paths = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, paths), None)
    if path is None:
        pytest.skip("no Chromium is installed (chromium, chromium-browser, google-chrome)")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser, committed, tmp_path):
    """`visit(text)`: a page, without one the committed, that has to load without a word on the console and a second
    request."""
    said, requests, contexts, path = [], [], [], tmp_path / "report.html"

    def go(text=committed, theme="light"):
        path.write_text(text, "utf-8")
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme))
        page = contexts[-1].new_page()
        page.set_default_timeout(300_000)  # 30 s are too few where a processor is busy
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == [] and {url.partition("#")[0] for url in requests if not url.startswith("data:")} <= {requests[0]}


LUMINANCE = """(names) => names.map((name) => {
  const [r, g, b] = getComputedStyle(document.body)[name].match(/[\\d.]+/g).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
})"""


def luminances(page):
    return page.evaluate(LUMINANCE, ["backgroundColor", "color"])


def ink_of_pictures(page):
    return page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")


def test_pictures_are_seen(visit):
    page = visit()
    sizes = page.evaluate("[...document.querySelectorAll('figure svg')].map((s) => [s.getBBox().width, s.clientWidth])")
    assert len(sizes) == len(PICTURES) and all(drawn > 100 and shown > 300 for drawn, shown in sizes)
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(set(ids)) == len(ids)


COLUMN = "(t, c) => [...t.tBodies[0].rows].map((row) => row.cells[c].textContent)"
TABLE = """
| row | figure | time |
|---|---|---|
| q1_10 | 0.8080 ± 0.0140 | 4m15s |
| q1_9 | - | 14m2s |
| q1_2 | < 0.001 | - |
| q1_1 | +0.0450 [0.0, 0.1] | 5m |
| q1_3 | 1,000 | 59m59s |
| q1_4 | -0.2 | 0m1s |
"""


def test_tables_sort_by_click_and_by_key(visit):
    page = visit(html_page(f"# a\n\n## b\n{TABLE}", "", {}))
    head = page.get_by_role("columnheader")
    column = lambda n: page.evaluate(f"({COLUMN})(document.querySelector('table'), {n})")  # noqa: E731
    up = ["-0.2", "< 0.001", "+0.0450 [0.0, 0.1]", "0.8080 ± 0.0140", "1,000"]
    head.nth(1).get_by_role("button").click()
    assert column(1) == [*up, "-"] and head.nth(1).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(1) == [*up[::-1], "-"] and head.nth(1).get_attribute("aria-sort") == "descending"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert column(0) == ["q1_1", "q1_2", "q1_3", "q1_4", "q1_9", "q1_10"]
    assert head.nth(1).get_attribute("aria-sort") is None and head.nth(0).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(0)[0] == "q1_10"


@pytest.mark.parametrize(("only", "column"), [("best mIoU", "best mIoU"), ("p (Holm)", "difference")])
def test_the_pages_own_tables_sort_by_value(visit, only, column):
    page = visit()
    table = page.locator("table", has=page.get_by_role("columnheader", name=only)).first
    place = [cell.strip() for cell in table.get_by_role("columnheader").all_inner_texts()].index(column)
    for sign in (1, -1):
        table.get_by_role("button", name=column).click()
        values = [sign * float(text.split()[0]) for text in table.evaluate(f"(t) => ({COLUMN})(t, {place})")]
        assert len(values) > 5 and values == sorted(values)


def test_light_and_dark_differ_and_can_be_read(visit):
    inks = []
    for theme in ("light", "dark"):
        page = visit(theme=theme)
        paper, ink = luminances(page)
        assert (paper > ink) == (theme == "light")
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 7
        inks.append(ink_of_pictures(page))
    assert inks[0] != inks[1]


def test_the_toggle_switches_pictures_too_and_survives(visit):
    page = visit()
    before, ink = luminances(page)[0], ink_of_pictures(page)
    page.get_by_role("button", name="Dark page").click()
    assert luminances(page)[0] < before and ink_of_pictures(page) != ink
    page.reload()
    assert luminances(page)[0] < before and ink_of_pictures(page) != ink
    page.get_by_role("button", name="Light page").click()
    assert luminances(page)[0] == before and ink_of_pictures(page) == ink


FITS = """() => [...document.querySelectorAll('.table')].map((box) => {
  const heads = [...box.querySelectorAll('thead th')], more = box.nextElementSibling;
  const hidden = heads.filter((head) => head.hidden).map((head) => head.textContent);
  return [box.scrollWidth <= box.clientWidth, heads.length, hidden, more.hidden ? "" : more.textContent];
})"""


WIDE = "\n".join(f"| {' | '.join(line)} |" for line in ([f"c{i}" for i in range(40)], ["---"] * 40, ["1.5"] * 40))


@pytest.mark.parametrize("text", ["", f"# a\n\n## b\n\n{WIDE}\n"], ids=["committed", "40 columns"])
def test_every_table_fits_or_folds_its_last_columns(visit, text):
    page = visit(html_page(text, "", {})) if text else visit()
    page.evaluate("document.querySelectorAll('main details').forEach((d) => { d.open = true; })")
    page.evaluate("() => new Promise(requestAnimationFrame)")  # after what opening them brings about
    tables = page.evaluate(FITS)
    assert all(fits for fits, *_ in tables)
    for _, columns, hidden, button in tables:
        assert columns - len(hidden) >= 3 and button == (f"More columns: {', '.join(hidden)}" if hidden else "")
    assert not {"verdict", "difference", "95 % interval", "bounds"} & {n for *_, hidden, _ in tables for n in hidden}
    page.get_by_role("button", name="More columns").first.click()
    ((fits, _, hidden, _),) = [table for table in page.evaluate(FITS) if table[3] == "Fewer columns"]
    assert not fits and hidden == []  # all are there, and the box scrolls
    page.get_by_role("button", name="Fewer columns").click()
    assert page.evaluate(FITS) == tables
    page.emulate_media(media="print")
    assert page.evaluate("[...document.querySelectorAll('thead th')].every((head) => head.clientWidth > 0)")


def test_only_boxes_scroll_sideways(visit):
    page = visit()
    for width in (1280, 768, 360, 320):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator("nav li").first.is_visible() == (width > 1024)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("[...document.querySelectorAll('main details')].every((d) => d.open)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".table").nth(1)
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth")
    box.evaluate("(e) => { e.scrollLeft = 300; }")
    left = box.evaluate("(e) => e.getBoundingClientRect().left")
    assert box.locator("tbody th").first.evaluate("(e) => e.getBoundingClientRect().left") == pytest.approx(left, abs=1)


def test_no_grave_fault_for_those_who_see_or_move_little(visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    # With two lines of every table, for the time that every cell takes.
    texts = ((RESULTS / name).read_text("utf-8") for name in ("report.md", "verdicts.md"))
    report, verdicts = (re.sub(r"(\|--.*\n\|.*\n\|.*\n)(\|.*\n)+", r"\1", text) for text in texts)
    page = visit(html_page(report, verdicts, PICTURES))
    for width, theme in ((1280, "light"), (360, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        run = axe.Axe().run(page).response
        assert page.get_by_role("img").count() == len(PICTURES)
        found = [(v["id"], v["nodes"][0]["html"]) for v in run["violations"] if v["impact"] in ("serious", "critical")]
        assert found == [] and any(rule["id"] == "color-contrast" for rule in run["passes"])


def test_the_skip_link_and_the_contents_lead_there(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    links = page.evaluate("[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))")
    assert len(links) > 10 and all(page.evaluate(f"!!document.querySelector('{link}')") for link in links)


def test_names_do_nothing_in_a_browser(visit):
    page = visit(page_of(f"<img src=x onerror=alert(1)> {ALL}"))
    assert page.locator("main img, main a:not([href^='#s']), main script").count() == 0
    assert "<script>alert(1)</script>" in page.locator("main").inner_text()

"""Pages and pictures, as tests read them; texts from outside that must take no effect there, and runs full of them."""

from dataclasses import replace
from xml.etree import ElementTree

from tests.helpers.tiny import failure, record

HOSTILE = [
    "<script>alert(1)</script>",
    "![x](http://a/b.png) [y](javascript:z) <http://a> <!-- ",
    "a|b\\|c\\\\|",
    "a\n\n# b\r\n| c | d |\n|---|---|\n\x1b[31m\u2028\u202e\udc80",
    "`a` ``b`` `",
    "**a** _b_ __c__ *d* ~~e~~ \\*f\\* a_b_c _",
    "&lt;b&gt; &amp; &#60;i>",
    "    indented",
    "- [ ] a",
    "-",
    "##",
    "1.",
    "1. a",
    "12) a",
    "# a",
    "+ a",
    "> a",
    "[a]: http://b",
    "---",
    "$a$ $$b$$",
    "\\",
    "-->",
    "]]>",
    "",
]
# Mostly what means something in Markdown; nothing that a text file in UTF-8 could not hold is left out.
ALL = " ".join(HOSTILE)


def section(page, title):
    """The section of a page in Markdown, of any level, that begins so."""
    return next(part for part in page.replace("\n### ", "\n## ").split("\n## ") if part.startswith(title))


def cells(text, start):
    """The cells of the first line of a table that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def texts(picture):
    """What an SVG says, in order; it has to be well-formed."""
    return ["".join(e.itertext()) for e in ElementTree.fromstring(picture.svg).iter() if e.tag.endswith("}text")]


def named(name, text):
    """A run on data of the user's own in whose record every text from outside is the given one."""
    runs = []
    for seed in range(3):
        r = record(name, seed)
        strange = dict.fromkeys(("device_name", "torch", "commit", "threads"), text)
        names = {c: f"{text}{i}" for i, c in enumerate(r.data.classes)}
        data = replace(r.data, name=text, embedded=False, classes=[*names.values()], leaks=[text] * 4)
        merge = r.settings.get("merge") and {
            into: [names.get(c, c) for c in of] for into, of in r.settings["merge"].items()
        }
        weights = replace(r.weights, origin=text)
        changes = dict(data=data, weights=weights, settings={**r.settings, "merge": merge})
        runs.append(replace(r, **changes, environment=r.environment | strange))
    return runs


def failed(text):
    where = dict(data=text, epoch=1, step=1, reason=text, checkpoint=text, environment={})
    return failure(record("q1_8", 3), **where)

"""`report.html`: the pages in Markdown as one file that loads nothing, for every screen, in light and dark.

The Markdown is the content; here it is put in order (the answer first), explanations fold, tables can be sorted and
fold the columns that a screen has no room for, and pictures are inside. HTML in it stays text, and the page's policy
lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape as quoted
from importlib.resources import files
from itertools import count, groupby
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cvhw4.errors import InputError
from cvhw4.report.text import anchor

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode as Node

SUMMARY = "Summary"  # the section that begins a page
CLAIMS = "The claims"  # the one that both pages have
LONG = 250  # characters of a paragraph that defines terms, from which it folds
SHORT = 34  # characters of a cell, up to which it stays on one line; lists of numbers always do
_WORDY = re.compile(r"\d[\d.]* (?=.{10}).*[a-z]{2}")  # "0.8523 at epoch 41": may wrap, so that tables fit a screen
_NARROWEST = 600  # px: a picture wider than this is made no narrower, and scrolls
_PILLS = {"supported": "good", "contradicted": "bad", "equivalent": "open", "undecided": "open"}  # by the first word
_PILLS |= {"MISSED": "bad", "failed": "bad"}

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_SHAPES = {
    *("svg", "g", "defs", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "use", "image"),
    *("text", "tspan", "clipPath", "linearGradient", "radialGradient", "stop", "pattern", "mask"),
}


@dataclass
class _Section:
    """A heading's part of a page: its title, its blocks, the sections in it, blocks that fold below its own, its id."""

    title: list[Token]
    blocks: list[Node] = field(default_factory=list)
    parts: list[_Section] = field(default_factory=list)
    notes: list[Node] = field(default_factory=list)
    id: str = ""

    @property
    def text(self) -> str:
        """The title as plain text."""
        return _plain_text(self.title)


def html_page(report: str, verdicts: str, pictures: Mapping[str, str]) -> str:
    """The whole `report.html` of `report.md` and `verdicts.md`, empty where there is none, with its pictures: the text
    of SVG files by the address that the pages have them under; raises InputError without markdown-it-py."""
    markdown = parser()
    return _Page(markdown, pictures).render(_sections(markdown, report), _sections(markdown, verdicts))


def _sections(markdown: MarkdownIt, text: str) -> _Section:
    """A page in Markdown by its headings: the first is the whole page's; HTML in it is text."""
    from markdown_it.tree import SyntaxTreeNode

    page = _Section([])
    within = [(0, page)]
    for block in SyntaxTreeNode(markdown.parse(text)).children:
        if block.type != "heading":
            within[-1][1].blocks.append(block)
            continue
        title, level = block.children[0].to_tokens(), int(block.tag[1])
        if level == 1 and not page.title:
            page.title = title
            continue
        while within[-1][0] >= level:
            within.pop()
        within[-1][1].parts.append(_Section(title))
        within.append((level, within[-1][1].parts[-1]))
    return page


def parser() -> MarkdownIt:
    """What reads and renders Markdown: tables are known, HTML is text; raises InputError likewise."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise InputError("report.html", "needs markdown-it-py", "pip install markdown-it-py") from error
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _plain_text(tokens: Iterable[Token]) -> str:
    """Text of tokens, without markup and pictures."""
    leaves = (leaf for token in tokens for leaf in (token.children or [token]))
    return "".join(" " if leaf.type.endswith("break") else leaf.content for leaf in leaves if leaf.type != "image")


def _kind(block: Node) -> str:
    inline = block.children[0].children if block.type == "paragraph" else ()
    return "table" if block.type == "table" else "figure" if inline and inline[0].type == "image" else "text"


def _explains(block: Node) -> bool:
    """Whether a block is a long text that defines terms; a list says what was found, however long."""
    long = block.type != "bullet_list" and _kind(block) == "text" and len(_plain_text(block.to_tokens())) > LONG
    return long and any(node.type == "em" for node in block.walk())


class _Page:
    """One page while it is made."""

    def __init__(self, markdown: MarkdownIt, pictures: Mapping[str, str]) -> None:
        self.markdown, self.pictures, self.numbers = markdown, pictures, count(1)  # of ids
        self.places: dict[str, str] = {}  # of links to sections, by the address that they have in Markdown

    def render(self, report: _Section, verdicts: _Section) -> str:
        """The page, the answer first."""
        parts = [*report.parts, *verdicts.parts]
        if found := [part for part in parts if part.text == CLAIMS]:
            blocks = [block for part in found for block in part.blocks]
            claims = _Section(found[-1].title, parts=[inner for part in found for inner in part.parts])
            claims.notes = [*filter(_explains, blocks), *verdicts.blocks]
            summing, *others = (block for block in blocks if not _explains(block))
            claims.blocks = [summing, *sorted(others, key=lambda b: ("table", "figure", "text").index(_kind(b)))]
            parts = [claims, *(part for part in parts if part.text != CLAIMS)]
        parts.sort(key=lambda part: part.text != SUMMARY)
        for part in parts:
            self._place(part)
        if further := [part for part in verdicts.parts if part.text != CLAIMS]:
            self.places["verdicts.md"] = f"#{further[0].id}"
        body = "".join(self._section(part, 2) for part in parts)
        about = self._blocks([*report.blocks, *([] if found else verdicts.blocks)], report.text)
        contents = "".join(self._entry(part, deep=part in report.parts) for part in parts)
        sheet, script = (files("cvhw4.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        )
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{quoted(report.text)}</title>
<style>{sheet}</style>
<script>{script}</script>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header><h1>{self._html(report.title)}</h1><button id="theme" type="button" hidden></button></header>
<nav aria-label="Contents"><details open><summary>Contents</summary><ul>{contents}</ul></details></nav>
<main id="main" tabindex="-1">
{about}{body}</main>
</body>
</html>
"""

    def _place(self, section: _Section) -> None:
        section.id = f"s{next(self.numbers)}"
        self.places.setdefault(f"#{anchor(section.text)}", f"#{section.id}")
        for part in section.parts:
            self._place(part)

    def _section(self, section: _Section, level: int) -> str:
        inside = self._blocks(section.blocks, section.text) + self._folded(section.notes, section.text)
        inside += "".join(self._section(part, level + 1) for part in section.parts)
        heading = f'<h{level} id="{section.id}">{self._html(section.title)}</h{level}>\n'
        return f"<section>\n{heading}{inside}</section>\n" if level == 2 else heading + inside

    def _entry(self, section: _Section, deep: bool) -> str:
        inside = "".join(self._entry(part, False) for part in section.parts) if deep else ""
        link = f'<a href="#{section.id}">{quoted(section.text)}</a>'
        return f"<li>{link}{f'<ul>{inside}</ul>' if inside else ''}</li>"

    def _blocks(self, blocks: Iterable[Node], about: str) -> str:
        """Blocks as HTML; explanations that follow each other fold together."""
        return "".join(
            self._folded(group, about) if folds else "".join(self._block(block, about) for block in group)
            for folds, group in groupby(blocks, _explains)
        )

    def _folded(self, blocks: Iterable[Node], about: str) -> str:
        inside = "".join(self._block(block, about) for block in blocks)
        return f"<details><summary>How to read this</summary>\n{inside}</details>\n" if inside else ""

    def _block(self, block: Node, about: str) -> str:
        kind = _kind(block)
        if kind == "table":
            return self._table(block, about)
        return self._figure(block.children[0].children) if kind == "figure" else self._html(block.to_tokens())

    def _html(self, tokens: list[Token]) -> str:
        for token in tokens:
            for link in (leaf for leaf in token.children or () if leaf.type == "link_open"):
                address = str(link.attrGet("href"))
                link.attrSet("href", self.places.get(unquote(address), address))
        return self.markdown.renderer.render(tokens, self.markdown.options, {})

    def _table(self, block: Node, about: str) -> str:
        """A table in a box that scrolls by itself; a row's first cell is its heading, a verdict stands beside it."""
        rows = [[cell.children[0].to_tokens() for cell in row.children] for row in block.walk() if row.type == "tr"]
        names = [_plain_text(name) for name in rows[0]]
        if "verdict" in names:
            for row in rows:
                row.insert(1, row.pop(names.index("verdict")))
        head = "".join(f'<th scope="col">{self._html(name)}</th>' for name in rows[0])
        body = "\n".join(f"<tr>{''.join(map(self._cell, row, range(len(row))))}</tr>" for row in rows[1:])
        return (
            f'<div class="table" role="group" tabindex="0" aria-label="{quoted(f"Table: {about}")}">\n<table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n"
        )

    def _cell(self, content: list[Token], column: int) -> str:
        text = _plain_text(content)
        classes = "short" if len(text) <= SHORT or re.fullmatch(r"[\d, ]+", text) else "text"
        classes = "" if _WORDY.match(text) and classes == "short" else classes
        if (word := text.split(" (")[0]) in _PILLS:
            classes = f"{_PILLS[word]} {classes}" if word == text else _PILLS[word]  # a remark may wrap
        kind = "td" if column else 'th scope="row"'
        return f'<{kind} class="{classes}">{self._html(content)}</{kind[:2]}>'

    def _figure(self, nodes: list[Node]) -> str:
        """A picture with what stands below it as its caption."""
        image, caption = nodes[0], [token for node in nodes[2:] for token in node.to_tokens()]
        words = _plain_text(token for node in image.children for token in node.to_tokens())
        content = self.pictures.get(str(image.attrGet("src")))
        prefix = f"p{next(self.numbers)}-"
        shown = f"<p>{quoted(words)}</p>" if content is None else inline_svg(content, prefix, words)
        below = f"<figcaption>{self._html(caption)}</figcaption>" if caption else ""
        box = f'<div class="picture" role="group" tabindex="0" aria-label="Picture">{shown}</div>'
        return f"<figure>{box}{below}</figure>\n"


def inline_svg(content: str, prefix: str, words: str) -> str:
    """An SVG file that shows what `words` say as an element of a page: nothing but shapes and text, its ids behind a
    prefix apart from those of other pictures, its ink the page's text colour; raises ParseError where it is no SVG."""
    root = ET.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) not in _SHAPES:
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        attributes = {name.removeprefix(_XLINK): value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name.startswith(("on", "{")) or (name == "href" and not value.startswith(("#", "data:image/"))):
                continue
            value = prefix + value if name == "id" else re.sub("^#", f"#{prefix}", value) if name == "href" else value
            element.set(name, value.replace("url(#", f"url(#{prefix}"))
    length = root.get("width", "")
    number = re.match(r"[\d.]+", length)
    width = round(float(number[0]) * (4 / 3 if length.endswith("pt") else 1)) if number else 0  # pixels
    root.set("style", f"min-width:{min(width, _NARROWEST)}px")
    root.set("role", "img")
    root.set("aria-label", words)
    return ET.tostring(root, encoding="unicode")

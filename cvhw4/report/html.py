"""`report.html`: the pages in Markdown as one file that loads nothing, for every screen, in light and dark.

The Markdown is the content; here it is put in order (the answer first), explanations fold, tables can be sorted, and
pictures are inside. HTML in it stays text, and the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape as quoted
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

from cvhw4.errors import InputError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

CLAIMS = "The claims"  # the section that both pages have
_LARGEST = 5_000_000  # bytes of a page
LONG = 250  # characters of a paragraph that defines terms, from which it folds
_LONG_LIST = 400  # characters of a list, likewise
SHORT = 34  # characters of a cell, up to which it stays on one line; lists of numbers always do
_NARROWEST = 600  # px: a picture wider than this is made no narrower, and scrolls
_PILLS = {"supported": "good", "contradicted": "bad", "equivalent": "open", "undecided": "open"}  # by the first word
_PILLS |= {"MISSED": "bad", "failed": "bad"}

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_SHAPES = {
    *("svg", "g", "defs", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "use", "image"),
    *("text", "tspan", "clipPath", "linearGradient", "radialGradient", "stop", "pattern", "mask"),
}
_RASTER = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)")


@dataclass
class _Section:
    """A heading's part of a page: its title as tokens, its blocks (the tokens of each), the sections in it, blocks that
    fold below its own, and its id."""

    title: list[Token]
    blocks: list[list[Token]] = field(default_factory=list)
    parts: list[_Section] = field(default_factory=list)
    notes: list[list[Token]] = field(default_factory=list)
    id: str = ""

    @property
    def text(self) -> str:
        """The title as plain text."""
        return _plain_text(self.title)


def html_page(report: str, verdicts: str, pictures: Mapping[str, str]) -> str:
    """The whole `report.html`.

    Args:
        report: `report.md`.
        verdicts: `verdicts.md`; empty where there is none.
        pictures: SVG files' text by the address that the pages have them under.

    Raises:
        InputError: markdown-it-py is not installed.
    """
    return shrunk(_Page(pictures).render(_sections(report), _sections(verdicts)))


def _sections(text: str) -> _Section:
    """A page in Markdown by its headings: the first is the whole page's; HTML in it is text."""
    page = _Section([])
    within = [(0, page)]
    for block in _blocks(parser().parse(text)):
        if block[0].type != "heading_open":
            within[-1][1].blocks.append(block)
            continue
        level = int(block[0].tag[1])
        if level == 1 and not page.title:
            page.title = block[1:-1]
            continue
        while within[-1][0] >= level:
            within.pop()
        within[-1][1].parts.append(_Section(block[1:-1]))
        within.append((level, within[-1][1].parts[-1]))
    return page


def parser() -> MarkdownIt:
    """What reads and renders Markdown: tables are known, HTML is text.

    Raises:
        InputError: markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise InputError("report.html", "needs markdown-it-py", "pip install markdown-it-py") from error
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _blocks(tokens: Iterable[Token]) -> list[list[Token]]:
    blocks: list[list[Token]] = []
    depth = 0
    for token in tokens:
        if depth == 0:
            blocks.append([])
        blocks[-1].append(token)
        depth += token.nesting
    return blocks


def _plain_text(tokens: Iterable[Token]) -> str:
    """Text of tokens, without markup and pictures."""
    leaves = (leaf for token in tokens for leaf in (token.children or [token]))
    return "".join(" " if leaf.type.endswith("break") else leaf.content for leaf in leaves if leaf.type != "image")


class _Page:
    """One page while it is made."""

    def __init__(self, pictures: Mapping[str, str]) -> None:
        self.markdown = parser()
        self.pictures = pictures
        self.count = 0  # of ids given

    def render(self, report: _Section, verdicts: _Section) -> str:
        """The page, the answer first."""
        claims = _Section([])
        parts = []
        for part in (*report.parts, *verdicts.parts):
            if part.text == CLAIMS:
                claims.title = part.title
                claims.blocks += part.blocks
                claims.parts += part.parts
            else:
                parts.append(part)
        if claims.title:
            parts.insert(0, claims)
            claims.notes = [*filter(self._explains, claims.blocks), *verdicts.blocks]
            summing, *others = (block for block in claims.blocks if not self._explains(block))
            claims.blocks = [summing, *sorted(others, key=lambda b: ("table", "figure", "text").index(self._kind(b)))]
        body = "".join(self._section(part, 2) for part in parts)
        about = self._blocks(report.blocks, report.text)
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
<header><h1>{self._inline(report.title)}</h1><button id="theme" type="button" hidden></button></header>
<nav aria-label="Contents"><details open><summary>Contents</summary><ul>{contents}</ul></details></nav>
<main id="main" tabindex="-1">
{about}{body}</main>
</body>
</html>
"""

    def _section(self, section: _Section, level: int) -> str:
        self.count += 1
        section.id = f"s{self.count}"
        inside = self._blocks(section.blocks, section.text) + self._folded(section.notes, section.text)
        inside += "".join(self._section(part, level + 1) for part in section.parts)
        heading = f'<h{level} id="{section.id}">{self._inline(section.title)}</h{level}>\n'
        return f"<section>\n{heading}{inside}</section>\n" if level == 2 else heading + inside

    def _entry(self, section: _Section, deep: bool) -> str:
        inside = "".join(self._entry(part, False) for part in section.parts) if deep else ""
        link = f'<a href="#{section.id}">{quoted(section.text)}</a>'
        return f"<li>{link}{f'<ul>{inside}</ul>' if inside else ''}</li>"

    def _blocks(self, blocks: Iterable[list[Token]], about: str) -> str:
        """Blocks as HTML; explanations that follow each other fold together."""
        return "".join(
            self._folded(group, about) if folds else "".join(self._block(block, about) for block in group)
            for folds, group in groupby(blocks, self._explains)
        )

    def _folded(self, blocks: Iterable[list[Token]], about: str) -> str:
        inside = "".join(self._block(block, about) for block in blocks)
        return f"<details><summary>How to read this</summary>\n{inside}</details>\n" if inside else ""

    def _kind(self, block: list[Token]) -> str:
        if block[0].type == "table_open":
            return "table"
        children = block[1].children if block[0].type == "paragraph_open" else None
        return "figure" if children and children[0].type == "image" else "text"

    def _explains(self, block: list[Token]) -> bool:
        """Whether a block is a long text that defines terms, or a long list."""
        if self._kind(block) != "text":
            return False
        length = len(_plain_text(block))
        if block[0].type == "bullet_list_open":
            return length > _LONG_LIST
        return length > LONG and any(leaf.type == "em_open" for token in block for leaf in token.children or ())

    def _block(self, block: list[Token], about: str) -> str:
        kind = self._kind(block)
        if kind == "table":
            return self._table(block, about)
        return self._figure(block[1].children or []) if kind == "figure" else self._html(block)

    def _html(self, tokens: Sequence[Token]) -> str:
        return self.markdown.renderer.render(tokens, self.markdown.options, {})

    def _inline(self, tokens: Sequence[Token]) -> str:
        return self._html(tokens)

    def _table(self, block: list[Token], about: str) -> str:
        """A table in a box that scrolls by itself; a row's first cell is its heading, a verdict stands beside it."""
        rows: list[list[Token]] = []
        for token in block:
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(token)
        names = [name.content for name in rows[0]]
        if "verdict" in names:
            for row in rows:
                row.insert(1, row.pop(names.index("verdict")))
        head = "".join(f'<th scope="col">{self._inline([name])}</th>' for name in rows[0])
        body = "\n".join(f"<tr>{''.join(map(self._cell, row, range(len(row))))}</tr>" for row in rows[1:])
        label = quoted(f"Table: {about}")
        return (
            f'<div class="table" role="group" tabindex="0" aria-label="{label}">\n<table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n"
        )

    def _cell(self, content: Token, column: int) -> str:
        text = _plain_text([content])
        classes = ["short" if len(text) <= SHORT or re.fullmatch(r"[\d, ]+", text) else "text"]
        if (word := text.split(" (")[0]) in _PILLS:
            classes = [
                _PILLS[word],
                *(classes if word == text else []),
            ]  # a remark may wrap
        kind = "td" if column else 'th scope="row"'
        return f'<{kind} class="{" ".join(classes)}">{self._inline([content])}</{kind[:2]}>'

    def _figure(self, children: list[Token]) -> str:
        """A picture with what stands below it as its caption."""
        image, caption = children[0], children[2:]
        words = _plain_text(image.children or [])
        address = str(image.attrGet("src"))
        content = self.pictures.get(address)
        self.count += 1
        shown = f"<p>{quoted(words)}</p>" if content is None else inline_svg(content, f"p{self.count}-", words)
        below = f"<figcaption>{self._inline(caption)}</figcaption>" if caption else ""
        box = f'<div class="picture" role="group" tabindex="0" aria-label="Picture">{shown}</div>'
        return f"<figure>{box}{below}</figure>\n"


def inline_svg(content: str, prefix: str, words: str) -> str:
    """An SVG file as an element of a page: nothing but shapes and text, its ids apart from those of other pictures, its
    ink the page's text colour.

    Args:
        prefix: what its ids begin with.
        words: what it shows.

    Raises:
        xml.etree.ElementTree.ParseError: it is no SVG.
    """
    root = ET.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) not in _SHAPES:
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            name = name.removeprefix(_XLINK)
            if name == "id":
                value = prefix + value
            elif name == "href":
                if not value.startswith(("#", "data:image/")):
                    continue
                value = re.sub("^#", f"#{prefix}", value)
            elif name.startswith(("on", "{")):
                continue
            element.set(name, re.sub(r"url\(#", f"url(#{prefix}", value))
    width = _pixels(root.get("width", ""))
    root.set("style", f"min-width:{min(width, _NARROWEST)}px")
    root.set("role", "img")
    root.set("aria-label", words)
    return ET.tostring(root, encoding="unicode")


def _pixels(length: str) -> int:
    number = re.match(r"[\d.]+", length)
    return round(float(number[0]) * (4 / 3 if length.endswith("pt") else 1)) if number else 0


def shrunk(page: str, largest: int = _LARGEST) -> str:
    """A page with its pictures of pixels so far reduced that it is no larger than so many bytes, as far as they go; a
    warning where they are reduced."""
    from PIL import Image

    def half(found: re.Match[str]) -> str:
        kind, data = found.groups()
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            buffer = io.BytesIO()
            image.convert("RGB" if kind == "jpeg" else "RGBA").reduce(2).save(buffer, kind)
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

    before = len(page.encode())
    after = before
    for _ in range(4):
        if after <= largest:
            break
        page = _RASTER.sub(half, page)
        after = len(page.encode())
    if before > largest:
        what = f"its pictures are reduced from {before / 1e6:.1f} to {after / 1e6:.1f} MB"
        warnings.warn(f"report.html is large: {what}; figures/ has them whole", stacklevel=2)
    return page

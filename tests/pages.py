"""Pages and pictures, as tests read them."""

from xml.etree import ElementTree


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

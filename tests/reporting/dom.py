"""A page as a tree, read by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree.ElementTree import Element, SubElement

VOID = {"meta", "input", "br", "img", "link", "hr"}


class TreeBuilder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("page")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = SubElement(self.open[-1], tag, {name: value or "" for name, value in attrs})
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        for place in range(len(self.open) - 1, 0, -1):
            if self.open[place].tag == tag:
                del self.open[place:]
                return

    def handle_data(self, data: str) -> None:
        above = self.open[-1]
        if len(above):
            above[-1].tail = (above[-1].tail or "") + data
        else:
            above.text = (above.text or "") + data


def tree(text: str) -> Element:
    builder = TreeBuilder()
    builder.feed(text)
    return builder.root


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows_of(table: Element) -> list[list[str]]:
    """The cells of a table, its heading first."""
    return [[text_of(cell) for cell in row if cell.tag in ("th", "td")] for row in table.iter("tr")]

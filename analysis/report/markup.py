"""Elements of the page. Text is escaped because nothing else can be put in: there is no way to write raw HTML."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | None | Iterable[Element | str | None]


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """A `tag` with text and elements in it. In the names of attributes a last `_` is dropped, others become `-`."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): text(value) for name, value in attributes.items()})
    for child in _flat(children):
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + text(child)
        else:
            made.text = (made.text or "") + text(child)
    return made


def script(content: str, **attributes: str) -> Element:
    """Program text, which HTML takes as it is. Raises ValueError where it would end the element."""
    if "</script" in content.lower():
        raise ValueError("a script must not hold what ends it")
    made = Element("script", {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    made.text = content
    return made


def data(name: str, packed: str) -> Element:
    """What was `packed` for the page's script, with `name` as its id. A browser does not run it by itself."""
    return script(packed, type="text/plain", id=name)


def text(value: str) -> str:
    """Text of a file as a page can show it: without control characters and halves of characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in value)


@dataclass(frozen=True)
class Group:
    """A row of a table that names those below it."""

    name: str


def table(
    columns: Sequence[Child], rows: Iterable[Sequence[Child] | Group], *, left: int = 1, caption: Child = None
) -> Element:
    """A table in a box that scrolls by itself on narrow screens; its first `left` columns are text, others figures."""

    def row(cells: Sequence[Child] | Group, tag: str) -> Element:
        if isinstance(cells, Group):
            return element("tr", element("th", cells.name, colspan=str(len(columns)), scope="rowgroup"), class_="group")
        sides = ["" if place < left else "figure" for place in range(len(cells))]
        return element("tr", (element(tag, cell, class_=side) for cell, side in zip(cells, sides, strict=True)))

    head = element("thead", row(columns, "th"))
    body = element("tbody", (row(cells, "td") for cells in rows))
    box = element("div", element("table", head, body), class_="scroll", tabindex="0")
    # Outside the box: a caption inside is as wide as the table, and would scroll away with it.
    said = element("p", caption, class_="caption") if caption is not None else None
    return element("div", said, box, class_="table")


def tag() -> Element:
    """The mark of what is modelled, on all of the page."""
    return element("span", "modelled", class_="modelled")


def tagged(text: str) -> list[Element | str | None]:
    """`text` with each `modelled` in it as the mark."""
    first, *others = text.split("modelled")
    return [first, *(each for other in others for each in (tag(), other))]


def to_html(root: Element) -> str:
    """The whole page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def _flat(children: Iterable[Any]) -> Iterable[Element | str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | Element):
            yield child
        else:
            yield from _flat(child)

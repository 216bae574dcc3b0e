"""HTML in which text that is not markup is escaped, wherever it comes from."""

import html
from collections.abc import Iterable, Sequence

VOID = {"img", "meta", "br", "line", "circle", "rect", "path"}
"""Elements without children."""


class Markup(str):
    """Text that is HTML already; every other string is escaped when it enters a page."""

    __slots__ = ()


def element(
    tag: str, *children: str | Iterable[str], **attributes: str | float | bool | None
) -> Markup:
    """An element.

    Args:
        tag: its name.
        children: markup, or text to be escaped, or several of them.
        attributes: `class_` is written `class`, and other underscores as hyphens; True is a bare
            attribute, None and False none.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[str | Iterable[str]]) -> Markup:
    """Children one after another, those that are not markup escaped."""
    return Markup(
        "".join(
            (child if isinstance(child, Markup) else html.escape(child))
            if isinstance(child, str)
            else joined(child)
            for child in children
        )
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        head: headings.
        rows: of cells; the first of a row is its heading.
    """
    heading = element("tr", [element("th", cell, scope="col") for cell in head])
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]])
        for row in rows
    ]
    inner = element("table", element("thead", heading), element("tbody", body))
    return element("div", inner, class_="scroll")


def facts(values: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as pairs of dotted key and text."""
    if not isinstance(values, dict) or not values:
        return [(prefix, str(values))] if prefix else []
    return [
        pair
        for key, value in values.items()
        for pair in facts(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def folded(title: str, *children: str | Iterable[str], open_: bool = False) -> Markup:
    """A part of a page that its title opens and closes."""
    return element("details", element("summary", title), *children, open=open_)

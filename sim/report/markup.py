"""Small builders of HTML. Whatever they are given as text is escaped; they return ``Html``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NewType

Html = NewType("Html", str)
"""Text that is markup already and must not be escaped again."""


def text(content: str) -> Html:
    """Plain text, with everything that HTML reads as markup escaped."""
    return Html(escape(content, quote=True))


def joined(parts: Iterable[Html]) -> Html:
    """Pieces of markup, one after the other."""
    return Html("\n".join(parts))


def paragraph(content: str, kind: str = "") -> Html:
    """A paragraph of plain text."""
    return Html(f"<p{_class(kind)}>{text(content)}</p>")


def heading(content: str, level: int = 3) -> Html:
    """A heading inside a section."""
    return Html(f"<h{level}>{text(content)}</h{level}>")


def bullets(items: Sequence[str]) -> Html:
    """A list of plain sentences; nothing when there is none."""
    if not items:
        return Html("")
    return Html("<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>")


@dataclass(frozen=True)
class Cell:
    """One cell: what it shows, in small print beside it, and the number that it sorts by."""

    shown: str
    small: str = ""
    key: float | None = None
    kind: str = ""

    def html(self) -> Html:
        """The cell as markup."""
        key = "" if self.key is None else f' data-key="{self.key!r}"'
        small = f" <small>{text(self.small)}</small>" if self.small else ""
        return Html(f"<td{_class(self.kind)}{key}>{text(self.shown)}{small}</td>")


def row(first: str, cells: Iterable[Cell], small: str = "") -> Html:
    """A row whose first cell names it."""
    told = f" <small>{text(small)}</small>" if small else ""
    head = f'<th scope="row">{text(first)}{told}</th>'
    return Html("<tr>" + head + "".join(cell.html() for cell in cells) + "</tr>")


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Html], prose: Sequence[str] = ()
) -> Html:
    """A table in a box that scrolls sideways; the page's script lets its columns be sorted.

    prose: the columns that hold sentences, set from the left.
    """
    head = "".join(
        f'<th scope="col"{_class("prose" if column in prose else "")}>{text(column)}</th>'
        for column in columns
    )
    name = text(caption)
    return Html(
        f'<div class="wide" role="region" aria-label="{name}" tabindex="0">'
        f'<table class="sortable"><caption>{name}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{joined(rows)}\n</tbody></table></div>"
    )


def folded(summary: str, content: Html, *, is_open: bool = False) -> Html:
    """Content behind a line that opens it."""
    state = " open" if is_open else ""
    return Html(f"<details{state}><summary>{text(summary)}</summary>\n{content}\n</details>")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""

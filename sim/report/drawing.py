"""How every plot looks, and its two forms: a PNG file and SVG inside the page.

Figures are made without pyplot: nothing global is touched, so any thread may draw.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

INK = "#1b1c1d"
"""Text and lines. In the page it becomes the text colour of the theme, light or dark."""

PAPER = "#fefdfc"
"""What lies under a plot: white in a file, the card of the theme in the page."""

BLUE, ORANGE, GREEN, SKY = "#0072b2", "#e69f00", "#009e73", "#56b4e9"
VERMILLION, PURPLE, YELLOW = "#d55e00", "#cc79a7", "#f0e442"
"""Okabe and Ito's palette: told apart with every common form of colour blindness."""

WIDTH = 7.5
"""Inches, of every figure: one scale of type over the whole page."""

_DPI = 144
_LONGEST_LABEL = 28


@dataclass(frozen=True)
class Plot:
    """A figure with the words that go with it. ``alt`` says what a reader who sees it would see."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def canvas(
    rows: int, height: float, *, sharex: bool = False, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure with axes one above the other, in our style.

    height: inches. heights: of the axes, relative to each other.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    spaced(figure)
    grid = figure.subplots(rows, 1, squeeze=False, sharex=sharex, height_ratios=heights)
    axes = [styled(row[0]) for row in grid]
    return figure, axes


def percent(share: float, _place: float = 0) -> str:
    """A share on an axis: as many digits as tell the ticks apart.

    >>> percent(0.008), percent(0.25)
    ('0.8%', '25%')
    """
    return f"{100 * share:.3g}%".replace("-", "\N{MINUS SIGN}")


def spaced(figure: Figure) -> None:
    """Room between panels: a title is not to be read as part of the panel above it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(h_pad=0.09, wspace=0.05)  # type: ignore[call-arg]


def styled(axes: Axes) -> Axes:
    """Axes with lines on two sides and type of one colour."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.set_axisbelow(True)
    return axes


def titled(axes: Axes, title: str) -> None:
    """A title over the left corner; never read as a formula."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=8).set_parse_math(False)


def named(axis_labels: Iterable[Text]) -> None:
    """Tick labels that come from a scenario: a dollar sign is no formula."""
    for label in axis_labels:
        label.set_parse_math(False)


def label_of(name: str) -> str:
    """A preset's name as a plot can show it: in the font's characters and not too long."""
    known = _known_characters()
    plain = "".join(char if ord(char) in known and char.isprintable() else "?" for char in name)
    if len(plain) <= _LONGEST_LABEL:
        return plain
    half = (_LONGEST_LABEL - 1) // 2
    return f"{plain[:half]}…{plain[-half:]}"


@cache
def _known_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def keyed(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """A legend under the whole figure, of what these axes show."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False,
        fontsize=9, labelcolor=INK,
    )  # fmt: skip


def save_png(plot: Plot, path: Path) -> None:
    """Write the plot as a PNG file, dark on white."""
    plot.figure.savefig(path, format="png", dpi=_DPI, facecolor="white")


def inline_svg(plot: Plot) -> str:
    """The plot as SVG for the page: transparent, in the theme's text colour, described."""
    raw = io.StringIO()
    plot.figure.savefig(raw, format="svg", transparent=True)
    drawn = raw.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for pattern, substitute in _CLEANED:
        drawn = pattern.sub(substitute, drawn)
    return _own_ids(drawn.replace(INK, "currentColor").replace(PAPER, "var(--card)"), plot.name)


Substitute = str | Callable[[re.Match[str]], str]

_CLEANED: tuple[tuple[re.Pattern[str], Substitute], ...] = (
    (re.compile(r"<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r'\sid="(?:patch|line2d|text|axes|figure|legend|matplotlib\.axis|xtick|ytick'
                r'|FillBetweenPolyCollection|LineCollection|PolyCollection|PathCollection)_\d+"'),
     ""),
    (re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>'),
     r'<svg viewBox="\1" aria-hidden="true" focusable="false">'),
    (re.compile(r"\n\s*"), "\n"),
)  # fmt: skip


def _own_ids(svg: str, prefix: str) -> str:
    """Ids that no other plot of the page has, the same in every run: matplotlib's are random."""
    numbers = count(1)
    names = {
        found: f"{prefix}-{next(numbers)}"
        for found in dict.fromkeys(re.findall(r'id="([^"]+)"', svg))
    }
    return re.sub(
        r'(id="|href="#|url\(#)([^")]+)',
        lambda match: match[1] + names.get(match[2], match[2]),
        svg,
    )

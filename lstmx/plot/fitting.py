"""Titles, labels and legends of the size of their panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

_LEGEND: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "handlelength": 1,
    "handletextpad": 0.4,
    "columnspacing": 1,
    "labelspacing": 0.3,
    "borderpad": 0.3,
    "borderaxespad": 0,
}
_USUAL = 5.5  # inches from which letters have the size that matplotlib is set to
_LEAST = 0.65  # of that size, in a column of a paper
_BESIDE = 2.8  # what an entry of a legend needs beside its text, in heights of a letter


def fit(sheet: Axes | Figure | SubFigure) -> None:
    """Break the texts of axes, or of all axes of a figure, into lines that fit the panels as they lie now.

    Legends stand above their panels in as many columns as fit, below the titles. In a figure that is narrower than
    5.5 inches letters are smaller in proportion, at 3.3 inches by a third. What is laid out anew afterwards, as by
    another size of the figure, keeps its lines and letters.
    """
    from matplotlib.axes import Axes

    axes = [sheet] if isinstance(sheet, Axes) else sheet.axes
    share = 1.0 if isinstance(sheet, Axes) else _to_size(sheet)
    if not isinstance(sheet, Axes) and sheet.get_suptitle():
        suptitle = sheet.suptitle(sheet.get_suptitle())
        suptitle.set_fontsize(share * float(suptitle.get_fontsize()))
        break_lines(suptitle, sheet.bbox.width - _em(suptitle))
    titles = [ax.get_title("left") for ax in axes]
    names = [ax.get_xlabel() for ax in axes]
    legends = [ax.get_legend() is not None for ax in axes]
    _fit_across(axes, titles, names, legends)
    sides = [ax.yaxis.label for ax in axes]
    if all(side.get_window_extent().height < 0.6 * ax.bbox.height for ax, side in zip(axes, sides, strict=True)):
        return  # titles and legends take less of the height than the rest
    _lay_out(axes)
    before = [side.get_text() for side in sides]
    for ax, side in zip(axes, sides, strict=True):
        break_lines(side, ax.bbox.height + _em(side), across=False)
    if before != [side.get_text() for side in sides]:
        _fit_across(axes, titles, names, legends)


def _to_size(sheet: Figure | SubFigure) -> float:
    """Make the letters of the axes of a narrow figure smaller; returns by how much."""
    share = min(1.0, max(_LEAST, sheet.bbox.width / sheet.dpi / _USUAL))
    for ax in sheet.axes if share < 1 else ():
        for text in (ax.xaxis.label, ax.yaxis.label, *ax.texts):
            text.set_fontsize(share * float(text.get_fontsize()))
        for axis in (ax.xaxis, ax.yaxis):
            size = float(axis.get_major_ticks(1)[0].label1.get_fontsize())
            axis.set_tick_params(which="both", labelsize=share * size)
    return share


def _fit_across(axes: Sequence[Axes], titles: list[str], names: list[str], legends: list[bool]) -> None:
    """Break what is read from left to right: titles, names of axes, legends and words in the panels."""
    for ax in axes:
        legend = ax.get_legend()  # one that is too wide would narrow the panel that it has to fit
        if legend is not None:
            legend.remove()
    _lay_out(axes)
    for ax, title, name, legend in zip(axes, titles, names, legends, strict=True):
        _above(ax, title, legend)
        break_lines(ax.xaxis.label, ax.bbox.width, name)
        for words in ax.texts:
            break_lines(words, ax.bbox.width)


def break_lines(text: Text, room: float, words: str | None = None, across: bool = True) -> None:
    """Set a text, by default to what it says, in lines of at most `room` pixels, smaller where a word is wider."""
    lines = []
    for line in (text.get_text() if words is None else words).split("\n"):
        lines.append("")
        for word in line.split(" "):
            longer = f"{lines[-1]} {word}".lstrip(" ")
            text.set_text(longer)
            extent = text.get_window_extent()
            if lines[-1] and (extent.width if across else extent.height) > room:
                longer = word
                lines.append("")
            lines[-1] = longer
    text.set_text("\n".join(lines))
    extent = text.get_window_extent()
    length = extent.width if across else extent.height
    if length > room > 0:
        text.set_fontsize(float(text.get_fontsize()) * max(0.5, room / length))


def _above(ax: Axes, title: str, legend: bool) -> None:
    """The legend above the axes, where it covers no data, and the title above it."""
    room, size = ax.bbox.width, float(ax.xaxis.label.get_fontsize())
    height = 0.0
    if legend:
        box = _legend(ax, room).get_window_extent()
        height = box.height * 72 / ax.figure.dpi
    text = ax.set_title("", loc="left", fontsize=size, pad=height + (0.1 if legend else 0.6) * size)
    break_lines(text, room - size / 2, title)


def _legend(ax: Axes, room: float) -> Any:
    """A legend whose columns take at most `room` pixels, with broken lines where one column takes more."""
    form = {**_LEGEND, "fontsize": 0.83 * float(ax.xaxis.label.get_fontsize())}
    legend = ax.legend(**form)
    texts = legend.get_texts()
    em = _em(texts[0])
    for text in texts:
        break_lines(text, room - _BESIDE * em)
    widths = [text.get_window_extent().width + _BESIDE * em for text in texts]
    columns = next(
        (n for n in range(len(widths), 1, -1) if sum(max(w) for w in np.array_split(widths, n)) <= room), 1
    )
    return ax.legend(ax.get_legend_handles_labels()[0], [text.get_text() for text in texts], ncols=columns, **form)


def _em(text: Text) -> float:
    """The height of a letter in pixels."""
    return float(text.get_fontsize()) * text.figure.dpi / 72


def _lay_out(axes: Sequence[Axes]) -> None:
    figure = axes[0].figure.canvas.figure
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)

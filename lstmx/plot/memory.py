"""How long a network remembers, by every notion of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.memory import MemoryReport
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_SHOWN = 0.005  # the lags end where no curve is above this any more


def memory(
    report: MemoryReport, *, figure: Figure | SubFigure | None = None, title: str | None = None
) -> Figure | SubFigure:
    """Draw the notions of a memory report on one axis, and what influence, truncation and capacity are read from.

    First: every notion in steps; an infinite one is an arrow to the right, and an unknown one is called so.
    Second, over the lag: the inputs' influence on the last output over its greatest value, the relative error of
    truncated backpropagation and the share R² of past inputs that a linear readout recovers, per input feature.

    Args:
        report: from `lstmx.memory_report`.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new one,
            which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: an argument of another kind.
        ValueError: the figure already holds axes.
    """
    if not isinstance(report, MemoryReport):
        raise TypeError(
            f"report is a {type(report).__name__}; expected a MemoryReport, as from lstmx.memory_report(history)"
        )
    figure = canvas.figure_for(figure, (11, max(4, 1 + 0.3 * len(report.notions))))
    left, right = canvas.pair(figure, (1.1, 1))
    _notions(left, report)
    _by_lag(right, report)
    canvas.finish(figure, "how long the network remembers", title)
    _let_rows_fit(left, len(report.notions))
    return figure


def _notions(ax: Axes, report: MemoryReport) -> None:
    values = np.array([notion.value for notion in report.notions])
    finite = values[np.isfinite(values) & (values > 0)]
    most = float(finite.max()) if finite.size else 1.0
    rows = np.arange(len(values))[::-1]
    beside: Any = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": "small"}
    for row, value in zip(rows, values, strict=True):
        if np.isfinite(value):
            ax.plot(value, row, "o", color=canvas.COLOURS[0])
            ax.annotate(parts.number(value), (value, row), **beside)
        elif np.isinf(value):
            ax.plot(2 * most, row, ">", color=canvas.COLOURS[1])
            ax.annotate("∞", (2 * most, row), **beside)
        else:
            across = ax.get_yaxis_transform()
            ax.text(0.02, row, "unknown", transform=across, va="center", color="0.5", fontsize="small")
    if finite.size and (values[np.isfinite(values)] > 0).all():
        canvas.log_axis(ax.xaxis, float(finite.min()), 2 * most)
    ax.set_yticks(rows, [notion.name for notion in report.notions])
    ax.set(xlabel="steps", ylim=(-0.6, len(values) - 0.4))
    ax.margins(x=0.25)
    ax.grid(axis="x", color="0.5", alpha=0.3)
    ax.set_axisbelow(True)
    ax.set_title("each notion, in steps", loc="left")


def _let_rows_fit(ax: Axes, rows: int) -> None:
    """Names and numbers no higher than the rows that they stand in."""
    texts = [*ax.get_yticklabels(), *ax.texts]
    room = ax.bbox.height / (rows + 0.2)
    highest = max(text.get_window_extent().height for text in texts)
    for text in texts if highest > room else ():
        text.set_fontsize(float(text.get_fontsize()) * room / highest)


def _by_lag(ax: Axes, report: MemoryReport) -> None:
    influence = report.influence.lag_profile.reshape(len(report.influence.lag_profile), -1).mean(axis=1)
    most = np.max(influence, where=np.isfinite(influence), initial=0)
    error = report.truncation_bias
    last = 1
    for label, lags, values, colour in (
        ("influence of inputs", np.arange(len(influence)), influence / (most or 1), canvas.COLOURS[0]),
        ("error of truncation", 1 + np.arange(len(error)), error, canvas.COLOURS[1]),
        (
            "linear memory R²",
            np.arange(len(report.capacity)),
            report.capacity / report.features,
            canvas.COLOURS[2],
        ),
    ):
        if np.isfinite(values).any():
            size = canvas.block_size(len(values))
            at, drawn = canvas.block_means(lags, size), canvas.block_means(values, size)
            last = max(last, int(lags[np.flatnonzero(values > _SHOWN)].max(initial=1)))
            canvas.line(ax, at, drawn, color=colour, label=label)
    ax.set(xlabel="lag (steps)", ylabel="share, or relative error")
    ax.set_xlim(-0.02 * last, 1.05 * last)
    canvas.start_at_zero(ax)
    canvas.legend_above(ax)
    ax.set_title("by lag", loc="left")

"""Orders of the gradient: how often its paths leave the cell state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.gradients import PathSpectrum
from lstmx.plot import canvas, parts
from lstmx.plot.passes import steps_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_NAMED = 9  # most orders with a name in the legend
_ALL = 0.99  # share of the remainder from which on for good the orders are not drawn
_FIELDS = ("log_norms", "log_remainder", "log_total", "log_matrix_norms", "log_cell_norms")


def path_spectrum(
    paths: PathSpectrum,
    sequence: int | tuple[int, ...] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
) -> Figure | SubFigure:
    """Draw the norm of each order of a gradient, and how the orders share it on the way back.

    First: the norm of each order at the first step, as log₁₀, or at the farthest step back from which one that is
    told apart reaches the end, with the orders above in one mark and the whole as a line; with matrix=True those
    of P_k and of its block from cell state to cell state, and no other panel. Second: each order's part in the sum
    of all norms over the steps back from the end, as far as orders that are told apart have 1 % of it; more than
    1000 steps are drawn as block means. An exact zero has no mark; the legend counts them. Steps that do not count
    are left out.

    Args:
        paths: from `lstmx.path_spectrum`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a spectrum
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of the orders, as matplotlib takes it; None for the figure's own.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: paths is no PathSpectrum, sequence no integers, figure no figure, or title no
            str.
        ValueError: not one index per batch axis, or the figure already holds axes.
        IndexError: sequence is outside the batch.
    """
    if not isinstance(paths, PathSpectrum):
        raise TypeError(
            f"paths is a {type(paths).__name__}; expected a PathSpectrum, as from lstmx.path_spectrum(history)"
        )
    matrix = paths.log_norms is None
    batch = paths.log_total.shape[0 if matrix else 1 :]
    one = parts.one_sequence(paths, _FIELDS, canvas.sequence_index(sequence, batch, "paths"))
    figure = canvas.figure_for(figure, (7.5, 4.5) if matrix else (11, 4.5))

    if matrix:
        series = {"order k": one.log_matrix_norms, "order k, from c to c": one.log_cell_norms}
        _orders(figure.subplots(), series, one.log_remainder, one.log_total, "the first step")
        what = "Jacobian product"
        mean, remainder = one.mean_order, one.log_remainder
    else:
        left, right = canvas.pair(figure, (1, 1.3))
        counts = ~np.isnan(one.log_total)
        first = int(counts.argmax())
        some = counts & np.isfinite(one.log_norms).any(axis=1)  # no order that is told apart reaches farther
        at = int(some.argmax()) if some.any() else first
        place = "the first step" if at == first else f"step {at:,}, with none before"
        _orders(left, {"order k": one.log_norms[at]}, one.log_remainder[at], one.log_total[at], place)
        _shares(right, np.concat([one.log_norms, one.log_remainder[:, None]], axis=1)[counts][::-1], cmap)
        what = f"gradient over {steps_in_words(len(counts), counts)}"
        mean, remainder = one.mean_order[first], one.log_remainder[first]
    where = f", sequence {sequence}" if batch else ""
    least = "" if np.isneginf(remainder) else "at least "  # the remainder counts as the order above the last
    return canvas.finish(figure, f"orders of the {what}{where}: mean order {least}{parts.number(mean)}", title)


def _orders(ax: Axes, series: dict[str, np.ndarray], remainder: Any, whole: Any, place: str) -> None:
    above = len(next(iter(series.values())))
    for (label, logs), (colour, marker) in zip(series.items(), canvas.styles(), strict=False):
        ax.plot(parts.decades(logs), color=colour, marker=marker, linewidth=1, label=parts.counted(label, logs))
    colour = canvas.COLOURS[0]
    label = parts.counted(f"all above {above - 1}", remainder)
    look: dict[str, Any] = {"color": colour, "marker": "o", "fillstyle": "none", "linestyle": "", "label": label}
    ax.plot([above], parts.decades(remainder), **look)
    label = parts.counted("all orders together", whole)
    ax.axhline(float(parts.decades(whole)), color="0.4", linestyle="--", linewidth=1, label=label)
    canvas.index_axis(ax.xaxis, "order (crossings of h)", above + 1)
    ax.set_ylabel("log₁₀ norm")
    canvas.legend_above(ax)
    ax.set_title(f"norm of each order, from the end to {place}", loc="left")


def _shares(ax: Axes, logs: np.ndarray, cmap: Any) -> None:
    """Draw the shares of the orders, the columns of `logs` [lags, max_order + 2], the last one the remainder."""
    from matplotlib import colormaps

    largest = logs.max(axis=1, keepdims=True)
    norms = np.exp(logs - np.where(np.isneginf(largest), np.nan, largest))
    shares = norms / norms.sum(axis=1, keepdims=True)
    last = logs.shape[1] - 2
    told_apart = 1 + int(max(np.flatnonzero(~(shares[:, -1] > _ALL)), default=0))

    apart = canvas.block_size(last + 1, _NAMED)
    labels = [str(k) if k % apart == 0 else "" for k in range(last + 1)] + [f"above {last}"]
    colours = [
        *colormaps.get_cmap(canvas.SEQUENTIAL if cmap is None else cmap)(np.linspace(0, 1, last + 1)),
        "0.7",
    ]
    parts.stacked(ax, shares[:told_apart], labels, colours)
    canvas.index_axis(ax.xaxis, "steps back from the last", told_apart, canvas.block_size(told_apart), "means")
    ax.set(ylabel="share of the sum of norms", ylim=(0, 1))
    beyond = f" (beyond, those above {last} have over {_ALL:.0%})" if told_apart < len(shares) else ""
    ax.set_title(f"share of each order{beyond}", loc="left")

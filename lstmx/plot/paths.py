"""Orders of the gradient: how often its paths leave the cell state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

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
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
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
            without batch axes. "all" draws the median of each norm over the sequences, with bars from the 10th to
            the 90th percentile, and the mean of each share.
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
    batch = tuple(paths.log_total.shape[0 if matrix else 1 :])
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, batch, "paths", every=True)
    one = parts.one_sequence(paths, _FIELDS, index)
    figure = canvas.figure_for(figure, (7.5, 4.5) if matrix else (11, 4.5))

    def flat(values: np.ndarray, axes: int) -> np.ndarray:
        """The batch axes as one, the last."""
        return values.reshape(*values.shape[:axes], -1)

    if matrix:
        series = {"order k": flat(one.log_matrix_norms, 1), "order k, from c to c": flat(one.log_cell_norms, 1)}
        remainder, mean = flat(one.log_remainder, 0), flat(one.mean_order, 0)
        _orders(figure.subplots(), series, remainder, flat(one.log_total, 0), "the first step")
        what = "Jacobian product"
    else:
        left, right = canvas.pair(figure, (1, 1.3))
        norms, rest, whole = flat(one.log_norms, 2), flat(one.log_remainder, 1), flat(one.log_total, 1)
        counts = ~np.isnan(whole)
        first = counts.argmax(axis=0)
        some = counts & np.isfinite(norms).any(axis=1)  # no order that is told apart reaches farther
        at = np.where(some.any(axis=0), some.argmax(axis=0), first)
        place = "the first step" if (at == first).all() else f"step {at.min():,}, with none before"
        every = np.arange(len(at))
        _orders(left, {"order k": norms[at, :, every].T}, rest[at, every], whole[at, every], place)
        logs = np.concat([norms, rest[:, None]], axis=1)
        _shares(right, [logs[counts[:, k], :, k][::-1] for k in every], cmap)
        what = f"gradient over {steps_in_words(len(counts), np.asarray(counts.any(axis=1)))}"
        remainder, mean = rest[first, every], flat(one.mean_order, 1)[first, every]
    where, order = f", sequence {sequence}" if batch else "", "mean order"
    if sequence == "all":
        where, order = f", {len(mean)} sequences", "median of the mean orders"
    # The remainder counts as the order above the last.
    least = "" if np.isneginf(remainder).all() else "at least "
    own = f"orders of the {what}{where}: {order} {least}{parts.number(np.median(mean))}"
    return canvas.finish(figure, own, title)


def _orders(ax: Axes, series: dict[str, np.ndarray], remainder: np.ndarray, whole: np.ndarray, place: str) -> None:
    """Draw the norms of the orders, [orders, sequences] by name, the remainder and the whole, [sequences]."""
    above = len(next(iter(series.values())))

    def draw(orders: Any, label: str, logs: np.ndarray, **look: Any) -> None:
        middle, band = parts.over_sequences(logs)
        ax.plot(orders, parts.decades(middle), label=parts.counted(label, middle), linewidth=1, **look)
        if band is not None:
            low, high = map(parts.decades, band)
            ax.vlines(orders, low, high, color=look["color"], linewidth=0.8)

    for (label, logs), (colour, marker) in zip(series.items(), canvas.styles(), strict=False):
        draw(range(above), label, logs, color=colour, marker=marker)
    look: dict[str, Any] = {"color": canvas.COLOURS[0], "marker": "o", "fillstyle": "none", "linestyle": ""}
    draw([above], f"all above {above - 1}", remainder[None], **look)
    middle, _ = parts.over_sequences(whole[None])
    label = parts.counted("all orders together", middle)
    ax.axhline(float(parts.decades(middle)[0]), color="0.4", linestyle="--", linewidth=1, label=label)
    canvas.index_axis(ax.xaxis, "order (crossings of h)", above + 1)
    ax.set_ylabel("log₁₀ norm")
    canvas.legend_above(ax)
    ax.set_title(f"norm of each order, from the end to {place}", loc="left")


def _shares(ax: Axes, several: list[np.ndarray], cmap: Any) -> None:
    """Draw the shares of the orders: of each sequence [lags, max_order + 2], the last column the remainder."""
    from matplotlib import colormaps

    longest, columns = max(map(len, several)), several[0].shape[1]
    each = np.full((longest, columns, len(several)), np.nan)
    for k, logs in enumerate(several):
        largest = logs.max(axis=1, keepdims=True)
        norms = np.exp(logs - np.where(np.isneginf(largest), np.nan, largest))
        each[: len(logs), :, k] = norms / norms.sum(axis=1, keepdims=True)
    shares = np.stack([parts.mean_over_sequences(each[:, column]) for column in range(columns)], axis=1)
    last = columns - 2
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

"""Covariant Lyapunov vectors: what carries them, how they grow, and the angles between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.dynamics import CovariantVectors, ReadExponents
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LINES = 4  # most vectors whose growth is drawn
_POINTS = 120  # most points of a line: blocks beyond that are joined
_TICKS = 8  # about so many along the units
_FIELDS = 4  # most fields that the name of the axis lists


def covariant(
    found: CovariantVectors,
    sequence: int | tuple[int, ...] = 0,
    *,
    read: ReadExponents | None = None,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
) -> Figure | SubFigure:
    """Draw which units carry each covariant vector, how the first ones grow, and how far they stay apart.

    First: the shares of the squares of each vector's numbers as a heat map, vectors to the right and the numbers
    of the joint state upwards, counted anew in each field, with a line between fields; means over time and
    sequences. Second: the growth of the first four vectors over the steps, with their exponents; with `read`, that
    of the slowest vector that the readout sees, "λ3, read", dashed. Third, with two vectors or more: the least
    angle between the spans before and after the split of `found.hyperbolicity()`. At most 120 points are drawn of
    a line: means of neighbouring blocks, in their range.

    A figure 3.3 inches wide needs a height of 7, one 7 inches wide a height of 4.5.

    Args:
        found: from `lstmx.covariant_vectors`.
        sequence: which sequence of the batch growth and angles are drawn of: an integer, or a tuple of one per
            batch axis; 0 for a result without batch axes.
        read: from `found.read(readout)`; None for none.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of the shares, as matplotlib takes it; None for the figure's own.

    Returns:
        The figure drawn on. An exponent of −inf has no line and stands in the legend.

    Raises:
        TypeError: found is no CovariantVectors, read no ReadExponents, sequence no integers, figure no figure, or
            title no str.
        ValueError: read is of another number of vectors, not one index per batch axis, or the figure already
            holds axes.
        IndexError: sequence is outside the batch.
    """
    if not isinstance(found, CovariantVectors):
        raise TypeError(
            f"found is a {type(found).__name__}; expected a CovariantVectors, as from "
            "lstmx.covariant_vectors(history)"
        )
    if read is not None and not isinstance(read, ReadExponents):
        raise TypeError(
            f"read is a {type(read).__name__}; expected a ReadExponents, as from found.read(readout), or None"
        )
    if read is not None and len(read.seen) != len(found):
        raise ValueError(f"read is of {len(read.seen)} vectors; expected one of these {len(found)}")
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, found.batch, "found")
    figure = canvas.figure_for(figure, (10, 5))

    rows = 1 if len(found) == 1 else 2
    if canvas.columns(figure, 2, 22) == 2:
        grid = figure.add_gridspec(rows, 2, height_ratios=(1.5, 1)[:rows])
        axes = [figure.add_subplot(grid[:, 0]), *(figure.add_subplot(grid[row, 1]) for row in range(rows))]
    else:
        axes = list(figure.subplots(1 + rows, 1))
    _carriers(axes[0], found, cmap)
    _growth(axes[1], found, index, read)
    if rows == 2:
        _angles(axes[2], found, index)
    number = len(found)
    where = f", sequence {sequence}" if found.batch else ""
    own = f"{number} of {found.size} covariant Lyapunov vectors, {len(found.growth) * found.every:,} steps{where}"
    return canvas.finish(figure, own, title)


def _carriers(ax: Axes, found: CovariantVectors, cmap: Any) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    canvas.heat_map(ax, found.shares, "unit", "share", look=canvas.Look(cmap=cmap))
    canvas.index_axis(ax.xaxis, "vector", len(found), canvas.block_size(len(found)), "means")
    ax.xaxis.set_major_locator(FixedLocator(range(0, len(found), -(-len(found) // _TICKS))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{round(at) + 1}"))
    starts = np.cumsum([0, *(size for _, size in found.fields)])
    joined = canvas.block_size(found.size)
    apart = -(-len(found.fields) // _TICKS)  # of many fields some have no number
    ticks = {}
    for start, (_, size) in itertools.islice(zip(starts, found.fields, strict=False), 0, None, apart):
        inside = MaxNLocator(max(1, _TICKS // len(found.fields)), integer=True, steps=[1, 2, 5, 10])
        at = [round(tick) for tick in inside.tick_values(0, size - 1) if 0 <= tick < size]
        step = at[1] - at[0] if len(at) > 1 else 1
        ticks |= {int(start) + tick: tick for tick in at if tick == 0 or tick <= size - 0.75 * step}
    ax.yaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda at, _: str(ticks.get(round(at), ""))))
    for edge in starts[1:-1]:
        ax.axhline(edge - 0.5, color="white", linewidth=1)
    names = [name for name, _ in found.fields]
    listed = ", then ".join(names) if len(names) <= _FIELDS else f"{len(names)} fields, from {names[0]}"
    means = "" if joined == 1 else f"; means of {joined:,}"
    ax.set_ylabel(f"unit: {listed}{means}")
    ax.set_title("what carries each vector", loc="left")


def _growth(ax: Axes, found: CovariantVectors, index: tuple[int, ...], read: ReadExponents | None) -> None:
    shown = min(len(found), _LINES)
    growth, exponents = found.growth[(slice(None), *index)], found.per_sequence[index]
    labels = [f"λ{i + 1} = {parts.number(exponents[i])}" for i in range(shown)]
    gone = np.isneginf(exponents[:shown])
    _over_time(ax, found, np.where(gone, np.nan, growth[:, :shown]), labels)
    if read is not None and read.slowest is not None:
        value = float(exponents[read.slowest])
        ax.axhline(
            value,
            color=canvas.ink(ax),
            linestyle="--",
            linewidth=1.5,
            label=f"λ{read.slowest + 1}, read = {parts.number(value)}",
        )
    canvas.legend_above(ax)
    ax.set_ylabel("growth (nats per step)")


def _angles(ax: Axes, found: CovariantVectors, index: tuple[int, ...]) -> None:
    split = found.hyperbolicity()
    angles = split.angles[(slice(None), *index)]
    _over_time(ax, found, angles[:, None], ["_angle"])
    canvas.start_at_zero(ax)
    ax.set_ylabel("angle (radians)")
    ax.set_title(f"{split.sides}: least {parts.number(np.nanmin(angles))}", loc="left")


def _over_time(ax: Axes, found: CovariantVectors, values: np.ndarray, labels: Sequence[str]) -> None:
    """Draw columns [blocks, n] over the steps, as means of neighbours in their range."""
    size = canvas.block_size(len(values), _POINTS)
    starts, at = np.arange(0, len(values), size), canvas.block_means(found.steps, size)
    counts = ~np.isnan(values)
    for k, (label, colour) in enumerate(zip(labels, itertools.cycle(canvas.COLOURS), strict=False)):
        column = np.where(np.isneginf(values[:, k]), np.nan, values[:, k])
        canvas.line(ax, at, canvas.block_means(column, size, counts[:, k]), color=colour, label=label)
        if size > 1:
            low, high = (end.reduceat(column, starts) for end in (np.fmin, np.fmax))
            ax.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
    joined = size * found.every
    canvas.index_axis(ax.xaxis, "step", int(found.steps[-1]) + 1, joined, "means")
    ax.set_xlim(found.steps[0] - 0.5, found.steps[-1] + 0.5)

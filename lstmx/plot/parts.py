"""What the figures of gradients share: one sequence of a result, exact zeros in log scale, stacked shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import Array
from lstmx.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def one_sequence(result: Any, names: Iterable[str], index: tuple[int, ...]) -> Any:
    """A result whose fields `names` hold one sequence, in NumPy float64; the batch axes are their last."""
    picked = {name: pick(getattr(result, name), index) for name in names}
    return dataclasses.replace(result, **picked)


def pick(values: Any, index: tuple[int, ...]) -> np.ndarray | None:
    """One sequence of a field in NumPy float64; None for None."""
    return None if values is None else np.asarray(values[(..., *index)], np.float64)


def blank(logs: Array) -> np.ndarray:
    """Logs with NaN for −inf, which leaves a gap where an exact zero has no place on the axis."""
    return np.where(np.isneginf(logs), np.nan, logs)


def counted(label: str, logs: Array) -> str:
    """A label that says how many of the logs are exact zeros, where any is."""
    zeros = int(np.count_nonzero(np.isneginf(logs)))
    return f"{label} ({zeros:,} exact zero{'s' * (zeros != 1)})" if zeros else label


def counted_steps(logs: np.ndarray) -> np.ndarray | None:
    """Which steps of a flow's log norms [T] count, those that are no NaN; None for all."""
    counts = ~np.isnan(logs)
    return None if counts.all() else counts


def number(value: Any) -> str:
    """A number to four digits, or to the unit if it has more, with the minus sign of the axes."""
    return f"{value:{',.0f' if 1e3 <= abs(value) < 1e9 else '.4g'}}".replace("-", "−")


def stacked(
    ax: Axes,
    shares: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[Any],
    counts: np.ndarray | None = None,
) -> None:
    """Stack the columns of `shares` [T, n], positive parts up from 0 and negative ones down, as block means.

    Steps where `counts` [T] is false leave a gap.
    """
    size = canvas.block_size(len(shares))
    edges = np.append(np.arange(0, len(shares), size), len(shares)) - 0.5
    means = canvas.block_means(shares, size, counts)
    positive, negative = np.maximum(means, 0), np.minimum(means, 0)
    for part in (positive, negative) if (negative < 0).any() else (positive,):
        tops = np.cumsum(part, axis=1)
        for k, (label, colour) in enumerate(zip(labels, colours, strict=True)):
            floor = tops[:, k] - part[:, k]
            ax.stairs(tops[:, k], edges, baseline=floor, fill=True, color=colour, label=label, antialiased=False)
        labels = [""] * len(labels)  # the negative parts are in the legend already
    ax.axhline(0, color="black", linewidth=0.8)
    canvas.legend_above(ax)

"""What the figures of gradients share: one sequence of a result, exact zeros in log scale, stacked shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import Array, fetched
from lstmx.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def one_sequence(result: Any, names: Iterable[str], index: tuple[int, ...]) -> Any:
    """A result whose fields `names` hold one sequence, in NumPy float64; the batch axes are their last."""
    picked = {name: pick(getattr(result, name), index) for name in names}
    return dataclasses.replace(result, **picked)


def pick(values: Any, index: tuple[int, ...]) -> np.ndarray | None:
    """One sequence of a field in NumPy float64; None for None."""
    return None if values is None else fetched(values[(..., *index)], np.float64)


def blank(logs: Array) -> np.ndarray:
    """Logs with NaN for −inf, which leaves a gap where an exact zero has no place on the axis."""
    return np.where(np.isneginf(logs), np.nan, logs)


def counted(label: str, logs: Array) -> str:
    """A label that says how many of the logs are exact zeros, where any is."""
    zeros = int(np.count_nonzero(np.isneginf(logs)))
    return f"{label} ({zeros:,} exact zero{'s' * (zeros != 1)})" if zeros else label


def counted_steps(logs: np.ndarray) -> np.ndarray | None:
    """Which steps of a flow's log norms [T, ...] count, those that are no NaN in some sequence; None for all."""
    counts = fetched(~np.isnan(logs.reshape(len(logs), -1)).all(axis=1))
    return None if counts.all() else counts


def decades(logs: Array) -> np.ndarray:
    """Natural logs as log₁₀, with NaN for −inf."""
    return blank(logs) / np.log(10)


def over_sequences(values: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Of values [T, *batch] the median of each step, and the 10th and 90th percentile, each [T].

    NaN do not count, and −inf is less than any number. Without batch axes, or with one sequence, the values
    themselves, and None.
    """
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 1:
        return flat[:, 0], None
    found = np.full((3, len(flat)), np.nan)
    some = ~np.isnan(flat).all(axis=1)
    least = -np.finfo(float).max / 4  # for −inf, between which and a number nothing lies
    found[:, some] = np.nanquantile(np.maximum(flat[some], least), (0.5, 0.1, 0.9), axis=1)
    found[found < least / 100] = -np.inf
    return found[0], (found[1], found[2])


def mean_over_sequences(values: np.ndarray) -> np.ndarray:
    """Of values [T, *batch, ...] the mean of each step over the sequences in which it is no NaN, [T]; or NaN."""
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    number = known.sum(axis=1)
    return np.sum(flat, axis=1, where=known) / np.where(number == 0, np.nan, number)


def log_lines(
    ax: Axes, series: Mapping[str, np.ndarray], colours: Sequence[str], tokens: Sequence[str] | None = None
) -> None:
    """Draw natural logs [T, *batch] by their names as log₁₀, of several sequences the median and a band.

    Names say how many exact zeros there are.
    """
    found = [over_sequences(logs) for logs in series.values()]
    middle = np.stack([logs for logs, _ in found], axis=1)
    edges = [edge for _, edge in found if edge is not None]
    band = None
    if edges:
        low, high = (np.stack(edge, axis=1) for edge in zip(*edges, strict=True))
        # A band that reaches down to an exact zero ends at the least number there is.
        floor = np.min(low, where=np.isfinite(low), initial=np.inf)
        band = (np.maximum(low, floor) / np.log(10), np.maximum(high, floor) / np.log(10))
    names = [counted(name, logs) for name, logs in series.items()]
    canvas.lines(ax, decades(middle), names, colours, counted_steps(middle), tokens, band)
    ax.set_ylabel("log₁₀ norm")


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
    ax.axhline(0, color=canvas.ink(ax), linewidth=0.8)
    canvas.legend_above(ax)

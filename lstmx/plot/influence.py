"""How strongly outputs depend on earlier steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.gradients import Influence
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


_DEEPEST = 12 * np.log(10)  # logs below the greatest beyond which an influence is not told from none


def influence(
    influence: Influence,
    sequence: int | tuple[int, ...] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw the influence of earlier steps on outputs, pair by pair and by lag.

    First: norms of all pairs, as log₁₀, as a heat map, output step upwards and input step to the right, in the
    order of the result; where only a quarter of all lags or less has influence, the lag to the right; of a single
    output step, a line over the input steps. Later inputs and exact zeros are left blank. Second: the lag profile,
    as log₁₀, with the mean lag and the lag within which 95 % of the profile's sum lies. A lag counts the steps
    that count; one without pairs is left blank. The colours, the line and the profile end where there is no
    influence of more than 10⁻¹² of the greatest any more. At most 1000 points are drawn along an axis; the axis
    says how many neighbours were joined.

    Args:
        influence: from `lstmx.influence`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a result
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of the pairs, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step of the pass, shown in place of input and output steps; None for
            numbers.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: influence is no Influence, sequence no integers, figure no figure, title no str, or labels no
            sequence of them.
        ValueError: not one index per batch axis, fewer labels than steps, or the figure already holds axes.
        IndexError: sequence is outside the batch.
    """
    if not isinstance(influence, Influence):
        raise TypeError(
            f"influence is a {type(influence).__name__}; expected an Influence, as from lstmx.influence(history)"
        )
    batch = influence.log_norms.shape[2:]
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, batch, "influence")
    counts = None if influence.counts is None else np.asarray(influence.counts)[(..., *index)]
    one = dataclasses.replace(parts.one_sequence(influence, ("log_norms",), index), counts=counts)
    last = int(max(np.max(one.outputs), np.max(one.inputs)))
    length = max(last + 1, len(labels)) if isinstance(labels, Sized) else last + 1
    tokens = canvas.tokens_for(labels, length, "influence")
    figure = canvas.figure_for(figure, (11, 4.5))

    left, right = canvas.pair(figure, (1.1, 1))
    seen = one.log_norms >= max(one.log_norms.max() - _DEEPEST, np.finfo(float).min)
    reach = 1 + int(one.lags.max(where=seen, initial=0))
    if len(one.outputs) == 1:
        _line(left, one, seen[0], tokens)
    else:
        _pairs(left, one, reach, cmap, tokens)
    _profile(right, one, reach)
    where = f", sequence {sequence}" if batch else ""
    kind = "exact" if influence.standard_error is None else "by probes"
    return canvas.finish(figure, f"influence of earlier steps on outputs{where} ({kind})", title)


def _line(ax: Axes, one: Influence, seen: np.ndarray, tokens: list[str] | None) -> None:
    first = int(seen.argmax())
    canvas.lines(ax, parts.decades(one.log_norms[0, first:, None]), ["influence"])
    _step_axis(ax.xaxis, "input step", np.asarray(one.inputs)[first:], "mean and range", tokens)
    ax.set_ylabel("log₁₀ of Frobenius norm")
    ax.set_title(f"influence on the output of step {int(one.outputs[0]):,}", loc="left")


def _pairs(ax: Axes, one: Influence, reach: int, cmap: Any, tokens: list[str] | None) -> None:
    logs, lags = parts.decades(one.log_norms), one.lags
    finite = logs[np.isfinite(logs)]
    limits = (max(finite.min(), finite.max() - 12), finite.max()) if finite.size else (0.0, 1.0)
    look = canvas.Look(
        None, canvas.SEQUENTIAL if cmap is None else cmap
    )  # logs below 0 are no opposite of those above
    by_lag = 4 * reach <= lags.max(initial=0)
    if by_lag:
        logs, known = np.full((len(logs), reach), np.nan), (lags >= 0) & (lags < reach)
        logs[np.nonzero(known)[0], lags[known]] = parts.decades(one.log_norms)[known]
    canvas.heat_map(ax, logs.T, "", "log₁₀ of Frobenius norm", limits, look=look)
    if by_lag:
        canvas.index_axis(ax.xaxis, "lag in steps", reach, canvas.block_size(reach), "means")
    else:
        _step_axis(ax.xaxis, "input step", one.inputs, "means", tokens)
    _step_axis(ax.yaxis, "output step", one.outputs, "means", tokens)
    ax.set_title(f"influence on each output{', by lag' if by_lag else ''}", loc="left")


def _profile(ax: Axes, one: Influence, reach: int) -> None:
    # In units of the largest influence no norm overflows; mean lag and quantile are the same in any unit.
    largest = one.log_norms.max()
    unit = largest if np.isfinite(largest) else 0.0
    relative = dataclasses.replace(one, log_norms=one.log_norms - unit)
    profile = relative.lag_profile
    logs = np.log(profile, where=profile > 0, out=np.full_like(profile, -np.inf)) + unit

    canvas.lines(ax, parts.decades(logs[:reach, None]), ["_profile"])
    canvas.index_axis(ax.xaxis, "lag in steps", reach, canvas.block_size(reach), "mean and range")
    ax.set_ylabel("log₁₀ of mean Frobenius norm")
    if np.isfinite(largest):
        mean, quantile = float(relative.mean_lag), int(relative.quantile(0.95))
        for lag, label, style in (
            (mean, f"mean lag {parts.number(mean)}", "--"),
            (quantile, f"95 % within {quantile:,}", ":"),
        ):
            ax.axvline(lag, color=canvas.COLOURS[1], linestyle=style, linewidth=1.5, label=label)
        canvas.legend_above(ax)
    beyond = " (beyond, less than 10⁻¹² of the greatest)" if reach < len(logs) else ""
    ax.set_title(f"lag profile{beyond}", loc="left")


def _step_axis(axis: Any, name: str, steps: Any, joined: str, tokens: list[str] | None) -> None:
    """Label an axis of positions in `steps` by the steps at them."""
    from matplotlib.ticker import FuncFormatter

    steps = np.asarray(steps)
    shown = None if tokens is None else [tokens[step] for step in steps]
    canvas.index_axis(axis, name, len(steps), canvas.block_size(len(steps)), joined, shown)
    if tokens is None:
        axis.set_major_formatter(FuncFormatter(lambda at, _: str(steps.take(round(at), mode="clip"))))

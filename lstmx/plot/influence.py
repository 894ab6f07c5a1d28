"""How strongly outputs depend on earlier steps."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.gradients import Influence
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def influence(
    influence: Influence, sequence: int | tuple[int, ...] = 0, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw the influence of earlier steps on outputs, pair by pair and by lag.

    Left: log norms of all pairs as a heat map, output step upwards and input step to the right, in the order of
    the result; of a single output step, a line over the input steps. Later inputs and exact zeros are left blank.
    Right: the log of the lag profile, with the mean lag and the lag within which 95 % of the profile's sum lies.
    A lag counts the steps that count; one without pairs, or of e^−745 of the largest influence or less, is left
    blank. At most 1000 points are drawn along an axis; the axis says how many neighbours were joined.

    Args:
        influence: from `lstmx.influence`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a result
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: influence is no Influence, sequence no integers, or figure no figure.
        ValueError: not one index per batch axis, or the figure already holds axes.
        IndexError: sequence is outside the batch.
    """
    if not isinstance(influence, Influence):
        raise TypeError(
            f"influence is a {type(influence).__name__}; expected an Influence, as from lstmx.influence(history)"
        )
    batch = influence.log_norms.shape[2:]
    index = canvas.sequence_index(sequence, batch, "influence")
    counts = None if influence.counts is None else np.asarray(influence.counts)[(..., *index)]
    one = dataclasses.replace(parts.one_sequence(influence, ("log_norms",), index), counts=counts)
    figure = canvas.figure_for(figure, (11, 4.5))

    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _pairs(left, one)
    _profile(right, one)
    where = f", sequence {sequence}" if batch else ""
    kind = "exact" if influence.standard_error is None else "by probes"
    figure.suptitle(f"influence of earlier steps on outputs{where} ({kind})")
    return figure


def _pairs(ax: Axes, one: Influence) -> None:
    logs, label = parts.blank(one.log_norms), "ln of Frobenius norm"
    if len(logs) == 1:
        canvas.lines(ax, logs.T, ["influence"])
        _step_axis(ax.xaxis, "input step", one.inputs, "mean and range")
        ax.set_ylabel(label)
        canvas.title(ax, f"influence on the output of step {int(one.outputs[0]):,}")
        return
    finite = logs[np.isfinite(logs)]
    canvas.heat_map(ax, logs.T, "", label, (finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    ax.images[0].set_cmap(canvas.SEQUENTIAL)  # logs below 0 are no opposite of those above
    _step_axis(ax.xaxis, "input step", one.inputs, "means")
    _step_axis(ax.yaxis, "output step", one.outputs, "means")
    canvas.title(ax, "influence of each step on each output")


def _profile(ax: Axes, one: Influence) -> None:
    # In units of the largest influence no norm overflows; mean lag and quantile are the same in any unit.
    largest = one.log_norms.max()
    unit = largest if np.isfinite(largest) else 0.0
    relative = dataclasses.replace(one, log_norms=one.log_norms - unit)
    profile = relative.lag_profile
    logs = np.log(profile, where=profile > 0, out=np.full_like(profile, np.nan)) + unit

    canvas.lines(ax, logs[:, None], ["_profile"])
    canvas.index_axis(ax.xaxis, "lag in steps", len(logs), canvas.block_size(len(logs)), "mean and range")
    ax.set_ylabel("ln of mean Frobenius norm")
    if np.isfinite(largest):
        mean, reach = float(relative.mean_lag), int(relative.quantile(0.95))
        for lag, label, style in (
            (mean, f"mean lag {parts.number(mean)}", "--"),
            (reach, f"95 % within {reach:,}", ":"),
        ):
            ax.axvline(lag, color=canvas.COLOURS[1], linestyle=style, linewidth=1.5, label=label)
        canvas.legend_above(ax)
    canvas.title(ax, "lag profile")


def _step_axis(axis: Any, name: str, steps: Any, joined: str) -> None:
    """Label an axis of positions in `steps` by the steps at them."""
    from matplotlib.ticker import EngFormatter, FuncFormatter

    steps, words = np.asarray(steps), EngFormatter(sep="")
    canvas.index_axis(axis, name, len(steps), canvas.block_size(len(steps)), joined)
    axis.set_major_formatter(FuncFormatter(lambda at, _: words(steps.take(round(at), mode="clip"))))

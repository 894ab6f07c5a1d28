"""Learning curves of several models on one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import Array, fetched
from lstmx.comparison import Comparison
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_BLOCKS = 250  # most points of a training curve: single steps are too noisy to compare
_WIDE = 30  # greatest over least loss from which on the ordinate is logarithmic
_FEW = 12  # most seeds whose curves are drawn one by one


def comparison(
    comparison: Comparison, *, figure: Figure | SubFigure | None = None, title: str | None = None
) -> Figure | SubFigure:
    """Draw training and validation loss of several models, and their mean absolute error where there is one.

    Validation curves are bold with markers. Of several seeds they are means over those that were completed, in the
    band of the 95 % bootstrap interval, with a thin line for each of up to 12 seeds. Of one seed the training
    curves are drawn as well, thin and pale, and as block means where there are more than 250 steps; the legend
    says of how many. The dashed line is the task's baseline loss. First values that would take more than half of
    the height lie above the axes, and the panel's title says how high.

    Args:
        comparison: from `lstmx.compare`.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: an argument of another kind.
        ValueError: the figure already holds axes.
    """
    _check(comparison)
    error = comparison.validation_error
    columns = 1 if error is None else 2
    figure = canvas.figure_for(figure, (6.5 * columns, 4.5))

    panels = [figure.subplots()] if error is None else canvas.pair(figure, (1, 1))
    _losses(panels[0], comparison)
    if error is not None:
        _validation(panels[1], comparison, error)
        panels[1].set_ylabel("mean absolute error")
        canvas.start_at_zero(panels[1])
        panels[1].set_title(f"validation error{_end(panels[1], fetched(error))}", loc="left")
    seeds = f", {comparison.complete} seeds" if comparison.complete > 1 else ""
    return canvas.finish(figure, f"{comparison.task}{seeds}", title)


def reach(comparison: Comparison, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw when each model of a comparison learned to reach how far back with its gradient.

    The horizon of each look, the steps back at which 1 % of the gradient of the last output is left: the median
    over the sequences of the probe. Where more is left at the probe's first step it is drawn at its length. Of
    several seeds there is the median, with a thin line for each of up to 12.

    Args:
        comparison: from `lstmx.compare(cells, task, observe=...)`.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: an argument of another kind.
        ValueError: nothing was observed.
    """
    _check(comparison)
    if comparison.observatories is None:
        raise ValueError(
            "comparison.observatories is None; expected a comparison that was observed: lstmx.compare(..., "
            "observe=lambda cell: lstmx.Observatory(cell, probe))"
        )
    ax = canvas.axes_for(ax, (7, 4.5))
    length = last = 0
    for name, row, (colour, marker) in zip(
        comparison.names, comparison.observatories, canvas.styles(), strict=False
    ):
        looks = min(map(len, row))  # fewer of one that was interrupted
        length, steps = max(length, len(row[0].probe)), row[0].steps[:looks]
        horizons = [np.median(np.minimum(one["horizon"][:looks], len(one.probe)), axis=1) for one in row]
        last = max(last, int(steps[-1]))
        if 1 < len(row) <= _FEW:
            ax.plot(steps, np.stack(horizons, axis=1), color=colour, linewidth=0.8, alpha=0.4)
        middle = np.median(horizons, axis=0)
        ax.plot(steps, middle, color=colour, marker=marker, markersize=4, linewidth=2, label=name)
    ax.axhline(length, color="0.6", linewidth=0.8)
    canvas.index_axis(ax.xaxis, "training step", last + 1)
    ax.set(ylabel="steps back", ylim=(0, 1.05 * length))
    canvas.legend_above(ax)
    count = len(comparison.observatories[0])
    seeds = f", median of {count} seeds" if count > 1 else ""
    return canvas.finish(ax, f"{comparison.task}: how far the gradient reaches{seeds}", title)


def _check(comparison: Any) -> None:
    if not isinstance(comparison, Comparison):
        raise TypeError(
            f"comparison is a {type(comparison).__name__}; expected a Comparison, "
            "as from lstmx.compare(cells, task)"
        )


def _losses(ax: Axes, comparison: Comparison) -> None:
    if comparison.complete < 2:
        _training(ax, comparison)
    _validation(ax, comparison, comparison.validation_loss)

    # One entry of the legend stands for what all models have.
    if comparison.complete > 1:
        ax.fill_between([], [], color="0.4", alpha=0.25, linewidth=0, label="95 % interval of the mean")
        if comparison.complete <= _FEW:
            ax.plot([], [], color="0.4", linewidth=0.8, alpha=0.6, label="each seed")
    ax.axhline(comparison.baseline, color="0.4", linestyle="--", linewidth=1, label=comparison.baseline_name)
    drawn = np.append(comparison.validation_loss, comparison.baseline)
    if np.nanmin(drawn) > 0 and np.nanmax(drawn) / np.nanmin(drawn) > _WIDE:
        ax.set_yscale("log")
    ax.set_ylabel(comparison.metric)
    canvas.legend_above(ax)
    ax.set_title(f"loss{_end(ax, comparison.validation_loss)}", loc="left")


def _end(ax: Axes, curves: Array) -> str:
    """Let the end of curves [models, seeds, evaluations] be seen below high first values; how high, in words."""
    first, later = fetched(curves)[..., :1], fetched(curves)[..., 1:]
    later = later[np.isfinite(later)]
    low, top = ax.get_ylim()
    if ax.get_yscale() == "log" or not later.size or 2 * (later.max() - low) > top - low:
        return ""
    ax.set_ylim(top=later.max() + 0.1 * (later.max() - low))
    return f" (up to {parts.number(np.nanmax(first))} at first, above the axes)"


def _training(ax: Axes, comparison: Comparison) -> None:
    """Training curves of the first seed."""
    training = fetched(comparison.training_loss)[:, 0].T
    size = canvas.block_size(len(training), _BLOCKS)
    at, means = canvas.block_centres(len(training), size), canvas.block_means(training, size)
    for curve, (colour, _) in zip(means.T, canvas.styles(), strict=False):
        ax.plot(at, curve, color=colour, linewidth=0.8, alpha=0.4, marker=canvas.marker_for(at))
    joined = f" (means of {size} steps)" if size > 1 else ""
    ax.plot([], [], color="0.4", linewidth=0.8, alpha=0.6, label=f"training{joined}")


def _validation(ax: Axes, comparison: Comparison, curves: Array) -> None:
    """Curves [models, seeds, evaluations]: mean, interval, and seed by seed where there are few."""
    steps = fetched(comparison.validation_steps)
    mean, low, high = comparison.over_seeds(curves)
    for k, (name, (colour, marker)) in enumerate(zip(comparison.names, canvas.styles(), strict=False)):
        if low is not None and high is not None:
            ax.fill_between(steps, low[k], high[k], color=colour, alpha=0.25, linewidth=0)
            if comparison.complete <= _FEW:
                each = fetched(curves)[k, : comparison.complete].T
                ax.plot(steps, each, color=colour, linewidth=0.8, alpha=0.4)
        ax.plot(
            steps, mean[k], color=colour, marker=marker, markersize=4, linewidth=2, label=f"{name}, validation"
        )
    canvas.index_axis(ax.xaxis, "training step", comparison.training_loss.shape[-1] + 1)

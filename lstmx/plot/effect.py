"""What edits of gates and states did to a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.editing import EditedLayers, Effect, field_of
from lstmx.plot import canvas, parts
from lstmx.plot.canvas import Look
from lstmx.plot.passes import steps_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_BAND = "0.5"  # behind the steps in which an edit changed something


def effect(
    effect: Effect,
    sequence: int | tuple[int, ...] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> Figure | SubFigure:
    """Draw an intervention: how the outputs moved, and the values that were edited, before and after.

    The panels, all over the same steps: the change of each unit's output as a heat map; its L2 norm over units;
    the loss of each step without the edits and with them, where the effect has it; then each gate and state that
    an edit changed itself, without the edits at the left and with them at the right. Grey are the steps in which
    an edit changed something, in any sequence of the batch. Steps that do not count are left blank.

    At most 1000 points are drawn along an axis. Beyond, a line becomes block means within the blocks' range, a
    heat map becomes block means, and the axis says how many neighbours were joined.

    Args:
        effect: from `lstmx.effect`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for an effect
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of all heat maps, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.
        units: indices of the units in heat maps; None for all. The norm is over all in any case.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: effect is no Effect, sequence or units no integers, figure no figure, title no str, or labels no
            sequence of them.
        ValueError: not one index per batch axis, not one label per step, or the figure already holds axes.
        IndexError: sequence is outside the batch, or units outside a layer that was edited.
    """
    if not isinstance(effect, Effect):
        raise TypeError(
            f"effect is a {type(effect).__name__}; expected an Effect, as from lstmx.effect(history, edited)"
        )
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, effect.edited.batch, "effect")
    at = (slice(None), *index)
    changed, lossy = effect.changed, effect.loss_after is not None
    arrays = {
        name: [np.asarray(field_of(one, name)[at], np.float64) for one in (effect.history, effect.edited)]
        for name in changed
    }
    look = Look(canvas.tokens_for(labels, len(effect.edited), "effect"), cmap)
    for size in (effect.outputs.shape[-1], *(values.shape[1] for values, _ in arrays.values())):
        look = look._replace(units=canvas.units_for(units, size, "effect"))
    heights = [1.3, 1, *([1] if lossy else []), *([1.1] * len(changed))]
    figure = canvas.figure_for(figure, (10, 1 + 1.75 * sum(heights)))

    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    over_time = [figure.add_subplot(grid[k, :]) for k in range(3 if lossy else 2)]
    counts = None if effect.edited.counts is None else np.asarray(effect.edited.counts[at])
    _outputs(over_time[0], np.asarray(effect.outputs[at], np.float64), counts, look)
    _norm(over_time[1], np.asarray(effect.norm[at], np.float64), counts, look)
    if effect.loss_before is not None and effect.loss_after is not None:
        before, after = (np.asarray(x[at], np.float64) for x in (effect.loss_before, effect.loss_after))
        _loss(over_time[2], before, after, counts, look)
    for ax in over_time[1:]:
        _band(ax, np.asarray(effect.acted))
    for ax in over_time[:-1]:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    for row, name in enumerate(changed, start=len(over_time)):
        pair = [figure.add_subplot(grid[row, column]) for column in range(2)]
        layer, _, field = name.rpartition(": ")
        edited = effect.edited
        one = edited.cells()[layer][0] if isinstance(edited, EditedLayers) else edited
        last = row == len(heights) - 1
        _pair(pair, name, field in one.cell.gate_names, arrays[name], counts, look, last)

    where = f", sequence {sequence}" if effect.edited.batch else ""
    edits = "\n".join(effect.edited.edits) or "no edit"
    own = f"effect over {steps_in_words(len(effect.edited), counts)}{where}\n{edits}"
    return canvas.finish(figure, own, title)


def _outputs(ax: Axes, change: np.ndarray, counts: np.ndarray | None, look: Look) -> None:
    most = float(np.nanmax(np.abs(canvas.blank_rows(change, counts)))) or 1.0
    canvas.heat_map(ax, change, "unit", "change", (-most, most), counts, look)
    ax.set_title("change of the outputs", loc="left")


def _norm(ax: Axes, norm: np.ndarray, counts: np.ndarray | None, look: Look) -> None:
    canvas.lines(ax, norm[:, None], ["norm"], counts=counts, tokens=look.tokens)
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    step = int(np.nanargmax(canvas.blank_rows(norm, counts)))
    ax.set_title(f"norm of the change: at most {parts.number(norm[step])}, at step {step:,}", loc="left")


def _loss(ax: Axes, before: np.ndarray, after: np.ndarray, counts: np.ndarray | None, look: Look) -> None:
    both, names = np.stack([before, after], axis=1), ["before", "edited"]
    canvas.lines(ax, both, names, canvas.COLOURS[5::-4], counts, look.tokens)
    ax.set_ylabel("loss")
    means = [parts.number(np.nanmean(canvas.blank_rows(x, counts))) for x in (before, after)]
    ax.set_title(f"loss of each step: {means[0]} before, {means[1]} edited on average", loc="left")


def _pair(
    pair: list[Axes],
    name: str,
    gate: bool,
    values: list[np.ndarray],
    counts: np.ndarray | None,
    look: Look,
    last: bool,
) -> None:
    """One gate or state of both passes, in the same colours."""
    counted = canvas.blank_rows(np.stack(values, axis=1), counts)
    low, high = np.nanmin(counted), np.nanmax(counted)
    most = max(abs(low), abs(high)) or 1.0
    limits = (0.0, 1.0) if gate and low >= 0 and high <= 1 else (-most, most)
    labels = None, "activation" if gate else "value"  # one colour bar for both
    for ax, which, value, label in zip(pair, ("before", "edited"), values, labels, strict=True):
        canvas.heat_map(ax, value, "unit", label, limits, counts, look)
        ax.set_title(f"{name.replace('_', ' ')}, {which}", loc="left")
        if not last:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    pair[1].set_ylabel("")


def _band(ax: Axes, acted: np.ndarray) -> None:
    """Grey behind the steps, or blocks of steps, in which an edit changed something."""
    size = canvas.block_size(len(acted))
    blocks = np.logical_or.reduceat(acted, np.arange(0, len(acted), size))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blocks.astype(int), [0]]))).reshape(-1, 2) * size - 0.5
    for start, stop in edges:
        ax.axvspan(start, min(stop, len(acted) - 0.5), color=_BAND, alpha=0.3, zorder=0, linewidth=0)

"""What each step contributes to a target, and each of its features or units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lstmx.attribution import Attribution
from lstmx.attribution.results import WORDS
from lstmx.plot import canvas, parts
from lstmx.plot.passes import steps_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


def attribution(
    attribution: Attribution,
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw what each step contributes to a target: in all, and feature by feature.

    Above, the contributions of the steps, with the letters or words of `labels` below them. Below, where the
    method tells them apart, those of each feature of the inputs, or by "cell_path" of each unit, as a map over the
    same steps, red for what raises the target and blue for what lowers it. The title says what adds up. At most
    1000 points are drawn along an axis; beyond, block means. Steps that do not count are left blank.

    Args:
        attribution: from `lstmx.attribute`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for an attribution
            without batch axes. "all" draws of each step the median over the sequences, shades what lies between
            the 10th and the 90th percentile, and maps means.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of the map, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: attribution is no Attribution, sequence no integers, figure no figure, title no str, or labels
            no sequence of them.
        ValueError: not one index per batch axis, not one label per step, or the figure already holds axes.
        IndexError: sequence is outside the batch.
    """
    if not isinstance(attribution, Attribution):
        raise TypeError(
            f"attribution is a {type(attribution).__name__}; expected an Attribution, as from "
            "lstmx.attribute(history, target)"
        )
    batch = tuple(attribution.steps.shape[1:])
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, batch, "attribution", every=True)
    tokens = canvas.tokens_for(labels, len(attribution.steps), "attribution")
    counted = attribution.history.counts
    held = None if counted is None else ~np.asarray(counted)[(..., *index)]
    steps = np.asarray(attribution.steps[(..., *index)], np.float64)
    if held is not None:
        steps = np.where(held, np.nan, steps)
    rows = attribution.units if attribution.inputs is None else attribution.inputs
    if rows is not None:  # the axis of features or units is the last, behind those of the batch
        rows = np.asarray(rows[(slice(None), *index)], np.float64)
        if sequence == "all":
            rows = rows.mean(axis=tuple(range(1, 1 + len(batch))))
    figure = canvas.figure_for(figure, (8, 3 if rows is None else 5))

    above, *below = figure.subplots(1 if rows is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    middle, band = parts.over_sequences(steps)
    counts = parts.counted_steps(middle)
    edges = None if band is None else (band[0][:, None], band[1][:, None])
    canvas.lines(above, middle[:, None], ["contribution"], counts=counts, tokens=tokens, band=edges)
    above.axhline(0, color=canvas.ink(above), linewidth=0.8)
    above.set_ylabel("contribution")
    above.set_title("contribution of each step", loc="left")
    if rows is not None:
        row = "unit" if attribution.inputs is None else "feature"
        most = float(np.abs(rows[np.isfinite(rows)]).max(initial=0)) or 1.0
        look = canvas.Look(tokens, canvas.DIVERGING if cmap is None else cmap)
        canvas.heat_map(below[0], rows, row, "contribution", (-most, most), counts, look)
        below[0].set_title(f"of each {row}", loc="left")
        above.label_outer()

    change = np.asarray(attribution.value - attribution.baseline_value, np.float64)[index]
    parts_of_it = {
        "steps": attribution.steps.sum(axis=0),
        "biases": attribution.biases.sum(axis=0),
        "the initial state": attribution.initial,
        "the stabiliser": attribution.stabiliser,
        "not accounted for": attribution.defect,
    }
    told = {name: np.median(np.asarray(x, np.float64)[index]) for name, x in parts_of_it.items()}
    where = f", sequence {sequence}" if batch else ""
    if sequence == "all":
        where = f", medians of {change.size} sequences"
    what = f"{WORDS[attribution.method]} over {steps_in_words(len(steps), counts)}{where}"
    listed = ", ".join(f"{name} {parts.number(x)}" for name, x in told.items() if x != 0)
    own = f"{what}:\n{parts.number(np.median(change))} in all: {listed}"
    return canvas.finish(figure, own, title)

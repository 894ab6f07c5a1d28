"""Gradients through layers, over depth and time; and variants of a network beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lstmx.checks import require_history
from lstmx.gradients import GradientFlow, LayeredFlow
from lstmx.history import History
from lstmx.plot import canvas, parts
from lstmx.plot.passes import Pass, one_pass, steps_in_words, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

_DEEPEST = 12.0  # decades below the greatest norm that the colours of a map still tell apart
_PER_DECADE = np.log(10)


def depth(
    flow: LayeredFlow,
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw where the gradient of a loss goes through layers: over depth and time.

    Above, a map of the norm of the cotangent of each cell's joint state, the top layer at the top, in decades
    below the greatest norm of all; below, the same norms as lines, as log₁₀. Exact zeros have the lowest colour,
    which the colour bar says where there are any, and leave a gap in a line; steps that do not count are left
    blank, in the map hatched. Directions are drawn in the order of time.

    Args:
        flow: from `lstmx.gradient_flow(history)` of a stack or of both directions.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a flow without
            batch axes. "all" draws of each step the median over the sequences, and shades what lies between the
            10th and the 90th percentile of each line.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of the map, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: flow is no LayeredFlow, sequence no integers, figure no figure, title no str, or labels no
            sequence of them.
        ValueError: not one index per batch axis, not one label per step, or the figure already holds axes.
        IndexError: sequence is outside the batch.

    Example:
        >>> import lstmx, lstmx.plot, numpy
        >>> stack = lstmx.Stack([lstmx.LSTM(3, 8), lstmx.LSTM(8, 8)])
        >>> params = stack.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(stack, params, numpy.ones((50, 3), "float32"))
        >>> figure = lstmx.plot.depth(lstmx.gradient_flow(history))  # figure.savefig("depth.png") writes it
        >>> figure.axes[0].get_title("left")
        'norm of the cotangent, decades below the greatest'
    """
    if not isinstance(flow, LayeredFlow):
        other = "; lstmx.plot.gradient_flow draws that of one cell" if isinstance(flow, GradientFlow) else ""
        raise TypeError(
            f"flow is a {type(flow).__name__}; expected a LayeredFlow, as lstmx.gradient_flow gives of "
            f"layers{other}"
        )
    batch = tuple(flow.log_norm.shape[2:])
    canvas.colour_map(cmap)
    each = parts.pick(flow.log_norm, canvas.sequence_index(sequence, batch, "flow", every=True))
    assert each is not None  # a flow has its norms
    norms = np.stack([parts.over_sequences(layer)[0] for layer in each])
    tokens = canvas.tokens_for(labels, norms.shape[1], "flow")
    figure = canvas.figure_for(figure, (8, 2.5 + 0.5 * len(flow.names) + 2.5))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1 + 0.5 * len(flow.names), 3))

    above.set_title("norm of the cotangent, decades below the greatest", loc="left")
    finite = norms[np.isfinite(norms)]
    greatest = float(finite.max(initial=-np.inf))
    deepest = min(_DEEPEST, max(1.0, float(greatest - finite.min()) / _PER_DECADE)) if len(finite) else 1.0
    zero = np.isneginf(norms)
    decades = np.where(zero, -deepest, (parts.blank(norms) - greatest) / _PER_DECADE)
    counts = parts.counted_steps(norms[0])
    label = "decades (zero: lowest)" if zero.any() else "decades"
    shown = _image(above, decades.T, (-deepest, 0.0), canvas.SEQUENTIAL if cmap is None else cmap, counts)
    canvas.index_axis(above.yaxis, "", len(norms), tokens=flow.names)
    figure.colorbar(shown, ax=above, label=label, fraction=0.06, pad=0.02)

    parts.log_lines(below, dict(zip(flow.names, each, strict=True)), canvas.COLOURS, tokens)
    below.set_title("the same, layer by layer", loc="left")
    above.label_outer()
    where = "" if not batch else f", sequence {sequence}"
    if sequence == "all":
        where = f", median of {math.prod(batch)} sequences"
    steps = steps_in_words(norms.shape[1], counts)
    return canvas.finish(figure, f"gradient through {len(flow.names)} layers over {steps}{where}", title)


def variants(
    histories: Mapping[str, History],
    flows: Mapping[str, GradientFlow] | None = None,
    sequence: int | tuple[int, ...] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> Figure | SubFigure:
    """Draw several networks on one input beside each other, on shared axes.

    A column for each: the gate that multiplies the old state, over units and steps; the state that it multiplies;
    and, with flows, the norm of the gradient of each, as log₁₀. Of a network without such a gate the state is what
    it gives as its output. Rows share their axes and colours; those of states span the median of the networks'
    greatest magnitudes, and a state beyond it has the colour of the end. Steps that do not count are left blank,
    in maps hatched.

    Args:
        histories: name to history of one cell, of one length.
        flows: the same names to flows of `lstmx.gradient_flow`; None to leave the row out.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for histories
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of all heat maps, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.
        units: indices of the units drawn; None for all.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: something given is no history or flow, sequence or units no integers, figure no figure, title no
            str, or labels no sequence of them.
        ValueError: no histories, other lengths, flows of other names, not one label per step, units of a step
            function, or the figure already holds axes.
        IndexError: sequence is outside the batch, or units outside a network.
    """
    shown = _checked(histories, flows, sequence)
    canvas.colour_map(cmap)
    tokens = canvas.tokens_for(labels, len(next(iter(histories.values()))), "histories")
    picked = {name: units_of(one, units, f"histories[{name!r}]") for name, one in shown.items()}
    rows_of = {name: slice(None) if units is None else picked[name] for name in shown}
    rows = 2 if flows is None else 3
    figure = canvas.figure_for(figure, (max(5.5, 1.2 + 2.2 * len(shown)), 2.2 * rows))
    panels = figure.subplots(rows, len(shown), sharex=True, sharey="row", squeeze=False)
    states = {
        name: one.states["cell_state"].values if one.retention_gate and "cell_state" in one.states else one.output
        for name, one in shown.items()
    }
    greatest = []
    for name, one in shown.items():
        counted = canvas.blank_rows(states[name], one.counts)
        greatest.append(float(np.abs(counted[np.isfinite(counted)]).max(initial=0)))
    most = float(np.median(greatest)) or 1.0
    for column, (name, one) in zip(panels.T, shown.items(), strict=True):
        gate = one.retention_gate
        if gate is None:
            column[0].text(0.5, 0.5, "no such gate", ha="center", va="center", transform=column[0].transAxes)
        else:
            values = one.gates[gate].values[:, rows_of[name]]
            _image(column[0], values, (0.0, 1.0), canvas.SEQUENTIAL if cmap is None else cmap, one.counts)
        colours = canvas.DIVERGING if cmap is None else cmap
        _image(column[1], states[name][:, rows_of[name]], (-most, most), colours, one.counts)
        column[0].set_title(name, loc="left")
        if flows is not None:
            index = canvas.sequence_index(sequence, tuple(flows[name].log_norm.shape[1:]), "flow")
            norms = parts.pick(flows[name].log_norm, index)
            assert norms is not None  # a flow has its norms
            parts.log_lines(column[2], {name: norms}, canvas.COLOURS)
        canvas.index_axis(column[-1].xaxis, "step", len(one.inputs), tokens=tokens)
    if units is not None:
        for ax in panels[:2, 0]:
            canvas.index_axis(ax.yaxis, "", len(units), tokens=[str(unit) for unit in units])
    for ax in panels.flat:
        ax.label_outer()
    names = ("gate of the old state\nunit", "state\nunit", "gradient\nlog₁₀ norm")
    for panel, label in zip(panels[:, 0], names, strict=False):
        panel.set_ylabel(label)
    figure.align_ylabels(list(panels[:, 0]))
    beyond = f" (greatest of all: {max(greatest):.2g})" if max(greatest) > most else ""
    own = f"gates from 0 to 1, states from −{most:.2g} to {most:.2g}{beyond}"
    return canvas.finish(figure, own, title)


def _checked(histories: Mapping, flows: Mapping | None, sequence: int | tuple[int, ...]) -> dict[str, Pass]:
    """One sequence of each history."""
    if not isinstance(histories, Mapping):
        raise TypeError(f"histories is a {type(histories).__name__}; expected names to histories")
    if not histories:
        raise ValueError("histories is empty; expected names to histories")
    for name, history in histories.items():
        try:
            require_history(history)
        except TypeError as error:
            raise TypeError(str(error).replace("history", f"histories[{name!r}]", 1)) from None
    lengths = {name: len(history) for name, history in histories.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"histories have {lengths} steps; expected one length")
    if flows is not None and set(flows) != set(histories):
        raise ValueError(f"flows are of {', '.join(flows)}; histories of {', '.join(histories)}")
    for name, flow in (flows or {}).items():
        if not isinstance(flow, GradientFlow):
            raise TypeError(
                f"flows[{name!r}] is a {type(flow).__name__}; expected a GradientFlow, as from "
                "lstmx.gradient_flow of the history of one cell"
            )
    picked = {name: canvas.sequence_index(sequence, one.batch, "history") for name, one in histories.items()}
    return {name: one_pass(one, picked[name]) for name, one in histories.items()}


def _image(
    ax: Axes, values: np.ndarray, limits: tuple[float, float], colours: Any, counts: np.ndarray | None
) -> AxesImage:
    """Values [T, n] as an image, step to the right and column upwards; hatched where `counts` [T] is false."""
    if counts is not None:
        canvas.hatch(ax)
    size = canvas.block_size(len(values))
    image = canvas.block_means(values, size, counts).T
    return ax.imshow(
        image,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, image.shape[1] * size - 0.5, -0.5, len(image) - 0.5),
    )

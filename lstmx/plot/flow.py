"""Where gradients go over time: their norms, the share of each gate, and several networks beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import leaves
from lstmx.gradients import GradientFlow, LayeredFlow
from lstmx.plot import canvas, parts
from lstmx.plot.passes import steps_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_NORMS = {  # as the legend calls them, in the order of the colours
    "log_norm": "joint state",
    "log_norm_hidden": "h",
    "log_norm_cell": "c",
    "log_highway": "retention gates alone",
}
_FIELDS = (*_NORMS, "log_direct", "log_parameter_profile", "parameter_alignment")


def gradient_flow(
    flow: GradientFlow, sequence: int | tuple[int, ...] = 0, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw how the gradient of a loss fades or grows on its way back through time.

    The panels, over the same steps: the log norms of the cotangents of the joint state, of h and of c, and of
    what the retention gates alone would carry (a GRU and a SimpleRNN have one state, so h is left out; a
    SimpleRNN has no retention gate); where the flow has them, each step's part in ∂L/∂U, or without U in ∂L/∂W,
    and the cosine of that part with the whole. Of a step function there is the joint state alone. The title gives
    the flow's verdict, half-life and decay rate ± standard error, with the two rates of a decay that is not one
    exponential; or why there are none.

    At most 1000 points are drawn along an axis; beyond, block means within the blocks' range. An exact zero, −inf
    in log scale, leaves a gap of its block, and the legend or title says how many there are. Steps that do not
    count are left blank.

    Args:
        flow: from `lstmx.gradient_flow`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a flow without
            batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: flow is no GradientFlow, sequence no integers, or figure no figure.
        ValueError: not one index per batch axis, or the figure already holds axes.
        IndexError: sequence is outside the batch.

    Example:
        >>> import lstmx, lstmx.plot, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> flow = lstmx.gradient_flow(lstmx.record(cell, params, numpy.ones((50, 3), "float32")))
        >>> figure = lstmx.plot.gradient_flow(flow)  # figure.savefig("flow.png") writes it
        >>> [ax.get_title("left") for ax in figure.axes][0]
        'norms of the cotangents'
    """
    one = parts.one_sequence(flow, _FIELDS, _index("flow", flow, sequence))
    counts = parts.counted_steps(one.log_norm)
    more = [x for x in (one.log_parameter_profile, one.parameter_alignment) if x is not None]
    figure = canvas.figure_for(figure, (8, 4 + 1.5 * len(more)))

    panels = figure.subplots(
        1 + len(more), 1, sharex=True, height_ratios=(2, 1, 1)[: 1 + len(more)], squeeze=False
    )
    panels = list(panels[:, 0])
    _norms(panels[0], one, counts)
    if one.log_parameter_profile is not None:
        kernel = "U" if hasattr(flow.parameters, "recurrent_kernel") else "W"
        _profile(panels[1], one.log_parameter_profile, kernel, counts)
    if one.parameter_alignment is not None:
        _alignment(panels[-1], one.parameter_alignment, counts)
    for ax in panels:
        ax.label_outer()
    figure.align_ylabels(panels)

    where = f", sequence {sequence}" if flow.log_norm.ndim > 1 else ""
    steps = steps_in_words(len(one.log_norm), counts)
    figure.suptitle(f"gradient over {steps}{where}: {one.verdict}\n{_decay(one)}")
    return figure


def gates_ledger(flow: GradientFlow, sequence: int | tuple[int, ...] = 0, *, ax: Axes | None = None) -> Axes:
    """Draw the share of each way back through a step, stacked over time.

    "straight" is the way along the retention gate, the others go through a gate's pre-activation. The shares of
    a step add up to 1; where some are negative, because they oppose the whole, these are stacked downwards from 0
    and the others reach above 1. More than 1000 steps are drawn as block means. Steps without any gradient, whose
    shares are not defined, leave a gap of their block and are counted in the title; steps that do not count are
    left blank.

    Args:
        flow: from `lstmx.gradient_flow` with outputs="all", in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a flow without
            batch axes.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: flow is no GradientFlow, sequence no integers, or ax no axes.
        ValueError: the flow has no gates, as that of a step function; or not one index per batch axis.
        IndexError: sequence is outside the batch.
    """
    index = _index("flow", flow, sequence)
    if flow.gates is None:
        raise ValueError(
            'flow.gates is None; expected a flow made with outputs="all", not "norms", of a cell with gates (a '
            "step function has no ways back to tell apart; lstmx.plot.gradient_flow draws its norms)"
        )
    ax = canvas.axes_for(ax, (8, 4))

    # JAX sorts the keys of a dict: an order of its own keeps the colours the same in both libraries.
    names = sorted(flow.gates, key=lambda name: (name != "straight", name))
    shares = np.stack([np.asarray(flow.gates[name].share[(..., *index)], np.float64) for name in names], axis=1)
    counts = parts.counted_steps(np.asarray(flow.log_norm[(..., *index)]))
    parts.stacked(ax, shares, [name.replace("_", " ") for name in names], canvas.COLOURS[: len(names)], counts)
    length = len(shares)
    canvas.index_axis(ax.xaxis, "step", length, canvas.block_size(length), "means")
    ax.set_ylabel("share of the cotangent")
    undefined = np.isnan(shares).any(axis=1)
    undefined = np.count_nonzero(undefined if counts is None else undefined & counts)
    steps = f" ({undefined:,} of {steps_in_words(length, None)} without gradient)" if undefined else ""
    canvas.title(ax, f"share of each way back{steps}")
    return ax


def compare_flows(
    flows: Mapping[str, GradientFlow], sequence: int | tuple[int, ...] = 0, *, ax: Axes | None = None
) -> Axes:
    """Draw how far back the gradients of several networks reach.

    Each line is the log norm of the joint-state cotangent against the steps back from the flow's own end, so
    flows of different lengths start together at 0; steps that do not count are left out. The legend gives each
    flow's half-life, or why it has none. More than 1000 steps are drawn as block means within the blocks' range;
    exact zeros leave gaps and are counted in the legend.

    Args:
        flows: flows from `lstmx.gradient_flow` by the name to show, in NumPy or JAX.
        sequence: which sequence of each batch: an integer, or a tuple of one per batch axis; 0 for flows without
            batch axes.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: flows is no mapping to GradientFlow, sequence no integers, or ax no axes.
        ValueError: flows is empty, or not one index per batch axis.
        IndexError: sequence is outside a batch.
    """
    if not isinstance(flows, Mapping):
        raise TypeError(f"flows is a {type(flows).__name__}; expected a mapping from names to GradientFlow")
    if not flows:
        raise ValueError("flows is empty; expected at least one GradientFlow by its name")
    indices = {name: _index(f"flows[{name!r}]", flow, sequence) for name, flow in flows.items()}
    ax = canvas.axes_for(ax, (7, 4.5))

    longest = 0
    for (name, flow), (colour, _) in zip(flows.items(), canvas.styles(), strict=False):
        one = parts.one_sequence(flow, ("log_norm", "log_direct"), indices[name])
        norms = one.log_norm[~np.isnan(one.log_norm)]
        longest = max(longest, len(norms))
        label = parts.counted(f"{name}: {_half_life(one)}", norms)
        canvas.lines(ax, parts.blank(norms[::-1, None]), [label], [colour])
    size = canvas.block_size(longest)
    canvas.index_axis(ax.xaxis, "steps back from the last", longest)
    if size > 1:  # a shorter flow has smaller blocks
        ax.set_xlabel(f"steps back from the last (mean and range of up to {size:,})")
    ax.set_ylabel("ln of L2 norm")
    canvas.title(ax, "norm of the joint-state cotangent")
    ax.legend(fontsize="small")
    return ax


def _index(name: str, flow: Any, sequence: Any) -> tuple[int, ...]:
    if isinstance(flow, LayeredFlow):
        one = f"{name}[{flow.names[0]!r}]"
        raise TypeError(
            f"{name} is a LayeredFlow; expected the GradientFlow of one layer, such as {one}. lstmx.plot.depth "
            "draws all layers"
        )
    if not isinstance(flow, GradientFlow):
        raise TypeError(
            f"{name} is a {type(flow).__name__}; expected a GradientFlow, as from lstmx.gradient_flow(history)"
        )
    return canvas.sequence_index(sequence, flow.log_norm.shape[1:], name)


def _decay(one: GradientFlow) -> str:
    rate, error = one.decay_rate
    if np.isnan(rate):
        losses = int((one.log_direct > -np.inf).sum())
        if losses > 1:
            return f"losses enter at {losses:,} steps: norms of different ages, and no decay of one gradient"
        return "too few steps for a decay rate" if losses else "no loss enters"
    uncertainty = "" if np.isnan(error) else f" ± {error:.2g}"
    near, far, lag = (parts.number(x) for x in one.rates)
    two = "" if np.isnan(one.rates.lag) else f"\nnot one exponential: {near} up to {lag} steps back, {far} beyond"
    return f"{_half_life(one)}, decay going back {parts.number(rate)}{uncertainty} nats per step{two}"


def _half_life(one: GradientFlow) -> str:
    if np.isnan(one.half_life):
        losses = int((one.log_direct > -np.inf).sum())
        return f"no half-life, losses at {losses:,} steps" if losses > 1 else "half-life unknown"
    return "half-life infinite" if np.isinf(one.half_life) else f"half-life {parts.number(one.half_life)} steps"


# ----------------------------------------------------------------------------------------------- panels


def _norms(ax: Axes, one: GradientFlow, counts: np.ndarray | None) -> None:
    # Where h is the only state, its cotangent is that of the joint state.
    alone = len(list(leaves(one.initial))) < 2
    names = [name for name in _NORMS if not (alone and name == "log_norm_hidden")]
    drawn = {name: values for name in names if (values := getattr(one, name)) is not None}
    labels = [parts.counted(_NORMS[name], values) for name, values in drawn.items()]
    colours = [colour for name, colour in zip(_NORMS, canvas.COLOURS, strict=False) if name in drawn]
    canvas.lines(ax, parts.blank(np.stack(list(drawn.values()), axis=1)), labels, colours, counts)
    ax.lines[0].set(linewidth=3, alpha=0.5)  # stays visible under those of h and c
    ax.set_ylabel("ln of L2 norm")
    single = parts.counted("norm of the cotangent", one.log_norm)  # without a legend the title has the zeros
    canvas.title(ax, "norms of the cotangents" if len(drawn) > 1 else single)


def _profile(ax: Axes, profile: np.ndarray, kernel: str, counts: np.ndarray | None) -> None:
    canvas.lines(ax, parts.blank(profile[:, None]), ["profile"], canvas.COLOURS[4:], counts)
    ax.set_ylabel("ln of L2 norm")
    canvas.title(ax, parts.counted(f"part of each step in ∂L/∂{kernel}", profile))


def _alignment(ax: Axes, alignment: np.ndarray, counts: np.ndarray | None) -> None:
    canvas.lines(ax, alignment[:, None], ["alignment"], canvas.COLOURS[5:], counts)
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set(ylabel="cosine", ylim=(-1.05, 1.05))
    canvas.title(ax, "alignment of that part with the whole")

"""Where gradients go over time: their norms, the share of each gate, and several networks beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lstmx.gradients import GradientFlow, LayeredFlow
from lstmx.plot import canvas, parts
from lstmx.plot.passes import steps_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_NORMS = {"log_norm": "joint state", "log_highway": "retention gates alone"}  # as the legend calls them
_PARTS = {"log_norm_hidden": "h", "log_norm_cell": "c"}
_FIELDS = (*_NORMS, *_PARTS, "log_direct", "log_parameter_profile", "parameter_alignment")


def gradient_flow(
    flow: GradientFlow,
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw how the gradient of a loss fades or grows on its way back through time.

    The panels, over the same steps: the norms of the cotangent of the joint state and of what the retention gates
    alone would carry (a SimpleRNN has no retention gate), as log₁₀; where the state is of h and c, the norms of
    their cotangents relative to that of the joint state; where the flow has them, each step's part in ∂L/∂U, or
    without U in ∂L/∂W, and the cosine of that part with the whole. Of a step function there is the joint state
    alone. The title gives the flow's verdict, half-life and decay rate ± standard error in nats, with the two
    rates of a decay that is not one exponential; or why there are none.

    At most 1000 points are drawn along an axis; beyond, block means within the blocks' range. An exact zero, −inf
    in log scale, leaves a gap of its block, and the legend or title says how many there are. Steps that do not
    count are left blank.

    Args:
        flow: from `lstmx.gradient_flow`, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a flow without
            batch axes. "all" draws of each step the median over the sequences, and shades what lies between the
            10th and the 90th percentile.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: flow is no GradientFlow, sequence no integers, figure no figure, title no str, or labels no
            sequence of them.
        ValueError: not one index per batch axis, not one label per step, or the figure already holds axes.
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
    tokens = canvas.tokens_for(labels, len(one.log_norm), "flow")
    both = one.log_norm_cell is not None and one.log_norm_hidden is not None
    more = [x for x in (one.log_parameter_profile, one.parameter_alignment) if x is not None]
    heights = (2, 1, 1, 1)[: 1 + both + len(more)]
    figure = canvas.figure_for(figure, (8, 4 + 1.5 * (len(heights) - 1)))

    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    _norms(panels[0], one, tokens)
    if both:
        _parts(panels[1], one, tokens)
    if one.log_parameter_profile is not None:
        kernel = "U" if hasattr(flow.parameters, "recurrent_kernel") else "W"
        ax, name = panels[1 + both], f"part of each step in ∂L/∂{kernel}"
        parts.log_lines(ax, {name: one.log_parameter_profile}, canvas.COLOURS[4:], tokens)
        ax.set_title(parts.counted(name, one.log_parameter_profile), loc="left")
    if one.parameter_alignment is not None:
        _alignment(panels[-1], one.parameter_alignment, tokens)
    for ax in panels:
        ax.label_outer()
    figure.align_ylabels(panels)

    number = one.log_norm[0].size
    where = "" if flow.log_norm.ndim == 1 else f", sequence {sequence}" if number == 1 else f", {number} sequences"
    steps = steps_in_words(len(one.log_norm), parts.counted_steps(one.log_norm))
    says = f"{one.verdict}\n{_decay(one)}" if sequence != "all" else f"median, 10 to 90 %\n{_decays(flow)}"
    return canvas.finish(figure, f"gradient over {steps}{where}: {says}", title)


def gates_ledger(
    flow: GradientFlow,
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
) -> Axes:
    """Draw the share of each way back through a step, stacked over time.

    "straight" is the way along the retention gate, the others go through a gate's pre-activation. The shares of
    a step add up to 1; where some are negative, because they oppose the whole, these are stacked downwards from 0
    and the others reach above 1. More than 1000 steps are drawn as block means. Steps without any gradient, whose
    shares are not defined, leave a gap of their block and are counted in the title; steps that do not count are
    left blank.

    Args:
        flow: from `lstmx.gradient_flow` with outputs="all", in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a flow without
            batch axes. "all" draws of each step the mean over the sequences with a gradient there.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: flow is no GradientFlow, sequence no integers, ax no axes, title no str, or labels no sequence
            of them.
        ValueError: the flow has no gates, as that of a step function; not one index per batch axis; or not one
            label per step.
        IndexError: sequence is outside the batch.
    """
    index = _index("flow", flow, sequence)
    if flow.gates is None:
        raise ValueError(
            'flow.gates is None; expected a flow made with outputs="all", not "norms", of a cell with gates (a '
            "step function has no ways back to tell apart; lstmx.plot.gradient_flow draws its norms)"
        )
    tokens = canvas.tokens_for(labels, len(flow.log_norm), "flow")
    ax = canvas.axes_for(ax, (8, 4))

    # JAX sorts the keys of a dict: an order of its own keeps the colours the same in both libraries.
    names = sorted(flow.gates, key=lambda name: (name != "straight", name))
    each = [np.asarray(flow.gates[name].share[(..., *index)], np.float64) for name in names]
    shares = np.stack([parts.mean_over_sequences(share) for share in each], axis=1)
    counts = parts.counted_steps(np.asarray(flow.log_norm[(..., *index)]))
    parts.stacked(ax, shares, [name.replace("_", " ") for name in names], canvas.COLOURS[: len(names)], counts)
    length = len(shares)
    canvas.index_axis(ax.xaxis, "step", length, canvas.block_size(length), "means", tokens)
    ax.set_ylabel("share of the cotangent")
    undefined = np.isnan(shares).any(axis=1)
    undefined = np.count_nonzero(undefined if counts is None else undefined & counts)
    steps = f" ({undefined:,} of {steps_in_words(length, None)} without gradient)" if undefined else ""
    over = f", mean of {math.prod(flow.log_norm.shape[1:])} sequences" if sequence == "all" else ""
    return canvas.finish(ax, f"share of each way back{over}{steps}", title)


def compare_flows(
    flows: Mapping[str, GradientFlow | Sequence[GradientFlow]],
    sequence: int | tuple[int, ...] | Literal["all"] = 0,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how far back the gradients of several networks reach.

    Each line is the norm of the joint-state cotangent, as log₁₀, against the steps back from the flow's own end,
    so flows of different lengths start together at 0; steps that do not count are left out. The legend gives each
    flow's half-life, or why it has none. More than 1000 steps are drawn as block means within the blocks' range;
    exact zeros leave gaps and are counted in the legend.

    Of several flows of one name, such as those of several seeds, and of several sequences, the line is the median
    of those that reach as far back, in a band from the 10th to the 90th percentile.

    Args:
        flows: flows from `lstmx.gradient_flow`, or a sequence of several, by the name to show, in NumPy or JAX.
        sequence: which sequence of each batch: an integer, or a tuple of one per batch axis; 0 for flows without
            batch axes; "all" for every sequence.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: flows is no mapping to GradientFlow, sequence no integers, ax no axes, or title no str.
        ValueError: flows, or what has a name, is empty; or not one index per batch axis.
        IndexError: sequence is outside a batch.
    """
    if not isinstance(flows, Mapping):
        raise TypeError(f"flows is a {type(flows).__name__}; expected a mapping from names to GradientFlow")
    if not flows:
        raise ValueError("flows is empty; expected at least one GradientFlow by its name")
    picked = {name: _several(f"flows[{name!r}]", of_name, sequence) for name, of_name in flows.items()}
    ax = canvas.axes_for(ax, (7, 4.5))

    longest = 0
    for (name, several), (colour, _) in zip(picked.items(), canvas.styles(), strict=False):
        curves = [curve for one in several for curve in one.log_norm.reshape(len(one.log_norm), -1).T]
        curves = [curve[~np.isnan(curve)][::-1] for curve in curves]
        length = max(map(len, curves))
        longest = max(longest, length)
        if len(curves) == 1:
            label, norms = f"{name}: {_half_life(several[0])}", curves[0]
        else:
            halves = np.concatenate([np.ravel(one.half_life) for one in several])
            label = f"{name}, {len(curves)} curves: {_median_half_life(halves)}"
            norms = np.full((length, len(curves)), np.nan)
            for k, curve in enumerate(curves):
                norms[: len(curve), k] = curve
        parts.log_lines(ax, {label: norms}, [colour])
    size = canvas.block_size(longest)
    canvas.index_axis(ax.xaxis, "steps back from the last", longest)
    if size > 1:  # a shorter flow has smaller blocks
        ax.set_xlabel(f"steps back from the last (mean and range of up to {size:,})")
    ax.set_ylabel("log₁₀ norm")
    canvas.legend_above(ax)
    return canvas.finish(ax, "norm of the joint-state cotangent", title)


def _several(name: str, flows: Any, sequence: Any) -> list[Any]:
    """The sequences of the flows of one name."""
    several = list(flows) if isinstance(flows, (list, tuple)) else [flows]
    if not several:
        raise ValueError(f"{name} is empty; expected a GradientFlow, or several")
    names = [f"{name}[{k}]" for k in range(len(several))] if isinstance(flows, (list, tuple)) else [name]
    return [
        parts.one_sequence(flow, ("log_norm", "log_direct"), _index(named, flow, sequence))
        for named, flow in zip(names, several, strict=True)
    ]


def _index(name: str, flow: Any, sequence: Any) -> tuple[int, ...]:
    """The index of a sequence in the batch axes; () for "all", which leaves the axes as they are."""
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
    return canvas.sequence_index(sequence, flow.log_norm.shape[1:], name, every=True)


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


def _decays(flow: GradientFlow) -> str:
    """How many sequences have each verdict, and their half-life."""
    verdicts, numbers = np.unique(np.ravel(flow.verdict), return_counts=True)
    each = ", ".join(f"{number} {verdict}" for verdict, number in zip(verdicts, numbers, strict=True))
    return f"{each}; {_median_half_life(np.ravel(flow.half_life))}"


def _half_life(one: GradientFlow) -> str:
    if np.isnan(one.half_life):
        losses = int((one.log_direct > -np.inf).sum())
        return f"no half-life, losses at {losses:,} steps" if losses > 1 else "half-life unknown"
    return "half-life infinite" if np.isinf(one.half_life) else f"half-life {parts.number(one.half_life)} steps"


def _median_half_life(half_lives: np.ndarray) -> str:
    known = half_lives[~np.isnan(half_lives)]
    if not known.size:
        return "half-life unknown"
    median = np.median(known)
    return "median half-life infinite" if np.isinf(median) else f"median half-life {parts.number(median)} steps"


# ----------------------------------------------------------------------------------------------- panels


def _norms(ax: Axes, one: GradientFlow, tokens: list[str] | None) -> None:
    drawn = {name: values for name in _NORMS if (values := getattr(one, name)) is not None}
    colours = [colour for name, colour in zip(_NORMS, canvas.COLOURS[::3], strict=False) if name in drawn]
    parts.log_lines(ax, {_NORMS[name]: values for name, values in drawn.items()}, colours, tokens)
    single = parts.counted("norm of the cotangent", one.log_norm)  # without a legend the title has the zeros
    ax.set_title("norms of the cotangents" if len(drawn) > 1 else single, loc="left")


def _parts(ax: Axes, one: GradientFlow, tokens: list[str] | None) -> None:
    """The cotangents of h and c, which the joint state's would hide, as parts of it."""
    series = {}
    for name, label in _PARTS.items():
        values = getattr(one, name)
        finite = np.where(np.isneginf(one.log_norm), 0.0, one.log_norm)
        series[label] = np.where(np.isneginf(values), -np.inf, values - finite)
    parts.log_lines(ax, series, canvas.COLOURS[1:], tokens)
    ax.set_ylabel("log₁₀ ratio")
    ax.set_title("h and c, relative to the joint state", loc="left")


def _alignment(ax: Axes, alignment: np.ndarray, tokens: list[str] | None) -> None:
    middle, band = parts.over_sequences(alignment)
    edges = None if band is None else (band[0][:, None], band[1][:, None])
    counts = parts.counted_steps(middle)
    canvas.lines(ax, middle[:, None], ["alignment"], canvas.COLOURS[5:], counts, tokens, edges)
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set(ylabel="cosine", ylim=(-1.05, 1.05))
    ax.set_title("alignment of that part with the whole", loc="left")

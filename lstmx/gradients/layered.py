"""`gradient_flow` through layers: where the gradient goes in depth and in time."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, gathered, jit, map_tree, namespace, result
from lstmx.gradients.summary import DecaySummary, counted_first
from lstmx.gradients.walk import GradientFlow, flow_of
from lstmx.history import History, where_held
from lstmx.layers import BidirectionalHistory, LayeredHistory, flipped
from lstmx.scaling import Scaled, add, log_hypot, log_norm, normalised, scaled, unscaled


@result(static=("names", "forward"))
class LayeredFlow(DecaySummary):
    """Where the gradient of a loss goes through layers; `flow["layer 0"]` is the `GradientFlow` of one.

    Its rates, half-life, horizon and verdict are those of all layers together: of the root of the sum of squares
    of the layers' norms, from the step at which the user's loss enters the top. A lower layer receives a gradient
    from above at many steps, so that its own course over time is no decay. Where a layer reads backwards, time has
    no single direction: all are NaN, and the verdict is "undefined".

    Attributes:
        names: of the cells, bottom first.
        flows: the flow of each cell, in the order in which it reads: for a backward direction step 0 is the last.
        log_norm: of the cotangent of each cell's joint state, in the order of time, natural logs,
            [layers, T, *batch]; −inf for an exact zero, NaN past a sequence's end.
        log_direct: of the direct part of ∂L/∂(output), what the loss hands to the top, in the same form,
            [T, *batch].
        log_norm_hidden: of ∂L/∂h_t of each cell, in the same form.
        parameters: gradients of all parameters, as the tree that the layers' parameters are.
        inputs: ∂L/∂x_t, [T, *batch, D]: 0 or infinite where it leaves the range of a float.
        initial: ∂L/∂(initial states), as a tree of states.
        forward: whether all layers read from the first step on.
    """

    names: tuple[str, ...]
    flows: tuple[GradientFlow, ...]
    log_norm: Array
    log_direct: Array
    log_norm_hidden: Array
    parameters: Any
    inputs: Array
    initial: Any
    forward: bool

    def __getitem__(self, name: str) -> GradientFlow:
        if name not in self.names:
            raise KeyError(f"no layer {name!r}; this flow has {', '.join(self.names)}")
        return self.flows[self.names.index(name)]

    def __repr__(self) -> str:
        _, length, *batch = self.log_norm.shape
        of = f", batch {tuple(batch)}" if batch else ""
        return f"LayeredFlow({', '.join(self.names)}: {length} steps{of}{self._verdicts})"

    @property
    def _norms(self) -> tuple[np.ndarray, np.ndarray]:
        log_direct = fetched(self.log_direct, np.float64)
        joint = fetched(log_hypot(fetched(self.log_norm, np.float64), axis=0))
        log_direct = log_direct if self.forward else np.full_like(log_direct, np.nan)
        held = np.isnan(joint)
        return counted_first(joint, held), counted_first(log_direct, held)

    def __str__(self) -> str:
        """A line for each layer, top first, with how its norm fades in its own time; and what all come to."""
        width = max(map(len, self.names))
        lines = [f"{'layer':<{width}}  ln norm, greatest   half-life, steps   verdict"]
        for name, flow in reversed(list(zip(self.names, self.flows, strict=True))):
            norms = fetched(flow.log_norm, np.float64)
            greatest = np.nanmax(norms, initial=-np.inf)
            half_life, verdict = flow.half_life, flow.verdict
            known = half_life[~np.isnan(half_life)]
            fades = f"{np.median(known):.4g}" if len(known) else "–"
            words, counts = np.unique(verdict, return_counts=True)
            lines.append(f"{name:<{width}}  {greatest:<17.4g}   {fades:<16}   {words[counts.argmax()]}")
        if any((flow.verdict == "undefined").any() for flow in self.flows):
            lines.append(
                "(undefined: what enters a layer at many steps, from the loss or from above, mixes gradients of "
                "different ages; what enters at its first step alone has nothing before it)"
            )
        if self.forward:
            return "\n".join([*lines, "all layers together:", *self._sentences()])
        apart = "all layers together: undefined, for some read backwards and time has no single direction"
        return "\n".join([*lines, apart])


def layered_flow(history: LayeredHistory, direct: Array | None, outputs: str, progress: bool) -> LayeredFlow:
    """The flow of a loss through layers.

    Args:
        history: the recorded pass.
        direct: the direct part of ∂L/∂(output), [T, *batch, H]; None for the sum of each sequence's last output.
        outputs: as for `gradient_flow`.
        progress: as for `gradient_flow`.
    """
    if direct is None:
        direct = last_outputs(history)
    in_range = _in_scale(direct)
    below, parameters, initial, handed = _through(history, in_range, outputs, progress)
    turns = [turn for _, turn in history.cells().values()]
    xp = namespace(direct)

    def in_time(field: str) -> Array:
        return xp.stack([turn(getattr(flow, field)) for flow, turn in zip(below, turns, strict=True)])

    flow = LayeredFlow(
        names=tuple(history.cells()),
        flows=tuple(below),
        log_norm=in_time("log_norm"),
        log_direct=history.first.where_counted(log_norm(in_range), np.nan),
        log_norm_hidden=in_time("log_norm_hidden"),
        parameters=parameters,
        inputs=unscaled(handed),
        initial=initial,
        forward=_reads_forward(history),
    )
    return gathered(flow, ("flows", "inputs", "initial"))


def _reads_forward(history: Any) -> bool:
    """Whether no cell of a history reads backwards."""
    if isinstance(history, BidirectionalHistory):
        return False
    return isinstance(history, History) or all(_reads_forward(part) for part in history.parts.values())


def last_outputs(history: Any) -> Array:
    """1 for the last output of each sequence, else 0, [T, *batch, H]."""
    outputs, counts = history.outputs, history.counts
    xp = namespace(outputs)
    steps = xp.reshape(xp.arange(len(history)), (-1, *(1,) * len(history.batch)))
    last = len(history) - 1 if counts is None else xp.max(xp.where(counts, steps, -1), axis=0)
    return where_held(steps != last, xp.ones_like(outputs))


@jit()
def _in_scale(direct: Array) -> Scaled:
    return scaled(namespace(direct).asarray(direct))


def _through(
    history: Any, direct: Scaled, outputs: str, progress: bool
) -> tuple[list[GradientFlow], Any, Any, Scaled]:
    """Flows of the cells, bottom first; gradients of parameters and of initial states; and of the inputs."""
    if isinstance(history, History):
        # A part of a cotangent that is small, or nothing, beside the rest gets a scale of its own.
        direct = normalised(direct._replace(value=history.where_counted(direct.value)))
        flow, handed = flow_of(history, direct, outputs, progress, handed=True)
        return [flow], flow.parameters, flow.initial, handed  # type: ignore  # asked for
    if isinstance(history, BidirectionalHistory):
        return _both_ways(history, direct, outputs, progress)
    flows: list[GradientFlow] = []
    parameters, initial = [], []
    for _, layer, mask in history.downward:
        found, of_parameters, of_initial, direct = _through(layer, direct, outputs, progress)
        direct = direct if mask is None else direct._replace(value=direct.value * mask)
        flows, parameters, initial = found + flows, [of_parameters, *parameters], [of_initial, *initial]
    return flows, history.cell.tree(parameters), history.cell.tree(initial), direct


def _both_ways(
    history: BidirectionalHistory, direct: Scaled, outputs: str, progress: bool
) -> tuple[list[GradientFlow], Any, Any, Scaled]:
    forward, backward = (direct._replace(value=part) for part in history.cell.parted(direct.value))
    turned = map_tree(flipped, backward)
    ahead = _through(history.forward, forward, outputs, progress)
    back = _through(history.backward, turned, outputs, progress)
    handed = add(ahead[3], map_tree(flipped, back[3]))
    parameters, initial = (history.cell.tree([ahead[k], back[k]]) for k in (1, 2))
    return [*ahead[0], *back[0]], parameters, initial, handed

"""The one walk back of attributions: by derivatives, by relevance, or along the state alone."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from lstmx.arrays import Array, jit, namespace, scan, varying_as
from lstmx.attribution.rules import Rule, rule_of
from lstmx.history import History
from lstmx.layers import BidirectionalHistory, flipped
from lstmx.linear import ControlledSteps, steps_at, walk_back


class Walked(NamedTuple):
    """What a walk back through a pass leaves.

    The multiplier of a number is what it is multiplied by to give its contribution: by derivatives the gradient.
    """

    inputs: Array
    """Multipliers of x_t, [T, *batch, D]."""
    initial: Any
    """Multipliers of the initial state, like it."""
    biases: Array
    """Contributions of the biases at each step, [T, *batch]."""
    taken: Array | None
    """Contributions of what each step adds to the state, [T, *batch, H]; None by derivatives."""
    stabiliser: Array
    """What a rule's stabiliser has taken at each step, [T, *batch]."""


def walked(history: Any, direct: Array, way: str, epsilon: float = 0.0) -> Walked:
    """Walk back through a pass, of a cell or of layers.

    Args:
        history: the recorded pass.
        direct: the multipliers of the outputs, [T, *batch, H].
        way: "gradient" for derivatives, "relevance" for the rule of `rules`, "state" for it along the state alone.
        epsilon: the rule's stabiliser.
    """
    if isinstance(history, History):
        return _through_cell(history, direct, epsilon, way=way)
    if isinstance(history, BidirectionalHistory):
        ahead, back = history.cell.parted(direct)
        forward = walked(history.forward, ahead, way, epsilon)
        backward = walked(history.backward, flipped(back), way, epsilon)
        return Walked(
            forward.inputs + flipped(backward.inputs),
            history.cell.tree([forward.initial, backward.initial]),
            forward.biases + flipped(backward.biases),
            None,
            forward.stabiliser + flipped(backward.stabiliser),
        )
    made: list[Walked] = []
    for _, layer, mask in history.downward:
        found = walked(layer, direct, way, epsilon)
        direct = found.inputs if mask is None else found.inputs * mask
        made.insert(0, found)
    return Walked(
        direct,
        history.cell.tree([found.initial for found in made]),
        functools.reduce(lambda x, y: x + y, (found.biases for found in made)),
        None,
        functools.reduce(lambda x, y: x + y, (found.stabiliser for found in made)),
    )


@jit(static=("way",))
def _through_cell(history: History, direct: Array, epsilon: float, way: str) -> Walked:
    xp, cell = namespace(history.inputs, direct), history.cell
    core, params = cell.core, history.params
    direct = history.where_counted(xp.asarray(direct))
    rule: Rule | None = None if way == "gradient" else rule_of(core)
    constant = _biases(core, params, history.inputs)

    def factors(core: Any, params: Any, before: Any, stored: Any, after: Any) -> Any:
        assert rule is not None
        return rule.slopes(core, params, before, stored, after, epsilon)

    def chunk(carry: Any, part: History, direct: Array) -> tuple[Any, dict[str, Array]]:
        stored: Any = part.kept_rows if core.closed_form else None
        steps = steps_at(
            cell,
            params,
            part.before,
            part.inputs,
            stored,
            part.states,
            part.controls,
            None if rule is None else factors,
        )

        def step(cotangent: Array, at: Any) -> tuple[Array, Array]:
            rows, direct = at
            one = steps.at(rows)
            arriving = cotangent + one.inject(direct)
            return (one.along_state(arriving) if way == "state" else one.pull(arriving)[0]), arriving

        carry, arriving = scan(step, carry, (steps.rows, direct), reverse=True)
        drive = steps.drive_vjp(arriving)
        rows = {"inputs": steps.input_vjp(drive)}
        if constant is not None:
            rows["biases"] = xp.sum(drive[..., : constant.shape[0]] * constant, axis=-1)
        if rule is not None:
            inner = steps.inner if isinstance(steps, ControlledSteps) else steps
            total = inner.totals(steps.onward(arriving))[rule.field]
            rows["taken"] = total * rule.taken(core, inner.before, stored, inner.after)
            taken = rule.stabilised(core, total, drive, stored, inner.after, epsilon)
            rows["stabiliser"] = part.where_counted(taken)
        return carry, rows

    start = varying_as(history.inputs, xp.zeros_like(cell.pack(history.final)))
    before, rows = walk_back(history, chunk, start, direct)
    nothing = xp.zeros_like(history.inputs[..., 0])
    return Walked(
        rows["inputs"],
        cell.unpack(before),
        rows.get("biases", nothing),
        rows.get("taken"),
        rows.get("stabiliser", nothing),
    )


def _biases(core: Any, params: Any, inputs: Array) -> Array | None:
    """What the drive of an input of zeros is: the biases, block by block; None for a step function."""
    if not core.closed_form:
        return None
    xp = namespace(inputs)
    found = core.drive(params, xp.zeros(inputs.shape[-1], dtype=inputs.dtype))
    shift = getattr(params, "cell_shift", None)
    if shift is None:
        return found
    between = core.preactivation_size - (core.projection or 0) - core.hidden_size - found.shape[0]
    return xp.concat([found, xp.zeros(between, dtype=inputs.dtype), shift])

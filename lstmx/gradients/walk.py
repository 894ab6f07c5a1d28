"""The flow of a gradient through one cell's pass: one walk back, and what each of its steps leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstmx.adjoint import alone, by_segments, pull_by, reverse_chunks, walk_back
from lstmx.arrays import Array, exp, jit, map_tree, namespace, result
from lstmx.gradients.summary import FlowSummary
from lstmx.history import History, StoredHistory
from lstmx.scaling import Scaled, log_hypot, log_norm, pack, scaled, times_power, unpack, unscaled


@result
class GateShare:
    """What one way back carries at each step of the joint-state cotangent.

    Attributes:
        log_norm: natural log of the L2 norm of this way's part of the cotangent of the state before the step,
            [T, *batch].
        share: its projection on the whole, ⟨part, whole⟩ / ‖whole‖², [T, *batch]: the shares of all ways add
            up to 1. Negative where the part opposes the whole; NaN where the whole is exactly zero.
    """

    log_norm: Array
    share: Array


@result
class GradientFlow(FlowSummary):
    """Where the gradient of a loss goes, step by step. L2 norms in natural logs; −inf for an exact zero.

    Past the end of a sequence of a padded batch, norms are NaN.

    Index t of [T, ...] is the state after step t. All cotangents are total: they include what flows back from
    later steps. Gradients through these numbers themselves are not promised.

    Attributes:
        log_norm: of the cotangent of the joint state, whose fields are independent coordinates: for an LSTM
            h_t counts with all its ways and c_t without the one through h_t, [T, *batch].
        log_direct: of the direct part of ∂L/∂h_t, what the loss, or the layer above, hands to this output,
            [T, *batch].
        log_norm_hidden: of ∂L/∂h_t, [T, *batch].
        log_norm_cell: of ∂L/∂c_t, the way through h_t included, [T, *batch]; None without a cell state.
        log_highway: of what reaches c_t (h_t in a GRU) along the retention gates alone, [T, *batch]; None for
            a cell without such a gate.
        log_parameter_profile: of the part of ∂L/∂U that step t contributes, ln(‖δa_t‖ ‖h_{t-1}‖), [T, *batch]; in
            a cell without U, such as a MinLSTM, of ∂L/∂W, ln(‖δa_t‖ ‖x_t‖), and so in the next.
        parameter_alignment: cosine between that part and the whole ∂L/∂U of all steps and sequences,
            [T, *batch]; NaN where the part is zero or the whole beyond the float range; None with
            outputs="norms".
        parameters: gradients of the parameters, summed over time and batch.
        hidden: ∂L/∂h_t, [T, *batch, H]; None with outputs="norms".
        cell: ∂L/∂c_t, [T, *batch, H]; None without a cell state or with outputs="norms".
        inputs: ∂L/∂x_t, [T, *batch, D]; None with outputs="norms".
        initial: ∂L/∂(initial state), fields [*batch, H].
        gates: the ways back through each gate's pre-activation, and "straight" along the retention gate, each
            a `GateShare` of the cotangent handed from step t to the state before it; None with outputs="norms".
    """

    log_norm: Array
    log_direct: Array
    log_norm_hidden: Array
    log_norm_cell: Array | None
    log_highway: Array | None
    log_parameter_profile: Array
    parameter_alignment: Array | None
    parameters: Any
    hidden: Array | None
    cell: Array | None
    inputs: Array | None
    initial: Any
    gates: dict[str, GateShare] | None

    @property
    def parameter_profile(self) -> Array:
        """‖∂L/∂U restricted to step t‖, [T, *batch]: 0 or infinity where it leaves the float range."""
        return exp(self.log_parameter_profile)


def flow_of(
    history: History | StoredHistory,
    direct: Array | Scaled | None,
    outputs: str,
    progress: bool,
    handed: bool = False,
) -> tuple[GradientFlow, Scaled | None]:
    """The flow of one cell's pass, and with `handed` what it hands to its inputs, in scale.

    Args:
        history: the recorded pass.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H], as numbers or in scale; None for the sum of the
            last output.
        outputs: as for `gradient_flow`.
        progress: as for `gradient_flow`.
        handed: give ∂L/∂x_t, [T, *batch, D], as numbers beyond the range of a float.
    """
    cell, past = history.cell, math.nan  # past a sequence's end there is no step to speak of
    carry = _started(cell, history.params, history[:1].inputs[0], last=direct is None)

    def segment(carry: Any, part: History, injected: Any) -> tuple[Any, dict[str, Any]]:
        if injected is not None and not isinstance(injected, Scaled):
            injected = in_scale(part.within(injected))
        carry, rows = _segment(cell, *part.data, injected, carry, outputs=outputs, handed=handed)
        norms = {
            name: part.within(rows[name], past)
            for name in ("joint", "direct", "profile", "highway")
            if name in rows
        }
        fields = {name: part.within(row, past) for name, row in rows["fields"].items()}
        own = {"inputs": part.own_features(rows["inputs"])} if "inputs" in rows else {}
        return carry, {**rows, **norms, **own, "fields": fields}

    ((final, _), gradient), rows = by_segments(history, segment, carry, direct, progress)

    everything = outputs == "all"
    flow = GradientFlow(
        log_norm=rows["joint"],
        log_direct=rows["direct"] if "direct" in rows else _of_the_last(rows["joint"], cell.output_size),
        log_norm_hidden=rows["fields"]["hidden"],
        log_norm_cell=rows["fields"].get("cell"),
        log_highway=rows.get("highway"),
        log_parameter_profile=rows["profile"],
        parameter_alignment=_alignment(rows["pairs"], gradient) if everything else None,
        parameters=gradient,
        hidden=rows["total"].hidden if everything else None,
        cell=getattr(rows["total"], "cell", None) if everything else None,
        inputs=rows.get("inputs"),
        initial=_unpacked(cell, final),
        gates={name: GateShare(*rows["gates"][name]) for name in _way_names(cell)} if everything else None,
    )
    return flow, rows.get("handed")


def _of_the_last(joint: Array, size: int) -> Array:
    """`log_direct` of the sum of each sequence's last output; `joint` is NaN past a sequence's end."""
    xp = namespace(joint)
    past = xp.isnan(joint)
    ends = xp.concat([past[1:], xp.ones_like(past[:1])])
    direct = xp.where(ends, xp.full_like(joint, 0.5 * math.log(size)), xp.full_like(joint, -xp.inf))
    return xp.where(past, joint, direct)


@jit()
def in_scale(direct: Array) -> Scaled:
    """∂L/∂h_t as `flow_of` takes it."""
    return scaled(namespace(direct).asarray(direct))


@jit(static=("cell", "last"))
def _started(cell: Any, params: Any, x: Array, last: bool) -> Any:
    """The carry after the last step: the cotangent, of the sum of the last output or zero, and no gradient yet."""
    xp = namespace(*params, x)
    zero = cell.initial_state(params, x.shape[:-1])
    start = pack(scaled(zero._replace(hidden=xp.ones_like(zero.hidden)) if last else zero))
    return (start, start), map_tree(xp.zeros_like, params)


@jit(static=("cell",))
def _unpacked(cell: Any, packed: Array) -> Any:
    return unscaled(unpack(packed, cell.state_type, cell.field_sizes))


@jit(static=("cell", "outputs", "handed"))
def _segment(
    cell: Any,
    params: Any,
    initial: Any,
    inputs: Array,
    states: Any,
    stored: Array | None,
    injected: Scaled | None,
    carry: Any,
    outputs: str,
    handed: bool,
) -> tuple[Any, dict[str, Any]]:
    """A stretch of the pass: the carry before it, and what each of its steps leaves."""
    xp = namespace(*params, inputs)
    history = History(cell, params, initial, inputs, states, stored)
    hand_back, transposed = pull_by(cell, params), cell.transposed(params)

    def chunk(carry: Any, part: History, injected: Any) -> tuple[Any, dict[str, Any]]:
        (cotangent, straight), gradient = carry
        before, slopes = part.before, part.slopes
        cotangent, arriving = walk_back(cell, hand_back, slopes, cotangent, injected)
        total = Scaled(cell.total_cotangent(transposed, slopes, arriving.value), arriving.exponent)
        d_a = cell.preactivation_cotangent(transposed, slopes, arriving.value)
        d_a_true = unscaled(Scaled(d_a, arriving.exponent))
        here = cell.parameter_cotangent(slopes, before, part.inputs, part.states, d_a_true)
        gradient = map_tree(xp.add, gradient, here)

        pairs = cell.pairs(slopes, before, part.inputs, d_a)
        rows = {
            "joint": log_norm(arriving),
            "fields": _norm_of_fields(total),
            "profile": _log_norm_of_pairs(pairs, arriving.exponent),
        }
        if injected is not None:
            rows["direct"] = log_norm(injected)
        if cell.retention_gate is not None:
            straight, rows["highway"] = _walk_highway(cell, transposed, slopes, straight, injected)
        if handed:
            own = part.own_features(cell.input_cotangent(params, d_a))
            rows["handed"] = scaled(own, arriving.exponent)
        if outputs == "all":
            rows["inputs"] = cell.input_cotangent(params, d_a_true)
            rows["total"] = unscaled(total)
            rows["pairs"] = pairs
            rows["gates"] = _ways_back(cell, transposed, slopes, arriving, d_a)
        return ((cotangent, straight), gradient), rows

    return reverse_chunks(history, alone(chunk), carry, injected)


def _walk_highway(
    cell: Any, transposed: Any, slopes: Any, packed: Array, injected: Scaled | None
) -> tuple[Array, Array]:
    """As `walk_back`, along the retention gates alone: the cotangent, and the log norm at each step."""

    def hand_back(slopes: Any, cotangent: Scaled) -> Scaled:
        return cotangent._replace(value=cell.straight(transposed, slopes, cotangent.value))

    before, arriving = walk_back(cell, hand_back, slopes, packed, injected)
    total = cell.total_cotangent(transposed, slopes, arriving.value)
    return before, log_norm(arriving._replace(value=getattr(total, "cell", total.hidden)))


def _norm_of_fields(total: Scaled) -> dict[str, Array]:
    return {name: log_norm(Scaled(value, total.exponent)) for name, value in total.value._asdict().items()}


def _way_names(cell: Any) -> tuple[str, ...]:
    """The gates in the order of their blocks, then the straight way; a compiled dict comes back sorted."""
    return (*cell.way_names, *(["straight"] if cell.retention_gate is not None else []))


def _ways_back(
    cell: Any, transposed: Any, slopes: Any, arriving: Scaled, d_a: Array
) -> dict[str, tuple[Array, Array]]:
    """Log norm and share of each way from the state after to the state before, for all steps of a chunk."""
    xp = namespace(d_a)
    ways = cell.ways(transposed, slopes, d_a)
    straight = cell.straight(transposed, slopes, arriving.value)
    if cell.retention_gate is not None:
        ways["straight"] = straight
    whole = map_tree(xp.zeros_like, straight)
    for way in ways.values():
        whole = map_tree(xp.add, whole, way)
    whole = scaled(whole)
    square = _inner(whole.value, whole.value)
    square = xp.where(square == 0, xp.nan, square)
    return {
        name: (
            log_norm(Scaled(way, arriving.exponent)),
            _inner(times_power(xp, way, -whole.exponent), whole.value) / square,
        )
        for name, way in ways.items()
    }


def _inner(left: Any, right: Any) -> Array:
    """⟨left, right⟩ over the last axis and all fields."""
    xp = namespace(*left)
    return sum(xp.sum(a * b, axis=-1) for a, b in zip(left, right, strict=True))


def _log_norm_of_pairs(pairs: Any, exponent: Array) -> Array:
    """Ln of the norm of the matrix whose blocks of columns are leftᵀ right of each pair, [T, *batch]."""
    logs = [log_norm(Scaled(left, 0 * exponent)) + log_norm(Scaled(right, exponent)) for left, right in pairs]
    return logs[0] if len(logs) == 1 else log_hypot(namespace(*logs).stack(logs), axis=0)


def _alignment(pairs: Any, gradient: Any) -> Array:
    """Cosine between a step's part of ∂L/∂U (or ∂L/∂W), which the pairs make up, and the whole, [T, *batch]."""
    kernel = gradient.recurrent_kernel if "recurrent_kernel" in gradient._fields else gradient.input_kernel
    xp = namespace(kernel)
    with np.errstate(invalid="ignore", over="ignore"):  # of a gradient beyond the float range: NaN, as documented
        whole = xp.reshape(_unit(xp, xp.reshape(kernel, (-1,))), kernel.shape)
    # Left and right have scales of their own, which a cosine does not see; the pairs of a step share them.
    left, right = (_unit(xp, xp.concat(list(side), axis=-1)) for side in zip(*pairs, strict=True))
    inner, square, row, column = 0.0, 0.0, 0, 0
    for a, b in pairs:
        x, y = left[..., row : row + a.shape[-1]], right[..., column : column + b.shape[-1]]
        inner = inner + xp.sum((x @ whole[:, column : column + b.shape[-1]]) * y, axis=-1)
        square = square + xp.sum(x**2, axis=-1) * xp.sum(y**2, axis=-1)
        row, column = row + a.shape[-1], column + b.shape[-1]
    return inner / xp.sqrt(square)


def _unit(xp: Any, x: Array) -> Array:
    """X over its L2 norm on the last axis; NaN for an exact zero."""
    size = xp.max(xp.abs(x), axis=-1, keepdims=True)
    x = x / xp.where(size == 0, xp.nan, size)
    return x / xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True))

"""The flow of a gradient through one cell's pass: one walk back, and what each of its steps leaves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Generic

import numpy as np

from lstmx.arrays import (
    Array,
    constant_tree,
    exp,
    fetched,
    gathered,
    is_jax,
    jax,
    jit,
    leaves,
    map_tree,
    namespace,
    result,
    varying_as,
)
from lstmx.cells.base import P, S
from lstmx.gradients.summary import FlowSummary
from lstmx.history import History, StoredHistory
from lstmx.linear import back_through, backward_by_segments, steps_of, walk_back, without_unit_batch
from lstmx.scaling import (
    NOTHING,
    Scaled,
    add,
    log_hypot,
    log_norm,
    normalised,
    pack,
    scaled,
    times_power,
    unpack,
    unscaled,
)
from lstmx.strips import Strip, shown


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

    def __repr__(self) -> str:
        return f"GateShare(log_norm and share {tuple(self.share.shape)})"


@result
class GradientFlow(FlowSummary, Generic[P, S]):
    """Where the gradient of a loss goes, step by step. L2 norms in natural logs; −inf for an exact zero.

    Past the end of a sequence of a padded batch, norms are NaN.

    Index t of [T, ...] is the state after step t. All cotangents are total: they include what flows back from
    later steps.

    Under JAX all of these can be differentiated with respect to parameters, inputs, initial state and loss. A log
    norm of −inf, of an exact zero, has no derivative, nor has a plain number that left the range of a float: 0
    stands for it. Those of the others stay right, at any length.

    Attributes:
        log_norm: of the cotangent of the joint state, whose fields are independent coordinates: for an LSTM
            h_t counts with all its ways and c_t without the one through h_t, [T, *batch].
        log_direct: of the direct part of ∂L/∂h_t, what the loss, or the layer above, hands to this output,
            [T, *batch].
        log_norm_hidden: of ∂L/∂h_t, [T, *batch]; None for a step function whose output is no part of its state.
        log_norm_cell: of ∂L/∂c_t, the way through h_t included, [T, *batch]; None without a cell state.
        log_highway: of what reaches c_t (h_t in a GRU) along the retention gates alone, [T, *batch]; None for
            a cell without such a gate.
        log_parameter_profile: of the part of ∂L/∂U that step t contributes, ln(‖δa_t‖ ‖h_{t-1}‖), [T, *batch]; in
            a cell without U, such as a MinLSTM, of ∂L/∂W, ln(‖δa_t‖ ‖x_t‖), and so in the next.
            None for a step function, which has no pre-activations.
        parameter_alignment: cosine between that part and the whole ∂L/∂U of all steps and sequences,
            [T, *batch]; NaN where the part is zero or the whole beyond the float range; None with
            outputs="norms" and for a step function.
        parameters: gradients of the parameters, summed over time and batch; 0 or infinite where one is beyond the
            range of a float.
        hidden: ∂L/∂h_t, [T, *batch, H]; None with outputs="norms".
        cell: ∂L/∂c_t, [T, *batch, H]; None without a cell state or with outputs="norms".
        inputs: ∂L/∂x_t, [T, *batch, D]; None with outputs="norms".
        initial: ∂L/∂(initial state), fields [*batch, H].
        gates: the ways back through each gate's pre-activation, and "straight" along the retention gate, each
            a `GateShare` of the cotangent handed from step t to the state before it; None with outputs="norms".
    """

    log_norm: Array
    log_direct: Array
    log_norm_hidden: Array | None
    log_norm_cell: Array | None
    log_highway: Array | None
    log_parameter_profile: Array | None
    parameter_alignment: Array | None
    parameters: P
    hidden: Array | None
    cell: Array | None
    inputs: Array | None
    initial: S
    gates: dict[str, GateShare] | None

    def __repr__(self) -> str:
        length, *batch = self.log_norm.shape
        of = f", batch {tuple(batch)}" if batch else ""
        return f"GradientFlow({length} steps{of}{self._verdicts})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the summary, and the norms' logarithms to base 10 over the steps."""
        norms = {"joint state": self.log_norm, "h": self.log_norm_hidden, "c": self.log_norm_cell}
        known = {name: fetched(x, np.float64) / math.log(10) for name, x in norms.items() if x is not None}
        strips = [Strip(f"log₁₀ of {name}", x.reshape(len(x), -1).mean(axis=1)) for name, x in known.items()]
        return shown(str(self), strips, "steps, each the mean over sequences,")

    @property
    def parameter_profile(self) -> Array | None:
        """‖∂L/∂U restricted to step t‖, [T, *batch]; 0 or infinity beyond the range of a float."""
        return None if self.log_parameter_profile is None else exp(self.log_parameter_profile)


def flow_of(
    history: Any,
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
    if isinstance(history, StoredHistory) or progress:
        carry = _started(history[:1], last=direct is None)

        def segment(carry: Any, part: History, injected: Any) -> tuple[Any, dict[str, Any]]:
            return _segment(part, injected, carry, outputs=outputs, handed=handed)

        carry, rows = backward_by_segments(history, segment, carry, direct, progress)
        initial, gradient = _ended(history.cell, carry)
    else:
        initial, gradient, rows = _whole(history, direct, outputs=outputs, handed=handed)

    norms, totals = rows["fields"], rows.get("total", {})
    ways = rows.get("gates", {})
    names = (*history.cell.core.way_names, "straight") if ways else ()  # a compiled dict comes back sorted
    flow = GradientFlow(
        log_norm=rows["joint"],
        log_direct=rows["direct"] if "direct" in rows else _of_the_last(rows["joint"], history.cell.output_size),
        log_norm_hidden=norms.get("hidden"),
        log_norm_cell=norms.get("cell"),
        log_highway=rows.get("highway"),
        log_parameter_profile=rows.get("profile"),
        parameter_alignment=_alignment(rows["pairs"], gradient) if "pairs" in rows else None,
        parameters=gradient,
        hidden=totals.get("hidden"),
        cell=totals.get("cell"),
        inputs=rows.get("inputs"),
        initial=initial,
        gates={name: GateShare(*ways[name]) for name in names if name in ways} if "gates" in rows else None,
    )
    return gathered(flow, ("hidden", "cell", "inputs", "initial")), rows.get("handed")


@jit(static=("size",))
def _of_the_last(joint: Array, size: int) -> Array:
    """`log_direct` of the sum of each sequence's last output; `joint` is NaN at a step that does not count."""
    xp = namespace(joint)
    steps = xp.reshape(xp.arange(len(joint)), (-1, *(1,) * (joint.ndim - 1)))
    last = steps == xp.max(xp.where(xp.isnan(joint), -1, steps), axis=0)
    direct = xp.where(last, xp.full_like(joint, 0.5 * math.log(size)), xp.full_like(joint, -xp.inf))
    return xp.where(xp.isnan(joint), joint, direct)


@jit(static=("last",))
def _started(history: History, last: bool) -> Any:
    """The carry after the last step: the cotangent, of the sum of the last output or zero, and no gradient yet."""
    xp, cell = namespace(history.inputs), history.cell
    final = history.final
    if last:
        ones = xp.ones((*history.batch, cell.output_size), dtype=history.inputs.dtype)
        ones = varying_as(history.inputs, ones)
        one_step = map_tree(lambda x: x[-1:], history.rows)
        start = steps_of(history.stretch(history.initial, one_step)).inject(ones[None])[0]
    else:
        start = xp.zeros_like(cell.pack(final))
    packed = pack(scaled(start))
    straight = packed if cell.retention_gate is not None else None
    near = map_tree(xp.zeros_like, history.params)
    far = Scaled(near, map_tree(lambda x: xp.full(x.shape, NOTHING, dtype=np.int32), near))
    return (packed, straight), varying_as(history.inputs, (near, far))


@jit(static=("cell",))
def _ended(cell: Any, carry: Any) -> tuple[Any, Any]:
    """∂L/∂(initial state), and the parameters' gradient, from the carry before the first step."""
    (packed, _), (near, far) = carry

    def whole(x: Array, value: Array, exponent: Array) -> Array:
        return x + unscaled(Scaled(value[..., None], exponent))[..., 0]

    return cell.unpack(unscaled(unpack(packed))), map_tree(whole, near, *far)


@jit(static=("outputs", "handed"))
def _whole(history: History, injected: Any, outputs: str, handed: bool) -> tuple[Any, Any, dict[str, Any]]:
    """A whole pass: ∂L/∂(initial state), the parameters' gradient, and what each step leaves."""
    carry = _started(history, last=injected is None)
    carry, rows = _segment(history, injected, carry, outputs=outputs, handed=handed)
    return *_ended(history.cell, carry), rows


@jit(static=("outputs", "handed"))
def _segment(
    history: History, injected: Any, carry: Any, outputs: str, handed: bool
) -> tuple[Any, dict[str, Any]]:
    """A stretch of the pass: the carry before it, and what each of its steps leaves."""
    cell = history.cell
    if injected is not None and not isinstance(injected, Scaled):
        injected = scaled(namespace(injected, history.inputs).asarray(history.where_counted(injected)))

    def chunk(carry: Any, part: History, injected: Any) -> tuple[Any, dict[str, Any]]:
        (cotangent, straight), gradient = carry
        cotangent, arriving, steps = scaled_back(part, lambda step, v: step.pull(v)[0], cotangent, injected)
        totals = steps.totals(arriving.value)
        drive = steps.drive_vjp(arriving.value)
        gradient = _with_steps(gradient, steps, Scaled(drive, arriving.exponent))
        past = math.nan  # at a step that does not count there is nothing to speak of

        def norm(value: Array) -> Array:
            return part.where_counted(log_norm(Scaled(value, arriving.exponent)), past)

        rows: dict[str, Any] = {"joint": norm(arriving.value), "fields": {k: norm(x) for k, x in totals.items()}}
        if injected is not None:
            rows["direct"] = part.where_counted(log_norm(injected), past)
        pairs = steps.outer_pairs(drive) if cell.closed_form else None
        if pairs is not None:
            rows["profile"] = part.where_counted(_log_norm_of_pairs(pairs, arriving.exponent), past)
        if straight is not None:
            straight, along, _ = scaled_back(part, lambda step, v: step.along_state(v), straight, injected)
            reached = steps.totals(along.value)
            highway = log_norm(along._replace(value=reached.get("cell", reached["hidden"])))
            rows["highway"] = part.where_counted(highway, past)
        if handed:
            rows["handed"] = scaled(steps.input_vjp(drive), arriving.exponent)
        if outputs == "all":
            rows["inputs"] = unscaled(Scaled(steps.input_vjp(drive), arriving.exponent))
            rows["total"] = {name: unscaled(Scaled(x, arriving.exponent)) for name, x in totals.items()}
            if pairs is not None:
                rows["pairs"] = pairs
                rows["gates"] = _ways_back(steps, arriving, drive)
        return ((cotangent, straight), gradient), rows

    return walk_back(history, without_unit_batch(chunk), carry, injected)


def _with_steps(gradient: tuple[Any, Scaled], steps: Any, drive: Scaled) -> tuple[Any, Scaled]:
    """The parameters' gradient with that of a chunk's steps added.

    It is kept in two parts: a plain sum over the steps whose cotangents are well within the range of a float, and
    one over all others, each number with an exponent of its own. A product of such a step with an h or x of 0 is
    then 0, and not NaN; and what is added to it keeps its digits.

    Args:
        gradient: both parts so far.
        steps: the maps of the chunk.
        drive: the cotangents of its drives, [T, *batch, P].
    """
    near, far = gradient
    xp = namespace(drive.value)
    reach = np.int32(64 if drive.value.dtype == np.dtype("float32") else 512)  # exponents that are taken together
    group = xp.maximum(drive.exponent // reach, 0)
    plain = unscaled(Scaled(xp.where((group > 0)[..., None], 0, drive.value), drive.exponent))
    near = map_tree(lambda x, y: x + y, near, steps.parameter_vjp(plain))
    steps, drive = constant_tree((steps, drive))  # what is out of range has no derivative

    def add_group(number: Any, far: Scaled) -> Scaled:
        here, shift = group == number, number * reach
        value = xp.where(here[..., None], drive.value, 0)
        part = steps.parameter_vjp(times_power(xp, value, xp.where(here, drive.exponent - shift, 0)))
        sums = [
            normalised(add(Scaled(x[..., None], exponent), scaled(y[..., None], shift)))
            for x, exponent, y in zip(leaves(far.value), leaves(far.exponent), leaves(part), strict=True)
        ]
        values, exponents = iter([x.value[..., 0] for x in sums]), iter([x.exponent for x in sums])
        return Scaled(map_tree(lambda _: next(values), near), map_tree(lambda _: next(exponents), near))

    if is_jax(xp):
        known = group > 0
        first = xp.min(xp.where(known, group, np.iinfo(np.int32).max))
        return near, jax.lax.fori_loop(first, xp.max(group) + 1, add_group, far)
    for number in np.unique(group[group > 0]):
        far = add_group(number, far)
    return near, far


def _ways_back(steps: Any, arriving: Scaled, drive: Array) -> dict[str, tuple[Array, Array]]:
    """Log norm and share of each way from the state after to the state before, for all steps of a chunk."""
    xp = namespace(drive)
    ways = steps.by_gate(drive)
    straight = steps.along_state(arriving.value)
    if steps.retention_gate is not None:
        ways["straight"] = straight
    whole = scaled(functools.reduce(xp.add, ways.values(), xp.zeros_like(straight)))
    square = xp.sum(whole.value**2, axis=-1)
    nothing = square == 0
    square = xp.where(
        nothing, xp.ones_like(square), square
    )  # or a derivative there would be NaN, asked for or not
    down = xp.where(nothing, xp.zeros_like(whole.exponent), -whole.exponent)

    def share(way: Array) -> Array:
        return xp.where(nothing, xp.nan, xp.sum(times_power(xp, way, down) * whole.value, axis=-1) / square)

    return {name: (log_norm(Scaled(way, arriving.exponent)), share(way)) for name, way in ways.items()}


def _log_norm_of_pairs(pairs: Any, exponent: Array) -> Array:
    """Ln of the norm of the matrix whose blocks of columns are leftᵀ right of each pair, [T, *batch]."""
    logs = [log_norm(Scaled(left, 0 * exponent)) + log_norm(Scaled(right, exponent)) for left, right in pairs]
    return logs[0] if len(logs) == 1 else log_hypot(namespace(*logs).stack(logs), axis=0)


@jit()
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
    nothing = (square == 0) | xp.all(whole == 0)
    return xp.where(nothing, xp.nan, inner / xp.sqrt(xp.where(nothing, xp.ones_like(square), square)))


def _unit(xp: Any, x: Array) -> Array:
    """X over its L2 norm on the last axis; an exact zero as it is, where a derivative is 0."""
    size = xp.max(xp.abs(x), axis=-1, keepdims=True)
    nothing = size == 0
    x = x / xp.where(nothing, xp.ones_like(size), size)
    square = xp.sum(x**2, axis=-1, keepdims=True)
    return x / xp.sqrt(xp.where(nothing, xp.ones_like(square), square))


def scaled_back(
    part: Any,
    apply: Callable[[Any, Array], Array],
    packed: Array,
    direct: Scaled | None,
    carried: Array | None = None,
) -> tuple[Array, Scaled, Any]:
    """The recurrence v_{t-1} = apply(maps of step t, v_t + direct_t), from the last step of a chunk to the first.

    Args:
        part: the chunk, a history.
        apply: a linear map of one step back, such as the vjp.
        packed: cotangent of the state after the last step, [*batch, S], and its exponent, `pack`ed; more axes in
            front are cotangents walked back together.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H]; None for none.
        carried: which numbers of the joint state are carried on along a gate, bool [S]: then the first axis of the
            cotangents is the order, the number of crossings of the others. None for no orders.

    Returns:
        The cotangent of the state before the first step, packed; those that arrive at the state after each step,
        the step's own `direct` included; and the maps of all steps.
    """

    def step(packed: Array, at: Any, direct: Scaled | None) -> tuple[Array, Array]:
        arriving = normalised(unpack(packed))
        if direct is not None:
            arriving = add(arriving, direct._replace(value=at.inject(direct.value)))
        before = arriving._replace(value=apply(at, arriving.value))
        if carried is not None:
            shifted = _shift_orders(before, carried)
            before = shifted if at.held is None else _chosen(at.held, before, shifted)
        return pack(before), pack(arriving)

    before, arriving, steps = back_through(part, step, packed, direct)
    return before, unpack(arriving), steps


def _shift_orders(before: Scaled, carried: Array) -> Scaled:
    """What a step back does to orders: the part that arrives in c keeps its order, that in h gains one.

    As in c it is in all numbers that are `carried`, an SLSTM's n and m; as in h it is in gates, where they are
    part of the state. The last row is the remainder: it keeps both parts of its own and gains the part in h of the
    row before.
    """
    xp = namespace(before.value)
    others = xp.where(carried, xp.zeros_like(before.value), before.value)
    kept = xp.concat([xp.where(carried, before.value, xp.zeros_like(before.value))[:-1], before.value[-1:]])
    shifted = xp.concat([xp.zeros_like(others[:1]), others[:-1]])
    exponent = xp.concat([before.exponent[:1], before.exponent[:-1]])
    return add(scaled(kept, before.exponent), scaled(shifted, exponent))


def _chosen(held: Array, still: Scaled, moved: Scaled) -> Scaled:
    """A cotangent where the state stands still, and another one elsewhere."""
    xp = namespace(held)
    return Scaled(xp.where(held, still.value, moved.value), xp.where(held[..., 0], still.exponent, moved.exponent))

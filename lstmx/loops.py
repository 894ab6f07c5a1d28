"""The loops of the forward pass, and the derivative of the outputs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from lstmx.adjoint import backward, no_gradient, pull_chunk, whole_gradient
from lstmx.arrays import (
    Array,
    by_platform,
    columns,
    custom_gradient,
    derivative_of,
    jit,
    leaves,
    namespace,
    scan,
)
from lstmx.cells.base import Cell
from lstmx.cells.masked import controlled
from lstmx.cells.recurrence import blocks
from lstmx.cells.zoneout import Zoneout
from lstmx.checks import controls, door
from lstmx.chunks import chunk_length, scan_chunks
from lstmx.draws import draws_for
from lstmx.excerpt import names_of, select
from lstmx.history import History

NARROW = 2048  # units times sequences up to which `narrow_history` is the faster one


def started(cell: Cell, params: Any, xs: Array, state: Any) -> Any:
    """The initial state: zeros for None."""
    return cell.initial_state(params, tuple(xs.shape[1:-1])) if state is None else state


def masked_door(
    cell: Cell, params: Any, xs: Array, state: Any, lengths: Any, resets: Any, key: Any = None
) -> tuple[Cell, Any, Array, Any]:
    """As `door`; with a key, lengths or resets the cell is wrapped, and its controls stand beside the inputs."""
    params, xs, state = door(cell, params, xs, state)
    if key is not None:
        if not isinstance(cell, Zoneout):
            raise ValueError(f"key is given; {cell} has nothing random, as a Zoneout or a Stack with dropout has")
        drawn = dataclasses.replace(cell, drawn=True)
        masks = drawn.masks(draws_for(namespace(xs), key), tuple(xs.shape[:-1]), xs.dtype)
        cell, xs = drawn, drawn.beside(xs, masks)
    if lengths is None and resets is None:
        return cell, params, xs, state
    masked, xs = controlled(cell, xs, *controls(xs, lengths, resets))
    return masked, params, xs, state


def advance(
    cell: Cell, params: Any, state: Any, xs: Array, emit: Callable[[Any, Any, Array], Any]
) -> tuple[Any, Any]:
    """The forward loop: the final state, and `emit(state before, state after, pre-activations)` of every step.

    On a CPU one product of [x, h] per step. On an accelerator, where a step is latency, and where there is no
    product of h, the products of x are taken for a chunk of steps in one go.
    """

    def one_by_one(params: Any, state: Any, xs: Array) -> tuple[Any, Any]:
        preactivations = cell.joined(params)

        def step(before: Any, x: Array) -> tuple[Any, Any]:
            a = preactivations(before, x)
            after = cell.update(before, a)
            return after, emit(before, after, a)

        return scan(step, state, xs)

    def hoisted(params: Any, state: Any, xs: Array) -> tuple[Any, Any]:
        def step(before: Any, drive: Array) -> tuple[Any, Any]:
            a = cell.driven(params, before, drive)
            after = cell.update(before, a)
            return after, emit(before, after, a)

        def chunk(state: Any, xs: Array, own: None) -> tuple[Any, Any, None]:
            return *scan(step, state, cell.drive(params, xs)), None

        width = cell.preactivation_size * math.prod(xs.shape[1:-1])
        size = chunk_length(xs.shape[0], width, elements=2**22, most=4096)
        return scan_chunks(chunk, state, xs, size)[:2]

    return by_platform(one_by_one if cell.reads else hoisted, hoisted, params, state, xs)


def plain_outputs(cell: Cell, steps: int | None, params: Any, xs: Array, state: Any) -> tuple[Array, Any]:
    """Outputs [T, *batch, H] and final state; `steps` is what the derivative works with."""
    del steps
    final, outputs = advance(cell, params, state, xs, lambda before, after, a: after.hidden)
    return outputs, final


def _outputs_forward(cell: Cell, steps: int | None, params: Any, xs: Array, state: Any) -> tuple[Any, Any]:
    """The outputs, and as residuals the history, or with `steps` the state before each chunk instead of it."""
    if steps is None:
        final, (states, stored) = advance(cell, params, state, xs, lambda before, after, a: (after, a))
        return (states.hidden, final), History(cell, params, state, xs, states, stored)

    def chunk(state: Any, xs: Array, own: None) -> tuple[Any, Array, Any]:
        final, outputs = advance(cell, params, state, xs, lambda before, after, a: after.hidden)
        return final, outputs, state

    outputs = namespace(xs).zeros((*xs.shape[:-1], cell.output_size), dtype=xs.dtype)
    final, outputs, initials = scan_chunks(chunk, state, xs, steps, into=outputs)
    return (outputs, final), (params, xs, outputs, initials)


def _outputs_backward(cell: Cell, steps: int | None, residuals: Any, cotangents: Any) -> tuple[Any, Array, Any]:
    outputs_cotangent, final_cotangent = cotangents
    if steps is None:
        gradients = backward(residuals, outputs_cotangent, final_cotangent)
        return gradients.parameters, gradients.inputs, gradients.initial

    params, xs, outputs, initials = residuals
    xp = namespace(outputs)
    transposed = cell.transposed(params)

    def chunk(carry: Any, cut: Any, initial: Any) -> tuple[Any, Array, None]:
        xs, outputs, direct = cut
        part = _replayed(cell, params, initial, xs, outputs)
        return *pull_chunk(carry, part, direct, transposed), None

    data = (xs, outputs, outputs_cotangent)
    carry = (final_cotangent, no_gradient(params, xs))
    (before, parameters), inputs, _ = scan_chunks(
        chunk, carry, data, steps, own=initials, into=xp.zeros_like(xs), reverse=True
    )
    return whole_gradient(parameters), inputs, before


def _replayed(cell: Cell, params: Any, initial: Any, xs: Array, outputs: Array) -> History:
    """The history of a chunk from its outputs: all pre-activations by one product, then what h does not show.

    Where pre-activations depend on more of the state than h, the chunk is run again.
    """
    if not set(cell.reads) <= {"hidden"}:
        _, (states, stored) = advance(cell, params, initial, xs, lambda before, after, a: (after, a))
        return History(cell, params, initial, xs, states, stored)
    xp = namespace(outputs)
    hidden_before = xp.concat([initial.hidden[None], outputs[:-1]])
    a = cell.preactivations(params, cell.state_type(hidden_before, *initial[1:]), xs)

    def step(rest: Any, at: Any) -> tuple[Any, Any]:
        hidden, *parts = at
        after = cell.update(cell.state_type(hidden, *rest), xp.concat(parts, axis=-1))
        return after[1:], after[1:]

    rest: Any = ()
    if len(initial) > 1:
        rest = scan(step, initial[1:], (hidden_before, *blocks(a, cell.hidden_size)))[1]
    return History(cell, params, initial, xs, cell.state_type(outputs, *rest), a)


outputs = custom_gradient(plain_outputs, _outputs_forward, _outputs_backward, static=(0, 1))


def plain_history(cell: Cell, params: Any, xs: Array, state: Any, keep: str) -> tuple[Any, Array | None]:
    """States and pre-activations of every step; no pre-activations for keep="states"."""
    _, rows = advance(cell, params, state, xs, lambda before, after, a: (after, a if keep == "all" else None))
    return rows


@jit(static=("cell", "every", "fields", "dtype"), donate=("memory",))
def excerpt_rows(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any,
    memory: Any,
    every: int,
    fields: tuple[str, ...],
    dtype: str | None,
) -> tuple[Any, Any, dict[str, Array]]:
    """The initial state, the final one, and the fields of an excerpt."""
    del memory  # given for its room: compiled, the result takes it
    start = started(cell, params, xs, state)
    if every == 1:
        final, rows = advance(cell, params, start, xs, functools.partial(select, cell, fields, dtype))
        return start, final, rows

    def stretch(state: Any, xs: Array, own: None) -> tuple[Any, None, Any]:
        if len(xs) > 1:
            state, _ = advance(cell, params, state, xs[:-1], lambda before, after, a: None)
        after, a = cell.step(params, state, xs[-1])
        return after, None, select(cell, fields, dtype, state, after, a)

    final, _, rows = scan_chunks(stretch, start, xs, min(every, xs.shape[0]))
    return start, final, rows


def edited_history(cell: Cell, params: Any, xs: Array, state: Any, edits: tuple[Any, ...]) -> tuple[Any, ...]:
    """States, gates, pre-activations and what was changed, of every step of a pass whose values `edits` change.

    Args:
        cell: the cell.
        params: its parameters.
        xs: inputs.
        state: the initial state.
        edits: functions (step, gates or a state, fields) -> the same with some of these fields changed, in order.
    """
    xp = namespace(xs)
    unfolded = cell.unfolded(params)

    def step(before: Any, at: Any) -> tuple[Any, Any]:
        count, x = at
        acted: dict[str, Array] = {}

        def change(values: Any, fields: tuple[str, ...]) -> Any:
            made = values
            for edit in edits:
                made = edit(count, made, fields)
            for name, field in names_of(values).items():
                if field in fields:
                    acted[name] = xp.any(getattr(made, field) != getattr(values, field))
            return made

        after, gates, a = unfolded(before, x, change)
        return after, (after, gates, a, acted)

    return scan(step, state, (xp.arange(xs.shape[0]), xs))[1]


def _packed(cell: Cell, params: Any, xs: Array, state: Any, memory: Any) -> tuple[Any, Array]:
    """State fields in one array in the loop, unpacked chunk by chunk and written into `memory`, or new arrays."""
    kind, sizes, xp = cell.state_type, cell.field_sizes, namespace(xs)
    lead = xs.shape[:-1]
    if memory is None:
        states = kind(*(xp.zeros((*lead, size), dtype=xs.dtype) for size in sizes))
        memory = states, xp.zeros((*lead, cell.preactivation_size), dtype=xs.dtype)
    preactivations = cell.joined(params)

    def step(packed: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
        before = kind(*columns(packed, sizes))
        a = preactivations(before, x)
        packed = xp.concat(cell.update(before, a), axis=-1)
        return packed, (packed, a)

    def chunk(packed: Array, xs: Array, own: None) -> tuple[Array, Any, None]:
        packed, (states, a) = scan(step, packed, xs)
        return packed, (kind(*columns(states, sizes)), a), None

    size = chunk_length(xs.shape[0], sum(x[0].size for x in leaves(memory)), most=128)
    return scan_chunks(chunk, xp.concat(state, axis=-1), xs, size, into=memory)[1]


def _plain(cell: Cell, params: Any, xs: Array, state: Any, memory: Any) -> tuple[Any, Any]:
    del memory  # given for its room: compiled, the result takes it
    return plain_history(cell, params, xs, state, "all")


def _narrow_history(cell: Cell, params: Any, xs: Array, state: Any, memory: Any) -> tuple[Any, Any]:
    """As `plain_history` with keep="all", for few units: on a CPU with fewer kernels per step.

    A loop that writes one row of states and one of pre-activations has 7 kernels, one with a row per field 9; XLA
    on the CPU runs up to 8 in a row, and schedules a longer body at twice the cost.
    """
    forms = (functools.partial(form, cell) for form in (_packed, _plain))
    return by_platform(*forms, params, xs, state, memory)


narrow_history = derivative_of(_plain, _narrow_history, static=(0,))

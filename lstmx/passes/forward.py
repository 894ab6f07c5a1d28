"""The loops of the forward pass, and the derivative of the outputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from lstmx.arrays import (
    Array,
    by_platform,
    columns,
    custom_gradient,
    derivative_of,
    is_jax,
    jit,
    leaves,
    loops_are_kernels,
    map_tree,
    namespace,
    scan,
    spread_as,
    varying_as,
)
from lstmx.cells.base import Cell
from lstmx.cells.recurrence import blocks
from lstmx.history import Controls, History, where_held
from lstmx.history.excerpt import names_of, select
from lstmx.passes.backward import no_gradient, pull_chunk, whole_backward, whole_gradient
from lstmx.scans.chunks import chunk_length, scan_chunks

_NARROW = 64  # units times sequences up to which `narrow_history` is the faster one


def started(cell: Cell, params: Any, xs: Array, state: Any) -> tuple[Any, Any]:
    """Parameters and initial state for a loop over `xs`; zeros for a state of None."""
    if state is None:
        state = cell.initial_state(params, tuple(xs.shape[1:-1]))
    return varying_as(xs, (params, state))


def advance(
    cell: Cell, params: Any, state: Any, xs: Array, controls: Controls | None, emit: Callable[[Any, Any, Any], Any]
) -> tuple[Any, Any]:
    """The forward loop: the final state, and `emit(state before, state after, what is stored)` of every step.

    The state before is the one that the step starts from. On a CPU one product of [x, h] per step. On an
    accelerator, where a step is latency, and where there is no product of h, the products of x are taken for a
    chunk of steps in one go.
    """

    def one_by_one(params: Any, state: Any, xs: Array, controls: Controls | None) -> tuple[Any, Any]:
        move = controlled_step(cell, params, hoisted=False)

        def step(before: Any, at: Any) -> tuple[Any, Any]:
            before, after, stored = move(before, *at)
            return after, emit(before, after, stored)

        return scan(step, state, (xs, controls))

    def hoisted(params: Any, state: Any, xs: Array, controls: Controls | None) -> tuple[Any, Any]:
        move = controlled_step(cell, params, hoisted=True)

        def step(before: Any, at: Any) -> tuple[Any, Any]:
            before, after, stored = move(before, *at)
            return after, emit(before, after, stored)

        def chunk(state: Any, cut: Any, own: None) -> tuple[Any, Any, None]:
            xs, controls = cut
            return *scan(step, state, (cell.drive(params, xs), controls)), None

        width = cell.preactivation_size * math.prod(xs.shape[1:-1])
        size = chunk_length(xs.shape[0], width, elements=2**22, most=4096)
        return scan_chunks(chunk, state, (xs, controls), size)[:2]

    return by_platform(one_by_one if cell.reads else hoisted, hoisted, params, state, xs, controls)


def controlled_step(cell: Cell, params: Any, hoisted: bool) -> Callable[..., tuple[Any, Any, Any]]:
    """One step for a loop, `(state before, x, controls) -> (state it starts from, state after, what is stored)`.

    Args:
        cell: the cell.
        params: its parameters.
        hoisted: the loop hands over `drive(params, x)` instead of x.
    """
    move = cell.core.stepper(params, hoisted)

    def step(before: Any, x: Array, controls: Controls | None) -> tuple[Any, Any, Any]:
        if controls is None:
            after, stored = move(before, x)
            return before, cell.mixed(before, after), stored
        hold, reset, drawn = controls
        start = before if reset is None else cell.restarted(params, before, reset)
        after, stored = move(start, x)
        after = cell.mixed(start, after, drawn)
        if hold is not None:
            after = map_tree(lambda old, new: where_held(hold, new, old), before, after)
        return start, after, stored

    return step


def plain_outputs(
    cell: Cell, steps: int | None, params: Any, xs: Array, state: Any, controls: Controls | None
) -> tuple[Array, Any]:
    """Outputs [T, *batch, H] and final state; `steps` is what the derivative works with."""
    del steps
    final, outputs = advance(cell, params, state, xs, controls, lambda before, after, a: cell.output(after))
    return outputs, final


def _outputs_forward(
    cell: Cell, steps: int | None, params: Any, xs: Array, state: Any, controls: Controls | None
) -> tuple[Any, Any]:
    """The outputs, and as residuals the history, or with `steps` the state before each chunk instead of it."""
    if steps is None:
        final, rows = advance(cell, params, state, xs, controls, lambda before, after, a: (after, a))
        history = History(cell, params, state, xs, *rows, controls=controls)
        return (history.hidden_state, final), history

    def chunk(state: Any, cut: Any, own: None) -> tuple[Any, Array, Any]:
        xs, controls = cut
        final, outputs = advance(cell, params, state, xs, controls, lambda before, after, a: cell.output(after))
        return final, outputs, state

    outputs = varying_as(xs, namespace(xs).zeros((*xs.shape[:-1], cell.output_size), dtype=xs.dtype))
    final, outputs, initials = scan_chunks(chunk, state, (xs, controls), steps, into=outputs)
    return (outputs, final), (params, xs, controls, outputs, initials)


def _outputs_backward(cell: Cell, steps: int | None, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    outputs_cotangent, final_cotangent = cotangents
    if steps is None:
        made = whole_backward(residuals, outputs_cotangent, final_cotangent)
        return made.parameters, made.inputs, made.initial, None

    params, xs, controls, outputs, initials = residuals

    def chunk(carry: Any, cut: Any, initial: Any) -> tuple[Any, Array, None]:
        direct, *rows = cut
        return *pull_chunk(carry, _replayed(cell, params, initial, *rows), direct), None

    data = (outputs_cotangent, xs, outputs, controls)
    carry = (cell.pack(final_cotangent), no_gradient(params, xs))
    (before, parameters), inputs, _ = scan_chunks(
        chunk, carry, data, steps, own=initials, into=namespace(xs).zeros_like(xs), reverse=True
    )
    return whole_gradient(parameters), inputs, cell.unpack(before), None


def _replayed(
    cell: Cell, params: Any, initial: Any, xs: Array, outputs: Array, controls: Controls | None
) -> History:
    """The history of a chunk from its outputs: all pre-activations by one product, then what h does not show.

    Where pre-activations depend on more of the state than h, or a step on more than its pre-activations, the chunk
    is run again.
    """
    if cell.core is not cell or controls is not None or not set(cell.reads) <= {"hidden"}:
        _, rows = advance(cell, params, initial, xs, controls, lambda before, after, a: (after, a))
        return History(cell, params, initial, xs, *rows, controls=controls)
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


def plain_history(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, keep: str
) -> tuple[Any, Any]:
    """States and what is stored of every step; nothing is for keep="states"."""

    def emit(before: Any, after: Any, stored: Any) -> tuple[Any, Any]:
        return after, stored if keep == "all" else None

    return advance(cell, params, state, xs, controls, emit)[1]


@jit(static=("cell", "every", "fields", "dtype"), donate=("memory",))
def excerpt_rows(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any,
    controls: Controls | None,
    memory: Any,
    every: int,
    fields: tuple[str, ...],
    dtype: str | None,
) -> tuple[Any, Any, dict[str, Array]]:
    """The initial state, the final one, and the fields of an excerpt."""
    del memory  # given for its room: compiled, the result takes it
    params, start = started(cell, params, xs, state)
    if every == 1:
        final, rows = advance(cell, params, start, xs, controls, functools.partial(select, cell, fields, dtype))
        return start, final, rows

    def stretch(state: Any, cut: Any, own: None) -> tuple[Any, None, Any]:
        if len(cut[0]) > 1:
            xs, controls = map_tree(lambda x: x[:-1], cut)
            state, _ = advance(cell, params, state, xs, controls, lambda before, after, a: None)
        move = controlled_step(cell, params, hoisted=False)
        before, after, stored = move(state, *map_tree(lambda x: x[-1], cut))
        return after, None, select(cell, fields, dtype, before, after, stored)

    final, _, rows = scan_chunks(stretch, start, (xs, controls), min(every, xs.shape[0]))
    return start, final, rows


def edited_history(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, edits: tuple[Any, ...]
) -> tuple[Any, ...]:
    """States, gates, pre-activations and what was changed, of every step of a pass whose values `edits` change.

    At a step that does not count nothing is changed. Where Zoneout keeps a part of the state, the state is changed
    after that.

    Args:
        cell: the cell.
        params: its parameters.
        xs: inputs.
        state: the initial state.
        controls: of the steps.
        edits: functions (step, gates or a state, fields) -> the same with some of these fields changed, in order.
    """
    xp, controls = namespace(xs), controls or Controls()
    unfolded, zoned = cell.core.unfolded(params), cell.kept(None) is not None

    def step(before: Any, at: Any) -> tuple[Any, Any]:
        count, x, (hold, reset, drawn) = at
        acted: dict[str, Array] = {}
        before = before if reset is None else cell.restarted(params, before, reset)

        def change(values: Any, fields: tuple[str, ...]) -> Any:
            made = values
            for edit in edits:
                made = edit(count, made, fields)
            for name, field in names_of(values).items():
                if field in fields:
                    differs = getattr(made, field) != getattr(values, field)
                    acted[name] = xp.any(differs if hold is None else where_held(hold, differs, False))
            return made

        def change_gates(values: Any, fields: tuple[str, ...]) -> Any:
            return values if "hidden" in values._fields else change(values, fields)

        after, gates, a = unfolded(before, x, change_gates if zoned else change)
        if zoned:
            after = change(cell.mixed(before, after, drawn), after._fields)
        if hold is not None:
            after = map_tree(lambda old, new: where_held(hold, new, old), before, after)
        return after, (after, gates, a, acted)

    return scan(step, state, (xp.arange(xs.shape[0]), xs, controls))[1]


def _packed(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, memory: Any
) -> tuple[Any, Array]:
    """State fields in one array in the loop, unpacked chunk by chunk and written into `memory`, or new arrays."""
    kind, sizes, xp = cell.state_type, cell.field_sizes, namespace(xs)
    lead = xs.shape[:-1]
    if memory is None:
        states = kind(*(xp.zeros((*lead, size), dtype=xs.dtype) for size in sizes))
        memory = varying_as(xs, (states, xp.zeros((*lead, cell.preactivation_size), dtype=xs.dtype)))
    move = controlled_step(cell, params, hoisted=False)

    def step(packed: Array, at: Any) -> tuple[Array, tuple[Array, Array]]:
        _, after, a = move(kind(*columns(packed, sizes)), *at)
        packed = xp.concat(after, axis=-1)
        return packed, (packed, a)

    def chunk(packed: Array, cut: Any, own: None) -> tuple[Array, Any, None]:
        packed, (states, a) = scan(step, packed, cut)
        return packed, (kind(*columns(states, sizes)), a), None

    size = chunk_length(xs.shape[0], sum(x[0].size for x in leaves(memory)), most=128)
    return scan_chunks(chunk, xp.concat(state, axis=-1), (xs, controls), size, into=memory)[1]


def _plain(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, memory: Any
) -> tuple[Any, Any]:
    del memory  # given for its room: compiled, the result takes it
    return plain_history(cell, params, xs, state, controls, "all")


def _narrow_history(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, memory: Any
) -> tuple[Any, Any]:
    """As `plain_history` with keep="all", for few units: on a CPU with fewer kernels per step.

    A loop that writes one row of states and one of pre-activations has 7 kernels, one with a row per field 9; XLA
    of JAX 0.10 on the CPU runs up to 8 in a row, and schedules a longer body at twice the cost. That of JAX 0.12
    compiles the plain loop as one kernel, which is then the faster one.
    """
    forms = (functools.partial(form, cell) for form in (_packed, _plain))
    return by_platform(*forms, params, xs, state, controls, memory)


narrow_history = derivative_of(_plain, _narrow_history, static=(0,))


def recorded_part(
    cell: Cell, params: Any, xs: Array, controls: Controls | None, state: Any, keep: str, memory: Any = None
) -> History:
    """The history of a pass whose arguments are checked; `memory` takes its place where it is given."""
    record = functools.partial(_record, cell, keep=keep)
    start, (states, stored) = spread_as(xs, record, (1, 0), params, xs, state, controls, memory)
    return History(cell, params, start if state is None else state, xs, states, stored, controls)


@jit(static=("cell", "keep"), donate=("memory",))
def _record(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, memory: Any, keep: str
) -> tuple[Any, Any]:
    """The initial state, and states and what is stored."""
    params, state = started(cell, params, xs, state)
    narrow = cell.hidden_size * math.prod(xs.shape[1:-1]) <= _NARROW and cell.reads and cell.closed_form
    if keep == "all" and is_jax(namespace(xs)) and narrow and not loops_are_kernels:
        return state, narrow_history(cell, params, xs, state, controls, memory)
    return state, plain_history(cell, params, xs, state, controls, keep)

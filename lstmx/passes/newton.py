"""All steps at once of a pass that is not linear: Newton's method on the trajectory, window by window.

The unknown is the trajectory s_1, …, s_W of a window, and the equations are s_t = F_t(s_{t-1}). From a guess,

    δ_t = A_t δ_{t-1} + F_t(s_{t-1}) − s_t,    δ_0 = 0,    s_t ← s_t + δ_t

is one iteration, and since it is made of affine maps, all δ are one associative scan. With A_t = J_t, the
Jacobian of F_t, it is Newton's method. Whatever A_t is: where the first k steps solve their equations, their δ is
0, and that of step k + 1 is what its own equation lacks. So each iteration solves one more step at least.

Far from the solution δ may be of any size. What keeps it in bounds leaves exact steps exact: where the residual
grew, A_t is halved; no number goes further beyond the values that F took than these are apart; and what comes of
it is taken through F once, which brings h back to where its activation leads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lstmx.arrays import Array, custom_gradient, jax, jnp, map_tree, scan, varying_as
from lstmx.cells.base import Cell
from lstmx.history import Controls
from lstmx.linear import steps_at
from lstmx.passes.backward import gradient_of_parts, no_gradient, whole_gradient
from lstmx.passes.forward import advance, controlled_step
from lstmx.scans.chunks import chunk_length, scan_chunks
from lstmx.scans.prefixes import associative_scan

DENSE = 32
"""Numbers in the joint state up to which A_t is the whole Jacobian."""
_WIDEST = 256  # numbers in the joint state up to which the way back is a scan of whole Jacobians
_ELEMENTS = 2**24  # of the matrices of a window
_SMALL = 4  # rows of a matrix up to which its products are sums written out
_SOLVED = 16  # units of rounding within which an equation counts as solved
_STALLED = 1024  # units within which it does where iterations have ceased to help
_PATIENCE = 4  # iterations that help nothing
_BY_UNIT = {"input_kernel", "recurrent_kernel", "bias", "candidate_bias", "peephole"}


class Iterate(NamedTuple):
    """The trajectory of a window on its way, and how far it is."""

    states: Array
    """s_t, [W, *batch, S]."""
    after: Array
    """F_t(s_{t-1}), [W, *batch, S]."""
    stored: Any
    """What the linear maps need of F_t beside it."""
    lacking: Array
    """What each equation lacks, in units of rounding, [W, *batch]; infinite where it is no number."""
    damping: Array
    """What Jacobians are multiplied by, [*batch]."""
    least: Array
    """The smallest of the worst that equations lacked so far, [*batch]."""
    stale: Array
    """Iterations since then, [*batch]."""
    rounds: Array
    """Iterations so far."""


# ------------------------------------------------------------------------------------------ the whole pass


def newton_states(
    cell: Cell, chunk: int | None, params: Any, xs: Array, state: Any, controls: Controls | None
) -> Array:
    """The states after each step, [T, *batch, S]: by Newton's method forward, and by one affine scan back.

    Args:
        cell: the cell.
        chunk: steps of a window; None for as many as memory should hold.
        params: its parameters.
        xs: inputs.
        state: the initial state.
        controls: of the steps.
    """
    return newton_pass(cell, chunk, params, xs, state, controls)[0]


def newton_pass(
    cell: Cell, chunk: int | None, params: Any, xs: Array, state: Any, controls: Controls | None
) -> tuple[Array, Array]:
    """`newton_states`, without a derivative, and the iterations that each window took, [windows]."""

    def window(start: Array, cut: Any, own: None) -> tuple[Array, Array, Array]:
        states, count = _solved(cell, params, start, *cut)
        return states[-1], states, count

    width = (
        cell.state_size * {"whole": cell.state_size, "units": len(cell.field_sizes), "diagonal": 1}[kind_of(cell)]
    )
    size = chunk or window_length(xs, width)
    into = varying_as(xs, jnp.zeros((*xs.shape[:-1], cell.state_size), dtype=xs.dtype))
    _, states, counts = scan_chunks(window, cell.pack(state), (xs, controls), size, into=into)
    return states, counts


def window_length(xs: Array, width: int) -> int:
    """Steps of a window whose matrices hold `width` numbers for a step of one sequence."""
    return chunk_length(xs.shape[0], width * math.prod(xs.shape[1:-1]), _ELEMENTS, xs.shape[0])


def _forward(cell: Cell, chunk: int | None, *args: Any) -> tuple[Array, Any]:
    states = newton_trajectory(cell, chunk, *args)
    return states, (*args, states)


def _backward(cell: Cell, chunk: int | None, residuals: Any, direct: Array) -> tuple[Any, ...]:
    """δ_t = ∂L/∂s_t at fixed other states + J_{t+1}ᵀ δ_{t+1}: affine maps, one scan for each window."""
    params, xs, state, controls, states = residuals

    def window(carry: Any, cut: Any, start: Array) -> tuple[Any, Array, None]:
        cotangent, parameters = carry
        xs, controls, states, direct = cut
        steps = _steps(cell, params, _before(start, states), xs, None, states, controls)
        direct = jnp.concat([direct[:-1], (direct[-1] + cotangent)[None]])
        total = _back(steps, direct)
        before, drive = steps.pull(total)
        here = gradient_of_parts(steps, drive, len(jax.tree.leaves(parameters)[0]))
        return (before[0], map_tree(jnp.add, parameters, here)), steps.input_vjp(drive), None

    size = cell.state_size
    steps = chunk or window_length(xs, size**2 if size <= _WIDEST else 4 * size)
    ends = slice((len(xs) % steps or steps) - 1, len(xs) - steps, steps)  # of all windows but the last
    starts = jnp.concat([cell.pack(state)[None], states[ends]])
    carry = jnp.zeros_like(direct[0]), no_gradient(params, xs)
    data = xs, controls, states, direct
    (before, parameters), inputs, _ = scan_chunks(
        window, carry, data, steps, own=starts, into=jnp.zeros_like(xs), reverse=True
    )
    return whole_gradient(parameters), inputs, cell.unpack(before), None


newton_trajectory = custom_gradient(newton_states, _forward, _backward, static=(0, 1))


def _back(steps: Any, direct: Array) -> Array:
    """All δ_t of a window, [W, *batch, S]."""
    if steps.size > _WIDEST:

        def step(cotangent: Array, at: Any) -> tuple[Array, Array]:
            rows, direct = at
            total = cotangent + direct
            return steps.at(rows).pull(total)[0], total

        return scan(step, jnp.zeros_like(direct[0]), (steps.rows, direct), reverse=True)[1]
    maps = jnp.swapaxes(steps.matrices(), -1, -2)
    maps = jnp.concat([maps[1:], jnp.zeros_like(maps[:1])])
    return jnp.flip(_affine(jnp.flip(maps, 0), jnp.flip(direct, 0)), 0)


# ------------------------------------------------------------------------------------------------ a window


def _solved(cell: Cell, params: Any, start: Array, xs: Array, controls: Controls | None) -> tuple[Array, Array]:
    """The trajectory of a window from its start [*batch, S], and the iterations that it took.

    Where its numbers leave the range of a float, no iteration helps, and the steps are taken one by one.
    """
    found = iterated(cell, params, start, xs, controls, len(xs))

    def one_by_one(made: tuple[Array, Array]) -> tuple[Array, Array]:
        def emit(before: Any, after: Any, stored: Any) -> Array:
            return cell.pack(after)

        return advance(cell, params, cell.unpack(start), xs, controls, emit)[1], jnp.zeros_like(made[1])

    unsolved = jnp.any(~_near(found))  # a loop of one round at most, of which vmap makes no choice between two
    return jax.lax.while_loop(lambda made: made[1], one_by_one, (found.after, unsolved))[0], found.rounds


def iterated(cell: Cell, params: Any, start: Array, xs: Array, controls: Controls | None, most: int) -> Iterate:
    """At most `most` iterations from states that stay at the start, until all equations are solved."""
    move = controlled_step(cell, params, hoisted=False)

    def evaluated(states: Array) -> tuple[Array, Any, Array]:
        before = _before(start, states)
        _, after, stored = move(cell.unpack(before), xs, controls)
        after = cell.pack(after)
        largest = jnp.maximum(jnp.max(jnp.abs(before), axis=-1), jnp.max(jnp.abs(after), axis=-1))
        unit = jnp.finfo(xs.dtype).eps * jnp.maximum(largest, 1)
        lacking = jnp.max(jnp.abs(after - states), axis=-1) / unit
        return after, stored if cell.closed_form else None, jnp.where(jnp.isfinite(lacking), lacking, jnp.inf)

    def iteration(now: Iterate) -> Iterate:
        finite = jnp.isfinite(now.after)
        lowest = jnp.min(jnp.where(finite, now.after, jnp.inf), axis=0)
        highest = jnp.max(jnp.where(finite, now.after, -jnp.inf), axis=0)
        width = highest - lowest
        gap = jnp.where(finite, now.after - now.states, 0)
        change = _change(cell, params, _before(start, now.states), xs, controls, now, gap)
        moved = now.states + jnp.where(jnp.isfinite(change), change, gap)
        moved = jnp.where(finite, jnp.clip(moved, lowest - width, highest + width), now.states)
        settled = evaluated(moved)[0]
        states = jnp.where(jnp.isfinite(settled), settled, moved)
        after, stored, lacking = evaluated(states)
        worst = jnp.max(lacking, axis=0)
        grown = worst > jnp.max(now.lacking, axis=0)
        damping = jnp.where(grown, now.damping / 2, jnp.minimum(2 * now.damping, 1))
        stale = jnp.where(worst < now.least, 0, now.stale + 1)
        least = jnp.minimum(worst, now.least)
        return Iterate(states, after, stored, lacking, damping, least, stale, now.rounds + 1)

    states = jnp.broadcast_to(start, (len(xs), *start.shape))
    after, stored, lacking = evaluated(states)
    worst = jnp.max(lacking, axis=0)
    stale = jnp.zeros_like(worst, dtype=int)
    first = Iterate(states, after, stored, lacking, jnp.ones_like(worst), worst, stale, jnp.max(stale))
    return jax.lax.while_loop(lambda now: (now.rounds < most) & jnp.any(_open(now)), iteration, first)


def _near(now: Iterate) -> Array:
    """Whether all equations of a sequence are solved, or as near to it as rounding lets them come, [*batch]."""
    worst = jnp.max(now.lacking, axis=0)
    return (worst <= _SOLVED) | ((worst <= _STALLED) & (now.stale >= _PATIENCE))


def _open(now: Iterate) -> Array:
    """Whether iterations can help a sequence: the first step that is not solved has a finite F_t, [*batch]."""
    first = jnp.argmax(now.lacking > _SOLVED, axis=0)[None]
    return ~_near(now) & jnp.isfinite(jnp.take_along_axis(now.lacking, first, axis=0)[0])


def _before(start: Array, states: Array) -> Array:
    return jnp.concat([start[None], states[:-1]])


def _steps(
    cell: Cell, params: Any, before: Array, xs: Array, stored: Any, after: Array, controls: Controls | None
) -> Any:
    """The linear maps at a trajectory: from states before to states after, [W, *batch, S]."""
    started = cell.unpack(before)
    if controls is not None and controls.reset is not None:
        started = cell.restarted(params, started, controls.reset)
    if stored is None and cell.closed_form:
        stored = cell.core.restored(params, started, xs)
    return steps_at(cell, params, started, xs, stored, cell.unpack(after), controls)


# -------------------------------------------------------------------------------------------- one iteration


def kind_of(cell: Cell) -> str:
    """What A_t is: the "whole" Jacobian; what it has of each unit by itself, "units"; or its "diagonal"."""
    if cell.closed_form and set(cell.field_sizes) == {cell.hidden_size}:
        known = {name for name, shape in cell.parameter_shapes()._asdict().items() if shape is not None}
        if known <= _BY_UNIT and (cell.state_size > DENSE or not cell.reads):
            return "units"
    return "whole" if cell.state_size <= DENSE else "diagonal"


def _change(
    cell: Cell, params: Any, before: Array, xs: Array, controls: Controls | None, now: Iterate, gap: Array
) -> Array:
    """All δ_t, [W, *batch, S], from what the equations lack."""
    kind = kind_of(cell)
    if kind == "units" and cell.reads:
        params = params._replace(recurrent_kernel=_of_each_unit(params.recurrent_kernel))
    steps = _steps(cell, params, before, xs, now.stored, now.after, controls)
    if kind == "whole":
        return _affine(steps.matrices() * now.damping[..., None, None], gap)
    if kind == "diagonal":
        maps = _diagonal(steps, gap)[..., None, None]
        return _affine(maps * now.damping[..., None, None, None], gap[..., None])[..., 0]
    count = len(cell.field_sizes)
    ones = jnp.repeat(jnp.eye(count, dtype=gap.dtype), cell.hidden_size, axis=1)  # all units of each field
    pushed = jnp.broadcast_to(steps.spread().push(ones), (*gap.shape[:-1], count, gap.shape[-1]))
    maps = jnp.moveaxis(pushed.reshape(*pushed.shape[:-1], count, cell.hidden_size), (-3, -2, -1), (-1, -2, -3))
    shifts = jnp.swapaxes(gap.reshape(*gap.shape[:-1], count, cell.hidden_size), -1, -2)
    found = _affine(maps * now.damping[..., None, None, None], shifts)
    return jnp.swapaxes(found, -1, -2).reshape(gap.shape)


def _of_each_unit(kernel: Array) -> Array:
    """A recurrent kernel [H, blocks·H] without what leads from one unit to another."""
    units = len(kernel)
    return kernel * jnp.tile(jnp.eye(units, dtype=kernel.dtype), kernel.shape[1] // units)


def _diagonal(steps: Any, like: Array) -> Array:
    """The diagonal of each J_t, [W, *batch, S], one number of the state after another."""

    def entry(k: Array) -> Array:
        return steps.push(jnp.zeros_like(like).at[..., k].set(1))[..., k]

    return jnp.moveaxis(jax.lax.map(entry, jnp.arange(steps.size)), 0, -1)


def _affine(maps: Array, shifts: Array) -> Array:
    """All δ_t = A_t δ_{t-1} + b_t from δ_0 = 0, of maps [W, *n, k, k] and shifts [W, *n, k]."""

    def combine(earlier: Any, later: Any) -> Any:
        (one, shift), (other, added) = earlier, later
        return _product(other, one), _product(other, shift[..., None])[..., 0] + added

    return associative_scan(combine, (maps, shifts))[1]


def _product(left: Array, right: Array) -> Array:
    if left.shape[-1] > _SMALL:
        return left @ right
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)

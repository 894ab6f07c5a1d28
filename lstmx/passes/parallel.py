"""All steps at once: a pass that is a linear recurrence, forward over logarithms and back over numbers."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, custom_gradient, exp, map_tree, namespace
from lstmx.cells.base import Cell
from lstmx.history import History
from lstmx.linear import steps_of
from lstmx.scans.prefixes import associative_scan


def parallel_forward(cell: Cell, params: Any, xs: Array, state: Any) -> tuple[Array, Any]:
    """Outputs [T, *batch, H] and final state by one associative scan, of a cell that has `logarithms`.

    The initial state stays out of the logarithms: it may be of any sign.
    """
    outputs = _passed(cell, cell.drive(params, xs), state)
    return outputs, cell.state_type(outputs[-1])


def _passed(cell: Cell, a: Array, state: Any) -> Array:
    def combine(earlier: Any, later: Any) -> Any:
        (kept, held), (kept_later, added) = earlier, later
        return kept + kept_later, _log_sum(held + kept_later, added)

    reach, held = associative_scan(combine, cell.logarithms(a))
    return exp(held) + exp(reach) * state.hidden


def _log_sum(x: Array, y: Array) -> Array:
    """Ln(e^x + e^y) of finite numbers; `logaddexp` asks for infinities, too, and compiles more slowly."""
    xp = namespace(x, y)
    return xp.maximum(x, y) + xp.log1p(xp.exp(-xp.abs(x - y)))


def _forward(cell: Cell, params: Any, xs: Array, state: Any) -> tuple[Any, Any]:
    a = cell.drive(params, xs)
    outputs = _passed(cell, a, state)
    history = History(cell, params, state, xs, cell.state_type(outputs), a)
    return (outputs, history.final), history


def _backward(cell: Cell, history: History, cotangents: Any) -> tuple[Any, Array, Any]:
    """δ_t = ∂L/∂h_t at fixed other outputs + f_{t+1} ∘ δ_{t+1}: a linear recurrence itself, of any sign."""
    direct, final = cotangents
    xp, steps = namespace(direct), steps_of(history)
    direct = xp.concat([direct[:-1], (direct[-1] + final.hidden)[None]])
    carry = steps.slopes.carry
    kept = xp.concat([carry[1:], xp.zeros_like(carry[:1])])

    def combine(later: Any, earlier: Any) -> Any:
        (reach, held), (kept, added) = later, earlier
        return reach * kept, held * kept + added

    turned = map_tree(lambda x: xp.flip(x, axis=0), (kept, direct))
    total = xp.flip(associative_scan(combine, turned)[1], axis=0)
    drive = steps.drive_vjp(total)
    initial = cell.state_type(steps.along_state(total)[0])
    return steps.parameter_vjp(drive), steps.input_vjp(drive), initial


parallel_outputs = custom_gradient(parallel_forward, _forward, _backward, static=(0,))

"""A cell told at each step whether to stand still, or to start a new sequence first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from lstmx.arrays import Array, map_tree, namespace
from lstmx.cells.base import Cell
from lstmx.cells.wrapped import Wrapped

HOLD, RESET = -2, -1
"""The columns of the two controls, of all columns."""


class MaskedSlopes(NamedTuple):
    """The inner cell's slopes and the two controls, [*batch, 1]."""

    inner: Any
    hold: Array
    reset: Array


@dataclass(frozen=True, repr=False)
class Masked(Wrapped):
    """A cell whose inputs carry two more columns, `hold` and `reset`, each 0 or 1.

    Where reset is 1, the step starts from the zero state, whatever came before. Where hold is 1, the state after
    is the state before: past a sequence's end, its state stands still. `run` and `record` make it of `lengths` and
    `resets`; all that a cell can do, it can do, so that every analysis takes padded batches for what they are.

    Attributes:
        cell: the cell that moves.
    """

    cell: Cell

    @property
    def own_controls(self) -> int:
        return 2

    @property
    def masked(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{self.cell!r} with lengths or resets"

    def opened(self, state: Any, controls: Array) -> Any:
        return _without(state, controls[..., 1:])

    def active(self, a: Array) -> Array:
        return a[..., HOLD] == 0

    def log_retention(self, before: Any, a: Array) -> Array:
        controls = self.split(a)[1]
        xp, log = namespace(a), self.cell.log_retention(*self.inner(before, a))
        log = xp.where(controls[..., :1] == 1, xp.zeros_like(log), log)
        return xp.where(controls[..., 1:] == 1, -xp.inf, log)

    def update(self, before: Any, a: Array) -> Any:
        own, controls = self.split(a)
        before = self.opened(before, controls)
        return _choose(controls[..., :1], before, self.cell.update(before, own))

    def push(self, params: Any, slopes: MaskedSlopes, tangent: Any, x_tangent: Array | None) -> Any:
        tangent = None if tangent is None else _without(tangent, slopes.reset)
        moved = self.cell.push(
            params, slopes.inner, tangent, None if x_tangent is None else self.split(x_tangent)[0]
        )
        still = map_tree(namespace(slopes.hold).zeros_like, moved) if tangent is None else tangent
        return _choose(slopes.hold, still, moved)

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> MaskedSlopes:
        own, controls = self.split(a)
        inner = self.cell.linearise(params, self.opened(before, controls), own, after)
        return MaskedSlopes(inner, controls[..., :1], controls[..., 1:])

    def total_cotangent(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> Any:
        return _choose(slopes.hold, cotangent, self.cell.total_cotangent(transposed, slopes.inner, cotangent))

    def pull(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> tuple[Any, Array]:
        moved, d_a = self.cell.pull(transposed, slopes.inner, _without(cotangent, slopes.hold))
        return _without(_choose(slopes.hold, cotangent, moved), slopes.reset), self.padded(d_a)

    def straight(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> Any:
        moved = self.cell.straight(transposed, slopes.inner, _without(cotangent, slopes.hold))
        return _without(_choose(slopes.hold, cotangent, moved), slopes.reset)

    def preactivation_cotangent(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> Array:
        moving = _without(cotangent, slopes.hold)
        return self.padded(self.cell.preactivation_cotangent(transposed, slopes.inner, moving))

    def ways(self, transposed: Any, slopes: MaskedSlopes, a_cotangent: Array) -> dict[str, Any]:
        ways = self.cell.ways(transposed, slopes.inner, self.split(a_cotangent)[0])
        return {name: _without(way, slopes.reset) for name, way in ways.items()}

    def pairs(
        self, slopes: MaskedSlopes, before: Any, x: Array, a_cotangent: Array
    ) -> tuple[tuple[Array, Array], ...]:
        before, x = _without(before, slopes.reset), self.split(x)[0]
        return self.cell.pairs(slopes.inner, before, x, self.split(a_cotangent)[0])

    def parameter_cotangent(
        self, slopes: MaskedSlopes, before: Any, x: Array, after: Any, a_cotangent: Array
    ) -> Any:
        before, x = _without(before, slopes.reset), self.split(x)[0]
        return self.cell.parameter_cotangent(slopes.inner, before, x, after, self.split(a_cotangent)[0])

    def log_determinant(self, params: Any, slopes: MaskedSlopes) -> Array | None:
        found = self.cell.log_determinant(params, slopes.inner)
        if found is None:
            return None
        xp, hold = namespace(found), slopes.hold[..., 0]
        found = xp.where(hold == 1, xp.zeros_like(found), found)
        return xp.where(slopes.reset[..., 0] == 1, -xp.inf, found)


def controlled(cell: Cell, xs: Array, hold: Array, reset: Array) -> tuple[Masked, Array]:
    """The masked cell and its inputs, from controls [T, *batch]."""
    xp = namespace(xs, hold, reset)
    controls = xp.stack([hold, reset], axis=-1).astype(xs.dtype)
    masked = Masked(cell)
    return masked, masked.beside(xs, xp.broadcast_to(controls, (*xs.shape[:-1], 2)))


def within(inputs: Array, x: Array, otherwise: float = 0.0) -> Array:
    """`x` [T, *batch, ...] at the steps of each sequence of a masked cell's inputs, and another number past it."""
    xp = namespace(x, inputs)
    past = inputs[..., HOLD] == 1
    past = xp.reshape(past, (*past.shape, *(1,) * (x.ndim - past.ndim)))
    return xp.where(past, xp.full_like(x, otherwise), x)


def _choose(control: Array, where_one: Any, where_zero: Any) -> Any:
    xp = namespace(control)
    return map_tree(lambda x, y: xp.where(control == 1, x, y), where_one, where_zero)


def _without(state: Any, control: Array) -> Any:
    """A state, or what is linear in it, with zeros where the control is 1."""
    xp = namespace(control)
    return map_tree(lambda x: xp.where(control == 1, xp.zeros_like(x), x), state)

"""A cell told at each step whether to stand still, or to start a new sequence first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstmx.arrays import Array, map_tree, namespace
from lstmx.cells.base import Cell, Layout
from lstmx.draws import Draws

CONTROLS = 2
"""Columns that inputs and pre-activations have beside the cell's own."""


class MaskedSlopes(NamedTuple):
    """The cell's own slopes and the two controls, [*batch, 1]."""

    inner: Any
    hold: Array
    reset: Array


@dataclass(frozen=True, repr=False)
class Masked(Cell):
    """A cell whose inputs carry two more columns, `hold` and `reset`, each 0 or 1.

    Where reset is 1, the step starts from the zero state, whatever came before. Where hold is 1, the state after
    is the state before: past a sequence's end, its state stands still. `run` and `record` make it of `lengths` and
    `resets`; all that a cell can do, it can do, so that every analysis takes padded batches for what they are.

    Attributes:
        cell: the cell that moves.
    """

    cell: Cell

    @property
    def input_size(self) -> int:  # type: ignore  # a field of the other cells
        return self.cell.input_size + CONTROLS

    @property
    def hidden_size(self) -> int:  # type: ignore  # as above
        return self.cell.hidden_size

    def __repr__(self) -> str:
        return f"{self.cell!r} with lengths or resets"

    # --------------------------------------------------------------------------------------- structure

    @property
    def gate_type(self) -> type[Any]:  # type: ignore  # of the class in the other cells
        return self.cell.gate_type

    @property
    def state_type(self) -> type[Any]:
        return self.cell.state_type

    @property
    def layout(self) -> Layout:
        return self.cell.layout

    @property
    def bounded(self) -> bool:
        return self.cell.bounded

    @property
    def preactivation_size(self) -> int:
        return self.cell.preactivation_size + CONTROLS

    @property
    def reads(self) -> tuple[str, ...]:
        return self.state_type._fields  # what stands still is read whole

    def parameter_shapes(self) -> Any:
        return self.cell.parameter_shapes()

    def draw(self, draws: Draws, dtype: Any) -> Any:
        return self.cell.draw(draws, dtype)

    # --------------------------------------------------------------------------------------- forward

    def drive(self, params: Any, x: Array) -> Array:
        own, controls = _split(x)
        return _beside(self.cell.drive(params, own), controls)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        own, controls = _split(drive)
        return _beside(self.cell.driven(params, _opened(before, controls[..., 1:]), own), controls)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        preactivations = self.cell.joined(params)

        def joined(before: Any, x: Array) -> Array:
            own, controls = _split(x)
            return _beside(preactivations(_opened(before, controls[..., 1:]), own), controls)

        return joined

    def gates(self, a: Array) -> Any:
        return self.cell.gates(_split(a)[0])

    def active(self, a: Array) -> Array:
        return a[..., -CONTROLS] == 0

    def log_retention(self, a: Array) -> Array:
        xp, controls = namespace(a), _split(a)[1]
        log = super().log_retention(a)
        log = xp.where(controls[..., :1] == 1, xp.zeros_like(log), log)
        return xp.where(controls[..., 1:] == 1, -xp.inf, log)

    def update(self, before: Any, a: Array) -> Any:
        own, controls = _split(a)
        before = _opened(before, controls[..., 1:])
        return _choose(controls[..., :1], before, self.cell.update(before, own))

    def push(self, params: Any, slopes: MaskedSlopes, tangent: Any, x_tangent: Array | None) -> Any:
        tangent = None if tangent is None else _opened(tangent, slopes.reset)
        own = None if x_tangent is None else _split(x_tangent)[0]
        moved = self.cell.push(params, slopes.inner, tangent, own)
        still = map_tree(namespace(slopes.hold).zeros_like, moved) if tangent is None else tangent
        return _choose(slopes.hold, still, moved)

    # --------------------------------------------------------------------------------------- backward

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> MaskedSlopes:
        own, controls = _split(a)
        inner = self.cell.linearise(params, _opened(before, controls[..., 1:]), own, after)
        return MaskedSlopes(inner, controls[..., :1], controls[..., 1:])

    def transposed(self, params: Any) -> Any:
        return self.cell.transposed(params)

    def total_cotangent(self, slopes: MaskedSlopes, cotangent: Any) -> Any:
        return _choose(slopes.hold, cotangent, self.cell.total_cotangent(slopes.inner, cotangent))

    def pull(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> tuple[Any, Array]:
        moved, d_a = self.cell.pull(transposed, slopes.inner, _moving(slopes, cotangent))
        return _opened(_choose(slopes.hold, cotangent, moved), slopes.reset), self._padded(d_a)

    def straight(self, slopes: MaskedSlopes, cotangent: Any) -> Any:
        moved = self.cell.straight(slopes.inner, _moving(slopes, cotangent))
        return _opened(_choose(slopes.hold, cotangent, moved), slopes.reset)

    def preactivation_cotangent(self, transposed: Any, slopes: MaskedSlopes, cotangent: Any) -> Array:
        moving = _moving(slopes, cotangent)
        return self._padded(self.cell.preactivation_cotangent(transposed, slopes.inner, moving))

    def ways(self, transposed: Any, slopes: MaskedSlopes, a_cotangent: Array) -> dict[str, Any]:
        ways = self.cell.ways(transposed, slopes.inner, _split(a_cotangent)[0])
        return {name: _opened(way, slopes.reset) for name, way in ways.items()}

    def pairs(self, slopes: MaskedSlopes, before: Any, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        return self.cell.pairs(slopes.inner, _opened(before, slopes.reset), _split(a_cotangent)[0])

    def input_cotangent(self, params: Any, a_cotangent: Array) -> Array:
        return self._padded(self.cell.input_cotangent(params, _split(a_cotangent)[0]))

    def parameter_cotangent(
        self, slopes: MaskedSlopes, before: Any, x: Array, after: Any, a_cotangent: Array
    ) -> Any:
        before, x = _opened(before, slopes.reset), _split(x)[0]
        return self.cell.parameter_cotangent(slopes.inner, before, x, after, _split(a_cotangent)[0])

    def log_determinant(self, params: Any, slopes: MaskedSlopes) -> Array | None:
        found = self.cell.log_determinant(params, slopes.inner)
        if found is None:
            return None
        xp, hold = namespace(found), slopes.hold[..., 0]
        found = xp.where(hold == 1, xp.zeros_like(found), found)
        return xp.where(slopes.reset[..., 0] == 1, -xp.inf, found)

    def critical_gain(self, biases: dict[str, float]) -> float:
        return self.cell.critical_gain(biases)

    def _padded(self, own: Array) -> Array:
        """With zeros for the controls."""
        return _beside(own, namespace(own).zeros((*own.shape[:-1], CONTROLS), dtype=own.dtype))


def controlled(cell: Cell, xs: Array, hold: Array, reset: Array) -> tuple[Masked, Array]:
    """The masked cell and its inputs, from controls [T, *batch]."""
    xp = namespace(xs, hold, reset)
    controls = xp.stack([hold, reset], axis=-1).astype(xs.dtype)
    return Masked(cell), xp.concat([xs, xp.broadcast_to(controls, (*xs.shape[:-1], CONTROLS))], axis=-1)


def _split(packed: Array) -> tuple[Array, Array]:
    """The cell's own columns, and the controls."""
    return packed[..., :-CONTROLS], packed[..., -CONTROLS:]


def _beside(own: Array, controls: Array) -> Array:
    return namespace(own, controls).concat([own, controls], axis=-1)


def _choose(control: Array, where_one: Any, where_zero: Any) -> Any:
    xp = namespace(control)
    return map_tree(lambda x, y: xp.where(control == 1, x, y), where_one, where_zero)


def _opened(state: Any, reset: Array) -> Any:
    """A state, or what is linear in it, with zeros where a new sequence starts."""
    xp = namespace(reset)
    return map_tree(lambda x: xp.where(reset == 1, xp.zeros_like(x), x), state)


def _moving(slopes: MaskedSlopes, cotangent: Any) -> Any:
    """The cotangent with zeros where the state stands still."""
    return _opened(cotangent, slopes.hold)

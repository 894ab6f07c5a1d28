"""What cells around another cell share: the inner cell's structure, and columns of controls beside its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells.base import Cell, Layout
from lstmx.draws import Draws


class Wrapped(Cell):
    """A cell around another one.

    Its inputs and pre-activations are the inner cell's with `own_controls` columns behind them, which say at each
    step what is to happen to the state.

    Attributes:
        cell: the inner cell.
    """

    cell: Cell

    @property
    @abstractmethod
    def own_controls(self) -> int:
        """Columns of controls."""

    @property
    def controls(self) -> int:
        return self.own_controls + self.cell.controls

    @property
    def input_size(self) -> int:  # type: ignore  # a field of the cells that are no wrappers
        return self.cell.input_size + self.own_controls

    @property
    def hidden_size(self) -> int:  # type: ignore  # as above
        return self.cell.hidden_size

    @property
    def gate_type(self) -> type[Any]:  # type: ignore  # of the class in the other cells
        return self.cell.gate_type

    @property
    def state_type(self) -> type[Any]:
        return self.cell.state_type

    @property
    def field_sizes(self) -> tuple[int, ...]:
        return self.cell.field_sizes

    @property
    def layout(self) -> Layout:
        return self.cell.layout

    @property
    def bounded(self) -> bool:
        return self.cell.bounded

    @property
    def preactivation_size(self) -> int:
        return self.cell.preactivation_size + self.own_controls

    @property
    def reads(self) -> tuple[str, ...]:
        return self.state_type._fields  # what is kept is read whole

    def parameter_shapes(self) -> Any:
        return self.cell.parameter_shapes()

    def draw(self, draws: Draws, dtype: Any) -> Any:
        return self.cell.draw(draws, dtype)

    def transposed(self, params: Any) -> Any:
        return self.cell.transposed(params)

    def critical_gain(self, biases: dict[str, float]) -> float:
        return self.cell.critical_gain(biases)

    def logarithms(self, a: Array) -> tuple[Array, Array]:
        raise ValueError(f"parallel=True takes a cell as it is; {self} adds to one what is no linear recurrence")

    @property
    def gates_read_state(self) -> bool:
        return self.cell.gates_read_state

    def readings(self, before: Any, a: Array) -> Any:
        return self.cell.readings(*self.inner(before, a))

    def gate_logit(self, name: str, before: Any, a: Array) -> Array:
        return self.cell.gate_logit(name, *self.inner(before, a))

    def retention_biases(self, values: Array) -> dict[str, Array]:
        return self.cell.retention_biases(values)

    def inner(self, before: Any, a: Array) -> tuple[Any, Array]:
        """State before and pre-activations of the inner cell's step; None stays None."""
        own, controls = self.split(a)
        return None if before is None else self.opened(before, controls), own

    def settle(self, before: Any, gates: Any, a: Array) -> Any:
        raise NotImplementedError(f"a step of {self!r} is not unfolded; `record` refuses to edit it")

    # What a wrapper does to the state before a step begins: nothing, unless it says so.

    def opened(self, state: Any, controls: Array) -> Any:
        """The state that the inner cell's step starts from, linear in the state before."""
        del controls
        return state

    def drive(self, params: Any, x: Array) -> Array:
        own, controls = self.split(x)
        return self.beside(self.cell.drive(params, own), controls)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        own, controls = self.split(drive)
        return self.beside(self.cell.driven(params, self.opened(before, controls), own), controls)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        preactivations = self.cell.joined(params)

        def joined(before: Any, x: Array) -> Array:
            own, controls = self.split(x)
            return self.beside(preactivations(self.opened(before, controls), own), controls)

        return joined

    def input_cotangent(self, params: Any, a_cotangent: Array) -> Array:
        return self.padded(self.cell.input_cotangent(params, self.split(a_cotangent)[0]))

    def split(self, packed: Array) -> tuple[Array, Array]:
        """The inner cell's columns, and the controls."""
        at = packed.shape[-1] - self.own_controls
        return packed[..., :at], packed[..., at:]

    def beside(self, own: Array, controls: Array) -> Array:
        """Columns of the inner cell and controls in one array."""
        return namespace(own, controls).concat([own, controls], axis=-1) if self.own_controls else own

    def padded(self, own: Array) -> Array:
        """Columns of the inner cell with zeros for the controls."""
        return self.beside(own, namespace(own).zeros((*own.shape[:-1], self.own_controls), dtype=own.dtype))

"""Zoneout: units that keep their state for a step, at random or in the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells.base import Cell, Layout, P, S, passed_on
from lstmx.checks import cells_of, finite_number
from lstmx.draws import Draws


@dataclass(frozen=True, repr=False)
class Zoneout(Cell[P, S]):
    """A cell whose units keep their old state with some probability, each field of the state on its own.

        s_t = d_t ∘ s_{t-1} + (1 − d_t) ∘ F(s_{t-1}, x_t)

    with F the inner cell's step. Where `run` or `record` gets a key, d_t is drawn anew for each unit, field and
    step, 1 with the field's probability, else 0; without a key it is that probability, as is usual once a network
    is trained. A history holds what was drawn in its `controls`, and every analysis is of the steps as they were.

    An LSTM's h_t is that of the new cell state, before c_{t-1} is mixed into it. Gates, candidates and
    pre-activations are those of the inner cell.

    Attributes:
        cell: the inner cell.
        hidden: probability with which a unit's h_{t-1} is kept.
        state: probability of each other field, such as an LSTM's c_{t-1}.

    Raises:
        TypeError: `cell` is not a cell with gates and equations of its own: a step function, or a Zoneout.
        ValueError: a probability outside [0, 1]; or an SLSTM, whose fields cannot be mixed one by one.

    References:
        Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017 (arXiv
        1606.01305).
    """

    cell: Cell[P, S]
    hidden: float = 0.1
    state: float = 0.1

    def __repr__(self) -> str:
        return f"Zoneout({self.cell!r}, hidden={self.hidden}, state={self.state})"

    def __post_init__(self) -> None:
        cells_of("cell", self.cell, layers=False)
        if isinstance(self.cell, Zoneout):
            raise TypeError("cell is a Zoneout; expected the cell inside, with the probabilities of both together")
        if not self.cell.closed_form:
            raise TypeError(
                f"cell is {self.cell!r}; Zoneout is of the cells of the library, not of a step function"
            )
        if "stabiliser" in self.cell.state_type._fields:
            raise ValueError(
                f"cell is {self.cell}, whose c, n and m mean something only together; Zoneout mixes them apart"
            )
        for name in ("hidden", "state"):
            finite_number(name, getattr(self, name), "a probability from 0 to 1", lambda x: 0 <= x <= 1)

    @property
    def core(self) -> Cell[P, S]:
        return self.cell

    def masks(self, draws: Draws, lead: tuple[int, ...], dtype: Any) -> Any:
        """d_t of every field and step: a state with fields [*lead, H] of 0 and 1."""
        return self.state_type(
            *(
                (draws.uniform((*lead, size), dtype, 0.0, 1.0) < rate).astype(dtype)
                for size, rate in zip(self.field_sizes, self._rates, strict=True)
            )
        )

    def kept(self, drawn: Any) -> Any:
        """d_t by field: what was drawn, or without a draw the probabilities."""
        return self.state_type(*self._rates) if drawn is None else drawn

    @property
    def _rates(self) -> tuple[float, ...]:
        return float(self.hidden), *(float(self.state) for _ in self.state_type._fields[1:])

    # ------------------------------------------------------------------ all else is that of the inner cell

    input_size = passed_on("cell.input_size")
    hidden_size = passed_on("cell.hidden_size")
    gate_type = passed_on("cell.gate_type")
    parameter_shapes = passed_on("cell.parameter_shapes")
    draw = passed_on("cell.draw")
    readings = passed_on("cell.readings")
    gate_activation = passed_on("cell.gate_activation")
    gate_logit = passed_on("cell.gate_logit")
    retention_biases = passed_on("cell.retention_biases")
    driven = passed_on("cell.driven")
    critical_gain = passed_on("cell.critical_gain")  # D + (1 − D) J_F has the eigenvalue 1 where J_F has it

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
        return self.cell.preactivation_size

    @property
    def gates_read_state(self) -> bool:
        return self.cell.gates_read_state

    @property
    def recurrence(self) -> Any:
        return self.cell.recurrence

    def settle(self, before: Any, gates: Any, a: Array) -> Any:
        return self.mixed(before, self.cell.settle(before, gates, a))

    def update(self, before: Any, a: Array) -> Any:
        return self.mixed(before, self.cell.update(before, a))

    def mixed(self, before: Any, after: Any, drawn: Any = None) -> Any:
        """The state after, from the state before and the inner cell's state after."""
        return type(after)(
            *(d * old + (1 - d) * new for d, old, new in zip(self.kept(drawn), before, after, strict=True))
        )

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> Any:
        raise TypeError(f"the linear map of a step of {self!r} is lstmx.linearise(history)")

    def logarithms(self, a: Array) -> tuple[Array, Array]:
        raise ValueError(f"parallel=True takes a cell as it is; {self} adds to one what is no linear recurrence")


def packed_rates(cell: Cell, drawn: Any, like: Array) -> Array:
    """d_t as one array: what was drawn [*lead, S], or [S] of the probabilities in the dtype of `like`."""
    xp = namespace(like)
    if drawn is not None:
        return xp.concat(list(drawn), axis=-1)
    parts = zip(cell.kept(None), cell.field_sizes, strict=True)
    return xp.concat([xp.full(size, rate, dtype=like.dtype) for rate, size in parts])

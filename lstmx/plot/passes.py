"""One sequence of a recorded pass as the figures read it, whatever the cell and the state are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx.cells import StepFunction
from lstmx.checks import within_unit
from lstmx.editing import Edited
from lstmx.history import History
from lstmx.plot import canvas


class Shown(NamedTuple):
    """An array of a pass over time.

    Attributes:
        values: flattened behind the axis of time, [T, n].
        row: what a column of `values` is, as an axis is labelled.
    """

    values: np.ndarray
    row: str


class Pass(NamedTuple):
    """What a figure shows of one sequence, in NumPy; rows of steps that do not count are not to be drawn.

    Attributes:
        kind: what the cell is called.
        closed_form: whether it is a cell of equations, whose states and gates are of units.
        retention_gate: the gate that multiplies its old state; None without one.
        inputs: x_t, [T, D].
        output: h_t, [T, H].
        states: each array of the state, by the name that it has in a history.
        gates: what lies in [0, 1], by name.
        activations: what else the history shows, by name.
        counts: whether each step counts, [T]; None where all do.
    """

    kind: str
    closed_form: bool
    retention_gate: str | None
    inputs: np.ndarray
    output: np.ndarray
    states: dict[str, Shown]
    gates: dict[str, Shown]
    activations: dict[str, Shown]
    counts: np.ndarray | None

    @property
    def steps(self) -> str:
        """How many steps there are, and of how many where some do not count, in words."""
        return steps_in_words(len(self.inputs), self.counts)


def one_pass(history: History | Edited, index: tuple[int, ...], in_time: Any = np.asarray) -> Pass:
    """One sequence of a pass.

    Args:
        history: the pass of a cell.
        index: of the sequence, one integer for each batch axis.
        in_time: brings rows [T, ...] into the order of time.
    """
    one, cell = history.sequence(*index), history.cell
    if cell.closed_form:
        one = one.to_numpy()

    def shown(x: Any) -> Shown:
        values = in_time(np.asarray(x))
        of = f" of {' × '.join(map(str, values.shape[1:]))}" if values.ndim > 2 else ""
        return Shown(values.reshape(len(values), -1), "unit" if cell.closed_form else f"entry{of}")

    activations = {name: shown(x) for name, x in one.gates._asdict().items()}
    gates = {name: activations.pop(name) for name in cell.gate_names}
    counts = None if one.counts is None else in_time(np.asarray(one.counts))
    for name, gate in {} if cell.closed_form else gates.items():
        within_unit(name, gate.values if counts is None else gate.values[counts])
    kind = cell.name if isinstance(cell, StepFunction) else type(cell.core).__name__
    return Pass(
        kind if cell.core is cell else f"{kind} with zoneout",
        cell.closed_form,
        cell.retention_gate,
        shown(one.inputs).values,
        shown(one.hidden_state).values,
        {f"{name}_state": shown(x) for name, x in cell.named_fields(one.states).items()},
        gates,
        activations,
        counts,
    )


def steps_in_words(length: int, counts: np.ndarray | None) -> str:
    """`length` steps, or how many of them count, in words."""
    number = length if counts is None else int(counts.sum())
    return f"{number:,}" + (f" of {length:,}" if number < length else "") + f" step{'s' * (length != 1)}"


def units_of(one: Pass, units: Any, name: str) -> np.ndarray | None:
    """The caller's units as `canvas.units_for` gives them, of a pass whose state has such."""
    if units is not None and not one.closed_form:
        raise ValueError(f"units is {units}; the state of {name}, of a step function, has no units: expected None")
    return canvas.units_for(units, one.output.shape[1], name)

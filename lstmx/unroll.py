"""`run` and `record`: a cell over time."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, jit, scan
from lstmx.cells.base import Cell
from lstmx.checks import door, one_of
from lstmx.history import History


def run(cell: Cell, params: Any, xs: Array, state: Any = None) -> tuple[Array, Any]:
    """Run a cell over sequences and return its outputs.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.

    Returns:
        The outputs h_t [T, *batch, H] and the final state, fields [*batch, H].

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> outputs, final = lstmx.run(cell, params, numpy.ones((5, 3), "float32"))
        >>> outputs.shape, final.cell.shape
        ((5, 8), (8,))
    """
    _, params, xs, state = door(cell, params, xs, state)
    return _run(cell, params, xs, state)


def record(cell: Cell, params: Any, xs: Array, state: Any = None, *, keep: str = "all") -> History:
    """Run a cell over sequences and keep what every analysis needs.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.
        keep: "all" stores pre-activations and states; "states" stores the states only (a third of the memory
            for an LSTM) and rebuilds the pre-activations on demand, by one matrix product.

    Returns:
        The history, with its cell, parameters and initial state.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape, or `keep` is another word.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((5, 3), "float32"))
        >>> history.forget_gate.shape, len(history[2:4])
        ((5, 8), 2)
    """
    one_of("keep", keep, ("all", "states"))
    _, params, xs, state = door(cell, params, xs, state)
    states, stored = _record(cell, params, xs, state, keep=keep)
    return History(cell, params, state, xs, states, stored)


@jit(static=("cell",))
def _run(cell: Cell, params: Any, xs: Array, state: Any) -> tuple[Array, Any]:
    def step(before: Any, x: Array) -> tuple[Any, Array]:
        after, _ = cell.step(params, before, x)
        return after, after.hidden

    final, outputs = scan(step, state, xs)
    return outputs, final


@jit(static=("cell", "keep"))
def _record(cell: Cell, params: Any, xs: Array, state: Any, keep: str) -> tuple[Any, Array | None]:
    def step(before: Any, x: Array) -> tuple[Any, Any]:
        after, a = cell.step(params, before, x)
        return after, (after, a if keep == "all" else None)

    _, (states, stored) = scan(step, state, xs)
    return states, stored

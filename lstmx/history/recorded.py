"""`History`: what one pass of a cell over its inputs left behind, and what can be read off it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_jax, is_traced, log_sigmoid, map_tree, namespace, result, to_numpy
from lstmx.cells.base import Cell
from lstmx.cells.masked import HOLD, RESET, Masked, within
from lstmx.checks import dead


@result(static=("cell",))
class History:
    """Inputs, pre-activations and states of one pass; gates are derived from these.

    Every gate of the cell is an attribute, [T, *batch, H]: `input_gate`, `forget_gate`, `candidate` and
    `output_gate` for the LSTM, `reset_gate`, `update_gate` and `candidate` for the GRU. Gates lie in [0, 1];
    a pre-activation does not, and has its own name. An LSTM's c_t is `cell_state`; `log_forget` is the natural log
    of its forget gate, exact where the gate rounds to 0 or to 1.

    Attributes:
        cell: the cell that ran.
        params: its parameters.
        initial: the state before the first step, fields [*batch, H].
        inputs: x_t, [T, *batch, D].
        states: state after each step, fields [T, *batch, H].
        stored: the pre-activations a_t [T, *batch, blocks·H], or None where only states were kept; read
            `preactivations`, which rebuilds them on demand.
    """

    cell: Cell
    params: Any
    initial: Any
    inputs: Array
    states: Any
    stored: Array | None

    @property
    def hidden_state(self) -> Array:
        """h_t, [T, *batch, H]."""
        return self.states.hidden

    @property
    def final(self) -> Any:
        """The state after the last step, fields [*batch, H]."""
        return map_tree(lambda x: x[-1], self.states)

    @property
    def before(self) -> Any:
        """The state before each step, fields [T, *batch, H]: the initial state, then all but the last."""
        xp = namespace(*self.states)
        return map_tree(lambda first, x: xp.concat([first[None], x[:-1]]), self.initial, self.states)

    @property
    def preactivations(self) -> Array:
        """a_t, [T, *batch, blocks·H], stored or rebuilt from inputs and states by one matrix product."""
        if self.stored is not None:
            return self.stored
        return self.cell.preactivations(self.params, self.before, self.inputs)

    @property
    def slopes(self) -> Any:
        """The cell's linearisation of each step: the factors of its one-step Jacobian, fields [T, *batch, H]."""
        return self.cell.linearise(self.params, self.before, self.preactivations, self.states)

    @property
    def read_by_gates(self) -> Any:
        """The state before each step where the cell's gates read it beside pre-activations; else None."""
        return self.before if self.cell.gates_read_state else None

    @property
    def gates(self) -> Any:
        """All gate activations, a NamedTuple of [T, *batch, H]."""
        return self.cell.readings(self.read_by_gates, self.preactivations)

    def log_gate(self, name: str) -> Array:
        """Natural log of a sigmoid gate, [T, *batch, H], from its pre-activation.

        Raises:
            AttributeError: the cell has no sigmoid gate of this name.
        """
        if name not in self.cell.gate_names:
            raise AttributeError(self._no_attribute(name))
        return log_sigmoid(self.cell.gate_logit(name, self.read_by_gates, self.preactivations))

    def __getattr__(self, name: str) -> Array:
        # Reached only for names that are no field and no property: what depends on this history's cell.
        if name.startswith("_") or name in History.__dataclass_fields__:
            if "cell" in self.__dict__ and name in ("states", "stored"):
                raise dead("history", name)
            raise AttributeError(name)  # while it is copied or unpickled, before it has a cell to ask
        if name == "log_forget":
            return self.log_gate("forget_gate")
        if name == "cell_state":
            if "cell" in self.cell.state_type._fields:
                return self.states.cell
            raise AttributeError(f"a {type(self.cell).__name__} has no cell state; its history has hidden_state")
        if name in self.cell.gate_type._fields:
            return getattr(self.gates, name)
        raise AttributeError(self._no_attribute(name))

    def _no_attribute(self, name: str) -> str:
        known = ", ".join(self.cell.gate_type._fields)
        return f"the history of a {type(self.cell).__name__} has no {name}; its gates and activations are: {known}"

    def __dir__(self) -> list[str]:
        states = {f"{name}_state" for name in self.cell.state_type._fields}
        logs = {"log_forget"} & {f"log_{name.removesuffix('_gate')}" for name in self.cell.gate_names}
        return sorted({*super().__dir__(), *states, *logs, *self.cell.gate_type._fields})

    def __len__(self) -> int:
        """The number of steps T."""
        return self.inputs.shape[0]

    @property
    def data(self) -> tuple[Any, ...]:
        """What the history holds beside its cell: params, initial, inputs, states, stored; a tree of arrays."""
        return self.params, self.initial, self.inputs, self.states, self.stored

    @property
    def features(self) -> Array:
        """The inputs x_t [T, *batch, D] without what `lengths`, `resets` and a key put beside them."""
        return self.own_features(self.inputs)

    @property
    def lengths(self) -> Array:
        """Steps of each sequence, [*batch]; T where no lengths were given."""
        xp = namespace(self.inputs)
        if not isinstance(self.cell, Masked):
            return xp.full(self.batch, len(self))
        return xp.sum((self.inputs[..., HOLD] == 0).astype(int), axis=0)

    @property
    def resets(self) -> bool:
        """Whether a sequence starts anew within the pass; not inside a JAX transformation."""
        return isinstance(self.cell, Masked) and bool((self.inputs[1:, ..., RESET] == 1).any())

    def own_features(self, x: Array) -> Array:
        """Of numbers for each input column, those for the cell's own features."""
        return x[..., : self.cell.input_size - self.cell.controls] if self.cell.controls else x

    def within(self, x: Array, otherwise: float = 0.0) -> Array:
        """`x` [T, *batch, ...] at the steps of each sequence, and another number past its end."""
        return within(self.inputs, x, otherwise) if isinstance(self.cell, Masked) else x

    def pieces(self) -> list[History]:
        """Every sequence as a history of its own: row by row of the batch, cut at its length and its resets.

        Raises:
            TypeError: the history is inside a JAX transformation, where lengths are no numbers.
        """
        if is_traced(self.inputs):
            raise TypeError("pieces of a history have lengths of their own, unknown inside a JAX transformation")
        found = []
        for index in np.ndindex(*self.batch):
            row = self.sequence(*index)
            if not isinstance(row.cell, Masked):
                found.append(row)
                continue
            hold, reset = np.asarray(row.inputs[:, HOLD:]).T == 1
            length = len(row) - int(hold.sum())
            starts = [0, *(int(t) for t in np.flatnonzero(reset[:length]) if t)]
            found += [row._piece(a, b) for a, b in itertools.pairwise([*starts, length])]
        return found

    def _piece(self, start: int, stop: int) -> History:
        """A stretch without holds and resets inside, as a history of the cell that is masked."""
        part, masked = self[start:stop], self.cell
        assert isinstance(masked, Masked)
        cell = masked.cell
        zero = cell.initial_state(self.params, self.batch)
        first = zero if bool(part.inputs[0, RESET] == 1) else part.initial
        stored = None if part.stored is None else masked.split(part.stored)[0]
        return History(cell, self.params, first, masked.split(part.inputs)[0], part.states, stored)

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return tuple(self.inputs.shape[1:-1])

    def __getitem__(self, steps: slice) -> History:
        """A stretch of time as a history of its own, whose initial state is the one before its first step.

        Raises:
            TypeError: not a slice.
            ValueError: a slice with a stride, or an empty one.
        """
        start, stop = span(steps, len(self))
        initial = self.initial if start == 0 else map_tree(lambda x: x[start - 1], self.states)
        cut = map_tree(lambda x: x[start:stop], (self.inputs, self.states, self.stored))
        return History(self.cell, self.params, initial, *cut)

    def __iter__(self) -> Any:
        raise TypeError("a history is not iterated step by step; use its arrays, such as history.hidden_state")

    def sequence(self, *index: int) -> History:
        """One sequence of a batch as a history without batch axes.

        Args:
            *index: one integer per batch axis; none for a history without batch axes.

        Raises:
            TypeError: an index is no integer.
            ValueError: not one index per batch axis.
            IndexError: an index outside its axis.
        """
        if len(index) != len(self.batch):
            raise ValueError(f"{len(index)} indices for batch axes {self.batch}; expected one for each")
        for position, size in zip(index, self.batch, strict=True):
            if isinstance(position, bool) or not hasattr(position, "__index__"):
                raise TypeError(f"sequence index {position!r} is not an integer")
            if not -size <= position < size:
                raise IndexError(f"sequence index {index} is outside the batch axes {self.batch}")
        initial = map_tree(lambda x: x[index], self.initial)
        cut = map_tree(lambda x: x[(slice(None), *index)], (self.inputs, self.states, self.stored))
        return History(self.cell, self.params, initial, *cut)

    def save(self, path: str | Path) -> None:
        """Write this history into a new folder as Zarr, chunked over time and compressed, for `load_history`.

        `zarr.open(path)` and `xarray.open_zarr(path, consolidated=False)` read it, too. The folder appears once it
        is complete. `record(..., into=path)` writes one while it runs.

        Args:
            path: the folder.

        Raises:
            FileExistsError: there is something at `path`.
            OSError: it cannot be written, as on a full disk.
            TypeError: the history is inside a JAX transformation, or its cell is not of the library.
            ImportError: zarr is not installed.
        """
        from lstmx.history.stored import save

        if is_traced(self.data):
            raise TypeError("this history is inside a JAX transformation, and has no numbers to save")
        save(self, path)

    def to_xarray(self) -> Any:
        """This history as an `xarray.Dataset` with named axes, copied to NumPy.

        Axes are time, the batch axes (`batch`, or `batch_0`, `batch_1`, …), `unit` and `feature`. Variables are
        `inputs`, each state (`hidden_state`, `cell_state`), each gate under its name, where they are stored the
        `preactivations` (by `block` and unit, or in one row where blocks differ in width), and parameters and
        initial state as `parameter_…` and `initial_…`. Each has a long name and units; attributes say which cell
        ran.

        Raises:
            TypeError: the history is inside a JAX transformation, or its cell is not of the library.
            ImportError: xarray is not installed.
        """
        from lstmx.history.dataset import dataset_of

        return dataset_of(self)

    @staticmethod
    def from_xarray(dataset: Any) -> History:
        """The history that `to_xarray` made this `xarray.Dataset` of, or that `xarray.open_zarr` opens.

        Gates are not read: they follow from pre-activations. Arrays are of the library that recorded them, NumPy
        where JAX is not installed.

        Raises:
            TypeError: this is no `xarray.Dataset`.
            ValueError: it is of no history or of another format; a variable is missing or has other axes or
                another shape; it has a part of the steps only; or it is float64 in JAX without float64.
            ImportError: xarray is not installed.
        """
        from lstmx.history.dataset import history_from

        return history_from(dataset)

    def to_numpy(self) -> History:
        """This history with every array copied to NumPy, so that what follows runs in NumPy."""
        return History(self.cell, *to_numpy(self.data))

    @staticmethod
    def concatenate(*histories: History) -> History:
        """Join histories that follow one another: each starts in the state that the one before it ended in.

        Raises:
            TypeError: something given is not a history.
            ValueError: none given, other cells or parameters, other batch axes, or a gap between two.
        """
        if not histories:
            raise ValueError("concatenate needs at least one history")
        for position, history in enumerate(histories):
            if not isinstance(history, History):
                raise TypeError(f"history {position} is a {type(history).__name__}; expected a History")
            if position:
                _check_continues(position, histories[position - 1], history)
        stored = all(history.stored is not None for history in histories)
        parts = [(h.inputs, h.states, h.stored if stored else None) for h in histories]
        xp = namespace(*(h.inputs for h in histories))
        joined = map_tree(lambda *arrays: xp.concat(arrays), *parts)
        return History(histories[0].cell, histories[0].params, histories[0].initial, *joined)

    def summary(self) -> str:
        """Range of the final state, and mean and standard deviation of each gate, a line each."""
        lines = [repr(self)]
        for name, value in self.final._asdict().items():
            low, high = np.min(np.asarray(value)), np.max(np.asarray(value))
            lines.append(f"final {name} state: from {low:+.4f} to {high:+.4f}")
        gates, active = self.gates, self.cell.active(self.preactivations)
        counted = ... if active is None else np.asarray(active)  # steps past a sequence's end do not count
        for name in self.cell.gate_names:
            gate = np.asarray(getattr(gates, name))[counted]
            lines.append(f"{name.replace('_', ' ')}: mean {gate.mean():.4f}, standard deviation {gate.std():.4f}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        kept = "states" if self.stored is None else "all"
        library = "JAX" if is_jax(namespace(self.inputs)) else "NumPy"
        batch = f", batch {self.batch}" if self.batch else ""
        return f"History({self.cell}: {len(self)} steps{batch}, {self.inputs.dtype}, {library}, keep={kept!r})"


def span(steps: Any, length: int) -> tuple[int, int]:
    """First step, and the one after the last, of `history[steps]`."""
    if not isinstance(steps, slice):
        raise TypeError(
            f"a history is sliced by time, history[start:stop]; got {steps!r}. "
            "For one sequence of a batch use history.sequence(...)"
        )
    start, stop, stride = steps.indices(length)
    if stride != 1:
        raise ValueError(f"history[{start}:{stop}:{stride}] skips steps; a history is contiguous in time")
    if start >= stop:
        raise ValueError(f"history[{start}:{stop}] is empty; this history has steps 0 to {length - 1}")
    return start, stop


def _check_continues(position: int, first: History, second: History) -> None:
    """Raise unless `second` is what followed `first`."""
    if second.cell != first.cell:
        raise ValueError(f"history {position} is of {second.cell}; the one before it is of {first.cell}")
    if second.batch != first.batch:
        raise ValueError(f"history {position} has batch axes {second.batch}; the one before it {first.batch}")
    for what, left, right in (
        ("other parameters than", first.params, second.params),
        ("an initial state that is not the final state of", first.final, second.initial),
    ):
        if is_traced(left, right) or all(a is b for a, b in zip(left, right, strict=True)):
            continue
        if not all(np.array_equal(a, b) for a, b in zip(left, right, strict=True)):
            raise ValueError(f"history {position} has {what} the one before it")

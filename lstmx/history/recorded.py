"""`History`: what one pass of a cell over its inputs left behind, and what can be read off it."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any, Generic

import numpy as np

from lstmx.arrays import Array, fetched, is_jax, is_traced, leaves, log, map_tree, namespace, result, to_numpy
from lstmx.cells.base import Cell, P, S
from lstmx.checks import dead, populated, savable
from lstmx.history.controls import Controls, where_held
from lstmx.history.dataset import dataset_of, parts_from
from lstmx.history.store import save, saving
from lstmx.strips import Strip, shown

_SHOWN = 2_000_000  # numbers of a gate up to which a notebook is shown every step


@result(static=("cell",))
class History(Generic[P, S]):
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
        stored: the pre-activations a_t [T, *batch, blocks·H], or what a step function shows by name, or None where
            only states were kept; read `preactivations`, which rebuilds them on demand.
        controls: which steps count, where sequences start anew, and what a Zoneout drew: a `Controls`; None where
            there is nothing to say.
    """

    cell: Cell[P, S]
    params: P
    initial: S
    inputs: Array
    states: S
    stored: Any
    controls: Controls | None = None

    @property
    def hidden_state(self) -> Array:
        """h_t, [T, *batch, H]; at a step that does not count that of the one before."""
        return self.cell.output(self.states)

    @property
    def outputs(self) -> Array:
        """What `run` returns: h_t, and 0 at the steps that do not count, [T, *batch, H]."""
        return self.where_counted(self.hidden_state)

    @property
    def final(self) -> S:
        """The state after the last step, fields [*batch, H]."""
        return map_tree(lambda x: x[-1], self.states)

    @property
    def before(self) -> S:
        """The state that each step starts from, fields [T, *batch, H].

        That is the initial state, then all but the last; zeros where a sequence starts anew.
        """
        xp = namespace(*leaves(self.states))
        before = map_tree(lambda first, x: xp.concat([first[None], x[:-1]]), self.initial, self.states)
        if self.controls is None or self.controls.reset is None:
            return before
        return self.cell.restarted(self.params, before, self.controls.reset)

    @property
    def preactivations(self) -> Array:
        """a_t, [T, *batch, blocks·H], stored or rebuilt from inputs and states by one matrix product."""
        if not self.cell.closed_form:
            raise TypeError(f"{self.cell} is a step function, which has no pre-activations")
        return self.kept_rows

    @property
    def kept_rows(self) -> Any:
        """What is stored of each step, rebuilt where only states were kept."""
        if self.stored is not None:
            return self.stored
        return self.cell.restored(self.params, self.before, self.inputs)

    @property
    def read_by_gates(self) -> Any:
        """The state before each step where the cell's gates read it beside pre-activations; else None."""
        return self.before if self.cell.gates_read_state else None

    @property
    def log_retention(self) -> Array:
        """Ln of the share of the old state that a step leaves along its retention gate, [T, *batch, H].

        What Zoneout keeps is counted; 0 at a step that does not count, −inf where a sequence starts anew.

        Raises:
            ValueError: no gate multiplies the cell's old state.
        """
        cell, controls = self.cell, self.controls or Controls()
        if cell.retention_gate is None:
            raise ValueError(f"a {type(cell).__name__} has no highway: no gate multiplies its old state")
        logs = cell.core.log_retention(self.read_by_gates, self.preactivations)
        kept = cell.kept(controls.kept)
        if kept is not None:
            share = namespace(logs).asarray(getattr(kept, "cell", kept.hidden), dtype=logs.dtype)
            logs = namespace(logs).logaddexp(log(share), log(1 - share) + logs)
        if controls.reset is not None:
            logs = where_held(controls.reset, logs, -math.inf)
        return where_held(controls.hold, logs)

    @property
    def gates(self) -> Any:
        """All gate activations, a NamedTuple of [T, *batch, H]."""
        return self.cell.readings(self.read_by_gates, self.kept_rows)

    def log_gate(self, name: str) -> Array:
        """Natural log of a gate, [T, *batch, H], from its pre-activation; −inf where a hard gate is 0.

        Raises:
            AttributeError: the cell has no gate of this name.
        """
        if name not in self.cell.gate_names:
            raise AttributeError(self._no_attribute(name))
        return self.cell.core.log_gate(name, self.read_by_gates, self.preactivations)

    def __getattr__(self, name: str) -> Array:
        # Reached only for names that are no field and no property: what depends on this history's cell.
        if name.startswith("_") or name in History.__dataclass_fields__:
            if "cell" in self.__dict__ and name in ("states", "stored"):
                raise dead("history", name)
            raise AttributeError(name)  # while it is copied or unpickled, before it has a cell to ask
        if name == "log_forget":
            return self.log_gate("forget_gate")
        states = {f"{field}_state": value for field, value in self.cell.named_fields(self.states).items()}
        if name in states:
            return states[name]
        if name == "cell_state":
            raise AttributeError(f"a {type(self.cell).__name__} has no cell state; its history has hidden_state")
        if name in self._shown:
            return getattr(self.gates, name)
        raise AttributeError(self._no_attribute(name))

    @property
    def _shown(self) -> tuple[str, ...]:
        """The names of what `gates` has."""
        return self.cell.gate_type._fields if self.cell.closed_form else tuple(self.kept_rows)

    def _no_attribute(self, name: str) -> str:
        known = ", ".join(self._shown) or "not one"
        return f"the history of a {type(self.cell).__name__} has no {name}; its gates and activations are: {known}"

    def __dir__(self) -> list[str]:
        states = {f"{name}_state" for name in self.cell.named_fields(self.states)}
        logs = {"log_forget"} & {f"log_{name.removesuffix('_gate')}" for name in self.cell.gate_names}
        return sorted({*super().__dir__(), *states, *logs, *self._shown})

    def __len__(self) -> int:
        """The number of steps T."""
        return self.inputs.shape[0]

    @property
    def counts(self) -> Array | None:
        """Whether each step counts, booleans [T, *batch]; None where all do."""
        return None if self.controls is None or self.controls.hold is None else ~self.controls.hold

    @property
    def lengths(self) -> Array:
        """Steps of each sequence that count, [*batch]."""
        xp = namespace(self.inputs)
        if self.counts is None:
            return xp.full(self.batch, len(self))
        return xp.sum(self.counts.astype(int), axis=0)

    @property
    def whole(self) -> bool:
        """Whether every step counts and none but the first starts a sequence."""
        return self.controls is None or (self.controls.hold is None and self.controls.reset is None)

    def where_counted(self, x: Array, otherwise: float = 0.0) -> Array:
        """`x` [T, *batch, ...] at the steps that count, and another number at the others."""
        return x if self.controls is None else where_held(self.controls.hold, x, otherwise)

    def with_gaps(self, first: bool) -> History[P, S]:
        """The same pass with the steps that do not count before or behind those that do, sequence by sequence."""
        if self.counts is None:
            return self
        xp = namespace(self.inputs)
        order = xp.argsort(self.counts if first else ~self.counts, axis=0, stable=True)

        def taken(x: Array) -> Array:
            return xp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - order.ndim)), axis=0)

        inputs, states, stored, controls = map_tree(taken, self.rows)
        still = self.initial if first else self.final
        states = map_tree(lambda x, y: where_held(controls.hold, x, y[None]), states, still)
        return self.stretch(self.initial, (inputs, states, stored, controls))

    def pieces(self) -> list[History[P, S]]:
        """Every sequence as a history of its own: row by row of the batch, its counted steps, cut at its resets.

        Raises:
            TypeError: the history is inside a JAX transformation, where lengths are no numbers.
        """
        if is_traced(self.inputs, self.controls):
            raise TypeError("pieces of a history have lengths of their own, unknown inside a JAX transformation")
        rows = (self.sequence(*index) for index in np.ndindex(*self.batch))
        return [piece for row in rows for piece in ([row] if row.whole else row._pieces())]

    def _pieces(self) -> list[History[P, S]]:
        """Of one sequence: stretches of its counted steps without a start inside."""
        hold, reset, kept = self.controls or Controls()
        steps = np.flatnonzero(~fetched(hold)) if hold is not None else np.arange(len(self))
        starts = [] if reset is None else [k for k in np.flatnonzero(fetched(reset)[steps]) if k]
        before, found = self.before, []
        for a, b in itertools.pairwise([0, *starts, len(steps)]):
            at = steps[a:b]
            initial = map_tree(lambda x, first=at[0]: x[first], before)
            cut = map_tree(lambda x, at=at: x[at], (self.inputs, self.states, self.stored, kept))
            controls = None if kept is None else Controls(kept=cut[3])
            found.append(History(self.cell, self.params, initial, *cut[:3], controls=controls))
        return found

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return tuple(self.inputs.shape[1:-1])

    def __getitem__(self, steps: slice) -> History[P, S]:
        """A stretch of time as a history of its own, whose initial state is the one before its first step.

        Raises:
            TypeError: not a slice.
            ValueError: a slice with a stride, or an empty one.
        """
        start, stop = span(steps, len(self))
        initial = self.initial if start == 0 else map_tree(lambda x: x[start - 1], self.states)
        return self.stretch(initial, map_tree(lambda x: x[start:stop], self.rows))

    @property
    def rows(self) -> tuple[Any, ...]:
        """What has an axis of time: inputs, states, what is stored and controls, a tree of [T, ...]."""
        return self.inputs, self.states, self.stored, self.controls

    def stretch(self, initial: Any, rows: tuple[Any, ...]) -> History[P, S]:
        """A history of the same cell and parameters with another initial state and other `rows`."""
        return History(self.cell, self.params, initial, *rows)

    def __iter__(self) -> Any:
        raise TypeError("a history is not iterated step by step; use its arrays, such as history.hidden_state")

    def sequence(self, *index: int) -> History[P, S]:
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
        return self.stretch(initial, map_tree(lambda x: x[(slice(None), *index)], self.rows))

    def save(self, path: str | Path) -> None:
        """Write this history into a new folder as Zarr, chunked over time and compressed, for `load_history`.

        `zarr.open(path)` and `xarray.open_zarr(path, consolidated=False)` read it, too. The folder appears once it
        is complete. `record_to(path, ...)` writes one while it runs. The equations of a step function, or of a
        cell of your own, are in no file: `load_history(path, cell=cell)` is told them.

        Args:
            path: the folder.

        Raises:
            FileExistsError: there is something at `path`.
            BlockingIOError: another process, or another thread, is writing there.
            ValueError: `path` is an address of another machine; or the history lies with several processes.
            OSError: it cannot be written, as on a full disk.
            TypeError: the history is inside a JAX transformation.
            ImportError: zarr is not installed.
        """
        savable(self)
        with saving(path) as partial:
            save(self, partial)

    def to_xarray(self) -> Any:
        """This history as an `xarray.Dataset` with named axes, copied to NumPy.

        Axes are time, the batch axes (`batch`, or `batch_0`, `batch_1`, …), `unit` and `feature`. Variables are
        `inputs`, each state (`hidden_state`, `cell_state`), each gate under its name, where they are stored the
        `preactivations` (by `block` and unit, or in one row where blocks differ in width), and parameters and
        initial state as `parameter_…` and `initial_…`; what a step function shows is `shown_…`. Which steps do
        not count is `hold`, which start a sequence `reset`, and what Zoneout kept `kept_…`. Each has a long name
        and units; attributes say which cell ran.

        Raises:
            TypeError: the history is inside a JAX transformation.
            ImportError: xarray is not installed.
        """
        return dataset_of(self)

    @staticmethod
    def from_xarray(dataset: Any, cell: Cell | None = None) -> History[Any, Any]:
        """The history that `to_xarray` made this `xarray.Dataset` of, or that `xarray.open_zarr` opens.

        Gates are not read: they follow from pre-activations. Arrays are of the library that recorded them, NumPy
        where JAX is not installed.

        Args:
            dataset: the dataset.
            cell: the cell where no file can hold it, as a step function; None for one that is described there.

        Raises:
            TypeError: this is no `xarray.Dataset`, or `cell` no cell.
            ValueError: it is of no history, of another cell or of another format; a variable is missing or has
                other axes or another shape; it has a part of the steps only; it is float64 in JAX without
                float64; or the cell is one that no file can hold, and is not given.
            ImportError: xarray is not installed.
        """
        return History(*parts_from(dataset, cell))

    def to_numpy(self) -> History[P, S]:
        """This history with every array copied to NumPy, so that what follows runs in NumPy."""
        return to_numpy(self)

    @staticmethod
    def concatenate(*histories: History[P, S]) -> History[P, S]:
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
        controls = _joint_controls(histories)
        parts = [
            (h.inputs, h.states, h.stored if stored else None, c) for h, c in zip(histories, controls, strict=True)
        ]
        xp = namespace(*(h.inputs for h in histories))
        return histories[0].stretch(histories[0].initial, map_tree(lambda *arrays: xp.concat(arrays), *parts))

    def summary(self) -> str:
        """Range of the final state, and mean and standard deviation of each gate over steps, sequences and units.

        Raises:
            ValueError: a batch without a sequence.
        """
        populated(self)
        lines = [repr(self)]
        for name, value in self.cell.named_fields(self.final).items():
            low, high = np.min(fetched(value)), np.max(fetched(value))
            lines.append(f"final {name} state: from {low:+.4f} to {high:+.4f}")
        gates = self.gates
        counted = ... if self.counts is None else fetched(self.counts)
        for name in self.cell.gate_names:
            gate = fetched(getattr(gates, name))[counted]
            lines.append(f"{name.replace('_', ' ')}: mean {gate.mean():.4f}, standard deviation {gate.std():.4f}")
        if len(self.cell.gate_names):
            lines.append("(of gates over all steps, sequences and units together)")
        return "\n".join(lines)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the cell and the pass, and its gates and states on the mean over units."""
        if 0 in self.batch:
            return None  # then it shows `repr`
        steps = range(len(self))
        if self.inputs.size // self.cell.input_size * self.cell.hidden_size > _SHOWN:
            steps = np.linspace(0, len(self) - 1, min(len(self), 120)).astype(int)  # gates of some steps only
        parts = [self] if isinstance(steps, range) else [self[step : step + 1] for step in steps]
        counts = None if self.counts is None else fetched(self.counts)[steps]
        named = [
            {f"{name}_state": x for name, x in self.cell.named_fields(part.states).items()} | part.gates._asdict()
            for part in parts
        ]
        strips = []
        for name in named[0]:
            values = np.concatenate([fetched(one[name], np.float64) for one in named])
            if counts is not None:
                values[~counts] = np.nan
            with warnings.catch_warnings(action="ignore"):  # of steps where nothing counts
                means = np.nanmean(values.reshape(len(values), -1), axis=1)
            strips.append(Strip(name.replace("_", " "), means, (0, 1) if name in self.cell.gate_names else None))
        return shown(repr(self), strips, f"{len(self):,} steps, each the mean over units and sequences")

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


def _joint_controls(histories: Any) -> list[Controls | None]:
    """The controls of histories that are joined: what one of them has, all have."""
    known = [history.controls or Controls() for history in histories]
    if any(c.kept is None for c in known) and any(c.kept is not None for c in known):
        raise ValueError(
            "of these histories some were recorded with a key and some without; expected one or the other"
        )
    if all(history.controls is None for history in histories):
        return [None] * len(known)

    def filled(name: str) -> list[Any]:
        found = [getattr(c, name) for c in known]
        if all(x is None for x in found):
            return found
        lead = [(namespace(h.inputs), h.inputs.shape[:-1]) for h in histories]
        return [xp.zeros(s, dtype=bool) if x is None else x for x, (xp, s) in zip(found, lead, strict=True)]

    return [Controls(*one) for one in zip(filled("hold"), filled("reset"), [c.kept for c in known], strict=True)]


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
        pairs = list(zip(leaves(left), leaves(right), strict=True))
        if is_traced(left, right) or all(a is b for a, b in pairs):
            continue
        if not all(np.array_equal(fetched(a), fetched(b)) for a, b in pairs):
            raise ValueError(f"history {position} has {what} the one before it")

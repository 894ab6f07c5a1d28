"""What a pass through layers leaves behind: outputs, or a history for each cell."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lstmx.arrays import Array, fetched, is_jax, namespace, require, result, to_numpy
from lstmx.cells.base import Cell
from lstmx.checks import Lacking, savable
from lstmx.history import History
from lstmx.history.recorded import span
from lstmx.history.schema import FORMAT, VERSION, batch_axes, told
from lstmx.history.store import save, saving
from lstmx.history.verified import checksummed, kept_whole
from lstmx.layers.base import Directions, Layers, Passing, Timing, flipped
from lstmx.layers.structures import KINDS, Bidirectional, Stack


class Outputs(NamedTuple):
    """What `run` gives: outputs [T, *batch, H] and final states."""

    outputs: Array
    final: Any


def outputs_passing(run: Callable[..., tuple[Array, Any]]) -> Passing:
    """Passes of `run`."""

    def one(cell: Cell, params: Any, xs: Array, state: Any, timing: Timing) -> Outputs:
        return Outputs(*run(cell, params, xs, state, **timing.options(cell)))

    def stacked(stack: Stack, params: Any, made: list[Outputs], masks: Any) -> Outputs:
        del params, masks
        return Outputs(made[-1].outputs, stack.tree([layer.final for layer in made]))

    def joined(pair: Bidirectional, params: Any, forward: Outputs, backward: Outputs) -> Outputs:
        del params
        outputs = pair.merged(forward.outputs, flipped(backward.outputs))
        return Outputs(outputs, Directions(forward.final, backward.final))

    return Passing(one, stacked, joined)


class LayeredPass(Lacking):
    """What passes of a stack and of two directions share, recorded or edited."""

    cell: Any
    params: Any

    @property
    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """The histories inside, by the layers' names."""

    @property
    @abstractmethod
    def outputs(self) -> Array:
        """What the top gives, [T, *batch, H]; 0 at the steps that do not count."""

    @property
    def hidden_state(self) -> Array:
        """`outputs`, under the name that a history of one cell has for them."""
        return self.outputs

    @property
    def initial(self) -> Any:
        """States before the first step, as `state` of `record` takes them."""
        return self.cell.tree([part.initial for part in self.parts.values()])

    @property
    def final(self) -> Any:
        """States after the last step, as `state` of `record` takes them."""
        return self.cell.tree([part.final for part in self.parts.values()])

    @property
    def states(self) -> Any:
        """States after each step, a tree of states with fields [T, *batch, H]."""
        return self.cell.tree([part.states for part in self.parts.values()])

    @property
    def counts(self) -> Array | None:
        """Whether each step counts, booleans [T, *batch]; None where all do."""
        return self.first.counts

    @property
    def lengths(self) -> Array:
        """Steps of each sequence that count, [*batch]."""
        return self.first.lengths

    @property
    def first(self) -> History:
        """The history of the first cell."""
        part = next(iter(self.parts.values()))
        return part.first if isinstance(part, LayeredPass) else part

    @property
    def inputs(self) -> Array:
        """x_t, [T, *batch, D]."""
        return self.first.inputs

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return self.first.batch

    def __len__(self) -> int:
        """The number of steps T."""
        return len(self.first)

    def cells(self) -> dict[str, tuple[History, Callable[[Array], Array]]]:
        """Every cell's history by name, bottom first; and what brings its rows [T, ...] into the order of time."""
        found: dict[str, tuple[History, Callable[[Array], Array]]] = {}
        for name, part in self.parts.items():
            if isinstance(part, LayeredPass):
                found |= {f"{name}, {inner}": value for inner, value in part.cells().items()}
            else:
                found[name] = part, functools.partial(self.in_time, name)
        return found

    def in_time(self, name: str, rows: Array) -> Array:
        """Rows [T, ...] of a part, in the order of time."""
        del name
        return rows

    def _lacks(self, name: str) -> str:
        return (
            f"a {type(self).__name__} has no {name}; the pass of each layer may have: "
            f"history.parts[{next(iter(self.parts))!r}].{name}, of {', '.join(map(repr, self.parts))}"
        )

    def __getitem__(self, steps: slice) -> Any:
        """A stretch of time; none of a pass in which a layer reads backwards, or that was edited.

        Raises:
            TypeError: it is such a pass.
        """
        raise TypeError(
            f"a {type(self).__name__} has no stretches of time that are passes of their own; each of "
            f"history.parts[...] may have, of {', '.join(map(repr, self.parts))}"
        )

    def __iter__(self) -> Any:
        raise TypeError("a history is not iterated step by step; use its arrays, such as history.outputs")

    def to_numpy(self) -> Any:
        """This history with every array copied to NumPy, so that what follows runs in NumPy."""
        return to_numpy(self)

    def __repr__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        library = "JAX" if is_jax(namespace(self.inputs)) else "NumPy"
        return f"{type(self).__name__}({self.cell}: {len(self)} steps{batch}, {self.inputs.dtype}, {library})"


class LayeredHistory(LayeredPass):
    """What the histories of a stack and of two directions share."""

    def summary(self) -> str:
        """Each cell's `History.summary`, under its name, bottom first.

        Raises:
            ValueError: a batch without a sequence.
        """
        cells = (f"{name}: {part.summary()}" for name, (part, _) in self.cells().items())
        return "\n\n".join([repr(self), *cells])

    def save(self, path: str | Path) -> None:
        """Write this history into a new folder, for `load_history`: a folder inside for each part, as Zarr.

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
            _save(self, partial)

    def to_xarray(self) -> dict[str, Any]:
        """The history of every cell as an `xarray.Dataset`, by the names of `cells()`; see `History.to_xarray`.

        Each is a dataset of its own, since units of layers are not the same axis. The steps of a backward
        direction are in the order in which it reads, the last one first. Masks of dropout are in none; they are
        `history.masks`.

        Raises:
            TypeError: the history is inside a JAX transformation.
            ImportError: xarray is not installed.
        """
        return {name: part.to_xarray() for name, (part, _) in self.cells().items()}


@result(static=("cell",))
class StackHistory(LayeredHistory):
    """One pass of a stack: a history for each layer.

    Attributes:
        cell: the stack.
        params: its parameters.
        layers: histories of the layers, bottom first; each is a `History`, or a `BidirectionalHistory`.
        masks: what the outputs of each layer but the last were multiplied by on their way up, [T, *batch, H]; None
            where nothing was dropped.
    """

    cell: Stack
    params: tuple[Any, ...]
    layers: tuple[Any, ...]
    masks: tuple[Array, ...] | None

    @property
    def parts(self) -> dict[str, Any]:
        return dict(zip(self.cell.parts, self.layers, strict=True))

    @property
    def outputs(self) -> Array:
        return self.layers[-1].outputs

    @property
    def rows(self) -> tuple[Any, ...]:
        """What has an axis of time, a tree of [T, ...]: of each layer, and the masks."""
        return tuple(layer.rows for layer in self.layers), self.masks

    def stretch(self, initial: Any, rows: tuple[Any, ...]) -> StackHistory:
        """A history of the same layers and parameters with other initial states and other `rows`."""
        parts = zip(self.layers, initial, rows[0], strict=True)
        return StackHistory(self.cell, self.params, tuple(layer.stretch(*of) for layer, *of in parts), rows[1])

    def __getitem__(self, steps: slice) -> StackHistory:
        """A stretch of time as a history of its own, whose initial states are those before its first step.

        Raises:
            TypeError: not a slice, or a layer reads in both directions.
            ValueError: a slice with a stride, or an empty one.
        """
        if any(isinstance(layer, BidirectionalHistory) for layer in self.layers):
            raise TypeError("a layer reads in both directions: a stretch of time is no pass of its own")
        start, stop = span(steps, len(self))
        masks = None if self.masks is None else tuple(mask[start:stop] for mask in self.masks)
        return StackHistory(self.cell, self.params, tuple(layer[start:stop] for layer in self.layers), masks)

    def with_gaps(self, first: bool) -> StackHistory:
        """The same pass with the steps that do not count before or behind those that do, sequence by sequence."""
        if self.counts is None:
            return self
        xp = namespace(self.inputs)
        order = xp.argsort(self.counts if first else ~self.counts, axis=0, stable=True)[..., None]
        masks = None if self.masks is None else tuple(xp.take_along_axis(x, order, axis=0) for x in self.masks)
        return StackHistory(self.cell, self.params, tuple(layer.with_gaps(first) for layer in self.layers), masks)

    @property
    def downward(self) -> list[tuple[str, Any, Array | None]]:
        """Name and history of each layer, top first, and the mask that its inputs came through, or None."""
        masks = (None, *(self.masks or (None,) * (len(self.layers) - 1)))
        return list(zip(self.cell.parts, self.layers, masks, strict=True))[::-1]


@result(static=("cell",))
class BidirectionalHistory(LayeredHistory):
    """One pass in both directions.

    Attributes:
        cell: the `Bidirectional`.
        params: its parameters.
        forward: the history of the cell that reads from the first step on.
        backward: that of the other one, in the order in which it reads: its step 0 is the last step.
    """

    cell: Bidirectional
    params: Directions
    forward: History
    backward: History

    @property
    def parts(self) -> dict[str, Any]:
        return {"forward": self.forward, "backward": self.backward}

    @property
    def outputs(self) -> Array:
        return self.cell.merged(self.forward.outputs, flipped(self.backward.outputs))

    def in_time(self, name: str, rows: Array) -> Array:
        """Rows [T, ...] of a direction, in the order of time."""
        return flipped(rows) if name == "backward" else rows


class _Recorded(NamedTuple):
    """A history under the name that `passed` knows."""

    history: Any
    outputs: Array


def history_passing(record: Callable[..., History]) -> Passing:
    """Passes of `record`."""

    def one(cell: Cell, params: Any, xs: Array, state: Any, timing: Timing) -> _Recorded:
        history = record(cell, params, xs, state, **timing.options(cell))
        return _Recorded(history, history.outputs)

    def stacked(stack: Stack, params: Any, made: list[_Recorded], masks: Any) -> _Recorded:
        history = StackHistory(stack, params, tuple(layer.history for layer in made), masks)
        return _Recorded(history, made[-1].outputs)

    def joined(pair: Bidirectional, params: Any, forward: _Recorded, backward: _Recorded) -> _Recorded:
        history = BidirectionalHistory(pair, params, forward.history, backward.history)
        return _Recorded(history, history.outputs)

    return Passing(one, stacked, joined)


def _save(history: Any, path: Path) -> None:
    """Write the history of a stack or of two directions into a new folder."""
    attributes = {"format": FORMAT, "format_version": VERSION, "layers": told(history.cell, KINDS)}
    attributes["parts"] = [folder(name) for name in history.parts]
    zarr = require("zarr", "a history on disk")
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    axes = ("time", *batch_axes(len(history.batch)))
    for number, mask in enumerate(getattr(history, "masks", None) or ()):
        names = (*axes, f"unit_{number}")
        group.create_array(f"mask_{number}", data=fetched(mask), dimension_names=names, **kept_whole(zarr))
    group.attrs.update(checksummed(path, attributes))
    for name, part in history.parts.items():
        (_save if isinstance(part.cell, Layers) else save)(part, path / folder(name))


def folder(name: str) -> str:
    """Where the part of this name lies."""
    return name.replace(" ", "_")

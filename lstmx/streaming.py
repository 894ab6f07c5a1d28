"""`record(..., into=path)`: a pass written to disk chunk by chunk, and gone on with where it was stopped."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import is_traced, leaves
from lstmx.cells.base import Cell
from lstmx.cells.masked import Masked, controlled
from lstmx.checks import array, controls, door, sequences
from lstmx.chunks import counting
from lstmx.history import History, StoredHistory
from lstmx.history.schema import attributes_of, constants_of
from lstmx.history.store import Store, building, create
from lstmx.history.stored import opened


def streamed(
    one: Callable[[Cell, Any, Any, Any], History],
    cell: Cell,
    params: Any,
    xs: Any,
    state: Any,
    unequal: tuple[Any, Any],
    keep: str,
    path: Path,
    progress: bool,
) -> StoredHistory:
    """Record into a store, chunk by chunk.

    Args:
        one: `(cell, params, inputs of a chunk, state before it) -> history`.
        cell: the cell.
        params: its parameters.
        xs: inputs [T, *batch, D], of which a chunk at a time is read.
        state: initial state; None for zeros.
        unequal: lengths and resets, as for `record`.
        keep: as for `record`.
        path: the folder, new or of an unfinished run of the same call.
        progress: show a progress bar.
    """
    if is_traced(params, xs, state, unequal):
        raise TypeError(
            "record(..., into=path) writes numbers to disk; inside a JAX transformation there are none"
        )
    length, batch = _form(cell, params, xs)
    params, _, state = door(cell, params, _rows(xs, 0, 1), state)
    state = cell.initial_state(params, batch) if state is None else state
    cell, xs = _unequal(cell, xs, *unequal)
    if not os.path.lexists(path):
        with building(path) as partial:
            create(partial, cell, params, state, keep, length, batch)
    store = Store(path, "r+")
    _check_same_run(store, cell, params, state, keep, xs)
    store.tidy()
    with counting(length, "recording", progress, store.finished) as advance:
        state = opened(store).final if store.finished else state
        while store.finished < length:
            part = one(cell, params, _rows(xs, store.finished, store.finished + store.chunk), state)
            state = part.final
            _write(store, part)
            advance(len(part))
    return opened(store)


@dataclasses.dataclass(frozen=True)
class _Controlled:
    """Inputs beside which the controls of lengths and resets are put where they are sliced."""

    masked: Masked
    xs: Any
    hold: np.ndarray
    reset: np.ndarray

    def __getitem__(self, steps: slice) -> Any:
        rows = _rows(self.xs, steps.start, steps.stop)
        return controlled(self.masked.cell, rows, self.hold[steps], self.reset[steps])[1]

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.xs.shape[:-1], self.masked.input_size


def _unequal(cell: Cell, xs: Any, lengths: Any, resets: Any) -> tuple[Cell, Any]:
    """The cell and its inputs; with lengths or resets the cell wrapped, and its controls beside the inputs."""
    if lengths is None and resets is None:
        return cell, xs
    form = np.broadcast_to(np.zeros((), dtype=bool), tuple(xs.shape))  # of which only the shape is looked at
    hold, reset = (np.asarray(x) for x in controls(form, lengths, resets))
    masked = Masked(cell)
    return masked, _Controlled(masked, xs, hold, reset)


def _write(store: Store, part: History) -> None:
    """Write the next chunk, or say what is safe and how to go on."""
    start = store.finished
    try:
        store.write(part)
    except OSError as error:
        words = (
            f"{error.strerror or error}: steps {start} to {start + len(part)} could not be written. The first "
            f"{start} of {store.length} steps are safe; once there is room, the same call of record goes on there"
        )
        raise OSError(error.errno, words, str(store.path)) from error


def _form(cell: Cell, params: Any, xs: Any) -> tuple[int, tuple[int, ...]]:
    """Length and batch axes of anything that has a shape and a dtype and can be sliced."""
    if not all(hasattr(xs, name) for name in ("shape", "dtype", "ndim", "__getitem__")):
        array("xs", xs)
    sequences(cell, params, xs)
    return xs.shape[0], tuple(xs.shape[1:-1])


def _rows(xs: Any, start: int, stop: int) -> Any:
    """Rows of `xs` as an array: in NumPy, unless they are in JAX."""
    rows = xs[start:stop]
    return np.asarray(rows) if isinstance(rows, np.ndarray) or not hasattr(rows, "__array_namespace__") else rows


def _check_same_run(store: Store, cell: Cell, params: Any, state: Any, keep: str, xs: Any) -> None:
    """Raise unless the store is an unfinished run of the same call."""
    path = store.path
    if store.finished == store.length:
        raise FileExistsError(
            f"{path} holds a finished history of {store.length} steps; nothing is overwritten: lstmx.load_history "
            "opens it, and another path takes a new one"
        )
    other = f"{path} holds the first {store.finished} steps of another run"
    mine = attributes_of(cell, next(leaves(params)), 0)
    theirs, shape = store.attributes, store.arrays["inputs"].shape
    for words, there, here in (
        ("its cell", theirs.get("cell"), mine["cell"]),
        ("its library", theirs.get("library"), mine["library"]),
        ("keep", store.keep, keep),
        ("the shape of xs", shape, tuple(xs.shape)),
        ("the dtype", store.dtype, np.dtype(params[0].dtype)),
    ):
        if there != here:
            raise ValueError(f"{other}: {words} is {there}, not {here}; choose another path")
    for name, value in constants_of(params, state._asdict()).items():
        if store.read(name).tobytes() != np.asarray(value).tobytes():
            raise ValueError(f"{other}: {name.replace('_', ' ')} is not that of this call; choose another path")
    for start in range(0, store.finished, store.chunk):
        if store.read("inputs", start, start + store.chunk).tobytes() != _bytes(xs, start, start + store.chunk):
            raise ValueError(
                f"{other}: its inputs of steps {start} to {start + store.chunk} are not those of xs; "
                "choose another path"
            )


def _bytes(xs: Any, start: int, stop: int) -> bytes:
    return np.asarray(xs[start:stop]).tobytes()

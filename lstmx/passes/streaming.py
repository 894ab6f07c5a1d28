"""`record_to`: a pass written to disk chunk by chunk, and gone on with where it was stopped."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import dtype_of, is_traced, leaves
from lstmx.cells.base import Cell
from lstmx.checks import array, door, parameters, sequences
from lstmx.history import Controls, History, StoredHistory, holds, where_held
from lstmx.history.schema import Form, attributes_of, constants_of, is_described
from lstmx.history.store import Store, building, create, writing
from lstmx.history.stored import opened
from lstmx.passes.forward import recorded_part
from lstmx.scans.chunks import counting


def streamed(
    cell: Cell,
    params: Any,
    xs: Any,
    state: Any,
    said: tuple[Any, Any, Any],
    keep: str,
    path: Path,
    durable: bool,
    progress: bool,
) -> StoredHistory:
    """See `record_to`; `said` is lengths, mask and resets."""
    if is_traced(params, xs, state, said):
        raise TypeError("record_to writes numbers to disk; inside a JAX transformation there are none")
    length, batch = _form(cell, params, xs)
    params, _, state = door(cell, params, _rows(xs, 0, 1), state)
    state = cell.initial_state(params, batch) if state is None else state
    like = np.broadcast_to(np.zeros((), dtype=bool), tuple(xs.shape))  # of which only the shape is looked at
    hold, reset = (None if x is None else np.asarray(x) for x in holds(like, *said))
    given = tuple(name for name, x in (("hold", hold), ("reset", reset)) if x is not None)
    form = Form(cell, keep, given, None if cell.closed_form else params)
    idle = 0.0 if cell.closed_form or hold is None else _first(xs, hold)

    def part(start: int, stop: int) -> tuple[Any, Controls | None]:
        """Inputs and controls of a chunk."""
        rows = _rows(xs, start, stop)
        flags = [None if x is None else x[start:stop] for x in (hold, reset)]
        return where_held(flags[0], rows, idle), Controls(*flags) if given else None

    with writing(path):
        if not os.path.lexists(path):
            with building(path, durable) as partial:
                create(partial, form, params, state, length, batch)
        store = Store(path, "r+", None if is_described(cell) else cell, durable)
        _check_same_run(store, form, params, state, xs, part)
        store.tidy()
        with counting(length, "recording", progress, store.finished) as advance:
            state = opened(store).final if store.finished else state
            while store.finished < length:
                rows = part(store.finished, store.finished + store.chunk)
                made = recorded_part(cell, params, *rows, state, keep)
                state = made.final
                _write(store, made)
                advance(len(made))
        store.whole()
    return opened(store)


def _write(store: Store, part: History) -> None:
    """Write the next chunk, or say what is safe and how to go on."""
    start = store.finished
    try:
        store.write(part)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        words = f"{why}: steps {start} to {start + len(part)} could not be written."
        try:
            store.whole()
        except (OSError, ValueError) as other:
            words = f"{words} What was written before is not safe either: {getattr(other, 'strerror', other)}"
        else:
            words = (
                f"{words} The first {start} of {store.length} steps are safe; once there is room, the same call "
                "of record_to goes on there"
            )
        raise OSError(getattr(error, "errno", errno.EIO), words, str(store.path)) from error


def _form(cell: Cell, params: Any, xs: Any) -> tuple[int, tuple[int, ...]]:
    """Length and batch axes of anything that has a shape and a dtype and can be sliced."""
    parameters(cell, params)
    if hasattr(xs, "detach") or not all(hasattr(xs, name) for name in ("shape", "dtype", "ndim", "__getitem__")):
        array("xs", xs, dtype_of(params))
    sequences(cell, params, xs)
    return xs.shape[0], tuple(xs.shape[1:-1])


def _rows(xs: Any, start: int, stop: int) -> Any:
    """Rows of `xs` as an array: in NumPy, unless they are in JAX."""
    rows = xs[start:stop]
    return np.asarray(rows) if isinstance(rows, np.ndarray) or not hasattr(rows, "__array_namespace__") else rows


def _first(xs: Any, hold: np.ndarray) -> Any:
    """The first input of each sequence that counts, [1, *batch, D]: what a step function gets where none does."""
    at = np.argmin(hold, axis=0)
    found = np.zeros((1, *xs.shape[1:]), xs.dtype)
    for step in np.unique(at):
        found[:, at == step] = np.asarray(_rows(xs, step, step + 1))[:, at == step]
    return found


def _check_same_run(store: Store, form: Form, params: Any, state: Any, xs: Any, part: Any) -> None:
    """Raise unless the store is an unfinished run of the same call."""
    path = store.path
    if store.finished == store.length:
        raise FileExistsError(
            f"{path} holds a finished history of {store.length} steps; nothing is overwritten: lstmx.load_history "
            "opens it, and another path takes a new one"
        )
    other = f"{path} holds the first {store.finished} steps of another run"
    mine = attributes_of(form, next(leaves(params)), 0)
    theirs, shape = store.attributes, store.arrays["inputs"].shape
    for words, there, here in (
        ("the version of its format", store.version, mine["format_version"]),
        ("its cell", theirs.get("cell"), mine["cell"]),
        ("its library", theirs.get("library"), mine["library"]),
        ("keep", store.form.keep, form.keep),
        ("what is said of its steps", store.form.controls, form.controls),
        ("the shape of xs", shape, tuple(xs.shape)),
        ("the dtype", store.dtype, np.dtype(dtype_of(params))),
    ):
        if there != here:
            raise ValueError(f"{other}: {words} is {there}, not {here}; choose another path")
    for name, value in constants_of(form.cell, params, state).items():
        if name not in store.arrays or store.read(name).tobytes() != np.asarray(value).tobytes():
            raise ValueError(f"{other}: {name.replace('_', ' ')} is not that of this call; choose another path")
    for start in range(0, store.finished, store.chunk):
        stop = min(start + store.chunk, store.finished)
        inputs, controls = part(start, stop)
        here = {"inputs": inputs} | {name: getattr(controls, name) for name in form.controls}
        for name, value in here.items():
            if store.read(name, start, stop).tobytes() != np.asarray(value).tobytes():
                raise ValueError(
                    f"{other}: its {name} of steps {start} to {stop} is not that of this call; choose another path"
                )

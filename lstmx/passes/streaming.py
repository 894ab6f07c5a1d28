"""`record_to`: a pass written to disk chunk by chunk, and gone on with where it was stopped."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import (
    Process,
    dtype_of,
    fetched,
    gathered,
    is_elsewhere,
    is_jax,
    is_traced,
    jax,
    leaves,
    map_tree,
    namespace,
    process,
    told_by_all,
)
from lstmx.cells.base import Cell
from lstmx.checks import array, door, flag, parameters, positive, sequences
from lstmx.files import has_locks_for_many
from lstmx.history import Controls, StoredHistory, holds, where_held
from lstmx.history.schema import Form, attributes_of, constants_of, is_described
from lstmx.history.store import Store, building, create, helping, writing
from lstmx.history.stored import opened
from lstmx.passes.forward import recorded_part
from lstmx.scans.chunks import counting


class _Part(NamedTuple):
    """Sequences of the batch that are run as a pass of their own, and are written in chunks of their own."""

    xs: Any
    """What their inputs are sliced from."""
    at: slice | None
    """Where there, along its first batch axis; None for all of it."""
    own: slice | None
    """Where in the whole batch, along its first axis; None for all of it."""
    device: Any = None
    """The JAX device that runs them; None for the one that JAX takes."""

    def rows(self, start: int, stop: int) -> Any:
        """Inputs of steps as an array: in NumPy, unless they are in JAX."""
        return self.placed(
            _rows(self.xs, slice(start, stop) if self.at is None else (slice(start, stop), self.at))
        )

    def placed(self, tree: Any) -> Any:
        """Arrays where they are worked on."""
        return tree if self.device is None else map_tree(lambda x: jax.device_put(x, self.device), tree)

    def of(self, tree: Any) -> Any:
        """What is of these sequences in arrays [*batch, ...]."""
        return tree if self.own is None else map_tree(lambda x: x[self.own], tree)

    def flags(self, x: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
        """Likewise of the steps of [T, *batch]."""
        if x is None:
            return None
        return x[start:stop] if self.own is None else x[start:stop, self.own]


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
    parts: int | None,
    together: bool,
) -> StoredHistory:
    """See `record_to`; `said` is lengths, mask and resets."""
    if is_traced(params, xs, state, said):
        raise TypeError("record_to writes numbers to disk; inside a JAX transformation there are none")
    length, batch = _form(cell, params, xs)
    flag("together", together)
    parts = None if parts is None else positive("parts", parts)
    job = process() if together or is_elsewhere(xs) else Process(0, 1)
    mine, groups = _groups(xs, batch, job)
    if job.processes > 1 and not has_locks_for_many:
        raise OSError(
            errno.ENOTSUP,
            "record_to from several processes takes locks that this system does not have; record the sequences of "
            "each process to a path of its own",
            str(path),
        )
    params, state = gathered((params, state))
    params, _, state = door(cell, params, _rows(xs, slice(0, 1)), state)
    state = cell.initial_state(params, batch) if state is None else state
    like = np.broadcast_to(np.zeros((), dtype=bool), tuple(xs.shape))  # of which only the shape is looked at
    hold, reset = (None if x is None else fetched(x) for x in holds(like, *said))
    given = tuple(name for name, x in (("hold", hold), ("reset", reset)) if x is not None)
    form = Form(cell, keep, given, None if cell.closed_form else params)
    devices = jax.local_devices() if together and is_jax(namespace(*leaves(params))) else [None]
    _divided(batch, groups, groups if parts is None else parts)
    if parts is None and batch and batch[0] % (groups * len(devices)) == 0:
        default = groups * len(devices)
    else:
        default = groups if parts is None else parts

    def given_rows(part: _Part, start: int, stop: int) -> tuple[Any, Controls | None]:
        """Inputs and controls of a chunk of a part."""
        flags = [part.flags(x, start, stop) for x in (hold, reset)]
        idle = 0.0 if cell.closed_form or hold is None else part.placed(_first(part, part.flags(hold, 0, length)))
        rows = where_held(flags[0], part.rows(start, stop), idle)
        return rows, part.placed(Controls(*flags)) if given else None

    with contextlib.ExitStack() as stack:
        with _by_all(job):
            if not job.number:
                stack.enter_context(writing(path))
                if not os.path.lexists(path):
                    with building(path, durable) as partial:
                        create(partial, form, params, state, length, batch, default)
        with _by_all(job):
            if job.number:
                stack.enter_context(helping(path, job.number))
            store = Store(path, "r+", None if is_described(cell) else cell, durable)
            _divided(batch, groups, store.parts)
            own = [part for group in mine for part in _parted(group, batch, store.parts // groups, devices)]
            _check_same_run(store, form, params, state, xs, parts, own, given_rows)
            if not job.number:
                store.tidy()
        with counting(length, "recording", progress and not job.number, store.finished) as advance:
            state = opened(store).final if store.finished else state
            states = [part.placed(part.of(state)) for part in own]
            where = [part.placed(params) for part in own]
            while store.finished < length:
                start, stop = store.finished, min(store.finished + store.chunk, length)
                with _by_all(job):
                    made = [
                        recorded_part(cell, there, *given_rows(part, start, stop), before, keep)
                        for part, there, before in zip(own, where, states, strict=True)
                    ]
                    states = [one.final for one in made]
                    with _told_what_is_safe(store, stop):
                        for part, one in zip(own, made, strict=True):
                            store.put(one, part.own)
                with _by_all(job), _told_what_is_safe(store, stop):
                    store.finish(stop - start, mark=not job.number)
                advance(stop - start)
        with _by_all(job):
            store.whole()
    return opened(store)


@contextlib.contextmanager
def _by_all(job: Process) -> Iterator[None]:
    """What every process of a job does before any of them goes on; where it fails in one, it fails in all."""
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    said = told_by_all("" if failed is None else str(failed)) if job.processes > 1 else []
    if failed is not None:
        raise failed
    for number, words in enumerate(said):
        if words:
            raise OSError(errno.EIO, f"process {number} of the job failed: {words}")


def _groups(xs: Any, batch: tuple[int, ...], job: Process) -> tuple[list[_Part], int]:
    """What this process has of the batch, and how many such stretches there are, all of one length."""
    if hasattr(xs, "addressable_shards") and len(xs.sharding.device_set) > 1:
        found = []
        for shard in xs.addressable_shards:
            cut = [k for k, at in enumerate(shard.index) if at.indices(xs.shape[k])[:2] != (0, xs.shape[k])]
            if cut not in ([], [1]) or (cut and not batch):
                raise ValueError(
                    f"xs is split over devices along its axes {cut}; record_to takes sequences that are split "
                    "along the first batch axis alone, as by lstmx.shard_batch"
                )
            if shard.replica_id == 0:
                found.append(_Part(shard.data, None, shard.index[1] if cut else None, shard.device))
        found = sorted(found, key=lambda part: part.own.start or 0 if part.own else 0)
        held = next((part.xs.shape[1] for part in found if part.own), None)
        return found, 1 if held is None else batch[0] // held
    if job.processes == 1:
        return [_Part(xs, None, None)], 1
    if not batch or batch[0] % job.processes:
        raise ValueError(
            f"xs has shape {tuple(xs.shape)}; expected [T, batch, ...] with a batch that splits evenly over the "
            f"{job.processes} processes of the job"
        )
    size = batch[0] // job.processes
    own = slice(job.number * size, (job.number + 1) * size)
    return [_Part(xs, own, own)], job.processes


def _divided(batch: tuple[int, ...], groups: int, parts: int) -> None:
    """Raise unless a batch in so many stretches can be worked on in so many parts."""
    if parts == groups == 1:
        return
    if not batch or batch[0] % parts:
        raise ValueError(f"parts is {parts}; expected a number that divides the first batch axis, of {batch}")
    if parts % groups:
        raise ValueError(
            f"the batch is written in {parts} parts, and lies in {groups} on the devices or processes; expected "
            "parts that none of these share: as many processes or devices as before, or parts= of a new path"
        )


def _parted(group: _Part, batch: tuple[int, ...], count: int, devices: list[Any]) -> list[_Part]:
    """A stretch of the batch in so many parts, over these devices in turn."""
    if count == 1:
        return [group if group.device is not None else group._replace(device=devices[0])]
    found = []
    size = (batch[0] if group.own is None else len(range(*group.own.indices(batch[0])))) // count
    for k in range(count):
        at, own = (
            slice(first + k * size, first + (k + 1) * size)
            for first in ((one.start or 0) if one else 0 for one in (group.at, group.own))
        )
        device = devices[k * len(devices) // count] if group.device is None else group.device
        found.append(group._replace(at=at, own=own, device=device))
    return found


@contextlib.contextmanager
def _told_what_is_safe(store: Store, stop: int) -> Iterator[None]:
    """Where the next chunk cannot be written, say what is safe and how to go on."""
    start = store.finished
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        words = f"{why}: steps {start} to {stop} could not be written."
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


def _rows(xs: Any, at: Any) -> Any:
    """A part of `xs` as an array: in NumPy, unless it is in JAX."""
    rows = xs[at]
    return np.asarray(rows) if isinstance(rows, np.ndarray) or not hasattr(rows, "__array_namespace__") else rows


def _first(part: _Part, hold: Any) -> Any:
    """The first input of each sequence that counts, [1, *batch, D]: what a step function gets where none does."""
    at, found = np.argmin(hold, axis=0), None
    for step in np.unique(at):
        rows = np.asarray(part.rows(step, step + 1))
        found = np.zeros_like(rows) if found is None else found
        found[:, at == step] = rows[:, at == step]
    return found


def _check_same_run(
    store: Store,
    form: Form,
    params: Any,
    state: Any,
    xs: Any,
    parts: int | None,
    own: list[_Part],
    given_rows: Any,
) -> None:
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
        ("parts", store.parts, parts or store.parts),
    ):
        if there != here:
            raise ValueError(f"{other}: {words} is {there}, not {here}; choose another path")
    for name, value in constants_of(form.cell, params, state).items():
        if name not in store.arrays or store.read(name).tobytes() != np.asarray(value).tobytes():
            raise ValueError(f"{other}: {name.replace('_', ' ')} is not that of this call; choose another path")
    for start in range(0, store.finished, store.chunk):
        stop = min(start + store.chunk, store.finished)
        steps = f"steps {start} to {stop}"
        for part in own:
            inputs, controls = given_rows(part, start, stop)
            here = {"inputs": inputs} | {name: getattr(controls, name) for name in form.controls}
            for name, value in here.items():
                if store.read(name, start, stop, part.own).tobytes() != np.asarray(value).tobytes():
                    raise ValueError(
                        f"{other}: its {name} of {steps} is not that of this call; choose another path"
                    )

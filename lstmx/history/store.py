"""The Zarr group that holds one history: its arrays, chunked over time, and how many steps are finished."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lstmx.arrays import dtype_of, leaves, require
from lstmx.cells.base import Cell
from lstmx.checks import path as checked_path
from lstmx.files import held, synced
from lstmx.history.first_version import translated
from lstmx.history.schema import (
    CHECKSUMS_SINCE,
    Form,
    attributes_of,
    batch_axes,
    constants_of,
    form_from,
    form_of,
    version_of,
)
from lstmx.history.verified import MARKER, Verified, arrays_of, checksummed, kept_whole, mark, read_marker

_CHUNK = 2**20  # numbers of a chunk's widest array


def _zarr() -> Any:
    return require("zarr", "a history on disk")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keep every other thread and process from writing to `path`.

    Raises:
        BlockingIOError: one writes there.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(lock))
            for one in path.parent.iterdir():  # of helpers, who outlive the one that they helped for a while
                if re.fullmatch(rf"{re.escape(lock.name)}\.\d+", one.name):
                    with held(one):
                        pass
        except BlockingIOError as error:
            raise _busy(error, path) from None
        yield


@contextlib.contextmanager
def helping(path: Path, number: int) -> Iterator[None]:
    """Keep those who are not of the job from writing to `path`, which another process of it has `writing(path)`.

    Raises:
        BlockingIOError: the process of this number is there already.
    """
    path = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(path.with_name(f".{path.name}.lock.{number}")))
        except BlockingIOError as error:
            raise _busy(error, path) from None
        yield


def _busy(error: BlockingIOError, path: Path) -> BlockingIOError:
    words = "another process, or another thread of this one, writes here; nothing was changed"
    return BlockingIOError(error.errno, words, str(path))


@contextlib.contextmanager
def building(path: Path, durable: bool = True) -> Iterator[Path]:
    """A folder that becomes `path` once all is written into it, and is taken away where that fails.

    It is for the one who has `writing(path)`; what others began, who were killed, is taken away, too.

    Args:
        path: what the folder will be.
        durable: have it on the disk before it appears.

    Raises:
        FileExistsError: there is something at `path`.
    """
    _nothing_at(path)
    for left in path.parent.iterdir():
        if re.fullmatch(rf"{re.escape(path.name)}\.[0-9a-f]{{32}}\.partial", left.name):
            shutil.rmtree(left, ignore_errors=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        if durable:
            synced([partial, *partial.rglob("*")])
        _nothing_at(path)
        partial.rename(path)
        if durable:
            synced([path.parent])
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _nothing_at(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} is there already; nothing is overwritten: choose another path")


def create(
    path: Path, form: Form, params: Any, initial: Any, length: int, batch: tuple[int, ...], parts: int = 1
) -> Store:
    """A new store for a pass of `length` steps, of which none is finished.

    Args:
        path: the folder.
        form: of the history.
        params: the cell's parameters.
        initial: the initial state.
        length: of the pass.
        batch: its batch axes.
        parts: of the first batch axis, each in chunks of its own.
    """
    dtype = np.dtype(dtype_of(params))
    zarr, like = _zarr(), next(leaves(params))
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    constants = constants_of(form.cell, params, initial)
    names, size = batch_axes(len(batch)), chunk_steps(form.cell, length, batch)
    packed = zarr.codecs.BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    for name, field in form.fields.items():
        shape = field.whole(length, batch)
        chunks = (size, *(n // parts for n in shape[1:2]), *shape[2:]) if field.lead == "time" else shape
        made = group.create_array(
            name,
            shape=shape,
            chunks=tuple(max(1, size) for size in chunks),
            dtype=np.dtype(bool) if field.flag else dtype,
            fill_value=False if field.flag else float("nan"),  # of steps that no run has reached
            dimension_names=field.axes(names),
            attributes=field.attributes(),
            **kept_whole(zarr, None if field.flag else packed),
        )
        if name in constants:
            made[...] = np.asarray(constants[name])
    group.attrs.update(checksummed(path, attributes_of(form, like, 0)))
    return Store(path, "r+", form.cell)


def chunk_steps(cell: Cell, length: int, batch: tuple[int, ...]) -> int:
    """Steps of a chunk, the same for all arrays: what is written once is never read back to be written again."""
    width = max(cell.preactivation_size, cell.input_size) * int(np.prod(batch, dtype=int))
    return min(length, max(1, _CHUNK // max(1, width)))


def save(history: Any, path: Path) -> None:
    """Write a whole `History` into a new store at `path`."""
    length, batch = len(history), history.batch
    store = create(path, form_of(history), history.params, history.initial, length, batch)
    for start in range(0, length, store.chunk):
        store.write(history[start : start + store.chunk])


@contextlib.contextmanager
def saving(path: str | Path) -> Iterator[Path]:
    """As `writing` and `building`, where what fails is told of as a history that could not be saved."""
    path = checked_path("path", path)
    try:
        with writing(path), building(path) as partial:
            yield partial
    except (FileExistsError, BlockingIOError):
        raise
    except OSError as error:
        words = f"{error.strerror or error}: the history could not be saved, and nothing of it was left behind"
        raise OSError(error.errno, words, str(path)) from error


def opened_group(path: Path, mode: Literal["r", "r+"] = "r") -> tuple[dict[str, Any], dict[str, Verified]]:
    """Attributes and arrays of the Zarr group of a history, or of one of layers, at `path`.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: it is no such group, or of a newer format, or what describes it is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; expected a folder that history.save or record_to wrote")
    if path.is_file():
        raise ValueError(
            f"{path} is a file; expected a folder that history.save or record_to wrote. A file that lstmx.save "
            "wrote is read by lstmx.load"
        )
    zarr = _zarr()
    if (path / MARKER).is_file():
        read_marker(path)
    try:
        group = zarr.open_group(path, mode=mode, zarr_format=3)
    except Exception as error:  # whatever Zarr meets in damaged words
        raise ValueError(f"{path} is no Zarr group of version 3: {error}") from error
    attributes = dict(group.attrs)
    version = version_of(attributes, str(path))
    return attributes, arrays_of(zarr, path, group, version >= CHECKSUMS_SINCE, _may_lack_chunks)


def finished_steps(attributes: Mapping[str, Any], length: int, path: Path) -> int:
    """Steps that are written, of `length`.

    Raises:
        ValueError: the attributes say something else than such a number.
    """
    found = attributes.get("finished_steps")
    if type(found) is not int or not 0 <= found <= length:
        raise ValueError(f"{path}: finished_steps is {found!r}; expected 0 to {length}")
    return found


def _may_lack_chunks(name: str, dtype: Any) -> bool:
    """Whether versions before wrote no chunks of zeros alone of such an array."""
    return dtype == np.dtype(bool) or name.startswith("mask_")


class Store:
    """An open store.

    Args:
        path: the folder.
        mode: "r" to read it, "r+" to write chunks, too.
        cell: the cell, where no file can hold it.
        durable: a chunk is on the disk, whatever happens to the power, before it counts as finished.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        TypeError: `cell` is no cell.
        ValueError: it holds no history, or one of a newer format or of another cell, or is damaged.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"] = "r", cell: Any = None, durable: bool = False):
        self.attributes, self.arrays = opened_group(path, mode)
        self.path, self._durable, self._folder = path, durable, os.stat(path)
        self.version = version_of(self.attributes, str(path))
        if self.version == 1:
            self.attributes, self.arrays = translated(self.attributes, self.arrays, str(path))
        self.form = form_from(self.attributes, self.arrays, str(path), cell)
        self.fields = self.form.fields
        self._check()

    def _check(self) -> None:
        """Raise unless every array is there, in its shape."""
        fields = self.fields
        missing = [name for name in fields if name not in self.arrays]
        if missing:
            raise ValueError(f"{self.path} lacks {', '.join(missing)}, which a history of {self.form.cell} has")
        inputs = self.arrays["inputs"]
        if len(inputs.shape) < 2:
            raise ValueError(f"{self.path}: inputs has shape {inputs.shape}; expected [T, *batch, D]")
        self.length, self.batch, self.dtype = inputs.shape[0], tuple(inputs.shape[1:-1]), inputs.dtype
        self.chunk = inputs.chunks[0]
        self.parts = inputs.shape[1] // max(1, inputs.chunks[1]) if self.batch else 1
        for name, field in fields.items():
            found = tuple(self.arrays[name].shape), self.arrays[name].dtype
            expected = field.whole(self.length, self.batch), np.dtype(bool) if field.flag else self.dtype
            if found != expected:
                raise ValueError(f"{self.path}: {name} is {found}; expected (shape, dtype) {expected}")
        finished_steps(self.attributes, self.length, self.path)

    @property
    def finished(self) -> int:
        """Steps that are written."""
        return self.attributes["finished_steps"]

    def read(self, name: str, start: int = 0, stop: int | None = None, own: slice | None = None) -> np.ndarray:
        """Rows of an array, and with `own` some of the first batch axis; all of one that has no axis of time.

        Raises:
            ValueError: a chunk of it is damaged or missing.
        """
        array = self.arrays[name]
        if self.fields[name].lead != "time":
            return array[...]
        return array[start:stop] if own is None else array[start:stop, own]

    def write(self, part: Any) -> None:
        """Add the next chunk, a `History`: its arrays first, and when they are there, that they are.

        Raises:
            FileNotFoundError: the folder was removed, or another is in its place.
        """
        self.put(part)
        self.finish(len(part))

    def put(self, part: Any, own: slice | None = None) -> None:
        """Write the arrays of the next chunk, a `History`, or with `own` of some of the first batch axis."""
        self._in_place()
        written: set[Path] = set()
        for name, array in self.form.arrays(part).items():
            if self.fields[name].lead == "time":
                written |= self.arrays[name].write(self.finished, np.asarray(array), own)
        if self._durable:
            synced(written)

    def finish(self, steps: int, mark: bool = True) -> None:
        """Count the next steps, of which all arrays are there; with `mark` say so in the folder."""
        finished = self.finished + steps
        if mark:
            self._mark(finished)
        self.attributes["finished_steps"] = finished

    def _in_place(self) -> None:
        """Raise unless the folder is the one that was opened."""
        if not (self.path.exists() and os.path.samestat(os.stat(self.path), self._folder)):
            words = "the folder was removed, or another one put in its place, while it was written to"
            raise FileNotFoundError(errno.ENOENT, words, str(self.path))

    def _mark(self, finished: int) -> None:
        """Say that this many steps are finished, in one move of the file system."""
        self._in_place()
        mark(self.path, {"finished_steps": finished}, "inputs", self._durable)

    def whole(self) -> None:
        """Raise unless the folder is in its place, with every chunk of the steps that are finished.

        Raises:
            OSError: it was removed, or cannot be read.
            ValueError: a chunk is missing, or what describes the history is another.
        """
        self._in_place()
        said = read_marker(self.path).get("attributes", {}).get("finished_steps")
        if said != self.finished:
            raise ValueError(f"{self.path}: finished_steps is {said!r}; expected {self.finished}")
        for name, field in self.fields.items():
            self.arrays[name].all_there(0, self.finished if field.lead == "time" else self.length)

    def tidy(self) -> None:
        """Remove the files that a killed run had begun."""
        for left in self.path.rglob("*.partial"):
            left.unlink()

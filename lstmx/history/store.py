"""The Zarr group that holds one history: its arrays, chunked over time, and how many steps are finished."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lstmx.arrays import dtype_of, leaves, require
from lstmx.cells.base import Cell
from lstmx.checks import path as checked_path
from lstmx.history.first_version import translated
from lstmx.history.schema import (
    Form,
    attributes_of,
    batch_axes,
    constants_of,
    form_from,
    form_of,
    version_of,
)

_CHUNK = 2**20  # numbers of a chunk's widest array
_MARKER = "zarr.json"  # the group's own metadata, replaced as a whole when a chunk is finished


def _zarr() -> Any:
    return require("zarr", "a history on disk")


@contextlib.contextmanager
def building(path: Path) -> Iterator[Path]:
    """A folder that becomes `path` once all is written into it, and is taken away where that fails.

    Raises:
        FileExistsError: there is something at `path`.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path} is there already; nothing is overwritten: choose another path")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def create(path: Path, form: Form, params: Any, initial: Any, length: int, batch: tuple[int, ...]) -> Store:
    """A new store for a pass of `length` steps, of which none is finished."""
    dtype = np.dtype(dtype_of(params))
    zarr = _zarr()
    like = next(leaves(params))
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes=attributes_of(form, like, 0))
    constants = constants_of(form.cell, params, initial)
    names, size = batch_axes(len(batch)), chunk_steps(form.cell, length, batch)
    packed = zarr.codecs.BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    for name, field in form.fields.items():
        shape = field.whole(length, batch)
        chunks = (size, *shape[1:]) if field.lead == "time" else shape
        made = group.create_array(
            name,
            shape=shape,
            chunks=tuple(max(1, size) for size in chunks),
            dtype=np.dtype(bool) if field.flag else dtype,
            compressors="auto" if field.flag else packed,
            fill_value=False if field.flag else float("nan"),  # of steps that no run has reached
            dimension_names=field.axes(names),
            attributes=field.attributes(),
            config={"write_empty_chunks": True},
        )
        if name in constants:
            made[...] = np.asarray(constants[name])
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
    """As `building`, where what fails is told of as a history that could not be saved."""
    try:
        with building(checked_path("path", path)) as partial:
            yield partial
    except FileExistsError:
        raise
    except OSError as error:
        words = f"{error.strerror or error}: the history could not be saved, and nothing of it was left behind"
        raise OSError(error.errno, words, str(path)) from error


def opened_group(path: Path, mode: Literal["r", "r+"]) -> Any:
    """The Zarr group at `path`.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: it is no such group.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; expected a folder that history.save or record_to wrote")
    if path.is_file():
        raise ValueError(
            f"{path} is a file; expected a folder that history.save or record_to wrote. A file that lstmx.save "
            "wrote is read by lstmx.load"
        )
    try:
        return _zarr().open_group(path, mode=mode, zarr_format=3)
    except (FileNotFoundError, ValueError, KeyError, TypeError, NotADirectoryError) as error:
        raise ValueError(f"{path} is no Zarr group of version 3: {error}") from error


class Store:
    """An open store.

    Args:
        path: the folder.
        mode: "r" to read it, "r+" to write chunks, too.
        cell: the cell, where no file can hold it.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        TypeError: `cell` is no cell.
        ValueError: it holds no history, or one of a newer format or of another cell, or is damaged.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"] = "r", cell: Any = None):
        group = opened_group(path, mode)
        self.path, self.attributes, self.arrays = path, dict(group.attrs), dict(group.arrays())
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
        self.length, self.batch, self.dtype = inputs.shape[0], tuple(inputs.shape[1:-1]), inputs.dtype
        self.chunk = inputs.chunks[0]
        for name, field in fields.items():
            found = tuple(self.arrays[name].shape), self.arrays[name].dtype
            expected = field.whole(self.length, self.batch), np.dtype(bool) if field.flag else self.dtype
            if found != expected:
                raise ValueError(f"{self.path}: {name} is {found}; expected (shape, dtype) {expected}")
        if not 0 <= self.finished <= self.length:
            raise ValueError(f"{self.path}: finished_steps is {self.finished}; expected 0 to {self.length}")

    @property
    def finished(self) -> int:
        """Steps that are written."""
        return int(self.attributes.get("finished_steps", -1))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of an array; all of one that has no axis of time."""
        array = self.arrays[name]
        return array[start:stop] if self.fields[name].lead == "time" else array[...]

    def write(self, part: Any) -> None:
        """Add the next chunk, a `History`: its arrays first, and when they are there, that they are."""
        start, stop = self.finished, self.finished + len(part)
        for name, array in self.form.arrays(part).items():
            if self.fields[name].lead == "time":
                self.arrays[name][start:stop] = np.asarray(array)
        self._mark(stop)

    def _mark(self, finished: int) -> None:
        """Say that this many steps are finished, in one move of the file system."""
        marker = self.path / _MARKER
        described = json.loads(marker.read_text(encoding="utf-8"))
        described["attributes"]["finished_steps"] = finished
        partial = self.path / "inputs" / "finished.partial"  # where a reader that lists the group does not meet it
        partial.write_text(json.dumps(described, indent=2), encoding="utf-8")
        partial.replace(marker)
        self.attributes["finished_steps"] = finished

    def tidy(self) -> None:
        """Remove the files that a killed run had begun."""
        for left in self.path.rglob("*.partial"):
            left.unlink()

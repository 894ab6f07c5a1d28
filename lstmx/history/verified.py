"""Arrays on disk that are read as they were written or not at all, and checksums of what describes them."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from lstmx.files import synced

MARKER = "zarr.json"  # what describes a group or an array
_OWN, _ARRAYS = "checksum", "checksums"  # attributes: of the others, and of what describes each array


class Verified:
    """An array on disk, of which a chunk that is damaged or missing is named and raises.

    Args:
        array: the Zarr array; where its chunks have checksums, Zarr compares them.
        group: the folder of its group.
        name: what it is called there.
        complete: whether chunks that hold the fill value alone were written, too.
    """

    def __init__(self, array: Any, group: Path, name: str, complete: bool = True):
        self._array, self._group, self._name, self._complete = array, group, name, complete
        self.shape, self.chunks, self.dtype = tuple(array.shape), tuple(array.chunks), array.dtype

    def __getitem__(self, at: slice | EllipsisType | tuple[slice, slice]) -> np.ndarray:
        """Rows; or of rows some of axis 1, from (rows, these); or all, from an ellipsis."""
        steps, own = at if isinstance(at, tuple) else (at, None)
        start, stop, _ = (slice(None) if isinstance(steps, EllipsisType) else steps).indices(self._length)
        self.all_there(start, stop, own)
        try:
            found = self._array[at]
        except Exception as error:
            for chunk in self._chunks(start, stop, own):
                self._read(chunk)
            raise ValueError(f"{self._group}: the array {self._name} cannot be read: {_line(error)}") from error
        self.all_there(start, stop, own)  # as Zarr fills one that was taken away meanwhile with NaN
        return np.asarray(found)

    @property
    def _length(self) -> int:
        return self.shape[0] if self.shape else 1

    def write(self, start: int, values: np.ndarray, own: slice | None = None) -> set[Path]:
        """Put rows from this one on, of some of axis 1 or of all; returns the files and folders written."""
        stop = start + len(values)
        try:
            self._array[slice(start, stop) if own is None else (slice(start, stop), own)] = values
        except ValueError:  # where chunks that were there are read, to be written again
            for chunk in self._chunks(start, stop, own):
                self._read(chunk)
            raise
        files = {self._group / self._name / self._key(chunk) for chunk in self._chunks(start, stop, own)}
        return files | {file.parent for file in files}

    def resize(self, rows: int) -> Path:
        """Have so many rows; returns the file that was written."""
        self.shape = (rows, *self.shape[1:])
        self._array.resize(self.shape)
        return self._group / self._name / MARKER

    def problems(self, stop: int | None = None) -> Iterator[str]:
        """What is wrong with the chunks of the first rows, or of all, in words; each is read."""
        for chunk in self._chunks(0, self._length if stop is None else stop):
            try:
                self._there(chunk)
                self._read(chunk)
            except ValueError as error:
                yield str(error)

    def _chunks(self, start: int, stop: int, own: slice | None = None) -> Iterable[tuple[int, ...]]:
        """Where in the grid the chunks with these rows are, of some of axis 1 or of all."""
        if not self.shape:
            return ((),)
        first = range(start // self.chunks[0], -(-min(stop, self.shape[0]) // self.chunks[0]))
        others = [range(-(-length // size)) for length, size in zip(self.shape[1:], self.chunks[1:], strict=True)]
        if own is not None:
            begin, end, _ = own.indices(self.shape[1])
            others[0] = range(begin // self.chunks[1], -(-end // self.chunks[1]))
        return ((row, *rest) for row in first for rest in itertools.product(*others))

    def _key(self, chunk: tuple[int, ...]) -> str:
        return self._array.metadata.encode_chunk_key(chunk)

    def _words(self, chunk: tuple[int, ...]) -> str:
        return f"{self._group} is damaged: chunk {self._key(chunk)} of the array {self._name}"

    def all_there(self, start: int, stop: int, own: slice | None = None) -> None:
        """Raise unless every chunk with these rows is there, of some of axis 1 or of all."""
        for chunk in self._chunks(start, stop, own):
            self._there(chunk)

    def _there(self, chunk: tuple[int, ...]) -> None:
        file = os.path.join(self._group, self._name, self._key(chunk))
        if self._complete and not os.path.isfile(file):
            raise ValueError(f"{self._words(chunk)} is missing")

    def _read(self, chunk: tuple[int, ...]) -> None:
        rows = (slice(k * size, (k + 1) * size) for k, size in zip(chunk, self.chunks, strict=True))
        try:
            self._array[tuple(rows)]
        except Exception as error:
            raise ValueError(f"{self._words(chunk)}: {_line(error)}") from error


def kept_whole(zarr: Any, packed: Any = None) -> dict[str, Any]:
    """Options of `create_array`: checksums, every chunk written, and all in one folder, which is synced once."""
    return {
        "compressors": (packed or zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()),
        "chunk_key_encoding": {"name": "default", "separator": "."},
        "config": {"write_empty_chunks": True},
    }


def _writing_all(zarr: Any, array: Any) -> Any:
    """A Zarr array of which chunks that hold the fill value alone are written, too: a missing one is missing."""
    config = {"write_empty_chunks": True}
    return zarr.Array(zarr.AsyncArray(metadata=array.metadata, store_path=array.store_path, config=config))


def arrays_of(
    zarr: Any, path: Path, group: Any, checked: bool, sparse: Callable[[str, Any], bool], growing: bool = False
) -> dict[str, Verified]:
    """The arrays of a group by name, once what describes them is what was written.

    Args:
        zarr: the package.
        path: the group's folder.
        group: the Zarr group.
        checked: there are checksums of what describes it; else they are compared where there are.
        sparse: of an array's name and dtype, whether chunks that hold its fill value alone may be missing where
            there are no checksums.
        growing: arrays have other shapes with time, of which there are no checksums.

    Raises:
        ValueError: an array is missing, or what describes it, or the group, is damaged.
    """
    attributes, described = dict(group.attrs), _described(path, growing)
    checked = checked or _OWN in attributes or _ARRAYS in attributes
    if checked:
        told = attributes.get(_OWN)
        if not isinstance(told, str) or told != _of_attributes(attributes, told.split()[1:]):
            raise ValueError(f"{path} is damaged: its {MARKER} is not what was written, by its checksum")
        for name, checksum in json.loads(attributes[_ARRAYS]).items():
            if name not in described:
                raise ValueError(f"{path} is damaged: it lacks {name}, or the {MARKER} of this array")
            if _checksum(described[name]) != checksum:
                raise ValueError(
                    f"{path} is damaged: the {MARKER} of the array {name} is not what was written, by its checksum"
                )
    found = {}
    for name in described:
        try:
            array = _writing_all(zarr, group[name])
            found[name] = Verified(array, path, name, checked or not sparse(name, array.dtype))
        except Exception as error:
            raise ValueError(
                f"{path} is damaged: the {MARKER} of the array {name} says what cannot be: {_line(error)}"
            ) from error
        if 0 in found[name].chunks:
            raise ValueError(f"{path} is damaged: chunks of the array {name} are {found[name].chunks}")
    return found


def checksummed(path: Path, attributes: Mapping[str, Any], growing: bool = False) -> dict[str, Any]:
    """Attributes of a group with checksums of its arrays' descriptions and of themselves; see `arrays_of`."""
    arrays = {name: _checksum(described) for name, described in _described(path, growing).items()}
    return _with_own({**attributes, _ARRAYS: json.dumps(arrays)})


def _with_own(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with the checksum of themselves as they are now."""
    others = {name: value for name, value in attributes.items() if name != _OWN}
    return {**others, _OWN: _of_attributes(others, sorted(others))}


def read_marker(path: Path, name: str = "") -> dict[str, Any]:
    """What describes the group at `path`, or the array of this name in it.

    Raises:
        ValueError: it is no JSON.
        OSError: it cannot be read.
    """
    words = f"the {MARKER} of the array {name}" if name else f"its {MARKER}"
    try:
        found = json.loads((path / name / MARKER).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {words} is no JSON: {_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: {words} holds a {type(found).__name__}; expected an object of JSON")
    return found


def mark(path: Path, attributes: Mapping[str, Any], beside: str, durable: bool) -> None:
    """Change attributes of a group, and where it has checksums that of them all, in one move of the file system.

    Args:
        path: the group's folder.
        attributes: those that change.
        beside: an array, in whose folder no reader meets what is being written.
        durable: have it on the disk.
    """
    described = read_marker(path)
    attributes = {**described["attributes"], **attributes}
    described["attributes"] = _with_own(attributes) if _ARRAYS in attributes else attributes
    partial = path / beside / "finished.partial"
    partial.write_text(json.dumps(described, indent=2), encoding="utf-8")
    if durable:
        synced([partial])
    partial.replace(path / MARKER)
    if durable:
        synced([path])


def _described(path: Path, growing: bool) -> dict[str, Any]:
    """What describes each array of a group, but for the words that no number hangs on."""
    names = sorted(folder.name for folder in path.iterdir() if (folder / MARKER).is_file())
    found = {name: read_marker(path, name) for name in names}
    left = ("attributes", "shape") if growing else ("attributes",)
    return {
        name: {key: value for key, value in one.items() if key not in left}
        for name, one in found.items()
        if one.get("node_type") == "array"
    }


def _of_attributes(attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """The checksum of some attributes, with their names, since others may be added by anybody."""
    names = list(names)
    return " ".join([_checksum({name: attributes.get(name) for name in names}), *names])


def _checksum(value: Any) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def _line(error: Exception) -> str:
    """The first line of an error, or its kind where it has no words."""
    return (str(error).splitlines() or [type(error).__name__])[0]

"""The Zarr group in which an observatory keeps its looks."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import fetched, require
from lstmx.files import synced
from lstmx.history.schema import batch_axes, told
from lstmx.history.store import building, writing
from lstmx.history.verified import Verified, arrays_of, checksummed, kept_whole, mark
from lstmx.layers.structures import KINDS
from lstmx.observatory.looking import READINGS, Axes

FORMAT, _VERSION = "lstmx observatory", 1
_CHUNK = 64  # looks
_NUMBERED = ("sequence", "lag", "exponent", "quantile", "bin")  # axes along which there are numbers, not names


class Shelf:
    """A folder for looks, new or of an observatory of the same cell, probe, loss and interval.

    Args:
        path: the folder.
        cell: the cell, or layers.
        probe: the probe, in NumPy.
        loss: as for `gradient_flow`.
        every: steps between two looks.
        axes: of the readings.

    Raises:
        FileExistsError: there is something else at `path`.
        ValueError: it is of another observatory, or damaged.
        ImportError: zarr is not installed.
    """

    def __init__(self, path: Path, cell: Any, probe: np.ndarray, loss: Any, every: int, axes: Axes):
        self.path, self._zarr = path, require("zarr", "an observatory on disk")
        attributes = {
            "format": FORMAT,
            "format_version": _VERSION,
            "cell": told(cell, KINDS),
            "loss": _loss_told(loss),
            "every": every,
            **{name: list(along) for name, along in axes._asdict().items() if name not in _NUMBERED},
        }
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
        if not path.exists():
            with writing(path), building(path) as partial:
                self._create(partial, attributes, probe, axes)
        try:
            group = self._zarr.open_group(path, mode="r+", zarr_format=3)
        except (OSError, ValueError, KeyError, TypeError):
            raise FileExistsError(f"{path} is there already, and no observatory; choose another path") from None
        found = dict(group.attrs)
        if found.get("format") != FORMAT:
            raise FileExistsError(f"{path} is there already, and no observatory; choose another path")
        for name, value in attributes.items():
            if found.get(name) != value:
                raise ValueError(f"{path} is of an observatory whose {name} is {found.get(name)!r}, not {value!r}")
        self._shapes = {name: self._shape(axes, own) for name, (own, _) in READINGS.items()} | {"step": ()}
        group, arrays = self._opened()
        if "probe" not in arrays or not np.array_equal(arrays["probe"][...], probe):
            raise ValueError(f"{path} is of an observatory with another probe; choose another path")
        self._own = uuid.uuid4().hex
        self._last = _last_written(group)

    @staticmethod
    def _shape(axes: Axes, own: tuple[str, ...]) -> tuple[int, ...]:
        """Lengths of the axes of a reading."""
        return tuple(len(getattr(axes, axis)) for axis in own)

    def _opened(self) -> tuple[Any, dict[str, Any]]:
        """The group and its arrays as they are on disk now.

        Raises:
            FileNotFoundError: the folder is gone, or holds something else.
            ValueError: an array is gone, or shorter than the looks that are there.
        """
        try:
            group = self._zarr.open_group(self.path, mode="r+", zarr_format=3)
            looks = int(group.attrs["looks"])
        except (OSError, ValueError, KeyError, TypeError):
            raise FileNotFoundError(
                f"{self.path} is gone, or no observatory any more: looks cannot go there"
            ) from None
        arrays = _arrays(self.path, group)
        for name, shape in self._shapes.items():
            if name not in arrays or arrays[name].shape[0] < looks or arrays[name].shape[1:] != shape:
                raise ValueError(f"{self.path} is damaged: its {looks} looks are not all in the array {name!r}")
        return group, arrays

    def _create(self, path: Path, attributes: dict[str, Any], probe: np.ndarray, axes: Axes) -> None:
        group = self._zarr.open_group(path, mode="w-", zarr_format=3)
        names = ("time", *batch_axes(probe.ndim - 2), "feature")
        kept = kept_whole(self._zarr)
        group.create_array("probe", data=probe, dimension_names=names, **kept)
        for name in _NUMBERED:
            values = fetched(list(getattr(axes, name)))
            group.create_array(name, data=values, dimension_names=(name,), **kept)
        words = {"long_name": "training step", "units": "1"}
        self._array(group, "step", (), (), words, np.dtype(np.int64), -1)
        for name, (own, long_name) in READINGS.items():
            words = {"long_name": long_name, "units": "1"}
            self._array(group, name, own, self._shape(axes, own), words, np.dtype(np.float64), float("nan"))
        group.attrs.update(checksummed(path, {**attributes, "looks": 0, "writer": ""}, growing=True))

    def _array(
        self,
        group: Any,
        name: str,
        own: tuple[str, ...],
        shape: tuple[int, ...],
        words: Any,
        dtype: Any,
        fill: Any,
    ) -> None:
        """An array of no look yet."""
        group.create_array(
            name,
            shape=(0, *shape),
            chunks=(_CHUNK, *(max(1, size) for size in shape)),
            dtype=dtype,
            fill_value=fill,
            dimension_names=("step", *own),
            attributes=words,
            **kept_whole(self._zarr),
        )

    def read(self) -> tuple[list[int], list[dict[str, np.ndarray]]]:
        """The steps and the readings of all looks that are whole."""
        group, arrays = self._opened()
        looks = int(group.attrs["looks"])
        kept = {name: arrays[name][:looks] for name in ("step", *READINGS)}
        rows = [{name: kept[name][k] for name in READINGS} for k in range(looks)]
        return kept["step"].tolist(), rows

    def write(self, steps: list[int], rows: list[dict[str, np.ndarray]], first: int) -> None:
        """Put looks in the place of those from the one numbered `first` on; at last, that they are there.

        Raises:
            FileNotFoundError: the folder is gone.
            ValueError: an array is gone, or another observatory has written here since this one last read or
                wrote.
        """
        group, arrays = self._opened()
        if _last_written(group) != self._last:
            raise ValueError(
                f"{self.path} has been written to by another observatory since this one last was there, and "
                "nothing of it is overwritten; expected a path of its own for each training"
            )
        total = first + len(steps)
        self._mark(min(first, self._last[0]))
        written = set()
        for name in ("step", *READINGS):
            values = np.array(steps) if name == "step" else np.stack([row[name] for row in rows])
            written |= {arrays[name].resize(total), *arrays[name].write(first, values)}
        synced(written)
        self._mark(total)

    def _mark(self, looks: int) -> None:
        """Say how many looks are whole, and who wrote last."""
        mark(self.path, {"looks": looks, "writer": self._own}, "probe", durable=True)
        self._last = looks, self._own


def opened_looks(path: Path) -> tuple[int, dict[str, Verified]]:
    """How many looks of an observatory are at `path`, and the arrays there, to be read.

    Raises:
        ValueError: what describes them is damaged.
    """
    try:
        group = require("zarr", "an observatory on disk").open_group(path, mode="r", zarr_format=3)
        looks = group.attrs["looks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    arrays = _arrays(path, group)
    if type(looks) is not int or not all(0 <= looks <= arrays[name].shape[0] for name in ("step", *READINGS)):
        raise ValueError(f"{path} is damaged: its {looks!r} looks are not all in its arrays")
    return looks, arrays


def _arrays(path: Path, group: Any) -> dict[str, Verified]:
    """The arrays of an observatory; before there were checksums, chunks of NaN alone were not written."""
    zarr = require("zarr", "an observatory on disk")
    return arrays_of(zarr, path, group, False, lambda *_: True, growing=True)


def _last_written(group: Any) -> tuple[int, str]:
    """How many looks are there, and who wrote the last of them."""
    return int(group.attrs["looks"]), group.attrs["writer"]


def _loss_told(loss: Any) -> str:
    """What is said of a loss, of an array by its digest."""
    if hasattr(loss, "__array_namespace__"):
        return hashlib.sha256(np.ascontiguousarray(loss).tobytes()).hexdigest()
    return loss if isinstance(loss, str) else "a function"

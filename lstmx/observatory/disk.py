"""The Zarr group in which an observatory keeps its looks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import require
from lstmx.history.schema import batch_axes, told
from lstmx.history.store import building
from lstmx.layers.structures import KINDS
from lstmx.observatory.looking import READINGS, Axes

_FORMAT, _VERSION = "lstmx observatory", 1
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
        ValueError: it is of another observatory.
        ImportError: zarr is not installed.
    """

    def __init__(self, path: Path, cell: Any, probe: np.ndarray, loss: Any, every: int, axes: Axes):
        self.path, self._zarr = path, require("zarr", "an observatory on disk", extra="disk")
        attributes = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "cell": told(cell, KINDS),
            "loss": _loss_told(loss),
            "every": every,
            **{name: list(along) for name, along in axes._asdict().items() if name not in _NUMBERED},
        }
        if not path.exists():
            with building(path) as partial:
                self._create(partial, attributes, probe, axes)
        try:
            self.group = self._zarr.open_group(path, mode="r+", zarr_format=3)
        except (OSError, ValueError, KeyError, TypeError):
            raise FileExistsError(f"{path} is there already, and no observatory; choose another path") from None
        found = dict(self.group.attrs)
        if found.get("format") != _FORMAT:
            raise FileExistsError(f"{path} is there already, and no observatory; choose another path")
        for name, value in attributes.items():
            if found.get(name) != value:
                raise ValueError(f"{path} is of an observatory whose {name} is {found.get(name)!r}, not {value!r}")
        if not np.array_equal(self.group["probe"][...], probe):
            raise ValueError(f"{path} is of an observatory with another probe; choose another path")
        self.arrays = {name: self.group[name] for name in ("step", *READINGS)}

    def _create(self, path: Path, attributes: dict[str, Any], probe: np.ndarray, axes: Axes) -> None:
        group = self._zarr.open_group(path, mode="w-", zarr_format=3, attributes={**attributes, "looks": 0})
        lengths = {name: len(along) for name, along in axes._asdict().items()}
        names = ("time", *batch_axes(probe.ndim - 2), "feature")
        group.create_array("probe", data=probe, dimension_names=names)
        for name in _NUMBERED:
            group.create_array(name, data=np.asarray(list(getattr(axes, name))), dimension_names=(name,))
        words = {"long_name": "training step", "units": "1"}
        self._array(group, "step", (), (), words, np.dtype(np.int64), -1)
        for name, (own, long_name) in READINGS.items():
            words = {"long_name": long_name, "units": "1"}
            shape = tuple(lengths[axis] for axis in own)
            self._array(group, name, own, shape, words, np.dtype(np.float64), float("nan"))

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
            config={"write_empty_chunks": True},
        )

    def read(self) -> tuple[list[int], list[dict[str, np.ndarray]]]:
        """The steps and the readings of all looks that are whole."""
        looks = int(self.group.attrs["looks"])
        kept = {name: array[:looks] for name, array in self.arrays.items()}
        rows = [{name: kept[name][k] for name in READINGS} for k in range(looks)]
        return kept["step"].tolist(), rows

    def write(self, steps: list[int], rows: list[dict[str, np.ndarray]], first: int) -> None:
        """Put looks in the place of those from the one numbered `first` on; at last, that they are there."""
        if first < self.group.attrs["looks"]:
            self.group.attrs["looks"] = first
        total = first + len(steps)
        for name, array in self.arrays.items():
            array.resize((total, *array.shape[1:]))
            array[first:] = np.array(steps) if name == "step" else np.stack([row[name] for row in rows])
        self.group.attrs["looks"] = total


def _loss_told(loss: Any) -> str:
    """What is said of a loss, of an array by its digest."""
    if hasattr(loss, "__array_namespace__"):
        return hashlib.sha256(np.ascontiguousarray(loss).tobytes()).hexdigest()
    return loss if isinstance(loss, str) else "a function"

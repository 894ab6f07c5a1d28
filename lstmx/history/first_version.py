"""Version 1 of the format of histories on disk, read as if it were the version of today.

There the controls of a padded pass were two more columns of inputs and pre-activations, hold and reset, the last
two, and the cell was said to be "Masked"; and what a Zoneout drew stood before them, a column for each number of
the state, where the Zoneout was said to be "drawn". Pre-activations of steps that do not count stay as that
version computed them; nothing reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmx.cells.base import Cell
from lstmx.cells.description import cell_from
from lstmx.history.controls import where_held


class Columns:
    """Some columns of an array on disk, as an array that is read where it is sliced.

    Args:
        array: the array of version 1, [T, *batch, ...].
        at: which of its columns; an integer for one of 0 and 1 that is read as booleans.
        shape: axes [*batch, ...] of a row as it is read.
        without: an array of booleans [T, *batch] at which zeros are read; None for none.
    """

    def __init__(self, array: Any, at: slice | int, shape: tuple[int, ...], without: Columns | None = None):
        self.array, self.at, self.without = array, at, without
        self.shape = (array.shape[0], *shape)
        self.dtype = np.dtype(bool) if isinstance(at, int) else array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of what lies together: so many rows, each whole."""
        return (self.array.chunks[0], *self.shape[1:])

    def __getitem__(self, steps: Any) -> np.ndarray:
        found: Any = np.asarray(self.array[steps])[..., self.at]
        found = found.reshape((len(found), *self.shape[1:]))
        if self.without is not None:
            found = where_held(self.without[steps], found)
        return found == 1 if isinstance(self.at, int) else found


def translated(
    attributes: Mapping[str, Any], arrays: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and arrays of version 1 as those of today; `where` they are in words.

    Raises:
        ValueError: the attributes describe no cell that can be made.
    """
    try:
        description = json.loads(attributes["cell"])
        masked = description["kind"] == "Masked"
        if masked:
            description = description["options"]["cell"]
        drawn = bool(description["options"].pop("drawn", False))
        cell = cell_from(description)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no cell that can be made: {error}") from error
    today = {**attributes, "format_version": 2, "cell": json.dumps(description)}
    return today, _split(cell, masked, drawn, dict(arrays)) if masked or drawn else dict(arrays)


def _split(cell: Cell, masked: bool, drawn: bool, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays with the columns of controls taken out and under names of their own."""
    whole = arrays["inputs"]
    batch, made, hold = tuple(whole.shape[1:-1]), dict(arrays), None
    if masked:
        hold = Columns(whole, -2, batch)
        reset = Columns(whole, -1, batch, hold)
        made |= {name: flag for name, flag in (("hold", hold), ("reset", reset)) if _any(flag)}
    if drawn:
        start = cell.input_size
        for name, size in zip(cell.state_type._fields, cell.field_sizes, strict=True):
            made[f"kept_{name}"] = Columns(whole, slice(start, start + size), (*batch, size))
            start += size
    made["inputs"] = Columns(whole, slice(cell.input_size), (*batch, cell.input_size), hold)
    if "preactivations" in arrays:
        width, blocks = cell.preactivation_size, len(cell.layout.blocks)
        own = (blocks, cell.hidden_size) if width == blocks * cell.hidden_size else (width,)
        made["preactivations"] = Columns(arrays["preactivations"], slice(width), (*batch, *own))
    return made


def _any(flag: Columns) -> bool:
    """Whether a flag is true anywhere, read chunk by chunk."""
    length = flag.shape[0]
    size = flag.chunks[0] if hasattr(flag.array, "chunks") else length
    return any(flag[start : start + size].any() for start in range(0, length, size))

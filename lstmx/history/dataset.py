"""A history as an `xarray.Dataset`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import is_traced, require
from lstmx.cells.base import Cell
from lstmx.checks import door
from lstmx.history.recorded import History
from lstmx.history.schema import (
    Field,
    arrays_of,
    attributes_of,
    cell_of,
    constants_from,
    controls_in,
    fields_of,
    library_of,
    rows_from,
)
from lstmx.history.store import batch_axes


def dataset_of(history: History) -> Any:
    """See `History.to_xarray`."""
    xarray = require("xarray", "to_xarray", extra="disk")
    if is_traced(history):
        raise TypeError("this history is inside a JAX transformation, and has no numbers to give to xarray")
    cell, batch = history.cell, batch_axes(len(history.batch))
    arrays = arrays_of(history)
    fields = fields_of(cell, "states" if history.stored is None else "all", controls_in(arrays))
    for name, gate in history.gates._asdict().items():
        arrays[name] = gate
        fields[name] = Field("time", ("unit",), (cell.hidden_size,), _gate_words(name))
    variables = {
        name: (field.axes(batch), np.array(arrays[name]), field.attributes()) for name, field in fields.items()
    }
    coordinates: dict[str, Any] = {"time": ("time", np.arange(len(history)), {"long_name": "step", "units": "1"})}
    if "block" in fields.get("preactivations", Field("", (), (), "")).names:
        coordinates["block"] = ("block", list(cell.layout.blocks), {"long_name": "block of pre-activations"})
    return xarray.Dataset(variables, coordinates, attributes_of(cell, history.inputs, len(history)))


def _gate_words(name: str) -> str:
    return f"{name.replace('_', ' ')} activation"


def history_from(dataset: Any) -> History:
    """See `History.from_xarray`."""
    xarray = require("xarray", "from_xarray", extra="disk")
    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; expected an xarray.Dataset")
    cell = cell_of(dataset.attrs, "the dataset")
    keep = "all" if "preactivations" in dataset else "states"
    _check(dataset, cell, keep)
    xp = library_of(dataset.attrs, dataset["inputs"].dtype)

    def take(name: str) -> Any:
        return xp.asarray(dataset[name].values)

    params, initial = constants_from(cell, take)
    rows = rows_from(cell, keep, controls_in(dataset), take)
    door(cell, params, rows[0], initial)
    return History(cell, params, initial, *rows)


def _check(dataset: Any, cell: Cell, keep: str) -> None:
    """Raise unless every variable is there with its axes, from the first step on."""
    fields = fields_of(cell, keep, controls_in(dataset))
    missing = [name for name in fields if name not in dataset]
    if missing:
        raise ValueError(f"the dataset lacks {', '.join(missing)}, which a history of {cell} has")
    inputs = dataset["inputs"]
    batch = tuple(inputs.dims[1:-1])
    length, *sizes = inputs.shape[:-1]
    for name, field in fields.items():
        found, expected = dataset[name], field.axes(batch)
        if found.dims != expected:
            raise ValueError(f"{name} has dimensions {found.dims}; expected {expected}")
        there, due = (
            (found.shape, found.dtype),
            (field.whole(length, tuple(sizes)), np.dtype(bool) if field.flag else inputs.dtype),
        )
        if there != due:
            raise ValueError(f"{name} is {there}; expected (shape, dtype) {due}")
    finished = dataset.attrs.get("finished_steps")
    if length != finished or ("time" in dataset.coords and int(dataset["time"][0]) != 0):
        raise ValueError(
            f"the dataset has {length} steps of a history of {finished}: without the state before its first step "
            "a stretch is no history; cut the history instead, history[start:stop]"
        )

"""A history as an `xarray.Dataset`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import fetched, is_traced, require
from lstmx.checks import door
from lstmx.history.first_version import translated
from lstmx.history.schema import (
    Field,
    Form,
    attributes_of,
    batch_axes,
    form_from,
    form_of,
    library_of,
    version_of,
)

_WHERE = "the dataset"


def dataset_of(history: Any) -> Any:
    """See `History.to_xarray`."""
    xarray = require("xarray", "to_xarray")
    if is_traced(history):
        raise TypeError("this history is inside a JAX transformation, and has no numbers to give to xarray")
    form, batch = form_of(history), batch_axes(len(history.batch))
    arrays, fields = form.arrays(history), form.fields
    if form.cell.closed_form:
        for name, gate in history.gates._asdict().items():
            arrays[name] = gate
            fields[name] = Field(
                "time", ("unit",), (form.cell.hidden_size,), f"{name.replace('_', ' ')} activation"
            )
    variables = {
        name: (field.axes(batch), np.array(fetched(arrays[name])), field.attributes())
        for name, field in fields.items()
    }
    coordinates: dict[str, Any] = {"time": ("time", np.arange(len(history)), {"long_name": "step", "units": "1"})}
    if "block" in fields.get("preactivations", Field("", (), (), "")).names:
        coordinates["block"] = ("block", list(form.cell.layout.blocks), {"long_name": "block of pre-activations"})
    return xarray.Dataset(variables, coordinates, attributes_of(form, history.inputs, len(history)))


def parts_from(dataset: Any, cell: Any) -> tuple[Any, ...]:
    """What a `History` is made of, from a dataset; see `History.from_xarray`."""
    xarray = require("xarray", "from_xarray")
    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; expected an xarray.Dataset")
    if version_of(dataset.attrs, _WHERE) == 1:
        dataset = _of_today(dataset, xarray)
    form = form_from(dataset.attrs, dataset, _WHERE, cell)
    _check(dataset, form)
    xp = library_of(dataset.attrs, dataset["inputs"].dtype)

    def take(name: str) -> Any:
        return xp.asarray(dataset[name].values)

    params, initial = form.constants(take)
    rows = form.rows(take)
    door(form.cell, params, rows[0], initial)
    return form.cell, params, initial, *rows


def _of_today(dataset: Any, xarray: Any) -> Any:
    """A dataset of version 1 as today's."""
    values = {name: dataset[name].values for name in dataset.data_vars}
    attributes, arrays = translated(dataset.attrs, values, _WHERE)
    batch = dataset["inputs"].dims[1:-1]
    fields = form_from(attributes, arrays, _WHERE).fields
    made = {name: (field.axes(batch), arrays[name][...]) for name, field in fields.items() if name in arrays}
    return xarray.Dataset(made, {"time": dataset["time"]} if "time" in dataset.coords else {}, attributes)


def _check(dataset: Any, form: Form) -> None:
    """Raise unless every variable is there with its axes, from the first step on."""
    fields = form.fields
    missing = [name for name in fields if name not in dataset]
    if missing:
        raise ValueError(f"{_WHERE} lacks {', '.join(missing)}, which a history of {form.cell} has")
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

"""A history as named arrays with named axes: what `to_xarray` gives and what a store holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lstmx.arrays import Array, is_jax, library, namespace
from lstmx.cells.base import Cell
from lstmx.description import cell_from, described
from lstmx.draws import float_dtype
from lstmx.history.controls import Controls
from lstmx.history.recorded import History

FORMAT = "lstmx history"
VERSION = 2


class Field(NamedTuple):
    """One array of a history."""

    lead: str
    """Axes in front: "time" for [T, *batch], "batch" for [*batch], "" for none."""
    names: tuple[str, ...]
    """Names of the axes behind these."""
    shape: tuple[int, ...]
    """Lengths of those."""
    long_name: str
    """What it is, in words."""
    flag: bool = False
    """Whether it holds booleans, and not numbers of the history's dtype."""

    def axes(self, batch: tuple[str, ...]) -> tuple[str, ...]:
        """Names of all axes, from those of the batch."""
        return {"time": ("time", *batch), "batch": batch, "": ()}[self.lead] + self.names

    def whole(self, length: int, batch: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of all axes."""
        return {"time": (length, *batch), "batch": batch, "": ()}[self.lead] + self.shape

    def attributes(self) -> dict[str, str]:
        return {"long_name": self.long_name, "units": "1"}


def fields_of(cell: Cell, keep: str = "all", controls: tuple[str, ...] = ()) -> dict[str, Field]:
    """The arrays of a history of this cell, by name.

    Args:
        cell: the cell.
        keep: as for `record`.
        controls: which of the fields of `Controls` the history has.
    """
    known = {"inputs": Field("time", ("feature",), (cell.input_size,), "input of each step")}
    sizes = dict(zip(cell.state_type._fields, cell.field_sizes, strict=True))
    for name, size in sizes.items():
        axis, words = (_axis(cell, name, size),), name.replace("_", " ")
        known[f"{name}_state"] = Field("time", axis, (size,), f"{words} state after each step")
        known[f"initial_{name}"] = Field("batch", axis, (size,), f"{words} state before the first step")
        if "kept" in controls:
            words = f"whether a Zoneout kept the {words} state of the step before"
            known[f"kept_{name}"] = Field("time", axis, (size,), words)
    for name, words in (("hold", "step that does not count"), ("reset", "step that starts a sequence")):
        if name in controls:
            known[name] = Field("time", (), (), words, flag=True)
    if keep == "all":
        known["preactivations"] = _preactivations(cell)
    for name, shape in cell.parameter_shapes()._asdict().items():
        if shape is not None:
            axes = tuple(f"{name}_{axis}" for axis in ("row", "column")[-len(shape) :])
            known[f"parameter_{name}"] = Field("", axes, tuple(shape), f"parameter {name.replace('_', ' ')}")
    return known


def _axis(cell: Cell, name: str, size: int) -> str:
    return "unit" if size == cell.hidden_size else f"{name}_unit"


def _preactivations(cell: Cell) -> Field:
    """By block and unit, or where not all blocks are of one width in one row."""
    blocks, units = cell.layout.blocks, cell.hidden_size
    words = f"what gates are computed from; blocks: {', '.join(blocks)}"
    if cell.preactivation_size == len(blocks) * units:
        return Field("time", ("block", "unit"), (len(blocks), units), words)
    return Field("time", ("preactivation",), (cell.preactivation_size,), words)


def arrays_of(history: History) -> dict[str, Array]:
    """All arrays of a history under the names of `fields_of`, in their shapes."""
    if not history.cell.closed_form:
        raise TypeError(f"{history.cell!r} is a step function, which no file and no dataset can hold")
    states, initial = history.states._asdict(), history.initial._asdict()
    made = {"inputs": history.inputs} | {f"{name}_state": x for name, x in states.items()}
    made |= constants_of(history.params, initial)
    hold, reset, kept = history.controls or Controls()
    made |= {name: x for name, x in (("hold", hold), ("reset", reset)) if x is not None}
    made |= {} if kept is None else {f"kept_{name}": x for name, x in kept._asdict().items()}
    if history.stored is not None:
        made["preactivations"] = history.stored.reshape(
            (*history.stored.shape[:-1], *_preactivations(history.cell).shape)
        )
    return made


def constants_of(params: Any, initial: Mapping[str, Array]) -> dict[str, Array]:
    """Those that do not grow with time: parameters, and fields of the initial state."""
    given = {f"parameter_{name}": x for name, x in params._asdict().items() if x is not None}
    return given | {f"initial_{name}": x for name, x in initial.items()}


def constants_from(cell: Cell, take: Callable[[str], Array]) -> tuple[Any, Any]:
    """Parameters and initial state, of arrays that `take(name)` gives."""
    shapes = cell.parameter_shapes()
    named = shapes._asdict().items()
    params = (None if shape is None else take(f"parameter_{name}") for name, shape in named)
    initial = (take(f"initial_{name}") for name in cell.state_type._fields)
    return type(shapes)(*params), cell.state_type(*initial)


def states_from(cell: Cell, take: Callable[[str], Array]) -> Any:
    """States after each step, likewise."""
    return cell.state_type(*(take(f"{name}_state") for name in cell.state_type._fields))


def rows_from(cell: Cell, keep: str, controls: tuple[str, ...], take: Callable[[str], Array]) -> tuple[Any, ...]:
    """The `rows` of a history, likewise: inputs, states, stored pre-activations and controls."""
    inputs, stored = take("inputs"), take("preactivations") if keep == "all" else None
    stored = None if stored is None else stored.reshape((*inputs.shape[:-1], -1))
    if not controls:
        return inputs, states_from(cell, take), stored, None
    hold, reset = (take(name) if name in controls else None for name in ("hold", "reset"))
    kept = (
        cell.state_type(*(take(f"kept_{name}") for name in cell.state_type._fields))
        if "kept" in controls
        else None
    )
    return inputs, states_from(cell, take), stored, Controls(hold, reset, kept)


def controls_in(names: Any) -> tuple[str, ...]:
    """Which fields of `Controls` there are, from the names of a history's arrays."""
    return tuple(k for k in Controls._fields if any(name == k or name.startswith(f"{k}_") for name in names))


def attributes_of(cell: Cell, like: Array, finished: int) -> dict[str, Any]:
    """What tells a reader whose arrays these are."""
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "cell": json.dumps(described(cell)),
        "library": "JAX" if is_jax(namespace(like)) else "NumPy",
        "finished_steps": finished,
    }


def cell_of(attributes: Mapping[str, Any], where: str) -> Cell:
    """The cell that `attributes_of` described.

    Raises:
        ValueError: these are no attributes of a history, or of a newer format or an unknown cell.
    """
    if attributes.get("format") != FORMAT:
        raise ValueError(f"{where} holds no history: its attribute format is {attributes.get('format')!r}")
    version = attributes.get("format_version")
    if version != VERSION:
        raise ValueError(f"{where} has format version {version!r}; this version of lstmx reads {VERSION}")
    try:
        return cell_from(json.loads(attributes["cell"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no cell that can be made: {error}") from error


def library_of(attributes: Mapping[str, Any], dtype: Any) -> Any:
    """The library that recorded, as an array namespace; NumPy where JAX is not installed.

    Raises:
        ValueError: JAX would round float64, being without `jax_enable_x64`.
    """
    xp = library(attributes.get("library") == "JAX")
    try:
        float_dtype(xp, dtype)
    except ValueError as error:
        raise ValueError(
            f"the history is {dtype} in JAX, which has float64 switched off and would round it: "
            'call jax.config.update("jax_enable_x64", True) first'
        ) from error
    return xp

"""A history as named arrays with named axes: what `to_xarray` gives and what a store holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, is_jax, jax, library, namespace
from lstmx.cells.base import Cell
from lstmx.cells.description import CELLS, cell_from, described
from lstmx.checks import kind_of
from lstmx.draws import float_dtype
from lstmx.history.controls import Controls

FORMAT = "lstmx history"
VERSION = 3
CHECKSUMS_SINCE = 3  # of all that is in the folder


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


class Form(NamedTuple):
    """Which arrays a history has, and what they are put together to."""

    cell: Cell
    """The cell that ran."""
    keep: str
    """As for `record`."""
    controls: tuple[str, ...]
    """Which of the fields of `Controls` there are."""
    params: Any
    """Shapes of the parameters of a step function, a tree; None for another cell, which knows them itself."""

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays by name."""
        cell = self.cell
        known = {"inputs": Field("time", ("feature",), (cell.input_size,), "input of each step")}
        for name, shape in _state_shapes(cell).items():
            axes, words = _axes(cell, name, shape), name.replace("_", " ")
            known[f"{name}_state"] = Field("time", axes, shape, f"{words} state after each step")
            known[f"initial_{name}"] = Field("batch", axes, shape, f"{words} state before the first step")
            if "kept" in self.controls:
                words = f"whether a Zoneout kept the {words} state of the step before"
                known[f"kept_{name}"] = Field("time", axes, shape, words)
        for name, words in (("hold", "step that does not count"), ("reset", "step that starts a sequence")):
            if name in self.controls:
                known[name] = Field("time", (), (), words, flag=True)
        if self.keep == "all":
            known |= self._stored
        for name, shape in self._parameter_shapes.items():
            axes = tuple(f"{name}_{axis}" for axis in _matrix_axes(len(shape)))
            known[f"parameter_{name}"] = Field("", axes, shape, f"parameter {name.replace('_', ' ')}")
        return known

    @property
    def _stored(self) -> dict[str, Field]:
        if self.cell.closed_form:
            return {"preactivations": _preactivations(self.cell)}
        shown = self.cell.shown_shapes(self.params).items()  # type: ignore  # a step function has it
        return {
            f"shown_{name}": Field("time", _axes(self.cell, name, shape), shape, f"{name}, as shown")
            for name, shape in shown
        }

    @property
    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.cell.closed_form:
            return {name: tuple(x.shape) for name, x in named_parameters(self.params).items()}
        named = self.cell.parameter_shapes()._asdict().items()
        return {name: tuple(shape) for name, shape in named if shape is not None}

    # ------------------------------------------------------------------------------- from arrays by name

    def constants(self, take: Callable[[str], Array]) -> tuple[Any, Any]:
        """Parameters and initial state, of arrays that `take(name)` gives."""
        if self.cell.closed_form:
            shapes = self.cell.parameter_shapes()
            named = shapes._asdict().items()
            params = type(shapes)(*(None if shape is None else take(f"parameter_{name}") for name, shape in named))
        else:
            names = named_parameters(self.params)
            params = jax.tree.unflatten(
                jax.tree.structure(self.params), [take(f"parameter_{name}") for name in names]
            )
        return params, _state(self.cell, lambda name: take(f"initial_{name}"))

    def states(self, take: Callable[[str], Array]) -> Any:
        """States after each step, likewise."""
        return _state(self.cell, lambda name: take(f"{name}_state"))

    def rows(self, take: Callable[[str], Array], keep: str = "all") -> tuple[Any, ...]:
        """The `rows` of a history, likewise: inputs, states, what is stored and controls."""
        inputs, stored, controls = take("inputs"), None, None
        if keep == self.keep == "all" and self.cell.closed_form:
            stored = take("preactivations").reshape((*inputs.shape[:-1], -1))
        elif keep == self.keep == "all":
            stored = {name.removeprefix("shown_"): take(name) for name in self._stored}
        if self.controls:
            hold, reset = (take(name) if name in self.controls else None for name in ("hold", "reset"))
            kept = "kept" in self.controls
            drawn = _state(self.cell, lambda name: take(f"kept_{name}")) if kept else None
            controls = Controls(hold, reset, drawn)
        return inputs, self.states(take), stored, controls

    def arrays(self, history: Any) -> dict[str, Array]:
        """All arrays of a history of this form under the names of `fields`, in their shapes."""
        fields, cell = self.fields, self.cell
        named = {f"{name}_state": x for name, x in cell.named_fields(history.states).items()}
        made = {"inputs": history.inputs} | named | constants_of(cell, history.params, history.initial)
        hold, reset, kept = history.controls or Controls()
        made |= {name: x for name, x in (("hold", hold), ("reset", reset)) if x is not None}
        made |= {} if kept is None else {f"kept_{name}": x for name, x in cell.named_fields(kept).items()}
        if self.keep == "all" and cell.closed_form:
            lead = history.stored.shape[:-1]
            made["preactivations"] = history.stored.reshape((*lead, *fields["preactivations"].shape))
        elif self.keep == "all":
            made |= {f"shown_{name}": x for name, x in history.stored.items()}
        return made


def form_of(history: Any) -> Form:
    """The form of a `History`."""
    keep = "states" if history.stored is None else "all"
    said = history.controls or Controls()
    controls = tuple(name for name, x in said._asdict().items() if x is not None)
    return Form(history.cell, keep, controls, None if history.cell.closed_form else history.params)


def form_from(attributes: Mapping[str, Any], arrays: Mapping[str, Any], where: str, cell: Any = None) -> Form:
    """The form of what `attributes_of` tells of and `Form.arrays` named.

    Args:
        attributes: the attributes.
        arrays: the arrays by name, of which only names, shapes and dtypes are looked at.
        where: what they are of, in words.
        cell: the cell, where it cannot be made from the attributes.

    Raises:
        TypeError: `cell` is no cell.
        ValueError: these are no attributes of a history, or of a newer format or another cell; or the cell is one
            that cannot be made from them, and is not given.
    """
    version_of(attributes, where)
    if cell is not None and not isinstance(cell, Cell):
        raise TypeError(f"cell is {kind_of(cell)}; expected the cell that ran, or None")
    cell = cell_told(attributes.get("cell"), where, cell)
    if cell.closed_form:
        keep, params = "all" if "preactivations" in arrays else "states", None
    else:
        keep, params = attributes.get("keep", "all"), _parameters(attributes, arrays, where, cell)
    controls = [name for name in ("hold", "reset") if name in arrays]
    controls += ["kept"] if any(name.startswith("kept_") for name in arrays) and cell.closed_form else []
    return Form(cell, keep, tuple(controls), params)


def batch_axes(count: int) -> tuple[str, ...]:
    """Names of the batch axes."""
    return ("batch",) if count == 1 else tuple(f"batch_{k}" for k in range(count))


def constants_of(cell: Cell, params: Any, initial: Any) -> dict[str, Array]:
    """The arrays that do not grow with time: parameters, and those of the initial state."""
    named = named_parameters(params) if not cell.closed_form else params._asdict()
    given = {f"parameter_{name}": x for name, x in named.items() if x is not None}
    return given | {f"initial_{name}": x for name, x in cell.named_fields(initial).items()}


def named_parameters(params: Any) -> dict[str, Array]:
    """The parameters of a step function by names that a file can have, in the order of their tree."""
    found: dict[str, Array] = {}
    for number, (path, x) in enumerate(jax.tree_util.tree_flatten_with_path(params)[0]):
        name = jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".") or "0"
        found[f"{name}.{number}" if name in found else name] = x
    return found


# --------------------------------------------------------------------------------------------- attributes


def attributes_of(form: Form, like: Array, finished: int) -> dict[str, Any]:
    """What tells a reader whose arrays these are."""
    made = {
        "format": FORMAT,
        "format_version": VERSION,
        "cell": told(form.cell),
        "library": "JAX" if is_jax(namespace(like)) else "NumPy",
        "finished_steps": finished,
    }
    if not form.cell.closed_form:
        made |= {"keep": form.keep, "parameters": json.dumps(_outline(form.params))}
    return made


def told(cell: Any, kinds: dict[str, Any] = CELLS) -> str:
    """What a file says of a cell: its description, or for one that cannot be made from it how it is shown."""
    try:
        return json.dumps(described(cell, kinds))
    except TypeError:
        return json.dumps({"kind": type(cell).__name__, "shown": repr(cell)})


def is_described(cell: Cell) -> bool:
    """Whether a cell can be made from what `told` tells of it."""
    return "shown" not in json.loads(told(cell))


def version_of(attributes: Mapping[str, Any], where: str) -> int:
    """The version of the format.

    Raises:
        ValueError: these are no attributes of a history, or of a newer format.
    """
    if attributes.get("format") != FORMAT:
        raise ValueError(f"{where} holds no history: its attribute format is {attributes.get('format')!r}")
    version = attributes.get("format_version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"{where} has format version {version!r}; this version of lstmx reads 1 to {VERSION}")
    return version


def cell_told(words: Any, where: str, given: Any, kinds: dict[str, Any] = CELLS) -> Any:
    """The cell that `told` told of; `given` where it cannot be made from that.

    Raises:
        ValueError: they are not the same; or it cannot be made and is not given.
    """
    if given is not None:
        if told(given, kinds) != words:
            raise ValueError(f"{where} is of another cell than {given!r}: of {words}")
        return given
    try:
        description = json.loads(words)
        if isinstance(description, dict) and "shown" in description:
            raise LookupError(description["shown"])
        return cell_from(description, kinds)
    except LookupError as error:
        raise ValueError(
            f"{where} is of {error.args[0]}, whose equations no file holds: pass the cell, "
            "load_history(path, cell=cell)"
        ) from None
    except (TypeError, ValueError) as error:
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


# ---------------------------------------------------------------------------------- parameters of step functions


def _outline(params: Any) -> Any:
    """A tree of dicts, lists and tuples as JSON has it, of the names of its arrays; of others the names alone."""
    names = iter(named_parameters(params))

    def drawn(tree: Any) -> Any:
        if tree is None:
            return None
        if type(tree) is dict and all(isinstance(key, str) for key in tree):
            return {"dict": {key: drawn(tree[key]) for key in sorted(tree)}}
        if type(tree) in (list, tuple):
            return {type(tree).__name__: [drawn(part) for part in tree]}
        if hasattr(tree, "shape"):
            return next(names)
        raise LookupError(tree)

    try:
        return drawn(params)
    except LookupError:
        return {"names": list(named_parameters(params))}


def _parameters(attributes: Mapping[str, Any], arrays: Mapping[str, Any], where: str, cell: Any) -> Any:
    """The tree of the parameters' shapes, from what `_outline` drew."""

    def shape(name: str) -> Any:
        if f"parameter_{name}" not in arrays:
            raise ValueError(f"{where} lacks parameter_{name}, which a history of {cell} has")
        found = arrays[f"parameter_{name}"]
        return jax.ShapeDtypeStruct(tuple(found.shape), found.dtype)

    def made(part: Any) -> Any:
        if isinstance(part, str):
            return shape(part)
        if part is None:
            return None
        kind, inside = next(iter(part.items()))
        if kind == "dict":
            return {key: made(value) for key, value in inside.items()}
        return {"list": list, "tuple": tuple}[kind](made(value) for value in inside)

    outline = json.loads(attributes["parameters"])
    if not isinstance(outline, dict) or "names" not in outline:
        return made(outline)
    if cell.make is None:
        raise ValueError(
            f"{where} does not say how the parameters of {cell} are put together, which are no dicts, lists or "
            "tuples: pass init= to from_step, of which it is seen"
        )
    tree = jax.tree.structure(jax.eval_shape(cell.make, jax.random.key(0)))
    return jax.tree.unflatten(tree, [shape(name) for name in outline["names"]])


# ------------------------------------------------------------------------------------------------- states


def _state_shapes(cell: Cell) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a state of one sequence by name."""
    if cell.closed_form:
        return {name: (size,) for name, size in zip(cell.state_type._fields, cell.field_sizes, strict=True)}
    start: Any = cell.start  # type: ignore  # a step function has it
    return {name: tuple(np.shape(x)) for name, x in cell.named_fields(start.tree.unflatten(start.arrays)).items()}


def _state(cell: Cell, take: Callable[[str], Array]) -> Any:
    """A state, of arrays that `take(name)` gives."""
    values = [take(name) for name in _state_shapes(cell)]
    if cell.closed_form:
        return cell.state_type(*values)
    return cell.start.tree.unflatten(values)  # type: ignore  # a step function has it


def _axes(cell: Cell, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the axes of an array of a step of one sequence."""
    if len(shape) == 1:
        return ("unit" if shape[0] == cell.hidden_size else f"{name}_unit",)
    return tuple(f"{name}_{axis}" for axis in _matrix_axes(len(shape)))


def _matrix_axes(count: int) -> tuple[str, ...]:
    return ("row", "column")[-count:] if 0 < count <= 2 else tuple(map(str, range(count)))


def _preactivations(cell: Cell) -> Field:
    """By block and unit, or where not all blocks are of one width in one row."""
    blocks, units = cell.layout.blocks, cell.hidden_size
    words = f"what gates are computed from; blocks: {', '.join(blocks)}"
    if cell.preactivation_size == len(blocks) * units:
        return Field("time", ("block", "unit"), (len(blocks), units), words)
    return Field("time", ("preactivation",), (cell.preactivation_size,), words)

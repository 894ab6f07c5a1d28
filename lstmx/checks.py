"""The worded errors of the door: what came, what was expected, how to get there."""

from __future__ import annotations

import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import (
    Array,
    all_finite,
    dtype_of,
    fetched,
    is_elsewhere,
    is_jax,
    is_traced,
    leaves,
    map_tree,
    namespace,
)

_FLOATS = {np.dtype("float32"), np.dtype("float64")}
LARGEST = 2**24
"""What a size, or a count of arrays that are held together, is at most: more is a slip, which would end in the
middle of the work, where memory ends."""
_ROUNDING = 1e-5  # by which a gate that somebody computes, as by a softmax, may leave [0, 1]


def positive(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int of at least `least`, and of at most `most`, where that is given.

    Raises:
        TypeError: not an integer.
        ValueError: too small, or too large.
    """
    expected = f"expected an integer of at least {least}" + ("" if most is None else f" and at most {most}")
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:  # also of arrays, which have the method and do not answer
        number = None
    if number is None:
        raise TypeError(f"{name} is {value!r}; {expected}")
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} is {number}; {expected}")
    return number


def cells_of(name: str, value: Any, *, layers: bool = True) -> None:
    """Raise a TypeError unless `value` is a cell, or with `layers` layers of cells."""
    kind = type(value)
    if hasattr(kind, "initial_state") and (layers or not hasattr(kind, "parts")):
        return
    expected = "a cell such as lstmx.LSTM(3, 8)" + (", or layers of cells" if layers else "")
    raise TypeError(f"{name} is {kind_of(value)}; expected {expected}")


def kind_of(value: Any) -> str:
    """What came in the place of a cell, in words."""
    return f"the class {value.__name__}, not a cell" if isinstance(value, type) else f"a {type(value).__name__}"


def path(name: str, value: Any, expected: str = "the path of a file or folder") -> Path:
    """`value` as a path of this machine.

    Raises:
        TypeError: neither a str nor a Path.
        ValueError: the empty path, one with a character that no path has, or an address, such as
            "s3://bucket/pass".
    """
    if not isinstance(value, (str, Path)):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a path, as a str or pathlib.Path")
    if not str(value) or "\0" in str(value):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    if re.match(r"[A-Za-z][\w+.-]+:[:/]", str(value)):  # of which Path has taken a slash
        raise ValueError(
            f"{name} is {str(value)!r}, an address; expected a path on this machine: write and read there, and "
            "copy from it or to it"
        )
    return Path(value)


def finite_number(
    name: str, value: Any, expected: str = "a finite number", within: Callable[[Any], bool] = lambda x: True
) -> None:
    """Raise a ValueError unless `value` is a real number, of Python or NumPy, that a float holds.

    Args:
        name: of the argument.
        value: what came.
        expected: in words what else it is to be.
        within: whether a number is that.
    """
    real = isinstance(value, Real) and not isinstance(value, (bool, np.bool_, np.timedelta64))
    try:
        known = real and math.isfinite(value)
    except OverflowError:  # of an integer that no float holds
        known = False
    if not known or not within(value):
        raise ValueError(f"{name} is {value!r}; expected {expected}")


def flag(name: str, value: Any) -> None:
    """Raise a TypeError unless `value` is True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; expected True or False")


def seeding(name: str, value: Any) -> int:
    """`value` as an int that seeds both libraries.

    Raises:
        TypeError: not an integer.
        ValueError: below 0, or above 2**63 - 1.
    """
    return positive(name, value, 0, 2**63 - 1)


def one_of(name: str, value: Any, options: tuple[str, ...]) -> str:
    """`value` if it is one of the words in `options`, else a ValueError that lists them."""
    if not isinstance(value, (str, np.dtype)) or value not in options:
        expected = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} is {value!r}; expected one of {expected}")
    return str(value)


def array(name: str, value: Any, dtype: Any = None) -> Array:
    """`value` if it is a NumPy or JAX array, else a TypeError with the line that makes one, of `dtype`."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask nothing here reads; pass {name}.filled(...)")
    objects = isinstance(value, np.ndarray) and value.dtype == object
    if objects or not hasattr(value, "__array_namespace__"):
        kind = f"{type(value).__name__}{' of Python objects' if objects else ''}"
        raise TypeError(
            f"{name} is a {kind}; expected a NumPy or JAX array: {_line_that_makes_one(name, value, dtype)}"
        )
    return value


def _line_that_makes_one(name: str, value: Any, dtype: Any) -> str:
    """What makes an array of a value of another kind, in Python."""
    if hasattr(value, "batch_sizes"):  # PyTorch's PackedSequence
        return (
            f"{name}, lengths = (x.detach().numpy() for x in torch.nn.utils.rnn.pad_packed_sequence({name})), and "
            "pass lengths=lengths"
        )
    if hasattr(value, "detach"):  # PyTorch's tensors
        return f"{name}.detach().cpu().numpy()"
    many = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    listed = value if many else ()
    shapes = [tuple(one.shape) for one in listed if hasattr(one, "shape")]
    if len(set(shapes)) > 1:
        padded = f"[numpy.pad(x, ((0, lengths.max() - len(x)), (0, 0))) for x in {name}]"
        return (
            f"sequences of unequal shapes, {', '.join(map(str, sorted(set(shapes))[:3]))}, are padded by"
            f"\n    lengths = numpy.array([len(x) for x in {name}])"
            f"\n    {name} = numpy.stack({padded}, axis=1)"
            "\nand read up to their ends with lengths=lengths"
        )
    if shapes and len(shapes[0]) > 1:
        return f"numpy.stack({name}, axis=1) of sequences [T, D], numpy.stack({name}) of steps [B, D]"
    line = f'numpy.asarray({name}, dtype="{dtype}")' if dtype is not None else f"numpy.asarray({name})"
    dims = getattr(value, "dims", None)  # xarray's
    return f"{line}, time first: its axes are {dims}" if dims else line


def same_dtype(name: str, value: Array, dtype: Any, owner: str) -> None:
    """Raise a TypeError unless `value` has exactly `dtype`: numbers are never cast in silence."""
    if value.dtype != dtype:
        raise TypeError(
            f"{name} is {value.dtype}; {owner} {dtype}. Nothing is cast in silence: "
            f'pass {name}.astype("{dtype}"), or make parameters with cell.init(key, dtype=...)'
        )


def shaped(name: str, value: Any, shape: tuple[int, ...], dtype: Any, axes: str) -> Array:
    """`value` if it is an array of exactly this shape and dtype; `axes` names the axes in the error."""
    array(name, value)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {axes} = {tuple(shape)}")
    same_dtype(name, value, dtype, f"{axes} is expected as")
    return value


def parameters(cell: Any, params: Any, name: str = "params") -> None:
    """Raise unless `params` are those of `cell`, or of layers: its class, its shapes, one float dtype."""
    cells_of("cell", cell)
    if hasattr(cell, "parts"):
        return cell.check(name, params, parameters)
    if not cell.closed_form:
        return cell.check_parameters(params, name)
    shapes = cell.parameter_shapes()
    kind = type(shapes)
    if not isinstance(params, kind):
        raise TypeError(
            f"{name} is a {type(params).__name__}; {cell} expects {kind.__name__}, as made by cell.init(key)"
        )
    for field, value, shape in zip(kind._fields, params, shapes, strict=True):
        if shape is None:
            if value is not None:
                raise ValueError(f"{name}.{field} is given; {cell} has none: expected None")
            continue
        array(f"{name}.{field}", value)
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}.{field} has shape {tuple(value.shape)}; {cell} expects {shape}")
    dtypes = {value.dtype for value in leaves(params)}
    if len(dtypes) > 1 or not dtypes <= _FLOATS:
        raise TypeError(
            f"{name} hold {', '.join(sorted(map(str, dtypes)))}; expected float32 or float64 throughout"
        )


def sequences(cell: Any, params: Any, xs: Any) -> None:
    """Raise unless `xs` is [T, *batch, input_size] with T ≥ 1, of the parameters' dtype."""
    form = f"xs should be [T, *batch, {cell.input_size}], got {tuple(xs.shape)}"
    if xs.ndim < 2:
        hint = "; xs[:, None] has one feature" if xs.ndim == 1 else ""
        raise ValueError(f"xs has {xs.ndim} axes; expected at least 2, time first{hint}. {form}")
    if xs.shape[-1] != cell.input_size:
        raise ValueError(
            f"xs has {xs.shape[-1]} features in its last axis; this {type(cell).__name__} expects "
            f"input_size={cell.input_size}. {form}"
        )
    if xs.shape[0] == 0:
        raise ValueError(f"xs has no time steps (T = 0); expected at least one. {form}")
    same_dtype("xs", xs, dtype_of(params), "the parameters are")


def state(cell: Any, params: Any, value: Any, batch: tuple[int, ...], name: str = "state") -> None:
    """Raise unless `value` is a state of `cell` with the batch axes of the inputs."""
    if not cell.closed_form:
        return cell.check_state(params, value, batch, name)
    if not isinstance(value, cell.state_type):
        raise TypeError(
            f"{name} is a {type(value).__name__}; {cell} expects {cell.state_type.__name__}, "
            "as made by cell.initial_state(params, batch)"
        )
    for field, size, part in zip(value._fields, cell.field_sizes, value, strict=True):
        form = "[*batch, hidden_size]" if size == cell.hidden_size else "[*batch, projection]"
        shaped(f"{name}.{field}", part, (*batch, size), dtype_of(params), form)


def door(cell: Any, params: Any, xs: Any, initial: Any) -> tuple[Any, Array, Any]:
    """Check the arguments of a forward pass and bring them into one library.

    Returns:
        params, xs and initial state in that library; None stays None, for `started` to make zeros of inside what
        is compiled.
    """
    parameters(cell, params)
    sequences(cell, params, array("xs", xs, dtype_of(params)))
    if initial is not None:
        state(cell, params, initial, tuple(xs.shape[1:-1]))
    if not cell.closed_form and not is_jax(namespace(*leaves((params, xs)))):
        raise TypeError(
            f"{cell.name} is a step function, which runs in JAX; params and xs are NumPy: "
            "jax.tree.map(jax.numpy.asarray, params)"
        )
    return in_one_library((params, xs, initial))


def in_one_library(given: Any) -> Any:
    """A tree of arrays in the library that they have in common: JAX wherever one of them is JAX."""
    xp = namespace(*leaves(given))
    return map_tree(lambda x: x if x.__array_namespace__() is xp else xp.asarray(x), given)


def unreset(history: Any, analysis: str) -> None:
    """Raise where sequences start within the pass, or where that cannot be told."""
    for part in parts_of(history):
        reset = None if part.controls is None else part.controls.reset
        if reset is not None and (is_traced(reset) or fetched(reset)[1:].any()):
            raise ValueError(
                f"{analysis} takes sequences that do not start anew within the pass; this history has resets, or "
                f"is inside a JAX transformation. history.pieces() gives every sequence as a history of its own"
            )


def parts_of(history: Any) -> list[Any]:
    """The histories of the cells of layers, or the one of a cell; of one on disk its stretches."""
    if hasattr(type(history), "cells"):
        return [part for part, _ in history.cells().values()]
    return [part for _, part in history.stretches()] if hasattr(type(history), "stretches") else [history]


def constant(cell: Any, params: Any, x: Any, state: Any, name: str = "state") -> tuple[Any, Array, Any, Any]:
    """Check the arguments of a network under a constant input, and bring them into one library.

    Args:
        cell: the cell, or layers.
        params: its parameters.
        x: the input, [D]; None for zeros.
        state: fields [*batch, H]; None for zeros.
        name: of the state in errors.

    Returns:
        params, x [D], state and the state's batch axes, all finite.
    """
    cells_of("cell", cell)
    one_direction(cell)
    parameters(cell, params)
    dtype = dtype_of(params)
    if x is not None:
        shaped("x", x, (cell.input_size,), dtype, "[input_size]")
    batch: tuple[int, ...] = ()
    if state is not None:
        own = next(leaves(cell.initial_state(params))).ndim
        first = next(leaves(state), None)
        shape = getattr(first, "shape", None)
        batch = shape[: len(shape) - own] if isinstance(shape, tuple) else ()
        _states(cell, params, state, batch, name)
    some_sequence(name, batch)
    xp = namespace(*leaves((params, x, state)))
    x = xp.zeros(cell.input_size, dtype=dtype) if x is None else xp.asarray(x)
    params, x, state = in_one_library((params, x, state))
    state = cell.initial_state(params, batch) if state is None else state
    finite_parameters(params)
    finite("x", x[None], "feature")
    for number, value in enumerate(leaves(state)):
        field = getattr(type(state), "_fields", ())
        word = f"{name}.{field[number]}" if number < len(field) else name
        finite(word, value[None])
    return params, x, state, batch


def _states(cell: Any, params: Any, value: Any, batch: tuple[int, ...], name: str) -> None:
    """Raise unless `value` is a state of a cell, or the states of layers, with these batch axes."""
    if hasattr(cell, "parts"):
        some = (next(leaves(params)),)
        cell.check(name, value, lambda part, own, word: state(part, some, own, batch, name=word))
    else:
        state(cell, params, value, batch, name=name)


def states(history: Any, value: Any, name: str) -> None:
    """Raise unless `value` is shaped like the final state of a history, of a cell or of layers, and finite."""
    _states(history.cell, history.params, value, history.batch, name)
    for leaf in leaves(value):
        if not is_traced(leaf) and not np.isfinite(fetched(leaf)).all():
            fields = [f for f, x in zip(getattr(value, "_fields", ()), value, strict=False) if x is leaf]
            raise ValueError(f"{'.'.join([name, *fields])} holds NaN or infinity; expected finite numbers")


def one_direction(cell: Any) -> None:
    """Raise where a layer reads time in both directions: then no joint state goes from step to step."""
    if getattr(cell, "both_directions", False):
        raise TypeError(
            f"{cell!r} reads time in both directions, and no joint state goes from one step to the next; take the "
            'cell of one direction, of a history history.parts["forward"]'
        )


def require_history(
    history: Any,
    *,
    layers: bool = False,
    joint: bool = False,
    disk: bool = False,
    empty: bool = False,
    expected: str = "a History, as made by record(cell, params, xs)",
) -> None:
    """Raise unless this is a history that an analysis can read, of at least one sequence.

    Args:
        history: what came.
        layers: the analysis takes those of layers, too.
        joint: the analysis takes those of a stack as one system, which layers with both directions are not.
        disk: the analysis takes those on disk, too.
        empty: it takes those without a sequence, too.
        expected: what it takes, in words.
    """
    _analysable(history, layers, joint, disk, expected)
    if not empty:
        populated(history)


def _analysable(history: Any, layers: bool, joint: bool, disk: bool, expected: str) -> None:
    """Raise unless this is a history of the kinds that `require_history` says."""
    kind = type(history)
    fields = getattr(kind, "__dataclass_fields__", {})
    if "edits" in fields:
        raise TypeError(
            f"history is an {kind.__name__}, whose steps do not follow the equations of its cell, so that an "
            "analysis would be wrong; expected a History, as made by record. lstmx.effect compares the two"
        )
    if hasattr(kind, "cells"):
        if joint:
            one_direction(history.cell)
        if layers or joint:
            return
        raise TypeError(
            f"history is a {kind.__name__}; this analysis takes the history of one cell: "
            f"history.parts[...] has {', '.join(map(repr, history.parts))}"
        )
    if "every" in fields:
        raise TypeError(
            "history is an Excerpt, which keeps too little of a pass to analyse; expected a History, as made by "
            "record(cell, params, xs)"
        )
    if hasattr(kind, "read"):
        if disk and hasattr(kind, "stretches"):
            return
        if disk:
            raise TypeError(
                "history is of layers on disk; this analysis takes them in memory, history.read(), or one at a "
                f"time from disk: history.parts[...] has {', '.join(map(repr, history.parts))}"
            )
        raise TypeError(
            "history is on disk; this analysis takes one in memory: history.read(), or a stretch, "
            "history[start:stop]"
        )
    if not hasattr(kind, "stretch"):
        raise TypeError(f"history is a {kind.__name__}; expected {expected}")


def finite(name: str, values: Array, unit: str = "unit", start: int = 0) -> None:
    """Raise at the first step and unit of `values` [T, *batch, N] that is NaN or infinite.

    Steps count from `start`. Under a JAX transformation the numbers cannot be read and nothing is checked.

    Raises:
        ValueError: naming the step, the sequence in the batch and the unit.
    """
    if is_traced(values):
        return
    if all_finite(values):
        return
    where = np.argwhere(~np.isfinite(fetched(values)))[0]
    step, *batch, index = (int(i) for i in where)
    step += start
    sequence = f", sequence {tuple(batch)}" if batch else ""
    value = fetched(values)[tuple(where)]
    raise ValueError(f"{name} is {value} first at step {step}{sequence}, {unit} {index}; expected finite numbers")


def within_unit(name: str, *values: Array) -> None:
    """Raise where what a step function calls a gate leaves [0, 1] by more than rounding."""
    for x in (fetched(x) for x in values if not is_traced(x)):
        if (wrong := x[(x < -_ROUNDING) | (x > 1 + _ROUNDING)]).size:
            raise ValueError(
                f"gates names {name}, which is {wrong[0]:.6g} at some step; expected values in [0, 1]. Without "
                "its name in the gates of from_step it is shown all the same"
            )


def finite_parameters(params: Any) -> None:
    """Raise if parameters hold NaN or infinity."""
    named = params._asdict() if hasattr(params, "_asdict") else {}
    for value in leaves(params):
        if not is_traced(value) and not all_finite(value):
            field = next((f".{f}" for f, x in named.items() if x is value), "")
            raise ValueError(f"params{field} holds NaN or infinity; expected finite numbers")


def finite_history(history: Any) -> None:
    """Raise if parameters, inputs or states of a history hold NaN or infinity: where first.

    Of one on disk, it is read stretch by stretch. Under a JAX transformation nothing is checked.
    """
    start = 0
    for part in parts_of(history):
        if not is_traced(part) and not all(map(all_finite, leaves((part.params, part.inputs, part.states)))):
            finite_parameters(part.params)
            finite("inputs", part.inputs, "feature", start)
            for field, value in part.cell.named_fields(part.states).items():
                finite(f"{field}_state", value.reshape(*part.inputs.shape[:-1], -1), start=start)
        start += len(part) if hasattr(type(history), "stretches") else 0


def jacobian_array(history: Any) -> None:
    """Raise unless an array given as a history holds Jacobians [T, *batch, S, S].

    Raises:
        TypeError: it is neither float32 nor float64.
        ValueError: it has another shape, or holds nothing.
    """
    if history.ndim < 3 or history.shape[-1] != history.shape[-2] or 0 in history.shape:
        raise ValueError(
            f"history is an array {tuple(history.shape)}; expected Jacobians [T, *batch, S, S], or a History"
        )
    if history.dtype not in (np.dtype("float32"), np.dtype("float64")):
        raise TypeError(f"history is an array of {history.dtype}; expected float32 or float64")


def savable(history: Any) -> None:
    """Raise unless this process has the numbers of a history."""
    if is_traced(history):
        raise TypeError("this history is inside a JAX transformation, and has no numbers to save")
    if any(map(is_elsewhere, leaves(history))):
        raise ValueError(
            "this history lies with several processes; record_to writes one folder from all of them, and "
            "history.to_numpy(), called by all, is whole in each, for one of them to save"
        )


def populated(history: Any) -> None:
    """Raise if a history has no sequence: a batch axis of length 0."""
    some_sequence("the history", history.batch)


def some_sequence(owner: str, batch: tuple[int, ...]) -> None:
    """Raise if batch axes hold no sequence, as one of length 0 does."""
    if 0 in batch:
        raise ValueError(f"the batch axes {batch} of {owner} hold no sequence; expected at least one")


class Lacking(ABC):
    """A base of passes that say in words where what they lack may be found: `_lacks(name)` says it."""

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are no field and no property.
        if name.startswith("_") or name in getattr(type(self), "__dataclass_fields__", ()):
            raise AttributeError(name)  # while it is copied or unpickled
        raise AttributeError(self._lacks(name))

    @abstractmethod
    def _lacks(self, name: str) -> str:
        """The sentence for a name that is no attribute."""


def dead(what: str, name: str) -> RuntimeError:
    """The error of using what was handed to `record(..., reuse=...)`."""
    return RuntimeError(
        f"this {what} was handed to record(..., reuse=...): its memory holds another pass now, and {name} is "
        "gone; use what that call returned"
    )

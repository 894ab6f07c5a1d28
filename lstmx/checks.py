"""The worded errors of the door: what came, what was expected, how to get there."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_traced, leaves, map_tree, namespace

_FLOATS = {np.dtype("float32"), np.dtype("float64")}


def positive(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected an integer of at least {least}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} is {number}; expected an integer of at least {least}")
    return number


def finite_number(name: str, value: Any) -> None:
    """Raise a ValueError unless `value` is a finite real number, of Python or NumPy."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a finite number")


def flag(name: str, value: Any) -> None:
    """Raise a TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected True or False")


def one_of(name: str, value: Any, options: tuple[str, ...]) -> str:
    """`value` if it is one of the words in `options`, else a ValueError that lists them."""
    if value not in options:
        expected = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} is {value!r}; expected one of {expected}")
    return value


def array(name: str, value: Any) -> Array:
    """`value` if it is a NumPy or JAX array, else a TypeError that says how to make one."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask nothing here reads; pass {name}.filled(...)")
    if not hasattr(value, "__array_namespace__"):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected a NumPy or JAX array: numpy.asarray({name}, dtype=...)"
        )
    return value


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
    if hasattr(cell, "parts"):
        return cell.check(name, params, parameters)
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
        raise ValueError(f"xs has {xs.ndim} axes; expected at least 2, time first. {form}")
    if xs.shape[-1] != cell.input_size:
        raise ValueError(
            f"xs has {xs.shape[-1]} features in its last axis; this {type(cell).__name__} expects "
            f"input_size={cell.input_size}. {form}"
        )
    if xs.shape[0] == 0:
        raise ValueError(f"xs has no time steps (T = 0); expected at least one. {form}")
    same_dtype("xs", xs, params[0].dtype, "the parameters are")


def state(cell: Any, params: Any, value: Any, batch: tuple[int, ...], name: str = "state") -> None:
    """Raise unless `value` is a state of `cell` with the batch axes of the inputs."""
    if not isinstance(value, cell.state_type):
        raise TypeError(
            f"{name} is a {type(value).__name__}; {cell} expects {cell.state_type.__name__}, "
            "as made by cell.initial_state(params, batch)"
        )
    for field, size, part in zip(value._fields, cell.field_sizes, value, strict=True):
        form = "[*batch, hidden_size]" if size == cell.hidden_size else "[*batch, projection]"
        shaped(f"{name}.{field}", part, (*batch, size), params[0].dtype, form)


def door(cell: Any, params: Any, xs: Any, initial: Any) -> tuple[Any, Array, Any]:
    """Check the arguments of a forward pass and bring them into one library.

    Returns:
        params, xs and initial state in that library; None stays None, for `started` to make zeros of inside what
        is compiled.
    """
    parameters(cell, params)
    sequences(cell, params, array("xs", xs))
    if initial is not None:
        state(cell, params, initial, tuple(xs.shape[1:-1]))
    return in_one_library((params, xs, initial))


def in_one_library(given: Any) -> Any:
    """A tree of arrays in the library that they have in common: JAX wherever one of them is JAX."""
    xp = namespace(*leaves(given))
    return map_tree(lambda x: x if x.__array_namespace__() is xp else xp.asarray(x), given)


def controls(xs: Array, lengths: Any, resets: Any) -> tuple[Array, Array]:
    """Lengths and resets, checked, as `hold` (past the end) and `reset`, booleans [T, *batch]."""
    batch = tuple(xs.shape[1:-1])
    xp = namespace(xs, *(x for x in (lengths, resets) if hasattr(x, "__array_namespace__")))
    hold = reset = xp.zeros(xs.shape[:-1], dtype=bool)
    if lengths is not None:
        lengths = lengths if hasattr(lengths, "__array_namespace__") else np.asarray(lengths)
        if tuple(lengths.shape) != batch or not np.issubdtype(lengths.dtype, np.integer):
            raise ValueError(
                f"lengths has shape {tuple(lengths.shape)} and dtype {lengths.dtype}; expected an integer for "
                f"each sequence of xs, {batch}"
            )
        if not is_traced(lengths):
            wrong = (np.asarray(lengths) < 1) | (np.asarray(lengths) > xs.shape[0])
            if wrong.any():
                raise ValueError(
                    f"lengths holds {np.asarray(lengths)[wrong].flat[0]}; expected 1 to {xs.shape[0]}"
                )
        hold = xp.arange(xs.shape[0]).reshape(-1, *(1,) * len(batch)) >= xp.asarray(lengths)
    if resets is not None:
        array("resets", resets)
        if tuple(resets.shape) != tuple(xs.shape[:-1]) or resets.dtype != bool:
            raise ValueError(
                f"resets has shape {tuple(resets.shape)} and dtype {resets.dtype}; expected booleans "
                f"[T, *batch] = {tuple(xs.shape[:-1])}"
            )
        reset = xp.asarray(resets) & ~hold  # past its end a sequence stands still
    return hold, reset


def unbroken(history: Any, analysis: str) -> None:
    """Raise where a history has lengths or resets, which an analysis does not take."""
    if hasattr(history, "pieces") and history.cell.masked:
        raise ValueError(
            f"{analysis} takes sequences that neither end nor start within the pass; this history has lengths or "
            f"resets. history.pieces() gives every sequence as a history of its own"
        )


def unreset(history: Any, analysis: str) -> None:
    """Raise where sequences start within the pass, or where that cannot be told."""
    if history.cell.masked and (is_traced(getattr(history, "inputs", None)) or history.resets):
        raise ValueError(
            f"{analysis} takes sequences that do not start anew within the pass; this history has resets, or is "
            f"inside a JAX transformation. history.pieces() gives every sequence as a history of its own"
        )


def constant(
    cell: Any, params: Any, x: Any, state: Any, batch: tuple[int, ...], name: str = "state"
) -> tuple[Any, Array, Any]:
    """Check the arguments of a network under a constant input, and bring them into one library.

    Args:
        cell: the cell.
        params: its parameters.
        x: the input, [D]; None for zeros.
        state: fields [*batch, H]; None for zeros.
        batch: the state's batch axes.
        name: of the state in errors.

    Returns:
        params, x [D] and state, all finite.
    """
    if x is not None:
        shaped("x", x, (cell.input_size,), params[0].dtype, "[input_size]")
    xp = namespace(*leaves((params, x, state)))
    x = xp.zeros(cell.input_size, dtype=params[0].dtype) if x is None else xp.asarray(x)
    params, _, state = door(cell, params, xp.broadcast_to(x, (1, *batch, cell.input_size)), state)
    state = cell.initial_state(params, batch) if state is None else state
    finite_parameters(params)
    finite("x", x[None], "feature")
    for field, value in state._asdict().items():
        finite(f"{name}.{field}", value[None])
    return params, x, state


def recorded(history: Any) -> None:
    """Raise unless this is a history that analyses can read."""
    if hasattr(history, "cells"):
        raise TypeError(
            f"history is a {type(history).__name__}; this analysis takes the history of one cell: "
            f"history.parts[...] has {', '.join(map(repr, history.parts))}"
        )
    if hasattr(history, "acted"):
        raise TypeError(
            "history is an Edited, whose steps do not follow the equations of its cell, so that an analysis would "
            "be wrong; expected a History, as made by record without edit. lstmx.effect compares the two"
        )
    if hasattr(history, "stretches"):
        raise TypeError(
            "history is on disk; this analysis takes one in memory: history.read(), or a stretch, "
            "history[start:stop]"
        )
    if not hasattr(history, "states"):
        raise TypeError(
            f"history is a {type(history).__name__}; expected a History, as made by record(cell, params, xs)"
        )


def finite(name: str, values: Array, unit: str = "unit", start: int = 0) -> None:
    """Raise at the first step and unit of `values` [T, *batch, N] that is NaN or infinite.

    Steps count from `start`. Under a JAX transformation the numbers cannot be read and nothing is checked.

    Raises:
        ValueError: naming the step, the sequence in the batch and the unit.
    """
    if is_traced(values):
        return
    xp = namespace(values)
    if bool(xp.all(xp.isfinite(values))):
        return
    where = np.argwhere(~np.isfinite(np.asarray(values)))[0]
    step, *batch, index = (int(i) for i in where)
    step += start
    sequence = f", sequence {tuple(batch)}" if batch else ""
    value = np.asarray(values)[tuple(where)]
    raise ValueError(f"{name} is {value} first at step {step}{sequence}, {unit} {index}; expected finite numbers")


def finite_parameters(params: Any) -> None:
    """Raise if parameters hold NaN or infinity."""
    for field, value in params._asdict().items():
        if value is not None and not is_traced(value) and not np.isfinite(np.asarray(value)).all():
            raise ValueError(f"params.{field} holds NaN or infinity; expected finite numbers")


def finite_history(history: Any, start: int = 0) -> None:
    """Raise if this is no history, or its parameters, inputs or states hold NaN or infinity: where first."""
    recorded(history)
    finite_parameters(history.params)
    finite("inputs", history.inputs, "feature", start)
    for field, value in history.states._asdict().items():
        finite(f"{field}_state", value, start=start)


def finite_stretches(history: Any) -> None:
    """As `finite_history`, of a history in memory or on disk, which is read stretch by stretch."""
    if not hasattr(history, "stretches"):
        return finite_history(history)
    for start, part in history.stretches():
        finite_history(part, start)


def populated(history: Any) -> None:
    """Raise if a history has no sequence: a batch axis of length 0."""
    if 0 in history.batch:
        raise ValueError(f"the history's batch axes {history.batch} hold no sequence; expected at least one")


def dead(what: str, name: str) -> RuntimeError:
    """The error of touching what was handed to `record(..., into=...)`."""
    return RuntimeError(
        f"this {what} was handed to record(..., into=...): its memory holds another pass now, and {name} is gone; "
        "use what that call returned"
    )

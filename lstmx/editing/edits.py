"""Edits: what changes gates and states inside a pass, made ready here or a function of your own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx.arrays import Array, has_jax, jax, namespace, result, sum_over_time
from lstmx.checks import array, finite_number, one_of
from lstmx.history.excerpt import fields_of

Change: TypeAlias = "Edit | Callable[[Any, Any], Any]"
_LISTED = 6  # positions that a description lists


class Stretch(NamedTuple):
    """A slice, which before Python 3.12 is not hashable."""

    start: int | None
    stop: int | None
    stride: int | None


Selection = tuple[int, ...] | range | Stretch | None


@result(static=("kind", "names", "units", "steps"))
class Edit:
    """A ready-made edit for `lstmx.intervene`, from `clamp`, `ablate`, `patch` or `noise`.

    It is a pytree: its values may be differentiated, and edits that differ in them alone share compiled code.

    Attributes:
        kind: "clamp", "ablate", "patch" or "noise".
        names: the gates and states that it changes; () for all fields of the state.
        units: the units, as integers or a slice; None for all.
        steps: the steps, counted from the first input of the pass, likewise.
        values: by name: what values become, a number or [H], for "patch" [T, *batch, H]; for "noise" the standard
            deviation. Empty for "ablate" to zero.
        key: the seed or JAX key of "noise"; None for the others.
    """

    kind: str
    names: tuple[str, ...]
    units: Selection
    steps: Selection
    values: dict[str, Any]
    key: Any = None

    def __repr__(self) -> str:
        told = [f"{self.key!r}" if isinstance(self.key, int) else "key"] if self.kind == "noise" else []
        if self.kind in ("clamp", "noise"):
            told += [f"{name}={_told(self.values[name])}" for name in self.names]
        else:
            told += [*(["a history"] if self.kind == "patch" else []), *self.names]
        if self.kind == "ablate" and self.values:
            told.append("to means")
        chosen = {"units": self.units, "steps": self.steps}
        told += [f"{name}={_in_words(value)}" for name, value in chosen.items() if value is not None]
        return f"{self.kind}({', '.join(told)})"


# ----------------------------------------------------------------------------------------------- ready-made


def clamp(*, units: Any = None, steps: Any = None, **values: Any) -> Edit:
    """An edit that holds gates or states at given values.

    With the forget gate at 1 and the input gate at 0 an LSTM keeps its cell state to the bit. Values outside a
    gate's [0, 1] are taken as they are.

    Args:
        units: an integer, a list of integers, or a slice; None for all.
        steps: likewise, counted from the first input of the pass.
        **values: by the name of a gate, `candidate` or a state (`hidden_state`, `cell_state`): a number for all
            units, or an array [H] of the parameters' dtype, of which those at `units` count.

    Returns:
        The edit, for `lstmx.intervene`.

    Raises:
        TypeError: no name, or units or steps are no integers, or a value is neither number nor array.
        ValueError: a value is not finite, or an array of other axes. What depends on the cell and the inputs, such
            as a name that the cell does not have, is checked by `intervene`.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.ones((5, 3), "float32")
        >>> edited = lstmx.intervene(cell, params, xs, lstmx.edits.clamp(forget_gate=1.0, steps=slice(2, 4)))
        >>> edited.forget_gate[2:4].min()
        np.float32(1.0)
    """
    _named("clamp", values, "clamp(forget_gate=1.0)")
    for name, value in values.items():
        _value(name, value)
    return Edit("clamp", tuple(values), _selection("units", units), _selection("steps", steps), values)


def ablate(*names: str, units: Any = None, steps: Any = None, mean_of: Any = None) -> Edit:
    """An edit that takes values out: they become 0, or their means over a recorded pass.

    Without names it takes out all fields of the state, which silences the units: neither the outputs nor a later
    step hear of them.

    Args:
        *names: gates, `candidate` or states (`hidden_state`, `cell_state`); none for all fields of the state.
        units: an integer, a list of integers, or a slice; None for all.
        steps: likewise, counted from the first input of the pass.
        mean_of: a history of the cell, over whose steps and sequences each unit's mean is taken; None for 0.

    Returns:
        The edit, for `lstmx.intervene`.

    Raises:
        TypeError: a name is no string, units or steps are no integers, or mean_of is no history.
        ValueError: the cell of mean_of has no such name.
    """
    _words(names)
    values: dict[str, Any] = {}
    if mean_of is not None:
        values = {name: _mean(field) for name, field in _fields("mean_of", mean_of, names).items()}
        names = tuple(values)
    return Edit("ablate", names, _selection("units", units), _selection("steps", steps), values)


def patch(history: Any, *names: str, units: Any = None, steps: Any = None) -> Edit:
    """An edit that puts in what another pass had at the same step and in the same sequence.

    Args:
        history: a `History` or `Edited`, of as many steps and sequences as the pass that it is put into.
        *names: gates, `candidate` or states (`hidden_state`, `cell_state`); none for all fields of the state.
        units: an integer, a list of integers, or a slice; None for all.
        steps: likewise, counted from the first input of the pass.

    Returns:
        The edit, for `lstmx.intervene`.

    Raises:
        TypeError: history is none, a name is no string, or units or steps are no integers.
        ValueError: the history's cell has no such name.
    """
    _words(names)
    values = _fields("history", history, names)
    return Edit("patch", tuple(values), _selection("units", units), _selection("steps", steps), values)


def noise(key: Any, *, units: Any = None, steps: Any = None, **scales: Any) -> Edit:
    """An edit that adds normal noise to gates or states.

    The draws follow from the key, the step and the shape alone: the same again in every pass, and in a pass that
    is cut short. NumPy and JAX draw other numbers from the same seed. A gate may leave [0, 1]. Under `jax.vmap`
    every sequence gets the same draws, in a batch each its own.

    Args:
        key: an integer from 0 on, or a JAX key.
        units: an integer, a list of integers, or a slice; None for all.
        steps: likewise, counted from the first input of the pass.
        **scales: standard deviations by the name of a gate, `candidate` or a state (`hidden_state`, `cell_state`):
            a number for all units, or an array [H] of the parameters' dtype.

    Returns:
        The edit, for `lstmx.intervene`.

    Raises:
        TypeError: key is neither, no name, or units or steps are no integers.
        ValueError: a scale is negative or not finite, or the seed negative.
    """
    _named("noise", scales, "noise(0, hidden_state=0.1)")
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not 0 <= key < 2**63:
            raise ValueError(f"key is {key}; a seed is an integer from 0 to 2**63 - 1")
        key = int(key)
    elif not (has_jax and isinstance(key, jax.Array)):
        raise TypeError(
            f"key is a {type(key).__name__}; expected an int or a JAX key: the draws of a step follow from it"
        )
    for name, scale in scales.items():
        _value(name, scale)
        if not hasattr(scale, "shape") and scale < 0:
            raise ValueError(f"{name} is {scale}; expected a standard deviation of 0 or more")
    return Edit("noise", tuple(scales), _selection("units", units), _selection("steps", steps), scales, key)


def field_of(history: Any, name: str) -> Array:
    """A gate or a state of a pass, [T, *batch, H], by its name in `fields_of`; of layers behind the cell's."""
    cell, _, name = name.rpartition(": ")
    if cell:
        history, in_time = history.cells()[cell]
        return in_time(field_of(history, name))
    field = name.removesuffix("_state")
    return getattr(history.gates, name) if field == name else getattr(history.states, field)


def _fields(argument: str, history: Any, names: tuple[str, ...]) -> dict[str, Array]:
    """Gates and states of a recorded pass by name; all of the state for no names."""
    if not (hasattr(history, "states") and hasattr(history, "gates")):
        raise TypeError(
            f"{argument} is a {type(history).__name__}; expected a History or Edited, as made by lstmx.record"
        )
    known = fields_of(history.cell)
    for name in names:
        one_of("a name", name, known)
    return {name: field_of(history, name) for name in names or known if names or name.endswith("_state")}


def _mean(field: Array) -> Array:
    """Means [H] over steps and sequences."""
    over_time = sum_over_time(field) / field.shape[0]
    axes = tuple(range(over_time.ndim - 1))
    return namespace(field).mean(over_time, axis=axes).astype(field.dtype)


def _named(what: str, values: dict[str, Any], example: str) -> None:
    if not values:
        raise TypeError(
            f"{what} was given no gate or state; expected names and values, as in lstmx.edits.{example}"
        )


def _words(names: tuple[Any, ...]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a name is a {type(name).__name__}; expected the name of a gate or state")


def _value(name: str, value: Any) -> None:
    if isinstance(value, (int, float, np.number)):
        finite_number(name, value)
    elif array(name, value).ndim > 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected a number or an array [H]")


def _told(value: Any) -> str:
    return f"{value}" if isinstance(value, (int, float, np.number)) else f"array{list(value.shape)}"


# ------------------------------------------------------------------------------------------------ any edit


def listed(edit: Any) -> tuple[Edit | Callable[..., Any], ...]:
    """The edits given, in their order.

    Raises:
        TypeError: something that is neither an `Edit` nor a function, or that has no hash.
    """
    edits = tuple(edit) if isinstance(edit, (list, tuple)) else (edit,)
    for one in edits:
        if not isinstance(one, Edit) and not callable(one):
            raise TypeError(
                f"edits holds a {type(one).__name__}; expected one such as lstmx.edits.clamp(forget_gate=1.0), "
                "a function (step, gates or states) -> the same, or a list of these"
            )
        if type(one).__hash__ is None:
            raise TypeError(
                f"edits holds a {type(one).__name__} without a hash, by which compiled code is found again"
            )
    return edits


def described(edit: Edit | Callable[..., Any]) -> str:
    """An edit in words."""
    return repr(edit) if isinstance(edit, Edit) else getattr(edit, "__name__", type(edit).__name__)


def library(xs: Array, edits: tuple[Any, ...]) -> ModuleType:
    """The library that an edited pass over `xs` runs in: JAX if anything of its edits is, traced values too."""
    ready = [edit for edit in edits if isinstance(edit, Edit)]
    return namespace(xs, *(value for edit in ready for value in (*edit.values.values(), edit.key)))


# -------------------------------------------------------------------------------------------- selections


def _selection(name: str, given: Any) -> Selection:
    """`given` as a hashable value: None, an integer, a slice, a range or a list or array of integers.

    Raises:
        TypeError: anything else, or no integers.
        ValueError: it holds nothing.
    """
    if given is None:
        return None
    if isinstance(given, slice):
        parts = given.start, given.stop, given.step
        return Stretch(*(None if part is None else _integer(name, part) for part in parts))
    if not isinstance(given, (range, list, tuple, np.ndarray)) or getattr(given, "ndim", 1) == 0:
        given = (given,)
    if len(given) == 0:
        raise ValueError(f"{name} is empty; expected at least one position, or None for all")
    return given if isinstance(given, range) else tuple(_integer(name, position) for position in given)


def mask(name: str, chosen: Selection, length: int, whole: str) -> np.ndarray | None:
    """The positions out of `length` as a mask; None for all. Negative ones count from the end.

    Raises:
        ValueError: a position or a bound is outside, or a slice holds nothing.
    """
    if chosen is None:
        return None
    made = np.zeros(length, bool)
    bounds = chosen[:2] if isinstance(chosen, Stretch) else ()
    beyond = [k for k in bounds if k is not None and not -length <= k <= length]
    if not isinstance(chosen, Stretch):
        beyond = [k for k in chosen if not -length <= k < length]
    if beyond:
        raise ValueError(f"{name} has {beyond[0]}; {whole} has {name} 0 to {length - 1}")
    made[slice(*chosen) if isinstance(chosen, Stretch) else list(chosen)] = True
    if not made.any():
        raise ValueError(
            f"{name} is {_in_words(chosen)}, which holds none of the {name} 0 to {length - 1} of {whole}"
        )
    return made


def _in_words(chosen: Selection) -> str:
    """A selection in short words: 10:20, or [0, 3]."""
    if isinstance(chosen, Stretch):
        parts = ["" if part is None else str(part) for part in chosen]
        return ":".join(parts if chosen.stride is not None else parts[:2])
    if isinstance(chosen, range):
        return f"{chosen.start}:{chosen.stop}:{chosen.step}"
    if chosen is None:
        return "all"
    listed = ", ".join(map(str, chosen[:_LISTED]))
    return f"[{listed}]" if len(chosen) <= _LISTED else f"[{listed}, ... {len(chosen):,} in all]"


def _integer(name: str, value: Any) -> int:
    words = f"{name} holds {value!r}; expected an integer, a list of integers, a slice or None for all"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(words)
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(words) from error

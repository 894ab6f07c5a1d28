"""Haiku: the parameters of `hk.LSTM`, `hk.GRU` and `hk.VanillaRNN`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.convert.named import Named, gru_reset_before, lstm, one_cell, plain, reordered, simple


def from_haiku(params: dict[str, Any], prefix: str = "") -> tuple[Cell, Any]:
    """An `hk.LSTM`, `hk.GRU` or `hk.VanillaRNN` from its parameters.

    Args:
        params: what `hk.transform(...).init` made: {"lstm/linear": {"w": [D + H, 4H], "b"}}, or {"gru": {"w_i",
            "w_h", "b"}}, or {"vanilla_rnn/linear": ..., "vanilla_rnn/linear_1": ...}. Which of them it is shows in
            the names inside and the shapes.
        prefix: what the names of this module begin with in the parameters of a larger one, such as "encoder/lstm";
            others are left out then.

    Returns:
        The cell and its parameters, of the arrays' library. Haiku adds 1 to the forget gate at run time, which is
        in the bias here. Its GRU resets before the product, and its VanillaRNN has ReLU.

    Raises:
        TypeError: an array of another dtype than float32 or float64.
        ValueError: an array is missing, surplus or of another shape.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a {type(params).__name__}; expected the dict that Haiku's init gives")
    modules = {name: arrays for name, arrays in params.items() if name.startswith(prefix)}
    flat = {f"{name}/{leaf}": array for name, arrays in modules.items() for leaf, array in arrays.items()}
    named = Named(f"the parameters under {prefix!r}" if prefix else "the parameters", flat)
    names = sorted(modules)
    if not names:
        raise ValueError(f"there are no parameters under {prefix!r}; those are {', '.join(params) or 'none'}")
    if len(names) == 2:
        made = _vanilla(named, *names)
    elif f"{names[0]}/w_i" in named:
        made = _gru(named, names[0])
    else:
        made = _lstm(named, names[0])
    named.nothing_left()
    return made


def _lstm(named: Named, name: str) -> tuple[Cell, Any]:
    both = named.take(f"{name}/w", (None, None))
    h = both.shape[1] // 4
    d = both.shape[0] - h
    if h * 4 != both.shape[1] or d < 1:
        raise ValueError(f"{named.what}: {name}/w has shape {tuple(both.shape)}; expected [D + H, 4H]")
    bias = reordered(named.take(f"{name}/b", (4 * h,)), (0, 2, 1, 3), 4)
    kernel = reordered(both, (0, 2, 1, 3), 4)
    return lstm(kernel[:d], kernel[d:], _with_forget(bias, 1.0))


def _with_forget(bias: Array, by: float) -> Array:
    """The bias with a number added to the forget gate's."""
    xp, h = namespace(bias), bias.shape[0] // 4
    return xp.concat([bias[:h], bias[h : 2 * h] + bias.dtype.type(by), bias[2 * h :]])


_GRU = {"order": (1, 0, 2), "count": 3, "negative": (1,)}  # z, r, a; and their z is the share of the new state


def _gru(named: Named, name: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"{name}/w_h", (None, None))
    h = recurrent.shape[0]
    named.take(f"{name}/w_h", (h, 3 * h))
    parts = (named.take(f"{name}/w_i", (None, 3 * h)), recurrent, named.take(f"{name}/b", (3 * h,)))
    return gru_reset_before(*(reordered(part, **_GRU) for part in parts))


def _vanilla(named: Named, first: str, second: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"{second}/w", (None, None))
    h = recurrent.shape[0]
    named.take(f"{second}/w", (h, h))
    kernel = named.take(f"{first}/w", (None, h))
    bias = named.take(f"{first}/b", (h,)) + named.take_or_zeros(f"{second}/b", (h,), kernel)
    return simple(kernel, recurrent, bias, "relu")


def to_haiku(cell: Any, params: Any, name: str | None = None) -> dict[str, Any]:
    """The parameters with which a module of Haiku computes the same.

    Args:
        cell: an `LSTM` without options, a `GRU` with reset="before", or a `SimpleRNN` with ReLU.
        params: its parameters.
        name: the module's name; None for "lstm", "gru" or "vanilla_rnn".

    Returns:
        {module: {name: array}}, as `from_haiku` takes it.

    Raises:
        TypeError: these are layers, or the parameters are not the cell's.
        ValueError: another kind of cell, or options.
    """
    one_cell("a module of Haiku", cell, params)
    plain("Haiku", cell, LSTM(1, 1), GRU(1, 1, reset="before"), SimpleRNN(1, 1, activation="relu"))
    kernel, recurrent, bias = params[:3]
    xp = namespace(kernel)
    if isinstance(cell, LSTM):
        parts = xp.concat([kernel, recurrent]), _with_forget(bias, -1.0)
        w, b = (reordered(part, (0, 2, 1, 3), 4) for part in parts)
        return {f"{name or 'lstm'}/linear": {"w": w, "b": b}}
    if isinstance(cell, GRU):
        made = (reordered(part, (1, 0, 2), 3, negative=(0,)) for part in (kernel, recurrent, bias))
        return {name or "gru": dict(zip(("w_i", "w_h", "b"), made, strict=True))}
    inner = name or "vanilla_rnn"
    zeros = xp.zeros_like(bias)
    return {f"{inner}/linear": {"w": kernel, "b": bias}, f"{inner}/linear_1": {"w": recurrent, "b": zeros}}

"""Haiku: the parameters of `hk.LSTM`, `hk.GRU` and `hk.VanillaRNN`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.checks import finite_number
from lstmx.convert.named import Named, chosen, gru_reset_before, lstm, one_cell, plain, reordered, simple

_USUAL = re.compile(r"(?:^|/)(?P<kind>lstm|vanilla_rnn)(_\d+)?$")


def from_haiku(
    params: dict[str, Any], prefix: str = "", forget_bias: float = 1.0, dtype: str | None = None
) -> tuple[Cell, Any]:
    """An `hk.LSTM`, `hk.GRU` or `hk.VanillaRNN` from its parameters.

    Args:
        params: what `hk.transform(...).init` made: {"lstm/linear": {"w": [D + H, 4H], "b"}}, or {"gru": {"w_i",
            "w_h", "b"}}, or {"vanilla_rnn/linear": ..., "vanilla_rnn/linear_1": ...}; or those of a whole model
            with one such core inside. An LSTM or VanillaRNN is known by the name that Haiku gives it, a GRU by its
            arrays.
        prefix: the name of the core, such as "net/encoder", where there are several or it has a name of its own;
            or of a module with one core inside. What is not under it is left out.
        forget_bias: what an LSTM adds to its forget gate at run time; Haiku's adds 1.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell and its parameters, of the arrays' library. The forget gate's bias here has `forget_bias` in it.
        Haiku's GRU resets before the product, and its VanillaRNN has ReLU.

    Raises:
        TypeError: this is no such dict; or an array of another dtype than float32 or float64.
        ValueError: no core, or several of which none is named; an array is missing, surplus or of another shape; a
            convolution; or `forget_bias` is not finite.
    """
    finite_number("forget_bias", forget_bias)
    if not isinstance(params, Mapping) or not all(isinstance(one, Mapping) for one in params.values()):
        raise TypeError(f"params is a {type(params).__name__}; expected the dict of dicts that Haiku's init gives")
    prefix = prefix.rstrip("/")
    own = {name: one for name, one in params.items() if not prefix or f"{name}/".startswith(f"{prefix}/")}
    if not own:
        raise ValueError(f"there are no parameters under {prefix!r}; those are {', '.join(params) or 'none'}")
    name = prefix.removesuffix("/linear")
    cores = _cores(own)
    if name and f"{name}/linear" in own and name not in cores:
        cores = {name: "vanilla_rnn" if f"{name}/linear_1" in own else "lstm"}
    if not cores:
        others = [one.removesuffix("/linear") for one in own if one.endswith("/linear")]
        hint = f". Where one of {', '.join(map(repr, others))} is an LSTM or VanillaRNN, name it with prefix="
        raise ValueError(f"params has no recurrent core of Haiku: {', '.join(own)}{hint if others else ''}")
    name, kind = (name, cores[name]) if name in cores else chosen("params", cores, None, "prefix=")
    inside = {one: params[one] for one in params if f"{one}/".startswith(f"{name}/")}
    own = {f"{one}/{k}": x for one, arrays in inside.items() for k, x in arrays.items()}
    named = Named("the parameters", own, dtype)
    if kind == "convolution":
        raise ValueError(f"{name} is a ConvLSTM, whose states are images; lstmx has no convolutions")
    if kind == "gru":
        made = _gru(named, name)
    elif kind == "vanilla_rnn":
        made = _vanilla(named, f"{name}/linear", f"{name}/linear_1")
    else:
        made = lstm_of_one_kernel(named, f"{name}/linear/w", f"{name}/linear/b", forget_bias)
    named.nothing_left()
    return made


def _cores(params: Mapping[str, Any]) -> dict[str, str]:
    """The cores whose names or arrays say that they are some, each with its kind."""
    found: dict[str, str] = {}
    for module, arrays in params.items():
        name, _, last = module.rpartition("/")
        if {"w_i", "w_h"} <= set(arrays):
            found[module] = "gru"
        elif last == "linear" and (match := _USUAL.search(name)):
            found[name] = match["kind"]
        elif last == "input_to_hidden":
            found[name] = "convolution"
    return found


def lstm_of_one_kernel(named: Named, kernel: str, bias: str, forget_bias: float) -> tuple[Cell, Any]:
    """An LSTM from one kernel [D + H, 4H] for x and h, in blocks i, g, f, o, whose forget gate adds a number."""
    both = named.take(kernel, (None, None))
    h = both.shape[1] // 4
    d = both.shape[0] - h
    if h * 4 != both.shape[1] or d < 1:
        raise ValueError(f"{named.what}: {kernel} has shape {tuple(both.shape)}; expected [D + H, 4H]")
    added = reordered(named.take(bias, (4 * h,)), (0, 2, 1, 3), 4)
    packed = reordered(both, (0, 2, 1, 3), 4)
    return lstm(packed[:d], packed[d:], _with_forget(added, forget_bias))


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
        name: the module's name, which is `from_haiku`'s prefix; None for "lstm", "gru" or "vanilla_rnn".

    Returns:
        {module: {name: array}}, as `from_haiku` takes it.

    Raises:
        TypeError: these are layers, or the parameters are not the cell's.
        ValueError: another kind of cell, or options.
    """
    one_cell("a module of Haiku", cell, params)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}; expected the name of a module, or None for Haiku's own")
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

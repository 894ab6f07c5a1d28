"""Equinox: `LSTMCell` and `GRUCell`."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import jax, require
from lstmx.cells import GRU, LSTM, Cell
from lstmx.convert.named import Named, gru, lstm, one_cell, plain


def from_equinox(module: Any) -> tuple[Cell, Any]:
    """An `equinox.nn.LSTMCell` or `GRUCell`.

    Args:
        module: the cell.

    Returns:
        The cell and its parameters, JAX arrays; biases are zeros where the module has none.

    Raises:
        TypeError: this is none of the two; or an array of another dtype than float32 or float64.
        ValueError: an array of another shape.
    """
    kind = type(module).__name__
    if kind not in ("LSTMCell", "GRUCell") or not hasattr(module, "weight_ih"):
        raise TypeError(f"module is a {kind}; expected an equinox.nn.LSTMCell or GRUCell")
    names = ("weight_ih", "weight_hh", "bias", "bias_n")
    arrays = {name: x for name in names if (x := getattr(module, name, None)) is not None}
    named, count = Named(f"the {kind}", arrays), 4 if kind == "LSTMCell" else 3
    recurrent = named.take("weight_hh", (None, None)).T
    h = recurrent.shape[0]
    kernel = named.take("weight_ih", (count * h, None)).T
    bias = named.take_or_zeros("bias", (count * h,), kernel)
    if count == 4:
        return lstm(kernel, recurrent, bias)
    return gru(kernel, recurrent, bias, named.take_or_zeros("bias_n", (h,), kernel))


def to_equinox(cell: Any, params: Any) -> Any:
    """The `equinox.nn.LSTMCell` or `GRUCell` that computes the same.

    Args:
        cell: an `LSTM` or `GRU` without options.
        params: its parameters, JAX arrays.

    Returns:
        The module, with biases.

    Raises:
        TypeError: these are layers, or the parameters are not the cell's.
        ValueError: another kind of cell, or options.
        ImportError: Equinox is not installed.
    """
    one_cell("a module of Equinox", cell, params)
    plain("Equinox", cell, LSTM(1, 1), GRU(1, 1))
    nn, tree_at = (getattr(require("equinox", "to_equinox"), name) for name in ("nn", "tree_at"))
    kind = nn.LSTMCell if isinstance(cell, LSTM) else nn.GRUCell
    module = kind(cell.input_size, cell.hidden_size, key=jax.random.key(0))
    names = ["weight_ih", "weight_hh", "bias", *(["bias_n"] if isinstance(cell, GRU) else [])]
    arrays = [params.input_kernel.T, params.recurrent_kernel.T, *params[2:]]
    return tree_at(lambda one: [getattr(one, name) for name in names], module, arrays)

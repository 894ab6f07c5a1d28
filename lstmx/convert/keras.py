"""Keras 3: `LSTM`, `GRU`, `SimpleRNN` layers, and `Bidirectional` around one."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.checks import parameters
from lstmx.convert.named import (
    Named,
    gru_of_two_biases,
    gru_reset_before,
    lstm,
    plain,
    reordered,
    second_bias,
    simple,
)
from lstmx.layers import Bidirectional, Directions, Stack

_KINDS = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_MERGES = {"concat": "concatenate", "sum": "sum"}


def from_keras(layer: Any) -> tuple[Any, Any]:
    """A recurrent layer of Keras 3.

    Args:
        layer: an `LSTM`, `GRU` or `SimpleRNN`, or a `Bidirectional` around one (merge_mode "concat" or "sum"),
            that has been built.

    Returns:
        The cell, or a `Bidirectional`, and its parameters as NumPy arrays. Of a GRU with reset_after=True the two
        biases are added up, but for those of the candidate; one with reset_after=False resets before the product.

    Raises:
        TypeError: this is no such layer; or an array of another dtype than float32 or float64.
        ValueError: the layer is not built, reads backwards on its own, or has activations that lstmx has not.
    """
    if type(layer).__name__ == "Bidirectional":
        if layer.merge_mode not in _MERGES:
            raise ValueError(f"layer has merge_mode={layer.merge_mode!r}; expected 'concat' or 'sum'")
        (cell, forward), (other, back) = (_direction(one) for one in (layer.forward_layer, layer.backward_layer))
        if cell != other:
            raise ValueError(f"the directions of {layer.name} differ: {cell} and {other}")
        return Bidirectional(cell, _MERGES[layer.merge_mode]), Directions(forward, back)
    if getattr(layer, "go_backwards", False):
        raise ValueError(f"{layer.name} has go_backwards=True; give it the reversed sequence without it")
    return _direction(layer)


def _direction(layer: Any) -> tuple[Cell, Any]:
    kind = type(layer).__name__
    if kind not in _KINDS or not hasattr(layer, "units"):
        raise TypeError(f"layer is a {kind}; expected an LSTM, GRU, SimpleRNN or Bidirectional of Keras")
    if not layer.built:
        raise ValueError(f"{layer.name} has no weights yet; call it once, or layer.build(shape)")
    activation, gates = (
        getattr(getattr(layer, f"{name}activation", None), "__name__", None) for name in ("", "recurrent_")
    )
    known = ("tanh", "relu") if kind == "SimpleRNN" else ("tanh",)
    if activation not in known or gates not in ((None,) if kind == "SimpleRNN" else ("sigmoid",)):
        raise ValueError(
            f"{layer.name} has activation {activation} and recurrent_activation {gates}; lstmx has tanh"
            " and sigmoid, and ReLU in a SimpleRNN"
        )
    h, count = layer.units, _KINDS[kind]
    names = ("kernel", "recurrent_kernel", "bias")
    named = Named(layer.name, dict(zip(names, layer.get_weights(), strict=False)))
    kernel, recurrent = named.take("kernel", (None, count * h)), named.take("recurrent_kernel", (h, count * h))
    if kind == "LSTM":
        return lstm(kernel, recurrent, named.take_or_zeros("bias", (4 * h,), kernel))
    if kind == "SimpleRNN":
        return simple(kernel, recurrent, named.take_or_zeros("bias", (h,), kernel), str(activation))
    kernel, recurrent = (reordered(part, (1, 0, 2), 3) for part in (kernel, recurrent))
    if not layer.reset_after:
        bias = named.take_or_zeros("bias", (3 * h,), kernel)
        return gru_reset_before(kernel, recurrent, reordered(bias, (1, 0, 2), 3))
    first, second = reordered(named.take_or_zeros("bias", (2, 3 * h), kernel), (1, 0, 2), 3)
    return gru_of_two_biases(kernel, recurrent, first, second)


def to_keras(cell: Any, params: Any) -> Any:
    """The layer of Keras 3 that computes the same.

    Args:
        cell: an `LSTM`, `GRU` or `SimpleRNN`, or a `Bidirectional` of one. The layers of a `Stack` are converted
            one by one.
        params: its parameters.

    Returns:
        The layer, built, batch first as Keras has it, with return_sequences and return_state.

    Raises:
        TypeError: the parameters are not the cell's, or this is a stack.
        ValueError: options that Keras' layers lack.
        ImportError: Keras is not installed.
    """
    if isinstance(cell, Stack):
        raise TypeError(f"a layer of Keras is one layer; convert those of {cell!r} one by one")
    parameters(cell, params)
    one = cell.cell if isinstance(cell, Bidirectional) else cell
    kinds = (LSTM(1, 1), GRU(1, 1), GRU(1, 1, reset="before"), SimpleRNN(1, 1), SimpleRNN(1, 1, activation="relu"))
    plain("Keras", one, *kinds)
    layers = require("keras", "to_keras").layers
    owned = list(params) if isinstance(cell, Bidirectional) else [params]
    options: dict[str, Any] = {"dtype": str(np.dtype(owned[0].input_kernel.dtype))}
    if isinstance(one, GRU):
        options["reset_after"] = one.reset == "after"
    if isinstance(one, SimpleRNN):
        options["activation"] = one.activation
    made = getattr(layers, type(one).__name__)(
        one.hidden_size, return_sequences=True, return_state=True, **options
    )
    if isinstance(cell, Bidirectional):
        made = layers.Bidirectional(made, merge_mode="sum" if cell.merge == "sum" else "concat")
    made.build((None, None, one.input_size))
    made.set_weights([array for own in owned for array in _weights(one, to_numpy(own))])
    return made


def _weights(cell: Cell, params: Any) -> list[np.ndarray]:
    """The arrays of one direction in Keras' layout."""
    if not isinstance(cell, GRU):
        return list(params)
    made: list[Any] = [reordered(part, (1, 0, 2), 3) for part in params[:3]]
    if cell.reset == "after":
        made[2] = np.stack([made[2], second_bias(params)])
    return made

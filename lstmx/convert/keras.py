"""Keras 3: `LSTM`, `GRU`, `SimpleRNN` layers, and `Bidirectional` around one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx.arrays import require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.checks import parameters
from lstmx.convert.named import (
    Named,
    chosen,
    gru_of_two_biases,
    gru_reset_before,
    lstm,
    once,
    plain,
    recorded,
    reordered,
    second_bias,
    simple,
    with_activations,
)
from lstmx.history import History
from lstmx.layers import Bidirectional, Directions, Stack

_KINDS = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "linear": "identity"}  # of Keras, and what lstmx calls them
_KNOWN = {"LSTM": ("tanh", "relu", "linear"), "GRU": ("tanh", "relu"), "SimpleRNN": ("tanh", "relu")}
_GATES = ("sigmoid", "hard_sigmoid")
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
    if activation not in _KNOWN[kind] or gates not in ((None,) if kind == "SimpleRNN" else _GATES):
        raise ValueError(
            f"{layer.name} has activation {activation} and recurrent_activation {gates}; lstmx has "
            f"{', '.join(_KNOWN[kind])}" + ("" if kind == "SimpleRNN" else f" and {', '.join(_GATES)}")
        )
    h, count = layer.units, _KINDS[kind]
    names = ("kernel", "recurrent_kernel", "bias")
    named = Named(layer.name, dict(zip(names, layer.get_weights(), strict=False)))
    kernel, recurrent = named.take("kernel", (None, count * h)), named.take("recurrent_kernel", (h, count * h))
    if kind == "LSTM":
        made = lstm(kernel, recurrent, named.take_or_zeros("bias", (4 * h,), kernel))
        return with_activations(made, _ACTIVATIONS[str(activation)], str(gates))
    if kind == "SimpleRNN":
        return simple(kernel, recurrent, named.take_or_zeros("bias", (h,), kernel), str(activation))
    kernel, recurrent = (reordered(part, (1, 0, 2), 3) for part in (kernel, recurrent))
    if not layer.reset_after:
        bias = named.take_or_zeros("bias", (3 * h,), kernel)
        made = gru_reset_before(kernel, recurrent, reordered(bias, (1, 0, 2), 3))
    else:
        first, second = reordered(named.take_or_zeros("bias", (2, 3 * h), kernel), (1, 0, 2), 3)
        made = gru_of_two_biases(kernel, recurrent, first, second)
    return with_activations(made, _ACTIVATIONS[str(activation)], str(gates))


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


def record_keras(model: Any, x: Any, layer: str | None = None, library: str | None = None) -> History | Any:
    """Run a model of Keras 3, and record one of its recurrent layers on the inputs that it received.

    Args:
        model: the model or layer: an `LSTM`, `GRU`, `SimpleRNN` or `Bidirectional`, or any with such inside.
        x: what it is called with.
        layer: the name of the layer, where there are several.
        library: "jax" or "numpy", of the history; None for JAX where it is installed.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs and initial state, time first.

    Raises:
        ValueError: no recurrent layer, or several of which none is named; one that is not called, or more than
            once, or with a mask; what `from_keras` refuses; or float64 for JAX without x64 enabled.
        TypeError: what `from_keras` refuses.
    """
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}; expected a model or a layer of Keras")
    name, inner = chosen("the model", recurrent_layers(model), layer)
    calls: list[Any] = []
    with _listening(inner, calls):
        model(x)
    args, kwargs = once(name, calls)
    if kwargs.get("mask") is not None:
        raise ValueError(f"{name} is called with a mask; record it on sequences of one length")
    cell, params = from_keras(inner)
    xs = np.moveaxis(np.asarray(args[0]), 1, 0)
    given = args[1] if len(args) > 1 else kwargs.get("initial_state")
    given = [] if given is None else given if isinstance(given, (list, tuple)) else [given]
    fields = [np.asarray(field) for field in given]
    states = None
    if fields and isinstance(cell, Bidirectional):
        half = len(fields) // 2
        states = cell.tree([cell.cell.state_type(*part) for part in (fields[:half], fields[half:])])
    elif fields:
        states = cell.state_type(*fields)
    return recorded(cell, params, xs, states, library)


def recurrent_layers(model: Any) -> dict[str, Any]:
    """The recurrent layers of a Keras model by name; a `Bidirectional` as one."""
    kinds = ("LSTM", "GRU", "SimpleRNN", "Bidirectional")
    if type(model).__name__ in kinds:
        return {model.name: model}
    found: dict[str, Any] = {}
    for one in getattr(model, "layers", ()):
        found |= recurrent_layers(one)
    return found


@contextlib.contextmanager
def _listening(layer: Any, calls: list[Any]) -> Iterator[None]:
    """Note what a Keras layer is called with."""
    own = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return own(*args, **kwargs)

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")

"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`, and the cells of these, from modules and from state dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lstmx.arrays import Array, require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, LSTMVariantParams, SimpleRNN
from lstmx.checks import one_of
from lstmx.convert.named import (
    Layer,
    Named,
    assembled,
    checked,
    chosen,
    gru_of_two_biases,
    lstm,
    once,
    plain,
    recorded,
    second_bias,
    simple,
    taken_apart,
)
from lstmx.history import History
from lstmx.layers import Layers, Stack

_BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}
_LAYERS = ("LSTM", "GRU", "RNN")


def from_torch(source: Any, prefix: str = "", nonlinearity: str = "tanh") -> tuple[Any, Any]:
    """An LSTM, GRU or simple RNN of PyTorch: all of its layers, directions and projections.

    Args:
        source: an `nn.LSTM`, `nn.GRU`, `nn.RNN`, `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`; or a state dict (or
            any dict of arrays) with the names of one: weight_ih_l0 [4H, D], weight_hh_l0 [4H, H], bias_ih_l0,
            bias_hh_l0 [4H], weight_hr_l0 [P, H]. Which of them it is shows in the shapes.
        prefix: what the names of this module begin with in the dict of a larger one, such as "encoder.rnn."; other
            names are left out then.
        nonlinearity: of an RNN in a dict, which does not say it: "tanh" or "relu". A module says its own.

    Returns:
        The cell, or a `Stack` or `Bidirectional`, and its parameters as NumPy arrays. The two biases of PyTorch
        are added up, but for those of a GRU's candidate. Dropout between layers becomes the stack's.

    Raises:
        TypeError: an array of another dtype than float32 or float64; or this is no module of these kinds.
        ValueError: an array is missing, surplus or of another shape; or another word.
    """
    one_of("nonlinearity", nonlinearity, ("tanh", "relu"))
    dropout = 0.0
    if hasattr(source, "state_dict"):
        kind = type(source).__name__.removesuffix("Cell")
        if kind not in _BLOCKS:
            raise TypeError(
                f"source is a {type(source).__name__}; expected an LSTM, GRU or RNN of PyTorch, or a dict"
            )
        nonlinearity = getattr(source, "nonlinearity", nonlinearity)
        dropout = float(getattr(source, "dropout", 0.0)) if getattr(source, "num_layers", 1) > 1 else 0.0
        source = source.state_dict()
    if not isinstance(source, Mapping):
        raise TypeError(f"source is a {type(source).__name__}; expected an LSTM, GRU or RNN of PyTorch, or a dict")
    arrays = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}
    named = Named(f"the state dict under {prefix!r}" if prefix else "the state dict", arrays)
    suffix = "" if "weight_ih" in named else "_l0"
    layers = [_layer(named, suffix, nonlinearity)]
    while suffix and f"weight_ih_l{len(layers)}" in named:
        layers.append(_layer(named, f"_l{len(layers)}", nonlinearity))
    named.nothing_left()
    return assembled(layers, dropout)


def _layer(named: Named, suffix: str, nonlinearity: str) -> Layer:
    back = f"{suffix}_reverse"
    both = (suffix, back) if f"weight_ih{back}" in named else (suffix,)
    return [_direction(named, one, nonlinearity) for one in both]


def _direction(named: Named, suffix: str, nonlinearity: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"weight_hh{suffix}", (None, None)).T
    rows, projection = recurrent.shape[1], None
    h = recurrent.shape[0]
    if f"weight_hr{suffix}" in named:
        projection = named.take(f"weight_hr{suffix}", (h, None)).T
        h = projection.shape[0]
    count = next((k for k in _BLOCKS.values() if rows == k * h), 0)
    if not count:
        raise ValueError(
            f"{named.what}: weight_hh{suffix} has shape {(rows, h)}; expected 4, 3 or 1 times H rows and H columns"
        )
    kernel = named.take(f"weight_ih{suffix}", (rows, None)).T
    first, second = (named.take_or_zeros(f"bias_{side}{suffix}", (rows,), kernel) for side in ("ih", "hh"))
    if projection is not None:
        cell = LSTM(kernel.shape[0], h, projection=projection.shape[1])
        return checked(cell, LSTMVariantParams(kernel, recurrent, first + second, projection=projection))
    if count == 3:
        return gru_of_two_biases(kernel, recurrent, first, second)
    bias = first + second
    return lstm(kernel, recurrent, bias) if count == 4 else simple(kernel, recurrent, bias, nonlinearity)


def to_torch(cell: Any, params: Any) -> Any:
    """The module of PyTorch that computes the same: an `nn.LSTM`, `nn.GRU` or `nn.RNN` with its weights.

    Args:
        cell: an `LSTM` (with a projection or without), `GRU` or `SimpleRNN`; or a `Bidirectional` or `Stack` of
            one kind and size.
        params: its parameters.

    Returns:
        The module, time first, in the parameters' dtype. The biases are all in bias_ih, but for that of a GRU's
        candidate inside the product with the reset gate.

    Raises:
        TypeError: the parameters are not the cell's.
        ValueError: the cell has options that PyTorch's lack, or the layers differ.
        ImportError: PyTorch is not installed.
    """
    layers = taken_apart("PyTorch", cell, params)
    first: Any = layers[0][0][0]
    size = first.hidden_size
    projection = getattr(first, "projection", None)
    plain(
        "PyTorch",
        first,
        LSTM(1, size, projection=projection) if projection else LSTM(1, 1),
        GRU(1, 1),
        SimpleRNN(1, 1),
        SimpleRNN(1, 1, activation="relu"),
    )
    torch = require("torch", "to_torch")
    kind = {LSTM: "LSTM", GRU: "GRU", SimpleRNN: "RNN"}[type(first)]
    options: dict[str, Any] = {"proj_size": projection} if projection else {}
    if kind == "RNN":
        options["nonlinearity"] = first.activation
    module = getattr(torch.nn, kind)(
        first.input_size,
        size,
        num_layers=len(layers),
        bidirectional=len(layers[0]) == 2,
        dropout=cell.dropout if isinstance(cell, Stack) else 0.0,
        dtype=getattr(torch, str(np.dtype(layers[0][0][1].input_kernel.dtype))),
        **options,
    )
    arrays = {
        f"{name}_l{k}{'_reverse' if back else ''}": array
        for k, layer in enumerate(layers)
        for back, (one, own) in enumerate(layer)
        for name, array in _rows(one, to_numpy(own)).items()
    }
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return module


def _rows(cell: Cell, params: Any) -> dict[str, Array]:
    """The arrays of one layer and direction in PyTorch's layout."""
    made = {
        "weight_ih": params.input_kernel.T,
        "weight_hh": params.recurrent_kernel.T,
        "bias_ih": params.bias,
        "bias_hh": second_bias(params),
    }
    if getattr(cell, "projection", None):
        made["weight_hr"] = params.projection.T
    return made


def record_torch(module: Any, x: Any, layer: str | None = None, library: str | None = None) -> History | Any:
    """Run a PyTorch model, and record one of its recurrent layers on the inputs that it received.

    Args:
        module: the model, in eval mode: an `nn.LSTM`, `nn.GRU` or `nn.RNN`, or any module with such inside.
        x: what the model is called with; a tuple for several arguments.
        layer: the name of the layer in `module.named_modules()`, where there are several.
        library: "jax" or "numpy", of the history; None for JAX where it is installed.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs, lengths (of a PackedSequence) and
        initial state: time first, whatever batch_first says; a `StackHistory` or `BidirectionalHistory` where the
        layer has several layers or directions.

    Raises:
        TypeError: this is no module of PyTorch.
        ValueError: no recurrent layer, or several of which none is named; one that is not called, or more than
            once; dropout between layers in training mode; or float64 for JAX without x64 enabled.
        ImportError: PyTorch is not installed.
    """
    torch = require("torch", "record_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a module of PyTorch")
    found = {name: one for name, one in module.named_modules() if type(one).__name__ in _LAYERS}
    name, inner = chosen("the model", found, layer)
    if inner.training and inner.dropout and inner.num_layers > 1:
        raise ValueError(f"{name} drops outputs between its layers at random: call module.eval() first")
    calls: list[Any] = []

    def listen(one: Any, args: Any, kwargs: Any) -> None:
        calls.append((args, kwargs))

    hook = inner.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        with torch.no_grad():
            module(*x) if type(x) is tuple else module(x)  # a PackedSequence is a tuple, too
    finally:
        hook.remove()
    args, kwargs = once(name, calls)
    given: Any = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    xs, state, lengths = given["input"], given.get("hx"), None
    if isinstance(xs, torch.nn.utils.rnn.PackedSequence):
        xs, lengths = torch.nn.utils.rnn.pad_packed_sequence(xs)
        lengths = lengths.numpy()
    elif inner.batch_first and xs.ndim == 3:
        xs = xs.transpose(0, 1)
    cell, params = from_torch(inner)
    states = None
    if state is not None:
        fields = [_numpy(field) for field in (state if isinstance(state, tuple) else (state,))]
        states = _states(cell, iter(range(len(fields[0]))), fields)
    return recorded(cell, params, _numpy(xs), states, library, lengths)


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _states(cell: Any, rows: Iterator[int], fields: list[np.ndarray]) -> Any:
    """The states of layers from arrays [layers · directions, B, H], in the order of the layers."""
    if isinstance(cell, Layers):
        return cell.tree([_states(part, rows, fields) for part in cell.parts.values()])
    row = next(rows)
    return cell.state_type(*(field[row] for field in fields))

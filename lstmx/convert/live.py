"""Recurrent layers inside a model that runs: what they received, and with which weights, as a history."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lstmx.arrays import is_traced, map_tree, namespace, require
from lstmx.convert.flax import activation_of, from_flax
from lstmx.convert.keras import from_keras
from lstmx.convert.named import chosen
from lstmx.convert.torch import from_torch
from lstmx.draws import in_library
from lstmx.history import History
from lstmx.layers import Bidirectional, Layers
from lstmx.passes.run import record

_WHOLE = ("LSTM", "GRU", "RNN")


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
    found = {name: one for name, one in module.named_modules() if type(one).__name__ in _WHOLE}
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
    args, kwargs = _once(name, calls)
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
    return _recorded(cell, params, _numpy(xs), states, library, lengths)


def record_flax(module: Any, variables: Any, x: Any, layer: str | None = None) -> History | Any:
    """Run a model of Flax, linen or nnx, and record one of its `RNN` layers on the inputs that it received.

    Args:
        module: the model: an `RNN`, or any module with such inside.
        variables: what a model of linen is applied with, {"params": ...}; None for one of nnx, which has its own.
        x: what it is called with; a tuple for several arguments.
        layer: the path of the layer in the parameters or the module, such as "encoder/RNN_0", where there are
            several.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs, lengths and initial carry, time
        first; of a layer that reads backwards in the order in which it reads.

    Raises:
        ValueError: no `RNN` runs, or several of which none is named, or one more than once, or inside a
            transformation of JAX; a layer that reads backwards with lengths; a cell that starts from another carry
            than zeros, or with other activations; or variables beside a module of nnx.
        TypeError: this is no module of Flax, or its cell is none that `from_flax` converts.
        ImportError: Flax is not installed.
    """
    nnx = require("flax.nnx", "record_flax", "flax")
    reading = _nnx if isinstance(module, nnx.Module) else _linen
    name, rnn, (cell, params), args, kwargs = reading(module, variables, x if type(x) is tuple else (x,), layer)
    name = name or "the layer"

    def option(key: str) -> Any:
        given = kwargs.get(key)
        return getattr(rnn, key, None) if given is None else given

    xs = args[0] if args else kwargs["inputs"]
    if is_traced(xs):
        raise ValueError(f"{name} is called inside a transformation of JAX, such as jit; record it without")
    lengths, carry, xp = kwargs.get("seq_lengths"), kwargs.get("initial_carry"), namespace(xs)
    if not option("time_major"):
        xs = xp.moveaxis(xs, -2, 0)
    if option("reverse"):
        if lengths is not None:
            raise ValueError(f"{name} reads backwards, with seq_lengths; give it whole sequences")
        xs = xp.flip(xs, axis=0)
    if carry is None:
        start, key = rnn.cell.carry_init, require("jax.random", "record_flax").key(0)
        if start is not None and np.any(np.asarray(start(key, (4,)))):  # None is zeros, too
            raise ValueError(f"{name} starts from carry_init, which is not zeros; call it with initial_carry")
        return record(cell, params, xs, lengths=lengths)
    state = cell.state_type(*(carry[::-1] if isinstance(carry, tuple) else (carry,)))
    return record(cell, params, xs, state, lengths=lengths)


def _linen(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
    """The name of an `RNN` of linen, itself, its cell and parameters converted, and what it is called with."""
    linen = require("flax.linen", "record_flax", "flax")
    if not isinstance(module, linen.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a module of Flax")
    calls: dict[str, list[Any]] = {}

    def listen(following: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        one = context.module
        if isinstance(one, linen.RNN) and context.method_name == "__call__":
            calls.setdefault("/".join(one.path), []).append((one.cell.path, one, args, kwargs))
        return following(*args, **kwargs)

    with linen.intercept_methods(listen):
        module.apply(variables, *given)
    name, found = chosen("the model", calls, layer)
    path, rnn, args, kwargs = _once(name, found)
    own = variables["params"]
    for part in path:
        own = own[part]
    return name, rnn, from_flax(own, activation_of(rnn.cell)), args, kwargs


def _nnx(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
    """As `_linen`, of an `RNN` of nnx."""
    nnx = require("flax.nnx", "record_flax", "flax")
    if variables is not None:
        raise ValueError("variables are given with a module of nnx, which holds its own; expected None")
    found = {"/".join(map(str, path)): one for path, one in nnx.iter_modules(module) if isinstance(one, nnx.RNN)}
    name, rnn = chosen("the model", found, layer)
    calls: list[Any] = []
    own = nnx.RNN.__call__

    def listen(one: Any, *args: Any, **kwargs: Any) -> Any:
        if one is rnn:
            calls.append((args, kwargs))
        return own(one, *args, **kwargs)

    nnx.RNN.__call__ = listen
    try:
        module(*given)
    finally:
        nnx.RNN.__call__ = own
    args, kwargs = _once(name, calls)
    return name, rnn, from_flax(rnn.cell), args, kwargs


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
    args, kwargs = _once(name, calls)
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
    return _recorded(cell, params, xs, states, library)


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


def _once(name: str, calls: list[Any]) -> Any:
    if len(calls) != 1:
        raise ValueError(f"{name or 'the layer'} was called {len(calls)} times by the model; expected once")
    return calls[0]


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _states(cell: Any, rows: Iterator[int], fields: list[np.ndarray]) -> Any:
    """The states of layers from arrays [layers · directions, B, H], in the order of the layers."""
    if isinstance(cell, Layers):
        return cell.tree([_states(part, rows, fields) for part in cell.parts.values()])
    row = next(rows)
    return cell.state_type(*(field[row] for field in fields))


def _recorded(cell: Any, params: Any, xs: Any, state: Any, library: str | None, lengths: Any = None) -> Any:
    given = map_tree(lambda x: np.ascontiguousarray(x), (params, xs, state))
    return record(cell, *in_library(given, library), lengths=lengths)

"""Flax: recurrent cells of linen, from their parameters, and of nnx, from their modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_traced, namespace, require
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.checks import one_of
from lstmx.convert.named import Named, chosen, gru, lstm, once, one_cell, plain, simple
from lstmx.history import History
from lstmx.passes.run import record

_GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


def from_flax(source: Any, activation: str = "tanh") -> tuple[Cell, Any]:
    """A recurrent cell of Flax, linen or nnx.

    Args:
        source: the parameters of linen's `LSTMCell` or `OptimizedLSTMCell` ({"ii": {"kernel"}, "hi": {"kernel",
            "bias"}, ...}), `GRUCell` or `SimpleCell`, or variables {"params": ...} that hold these; or an nnx
            `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.
        activation: "tanh" or "relu", of a SimpleCell whose parameters are given. Parameters do not tell their
            cell's functions: other cells are taken to have sigmoid and tanh.

    Returns:
        The cell and its parameters, of the library that the arrays are of. nnx's GRU has no bias inside the
        product with the reset gate: its place is 0.

    Raises:
        TypeError: this is no such cell; or an array of another dtype than float32 or float64.
        ValueError: an array is missing, surplus or of another shape; a cell with other activations, or with a
            residual connection; or `activation` is another word.
    """
    one_of("activation", activation, ("tanh", "relu"))
    if hasattr(source, "items"):
        params = source.get("params", source)
        kinds = {"ii": "LSTM", "ir": "GRU", "i": "Simple"}
        kind = next((kinds[name] for name in kinds if name in params), None)
        if kind is None:
            raise ValueError(f"source holds {', '.join(params) or 'nothing'}; expected a cell's ii, ir or i, ...")
        what = f"the {kind}Cell"
        named = Named(what, {f"{layer}.{name}": x for layer, inner in params.items() for name, x in inner.items()})
        made = _simple(named, "i", "h", activation) if kind == "Simple" else _gates(named, kind)
    else:
        made, named = _module(source)
    named.nothing_left()
    return made


def _module(module: Any) -> tuple[tuple[Cell, Any], Named]:
    kind = type(module).__name__
    if kind not in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell") or not hasattr(
        module, "hidden_features"
    ):
        raise TypeError(f"source is a {kind}; expected parameters of linen, or a recurrent cell of nnx")
    activation = activation_of(module)
    gates = [f"{side}{gate}" for side in "ih" for gate in "ifgo"]
    names = gates if kind == "LSTMCell" else ["dense_i", "dense_h"]
    layers = {name: getattr(module, "if_" if name == "if" else name) for name in names}
    arrays = {
        f"{name}.{leaf}": part[...] if hasattr(part, "get_value") else part.value
        for name, layer in layers.items()
        for leaf in ("kernel", "bias")
        if (part := getattr(layer, leaf, None)) is not None
    }
    named = Named(f"the {kind}", arrays)
    if kind == "LSTMCell":
        return _gates(named, "LSTM"), named
    if kind == "SimpleCell":
        return _simple(named, "dense_i", "dense_h", activation), named
    return _dense(named, kind), named


def activation_of(cell: Any) -> str:
    """The activation of a cell of linen or nnx, "tanh" or, of a SimpleCell, "relu".

    Raises:
        TypeError: a cell that has no activation, and so none of those that `from_flax` converts.
        ValueError: other activations, or a residual connection.
    """
    kind, points = type(cell).__name__, np.array([-2.0, -0.5, 0.3, 1.5], "float32")
    if not hasattr(cell, "activation_fn"):
        raise TypeError(f"the cell is a {kind}; expected a recurrent cell of Flax that lstmx converts")
    if getattr(cell, "residual", False):
        raise ValueError(f"the {kind} has residual=True, h + W x + U h; lstmx has no such cell")
    known = {"tanh": np.tanh(points), "relu": np.maximum(points, 0), "sigmoid": 1 / (1 + np.exp(-points))}

    def name_of(function: Any) -> str:
        values = np.asarray(function(points))
        near = (name for name, expected in known.items() if np.allclose(values, expected, rtol=1e-5))
        return next(near, getattr(function, "__name__", repr(function)))

    activation = name_of(cell.activation_fn)
    gate = name_of(cell.gate_fn) if hasattr(cell, "gate_fn") else "sigmoid"
    if gate != "sigmoid" or activation not in (("tanh", "relu") if hasattr(cell, "residual") else ("tanh",)):
        raise ValueError(
            f"the {kind} has activation_fn {activation} and gate_fn {gate}; lstmx has tanh and sigmoid"
        )
    return activation


def _gates(named: Named, kind: str) -> tuple[Cell, Any]:
    """A cell with a layer for each gate."""
    gates = _GATES[kind]
    h = named.take(f"h{gates[0]}.kernel", (None, None)).shape[0]
    kernels = [named.take(f"i{gate}.kernel", (None, h)) for gate in gates]
    recurrent = [named.take(f"h{gate}.kernel", (h, h)) for gate in gates]
    xp, like, biased = namespace(*kernels), kernels[0], "h" if kind == "LSTM" else "i"
    biases = [named.take_or_zeros(f"{biased}{gate}.bias", (h,), like) for gate in gates]
    kernel, packed, bias = (xp.concat(some, axis=-1) for some in (kernels, recurrent, biases))
    if kind == "LSTM":
        return lstm(kernel, packed, bias)
    return gru(kernel, packed, bias, named.take_or_zeros("hn.bias", (h,), like))


def _dense(named: Named, kind: str) -> tuple[Cell, Any]:
    """A cell of nnx with one layer for all gates."""
    recurrent = named.take("dense_h.kernel", (None, None))
    h, count = recurrent.shape[0], 3 if kind == "GRUCell" else 4
    named.take("dense_h.kernel", (h, count * h))
    kernel = named.take("dense_i.kernel", (None, count * h))
    if kind == "GRUCell":
        zeros = namespace(kernel).zeros((h,), dtype=kernel.dtype)
        return gru(kernel, recurrent, named.take_or_zeros("dense_i.bias", (3 * h,), kernel), zeros)
    return lstm(kernel, recurrent, named.take_or_zeros("dense_h.bias", (4 * h,), kernel))


def _simple(named: Named, i: str, h: str, activation: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"{h}.kernel", (None, None))
    size = recurrent.shape[0]
    named.take(f"{h}.kernel", (size, size))
    kernel = named.take(f"{i}.kernel", (None, size))
    return simple(kernel, recurrent, named.take_or_zeros(f"{i}.bias", (size,), kernel), activation)


def to_flax(cell: Any, params: Any, kind: str = "linen") -> Any:
    """What a recurrent cell of Flax computes the same with.

    Args:
        cell: an `LSTM`, `GRU` or `SimpleRNN` without options.
        params: its parameters.
        kind: "linen" for the parameters of linen's `LSTMCell` or `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`;
            "nnx" for a module: an nnx `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.

    Returns:
        The parameters by name, or the module; linen takes the former as {"params": ...}.

    Raises:
        TypeError: these are layers, or the parameters are not the cell's.
        ValueError: another kind of cell, options, or another word; or a GRU for nnx, whose GRU has no bias inside
            the product with the reset gate, where that bias is not 0.
        ImportError: Flax is not installed, where a module is asked for.
    """
    one_of("kind", kind, ("linen", "nnx"))
    one_cell("a cell of Flax", cell, params)
    plain("Flax", cell, LSTM(1, 1), GRU(1, 1), SimpleRNN(1, 1))
    if kind == "nnx":
        return _nnx(cell, params)
    if isinstance(cell, SimpleRNN):
        return {
            "i": {"kernel": params.input_kernel, "bias": params.bias},
            "h": {"kernel": params.recurrent_kernel},
        }
    h, gates = cell.hidden_size, _GATES[type(cell).__name__]
    made: dict[str, dict[str, Array]] = {}
    for k, gate in enumerate(gates):
        at = slice(k * h, (k + 1) * h)
        made[f"i{gate}"] = {"kernel": params.input_kernel[:, at]}
        made[f"h{gate}"] = {"kernel": params.recurrent_kernel[:, at]}
        made[f"{'h' if isinstance(cell, LSTM) else 'i'}{gate}"]["bias"] = params.bias[at]
    if isinstance(cell, GRU):
        made["hn"]["bias"] = params.candidate_bias
    return made


def _nnx(cell: Any, params: Any) -> Any:
    if isinstance(cell, GRU) and np.any(np.asarray(params.candidate_bias)):
        raise ValueError(
            "candidate_bias is not 0; nnx's GRUCell has no bias inside the product with the reset gate"
        )
    nnx = require("flax.nnx", "to_flax", "flax")
    kind = {LSTM: nnx.OptimizedLSTMCell, GRU: nnx.GRUCell, SimpleRNN: nnx.SimpleCell}[type(cell)]
    dtype = params.bias.dtype
    module = kind(cell.input_size, cell.hidden_size, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    module.dense_i.kernel = nnx.Param(params.input_kernel)
    module.dense_h.kernel = nnx.Param(params.recurrent_kernel)
    biased = module.dense_h if isinstance(cell, LSTM) else module.dense_i
    biased.bias = nnx.Param(params.bias)
    return module


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
    reading = _running_nnx if isinstance(module, nnx.Module) else _running_linen
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


def _running_linen(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
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
    path, rnn, args, kwargs = once(name, found)
    own = variables["params"]
    for part in path:
        own = own[part]
    return name, rnn, from_flax(own, activation_of(rnn.cell)), args, kwargs


def _running_nnx(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
    """As `_running_linen`, of an `RNN` of nnx."""
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
    args, kwargs = once(name, calls)
    return name, rnn, from_flax(rnn.cell), args, kwargs

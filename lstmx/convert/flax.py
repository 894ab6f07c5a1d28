"""Flax: recurrent cells of linen, from their parameters, and of nnx, from their modules."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_traced, jax, namespace, require
from lstmx.cells import GRU, JANET, LSTM, Cell, JANETParams, SimpleRNN
from lstmx.cells.activations import GATE_ACTIVATIONS, activated
from lstmx.checks import one_of
from lstmx.convert.named import (
    CANDIDATES,
    Named,
    checked,
    chosen,
    function_of,
    gru,
    lstm,
    once,
    one_cell,
    plain,
    simple,
    with_activations,
)
from lstmx.history import History
from lstmx.passes.run import record

_GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "MGU": ("f", "n")}
_BESIDE = ("intermediates", "opt_state", "step")  # collections that no equation of a cell reads


def from_flax(
    source: Any,
    activation: str | None = None,
    layer: str | None = None,
    dtype: str | None = None,
    gate_activation: str | None = None,
) -> tuple[Cell, Any]:
    """A recurrent cell of Flax, linen or nnx.

    Args:
        source: parameters, by name, of linen's `LSTMCell` or `OptimizedLSTMCell` ({"ii": {"kernel"}, "hi":
            {"kernel", "bias"}, ...}), `GRUCell`, `SimpleCell` or `MGUCell` without its reset gate, or of a cell of
            nnx ({"dense_i": ..., "dense_h": ...}); variables of a model with such a cell somewhere inside, as
            {"params": ...}, `nnx.state`, `msgpack_restore` or Orbax gives them; or a module of nnx that is or has
            an `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.
        activation: the cell's activation_fn where parameters are given, which do not tell it: "tanh", which is
            taken where None is given, "relu", or of an LSTM "identity". A module says its own.
        layer: the path of the cell in the parameters or the module, such as "encoder/cell", where there are
            several.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.
        gate_activation: the cell's gate_fn, likewise: "sigmoid", which is taken where None is given,
            "hard_sigmoid" for that of JAX, (a + 3) / 6 cut off at 0 and 1, or "hard_sigmoid_0.2".

    Returns:
        The cell and its parameters, of the library that the arrays are of. nnx's GRU has no bias inside the
        product with the reset gate: its place is 0. An MGUCell without its reset gate is a `JANET` with beta=0.

    Raises:
        TypeError: this is no such thing; a cell with equations of its own; or an array of another dtype than
            float32 or float64.
        ValueError: no such cell inside, or several of which none is named; an array is missing, surplus or of
            another shape; a cell with other activations, with a residual connection, a convolution or a reset gate
            that is its forget gate, or one that computes in another dtype; or `activation` or `gate_activation`
            is another word, or given with a module.
    """
    if activation is not None:
        one_of("activation", activation, CANDIDATES["LSTM"])
    if gate_activation is not None:
        one_of("gate_activation", gate_activation, GATE_ACTIVATIONS)
    nnx = sys.modules.get("flax.nnx")  # None where nobody has made a module of it
    if nnx is not None and isinstance(source, nnx.Module):
        name, cell = chosen("the module", _cells_of_nnx(nnx, source), layer)
        for word, given in (("activation", activation), ("gate_activation", gate_activation)):
            if given is not None:
                raise ValueError(f"{word} is {given!r}; a module says its own: expected None")
        made = _read(nnx.state(cell), name, functions_of(cell, _nnx_kinds(nnx)), dtype)
        _same_dtype(cell, made[1])
        for part, one in vars(cell).items():
            if isinstance(one, nnx.Module) and not isinstance(one, (nnx.Rngs, nnx.RngStream)):
                _plain_layer(nnx.Linear, f"the {type(cell).__name__}'s {part}", one)
        return made
    if not hasattr(source, "items"):
        raise TypeError(
            f"source is a {type(source).__name__}; expected parameters by name, such as variables of linen or an "
            "nnx.state, or a module of nnx"
        )
    tree = _unboxed(source)
    what = f"source, which holds {', '.join(map(repr, tree)) or 'nothing'},"
    name, found = chosen(what, flax_cells(tree), layer)
    for collection in set(tree) - {"params", *_BESIDE} if "params" in tree else ():
        own = tree[collection]
        for part in filter(None, name.split("/")):
            own = own.get(part) if isinstance(own, dict) else None
        if isinstance(own, dict) and own:
            listed = ", ".join(_leaves(own))
            raise ValueError(f"the cell has surplus arrays beside its params, in {collection}: {listed}")
    return _read(found, name, (activation or "tanh", gate_activation or "sigmoid"), dtype)


def flax_cells(source: Any) -> dict[str, dict[str, Any]]:
    """The recurrent cells of Flax in a tree of arrays, each under its path."""
    tree = _unboxed(source)
    found: dict[str, dict[str, Any]] = {}

    def look(inside: dict[str, Any], path: tuple[str, ...]) -> None:
        if _kind(inside) is not None:
            found["/".join(path)] = inside
            return
        for name, one in inside.items():
            if isinstance(one, dict):
                look(one, (*path, name))

    look(tree.get("params", tree), ())
    return found


def assumed(cell: Cell, activation: str | None) -> str:
    """What `from_flax` takes for granted of parameters in a file, in words."""
    simple = isinstance(cell, SimpleRNN)
    name = "SimpleCell with residual=False" if simple else f"{type(cell).__name__}Cell with gates of sigmoids"
    others = "tanh (--nonlinearity relu)" if activation is None else f"{activation}, as asked for"
    return (
        f"it is Flax's own {name.replace('JANET', 'MGU')}, as names and shapes say; parameters do not tell its "
        f"functions, which are taken to be {others}, nor its dtype, which is taken to be theirs"
    )


def _unboxed(tree: Any) -> Any:
    """The tree as dicts with names that are strings, its arrays taken out of what Flax wraps them in."""
    if hasattr(tree, "items"):
        made = {str(name): _unboxed(one) for name, one in tree.items()}
        alone = made.get("value") if set(made) == {"value"} else None  # as states of nnx were saved
        return made if alone is None or isinstance(alone, dict) else alone
    if isinstance(tree, (list, tuple)):
        return {str(k): _unboxed(one) for k, one in enumerate(tree)}
    if hasattr(tree, "get_value"):
        return tree.get_value()
    return getattr(tree, "value", tree)


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The arrays in dicts in dicts, their names joined by dots."""
    found: dict[str, Any] = {}
    for name, one in tree.items():
        found |= _leaves(one, f"{prefix}{name}.") if isinstance(one, dict) else {f"{prefix}{name}": one}
    return found


def _kind(inside: dict[str, Any]) -> str | None:
    """Which cell has parameters of these names; None of what is none."""
    layers = {name for name, one in inside.items() if isinstance(one, dict)}
    kernels = {name for name in layers if "kernel" in inside[name]}
    if "ii" in layers:
        return "LSTM"
    if "ir" in layers:
        return "GRU"
    if {"if", "hf"} <= layers:
        return "MGU"
    if {"ih", "hh"} <= kernels:
        return "ConvLSTM"
    if {"dense_i", "dense_h"} <= kernels:
        return "dense"
    return "Simple" if {"i", "h"} <= kernels else None


def _read(source: Any, path: str, functions: tuple[str, str], dtype: str | None) -> tuple[Cell, Any]:
    """A cell from its own arrays."""
    inside = _unboxed(source)
    kind = _kind(inside)
    if set(inside.get("rngs", ())) == {"count", "key"}:  # what nnx draws carries with
        inside = {name: one for name, one in inside.items() if name != "rngs"}
    if kind == "LSTM" and "if_" in inside:  # as nnx calls it
        inside = {name.rstrip("_"): one for name, one in inside.items()}
    what = ("the cell" if kind == "dense" else f"the {kind}Cell") + (f" at {path!r}" if path else "")
    if kind == "ConvLSTM":
        raise ValueError(f"{what} has images for states; lstmx has no convolutions")
    arrays = _leaves(inside)
    for name, x in arrays.items():
        if name.endswith(".kernel") and len(getattr(x, "shape", ())) > 2:
            raise ValueError(
                f"{what}: {name} has shape {tuple(x.shape)}; expected [rows, columns]. Where the first axis "
                "counts layers that nn.scan or vmap stacked, take one: jax.tree.map(lambda x: x[0], params)"
            )
    named = Named(what, arrays, dtype)
    if kind == "Simple":
        made = _simple(named, "i", "h")
    else:
        made = _dense(named) if kind == "dense" else _gates(named, kind or "")
    named.nothing_left()
    return with_activations(made, *functions)


# ------------------------------------------------------------------------------------------- modules and fields


def _nnx_kinds(nnx: Any) -> tuple[type, ...]:
    return nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell


def _cells_of_nnx(nnx: Any, module: Any) -> dict[str, Any]:
    """The recurrent cells in a module of nnx, of whatever class, each under its path."""
    base = nnx.RNNCellBase
    return {"/".join(map(str, path)): one for path, one in nnx.iter_modules(module) if isinstance(one, base)}


def functions_of(cell: Any, kinds: tuple[type, ...]) -> tuple[str, str]:
    """The activations of a cell of linen or nnx, of its candidate and of its gates, by the words of lstmx.

    Args:
        cell: the cell.
        kinds: the framework's classes whose equations lstmx has.

    Raises:
        TypeError: a cell of none of these classes, or of a class with equations of its own.
        ValueError: other activations, or a residual connection.
    """
    kind = type(cell).__name__
    if not any(isinstance(cell, one) and type(cell).__call__ is one.__call__ for one in kinds):
        own = " with a __call__ of its own" if isinstance(cell, kinds) else ""
        names = ", ".join(one.__name__ for one in kinds)
        raise TypeError(
            f"the cell is a {type(cell).__module__}.{kind}{own}; expected a recurrent cell of Flax that lstmx "
            f"converts: {names}. Write its step and give it to lstmx.from_step"
        )
    if getattr(cell, "residual", False):
        raise ValueError(f"the {kind} has residual=True, h + W x + U h; lstmx has no such cell")
    activation, gate = (
        function_of(one, lambda points, one=one: one(jax.numpy.asarray(points)))
        for one in (cell.activation_fn, getattr(cell, "gate_fn", jax.nn.sigmoid))
    )
    known = next(one.__name__ for one in kinds if isinstance(cell, one))
    ours = next(name for name in ("LSTM", "GRU", "Simple", "MGU") if name in known)
    activations = ("tanh",) if ours == "MGU" else CANDIDATES.get(ours, CANDIDATES["SimpleRNN"])
    gates = ("sigmoid",) if ours in ("MGU", "Simple") else GATE_ACTIVATIONS
    if gate not in gates or activation not in activations:
        raise ValueError(
            f"the {kind} has activation_fn {activation} and gate_fn {gate}; lstmx has {' or '.join(activations)} "
            f"and {' or '.join(gates)}"
        )
    return activation, gate


def _same_dtype(cell: Any, params: Any) -> None:
    """Raise unless a cell computes in the dtype of its parameters, as lstmx does."""
    own = params.input_kernel.dtype
    if cell.dtype is not None and np.dtype(cell.dtype) != own:
        raise ValueError(
            f"the {type(cell).__name__} has dtype {np.dtype(cell.dtype)} and computes in it from parameters in "
            f"{own}; lstmx computes in the dtype of the parameters: make the cell with dtype=None"
        )


def _plain_layer(kind: Any, what: str, layer: Any) -> None:
    """Raise unless a layer in a cell of nnx is Linear and has its usual functions."""
    if type(layer).__call__ is not kind.__call__:
        raise TypeError(f"{what} is a {type(layer).__name__}, with a __call__ of its own; expected a Linear")
    usual = inspect.signature(kind.__init__).parameters
    for name in ("dot_general", "promote_dtype", "preferred_element_type"):
        if name in usual and getattr(layer, name) is not usual[name].default:
            raise ValueError(f"{what} has a {name} of its own; lstmx multiplies arrays as they are")


# -------------------------------------------------------------------------------------------------------- arrays


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
    if kind == "GRU":
        return gru(kernel, packed, bias, named.take_or_zeros("hn.bias", (h,), like))
    if "hn.bias" in named:
        raise ValueError(
            f"{named.what} has reset_gate=True, n = tanh(W x + f * (U h + b)), h' = (1 - f) n + f h"
            "; lstmx's MGU keeps 1 - f of h. Write its step and give it to lstmx.from_step"
        )
    return checked(JANET(like.shape[0], h, beta=0.0), JANETParams(kernel, packed, bias))


def _dense(named: Named) -> tuple[Cell, Any]:
    """A cell of nnx, with one layer for all its gates."""
    recurrent = named.take("dense_h.kernel", (None, None))
    h, columns = recurrent.shape
    if columns == h:
        return _simple(named, "dense_i", "dense_h")
    if columns not in (3 * h, 4 * h):
        raise ValueError(
            f"{named.what}: dense_h.kernel has shape {(h, columns)}; expected [H, 4H], [H, 3H] or [H, H]"
        )
    kernel = named.take("dense_i.kernel", (None, columns))
    if columns == 3 * h:
        zeros = namespace(kernel).zeros((h,), dtype=kernel.dtype)
        return gru(kernel, recurrent, named.take_or_zeros("dense_i.bias", (3 * h,), kernel), zeros)
    return lstm(kernel, recurrent, named.take_or_zeros("dense_h.bias", (4 * h,), kernel))


def _simple(named: Named, i: str, h: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"{h}.kernel", (None, None))
    size = recurrent.shape[0]
    named.take(f"{h}.kernel", (size, size))
    kernel = named.take(f"{i}.kernel", (None, size))
    return simple(kernel, recurrent, named.take_or_zeros(f"{i}.bias", (size,), kernel))


def to_flax(cell: Any, params: Any, kind: str = "linen") -> Any:
    """What a recurrent cell of Flax computes the same with.

    Args:
        cell: an `LSTM`, `GRU` or `SimpleRNN` without options but activations, which linen's parameters do not
            hold and its module is given.
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
    words = CANDIDATES["LSTM"]
    plain("Flax", cell, LSTM(1, 1), GRU(1, 1), SimpleRNN(1, 1), activations=words, gates=GATE_ACTIVATIONS)
    if isinstance(cell, LSTM) and cell.output_activation != cell.candidate_activation:
        raise ValueError(f"Flax has one activation for the candidate and the output of an LSTM; not {cell!r}")
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
    own = {"activation_fn": cell.activation if isinstance(cell, SimpleRNN) else cell.candidate_activation}
    own |= {} if isinstance(cell, SimpleRNN) else {"gate_fn": cell.gate_activation}
    functions = {name: functools.partial(activated, word) for name, word in own.items()}
    options = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(0)}
    module = kind(cell.input_size, cell.hidden_size, **options, **functions)
    module.dense_i.kernel = nnx.Param(params.input_kernel)
    module.dense_h.kernel = nnx.Param(params.recurrent_kernel)
    biased = module.dense_h if isinstance(cell, LSTM) else module.dense_i
    biased.bias = nnx.Param(params.bias)
    return module


def record_flax(module: Any, variables: Any, x: Any, layer: str | None = None) -> History | Any:
    """Run a model of Flax, linen or nnx, and record one of its `RNN` layers on the inputs that it received.

    Args:
        module: the model: an `RNN`, or any module with such inside, as in a `Bidirectional`.
        variables: what a model of linen is applied with, {"params": ...}; None for one of nnx, which has its own.
        x: what it is called with; a tuple for several arguments.
        layer: the path of the layer in the parameters or the module, such as "encoder/RNN_0", where there are
            several.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs, lengths and initial carry, time
        first; of a layer that reads backwards in the order in which it reads, padding last. At steps behind a
        sequence's length lstmx holds the state, where Flax computes on.

    Raises:
        ValueError: no `RNN` runs, or several of which none is named, or one more than once, or inside a
            transformation of JAX; a cell with other activations, or that computes in another dtype than its
            parameters'; or variables beside a module of nnx.
        TypeError: this is no module of Flax, or its cell or RNN is of another class than those that `from_flax`
            converts.
        ImportError: Flax is not installed.
    """
    nnx = require("flax.nnx", "record_flax", "flax")
    reading = _running_nnx if isinstance(module, nnx.Module) else _running_linen
    name, rnn, args, kwargs, convert = reading(module, variables, x if type(x) is tuple else (x,), layer)
    name = name or "the layer"

    def option(key: str) -> Any:
        given = kwargs.get(key)
        return getattr(rnn, key, None) if given is None else given

    xs = args[0] if args else kwargs["inputs"]
    if is_traced(xs):
        raise ValueError(f"{name} is called inside a transformation of JAX, such as jit; record it without")
    cell, params = convert()
    lengths, carry, xp = kwargs.get("seq_lengths"), kwargs.get("initial_carry"), namespace(xs)
    if not option("time_major"):
        xs = xp.moveaxis(xs, -2, 0)
    if option("reverse"):
        steps = xp.arange(len(xs) - 1, -1, -1)[(..., *[None] * (xs.ndim - 1))]  # [T, 1, ..., 1]
        ends = 0 if lengths is None else xp.asarray(lengths)[..., None]
        xs = xp.take_along_axis(xs, (steps + ends) % len(xs), axis=0)  # padding stays behind
    if carry is None:
        key = kwargs.get("init_key")
        start = jax.random.key(0) if key is None else key
        carry = rnn.cell.initialize_carry(start, xs.shape[1:])
    state = cell.state_type(*(carry[::-1] if isinstance(carry, tuple) else (carry,)))
    return record(cell, params, xs, state, lengths=lengths)


def _own_class(name: str, rnn: Any, kind: Any) -> None:
    """Raise unless an RNN scans its cell as the framework's does."""
    if type(rnn).__call__ is not kind.__call__:
        raise TypeError(
            f"{name or 'the layer'} is a {type(rnn).__name__}, with a __call__ of its own; expected an RNN"
        )


def _alone(cells: list[str]) -> ValueError:
    """What is said of a model whose cells run by themselves."""
    listed = ", ".join(map(repr, cells))
    return ValueError(
        f"the model has no RNN that runs; its cells {listed} run by themselves, as under scan, and what they read "
        f"is not known: cell, params = lstmx.convert.from_flax(variables or module, layer={cells[0]!r}), then "
        "lstmx.record(cell, params, xs) on their inputs, time first"
    )


def _running_linen(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
    """The name of an `RNN` of linen, itself, what it is called with, and what converts its cell."""
    linen = require("flax.linen", "record_flax", "flax")
    if not isinstance(module, linen.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a module of Flax")
    calls: dict[str, list[Any]] = {}
    cells: dict[str, None] = {}

    def listen(following: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        one = context.module
        if isinstance(one, linen.RNN) and context.method_name == "__call__":
            calls.setdefault("/".join(one.path), []).append((one.cell.path, one, args, kwargs))
        elif isinstance(one, linen.RNNCellBase) and context.method_name == "__call__":
            cells["/".join(one.path)] = None
        return following(*args, **kwargs)

    with linen.intercept_methods(listen):
        module.apply(variables, *given)
    if cells and not calls:
        raise _alone(list(cells))
    name, found = chosen("the model", calls, layer)
    path, rnn, args, kwargs = once(name, found)

    def convert() -> tuple[Cell, Any]:
        _own_class(name, rnn, linen.RNN)
        kinds = linen.LSTMCell, linen.OptimizedLSTMCell, linen.GRUCell, linen.SimpleCell, linen.MGUCell
        activation, gates = functions_of(rnn.cell, kinds)
        cell, params = from_flax(variables, activation, "/".join(path), gate_activation=gates)
        _same_dtype(rnn.cell, params)
        return cell, params

    return name, rnn, args, kwargs, convert


def _running_nnx(module: Any, variables: Any, given: tuple[Any, ...], layer: str | None) -> tuple[Any, ...]:
    """As `_running_linen`, of an `RNN` of nnx; the carry that it draws is among what it is called with."""
    nnx = require("flax.nnx", "record_flax", "flax")
    if variables is not None:
        raise ValueError("variables are given with a module of nnx, which holds its own; expected None")
    found = {"/".join(map(str, path)): one for path, one in nnx.iter_modules(module) if isinstance(one, nnx.RNN)}
    if not found and (cells := list(_cells_of_nnx(nnx, module))):
        raise _alone(cells)
    name, rnn = chosen("the model", found, layer)
    _own_class(name, rnn, nnx.RNN)
    calls: list[Any] = []
    own = nnx.RNN.__call__

    def listen(one: Any, *args: Any, **kwargs: Any) -> Any:
        if one is rnn:
            if kwargs.get("initial_carry") is None:
                kwargs = {**kwargs, "initial_carry": _drawn_carry(nnx, one, *args, **kwargs)}
            calls.append((args, kwargs))
        return own(one, *args, **kwargs)

    nnx.RNN.__call__ = listen
    try:
        module(*given)
    finally:
        nnx.RNN.__call__ = own
    args, kwargs = once(name, calls)
    return name, rnn, args, kwargs, lambda: from_flax(rnn.cell)


def _drawn_carry(
    nnx: Any, rnn: Any, inputs: Any, time_major: bool | None = None, rngs: Any = None, **_: Any
) -> Any:
    """What an `RNN` of nnx starts from that is given no carry."""
    first = rnn.time_major if time_major is None else time_major
    shape = inputs.shape[1:] if first else (*inputs.shape[:-2], inputs.shape[-1])
    rngs = rnn.rngs if rngs is None else rngs
    return rnn.cell.initialize_carry(shape, rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs)

"""Keras 3: `LSTM`, `GRU`, `SimpleRNN`, an `RNN` of their cells, and `Bidirectional` around one."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import is_traced, require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, SimpleRNN
from lstmx.cells.activations import GATE_ACTIVATIONS
from lstmx.checks import parameters
from lstmx.convert.named import (
    CANDIDATES,
    Named,
    assembled,
    chosen,
    function_of,
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

_LAYERS = ("LSTM", "GRU", "SimpleRNN", "RNN")
_ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "identity": "linear"}  # of lstmx, and of Keras
_MERGES = {"concat": "concatenate", "sum": "sum"}
_EXPECTED = "expected an LSTM, GRU, SimpleRNN, an RNN of their cells, or a Bidirectional, of Keras"


_BLOCKS = {"LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}  # in the kernels of a cell


def from_keras(layer: Any, dtype: str | None = None) -> tuple[Any, Any]:
    """A recurrent layer of Keras 3.

    What a layer does beside its equations is not part of it: its state where it is stateful, dropout, and the
    form of what it returns.

    Args:
        layer: an `LSTM`, `GRU` or `SimpleRNN`, an `RNN` of one or several of their cells, such a cell, or a
            `Bidirectional` around one (merge_mode "concat" or "sum"), that has been built.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell, a `Stack` or a `Bidirectional`, and its parameters as NumPy arrays. Of a GRU with
        reset_after=True the two biases are added up, but for those of the candidate; one with reset_after=False
        resets before the product.

    Raises:
        TypeError: this is no such layer, or of a class of its own; or an array of another dtype than float32 or
            float64.
        ValueError: the layer is not built, reads backwards on its own, or has activations that lstmx has not:
            these are known by their values and not by their names.
    """
    if _kind(layer) in _BLOCKS:
        return _cell(layer, layer.name, dtype)
    if _kind(layer) != "Bidirectional":
        if getattr(layer, "go_backwards", False):
            raise ValueError(
                f"{layer.name} has go_backwards=True; give it the reversed sequence without it, or record it by "
                "lstmx.record_keras"
            )
        return _direction(layer, dtype)
    if layer.merge_mode not in _MERGES:
        raise ValueError(f"layer has merge_mode={layer.merge_mode!r}; expected 'concat' or 'sum'")
    if layer.forward_layer.go_backwards:
        raise ValueError(
            f"{layer.name} has a forward layer with go_backwards=True, and returns its outputs from the last step "
            "to the first; put the layer that reads forwards first, and the other as backward_layer"
        )
    (cell, forward), (other, back) = (
        _direction(one, dtype) for one in (layer.forward_layer, layer.backward_layer)
    )
    if cell != other:
        raise ValueError(f"the directions of {layer.name} differ: {cell} and {other}")
    if not isinstance(cell, Cell):
        raise ValueError(f"the directions of {layer.name} are stacks of cells; lstmx has a cell in each direction")
    return Bidirectional(cell, _MERGES[layer.merge_mode]), Directions(forward, back)


def _kind(layer: Any) -> str | None:
    """The name of a class of Keras' own; None of a class of somebody else's."""
    kind = type(layer)
    return kind.__name__ if kind.__module__.partition(".")[0] == "keras" else None


def _direction(layer: Any, dtype: str | None) -> tuple[Any, Any]:
    """A cell, or a stack of cells, from a layer that is read in the order of its own steps."""
    kind = type(layer)
    if _kind(layer) is None and hasattr(layer, "cell"):
        raise TypeError(
            f"layer is a {kind.__name__}, a class of {kind.__module__}, which may compute anything; {_EXPECTED}. "
            "If it runs its cell as they do, convert layer.cell"
        )
    if _kind(layer) not in _LAYERS:
        raise TypeError(f"layer is a {kind.__name__}; {_EXPECTED}")
    if _kind(layer.cell) == "StackedRNNCells":
        return assembled([[_cell(one, f"{layer.name}, {one.name}", dtype)] for one in layer.cell.cells])
    return _cell(layer.cell, layer.name, dtype)


def _cell(cell: Any, name: str, dtype: str | None) -> tuple[Cell, Any]:
    kind = _kind(cell)
    if kind not in _BLOCKS:
        raise TypeError(
            f"the cell of {name} is a {type(cell).__name__} of {type(cell).__module__}; expected one of "
            f"{', '.join(_BLOCKS)}. lstmx.from_step makes a cell of a step that is written in JAX"
        )
    if not cell.built:
        raise ValueError(f"{name} has no weights yet; call it once, or layer.build(shape)")
    ours = kind.removesuffix("Cell")
    activations, gates = CANDIDATES[ours], () if ours == "SimpleRNN" else GATE_ACTIVATIONS
    activation = _function(cell.activation, cell.units)
    gate = _function(cell.recurrent_activation, cell.units) if gates else "sigmoid"
    if activation not in activations or (gates and gate not in gates):
        found = f"activation {activation}" + (f" and recurrent_activation {gate}" if gates else "")
        known = " and ".join(" or ".join(functions) for functions in (activations, gates) if functions)
        raise ValueError(f"{name} has {found}; lstmx has {known}")
    if cell.compute_dtype != cell.variable_dtype:
        warnings.warn(
            f"{name} computes in {cell.compute_dtype}; lstmx computes in the {cell.variable_dtype} of its weights",
            stacklevel=2,
        )
    arrays = dict(zip((weight.name for weight in cell.weights), cell.get_weights(), strict=True))
    named, after = Named(name, arrays, dtype), getattr(cell, "reset_after", True)
    return from_arrays(named, ours, activation, gate, after)


def from_arrays(
    named: Named, kind: str, activation: str = "tanh", gate: str = "sigmoid", reset_after: bool = True
) -> tuple[Cell, Any]:
    """A cell from its arrays as Keras has them.

    Args:
        named: "kernel" [D, kH], "recurrent_kernel" [H, kH] and, if there is one, "bias".
        kind: "LSTM", "GRU" or "SimpleRNN".
        activation: "tanh" or "relu"; of an LSTM's candidate and output, "identity" as well.
        gate: of an LSTM or a GRU, "sigmoid", "hard_sigmoid" or "hard_sigmoid_0.2".
        reset_after: of a GRU.

    Raises:
        ValueError: an array is missing, of another shape, or not used.
        TypeError: an array of another dtype than float32 or float64.
    """
    count = _BLOCKS[f"{kind}Cell"]
    h = named.take("recurrent_kernel", (None, None)).shape[0]
    kernel, recurrent = named.take("kernel", (None, count * h)), named.take("recurrent_kernel", (h, count * h))
    doubled = kind == "GRU" and reset_after
    bias = named.take_or_zeros("bias", (2, 3 * h) if doubled else (count * h,), kernel)
    named.nothing_left()
    if kind == "LSTM":
        return with_activations(lstm(kernel, recurrent, bias), activation, gate)
    if kind == "SimpleRNN":
        return simple(kernel, recurrent, bias, activation)
    kernel, recurrent, bias = (reordered(part, (1, 0, 2), 3) for part in (kernel, recurrent, bias))
    made = gru_of_two_biases(kernel, recurrent, *bias) if doubled else gru_reset_before(kernel, recurrent, bias)
    return with_activations(made, activation, gate)


def _function(function: Any, units: int) -> str:
    """What a function of Keras is; see `function_of`."""
    if getattr(function, "weights", ()) or not getattr(function, "built", True):
        return f"{getattr(function, '__name__', type(function).__name__)}, which has weights of its own"
    ops = require("keras", "from_keras").ops

    def apply(points: np.ndarray) -> np.ndarray:
        rows = np.tile(points[:, None], (1, units))  # as a layer calls it, which a softmax notices
        values = np.asarray(ops.convert_to_numpy(function(ops.convert_to_tensor(rows))))
        alike = values.shape == rows.shape and np.array_equal(values, np.tile(values[:, :1], (1, units)))
        return values[:, 0] if alike else values

    return function_of(function, apply)


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
    one: Any = cell.cell if isinstance(cell, Bidirectional) else cell
    kinds = LSTM(1, 1), GRU(1, 1), GRU(1, 1, reset="before"), SimpleRNN(1, 1)
    words = tuple(_ACTIVATIONS)
    plain("Keras", one, *kinds, activations=words, gates=("sigmoid", "hard_sigmoid"))
    if isinstance(one, LSTM) and one.output_activation != one.candidate_activation:
        raise ValueError(f"Keras has one activation for the candidate and the output of an LSTM; not {one!r}")
    layers = require("keras", "to_keras").layers
    owned = list(params) if isinstance(cell, Bidirectional) else [params]
    options: dict[str, Any] = {"dtype": str(np.dtype(owned[0].input_kernel.dtype))}
    if isinstance(one, GRU):
        options["reset_after"] = one.reset == "after"
    if isinstance(one, SimpleRNN):
        options["activation"] = one.activation
    else:
        options["activation"] = _ACTIVATIONS[one.candidate_activation]
        options["recurrent_activation"] = one.gate_activation
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

    The initial state is the one that the layer is given or, where it is stateful, has; a mask is the one that
    it is given, too. A layer with go_backwards=True is recorded in the order in which it reads, from the last step
    of its inputs to the first, in which Keras returns its outputs. The states of stateful layers are put back.

    Args:
        model: the model or layer: an `LSTM`, `GRU`, `SimpleRNN`, `RNN` or `Bidirectional`, or any with such in it.
        x: what it is called with.
        layer: the name of the layer, where there are several; with the names of what it is in before it, as
            "encoder/lstm", where two have one name.
        library: "jax" or "numpy", of the history; None for JAX where it is installed. A history for JAX of a short
            pass, such as 1,000 steps of a sequence with 32 units, is computed in NumPy, sooner than JAX compiles.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs, initial state and mask, time
        first.

    Raises:
        ValueError: no recurrent layer, or several of which none is named; one that is not called, or more than
            once, inside a transformation of JAX, in another dtype than that of its weights, or with dropout that
            is on; what `from_keras` refuses; or float64 for JAX without x64 enabled.
        TypeError: what `from_keras` refuses.
    """
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}; expected a model or a layer of Keras")
    if not getattr(model, "built", True):
        with _standing(model):
            model(x)  # Keras builds it by calls of its layers that are no passes
    name, inner = chosen("the model", recurrent_layers(model), layer)
    calls: list[_Call] = []
    with _standing(model), _listening(name, inner, calls):
        model(x)
    arguments, stateful = once(name, calls)
    backwards = getattr(inner, "go_backwards", False)
    cell, params = _direction(inner, None) if backwards else from_keras(inner)
    for one in cells_of(inner):
        if one.compute_dtype != one.variable_dtype:
            raise ValueError(
                f"{name} computes in {one.compute_dtype}, and lstmx in the {one.variable_dtype} of its weights: "
                "their states differ. Build the model with dtype='float32', or after "
                "keras.config.set_dtype_policy('float32'), and give it these weights"
            )
        dropped = [kind for kind in ("dropout", "recurrent_dropout") if getattr(one, kind)]
        if arguments["training"] and dropped:
            raise ValueError(
                f"{name} is called with training=True and has {' and '.join(dropped)}, which draws another pass "
                "at each call; call it with training=False"
            )
    dtype = inner.variable_dtype
    xs = np.moveaxis(_numpy(arguments["sequences"]).astype(dtype), 1, 0)
    mask = arguments["mask"]
    if mask is not None:
        mask = _numpy(mask[0] if isinstance(mask, (list, tuple)) else mask).astype(bool)
        if mask.shape != xs.shape[1::-1]:
            raise ValueError(f"{name} has a mask of shape {mask.shape}; expected [batch, time], {xs.shape[1::-1]}")
        mask = mask.T
    if backwards:
        xs, mask = xs[::-1], None if mask is None else mask[::-1]
    given = arguments["initial_state"]
    given = stateful if given is None else given
    state = None if given is None else _state(cell, given, dtype)
    return recorded(cell, params, xs, state, library, mask=mask)


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(require("keras", "record_keras").ops.convert_to_numpy(tensor))


def _state(cell: Any, given: Any, dtype: str) -> Any:
    """A state from those of Keras: a list for each cell of a stack; two halves of a list for two directions."""
    given = given if isinstance(given, (list, tuple)) else [given]
    if isinstance(cell, Bidirectional):
        half = len(given) // 2
        return cell.tree([_state(cell.cell, part, dtype) for part in (given[:half], given[half:])])
    if isinstance(cell, Stack):
        return cell.tree([_state(one, part, dtype) for one, part in zip(cell.cells, given, strict=True)])
    return cell.state_type(*(_numpy(field).astype(dtype) for field in given))


def recurrent_layers(model: Any) -> dict[str, Any]:
    """The recurrent layers of a Keras model by name, those inside other layers as "outer/inner/name".

    A `Bidirectional` is one layer. Those that lstmx cannot convert are among them: `from_keras` says why. A number
    tells two of one name in one layer apart.
    """
    found: dict[str, Any] = {}
    _walk(model, (), found, set())
    return found


def _walk(layer: Any, path: tuple[str, ...], found: dict[str, Any], seen: set[int]) -> None:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if hasattr(layer, "return_sequences") and (hasattr(layer, "cell") or hasattr(layer, "forward_layer")):
        name = "/".join(path) or layer.name
        same = sum(one == name or one.startswith(f"{name} (") for one in found)
        found[f"{name} ({same + 1})" if same else name] = layer
        return
    for one in getattr(layer, "_layers", None) or getattr(layer, "layers", ()):
        _walk(one, (*path, one.name), found, seen)


def cells_of(layer: Any) -> list[Any]:
    """The cells of a recurrent layer: of both directions, and all of a stack."""
    return [cell for one in _runs(layer) for cell in getattr(one.cell, "cells", [one.cell])]


def _runs(layer: Any) -> list[Any]:
    """The layers of one direction in a recurrent layer."""
    return [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]


@contextlib.contextmanager
def _standing(model: Any) -> Iterator[None]:
    """Put the states of a model's stateful layers back."""
    ops = require("keras", "record_keras").ops
    before = {id(one): _leaves(_states(one)) for one in _all_runs(model)}
    try:
        yield
    finally:
        for one in _all_runs(model):
            variables = _leaves(getattr(one, "states", None))
            values = before.get(id(one)) or [
                ops.zeros_like(state.value) for state in variables
            ]  # made by this call
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _all_runs(model: Any) -> list[Any]:
    return [one for layer in recurrent_layers(model).values() for one in _runs(layer)]


def _states(layer: Any) -> Any:
    """Copies of the values of a stateful layer's states; None of another layer, or before it has any."""
    states = getattr(layer, "states", None)
    return None if states is None else _copied(states)


def _copied(states: Any) -> Any:
    if isinstance(states, (list, tuple)):
        return [_copied(one) for one in states]
    return np.array(_numpy(states))


def _leaves(states: Any) -> list[Any]:
    """What lists in lists hold, in order; nothing of None."""
    if states is None:
        return []
    return [leaf for one in states for leaf in _leaves(one)] if isinstance(states, (list, tuple)) else [states]


class _Call(NamedTuple):
    """One call of a layer."""

    arguments: dict[str, Any]
    """By name, as `RNN.call` has them."""
    states: list[Any] | None
    """Those of a stateful layer before it, of two directions one after the other."""


@contextlib.contextmanager
def _listening(name: str, layer: Any, calls: list[_Call]) -> Iterator[None]:
    """Note what a Keras layer is called with."""
    own = layer.call
    signature = inspect.signature(type(layer).call)

    def call(*args: Any, **kwargs: Any) -> Any:
        if is_traced((args, kwargs)):
            raise ValueError(f"{name} is called inside a transformation of JAX, such as jit; record it outside")
        bound = signature.bind(layer, *args, **kwargs)
        bound.apply_defaults()
        states = [_states(one) for one in _runs(layer)]
        joined = None if None in states else [field for one in states for field in one]
        calls.append(_Call(bound.arguments, joined))
        return own(*args, **kwargs)

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")

"""ONNX: the operators `LSTM`, `GRU` and `RNN`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, LSTMVariantParams, SimpleRNN
from lstmx.checks import one_of
from lstmx.checks import path as checked_path
from lstmx.convert.named import (
    Named,
    assembled,
    checked,
    chosen,
    gru_of_two_biases,
    gru_reset_before,
    lstm,
    plain,
    recorded,
    reordered,
    second_bias,
    simple,
    taken_apart,
    with_activations,
)
from lstmx.convert.onnx_graph import Graph, load_model, operators
from lstmx.history import History
from lstmx.layers import Layers

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # of i o f c, z r h: what our blocks are there
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_KINDS = {LSTM: "LSTM", GRU: "GRU", SimpleRNN: "RNN"}
_ATTRIBUTES = (
    *("hidden_size", "direction", "activations", "activation_alpha", "activation_beta", "linear_before_reset"),
    *("input_forget", "layout"),
)
_HARD_SIGMOID = (("alpha", 0.2), ("beta", 0.5))
_GATES = {(0.2, 0.5): "hard_sigmoid_0.2", (1 / 6, 0.5): "hard_sigmoid"}  # max(0, min(1, alpha a + beta))
_KINDS_OF_ATTRIBUTES = {"activations": str, "activation_alpha": float, "activation_beta": float}
_UNREAD = ("output_sequence",)  # of the first operators, to which it said which outputs are asked for
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def from_onnx(
    source: Any, node: str | None = None, reset: str | None = None, dtype: str | None = None
) -> tuple[Any, Any]:
    """An `LSTM`, `GRU` or `RNN` of an ONNX model, with peepholes and both kinds of reset.

    An initial state and lengths that the model is called with, or computes from what it is called with, are
    arguments of `run` and `record` here and no part of the result; so are zeros, which these start from.
    `record_onnx` takes the actual ones of a call.

    Args:
        source: a ModelProto, or the path of an .onnx file. The weights may be computed from constants.
        node: name of the operator (or of its first output, where it has no name) where the model has several;
            "name -> output" where several have one name.
        reset: of a GRU, "after" or "before" the product; None for what its linear_before_reset says. PyTorch's
            own exporter has written 0, "before", for modules that reset after it: there "after" is right.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell, or a `Bidirectional`, and its parameters as NumPy arrays. The two biases of ONNX are added up,
        but for those of a GRU's candidate where it resets after the product. Parameters know no order of axes:
        an operator with layout=1 is batch first, and lstmx reads time first all the same.

    Raises:
        ValueError: no such operator, or several of which none is named; one in a body of If, Loop or Scan or in a
            function; weights that depend on the inputs, or are in a file that is not there; an array of another
            shape; an attribute that lstmx has not: clip, other activations than Sigmoid or HardSigmoid (alpha 0.2
            or 1/6) of gates and Tanh or Relu of the rest, input_forget, a direction that is backwards alone; or an
            initial state that is constant and not zero, or constant lengths.
        TypeError: an array of another dtype than float32 or float64.
        ImportError: the package onnx is not installed.

    Warns:
        UserWarning: PyTorch wrote linear_before_reset=0 and `reset` is None; or the lengths are computed from the
            shapes of the inputs, and taken to be all steps.
    """
    what, graph, found = _operator("source", source, node)
    names = _names(found)
    for word in ("sequence_lens", "initial_h", "initial_c"):
        if word in names:
            _droppable(graph, what, word, names[word])
    return _converted(what, graph, found, reset, dtype)


def _operator(argument: str, source: Any, node: str | None) -> tuple[str, Graph, Any]:
    """The operator in words, the model's graph, and the operator."""
    onnx = require("onnx", "reading a model of ONNX")
    if isinstance(source, (str, Path)):
        source = load_model(checked_path(argument, source))
    if not isinstance(source, onnx.ModelProto):
        kind = type(source).__name__
        raise TypeError(f"{argument} is a {kind}; expected a ModelProto or the path of an .onnx file")
    name, (found, body) = chosen("the model", operators(source), node, "node=")
    what = f"{found.op_type} {name!r}"
    if body:
        raise ValueError(f"{what} stands in {body}; lstmx reads operators of the model's own graph alone")
    if found.op_type not in _ORDER or found.domain not in ("", "ai.onnx"):
        raise ValueError(f"{what} is of {found.domain}; lstmx reads LSTM, GRU and RNN of ONNX itself")
    return what, Graph(source), found


def _names(node: Any) -> dict[str, str]:
    """The names of the values that an operator reads, by what they are to it."""
    return {word: name for word, name in zip(_INPUTS, node.input, strict=False) if name}


def _droppable(graph: Graph, what: str, word: str, name: str) -> None:
    """Raise where an initial state or lengths are the model's own, and no part of a cell and its parameters."""
    if graph.of_inputs(name) or (word != "sequence_lens" and graph.zero(name)):
        return
    if word == "sequence_lens" and graph.constant(name) is None:
        warnings.warn(
            f"{what}: sequence_lens is computed from the shapes of the inputs and is taken to be all steps; "
            "record_onnx(model, x) takes what it is",
            stacklevel=3,
        )
        return
    own = "is the model's own" if word == "sequence_lens" else "is the model's own and not seen to be zero"
    raise ValueError(
        f"{what}: {word} is {name!r}, which {own}; a cell and its parameters hold no such thing: "
        "record_onnx(model, x) records with it"
    )


def _converted(what: str, graph: Graph, node: Any, reset: str | None, dtype: str | None = None) -> tuple[Any, Any]:
    options = {one.name: _text(graph.onnx.helper.get_attribute_value(one)) for one in node.attribute}
    for word, kind in _KINDS_OF_ATTRIBUTES.items():
        values = options.get(word, [])
        if not isinstance(values, list) or not all(isinstance(one, kind) for one in values):
            raise ValueError(f"{what} has {word} {values!r}; expected a list of {kind.__name__}")
    kind, names = node.op_type, _names(node)
    directions = _checked_options(what, kind, options)
    arrays = {}
    for letter in "WRBP":
        if letter in names:
            value = graph.constant(names[letter])
            if value is None:
                raise ValueError(
                    f"{what}: {letter} is {names[letter]!r}, which the model computes; expected a constant"
                )
            arrays[letter] = value
    named, count = Named(what, arrays, dtype), len(_ORDER[kind])
    h = options.get("hidden_size") or named.take("R", (directions, None, None)).shape[-1]
    w = named.take("W", (directions, count * h, None))
    r = named.take("R", (directions, count * h, h))
    b = named.take_or_zeros("B", (directions, 2 * count * h), w)
    p = named.take("P", (directions, 3 * h)) if np.any(arrays.get("P", 0)) else [None] * directions
    after = _resets_after(what, kind, graph.model, options, reset)
    functions = _functions(what, kind, options, directions)
    layer = [_direction(kind, functions, after, *parts) for parts in zip(w, r, b, p, strict=True)]
    return assembled([layer])


def _resets_after(what: str, kind: str, model: Any, options: dict[str, Any], reset: str | None) -> bool:
    """Whether a GRU resets after the product."""
    if reset is not None:
        if kind != "GRU":
            raise ValueError(f"reset is {reset!r}; {what} has no reset gate: expected None")
        return one_of("reset", reset, ("before", "after")) == "after"
    after = bool(options.get("linear_before_reset", 0))
    if kind == "GRU" and not after and model.producer_name == "pytorch":
        warnings.warn(
            f"{what} was written by PyTorch {model.producer_version} with linear_before_reset=0, and is read with "
            "reset='before' as that says; but a torch.nn.GRU resets after the product, and exporters of PyTorch "
            "(2.10) have written 0 wrongly. For what the module computes pass reset='after'",
            stacklevel=4,
        )
    return after


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _checked_options(what: str, kind: str, options: dict[str, Any]) -> int:
    """The number of directions; raises for an attribute that lstmx has no equal of."""
    surplus = sorted(set(options) - {*_ATTRIBUTES, *_UNREAD})
    if surplus:
        raise ValueError(f"{what} has {', '.join(surplus)}, which lstmx has no equal of")
    direction = options.get("direction", "forward")
    if direction == "reverse":
        raise ValueError(
            f"{what} reads backwards alone; give lstmx the reversed sequence, and direction='forward'"
        )
    directions = {"forward": 1, "bidirectional": 2}.get(direction)
    if directions is None:
        raise ValueError(f"{what} has direction {direction!r}; expected 'forward' or 'bidirectional'")
    if options.get("input_forget", 0):
        raise ValueError(
            f"{what} has input_forget=1, which couples gates that both have weights; lstmx has coupled=True"
        )
    return directions


def _functions(what: str, kind: str, options: dict[str, Any], directions: int) -> list[str]:
    """The activations of one direction by the words of lstmx: of the gates, of the candidate, of the output.

    Raises:
        ValueError: lstmx has not these, or the directions differ.
    """
    count = len(_ACTIVATIONS[kind])
    given = options.get("activations", list(_ACTIVATIONS[kind]) * directions)
    scales = {name: list(options.get(f"activation_{name}", ())) for name in ("alpha", "beta")}
    found = []
    for k, word in enumerate(given):
        gate = kind != "RNN" and k % count == 0
        name = word.lower()
        if gate and name == "hardsigmoid":  # takes the next alpha and beta, or those of the operator HardSigmoid
            pair = tuple(scales[key].pop(0) if scales[key] else default for key, default in _HARD_SIGMOID)
            near = (known for of, known in _GATES.items() if np.allclose(of, pair, rtol=1e-6, atol=0))
            name = next(near, f"HardSigmoid with alpha and beta {pair}")
        if name not in (("sigmoid", *_GATES.values()) if gate else ("tanh", "relu")):
            raise ValueError(
                f"{what} has activations {given} ({name}); lstmx has Sigmoid and HardSigmoid of alpha 0.2 or 1/6 "
                "for gates, and Tanh and Relu for the rest"
            )
        found.append(name)
    if len(found) != count * directions or found[:count] != found[-count:]:
        raise ValueError(f"{what} has activations {given}; lstmx has {count}, the same in both directions")
    left = [f"activation_{name}" for name, values in scales.items() if values]
    if left:
        raise ValueError(f"{what} has {' and '.join(left)} that no activation of {given} takes")
    return found[:count]


def _direction(kind: str, functions: list[str], after: bool, w: Any, r: Any, b: Any, p: Any) -> tuple[Cell, Any]:
    count, order = len(_ORDER[kind]), _ORDER[kind]
    kernel, recurrent = (np.ascontiguousarray(reordered(part.T, order, count)) for part in (w, r))
    first, second = (reordered(part, order, count) for part in np.split(b, 2))
    h = recurrent.shape[0]
    if kind == "RNN":
        return simple(kernel, recurrent, first + second, functions[0])
    gates, *others = functions
    if kind == "GRU" and after:
        made = gru_of_two_biases(kernel, recurrent, first, second)
    elif kind == "GRU":
        made = gru_reset_before(kernel, recurrent, first + second)
    elif p is None:
        made = lstm(kernel, recurrent, first + second)
    else:
        peephole = reordered(p, (0, 2, 1), 3)  # of i o f
        cell = LSTM(kernel.shape[0], h, peepholes=True)
        made = checked(cell, LSTMVariantParams(kernel, recurrent, first + second, peephole))
    return with_activations(made, others[0], gates, others[-1])


def to_onnx(cell: Any, params: Any) -> Any:
    """A model of ONNX with one recurrent operator that computes the same.

    Args:
        cell: an `LSTM` (with peepholes or without), `GRU` or `SimpleRNN`; or a `Bidirectional` of one. The layers
            of a `Stack` are converted one by one.
        params: its parameters.

    Returns:
        A ModelProto with the inputs X [T, B, D], h (and c) [directions, B, H], and the outputs Y [T, directions,
        B, H], Y_h (and Y_c), as the operator has them.

    Raises:
        TypeError: the parameters are not the cell's.
        ValueError: options that ONNX's operators lack, or several layers.
        ImportError: the package onnx is not installed.
    """
    layers = taken_apart("ONNX", cell, params)
    if len(layers) > 1:
        raise ValueError(f"an operator of ONNX is one layer; convert those of {cell!r} one by one")
    (layer,) = layers
    first = layer[0][0]
    kinds = (LSTM(1, 1), LSTM(1, 1, peepholes=True), GRU(1, 1), GRU(1, 1, reset="before"))
    plain(
        "ONNX", first, *kinds, SimpleRNN(1, 1), activations=("tanh", "relu"), gates=("sigmoid", *_GATES.values())
    )
    onnx = require("onnx", "to_onnx")
    helper, rows = onnx.helper, [_row(cell, to_numpy(own)) for cell, own in layer]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}  # a row for each direction
    kind = _KINDS[type(first)]
    states = ["h", "c"] if kind == "LSTM" else ["h"]
    inputs = ["X", "W", "R", "B", "", *states, *(["P"] if "P" in arrays else [])]
    outputs = ["Y", *(f"Y_{name}" for name in states)]
    node = helper.make_node(kind, inputs, outputs, name=kind.lower(), **_attributes(first, len(layer)))
    element = helper.np_dtype_to_tensor_dtype(arrays["W"].dtype)
    n, h = len(layer), first.hidden_size
    shapes = {"X": ["T", "B", first.input_size], "Y": ["T", n, "B", h]}
    value = {
        name: helper.make_tensor_value_info(name, element, shapes.get(name, [n, "B", h]))
        for name in ("X", *states, *outputs)
    }
    graph = helper.make_graph(
        [node],
        "lstmx",
        [value[name] for name in ("X", *states)],
        [value[name] for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _attributes(cell: Any, directions: int) -> dict[str, Any]:
    made: dict[str, Any] = {"hidden_size": cell.hidden_size}
    if directions == 2:
        made["direction"] = "bidirectional"
    if isinstance(cell, GRU):
        made["linear_before_reset"] = int(cell.reset == "after")
    if isinstance(cell, SimpleRNN):
        functions = [cell.activation]
    else:
        functions = [cell.gate_activation, cell.candidate_activation]
        functions += [cell.output_activation] if isinstance(cell, LSTM) else []
    scale = next((pair for pair, name in _GATES.items() if name == functions[0]), None)
    words = ["HardSigmoid" if name in _GATES.values() else name.capitalize() for name in functions]
    if words != list(_ACTIVATIONS[_KINDS[type(cell)]]):
        made["activations"] = words * directions
    if scale is not None:
        made["activation_alpha"], made["activation_beta"] = ([x] * directions for x in scale)
    return made


def _row(cell: Cell, params: Any) -> dict[str, np.ndarray]:
    kind = _KINDS[type(cell)]
    count = len(_ORDER[kind])
    back = tuple(np.argsort(_ORDER[kind]))
    kernel, recurrent, bias = (reordered(part, back, count) for part in params[:3])
    made = {"W": kernel.T, "R": recurrent.T, "B": np.concatenate([bias, second_bias(params)])}
    if getattr(cell, "peepholes", False):
        made["P"] = reordered(params.peephole, (0, 2, 1), 3)
    return made


def record_onnx(
    model: Any, x: Any, node: str | None = None, library: str | None = None, reset: str | None = None
) -> History | Any:
    """Run an ONNX model, and record one of its recurrent operators on the inputs that it received.

    Args:
        model: a ModelProto, or the path of an .onnx file.
        x: what the model is called with: an array, a tuple for several inputs in their order, or a dict of arrays
            by the inputs' names. Those that the operator does not depend on may be left out of a dict.
        node: as for `from_onnx`.
        library: "jax" or "numpy", of the history; None for JAX where it is installed. A history for JAX of a short
            pass, such as 1,000 steps of a sequence with 32 units, is computed in NumPy, sooner than JAX compiles.
        reset: as for `from_onnx`.

    Returns:
        The history that `lstmx.record` makes of the operator's own weights, inputs, initial state and lengths,
        time first whatever its layout; a `BidirectionalHistory` where it has both directions.

    Raises:
        ValueError: as for `from_onnx`, but that initial states and lengths may be constants; an input is missing
            or unknown; onnxruntime cannot run the model; or float64 for JAX without x64 enabled.
        TypeError: an input has another dtype than the model says; or as for `from_onnx`.
        ImportError: onnx is not installed; or onnxruntime, where something is computed before the operator.

    Warns:
        UserWarning: PyTorch wrote linear_before_reset=0 and `reset` is None.
    """
    what, graph, found = _operator("model", model, node)
    cell, params = _converted(what, graph, found, reset)
    names = _names(found)
    read = {word: names[word] for word in ("X", "sequence_lens", "initial_h", "initial_c") if word in names}
    values = graph.values(list(read.values()), _given(graph, x))
    given = {word: values[name] for word, name in read.items()}
    layout = next((one.i for one in found.attribute if one.name == "layout"), 0)
    xs, lengths = given["X"], given.get("sequence_lens")
    xs = np.swapaxes(xs, 0, 1) if layout else xs
    if lengths is not None and (lengths == len(xs)).all():
        lengths = None
    fields = [given.get(f"initial_{letter}") for letter in ("hc" if found.op_type == "LSTM" else "h")]
    some = next((field for field in fields if field is not None), None)
    states = None
    if some is not None:
        whole = [np.zeros_like(some) if field is None else field for field in fields]
        whole = [np.swapaxes(field, 0, 1) if layout else field for field in whole]
        states = _states(cell, iter(range(len(whole[0]))), whole)
    return recorded(cell, params, xs, states, library, lengths)


def _given(graph: Graph, x: Any) -> dict[str, np.ndarray]:
    """What a model is called with, by the names of its inputs."""
    if not isinstance(x, dict):
        x = x if type(x) is tuple else (x,)
        if len(x) > len(graph.inputs):
            raise ValueError(f"x holds {len(x)} arrays; the model takes {', '.join(graph.inputs)}")
        x = dict(zip(graph.inputs, x, strict=False))
    unknown = [name for name in x if name not in graph.inputs]
    if unknown:
        raise ValueError(f"x has {', '.join(map(repr, unknown))}; the model takes {', '.join(graph.inputs)}")
    given = {name: np.asarray(value) for name, value in x.items()}
    for name, value in given.items():
        expected = graph.onnx.helper.tensor_dtype_to_np_dtype(graph.inputs[name].type.tensor_type.elem_type)
        if value.dtype != expected:
            raise TypeError(f"x: {name} is {value.dtype}; the model takes {expected}")
    return given


def _states(cell: Any, rows: Iterator[int], fields: list[np.ndarray]) -> Any:
    """The states of one direction or two from arrays [directions, B, H]."""
    if isinstance(cell, Layers):
        return cell.tree([_states(part, rows, fields) for part in cell.parts.values()])
    row = next(rows)
    return cell.state_type(*(field[row] for field in fields))

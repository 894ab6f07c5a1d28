"""ONNX: the operators `LSTM`, `GRU` and `RNN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, LSTMVariantParams, SimpleRNN
from lstmx.convert.named import (
    Named,
    assembled,
    checked,
    chosen,
    gru_of_two_biases,
    gru_reset_before,
    lstm,
    plain,
    reordered,
    second_bias,
    simple,
    taken_apart,
    with_activations,
)

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # of i o f c, z r h: what our blocks are there
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_KINDS = {LSTM: "LSTM", GRU: "GRU", SimpleRNN: "RNN"}
_ATTRIBUTES = (
    *("hidden_size", "direction", "activations", "activation_alpha", "activation_beta", "linear_before_reset"),
    *("input_forget", "layout"),
)
_HARD_SIGMOID = (("alpha", 0.2), ("beta", 0.5))
_GATES = {(0.2, 0.5): "hard_sigmoid_0.2", (1 / 6, 0.5): "hard_sigmoid"}  # max(0, min(1, alpha a + beta))


def from_onnx(source: Any, node: str | None = None) -> tuple[Any, Any]:
    """An `LSTM`, `GRU` or `RNN` of an ONNX model, with peepholes and both kinds of reset.

    Args:
        source: a ModelProto, or the path of an .onnx file.
        node: name of the operator (or of its first output, where it has no name) where the model has several.

    Returns:
        The cell, or a `Bidirectional`, and its parameters as NumPy arrays. The two biases of ONNX are added up,
        but for those of a GRU's candidate where it resets after the product.

    Raises:
        ValueError: no such operator, or several of which none is named; weights that are computed and no
            constants; an array of another shape; or an attribute that lstmx has not: clip, other activations than
            Sigmoid or HardSigmoid (alpha 0.2 or 1/6) of gates and Tanh or Relu of the rest, input_forget, a
            direction that is backwards alone.
        TypeError: an array of another dtype than float32 or float64.
        ImportError: the package onnx is not installed.
    """
    onnx = require("onnx", "from_onnx")
    if isinstance(source, (str, Path)):
        source = onnx.load(str(source))
    if not isinstance(source, onnx.ModelProto):
        raise TypeError(f"source is a {type(source).__name__}; expected a ModelProto or the path of an .onnx file")
    name, found = chosen("the model", recurrent_nodes(source), node, "node=")
    what = f"{found.op_type} {name!r}"
    given = {one.name: onnx.helper.get_attribute_value(one) for one in found.attribute}
    options = {name: _text(value) for name, value in given.items()}
    directions = _checked_options(what, found.op_type, options)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in source.graph.initializer}
    names: dict[str, str] = dict(zip(("X", "W", "R", "B", "lengths", "h", "c", "P"), found.input, strict=False))
    arrays = {}
    for letter in "WRBP":
        if name := names.get(letter):
            if name not in constants:
                raise ValueError(f"{what}: {letter} is {name!r}, which the model computes; expected a constant")
            arrays[letter] = constants[name]
    named, h = Named(what, arrays), options["hidden_size"]
    count = len(_ORDER[found.op_type])
    w = named.take("W", (directions, count * h, None))
    r = named.take("R", (directions, count * h, h))
    b = named.take_or_zeros("B", (directions, 2 * count * h), w)
    p = named.take("P", (directions, 3 * h)) if "P" in named else [None] * directions
    functions = _functions(what, found.op_type, options, directions)
    layer = [_direction(found.op_type, options, functions, *parts) for parts in zip(w, r, b, p, strict=True)]
    return assembled([layer])


def recurrent_nodes(model: Any) -> dict[str, Any]:
    """The recurrent operators of a model by name, or by their first output where they have none."""
    nodes = (one for one in model.graph.node if one.op_type in _ORDER)
    return {one.name or next(iter(one.output), ""): one for one in nodes}


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _checked_options(what: str, kind: str, options: dict[str, Any]) -> int:
    """The number of directions; raises for an attribute that lstmx has no equal of."""
    surplus = sorted(set(options) - set(_ATTRIBUTES))
    if surplus:
        raise ValueError(f"{what} has {', '.join(surplus)}, which lstmx has no equal of")
    direction = options.get("direction", "forward")
    if direction == "reverse":
        raise ValueError(
            f"{what} reads backwards alone; give lstmx the reversed sequence, and direction='forward'"
        )
    directions = 2 if direction == "bidirectional" else 1
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


def _direction(
    kind: str, options: dict[str, Any], functions: list[str], w: Any, r: Any, b: Any, p: Any
) -> tuple[Cell, Any]:
    count, order = len(_ORDER[kind]), _ORDER[kind]
    kernel, recurrent = (np.ascontiguousarray(reordered(part.T, order, count)) for part in (w, r))
    first, second = (reordered(part, order, count) for part in np.split(b, 2))
    h = recurrent.shape[0]
    if kind == "RNN":
        return simple(kernel, recurrent, first + second, functions[0])
    gates, *others = functions
    if kind == "GRU" and options.get("linear_before_reset", 0):
        made = gru_of_two_biases(kernel, recurrent, first, second)
    elif kind == "GRU":
        made = gru_reset_before(kernel, recurrent, first + second)
    elif p is None or not np.any(p):
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
    plain("ONNX", first, *kinds, SimpleRNN(1, 1), SimpleRNN(1, 1, activation="relu"))
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
    if isinstance(cell, SimpleRNN) and cell.activation == "relu":
        made["activations"] = ["Relu"] * directions
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

"""A model of ONNX as a graph: its recurrent operators, its constants, and what leads to a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import require

RECURRENT = ("LSTM", "GRU", "RNN")
_SHAPES = ("Shape", "Size")  # what they give depends on no number of what they read
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_MOVES = {"Expand", "Reshape", "Tile", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Identity", "Cast", "Gather"}


class Operator(NamedTuple):
    """A recurrent operator of a model."""

    node: Any
    """The NodeProto."""
    body: str
    """The graph or function inside the model that it stands in, in words; empty in the model's own graph."""


def load_model(path: str | Path) -> Any:
    """The ModelProto of an .onnx file, with the tensors that it keeps in files beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model of ONNX, or a file of tensors is missing or too short.
    """
    onnx = require("onnx", "reading an .onnx file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # of protobuf
        raise ValueError(f"{path} is no readable model of ONNX: {str(error).splitlines()[0]}") from error
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
    except Exception as error:  # of onnx, of the operating system
        raise ValueError(
            f"{path} keeps tensors in other files beside it, of which one cannot be read: "
            f"{str(error).splitlines()[0]}; put it into the same folder"
        ) from error
    return model


def operators(model: Any) -> dict[str, Operator]:
    """The recurrent operators of a model by name, or by their first output where they have none.

    Those of one name are told apart as "name -> output", and those inside a body by the body.
    """
    functions = {(one.domain, one.name) for one in model.functions}
    nodes = list(_operators(model.graph.node, ""))
    for one in model.functions:
        nodes += _operators(one.node, f"the function {one.name!r}")
    nodes = [one for one in nodes if (one.node.domain, one.node.op_type) not in functions]
    labels = [one.node.name or _output(one.node) for one in nodes]
    count, found = Counter(labels), {}
    for label, one in zip(labels, nodes, strict=True):
        name = label if count[label] == 1 else f"{label} -> {_output(one.node)}"
        name += f" in {one.body}" if one.body else ""
        found[name if name not in found else f"{name} ({len(found)})"] = one
    return found


def _output(node: Any) -> str:
    return next(filter(None, node.output), "no output")


def _operators(nodes: Iterable[Any], body: str) -> Iterator[Operator]:
    for node in nodes:
        if node.op_type.endswith(RECURRENT):
            yield Operator(node, body)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                inside = f"the {attribute.name} of {node.op_type} {node.name or _output(node)!r}"
                yield from _operators(graph.node, inside + (f" in {body}" if body else ""))


class Graph:
    """The model's own graph, and what its values depend on.

    Args:
        model: a ModelProto.
    """

    def __init__(self, model: Any):
        self.onnx = require("onnx", "reading a model of ONNX")
        self.model, graph = model, model.graph
        self.made_by = {name: node for node in graph.node for name in node.output if name}
        self.tensors = {one.name: one for one in graph.initializer}
        self.sparse = {one.values.name: one for one in graph.sparse_initializer}
        self.inputs = {
            one.name: one for one in graph.input if one.name not in self.tensors and one.name not in self.sparse
        }

    def leading_to(self, *names: str, values: bool = False) -> set[str]:
        """Names of all that these values are made of; with `values` not through what reads a shape alone."""
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                node = self.made_by.get(name)
                if node is not None and not (values and node.op_type in _SHAPES):
                    left += filter(None, _read_by(node))
        return found

    def of_inputs(self, name: str) -> bool:
        """Whether a value depends on numbers that the model is called with, and not on their shapes alone."""
        return not self.inputs.keys().isdisjoint(self.leading_to(name, values=True))

    def constant(self, name: str) -> np.ndarray | None:
        """A value that is the same whatever the inputs; None of another."""
        if name in self.tensors:
            tensor = self._loaded(self.tensors[name])
            try:
                return self.onnx.numpy_helper.to_array(tensor)
            except Exception as error:  # of onnx, of NumPy
                raise ValueError(f"the tensor {name!r} is damaged, or of an unknown kind: {error}") from error
        names = self.leading_to(name)
        known = self.made_by.keys() | self.tensors.keys() | self.sparse.keys()
        inside = _inside(self.made_by[one] for one in names if one in self.made_by)
        own = {output for node in inside for output in node.output} | _own_inputs(inside)
        if not names <= known | own or any(node.op_type in _RANDOM for node in inside):
            return None
        reference = require("onnx.reference", "reading constants that a model computes")
        cut = self.cut([name])
        try:
            return np.asarray(reference.ReferenceEvaluator(cut).run(None, {})[0])
        except Exception as error:  # of an operator that onnx.reference lacks, or of the operator
            raise ValueError(
                f"{name!r} is computed from constants, which onnx.reference cannot do: "
                f"{str(error).splitlines()[0]}; simplify the model before"
            ) from error

    def zero(self, name: str) -> bool:
        """Whether a value is seen to be zeros, of whatever shape."""
        value, node = self.constant(name), self.made_by.get(name)
        if value is not None:
            return not np.any(value)
        if node is None:
            return False
        if node.op_type == "ConstantOfShape":
            return not any(np.any(self.onnx.numpy_helper.to_array(one.t)) for one in node.attribute)
        if node.op_type == "Concat":
            return all(map(self.zero, node.input))
        return node.op_type in _MOVES and self.zero(node.input[0])

    def cut(self, names: list[str]) -> Any:
        """The ModelProto that computes these values and nothing else."""
        reached, helper = self.leading_to(*names), self.onnx.helper
        nodes = [node for node in self.model.graph.node if not reached.isdisjoint(filter(None, node.output))]
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            self._loaded(attribute.t)
        graph = helper.make_graph(
            nodes,
            "lstmx",
            [one for name, one in self.inputs.items() if name in reached],
            [self.onnx.ValueInfoProto(name=name) for name in names],
            [self._loaded(one) for name, one in self.tensors.items() if name in reached],
            sparse_initializer=[one for name, one in self.sparse.items() if name in reached],
        )
        return helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            functions=self.model.functions,
            ir_version=max(8, self.model.ir_version),
        )

    def values(self, names: list[str], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """These values where the model is called with the inputs `given`.

        Raises:
            ValueError: an input is missing, or onnxruntime cannot run the model.
            ImportError: onnxruntime is not installed and something has to be computed.
        """
        missing = sorted((self.leading_to(*names) & self.inputs.keys()) - given.keys())
        if missing:
            raise ValueError(f"x lacks {', '.join(missing)}; expected arrays for {', '.join(self.inputs)}")
        found = {name: given[name] for name in names if name in given}
        for name in names:
            value = None if name in found else self.constant(name)
            found |= {} if value is None else {name: value}
        computed = [name for name in names if name not in found]
        if computed:
            runtime = require("onnxruntime", "running a model of ONNX up to its recurrent operator")
            cut = self.cut(computed)
            try:
                session = runtime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
                made = session.run(computed, {one.name: given[one.name] for one in cut.graph.input})
            except Exception as error:  # onnxruntime's have no common class
                raise ValueError(
                    f"onnxruntime cannot run the model up to {', '.join(computed)}: {str(error).splitlines()[0]}"
                ) from error
            found |= dict(zip(computed, made, strict=True))
        return found

    def _loaded(self, tensor: Any) -> Any:
        """The TensorProto of a constant, whose numbers have to be there."""
        if self.onnx.external_data_helper.uses_external_data(tensor):
            where = {one.key: one.value for one in tensor.external_data}.get("location", "another file")
            raise ValueError(
                f"{tensor.name} is in the file {where}, which this ModelProto was loaded without; give the path "
                "of the .onnx file, or call onnx.load_external_data_for_model(model, folder) before"
            )
        return tensor


def _bodies(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (graph for graph in (attribute.g, *attribute.graphs) if graph.node)


def _inside(nodes: Iterable[Any]) -> list[Any]:
    """Nodes with all that stand in their bodies."""
    found = []
    for node in nodes:
        found.append(node)
        for graph in _bodies(node):
            found += _inside(graph.node)
    return found


def _own_inputs(nodes: list[Any]) -> set[str]:
    """What the bodies of nodes are called with, and the constants that they hold."""
    graphs = [graph for node in nodes for graph in _bodies(node)]
    return {one.name for graph in graphs for one in (*graph.input, *graph.initializer)}


def _read_by(node: Any) -> Iterator[str]:
    """Names that a node and its bodies read."""
    for one in _inside([node]):
        yield from one.input

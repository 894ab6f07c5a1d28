"""The flat vector of weights that cuDNN takes, as `jax.experimental.rnn` lays it out."""

from __future__ import annotations

import math
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells import LSTM
from lstmx.checks import LARGEST, flag, positive
from lstmx.convert.named import Named, assembled, lstm, plain, taken_apart


def from_cudnn(
    weights: Any, input_size: int, hidden_size: int, num_layers: int = 1, bidirectional: bool = False
) -> tuple[Any, Any]:
    """An LSTM from cuDNN's flat vector: all kernels, layer by layer and direction by direction, then all biases.

    Args:
        weights: [n], of NumPy or JAX.
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        num_layers: layers.
        bidirectional: whether each layer reads both ways; outputs are concatenated.

    Returns:
        The cell, or a `Stack` or `Bidirectional`, and its parameters, of the library that the weights are of. The
        two biases of cuDNN are added up.

    Raises:
        TypeError: weights of another dtype than float32 or float64; a size is no integer.
        ValueError: weights of another length than these sizes have.
    """
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        positive(name, value, 1, LARGEST)
    flag("bidirectional", bidirectional)
    if not hasattr(weights, "shape"):
        raise TypeError(f"weights is a {type(weights).__name__}; expected cuDNN's vector of weights, an array")
    directions = 2 if bidirectional else 1
    rows, shapes = 4 * hidden_size, []
    for k in range(num_layers):
        shapes += [(rows, directions * hidden_size if k else input_size), (rows, hidden_size)] * directions
    shapes += [(rows,)] * (2 * num_layers * directions)
    size = sum(math.prod(shape) for shape in shapes)
    vector, at, parts = Named("the vector", {"weights": weights}).take("weights", (size,)), 0, []
    for shape in shapes:
        parts.append(vector[at : at + math.prod(shape)].reshape(shape))
        at += math.prod(shape)
    kernels, biases = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    cells = [lstm(kernels[k].T, kernels[k + 1].T, biases[k] + biases[k + 1]) for k in range(0, len(kernels), 2)]
    return assembled([cells[k : k + directions] for k in range(0, len(cells), directions)])


def to_cudnn(cell: Any, params: Any) -> Array:
    """The flat vector that cuDNN takes for an LSTM; what it takes beside are the sizes that `from_cudnn` takes.

    Args:
        cell: an `LSTM` without options, or a `Bidirectional` or `Stack` of such.
        params: its parameters.

    Returns:
        [n], of the parameters' library. The biases are all in the first of cuDNN's two.

    Raises:
        TypeError: the parameters are not the cell's.
        ValueError: the cell is no LSTM, or has options; or the layers differ.
    """
    layers = taken_apart("cuDNN", cell, params)
    plain("cuDNN's LSTM", layers[0][0][0], LSTM(1, 1))
    every = [own for layer in layers for _, own in layer]
    xp = namespace(every[0].bias)
    kernels = [kernel.T.reshape(-1) for own in every for kernel in own[:2]]
    biases = [part for own in every for part in (own.bias, xp.zeros_like(own.bias))]
    return xp.concat([*kernels, *biases])

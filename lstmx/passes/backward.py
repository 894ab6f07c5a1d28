"""The one reverse pass through time: every backward of the library is this one."""

from __future__ import annotations

import math
from typing import Any, Generic, overload

from lstmx.arrays import Array, devices, jax, jit, leaves, map_tree, namespace, result, varying_as
from lstmx.cells.base import P, S
from lstmx.checks import require_history, shaped, state
from lstmx.history import History
from lstmx.layers import BidirectionalHistory, LayeredHistory, flipped
from lstmx.linear import back_through, walk_back, without_unit_batch


@result
class Gradients(Generic[P, S]):
    """Gradients of a loss through a recorded pass: what `jax.grad` of `run` gives.

    Attributes:
        parameters: like the cell's parameters, summed over time and batch.
        inputs: ∂L/∂x_t, [T, *batch, D].
        initial: ∂L/∂(initial state), fields [*batch, H].
    """

    parameters: P
    inputs: Array
    initial: S

    def __repr__(self) -> str:
        return f"Gradients(parameters={type(self.parameters).__name__}, inputs {tuple(self.inputs.shape)})"


@overload
def backward(
    history: History[P, S], outputs_cotangent: Array, final_cotangent: S | None = None
) -> Gradients[P, S]: ...
@overload
def backward(
    history: LayeredHistory, outputs_cotangent: Array, final_cotangent: Any = None
) -> Gradients[Any, Any]: ...
def backward(history: Any, outputs_cotangent: Array, final_cotangent: Any = None) -> Gradients[Any, Any]:
    """Backpropagation through time over a recorded pass, in NumPy as in JAX.

    The recurrence δs_{t-1} = J_tᵀ δs_t, with ∂L/∂h_t added at each step, is run by the steps' `vjp`, chunk by
    chunk; the factors of a chunk's J_t are computed before it and the parameters' gradients after it, by one
    product. The cotangent is carried in plain numbers: what `gradient_flow` still tells in log scale, once it has
    left the range of a float, is here 0, infinite or NaN, as in any framework.

    Args:
        history: the recorded pass, of a cell or of layers.
        outputs_cotangent: the direct part of ∂L/∂h_t, [T, *batch, H]: how the loss depends on each output
            with all other outputs held fixed.
        final_cotangent: ∂L/∂(final state) where the loss reads it too, fields [*batch, H], of layers a tree of
            states; None for zero.

    Returns:
        Gradients of parameters, inputs and initial state; of layers, trees as their parameters and states are.

    Raises:
        TypeError: an argument is no array, or of another dtype than the history.
        ValueError: an argument has another shape than the history asks for.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((5, 3), "float32"))
        >>> lstmx.backward(history, numpy.ones((5, 8), "float32")).inputs.shape
        (5, 3)
    """
    if isinstance(history, LayeredHistory):
        return _layered(history, outputs_cotangent, final_cotangent)
    require_history(history, empty=True)
    cell = history.cell
    shape = (len(history), *history.batch, cell.output_size)
    shaped("outputs_cotangent", outputs_cotangent, shape, history.inputs.dtype, "[T, *batch, hidden_size]")
    if final_cotangent is None:
        final_cotangent = cell.initial_state(history.params, history.batch)
    state(cell, history.params, final_cotangent, history.batch, name="final_cotangent")
    return _whole_backward(history, outputs_cotangent, final_cotangent)


def _layered(history: Any, outputs_cotangent: Array, final_cotangent: Any) -> Gradients:
    """`backward` through layers: what a layer hands to its inputs is what the one below gets."""
    outputs = history.outputs
    shaped("outputs_cotangent", outputs_cotangent, outputs.shape, outputs.dtype, "[T, *batch, hidden_size]")
    if final_cotangent is None:
        final_cotangent = map_tree(namespace(outputs).zeros_like, history.final)
    some = next(leaves(history.params))
    history.cell.check(
        "final_cotangent",
        final_cotangent,
        lambda cell, value, name: state(cell, (some,), value, history.batch, name=name),
    )
    ends = dict(zip(history.parts, final_cotangent, strict=True))
    if isinstance(history, BidirectionalHistory):
        ahead, back = history.cell.parted(outputs_cotangent)
        forward = backward(history.forward, ahead, ends["forward"])
        turned = backward(history.backward, flipped(back), ends["backward"])
        made = [forward, turned]
        inputs = forward.inputs + flipped(turned.inputs)
    else:
        made, inputs = [], outputs_cotangent
        for name, part, mask in history.downward:
            made.insert(0, backward(part, inputs, ends[name]))
            inputs = made[0].inputs if mask is None else made[0].inputs * mask
    parameters, initial = (
        history.cell.tree([getattr(x, name) for x in made]) for name in ("parameters", "initial")
    )
    return Gradients(parameters, inputs, initial)


def whole_backward(history: Any, outputs: Array, final: Any) -> Gradients:
    """`backward`, unchecked: inside a compiled function."""
    xp = namespace(history.inputs, outputs)
    cell, params = history.cell, history.params
    outputs = history.where_counted(xp.asarray(outputs))
    last = varying_as(history.inputs, cell.pack(map_tree(xp.asarray, final)))
    carry = (last, no_gradient(params, history.inputs))
    into = xp.zeros_like(history.inputs)
    (before, parameters), inputs = walk_back(history, pull_chunk, carry, outputs, into=into)
    return Gradients(whole_gradient(parameters), inputs, cell.unpack(before))


_whole_backward = jit()(whole_backward)


def no_gradient(params: Any, inputs: Array) -> Any:
    """The parameters' gradient before the first chunk: zeros [S, ...] for S parts of the batch.

    Each part's gradient is summed on its own, so that where the parts lie on several devices, these meet once, in
    `whole_gradient`, and not at every chunk. S is what the number of devices and the first batch axis share.
    """
    xp = namespace(*leaves(params), inputs)
    parts = math.gcd(devices(xp), inputs.shape[1]) if inputs.ndim > 2 else 1
    return varying_as(inputs, map_tree(lambda x: xp.zeros((parts, *x.shape), dtype=x.dtype), params))


def whole_gradient(parts: Any) -> Any:
    """The sum over the parts of the batch."""
    return map_tree(lambda x: x[0] if len(x) == 1 else x.sum(axis=0), parts)


def gradient_of_parts(steps: Any, drive: Array, parts: int) -> Any:
    """The parameters' cotangents of a chunk, [S, ...]."""
    if parts == 1:
        return map_tree(lambda x: x[None], steps.parameter_vjp(drive))
    split = map_tree(lambda x: x.reshape(x.shape[0], parts, -1, *x.shape[2:]), (steps.rows, drive))
    return jax.vmap(lambda rows, drive: steps.at(rows).parameter_vjp(drive), in_axes=1)(*split)


@without_unit_batch
def pull_chunk(carry: tuple[Any, Any], part: History, direct: Array) -> tuple[tuple[Any, Any], Array]:
    """Backpropagation through one chunk.

    Args:
        carry: the cotangent of the state after the chunk, [*batch, S], and the parameters' gradient so far, from
            `no_gradient`.
        part: the chunk.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H].

    Returns:
        The carry before the chunk, and ∂L/∂x_t of its steps.
    """
    cotangent, parameters = carry

    def step(fields: Any, at: Any, direct: Array) -> tuple[Any, Array]:
        before, drive = at.pull(part.cell.pack(fields) + at.inject(direct))
        return part.cell.unpack(before), drive

    fields, drive, steps = back_through(part, step, part.cell.unpack(cotangent), direct)
    cotangent = part.cell.pack(fields)
    here = gradient_of_parts(steps, drive, len(next(leaves(parameters))))
    return (cotangent, map_tree(lambda x, y: x + y, parameters, here)), steps.input_vjp(drive)

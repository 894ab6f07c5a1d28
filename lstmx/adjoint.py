"""The one reverse pass through time: every backward of the library is this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_jax, jax, jit, map_tree, materialised, namespace, ready, require, result, scan
from lstmx.checks import shaped, state
from lstmx.history import History
from lstmx.scaling import Scaled, add, normalised, pack, scaled, unpack, unscaled

_CHUNK_ELEMENTS = 2**17  # of pre-activations: a chunk's arrays stay in the processor's cache or near it
_SEGMENTS = 32  # calls that a pass with a progress bar is split into


@result
class Gradients:
    """Gradients of a loss through a recorded pass: what `jax.grad` of `run` gives.

    Attributes:
        parameters: like the cell's parameters, summed over time and batch.
        inputs: ∂L/∂x_t, [T, *batch, D].
        initial: ∂L/∂(initial state), fields [*batch, H].
    """

    parameters: Any
    inputs: Array
    initial: Any

    def __repr__(self) -> str:
        return f"Gradients(parameters={type(self.parameters).__name__}, inputs {tuple(self.inputs.shape)})"


def backward(history: History, outputs_cotangent: Array, final_cotangent: Any = None) -> Gradients:
    """Backpropagation through time over a recorded pass, in NumPy as in JAX.

    The recurrence δs_{t-1} = J_tᵀ δs_t, with ∂L/∂h_t added at each step, is run by the cell's own `pull`, chunk
    by chunk; the factors of a chunk's J_t are computed before it and the parameters' gradients after it, by one
    product each. On the way the cotangent is carried with a power of two of its own, so it does not underflow
    where the gradient of an earlier loss is still to come.

    Args:
        history: the recorded pass.
        outputs_cotangent: the direct part of ∂L/∂h_t, [T, *batch, H]: how the loss depends on each output
            with all other outputs held fixed.
        final_cotangent: ∂L/∂(final state) where the loss reads it too, fields [*batch, H]; None for zero.

    Returns:
        Gradients of parameters, inputs and initial state.

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
    cell = history.cell
    shape = (len(history), *history.batch, cell.hidden_size)
    shaped("outputs_cotangent", outputs_cotangent, shape, history.inputs.dtype, "[T, *batch, hidden_size]")
    if final_cotangent is None:
        final_cotangent = cell.initial_state(history.params, history.batch)
    state(cell, history.params, final_cotangent, history.batch, name="final_cotangent")
    return _backward(cell, *history.data, outputs_cotangent, final_cotangent)


def chunk_steps(history: History) -> int:
    """Steps that a reverse pass takes at a time: few enough for memory, enough for large products."""
    width = 4 * history.cell.hidden_size * max(1, int(np.prod(history.batch)))
    return max(16, min(256, _CHUNK_ELEMENTS // width))


def reverse_chunks(
    history: History,
    body: Callable[[Any, History, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any = None,
    steps: int | None = None,
) -> tuple[Any, Any]:
    """Walk a history backwards, chunk by chunk: `body(carry, part, extras of the part) -> (carry, rows)`.

    Only one chunk's pre-activations exist at a time. The first chunk in time may be shorter than the others;
    every other one starts at step 1 or later, so the state before it is a recorded one.

    Args:
        history: the recorded pass.
        body: what to do with a chunk, which is a history; `rows` is a tree of arrays [steps, ...] or None.
        carry: handed from chunk to chunk, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        steps: length of a chunk; None for `chunk_steps`.

    Returns:
        The last carry, and the rows of all steps, [T, ...].
    """
    size = min(len(history), chunk_steps(history) if steps is None else steps)
    count = (len(history) - 1) // size
    head = len(history) - count * size
    xp = namespace(history.inputs)

    def chunk(carry: Any, k: Array) -> tuple[Any, Any]:
        part, cut = _part(history, extras, head + k * size, size)
        return body(carry, part, cut)

    rows = None
    if count:
        carry, rows = scan(chunk, carry, xp.arange(count), reverse=True)
        rows = map_tree(lambda x: xp.reshape(x, (count * size, *x.shape[2:])), rows)
    carry, first = body(carry, history[:head], map_tree(lambda x: x[:head], extras))
    return carry, first if rows is None else map_tree(lambda a, b: xp.concat([a, b]), first, rows)


def by_segments(
    history: History,
    segment: Callable[[Any, History, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any,
    progress: bool,
) -> tuple[Any, Any]:
    """Run a compiled reverse pass in one call, or with `progress` in up to 32 with a bar that counts steps.

    Args:
        history: the recorded pass.
        segment: `(carry, part, extras of the part) -> (carry, rows)`.
        carry: handed from segment to segment, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        progress: show the bar.

    Raises:
        ImportError: `progress` without tqdm.
    """
    if not progress:
        return segment(carry, history, extras)
    size = -(-len(history) // _SEGMENTS)
    rows = []
    tqdm = require("tqdm.auto", "progress=True").tqdm
    with tqdm(total=len(history), unit="step", unit_scale=True, desc="backwards") as bar:
        for stop in range(len(history), 0, -size):
            start = max(0, stop - size)
            cut = map_tree(lambda x, a=start, b=stop: x[a:b], extras)
            carry, made = ready(segment(carry, history[start:stop], cut))
            rows.append(made)
            bar.update(stop - start)
    return carry, map_tree(lambda *parts: namespace(*parts).concat(parts), *reversed(rows))


def _part(history: History, extras: Any, start: Array, size: int) -> tuple[History, Any]:
    """The stretch of `size` steps from `start` ≥ 1, which may be traced."""
    if is_jax(namespace(history.inputs)):

        def cut(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start, size)
    else:

        def cut(x: Array) -> Array:
            return x[start : start + size]

    initial = map_tree(lambda x: x[start - 1], history.states)
    inputs, states, stored, extras = map_tree(cut, (history.inputs, history.states, history.stored, extras))
    return History(history.cell, history.params, initial, inputs, states, stored), extras


def pull_by(cell: Any, params: Any) -> Callable[[Any, Scaled], Scaled]:
    """The cell's one step back for a loop, `(slopes, state cotangent) -> cotangent of the state before`."""
    transposed = materialised(params.recurrent_kernel.T)
    return lambda slopes, cotangent: cotangent._replace(value=cell.pull(transposed, slopes, cotangent.value)[0])


def walk_back(
    cell: Any, hand_back: Callable[[Any, Scaled], Scaled], slopes: Any, packed: Array, direct: Scaled | None
) -> tuple[Array, Scaled]:
    """The reverse recurrence v_{t-1} = hand_back(v_t + direct_t), from the last step of `slopes` to the first.

    Args:
        cell: the cell.
        hand_back: the linear map of one step back, such as `pull_by(cell, params)`.
        slopes: the cell's linearisation of each step, [T, ...].
        packed: cotangent of the state after the last step, `pack`ed; more leading axes than the slopes' are
            cotangents walked back together.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H]; None for none.

    Returns:
        The cotangent of the state before the first step, packed; and those that arrive at the state after
        each step, the step's own `direct` included.
    """
    kind, h = cell.state_type, cell.hidden_size

    def step(packed: Array, x: Any) -> tuple[Array, Array]:
        slopes, direct = x
        arriving = _inject(normalised(unpack(packed, kind, h)), direct)
        return pack(hand_back(slopes, arriving)), pack(arriving)

    before, arriving = scan(step, packed, (slopes, direct), reverse=True)
    return before, unpack(arriving, kind, h)


def _inject(cotangent: Scaled, direct: Scaled | None) -> Scaled:
    """The cotangent with the loss's own dependence on this step's output added."""
    if direct is None:
        return cotangent
    zero = map_tree(namespace(direct.value).zeros_like, cotangent.value)
    return add(cotangent, Scaled(zero._replace(hidden=direct.value), direct.exponent))


@jit(static=("cell",))
def _backward(
    cell: Any, params: Any, initial: Any, inputs: Array, states: Any, stored: Any, outputs: Array, final: Any
) -> Gradients:
    xp = namespace(*params, inputs, outputs)
    history = History(cell, params, initial, inputs, states, stored)
    hand_back = pull_by(cell, params)

    def chunk(carry: Any, part: History, direct: Scaled) -> tuple[Any, Array]:
        cotangent, parameters = carry
        before = part.before
        slopes = cell.linearise(before, part.preactivations, part.states)
        cotangent, arriving = walk_back(cell, hand_back, slopes, cotangent, direct)
        d_a = unscaled(arriving._replace(value=cell.preactivation_cotangent(slopes, arriving.value)))
        here = cell.parameter_cotangent(before.hidden, part.inputs, d_a)
        return (cotangent, map_tree(xp.add, parameters, here)), cell.input_cotangent(params, d_a)

    start = pack(scaled(map_tree(xp.asarray, final)))
    nothing = map_tree(xp.zeros_like, params)
    (before, parameters), inputs = reverse_chunks(history, chunk, (start, nothing), scaled(xp.asarray(outputs)))
    return Gradients(parameters, inputs, unscaled(unpack(before, cell.state_type, cell.hidden_size)))

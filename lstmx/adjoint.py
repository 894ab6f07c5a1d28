"""The one reverse pass through time: every backward of the library is this one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from lstmx.arrays import (
    Array,
    columns,
    devices,
    jax,
    jit,
    leaves,
    map_tree,
    namespace,
    ready,
    result,
    scan,
)
from lstmx.checks import recorded, shaped, state
from lstmx.chunks import chunk_length, counting, scan_chunks
from lstmx.history import History, StoredHistory
from lstmx.layers import BidirectionalHistory, LayeredHistory, reordered
from lstmx.scaling import Scaled, add, normalised, pack, unpack

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


def backward(history: Any, outputs_cotangent: Array, final_cotangent: Any = None) -> Gradients:
    """Backpropagation through time over a recorded pass, in NumPy as in JAX.

    The recurrence δs_{t-1} = J_tᵀ δs_t, with ∂L/∂h_t added at each step, is run by the cell's own `pull`, chunk
    by chunk; the factors of a chunk's J_t are computed before it and the parameters' gradients after it, by one
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
    recorded(history)
    cell = history.cell
    shape = (len(history), *history.batch, cell.output_size)
    shaped("outputs_cotangent", outputs_cotangent, shape, history.inputs.dtype, "[T, *batch, hidden_size]")
    if final_cotangent is None:
        final_cotangent = cell.initial_state(history.params, history.batch)
    state(cell, history.params, final_cotangent, history.batch, name="final_cotangent")
    outputs_cotangent = history.within(outputs_cotangent)
    made = _backward(cell, *history.data, outputs_cotangent, final_cotangent)
    return Gradients(made.parameters, history.own_features(made.inputs), made.initial)


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
        turned = backward(history.backward, reordered(back, history.order), ends["backward"])
        made = [forward, turned]
        inputs = forward.inputs + reordered(turned.inputs, history.order)
    else:
        made, inputs = [], outputs_cotangent
        for name, part, mask in history.downward:
            made.insert(0, backward(part, inputs, ends[name]))
            inputs = made[0].inputs if mask is None else made[0].inputs * mask
    parameters, initial = (
        history.cell.tree([getattr(x, name) for x in made]) for name in ("parameters", "initial")
    )
    return Gradients(parameters, inputs, initial)


def chunk_steps(history: History) -> int:
    """Steps that a reverse pass takes at a time."""
    return chunk_length(len(history), history.cell.preactivation_size * math.prod(history.batch))


def reverse_chunks(
    history: History,
    body: Callable[[Any, History, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any = None,
    steps: int | None = None,
    into: Any = None,
) -> tuple[Any, Any]:
    """Walk a history backwards, chunk by chunk: `body(carry, part, extras of the part) -> (carry, rows)`.

    Only one chunk's pre-activations exist at a time.

    Args:
        history: the recorded pass.
        body: what to do with a chunk, which is a history; `rows` is a tree of arrays [steps, ...] or None.
        carry: handed from chunk to chunk, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        steps: length of a chunk; None for `chunk_steps`.
        into: arrays [T, ...] to write the rows into; None for new ones.

    Returns:
        The last carry, and the rows of all steps, [T, ...].
    """
    length = len(history)
    size = min(length, chunk_steps(history) if steps is None else steps)
    xp = namespace(history.inputs)
    ends = slice((length % size or size) - 1, length - size, size)  # of all chunks but the last
    initials = map_tree(lambda first, x: xp.concat([first[None], x[ends]]), history.initial, history.states)

    def chunk(carry: Any, cut: Any, initial: Any) -> tuple[Any, Any, None]:
        inputs, states, stored, extras = cut
        part = History(history.cell, history.params, initial, inputs, states, stored)
        return *body(carry, part, extras), None

    data = (history.inputs, history.states, history.stored, extras)
    return scan_chunks(chunk, carry, data, size, own=initials, into=into, reverse=True)[:2]


def by_segments(
    history: History | StoredHistory,
    segment: Callable[[Any, History, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any,
    progress: bool,
) -> tuple[Any, Any]:
    """Run a compiled reverse pass in one call, or in segments: with `progress`, and over a history on disk.

    Args:
        history: the recorded pass; of one on disk, a segment at a time is read.
        segment: `(carry, part, extras of the part) -> (carry, rows)`.
        carry: handed from segment to segment, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        progress: show a bar that counts steps, in about 32 segments or more.

    Raises:
        ImportError: `progress` without tqdm.
    """
    if isinstance(history, History) and not progress:
        return segment(carry, history, extras)
    length = len(history)
    size = -(-length // _SEGMENTS) if progress else length
    if isinstance(history, StoredHistory):
        size = min(size, history.at_once)
    rows = []
    with counting(length, "backwards", progress) as advance:
        for start in range((length - 1) // size * size, -1, -size):
            stop = min(start + size, length)
            cut = map_tree(lambda x, a=start, b=stop: x[a:b], extras)
            carry, made = ready(segment(carry, history[start:stop], cut))
            rows.append(made)
            advance(stop - start)
    return carry, map_tree(lambda *parts: namespace(*parts).concat(parts), *reversed(rows))


def pull_by(cell: Any, params: Any) -> Callable[[Any, Scaled], Scaled]:
    """The cell's one step back for a loop, `(slopes, state cotangent) -> cotangent of the state before`."""
    transposed = cell.transposed(params)
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
    kind, sizes = cell.state_type, cell.field_sizes

    def step(packed: Array, x: Any) -> tuple[Array, Array]:
        slopes, direct = x
        arriving = _inject(normalised(unpack(packed, kind, sizes)), direct)
        return pack(hand_back(slopes, arriving)), pack(arriving)

    before, arriving = scan(step, packed, (slopes, direct), reverse=True)
    return before, unpack(arriving, kind, sizes)


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
    transposed = cell.transposed(params)

    def chunk(carry: Any, part: History, direct: Array) -> tuple[Any, Array]:
        return pull_chunk(carry, part, direct, transposed)

    carry = (map_tree(xp.asarray, final), no_gradient(params, inputs))
    into = xp.zeros_like(inputs)
    (before, parameters), inputs = reverse_chunks(history, chunk, carry, xp.asarray(outputs), into=into)
    return Gradients(whole_gradient(parameters), inputs, before)


def no_gradient(params: Any, inputs: Array) -> Any:
    """The parameters' gradient before the first chunk: zeros [S, ...] for S parts of the batch.

    Each part's gradient is summed on its own, so that where the parts lie on several devices, these meet once, in
    `whole_gradient`, and not at every chunk. S is what the number of devices and the first batch axis share.
    """
    xp = namespace(*params, inputs)
    parts = math.gcd(devices(xp), inputs.shape[1]) if inputs.ndim > 2 else 1
    return map_tree(lambda x: xp.zeros((parts, *x.shape), dtype=x.dtype), params)


def whole_gradient(parts: Any) -> Any:
    """The sum over the parts of the batch."""
    return map_tree(lambda x: x[0] if len(x) == 1 else x.sum(axis=0), parts)


def _gradient_of_parts(part: History, slopes: Any, d_a: Array, parts: int) -> Any:
    """The parameters' cotangents of a chunk, [S, ...]."""
    of_each = part.cell.parameter_cotangent
    given = (slopes, part.before, part.inputs, part.states, d_a)
    if parts == 1:
        return map_tree(lambda x: x[None], of_each(*given))
    split = map_tree(lambda x: x.reshape(x.shape[0], parts, -1, *x.shape[2:]), given)
    return jax.vmap(of_each, in_axes=1)(*split)


Chunk = Callable[[tuple[Any, Any], History, Any], tuple[tuple[Any, Any], Any]]


def alone(chunk: Chunk) -> Chunk:
    """`chunk(carry, part, extras) -> (carry, rows)`, worked without batch axes where the batch is one sequence.

    Without them, the loop has fewer kernels. The carry is two trees: one with the batch axes in front, one
    without.
    """

    def work(carry: tuple[Any, Any], part: History, extras: Any) -> tuple[tuple[Any, Any], Any]:
        lead = part.batch
        if set(lead) != {1}:
            return chunk(carry, part, extras)
        batched = map_tree(lambda x: x.reshape(x.shape[len(lead) :]), carry[0])
        extras = map_tree(lambda x: x.reshape(x.shape[0], *x.shape[1 + len(lead) :]), extras)
        (batched, summed), rows = chunk((batched, carry[1]), part.sequence(*(0 for _ in lead)), extras)
        batched = map_tree(lambda x: x.reshape(*lead, *x.shape), batched)
        return (batched, summed), map_tree(lambda x: x.reshape(x.shape[0], *lead, *x.shape[1:]), rows)

    return work


def pull_chunk(
    carry: tuple[Any, Any], part: History, direct: Array, transposed: Any
) -> tuple[tuple[Any, Any], Array]:
    """Backpropagation through one chunk.

    Args:
        carry: the cotangent of the state after the chunk, and the parameters' gradient so far, from `no_gradient`.
        part: the chunk.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H].
        transposed: from `cell.transposed(params)`.

    Returns:
        The carry before the chunk, and ∂L/∂x_t of its steps.
    """
    return alone(functools.partial(_pull_chunk, transposed))(carry, part, direct)


def _pull_chunk(transposed: Any, carry: tuple[Any, Any], part: History, direct: Array) -> tuple[Any, Array]:
    cotangent, parameters = carry
    cell, slopes = part.cell, part.slopes
    xp, sizes = namespace(*part.params, direct), cell.field_sizes

    def step(packed: Array, x: Any) -> tuple[Array, Array]:
        slopes, direct = x
        hidden, *rest = columns(packed, sizes)
        cotangent, d_a = cell.pull(transposed, slopes, cell.state_type(hidden + direct, *rest))
        return xp.concat(cotangent, axis=-1), d_a

    packed, d_a = scan(step, xp.concat(cotangent, axis=-1), (slopes, direct), reverse=True)
    here = _gradient_of_parts(part, slopes, d_a, len(parameters[0]))
    parameters = map_tree(lambda x, y: x + y, parameters, here)
    cotangent = cell.state_type(*columns(packed, sizes))
    return (cotangent, parameters), cell.input_cotangent(part.params, d_a)

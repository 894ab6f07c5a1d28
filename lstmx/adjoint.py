"""The one reverse pass through time: every backward of the library is this one."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, jit, map_tree, namespace, result, scan
from lstmx.checks import shaped, state
from lstmx.history import History


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

    The recurrence δs_{t-1} = J_tᵀ δs_t, with ∂L/∂h_t added at each step, is run by the cell's own `pull`; the
    factors of all J_t are computed before it and the parameters' gradients after it, by one product each.

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


@jit(static=("cell",))
def _backward(
    cell: Any, params: Any, initial: Any, inputs: Array, states: Any, stored: Any, outputs: Array, final: Any
) -> Gradients:
    xp = namespace(*params, inputs, outputs)
    outputs, final = map_tree(xp.asarray, (outputs, final))
    history = History(cell, params, initial, inputs, states, stored)
    before = history.before
    slopes = cell.linearise(before, history.preactivations, states)

    def step(cotangent: Any, x: Any) -> tuple[Any, Array]:
        slopes, direct = x
        return cell.pull(params, slopes, cotangent._replace(hidden=cotangent.hidden + direct))

    initial_cotangent, d_a = scan(step, final, (slopes, outputs), reverse=True)

    parameters = cell.parameter_cotangent(before.hidden, inputs, d_a)
    return Gradients(parameters, cell.input_cotangent(params, d_a), initial_cotangent)

"""`gradient_flow`: where the gradient of a loss goes, step by step, at any length."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias, overload

from lstmx.arrays import Array, is_jax, jax, namespace
from lstmx.cells.base import P, S
from lstmx.checks import finite, finite_history, flag, one_of, require_history, shaped
from lstmx.gradients.layered import LayeredFlow, layered_flow
from lstmx.gradients.walk import GradientFlow, flow_of
from lstmx.history import History, StoredHistory
from lstmx.layers import LayeredHistory

Loss: TypeAlias = "str | Array | Callable[[Array], Array]"


@overload
def gradient_flow(
    history: LayeredHistory, loss: Loss = "last", *, outputs: str = "all", progress: bool = False
) -> LayeredFlow: ...
@overload
def gradient_flow(
    history: History[P, S] | StoredHistory[P, S],
    loss: Loss = "last",
    *,
    outputs: str = "all",
    progress: bool = False,
) -> GradientFlow[P, S]: ...
def gradient_flow(history: Any, loss: Loss = "last", *, outputs: str = "all", progress: bool = False) -> Any:
    """Follow the gradient of a loss back through a recorded pass, of a cell or of layers.

    One reverse pass by the cell's own `pull`. The cotangent is carried as an array of magnitude about 1 and an
    integer power of two, so its log norm is right where the norm itself has long left the float range, and its
    digits are those of plain backpropagation where it has not. Losses at many steps are added on one running
    scale. A history with keep="states" is worked on chunk by chunk. What one single step shrinks by more than the
    float range (10⁻³⁸ in float32) counts as an exact zero.

    In NumPy the loop over steps is Python's: 159 µs per step for one sequence of an LSTM with 32 units on one core
    of an AMD EPYC (benchmarks/gradient_flow.py).

    Through layers, what a layer hands to its inputs is the loss of the one below, on one scale from top to bottom.

    Args:
        history: the recorded pass, in memory or on disk; from disk it is read stretch by stretch, from the last to
            the first, so that with outputs="norms" memory does not grow by [T, *batch, H].
        loss: the direct part of ∂L/∂h_t, [T, *batch, H]; or "last", the sum of the last output; or, under JAX, a
            function from outputs [T, *batch, H] to a scalar, whose derivative is taken (not of a history on disk).
        outputs: "all", or "norms" for the log norms, the parameter profile and the parameters' gradients alone,
            which needs no [T, *batch, H] memory.
        progress: show a progress bar; needs tqdm.

    Returns:
        The flow, of layers a `LayeredFlow`; `print` shows a summary in words.

    Raises:
        TypeError: the loss is of the wrong kind or dtype, or a function with a history in NumPy.
        ValueError: a wrong shape or word; or NaN or infinity in parameters, inputs, states or loss, with the
            first step and unit.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.zeros((500, 3), "float32"))
        >>> flow = lstmx.gradient_flow(history, "last")
        >>> str(flow.verdict), bool(flow.half_life < 50)
        ('vanishing', True)
    """
    one_of("outputs", outputs, ("all", "norms"))
    flag("progress", progress)
    require_history(history, layers=True, disk=True)
    direct = loss_cotangent(history, loss)
    if direct is not None:
        finite("loss", direct)
    finite_history(history)
    if isinstance(history, LayeredHistory):
        return layered_flow(history, direct, outputs, progress)
    return flow_of(history, direct, outputs, progress)[0]


def known_loss(loss: Any) -> None:
    """Raise unless a loss is "last", an array or a function.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is another word.
    """
    if callable(loss) or hasattr(loss, "__array_namespace__") or (isinstance(loss, str) and loss == "last"):
        return
    came = repr(loss) if isinstance(loss, (str, Real)) or loss is None else f"a {type(loss).__name__}"
    raise (ValueError if isinstance(loss, str) else TypeError)(
        f'loss is {came}; expected "last", an array of dL/dh_t [T, *batch, H], or under JAX a function of the '
        "outputs [T, *batch, H] that gives a scalar"
    )


def loss_cotangent(history: Any, loss: Any) -> Array | None:
    """A loss, however given, as the direct part of ∂L/∂h_t; None for "last"."""
    known_loss(loss)
    if isinstance(loss, str):
        return None
    if isinstance(history, StoredHistory):
        return _stored_cotangent(history, loss)
    outputs = history.outputs
    if callable(loss):
        if not is_jax(namespace(outputs)):
            raise TypeError(
                "loss is a function, which takes JAX to differentiate; this history is in NumPy. Pass dL/dh_t "
                "as an array [T, *batch, H]"
            )
        value, pull = jax.vjp(loss, outputs)
        known = hasattr(value, "dtype")
        if not known or value.shape != () or not jax.numpy.issubdtype(value.dtype, jax.numpy.floating):
            came = f"an array {value.shape} of {value.dtype}" if known else f"a {type(value).__name__}"
            raise ValueError(f"loss gives {came} of the outputs; expected a real scalar")
        return pull(jax.numpy.ones_like(value))[0]
    shape = tuple(outputs.shape)
    return shaped("loss", loss, shape, outputs.dtype, "dL/dh_t [T, *batch, hidden_size]")


def _stored_cotangent(history: StoredHistory, loss: Any) -> Array:
    """`loss_cotangent` of a history whose outputs are on disk."""
    if callable(loss):
        raise TypeError(
            "loss is a function of all outputs, which this history has on disk; pass dL/dh_t as an array "
            "[T, *batch, H], or take history.read()"
        )
    shape = (len(history), *history.batch, history.cell.output_size)
    return shaped("loss", loss, shape, history.params[0].dtype, "dL/dh_t [T, *batch, hidden_size]")

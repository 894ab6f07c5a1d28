"""Objectives: what is measured of a recorded pass, as one number to train for.

Each takes a history and gives a scalar, to be added to a loss with a weight of your own. Recorded inside
`jax.grad`, a history carries the derivatives by its parameters; in NumPy the numbers are the same.
"""

from __future__ import annotations

import math
from typing import Any

from lstmx.arrays import Array, constant_tree, jit, namespace
from lstmx.checks import finite, finite_history, finite_number, flag, parts_of, require_history
from lstmx.contents import publish
from lstmx.dynamics import lyapunov_spectrum
from lstmx.gradients.flow import Loss, loss_cotangent
from lstmx.gradients.layered import last_outputs
from lstmx.gradients.walk import scaled_back
from lstmx.history import History, StoredHistory, where_held
from lstmx.layers import LayeredHistory, StackHistory
from lstmx.linear import state_size, steps_of, walk_back, walk_forward
from lstmx.scaling import Scaled, log_norm, pack, scaled

__all__ = ["activation", "gradient_flossing", "isometry", "temporal_activation", "vanishing_gradient"]

_ELEMENTS = 2**22  # of Jacobians at a time


def vanishing_gradient(history: History | StackHistory, loss: Loss = "last", *, immediate: bool = False) -> Array:
    """Ω of Pascanu, Mikolov & Bengio: how far each step is from keeping the norm of the gradient that passes it.

    Ω = Σ_k (‖δ_{k+1} J_{k+1}‖ / ‖δ_{k+1}‖ − 1)², with δ_k the derivative of the loss by the joint state after step
    k, all ways through later steps included, and J_{k+1} = ∂s_{k+1}/∂s_k; the mean over sequences. Only the
    direction in which the loss sends its gradient is held to its norm, not all of them, as by `isometry`. The sum
    is over the pairs of successive steps of a sequence that a gradient reaches: those behind the loss are left
    out, as are steps that do not count, and starts within the pass. The paper's network has one state, h; of
    an LSTM it is (h, c) here, of a stack that of all layers.

    Args:
        history: the recorded pass.
        loss: as for `gradient_flow`: "last", the direct part of ∂L/∂h_t, [T, *batch, H], or under JAX a function
            of the outputs.
        immediate: take the paper's derivative in place of that of Ω. There δ_{k+1} and the states are constants,
            and parameters act on J_{k+1} at once only: by the recurrent kernel. It costs one walk back less.

    Returns:
        Ω, a scalar.

    Raises:
        TypeError: this is no history in memory, or of layers with two directions; or the loss is of the wrong
            kind.
        ValueError: a loss of another shape; or NaN or infinity in parameters, inputs, states or loss.

    References:
        Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, section
        3.3.

    Example:
        >>> import jax, lstmx
        >>> cell = lstmx.SimpleRNN(3, 8)
        >>> xs = jax.random.normal(jax.random.key(1), (20, 4, 3), "float32")
        >>> def omega(params):
        ...     return lstmx.objectives.vanishing_gradient(lstmx.record(cell, params, xs))
        >>> jax.grad(omega)(cell.init(0)).recurrent_kernel.shape
        (8, 8)
    """
    flag("immediate", immediate)
    require_history(history, joint=True)
    direct = loss_cotangent(history, loss)
    if direct is None:
        direct = last_outputs(history)
    finite("loss", direct)
    finite_history(history)
    return _vanishing_gradient(history, direct, immediate=immediate)


@jit(static=("immediate",))
def _vanishing_gradient(history: Any, direct: Array, immediate: bool) -> Array:
    xp = namespace(history.inputs, direct)
    direct = xp.asarray(where_held(~_counts(history), direct))
    zero = xp.zeros((*history.batch, state_size(history)), dtype=direct.dtype)

    def chunk(cotangent: Array, part: Any, direct: Scaled) -> tuple[Array, Array]:
        cotangent, arriving, steps = scaled_back(part, lambda step, v: step.pull(v)[0], cotangent, direct)
        after = arriving.value  # of magnitude about 1: its scale is that of the norm before, too
        if immediate:
            after, steps = constant_tree(after), steps.at(constant_tree(steps.rows))
        logs = [log_norm(Scaled(v, 0 * arriving.exponent)) for v in (steps.pull(after)[0], after)]
        reached = ~xp.isneginf(logs[1])
        before, own = (xp.where(reached, x, xp.zeros_like(x)) for x in logs)
        return cotangent, xp.where(reached, (xp.exp(before - own) - 1) ** 2, xp.zeros_like(own))

    terms = walk_back(history, chunk, pack(scaled(zero)), scaled(direct))[1]
    return xp.sum(where_held(~_follows(history), terms)) / math.prod(history.batch)


def gradient_flossing(
    history: History | StackHistory | StoredHistory,
    count: int | str | None = None,
    target: float = 0.0,
    *,
    transient: int | None = None,
    reorthonormalise: int | None = None,
) -> Array:
    """Gradient flossing: the mean of (λ_i − target)² over the first Lyapunov exponents, and over sequences.

    Exponents near 0 let gradients pass a long way in as many directions, neither vanishing nor exploding. They are
    those of the joint state, (h, c) of an LSTM, and are differentiated through their QR decompositions. In the
    paper the loss is minimised alone for some hundred steps before training, and again now and then.

    Args:
        history: the recorded pass; of NumPy on disk, too.
        count: number k of exponents, "all", or None for 8 (S where that is less).
        target: λ that exponents are drawn to, in nats per step.
        transient: first steps that do not count; None for a tenth.
        reorthonormalise: steps from one QR decomposition to the next, as for `lyapunov_spectrum`: None for each
            inside a JAX transformation. A few are cheaper; the derivative is that of the same exponents as long as
            the tangents between two decompositions keep their digits.

    Returns:
        The loss, a scalar: infinite, with a derivative of NaN, where one of the exponents is −inf.

    Raises:
        TypeError: as `lyapunov_spectrum`.
        ValueError: as `lyapunov_spectrum`; inside `jax.jit` that is for a padded batch, too. Or target is not
            finite.

    References:
        Engelken, "Gradient flossing: improving gradient descent through dynamic control of Jacobians", NeurIPS
        2023, arXiv 2312.17306.

    Example:
        >>> import jax, lstmx
        >>> cell = lstmx.SimpleRNN(3, 8)
        >>> xs = jax.random.normal(jax.random.key(1), (50, 3), "float32")
        >>> def loss(params):
        ...     return lstmx.objectives.gradient_flossing(lstmx.record(cell, params, xs), count=4)
        >>> jax.grad(loss)(cell.init(0)).recurrent_kernel.shape
        (8, 8)
    """
    finite_number("target", target)
    spectrum = lyapunov_spectrum(
        history, count, transient=transient, reorthonormalise=reorthonormalise, check=False
    )
    exponents = spectrum.per_sequence
    return namespace(exponents).mean((exponents - target) ** 2)


def isometry(history: History | StackHistory) -> Array:
    """How far one-step Jacobians are from an isometry: the mean of ‖J_tᵀ J_t − I‖² / S over steps and sequences.

    In the singular values σ of J_t it is the mean of (σ² − 1)², which is (χ − 1)² plus the variance of
    `lstmx.isometry`. It holds every direction to its length, where `vanishing_gradient` holds one and
    `gradient_flossing` the product of many steps. Nothing in it is singular: it can be differentiated everywhere.
    A step that starts a sequence within the pass, whose J_t is 0 whatever the parameters, is left out.

    Args:
        history: the recorded pass, of a cell or of a stack.

    Returns:
        The penalty, a scalar.

    Raises:
        TypeError: this is no history in memory, or of layers with two directions.
        ValueError: NaN or infinity in parameters, inputs or states.

    References:
        Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of RNNs", ICML 2018, for the
        condition. Vorontsov, Trabelsi, Kadoury & Pal, "On orthogonality and learning recurrent networks with long
        term dependencies", ICML 2017, for soft constraints of this kind on kernels, in place of Jacobians.
    """
    require_history(history, joint=True)
    finite_history(history)
    return _isometry(history)


@jit()
def _isometry(history: Any) -> Array:
    xp, size = namespace(history.inputs), state_size(history)
    unit = xp.eye(size, dtype=history.inputs.dtype)

    def chunk(carry: None, part: Any) -> tuple[None, Array]:
        matrices = steps_of(part).matrices()
        square = xp.sum((xp.swapaxes(matrices, -1, -2) @ matrices - unit) ** 2, axis=(-2, -1)) / size
        return carry, xp.sum(where_held(~_moves(part), square))

    steps = max(1, _ELEMENTS // (size**2 * math.prod(history.batch)))
    return xp.sum(walk_forward(history, chunk, None, steps)[1]) / _number(_moves(history), unit)


def activation(history: History | LayeredHistory) -> Array:
    """Activation regularisation, AR: the mean of h² over units, steps and sequences.

    The paper writes α L₂(m ∘ h_t) with a dropout mask m, and its authors' code takes the mean of squares; so does
    this, of the outputs as they are. Of layers it is that of the top.

    Args:
        history: the recorded pass, of a cell or of layers.

    Returns:
        The penalty, a scalar.

    Raises:
        TypeError: this is no history in memory.
        ValueError: NaN or infinity in parameters, inputs or states.

    References:
        Merity, McCann & Socher, "Revisiting activation regularization for language RNNs", arXiv 1708.01009, 2017.
    """
    require_history(history, layers=True)
    finite_history(history)
    outputs = history.outputs
    counts = _counts(history)
    return namespace(outputs).sum(where_held(~counts, outputs) ** 2) / _number(counts, outputs) / outputs.shape[-1]


def temporal_activation(history: History | LayeredHistory) -> Array:
    """Temporal activation regularisation, TAR: the mean of (h_t − h_{t−1})² over units, steps and sequences.

    The paper writes β L₂(h_t − h_{t+1}), and its authors' code takes the mean of squares; so does this. Pairs are
    of successive steps that count, of one sequence. Of layers it is that of the top.

    Args:
        history: the recorded pass, of a cell or of layers.

    Returns:
        The penalty, a scalar; 0 where no sequence has two steps.

    Raises:
        TypeError: this is no history in memory.
        ValueError: NaN or infinity in parameters, inputs or states.

    References:
        Merity, McCann & Socher, "Revisiting activation regularization for language RNNs", arXiv 1708.01009, 2017.
    """
    require_history(history, layers=True)
    finite_history(history)
    outputs, follows, xp = history.outputs, _follows(history), namespace(history.outputs)
    if history.counts is not None:  # those that count in front
        order = xp.argsort(~history.counts, axis=0, stable=True)
        follows = xp.take_along_axis(follows, order, axis=0)
        outputs = xp.take_along_axis(outputs, order[..., None], axis=0)
    square = where_held(~follows[1:], (outputs[1:] - outputs[:-1]) ** 2)
    return xp.sum(square) / xp.maximum(_number(follows, outputs), 1) / outputs.shape[-1]


def _counts(history: Any) -> Array:
    """Whether each step counts, booleans [T, *batch]."""
    xp = namespace(history.inputs)
    return xp.ones((len(history), *history.batch), dtype=bool) if history.counts is None else history.counts


def _moves(history: Any) -> Array:
    """Whether each step leads on from the state before, booleans [T, *batch]: it counts and is no new start."""
    controls = parts_of(history)[0].controls
    counts = _counts(history)
    return counts if controls is None or controls.reset is None else counts & ~controls.reset


def _follows(history: Any) -> Array:
    """Whether each step leads on from another one of its sequence, booleans [T, *batch]."""
    xp = namespace(history.inputs)
    return _moves(history) & (xp.cumsum(_counts(history), axis=0) > 1)


def _number(flags: Array, like: Array) -> Array:
    """How many of the flags are true, of the dtype of `like`."""
    return namespace(flags).sum(flags.astype(like.dtype))


publish(__name__)

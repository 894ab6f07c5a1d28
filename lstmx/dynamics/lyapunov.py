"""Lyapunov spectra: at which rates small changes of the joint state grow or die, by repeated QR decomposition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from lstmx.arrays import Array, fetched, is_traced, leaves, namespace
from lstmx.cells.base import Cell
from lstmx.checks import (
    constant,
    finite,
    finite_history,
    flag,
    jacobian_array,
    positive,
    require_history,
    unreset,
)
from lstmx.dynamics.jacobians import jacobians_of
from lstmx.dynamics.passing import EXPECTED, PROBED, Options, Walk, whole_steps
from lstmx.dynamics.spectrum import LyapunovSpectrum, PublishedRecipes
from lstmx.history import History, StoredHistory
from lstmx.layers import Stack, StackHistory
from lstmx.linear import LinearSteps, state_size
from lstmx.passes.run import record

_SEGMENTS = 32  # calls that a progress bar counts
_RECORDED = 2**22  # numbers of states and inputs that an autonomous pass records at a time
_ELEMENTS = 2**22  # of Jacobians at a time


def lyapunov_spectrum(
    history: History | StackHistory | StoredHistory | LinearSteps | Array,
    count: int | str | None = None,
    *,
    transient: int | None = None,
    reorthonormalise: int | None = None,
    window: int | None = None,
    check: bool | None = None,
    audit: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> LyapunovSpectrum:
    """The Lyapunov exponents of the joint state map along a recorded pass, in nats per step.

    A random orthonormal frame of tangents is pushed forward, u_t = J_t u_{t-1} with J_t = ∂s_t/∂s_{t-1} of the
    joint state (h and c for an LSTM), and replaced by the Q of its QR decomposition every few steps; the exponents
    are the means of ln |R_ii|. For inputs that vary they are those of the driven system, given the inputs.

    Exponents of a batch are averaged over its sequences; Jacobians never are, since the product of averages is no
    average of products. In a padded batch each sequence counts up to its end.

    Under JAX exponents, those of each sequence, and the sum rule can be differentiated with respect to parameters,
    inputs and initial state, through the QR decompositions. Inside a transformation there is one at every step,
    unless `reorthonormalise` says otherwise; they are most of the cost. Where a direction is lost, its exponent
    −inf, R is singular and the derivative NaN: ask for fewer exponents there.

    Args:
        history: the recorded pass, in memory or on disk; its `LinearSteps`; or Jacobians [T, *batch, S, S] of any
            map in the order of time.
        count: number of leading exponents, "all", or None for 8 (S where that is less).
        transient: first steps that do not count, in which state and frame settle; None for about a tenth of T (of
            the shortest sequence), with what is left over from whole windows.
        reorthonormalise: steps from one QR decomposition to the next; None for as many as leave the least
            direction half of its digits, from 1 to 32, tried out on the first 64 steps; 1 inside a JAX
            transformation.
        window: steps over which a local exponent is averaged; None for about 1000 windows.
        check: compare the sum of the exponents with the mean of ln |det J_t|; None for whenever all are computed.
        audit: compute what published recipes give too, for comparison with their numbers.
        seed: of the first frame.
        progress: show a progress bar; needs tqdm.

    Returns:
        The spectrum; `print` shows a summary.

    Raises:
        TypeError: history is neither a history, nor LinearSteps, nor an array; or a number is no integer.
        ValueError: count is over S; transient is not below T, or not below a sequence's length; the history has
            resets; how many of its steps count is traced by JAX, or some do not and audit is asked for;
            `LinearSteps` are of a pass with mask, lengths or resets; an interval or a window is longer than the
            steps that count; check without all exponents; audit without a history; or NaN or infinity in what
            came, or in the tangents before a QR decomposition.

    Warns:
        RuntimeWarning: the interval between two QR decompositions is too long for the precision, with its number.

    References:
        Benettin, Galgani, Giorgilli & Strelcyn, "Lyapunov characteristic exponents for smooth dynamical systems
        and for Hamiltonian systems; a method for computing all of them", Meccanica 15, 1980.
        Engelken, Wolf & Abbott, "Lyapunov spectra of chaotic recurrent neural networks", Physical Review Research
        5, 2023.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(500, 3)).astype("float32")
        >>> spectrum = lstmx.lyapunov_spectrum(lstmx.record(cell, params, xs))
        >>> len(spectrum.exponents), bool(spectrum.exponents[0] < 0)
        (8, True)
    """
    flag("audit", audit)
    flag("progress", progress)
    size, batch, like = _system(history)
    if audit and not isinstance(history, History):
        raise ValueError(
            "audit reads the blocks of a cell's Jacobians: it needs a history, not linear maps, and in memory"
        )
    lengths, length = None, len(history)
    if isinstance(history, History | StackHistory | StoredHistory) and history.counts is not None:
        if audit:
            raise ValueError(
                "audit takes whole sequences; in this history some steps do not count: history.pieces()"
            )
        if is_traced(history.counts):
            raise ValueError(
                "some steps of this history do not count, and how many is unknown inside a JAX transformation; "
                "pass sequences that are whole, or take the spectrum outside"
            )
        history = history.with_gaps(first=False)
        lengths = fetched(history.lengths)
        length = int(lengths.max())
        lengths = None if lengths.min() == length else lengths
    options = Options(count, transient, reorthonormalise, window, check, seed)
    walk = Walk(length, like, batch, size, options, lengths)
    walk.prepare(history[: min(PROBED, length)])
    most = -(-length // _SEGMENTS) if progress else length
    if isinstance(history, StoredHistory):
        most = min(most, history.at_once)
    made = walk.spectrum(lambda start, stop: history[start:stop], most, progress)
    return _published_recipes(made, history, seed) if audit else made  # type: ignore  # a History, see above


def autonomous_spectrum(
    cell: Cell | Stack,
    params: Any,
    x: Array | None = None,
    state: Any = None,
    steps: int = 10_000,
    count: int | str | None = None,
    *,
    transient: int | None = None,
    reorthonormalise: int | None = None,
    window: int | None = None,
    check: bool | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LyapunovSpectrum:
    """The Lyapunov spectrum of a network left to itself, with a constant input or none.

    The pass is run and forgotten stretch by stretch: memory does not grow with `steps`. Under JAX the exponents
    can be differentiated with respect to parameters, input and state, like those of
    `lyapunov_spectrum`; then it does.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        x: the constant input, [D]; None for zeros.
        state: the initial state, fields [*batch, H]; None for zeros, which without biases is a fixed point.
        steps: length of the pass, the transient included.
        count: as for `lyapunov_spectrum`, like what follows.
        transient: first steps that do not count.
        reorthonormalise: steps from one QR decomposition to the next.
        window: steps over which a local exponent is averaged.
        check: compare the sum of the exponents with the mean of ln |det J_t|.
        seed: of the first frame.
        progress: show a progress bar; needs tqdm.

    Returns:
        The spectrum.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: as for `lyapunov_spectrum`; or x or state has the wrong shape.
    """
    length = positive("steps", steps)
    flag("progress", progress)
    params, x, now, batch = constant(cell, params, x, state)
    xp, options = namespace(x), Options(count, transient, reorthonormalise, window, check, seed)

    def inputs(length: int) -> Array:
        return xp.broadcast_to(x, (length, *batch, cell.input_size))

    def following(start: int, stop: int) -> Any:
        nonlocal now
        part = record(cell, params, inputs(stop - start), now, keep="states")
        now = part.final
        return part

    first = record(cell, params, inputs(min(PROBED, length)), now, keep="states")
    size = state_size(first)
    walk = Walk(length, next(leaves(first.states))[0], batch, size, options)
    walk.prepare(first)
    most = max(1, _RECORDED // (math.prod(batch) * (size + cell.input_size)))
    return walk.spectrum(following, most, progress)


def _system(history: Any) -> tuple[int, tuple[int, ...], Array]:
    """State size, batch axes, and an array [*batch, ...] of the library and dtype, of what was given."""
    if isinstance(history, LinearSteps):
        whole_steps(history)
        return history.size, history.lead[1:], history[:1].matrices()[0]
    if not hasattr(history, "__array_namespace__"):
        if isinstance(history, (list, tuple)):
            raise TypeError(
                f"history is a {type(history).__name__}; expected a History or one array: numpy.stack(Jacobians)"
            )
        require_history(history, joint=True, disk=True, expected=EXPECTED)
        unreset(history, "lyapunov_spectrum")
        finite_history(history)
        like = list(leaves(history.final))[-1]  # of the top, which is traced wherever anything is
        return state_size(history), history.batch, like
    jacobian_array(history)
    finite("a Jacobian's entry", history, "column")
    return history.shape[-1], tuple(history.shape[1:-2]), history[0]


def _published_recipes(spectrum: LyapunovSpectrum, history: History, seed: int) -> LyapunovSpectrum:
    """The spectrum with what published recipes give on the same steps, a QR decomposition at each of them."""
    h, axes = history.cell.output_size, tuple(range(1, 1 + len(history.batch)))
    xp = namespace(history.inputs)

    def whole(part: History) -> Array:
        return jacobians_of(part)

    def hidden(part: History) -> Array:
        return whole(part)[..., :h, :h]

    def exponents(matrices: Callable[[History], Array]) -> Array:
        first = matrices(history[:1])[0]
        size, count = first.shape[-1], min(len(spectrum.exponents), first.shape[-1])
        options = Options(count, spectrum.transient, 1, check=False, seed=seed)
        walk = Walk(len(history), first, tuple(first.shape[:-2]), size, options)
        walk.prepare(matrices(history[:PROBED]))
        most = max(1, _ELEMENTS // (math.prod(history.batch) * history.cell.state_size**2))
        return walk.spectrum(lambda start, stop: matrices(history[start:stop]), most).exponents

    audit = PublishedRecipes(
        hidden_only=exponents(hidden),
        transposed_base2=exponents(lambda part: xp.swapaxes(hidden(part), -1, -2)) / math.log(2),
        batch_mean=exponents(lambda part: xp.mean(whole(part), axis=axes)) if history.batch else None,
    )
    return dataclasses.replace(spectrum, audit=audit)

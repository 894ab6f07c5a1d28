"""Whether time can be parallel: how many iterations a pass needs, from how small changes grow along it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_jax, is_traced, jit, leaves, namespace, result, scan
from lstmx.checks import finite_history, flag, require_history, unreset
from lstmx.draws import draws_for
from lstmx.dynamics.lyapunov import lyapunov_spectrum
from lstmx.history import History, StoredHistory
from lstmx.layers import StackHistory
from lstmx.linear import state_size, steps_of, walk_forward
from lstmx.passes.newton import kind_of, newton_pass
from lstmx.scans.chunks import chunk_length

_STARTS = 32  # steps from which changes are followed
_DIRECTIONS = 16  # of these at each, at most
_FACTOR, _POWER = 2.1, 0.47  # fitted to what 68 networks needed, x = ln M + ½ ln K < 9
_LONGEST = 10**9


@result(static=("exponent", "growth", "total", "iterations", "measured", "steps", "longest", "whole"))
class Parallelisability:
    """What time in parallel would take along a pass.

    Attributes:
        exponent: λ₁, the greatest Lyapunov exponent, in nats per step; of a batch the greatest of its sequences'.
        growth: the transient, ln M: by how much, in nats, a small change grows at most from a step to a later one.
        total: ln K: the ln of the sum of what is left of a change at every step from where it is made.
        iterations: how many iterations are to be expected.
        measured: how many were needed, where that was asked for; None where not.
        steps: T.
        longest: the number of steps up to which it would pay, where λ₁ is above 0; 0 for none; None where there is
            no limit: λ₁ is not above 0, or the state is linear in the state before.
        whole: whether the iterations are Newton's own, with whole Jacobians; where not, more are needed.
    """

    exponent: float
    growth: float
    total: float
    iterations: int
    measured: int | None
    steps: int
    longest: int | None
    whole: bool

    @property
    def pays(self) -> bool:
        """Whether the expected iterations, each of 2 log₂ T maps one after another, are fewer than T steps are.

        So it is judged for an accelerator with room for all steps at once. Where iterations were measured, these
        count.
        """
        found = self.iterations if self.measured is None else self.measured
        return (self.longest is None or self.steps <= self.longest) and _pays(found, self.steps)

    def __str__(self) -> str:
        counted = "" if self.measured is None else f" (measured: {self.measured:,})"
        least = "" if self.whole else "at least "
        if self.pays:
            verdict = "time in parallel pays where an accelerator has room for all steps at once"
        elif self.longest is None:
            verdict = "time in parallel does not pay"
        else:
            most = f"beyond {_told(self.longest, 'step')}" if self.longest else "at any length"
            verdict = f"λ₁ is above 0: time in parallel does not pay {most}"
        return (
            f"λ₁ {self.exponent:+.4g} nats per step; a change grows by e^{self.growth:.2f} at most, and adds up "
            f"to e^{self.total:.2f}. Expected: {least}{_told(self.iterations, 'iteration')} for "
            f"{_told(self.steps, 'step')}{counted}; {verdict}"
        )

    def __repr__(self) -> str:
        return f"Parallelisability({_told(self.iterations, 'iteration')}, {_told(self.steps, 'step')})"


def _told(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _pays(iterations: int, steps: int) -> bool:
    return iterations * max(1.0, 2 * math.log2(steps)) < steps


def _expected(nats: float, steps: int) -> int:
    """Iterations for ln M + ½ ln K of `nats`. Each makes two steps exact at least."""
    return max(1, round(min((steps + 1) // 2, _FACTOR * math.exp(min(_POWER * nats, 50)))))


def parallelisability(
    history: History | StackHistory | StoredHistory, *, measure: bool = False, seed: int = 0
) -> Parallelisability:
    """Whether `run(..., parallel="newton")` pays for a pass, and how many iterations it is to take.

    Newton's method is exact where the trajectory is, and wrong in what follows by as much as a change of the state
    grows on its way: a pass that forgets needs few iterations, however long it is, and a chaotic one as many as it
    has steps, over a constant. The sign of λ₁ says which of these it is, and not how many: before changes die they
    may grow, or stay for long. So small changes are followed from up to 32 steps, evenly spaced: M is by how much
    any of them grows from its least norm to a later one, and K the sum of their norms over all later steps, each
    as a Frobenius norm of a product of Jacobians. The number is 2.1 (M √K)^0.47, at most ½ T, a fit to 68 random
    networks with joint states of up to 32 numbers; and one where no gate reads the state (MinLSTM, MinGRU), which
    is then linear in the state before. Over 180 other networks, five of each cell of the library over 512 steps,
    its rank correlation with what was needed is 0.91 (`agreement` in tests/test_newton.py). It is coarse, off by a
    factor of 1.7 on average, and by 63 for one with layer norm; `measure=True` counts. Of wider states iterations
    are not Newton's own, and more are needed.

    Args:
        history: the recorded pass, of a cell, a step function or a stack, in memory or on disk.
        measure: solve the pass by Newton's method, too, and count; in JAX, of a history in memory.
        seed: of the directions that are followed, where the joint state has more than 16.

    Returns:
        What was found; `print` says it in words.

    Raises:
        TypeError: history is no history, has layers that read both directions of time, or is inside a JAX
            transformation; measure is neither True nor False; or seed is no integer.
        ValueError: the history has resets; holds NaN or infinity; a sequence is too short for λ₁; or measure is
            asked for in NumPy or from disk.

    References:
        Gonzalez, Kozachkov, Zoltowski, Clarkson & Linderman, "Predictability enables parallelization of nonlinear
        state space models", NeurIPS 2025 (arXiv 2508.16817): that λ₁ decides.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(2000, 3)).astype("float32")
        >>> found = lstmx.parallelisability(lstmx.record(cell, params, xs))
        >>> found.exponent < 0, found.longest, found.pays
        (True, None, True)
    """
    flag("measure", measure)
    require_history(history, joint=True, disk=True)
    if is_traced(history):
        raise TypeError("parallelisability gives a verdict and cannot run inside a JAX transformation")
    unreset(history, "parallelisability")
    finite_history(history)
    if measure and (isinstance(history, StoredHistory) or not is_jax(namespace(*leaves(history.final)))):
        raise ValueError(
            "measure is True, which takes a history in memory in JAX; expected False for one "
            + ("on disk" if isinstance(history, StoredHistory) else "in NumPy")
        )
    spectrum = lyapunov_spectrum(history, 1, seed=seed)
    exponent, steps = float(np.max(spectrum.per_sequence)), len(history)
    growth, total = _followed(history, seed)
    nats, measured = growth + total / 2, None
    if measure:
        parts = history.layers if isinstance(history, StackHistory) else (history,)
        measured = max(int(_counted(part).max()) for part in parts)
    cells = [part.cell for part in history.layers] if isinstance(history, StackHistory) else [history.cell]
    linear, longest = not any(cell.reads for cell in cells), None
    if exponent > 0 and not linear:
        lengths = np.unique(np.geomspace(2, _LONGEST, 4000).astype(int)).tolist()
        rest = max(0.0, nats - 1.5 * exponent * steps)
        longest = max((n for n in lengths if _pays(_expected(rest + 1.5 * exponent * n, n), n)), default=0)
    whole = all(kind_of(cell) == "whole" or not cell.reads for cell in cells)
    expected = 1 if linear else _expected(nats, steps)
    return Parallelisability(exponent, growth, total, expected, measured, steps, longest, whole)


@jit()
def _counted(history: History) -> Array:
    """Iterations of each window."""
    state, xs = history.initial, history.inputs
    if state is None:
        state = history.cell.initial_state(history.params, history.batch)
    return newton_pass(history.cell, None, history.params, xs, state, history.controls)[1]


def _followed(history: Any, seed: int) -> tuple[float, float]:
    """Ln M and ln K of a pass, of a batch the greatest."""
    size, length, batch = state_size(history), len(history), tuple(history.batch)
    like = list(leaves(history.final))[-1]
    xp, dtype = namespace(like), like.dtype
    starts, count = min(length, _STARTS), min(size, _DIRECTIONS)
    if count < size:
        rows = np.linalg.qr(np.asarray(draws_for(np, seed).normal((size, count), "float64")))[0].T
    else:
        rows = np.eye(size)
    at = xp.asarray([k * length // starts for k in range(starts)])
    basis = xp.asarray(rows, dtype=dtype)
    none = xp.zeros((*batch, starts), dtype=dtype)
    carry: Any = xp.zeros((*batch, starts, count, size), dtype=dtype), none, none, none, none - xp.inf, at[0] * 0
    most = history.at_once if isinstance(history, StoredHistory) else length
    for start in range(0, length, most):
        carry = _follow(history[start : start + most] if most < length else history[:], carry, at, basis)
    _, _, _, growth, total, _ = carry
    shift = 0.5 * math.log(size / count)
    return float(xp.max(growth)) + shift, float(xp.max(total)) + shift


@jit()
def _follow(history: Any, carry: Any, starts: Array, basis: Array) -> Any:
    """Follow the changes through a stretch of a pass.

    The carry: the changes from each start, [*batch, starts, directions, S], of norm 1; the ln of their norms; the
    least of these so far; the most that they grew from there; the ln of their sum, each [*batch, starts]; and the
    number of the next step.
    """
    xp = namespace(basis)

    def chunk(carry: Any, part: Any) -> tuple[Any, None]:
        steps = steps_of(part)
        spread, held = steps.spread(), steps.held

        def step(carry: Any, at: Any) -> tuple[Any, None]:
            changes, logs, least, growth, total, t = carry
            rows, stands = at
            begins = (starts == t)[:, None, None]
            changes = xp.where(begins, basis, changes)
            flat = changes.reshape(*changes.shape[:-3], -1, changes.shape[-1])
            changes = spread.at(rows).push(flat).reshape(changes.shape)
            norm = xp.sqrt(xp.sum(changes**2, axis=(-2, -1)))
            there = (norm > 0) & (starts <= t)
            norm = xp.where(there, norm, xp.ones_like(norm))
            logs = logs + xp.log(norm)
            counts = there if stands is None else there & ~stands
            growth = xp.where(counts, xp.maximum(growth, logs - least), growth)
            least = xp.where(counts, xp.minimum(least, logs), least)
            total = xp.where(counts, xp.logaddexp(total, logs), total)
            return (changes / norm[..., None, None], logs, least, growth, total, t + 1), None

        return scan(step, carry, (spread.rows, held))[0], None

    width = basis.size * len(starts) * math.prod(history.batch)
    return walk_forward(history, chunk, carry, chunk_length(len(history), width))[0]

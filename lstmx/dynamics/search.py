"""`Search`: many states at once on their way to where a map F, or its k-fold, leaves them where they are.

Every coordinate is measured by its own size, 1 + |s_i|, with what rounding of the largest coordinate adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_jax, jax, jit, namespace, require, scan, solve
from lstmx.linear import steps_of
from lstmx.passes.run import record, run

_QUICK = 8.0, 40  # greatest step of a coordinate by its size, and iterations
_CAREFUL = 0.3, 150  # a factor of 1.3 in each: the reach is that of any float
_UNCAPPED = 1e30
_ROUND = 10  # iterations between two looks at what has converged
_POLISH = 6  # times as many for a root that Newton's method nears by a factor only
_GROUP = 256  # states at a time,
_GROUP_ELEMENTS = 2**20  # and numbers in their Jacobians
_ROLLED = 300  # steps of an autonomous pass


class Search:
    """What is done with joint states [N, S], NumPy arrays of the parameters' dtype.

    Args:
        cell: the cell.
        params: its parameters.
        x: the constant input, [D].
        tolerance: greatest |s_i − F(s)_i| by the coordinate's size.
        period: how many steps F is.
    """

    def __init__(self, cell: Any, params: Any, x: Array, tolerance: float, period: int = 1):
        self.cell, self.params, self.x, self.tolerance, self.period = cell, params, x, tolerance, period
        self.jax = is_jax(namespace(x))
        self.epsilon = float(np.finfo(np.dtype(x.dtype)).eps)
        self.near = tolerance**0.5
        # A root of multiplicity m is known to ε^(1/m): to this where two or three points merge.
        self.blurred = 4 * self.epsilon ** (1 / 3)

    # ------------------------------------------------------------------------------------------- distances

    def apart(self, states: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Greatest |s_i − o_i| by the size of a coordinate, [N], with NaN where one is no number."""
        largest = np.abs(others).max(axis=-1, keepdims=True)
        size = 1 + np.abs(others) + self.epsilon / self.tolerance * largest
        with np.errstate(invalid="ignore"):
            return (np.abs(states - others) / size).max(axis=-1)

    def distinct(self, states: np.ndarray, near: float, q: np.ndarray) -> np.ndarray:
        """Indices of states farther than `near` from each other: of those closer, the one of least q."""
        kept: list[int] = []
        for index in np.argsort(q, kind="stable"):
            if not kept or (self.apart(states[index], states[kept]) > near).all():
                kept.append(int(index))
        return np.array(kept, int)

    # ------------------------------------------------------------------------------------------------- maps

    def after(self, states: np.ndarray) -> np.ndarray:
        """F(s), [N, S]."""
        return self._by_groups(states, lambda s: step_of(self.cell, self.params, self.x, s, period=self.period)[0])

    def after_one(self, states: np.ndarray) -> np.ndarray:
        """The states after one step of the period, [N, S]."""
        return self._by_groups(states, lambda s: step_of(self.cell, self.params, self.x, s)[0])

    def matrices(self, states: np.ndarray) -> np.ndarray:
        """∂F/∂s, NumPy float64 [N, S, S]."""

        def of(s: Array) -> Array:
            return step_of(self.cell, self.params, self.x, s, period=self.period, jacobian=True)[1]

        return self._by_groups(states, of, (self.cell.state_size,)).astype(np.float64)

    def rolled(self, states: np.ndarray) -> np.ndarray:
        """The states after some hundred steps."""
        return self._by_groups(states, lambda s: _rolled(self.cell, self.params, self.x, s))

    def eigenvalues(self, states: np.ndarray) -> np.ndarray:
        """Of the Jacobian at each state, of greatest magnitude first, [N, S]."""
        found = np.linalg.eigvals(self.matrices(states)).astype(complex)
        return np.take_along_axis(found, np.argsort(-np.abs(found), axis=-1, kind="stable"), axis=-1)

    def q(self, states: np.ndarray) -> np.ndarray:
        """½ ‖s − F(s)‖², [N]."""
        return 0.5 * np.sum((self.after(states) - states) ** 2, axis=-1)

    def _by_groups(self, states: np.ndarray, f: Any, more: tuple[int, ...] = ()) -> np.ndarray:
        """`f` of every so many states, of which JAX compiles one program."""
        group = min(_GROUP, max(1, _GROUP_ELEMENTS // self.cell.state_size**2))
        made = np.empty((*states.shape, *more), np.dtype(self.x.dtype))
        for start in range(0, len(states), group):
            part = states[start : start + group].astype(made.dtype)
            padded = np.resize(part, (group, part.shape[1])) if self.jax else part
            with np.errstate(all="ignore"):  # what is no number comes from a singular matrix, and is seen to
                made[start : start + group] = fetched(f(namespace(self.x).asarray(padded)))[: len(part)]
        return made

    # ------------------------------------------------------------------------------------------------- ways

    def fall(self, states: np.ndarray, iterations: int, rate: float) -> np.ndarray:
        """Each state at the foot of q."""
        if self.jax:
            given = namespace(self.x).asarray(states)
            return np.array(
                fetched(_adam(self.cell, self.params, self.x, given, iterations=iterations, rate=rate))
            )
        return _levenberg_marquardt(self.cell, self.params, self.x, states, iterations)

    def quick(self, states: np.ndarray) -> np.ndarray:
        """Newton's method from each state, in large steps."""
        return self._newton(states, *_QUICK)

    def careful(self, states: np.ndarray) -> np.ndarray:
        """Newton's method from each state, in small steps, which ends in saddle points near it."""
        return self._newton(states, *_CAREFUL)

    def _newton(self, states: np.ndarray, cap: float, iterations: int) -> np.ndarray:
        """Newton's method from each state; those that have converged rest."""
        now, active = states.copy(), np.arange(len(states))
        for _ in range(0, iterations, _ROUND):
            now[active] = self._improved(now[active], cap)
            active = active[self._moving(now[active])]
            if not len(active):
                break
        return now

    def _improved(self, states: np.ndarray, cap: float = _UNCAPPED) -> np.ndarray:
        """The states a few iterations on, [N, S]."""

        def better(s: Array) -> Array:
            return _newton(self.cell, self.params, self.x, s, cap, period=self.period)

        return self._by_groups(states, better)

    def _moving(self, states: np.ndarray) -> np.ndarray:
        """Whether each state is a number yet to converge, [N]."""
        return ~self.is_still(states, 0.1 * self.tolerance) & np.isfinite(states).all(axis=-1)

    def is_still(self, states: np.ndarray, tolerance: float) -> np.ndarray:
        """Whether no coordinate moves by more than `tolerance` of its size, [N]."""
        with np.errstate(invalid="ignore"):
            return self.apart(self.after(states), states) <= tolerance

    def is_fixed(self, states: np.ndarray) -> np.ndarray:
        """Whether each state stands still, and Newton's method all but leaves it where it is, [N].

        Where a gate that keeps the state is all but 1, a state moves by less than any tolerance long before it is
        near a fixed point; the step of Newton's method tells.
        """
        fixed = self.is_still(states, self.tolerance)
        at = states[fixed]
        with np.errstate(invalid="ignore"):
            fixed[fixed] = self.apart(self._improved(at), at) <= max(self.near, self.blurred)
        return fixed

    def polished(self, states: np.ndarray) -> np.ndarray:
        """Fixed points as near as rounding lets Newton's method come."""
        better = states
        for _ in range(_POLISH):
            better = self._improved(better)
        with np.errstate(invalid="ignore"):
            kept = (self.apart(better, states) <= 100 * self.near) & (self.q(better) <= self.q(states))
        return np.where(kept[:, None], better, states)

    def judged(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of fixed points whether rounding leaves them where they are, and whether they are degenerate, [N] each.

        With σ the least singular value of I − J, v and u its vectors, and ε what rounding leaves of s − F(s) along
        u, a point is known to ε/σ along v. It is degenerate where σ changes by as much as itself on that way, so
        that there may be several points, or none. Unless s moves a little farther out, it is lost in a line of
        points that all stand still, as where a gate that keeps the state rounds to 1.
        """
        gap = np.eye(self.cell.state_size) - self.matrices(states)
        left, values, right = np.linalg.svd(gap) if len(states) else (gap, gap[..., 0], gap)
        u, least, v = left[..., -1], values[..., -1], right[..., -1, :]
        size = 1 + np.abs(states.astype(np.float64))
        rounding = 4 * self.epsilon * np.maximum(1.0, values[..., 0]) * np.abs(u * size).max(axis=-1)
        span = 1 / (np.abs(v) / size).max(axis=-1)  # the way along v to the size of a coordinate
        lost = rounding > self.near * span * least
        reach = rounding / np.where(lost, np.inf, least)
        suspect = ~lost & (least <= 100 * np.sqrt(rounding))
        change = np.zeros(len(states))
        for sign in (-2, 2):
            at = np.flatnonzero(suspect)
            moved = (states[at] + sign * (reach[at, None] * v[at])).astype(states.dtype)
            other = np.eye(self.cell.state_size) - self.matrices(moved)
            change[at] = np.maximum(change[at], np.abs(np.einsum("ni,nij,nj->n", u[at], other, v[at]) - least[at]))
        degenerate = lost | (suspect & (change >= 0.5 * least))
        settled = np.ones(len(states), bool)
        for k in np.flatnonzero(degenerate):
            kept = values[k] > max(rounding[k] / self.near, values[k, -1])
            if kept.sum() < len(kept) - 1:  # lost in several directions
                settled[k] = False
                continue
            inverse = (right[k][kept].T / values[k][kept]) @ left[k][:, kept].T
            settled[k] = not self._is_on_a_line(states[k], 4 * self.blurred * span[k] * v[k], inverse)
        return settled, degenerate

    def _is_on_a_line(self, state: np.ndarray, way: np.ndarray, inverse: np.ndarray) -> bool:
        """Whether states both ways from this one stand still, once the other directions have settled."""
        both = np.stack([state + way, state - way])
        for _ in range(5):
            both = both + (self.after(both) - both) @ inverse.T
        return bool(self.is_still(both.astype(state.dtype), 16 * self.epsilon).all())


@jit(static=("cell", "period", "jacobian"))
def step_of(
    cell: Any, params: Any, x: Array, states: Array, period: int = 1, jacobian: bool = False
) -> tuple[Array, Any]:
    """F of each joint state [N, S], and with `jacobian` ∂F/∂s, [N, S, S]."""
    xp = namespace(x, states)
    if period == 1:
        after, steps = _moved(cell, params, x, states)
        return after, steps.matrices() if jacobian else None

    def step(carry: Any, _: Array) -> tuple[Any, None]:
        states, product = carry
        after, steps = _moved(cell, params, x, states)
        return (after, steps.matrices() @ product if jacobian else None), None

    size = cell.state_size
    start = xp.broadcast_to(xp.eye(size, dtype=x.dtype), (len(states), size, size)) if jacobian else None
    return scan(step, (states, start), xp.arange(period))[0]


def _moved(cell: Any, params: Any, x: Array, states: Array) -> tuple[Array, Any]:
    """One step of each joint state [N, S], and the linear maps there."""
    xs = namespace(x).broadcast_to(x, (1, len(states), cell.input_size))
    history = record(cell, params, xs, cell.unpack(states))
    return cell.pack(history.final), steps_of(history)[0]


@jit(static=("cell",))
def _rolled(cell: Any, params: Any, x: Array, states: Array) -> Array:
    """The joint states [N, S] after some hundred steps."""
    xs = namespace(x).broadcast_to(x, (_ROLLED, len(states), cell.input_size))
    return cell.pack(run(cell, params, xs, cell.unpack(states))[1])


@jit(static=("cell", "period"))
def _newton(cell: Any, params: Any, x: Array, states: Array, cap: float, period: int) -> Array:
    """A few steps of Newton's method on s − F(s), none of more than `cap` of a coordinate's size."""
    xp = namespace(x, states)

    def step(states: Array, _: Array) -> tuple[Array, None]:
        if period == 1:
            after, at = _moved(cell, params, x, states)
            move = at.newton_step(after - states)
        else:
            after, matrices = step_of(cell, params, x, states, period=period, jacobian=True)
            move = solve(xp.eye(cell.state_size, dtype=x.dtype) - matrices, after - states)
        greatest = xp.max(xp.abs(move) / (1 + xp.abs(states)), axis=-1)
        usable = xp.isfinite(greatest)[..., None]
        factor = cap / xp.where(greatest > cap, greatest, xp.full_like(greatest, cap))
        return states + xp.where(usable, move * factor[..., None], after - states), None

    return scan(step, states, xp.arange(_ROUND))[0]


@jit(static=("cell", "iterations", "rate"))
def _adam(cell: Any, params: Any, x: Array, states: Array, iterations: int, rate: float) -> Array:
    """Each state after `iterations` of Adam on its own q."""
    optax = require("optax", "fixed_points under JAX")
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, iterations))

    def step(carry: Any, _: Array) -> tuple[Any, None]:
        states, memory = carry
        after, at = _moved(cell, params, x, states)
        away = states - after
        slope = away - at.pull(away)[0]  # ∂q/∂s = (I − J)ᵀ (s − F(s))
        change, memory = optimiser.update(slope, memory)
        return (optax.apply_updates(states, change), memory), None

    return jax.lax.scan(step, (states, optimiser.init(states)), None, length=iterations)[0][0]


def _levenberg_marquardt(cell: Any, params: Any, x: Array, states: np.ndarray, iterations: int) -> np.ndarray:
    """Each state at the foot of its q, by SciPy's `root`, one after the other."""
    root = require("scipy.optimize", "fixed_points in NumPy").root

    def away(s: np.ndarray) -> tuple[Array, Array]:
        after, jacobian = step_of(cell, params, x, s[None].astype(x.dtype), jacobian=True)
        return after[0] - s, jacobian[0] - np.eye(len(s))

    options = {"maxiter": iterations}
    found = [root(away, start, jac=True, method="lm", options=options).x for start in states]
    return np.stack(found).astype(x.dtype)

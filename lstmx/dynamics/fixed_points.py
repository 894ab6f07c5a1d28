"""`fixed_points`: candidates fall towards points where the state stands still, and Newton's method finishes."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_jax, is_traced, jax, jit, map_tree, namespace, require, scan
from lstmx.cells.base import Cell, P, S
from lstmx.checks import constant, flag, positive
from lstmx.dynamics.points import FixedPoints, Points, index_sum
from lstmx.history import History
from lstmx.layers import LayeredHistory
from lstmx.linear import steps_of
from lstmx.passes.run import record

_QUICK = 8.0, 40  # greatest step of a coordinate, and iterations: cell states lie far out
_THOROUGH = 0.3, 300
_UNCAPPED = 1e30
_ROUND = 10  # iterations between two looks at what has converged
_GROUP_ELEMENTS = 2**20  # of Jacobians at a time
_NEAR = 0.1  # of its size: how far a slow point's own fixed point would be


def fixed_points(
    cell: Cell[P, S],
    params: P,
    x: Array | None,
    candidates: S | History[P, S] | LayeredHistory,
    *,
    iterations: int = 500,
    learning_rate: float = 0.1,
    tolerance: float | None = None,
    slow: float = 1e-3,
    outlier_distance: float | None = None,
    thorough: bool | None = None,
) -> FixedPoints[S]:
    """Find the fixed points of a cell under a constant input, s = F(s, x), and its slow points.

    Every candidate first falls down q(s) = ½ ‖s − F(s)‖²: by Adam under JAX, all at once; by SciPy's
    Levenberg–Marquardt root finder in NumPy. Newton's method with the exact Jacobian goes on from there, in steps
    of at most 8 in any coordinate. Where the index sum of what is found is not 1, so that points are missing,
    Newton's method starts from the candidates themselves in steps of at most 0.3: slower, but it finds the saddle
    points that the fall passed by. Under JAX a point is found up to about 350 from its candidate in a coordinate.

    No state is returned as fixed unless it passes the tolerance in the end, Newton's method leaves it where it is,
    and I − J is not singular to rounding: where a gate that keeps the state rounds to 1, any state stands still.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        x: the constant input, [D]; None for zeros.
        candidates: starting points: a recorded pass, whose states after all steps that count are taken, of every
            sequence (`history[:500]` has fewer); or a state with a leading axis, fields [N, H].
        iterations: of Adam under JAX; most function calls of the root finder per candidate in NumPy.
        learning_rate: of Adam, falling to 0 along a cosine; in units of the state.
        tolerance: greatest |s − F(s)| of a coordinate, relative to 1 + the greatest |s|, of a fixed point; None
            for 1e-11 in float64 and 1e-5 in float32. Points closer than its square root, relative alike, are one.
        slow: the same of a slow point; slow points closer than ten times this are one.
        outlier_distance: fixed points farther from the candidates' mean than this many times the candidates' own
            root-mean-square distance are set apart as outliers; None for none.
        thorough: run the thorough pass; None for where it is needed.

    Returns:
        Fixed points, slow points, their eigenvalues, and a `summary()` that warns where points are missing.

    Raises:
        TypeError: an argument is of the wrong kind or dtype, or inside a JAX transformation.
        ValueError: an argument has the wrong shape, a number is not positive, or NaN or infinity came in.
        ImportError: JAX without optax, or NumPy without SciPy.

    References:
        Sussillo & Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural
        networks", Neural Computation 25(3), 2013, for q and slow points.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0), "float64")
        >>> history = lstmx.record(cell, params, numpy.random.default_rng(1).normal(size=(20, 3)))
        >>> lstmx.fixed_points(cell, params, None, history).census
        {0: 1}
    """
    positive("iterations", iterations)
    if thorough is not None:
        flag("thorough", thorough)
    numbers = {"learning_rate": learning_rate, "tolerance": tolerance, "slow": slow}
    numbers["outlier_distance"] = outlier_distance
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, Real) and 0 < float(value) < math.inf):
            raise ValueError(f"{name} is {value!r}; expected a positive number")
    params, given, starts = _checked(cell, params, x, candidates)
    if tolerance is None:
        tolerance = 1e-11 if given.dtype == np.float64 else 1e-5
    search = _Search(cell, params, given, tolerance)

    fallen = search.fall(starts, int(iterations), learning_rate)
    ended = search.newton(fallen, *_QUICK)
    fixed = search.is_fixed(ended)
    found = search.settled(ended[fixed])
    arrived = fixed
    missing = cell.bounded and thorough is None and index_sum(search.eigenvalues(found)) != 1
    if thorough or missing:
        again = search.newton(starts, *_THOROUGH)
        arrived = search.is_fixed(again)
        found = search.settled(np.concatenate([found, again[arrived]]))

    own = search.is_among(ended, found) & (search.distance(ended, fallen) <= _NEAR * (1 + search.size(fallen)))
    slowly = fallen[search.is_still(fallen, slow) & ~own]
    near, far = _apart(found, starts, outlier_distance)
    return FixedPoints(
        fixed=search.points(found[near]),
        slow=search.points(search.distinct(slowly, 10 * slow)),
        outliers=search.points(found[far]),
        candidates=len(fixed),
        converged=int((fixed | arrived).sum()),
        bounded=cell.bounded,
        x=given,
    )


def _checked(cell: Any, params: Any, x: Any, candidates: Any) -> tuple[Any, Array, np.ndarray]:
    """Parameters and input [D] in one library, and candidates as joint states [N, S] in NumPy."""
    if is_traced(params, x, candidates):
        raise TypeError("fixed_points reads the numbers that it finds and cannot run inside a JAX transformation")
    if candidates is None:
        raise TypeError("candidates is None; expected a recorded pass, or states to start from")
    if isinstance(candidates, (History, LayeredHistory)):
        counts = None if candidates.counts is None else fetched(candidates.counts).reshape(-1)

        def rows(field: Array) -> Array:
            flat = field.reshape(-1, field.shape[-1])
            return flat if counts is None else flat[np.flatnonzero(counts)]

        candidates = map_tree(rows, candidates.states)
    params, x, candidates, batch = constant(cell, params, x, candidates, name="candidates")
    if len(batch) != 1:
        raise ValueError(
            f"candidates has the axes {batch} in front; expected [N, hidden_size], a row for each start"
        )
    return params, x, np.array(fetched(cell.pack(candidates)))


class _Search:
    """What the search does with many joint states at once, [N, S] in NumPy."""

    def __init__(self, cell: Any, params: Any, x: Array, tolerance: float):
        self.cell, self.params, self.x, self.tolerance = cell, params, x, tolerance
        self.jax = is_jax(namespace(x))

    def fall(self, states: np.ndarray, iterations: int, rate: float) -> np.ndarray:
        """Each state at the foot of q."""
        if self.jax:
            given = namespace(self.x).asarray(states)
            return np.array(_adam(self.cell, self.params, self.x, given, iterations=iterations, rate=rate))
        return _levenberg_marquardt(self.cell, self.params, self.x, states, iterations)

    def newton(self, states: np.ndarray, cap: float, iterations: int) -> np.ndarray:
        """Newton's method from each state; those that have converged rest."""
        count, size = len(states), max(1, _GROUP_ELEMENTS // self.cell.state_size**2)
        size = min(size, count) if self.jax else count
        now, active = states.copy(), np.arange(count)
        for _ in range(0, iterations, _ROUND):
            for start in range(0, len(active), size):
                part = active[start : start + size]
                padded = np.resize(part, size) if self.jax else part  # one shape, one compiled program
                now[part] = self._improved(now[padded], cap, _ROUND)[: len(part)]
            active = active[self._moving(now[active])]
            if not len(active):
                break
        return now

    def _improved(self, states: np.ndarray, cap: float, steps: int) -> np.ndarray:
        given = namespace(self.x).asarray(states)
        with np.errstate(all="ignore"):  # what is no number comes from a singular matrix, and is seen to
            return fetched(_newton(self.cell, self.params, self.x, given, cap, steps=steps))

    def _moving(self, states: np.ndarray) -> np.ndarray:
        """Whether each state is a number yet to converge, [N]."""
        return ~self.is_still(states, 0.1 * self.tolerance) & np.isfinite(self.size(states))

    def is_still(self, states: np.ndarray, tolerance: float) -> np.ndarray:
        """Whether each state moves by at most `tolerance` of its size, [N]."""
        with np.errstate(invalid="ignore"):
            return self.distance(self._after(states), states) <= tolerance * (1 + self.size(states))

    def is_fixed(self, states: np.ndarray) -> np.ndarray:
        """Whether each state stands still, and Newton's method would leave it where it is, [N].

        Where a gate that keeps the state is all but 1, a state moves by less than any tolerance long before it is
        near a fixed point; the step of Newton's method tells.
        """
        moved = self._improved(states, _UNCAPPED, 1)
        with np.errstate(invalid="ignore"):
            close = self.distance(moved, states) <= math.sqrt(self.tolerance) * (1 + self.size(states))
        return self.is_still(states, self.tolerance) & close

    def is_determined(self, states: np.ndarray) -> np.ndarray:
        """Whether rounding leaves a fixed point where it is, [N].

        Not where I − J is singular to rounding: where a gate that keeps the state rounds to 1, every state stands
        still, however far from the fixed point.
        """
        size, dtype = self.cell.state_size, np.dtype(self.x.dtype)
        least = size * float(np.finfo(dtype).eps) / math.sqrt(self.tolerance)
        away = [np.linalg.svd(np.eye(size) - self._jacobian(one), compute_uv=False)[-1] for one in states]
        return np.array(away) > least

    def settled(self, states: np.ndarray) -> np.ndarray:
        """Each fixed point once, without those that rounding does not leave where they are."""
        states = self.distinct(states)
        return states[self.is_determined(states)]

    def is_among(self, states: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each state is one of the others to within the square root of the tolerance, [N]."""
        near = math.sqrt(self.tolerance) * (1 + self.size(states))
        with np.errstate(invalid="ignore"):
            gaps = [self.distance(states, one) <= near for one in others]
        return np.any(gaps, axis=0) if gaps else np.zeros(len(states), bool)

    def _after(self, states: np.ndarray) -> np.ndarray:
        return fetched(_step(self.cell, self.params, self.x, namespace(self.x).asarray(states))[0])

    @staticmethod
    def distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Greatest difference of a coordinate, [N]."""
        return np.abs(left - right).max(axis=-1)

    @staticmethod
    def size(states: np.ndarray) -> np.ndarray:
        """Greatest magnitude of a coordinate, [N]."""
        return np.abs(states).max(axis=-1)

    def distinct(self, states: np.ndarray, near: float | None = None) -> np.ndarray:
        """Each state once: of those closer than `near`, relative to their size, the one of least q.

        None is the square root of the tolerance.
        """
        near = math.sqrt(self.tolerance) if near is None else near
        kept: list[int] = []
        for index in np.argsort(self.q(states), kind="stable"):
            apart = np.abs(states[kept] - states[index]).max(axis=-1, initial=0.0)
            if not kept or (apart > near * (1 + np.abs(states[index]).max())).all():
                kept.append(int(index))
        return states[kept]

    def q(self, states: np.ndarray) -> np.ndarray:
        """½ ‖s − F(s)‖², [N]."""
        if not len(states):
            return np.zeros(0, states.dtype)
        return 0.5 * np.sum((self._after(states) - states) ** 2, axis=-1)

    def eigenvalues(self, states: np.ndarray) -> np.ndarray:
        """Of the Jacobian at each state, of greatest magnitude first, [N, S]."""
        found = np.zeros((len(states), self.cell.state_size), complex)
        for index, one in enumerate(states):
            found[index] = np.linalg.eigvals(self._jacobian(one))
        return np.take_along_axis(found, np.argsort(-np.abs(found), axis=-1, kind="stable"), axis=-1)

    def _jacobian(self, state: np.ndarray) -> np.ndarray:
        """J at a state, [S, S], NumPy float64."""
        one = namespace(self.x).asarray(state[None])
        return fetched(_step(self.cell, self.params, self.x, one, jacobian=True)[1][0], np.float64)

    def points(self, states: np.ndarray) -> Points:
        """The states with their eigenvalues, by the number of unstable modes."""
        xp, eigenvalues, q = namespace(self.x), self.eigenvalues(states), self.q(states)
        order = np.argsort(Points(states, q, eigenvalues).unstable_modes, kind="stable")
        return Points(self.cell.unpack(xp.asarray(states[order])), xp.asarray(q[order]), eigenvalues[order])


def _apart(found: np.ndarray, candidates: np.ndarray, distance: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of points near the candidates, and of those farther away than `distance` of their own spread."""
    centre = candidates.mean(axis=0)
    spread = math.sqrt(np.mean(np.sum((candidates - centre) ** 2, axis=-1)))
    away = np.linalg.norm(found - centre, axis=-1) > (math.inf if distance is None else distance * spread)
    return np.flatnonzero(~away), np.flatnonzero(away)


@jit(static=("cell", "jacobian"))
def _step(cell: Any, params: Any, x: Array, states: Array, jacobian: bool = False) -> tuple[Array, Any]:
    """F(s) of each joint state [N, S], and with `jacobian` J, [N, S, S]."""
    after, steps = _moved(cell, params, x, states)
    return after, steps.matrices() if jacobian else None


def _moved(cell: Any, params: Any, x: Array, states: Array) -> tuple[Array, Any]:
    """F(s) of each joint state [N, S], and the linear maps there."""
    xs = namespace(x).broadcast_to(x, (1, len(states), cell.input_size))
    history = record(cell, params, xs, cell.unpack(states))
    return cell.pack(history.final), steps_of(history)[0]


@jit(static=("cell", "steps"))
def _newton(cell: Any, params: Any, x: Array, states: Array, cap: float, steps: int) -> Array:
    """Newton's method on s − F(s), no coordinate moving by more than `cap` in an iteration."""
    xp = namespace(x, states)

    def step(states: Array, _: Array) -> tuple[Array, None]:
        after, at = _moved(cell, params, x, states)
        residual = after - states
        move = at.newton_step(residual)
        greatest = xp.max(xp.abs(move), axis=-1)
        usable = xp.isfinite(greatest)[..., None]
        factor = cap / xp.where(greatest > cap, greatest, xp.full_like(greatest, cap))
        return states + xp.where(usable, move * factor[..., None], residual), None

    return scan(step, states, xp.arange(steps))[0]


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
        after, jacobian = _step(cell, params, x, s[None].astype(x.dtype), jacobian=True)
        return after[0] - s, jacobian[0] - np.eye(len(s))

    options = {"maxiter": iterations}
    found = [root(away, start, jac=True, method="lm", options=options).x for start in states]
    return np.stack(found).astype(x.dtype)

"""`fixed_points`: candidates fall towards points where the state stands still, and Newton's method finishes."""

from __future__ import annotations

import functools
import math
from numbers import Real
from typing import Any

import numpy as np

from lstmx.arrays import (
    Array,
    columns,
    is_jax,
    is_traced,
    jax,
    jit,
    leaves,
    map_tree,
    namespace,
    require,
    scan,
    to_numpy,
)
from lstmx.checks import constant, positive
from lstmx.checks import state as check_state
from lstmx.dynamics.points import FixedPoints, Points, index_sum

_QUICK = 8.0, 40  # greatest step of a coordinate, and iterations: cell states lie far out
_THOROUGH = 0.3, 300
_UNCAPPED = 1e30
_ROUND = 10  # iterations between two looks at what has converged
_GROUP_ELEMENTS = 2**20  # of Jacobians at a time
_NEAR = 0.1  # of its size: how far a slow point's own fixed point would be


def fixed_points(
    cell: Any,
    params: Any,
    x: Array | None,
    candidates: Any,
    *,
    iterations: int = 500,
    learning_rate: float = 0.1,
    tolerance: float | None = None,
    slow: float = 1e-3,
    outlier_distance: float | None = None,
    thorough: bool | None = None,
) -> FixedPoints:
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
        candidates: starting points, a state with a leading axis, fields [N, H]; such as states of a recorded pass,
            `lstmx.LSTMState(*(field[::10] for field in history.states))`.
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
        >>> states = lstmx.record(cell, params, numpy.random.default_rng(1).normal(size=(20, 3))).states
        >>> lstmx.fixed_points(cell, params, None, states).census
        {0: 1}
    """
    if tolerance is None:
        tolerance = 1e-11 if params[0].dtype == np.float64 else 1e-5
    positive("iterations", iterations)
    numbers = {"learning_rate": learning_rate, "tolerance": tolerance, "slow": slow}
    numbers |= {} if outlier_distance is None else {"outlier_distance": outlier_distance}
    for name, value in numbers.items():
        if not (isinstance(value, Real) and 0 < value < math.inf):
            raise ValueError(f"{name} is {value!r}; expected a positive number")
    params, x, candidates = _checked(cell, params, x, candidates)
    search = _Search(cell, params, x, tolerance)

    fallen = search.fall(candidates, int(iterations), learning_rate)
    ended = search.newton(fallen, *_QUICK)
    fixed = search.is_fixed(ended)
    found = search.settled(search.take(ended, fixed))
    arrived = fixed
    missing = cell.bounded and thorough is None and index_sum(search.eigenvalues(found)) != 1
    if thorough or missing:
        again = search.newton(candidates, *_THOROUGH)
        arrived = search.is_fixed(again)
        found = search.settled(
            map_tree(lambda a, b: namespace(a, b).concat([a, b]), found, search.take(again, arrived))
        )

    own = search.is_among(ended, found) & (search.distance(ended, fallen) <= _NEAR * (1 + search.size(fallen)))
    slowly = search.take(fallen, search.is_still(fallen, slow) & ~own)
    near, far = _apart(found, candidates, outlier_distance)
    return FixedPoints(
        fixed=search.points(search.take(found, near)),
        slow=search.points(search.distinct(slowly, 10 * slow)),
        outliers=search.points(search.take(found, far)),
        candidates=len(fixed),
        converged=int((fixed | arrived).sum()),
        bounded=cell.bounded,
        x=x,
    )


def _checked(cell: Any, params: Any, x: Any, candidates: Any) -> tuple[Any, Array, Any]:
    """Parameters, input [D] and candidates, in one library."""
    if is_traced(params, x, candidates):
        raise TypeError("fixed_points reads the numbers that it finds and cannot run inside a JAX transformation")
    count = 0
    if isinstance(candidates, cell.state_type) and hasattr(candidates[0], "shape"):
        shape = tuple(candidates[0].shape)
        if len(shape) != 2:
            raise ValueError(
                f"candidates.hidden has shape {shape}; expected [N, hidden_size], a row for each start"
            )
        count = shape[0]
    check_state(cell, params, candidates, (count,), name="candidates")
    if count == 0:
        raise ValueError("candidates has no states; expected fields [N, hidden_size] with N of at least 1")
    return constant(cell, params, x, candidates, (count,), name="candidates")


class _Search:
    """What the search does with many states at once, each a state with a leading axis."""

    def __init__(self, cell: Any, params: Any, x: Array, tolerance: float):
        self.cell, self.params, self.x, self.tolerance = cell, params, x, tolerance
        self.jax = is_jax(namespace(x))

    def fall(self, states: Any, iterations: int, rate: float) -> Any:
        """Each state at the foot of q."""
        if self.jax:
            return _adam(self.cell, self.params, self.x, states, iterations=iterations, rate=rate)
        return _levenberg_marquardt(self.cell, self.params, self.x, states, iterations)

    def newton(self, states: Any, cap: float, iterations: int) -> Any:
        """Newton's method from each state; those that have converged rest."""
        count, size = len(states[0]), max(1, _GROUP_ELEMENTS // self.cell.state_size**2)
        size = min(size, count) if self.jax else count
        now = [np.array(field) for field in states]
        active = np.arange(count)
        for _ in range(0, iterations, _ROUND):
            for start in range(0, len(active), size):
                part = active[start : start + size]
                padded = np.resize(part, size) if self.jax else part  # one shape, one compiled program
                given = self._state([field[padded] for field in now])
                made = self._improved(given, cap, _ROUND)
                for field, value in zip(now, made, strict=True):
                    field[part] = np.asarray(value)[: len(part)]
            active = active[self._moving(self._state([field[active] for field in now]))]
            if not len(active):
                break
        return self._state(now)

    def _improved(self, states: Any, cap: float, steps: int) -> Any:
        with np.errstate(all="ignore"):  # what is no number comes from a singular matrix, and is seen to
            return _newton(self.cell, self.params, self.x, states, cap, steps=steps)

    def _moving(self, states: Any) -> np.ndarray:
        """Whether each state is a number yet to converge, [N]."""
        return ~self.is_still(states, 0.1 * self.tolerance) & np.isfinite(self.size(states))

    def _state(self, fields: list[np.ndarray]) -> Any:
        return self.cell.state_type(*(namespace(self.x).asarray(field) for field in fields))

    def is_still(self, states: Any, tolerance: float) -> np.ndarray:
        """Whether each state moves by at most `tolerance` of its size, [N]."""
        with np.errstate(invalid="ignore"):
            return self.distance(self._after(states), states) <= tolerance * (1 + self.size(states))

    def is_fixed(self, states: Any) -> np.ndarray:
        """Whether each state stands still, and Newton's method would leave it where it is, [N].

        Where a gate that keeps the state is all but 1, a state moves by less than any tolerance long before it is
        near a fixed point; the step of Newton's method tells.
        """
        moved = self._improved(states, _UNCAPPED, 1)
        with np.errstate(invalid="ignore"):
            close = self.distance(moved, states) <= math.sqrt(self.tolerance) * (1 + self.size(states))
        return self.is_still(states, self.tolerance) & close

    def is_determined(self, states: Any) -> np.ndarray:
        """Whether rounding leaves a fixed point where it is, [N].

        Not where I − J is singular to rounding: where a gate that keeps the state rounds to 1, every state stands
        still, however far from the fixed point.
        """
        size, dtype = self.cell.state_size, np.dtype(self.x.dtype)
        least = size * float(np.finfo(dtype).eps) / math.sqrt(self.tolerance)
        return np.array([self._distance_from_singular(states, k) > least for k in range(len(states[0]))], bool)

    def _distance_from_singular(self, states: Any, index: int) -> float:
        matrix = np.eye(self.cell.state_size) - self._jacobian(states, index)
        return float(np.linalg.svd(matrix, compute_uv=False)[-1])

    def settled(self, states: Any) -> Any:
        """Each fixed point once, without those that rounding does not leave where they are."""
        states = self.distinct(states)
        return self.take(states, self.is_determined(states))

    def is_among(self, states: Any, others: Any) -> np.ndarray:
        """Whether each state is one of the others to within the square root of the tolerance, [N]."""
        left, right = (np.concatenate(to_numpy(fields), axis=-1) for fields in (states, others))
        near = math.sqrt(self.tolerance) * (1 + self.size(states))
        with np.errstate(invalid="ignore"):
            gaps = [np.abs(left - one).max(axis=-1) <= near for one in right]
        return np.any(gaps, axis=0) if gaps else np.zeros(len(left), bool)

    def _after(self, states: Any) -> Any:
        return to_numpy(_step(self.cell, self.params, self.x, states)[0])

    @staticmethod
    def distance(left: Any, right: Any) -> np.ndarray:
        """Greatest difference of a coordinate, [N]."""
        pairs = zip(to_numpy(left), to_numpy(right), strict=True)
        return functools.reduce(np.maximum, (np.abs(a - b).max(axis=-1) for a, b in pairs))

    @staticmethod
    def size(states: Any) -> np.ndarray:
        """Greatest magnitude of a coordinate, [N]."""
        return functools.reduce(np.maximum, (np.abs(np.asarray(field)).max(axis=-1) for field in states))

    @staticmethod
    def take(states: Any, which: np.ndarray) -> Any:
        """The states where `which` [N] is true, or at its indices."""
        index = np.flatnonzero(which) if which.dtype == bool else which
        return map_tree(lambda x: x[index], states)

    def distinct(self, states: Any, near: float | None = None) -> Any:
        """Each state once: of those closer than `near`, relative to their size, the one of least q.

        None is the square root of the tolerance.
        """
        near = math.sqrt(self.tolerance) if near is None else near
        fields = np.concatenate(to_numpy(states), axis=-1)
        order = np.argsort(self.q(states), kind="stable")
        kept: list[int] = []
        for index in order:
            apart = np.abs(fields[kept] - fields[index]).max(axis=-1, initial=0.0)
            if not kept or (apart > near * (1 + np.abs(fields[index]).max())).all():
                kept.append(int(index))
        return self.take(states, np.array(kept, int))

    def q(self, states: Any) -> np.ndarray:
        """½ ‖s − F(s)‖², [N]."""
        pairs = zip(self._after(states), to_numpy(states), strict=True)
        return 0.5 * np.sum([np.sum((a - b) ** 2, axis=-1) for a, b in pairs], axis=0)

    def eigenvalues(self, states: Any) -> np.ndarray:
        """Of the Jacobian at each state, of greatest magnitude first, [N, S]."""
        size = self.cell.state_size
        found = np.zeros((len(states[0]), size), complex)
        for index in range(len(found)):
            found[index] = np.linalg.eigvals(self._jacobian(states, index))
        return np.take_along_axis(found, np.argsort(-np.abs(found), axis=-1, kind="stable"), axis=-1)

    def _jacobian(self, states: Any, index: int) -> np.ndarray:
        """J at one of the states, [S, S], NumPy float64."""
        one = self.take(states, np.array([index]))
        return np.asarray(_step(self.cell, self.params, self.x, one, jacobian=True)[1][0], np.float64)

    def points(self, states: Any) -> Points:
        """The states with their eigenvalues, by the number of unstable modes."""
        points = Points(states, namespace(self.x).asarray(self.q(states)), self.eigenvalues(states))
        order = np.argsort(points.unstable_modes, kind="stable")
        return Points(self.take(states, order), points.q[order], points.eigenvalues[order])


def _apart(found: Any, candidates: Any, distance: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of points near the candidates, and of those farther away than `distance` of their own spread."""
    points, cloud = (np.concatenate(to_numpy(states), axis=-1) for states in (found, candidates))
    centre = cloud.mean(axis=0)
    spread = math.sqrt(np.mean(np.sum((cloud - centre) ** 2, axis=-1)))
    away = np.linalg.norm(points - centre, axis=-1) > (math.inf if distance is None else distance * spread)
    return np.flatnonzero(~away), np.flatnonzero(away)


@jit(static=("cell", "jacobian"))
def _step(cell: Any, params: Any, x: Array, states: Any, jacobian: bool = False) -> tuple[Any, Any]:
    """F(s) of each state, and with `jacobian` J, [N, S, S]."""
    after, a = cell.step(params, states, _inputs(cell, x, states))
    return after, cell.jacobian(params, cell.linearise(params, states, a, after)) if jacobian else None


def _inputs(cell: Any, x: Array, states: Any) -> Array:
    return namespace(x).broadcast_to(x, (*states.hidden.shape[:-1], cell.input_size))


@jit(static=("cell", "steps"))
def _newton(cell: Any, params: Any, x: Array, states: Any, cap: float, steps: int) -> Any:
    """Newton's method on s − F(s), no coordinate moving by more than `cap` in an iteration."""
    xp = namespace(*params, *states)
    xs = _inputs(cell, x, states)

    def step(states: Any, _: Array) -> tuple[Any, None]:
        after, a = cell.step(params, states, xs)
        residual = map_tree(lambda new, old: new - old, after, states)
        move = cell.newton_step(params, cell.linearise(params, states, a, after), residual)
        greatest = functools.reduce(xp.maximum, (xp.max(xp.abs(field), axis=-1) for field in leaves(move)))
        usable = xp.isfinite(greatest)[..., None]
        factor = cap / xp.where(greatest > cap, greatest, xp.full_like(greatest, cap))
        move = map_tree(lambda x, r: xp.where(usable, x * factor[..., None], r), move, residual)
        return map_tree(lambda x, y: x + y, states, move), None

    return scan(step, states, xp.arange(steps))[0]


@jit(static=("cell", "iterations", "rate"))
def _adam(cell: Any, params: Any, x: Array, states: Any, iterations: int, rate: float) -> Any:
    """Each state after `iterations` of Adam on its own q."""
    optax = require("optax", "fixed_points under JAX")
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, iterations))
    xs = _inputs(cell, x, states)

    def step(carry: Any, _: Array) -> tuple[Any, None]:
        states, memory = carry
        after, a = cell.step(params, states, xs)
        away = map_tree(lambda old, new: old - new, states, after)
        back, _ = cell.pullback(params, states, a, after, away)
        slope = map_tree(lambda r, b: r - b, away, back)  # ∂q/∂s = (I − J)ᵀ (s − F(s))
        change, memory = optimiser.update(slope, memory)
        return (optax.apply_updates(states, change), memory), None

    return jax.lax.scan(step, (states, optimiser.init(states)), None, length=iterations)[0][0]


def _levenberg_marquardt(cell: Any, params: Any, x: Array, states: Any, iterations: int) -> Any:
    """Each state at the foot of its q, by SciPy's `root`, one after the other."""
    root = require("scipy.optimize", "fixed_points in NumPy").root

    def unpacked(s: np.ndarray) -> Any:
        return cell.state_type(*columns(s.astype(x.dtype), cell.field_sizes))

    def away(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        after, jacobian = _step(cell, params, x, unpacked(s[None]), jacobian=True)
        return np.concatenate(after, axis=-1)[0] - s, jacobian[0] - np.eye(len(s))

    starts, options = np.concatenate(states, axis=-1), {"maxiter": iterations}
    return unpacked(np.stack([root(away, start, jac=True, method="lm", options=options).x for start in starts]))

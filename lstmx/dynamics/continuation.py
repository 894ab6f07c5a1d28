"""`continue_fixed_points`: fixed points followed along a number that a network depends on, and where they change.

A branch is a curve of (s, v) with F(s; v) = s. Each step predicts along the tangent and corrects by Newton's
method on F(s; v) = s and the step's length along that tangent, which goes around folds. Coordinates are measured
by their own size, 1 + |s_i|, and v by the length of its range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import numpy as np

from lstmx.arrays import all_finite, dtype_of, fetched, is_traced, leaves, map_tree, namespace, result
from lstmx.cells.base import Cell, P, S
from lstmx.checks import cells_of, constant, finite_number, one_direction, parameters, positive
from lstmx.dynamics.fixed_points import tolerance_for
from lstmx.dynamics.points import FixedPoints, Points, counted
from lstmx.dynamics.search import step_of

_FIRST, _LONGEST, _SHORTEST = 0.01, 0.04, 1e-7  # of steps, in lengths of the range
_TURN = 0.98  # least cosine between the tangents of neighbours
_CORRECTIONS = 10
_HALVINGS = 60  # at most, of a bracket


@result
class Branch(Generic[S]):
    """One curve of fixed points, in the order in which it was followed.

    Attributes:
        values: of what the network depends on, [n]; NumPy.
        states: fields [n, H].
        eigenvalues: of J at each, of greatest magnitude first, [n, S]; NumPy complex.
    """

    values: np.ndarray
    states: S
    eigenvalues: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def unstable_modes(self) -> np.ndarray:
        """Number of eigenvalues outside the unit circle, [n]."""
        return (np.abs(self.eigenvalues) > 1).sum(axis=-1)

    @property
    def stable(self) -> np.ndarray:
        """Whether all eigenvalues lie within the unit circle, [n]."""
        return self.unstable_modes == 0

    def __repr__(self) -> str:
        return f"Branch({len(self)} points from {self.values[0]:.6g} to {self.values[-1]:.6g})"


@result(static=("kind", "value", "branch"))
class Bifurcation(Generic[S]):
    """Where a branch of fixed points loses or gains a mode, turns or meets another.

    Attributes:
        kind: "fold", where two points meet and vanish: an eigenvalue is 1 and the branch turns; "branch point",
            where branches cross, as in a pitchfork: an eigenvalue is 1; "flip", where a cycle of two begins or
            ends: an eigenvalue is −1; "Neimark–Sacker point", where a pair crosses the unit circle.
        value: of what the network depends on.
        branch: the index of the branch.
        state: fields [H].
        eigenvalues: of J there, of greatest magnitude first, [S]; NumPy complex.
    """

    kind: str
    value: float
    branch: int
    state: S
    eigenvalues: np.ndarray

    def __repr__(self) -> str:
        return f"Bifurcation({self.kind} at {self.value:.10g})"


@result
class Continuation(Generic[S]):
    """Branches of fixed points, and the points where they change.

    Attributes:
        branches: a curve each, from every point that was given unless another one came through it.
        bifurcations: in the order of branches, and along them.
        complete: whether each branch was followed to an end of the range, [number of branches]; NumPy booleans.
    """

    branches: tuple[Branch[S], ...]
    bifurcations: tuple[Bifurcation[S], ...]
    complete: np.ndarray

    def summary(self) -> str:
        """The branches and where they change, in words."""
        lines = [
            f"{len(self.branches)} branch{'es' * (len(self.branches) != 1)} of fixed points with "
            f"{counted(len(self.bifurcations), 'bifurcation')}"
        ]
        for k, branch in enumerate(self.branches):
            lines.append(
                f"  branch {k}: {counted(len(branch), 'point')} from {branch.values[0]:.6g} to "
                f"{branch.values[-1]:.6g}, {int(branch.stable.sum())} stable"
            )
            lines += [f"    {p.kind} at {p.value:.10g}" for p in self.bifurcations if p.branch == k]
            if not self.complete[k]:
                lines.append("    WARNING: it ends before the range does: try more steps=, or a wider range")
        return "\n".join(lines)

    __str__ = summary

    def __repr__(self) -> str:
        return f"Continuation({len(self.branches)} branches, {len(self.bifurcations)} bifurcations)"


def continue_fixed_points(
    cell: Cell[P, S],
    params_of: Callable[[float], P] | list[P] | P,
    values: Any,
    points: FixedPoints[S] | Points[S] | S,
    x: Any = None,
    *,
    steps: int = 2000,
) -> Continuation[S]:
    """Follow fixed points along an input, a gain, or the checkpoints of a training, by pseudo-arclength.

    Folds, where a branch turns, are gone around; a branch ends where it leaves the range of `values`. Between two
    neighbours where the number of unstable modes or the direction changes, the place is found by halving, to about
    the accuracy of the dtype: float64 is advised.

    Args:
        cell: the cell.
        params_of: parameters as a function of the value; or a list of parameters, such as checkpoints, one for
            each of `values`, with straight lines between them; or parameters, where `x` depends on the value.
        values: numbers that rise or fall, at least two: from the first, where the points are, to the last. A
            branch has a point at each value that it comes to, and at each bifurcation.
        points: the fixed points at the first value, from `fixed_points`; or states, fields [*N, H].
        x: the constant input, [D]; a function of the value that gives one; None for zeros.
        steps: the most points of a branch.

    Returns:
        The branches with states and eigenvalues, and the folds, branch points, flips and Neimark–Sacker points.

    Raises:
        TypeError: an argument, or what a function returns, is of the wrong kind or dtype, or inside a JAX
            transformation.
        ValueError: an argument, or what a function returns, has the wrong shape or holds NaN or infinity; values
            do not rise or fall; a point is no fixed point at the first value, or one where I − J is singular.

    References:
        Keller, "Numerical solution of bifurcation and nonlinear eigenvalue problems", 1977, for pseudo-arclength;
        Kuznetsov, "Elements of Applied Bifurcation Theory", Springer, for the bifurcations of maps.

    Example:
        >>> import lstmx, numpy
        >>> cell, zero = lstmx.SimpleRNN(1, 1), numpy.zeros((1, 1))
        >>> gain = lambda w: lstmx.SimpleRNNParams(zero, numpy.array([[w]]), numpy.zeros(1))
        >>> lstmx.continue_fixed_points(cell, gain, [0.5, 2.0], lstmx.SimpleRNNState(zero)).bifurcations
        (Bifurcation(branch point at 1),)
    """
    positive("steps", steps, 2)
    if is_traced(params_of if not callable(params_of) else None, points, x if not callable(x) else None):
        raise TypeError(
            "continue_fixed_points reads the numbers that it finds and cannot run inside a JAX transformation"
        )
    cells_of("cell", cell)
    one_direction(cell)
    grid = _grid(values)
    network = _Network(cell, params_of, x, grid)
    starts = _starts(cell, network, grid, points)
    path = _Path(cell, network, grid, int(steps))
    branches, bifurcations, complete = [], [], []
    ends: list[np.ndarray] = []
    for k, start in enumerate(starts):
        state = path.started(start, k)
        if any((np.abs(state - end) <= path.near * (1 + np.abs(end))).all() for end in ends):
            continue  # a branch came back through it
        curve, events, whole = path.followed(state)
        if curve[-1].value == grid[0]:
            ends.append(curve[-1].state)
        ends.append(state)
        form = network.unpacked(np.stack([p.state for p in curve]))
        values_of, eigenvalues = np.array([p.value for p in curve]), np.stack([p.eigenvalues for p in curve])
        bifurcations += [
            Bifurcation(kind, p.value, len(branches), network.unpacked(p.state), p.eigenvalues)
            for kind, p in events
        ]
        branches.append(Branch(values_of, form, eigenvalues))
        complete.append(whole)
    return Continuation(tuple(branches), tuple(bifurcations), np.array(complete, bool))


def _grid(values: Any) -> np.ndarray:
    """Values as floats that rise or fall."""
    expected = "expected at least two numbers that rise or fall, such as [0.5, 2.0]"
    if not isinstance(values, (list, tuple, np.ndarray, range)) or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"values is {_shown(values)}; {expected}")
    if len(values) < 2:
        raise ValueError(f"values has {counted(len(values), 'number')}; {expected}")
    for value in values:
        finite_number("values", value, expected.removeprefix("expected "))
    grid = np.array([float(value) for value in values])
    if not ((np.diff(grid) > 0).all() or (np.diff(grid) < 0).all()):
        raise ValueError(f"values is {_shown(values)}; {expected}")
    return grid


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"a {type(value).__name__}"


class _Network:
    """Parameters and input by value."""

    def __init__(self, cell: Any, params_of: Any, x: Any, grid: np.ndarray):
        self.cell, self.params_of, self.x, self.grid = cell, params_of, x, grid
        self.by_list = isinstance(params_of, list)
        self.by_function = callable(params_of)
        if self.by_list and len(params_of) != len(grid):
            raise ValueError(
                f"params_of has {counted(len(params_of), 'checkpoint')} and values {len(grid)} numbers; expected "
                "one value for each"
            )
        if not (self.by_list or self.by_function or callable(x)):
            raise TypeError(
                f"params_of is a {type(params_of).__name__}, and x is no function, so that nothing depends on the "
                "value; expected a function of the value, such as lambda gain: …, or a list of parameters"
            )
        given = list(params_of) if self.by_list else [self.params(value) for value in grid]
        for k, (value, params) in enumerate(zip(grid, given, strict=True)):
            name = (
                f"params_of[{k}]" if self.by_list else f"params_of({value:g})" if self.by_function else "params_of"
            )
            self._check(name, params, given[0])

    def _check(self, name: str, params: Any, first: Any) -> None:
        """Raise unless these are parameters whose numbers can be read, alike to the first ones."""
        parameters(self.cell, params, name)
        if is_traced(params):
            raise TypeError(f"{name} is inside a JAX transformation; expected numbers that can be read")
        if dtype_of(params) != dtype_of(first):
            raise TypeError(
                f"{name} holds {dtype_of(params)}, and the first ones {dtype_of(first)}; expected one dtype"
            )
        if not all(map(all_finite, leaves(params))):
            raise ValueError(f"{name} holds NaN or infinity; expected finite numbers")

    def params(self, value: float) -> Any:
        """The parameters at a value."""
        if self.by_function:
            return self.params_of(float(value))
        if not self.by_list:
            return self.params_of
        rising = self.grid if self.grid[0] < self.grid[-1] else -self.grid
        at = value if rising is self.grid else -value
        k = int(np.clip(np.searchsorted(rising, at, side="right") - 1, 0, len(rising) - 2))
        share = float((at - rising[k]) / (rising[k + 1] - rising[k]))
        return map_tree(lambda a, b: a + share * (b - a), self.params_of[k], self.params_of[k + 1])

    def input(self, value: float) -> Any:
        """What is given for x at a value."""
        return self.x(float(value)) if callable(self.x) else self.x

    def at(self, value: float) -> tuple[Any, Any]:
        """Parameters and input [D] at a value, in one library."""
        params, given = self.params(value), self.input(value)
        xp = namespace(*leaves((params, given)))
        given = xp.zeros(self.cell.input_size, dtype=dtype_of(params)) if given is None else given
        return map_tree(xp.asarray, params), xp.asarray(given)

    def unpacked(self, states: np.ndarray) -> Any:
        """Joint states [*n, S] as those of the cell, in the parameters' library and dtype."""
        given = self.at(self.grid[0])[1]
        return self.cell.unpack(namespace(given).asarray(states.astype(np.dtype(given.dtype))))


def _starts(cell: Any, network: _Network, grid: np.ndarray, points: Any) -> np.ndarray:
    """The joint states of the points, [N, S], NumPy float64."""
    states = points.points if isinstance(points, FixedPoints) else points
    states = states.states if isinstance(states, Points) else states
    if states is None:
        raise TypeError("points is None; expected those from fixed_points, or states")
    values = grid if callable(network.x) else grid[:1]
    given = [(network.params(value), network.input(value)) for value in values]
    checked = [constant(cell, params, x, states, name="points")[2] for params, x in given]
    return fetched(cell.pack(checked[0]), np.float64).reshape(-1, cell.state_size)


class _Point(NamedTuple):
    """A fixed point on a branch."""

    state: np.ndarray
    value: float
    eigenvalues: np.ndarray
    tangent: np.ndarray  # of (s, v), each measured by its scale

    @property
    def modes(self) -> int:
        return int((np.abs(self.eigenvalues) > 1).sum())


class _Path:
    """Predictor and corrector."""

    def __init__(self, cell: Any, network: _Network, grid: np.ndarray, steps: int):
        self.cell, self.network, self.grid, self.steps = cell, network, grid, steps
        dtype = np.dtype(network.at(grid[0])[1].dtype)
        self.epsilon = float(np.finfo(dtype).eps)
        self.tolerance = tolerance_for(None, dtype)
        self.near = self.tolerance**0.5
        self.singular = 8 * self.epsilon**0.5
        self.length = abs(grid[-1] - grid[0])
        self.forward = float(np.sign(grid[-1] - grid[0]))

    # ------------------------------------------------------------------------------------------------- maps

    def residual(self, state: np.ndarray, value: float) -> np.ndarray:
        """F(s; v) − s."""
        return self._step(state, value)[0]

    def _step(self, state: np.ndarray, value: float, jacobian: bool = False) -> tuple[np.ndarray, Any]:
        params, x = self.network.at(value)
        given = namespace(x).asarray(state[None].astype(np.dtype(x.dtype)))
        after, matrix = step_of(self.cell, params, x, given, jacobian=jacobian)
        moved = fetched(after[0], np.float64) - fetched(given[0], np.float64)
        return moved, fetched(matrix[0], np.float64) if jacobian else None

    def slope(self, state: np.ndarray, value: float) -> np.ndarray:
        """∂F/∂v, by central differences within the range."""
        step = self.epsilon ** (1 / 3) * self.length
        low, high = sorted((self.grid[0], self.grid[-1]))
        ahead, behind = min(value + step, high), max(value - step, low)
        return (self.residual(state, ahead) - self.residual(state, behind)) / (ahead - behind)

    def scale(self, state: np.ndarray) -> np.ndarray:
        return np.append(1 + np.abs(state), self.length)

    def system(self, state: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
        """F(s; v) − s, and its derivatives by (s, v) in units of their scales, [S, S + 1]."""
        moved, matrix = self._step(state, value, jacobian=True)
        both = np.concatenate([matrix - np.eye(len(state)), self.slope(state, value)[:, None]], axis=1)
        return moved, both * self.scale(state)

    def point(self, state: np.ndarray, value: float, towards: np.ndarray) -> _Point:
        """A point with its tangent, on the side of `towards`."""
        _, both = self.system(state, value)
        tangent = _solve(np.concatenate([both, towards[None]]), np.append(np.zeros(len(state)), 1.0))
        matrix = both[:, :-1] / self.scale(state)[:-1] + np.eye(len(state))
        eigenvalues = np.linalg.eigvals(matrix).astype(complex)
        order = np.argsort(-np.abs(eigenvalues), kind="stable")
        return _Point(state, float(value), eigenvalues[order], tangent / np.linalg.norm(tangent))

    # ------------------------------------------------------------------------------------------------ steps

    def started(self, state: np.ndarray, k: int) -> np.ndarray:
        """The fixed point at the first value that is meant."""
        value = float(self.grid[0])
        moved, matrix = self._step(state, value, jacobian=True)
        away = float((np.abs(moved) / (1 + np.abs(state))).max())
        if away > max(1e-3, self.near):
            raise ValueError(
                f"points has a state, number {k}, that moves by {away:.2g} of its size in a step at the value "
                f"{value:g}; expected fixed points at the first of values"
            )
        least = np.linalg.svd(np.eye(len(state)) - matrix, compute_uv=False)[-1]
        if least <= self.singular:
            raise ValueError(
                f"points has a state, number {k}, where I − J is singular at the value {value:g}: branches meet "
                "or turn there, and none is told from the other; expected to start at a value before or behind"
            )
        found = self.at_value(state, value)
        if found is None or (np.abs(found - state) > 0.1 * (1 + np.abs(state))).any():
            raise ValueError(
                f"points has a state, number {k}, from where Newton's method leads to no fixed point at the value "
                f"{value:g}; expected fixed points at the first of values"
            )
        return found

    def at_value(self, state: np.ndarray, value: float) -> np.ndarray | None:
        """The fixed point at a value, by Newton's method from a state."""
        tangent = np.append(np.zeros(len(state)), 1.0)
        return self.corrected(np.append(state, value), tangent)[0]

    def corrected(self, guess: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray | None, float, int]:
        """The point of the branch in the plane through `guess` across the tangent; None where there is none."""
        state, value = guess[:-1].copy(), float(guess[-1])
        for count in range(_CORRECTIONS):
            moved, both = self.system(state, value)
            scale = self.scale(state)
            if not (np.isfinite(moved).all() and np.isfinite(both).all()):
                break
            change = _solve(np.concatenate([both, tangent[None]]), np.append(-moved, 0.0))
            still = (np.abs(moved) <= self.tolerance * scale[:-1]).all()
            state, value = state + change[:-1] * scale[:-1], float(value + change[-1] * scale[-1])
            if still and np.abs(change).max() <= self.near:
                return state, value, count
            if np.abs(change).max() > 1:
                break
        return None, value, _CORRECTIONS

    def moved(self, start: _Point, length: float) -> tuple[_Point | None, int]:
        """The point so far along a branch."""
        guess = np.append(start.state, start.value) + length * start.tangent * self.scale(start.state)
        state, value, count = self.corrected(guess, start.tangent)
        return (None if state is None else self.point(state, value, start.tangent)), count

    # ------------------------------------------------------------------------------------------- the branch

    def followed(self, state: np.ndarray) -> tuple[list[_Point], list[tuple[str, _Point]], bool]:
        """The points of a branch, its bifurcations, and whether it was followed to an end of the range."""
        ahead = np.append(np.zeros(len(state)), self.forward)
        curve, events, length = [self.point(state, float(self.grid[0]), ahead)], [], _FIRST
        while len(curve) < self.steps:
            here = curve[-1]
            there, count = self.moved(here, length)
            if there is None or (here.tangent @ there.tangent < _TURN and length > 100 * _SHORTEST):
                length /= 2
                if length < _SHORTEST:
                    return curve, events, False
                continue
            stop = self._stop(here, there)
            if stop is not None:
                landed = self._landed(here, there, stop)
                there = there if landed is None else landed
            between = self._events(here, there)
            events += between
            curve += [*(point for _, point in between if point.value != there.value), there]
            if there.value in (self.grid[0], self.grid[-1]) or not self._inside(there.value):
                known = [p.value for _, p in events]
                kind = self._kind_at_end(there)
                if kind and not any(abs(v - there.value) <= 1e-6 * self.length for v in known):
                    events.append((kind, there))
                return curve, events, True
            if count <= 3:
                length = min(1.5 * length, _LONGEST)
        return curve, events, False

    def _inside(self, value: float) -> bool:
        return min(self.grid[0], self.grid[-1]) < value < max(self.grid[0], self.grid[-1])

    def _stop(self, here: _Point, there: _Point) -> float | None:
        """The first of the values that a step reaches or goes over."""
        low, high = sorted((here.value, there.value))
        between = [v for v in self.grid if low <= v <= high and v != here.value]
        return min(between, key=lambda v: abs(v - here.value)) if between else None

    def _landed(self, here: _Point, there: _Point, stop: float) -> _Point | None:
        """The point of the step at this very value."""
        ahead = np.sign(stop - here.value) / self.length
        point, _ = self._located(here, here, there, lambda p: float(ahead * (p.value - stop)))
        if point is None:
            return None
        state = self.at_value(point.state, stop)
        if state is None or (np.abs(state - point.state) > 1e-3 * (1 + np.abs(state))).any():
            state = point.state
        return self.point(state, stop, here.tangent)

    def _events(self, here: _Point, there: _Point) -> list[tuple[str, _Point]]:
        """What happens between two neighbours."""
        found: list[tuple[str, _Point]] = []
        turns = here.tangent[-1] * there.tangent[-1] < 0
        start = here
        for _ in range(len(here.state)):
            if start.modes == there.modes:
                break
            modes = start.modes

            def beyond(p: _Point, modes: int = modes) -> float:
                return self._off(p) if p.modes != modes else -self._off(p)

            point, start = self._located(here, start, there, beyond)
            if point is None or start.modes == modes:
                break
            found.append((self._kind(point, turns), point))
        if turns and not any(kind == "fold" for kind, _ in found):
            sign = here.tangent[-1]
            point, _ = self._located(here, here, there, lambda p: -float(sign * p.tangent[-1]))
            if point is not None:
                found.append(("branch point", point))
        return found

    def _length(self, here: _Point, there: _Point) -> float:
        gap = np.append(there.state - here.state, there.value - here.value) / self.scale(here.state)
        return float(gap @ here.tangent)

    def _located(
        self, here: _Point, start: _Point, end: _Point, signed: Callable[[_Point], float]
    ) -> tuple[_Point | None, _Point]:
        """Where between two points of a step a number becomes positive, and the first known where it is.

        By straight lines through the ends of the bracket, the end that stays halved, and at each third step by its
        middle.
        """
        (low, first, below), (high, last, above) = ([self._length(here, p), p, signed(p)] for p in (start, end))
        side = 0
        for k in range(_HALVINGS):
            share = 0.5 if k % 3 == 2 or above <= below else -below / (above - below)
            middle = low + share * (high - low)
            point, _ = self.moved(here, middle)
            if point is None:
                return None, last
            value = signed(point)
            if value > 0:
                below, side = below / 2 if side > 0 else below, 1
                high, last, above = middle, point, value
            else:
                above, side = above / 2 if side < 0 else above, -1
                low, first, below = middle, point, value
            if abs(value) <= 4 * self.epsilon or high - low <= 4 * self.epsilon * max(abs(low), abs(high)):
                break
        return min(first, last, key=lambda p: abs(signed(p))), last

    @staticmethod
    def _off(point: _Point) -> float:
        """How far the eigenvalue nearest to the unit circle is from it."""
        return float(np.abs(np.abs(point.eigenvalues) - 1).min())

    def _kind(self, point: _Point, turns: bool) -> str:
        """What a mode that is lost or gained within a branch means."""
        value = point.eigenvalues[np.argmin(np.abs(np.abs(point.eigenvalues) - 1))]
        if abs(np.imag(value)) > self.near:
            return "Neimark–Sacker point"
        if np.real(value) < 0:
            return "flip"
        return "fold" if turns else "branch point"

    def _kind_at_end(self, point: _Point) -> str | None:
        """What happens at the very end of the range, if anything does."""
        if self._off(point) > self.singular:
            return None
        kind = self._kind(point, False)
        if kind != "branch point":
            return kind
        _, both = self.system(point.state, point.value)
        left = np.linalg.svd(both[:, :-1])[0][:, -1]
        slope = both[:, -1]
        return "fold" if abs(left @ slope) > 1e-3 * (1e-9 + np.linalg.norm(slope)) else "branch point"


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The least solution of a system that is singular where branches cross."""
    return np.linalg.lstsq(matrix, right, rcond=None)[0]

"""`fixed_points`: candidates fall towards points where the state stands still, and rounds find what they pass."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, namespace
from lstmx.cells.base import Cell, P, S
from lstmx.checks import constant, finite_number, positive, seeding
from lstmx.dynamics.points import FixedPoints, Points, index_sum
from lstmx.dynamics.search import Search
from lstmx.history import History
from lstmx.layers import LayeredHistory

_NEAR = 0.1  # of its size: how far a slow point's own fixed point would be
_FEWEST, _MOST = 100, 1000  # starts of a round
_QUIET = 2  # rounds that bring nothing before the search ends


def fixed_points(
    cell: Cell[P, S],
    params: P,
    x: Array | None,
    candidates: S | History[P, S] | LayeredHistory,
    *,
    rounds: int = 20,
    iterations: int = 500,
    learning_rate: float = 0.1,
    tolerance: float | None = None,
    slow: float = 1e-3,
    outlier_distance: float | None = None,
    seed: int = 0,
) -> FixedPoints[S]:
    """Find the fixed points of a cell under a constant input, s = F(s, x), and its slow points.

    Every candidate first falls down q(s) = ½ ‖s − F(s)‖²: by Adam under JAX, all at once; by SciPy's
    Levenberg–Marquardt root finder in NumPy. Newton's method with the exact Jacobian goes on from there.

    Then come rounds of 100 to 1,000 new starts each, from where Newton's method goes on in small steps:

    - candidates with noise of 0.01 to 3 times their own standard deviation, as they are and after 300 steps of
      the network under x, which end in every attractor;
    - of what was found, points between two or more, a + b − c, what lies beside a saddle after 300 steps, and
      what lies about a slow point.

    Rounds go on until two bring nothing new, the index sum is 1 where the theorem holds, and no point was found
    only once. Steps are measured by the size of the state, so that points are found as far out as states lie.

    No state is returned as fixed unless it passes the tolerance in the end, and Newton's method leaves it where it
    is. States that stand still along a line, as all do where a gate that keeps the state rounds to 1, are left out
    and said in the summary.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        x: the constant input, [D]; None for zeros.
        candidates: starting points: a recorded pass, whose states after all steps that count are taken, of every
            sequence (`history[:500]` has fewer); or states, fields [*N, H] with any axes in front.
        rounds: the most rounds; 0 for what the candidates alone lead to.
        iterations: of Adam under JAX; most function calls of the root finder per candidate in NumPy.
        learning_rate: of Adam, falling to 0 along a cosine; in units of the state.
        tolerance: greatest |s − F(s)| of a coordinate, relative to 1 + |s| of it, of a fixed point; None for 1e-11
            in float64 and 1e-5 in float32. Points closer than its square root, relative alike, are one.
        slow: the same of a slow point; slow points closer than ten times this are one.
        outlier_distance: fixed points farther from the candidates' mean than this many times the candidates' own
            root-mean-square distance are set apart as outliers; None for none.
        seed: of the rounds' draws.

    Returns:
        Fixed points, slow points, their eigenvalues, how often each was found, and a `summary()` that warns where
        points are missing.

    Raises:
        TypeError: an argument is of the wrong kind or dtype, or inside a JAX transformation.
        ValueError: an argument has the wrong shape, a number is not positive, `tolerance` is below what rounding
            leaves, NaN or infinity came in, or candidates at one place have no distance to measure outliers by.
        ImportError: JAX without optax, or NumPy without SciPy.

    References:
        Sussillo & Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural
        networks", Neural Computation 25(3), 2013, for q and slow points; Golub & Sussillo, "FixedPointFinder",
        Journal of Open Source Software 3(31), 2018, for noise about recorded states.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0), "float64")
        >>> history = lstmx.record(cell, params, numpy.random.default_rng(1).normal(size=(20, 3)))
        >>> lstmx.fixed_points(cell, params, None, history).census
        {0: 1}
    """
    positive("rounds", rounds, 0)
    positive("iterations", iterations)
    seeding("seed", seed)
    numbers = {"learning_rate": learning_rate, "tolerance": tolerance, "slow": slow}
    numbers["outlier_distance"] = outlier_distance
    for name, value in numbers.items():
        if value is not None:
            positive_number(name, value)
    params, given, starts = checked("fixed_points", cell, params, x, candidates)
    tolerance = tolerance_for(tolerance, given.dtype)
    centre = starts.mean(axis=0)
    spread = math.sqrt(np.mean(np.sum((starts - centre) ** 2, axis=-1)))
    if outlier_distance is not None and spread == 0:
        raise ValueError(
            f"outlier_distance is {outlier_distance}, in units of how far candidates lie apart, which are all at "
            "one place; expected None, or candidates at several places"
        )
    search = Search(cell, params, given, tolerance)
    found = Found(search, cell.bounded)

    fallen = search.fall(starts, int(iterations), learning_rate)
    ended = search.quick(fallen)
    arrived = found.add(ended)
    own = arrived & (search.apart(ended, fallen) <= _NEAR)
    slowly = fallen[search.is_still(fallen, slow) & ~own]
    lingering = Lingering(search, slowly, slow)
    found.fresh = len(found.states)
    done = found.complete(starts, int(rounds), int(seed), lingering)

    away = np.linalg.norm(found.states - centre, axis=-1)
    far = away > (math.inf if outlier_distance is None else outlier_distance * spread)
    return FixedPoints(
        fixed=found.points(~far),
        slow=lingering.points(),
        outliers=found.points(far),
        candidates=len(starts),
        converged=int(arrived.sum()),
        starts=found.starts,
        rounds=done,
        fresh=found.fresh,
        undetermined=found.undetermined,
        bounded=cell.bounded,
        x=given,
    )


def positive_number(name: str, value: Any) -> None:
    """Raise unless `value` is a positive number."""
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_, np.timedelta64)):
        raise TypeError(f"{name} is {value!r}; expected a positive number")
    finite_number(name, value, "a positive number", lambda number: number > 0)


def tolerance_for(tolerance: float | None, dtype: Any) -> float:
    """The tolerance of a fixed point, or that of the dtype.

    Raises:
        ValueError: it is below what rounding leaves of s − F(s).
    """
    if tolerance is None:
        return 1e-11 if dtype == np.float64 else 1e-5
    least = 8 * float(np.finfo(np.dtype(dtype)).eps)
    if tolerance < least:
        wider = ", or parameters in float64" if dtype == np.float32 else ""
        raise ValueError(
            f"tolerance is {tolerance!r}; rounding leaves about {least:.0e} of s − F(s) in {dtype}: expected that "
            f"at least{wider}"
        )
    return float(tolerance)


def checked(name: str, cell: Any, params: Any, x: Any, candidates: Any) -> tuple[Any, Array, np.ndarray]:
    """Parameters and input [D] in one library, and candidates as joint states [N, S] in NumPy."""
    if is_traced(params, x, candidates):
        raise TypeError(f"{name} reads the numbers that it finds and cannot run inside a JAX transformation")
    if candidates is None:
        raise TypeError("candidates is None; expected a recorded pass, or states to start from")
    counts = None
    if isinstance(candidates, (History, LayeredHistory)):
        counts, candidates = candidates.counts, candidates.states
    params, x, candidates, _ = constant(cell, params, x, candidates, name="candidates")
    states = np.array(fetched(cell.pack(candidates))).reshape(-1, cell.state_size)
    return params, x, states if counts is None else states[fetched(counts).reshape(-1)]


class Found:
    """The fixed points found so far, each once, with how often it was found.

    Attributes:
        states: [n, S].
        counts: starts that ended in each, [n].
        degenerate: whether each is known to rounding only as a point where others may be, [n].
        eigenvalues: [n, S].
        starts: how many starts there were.
        fresh: how many points the last round brought.
        undetermined: starts that ended where states stand still along a line.
    """

    def __init__(self, search: Search, bounded: bool):
        self.search, self.bounded = search, bounded
        self.states = np.zeros((0, search.cell.state_size), np.dtype(search.x.dtype))
        self.counts, self.degenerate = np.zeros(0, int), np.zeros(0, bool)
        self.eigenvalues = np.zeros((0, search.cell.state_size), complex)
        self.starts = self.fresh = self.undetermined = 0

    def add(self, ended: np.ndarray) -> np.ndarray:
        """Take in where starts ended, one row for each, and say which of them are fixed points, [N]."""
        search, before = self.search, len(self.states)
        self.starts += len(ended)
        arrived = search.is_fixed(ended)
        rest = np.flatnonzero(arrived)
        rest = rest[~self._counted(ended[rest])]
        if not len(rest):
            return arrived
        firsts = ended[rest[search.distinct(ended[rest], 2 * search.near, search.q(ended[rest]))]]
        settled, _ = search.judged(firsts)
        lines, firsts = firsts[~settled], firsts[settled]
        polished = search.polished(firsts)
        settled, degenerate = search.judged(polished)
        kept = [k for k in search.distinct(polished, search.near, search.q(polished)) if settled[k]]
        for k in sorted(kept, key=lambda k: not degenerate[k]):
            apart = search.apart(self.states, polished[k])
            if (apart > np.where(self.degenerate, 4 * search.blurred, search.near)).all():
                self._append(polished[k], bool(degenerate[k]))
        self._add_images(before)
        arrived[rest] = self._counted(ended[rest])
        astray = ended[rest[~arrived[rest]]]
        lost = [search.apart(astray, np.broadcast_to(x, astray.shape)) <= 2 * search.near for x in lines]
        self.undetermined += int(np.any(lost, axis=0).sum())
        return arrived

    def _add_images(self, start: int) -> None:
        """With points of a cycle from index `start` on those that follow them, without a count."""
        images = self.states[start:]
        for _ in range(1, self.search.period):
            images = self.search.after_one(images)
            for image in images:
                if (self.search.apart(self.states, image) > self.search.near).all():
                    self._append(image, False)

    def _append(self, state: np.ndarray, degenerate: bool) -> None:
        self.states = np.concatenate([self.states, state[None]])
        self.counts = np.append(self.counts, 0)
        self.degenerate = np.append(self.degenerate, degenerate)
        self.eigenvalues = np.concatenate([self.eigenvalues, self.search.eigenvalues(state[None])])

    def _counted(self, states: np.ndarray) -> np.ndarray:
        """Which of the states are known points, [N]; they are counted."""
        known = np.zeros(len(states), bool)
        for k, point in enumerate(self.states):
            width = 4 * self.search.blurred if self.degenerate[k] else 2 * self.search.near
            here = ~known & (self.search.apart(states, np.broadcast_to(point, states.shape)) <= width)
            self.counts[k] += int(here.sum())
            known |= here
        return known

    @property
    def index(self) -> int | None:
        return index_sum(self.eigenvalues, self.degenerate)

    @property
    def is_explained(self) -> bool:
        """Whether neither the index sum nor the counts say that points are missing."""
        return (not self.bounded or self.index in (1, None)) and not (self.counts == 1).any()

    def complete(self, candidates: np.ndarray, rounds: int, seed: int, lingering: Lingering | None = None) -> int:
        """Add the points of rounds, until they bring nothing new and nothing is missing; how many there were."""
        draws, pushed, quiet = np.random.default_rng(seed), 0, 0
        for done in range(rounds):
            before = len(self.states)
            number = int(np.clip(6 * before, _FEWEST, _MOST))
            about = lingering.states if lingering is not None and done == 0 else candidates[:0]
            made = self._starts(candidates, number, draws, pushed, about)
            pushed = before
            self.add(self.search.careful(made))
            self.fresh = len(self.states) - before
            quiet = 0 if self.fresh else quiet + 1
            if quiet >= _QUIET and self.is_explained:
                return done + 1
        return rounds

    def _starts(
        self, candidates: np.ndarray, number: int, draws: Any, pushed: int, about: np.ndarray
    ) -> np.ndarray:
        """The starts of a round: about the candidates and slow points, between points, and beside new saddles."""
        quarter = number // 4
        rolled = [_with_noise(candidates, candidates, quarter, draws)]
        beside = self._beside_saddles(range(pushed, len(self.states)), draws)
        rolled.append(beside[draws.permutation(len(beside))[:number]])
        made = [_with_noise(candidates, candidates, quarter, draws), self.search.rolled(np.concatenate(rolled))]
        if len(about):
            made.append(_with_noise(about, candidates, quarter, draws, 0.1))
        if len(self.states) > 1:
            made += [self._between(quarter, draws), self._corners(quarter, draws)]
        return np.concatenate(made).astype(self.states.dtype)

    def _between(self, number: int, draws: Any) -> np.ndarray:
        """Midpoints, points of segments, and barycentres of points found."""
        made = []
        for _ in range(number):
            count = min(len(self.states), int(draws.choice([2, 2, 2, 3, 4])))
            chosen = self.states[draws.choice(len(self.states), count, replace=False)]
            even = np.full(count, 1 / count)
            made.append((even if draws.uniform() < 0.5 else draws.dirichlet(np.ones(count))) @ chosen)
        return np.stack(made)

    def _corners(self, number: int, draws: Any) -> np.ndarray:
        """Corners a + b − c of points found, which completes what parts of a network do by themselves."""
        a, b, c = (self.states[draws.integers(len(self.states), size=number)] for _ in range(3))
        return a + b - c

    def _beside_saddles(self, which: Any, draws: Any) -> np.ndarray:
        """States beside points along each unstable direction, both ways."""
        made = [self.states[:0]]
        for k in which:
            values, vectors = np.linalg.eig(self.search.matrices(self.states[k : k + 1])[0])
            for value, direction in zip(values, vectors.T, strict=True):
                if abs(value) > 1:
                    turn = np.exp(2j * np.pi * draws.uniform()) if np.imag(value) else 1.0
                    along = np.real(turn * direction)
                    step = 0.05 * along / (np.abs(along) / (1 + np.abs(self.states[k]))).max()
                    made.append(np.stack([self.states[k] + step, self.states[k] - step]))
        return np.concatenate(made)

    def points(self, which: np.ndarray) -> Points:
        """Of the points those of which `which` is true, by the number of unstable modes."""
        at = np.flatnonzero(which)
        return _points(self.search, self.states[at], self.eigenvalues[at], self.counts[at], self.degenerate[at])


class Lingering:
    """Slow points, each once, with how many candidates fell to it."""

    def __init__(self, search: Search, states: np.ndarray, slow: float):
        self.search = search
        self.states = states[search.distinct(states, 10 * slow, search.q(states))]
        apart = [search.apart(states, np.broadcast_to(one, states.shape)) for one in self.states]
        nearest = np.argmin(apart, axis=0) if len(states) else np.zeros(0, int)
        self.counts = np.bincount(nearest, minlength=len(self.states))

    def points(self) -> Points:
        values = self.search.eigenvalues(self.states)
        return _points(self.search, self.states, values, self.counts, np.zeros(len(values), bool))


def _points(search: Search, states: Any, eigenvalues: Any, counts: Any, degenerate: Any) -> Points:
    """States by the number of unstable modes, then in the order in which they were found."""
    order = np.argsort((np.abs(eigenvalues) >= 1).sum(axis=-1), kind="stable")
    xp, states = namespace(search.x), states[order]
    q = xp.asarray(search.q(states))
    return Points(search.cell.unpack(xp.asarray(states)), q, eigenvalues[order], counts[order], degenerate[order])


def _with_noise(states: np.ndarray, data: np.ndarray, number: int, draws: Any, most: float = 3.0) -> np.ndarray:
    """States drawn from the given ones, with noise of 0.01 to `most` times the standard deviation of the data."""
    centre, deviation = data.mean(axis=0), data.std(axis=0)
    unit = np.where(deviation > 1e-6 * (1 + np.abs(centre)), deviation, 0.5 * (1 + np.abs(centre)))
    chosen = states[draws.permutation(len(states))[:number]]
    chosen = np.concatenate([chosen, states[draws.integers(len(states), size=number - len(chosen))]])
    scale = np.exp(draws.uniform(math.log(0.01), math.log(most), size=(number, 1)))
    return chosen + scale * unit * draws.normal(size=chosen.shape)

"""`cycles`: states to which a network under a constant input comes back after so many steps."""

from __future__ import annotations

from typing import Generic

import numpy as np

from lstmx.arrays import Array, map_tree, namespace, result
from lstmx.cells.base import Cell, P, S
from lstmx.checks import positive, seeding
from lstmx.dynamics.fixed_points import Found, checked, positive_number, tolerance_for
from lstmx.dynamics.points import counted, how_often, index_sum
from lstmx.dynamics.search import Search
from lstmx.history import History
from lstmx.layers import LayeredHistory


@result(static=("period", "index_sum", "candidates", "starts", "rounds", "fresh", "bounded"))
class Cycles(Generic[S]):
    """The cycles of one period of a cell under a constant input, each once, by the number of unstable modes.

    Attributes:
        states: fields [N, period, H]: the states of each cycle in the order of time.
        multipliers: eigenvalues of the product of the Jacobians once around, of greatest magnitude first, [N, S];
            NumPy complex.
        found: how many of the starts ended at each, [N].
        period: the number of steps around.
        index_sum: Σ sign det(I − J) over all points that come back after `period` steps, those that come back
            earlier included; None where one is degenerate. A complete set has 1 where `bounded`.
        candidates: number of starting points.
        starts: number of all starts, candidates included.
        rounds: how many rounds of starts there were beside the candidates.
        fresh: how many points the last round brought.
        bounded: whether the cell's state stays in a box under a constant input, as the index sum's theorem asks.
        x: the constant input, [D].
    """

    states: S
    multipliers: np.ndarray
    found: np.ndarray
    period: int
    index_sum: int | None
    candidates: int
    starts: int
    rounds: int
    fresh: int
    bounded: bool
    x: Array

    def __len__(self) -> int:
        return len(self.multipliers)

    @property
    def unstable_modes(self) -> np.ndarray:
        """Number of multipliers on or outside the unit circle, [N]."""
        return (np.abs(self.multipliers) >= 1).sum(axis=-1)

    @property
    def stable(self) -> np.ndarray:
        """Whether all multipliers lie within the unit circle, [N]."""
        return self.unstable_modes == 0

    def summary(self) -> str:
        """How many there are, how stable they are, how often each was found, and what the index sum says."""
        further = counted(self.starts - self.candidates, "further start")
        lines = [
            f"{counted(len(self), 'cycle')} of period {self.period}, {int(self.stable.sum())} stable, from "
            f"{counted(self.candidates, 'candidate')} and {further}"
        ]
        if len(self):
            lines.append(f"  {how_often(self.found)}")
            lines.append(f"  greatest multiplier {np.abs(self.multipliers).max():.4g} in magnitude")
        if self.bounded and self.index_sum is None:
            lines.append(
                "  index sum undefined: some state that comes back has a multiplier of 1 to rounding, as where "
                "cycles merge"
            )
        elif self.bounded and self.index_sum != 1:
            lines.append(
                f"  WARNING: index sum {self.index_sum}, but all points that come back after {self.period} steps "
                f"have 1: some are missing. Try rounds={max(20, 2 * self.rounds)}, or candidates of a pass with "
                "other inputs"
            )
        elif self.bounded:
            lines.append("  index sum 1, as a complete set has (which does not prove it complete)")
        return "\n".join(lines)

    __str__ = summary

    def __repr__(self) -> str:
        return f"Cycles({len(self)} of period {self.period}, index sum {self.index_sum})"


def cycles(
    cell: Cell[P, S],
    params: P,
    x: Array | None,
    period: int,
    candidates: S | History[P, S] | LayeredHistory,
    *,
    rounds: int = 20,
    tolerance: float | None = None,
    seed: int = 0,
) -> Cycles[S]:
    """Find the cycles of a cell under a constant input: s = F(…F(s, x)…, x) after `period` steps and no earlier.

    Newton's method on the map of `period` steps, whose Jacobian is the product of those of the steps, starts from
    the candidates, from where they are after some hundred steps, and then in rounds, as in `fixed_points`.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        x: the constant input, [D]; None for zeros.
        period: the number of steps after which a state comes back, and not before; 1 for fixed points.
        candidates: starting points: a recorded pass, whose states after all steps that count are taken; or states,
            fields [*N, H] with any axes in front.
        rounds: the most rounds; 0 for what the candidates alone lead to.
        tolerance: greatest difference of a coordinate after `period` steps, relative to 1 + |s| of it; None for
            1e-11 in float64 and 1e-5 in float32. Points closer than its square root, relative alike, are one.
        seed: of the rounds' draws.

    Returns:
        Each cycle once, with its multipliers, how often it was found, and a `summary()` that warns where points
        are missing.

    Raises:
        TypeError: an argument is of the wrong kind or dtype, or inside a JAX transformation.
        ValueError: an argument has the wrong shape, `tolerance` is not positive or below what rounding leaves, or
            NaN or infinity came in.

    References:
        Kuznetsov, "Elements of Applied Bifurcation Theory", Springer, for cycles of maps and their multipliers.

    Example:
        >>> import lstmx, numpy
        >>> cell, (zero, minus_two) = lstmx.SimpleRNN(1, 1), numpy.array([[[0.0]], [[-2.0]]])
        >>> params = lstmx.SimpleRNNParams(zero, minus_two, numpy.zeros(1))
        >>> found = lstmx.cycles(cell, params, None, 2, lstmx.SimpleRNNState(numpy.array([[0.3]])))
        >>> found.states.hidden[..., 0].round(4)
        array([[ 0.9575, -0.9575]])
    """
    positive("period", period)
    positive("rounds", rounds, 0)
    seeding("seed", seed)
    if tolerance is not None:
        positive_number("tolerance", tolerance)
    params, given, starts = checked("cycles", cell, params, x, candidates)
    search = Search(cell, params, given, tolerance_for(tolerance, given.dtype), int(period))
    found = Found(search, cell.bounded)
    found.add(search.quick(starts))
    found.add(search.quick(search.rolled(starts)))
    found.fresh = len(found.states)
    done = found.complete(starts, int(rounds), int(seed))

    orbits, members = _orbits(found)
    eigenvalues = found.eigenvalues[[own[0] for own in members]]
    order = np.argsort((np.abs(eigenvalues) >= 1).sum(axis=-1), kind="stable")
    flat = namespace(given).asarray(orbits[order].reshape(-1, cell.state_size))
    return Cycles(
        states=map_tree(lambda a: a.reshape(len(order), int(period), *a.shape[1:]), cell.unpack(flat)),
        multipliers=eigenvalues[order],
        found=np.array([found.counts[own].sum() for own in members], int)[order],
        period=int(period),
        index_sum=index_sum(found.eigenvalues, found.degenerate),
        candidates=len(starts),
        starts=found.starts,
        rounds=done,
        fresh=found.fresh,
        bounded=cell.bounded,
        x=given,
    )


def _orbits(found: Found) -> tuple[np.ndarray, list[list[int]]]:
    """The states of each cycle, [n, period, S], from that of the greatest first number; and its points."""
    search, period = found.search, found.search.period
    orbits = [found.states]
    for _ in range(1, period):
        orbits.append(search.after_one(orbits[-1]))
    every = np.stack(orbits, axis=1)
    earlier = np.zeros(len(every), bool)
    for steps in range(1, period):
        if period % steps == 0:
            earlier |= search.apart(every[:, steps], every[:, 0]) <= search.near
    kept, members = [], []
    left = np.flatnonzero(~earlier)
    while len(left):
        around = every[left[0]]
        near = [search.apart(found.states[left], np.broadcast_to(s, (len(left), s.size))) for s in around]
        own = (np.stack(near) <= 4 * search.near).any(axis=0)
        members.append(left[own].tolist())
        kept.append(np.roll(around, -int(np.argmax(around[:, 0])), axis=0))
        left = left[~own]
    return np.array(kept).reshape(-1, period, search.cell.state_size).astype(found.states.dtype), members

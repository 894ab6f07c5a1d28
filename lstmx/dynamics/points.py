"""`FixedPoints`: where a network with a constant input stands still, or nearly so, and how it moves nearby."""

from __future__ import annotations

from typing import Generic

import numpy as np

from lstmx.arrays import Array, fetched, result
from lstmx.cells.base import S


@result
class Points(Generic[S]):
    """States, and the eigenvalues of the joint state map at each.

    Attributes:
        states: a state with a leading axis, fields [N, H].
        q: ½ ‖s − F(s)‖², [N].
        eigenvalues: of J = ∂F/∂s, of greatest magnitude first, [N, S]; NumPy complex.
        found: how many of the starts ended at each, [N]; NumPy integers.
        degenerate: whether rounding cannot tell each from several points that have merged, or from none, [N];
            NumPy booleans.
    """

    states: S
    q: Array
    eigenvalues: np.ndarray
    found: np.ndarray
    degenerate: np.ndarray

    def __len__(self) -> int:
        return len(self.eigenvalues)

    @property
    def stable(self) -> np.ndarray:
        """Whether all eigenvalues lie within the unit circle, [N]."""
        return self.unstable_modes == 0

    @property
    def unstable_modes(self) -> np.ndarray:
        """Number of eigenvalues on or outside the unit circle, [N]."""
        return (np.abs(self.eigenvalues) >= 1).sum(axis=-1)

    @property
    def timescales(self) -> np.ndarray:
        """−1/ln |μ| of each mode, in steps, [N, S]: negative for a mode that grows, 0 for an eigenvalue of 0."""
        with np.errstate(divide="ignore"):
            return -1 / np.log(np.abs(self.eigenvalues))

    @property
    def frequencies(self) -> np.ndarray:
        """|arg μ| / 2π of each mode, in cycles per step, [N, S]: from 0 to ½."""
        return np.abs(np.angle(self.eigenvalues)) / (2 * np.pi)

    def __repr__(self) -> str:
        return f"Points({len(self)} states)"


@result(static=("candidates", "converged", "starts", "rounds", "fresh", "undetermined", "bounded"))
class FixedPoints(Generic[S]):
    """Fixed points and slow points of a cell under a constant input.

    Attributes:
        fixed: the fixed points, each once, by the number of their unstable modes.
        slow: points where the state moves little but that lead to no fixed point, each once.
        outliers: fixed points farther from the candidates than was asked for; they count in `index_sum`.
        candidates: number of starting points.
        converged: how many of them led to a fixed point.
        starts: number of all starts, candidates included.
        rounds: how many rounds of starts there were beside the candidates.
        fresh: how many points the last round brought; without rounds the number found.
        undetermined: starts that ended where states stand still along a line, which no fixed point is told from.
        bounded: whether the cell's state stays in a box under a constant input, as the index sum's theorem asks.
        x: the constant input, [D].
    """

    fixed: Points[S]
    slow: Points[S]
    outliers: Points[S]
    candidates: int
    converged: int
    starts: int
    rounds: int
    fresh: int
    undetermined: int
    bounded: bool
    x: Array

    @property
    def points(self) -> S:
        """The fixed points as a state with a leading axis, fields [N, H]."""
        return self.fixed.states

    @property
    def q(self) -> Array:
        """½ ‖s − F(s)‖² of the fixed points, [N]."""
        return self.fixed.q

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of J at the fixed points, of greatest magnitude first, [N, S]."""
        return self.fixed.eigenvalues

    @property
    def stable(self) -> np.ndarray:
        """Whether each fixed point is stable, [N]."""
        return self.fixed.stable

    @property
    def timescales(self) -> np.ndarray:
        """−1/ln |μ| of each mode of the fixed points, in steps, [N, S]."""
        return self.fixed.timescales

    @property
    def frequencies(self) -> np.ndarray:
        """|arg μ| / 2π of each mode of the fixed points, in cycles per step, [N, S]."""
        return self.fixed.frequencies

    @property
    def census(self) -> dict[int, int]:
        """Number of fixed points by their number of unstable modes."""
        modes, counts = np.unique(self.fixed.unstable_modes, return_counts=True)
        return {int(mode): int(count) for mode, count in zip(modes, counts, strict=True)}

    @property
    def found(self) -> np.ndarray:
        """How many of the starts ended at each fixed point, [N]."""
        return self.fixed.found

    @property
    def index_sum(self) -> int | None:
        """Σ sign det(I − J) over the fixed points, outliers included; None where one is degenerate.

        Under a constant input a cell with bounded gates takes a box of states into itself, and a complete set of
        nondegenerate fixed points has the sum 1 (Lefschetz and Hopf). Another sum proves that points are missing;
        the sum 1 does not prove that none is.
        """
        every = self.fixed, self.outliers
        return index_sum(*(np.concatenate([getattr(x, name) for x in every]) for name in _OF_INDEX))

    @property
    def unseen(self) -> float:
        """An estimate of the number of points not yet seen, f₁ (f₁ − 1) / 2 (f₂ + 1).

        f₁ and f₂ are the points, outliers included, that were found once and twice. It is a lower bound where
        starts are drawn alike; those of rounds are not, and points that no start can reach are in no count.

        References:
            Chao, "Nonparametric estimation of the number of classes in a population", Scandinavian Journal of
            Statistics 11(4), 1984.
        """
        return unseen(np.concatenate([self.fixed.found, self.outliers.found]))

    def summary(self) -> str:
        """The census, how often points were found, the index sum and what it says, in words."""
        lines = [
            f"{counted(len(self.fixed), 'fixed point')} and {counted(len(self.slow), 'slow point')} from "
            f"{counted(self.candidates, 'candidate')}, of which {self.converged} led to a fixed point"
        ]
        if self.rounds:
            further = self.starts - self.candidates
            lines[0] += f", and {counted(further, 'start')} of {counted(self.rounds, 'round')}"
        for modes, count in self.census.items():
            kind = "stable" if modes == 0 else f"with {counted(modes, 'unstable mode')}"
            at = self.fixed.unstable_modes == modes
            slowest = np.abs(self.timescales[at][:, 0]).max()
            lines.append(f"  {count} {kind}; longest time scale of a leading mode {slowest:.4g} steps")
        if len(self.fixed):
            lines.append(f"  greatest q of a fixed point {float(np.max(fetched(self.q))):.1e}")
            lines.append(f"  {how_often(self.found)}")
        if len(self.outliers):
            number = len(self.outliers)
            verb = "lies" if number == 1 else "lie"
            lines.append(
                f"  {number} more fixed point{'s' * (number != 1)} {verb} farther out than outlier_distance allows"
            )
        if len(self.slow):
            subject = "the slow point leads" if len(self.slow) == 1 else "the slow points lead"
            lines.append(f"  {subject} to no fixed point nearby, where the state would end")
        if self.undetermined:
            lines.append(
                f"  {counted(self.undetermined, 'start')} ended where the state stands still along a line, as on "
                "a line of fixed points or where a gate that keeps it rounds to 1; none of it is counted"
            )
        return "\n".join([*lines, *(f"  {line}" for line in self._verdict())])

    __str__ = summary

    def __repr__(self) -> str:
        return f"FixedPoints({len(self.fixed)} fixed, {len(self.slow)} slow, index sum {self.index_sum})"

    def _verdict(self) -> list[str]:
        """What index sum and counts say of points that are missing, and what to do."""
        index, estimate = self.index_sum, self.unseen
        missing = self.bounded and index not in (1, None)
        lines = []
        if not self.bounded:
            lines.append(
                f"index sum {index}; which one a complete set has is not known, since the state has no bound"
            )
        elif index is None:
            number = int(self.fixed.degenerate.sum() + self.outliers.degenerate.sum())
            subject = "a fixed point has" if number == 1 else f"{number} fixed points have"
            lines.append(
                f"index sum undefined: {subject} an eigenvalue of 1 to rounding, as where points merge; it may be "
                "several points, or none"
            )
        elif missing:
            lines.append(
                f"WARNING: index sum {index}, but a complete set of fixed points has 1: fixed points are missing"
            )
        else:
            lines.append("index sum 1, as a complete set of fixed points has (which does not prove it complete)")
        if estimate >= 0.5:
            lines.append(
                f"{'' if missing else 'WARNING: '}about {estimate:.0f} more points not yet seen, by how many were "
                "found once and twice"
            )
        if missing or estimate >= 0.5:
            lines.append(self._advice())
        return lines

    def _advice(self) -> str:
        """What finds more points."""
        if not self.rounds:
            return "try rounds=20, which look between and about the points that the candidates led to"
        if self.fresh:
            return f"the last round still brought {self.fresh}: try rounds={2 * self.rounds}"
        return (
            f"{counted(self.rounds, 'round')} brought no more in the end: try candidates of a pass with other "
            f"inputs, another seed=, and rounds={2 * self.rounds}"
        )


_OF_INDEX = "eigenvalues", "degenerate"


def index_sum(eigenvalues: np.ndarray, degenerate: np.ndarray) -> int | None:
    """Σ sign det(I − J) from eigenvalues [N, S]; None where a point is degenerate, [N]."""
    if degenerate.any():
        return None
    # Complex pairs contribute |1 − μ|² > 0: only real eigenvalues above 1 change the sign.
    real = np.real(eigenvalues)
    above = (real > 1) & (real == eigenvalues)
    return int((1 - 2 * (above.sum(axis=-1) % 2)).sum())


def unseen(found: np.ndarray) -> float:
    """Chao's estimate, in the form for few counts, of the kinds not yet seen from how often each was, [N]."""
    once, twice = int((found == 1).sum()), int((found == 2).sum())
    return once * (once - 1) / (2 * (twice + 1))


def how_often(found: np.ndarray) -> str:
    """How often points were found, in words."""
    once, least, most = int((found == 1).sum()), int(found.min()), int(found.max())
    if len(found) == 1:
        return "found once" if once else f"found {least:,} times"
    if once == len(found):
        return "each found once"
    if once:
        return f"{once} of them found once, the others up to {most:,} times"
    return f"each found {least:,} times" if least == most else f"each found {least:,} to {most:,} times"


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"

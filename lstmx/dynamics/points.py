"""`FixedPoints`: where a network with a constant input stands still, or nearly so, and how it moves nearby."""

from __future__ import annotations

from typing import Generic

import numpy as np

from lstmx.arrays import Array, fetched, result
from lstmx.cells.base import S

_DEGENERATE = 1e-6  # distance of an eigenvalue from 1 at which a fixed point counts as degenerate


@result
class Points(Generic[S]):
    """States, and the eigenvalues of the joint state map at each.

    Attributes:
        states: a state with a leading axis, fields [N, H].
        q: ½ ‖s − F(s)‖², [N].
        eigenvalues: of J = ∂F/∂s, of greatest magnitude first, [N, S]; NumPy complex.
    """

    states: S
    q: Array
    eigenvalues: np.ndarray

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


@result(static=("candidates", "converged", "bounded"))
class FixedPoints(Generic[S]):
    """Fixed points and slow points of a cell under a constant input.

    Attributes:
        fixed: the fixed points, each once, by the number of their unstable modes.
        slow: points where the state moves little but does not stand still, each once.
        outliers: fixed points farther from the candidates than was asked for; they count in `index_sum`.
        candidates: number of starting points.
        converged: how many of them led to a fixed point.
        bounded: whether the cell's state stays in a box under a constant input, as the index sum's theorem asks.
        x: the constant input, [D].
    """

    fixed: Points[S]
    slow: Points[S]
    outliers: Points[S]
    candidates: int
    converged: int
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
    def index_sum(self) -> int | None:
        """Σ sign det(I − J) over the fixed points, outliers included; None where one is degenerate.

        Under a constant input a cell with bounded gates takes a box of states into itself, and a complete set of
        nondegenerate fixed points has the sum 1 (Lefschetz and Hopf). Another sum proves that points are missing;
        the sum 1 does not prove that none is.
        """
        eigenvalues = np.concatenate([self.fixed.eigenvalues, self.outliers.eigenvalues])
        return index_sum(eigenvalues)

    def summary(self) -> str:
        """The census, the index sum and what it says, and the slowest modes, in words."""
        lines = [
            f"{_counted(len(self.fixed), 'fixed point')} and {_counted(len(self.slow), 'slow point')} from "
            f"{_counted(self.candidates, 'candidate')}, of which {self.converged} led to a fixed point"
        ]
        for modes, count in self.census.items():
            kind = "stable" if modes == 0 else f"with {_counted(modes, 'unstable mode')}"
            at = self.fixed.unstable_modes == modes
            slowest = np.abs(self.timescales[at][:, 0]).max()
            lines.append(f"  {count} {kind}; longest time scale of a leading mode {slowest:.4g} steps")
        if len(self.fixed):
            lines.append(f"  greatest q of a fixed point {float(np.max(fetched(self.q))):.1e}")
        if len(self.outliers):
            lines.append(f"  {len(self.outliers)} more fixed points lie farther out than outlier_distance allows")
        return "\n".join([*lines, "  " + _verdict(self.index_sum, self.bounded)])

    __str__ = summary

    def __repr__(self) -> str:
        return f"FixedPoints({len(self.fixed)} fixed, {len(self.slow)} slow, index sum {self.index_sum})"


def index_sum(eigenvalues: np.ndarray) -> int | None:
    """Σ sign det(I − J) from eigenvalues [N, S]; None where one of them is 1 to within 10⁻⁶."""
    if len(eigenvalues) and np.abs(1 - eigenvalues).min() < _DEGENERATE:
        return None
    # Complex pairs contribute |1 − μ|² > 0: only real eigenvalues above 1 change the sign.
    real = np.real(eigenvalues)
    above = (real > 1) & (real == eigenvalues)
    return int((1 - 2 * (above.sum(axis=-1) % 2)).sum())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _verdict(index: int | None, bounded: bool) -> str:
    if not bounded:
        return f"index sum {index}; which one a complete set has is not known, since the state has no bound"
    if index is None:
        return "index sum undefined: a fixed point has an eigenvalue of 1, as on a line of fixed points"
    if index == 1:
        return "index sum 1, as a complete set of fixed points has (which does not prove it complete)"
    return (
        f"WARNING: index sum {index}, but a complete set of fixed points has 1: fixed points are missing. "
        "Try more candidates, or candidates that lie elsewhere"
    )

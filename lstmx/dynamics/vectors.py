"""`CovariantVectors`: directions that a pass carries along, and what can be read off them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx.arrays import Array, result
from lstmx.checks import array, finite_number, positive
from lstmx.dynamics.spectrum import block_error
from lstmx.strips import Strip, shown

_OFTEN = 0.01  # share of steps in which a vector is lost from which on its exponent is −inf
_APART = 0.01  # radians between two starts from which on a vector has not settled
_AT_ONCE = 2**20  # numbers of vectors that are worked on together
_TOLD = 4  # vectors that a summary tells of
_LEAST = 0.01  # share that a summary tells of
_QUANTILES = (0.0, 0.01, 0.1, 0.5)


@result(static=("split", "sides"))
class Hyperbolicity:
    """How far the first vectors stay from the others: the least angle between their spans, over time.

    Angles that come close to 0 say that the two subspaces are tangent at times, and the splitting is not
    hyperbolic.

    Attributes:
        angles: least principal angle, in radians from 0 to π/2, [blocks, *batch]; NaN past the end of a sequence.
        split: number of vectors before the split.
        sides: what the split separates, in words.
    """

    angles: np.ndarray
    split: int
    sides: str

    @property
    def least(self) -> float:
        """The least angle of all steps and sequences, in radians."""
        return float(np.nanmin(self.angles))

    def quantile(self, share: float) -> float:
        """The angle that so small a share of all steps and sequences is below, in radians.

        Args:
            share: from 0 to 1.

        Raises:
            ValueError: share is no number from 0 to 1.
        """
        finite_number("share", share, "a number from 0 to 1", lambda x: 0 <= x <= 1)
        return float(np.nanquantile(self.angles, share))

    def __str__(self) -> str:
        least, low, tenth, half = (self.quantile(share) for share in _QUANTILES)
        return (
            f"angle between {self.sides}: least {least:.3g} rad, 1 % below {low:.3g}, 10 % below {tenth:.3g}, "
            f"median {half:.3g}"
        )

    def __repr__(self) -> str:
        return f"Hyperbolicity(split {self.split}, least {self.least:.3g} rad)"


@result(static=("threshold",))
class ReadExponents:
    """Which covariant vectors a readout sees, and the slowest of these.

    An exponent matters for what is read in so far as its vector shows there: a saturated unit that nothing reads
    may own the greatest one.

    Attributes:
        seen: of each vector the root mean square over time of ‖W v‖, in units of what the readout W sees of a
            random direction of the joint state on the mean, [k].
        exponents: λ of each vector, [k].
        errors: their standard errors, [k].
        threshold: what is seen less counts as not read.
    """

    seen: np.ndarray
    exponents: np.ndarray
    errors: np.ndarray
    threshold: float

    @property
    def slowest(self) -> int | None:
        """The vector of the greatest exponent among those that are read; None where none is."""
        read = np.flatnonzero((self.seen >= self.threshold) & np.isfinite(self.exponents))
        return None if not len(read) else int(read[np.argmax(self.exponents[read])])

    @property
    def exponent(self) -> float:
        """Its exponent, "λ, read", in nats per step; NaN where no vector is read."""
        return math.nan if self.slowest is None else float(self.exponents[self.slowest])

    @property
    def timescale(self) -> float:
        """−1/λ in steps of the slowest vector that is read; infinite where λ is not below 0, NaN without one."""
        rate = self.exponent
        return math.inf if rate >= 0 else -1 / rate

    def __str__(self) -> str:
        number = len(self.seen)
        first = (
            f"vector 1, with λ₁ {self.exponents[0]:+.4g}, is seen {self.seen[0]:.2g} times as well as a random one"
        )
        if self.slowest is None:
            return (
                f"none of {_counted(number, 'covariant vector')} is seen {self.threshold:g} times as well "
                f"as a random direction, or better: a greater count is needed; {first}"
            )
        error = self.errors[self.slowest]
        known = "" if math.isnan(error) else f" ± {error:.1g}"
        which = f"vector {self.slowest + 1} of {number}"
        beside = "" if self.slowest == 0 else f"; {first}"
        scale = f", {self.timescale:.4g} steps" if self.exponent < 0 else ""
        return (
            f"slowest exponent that is read: {self.exponent:+.4g}{known} nats per step{scale}, of {which}, seen "
            f"{self.seen[self.slowest]:.2g} times as well as a random direction{beside}"
        )

    def __repr__(self) -> str:
        return f"ReadExponents({len(self.seen)} vectors, slowest {self.slowest})"


@result(static=("size", "every", "transient", "fields", "output"))
class CovariantVectors:
    """Covariant Lyapunov vectors of a pass, in the order of their exponents. NumPy.

    Attributes:
        vectors: v_i of unit length in the joint state, [blocks, *batch, k, S], at the states after `steps`; in the
            dtype of the pass, and from a file where a path was given. NaN past the end of a sequence.
        growth: ln of the factor by which a step stretches each vector, in nats per step, averaged over the `every`
            steps that end at these states, [blocks, *batch, k]. −inf where it falls to 0.
        steps: indices of the kept states among the steps that count: after which step of the pass, [blocks].
        frame_exponents: mean of ln |R_ii| over the same steps, as `lyapunov_spectrum` has it, [*batch, k].
        lost: share of the steps in which each vector is lost, [*batch, k]: the state map takes it to 0, or to what
            no digit tells from 0.
        settled: how far two starts that share nothing lead apart, in radians, [2, k], the greatest of the
            sequences: the spans of the first i frame vectors at the first step that counts, and each vector at
            the last one.
        shares: means over time of the squares of each vector's numbers, [k, S]; they add up to 1.
        participation: means over time of 1 / Σ v⁴, [k]: about how many numbers of the joint state take part.
        ways: by way through the cell (each gate, the candidate, and "straight" along the retention gate) what it
            adds to the factor that stretches each vector in the last step of each block, v_tᵀ J_t^(way) v_{t-1},
            [blocks, *batch, k]; None where the cell has no parts by gate: stacks, step functions, matrices.
        size: S, the dimension of the joint state.
        every: steps of a block, of which vectors are kept at the last.
        transient: steps before the first block and after the last that do not count.
        fields: names and sizes of the fields of the joint state.
        output: first number of the joint state that is an output, and the one behind the last; None where
            outputs are no part of it.
    """

    vectors: np.ndarray
    growth: np.ndarray
    steps: np.ndarray
    frame_exponents: np.ndarray
    lost: np.ndarray
    settled: np.ndarray
    shares: np.ndarray
    participation: np.ndarray
    ways: dict[str, np.ndarray] | None
    size: int
    every: int
    transient: tuple[int, int]
    fields: tuple[tuple[str, int], ...]
    output: tuple[int, int] | None

    def __len__(self) -> int:
        """The number of vectors, k."""
        return self.growth.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return tuple(self.growth.shape[1:-1])

    # ------------------------------------------------------------------------------------------- exponents

    @property
    def per_sequence(self) -> np.ndarray:
        """Exponents of each sequence, [*batch, k]: means of `growth`, −inf where a vector is often lost."""
        return np.where(self.lost > _OFTEN, -np.inf, np.nanmean(self.growth, axis=0))

    @property
    def exponents(self) -> np.ndarray:
        """λ_i in nats per step, [k]: the means of `per_sequence` over the sequences of a batch.

        −inf where a vector is lost in over 1 % of the steps. A rarer loss counts with the rounding error that it
        leaves, unless it leaves an exact 0.
        """
        return self.per_sequence.reshape(-1, len(self)).mean(axis=0)

    @property
    def over_sequences(self) -> np.ndarray:
        """Means of `growth` over the sequences that move in a block, [blocks, k]."""
        return np.nanmean(self.growth.reshape(len(self.growth), -1, len(self)), axis=1)

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard errors of `exponents` from block averages over time, [k], as those of `lyapunov_spectrum`.

        NaN for fewer than 8 blocks and for an exponent of −inf.
        """
        errors = block_error(self.over_sequences)
        return np.where(np.isfinite(self.exponents), errors, np.nan)

    @property
    def agreement(self) -> float:
        """Greatest distance of a finite exponent from that of the frames over the same steps.

        The two differ by what the coefficients of a vector change from the first step to the last, over the number
        of steps; NaN where all exponents are −inf.
        """
        known = np.isfinite(self.per_sequence)
        found = np.abs(self.per_sequence[known] - self.frame_exponents[known])
        return float(found.max()) if found.size else math.nan

    # ---------------------------------------------------------------------------------------------- angles

    def angle(self, i: int, j: int) -> np.ndarray:
        """The angle between the lines of two vectors over time, in radians from 0 to π/2, [blocks, *batch].

        Args:
            i: one vector, from 0.
            j: the other.

        Raises:
            TypeError: i or j is no integer.
            ValueError: there is no such vector.
        """
        one, other = (positive(name, value, 0, len(self) - 1) for name, value in (("i", i), ("j", j)))
        found = [_angle(part[..., one, :], part[..., other, :]) for part in self._parts()]
        return np.concat(found)

    def angles(self, split: int) -> np.ndarray:
        """The least principal angle between the spans of the first vectors and of the others, [blocks, *batch].

        In radians, from 0, where the two spans share a direction, to π/2, where they are orthogonal.

        Args:
            split: number of vectors in the first span, from 1 to k − 1.

        Raises:
            TypeError: split is no integer.
            ValueError: split is outside its range, as it always is with one vector.
        """
        if len(self) == 1:
            raise ValueError("split has no value with 1 covariant vector; expected 2 of them at least: pass count")
        number = positive("split", split, 1, len(self) - 1)
        return np.concat([_between(part[..., :number, :], part[..., number:, :]) for part in self._parts()])

    def hyperbolicity(self, split: int | None = None) -> Hyperbolicity:
        """The angles between the vectors that grow and those that shrink, or between fast and slow ones.

        Args:
            split: number of vectors before the split; None for those whose exponents are above 0, or, where these
                are all or none, for those before the greatest gap between two exponents.

        Returns:
            The angles with their quantiles; `print` shows these.

        Raises:
            TypeError: split is no integer.
            ValueError: split is outside 1 to k − 1.
        """
        if split is not None or len(self) == 1:
            number = 1 if split is None else split
            angles = self.angles(number)
            return Hyperbolicity(
                angles, number, f"the first {'vector' if number == 1 else f'{number} vectors'} and the others"
            )
        exponents = self.exponents
        number = int((exponents > 0).sum())
        sides = f"the {'vector that grows' if number == 1 else f'{number} vectors that grow'} and the others"
        if not 0 < number < len(self):
            finite = np.maximum(exponents, np.min(exponents, where=np.isfinite(exponents), initial=0.0) - 1)
            number = 1 + int(np.argmax(-np.diff(finite)))
            sides = f"the {'slowest vector' if number == 1 else f'{number} slowest vectors'} and the others"
        return Hyperbolicity(self.angles(number), number, sides)

    # ------------------------------------------------------------------------------------------ who carries

    @property
    def units(self) -> dict[str, np.ndarray]:
        """`shares` by the fields of the joint state, [k, units of the field] by name."""
        edges = np.cumsum([0, *(size for _, size in self.fields)])
        return {name: self.shares[:, a:b] for (name, _), a, b in zip(self.fields, edges, edges[1:], strict=False)}

    @property
    def gates(self) -> dict[str, np.ndarray] | None:
        """The share of each way through the cell in what stretches each vector, [k] by name; they add up to 1.

        Sums over time and sequences of `ways`, over that of all ways: negative where a way turns a vector against
        itself. NaN where a vector is always lost. None where the cell has no parts by gate.
        """
        if self.ways is None:
            return None
        sums = {
            name: np.nansum(way.reshape(-1, len(self)), axis=0, dtype=np.float64)
            for name, way in self.ways.items()
        }
        whole = np.sum(list(sums.values()), axis=0)
        gone = ~np.isfinite(self.exponents) | (whole == 0)
        return {name: np.where(gone, np.nan, x / np.where(gone, 1.0, whole)) for name, x in sums.items()}

    def read(self, readout: Array | None = None, *, threshold: float = 0.1) -> ReadExponents:
        """Which vectors a readout sees, and the greatest exponent among these: the one that matters for it.

        Args:
            readout: W of what is read, outputs @ W: [outputs, R]; or [S, R] of the whole joint state. None for the
                outputs themselves.
            threshold: a vector is read where the readout sees it so many times as well as a random direction of
                the joint state, or more.

        Returns:
            How well each is seen, with the exponents; `print` shows the slowest that is read.

        Raises:
            TypeError: readout is no array of real numbers, or threshold no number.
            ValueError: readout has another shape, holds NaN or infinity, or only zeros; threshold is below 0; or
                outputs are no part of the joint state and the readout is not of the whole.
        """
        finite_number("threshold", threshold, "a finite number of at least 0", lambda x: x >= 0)
        whole = self._readout(readout)
        square, number = np.zeros(len(self)), 0
        for part in self._parts():
            seen = np.sum((part @ whole).astype(np.float64) ** 2, axis=-1).reshape(-1, len(self))
            known = ~np.isnan(seen[:, 0])
            square += seen[known].sum(axis=0)
            number += int(known.sum())
        unit = float((whole.astype(np.float64) ** 2).sum()) / self.size
        seen = np.sqrt(square / number / unit)
        return ReadExponents(seen, self.exponents, self.standard_errors, float(threshold))

    def _readout(self, readout: Any) -> np.ndarray:
        """The readout of the whole joint state, [S, R]."""
        columns = None if self.output is None else self.output[1] - self.output[0]
        taken = f"[{self.size}, R] of the joint state" + ("" if columns is None else f", or [{columns}, R]")
        if readout is None:
            if columns is None:
                raise ValueError(f"readout is None, and outputs are no part of this joint state; expected {taken}")
            readout = np.eye(columns)
        array("readout", readout)
        given = np.asarray(readout)
        if given.dtype.kind not in "fiu":
            raise TypeError(f"readout is an array of {given.dtype}; expected real numbers, {taken}")
        if given.ndim != 2 or given.shape[0] not in (self.size, columns) or not given.size:
            raise ValueError(f"readout has shape {given.shape}; expected {taken}")
        if not np.isfinite(given).all() or not given.any():
            what = "only zeros" if np.isfinite(given).all() else "NaN or infinity"
            raise ValueError(f"readout holds {what}; expected finite numbers, {taken}")
        if given.shape[0] == self.size:
            return given.astype(self.vectors.dtype)
        whole = np.zeros((self.size, given.shape[1]), self.vectors.dtype)
        whole[slice(*self.output)] = given  # type: ignore  # there are outputs
        return whole

    def _parts(self) -> Iterator[np.ndarray]:
        """The vectors, as many blocks at a time as are worked on together."""
        stride = max(1, _AT_ONCE // max(1, math.prod(self.vectors.shape[1:])))
        for start in range(0, len(self.vectors), stride):
            yield np.asarray(self.vectors[start : start + stride])

    # ------------------------------------------------------------------------------------------------ words

    def summary(self) -> str:
        """What was found, in sentences: exponents, how far to trust them, angles, and what carries the first."""
        exponents, errors = self.exponents, self.standard_errors
        number, blocks = len(self), len(self.growth)
        some = ", ".join(
            f"{value:+.5g}" + ("" if math.isnan(error) else f" ± {error:.1g}")
            for value, error in zip(exponents[:_TOLD], errors[:_TOLD], strict=True)
        )
        sequences = math.prod(self.batch)
        lines = [
            f"{_counted(number, 'covariant Lyapunov vector')} of a joint state of {self.size}: from "
            f"{_counted(blocks * self.every, 'step')}"
            + (f" of {_counted(sequences, 'sequence')}" if self.batch else "")
            + f", {self.transient[0]:,} before and {self.transient[1]:,} after left out"
            + ("" if self.every == 1 else f"; kept at every {self.every:,}th"),
            f"  growth in nats per step: {some}{', …' if number > _TOLD else ''}"
            + (" (fewer than 8 blocks: no standard errors)" if blocks < 8 else ""),
            f"  {self._trust()}",
        ]
        gone = int(np.isneginf(exponents).sum())
        if gone:
            lost = "it is" if gone == 1 else "they are"
            lines.append(
                f"  {_counted(gone, 'exponent')} {'is' if gone == 1 else 'are'} −inf: the state map takes "
                f"{'its vector' if gone == 1 else 'their vectors'} to 0, so that {lost} not followed beyond a step"
            )
        if number > 1:
            lines.append(f"  {self.hyperbolicity()}")
        lines += [f"  vector {i + 1}: {self._carried(i)}" for i in range(min(number, _TOLD))]
        return "\n".join(lines)

    def _trust(self) -> str:
        """How well exponents agree with those of the frames, and vectors of two starts with each other."""
        words = [] if math.isnan(self.agreement) else [f"exponents of the frames agree to {self.agreement:.1g}"]
        known = np.isfinite(self.exponents)
        for apart, what, step in zip(
            self.settled, ("spans of frames up to", "vectors"), ("first", "last"), strict=True
        ):
            loose = np.flatnonzero((apart > _APART) & known)
            if len(loose):
                listed = ", ".join(str(i + 1) for i in loose[:_TOLD]) + (", …" if len(loose) > _TOLD else "")
                words.append(
                    f"NOT settled: from another start the {what} {listed} differ by up to "
                    f"{apart[loose].max():.2g} rad at the {step} step that counts; pass a longer transient, or "
                    "exponents are equal, and only spans are defined"
                )
        if len(words) == (not math.isnan(self.agreement)):
            most = self.settled[:, known].max(initial=0.0)
            words.append(f"other starts lead to the same within {most:.1g} rad")
        return "; ".join(words)

    def _carried(self, i: int) -> str:
        """Which numbers of the joint state and which ways through the cell carry a vector, in words."""
        named = [
            (name, unit, share)
            for name, shares in self.units.items()
            for unit, share in enumerate(shares[i].tolist())
        ]
        named.sort(key=lambda one: -one[2])
        units = ", ".join(f"{name} {unit} {share:.0%}" for name, unit, share in named[:3] if share >= _LEAST)
        part = f"{self.participation[i]:.3g}"
        words = f"{part} number{' takes' if part == '1' else 's take'} part, most {units}"
        if self.gates is None or not np.isfinite(self.exponents[i]):
            return words
        gates = sorted(
            ((name, float(share[i])) for name, share in self.gates.items()), key=lambda one: -abs(one[1])
        )
        ways = ", ".join(f"{name} {share:+.0%}" for name, share in gates[:3] if abs(share) >= _LEAST)
        return f"{words}; stretched {ways}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the summary, and the growth of the first vectors over time."""
        local = self.over_sequences
        strips = [Strip(f"growth of vector {i + 1}", local[:, i]) for i in range(min(3, len(self)))]
        return shown(str(self), strips, "steps" if self.every == 1 else f"blocks of {self.every:,} steps")

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"CovariantVectors({len(self)} of {self.size} vectors, {len(self.growth)} blocks of {self.every})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle between lines along unit vectors [..., S], exact where it is small."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    cosine = np.sum(one * other, axis=-1)
    chord = np.linalg.norm(one - np.sign(cosine + (cosine == 0))[..., None] * other, axis=-1)
    return 2 * np.arcsin(np.minimum(chord / 2, 1.0))


def _between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The least principal angle between the spans of rows [..., m, S] and [..., n, S]; NaN where they hold NaN."""
    flat = first.reshape(-1, *first.shape[-2:]), second.reshape(-1, *second.shape[-2:])
    known = np.asarray(~np.isnan(flat[0]).any(axis=(-2, -1)))
    found = np.full(len(known), np.nan)
    one, other = (np.linalg.qr(np.swapaxes(x[known].astype(np.float64), -1, -2))[0] for x in flat)
    cosines = np.linalg.svd(np.swapaxes(one, -1, -2) @ other, compute_uv=False)[..., 0]
    found[known] = np.arccos(np.minimum(cosines, 1.0))
    return found.reshape(first.shape[:-2])

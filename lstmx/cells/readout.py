"""What an LSTM may put between its cell state and its output: a layer normalisation, a projection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstmx.arrays import Array, materialised
from lstmx.cells.normalised import normal, turned
from lstmx.cells.recurrence import Affine, Blocks, outer, total


class Transposed(NamedTuple):
    """What walks back need: what the inner recurrence needs, the cell's gain as it is, Pᵀ."""

    inner: Any
    cell_gain: Any
    projection: Any


@dataclass(frozen=True)
class Readout(Affine):
    """A recurrence whose last blocks are computed from c_t: n_t = LN(c_t) ∘ α_c + β_c, and h_t = m_t P.

    The forward pass is the cell's: c_t takes the gates. Here are the parameters' cotangents and the two maps along
    which cotangents and tangents pass.

    Attributes:
        hidden_size: columns H of n_t.
        inner: the recurrence of the blocks before.
        normalised: whether there is n_t.
        projection: columns of h_t; 0 without a projection.
    """

    inner: Any
    normalised: bool
    projection: int

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore  # a constant of the class in the others
        return tuple(dict.fromkeys((*self.inner.reads, "cell")))

    def drive(self, params: Any, x: Array) -> Array:
        return self.inner.drive(params, x)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        return self.inner.driven(params, before, drive)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        return self.inner.joined(params)

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        """The blocks' tangent; None for the last ones, whose tangent comes from that of c_t."""
        return [*self.inner.tangent(params, slopes, state, x), *[None] * self._count]

    def transposed(self, params: Any) -> Transposed:
        kernel = materialised(params.projection.T) if self.projection else None
        return Transposed(self.inner.transposed(params), params.cell_gain, kernel)

    def cotangent(self, transposed: Transposed, slopes: Any, direct: Blocks) -> Blocks:
        own, last = direct[: -self._count], direct[-self._count :]
        return [*self.inner.cotangent(transposed.inner, slopes, own), *last]

    def back(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        return self.inner.back(transposed.inner, slopes, self._own(a_cotangent))

    def ways(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        return self.inner.ways(transposed.inner, slopes, self._own(a_cotangent))

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        return self.inner.pairs(slopes, before, x, self._own(a_cotangent))

    def input_side(self, a_cotangent: Array) -> Array:
        return self.inner.input_side(self._own(a_cotangent))

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        own = self._own(a_cotangent)
        found = self.inner.parameters(slopes, before, x, after, own)
        last, h = a_cotangent[..., own.shape[-1] :], self.hidden_size
        if self.normalised:
            found["cell_gain"] = total(last[..., :h] * slopes.cell_normal)
            found["cell_shift"] = total(last[..., :h])
        if self.projection:
            found["projection"] = outer(slopes.shown, last[..., -self.projection :])
        return found

    @property
    def _count(self) -> int:
        """The last blocks."""
        return self.normalised + (self.projection > 0)

    def _own(self, packed: Array) -> Array:
        """The inner recurrence's columns."""
        return packed[..., : packed.shape[-1] - self.normalised * self.hidden_size - self.projection]

    # The maps from c_t to n_t and from m_t to h_t, which are not unit by unit.

    def led(self, name: str, params: Any, slopes: Any, tangent: Array) -> Array:
        if name == "projection":
            return tangent @ params.projection
        if name == "normalisation":
            return turned(slopes.cell_normal, slopes.cell_rate, tangent) * params.cell_gain
        return super().led(name, params, slopes, tangent)

    def led_back(self, name: str, transposed: Transposed, slopes: Any, cotangent: Array) -> Array:
        if name == "projection":
            return cotangent @ transposed.projection
        if name == "normalisation":
            return turned(slopes.cell_normal, slopes.cell_rate, cotangent * transposed.cell_gain)
        return super().led_back(name, transposed, slopes, cotangent)


readout = functools.cache(Readout)  # a loop in Python asks for it at every step


def layer_normalised(params: Any, c: Array) -> Array:
    """n_t = LN(c_t) ∘ α_c + β_c."""
    return normal(c)[0] * params.cell_gain + params.cell_shift

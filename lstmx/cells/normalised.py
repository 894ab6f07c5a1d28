"""Layer normalisation of the two sums that an LSTM's pre-activations are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstmx.arrays import Array, materialised, namespace
from lstmx.cells.recurrence import Affine, Blocks, blocks, joined, outer, plus, total

EPSILON = 1e-5
"""What is added to the variance, so that a layer whose units agree has a finite derivative; PyTorch's value."""


def normal(z: Array) -> tuple[Array, Array]:
    """(z − mean) / √(variance + ε) over the last axis, and 1 / √(variance + ε), [*n, 1]."""
    xp = namespace(z)
    centred = z - xp.mean(z, axis=-1, keepdims=True)
    rate = 1 / xp.sqrt(xp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)
    return centred * rate, rate


def turned(value: Array, rate: Array, vector: Array) -> Array:
    """The derivative of `normal`, which is symmetric, times a tangent or a cotangent; from what `normal` gave."""
    xp = namespace(vector)
    own = xp.mean(value * vector, axis=-1, keepdims=True)
    return rate * (vector - xp.mean(vector, axis=-1, keepdims=True) - value * own)


class Transposed(NamedTuple):
    """What walks back need: Uᵀ, and both gains as they are."""

    recurrent: Array
    recurrent_gain: Array
    input_gain: Array


@dataclass(frozen=True)
class Normalised(Affine):
    """a = LN(h U) ∘ α_h + LN(x W) ∘ α_x + b, LN over all units and blocks together.

    The blocks are those of a, then those of h U, then those of x W. Slopes hold what `normal` gives of the last
    two: `recurrent_normal` and `recurrent_rate`, `input_normal` and `input_rate`.
    """

    def drive(self, params: Any, x: Array) -> Array:
        z = x @ params.input_kernel
        return namespace(z).concat([normal(z)[0] * params.input_gain + params.bias, z], axis=-1)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        z = before.hidden @ params.recurrent_kernel
        size = z.shape[-1]
        a = drive[..., :size] + normal(z)[0] * params.recurrent_gain
        return namespace(z, drive).concat([a, z, drive[..., size:]], axis=-1)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        return lambda before, x: self.driven(params, before, self.drive(params, x))

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        from_h = from_x = None
        if state is not None:
            moved = state.hidden @ params.recurrent_kernel
            from_h = turned(slopes.recurrent_normal, slopes.recurrent_rate, moved) * params.recurrent_gain
        if x is not None:
            moved = x @ params.input_kernel
            from_x = turned(slopes.input_normal, slopes.input_rate, moved) * params.input_gain
        own = blocks(plus(from_h, from_x), self.hidden_size)
        return [*own, *[None] * (2 * len(own))]

    def transposed(self, params: Any) -> Transposed:
        kernel = materialised(params.recurrent_kernel.T)
        return Transposed(kernel, params.recurrent_gain, params.input_gain)

    def cotangent(self, transposed: Transposed, slopes: Any, direct: Blocks) -> Blocks:
        own = direct[: len(direct) // 3]
        d_a = joined(own)
        d_h = turned(slopes.recurrent_normal, slopes.recurrent_rate, d_a * transposed.recurrent_gain)
        d_x = turned(slopes.input_normal, slopes.input_rate, d_a * transposed.input_gain)
        return [*blocks(d_a, self.hidden_size), *blocks(d_h, self.hidden_size), *blocks(d_x, self.hidden_size)]

    def back(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        del slopes
        return {"hidden": _thirds(a_cotangent)[1] @ transposed.recurrent}

    def ways(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        own, found = blocks(_thirds(a_cotangent)[0], self.hidden_size), []
        for k in range(len(own)):
            alone = joined([part if k == n else namespace(part).zeros_like(part) for n, part in enumerate(own)])
            d_h = turned(slopes.recurrent_normal, slopes.recurrent_rate, alone * transposed.recurrent_gain)
            found.append({"hidden": d_h @ transposed.recurrent})
        return found

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        del slopes, x
        return ((before.hidden, _thirds(a_cotangent)[1]),)

    def input_side(self, a_cotangent: Array) -> Array:
        return _thirds(a_cotangent)[2]

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        del after
        d_a, d_h, d_x = _thirds(a_cotangent)
        return {
            "input_kernel": outer(x, d_x),
            "recurrent_kernel": outer(before.hidden, d_h),
            "bias": total(d_a),
            "recurrent_gain": total(d_a * slopes.recurrent_normal),
            "input_gain": total(d_a * slopes.input_normal),
        }


def _thirds(packed: Array) -> tuple[Array, ...]:
    return blocks(packed, packed.shape[-1] // 3)


normalised = functools.cache(Normalised)  # a loop in Python asks for it at every step

"""How pre-activations read the state before and the input: the linear half of a cell.

The other half is elementwise and differs from cell to cell; what is here is shared by all. Each class is one form
of the pre-activations, with its derivative forward (`tangent`) and backward (`cotangent`, `back`). `transposed` is
what a backward loop prepares once, and hands to the three that walk back. Blocks are arrays [*batch, H], one for
each block of pre-activations; None is a block of zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lstmx.arrays import Array, materialised, namespace
from lstmx.cells.activations import activated

Blocks = list[Any]


def blocks(packed: Array, size: int) -> tuple[Array, ...]:
    """The blocks of `size` columns that a packed last axis holds."""
    return tuple(packed[..., k : k + size] for k in range(0, packed.shape[-1], size))


def plus(*terms: Any) -> Any:
    """The sum of those terms that are not None; None where all are."""
    whole = None
    for term in terms:
        if term is not None:
            whole = term if whole is None else whole + term
    return whole


def joined(parts: Blocks) -> Array:
    """Blocks side by side in one array; at least one is not None."""
    known = [part for part in parts if part is not None]
    xp = namespace(known[0])
    if len(known) < len(parts):
        known = [xp.zeros_like(known[0]) if part is None else part for part in parts]
    return xp.concat(known, axis=-1) if len(known) > 1 else known[0]


def outer(left: Array, right: Array) -> Array:
    """Σ over all leading axes of leftᵀ right: [*n, p], [*n, q] -> [p, q], one matrix product.

    The leading axes are not flattened: one that is split over devices stays split, and each sums its own part.
    """
    axes = tuple(range(left.ndim - 1))
    with np.errstate(invalid="ignore"):  # what left the float range is infinite here, without a warning
        return namespace(left, right).tensordot(left, right, axes=(axes, axes))


def total(x: Array) -> Array:
    """Sum over all leading axes: [*n, p] -> [p]."""
    return namespace(x).sum(x, axis=tuple(range(x.ndim - 1)))


@dataclass(frozen=True)
class Affine:
    """a = x W + h U + b.

    Attributes:
        hidden_size: columns H of a block.
    """

    hidden_size: int

    reads: ClassVar[tuple[str, ...]] = ("hidden",)
    """The fields of the state before that pre-activations depend on."""

    def drive(self, params: Any, x: Array) -> Array:
        """What depends on x alone, all blocks packed."""
        return x @ params.input_kernel + params.bias

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        """The pre-activations from the state before and what `drive` gave."""
        return drive + before.hidden @ params.recurrent_kernel

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        """The pre-activations from the state before and x, by one product of [x, h] with [[W], [U]]."""
        xp = namespace(*params)
        kernel = materialised(xp.concat([params.input_kernel, params.recurrent_kernel]))
        return lambda before, x: xp.concat([x, before.hidden], axis=-1) @ kernel + params.bias

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        """The blocks' tangent from that of the state before, and of x; None for a zero tangent, not of both."""
        del slopes
        from_h = None if state is None else state.hidden @ params.recurrent_kernel
        return list(blocks(plus(from_h, None if x is None else x @ params.input_kernel), self.hidden_size))

    def transposed(self, params: Any) -> Any:
        """What the three ways back below need of the parameters."""
        return materialised(params.recurrent_kernel.T)

    def cotangent(self, transposed: Any, slopes: Any, direct: Blocks) -> Blocks:
        """The blocks' cotangent from the part of it that comes from the state after directly."""
        del transposed, slopes
        return direct

    def back(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        """The cotangent of the state before that comes through the pre-activations, field by field."""
        del slopes
        return {"hidden": a_cotangent @ transposed}

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        """`back`, of each block apart."""
        del slopes
        h = self.hidden_size
        kernels = (transposed[k : k + h, :] for k in range(0, len(transposed), h))
        return [{"hidden": d @ kernel} for d, kernel in zip(blocks(a_cotangent, h), kernels, strict=True)]

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        """What the recurrent kernel's cotangent is made of: its columns are Σ leftᵀ right of each pair in turn.

        Without a recurrent kernel: the input kernel's.
        """
        del slopes, x
        return ((before.hidden, a_cotangent),)

    def input_side(self, a_cotangent: Array) -> Array:
        """The cotangent of x W."""
        return a_cotangent

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        """The parameters' cotangents by name, summed over all leading axes; one product of [x, h] for W and U."""
        del slopes, after
        both = outer(namespace(x).concat([x, before.hidden], axis=-1), a_cotangent)
        size = x.shape[-1]
        return {"input_kernel": both[:size, :], "recurrent_kernel": both[size:, :], "bias": total(a_cotangent)}

    def led(self, name: str, params: Any, slopes: Any, tangent: Array) -> Array:
        """A tangent of the source of a factor in the layout's `from_after`, led to where it leads."""
        del params
        return tangent * getattr(slopes, name)

    def led_back(self, name: str, transposed: Any, slopes: Any, cotangent: Array) -> Array:
        """The transposed of `led`."""
        del transposed
        return cotangent * getattr(slopes, name)


affine = functools.cache(Affine)  # a loop in Python asks for it at every step


@dataclass(frozen=True)
class InputOnly(Affine):
    """a = x W + b: pre-activations that read no state."""

    reads: ClassVar[tuple[str, ...]] = ()

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        del params, before
        return drive

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        return lambda before, x: self.drive(params, x)

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        del slopes, state
        if x is None:
            return [None] * (params.bias.shape[0] // self.hidden_size)
        return list(blocks(x @ params.input_kernel, self.hidden_size))

    def transposed(self, params: Any) -> None:
        del params

    def back(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        del transposed, slopes, a_cotangent
        return {}

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        del transposed, slopes, a_cotangent
        return []

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        del slopes, before
        return ((x, a_cotangent),)

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        del slopes, before, after
        return {"input_kernel": outer(x, a_cotangent), "bias": total(a_cotangent)}


input_only = functools.cache(InputOnly)


@dataclass(frozen=True)
class ResetAfter(Affine):
    """A GRU's with reset after the product: x W + b in three blocks r, z, n; h U in r, z and a fourth one.

    The fourth block, q = h U_n + b_q, stands apart, since the reset gate multiplies it.
    """

    def drive(self, params: Any, x: Array) -> Array:
        xp = namespace(params.bias, x)
        from_x = x @ params.input_kernel + params.bias
        q = xp.broadcast_to(params.candidate_bias, (*from_x.shape[:-1], self.hidden_size))
        return xp.concat([from_x, q], axis=-1)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        r, z, n, q = blocks(drive, self.hidden_size)
        r_h, z_h, q_h = blocks(before.hidden @ params.recurrent_kernel, self.hidden_size)
        return namespace(drive, before.hidden).concat([r + r_h, z + z_h, n, q + q_h], axis=-1)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        return lambda before, x: self.driven(params, before, self.drive(params, x))

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        del slopes
        none = (None, None, None)
        r, z, q = none if state is None else blocks(state.hidden @ params.recurrent_kernel, self.hidden_size)
        r_x, z_x, n_x = none if x is None else blocks(x @ params.input_kernel, self.hidden_size)
        return [plus(r, r_x), plus(z, z_x), n_x, q]

    def back(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        del slopes
        return {"hidden": self._recurrent(a_cotangent) @ transposed}

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        return super().ways(transposed, slopes, self._recurrent(a_cotangent))

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        del slopes, x
        return ((before.hidden, self._recurrent(a_cotangent)),)

    def input_side(self, a_cotangent: Array) -> Array:
        return a_cotangent[..., : 3 * self.hidden_size]

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        del slopes, after
        bias, split = total(a_cotangent), 3 * self.hidden_size
        return {
            "input_kernel": outer(x, self.input_side(a_cotangent)),
            "recurrent_kernel": outer(before.hidden, self._recurrent(a_cotangent)),
            "bias": bias[:split],
            "candidate_bias": bias[split:],
        }

    def _recurrent(self, a_cotangent: Array) -> Array:
        """The cotangent of h U."""
        r, z, _, q = blocks(a_cotangent, self.hidden_size)
        return namespace(a_cotangent).concat([r, z, q], axis=-1)


@dataclass(frozen=True)
class ResetBefore(Affine):
    """Gates from x W + h U + b; the last block, the candidate's, from x W + (r ∘ h) U + b with r = σ(first block).

    Slopes hold `share`, r, and `reset`, h ∘ r': how r ∘ h moves with h and with the first block.

    Attributes:
        hidden_size: columns H of a block.
        gate_activation: what r is made with, "sigmoid" for σ.
    """

    gate_activation: str = "sigmoid"

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        xp = namespace(drive, before.hidden)
        gates_kernel, candidate_kernel = self._kernels(params)
        gates, candidate = self._split(drive)
        gates = gates + before.hidden @ gates_kernel
        reset = activated(self.gate_activation, gates[..., : self.hidden_size])
        return xp.concat([gates, candidate + (reset * before.hidden) @ candidate_kernel], axis=-1)

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        return lambda before, x: self.driven(params, before, self.drive(params, x))

    def reset_by(self, reset: Array, params: Any, before: Any, x: Array, a: Array) -> Array:
        """The pre-activations a with another reset gate than their own: the candidate's block is made anew."""
        candidate = self._split(self.drive(params, x))[1] + (reset * before.hidden) @ self._kernels(params)[1]
        return namespace(a, reset).concat([self._split(a)[0], candidate], axis=-1)

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        h = self.hidden_size
        gates, candidate = self._kernels(params)
        *parts, last = (None,) * (gates.shape[1] // h + 1) if x is None else blocks(x @ params.input_kernel, h)
        if state is not None:
            parts = [plus(a, b) for a, b in zip(parts, blocks(state.hidden @ gates, h), strict=True)]
        moved = plus(None if state is None else slopes.share * state.hidden, slopes.reset * parts[0])
        return [*parts, plus(last, moved @ candidate)]

    def transposed(self, params: Any) -> Any:
        return tuple(materialised(kernel.T) for kernel in self._kernels(params))

    def cotangent(self, transposed: Any, slopes: Any, direct: Blocks) -> Blocks:
        return [plus(direct[0], (direct[-1] @ transposed[1]) * slopes.reset), *direct[1:]]

    def back(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        gates, candidate = self._split(a_cotangent)
        return {"hidden": gates @ transposed[0] + (candidate @ transposed[1]) * slopes.share}

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        gates, candidate = self._split(a_cotangent)
        through = super().ways(transposed[0], slopes, gates)
        return [*through, {"hidden": (candidate @ transposed[1]) * slopes.share}]

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        del x
        gates, candidate = self._split(a_cotangent)
        return (before.hidden, gates), (slopes.share * before.hidden, candidate)

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        del after
        parts = [outer(left, right) for left, right in self.pairs(slopes, before, x, a_cotangent)]
        return {
            "input_kernel": outer(x, a_cotangent),
            "recurrent_kernel": namespace(x, a_cotangent).concat(parts, axis=-1),
            "bias": total(a_cotangent),
        }

    def _kernels(self, params: Any) -> tuple[Array, Array]:
        """U of the gates, and of the candidate."""
        return self._split(params.recurrent_kernel)

    def _split(self, packed: Array) -> tuple[Array, Array]:
        return packed[..., : -self.hidden_size], packed[..., -self.hidden_size :]


reset_after, reset_before = functools.cache(ResetAfter), functools.cache(ResetBefore)

"""What an LSTM's gates read beside x and h: the cell state through peepholes, and the gates of the step before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lstmx.arrays import Array, materialised, namespace
from lstmx.cells.recurrence import Affine, Blocks, blocks, joined, outer, plus, total

GATES = ("input_gate", "forget_gate", "output_gate")


class Transposed(NamedTuple):
    """What walks back need: Uᵀ, the peepholes as they are, Rᵀ."""

    recurrent: Array
    peephole: Array | None
    gates: Array | None


@dataclass(frozen=True)
class Completed(Affine):
    """a = x W + h U + b, with p_i ∘ c_{t-1} and p_f ∘ c_{t-1}, and with (i, f, o)_{t-1} R on the three gates.

    p_o ∘ c_t is not here, for c_t is computed from the other blocks: the cell adds it, and its way back is part of
    ∂h_t/∂c_t.

    Attributes:
        hidden_size: columns H of a block.
        names: what each block is for.
        peepholes: whether there are peepholes.
        gate_recurrence: whether gates read the gates before.
    """

    names: tuple[str, ...]
    peepholes: bool
    gate_recurrence: bool

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore  # a constant of the class in the others
        return ("hidden", *(("cell",) if self.peepholes else ()), *(GATES if self.gate_recurrence else ()))

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        return self._completed(params, before, super().driven(params, before, drive))

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        affine = super().joined(params)
        return lambda before, x: self._completed(params, before, affine(before, x))

    def _completed(self, params: Any, before: Any, a: Array) -> Array:
        parts = [plus(x, y) for x, y in zip(blocks(a, self.hidden_size), self._added(params, before), strict=True)]
        return namespace(a, before.hidden).concat(parts, axis=-1)

    def _added(self, params: Any, before: Any) -> Blocks:
        """What the blocks get beside x W + h U + b, linear in the state before."""
        added: dict[str, Any] = dict.fromkeys(self.names)
        if self.gate_recurrence:
            from_gates = joined([getattr(before, name) for name in GATES]) @ params.gate_kernel
            added.update(zip(GATES, blocks(from_gates, self.hidden_size), strict=True))
        if self.peepholes:
            for name, weight in self._seeing(params.peephole).items():
                added[name] = plus(added[name], weight * before.cell)
        return list(added.values())

    def _seeing(self, peephole: Array) -> dict[str, Array]:
        """The peepholes to c_{t-1}, by gate."""
        gates = [name for name in self.names if name in GATES]
        found = dict(zip(gates, blocks(peephole, self.hidden_size), strict=True))
        found.pop("output_gate", None)
        return found

    def seen(self, params: Any, slopes: Any) -> list[Array]:
        """∂c_t/∂c_{t-1} through each peephole."""
        seeing = self._seeing(params.peephole).items()
        return [weight * getattr(slopes, name.removesuffix("_gate")) for name, weight in seeing]

    def tangent(self, params: Any, slopes: Any, state: Any, x: Any) -> Blocks:
        parts = super().tangent(params, slopes, state, x)
        if state is None:
            return parts
        return [plus(a, b) for a, b in zip(parts, self._added(params, state), strict=True)]

    def transposed(self, params: Any) -> Transposed:
        gates = materialised(params.gate_kernel.T) if self.gate_recurrence else None
        return Transposed(materialised(params.recurrent_kernel.T), params.peephole, gates)

    def back(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> dict[str, Array]:
        parts = dict(zip(self.names, blocks(a_cotangent, self.hidden_size), strict=True))
        return super().back(transposed.recurrent, slopes, a_cotangent) | self._back_to_others(transposed, parts)

    def ways(self, transposed: Transposed, slopes: Any, a_cotangent: Array) -> list[dict[str, Array]]:
        parts = dict(zip(self.names, blocks(a_cotangent, self.hidden_size), strict=True))
        through = super().ways(transposed.recurrent, slopes, a_cotangent)
        others = (self._back_to_others(transposed, {name: part}) for name, part in parts.items())
        return [way | other for way, other in zip(through, others, strict=True)]

    def _back_to_others(self, transposed: Transposed, parts: dict[str, Array]) -> dict[str, Array]:
        """The cotangent of c_{t-1} and of the gates before, from those of some blocks."""
        back: dict[str, Array] = {}
        if self.peepholes:
            seeing = self._seeing(transposed.peephole).items()  # type: ignore  # there are peepholes
            terms = [weight * parts[name] for name, weight in seeing if name in parts]
            back |= {"cell": plus(*terms)} if terms else {}
        if self.gate_recurrence:
            kernels = dict(zip(GATES, self._rows(transposed.gates), strict=True))
            reached = plus(*(parts[name] @ kernels[name] for name in GATES if name in parts))
            if reached is not None:
                back |= dict(zip(GATES, blocks(reached, self.hidden_size), strict=True))
        return back

    def _rows(self, kernel: Any) -> list[Array]:
        return [kernel[k : k + self.hidden_size, :] for k in range(0, len(kernel), self.hidden_size)]

    def parameters(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> dict[str, Array]:
        found = super().parameters(slopes, before, x, after, a_cotangent)
        parts = dict(zip(self.names, blocks(a_cotangent, self.hidden_size), strict=True))
        xp = namespace(a_cotangent)
        if self.peepholes:
            seen = {"output_gate": after.cell}
            terms = [total(parts[name] * seen.get(name, before.cell)) for name in self.names if name in GATES]
            found["peephole"] = xp.concat(terms)
        if self.gate_recurrence:
            gates = joined([getattr(before, name) for name in GATES])
            found["gate_kernel"] = outer(gates, joined([parts[name] for name in GATES]))
        return found


completed = functools.cache(Completed)  # a loop in Python asks for it at every step

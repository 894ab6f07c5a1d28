"""The minimal gated unit: a GRU whose two gates are one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, namespace, sigmoid, sigmoid_and_slope, tanh_slope
from lstmx.cells.base import Cell, Change, Layout
from lstmx.cells.recurrence import blocks, reset_before


class MGUParams(NamedTuple):
    """Parameters; column blocks f, n (forget gate, candidate)."""

    input_kernel: Array
    """W, [D, 2H]."""
    recurrent_kernel: Array
    """U, [H, 2H]."""
    bias: Array
    """b, [2H]."""


class MGUState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class MGUGates(NamedTuple):
    """Gate activations; the candidate is no gate: it lies in [−1, 1]."""

    forget_gate: Array
    """f, as its authors call it: the share of the new, and of the old state that the candidate sees."""
    update_gate: Array
    """1 − f, the share of the old state that is kept, under the name that it has in a GRU."""
    candidate: Array


class MGUSlopes(NamedTuple):
    """Factors of the one-step Jacobian."""

    forget: Array
    """∂h_t/∂a_f at a fixed candidate."""
    candidate: Array
    """∂h_t/∂a_n."""
    carry: Array
    """∂h_t/∂h_{t-1} at fixed pre-activations: 1 − f."""
    reset: Array
    """∂(f ∘ h)/∂a_f."""
    share: Array
    """∂(f ∘ h)/∂h: f."""


_LAYOUT = Layout(
    blocks=("forget_gate", "candidate"),
    gates={"forget_gate": (0, 1), "update_gate": (0, -1)},
    retention_gate="update_gate",
    from_blocks={"forget": ("hidden", 0), "candidate": ("hidden", 1)},
    from_before={"carry": ("hidden", "hidden")},
    from_after={},
)


@dataclass(frozen=True, repr=False)
class MGU(Cell[MGUParams, MGUState]):
    """Minimal gated unit.

        f = σ(x W_f + h U_f + b_f)
        n = tanh(x W_n + (f ∘ h) U_n + b_n)
        h_t = (1 − f) ∘ h_{t-1} + f ∘ n

    What multiplies the old state is 1 − f: time scales are of that, the `update_gate`.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.

    References:
        Zhou, Wu, Zhang & Zhou, "Minimal gated unit for recurrent neural networks", International Journal of
        Automation and Computing 13(3), 2016 (arXiv 1603.09420).
    """

    input_size: int
    hidden_size: int

    gate_type: ClassVar[type] = MGUGates

    @property
    def state_type(self) -> type[Any]:
        return MGUState

    @property
    def layout(self) -> Layout:
        return _LAYOUT

    @property
    def recurrence(self) -> Any:
        return reset_before(self.hidden_size)

    def parameter_shapes(self) -> MGUParams:
        d, h = self.input_size, self.hidden_size
        return MGUParams._make(((d, 2 * h), (h, 2 * h), (2 * h,)))

    def gates(self, a: Array) -> MGUGates:
        xp = namespace(a)
        a_f, a_n = blocks(a, self.hidden_size)
        f = sigmoid(xp, a_f)
        return MGUGates(f, 1 - f, xp.tanh(a_n))

    def settle(self, before: MGUState, gates: MGUGates, a: Array) -> MGUState:
        del a
        f, kept, n = gates
        return MGUState(kept * before.hidden + f * n)

    def unfolded(self, params: Any) -> Callable[[Any, Array, Change], tuple[Any, Any, Array]]:
        preactivations = self.joined(params)

        def step(before: MGUState, x: Array, change: Change) -> tuple[Any, Any, Array]:
            a = preactivations(before, x)
            gates = change(self.gates(a), ("forget_gate", "update_gate"))
            a = self.recurrence.reset_by(gates.forget_gate, params, before, x, a)
            gates = change(gates._replace(candidate=self.gates(a).candidate), ("candidate",))
            return change(self.settle(before, gates, a), ("hidden",)), gates, a

        return step

    def linearise(self, params: MGUParams, before: MGUState, a: Array, after: MGUState) -> MGUSlopes:
        del params, after
        xp = namespace(a, before.hidden)
        a_f, a_n = blocks(a, self.hidden_size)
        f, f_slope = sigmoid_and_slope(xp, a_f)
        return MGUSlopes(
            forget=(xp.tanh(a_n) - before.hidden) * f_slope,
            candidate=f * tanh_slope(xp, a_n),
            carry=sigmoid_and_slope(xp, -a_f)[0],
            reset=before.hidden * f_slope,
            share=f,
        )

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂h has the eigenvalues (1 − f) + f² eig(U_n): 1 is crossed at 1 / f.
        return 1 + math.exp(-biases["forget_gate"])

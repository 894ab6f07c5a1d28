"""JANET: an LSTM with nothing but its forget gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, activations, namespace, sigmoid, sigmoid_and_slope, tanh_slope
from lstmx.cells.base import Cell, Layout
from lstmx.cells.recurrence import blocks
from lstmx.checks import finite_number
from lstmx.draws import Draws


class JANETParams(NamedTuple):
    """Parameters; column blocks f, g (forget gate, candidate)."""

    input_kernel: Array
    """W, [D, 2H]."""
    recurrent_kernel: Array
    """U, [H, 2H]."""
    bias: Array
    """b, [2H]."""


class JANETState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class JANETGates(NamedTuple):
    """Gate activation; the candidate is no gate: it lies in [−1, 1]."""

    forget_gate: Array
    candidate: Array


class JANETSlopes(NamedTuple):
    """Factors of the one-step Jacobian: ∂h_t/∂a_f, ∂h_t/∂a_g, and ∂h_t/∂h_{t-1} at fixed pre-activations."""

    forget: Array
    candidate: Array
    carry: Array


_LAYOUT = Layout(
    blocks=("forget_gate", "candidate"),
    gates={"forget_gate": (0, 1)},
    retention_gate="forget_gate",
    from_blocks={"forget": ("hidden", 0), "candidate": ("hidden", 1)},
    from_before={"carry": ("hidden", "hidden")},
    from_after={},
)


@dataclass(frozen=True, repr=False)
class JANET(Cell[JANETParams, JANETState]):
    """Just another network: an LSTM whose one gate decides what is kept and what is taken in.

        a = x W + h U + b                     blocks f, g
        h_t = σ(a_f) ∘ h_{t-1} + (1 − σ(a_f − β)) ∘ tanh(a_g)

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        forget_bias: value that `init` stores as the forget gate's bias.
        beta: β: how much more is taken in than is forgotten. With 0 what is kept and what is taken in add up to 1;
            with more h_t can leave [−1, 1].

    References:
        van der Westhuizen & Lasenby, "The unreasonable effectiveness of the forget gate", arXiv 1804.04849, 2018.
    """

    input_size: int
    hidden_size: int
    forget_bias: float = 1.0
    beta: float = 1.0

    gate_type: ClassVar[type] = JANETGates

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("forget_bias", "beta"):
            finite_number(name, getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))  # of NumPy's numbers, too

    @property
    def state_type(self) -> type[Any]:
        return JANETState

    @property
    def layout(self) -> Layout:
        return _LAYOUT

    def parameter_shapes(self) -> JANETParams:
        d, h = self.input_size, self.hidden_size
        return JANETParams._make(((d, 2 * h), (h, 2 * h), (2 * h,)))

    def draw(self, draws: Draws, dtype: Any) -> JANETParams:
        d, h, xp = self.input_size, self.hidden_size, draws.xp
        return JANETParams(
            draws.glorot_uniform(d, h, 2, dtype),
            draws.orthogonal(h, 2, dtype),
            xp.concat([xp.full(h, self.forget_bias, dtype=dtype), xp.zeros(h, dtype=dtype)]),
        )

    def gates(self, a: Array) -> JANETGates:
        return JANETGates(*activations(a, self.hidden_size, tanh=(1,)))

    def settle(self, before: JANETState, gates: JANETGates, a: Array) -> JANETState:
        f, g = gates
        taken = sigmoid(namespace(a), self.beta - a[..., : self.hidden_size])
        return JANETState(f * before.hidden + taken * g)

    def linearise(self, params: JANETParams, before: JANETState, a: Array, after: JANETState) -> JANETSlopes:
        del params, after
        xp = namespace(a, before.hidden)
        a_f, a_g = blocks(a, self.hidden_size)
        f, f_slope = sigmoid_and_slope(xp, a_f)
        taken, taken_slope = sigmoid_and_slope(xp, self.beta - a_f)
        forget = before.hidden * f_slope - xp.tanh(a_g) * taken_slope
        return JANETSlopes(forget, taken * tanh_slope(xp, a_g), f)

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂h has the eigenvalues f + (1 − σ(b_f − β)) eig(U_g).
        bias = biases["forget_gate"]
        return (1 + math.exp(bias - self.beta)) / (1 + math.exp(bias))

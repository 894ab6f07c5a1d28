"""SLSTM: the scalar LSTM of xLSTM, with an exponential input gate, a normaliser and a stabiliser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, log, log_sigmoid, namespace, sigmoid, sigmoid_and_slope, tanh_slope
from lstmx.cells.base import Cell, Change, Layout
from lstmx.cells.recurrence import blocks
from lstmx.checks import finite_number, one_of
from lstmx.draws import Draws


class SLSTMParams(NamedTuple):
    """Parameters; column blocks i, f, z, o (input gate, forget gate, candidate, output gate)."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]."""
    bias: Array
    """b, [4H]."""


class SLSTMState(NamedTuple):
    """State (h, c, n, m); the numbers that it stands for are c eᵐ and n eᵐ."""

    hidden: Array
    """h_t, [*batch, H]."""
    cell: Array
    """c_t, [*batch, H]."""
    normaliser: Array
    """n_t, [*batch, H]: at least 0, and 0 in an empty state."""
    stabiliser: Array
    """m_t, [*batch, H]."""


class SLSTMGates(NamedTuple):
    """The gates that act on p = c / n, of which the first two add up to 1; the candidate lies in [−1, 1]."""

    input_gate: Array
    """i' / n."""
    forget_gate: Array
    """f' n_{t-1} / n_t."""
    candidate: Array
    output_gate: Array


class SLSTMSlopes(NamedTuple):
    """Factors of the one-step Jacobian; "direct" is at a fixed stabiliser after the step."""

    cell_input: Array
    """∂c_t/∂a_i, direct; so the next five."""
    cell_forget: Array
    cell_candidate: Array
    normaliser_input: Array
    normaliser_forget: Array
    output: Array
    """∂h_t/∂a_o."""
    stabiliser_input: Array
    """∂m_t/∂a_i: 1 where the new is what m_t was set by, else 0."""
    stabiliser_forget: Array
    """∂m_t/∂a_f."""
    carry: Array
    """∂c_t/∂c_{t-1}: f'."""
    normaliser_carry: Array
    """∂n_t/∂n_{t-1}: f'."""
    cell_shift: Array
    """∂c_t/∂m_{t-1}, direct."""
    normaliser_shift: Array
    """∂n_t/∂m_{t-1}, direct."""
    stabiliser_carry: Array
    """∂m_t/∂m_{t-1}: 1 where the old is what m_t was set by, else 0."""
    readout: Array
    """∂h_t/∂c_t."""
    normalised: Array
    """∂h_t/∂n_t."""
    cell_scale: Array
    """∂c_t/∂m_t: −c_t."""
    normaliser_scale: Array
    """∂n_t/∂m_t: −n_t."""


_LAYOUT = Layout(
    blocks=("input_gate", "forget_gate", "candidate", "output_gate"),
    gates={"input_gate": (0, 1), "forget_gate": (1, 1), "output_gate": (3, 1)},
    retention_gate="forget_gate",
    from_blocks={
        "cell_input": ("cell", 0),
        "normaliser_input": ("normaliser", 0),
        "stabiliser_input": ("stabiliser", 0),
        "cell_forget": ("cell", 1),
        "normaliser_forget": ("normaliser", 1),
        "stabiliser_forget": ("stabiliser", 1),
        "cell_candidate": ("cell", 2),
        "output": ("hidden", 3),
    },
    from_before={
        "carry": ("cell", "cell"),
        "normaliser_carry": ("normaliser", "normaliser"),
        "cell_shift": ("cell", "stabiliser"),
        "normaliser_shift": ("normaliser", "stabiliser"),
        "stabiliser_carry": ("stabiliser", "stabiliser"),
    },
    from_after={
        "readout": ("hidden", "cell"),
        "normalised": ("hidden", "normaliser"),
        "cell_scale": ("cell", "stabiliser"),
        "normaliser_scale": ("normaliser", "stabiliser"),
    },
)


@dataclass(frozen=True, repr=False)
class SLSTM(Cell[SLSTMParams, SLSTMState]):
    """Scalar LSTM with exponential gating; its states are kept within the float range by a running maximum m.

        a = x W + h U + b                     blocks i, f, z, o
        z, o = tanh(a_z), σ(a_o);             ln f = ln σ(a_f), or a_f
        m_t = max(ln f + m_{t-1}, a_i)
        i', f' = exp(a_i − m_t), exp(ln f + m_{t-1} − m_t)
        c_t = f' ∘ c_{t-1} + i' ∘ z
        n_t = f' ∘ n_{t-1} + i'
        h_t = o ∘ c_t / n_t

    A state with n = 0, such as the zero state, is empty: nothing of it is kept, f' = 0 and m_t = a_i.

    Gates. What is kept from step to step is p = c / n, and p_t = f° ∘ p_{t-1} + i° ∘ z with i° = i' / n_t and
    f° = f' n_{t-1} / n_t = 1 − i°. These two are what a history, statistics, time scales and the highway call the
    input gate and the forget gate, for f alone is not the memory: an input gate that grows makes it forget. With
    l = ln f + m_{t-1} + ln n_{t-1} − a_i, f° = σ(l), from which ln f° is exact where f° rounds to 0 or to 1. At a
    step from an empty state f° = 0, and ln f° is −inf: time scales leave such a step out, `highway` does not.

    Jacobians are those of the map (h, c, n, m) → (h, c, n, m) as it stands, the maximum differentiated along what
    it was taken by (along a_i where both are equal). Since (c, n, m) and (c e⁻ˢ, n e⁻ˢ, m + s) are one state, each
    unit has a direction that no output shows: its tangent is kept as it is where the old state sets m, and is 0
    where the input does. So of the 4 H Lyapunov exponents H are −inf, or 0 for a unit whose m the input never
    sets, and the sum rule compares infinities: ask for 3 H at most. Gradients of outputs have no part along it:
    ∂L/∂m is 0 once all ways are counted, up to rounding. The gradient's highway along c, ∂c_t/∂c_s = Π f', is Π f°
    times n_t / n_s.

    Fixed points: with f = σ(a_f) and a constant input there is a compact set that the map takes into itself; n
    rests at 1 / (1 − f), m at a_i. With exponential f points are found where f < 1. Where f ≥ 1, n or m grows on
    and there is none, even where h comes to rest.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        forget_bias: f is σ(forget_bias) where all else is zero: `init` stores the bias of a_f that makes it so.
        forget_activation: "sigmoid" for f = σ(a_f), "exponential" for f = exp(a_f), which can exceed 1.

    References:
        Beck et al., "xLSTM: extended long short-term memory", NeurIPS 2024 (arXiv 2405.04517). There U has a block
        for each head; here it is dense. The first step is that of the authors' code, slstm_forward_pointwise of
        github.com/NX-AI/xlstm.
    """

    input_size: int
    hidden_size: int
    forget_bias: float = 1.0
    forget_activation: str = "sigmoid"

    gate_type: ClassVar[type] = SLSTMGates

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number("forget_bias", self.forget_bias)
        object.__setattr__(self, "forget_bias", float(self.forget_bias))  # of NumPy's numbers, too
        one_of("forget_activation", self.forget_activation, ("sigmoid", "exponential"))

    @property
    def state_type(self) -> type[Any]:
        return SLSTMState

    @property
    def layout(self) -> Layout:
        return _LAYOUT

    @property
    def bounded(self) -> bool:
        return self.forget_activation == "sigmoid"

    def parameter_shapes(self) -> SLSTMParams:
        d, h = self.input_size, self.hidden_size
        return SLSTMParams._make(((d, 4 * h), (h, 4 * h), (4 * h,)))

    def draw(self, draws: Draws, dtype: Any) -> SLSTMParams:
        d, h, xp = self.input_size, self.hidden_size, draws.xp
        forget = self.retention_biases(xp.full(h, self.forget_bias, dtype=dtype))["forget_gate"]
        zeros = xp.zeros(h, dtype=dtype)
        return SLSTMParams(
            draws.glorot_uniform(d, h, 4, dtype),
            draws.orthogonal(h, 4, dtype),
            xp.concat([zeros, forget, zeros, zeros]),
        )

    # ------------------------------------------------------------------------------------------- gates

    @property
    def gates_read_state(self) -> bool:
        return True

    def retention_biases(self, values: Array) -> dict[str, Array]:
        return {"forget_gate": values if self.forget_activation == "sigmoid" else log_sigmoid(values)}

    def readings(self, before: SLSTMState, a: Array) -> SLSTMGates:
        xp, logit = namespace(a, before.normaliser), self.gate_logit("forget_gate", before, a)
        _, _, a_z, a_o = blocks(a, self.hidden_size)
        return SLSTMGates(sigmoid(xp, -logit), sigmoid(xp, logit), xp.tanh(a_z), sigmoid(xp, a_o))

    def gate_logit(self, name: str, before: SLSTMState, a: Array) -> Array:
        a_i, a_f, _, a_o = blocks(a, self.hidden_size)
        if name == "output_gate":
            return a_o
        logit = self._log_forget(a_f) + before.stabiliser + log(before.normaliser) - a_i
        return logit if name == "forget_gate" else -logit

    # --------------------------------------------------------------------------------------- equations

    def _log_forget(self, a_f: Array) -> Array:
        return log_sigmoid(a_f) if self.forget_activation == "sigmoid" else a_f

    def _stabilised(self, before: SLSTMState, a_i: Array, a_f: Array) -> tuple[Array, Array, Array, Array]:
        """M_t, i', f', and whether the old state sets m_t."""
        xp = namespace(a_i, before.normaliser)
        empty = before.normaliser == 0
        carried = xp.where(empty, a_i, self._log_forget(a_f) + before.stabiliser)
        m = xp.maximum(carried, a_i)
        kept = xp.exp(carried - m)
        return m, xp.exp(a_i - m), xp.where(empty, xp.zeros_like(kept), kept), carried > a_i

    def update(self, before: SLSTMState, a: Array) -> SLSTMState:
        a_i, a_f, a_z, a_o = blocks(a, self.hidden_size)
        xp = namespace(a, before.cell)
        m, into, kept, _ = self._stabilised(before, a_i, a_f)
        c = kept * before.cell + into * xp.tanh(a_z)
        n = kept * before.normaliser + into
        return SLSTMState(sigmoid(xp, a_o) * c / n, c, n, m)

    def settle(self, before: SLSTMState, gates: SLSTMGates, a: Array) -> SLSTMState:
        a_i, a_f, _, _ = blocks(a, self.hidden_size)
        m, into, kept, _ = self._stabilised(before, a_i, a_f)
        n = kept * before.normaliser + into
        empty = before.normaliser == 0
        p = before.cell / namespace(n).where(empty, namespace(n).ones_like(n), before.normaliser)
        p = gates.forget_gate * p + gates.input_gate * gates.candidate
        return SLSTMState(gates.output_gate * p, n * p, n, m)

    def unfolded(self, params: Any) -> Callable[[Any, Array, Change], tuple[Any, Any, Array]]:
        preactivations = self.joined(params)

        def step(before: SLSTMState, x: Array, change: Change) -> tuple[Any, Any, Array]:
            a = preactivations(before, x)
            gates = change(self.readings(before, a), self.gate_type._fields)
            after = change(self.settle(before, gates, a), ("cell", "normaliser", "stabiliser"))
            after = after._replace(hidden=gates.output_gate * after.cell / after.normaliser)
            return change(after, ("hidden",)), gates, a

        return step

    def linearise(self, params: SLSTMParams, before: SLSTMState, a: Array, after: SLSTMState) -> SLSTMSlopes:
        del params
        xp = namespace(a, before.cell)
        a_i, a_f, a_z, a_o = blocks(a, self.hidden_size)
        _, into, kept, old = self._stabilised(before, a_i, a_f)
        one = xp.ones_like(into)
        old = xp.where(old, one, xp.zeros_like(one))
        log_slope = sigmoid_and_slope(xp, -a_f)[0] if self.forget_activation == "sigmoid" else one
        o, o_slope = sigmoid_and_slope(xp, a_o)
        p, readout, z = after.cell / after.normaliser, o / after.normaliser, xp.tanh(a_z)
        cell, normaliser = kept * before.cell, kept * before.normaliser
        return SLSTMSlopes(
            cell_input=into * z,
            cell_forget=cell * log_slope,
            cell_candidate=into * tanh_slope(xp, a_z),
            normaliser_input=into,
            normaliser_forget=normaliser * log_slope,
            output=p * o_slope,
            stabiliser_input=1 - old,
            stabiliser_forget=old * log_slope,
            carry=kept,
            normaliser_carry=kept,
            cell_shift=cell,
            normaliser_shift=normaliser,
            stabiliser_carry=old,
            readout=readout,
            normalised=-readout * p,
            cell_scale=-after.cell,
            normaliser_scale=-after.normaliser,
        )

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At rest, with h = c = 0 and n = 1 / (1 − f), ∂(h, c) has the eigenvalues f + (1 − f) o eig(U_z).
        return 1 + math.exp(-biases["output_gate"])

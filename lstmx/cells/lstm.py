"""The LSTM with a forget gate: today's frameworks' LSTM, without peepholes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, activations, log, namespace, sigmoid_and_slope, solve, tanh_slope
from lstmx.cells.base import Cell, affine_cotangent, blocks, one_product
from lstmx.checks import finite_number
from lstmx.draws import Draws


class LSTMParams(NamedTuple):
    """Parameters; column blocks i, f, g, o (input gate, forget gate, candidate, output gate)."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]."""
    bias: Array
    """b, [4H]."""


class LSTMState(NamedTuple):
    """State (h, c)."""

    hidden: Array
    """h_t, [*batch, H]."""
    cell: Array
    """c_t, [*batch, H]."""


class LSTMGates(NamedTuple):
    """Gate activations; the candidate is no gate: it lies in [−1, 1]."""

    input_gate: Array
    forget_gate: Array
    candidate: Array
    output_gate: Array


class LSTMSlopes(NamedTuple):
    """Factors of the one-step Jacobian: ∂c_t/∂a_t for three blocks, ∂h_t/∂a_t for the last, and two more."""

    input: Array
    forget: Array
    candidate: Array
    output: Array
    carry: Array
    """∂c_t/∂c_{t-1} at fixed h_{t-1}: the forget gate."""
    readout: Array
    """∂h_t/∂c_t at fixed output gate."""


@dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory with input, forget and output gate, no peepholes.

        a = x W + h U + b                     blocks i, f, g, o
        i, f, o = σ(a_i), σ(a_f), σ(a_o);     g = tanh(a_g)
        c_t = f ∘ c_{t-1} + i ∘ g
        h_t = o ∘ tanh(c_t)

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        forget_bias: value that `init` stores in the forget block of the bias; nothing is added at run time.

    References:
        Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
        Gers, Schmidhuber & Cummins, "Learning to forget", Neural Computation 12(10), 2000.
    """

    input_size: int
    hidden_size: int
    forget_bias: float = 1.0

    state_type: ClassVar[type] = LSTMState
    gate_type: ClassVar[type] = LSTMGates
    gate_blocks: ClassVar[dict[str, int]] = {"input_gate": 0, "forget_gate": 1, "output_gate": 3}
    preactivation_blocks: ClassVar[int] = 4
    retention_gate: ClassVar[str | None] = "forget_gate"

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number("forget_bias", self.forget_bias)
        object.__setattr__(self, "forget_bias", float(self.forget_bias))  # of NumPy's numbers, too

    def parameter_shapes(self) -> LSTMParams:
        d, h = self.input_size, self.hidden_size
        return LSTMParams((d, 4 * h), (h, 4 * h), (4 * h,))

    def draw(self, draws: Draws, dtype: Any) -> LSTMParams:
        d, h, xp = self.input_size, self.hidden_size, draws.xp
        zeros = xp.zeros(h, dtype=dtype)
        return LSTMParams(
            draws.glorot_uniform(d, h, 4, dtype),
            draws.orthogonal(h, 4, dtype),
            xp.concat([zeros, xp.full(h, self.forget_bias, dtype=dtype), zeros, zeros]),
        )

    def drive(self, params: LSTMParams, x: Array) -> Array:
        return x @ params.input_kernel + params.bias

    def driven(self, params: LSTMParams, before: LSTMState, drive: Array) -> Array:
        return drive + before.hidden @ params.recurrent_kernel

    def joined(self, params: LSTMParams) -> Callable[[LSTMState, Array], Array]:
        return one_product(params)

    def gates(self, a: Array) -> LSTMGates:
        return LSTMGates(*activations(a, self.hidden_size, tanh=(2,)))

    def update(self, before: LSTMState, a: Array) -> LSTMState:
        xp = namespace(a, before.cell)
        i, f, g, o = self.gates(a)
        c = f * before.cell + i * g
        return LSTMState(o * xp.tanh(c), c)

    def linearise(self, before: LSTMState, a: Array, after: LSTMState) -> LSTMSlopes:
        xp = namespace(a, after.cell)
        a_i, a_f, a_g, a_o = blocks(a, self.hidden_size)
        i, i_slope = sigmoid_and_slope(xp, a_i)
        f, f_slope = sigmoid_and_slope(xp, a_f)
        o, o_slope = sigmoid_and_slope(xp, a_o)
        return LSTMSlopes(
            input=xp.tanh(a_g) * i_slope,
            forget=before.cell * f_slope,
            candidate=i * tanh_slope(xp, a_g),
            output=xp.tanh(after.cell) * o_slope,
            carry=f,
            readout=o * tanh_slope(xp, after.cell),
        )

    def total_cotangent(self, slopes: LSTMSlopes, cotangent: LSTMState) -> LSTMState:
        return LSTMState(cotangent.hidden, cotangent.cell + cotangent.hidden * slopes.readout)

    def straight(self, slopes: LSTMSlopes, cotangent: LSTMState) -> LSTMState:
        d_h, d_c = self.total_cotangent(slopes, cotangent)
        return LSTMState(0 * d_h, d_c * slopes.carry)

    def preactivation_cotangent(self, slopes: LSTMSlopes, cotangent: LSTMState) -> Array:
        d_h, d_c = self.total_cotangent(slopes, cotangent)
        return namespace(d_h, d_c, slopes.carry).concat(
            [d_c * slopes.input, d_c * slopes.forget, d_c * slopes.candidate, d_h * slopes.output], axis=-1
        )

    def pull(self, transposed: Array, slopes: LSTMSlopes, cotangent: LSTMState) -> tuple[LSTMState, Array]:
        d_a = self.preactivation_cotangent(slopes, cotangent)
        d_c = self.total_cotangent(slopes, cotangent).cell
        return LSTMState(d_a @ transposed, d_c * slopes.carry), d_a

    def spread(self, slopes: LSTMSlopes, tangent: LSTMState, from_h: Array, from_x: Array | None) -> LSTMState:
        i, f, g, o = blocks(from_h if from_x is None else from_h + from_x, self.hidden_size)
        d_c = slopes.carry * tangent.cell + slopes.input * i + slopes.forget * f + slopes.candidate * g
        return LSTMState(slopes.readout * d_c + slopes.output * o, d_c)

    def log_determinant(self, params: LSTMParams, slopes: LSTMSlopes) -> Array:
        # With c as the pivot, what is left for h is ∂h_t/∂h_{t-1} along the output gate alone.
        xp = namespace(*slopes, *params)
        output_kernel = params.recurrent_kernel[:, 3 * self.hidden_size :]
        own = log(slopes.carry) + log(xp.abs(slopes.output))
        return xp.sum(own, axis=-1) + xp.linalg.slogdet(output_kernel)[1]

    def newton_step(self, params: LSTMParams, slopes: LSTMSlopes, residual: LSTMState) -> LSTMState:
        # ∂c/∂c is diagonal: with c eliminated, a system of H unknowns is left.
        xp, h = namespace(*params, *slopes), self.hidden_size
        i, f, g, o = (xp.swapaxes(block, 0, 1) for block in blocks(params.recurrent_kernel, h))

        def rows(slope: Array, block: Array) -> Array:
            return slope[..., :, None] * block

        cell = rows(slopes.input, i) + rows(slopes.forget, f) + rows(slopes.candidate, g)
        leak = 1 - slopes.carry
        matrix = xp.eye(h, dtype=o.dtype) - rows(slopes.output, o) - rows(slopes.readout / leak, cell)
        handed = slopes.readout * slopes.carry * residual.cell / leak
        d_h = solve(matrix, residual.hidden + handed)
        return LSTMState(d_h, (residual.cell + (cell @ d_h[..., None])[..., 0]) / leak)

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂(h, c) has the eigenvalues σ(b_f) + σ(b_i) σ(b_o) eig(U_g), and H zeros.
        forget, into, out = (biases[name] for name in ("forget_gate", "input_gate", "output_gate"))
        return (1 + math.exp(-into)) * (1 + math.exp(-out)) / (1 + math.exp(forget))

    def sides(self, a_cotangent: Array) -> tuple[Array, Array]:
        return a_cotangent, a_cotangent

    def parameter_cotangent(self, hidden_before: Array, x: Array, a_cotangent: Array) -> LSTMParams:
        return LSTMParams(*affine_cotangent(x, hidden_before, a_cotangent))

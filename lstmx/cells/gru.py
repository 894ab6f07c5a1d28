"""The gated recurrent unit whose reset gate acts after the recurrent product, as in PyTorch and cuDNN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, activations, namespace, sigmoid_and_slope, tanh_slope
from lstmx.cells.base import Cell, blocks, outer, total
from lstmx.draws import Draws


class GRUParams(NamedTuple):
    """Parameters; column blocks r, z, n (reset gate, update gate, candidate)."""

    input_kernel: Array
    """W, [D, 3H]."""
    recurrent_kernel: Array
    """U, [H, 3H]."""
    bias: Array
    """b, [3H]; for r and z the sum of the two biases that PyTorch keeps."""
    candidate_bias: Array
    """b_q, [H]: the recurrent bias of the candidate, inside the product with the reset gate."""


class GRUState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class GRUGates(NamedTuple):
    """Gate activations; the candidate is no gate: it lies in [−1, 1]."""

    reset_gate: Array
    update_gate: Array
    candidate: Array


class GRUSlopes(NamedTuple):
    """Factors of the one-step Jacobian: ∂h_t/∂a_t for the four blocks r, z, n, q, and the straight way."""

    reset: Array
    update: Array
    candidate: Array
    recurrent: Array
    carry: Array
    """∂h_t/∂h_{t-1} at fixed pre-activations: the update gate."""


@dataclass(frozen=True)
class GRU(Cell):
    """Gated recurrent unit, reset after the recurrent product.

        r, z = σ(x W_r + h U_r + b_r), σ(x W_z + h U_z + b_z)
        q = h U_n + b_q;  n = tanh(x W_n + b_n + r ∘ q)
        h_t = (1 − z) ∘ n + z ∘ h_{t-1}

    The pre-activations are packed in four blocks: a_r, a_z, a_n = x W_n + b_n (its input side), and q. Here
    z is the share of the old state that is kept; some texts call 1 − z the update gate.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.

    References:
        Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
        translation", EMNLP 2014, for the unit; the equations above are those of `torch.nn.GRU`.
    """

    input_size: int
    hidden_size: int

    state_type: ClassVar[type] = GRUState
    gate_type: ClassVar[type] = GRUGates
    gate_blocks: ClassVar[dict[str, int]] = {"reset_gate": 0, "update_gate": 1}
    preactivation_blocks: ClassVar[int] = 4
    retention_gate: ClassVar[str | None] = "update_gate"

    def parameter_shapes(self) -> GRUParams:
        d, h = self.input_size, self.hidden_size
        return GRUParams((d, 3 * h), (h, 3 * h), (3 * h,), (h,))

    def draw(self, draws: Draws, dtype: Any) -> GRUParams:
        d, h, xp = self.input_size, self.hidden_size, draws.xp
        return GRUParams(
            draws.glorot_uniform(d, h, 3, dtype),
            draws.orthogonal(h, 3, dtype),
            xp.zeros(3 * h, dtype=dtype),
            xp.zeros(h, dtype=dtype),
        )

    def drive(self, params: GRUParams, x: Array) -> Array:
        xp = namespace(params.bias, x)
        from_x = x @ params.input_kernel + params.bias
        q = xp.broadcast_to(params.candidate_bias, (*from_x.shape[:-1], self.hidden_size))
        return xp.concat([from_x, q], axis=-1)

    def driven(self, params: GRUParams, before: GRUState, drive: Array) -> Array:
        xp = namespace(drive, before.hidden)
        r, z, n, q = blocks(drive, self.hidden_size)
        r_h, z_h, q_h = blocks(before.hidden @ params.recurrent_kernel, self.hidden_size)
        return xp.concat([r + r_h, z + z_h, n, q + q_h], axis=-1)

    def gates(self, a: Array) -> GRUGates:
        xp = namespace(a)
        r, z = activations(a[..., : 2 * self.hidden_size], self.hidden_size)
        n, q = blocks(a[..., 2 * self.hidden_size :], self.hidden_size)
        return GRUGates(r, z, xp.tanh(n + r * q))

    def update(self, before: GRUState, a: Array) -> GRUState:
        _, z, n = self.gates(a)
        return GRUState((1 - z) * n + z * before.hidden)

    def linearise(self, before: GRUState, a: Array, after: GRUState) -> GRUSlopes:
        del after
        xp = namespace(a, before.hidden)
        a_r, a_z, a_n, q = blocks(a, self.hidden_size)
        r, r_slope = sigmoid_and_slope(xp, a_r)
        z, z_slope = sigmoid_and_slope(xp, a_z)
        n = a_n + r * q
        candidate = sigmoid_and_slope(xp, -a_z)[0] * tanh_slope(xp, n)
        return GRUSlopes(
            reset=candidate * q * r_slope,
            update=(before.hidden - xp.tanh(n)) * z_slope,
            candidate=candidate,
            recurrent=candidate * r,
            carry=z,
        )

    def total_cotangent(self, slopes: GRUSlopes, cotangent: GRUState) -> GRUState:
        del slopes
        return cotangent

    def straight(self, slopes: GRUSlopes, cotangent: GRUState) -> GRUState:
        return GRUState(cotangent.hidden * slopes.carry)

    def preactivation_cotangent(self, slopes: GRUSlopes, cotangent: GRUState) -> Array:
        d_h = cotangent.hidden
        return namespace(d_h, slopes.carry).concat(
            [d_h * slopes.reset, d_h * slopes.update, d_h * slopes.candidate, d_h * slopes.recurrent], axis=-1
        )

    def pull(self, transposed: Array, slopes: GRUSlopes, cotangent: GRUState) -> tuple[GRUState, Array]:
        d_a = self.preactivation_cotangent(slopes, cotangent)
        _, from_h = self.sides(d_a)
        return GRUState(cotangent.hidden * slopes.carry + from_h @ transposed), d_a

    def spread(self, slopes: GRUSlopes, tangent: GRUState, from_h: Array, from_x: Array | None) -> GRUState:
        r, z, q = blocks(from_h, self.hidden_size)
        straight = slopes.carry * tangent.hidden
        d_h = straight + slopes.reset * r + slopes.update * z + slopes.recurrent * q
        if from_x is not None:
            r, z, n = blocks(from_x, self.hidden_size)
            d_h = d_h + slopes.reset * r + slopes.update * z + slopes.candidate * n
        return GRUState(d_h)

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂h has the eigenvalues z + (1 − z) r eig(U_n): 1 is crossed whatever z is.
        return 1 + math.exp(-biases["reset_gate"])

    def sides(self, a_cotangent: Array) -> tuple[Array, Array]:
        r, z, _, q = blocks(a_cotangent, self.hidden_size)
        recurrent = namespace(a_cotangent).concat([r, z, q], axis=-1)
        return a_cotangent[..., : 3 * self.hidden_size], recurrent

    def parameter_cotangent(self, hidden_before: Array, x: Array, a_cotangent: Array) -> GRUParams:
        from_x, from_h = self.sides(a_cotangent)
        bias = total(a_cotangent)
        split = 3 * self.hidden_size
        return GRUParams(outer(x, from_x), outer(hidden_before, from_h), bias[:split], bias[split:])

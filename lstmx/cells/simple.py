"""The simple recurrent network of Elman: one tanh layer that reads its own last output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, log, namespace, tanh_slope
from lstmx.cells.base import Cell, affine_cotangent, one_product
from lstmx.draws import Draws


class SimpleRNNParams(NamedTuple):
    """Parameters."""

    input_kernel: Array
    """W, [D, H]."""
    recurrent_kernel: Array
    """U, [H, H]."""
    bias: Array
    """b, [H]."""


class SimpleRNNState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class SimpleRNNGates(NamedTuple):
    """No gates: the activation is all there is, and it lies in [−1, 1]."""

    candidate: Array


class SimpleRNNSlopes(NamedTuple):
    """The one factor of the one-step Jacobian: tanh'(a_t) = 1 − h_t²."""

    candidate: Array


@dataclass(frozen=True)
class SimpleRNN(Cell):
    """Tanh network: h_t = tanh(x W + h_{t-1} U + b).

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.

    References:
        Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
    """

    input_size: int
    hidden_size: int

    state_type: ClassVar[type] = SimpleRNNState
    gate_type: ClassVar[type] = SimpleRNNGates
    gate_blocks: ClassVar[dict[str, int]] = {}
    preactivation_blocks: ClassVar[int] = 1
    retention_gate: ClassVar[str | None] = None

    def parameter_shapes(self) -> SimpleRNNParams:
        d, h = self.input_size, self.hidden_size
        return SimpleRNNParams((d, h), (h, h), (h,))

    def draw(self, draws: Draws, dtype: Any) -> SimpleRNNParams:
        d, h = self.input_size, self.hidden_size
        return SimpleRNNParams(
            draws.glorot_uniform(d, h, 1, dtype),
            draws.orthogonal(h, 1, dtype),
            draws.xp.zeros(h, dtype=dtype),
        )

    def drive(self, params: SimpleRNNParams, x: Array) -> Array:
        return x @ params.input_kernel + params.bias

    def driven(self, params: SimpleRNNParams, before: SimpleRNNState, drive: Array) -> Array:
        return drive + before.hidden @ params.recurrent_kernel

    def joined(self, params: SimpleRNNParams) -> Callable[[SimpleRNNState, Array], Array]:
        return one_product(params)

    def gates(self, a: Array) -> SimpleRNNGates:
        return SimpleRNNGates(namespace(a).tanh(a))

    def update(self, before: SimpleRNNState, a: Array) -> SimpleRNNState:
        del before
        return SimpleRNNState(namespace(a).tanh(a))

    def linearise(self, before: SimpleRNNState, a: Array, after: SimpleRNNState) -> SimpleRNNSlopes:
        del before, after
        return SimpleRNNSlopes(tanh_slope(namespace(a), a))

    def total_cotangent(self, slopes: SimpleRNNSlopes, cotangent: SimpleRNNState) -> SimpleRNNState:
        del slopes
        return cotangent

    def straight(self, slopes: SimpleRNNSlopes, cotangent: SimpleRNNState) -> SimpleRNNState:
        del slopes
        return SimpleRNNState(0 * cotangent.hidden)

    def preactivation_cotangent(self, slopes: SimpleRNNSlopes, cotangent: SimpleRNNState) -> Array:
        return cotangent.hidden * slopes.candidate

    def pull(
        self, transposed: Array, slopes: SimpleRNNSlopes, cotangent: SimpleRNNState
    ) -> tuple[SimpleRNNState, Array]:
        d_a = self.preactivation_cotangent(slopes, cotangent)
        return SimpleRNNState(d_a @ transposed), d_a

    def spread(
        self, slopes: SimpleRNNSlopes, tangent: SimpleRNNState, from_h: Array, from_x: Array | None
    ) -> SimpleRNNState:
        del tangent
        return SimpleRNNState(slopes.candidate * (from_h if from_x is None else from_h + from_x))

    def log_determinant(self, params: SimpleRNNParams, slopes: SimpleRNNSlopes) -> Array:
        xp = namespace(slopes.candidate, params.recurrent_kernel)
        return xp.sum(log(slopes.candidate), axis=-1) + xp.linalg.slogdet(params.recurrent_kernel)[1]

    def critical_gain(self, biases: dict[str, float]) -> float:
        del biases
        return 1.0

    def sides(self, a_cotangent: Array) -> tuple[Array, Array]:
        return a_cotangent, a_cotangent

    def parameter_cotangent(self, hidden_before: Array, x: Array, a_cotangent: Array) -> SimpleRNNParams:
        return SimpleRNNParams(*affine_cotangent(x, hidden_before, a_cotangent))

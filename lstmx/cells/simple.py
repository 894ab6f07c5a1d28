"""The simple recurrent network of Elman: one layer, tanh or ReLU, that reads its own last output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, log, namespace, tanh_slope
from lstmx.cells.base import Cell, affine_cotangent, one_product
from lstmx.checks import one_of
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
    """No gates: the activation is all there is; tanh lies in [−1, 1], ReLU has no bound above."""

    candidate: Array


class SimpleRNNSlopes(NamedTuple):
    """The one factor of the one-step Jacobian: tanh'(a_t) = 1 − h_t²; for ReLU 1 where a_t > 0, else 0."""

    candidate: Array


@dataclass(frozen=True)
class SimpleRNN(Cell):
    """Network of one layer: h_t = φ(x W + h_{t-1} U + b).

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        activation: φ: "tanh", or "relu" for max(0, a), whose derivative at 0 is taken as 0. With
            `init(key, scheme=lstmx.identity())` the latter is the IRNN.

    References:
        Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
        Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units", arXiv
        1504.00941, 2015, for ReLU.
    """

    input_size: int
    hidden_size: int
    activation: str = "tanh"

    state_type: ClassVar[type] = SimpleRNNState
    gate_type: ClassVar[type] = SimpleRNNGates
    gate_blocks: ClassVar[dict[str, int]] = {}
    preactivation_blocks: ClassVar[int] = 1
    retention_gate: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("activation", self.activation, ("tanh", "relu"))

    @property
    def bounded(self) -> bool:
        return self.activation == "tanh"

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
        xp = namespace(a)
        return SimpleRNNGates(xp.tanh(a) if self.activation == "tanh" else xp.where(a > 0, a, xp.zeros_like(a)))

    def update(self, before: SimpleRNNState, a: Array) -> SimpleRNNState:
        del before
        return SimpleRNNState(self.gates(a).candidate)

    def linearise(self, before: SimpleRNNState, a: Array, after: SimpleRNNState) -> SimpleRNNSlopes:
        del before, after
        xp = namespace(a)
        if self.activation == "tanh":
            return SimpleRNNSlopes(tanh_slope(xp, a))
        return SimpleRNNSlopes(xp.where(a > 0, xp.ones_like(a), xp.zeros_like(a)))

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
        if self.activation != "tanh":
            raise ValueError(
                "a SimpleRNN with ReLU has no derivative at zero, so no gain at which zero gets unstable"
            )
        return 1.0

    def sides(self, a_cotangent: Array) -> tuple[Array, Array]:
        return a_cotangent, a_cotangent

    def parameter_cotangent(self, hidden_before: Array, x: Array, a_cotangent: Array) -> SimpleRNNParams:
        return SimpleRNNParams(*affine_cotangent(x, hidden_before, a_cotangent))

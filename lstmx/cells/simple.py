"""The simple recurrent network of Elman: one layer, tanh or ReLU, that reads its own last output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, log, namespace
from lstmx.cells.activations import activated, activated_and_slope
from lstmx.cells.base import Cell, Layout
from lstmx.checks import one_of


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


_LAYOUT = Layout(
    blocks=("candidate",),
    gates={},
    retention_gate=None,
    from_blocks={"candidate": ("hidden", 0)},
    from_before={},
    from_after={},
)


@dataclass(frozen=True, repr=False)
class SimpleRNN(Cell[SimpleRNNParams, SimpleRNNState]):
    """Network of one layer: h_t = φ(x W + h_{t-1} U + b).

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        activation: φ: "tanh", or "relu" for max(0, a), whose derivative at 0 is taken as 0. With
            `init(key, scheme=lstmx.schemes.identity())` the latter is the IRNN.

    References:
        Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
        Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units", arXiv
        1504.00941, 2015, for ReLU.
    """

    input_size: int
    hidden_size: int
    activation: str = "tanh"

    gate_type: ClassVar[type] = SimpleRNNGates

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("activation", self.activation, ("tanh", "relu"))

    @property
    def state_type(self) -> type[Any]:
        return SimpleRNNState

    @property
    def layout(self) -> Layout:
        return _LAYOUT

    @property
    def bounded(self) -> bool:
        return self.activation == "tanh"

    def parameter_shapes(self) -> SimpleRNNParams:
        d, h = self.input_size, self.hidden_size
        return SimpleRNNParams._make(((d, h), (h, h), (h,)))

    def gates(self, a: Array) -> SimpleRNNGates:
        return SimpleRNNGates(activated(self.activation, a))

    def settle(self, before: SimpleRNNState, gates: SimpleRNNGates, a: Array) -> SimpleRNNState:
        del before, a
        return SimpleRNNState(gates.candidate)

    def linearise(
        self, params: SimpleRNNParams, before: SimpleRNNState, a: Array, after: SimpleRNNState
    ) -> SimpleRNNSlopes:
        del params, before, after
        return SimpleRNNSlopes(activated_and_slope(self.activation, a)[1])

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

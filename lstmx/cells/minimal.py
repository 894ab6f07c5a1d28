"""MinLSTM and MinGRU: gates that read the input alone, so that a pass is a linear recurrence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array, log, log_sigmoid, namespace, sigmoid, sigmoid_and_slope, tanh_slope
from lstmx.cells.base import Cell, Layout, P, S
from lstmx.cells.recurrence import blocks, input_only
from lstmx.checks import one_of

CANDIDATES = ("positive", "identity", "tanh")


class MinLSTMParams(NamedTuple):
    """Parameters; column blocks f, i, g (forget gate, input gate, candidate)."""

    input_kernel: Array
    """W, [D, 3H]."""
    bias: Array
    """b, [3H]."""


class MinGRUParams(NamedTuple):
    """Parameters; column blocks z, g (input gate, candidate)."""

    input_kernel: Array
    """W, [D, 2H]."""
    bias: Array
    """b, [2H]."""


class MinLSTMState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class MinGRUState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class MinLSTMGates(NamedTuple):
    """The gates that act, which add up to 1; the candidate is no gate: "positive" and "identity" have no bound."""

    input_gate: Array
    """i' = i / (f + i)."""
    forget_gate: Array
    """f' = f / (f + i)."""
    candidate: Array


class MinGRUGates(NamedTuple):
    """Gate activations, which add up to 1; the candidate is no gate: "positive" and "identity" have no bound."""

    input_gate: Array
    """z, as its authors call it: the share of the new."""
    update_gate: Array
    """1 − z, the share of the old state that is kept, under the name that it has in a GRU."""
    candidate: Array


class MinLSTMSlopes(NamedTuple):
    """Factors of the one-step Jacobian: ∂h_t/∂a_f, ∂h_t/∂a_i, ∂h_t/∂a_g, and ∂h_t/∂h_{t-1}."""

    forget: Array
    input: Array
    candidate: Array
    carry: Array


class MinGRUSlopes(NamedTuple):
    """Factors of the one-step Jacobian: ∂h_t/∂a_z, ∂h_t/∂a_g, and ∂h_t/∂h_{t-1}."""

    input: Array
    candidate: Array
    carry: Array


_LSTM = Layout(
    blocks=("forget_gate", "input_gate", "candidate"),
    gates={"input_gate": (1, 1), "forget_gate": (0, 1)},
    retention_gate="forget_gate",
    from_blocks={"forget": ("hidden", 0), "input": ("hidden", 1), "candidate": ("hidden", 2)},
    from_before={"carry": ("hidden", "hidden")},
    from_after={},
)
_GRU = Layout(
    blocks=("input_gate", "candidate"),
    gates={"input_gate": (0, 1), "update_gate": (0, -1)},
    retention_gate="update_gate",
    from_blocks={"input": ("hidden", 0), "candidate": ("hidden", 1)},
    from_before={"carry": ("hidden", "hidden")},
    from_after={},
)


class _Minimal(Cell[P, S]):
    """What the two have in common: h_t = σ(l) ∘ h_{t-1} + σ(−l) ∘ g(a_g), with l from the input alone."""

    candidate_activation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("candidate_activation", self.candidate_activation, CANDIDATES)

    @property
    def recurrence(self) -> Any:
        return input_only(self.hidden_size)

    def parameter_shapes(self) -> Any:
        columns = self.preactivation_size
        return self._parameters((self.input_size, columns), (columns,))

    @abstractmethod
    def _parameters(self, kernel: Any, bias: Any) -> Any:
        """The cell's parameters, or their shapes."""

    @abstractmethod
    def _retention_logit(self, a: Array) -> Array:
        """The l, [*batch, H]."""

    def gate_logit(self, name: str, before: Any, a: Array) -> Array:
        del before
        logit = self._retention_logit(a)
        return logit if name == self.retention_gate else -logit

    def gates(self, a: Array) -> Any:
        logit = self._retention_logit(a)
        xp = namespace(a)
        return self.gate_type(sigmoid(xp, -logit), sigmoid(xp, logit), self._candidate(a))

    def settle(self, before: Any, gates: Any, a: Array) -> Any:
        del a
        taken, kept, candidate = gates
        return self.state_type(kept * before.hidden + taken * candidate)

    def logarithms(self, a: Array) -> tuple[Array, Array]:
        if self.candidate_activation != "positive":
            raise ValueError(
                f"parallel=True takes logarithms of the candidate, which candidate_activation="
                f"{self.candidate_activation!r} can make negative; expected 'positive'"
            )
        logit, xp = self._retention_logit(a), namespace(a)
        a_g = a[..., -self.hidden_size :]
        above = xp.where(a_g >= 0, a_g, xp.zeros_like(a_g))  # the log of the branch not taken stays finite
        candidate = xp.where(a_g >= 0, xp.log(above + 0.5), log_sigmoid(a_g))
        return log_sigmoid(logit), log_sigmoid(-logit) + candidate

    def _candidate(self, a: Array) -> Array:
        a_g, xp = a[..., -self.hidden_size :], namespace(a)
        if self.candidate_activation == "identity":
            return a_g
        if self.candidate_activation == "tanh":
            return xp.tanh(a_g)
        return xp.where(a_g >= 0, a_g + 0.5, sigmoid_and_slope(xp, a_g)[0])

    def _factors(self, before: Any, a: Array) -> tuple[Array, Array, Array]:
        """∂h_t/∂l, ∂h_t/∂a_g and ∂h_t/∂h_{t-1}."""
        xp, logit, a_g = namespace(a, before.hidden), self._retention_logit(a), a[..., -self.hidden_size :]
        kept, slope = sigmoid_and_slope(xp, logit)
        candidate_slope = tanh_slope(xp, a_g) if self.candidate_activation == "tanh" else xp.ones_like(a_g)
        if self.candidate_activation == "positive":
            candidate_slope = xp.where(a_g >= 0, candidate_slope, sigmoid_and_slope(xp, a_g)[1])
        through_gate = (before.hidden - self._candidate(a)) * slope
        return through_gate, sigmoid_and_slope(xp, -logit)[0] * candidate_slope, kept

    def log_determinant(self, params: Any, slopes: Any) -> Array:
        del params  # the Jacobian is diagonal
        return namespace(slopes.carry).sum(log(slopes.carry), axis=-1)

    def critical_gain(self, biases: dict[str, float]) -> float:
        raise ValueError(
            f"a {type(self).__name__} has no recurrent weights, and so no gain at which zero is unstable"
        )


@dataclass(frozen=True, repr=False)
class MinLSTM(_Minimal[MinLSTMParams, MinLSTMState]):
    """Minimal LSTM: gates that read x_t alone, and are brought to a sum of 1.

        a = x W + b                           blocks f, i, g
        f, i = σ(a_f), σ(a_i);                f', i' = f / (f + i), i / (f + i)
        h_t = f' ∘ h_{t-1} + i' ∘ g(a_g)

    What a history, statistics and time scales call the forget gate and the input gate is f' and i', for these act;
    f' = σ(l) with l = ln σ(a_f) − ln σ(a_i), from which ln f' and ln i' are exact where f' rounds to 0 or to 1.

    The Jacobian is diagonal, and a pass is a linear recurrence: `run(..., parallel=True)`.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        candidate_activation: g: "positive", a + ½ for a ≥ 0 and σ(a) below, whose logarithm the parallel scan
            takes; or "identity", or "tanh".

    References:
        Feng, Tung, Ahmed, Bengio & Hajimirsadeghi, "Were RNNs all we needed?", arXiv 2410.01201, 2024; "positive"
        is that of its appendix B.
    """

    input_size: int
    hidden_size: int
    candidate_activation: str = "positive"

    gate_type: ClassVar[type] = MinLSTMGates

    @property
    def state_type(self) -> type[Any]:
        return MinLSTMState

    @property
    def layout(self) -> Layout:
        return _LSTM

    def _parameters(self, kernel: Any, bias: Any) -> MinLSTMParams:
        return MinLSTMParams(kernel, bias)

    def retention_biases(self, values: Array) -> dict[str, Array]:
        return {"forget_gate": values, "input_gate": -values}  # then f + i = 1

    def _retention_logit(self, a: Array) -> Array:
        a_f, a_i, _ = blocks(a, self.hidden_size)
        return log_sigmoid(a_f) - log_sigmoid(a_i)

    def linearise(
        self, params: MinLSTMParams, before: MinLSTMState, a: Array, after: MinLSTMState
    ) -> MinLSTMSlopes:
        del params, after
        xp = namespace(a, before.hidden)
        a_f, a_i, _ = blocks(a, self.hidden_size)
        gate, candidate, carry = self._factors(before, a)
        return MinLSTMSlopes(
            forget=gate * sigmoid_and_slope(xp, -a_f)[0],
            input=-gate * sigmoid_and_slope(xp, -a_i)[0],
            candidate=candidate,
            carry=carry,
        )


@dataclass(frozen=True, repr=False)
class MinGRU(_Minimal[MinGRUParams, MinGRUState]):
    """Minimal GRU: one gate, which reads x_t alone.

        a = x W + b                           blocks z, g
        h_t = (1 − z) ∘ h_{t-1} + z ∘ g(a_g), z = σ(a_z)

    What multiplies the old state is 1 − z: time scales are of that, the `update_gate`; z is the `input_gate`.

    The Jacobian is diagonal, and a pass is a linear recurrence: `run(..., parallel=True)`.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        candidate_activation: g, as for `MinLSTM`.

    References:
        Feng, Tung, Ahmed, Bengio & Hajimirsadeghi, "Were RNNs all we needed?", arXiv 2410.01201, 2024.
    """

    input_size: int
    hidden_size: int
    candidate_activation: str = "positive"

    gate_type: ClassVar[type] = MinGRUGates

    @property
    def state_type(self) -> type[Any]:
        return MinGRUState

    @property
    def layout(self) -> Layout:
        return _GRU

    def _parameters(self, kernel: Any, bias: Any) -> MinGRUParams:
        return MinGRUParams(kernel, bias)

    def _retention_logit(self, a: Array) -> Array:
        return -a[..., : self.hidden_size]

    def linearise(self, params: MinGRUParams, before: MinGRUState, a: Array, after: MinGRUState) -> MinGRUSlopes:
        del params, after
        gate, candidate, carry = self._factors(before, a)
        return MinGRUSlopes(-gate, candidate, carry)

"""The gated recurrent unit, with its reset gate after the recurrent product or before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lstmx.arrays import Array
from lstmx.cells.activations import (
    GATE_ACTIVATIONS,
    activated,
    activated_and_slope,
    gain_at,
    gate_at,
    gates_of,
)
from lstmx.cells.base import Cell, Change, Layout
from lstmx.cells.recurrence import blocks, reset_after, reset_before
from lstmx.checks import one_of


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


class ResetBeforeParams(NamedTuple):
    """Parameters with reset before the product, which leaves the candidate one bias; blocks as above."""

    input_kernel: Array
    """W, [D, 3H]."""
    recurrent_kernel: Array
    """U, [H, 3H]."""
    bias: Array
    """b, [3H]."""


class GRUState(NamedTuple):
    """State h."""

    hidden: Array
    """h_t, [*batch, H]."""


class GRUGates(NamedTuple):
    """Gate activations; the candidate is no gate: with tanh it lies in [−1, 1]."""

    reset_gate: Array
    update_gate: Array
    candidate: Array


class GRUSlopes(NamedTuple):
    """Factors of the one-step Jacobian; None for those of the other kind of reset."""

    update: Array
    """∂h_t/∂a_z."""
    candidate: Array
    """∂h_t/∂a_n."""
    carry: Array
    """∂h_t/∂h_{t-1} at fixed pre-activations: the update gate."""
    reset: Array
    """Reset after the product: ∂h_t/∂a_r. Before it: ∂(r ∘ h)/∂a_r."""
    recurrent: Array | None = None
    """Reset after the product: ∂h_t/∂q."""
    share: Array | None = None
    """Reset before the product: ∂(r ∘ h)/∂h, the reset gate."""


_AFTER = Layout(
    blocks=("reset_gate", "update_gate", "candidate", "recurrent"),
    gates={"reset_gate": (0, 1), "update_gate": (1, 1)},
    retention_gate="update_gate",
    from_blocks={
        "reset": ("hidden", 0),
        "update": ("hidden", 1),
        "candidate": ("hidden", 2),
        "recurrent": ("hidden", 3),
    },
    from_before={"carry": ("hidden", "hidden")},
    from_after={},
)
_BEFORE = _AFTER._replace(
    blocks=("reset_gate", "update_gate", "candidate"),
    from_blocks={"update": ("hidden", 1), "candidate": ("hidden", 2)},
)


@dataclass(frozen=True, repr=False)
class GRU(Cell[GRUParams | ResetBeforeParams, GRUState]):
    """Gated recurrent unit.

        r, z = σ(x W_r + h U_r + b_r), σ(x W_z + h U_z + b_z)
        q = h U_n + b_q;  n = tanh(x W_n + b_n + r ∘ q)        reset="after"
                          n = tanh(x W_n + b_n + (r ∘ h) U_n)  reset="before"
        h_t = (1 − z) ∘ n + z ∘ h_{t-1}

    The pre-activations are packed in blocks: a_r, a_z, a_n, and for reset after the product q, which a_n is then
    without. Here z is the share of the old state that is kept; some texts call 1 − z the update gate.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        reset: "after" for the unit of PyTorch and cuDNN, "before" for that of Cho et al.
        candidate_activation: of n, "tanh", or "relu" for max(0, a).
        gate_activation: of r and z: "sigmoid" for σ, "hard_sigmoid" or "hard_sigmoid_0.2", as for `LSTM`.

    References:
        Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
        translation", EMNLP 2014, for the unit; the equations of reset after the product are those of
        `torch.nn.GRU`.
    """

    input_size: int
    hidden_size: int
    reset: str = "after"
    candidate_activation: str = "tanh"
    gate_activation: str = "sigmoid"

    gate_type: ClassVar[type] = GRUGates

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("reset", self.reset, ("after", "before"))
        one_of("candidate_activation", self.candidate_activation, ("tanh", "relu"))
        one_of("gate_activation", self.gate_activation, GATE_ACTIVATIONS)

    @property
    def state_type(self) -> type[Any]:
        return GRUState

    @property
    def layout(self) -> Layout:
        return _AFTER if self.reset == "after" else _BEFORE

    @property
    def recurrence(self) -> Any:
        if self.reset == "after":
            return reset_after(self.hidden_size)
        return reset_before(self.hidden_size, self.gate_activation)

    @property
    def bounded(self) -> bool:
        return self.candidate_activation == "tanh"

    def parameter_shapes(self) -> Any:
        d, h = self.input_size, self.hidden_size
        shared = (d, 3 * h), (h, 3 * h), (3 * h,)
        return GRUParams._make((*shared, (h,))) if self.reset == "after" else ResetBeforeParams._make(shared)

    def gates(self, a: Array) -> GRUGates:
        h = self.hidden_size
        r, z = gates_of(a[..., : 2 * h], h, self.gate_activation)
        return GRUGates(r, z, self._candidate(a, r))

    def _candidate(self, a: Array, r: Array) -> Array:
        """N from the pre-activations and the reset gate, which reset before the product has in them already."""
        h = self.hidden_size
        n = a[..., 2 * h : 3 * h]
        return activated(self.candidate_activation, n + r * a[..., 3 * h :] if self.reset == "after" else n)

    def settle(self, before: GRUState, gates: GRUGates, a: Array) -> GRUState:
        del a
        _, z, n = gates
        return GRUState((1 - z) * n + z * before.hidden)

    def unfolded(self, params: Any) -> Callable[[Any, Array, Change], tuple[Any, Any, Array]]:
        preactivations = self.joined(params)

        def step(before: GRUState, x: Array, change: Change) -> tuple[Any, Any, Array]:
            a = preactivations(before, x)
            gates = change(self.gates(a), ("reset_gate", "update_gate"))
            if self.reset == "before":
                a = self.recurrence.reset_by(gates.reset_gate, params, before, x, a)
            gates = change(gates._replace(candidate=self._candidate(a, gates.reset_gate)), ("candidate",))
            return change(self.settle(before, gates, a), ("hidden",)), gates, a

        return step

    def linearise(self, params: Any, before: GRUState, a: Array, after: GRUState) -> GRUSlopes:
        del params, after
        gate = self.gate_activation
        a_r, a_z, n, *q = blocks(a, self.hidden_size)
        (r, r_slope), (z, z_slope) = (activated_and_slope(gate, x) for x in (a_r, a_z))
        n, n_slope = activated_and_slope(self.candidate_activation, n + r * q[0] if q else n)
        candidate = activated_and_slope(gate, -a_z)[0] * n_slope
        update = (before.hidden - n) * z_slope
        if q:
            return GRUSlopes(update, candidate, z, candidate * q[0] * r_slope, recurrent=candidate * r)
        return GRUSlopes(update, candidate, z, before.hidden * r_slope, share=r)

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂h has the eigenvalues z + (1 − z) r eig(U_n): 1 is crossed whatever z is, unless that is 1.
        if self.candidate_activation == "relu":
            raise ValueError(f"{self} has no derivative at zero, so no gain at which zero gets unstable")
        lost = gate_at(self.gate_activation, -biases["update_gate"])
        return gain_at(lost, lost * gate_at(self.gate_activation, biases["reset_gate"]))

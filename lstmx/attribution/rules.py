"""Layer-wise relevance propagation in a gated cell: gates are weights, and what they weigh gets it all.

With the gates of a pass held fixed, a gated cell is a chain of sums: the state is what is kept of the old one plus
what is taken in, and the pre-activation of what is taken in is a sum over inputs, old outputs and a bias. The rule
shares out what a sum z = Σ_i z_i has received, R, by z_i / (z + ε sign z); what a nonlinearity has received goes
to its argument as it is. Divided by the numbers themselves these are linear maps of multipliers R_i / z_i, so that
they walk back like derivatives, with other factors in the place of the slopes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.cells.gru import GRU
from lstmx.cells.janet import JANET
from lstmx.cells.lstm import LSTM
from lstmx.cells.mgu import MGU
from lstmx.cells.minimal import MinGRU, MinLSTM
from lstmx.cells.recurrence import blocks
from lstmx.cells.simple import SimpleRNN


@dataclass(frozen=True)
class Rule:
    """How relevance goes through a step of a cell.

    Attributes:
        field: of the state, the sum of what is kept and what is taken in.
        kept: whether anything is kept along a gate.
    """

    field: str
    kept: bool

    def taken(self, core: Any, before: Any, a: Array, after: Any) -> Array:
        """What a step adds to its field of the state, [*lead, H]: for an LSTM i ∘ g."""
        if isinstance(core, LSTM):
            gates = core.gates(a)
            return gates.input_gate * gates.candidate
        new = getattr(after, self.field)
        return new - self._carry(core, before, a, after) * getattr(before, self.field) if self.kept else new

    def slopes(self, core: Any, params: Any, before: Any, a: Array, after: Any, epsilon: float) -> Any:
        """The factors of the multipliers, in the place of the slopes of `core.linearise`."""
        xp = namespace(a, getattr(after, self.field))
        exact = core.linearise(params, before, a, after)
        made = exact._replace(
            **{name: xp.zeros_like(x) for name, x in exact._asdict().items() if x is not None and name != "share"}
        )
        share = _share(xp, getattr(after, self.field), epsilon) if self.kept else 1.0
        argument = _argument(core, a)
        whole = argument + epsilon * _sign(xp, argument)
        ratio = self.taken(core, before, a, after) / xp.where(whole == 0, xp.ones_like(whole), whole)
        candidate = share * xp.where(whole == 0, exact.candidate, ratio)
        made = made._replace(candidate=candidate)
        if self.kept:
            made = made._replace(carry=share * exact.carry)
        if isinstance(core, LSTM):
            shown = exact.shown if core.projection else after.hidden
            gate = core.gates(a).output_gate
            safe = xp.where(after.cell == 0, xp.ones_like(gate), after.cell)
            made = made._replace(readout=xp.where(after.cell == 0, gate, shown / safe))
            if core.projection:
                made = made._replace(shown=exact.shown)
        if isinstance(core, GRU) and core.reset == "after":
            made = made._replace(recurrent=candidate * core.gates(a).reset_gate)
        return made

    def stabilised(self, core: Any, total: Array, drive: Array, a: Array, after: Any, epsilon: float) -> Array:
        """What ε has taken of the relevance of a step, [*lead].

        Args:
            core: the cell.
            total: multipliers of the field after the step, [*lead, H].
            drive: multipliers of the pre-activations.
            a: pre-activations.
            after: the state after.
            epsilon: ε.
        """
        xp = namespace(a, total)
        argument, at = _argument(core, a), core.layout.blocks.index("candidate")
        size = argument.shape[-1]
        own = drive[..., at * size : (at + 1) * size]
        lost = xp.sum(own * (epsilon * _sign(xp, argument)), axis=-1)
        if not self.kept:
            return lost
        summed = getattr(after, self.field)
        return lost + xp.sum(total * summed * (1 - _share(xp, summed, epsilon)), axis=-1)

    @staticmethod
    def _carry(core: Any, before: Any, a: Array, after: Any) -> Array:
        if isinstance(core, GRU):
            return core.gates(a).update_gate
        return core.linearise(None, before, a, after).carry


def rule_of(core: Any) -> Rule:
    """The rule of a cell.

    Raises:
        ValueError: it has none.
    """
    if isinstance(core, LSTM) and not core.layer_norm:
        return Rule("cell", True)
    if isinstance(core, (GRU, JANET, MGU, MinLSTM, MinGRU)):
        return Rule("hidden", True)
    if isinstance(core, SimpleRNN):
        return Rule("hidden", False)
    why = ", which divides by what it sums up" if isinstance(core, LSTM) else ""
    raise ValueError(
        'method="lrp" and "cell_path" are known of LSTM, GRU, SimpleRNN, JANET, MGU, MinLSTM and MinGRU, not of '
        f'{core}{why}; "integrated_gradients" and "gradient_input" take every cell'
    )


def _argument(core: Any, a: Array) -> Array:
    """The argument of the candidate's nonlinearity, [*lead, H]."""
    parts = dict(zip(core.layout.blocks, blocks(a, core.hidden_size), strict=False))
    if isinstance(core, GRU) and core.reset == "after":
        return parts["candidate"] + core.gates(a).reset_gate * parts["recurrent"]
    return parts["candidate"]


def _share(xp: Any, z: Array, epsilon: float) -> Array:
    """What is left of the relevance of a sum z, as a share: z / (z + ε sign z)."""
    whole = z + epsilon * _sign(xp, z)
    return xp.where(whole == 0, xp.ones_like(z), z / xp.where(whole == 0, xp.ones_like(z), whole))


def _sign(xp: Any, z: Array) -> Array:
    """1 for what is at least 0, −1 for the rest."""
    return xp.where(z >= 0, xp.ones_like(z), -xp.ones_like(z))

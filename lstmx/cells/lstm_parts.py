"""What an LSTM is made of: its parameters, states, gates and slopes, and where things are in each variant."""

from __future__ import annotations

from typing import Any, NamedTuple

from lstmx.arrays import Array
from lstmx.cells.base import Layout


class LSTMParams(NamedTuple):
    """Parameters; column blocks i, f, g, o (input gate, forget gate, candidate, output gate), those there are."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]."""
    bias: Array
    """b, [4H]."""


class LSTMVariantParams(NamedTuple):
    """Parameters of an LSTM with peepholes or gate recurrence; blocks as in `LSTMParams`."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]."""
    bias: Array
    """b, [4H]."""
    peephole: Array | None = None
    """p, [3H]: blocks i, f, o, those there are; None without peepholes."""
    gate_kernel: Array | None = None
    """R, [3H, 3H]: from the gates i, f, o of the step before to these gates; None without gate recurrence."""


class LSTMState(NamedTuple):
    """State (h, c)."""

    hidden: Array
    """h_t, [*batch, H]."""
    cell: Array
    """c_t, [*batch, H]."""


class GateRecurrentState(NamedTuple):
    """State (h, c, i, f, o) of an LSTM with full gate recurrence."""

    hidden: Array
    """h_t, [*batch, H]."""
    cell: Array
    """c_t, [*batch, H]."""
    input_gate: Array
    """i_t, [*batch, H]."""
    forget_gate: Array
    """f_t, [*batch, H]."""
    output_gate: Array
    """o_t, [*batch, H]."""


class LSTMGates(NamedTuple):
    """Gate activations, 1 for a gate that is left out; the candidate is no gate: with tanh it lies in [−1, 1]."""

    input_gate: Array
    forget_gate: Array
    candidate: Array
    output_gate: Array


class LSTMSlopes(NamedTuple):
    """Factors of the one-step Jacobian; None for those of a gate that is left out."""

    input: Array | None
    """∂c_t/∂a_i; with coupled gates the way through f is part of it."""
    forget: Array | None
    """∂c_t/∂a_f."""
    candidate: Array
    """∂c_t/∂a_g."""
    output: Array | None
    """∂h_t/∂a_o."""
    carry: Array
    """∂c_t/∂c_{t-1} at fixed pre-activations: the forget gate."""
    readout: Array
    """∂h_t/∂c_t, the way through a peephole to the output gate included."""
    input_gate: Array | None = None
    """∂i_t/∂a_i, where the gates are part of the state; so the next two."""
    forget_gate: Array | None = None
    output_gate: Array | None = None
    seen: Array | None = None
    """∂o_t/∂c_t through the peephole, where the gates are part of the state."""


def layout_of(cell: Any) -> Layout:
    """The layout of an LSTM with its options."""
    names = {
        "input_gate": cell.input_gate,
        "forget_gate": cell.forget_gate and not cell.coupled,
        "candidate": True,
        "output_gate": cell.output_gate,
    }
    own = tuple(name for name, there in names.items() if there)
    gates: dict[str, Any] = {name: (k, 1) for k, name in enumerate(own) if name != "candidate"}
    if cell.coupled:
        gates["forget_gate"] = (0, -1)
    elif not cell.forget_gate:
        gates["forget_gate"] = None
    into = {name: "hidden" if name == "output_gate" else "cell" for name in own}
    from_blocks = {name.removesuffix("_gate"): (into[name], k) for k, name in enumerate(own)}
    if cell.full_gate_recurrence:
        from_blocks |= {name: (name, k) for k, name in enumerate(own) if name != "candidate"}
    seen = {"seen": ("output_gate", "cell")} if cell.full_gate_recurrence and cell.peepholes else {}
    order = ("input_gate", "forget_gate", "output_gate")
    return Layout(
        blocks=own,
        gates={name: gates[name] for name in order if name in gates},
        retention_gate="forget_gate",
        from_blocks=from_blocks,
        from_before={"carry": ("cell", "cell")},
        from_after={"readout": ("hidden", "cell"), **seen},
    )

"""What an LSTM is made of: its parameters, states, gates and slopes, and where things are in each variant."""

from __future__ import annotations

from typing import Any, NamedTuple

from lstmx.arrays import Array, namespace
from lstmx.cells.activations import GATE_ACTIVATIONS, activated_and_slope
from lstmx.cells.base import Layout
from lstmx.cells.normalised import normal, normalised
from lstmx.cells.peepholes import completed
from lstmx.cells.readout import readout
from lstmx.cells.recurrence import affine, blocks
from lstmx.checks import flag, one_of, positive


class LSTMParams(NamedTuple):
    """Parameters; column blocks i, f, g, o (input gate, forget gate, candidate, output gate), those there are."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]."""
    bias: Array
    """b, [4H]."""


class LSTMVariantParams(NamedTuple):
    """Parameters of an LSTM with options that add some; blocks as in `LSTMParams`, None for what is not there."""

    input_kernel: Array
    """W, [D, 4H]."""
    recurrent_kernel: Array
    """U, [H, 4H]; with a projection [P, 4H]."""
    bias: Array
    """b, [4H]."""
    peephole: Array | None = None
    """p, [3H]: blocks i, f, o, those there are; None without peepholes."""
    gate_kernel: Array | None = None
    """R, [3H, 3H]: from the gates i, f, o of the step before to these gates; None without gate recurrence."""
    projection: Array | None = None
    """P, [H, P]; None without a projection."""
    recurrent_gain: Array | None = None
    """α_h, [4H]: of the normalised h U; None without layer normalisation, and so the next three."""
    input_gain: Array | None = None
    """α_x, [4H]: of the normalised x W."""
    cell_gain: Array | None = None
    """α_c, [H]: of the normalised c."""
    cell_shift: Array | None = None
    """β_c, [H]: what is added to it."""


class LSTMState(NamedTuple):
    """State (h, c)."""

    hidden: Array
    """h_t, [*batch, H]; with a projection [*batch, P]."""
    cell: Array
    """c_t, [*batch, H]."""


class GateRecurrentState(NamedTuple):
    """State (h, c, i, f, o) of an LSTM with full gate recurrence."""

    hidden: Array
    """h_t, [*batch, H]; with a projection [*batch, P]."""
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
    """∂h_t/∂a_o; with a projection that of m_t, what is projected, and so `readout`."""
    carry: Array
    """∂c_t/∂c_{t-1} at fixed pre-activations: the forget gate."""
    readout: Array
    """∂h_t/∂c_t, the way through a peephole to the output gate included; with layer normalisation ∂h_t/∂n_t."""
    input_gate: Array | None = None
    """∂i_t/∂a_i, where the gates are part of the state; so the next two."""
    forget_gate: Array | None = None
    output_gate: Array | None = None
    seen: Array | None = None
    """∂o_t/∂c_t through the peephole, where the gates are part of the state."""
    shown: Array | None = None
    """m_t, what is projected."""
    recurrent_normal: Array | None = None
    """What `normal` makes of h U, [*batch, 4H] and [*batch, 1]; then of x W, and of c_t [*batch, H]."""
    recurrent_rate: Array | None = None
    input_normal: Array | None = None
    input_rate: Array | None = None
    cell_normal: Array | None = None
    cell_rate: Array | None = None


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
    shown = "shown" if cell.projection else "hidden"
    into = {name: shown if name == "output_gate" else "cell" for name in own}
    from_blocks = {name.removesuffix("_gate"): (into[name], k) for k, name in enumerate(own)}
    if cell.full_gate_recurrence:
        from_blocks |= {name: (name, k) for k, name in enumerate(own) if name != "candidate"}
    seen = {"seen": ("output_gate", "cell")} if cell.full_gate_recurrence and cell.peepholes else {}
    after, names = _after_layout(cell, own, shown)
    order = ("input_gate", "forget_gate", "output_gate")
    return Layout(
        blocks=names,
        gates={name: gates[name] for name in order if name in gates},
        retention_gate="forget_gate",
        from_blocks=from_blocks,
        from_before={"carry": ("cell", "cell")},
        from_after={**after, **seen},
        shown=tuple((name, names.index(name)) for name in ("normal", "hidden") if name in names),
    )


def _after_layout(cell: Any, own: tuple[str, ...], shown: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What leads from c_t to h_t, in the order of a walk back; and the names of all blocks."""
    names = own
    after: dict[str, Any] = {"projection": ("hidden", "shown")} if cell.projection else {}
    if cell.layer_norm:
        names = (*own, *(f"recurrent {name}" for name in own), *(f"input {name}" for name in own), "normal")
        after |= {"readout": (shown, "normal"), "normalisation": ("normal", "cell")}
    else:
        after |= {"readout": (shown, "cell")}
    return after, (*names, "hidden") if cell.projection else names


def check_options(cell: Any) -> None:
    """Raise unless the options of an LSTM are of their kinds and go together."""
    gates = ("input_gate", "forget_gate", "output_gate")
    for name in ("peepholes", "coupled", *gates, "full_gate_recurrence", "layer_norm"):
        flag(name, getattr(cell, name))
        object.__setattr__(cell, name, bool(getattr(cell, name)))  # NumPy's own are not those of JSON
    for name in ("candidate_activation", "output_activation"):
        one_of(name, getattr(cell, name), ("tanh", "relu", "identity"))
    one_of("gate_activation", cell.gate_activation, GATE_ACTIVATIONS)
    missing = [name for name in gates if not getattr(cell, name)]
    if cell.coupled and set(missing) & {"input_gate", "forget_gate"}:
        raise ValueError(f"coupled=True ties the forget gate to the input gate; {missing[0]}=False takes one away")
    if cell.full_gate_recurrence and (missing or cell.coupled):
        option = "coupled=True" if cell.coupled else f"{missing[0]}=False"
        raise ValueError(f"full_gate_recurrence=True needs three gates of their own; {option} leaves fewer")
    for name in ("peepholes", "full_gate_recurrence"):
        if cell.layer_norm and getattr(cell, name):
            raise ValueError(f"layer_norm=True normalises h U and x W alone; {name}=True adds a third sum")
    if cell.projection is not None and positive("projection", cell.projection) > cell.hidden_size:
        raise ValueError(f"projection is {cell.projection}; expected at most hidden_size={cell.hidden_size}")


def own_blocks(cell: Any) -> int:
    """Blocks of pre-activations that gates and candidate are made of."""
    return sum(name in LSTMGates._fields for name in cell.layout.blocks)


def recurrence_of(cell: Any) -> Any:
    """How the pre-activations of an LSTM with its options read the state before and the input."""
    h, names = cell.hidden_size, tuple(name for name in cell.layout.blocks if name in LSTMGates._fields)
    if cell.layer_norm:
        inner: Any = normalised(h)
    elif cell.peepholes or cell.full_gate_recurrence:
        inner = completed(h, names, cell.peepholes, cell.full_gate_recurrence)
    else:
        inner = affine(h)
    if not (cell.layer_norm or cell.projection):
        return inner
    return readout(h, inner, cell.layer_norm, cell.projection or 0)


def slopes_of(cell: Any, params: Any, before: Any, a: Array, after: Any) -> LSTMSlopes:
    """The factors of the one-step Jacobian of an LSTM with its options."""
    xp = namespace(a, after.cell)
    part = dict(zip(cell.layout.blocks, blocks(a, cell.hidden_size), strict=True))
    one, gate = xp.ones_like(after.cell), cell.gate_activation
    logits: dict[str, Any] = {name: part.get(name) for name in LSTMGates._fields}
    (i, i_slope), (f, f_slope), (o, o_slope) = (
        (one, None) if logits[name] is None else activated_and_slope(gate, logits[name])
        for name in ("input_gate", "forget_gate", "output_gate")
    )
    g, g_slope = activated_and_slope(cell.candidate_activation, part["candidate"])
    seen = part["normal"] if cell.layer_norm else after.cell
    out, out_slope = activated_and_slope(cell.output_activation, seen)
    if cell.coupled:
        f = activated_and_slope(gate, -part["input_gate"])[0]
    into = g - before.cell if cell.coupled else g
    output = None if o_slope is None else out * o_slope
    readout = o * out_slope
    if cell.peepholes and output is not None:
        readout = readout + output * params.peephole[-cell.hidden_size :]
    made = LSTMSlopes(
        input=None if i_slope is None else into * i_slope,
        forget=None if f_slope is None else before.cell * f_slope,
        candidate=i * g_slope,
        output=output,
        carry=f,
        readout=readout,
    )
    if cell.projection is not None:
        made = made._replace(shown=o * out)
    if cell.layer_norm:
        made = made._replace(**_normals(cell, a, after))
    if cell.full_gate_recurrence:
        made = made._replace(input_gate=i_slope, forget_gate=f_slope, output_gate=o_slope)
        if cell.peepholes:
            made = made._replace(seen=o_slope * params.peephole[-cell.hidden_size :])
    return made


def _normals(cell: Any, a: Array, after: Any) -> dict[str, Array]:
    """The factors of layer normalisation."""
    size = own_blocks(cell) * cell.hidden_size
    sums = {"recurrent": a[..., size : 2 * size], "input": a[..., 2 * size : 3 * size], "cell": after.cell}
    found = {name: normal(z) for name, z in sums.items()}
    values = {f"{name}_normal": value for name, (value, _) in found.items()}
    return values | {f"{name}_rate": rate for name, (_, rate) in found.items()}

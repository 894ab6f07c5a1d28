"""The derivatives of an LSTM's step, unit by unit."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, namespace, sigmoid_and_slope, tanh_slope
from lstmx.cells.lstm_parts import LSTMGates, LSTMSlopes, own_blocks
from lstmx.cells.normalised import normal
from lstmx.cells.recurrence import blocks


def slopes_of(cell: Any, params: Any, before: Any, a: Array, after: Any) -> LSTMSlopes:
    """The factors of the one-step Jacobian of an LSTM with its options."""
    xp = namespace(a, after.cell)
    part = dict(zip(cell.layout.blocks, blocks(a, cell.hidden_size), strict=True))
    one = xp.ones_like(after.cell)
    logits: dict[str, Any] = {name: part.get(name) for name in LSTMGates._fields}
    (i, i_slope), (f, f_slope), (o, o_slope) = (
        (one, None) if logits[name] is None else sigmoid_and_slope(xp, logits[name])
        for name in ("input_gate", "forget_gate", "output_gate")
    )
    (g, g_slope), (out, out_slope) = (
        (xp.tanh(x), tanh_slope(xp, x)) if kind == "tanh" else (x, one)
        for x, kind in (
            (part["candidate"], cell.candidate_activation),
            (part["normal"] if cell.layer_norm else after.cell, cell.output_activation),
        )
    )
    if cell.coupled:
        f = sigmoid_and_slope(xp, -part["input_gate"])[0]
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

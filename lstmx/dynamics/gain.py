"""`critical_gain`: where the zero state of a random network loses its stability."""

from __future__ import annotations

from typing import Any, cast

from lstmx.cells.base import Cell
from lstmx.checks import cells_of, finite_number


def critical_gain(cell: Cell, forget_bias: float | None = None, **biases: float) -> float:
    """The gain of the recurrent weights at which the zero state of a random network loses its stability.

    For zero input, zero state and recurrent weights with independent entries of variance g² / H, in the limit of
    many units: the g at which the greatest eigenvalue of the Jacobian is 1. For an LSTM its eigenvalues are
    σ(b_f) + σ(b_i) σ(b_o) eig(U_g), so g = (1 − σ(b_f)) / (σ(b_i) σ(b_o)); for a GRU z + (1 − z) r eig(U_n), so
    g = 1 / σ(b_r); for a SimpleRNN with tanh g = 1. Hard gates stand in the place of σ by their values: no slope
    of a gate matters at zero. Then g is 0 where a forget gate is exactly 1, and infinite where nothing is taken
    in.

    Args:
        cell: the cell.
        forget_bias: an LSTM's; None for the cell's own.
        **biases: of other gates, 0 where not given: `input_gate` and `output_gate` of an LSTM, `reset_gate` and
            `update_gate` of a GRU.

    Returns:
        The gain.

    Raises:
        TypeError: this is no cell, but layers.
        ValueError: a bias of a gate that the cell does not have, two of one gate, or one that is not finite; a
            cell with ReLU, which has no derivative at zero; or gates of exactly 1 and 0 that keep the zero state
            whatever the gain.

    Example:
        >>> import lstmx
        >>> round(lstmx.critical_gain(lstmx.LSTM(3, 8), forget_bias=1.0), 4)
        1.0758
    """
    if forget_bias is not None:
        finite_number("forget_bias", forget_bias)
    if forget_bias is not None and "forget_gate" in biases:
        raise ValueError(
            f"forget_bias is {forget_bias} and forget_gate {biases['forget_gate']}; expected one of them"
        )
    cells_of("cell", cell, layers=False)
    own, core = cell.gate_blocks, cast(Any, cell.core)
    if "forget_gate" in own and hasattr(core, "forget_bias"):
        biases = {"forget_gate": core.forget_bias if forget_bias is None else forget_bias, **biases}
    elif forget_bias is not None:
        which = cell if "forget_gate" in cell.gate_names else f"a {type(cell).__name__}"
        raise ValueError(f"forget_bias is {forget_bias}; {which} has no forget gate of its own")
    unknown = set(biases) - set(own)
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: a {type(cell).__name__} has the gates {', '.join(own) or 'none'}"
        )
    for name, value in biases.items():
        finite_number(f"the bias of {name}", value)
    return cell.critical_gain(dict.fromkeys(own, 0.0) | biases)

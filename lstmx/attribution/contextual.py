"""Contextual decomposition of an LSTM: what one step has brought into the state, carried beside the rest."""

from __future__ import annotations

import math
from typing import Any

from lstmx.arrays import Array, jit, leaves, map_tree, namespace, scan, sigmoid
from lstmx.cells.lstm import LSTM
from lstmx.cells.recurrence import blocks
from lstmx.history import Controls, History, where_held

_ELEMENTS = 2**23  # of the pre-activations of the steps that are carried at a time


def contextual(history: History, weights: Array) -> tuple[Array, Array]:
    """What each step, and the initial state, contribute to a linear number of the outputs.

    With β the part of the state that is due to the step, and γ the rest, a gate's σ(a) with a = β U + γ U + b, and
    x W on the side of β at the step itself, is shared out between both and the bias, by the mean over the two
    orders of adding β and γ to the bias; so is the candidate. Products with a part of γ in them count as γ;
    that of the biases alone counts as β at the step itself. The output gate is not shared out.

    Args:
        history: the recorded pass.
        weights: of the outputs, [T, *batch, H].

    Returns:
        [T, *batch] and [*batch].

    Raises:
        ValueError: it is no LSTM, or one with options.
    """
    core = history.cell.core
    if core != LSTM(core.input_size, core.hidden_size, getattr(core, "forget_bias", 1.0)):
        raise ValueError(f'method="contextual" is known of an LSTM without options, not of {core}')
    xp, length = namespace(history.inputs), len(history)
    rows = _prepared(history)
    width = 4 * core.hidden_size * math.prod(history.batch)
    size = max(1, min(length, _ELEMENTS // max(1, width)))
    found = []
    nothing = map_tree(xp.zeros_like, history.initial)
    for first in range(0, length, size):
        steps = xp.arange(first, first + size)
        found.append(_carried(history.cell, history.params, rows, weights, steps, nothing)[: length - first])
    none = xp.asarray([-1])
    initial = _carried(history.cell, history.params, rows, weights, none, history.initial)[0]
    return history.where_counted(xp.concat(found)), initial


@jit()
def _prepared(history: History) -> tuple[Any, ...]:
    """What the walk needs of each step: x W, pre-activations, the cell state after, and controls."""
    a = history.preactivations
    after = history.cell.core.update(history.before, a)
    return history.inputs @ history.params.input_kernel, a, after.cell, history.controls


@jit(static=("cell",))
def _carried(cell: Any, params: Any, rows: Any, weights: Array, steps: Array, initial: Any) -> Array:
    """Contributions of `steps`, [P, *batch], each carried through the pass beside the rest."""
    xp = namespace(weights, *leaves(initial))
    size, count = cell.core.hidden_size, steps.shape[0]
    batch = weights.shape[1:-1]
    (b_i, b_f, b_g, _) = blocks(params.bias, size)
    at = steps.reshape(-1, *(1,) * (len(batch) + 1))

    def shared(own: Array, whole: Array, bias: Array, function: Any) -> tuple[Array, Array, Array]:
        """What of function(whole) is due to β, to γ, and to the bias."""
        base, full = function(bias), function(whole)
        mine = 0.5 * (function(own + bias) - base + full - function(whole - own))
        return mine, full - base - mine, base

    def gate(x: Array) -> Array:
        return sigmoid(xp, x)

    def step(carry: Any, row: Any) -> tuple[Any, None]:
        old, total = carry
        t, (driven, a, c, controls), weight = row
        hold, reset, kept = controls or Controls()
        begun = old if reset is None else map_tree(lambda x: where_held(reset[None], x), old)
        here = at == t
        own = begun.hidden @ params.recurrent_kernel
        own = own + xp.where(here, driven, xp.zeros_like(own))
        (r_i, r_f, r_g, _), (a_i, a_f, a_g, a_o) = blocks(own, size), blocks(a, size)
        i, _, i_0 = shared(r_i, a_i, b_i, gate)
        f, _, f_0 = shared(r_f, a_f, b_f, gate)
        g, _, g_0 = shared(r_g, a_g, b_g, xp.tanh)
        product = i_0 * g_0
        mine = i * (g + g_0) + i_0 * g + (f + f_0) * begun.cell
        mine = mine + xp.where(here, product, xp.zeros_like(mine))
        shown = gate(a_o) * 0.5 * (xp.tanh(mine) + xp.tanh(c) - xp.tanh(c - mine))
        new = cell.mixed(begun, type(old)(shown, mine), kept)
        if hold is not None:
            new = map_tree(lambda x, y: where_held(hold[None], y, x), begun, new)
        return (new, total + xp.sum(new.hidden * weight, axis=-1)), None

    start = map_tree(lambda x: xp.broadcast_to(x, (count, *x.shape)), initial)
    total = xp.zeros((count, *batch), dtype=weights.dtype)
    times = xp.arange(weights.shape[0])
    return scan(step, (start, total), (times, rows, weights))[0][1]

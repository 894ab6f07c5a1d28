"""`credit_error`: how far an approximate gradient is from the true one, by step, by lag and by path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstmx.arrays import Array, jit, leaves, log, map_tree, namespace, result, scan
from lstmx.checks import LARGEST, finite, finite_history, one_of, positive, require_history
from lstmx.gradients.flow import loss_cotangent
from lstmx.gradients.online import METHODS, plan_for, weights_of
from lstmx.gradients.paths import carried_numbers, has_cell_state
from lstmx.gradients.sparsity import Plan, each_sequence, flat, over
from lstmx.history import History, where_held
from lstmx.linear import steps_of

_LARGEST_SIZE = 2**28  # numbers of the gradients of all steps


@result
class Agreement:
    """An approximate gradient beside the true one; arrays of one shape.

    Attributes:
        cosine: of the angle between them, from −1 to 1; NaN where one of them is zero.
        ratio: the norm of the approximate one over that of the true one; NaN where the true one is zero.
        log_norm: natural log of the norm of the true one; −inf where it is zero.
    """

    cosine: Array
    ratio: Array
    log_norm: Array

    @property
    def share(self) -> Array:
        """What of the true gradient the approximate one has: its projection on that, over that; NaN as `ratio`."""
        xp = namespace(self.ratio)
        return xp.where(self.ratio == 0, xp.zeros_like(self.ratio), self.cosine * self.ratio)

    def __repr__(self) -> str:
        return f"Agreement(cosine, ratio and log_norm {tuple(self.cosine.shape)})"


@result(static=("method",))
class CreditError:
    """How far an approximate gradient of the parameters is from the true one.

    Attributes:
        whole: of the gradient of each sequence, [*batch].
        total: of the sum over sequences, which a training step sees; scalars.
        by_step: of what the loss of each step adds, [T, *batch]; NaN at steps that add nothing.
        by_lag: of what parameters add that acted k steps before the loss, [lags + 1, *batch]; the last is of all
            lags from `lags` on. Lags count the steps that count.
        by_order: of what reaches the loss by paths that cross h k times, [max_order + 2, *batch], as
            `path_spectrum` counts; the last is of all orders above `max_order`. None where a layer has no cell
            state.
        method: what was judged.
    """

    whole: Agreement
    total: Agreement
    by_step: Agreement
    by_lag: Agreement
    by_order: Agreement | None
    method: str

    def summary(self) -> str:
        """In words: the whole gradient, and how far back, and along which paths, it is right."""
        cosine, ratio = (float(x) for x in (self.total.cosine, self.total.ratio))
        lines = [f"{self.method!r} beside the true gradient: cosine {cosine:.4g}, ratio of norms {ratio:.4g}"]
        lines.append(f"  by lag: {_listed(self.by_lag, len(self.by_lag.cosine) - 1)}")
        if self.by_order is not None:
            lines.append(f"  by crossings of h: {_listed(self.by_order, len(self.by_order.cosine) - 1)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        length, *batch = self.by_step.cosine.shape
        of = f", batch {tuple(batch)}" if batch else ""
        return f"CreditError({self.method!r}, {length} steps{of}, lags to {len(self.by_lag.cosine) - 2})"


def _listed(agreement: Agreement, last: int) -> str:
    """The shares, medians over sequences."""
    kept = np.asarray(agreement.share, np.float64).reshape(last + 1, -1)
    parts = []
    for k, row in enumerate(kept):
        known = row[~np.isnan(row)]
        shown = f"{np.median(known):.1%}" if known.size else "nothing there"
        parts.append(f"{k if k < last else f'from {last} on'}: {shown}")
    return "of the true part it has " + ", ".join(parts)


def credit_error(
    history: Any,
    loss: Any = "last",
    method: str = "snap1",
    *,
    order: int | None = None,
    pattern: Any = None,
    window: int | None = None,
    lags: int = 16,
    max_order: int = 4,
) -> CreditError:
    """Compare an approximate gradient of `online` with the true one: by step of the loss, by lag, by path.

    The gradient is a sum over pairs of a step t of the loss and a step t − k at which parameters acted,

        ∂L/∂θ = Σ_t Σ_k (∂L_t/∂s_t)ᵀ J_t … J_{t−k+1} ∂⁺s_{t−k}/∂θ,

    of which an approximation carries a part. Each J is A + B, the way straight down the cell state and every way
    through h, so that it is a sum over numbers of crossings, too, the orders of `path_spectrum`: SnAp-1 of an LSTM
    has order 0 in full, since it never leaves a unit, and of higher orders what comes back to the unit.

    The true parts come from a walk back, those of the approximation from its influence, carried once for each lag
    and order. That is work for a probe of some hundred steps, not for a training: T² / 2 products of the size of
    the parameters for the true ones.

    Args:
        history: the recorded pass, in memory, of a cell, a step function or a stack.
        loss: "last", the sum of the last output of each sequence; "sum", of all outputs; dL/dh_t at fixed other
            outputs, an array [T, *batch, H]; or, under JAX, a function from outputs [T, *batch, H] to a scalar.
        method: "snap1", "sparse", "truncated" or "rtrl", as for `online`. With "sparse" the true gradient is that
            of the weights that there are.
        order: as for `online`; so the next two.
        pattern: booleans like the parameters.
        window: steps.
        lags: lags told apart, from 0.
        max_order: highest number of crossings told apart.

    Returns:
        Cosines, ratios and norms; `print` shows a summary in words.

    Raises:
        TypeError: an argument is of the wrong kind or dtype, or a history on disk or of layers with two
            directions.
        ValueError: a wrong shape or word, an option of another method, NaN or infinity in parameters, inputs,
            states or loss, or gradients of all steps that are more than 2²⁸ numbers.

    References:
        Menick, Elsen, Evci, Osindero, Simonyan & Graves, "Practical Real Time Recurrent Learning with a Sparse
        Approximation", ICLR 2021, for what is judged.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(30, 3)).astype("float32")
        >>> error = lstmx.credit_error(lstmx.record(cell, params, xs), "sum")
        >>> bool(error.total.cosine > 0.8), error.by_lag.cosine.shape
        (True, (17,))
    """
    require_history(history, joint=True)
    one_of("method", method, METHODS)
    lags = positive("lags", lags, 1, LARGEST)
    max_order = positive("max_order", max_order, 0, LARGEST)
    if isinstance(loss, str) and loss == "sum":
        direct = namespace(history.outputs).ones_like(history.outputs)
    else:
        direct = loss_cotangent(history, loss)
    if direct is None:
        direct = _of_the_last(history)
    finite("loss", direct)
    finite_history(history)
    params, batch = history.params, history.batch
    plan = plan_for(history.cell, params, method, order, pattern, window, len(history))
    count, sequences = sum(math.prod(x.shape) for x in leaves(params)), math.prod(batch)
    numbers = (2 * len(history) + lags + max_order) * count * sequences
    if numbers > _LARGEST_SIZE:
        raise ValueError(
            f"lags and steps of history make {numbers:,} numbers, a gradient for each; expected at most "
            f"{_LARGEST_SIZE:,}: take a stretch, history[start:stop], or a sequence"
        )
    carried, xp = None, namespace(history.inputs)
    if all(map(has_cell_state, [history] if isinstance(history, History) else history.layers)):
        carried = xp.asarray(carried_numbers(history), dtype=history.inputs.dtype)
    there = None
    if method == "sparse":
        there = xp.asarray(flat(weights_of(params, pattern)), dtype=history.inputs.dtype)
    found = _compared(history, direct, plan, carried, there, window=window, lags=lags, orders=max_order + 2)
    return CreditError(*found, method=method)


def _of_the_last(history: Any) -> Array:
    """1 for the last output of each sequence that counts."""
    xp = namespace(history.outputs)
    ones = xp.ones_like(history.outputs)
    if history.counts is None:
        return xp.concat([xp.zeros_like(ones[1:]), ones[:1]])
    later = xp.cumsum(history.counts[::-1].astype(int), axis=0)[::-1]
    return where_held(~((later == 1) & history.counts), ones)


@jit(static=("window", "lags", "orders"))
def _compared(
    history: Any,
    direct: Array,
    plan: Plan | None,
    carried: Any,
    there: Any,
    window: int | None,
    lags: int,
    orders: int,
) -> tuple[Any, ...]:
    """The agreements of `CreditError` in its order, batch axes as one until the end."""
    batch, length, xp = history.batch, len(history), namespace(direct)
    steps = steps_of(history)
    one_axis = lambda x: x.reshape(length, -1, *x.shape[1 + len(batch) :])  # noqa: E731
    held = None if history.counts is None else ~history.counts
    cotangents = one_axis(steps.inject(where_held(held, direct)))
    steps = steps.at(map_tree(one_axis, steps.rows))
    hold = xp.zeros(cotangents.shape[:2], dtype=bool) if held is None else one_axis(held)
    count = sum(math.prod(x.shape) for x in leaves(history.params))
    true = _true(steps, cotangents, hold, carried, count, lags, orders, None)
    if plan is None:  # a window counts every step
        near = _true(steps, cotangents, hold, carried, count, lags, orders, window)
    else:
        near = _carried_forward(steps, cotangents, hold, carried, lags, orders, plan)
    if there is not None:
        true = map_tree(lambda x: x * there, true)
    pairs = list(zip(true, near, strict=True))
    sums = [xp.sum(x, axis=0) for x in pairs[0]]
    return (
        _agreement(sums[0], sums[1], batch),
        _agreement(xp.sum(sums[0], axis=0), xp.sum(sums[1], axis=0), ()),
        _agreement(*pairs[0], batch),
        _agreement(*pairs[1], batch),
        None if carried is None else _agreement(*pairs[2], batch),
    )


def _agreement(true: Array, near: Array, batch: tuple[int, ...]) -> Agreement:
    """Of gradients [*lead, B, P], with the batch axes in the place of B; of [P] scalars for no batch axes."""
    xp = namespace(true)
    norms = [xp.sqrt(xp.sum(x * x, axis=-1)) for x in (true, near)]
    both, nothing = norms[0] * norms[1], xp.full_like(norms[0], np.nan)
    cosine = xp.where(both > 0, xp.sum(true * near, axis=-1) / xp.where(both > 0, both, 1), nothing)
    ratio = xp.where(norms[0] > 0, norms[1] / xp.where(norms[0] > 0, norms[0], 1), nothing)
    lead = cosine.shape[:-1]
    shaped = [x.reshape((*lead, *batch)) if x.ndim else x for x in (cosine, ratio, log(norms[0]))]
    return Agreement(*shaped)


def _true(
    steps: Any,
    cotangents: Array,
    hold: Array,
    carried: Any,
    count: int,
    lags: int,
    orders: int,
    window: int | None,
) -> tuple[Array, Array, Array]:
    """What each loss adds [T, B, P], and by lag [lags + 1, B, P] and order [orders, B, P]; by a walk back.

    With a window, of the parts that a window has. Each loss has a cotangent of its own, and with a window one for
    each order, for it leaves the window apart from the others.
    """
    xp, (length, batch, size) = namespace(cotangents), cotangents.shape
    apart = orders if window is not None and carried is not None else 1
    together = orders if window is None and carried is not None else 0
    at, number = xp.arange(length), xp.cumsum((~hold).astype(int), axis=0)

    def by_crossings(before: Array, held: Array) -> Array:
        """Cotangents [..., orders, B, S] of the state before a step: what is in h there has crossed it."""
        if carried is None or before.shape[-3] == 1:
            return before
        kept, crossed = before * carried, before * (1 - carried)
        moved = xp.concat([xp.zeros_like(crossed[..., :1, :, :]), crossed[..., :-1, :, :]], axis=-3)
        last = xp.concat([xp.zeros_like(crossed[..., :-1, :, :]), crossed[..., -1:, :, :]], axis=-3)
        return xp.where(held[:, None], before, kept + moved + last)

    def step(carry: Any, row: Any) -> tuple[Any, None]:
        own, summed, by_step, by_lag, by_order = carry
        s, rows, cotangent, held = row
        one = steps.at(rows)
        new = (at == s).astype(cotangent.dtype)[:, None, None, None] * cotangent
        own = own + xp.concat([new, xp.zeros_like(own[:, 1:])], axis=1)
        if together:
            summed = summed + xp.concat([cotangent[None], xp.zeros_like(summed[1:])])
        whole = xp.concat([own.reshape(-1, batch, size), summed])
        before, drive = one.pull(whole)
        drive = xp.swapaxes(drive, 0, 1)
        parts = each_sequence(one, lambda one, d: over(lambda v: flat(one.parameter_vjp(v)), d), drive)
        parts = xp.swapaxes(parts, 0, 1)
        split = own.shape[0] * own.shape[1]
        each = parts[:split].reshape(length, apart, batch, -1)
        if window is not None:
            each = xp.where((at - s < window)[:, None, None, None], each, xp.zeros_like(each))
        alone = xp.sum(each, axis=1)
        lag = xp.minimum(number - number[s], lags)
        chosen = ((xp.arange(lags + 1)[:, None, None] == lag) & (at >= s)[:, None]).astype(alone.dtype)
        by_lag = by_lag + xp.einsum("ktb,tbp->kbp", chosen, alone)
        by_order = by_order + (parts[split:] if together else xp.sum(each, axis=0))
        own = by_crossings(before[:split].reshape(own.shape), held)
        summed = by_crossings(before[split:], held) if together else summed
        return (own, summed, by_step + alone, by_lag, by_order), None

    def none(*shape: int) -> Array:
        return xp.zeros(shape, dtype=cotangents.dtype)

    start = (
        none(length, apart, batch, size),
        none(together, batch, size),
        none(length, batch, count),
        none(lags + 1, batch, count),
        none(max(apart, together), batch, count),
    )
    carry, _ = scan(step, start, (at, steps.rows, cotangents, hold), reverse=True)
    return carry[2:]


def _carried_forward(
    steps: Any, cotangents: Array, hold: Array, carried: Any, lags: int, orders: int, plan: Plan
) -> tuple[Array, Array, Array]:
    """As `_true`, of an influence that is carried forward, once for each lag and for each order."""
    xp, batch = namespace(cotangents), cotangents.shape[1]
    orders = 1 if carried is None else orders
    along: list[Any] = [None] * len(plan.blocks)
    if carried is not None:
        padded = xp.concat([carried, xp.zeros_like(carried[:1])])
        along = [padded[block.rows][:, None, :] for block in plan.blocks]

    def of_lags(jacobian: Array, new: Array, before: Array) -> Array:
        moved = jacobian @ before
        return xp.concat([new[None], moved[: lags - 1], moved[lags - 1 : lags] + moved[lags:]])

    def of_orders(k: int, jacobian: Array, new: Array, before: Array) -> Array:
        if carried is None:
            return jacobian @ before + new
        kept, crossed = (jacobian * along[k]) @ before, (jacobian * (1 - along[k])) @ before
        return xp.concat([kept[:1] + new, kept[1:-1] + crossed[:-2], kept[-1:] + crossed[-1:] + crossed[-2:-1]])

    def step(carry: Any, row: Any) -> tuple[Any, Array]:
        by_lags, by_orders, lag_sums, order_sums = carry
        rows, cotangent, held = row
        one = steps.at(rows)
        moves, news, still = plan.jacobians(one), plan.immediate(one), held[:, None, None, None]
        triples = list(zip(moves, news, by_lags, strict=True))
        by_lags = [xp.where(still, m, of_lags(j, i, m)) for j, i, m in triples]
        triples = list(zip(moves, news, by_orders, strict=True))
        by_orders = [xp.where(still, m, of_orders(k, j, i, m)) for k, (j, i, m) in enumerate(triples)]
        each = plan.gradients(cotangent, by_lags)
        order_sums = order_sums + plan.gradients(cotangent, by_orders)
        return (by_lags, by_orders, lag_sums + each, order_sums), xp.sum(each, axis=0)

    def none(number: int) -> Array:
        return xp.zeros((number, batch, len(plan.place)), dtype=cotangents.dtype)

    influences = (plan.nothing(batch, cotangents.dtype, (number,)) for number in (lags + 1, orders))
    start = (*influences, none(lags + 1), none(orders))
    carry, by_step = scan(step, start, (steps.rows, cotangents, hold))
    return by_step, carry[2], carry[3]

"""`path_spectrum`: the gradient sorted by how often its path leaves the cell state.

Each one-step Jacobian of an LSTM is A + B: A has the columns of c_{t-1}, the way straight down the cell state; B
those of h_{t-1}, every way through a gate. Their product over time, expanded in the number k of factors B, is a
sum of orders P_k; P_0 from cell to cell is the constant error carousel, Π f.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.adjoint import by_segments, pull_by, reverse_chunks, walk_back
from lstmx.arrays import Array, exp, is_traced, jit, map_tree, namespace, result
from lstmx.cells.recurrence import blocks
from lstmx.checks import finite_history, positive, recorded, state, unbroken
from lstmx.gradients.highway import stretch
from lstmx.history import History
from lstmx.scaling import Scaled, add, log_hypot, log_norm, pack, scaled, total, unpack, unscaled

_LARGEST_MATRIX = 256
_CHUNK_ELEMENTS = 2**21  # of all orders' cotangents at a time


@result
class PathSpectrum:
    """A cotangent at the end of a stretch, or the whole Jacobian of it, by the number of crossings of h.

    L2 (Frobenius) norms in natural logs, −inf for an exact zero. Orders are 0 … max_order; everything above is
    the remainder. Time t is the state after step start + t. Vector fields are None with matrix=True, matrix
    fields without it.

    Attributes:
        log_norms: of each order of the cotangent of the joint state, [T, max_order + 1, *batch].
        log_remainder: of the orders above, together: [T, *batch]; with matrix=True [*batch].
        log_total: of the whole cotangent, all orders together: [T, *batch]; with matrix=True the log Frobenius
            norm of the whole Jacobian product, [*batch].
        initial: by order, then the remainder, the cotangent of the state before the stretch, fields
            [max_order + 2, *batch, H]; 0 where it leaves the float range.
        log_matrix_norms: of P_k, the whole joint-state matrix, [max_order + 1, *batch].
        log_cell_norms: of the block of P_k from cell state to cell state, [max_order + 1, *batch].
        matrices: P_k, then the remainder, [max_order + 2, *batch, S, S]; rows and columns are the joint state
            (hidden, cell) at the end and before the start, S = 2H; 0 where they leave the float range.
    """

    log_norms: Array | None
    log_remainder: Array
    log_total: Array
    initial: Any
    log_matrix_norms: Array | None
    log_cell_norms: Array | None
    matrices: Array | None

    @property
    def highway_share(self) -> Array:
        """p_0 / ‖whole‖: the norm of order 0 over that of all orders together, [T, *batch] or [*batch].

        Above 1 where higher orders cancel the highway; NaN where the whole is an exact zero.
        """
        xp = namespace(self.log_total)
        orders, axis = self._orders()
        whole = xp.where(xp.isneginf(self.log_total), xp.nan, self.log_total)
        return exp(xp.take(orders, 0, axis=axis) - whole)

    @property
    def mean_order(self) -> Array:
        """Σ k p_k / Σ p_k over orders, [T, *batch] or [*batch].

        The remainder counts as max_order + 1, so this is a lower bound where the remainder matters. NaN where
        everything is an exact zero.
        """
        xp = namespace(self.log_total)
        orders, axis = self._orders()
        logs = xp.concat([orders, xp.expand_dims(self.log_remainder, axis=axis)], axis=axis)
        largest = xp.max(logs, axis=axis, keepdims=True)
        share = xp.exp(logs - xp.where(xp.isinf(largest), xp.nan, largest))
        order = xp.arange(logs.shape[axis], dtype=logs.dtype)
        order = xp.reshape(order, (-1,) + (1,) * (logs.ndim - axis - 1))
        return xp.sum(order * share, axis=axis) / xp.sum(share, axis=axis)

    def _orders(self) -> tuple[Array, int]:
        """The log norms by order, and the axis of the order."""
        return (self.log_norms, 1) if self.log_norms is not None else (self.log_matrix_norms, 0)

    def expected_detached(self, probability: float) -> Any:
        """The expected gradient when the hidden state is detached with this probability at every step.

        Each crossing survives with probability 1 − p, so the expectation is Σ_k (1 − p)^k P_k. Orders above
        max_order are left out; see `log_remainder` for what they carry.

        Args:
            probability: p, between 0 and 1.

        Returns:
            The cotangent of the state before the stretch, fields [*batch, H]; with matrix=True the matrix,
            [*batch, 2H, 2H].

        Raises:
            ValueError: the probability is not in [0, 1].

        References:
            Kanuparthi et al., "h-detach: modifying the LSTM gradient towards better optimization", ICLR 2019
            (arXiv 1810.03023), for the detachment.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability!r}; expected a number between 0 and 1")

        def mean(orders: Array) -> Array:
            return sum((1 - probability) ** k * orders[k] for k in range(orders.shape[0] - 1))

        return mean(self.matrices) if self.matrices is not None else map_tree(mean, self.initial)


def path_spectrum(
    history: History,
    max_order: int = 8,
    start: int = 0,
    stop: int | None = None,
    seed_cotangent: Any = None,
    *,
    matrix: bool = False,
    progress: bool = False,
) -> PathSpectrum:
    """Sort the gradient over a stretch of time by how often its path crosses the hidden state.

    The cotangent at the end is carried back order by order, by `max_order` + 2 of the cell's own pulls a step;
    each order has an exponent of its own, so an order that is e^−10000 of another one is still right. With
    `matrix`, the same for every unit vector of the joint state at once.

    Args:
        history: the recorded pass of a cell with a cell state.
        max_order: highest order told apart, at least 0.
        start: first step of the stretch.
        stop: step after the last one; None for the end of the history.
        seed_cotangent: cotangent of the state after step stop − 1, fields [*batch, H]; None for ones on h. Not
            with `matrix`.
        matrix: expand the whole Jacobian product instead, for at most 256 units.
        progress: show a progress bar; needs tqdm.

    Returns:
        The spectrum.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: the cell has no cell state, the stretch is not within the history, too many units for
            `matrix`, a seed with `matrix`, or NaN or infinity in parameters, inputs or states.
    """
    recorded(history)
    unbroken(history, "path_spectrum")
    cell = history.cell
    if "cell" not in cell.state_type._fields:
        raise ValueError(
            f"a {type(cell).__name__} has no cell state, so there is no highway to separate; path_spectrum "
            "needs an LSTM's history"
        )
    max_order = positive("max_order", max_order, 0)
    first, last = stretch(history, start, stop)
    if matrix and cell.hidden_size > _LARGEST_MATRIX:
        raise ValueError(f"matrix=True takes at most {_LARGEST_MATRIX} units; this cell has {cell.hidden_size}")
    if matrix and seed_cotangent is not None:
        raise ValueError("seed_cotangent has no meaning with matrix=True, which carries every unit vector back")
    if seed_cotangent is not None:
        state(cell, history.params, seed_cotangent, history.batch, name="seed_cotangent")
        for field, value in seed_cotangent._asdict().items():
            if not is_traced(value) and not np.isfinite(np.asarray(value)).all():
                raise ValueError(f"seed_cotangent.{field} holds NaN or infinity; expected finite numbers")
    part = history[first:last]
    finite_history(part)
    return (
        _matrix_spectrum(part, max_order, progress)
        if matrix
        else _vector_spectrum(part, seed_cotangent, max_order, progress)
    )


def _vector_spectrum(history: History, seed: Any, max_order: int, progress: bool) -> PathSpectrum:
    xp = namespace(*history.params, history.inputs)
    if seed is None:
        zero = history.cell.initial_state(history.params, history.batch)
        seed = zero._replace(hidden=xp.ones_like(zero.hidden))
    seed = _of_order_zero(xp, map_tree(xp.asarray, seed), max_order)
    before, logs = _walk_orders(history, seed, True, progress)
    return PathSpectrum(logs["norms"], logs["remainder"], logs["total"], unscaled(before), None, None, None)


def _matrix_spectrum(history: History, max_order: int, progress: bool) -> PathSpectrum:
    xp, h = namespace(*history.params, history.inputs), history.cell.hidden_size
    size, kind = history.cell.state_size, history.cell.state_type
    unit = xp.eye(size, dtype=history.inputs.dtype)
    unit = xp.reshape(unit, (size, *(1,) * len(history.batch), size))
    unit = xp.broadcast_to(unit, (size, *history.batch, size))
    seed = kind(*blocks(unit, h))
    before, _ = _walk_orders(history, _of_order_zero(xp, seed, max_order), False, progress)

    def frobenius(number: Scaled, rows: slice = slice(None)) -> Array:
        return log_hypot(log_norm(number)[:, rows], axis=1)  # of [orders, rows, *batch]

    norms = frobenius(before)
    at = kind._fields.index("cell") * h
    cells = frobenius(Scaled(before.value.cell, before.exponent), slice(at, at + h))
    whole = frobenius(map_tree(lambda x: x[None], total(before)))[0]
    plain = unscaled(before)
    matrices = xp.moveaxis(xp.concat(plain, axis=-1), 1, -2)
    return PathSpectrum(None, norms[-1], whole, None, norms[:-1], cells[:-1], matrices)


def _of_order_zero(xp: Any, seed: Any, max_order: int) -> Scaled:
    """A cotangent as order 0 of max_order + 2 rows, the others zero, on a new first axis."""
    others = map_tree(lambda x: xp.zeros((max_order + 1, *x.shape), dtype=x.dtype), seed)
    return scaled(map_tree(lambda x, y: xp.concat([x[None], y]), seed, others))


def _walk_orders(history: History, seed: Scaled, norms: bool, progress: bool) -> tuple[Scaled, Any]:
    """Carry all orders back through a history; with `norms`, the log norms of what arrives at each step."""
    cell = history.cell

    def segment(packed: Array, part: History, extras: None) -> tuple[Array, Any]:
        return _segment(cell, *part.data, packed, norms=norms)

    packed, rows = by_segments(history, segment, pack(seed), None, progress)
    return unpack(packed, cell.state_type, cell.field_sizes), rows


@jit(static=("cell", "norms"))
def _segment(
    cell: Any, params: Any, initial: Any, inputs: Array, states: Any, stored: Any, packed: Array, norms: bool
) -> tuple[Array, Any]:
    xp = namespace(*params, inputs)
    history = History(cell, params, initial, inputs, states, stored)
    pull = pull_by(cell, params)
    straight = {field for _, field in cell.layout.from_before.values()}

    def hand_back(slopes: Any, cotangent: Scaled) -> Scaled:
        return _shift_orders(pull(slopes, cotangent), straight)

    def chunk(packed: Array, part: History, extras: None) -> tuple[Array, Any]:
        slopes = part.slopes
        packed, arriving = walk_back(cell, hand_back, slopes, packed, None)
        if not norms:
            return packed, None
        by_order = log_norm(arriving)
        whole = log_norm(total(map_tree(lambda x: xp.moveaxis(x, 1, 0), arriving)))
        return packed, {"norms": by_order[:, :-1], "remainder": by_order[:, -1], "total": whole}

    return reverse_chunks(history, chunk, packed, steps=max(1, _CHUNK_ELEMENTS // packed.size))


def _shift_orders(pulled: Scaled, straight: set[str]) -> Scaled:
    """What a step back does to orders: the part that arrives in c keeps its order, that in h gains one.

    As in c it is in all `straight` fields, an SLSTM's n and m; as in h it is in gates, where they are part of the
    state. The last row is the remainder: it keeps both parts of its own and gains the part in h of the row before.
    """
    xp = namespace(*pulled.value)
    fields = pulled.value._asdict()
    nothing = {name: xp.zeros_like(x) for name, x in fields.items() if name in straight}
    others = {name: x for name, x in fields.items() if name not in straight}
    kept = {name: xp.concat([xp.zeros_like(x[:-1]), x[-1:]]) for name, x in others.items()}
    shifted = {name: xp.concat([xp.zeros_like(x[:1]), x[:-1]]) for name, x in others.items()}
    own = pulled.value._replace(**kept)
    gained = pulled.value._replace(**nothing, **shifted)
    exponent = xp.concat([pulled.exponent[:1], pulled.exponent[:-1]])
    return add(scaled(own, pulled.exponent), scaled(gained, exponent))

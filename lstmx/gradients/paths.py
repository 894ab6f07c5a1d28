"""`path_spectrum`: the gradient sorted by how often its path leaves the cell state.

Each one-step Jacobian of an LSTM is A + B: A has the columns of c_{t-1}, the way straight down the cell state; B
those of h_{t-1}, every way through a gate. Their product over time, expanded in the number k of factors B, is a
sum of orders P_k; P_0 from cell to cell is the constant error carousel, Π f.
"""

from __future__ import annotations

from typing import Any, Generic, overload

import numpy as np

from lstmx.arrays import Array, columns, exp, fetched, gathered, jit, leaves, map_tree, namespace, result
from lstmx.cells.base import S
from lstmx.checks import LARGEST, finite_history, finite_number, flag, positive, require_history, states
from lstmx.gradients.highway import stretch
from lstmx.gradients.walk import scaled_back
from lstmx.history import History
from lstmx.layers import StackHistory
from lstmx.linear import backward_by_segments, state_size, steps_of, walk_back
from lstmx.scaling import Scaled, log_hypot, log_norm, pack, scaled, total, unpack, unscaled

_LARGEST_MATRIX = 256
_CHUNK_ELEMENTS = 2**21  # of all orders' cotangents at a time


@result
class PathSpectrum(Generic[S]):
    """A cotangent at the end of a stretch, or the whole Jacobian of it, by the number of crossings of h.

    L2 (Frobenius) norms in natural logs, −inf for an exact zero, NaN at a step that does not count. Orders are 0 …
    max_order; everything above is the remainder. Time t is the state after step start + t. Vector fields are None
    with matrix=True, matrix fields without it.

    Of a stack, the joint state is that of all layers, and a crossing is from one step to the next: what goes down
    from layer to layer within a step is none.

    Attributes:
        log_norms: of each order of the cotangent of the joint state, [T, max_order + 1, *batch].
        log_remainder: of the orders above, together: [T, *batch]; with matrix=True [*batch].
        log_total: of the whole cotangent, all orders together: [T, *batch]; with matrix=True the log Frobenius
            norm of the whole Jacobian product, [*batch].
        initial: by order, then the remainder, the cotangent of the state before the stretch, fields
            [max_order + 2, *batch, H]; 0 where it leaves the float range.
        log_matrix_norms: of P_k, the whole joint-state matrix, [max_order + 1, *batch].
        log_cell_norms: of the block of P_k from cell state to cell state, [max_order + 1, *batch].
        by_layer: of each order of the part of the cotangent that is in a layer, [T, max_order + 1, *batch] by the
            layer's name; None of one cell, and with matrix=True.
        matrices: P_k, then the remainder, [max_order + 2, *batch, S, S]; rows and columns are the joint state
            (hidden, cell) at the end and before the start, S = 2H; 0 where they leave the float range.
    """

    log_norms: Array | None
    log_remainder: Array
    log_total: Array
    initial: S | None
    log_matrix_norms: Array | None
    log_cell_norms: Array | None
    matrices: Array | None
    by_layer: dict[str, Array] | None = None

    def __str__(self) -> str:
        """The orders from the first step of the stretch on: how strong each is there, and what all come to."""
        logs, axis = self._orders()
        if axis:
            logs = namespace(logs).moveaxis(logs, 1, 0)
        read = (*logs, self.log_remainder, self.log_total, self.highway_share, self.mean_order)
        *logs, rest, whole, share, order = (fetched(x, np.float64) for x in read)
        if axis:
            first = (~np.isnan(whole)).argmax(axis=0)[None]  # the first step of each sequence that counts
            *logs, rest, whole, share, order = (
                np.take_along_axis(x, first, axis=0)[0] for x in (*logs, rest, whole, share, order)
            )
        middle = "" if whole.ndim == 0 else f" (medians of {whole.size} sequences)"
        norms = [np.median(row) for row in [*logs, rest]]
        names = [*map(str, range(len(logs))), f"above {len(logs) - 1}"]
        of = "the cotangent of the state after the first step" if axis else "the whole Jacobian"
        listed = ", ".join(f"{name}: {norm:.4g}" for name, norm in zip(names, norms, strict=True))
        return "\n".join(
            [
                f"{of} by the number of crossings of h{middle}: ln norm {np.median(whole):.4g} in all",
                f"  ln norm by order: {listed}",
                f"  order 0, the way along the cell state alone, is {np.median(share):.4g} of the whole; mean "
                f"order {np.median(order):.4g}",
            ]
        )

    def __repr__(self) -> str:
        logs, axis = self._orders()
        lead = tuple(self.log_total.shape)
        of, batch = (f"{lead[0]} steps", lead[1:]) if axis else ("matrices", lead)
        return f"PathSpectrum(orders 0 to {logs.shape[axis] - 1}, {of}{f', batch {batch}' if batch else ''})"

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

    def _orders(self) -> tuple[Any, int]:
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
        finite_number("probability", probability, "a number between 0 and 1", lambda x: 0 <= x <= 1)

        def mean(orders: Array) -> Any:
            return sum((1 - probability) ** k * orders[k] for k in range(orders.shape[0] - 1))

        return mean(self.matrices) if self.matrices is not None else map_tree(mean, self.initial)


@overload
def path_spectrum(
    history: History[Any, S],
    max_order: int = 8,
    start: int = 0,
    stop: int | None = None,
    seed_cotangent: S | None = None,
    *,
    matrix: bool = False,
    progress: bool = False,
) -> PathSpectrum[S]: ...
@overload
def path_spectrum(
    history: StackHistory,
    max_order: int = 8,
    start: int = 0,
    stop: int | None = None,
    seed_cotangent: Any = None,
    *,
    matrix: bool = False,
    progress: bool = False,
) -> PathSpectrum[tuple[Any, ...]]: ...
def path_spectrum(
    history: Any,
    max_order: int = 8,
    start: int = 0,
    stop: int | None = None,
    seed_cotangent: Any = None,
    *,
    matrix: bool = False,
    progress: bool = False,
) -> PathSpectrum[Any]:
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
    require_history(history, joint=True)
    flag("matrix", matrix)
    flag("progress", progress)
    for name, part in {"": history}.items() if isinstance(history, History) else history.parts.items():
        if not has_cell_state(part):
            where = f", {name} of the stack," if name else ""
            raise ValueError(
                f"{part.cell}{where} has no cell state, so there is no highway to separate; path_spectrum takes "
                "the history of a cell with one, such as an LSTM, or of a stack whose layers all have one"
            )
    max_order = positive("max_order", max_order, 0, LARGEST // state_size(history))
    first, last = stretch(history, start, stop)
    if matrix and state_size(history) > 2 * _LARGEST_MATRIX:
        raise ValueError(
            f"matrix=True takes a joint state of at most {2 * _LARGEST_MATRIX} numbers; this one has "
            f"{state_size(history)}"
        )
    if matrix and seed_cotangent is not None:
        raise ValueError("seed_cotangent has no meaning with matrix=True, which carries every unit vector back")
    if seed_cotangent is not None:
        states(history, seed_cotangent, "seed_cotangent")
    part = history[first:last]
    finite_history(part)
    found = (
        _matrix_spectrum(part, max_order, progress)
        if matrix
        else _vector_spectrum(part, seed_cotangent, max_order, progress)
    )
    return gathered(found, ("initial", "matrices"))


def _vector_spectrum(history: Any, seed: Any, max_order: int, progress: bool) -> PathSpectrum:
    if seed is None:
        packed = _ones_on_output(history)
    else:
        packed = history.cell.pack(map_tree(namespace(*leaves(history.initial)).asarray, seed))
    before, logs = _walk_orders(history, _of_order_zero(packed, max_order), True, progress)
    initial = history.cell.unpack(unscaled(before))
    layers = {name: logs["layers"][name] for name in history.parts} if "layers" in logs else None
    return PathSpectrum(logs["norms"], logs["remainder"], logs["total"], initial, None, None, None, layers)


@jit()
def _ones_on_output(history: Any) -> Array:
    """The cotangent of the last state [*batch, S] that ones on the last output are."""
    last = map_tree(lambda x: x[-1:], history.rows)
    steps, outputs = steps_of(history.stretch(history.initial, last)), history.outputs[-1:]
    return steps.inject(namespace(outputs).ones_like(outputs))[0]


def _matrix_spectrum(history: Any, max_order: int, progress: bool) -> PathSpectrum:
    size, dtype = state_size(history), history.inputs.dtype
    xp = namespace(history.inputs)
    unit = xp.reshape(xp.eye(size, dtype=dtype), (size, *(1,) * len(history.batch), size))
    unit = xp.broadcast_to(unit, (size, *history.batch, size))
    before, _ = _walk_orders(history, _of_order_zero(unit, max_order), False, progress)
    cells = np.flatnonzero(_of_cell_state(history))

    def frobenius(number: Scaled, rows: Any = slice(None)) -> Array:
        return log_hypot(log_norm(number)[:, rows], axis=1)  # of [orders, rows, *batch]

    norms = frobenius(before)
    own = frobenius(Scaled(before.value[..., cells], before.exponent), cells)
    whole = frobenius(map_tree(lambda x: x[None], total(before)))[0]
    matrices = xp.moveaxis(unscaled(before), 1, -2)
    return PathSpectrum(None, norms[-1], whole, None, norms[:-1], own[:-1], matrices)


def _of_cell_state(history: Any) -> np.ndarray:
    """Which numbers of the joint state are of a cell state, bool [S]."""
    if not isinstance(history, History):
        return np.concatenate([_of_cell_state(layer) for layer in history.layers])
    sizes = zip(history.cell.state_type._fields, history.cell.field_sizes, strict=True)
    return np.concatenate([np.full(size, name == "cell") for name, size in sizes])


def has_cell_state(history: History) -> bool:
    """Whether the cell of a pass has a cell state beside its output."""
    return history.cell.closed_form and "cell" in history.cell.state_type._fields


def carried_numbers(history: Any) -> np.ndarray:
    """Which numbers of the joint state are carried on along a gate, bool [S]: c, and an SLSTM's n and m."""
    if not isinstance(history, History):
        return np.concatenate([carried_numbers(layer) for layer in history.layers])
    cell = history.cell
    straight = {field for _, field in cell.layout.from_before.values()}
    sizes = zip(cell.state_type._fields, cell.field_sizes, strict=True)
    return np.concatenate([np.full(size, name in straight) for name, size in sizes])


def _of_order_zero(seed: Array, max_order: int) -> Scaled:
    """A cotangent as order 0 of max_order + 2 rows, the others zero, on a new first axis."""
    xp = namespace(seed)
    return scaled(xp.concat([seed[None], xp.zeros((max_order + 1, *seed.shape), dtype=seed.dtype)]))


def _walk_orders(history: Any, seed: Scaled, norms: bool, progress: bool) -> tuple[Scaled, Any]:
    """Carry all orders back through a history; with `norms`, the log norms of what arrives at each step."""

    def segment(packed: Array, part: Any, extras: None) -> tuple[Array, Any]:
        return _segment(part, packed, norms=norms)

    packed, rows = backward_by_segments(history, segment, pack(seed), None, progress)
    return unpack(packed), rows


@jit(static=("norms",))
def _segment(history: Any, packed: Array, norms: bool) -> tuple[Array, Any]:
    xp = namespace(history.inputs)
    carried = xp.asarray(carried_numbers(history))

    def chunk(packed: Array, part: Any, extras: None) -> tuple[Array, Any]:
        packed, arriving, _ = scaled_back(part, lambda step, v: step.pull(v)[0], packed, None, carried)
        if not norms:
            return packed, None
        hold = None if part.counts is None else ~part.counts

        def counted(logs: Array) -> Array:
            """Logs [T, *batch] or [T, orders, *batch], NaN at the steps that do not count."""
            if hold is None:
                return logs
            return xp.where(hold[:, None] if logs.ndim > hold.ndim else hold, xp.full_like(logs, np.nan), logs)

        by_order = counted(log_norm(arriving))
        whole = counted(log_norm(total(map_tree(lambda x: xp.moveaxis(x, 1, 0), arriving))))
        rows: dict[str, Any] = {"norms": by_order[:, :-1], "remainder": by_order[:, -1], "total": whole}
        if not isinstance(part, History):
            parts = columns(arriving.value[:, :-1], tuple(layer.cell.state_size for layer in part.layers))
            of_layers = zip(part.parts, parts, strict=True)
            rows["layers"] = {n: counted(log_norm(Scaled(x, arriving.exponent[:, :-1]))) for n, x in of_layers}
        return packed, rows

    return walk_back(history, chunk, packed, size=max(1, _CHUNK_ELEMENTS // packed.size))

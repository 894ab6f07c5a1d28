"""A walk back whose cotangents are carried beyond the range of a float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lstmx.arrays import Array, namespace
from lstmx.linear import back_through
from lstmx.scaling import Scaled, add, normalised, pack, scaled, unpack


def scaled_back(
    part: Any,
    apply: Callable[[Any, Array], Array],
    packed: Array,
    direct: Scaled | None,
    carried: Array | None = None,
) -> tuple[Array, Scaled, Any]:
    """The recurrence v_{t-1} = apply(maps of step t, v_t + direct_t), from the last step of a chunk to the first.

    Args:
        part: the chunk, a history.
        apply: a linear map of one step back, such as the vjp.
        packed: cotangent of the state after the last step, [*batch, S], and its exponent, `pack`ed; more axes in
            front are cotangents walked back together.
        direct: ∂L/∂h_t at fixed other outputs, [T, *batch, H]; None for none.
        carried: which numbers of the joint state are carried on along a gate, bool [S]: then the first axis of the
            cotangents is the order, the number of crossings of the others. None for no orders.

    Returns:
        The cotangent of the state before the first step, packed; those that arrive at the state after each step,
        the step's own `direct` included; and the maps of all steps.
    """

    def step(packed: Array, at: Any, direct: Scaled | None) -> tuple[Array, Array]:
        arriving = normalised(unpack(packed))
        if direct is not None:
            arriving = add(arriving, direct._replace(value=at.inject(direct.value)))
        before = arriving._replace(value=apply(at, arriving.value))
        if carried is not None:
            shifted = _shift_orders(before, carried)
            before = shifted if at.held is None else _chosen(at.held, before, shifted)
        return pack(before), pack(arriving)

    before, arriving, steps = back_through(part, step, packed, direct)
    return before, unpack(arriving), steps


def _shift_orders(before: Scaled, carried: Array) -> Scaled:
    """What a step back does to orders: the part that arrives in c keeps its order, that in h gains one.

    As in c it is in all numbers that are `carried`, an SLSTM's n and m; as in h it is in gates, where they are
    part of the state. The last row is the remainder: it keeps both parts of its own and gains the part in h of the
    row before.
    """
    xp = namespace(before.value)
    others = xp.where(carried, xp.zeros_like(before.value), before.value)
    kept = xp.concat([xp.where(carried, before.value, xp.zeros_like(before.value))[:-1], before.value[-1:]])
    shifted = xp.concat([xp.zeros_like(others[:1]), others[:-1]])
    exponent = xp.concat([before.exponent[:1], before.exponent[:-1]])
    return add(scaled(kept, before.exponent), scaled(shifted, exponent))


def _chosen(held: Array, still: Scaled, moved: Scaled) -> Scaled:
    """A cotangent where the state stands still, and another one elsewhere."""
    xp = namespace(held)
    return Scaled(xp.where(held, still.value, moved.value), xp.where(held[..., 0], still.exponent, moved.exponent))

"""What is said of the steps of a pass beside its inputs: which count, where sequences start, what Zoneout drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, jit, namespace
from lstmx.cells.zoneout import Zoneout
from lstmx.checks import array
from lstmx.draws import draws_for

Lengths: TypeAlias = "int | np.integer | Array | Sequence[Any]"


class Controls(NamedTuple):
    """What of a pass is in none of its inputs; None for what was not said."""

    hold: Array | None = None
    """True where a step does not count and the state stands still, booleans [T, *batch]."""
    reset: Array | None = None
    """True where a sequence starts with this step, booleans [T, *batch]; never where `hold` is."""
    kept: Any = None
    """The share of the old state that Zoneout drew, 0 or 1, as a state with fields [T, *batch, H]."""


def where_held(hold: Array | None, x: Array, otherwise: Any = 0.0) -> Array:
    """`x` [*lead, ...], and where `hold` [*lead] is true another number, or an array like `x`."""
    if hold is None:
        return x
    xp = namespace(x, hold)
    hold = xp.reshape(hold, (*hold.shape, *(1,) * (x.ndim - hold.ndim)))
    return xp.where(hold, xp.full_like(x, otherwise) if np.isscalar(otherwise) else otherwise, x)


def controlled(
    cell: Any, xs: Array, lengths: Any, mask: Any, resets: Any, key: Any
) -> tuple[Array, Controls | None]:
    """Check what is said of the steps of a pass; its inputs, with others where one does not count, and controls.

    A traced length that is no number of steps cannot be refused: all numbers of such a sequence become NaN.

    Args:
        cell: the cell, or layers.
        xs: inputs, [T, *batch, D].
        lengths: as for `run`; so the next three.
        mask: booleans.
        resets: booleans.
        key: of what a Zoneout draws.
    """
    if lengths is None and mask is None and resets is None and key is None:
        return xs, None
    kept = None
    if key is not None:
        if not isinstance(cell, Zoneout):
            raise ValueError(f"key is given; {cell} has nothing random, as a Zoneout or a Stack with dropout has")
        kept = cell.masks(draws_for(namespace(xs), key), tuple(xs.shape[:-1]), xs.dtype)
    hold, reset = holds(xs, lengths, mask, resets)
    if hold is None and reset is None and kept is None:
        return xs, None
    if hold is None:
        return xs, Controls(None, reset, kept)
    xs = _cleaned(xs, hold, lengths if is_traced(lengths) else None, zeros=getattr(cell, "closed_form", True))
    return xs, Controls(hold, reset, kept)


@jit(static=("zeros",))
def _cleaned(xs: Array, hold: Array, lengths: Any, zeros: bool) -> Array:
    """Inputs with other numbers at the steps that do not count: zeros, or the first of the sequence that counts.

    A step function may have no derivative at zero: it is asked for one where it is known to have it.
    """
    xp = namespace(xs)
    first = xp.argmin(hold.astype(int), axis=0)[None, ..., None]
    xs = where_held(hold, xs, 0.0 if zeros else xp.take_along_axis(xs, first, axis=0))
    if lengths is None:
        return xs
    wrong = (lengths < 1) | (lengths > xs.shape[0])
    return xp.where(wrong[..., None], xp.full_like(xs, float("nan")), xs)


def holds(xs: Any, lengths: Any, mask: Any, resets: Any) -> tuple[Array | None, Array | None]:
    """Lengths, mask and resets, checked, as `hold` and `reset` of `Controls`.

    Args:
        xs: inputs [T, *batch, D], of which only the shape and the library are looked at.
        lengths: as for `run`; so the next two.
        mask: booleans.
        resets: booleans.
    """
    lead = tuple(xs.shape[:-1])
    xp = namespace(xs, *(x for x in (lengths, mask, resets) if hasattr(x, "__array_namespace__")))
    hold = reset = None
    if lengths is not None:
        hold = _past(lead, lengths, xp)
    if mask is not None:
        counts = xp.asarray(_booleans("mask", mask, lead))
        hold = ~counts if hold is None else hold | ~counts
        if not is_traced(hold):
            empty = np.argwhere(fetched(hold).all(axis=0))
            if len(empty):
                which = f"sequence {tuple(int(k) for k in empty[0])}" if len(lead) > 1 else "the sequence"
                raise ValueError(f"mask leaves {which} without a step; expected at least one True along axis 0")
    if resets is not None:
        reset = xp.asarray(_booleans("resets", resets, lead))
        reset = reset if hold is None else reset & ~hold  # a step that does not count starts nothing
    return hold, reset


def _past(lead: tuple[int, ...], lengths: Any, xp: Any) -> Array:
    """True past the end of each sequence, [T, *batch]."""
    steps, *batch = lead
    if isinstance(lengths, (int, np.integer, list, tuple, range)):
        try:
            lengths = fetched(lengths)
        except ValueError as error:  # of lists of unequal lengths
            raise ValueError(f"lengths is {lengths!r}; expected an integer for each sequence of xs") from error
    array("lengths", lengths, "int64")
    if tuple(lengths.shape) == (steps,) != tuple(batch) and len(batch) == 1:
        raise ValueError(
            f"lengths has shape {(steps,)}; expected an integer for each sequence of xs, {tuple(batch)}. Time "
            "first: xs is [T, B, D]; yours look batch first: numpy.swapaxes(xs, 0, 1)"
        )
    if tuple(lengths.shape) != tuple(batch) or np.dtype(lengths.dtype).kind not in "iu":
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)} and dtype {lengths.dtype}; expected an integer for "
            f"each sequence of xs, {tuple(batch)}"
        )
    if not is_traced(lengths):
        wrong = (fetched(lengths) < 1) | (fetched(lengths) > steps)
        if wrong.any():
            raise ValueError(f"lengths holds {fetched(lengths)[wrong].flat[0]}; expected 1 to {steps}")
    step = xp.arange(steps).reshape(-1, *(1,) * len(batch))
    past = step >= xp.asarray(lengths).astype(step.dtype)
    if is_traced(lengths):  # a wrong one reads its sequence, of which every number is made NaN
        past = past & (xp.asarray(lengths) >= 1)
    return past


def _booleans(name: str, value: Any, lead: tuple[int, ...]) -> Array:
    array(name, value, "bool")
    if tuple(value.shape) != lead or value.dtype != bool:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and dtype {value.dtype}; expected booleans [T, *batch] "
            f"= {lead}"
        )
    return value

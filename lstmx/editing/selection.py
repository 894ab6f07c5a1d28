"""Which units or steps an edit is for: as given, as hashable words, and as a mask."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_LISTED = 6  # positions that a description lists


class Stretch(NamedTuple):
    """A slice, which before Python 3.12 is not hashable."""

    start: int | None
    stop: int | None
    stride: int | None


Selection = tuple[int, ...] | range | Stretch | None


def selection(name: str, given: Any) -> Selection:
    """`given` as a hashable value: None, an integer, a slice, a range or a list or array of integers.

    Raises:
        TypeError: anything else, or no integers.
        ValueError: it holds nothing.
    """
    if given is None:
        return None
    if isinstance(given, slice):
        parts = given.start, given.stop, given.step
        return Stretch(*(None if part is None else _integer(name, part) for part in parts))
    if not isinstance(given, (range, list, tuple, np.ndarray)):
        given = (given,)
    if len(given) == 0:
        raise ValueError(f"{name} is empty; expected at least one position, or None for all")
    return given if isinstance(given, range) else tuple(_integer(name, position) for position in given)


def mask(name: str, chosen: Selection, length: int, whole: str) -> np.ndarray | None:
    """The positions out of `length` as a mask; None for all. Negative ones count from the end.

    Raises:
        ValueError: a position or a bound is outside, or a slice holds nothing.
    """
    if chosen is None:
        return None
    made = np.zeros(length, bool)
    bounds = chosen[:2] if isinstance(chosen, Stretch) else ()
    beyond = [k for k in bounds if k is not None and not -length <= k <= length]
    if not isinstance(chosen, Stretch):
        beyond = [k for k in chosen if not -length <= k < length]
    if beyond:
        raise ValueError(f"{name} has {beyond[0]}; {whole} has {name} 0 to {length - 1}")
    made[slice(*chosen) if isinstance(chosen, Stretch) else list(chosen)] = True
    if not made.any():
        raise ValueError(f"{name} is {words(chosen)}, which holds none of the {name} 0 to {length - 1} of {whole}")
    return made


def words(chosen: Selection) -> str:
    """A selection in short words: 10:20, or [0, 3]."""
    if isinstance(chosen, Stretch):
        parts = ["" if part is None else str(part) for part in chosen]
        return ":".join(parts if chosen.stride is not None else parts[:2])
    if isinstance(chosen, range):
        return f"{chosen.start}:{chosen.stop}:{chosen.step}"
    if chosen is None:
        return "all"
    listed = ", ".join(map(str, chosen[:_LISTED]))
    return f"[{listed}]" if len(chosen) <= _LISTED else f"[{listed}, ... {len(chosen):,} in all]"


def _integer(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{name} holds {value!r}; expected an integer, a list of integers, a slice or None for all"
        )
    return value.__index__()

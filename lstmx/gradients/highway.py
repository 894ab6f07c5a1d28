"""The constant error carousel on its own: what the retention gates alone let through."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, map_tree, sum_over_time
from lstmx.checks import positive, require_history
from lstmx.history import History, StoredHistory
from lstmx.layers import LayeredHistory, StackHistory

_CHUNK_STEPS = 2**14


def stretch(history: History | StoredHistory | StackHistory, start: int, stop: int | None) -> tuple[int, int]:
    """`start` and `stop` as steps with 0 ≤ start < stop ≤ T, else an error that names them."""
    length = len(history)
    first = positive("start", start, 0)
    last = length if stop is None else positive("stop", stop, 0)
    if not first < last <= length:
        raise ValueError(
            f"start={start}, stop={stop}; expected 0 <= start < stop <= {length}, the history's length"
        )
    return first, last


@overload
def highway(history: LayeredHistory, start: int = 0, stop: int | None = None) -> dict[str, Array]: ...
@overload
def highway(history: History | StoredHistory, start: int = 0, stop: int | None = None) -> Array: ...
def highway(history: Any, start: int = 0, stop: int | None = None) -> Any:
    """Log of the product of the retention gates over steps start, …, stop − 1, per unit.

    For an LSTM this is ln ∂c_{stop-1}/∂c_{start-1} along the cell path alone, Σ ln f_t. Each ln f is taken from
    the pre-activation, ln f = −ln(1 + e^{−a}), which is right where f itself rounds to 1, and the sum is taken
    in float64 whatever the dtype of the history, so a million steps at forget bias 13.8 keep their digits.

    Args:
        history: the recorded pass, of a cell or of layers.
        start: first step whose gate counts.
        stop: step after the last one; None for the end of the history.

    Returns:
        [*batch, H], natural log, NumPy float64; of layers by name. Under a JAX transformation: an array of the
        history's dtype.

    Raises:
        TypeError: start or stop is no integer.
        ValueError: the cell has no retention gate, or the steps are not 0 ≤ start < stop ≤ T.

    References:
        Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997: the carousel, f = 1.
    """
    require_history(history, layers=True, disk=True)
    first, last = stretch(history, start, stop)
    if isinstance(history, LayeredHistory):
        found = {}
        for name, (part, in_time) in history.cells().items():
            counted = np.arange(len(part))[first:last]
            read = np.flatnonzero(np.isin(in_time(np.arange(len(part))), counted))  # of who reads backwards others
            found[name] = highway(part, int(read[0]), int(read[-1]) + 1)
        return found
    total: Any = 0.0
    for begin in range(first, last, _CHUNK_STEPS):
        part = history[begin : min(begin + _CHUNK_STEPS, last)]
        if not is_traced(part):
            part = map_tree(lambda x: x if x.dtype == bool else fetched(x, np.float64), part.to_numpy())
        total = total + sum_over_time(part.log_retention)
    return total

"""The weights that gates put on what earlier steps took in: a gated cell read as attention."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lstmx.arrays import result
from lstmx.cells.minimal import MinGRU, MinLSTM
from lstmx.checks import require_history
from lstmx.gradients.influence import log_weights, output_steps
from lstmx.history import History


@result(static=("linear",))
class EffectiveAttention:
    """How much of what a step took in stands in the state of a later one, by unit, in natural logs.

    Attributes:
        log_weights: ln A[t, s], [outputs, T, *batch, H]; −inf for s > t, for steps that do not count, and before a
            sequence's start.
        log_initial: ln of what is left of the initial state, [outputs, *batch, H].
        outputs: the steps t, [outputs].
        linear: whether the weights depend on inputs alone, so that the state is this sum and nothing else.
    """

    log_weights: np.ndarray
    log_initial: np.ndarray
    outputs: np.ndarray
    linear: bool

    @property
    def weights(self) -> np.ndarray:
        """A[t, s], [outputs, T, *batch, H]; 0 below the range of a float."""
        return np.exp(self.log_weights)

    def __repr__(self) -> str:
        steps, length, *_ = self.log_weights.shape
        return f"EffectiveAttention({steps} output steps on {length} steps, by unit)"

    def __str__(self) -> str:
        """How far back the weights reach, and what they are."""
        weights = self.weights
        axis = tuple(range(2, weights.ndim))
        by_pair = weights.sum(axis=axis)
        lags = self.outputs[:, None] - np.arange(weights.shape[1])
        whole = by_pair.sum()
        mean = (by_pair * np.maximum(lags, 0)).sum() / whole if whole > 0 else np.nan
        kind = (
            "gates read inputs alone: the state is this weighted sum"
            if self.linear
            else "of the path along the state: inputs also act through the gates, which are taken as they were"
        )
        return f"{self!r}\n  mean lag {mean:.4g} steps\n  {kind}"


def effective_attention(history: History, outputs: int | Iterable[int] | None = None) -> EffectiveAttention:
    """The weights A[t, s] with which the state after step t holds what step s took in, by unit.

    Unrolling s_t = f_t ∘ s_{t-1} + i_t ∘ g_t gives s_t = Σ_s A[t, s] ∘ g_s + (Π f) ∘ s_0 with
    A[t, s] = i_s ∘ Π_{r=s+1..t} f_r. In a MinLSTM and a MinGRU gates depend on inputs alone, and this is the whole
    truth; in an LSTM it is that of the cell state, the gates taken as they were. `gate_kernel` sums units up.

    Args:
        history: the recorded pass of a cell with an input gate.
        outputs: steps t, integers; None for all steps of a history of at most 512, else the last one.

    Returns:
        An `EffectiveAttention`, NumPy float64; `print` says how far back it reaches.

    Raises:
        TypeError: history is none, a step is no integer, or the history is inside a JAX transformation.
        ValueError: the cell has no input gate, a step is outside the history, or there is NaN or infinity in
            parameters, inputs or states.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.MinGRU(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0), "float64")
        >>> history = lstmx.record(cell, params, numpy.random.default_rng(1).normal(size=(20, 3)))
        >>> found = lstmx.effective_attention(history)
        >>> bool(numpy.allclose((found.weights * history.candidate).sum(axis=1), history.hidden_state))
        True
    """
    require_history(history)
    chosen = output_steps(outputs, len(history))
    rows, initial = zip(*log_weights(history, chosen), strict=True)
    linear = isinstance(history.cell, (MinLSTM, MinGRU))
    return EffectiveAttention(np.stack(rows), np.stack(initial), np.array(chosen), linear)

"""One-step Jacobians of the joint state map, their blocks, and how far they are from an isometry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, jit, log, namespace, result
from lstmx.checks import finite_history, one_of, require_history
from lstmx.history import History, where_held
from lstmx.layers import StackHistory
from lstmx.linear import state_size, steps_of

_CHUNK_ELEMENTS = 2**22  # of Jacobians at a time


def jacobians(history: History | StackHistory, block: str | None = None) -> Array:
    """The Jacobians J_t = ∂s_t/∂s_{t-1} of the joint state map, in closed form.

    The joint state of an LSTM is (h, c): J_t is 2H × 2H. Its block ∂h_t/∂h_{t-1} holds c_{t-1} fixed; it is not
    the derivative of h_t by what came before it, and has a name of its own here, `block="hidden_hidden"`.

    Args:
        history: the recorded pass.
        block: None for the whole matrix; or "hidden_hidden", "hidden_cell", "cell_hidden" or "cell_cell" for one
            block, named by the state that changes, then the state before that moves it; so with other states.

    Returns:
        [T, *batch, S, S] with S = 2H for an LSTM and H for a GRU or SimpleRNN; a block is [T, *batch, H, H]. Row
        i, column j is ∂s_t[i]/∂s_{t-1}[j], states in the order (hidden, cell).

    Raises:
        TypeError: this is no history.
        ValueError: another word for the block; or NaN or infinity in parameters, inputs or states.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((5, 3), "float32"))
        >>> lstmx.jacobians(history).shape, lstmx.jacobians(history, "cell_cell").shape
        ((5, 16, 16), (5, 8, 8))
    """
    require_history(history, joint=True)
    fields = named_sizes(history)
    places = {f"{row}_{column}": (row, column) for row in fields for column in fields}
    if block is not None:
        one_of("block", block, tuple(places))
    finite_history(history)
    whole = jacobians_of(history)
    if block is None:
        return whole
    row, column = (fields[name] for name in places[block])
    return whole[..., row, column]


def named_sizes(history: Any) -> dict[str, slice]:
    """The fields of the joint state and their numbers in it; of a stack with the layer's number in front."""
    if isinstance(history, StackHistory):
        parts = [
            (f"{k}_{name}", at)
            for k, layer in enumerate(history.layers)
            for name, at in named_sizes(layer).items()
        ]
    else:
        names = history.cell.named_fields(history.final)
        parts = [(name, slice(0, size)) for name, size in zip(names, history.cell.field_sizes, strict=True)]
    ends = list(itertools.accumulate(at.stop - at.start for _, at in parts))
    return {name: slice(end - (at.stop - at.start), end) for (name, at), end in zip(parts, ends, strict=True)}


def input_jacobians(history: History | StackHistory) -> Array:
    """∂s_t/∂x_t of the joint state, in closed form.

    Args:
        history: the recorded pass.

    Returns:
        [T, *batch, S, D]; rows are the joint state (hidden, cell) after the step.

    Raises:
        TypeError: this is no history.
        ValueError: NaN or infinity in parameters, inputs or states.
    """
    require_history(history, joint=True)
    finite_history(history)
    return _input_jacobians(history)


@jit()
def jacobians_of(history: Any) -> Array:
    """J_t of all steps, [T, *batch, S, S], unchecked."""
    return steps_of(history).matrices()


@jit()
def _input_jacobians(history: Any) -> Array:
    return steps_of(history).input_matrices()


def parts_for_matrices(history: Any) -> Iterator[Any]:
    """Stretches of a history short enough that the Jacobians of each fit near the processor."""
    size = max(1, _CHUNK_ELEMENTS // (state_size(history) ** 2 * max(1, math.prod(history.batch))))
    return (history[start : start + size] for start in range(0, len(history), size))


@result
class Isometry:
    """Singular values of one-step Jacobians, and how far these are from an isometry.

    A step that neither stretches nor shrinks has singular values that are all 1: a mean square of 1 and a variance
    of 0. NumPy float64 unless traced.

    Attributes:
        singular_values: of each J_t, descending, [T, *batch, S].
    """

    singular_values: Array

    @property
    def mean_square(self) -> Array:
        """χ = tr(J Jᵀ) / S, [T, *batch]: the mean of the squared singular values."""
        return self.singular_values.__array_namespace__().mean(self.singular_values**2, axis=-1)

    @property
    def variance(self) -> Array:
        """Variance of the squared singular values over the S directions, [T, *batch]."""
        return self.singular_values.__array_namespace__().var(self.singular_values**2, axis=-1)

    @property
    def log_condition(self) -> Array:
        """Ln of the greatest over the least singular value, [T, *batch]; infinite for a singular J_t."""
        values = self.singular_values
        return log(values[..., 0]) - log(values[..., -1])

    def __str__(self) -> str:
        values = fetched(self.singular_values)
        chi, variance = (np.nanmean(fetched(x)) for x in (self.mean_square, self.variance))
        return (
            f"one-step Jacobians of {len(values)} steps, {values.shape[-1]} × {values.shape[-1]}: mean squared "
            f"singular value {chi:.4g}, its variance {variance:.4g} (an isometry has 1 and 0); greatest singular "
            f"value {np.nanmax(values):.4g}, least {np.nanmin(values):.4g}"
        )

    def __repr__(self) -> str:
        return f"Isometry(singular_values {tuple(self.singular_values.shape)})"


def isometry(history: History | StackHistory) -> Isometry:
    """Singular values of the one-step Jacobians, for studies of dynamical isometry.

    Args:
        history: the recorded pass, such as one of freshly drawn parameters.

    Returns:
        The singular values with their mean of squares χ and its variance.

    Raises:
        TypeError: this is no history.
        ValueError: NaN or infinity in parameters, inputs or states.

    References:
        Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of RNNs", ICML 2018.
    """
    require_history(history, joint=True)
    finite_history(history)
    xp = namespace(history.inputs)
    parts = []
    for part in parts_for_matrices(history):
        values = xp.linalg.svd(jacobians_of(part), compute_uv=False)
        parts.append(values if is_traced(values) else fetched(values, np.float64))
    values = namespace(*parts).concat(parts)
    return Isometry(values if history.counts is None else where_held(~history.counts, values, math.nan))

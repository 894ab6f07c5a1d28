"""One random LSTM, its inputs and a cotangent: what every candidate of a case computes with, and what is right."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import lstmx
from benchmarks.sizes import Case

CHECKED_STEPS = 500
"""Outputs and records are compared with the float64 reference on so many first steps."""
REFERENCE_STEPS = 20_000
"""Gradients are compared with the float64 reference where T·B is no larger."""


class Problem:
    """A case's numbers, all drawn from one seed, float32 in NumPy.

    Attributes:
        case: T, B, D, H.
        cell: `lstmx.LSTM(D, H)`.
        params: its parameters, with a random bias.
        xs: inputs [T, B, D].
        cotangent: of the outputs, [T, B, H].
    """

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        self.case = case
        self.cell = lstmx.LSTM(case.features, case.units)
        params = self.cell.init(rng)
        draw = rng.standard_normal(4 * case.units, dtype="float32")
        self.params = params._replace(bias=params.bias + np.float32(0.1) * draw)
        lead = case.length, case.batch
        self.xs = rng.standard_normal((*lead, case.features), dtype="float32")
        self.cotangent = rng.standard_normal((*lead, case.units), dtype="float32")

    @functools.cached_property
    def reference(self) -> Any:
        """The first steps' history in float64 NumPy."""
        return lstmx.record(self.cell, _double(self.params), self.xs[:CHECKED_STEPS].astype("float64"))

    @functools.cached_property
    def reference_gradient(self) -> tuple[np.ndarray, ...] | None:
        """Gradients of W, U, b and the inputs in float64 NumPy; None where that would take too long."""
        if self.case.length * self.case.batch > REFERENCE_STEPS:
            return None
        history = lstmx.record(self.cell, _double(self.params), self.xs.astype("float64"))
        gradients = lstmx.backward(history, self.cotangent.astype("float64"))
        return (*gradients.parameters, gradients.inputs)

    @functools.cached_property
    def reference_flow(self) -> np.ndarray | None:
        """Log norms of dL/dh_t for the sum of the last output in float64; None where that would take too long."""
        if self.case.length * self.case.batch > REFERENCE_STEPS:
            return None
        history = lstmx.record(self.cell, _double(self.params), self.xs.astype("float64"))
        return lstmx.gradient_flow(history, "last", outputs="norms").log_norm_hidden


def _double(params: Any) -> Any:
    return type(params)(*(x.astype("float64") for x in params))


def largest_difference(found: Any, expected: Any) -> float:
    """Largest absolute difference over sequences of arrays; NaN where there is one."""
    return float(np.max([np.abs(np.asarray(a) - b).max() for a, b in zip(found, expected, strict=True)]))


def largest_relative(found: Any, expected: Any) -> float:
    """As `largest_difference`, each array divided by the largest entry of the expected one."""
    scales = [max(float(np.abs(b).max()), 1e-30) for b in expected]
    pairs = zip(found, expected, scales, strict=True)
    return float(np.max([largest_difference([a], [b]) / scale for a, b, scale in pairs]))

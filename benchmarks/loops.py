"""Records as one writes them without this library: Python loops that keep i, f, g, o, c, h of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problem import Problem

STEPS = 1000
"""At most so many steps are timed."""


def torch_loop(problem: Problem) -> Callable[[], Any]:
    """A loop with the weights of an `nn.LSTMCell` that computes its gates by hand, and the state from them."""
    import torch

    w, u, b = (torch.tensor(x.T.copy()) for x in problem.params)
    module = torch.nn.LSTMCell(problem.case.features, problem.case.units)
    with torch.no_grad():
        module.weight_ih.copy_(w)
        module.weight_hh.copy_(u)
        module.bias_ih.copy_(b)
        module.bias_hh.zero_()
    inputs = torch.tensor(problem.xs[:STEPS])

    def loop() -> list[Any]:
        kept: list[tuple[Any, ...]] = []
        h = c = torch.zeros(problem.case.batch, problem.case.units)
        with torch.no_grad():
            for x in inputs:
                a = x @ module.weight_ih.T + module.bias_ih + h @ module.weight_hh.T + module.bias_hh
                i, f, g, o = a.chunk(4, dim=1)
                i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
                c = f * c + i * g
                h = o * torch.tanh(c)
                kept.append((i, f, g, o, c, h))
            return [torch.stack(rows) for rows in zip(*kept, strict=True)]

    return loop


def numpy_loop(problem: Problem) -> Callable[[], list[np.ndarray]]:
    """The textbook's equations, line by line."""
    w, u, b = problem.params
    inputs = problem.xs[:STEPS]

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    def loop() -> list[np.ndarray]:
        kept: list[tuple[np.ndarray, ...]] = []
        h = c = np.zeros((problem.case.batch, problem.case.units), "float32")
        for x in inputs:
            i, f, g, o = np.split(x @ w + h @ u + b, 4, axis=-1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c = f * c + i * g
            h = o * np.tanh(c)
            kept.append((i, f, g, o, c, h))
        return [np.stack(rows) for rows in zip(*kept, strict=True)]

    return loop

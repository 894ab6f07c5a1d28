"""No text of a figure is cut or lies on another, and nothing is drawn beyond the sheet, at the widths of a paper."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from reference import render
from test_plot import compared
from test_plot_contexts import points_of
from test_plot_gradients import flow_of

import lstmx
import lstmx.plot
from lstmx.gradients import GateShare, Influence, LayeredFlow, PathSpectrum

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")

COLUMN, PAGE = 3.3, 7.0
LONG = 100_000
SIZES = [(1, 1), (10, 1), (10, 8), (1, 1024), (LONG, 1)]  # steps and units
LSTM_WAYS = ("straight", "candidate", "forget_gate", "input_gate", "output_gate")


@functools.cache
def recorded(length, hidden, kind=lstmx.LSTM):
    """A pass of random gates, as a long one takes seconds to run."""
    cell = kind(3, hidden)
    shapes = cell.parameter_shapes()
    params = type(shapes)(*(np.zeros(shape, "float32") for shape in shapes))
    history = lstmx.record(cell, params, np.zeros((1, 3), "float32"))
    draws = np.random.default_rng(0)

    def drawn(x):
        return draws.random((length, *np.shape(x)[1:]), "float32")

    fields = {
        name: type(x)(*map(drawn, x)) for name, x in (("states", history.states), ("stored", history.stored))
    }
    return dataclasses.replace(history, inputs=drawn(history.inputs), **fields)


def flow(length, *_):
    draws = np.random.default_rng(1)
    norms = 0.01 * np.cumsum(draws.normal(1, 3, length))
    share = draws.dirichlet(np.ones(5), length).T
    return flow_of(
        norms,
        log_norm_hidden=norms - 1,
        log_norm_cell=norms - 2,
        log_highway=2 * norms,
        parameter_alignment=np.cos(norms),
        gates={name: GateShare(None, of) for name, of in zip(LSTM_WAYS, share, strict=True)},
    )


def layered(length, *_):
    names = [f"layer {k}" for k in range(5)]
    return LayeredFlow(tuple(names), tuple(flow(length) for _ in names), None)

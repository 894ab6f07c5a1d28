"""At the widths of a paper no text of a figure is cut or lies on another, and nothing is beyond the sheet."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_plot import compared, filmed, observed

import lstmx
import lstmx.plot
from lstmx.arrays import map_tree
from lstmx.dynamics import CovariantVectors, FixedPoints, LyapunovSpectrum
from lstmx.dynamics.points import Points
from lstmx.gradients import GateShare, GradientFlow, Influence, LayeredFlow, PathSpectrum
from lstmx.memory import MemoryReport, Notion

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")

COLUMN, PAGE = 3.3, 7.0  # inches
SMALL = (400, 8)  # steps and units
SIZES = [(1, 1), (10, 1), (100_000, 1), (1, 1024), (10, 1024)]
WAYS = ("straight", "candidate", "forget_gate", "input_gate", "output_gate")
NOTIONS = ("highway, geometric", "highway, slowest unit", "Lyapunov time", "gradient horizon", "linear memory")


# ------------------------------------------------------------ what is drawn, of any size without running a network


@functools.cache
def history(length, hidden, kind=lstmx.LSTM):
    cell = kind(3, hidden)
    shapes = cell.parameter_shapes()
    params = type(shapes)(*(np.zeros(shape, "float32") for shape in shapes))
    one = lstmx.record(cell, params, np.zeros((1, 3), "float32"))
    draws = np.random.default_rng(0)

    def drawn(x):
        return draws.random((length, *np.shape(x)[1:]), "float32")

    states, stored = map_tree(drawn, (one.states, one.stored))
    return dataclasses.replace(one, inputs=drawn(one.inputs), states=states, stored=stored)


@functools.cache
def flow(length):
    draws = np.random.default_rng(1)
    norms = 0.01 * np.cumsum(draws.normal(1, 3, length))
    shares = dict(zip(WAYS, draws.dirichlet(np.ones(5), length).T, strict=True))
    return GradientFlow(
        **dict.fromkeys((field.name for field in dataclasses.fields(GradientFlow)), None)
        | {
            "log_norm": norms,
            "log_direct": np.where(np.arange(length) == length - 1, 0.0, -np.inf),
            "log_norm_hidden": norms - draws.random(length),
            "log_norm_cell": norms - draws.random(length),
            "log_highway": 2 * norms,
            "log_parameter_profile": np.where(np.arange(length) == 0, -np.inf, norms),
            "parameter_alignment": np.cos(norms),
            "parameters": lstmx.SimpleRNNParams(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)),
            "gates": {name: GateShare(norms, share) for name, share in shares.items()},
        }
    )


def layered(length):
    flows = (flow(length),) * 6
    norms = np.stack([one.log_norm * (k + 1) for k, one in enumerate(flows)])
    names = tuple(f"layer {k}" for k in range(len(flows)))
    return LayeredFlow(names, flows, norms, flows[-1].log_direct, norms, None, None, None, forward=True)


def influence(length, outputs=1):
    at, steps = np.arange(max(length - outputs, 0), length), np.arange(length)
    lag = np.subtract.outer(at, steps)
    return Influence(np.where(lag < 0, -np.inf, -1e-4 * lag), at, steps, None)


def paths(length):
    logs = -np.arange(length, 0.0, -1)[:, None] / np.arange(2, 11)
    remainder = np.full(length, -2.0)
    return PathSpectrum(logs, remainder, np.logaddexp.reduce(logs, axis=1), None, None, None, None)


def spectrum(length, hidden):
    local = np.random.default_rng(2).normal(-1, 1, (min(length, 5000), 2 * hidden)) - np.arange(2 * hidden)
    none = {"sum_rule": None, "audit": None, "transient": 0, "interval": 1}
    return LyapunovSpectrum(
        local.mean(axis=0), local, np.ones(2 * hidden), size=2 * hidden, steps=len(local), window=1, **none
    )


@functools.cache
def covariant(length, hidden):
    draws, size = np.random.default_rng(6), 2 * hidden
    number, blocks = min(size, 8), min(length, 2000)
    vectors = draws.normal(size=(blocks, number, size))
    growth = draws.normal(-0.5, 0.1, (blocks, number)) - np.arange(number)
    growth[:, number // 2 :] = -np.inf
    return CovariantVectors(
        vectors / np.linalg.norm(vectors, axis=-1, keepdims=True),
        growth,
        np.arange(blocks) * (length // blocks) + length // blocks - 1,
        growth.mean(axis=0),
        np.isneginf(growth).mean(axis=0),
        np.zeros((2, number)),
        draws.dirichlet(np.ones(size), number),
        np.full(number, 2.0),
        None,
        size=size,
        every=length // blocks,
        transient=(0, 0),
        fields=(("hidden", hidden), ("cell", hidden)),
        output=(0, hidden),
    )


def points(hidden):
    draws = np.random.default_rng(3)

    def some(number, size=0.9):
        states = lstmx.LSTMState(*draws.normal(size=(2, number, hidden)))
        angles = draws.uniform(0, 2 * np.pi, (number, 2 * hidden))
        values = size * np.exp(1j * angles)
        return Points(states, np.zeros(number), values, np.full(number, 3), np.zeros(number, bool))

    return FixedPoints(some(4), some(3), some(1, 1.2), 10, 8, 300, 2, 0, 0, True, np.zeros(3))


def followed(number, hidden):
    """Branches with every kind of bifurcation."""
    draws, values = np.random.default_rng(5), np.linspace(-1e-3, 1234.5, 9)
    kinds = itertools.cycle(["fold", "branch point", "flip", "Neimark–Sacker point"])
    branches, found = [], []
    for k, kind in zip(range(number), kinds, strict=False):
        states = lstmx.LSTMState(*draws.normal(size=(2, 9, hidden)))
        eigenvalues = np.linspace(0.5, 1.5, 9)[:, None] * np.ones((9, 2 * hidden), complex)
        branches.append(lstmx.Branch(values, states, eigenvalues))
        one = lstmx.LSTMState(*(field[4] for field in states))
        found.append(lstmx.Bifurcation(kind, values[4], k, one, eigenvalues[4]))
    return lstmx.Continuation(tuple(branches), tuple(found), np.ones(number, bool))


def memory(length):
    values = (1.0, 12_345.6, np.inf, np.nan, 7.0)
    notions = tuple(
        Notion(name, value, "steps", "its definition") for name, value in zip(NOTIONS, values, strict=True)
    )
    curve = 0.9 ** np.arange(length)
    return MemoryReport(notions, length, curve, curve, flow(length), None, influence(length), 1)


def effect(length, hidden):
    cell = lstmx.LSTM(3, hidden)
    params = type(cell.parameter_shapes())(*(np.ones(s, "float32") for s in cell.parameter_shapes()))
    before = lstmx.record(cell, params, np.ones((length, 3), "float32"))
    edits = lstmx.edits.clamp(forget_gate=0.5, steps=slice(length // 2, None))
    edited = lstmx.intervene(cell, params, before.inputs, edits)
    return lstmx.effect(before, edited, lambda outputs: (outputs**2).mean(-1))


def attribution(length, hidden):
    cell = lstmx.LSTM(hidden, 4)
    whole = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((1, hidden), "float32"))
    found = lstmx.attribute(whole, np.ones(4, "float32"))
    inputs = np.random.default_rng(4).normal(size=(length, hidden)) / np.arange(length, 0, -1)[:, None]
    return dataclasses.replace(found, inputs=inputs, steps=inputs.sum(axis=1), history=history(length, 2))


def networks(length, hidden):
    return {kind.__name__: history(length, hidden, kind) for kind in (lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN)}


FIGURES = {  # of so many steps and units on a sheet; heights in inches at the widths of a column and of a page
    "dynamics": (lambda t, h, sheet: lstmx.plot.dynamics(history(t, h), figure=sheet), 11, 9),
    "gradient_flow": (lambda t, h, sheet: lstmx.plot.gradient_flow(flow(t), figure=sheet), 6, 6),
    "path_spectrum": (lambda t, h, sheet: lstmx.plot.path_spectrum(paths(t), figure=sheet), 5.5, 3.5),
    "influence": (lambda t, h, sheet: lstmx.plot.influence(influence(t), figure=sheet), 5.5, 3.5),
    "covariant": (
        lambda t, h, sheet: lstmx.plot.covariant(covariant(t, h), read=covariant(t, h).read(), figure=sheet),
        7,
        4.5,
    ),
    "attribution": (lambda t, h, sheet: lstmx.plot.attribution(attribution(t, h), figure=sheet), 4.5, 4.5),
    "depth": (lambda t, h, sheet: lstmx.plot.depth(layered(t), figure=sheet), 5, 5),
    "variants": (
        lambda t, h, sheet: lstmx.plot.variants(
            networks(t, h), dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), flow(t)), figure=sheet
        ),
        5,
        5,
    ),
    "effect": (lambda t, h, sheet: lstmx.plot.effect(effect(t, h), figure=sheet), 7, 6.5),
    "memory": (lambda t, h, sheet: lstmx.plot.memory(memory(t), figure=sheet), 5.5, 3.5),
    "comparison": (
        lambda t, h, sheet: lstmx.plot.comparison(compared(t, min(t + 1, 11), seeds=3), figure=sheet),
        6,
        4,
    ),
    "observatory": (
        lambda t, h, sheet: lstmx.plot.observatory(observed(lstmx.LSTM(3, 4), min(t, 60), 1000), figure=sheet),
        10,
        9,
    ),
    "animation": (
        lambda t, h, sheet: filmed(observed(lstmx.LSTM(3, 4), min(t, 5), 1000), figure=sheet),
        5.5,
        3.5,
    ),
    "saturation": (
        lambda t, h, ax: lstmx.plot.saturation(lstmx.gate_statistics(history(t, h)), ax=ax),
        3.3,
        5,
    ),
    "timescales": (
        lambda t, h, ax: lstmx.plot.timescales(lstmx.gate_statistics(history(t, h)), ax=ax),
        2.8,
        3.5,
    ),
    "reach": (
        lambda t, h, ax: lstmx.plot.reach(compared(t, min(t + 1, 11), seeds=2, looks=min(t, 9)), ax=ax),
        2.8,
        3.5,
    ),
    "gates_ledger": (lambda t, h, ax: lstmx.plot.gates_ledger(flow(t), ax=ax), 2.8, 3.5),
    "compare_flows": (
        lambda t, h, ax: lstmx.plot.compare_flows({"LSTM": flow(t), "a name of many words": flow(10)}, ax=ax),
        2.8,
        3.5,
    ),
    "spectrum": (lambda t, h, ax: lstmx.plot.spectrum(spectrum(t, h), ax=ax), 2.8, 3.5),
    "local_exponents": (lambda t, h, ax: lstmx.plot.local_exponents(spectrum(t, h), ax=ax), 2.8, 3.5),
    "eigenvalues": (lambda t, h, ax: lstmx.plot.eigenvalues(points(h), ax=ax), 3.3, 5),
    "phase_portrait": (lambda t, h, ax: lstmx.plot.phase_portrait(points(h), history(t, h), ax=ax), 3.3, 4),
    "bifurcation": (lambda t, h, ax: lstmx.plot.bifurcation(followed(min(t, 40), h), ax=ax), 2.8, 3.5),
}
ON_AXES = list(FIGURES)[list(FIGURES).index("saturation") :]


def sheet(width, height):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def drawn(name, width, length, hidden):
    draw, column, page = FIGURES[name]
    figure = sheet(width, column if width == COLUMN else page)
    draw(length, hidden, figure.add_subplot() if name in ON_AXES else figure)
    return figure


# --------------------------------------------------------------------------------------------- what is asked of it


def check(figure, monkeypatch):
    """Draw a figure and compare the extents of what was drawn, to a pixel."""
    texts = []
    draw = Text.draw
    with monkeypatch.context() as patch:  # of all ticks, those in view alone are drawn
        patch.setattr(Text, "draw", lambda text, renderer: texts.append(text) or draw(text, renderer))
        figure.draw_without_rendering()
    boxes = [(text.get_text().replace("\n", " "), text.get_window_extent()) for text in texts if text.get_text()]
    assert boxes
    inside = figure.bbox.padded(1)
    cut = [words for words, box in boxes if not _within(box, inside)]
    assert not cut
    assert not [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if _overlap(one, other)]

    free = {id(text) for ax in figure.axes for text in ax.texts}
    outer = [(text.get_text(), text.get_window_extent()) for text in texts if id(text) not in free]
    assert not [words for words, box in outer for ax in figure.axes if _overlap(box, ax.bbox)]  # over data
    loose = [x for x in figure.findobj() if not x.get_clip_on() and x.get_visible() and hasattr(x, "get_path")]
    assert not [x for x in loose if not _within(x.get_window_extent(), inside)]


def _within(box, other):
    return other.x0 <= box.x0 and box.x1 <= other.x1 and other.y0 <= box.y0 and box.y1 <= other.y1


def _overlap(box, other):
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return width > 1 and height > 1


def test_every_figure_is_here():
    assert sorted(FIGURES) == sorted(lstmx.plot.__all__)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_or_covered_in_a_column(name, monkeypatch):
    check(drawn(name, COLUMN, *SMALL), monkeypatch)


@pytest.mark.slow  # a second for each of a hundred and fifty figures
@pytest.mark.parametrize("size", [SMALL, *SIZES], ids=lambda size: f"{size[0]} steps, {size[1]} units")
@pytest.mark.parametrize("width", [COLUMN, PAGE])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_or_covered_at_any_size(name, width, size, monkeypatch):
    check(drawn(name, width, *size), monkeypatch)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["compare_flows", "phase_portrait"])
def test_panels_in_a_row_keep_to_themselves(name, monkeypatch):
    figure = sheet(PAGE, 3)
    for ax in figure.subplots(1, 3):
        FIGURES[name][0](*SMALL, ax)
    check(figure, monkeypatch)


@pytest.mark.parametrize("fault", ["a title that is cut", "a legend on another text", "a name on data"])
def test_the_check_sees_faults(fault, monkeypatch):
    figure = sheet(COLUMN, 3)
    left, right = figure.subplots(1, 2)
    check(figure, monkeypatch)
    if fault == "a title that is cut":
        right.set_title("of more words than have room in a panel of this width", loc="left")
    elif fault == "a legend on another text":
        left.set_title("some words", loc="left")
        left.text(0, 1.05, "others", transform=left.transAxes)
    else:
        left.set_title("a name that reaches to the other panel", loc="left", y=0.5)
    with pytest.raises(AssertionError):
        check(figure, monkeypatch)

"""Figures of spectra, fixed points and memory hold what they should; that they look right was seen by eye."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from reference import draw_pass, labels, render, to

import lstmx
import lstmx.plot

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")


@functools.cache
def recorded(kind, batch=(), length=400):
    return lstmx.record(*draw_pass(kind, length=length, batch=batch))


@functools.cache
def spectrum_of(kind, batch=(), **options):
    return lstmx.lyapunov_spectrum(recorded(kind, batch), "all", **options)


@functools.cache
def latch():
    """A single bistable unit, its three fixed points and a pass of it."""
    kernel, bias = np.zeros((1, 4)), np.zeros(4)
    bias[1], bias[3], kernel[0, 2] = 1.0, 2.0, 3.0
    cell, params = lstmx.LSTM(1, 1), lstmx.LSTMParams(np.ones((1, 4)), kernel, bias)
    draws = np.random.default_rng(0)
    candidates = lstmx.LSTMState(draws.uniform(-1, 1, (20, 1)), draws.normal(size=(20, 1)) * 2)
    return lstmx.fixed_points(cell, params, None, candidates), lstmx.record(
        cell, params, draws.normal(size=(50, 1))
    )


@functools.cache
def followed_latch():
    """A unit that comes to be bistable as its weight grows past 1, from where the branches of 0 and ±h meet."""
    cell, zero = lstmx.SimpleRNN(1, 1), np.zeros((1, 1))

    def gain(weight):
        return lstmx.SimpleRNNParams(zero, np.array([[weight]]), np.zeros(1))

    start = lstmx.SimpleRNNState(np.array([[0.0], [0.9575040240772688]]))
    return lstmx.continue_fixed_points(cell, gain, [2.0, -2.0], start)


# -------------------------------------------------------------------------------------------------- spectrum


@pytest.mark.sample(1)
def test_the_exponents_are_drawn_in_order_with_their_errors(kind, library):
    spectrum = to(library, spectrum_of(kind)) if library == "jax" else spectrum_of(kind)
    ax = lstmx.plot.spectrum(spectrum)
    render(ax.figure)
    line, _, bars = ax.containers[0]
    np.testing.assert_allclose(line.get_ydata(), np.asarray(spectrum.exponents))
    segments = np.array(bars[0].get_segments())
    np.testing.assert_allclose(np.ptp(segments[:, :, 1], axis=1), 2 * spectrum.standard_errors, atol=1e-12)
    assert "exponents" in ax.get_title(loc="left")


def test_exponents_of_minus_infinity_are_counted():
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([0.0, 1.0, 0.0, 0.0], 3))
    spectrum = lstmx.autonomous_spectrum(cell, params, steps=200, count="all")
    ax = lstmx.plot.spectrum(spectrum)
    render(ax.figure)
    assert labels(ax) == ["λ ± standard error (3 are −inf)"]


@pytest.mark.slow
def test_published_recipes_are_drawn_beside():
    spectrum = spectrum_of(lstmx.LSTM, (2,), audit=True)
    ax = lstmx.plot.spectrum(spectrum)
    render(ax.figure)
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(drawn["∂h/∂h at fixed c (not the spectrum)"], spectrum.audit.hidden_only)
    np.testing.assert_allclose(drawn["the same, transposed, base 2"], spectrum.audit.transposed_base2)
    np.testing.assert_allclose(drawn["Jacobians averaged over the batch"], spectrum.audit.batch_mean)
    assert labels(ax)[0] == "λ ± standard error"


@pytest.mark.sample(1)
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_local_exponents_end_with_the_pass_and_average_to_the_exponent(batch):
    spectrum = spectrum_of(lstmx.LSTM, batch)
    ax = lstmx.plot.local_exponents(spectrum, 2)
    render(ax.figure)
    assert labels(ax) == ["λ1", "λ2"]
    line, mean = ax.lines[:2]
    assert len(line.get_xdata()) <= 120
    assert line.get_xdata().max() <= 400
    np.testing.assert_allclose(mean.get_ydata(), spectrum.exponents[0])
    if spectrum.steps % spectrum.window == 0 and len(spectrum.local) % len(line.get_ydata()) == 0:
        np.testing.assert_allclose(line.get_ydata().mean(), spectrum.exponents[0])
    assert "stationary" in ax.get_title(loc="left")


# ---------------------------------------------------------------------------------------------- fixed points


def test_eigenvalues_of_all_fixed_points_are_drawn_by_unstable_modes():
    points, _ = latch()
    ax = lstmx.plot.eigenvalues(points)
    render(ax.figure)
    assert labels(ax) == ["2 points, stable", "1 point, 1 unstable mode"]
    drawn = np.concatenate([line.get_xdata() for line in ax.lines if line.get_label() in labels(ax)])
    np.testing.assert_allclose(np.sort(drawn), np.sort(points.eigenvalues.real.ravel()))
    assert "index sum 1" in ax.get_title(loc="left")


def test_the_phase_portrait_projects_points_on_the_states_components():
    points, history = latch()
    ax = lstmx.plot.phase_portrait(points, history)
    render(ax.figure)
    states = np.concatenate(history.states, axis=-1)
    drawn = np.stack(ax.lines[0].get_data(), axis=-1)
    assert drawn.shape == states.shape
    np.testing.assert_allclose(drawn.var(axis=0).sum(), states.var(axis=0).sum())  # two of two components
    stable = np.stack(ax.lines[1].get_data(), axis=-1)
    apart = np.linalg.norm(np.diff(np.concatenate(points.points, axis=-1)[points.stable], axis=0))
    np.testing.assert_allclose(np.linalg.norm(stable[0] - stable[1]), apart)
    assert labels(ax)[1:] == ["2 points, stable", "1 point, 1 unstable mode"]


# ----------------------------------------------------------------------------------------------------- memory


@pytest.mark.slow
def test_every_notion_has_its_mark(kind):
    report = lstmx.memory_report(recorded(kind), lags=50)
    figure = lstmx.plot.memory(report)
    render(figure)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [notion.name for notion in report.notions]
    drawn = [float(line.get_xdata()[0]) for line in left.lines if line.get_marker() == "o"]
    assert drawn == [notion.value for notion in report.notions if np.isfinite(notion.value)]
    curves = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(curves["error of truncation"], report.truncation_bias)


@pytest.mark.slow
def test_what_is_infinite_is_an_arrow_and_what_is_unknown_no_mark():
    report = lstmx.memory_report(recorded(lstmx.LSTM), lags=50)
    values = iter([np.inf, np.nan])
    changed = [notion._replace(value=next(values, notion.value)) for notion in report.notions]
    figure = lstmx.plot.memory(dataclasses.replace(report, notions=tuple(changed)))
    render(figure)
    marks = [line.get_marker() for line in figure.axes[0].lines]
    assert marks.count(">") == 1
    assert marks.count("o") == len(report.notions) - 2
    assert [text.get_text() for text in figure.axes[0].texts].count("unknown") == 1


# ----------------------------------------------------------------------------------------------- bifurcations


def test_branches_are_drawn_with_a_marker_for_each_bifurcation():
    found = followed_latch()
    ax = lstmx.plot.bifurcation(found)
    render(ax.figure)
    assert labels(ax) == ["unstable", "stable", "2 branch points", "1 flip"]
    assert ax.get_title("left") == "2 branches of fixed points"
    markers = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(markers["2 branch points"].get_xdata(), [1, 1], atol=1e-9)
    np.testing.assert_allclose(markers["1 flip"].get_xdata(), [-1])
    stable = np.concatenate(
        [line.get_xdata() for line in ax.lines if line.get_color() == lstmx.plot.canvas.COLOURS[0]]
    )
    assert -1 - 1e-9 <= stable.min() <= -1 + 1e-9
    assert ax.get_ylabel() == "state"
    with pytest.raises(ValueError, match="unit is 1; expected an integer of at least 0 and at most 0"):
        lstmx.plot.bifurcation(found, 1)


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lstmx.plot.spectrum, "expected a LyapunovSpectrum"),
        (lstmx.plot.local_exponents, "expected a LyapunovSpectrum"),
        (lstmx.plot.eigenvalues, "expected FixedPoints"),
        (lambda other: lstmx.plot.phase_portrait(other, recorded(lstmx.LSTM)), "expected FixedPoints"),
        (lambda other: lstmx.plot.phase_portrait(latch()[0], other), "expected a History"),
        (lstmx.plot.memory, "expected a MemoryReport"),
        (lstmx.plot.bifurcation, "expected a Continuation"),
    ],
)
def test_another_kind_of_argument_is_refused(draw, message):
    with pytest.raises(TypeError, match=f"is a str; {message}"):
        draw("this")


def test_other_sizes_and_counts_are_refused():
    with pytest.raises(ValueError, match="joint state has 8 numbers and that of the points 2"):
        lstmx.plot.phase_portrait(latch()[0], recorded(lstmx.LSTM))
    with pytest.raises(ValueError, match="count is 0; expected an integer of at least 1"):
        lstmx.plot.local_exponents(spectrum_of(lstmx.LSTM), 0)


def test_results_pass_through_jax_as_trees():
    doubled = jax.tree.map(lambda x: 2 * x, spectrum_of(lstmx.GRU))
    np.testing.assert_allclose(doubled.exponents, 2 * spectrum_of(lstmx.GRU).exponents)
    assert doubled.steps == spectrum_of(lstmx.GRU).steps

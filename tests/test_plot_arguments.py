"""What all figures take alike: a title, colours, units, tokens at steps, and all sequences of a batch at once."""

import inspect

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from reference import labels, render
from test_plot import cells_of, compared, filmed, observed, panel, recorded, ydata
from test_plot_contexts import points_of
from test_plot_dynamics import followed_latch, latch

import lstmx
import lstmx.plot

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")

SHORT = recorded(lstmx.LSTM, 20)
BATCH = recorded(lstmx.LSTM, 12, batch=(2, 3))
TOKENS = [f"word{k}" for k in range(20)]


def stacked():
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.LSTM(4, 4)])
    return lstmx.record(stack, stack.init(np.random.default_rng(0)), SHORT.inputs)


def edited():
    edits = lstmx.edits.clamp(forget_gate=0.5, steps=slice(5, 9))
    return lstmx.effect(SHORT, lstmx.intervene(SHORT.cell, SHORT.params, SHORT.inputs, edits))


DRAW = {
    "dynamics": lambda **asked: lstmx.plot.dynamics(SHORT, **asked),
    "effect": lambda **asked: lstmx.plot.effect(edited(), **asked),
    "variants": lambda **asked: lstmx.plot.variants({"a": SHORT}, **asked),
    "depth": lambda **asked: lstmx.plot.depth(lstmx.gradient_flow(stacked()), **asked),
    "gradient_flow": lambda **asked: lstmx.plot.gradient_flow(lstmx.gradient_flow(SHORT), **asked),
    "gates_ledger": lambda **asked: lstmx.plot.gates_ledger(lstmx.gradient_flow(SHORT), **asked),
    "compare_flows": lambda **asked: lstmx.plot.compare_flows({"a": lstmx.gradient_flow(SHORT)}, **asked),
    "path_spectrum": lambda **asked: lstmx.plot.path_spectrum(lstmx.path_spectrum(SHORT), **asked),
    "attribution": lambda **asked: lstmx.plot.attribution(lstmx.attribute(SHORT, np.ones(8, "float32")), **asked),
    "influence": lambda **asked: lstmx.plot.influence(lstmx.influence(SHORT), **asked),
    "saturation": lambda **asked: lstmx.plot.saturation(lstmx.gate_statistics(SHORT), **asked),
    "timescales": lambda **asked: lstmx.plot.timescales(lstmx.gate_statistics(SHORT), **asked),
    "spectrum": lambda **asked: lstmx.plot.spectrum(lstmx.lyapunov_spectrum(SHORT, 2), **asked),
    "local_exponents": lambda **asked: lstmx.plot.local_exponents(lstmx.lyapunov_spectrum(SHORT, 2), **asked),
    "covariant": lambda **asked: lstmx.plot.covariant(lstmx.covariant_vectors(SHORT, 2), **asked),
    "eigenvalues": lambda **asked: lstmx.plot.eigenvalues(latch()[0], **asked),
    "phase_portrait": lambda **asked: lstmx.plot.phase_portrait(*latch(), **asked),
    "bifurcation": lambda **asked: lstmx.plot.bifurcation(followed_latch(), **asked),
    "memory": lambda **asked: lstmx.plot.memory(lstmx.memory_report(SHORT, lags=5), **asked),
    "comparison": lambda **asked: lstmx.plot.comparison(compared(20), **asked),
    "reach": lambda **asked: lstmx.plot.reach(compared(20, looks=3), **asked),
    "animation": lambda **asked: filmed(observed(SHORT.cell, 3), **asked),
    "observatory": lambda **asked: lstmx.plot.observatory(observed(SHORT.cell, 3), **asked),
}


def takers(argument):
    return [n for n in DRAW if argument in inspect.signature(getattr(lstmx.plot, n)).parameters]


def title_of(drawn):
    return drawn.get_suptitle() if isinstance(drawn, Figure) else drawn.get_title("left")


def images(drawn):
    axes = drawn.axes if isinstance(drawn, Figure) else [drawn]
    return [image for ax in axes if ax.get_label() != "<colorbar>" for image in ax.images]


def test_every_figure_takes_a_sheet_and_a_title():
    assert sorted(DRAW) == sorted(lstmx.plot.__all__) == sorted(takers("title"))
    assert not set(takers("ax")) & set(takers("figure"))
    assert {*takers("ax"), *takers("figure")} == {*DRAW}
    for name in DRAW:
        parameters = inspect.signature(getattr(lstmx.plot, name)).parameters
        for argument in {"ax", "figure", "title", "cmap", "labels", "units"} & {*parameters}:
            assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[argument].default is None


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAW)
def test_a_title_is_replaced_left_out_or_refused(name):
    assert title_of(DRAW[name]())
    assert title_of(DRAW[name](title="mine")) == "mine"
    assert title_of(DRAW[name](title="")) == ""
    with pytest.raises(TypeError, match="title is a int; expected a str, or None"):
        DRAW[name](title=3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", takers("cmap"))
def test_a_colour_map_is_that_of_every_map(name):
    drawn = DRAW[name](cmap="cividis")
    assert {image.get_cmap().name for image in images(drawn)} <= {"cividis"}
    if name == "path_spectrum":
        assert np.allclose(drawn.axes[1].patches[0].get_facecolor(), (0.0, 0.135112, 0.304751, 1.0))
    with pytest.raises(ValueError, match=r"cmap is 'no such map'"):
        DRAW[name](cmap="no such map")


@pytest.mark.slow
@pytest.mark.parametrize("name", takers("labels"))
def test_tokens_stand_at_the_steps(name):
    drawn = DRAW[name](labels=TOKENS)
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    render(figure)
    shown = {text.get_text() for ax in figure.axes for text in ax.get_xticklabels()}
    assert len(shown & {*TOKENS}) > 4
    for wrong, error, message in (
        (TOKENS[:-1], ValueError, "labels has 19 texts; expected one for each of the 20 steps"),
        (list(range(20)), TypeError, "labels is a list; expected a sequence of one str for each step, or None"),
        (5, TypeError, "labels is a int; expected a sequence"),
    ):
        with pytest.raises(error, match=message):
            DRAW[name](labels=wrong)


def test_tokens_are_shown_in_one_line_as_they_are_written():
    ax = lstmx.plot.gates_ledger(
        lstmx.gradient_flow(SHORT), labels=["a\nb", "$x", "incomprehensibility", *TOKENS[3:]]
    )
    render(ax.figure)
    shown = [text.get_text() for text in ax.get_xticklabels()][:3]
    assert shown == ["a↵b", r"\$x", "incomprehen…"]


def test_a_text_is_a_sequence_of_characters():
    ax = lstmx.plot.gates_ledger(lstmx.gradient_flow(SHORT), labels="twenty letters of it")
    render(ax.figure)
    assert "".join(text.get_text() for text in ax.get_xticklabels()) == "twenty␣letters␣of␣it"


@pytest.mark.slow
def test_of_many_tokens_as_many_stand_there_as_have_room():
    flow = lstmx.gradient_flow(recorded(lstmx.LSTM, 400))
    ax = lstmx.plot.gates_ledger(flow, labels=[f"word{k}" for k in range(400)])
    render(ax.figure)
    shown = [text.get_text() for text in ax.get_xticklabels()]
    every = int(shown[1].removeprefix("word"))
    assert 4 < every < 40
    assert shown == [f"word{k}" for k in range(0, 400, every)]


# -------------------------------------------------------------------------------------------------- units


@pytest.mark.slow
def test_units_of_the_dashboard_are_those_asked_for():
    figure = lstmx.plot.dynamics(SHORT, units=[5, -1])
    render(figure)
    hidden = panel(figure, "hidden state, by unit")
    np.testing.assert_array_equal(ydata(hidden), SHORT.hidden_state[:, [5, 7]])
    assert labels(hidden) == ["5", "7"]
    gate = panel(figure, "forget gate")
    np.testing.assert_allclose(cells_of(gate, 20, 2), np.asarray(SHORT.forget_gate)[:, [5, 7]].T, atol=1e-6)
    assert [text.get_text() for text in gate.get_yticklabels()] == ["5", "7"]
    means = panel(figure, "gates: mean over units").lines[1].get_ydata()
    np.testing.assert_allclose(means, SHORT.forget_gate.mean(1), rtol=1e-5)  # of all units


@pytest.mark.slow
def test_units_of_variants_effects_and_statistics_are_those_asked_for():
    image = lstmx.plot.variants({"a": SHORT}, units=[3]).axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), np.asarray(SHORT.forget_gate)[:, [3]].T, atol=1e-6)
    effect = edited()
    change = lstmx.plot.effect(effect, units=[3, 1]).axes[0]
    np.testing.assert_allclose(cells_of(change, 20, 2), effect.outputs[:, [3, 1]].T)
    statistics = lstmx.gate_statistics(SHORT)
    line = lstmx.plot.saturation(statistics, units=[2, 6]).lines[1]
    first = next(iter(statistics.gates.values()))
    np.testing.assert_array_equal(line.get_xdata(), first.left[[2, 6]])
    scales = lstmx.plot.timescales(statistics, units=[2, 6]).lines[1].get_ydata()
    np.testing.assert_array_equal(scales, np.sort(statistics.timescale[[2, 6]]))


@pytest.mark.parametrize("name", takers("units"))
def test_wrong_units_are_refused(name):
    for units, error, message in (
        ([8], IndexError, r"units has 8; the .* has 8 units"),
        ([-9], IndexError, "units has -9"),
        ([0.5], TypeError, "units holds float64; expected integers"),
        ([], ValueError, r"units has shape \(0,\); expected a sequence of at least one index, or None"),
    ):
        with pytest.raises(error, match=message):
            DRAW[name](units=units)


def test_a_step_function_has_no_units():
    cell = lstmx.from_step(lambda params, h, x: params["decay"] * h + x.sum(), jax.numpy.zeros(2), 3)
    params, xs = {"decay": jax.numpy.array(0.5)}, jax.numpy.asarray(SHORT.inputs, "float64")
    history = lstmx.record(cell, params, xs)
    for draw in (lstmx.plot.dynamics, lambda history, units: lstmx.plot.variants({"a": history}, units=units)):
        with pytest.raises(ValueError, match=r"units is \[0\]; .* has no units: expected None"):
            draw(history, units=[0])


# ---------------------------------------------------------------------------------------- all sequences, or seeds


def quantiles(logs):
    """Median, 10th and 90th percentile over the last axis, as log₁₀."""
    return np.quantile(np.asarray(logs, "float64"), [0.5, 0.1, 0.9], axis=-1) / np.log(10)


def band(ax, k=0):
    """Lower and upper edge of a band over steps 0, 1, ...: two values for each."""
    vertices = ax.collections[k].get_paths()[0].vertices
    steps = np.arange(int(vertices[:, 0].max()) + 1)
    ends = [vertices[vertices[:, 0] == step, 1] for step in steps]
    return np.array([end.min() for end in ends]), np.array([end.max() for end in ends])


@pytest.mark.slow
def test_all_sequences_are_a_median_in_a_band():
    flow = lstmx.gradient_flow(BATCH)
    figure = lstmx.plot.gradient_flow(flow, "all")
    render(figure)
    middle, low, high = quantiles(flow.log_norm.reshape(12, 6))
    norms = figure.axes[0]
    np.testing.assert_allclose(norms.lines[0].get_ydata(), middle, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(band(norms), (low, high), rtol=1e-5, atol=1e-7)
    title = figure.get_suptitle()
    assert title.startswith("gradient over 12 steps, 6 sequences: median, 10 to 90 %\n")
    assert f"median half-life {np.median(flow.half_life):.4g} steps" in title


def test_several_seeds_of_a_name_are_a_median_in_a_band():
    lengths = (12, 12, 12, 7)
    flows = [lstmx.gradient_flow(recorded(lstmx.LSTM, length, hidden=3 + k)) for k, length in enumerate(lengths)]
    ax = lstmx.plot.compare_flows({"seeds": flows, "one": flows[0]})
    render(ax.figure)
    middle, low, high = quantiles(np.stack([flow.log_norm[::-1][:7] for flow in flows], axis=1))
    np.testing.assert_allclose(ax.lines[0].get_ydata()[:7], middle, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose([edge[:7] for edge in band(ax)], (low, high), rtol=1e-5, atol=1e-7)
    longer, *_ = quantiles(
        np.stack([flow.log_norm[::-1] for flow in flows[:3]], axis=1)
    )  # those that reach as far
    np.testing.assert_allclose(ax.lines[0].get_ydata()[7:], longer[7:], rtol=1e-5)
    median = np.median([flow.half_life for flow in flows])
    assert labels(ax)[0] == f"seeds, 4 curves: median half-life {median:.4g} steps"
    with pytest.raises(ValueError, match=r"flows\['none'\] is empty; expected a GradientFlow, or several"):
        lstmx.plot.compare_flows({"none": []})
    with pytest.raises(TypeError, match=r"flows\['a'\]\[1\] is a str; expected a GradientFlow"):
        lstmx.plot.compare_flows({"a": [flows[0], "flow"]})


def test_all_sequences_are_curves_of_a_comparison():
    flow = lstmx.gradient_flow(BATCH)
    ax = lstmx.plot.compare_flows({"a": flow}, "all")
    middle, *_ = quantiles(flow.log_norm.reshape(12, 6)[::-1])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), middle, rtol=1e-5, atol=1e-7)
    assert labels(ax)[0].startswith("a, 6 curves: median half-life")


def test_the_ledger_of_all_sequences_is_their_mean():
    """One of which has no gradient in its first half, and so no shares there."""
    outputs = np.ones((12, 2, 3, 8), "float32")
    outputs[:, 1, 2] = 0
    outputs[5, 1, 2] = 1
    flow = lstmx.gradient_flow(BATCH, outputs)
    ax = lstmx.plot.gates_ledger(flow, "all")
    assert ax.get_title("left") == "share of each way back, mean of 6 sequences"
    straight = np.asarray(flow.gates["straight"].share, "float64").reshape(12, 6)
    assert np.isnan(straight).any()
    expected = np.nanmean(np.maximum(straight, 0), axis=1)
    drawn = ax.patches[0].get_data()
    np.testing.assert_allclose(drawn.values - drawn.baseline, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_orders_of_all_sequences():
    paths = lstmx.path_spectrum(BATCH, max_order=3)
    figure = lstmx.plot.path_spectrum(paths, "all")
    render(figure)
    orders, shares = figure.axes
    middle, low, high = quantiles(paths.log_norms[0].reshape(4, 6))
    np.testing.assert_allclose(orders.lines[0].get_ydata(), middle, rtol=1e-5)
    bars = np.array([bar[:, 1] for bar in orders.collections[0].get_segments()])
    np.testing.assert_allclose(bars, np.stack([low, high], axis=1), rtol=1e-5)
    norms = np.exp(np.concat([paths.log_norms, paths.log_remainder[:, None]], axis=1).astype("float64"))
    means = (norms / norms.sum(axis=1, keepdims=True)).reshape(12, 5, 6).mean(axis=2)[::-1]
    drawn = shares.patches[1].get_data()
    np.testing.assert_allclose(drawn.values - drawn.baseline, means[: len(drawn.values), 1], atol=1e-6)
    median = np.median(paths.mean_order[0])
    title = f"orders of the gradient over 12 steps, 6 sequences: median of the mean orders at least {median:.4g}"
    assert figure.get_suptitle() == title
    matrix = lstmx.path_spectrum(BATCH, max_order=3, matrix=True)
    (ax,) = lstmx.plot.path_spectrum(matrix, "all").axes
    middle, *_ = quantiles(matrix.log_cell_norms.reshape(4, 6))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), middle, rtol=1e-5)


def test_the_depth_of_all_sequences_is_a_median():
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)])
    xs = np.random.default_rng(0).normal(size=(12, 6, 3)).astype("float32")
    flow = lstmx.gradient_flow(lstmx.record(stack, stack.init(np.random.default_rng(1)), xs))
    above, below, *_ = lstmx.plot.depth(flow, "all").axes
    middle, low, high = quantiles(flow.log_norm)
    np.testing.assert_allclose(below.lines[1].get_ydata(), middle[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(band(below, 1), (low[1], high[1]), rtol=1e-5, atol=1e-7)
    assert above.figure.get_suptitle() == "gradient through 2 layers over 12 steps, median of 6 sequences"


def test_what_has_one_sequence_has_no_all():
    flow, paths = lstmx.gradient_flow(SHORT), lstmx.path_spectrum(SHORT)
    draws = (
        (lstmx.plot.gradient_flow, flow),
        (lambda flow, which: lstmx.plot.compare_flows({"a": flow}, which), flow),
        (lstmx.plot.gates_ledger, flow),
        (lstmx.plot.path_spectrum, paths),
    )
    for draw, result in draws:
        with pytest.raises(ValueError, match=r"sequence is 'all'; the \S+ has no batch axes: expected 0"):
            draw(result, "all")


def test_exponents_of_a_batch_have_the_spread_of_its_sequences():
    spectrum = lstmx.lyapunov_spectrum(recorded(lstmx.LSTM, 60, batch=(5,)), 2)
    bars = lstmx.plot.spectrum(spectrum).collections[-1].get_segments()
    expected = np.quantile(spectrum.per_sequence, [0.1, 0.9], axis=0).T
    np.testing.assert_allclose([bar[:, 1] for bar in bars], expected)
    ax = lstmx.plot.local_exponents(spectrum, 1)
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.quantile(spectrum.local[..., 0], [0.1, 0.9], axis=1)
    assert {*np.round([*low, *high], 9)} <= {*np.round(edges, 9)}


# ---------------------------------------------------------------------------------------- what was hidden before


def test_slow_points_have_their_eigenvalues():
    points = points_of(recorded(lstmx.GRU, 40))
    points = lstmx.dynamics.FixedPoints(**{**vars(points), "slow": points.fixed})
    ax = lstmx.plot.eigenvalues(points)
    (line,) = [line for line in ax.lines if "slow point" in line.get_label()]
    np.testing.assert_allclose(line.get_xdata(), points.eigenvalues.real.ravel())


def test_high_first_values_do_not_squash_the_end():
    comparison = compared(error=True)
    comparison.validation_loss[..., 0] = 40.0
    comparison.validation_error[..., 0] = 60.0
    figure = lstmx.plot.comparison(comparison)
    render(figure)
    error = figure.axes[1]
    later = comparison.validation_error[..., 1:].max()
    assert later < error.get_ylim()[1] < 1.2 * later
    assert error.get_title("left").replace("\n", " ") == "validation error (up to 60 at first, above the axes)"
    assert figure.axes[0].get_yscale() == "log"  # which shows the end as well


def test_a_network_of_which_nothing_is_kept_has_a_figure_of_memory():
    cell = lstmx.LSTM(3, 4)
    params = type(cell.parameter_shapes())(*map(np.zeros, cell.parameter_shapes()))
    history = lstmx.record(cell, params, SHORT.inputs.astype("float64"))
    render(lstmx.plot.memory(lstmx.memory_report(history, lags=5)))  # a warning is an error here


def test_orders_are_those_of_the_farthest_step_that_one_reaches():
    logs = np.full((50, 3), -np.inf)
    logs[-10:] = np.linspace(-9, 0, 10)[:, None] - np.arange(3)
    total = np.linspace(-49, 0, 50)
    paths = lstmx.gradients.PathSpectrum(logs, total - 1, total, None, None, None, None)
    ax = lstmx.plot.path_spectrum(paths).axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), logs[40] / np.log(10))
    assert (
        ax.get_title("left").replace("\n", " ") == "norm of each order, from the end to step 40, with none before"
    )

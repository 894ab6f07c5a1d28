"""Figures of gradients are checked by what they hold; that they look right was seen by eye."""

import dataclasses

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from reference import CELLS, labels, lcg, lcg_params, render, to

import lstmx
import lstmx.plot
from lstmx.gradients import GateShare, GradientFlow, Influence, PathSpectrum


def recorded(kind, length=40, hidden=5, batch=()):
    """A pass in NumPy: results are carried over to JAX, which spares its compilation."""
    cell, params = lcg_params(kind, 3, hidden, 0.9)
    inputs = lcg((length, *batch, 3), 5)
    return lstmx.record(cell, *jax.tree.map(lambda x: x.astype("float32"), (params, inputs)))


def flow_of(log_norm, **fields):
    """A flow of nothing but norms, those of h and of the parameters' parts as the whole."""
    log_norm = np.asarray(log_norm, "float64")
    nothing = dict.fromkeys((field.name for field in dataclasses.fields(GradientFlow)), None)
    last = np.where(np.arange(len(log_norm)) == len(log_norm) - 1, 0.0, -np.inf)
    direct = np.broadcast_to(last.reshape(-1, *(1,) * (log_norm.ndim - 1)), log_norm.shape)
    given = {
        "log_norm": log_norm,
        "log_direct": direct,
        "log_norm_hidden": log_norm,
        "log_parameter_profile": log_norm,
    }
    given["parameters"] = lstmx.SimpleRNNParams(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))
    return GradientFlow(**nothing | given | fields)


def decades(logs, index=()):
    """One sequence of natural logs as log₁₀, with a gap for each exact zero."""
    logs = np.asarray(logs, "float64")[(..., *index)]
    return np.where(np.isneginf(logs), np.nan, logs) / np.log(10)


def steps_drawn(ax):
    return max(len(line.get_xdata()) for line in ax.lines)


pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")


# ---------------------------------------------------------------------------------------- gradient_flow


SHOWN = {
    lstmx.LSTM: {"log_norm": "joint state", "log_highway": "retention gates alone"},
    lstmx.GRU: {"log_norm": "joint state", "log_highway": "retention gates alone"},
    lstmx.SimpleRNN: {"log_norm": "joint state"},
}


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["all", "norms"])
def test_flow_panels_are_fields_of_the_flow(kind, library, outputs):
    flow = to(library, lstmx.gradient_flow(recorded(kind), outputs=outputs))
    figure = lstmx.plot.gradient_flow(flow)
    render(figure)  # a warning is an error here

    norms, *relative, profile = figure.axes[: 3 if kind is lstmx.LSTM else 2]
    alignment = figure.axes[len(relative) + 2 :]
    assert [line.get_label() for line in norms.lines] == list(SHOWN[kind].values())
    for line, name in zip(norms.lines, SHOWN[kind], strict=True):
        np.testing.assert_allclose(line.get_ydata(), decades(getattr(flow, name)))
    for ax in relative:
        for line, part in zip(ax.lines, (flow.log_norm_hidden, flow.log_norm_cell), strict=True):
            expected = decades(np.asarray(part) - np.asarray(flow.log_norm))
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5, atol=1e-6)
        assert labels(ax) == ["h", "c"]
    np.testing.assert_allclose(profile.lines[0].get_ydata(), decades(flow.log_parameter_profile))
    assert profile.get_title("left") == "part of each step in ∂L/∂U (1 exact zero)"  # that of the zero state
    assert norms.get_ylabel() == profile.get_ylabel() == "log₁₀ norm"
    assert [ax.get_xlabel() for ax in figure.axes][-1] == "step"
    assert len(alignment) == (outputs == "all")
    for ax in alignment:
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), flow.parameter_alignment)
        assert ax.get_ylabel() == "cosine"


def test_the_only_state_has_the_norm_of_the_joint_state():
    flow = lstmx.gradient_flow(recorded(lstmx.GRU))
    np.testing.assert_array_equal(flow.log_norm_hidden, flow.log_norm)


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (0.5, "vanishing\nhalf-life 1.386 steps, decay going back 0.5 ± "),
        (-0.5, "exploding\nhalf-life infinite, decay going back −0.5 ± "),
        (0.0, "steady\nhalf-life infinite, decay going back 0 ± 0 nats per step"),
    ],
)
def test_the_title_says_what_the_flow_does(slope, words):
    title = lstmx.plot.gradient_flow(flow_of(slope * np.arange(100))).get_suptitle()
    assert title.startswith(f"gradient over 100 steps: {words}")
    assert title.endswith(" nats per step")


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 7])
def test_short_flows_have_no_standard_error(kind, length):
    figure = lstmx.plot.gradient_flow(lstmx.gradient_flow(recorded(kind, length, hidden=1)))
    render(figure)
    assert figure.axes[0].lines[0].get_marker() == "."
    title = figure.get_suptitle()
    assert "±" not in title
    assert title.endswith("too few steps for a decay rate" if length == 1 else "nats per step")


@pytest.mark.slow
def test_exact_zeros_are_gaps_that_the_legend_counts(library):
    loss = np.zeros((40, 5), "float32")
    loss[:30] = 1
    flow = to(library, lstmx.gradient_flow(recorded(lstmx.LSTM), loss))
    figure = lstmx.plot.gradient_flow(flow)
    render(figure)

    ax = figure.axes[0]
    assert labels(ax) == [f"{label} (10 exact zeros)" for label in SHOWN[lstmx.LSTM].values()]
    for line, name in zip(ax.lines, SHOWN[lstmx.LSTM], strict=True):
        np.testing.assert_allclose(line.get_ydata(), decades(getattr(flow, name)))
    assert np.isfinite(ax.get_ylim()).all()
    assert labels(figure.axes[1]) == ["h (10 exact zeros)", "c (10 exact zeros)"]
    assert figure.axes[2].get_title("left").endswith("(11 exact zeros)")


def test_zeros_of_a_single_line_are_counted_in_the_title():
    ax = lstmx.plot.gradient_flow(flow_of([0.0, 1, -np.inf])).axes[0]
    assert ax.get_title("left") == "norm of the cotangent (1 exact zero)"


@pytest.mark.slow
def test_a_million_steps_are_drawn_as_a_thousand_blocks():
    log_norm = 0.01 * np.arange(1_000_000.0)
    log_norm[:100_000] = -np.inf
    shares = {"straight": np.full(10**6, 1.5), "input_gate": np.full(10**6, -0.5)}
    gates = {name: GateShare(log_norm, share) for name, share in shares.items()}
    flow = flow_of(log_norm, log_highway=2 * log_norm, parameter_alignment=np.cos(np.arange(10**6)), gates=gates)
    figure = lstmx.plot.gradient_flow(flow)
    render(figure)

    assert [steps_drawn(ax) for ax in figure.axes] == [1000, 1000, 1000]
    assert figure.axes[-1].get_xlabel() == "step (mean and range of 1,000)"
    joint = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(joint[:100]).all()
    np.testing.assert_allclose(joint[100:], decades(log_norm.reshape(1000, 1000)[100:].mean(1)))
    assert labels(figure.axes[0]) == [
        "joint state (100,000 exact zeros)",
        "retention gates alone (100,000 exact zeros)",
    ]

    ledger = lstmx.plot.gates_ledger(flow)
    render(ledger.figure)
    assert {len(patch.get_data().values) for patch in ledger.patches} == {1000}
    assert ledger.get_xlabel() == "step (means of 1,000)"

    compared = lstmx.plot.compare_flows({"long": flow, "short": flow_of(log_norm[-1500:])})
    render(compared.figure)
    assert [len(line.get_xdata()) for line in compared.lines] == [1000, 750]
    assert compared.get_xlabel() == "steps back from the last (mean and range of up to 1,000)"


# ----------------------------------------------------------------------------------------- gates_ledger


def stacks(ax):
    """What each band of a stack spans, by its label; the unlabelled negative ones by their colour's label."""
    names = {patch.get_facecolor(): patch.get_label() for patch in ax.patches if patch.get_label()}
    total = dict.fromkeys(names.values(), 0)
    for patch in ax.patches:
        data = patch.get_data()
        total[names[patch.get_facecolor()]] += data.values - data.baseline
    return total


@pytest.mark.sample(2)
def test_ledger_stacks_the_shares_of_all_ways(kind, library):
    flow = to(library, lstmx.gradient_flow(recorded(kind)))
    ax = lstmx.plot.gates_ledger(flow)
    render(ax.figure)

    drawn = stacks(ax)
    assert set(drawn) == {name.replace("_", " ") for name in flow.gates}
    for name, way in flow.gates.items():
        np.testing.assert_allclose(drawn[name.replace("_", " ")], way.share, atol=1e-6)
    np.testing.assert_allclose(sum(drawn.values()), 1, rtol=1e-5)
    assert labels(ax) == sorted(drawn, key=lambda name: (name != "straight", name))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "share of the cotangent")
    assert ax.get_title("left") == "share of each way back"


def test_negative_shares_are_stacked_downwards():
    shares = {"straight": [1.5, 0.2], "a": [-0.3, 0.3], "b": [-0.2, 0.5]}
    ax = lstmx.plot.gates_ledger(
        flow_of(np.zeros(2), gates={name: GateShare(None, np.array(share)) for name, share in shares.items()})
    )
    spans = [(patch.get_data().baseline, patch.get_data().values) for patch in ax.patches]
    np.testing.assert_allclose(spans[:3], [([0, 0], [1.5, 0.2]), ([1.5, 0.2], [1.5, 0.5]), ([1.5, 0.5], [1.5, 1])])
    np.testing.assert_allclose(spans[4:], [([0, 0], [-0.3, 0]), ([-0.3, 0], [-0.5, 0])])


def test_steps_without_gradient_are_counted_in_the_ledger():
    share = np.array([1, 1, np.nan])
    ax = lstmx.plot.gates_ledger(flow_of(np.zeros(3), gates={"straight": GateShare(None, share)}))
    render(ax.figure)
    np.testing.assert_array_equal(stacks(ax)["straight"], share)
    assert ax.get_title("left") == "share of each way back (1 of 3 steps without gradient)"


@pytest.mark.sample(2)
def test_the_smallest_ledger_is_drawn(kind):
    ax = lstmx.plot.gates_ledger(lstmx.gradient_flow(recorded(kind, length=1, hidden=1)))
    render(ax.figure)
    assert ax.patches[0].get_data().edges.tolist() == [-0.5, 0.5]


def test_a_ledger_needs_the_gates():
    flow = lstmx.gradient_flow(recorded(lstmx.LSTM), outputs="norms")
    with pytest.raises(ValueError, match=r'flow\.gates is None; expected a flow made with outputs="all"'):
        lstmx.plot.gates_ledger(flow)


# ---------------------------------------------------------------------------------------- compare_flows


@pytest.mark.sample(1)
def test_flows_of_any_length_are_compared_from_their_ends(library):
    flows = {
        kind.__name__: to(library, lstmx.gradient_flow(recorded(kind, length)))
        for kind, length in zip(CELLS, (40, 25, 1), strict=True)
    }
    ax = lstmx.plot.compare_flows(flows)
    render(ax.figure)
    for line, flow in zip(ax.lines, flows.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), decades(flow.log_norm)[::-1])
        np.testing.assert_array_equal(line.get_xdata(), np.arange(len(flow.log_norm)))
    assert labels(ax)[0] == f"LSTM: half-life {flows['LSTM'].half_life:.4g} steps"
    assert labels(ax)[2] == "SimpleRNN: half-life unknown"
    assert ax.get_xlim() == (-0.5, 39.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("steps back from the last", "log₁₀ norm")


def test_half_lives_and_zeros_are_in_the_legend_of_a_comparison():
    rising, falling = -0.5 * np.arange(20), 1e-4 * np.arange(20)
    falling[0] = -np.inf
    ax = lstmx.plot.compare_flows({"up": flow_of(rising), "down": flow_of(falling)})
    assert labels(ax) == ["up: half-life infinite", "down: half-life 6,931 steps (1 exact zero)"]
    assert np.isnan(ax.lines[1].get_ydata()[-1])


@pytest.mark.parametrize(
    ("flows", "error", "message"),
    [
        ([], TypeError, "flows is a list; expected a mapping from names to GradientFlow"),
        ({}, ValueError, "flows is empty; expected at least one GradientFlow"),
        ({"LSTM": 3}, TypeError, r"flows\['LSTM'\] is a int; expected a GradientFlow, as from"),
        ({"a": flow_of(np.zeros((4, 2)))}, IndexError, r"sequence index \(2,\) is outside the batch axes \(2,\)"),
        ({"a": flow_of([0.0])}, ValueError, r"sequence is 2; the flows\['a'\] has batch axes \(\): expected 0"),
    ],
)
def test_only_flows_by_name_are_compared(flows, error, message):
    with pytest.raises(error, match=message):
        lstmx.plot.compare_flows(flows, 2)


# ---------------------------------------------------------------------------------------- path_spectrum


@pytest.mark.sample(1)
@pytest.mark.parametrize("max_order", [0, 3, 8])
def test_orders_at_the_first_step_and_their_shares_are_drawn(library, max_order):
    paths = to(library, lstmx.path_spectrum(recorded(lstmx.LSTM, 12), max_order))
    figure = lstmx.plot.path_spectrum(paths)
    render(figure)

    left, right = figure.axes
    orders, above, whole = left.lines
    np.testing.assert_allclose(orders.get_ydata(), decades(paths.log_norms[0]))
    assert above.get_xdata().tolist() == [max_order + 1]
    np.testing.assert_allclose(above.get_ydata(), decades(paths.log_remainder)[:1])
    np.testing.assert_allclose(whole.get_ydata(), decades(paths.log_total)[0])
    assert labels(left) == ["order k", f"all above {max_order}", "all orders together"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("order (crossings of h)", "log₁₀ norm")

    logs = np.concat([paths.log_norms, np.asarray(paths.log_remainder)[:, None]], axis=1)[::-1]
    norms = np.exp(logs.astype("float64"))
    shares = norms / norms.sum(1, keepdims=True)
    steps = len(right.patches[0].get_data().values)
    assert (shares[steps:, -1] > 0.99).all()
    np.testing.assert_allclose(list(stacks(right).values()), shares[:steps].T, atol=1e-6)
    assert labels(right) == [*(str(k) for k in range(max_order + 1)), f"above {max_order}"]
    assert right.get_xlabel() == "steps back from the last"
    mean = float(paths.mean_order[0])
    assert figure.get_suptitle() == f"orders of the gradient over 12 steps: mean order at least {mean:.4g}"


@pytest.mark.sample(1)
def test_matrix_orders_have_one_panel(library):
    paths = to(library, lstmx.path_spectrum(recorded(lstmx.LSTM, 12), 4, matrix=True))
    figure = lstmx.plot.path_spectrum(paths)
    render(figure)
    (ax,) = figure.axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), decades(paths.log_matrix_norms))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), decades(paths.log_cell_norms))
    np.testing.assert_allclose(ax.lines[2].get_ydata(), [decades(paths.log_remainder)])
    assert labels(ax)[:2] == ["order k", "order k, from c to c"]
    assert figure.get_suptitle() == f"orders of the Jacobian product: mean order at least {paths.mean_order:.4g}"


@pytest.mark.sample(1)
@pytest.mark.parametrize("matrix", [False, True])
def test_orders_without_paths_are_counted(matrix):
    paths = lstmx.path_spectrum(recorded(lstmx.LSTM, 1, hidden=1), 4, matrix=matrix)
    figure = lstmx.plot.path_spectrum(paths)
    render(figure)
    assert "order k (3 exact zeros)" in labels(figure.axes[0]) or not matrix
    assert "all above 4 (1 exact zero)" in labels(figure.axes[0])
    assert "at least" not in figure.get_suptitle()


@pytest.mark.slow
def test_shares_are_drawn_as_far_as_there_is_something_to_see():
    back = np.arange(1_000_000.0)[::-1]
    logs = np.stack([-0.01 * back, -0.005 * back], axis=1)

    def spectrum(remainder):
        return PathSpectrum(logs, remainder, np.logaddexp(logs[:, 1], remainder), None, None, None, None)

    ax = lstmx.plot.path_spectrum(spectrum(np.full(10**6, -5.0))).axes[1]
    assert 1000 < ax.get_xlim()[1] < 3000
    assert steps_drawn(ax) <= 1000
    assert ax.get_title("left") == "share of each order (beyond, those above 1 have over 99%)"
    figure = lstmx.plot.path_spectrum(spectrum(-0.005 * back))
    render(figure)
    ax = figure.axes[1]
    assert len(ax.patches[0].get_data().values) == 1000
    assert ax.get_xlabel() == "steps back from the last (means of 1,000)"
    assert ax.get_title("left") == "share of each order"


def test_of_many_orders_some_are_named():
    paths = lstmx.path_spectrum(recorded(lstmx.LSTM, 12), 40)
    assert labels(lstmx.plot.path_spectrum(paths).axes[1]) == [*map(str, range(0, 41, 5)), "above 40"]


# -------------------------------------------------------------------------------------------- influence


def image(ax, rows, columns):
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    return shown[:: shown.shape[0] // rows, :: shown.shape[1] // columns]


def ticks(axis):
    """The labels within the limits of an axis."""
    low, high = axis.get_view_interval()
    return [
        text.get_text()
        for at, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if low <= at <= high
    ]


def sloped(outputs, inputs, slope=-0.1):
    """Influence whose log norms are `slope` times the lag."""
    lag = np.subtract.outer(outputs, inputs)
    return Influence(np.where(lag < 0, -np.inf, slope * lag), np.array(outputs), np.array(inputs), None)


@pytest.mark.sample(1)
@pytest.mark.parametrize("probes", [None, 4])
def test_influence_is_a_map_of_logs_and_a_profile(kind, library, probes):
    result = to(library, lstmx.influence(recorded(kind, 20), probes=probes))
    figure = lstmx.plot.influence(result)
    render(figure)

    pairs, profile = figure.axes[:2]
    np.testing.assert_allclose(image(pairs, 20, 20), decades(result.log_norms), rtol=1e-6)
    assert pairs.images[0].colorbar.ax.get_ylabel() == "log₁₀ of Frobenius norm"
    assert (pairs.get_xlabel(), pairs.get_ylabel()) == ("input step", "output step")
    line, mean, reach = profile.lines
    np.testing.assert_allclose(line.get_ydata(), np.log10(result.lag_profile), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean.get_xdata(), result.mean_lag, rtol=1e-5)
    assert set(reach.get_xdata()) == {int(result.quantile(0.95))}
    assert labels(profile) == [f"mean lag {result.mean_lag:.4g}", f"95 % within {result.quantile(0.95)}"]
    assert (profile.get_xlabel(), profile.get_ylabel()) == ("lag in steps", "log₁₀ of mean Frobenius norm")
    kind = "exact" if probes is None else "by probes"
    assert figure.get_suptitle() == f"influence of earlier steps on outputs ({kind})"


def test_later_inputs_are_blank_and_colours_span_the_rest():
    pairs = lstmx.plot.influence(sloped(range(30), range(30))).axes[0]
    assert np.isnan(image(pairs, 30, 30)[np.triu_indices(30, 1)]).all()
    np.testing.assert_allclose(pairs.images[0].get_clim(), (-2.9 / np.log(10), 0))
    assert pairs.images[0].get_cmap().name == "viridis"


@pytest.mark.sample(1)
@pytest.mark.parametrize("slope", [-50, 50])
def test_norms_beyond_the_float_range_are_drawn(slope):
    figure = lstmx.plot.influence(sloped(range(40), range(40), slope))
    render(figure)
    shown = figure.axes[1].lines[0].get_ydata()
    assert len(shown) == (1 if slope < 0 else 40)  # one step changes the norm by more than twelve decades
    seen = np.isfinite(shown)
    np.testing.assert_allclose(shown[seen], slope * np.arange(len(shown))[seen] / np.log(10), atol=1e-9)
    assert labels(figure.axes[1])[1] == f"95 % within {0 if slope < 0 else 39}"


@pytest.mark.sample(1)
def test_influence_on_one_output_is_a_line(library):
    result = to(library, lstmx.influence(recorded(lstmx.GRU, 20), outputs=19, inputs=range(5, 20)))
    figure = lstmx.plot.influence(result)
    render(figure)
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), decades(result.log_norms)[0])
    assert ax.get_title("left") == "influence on the output of step 19"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input step", "log₁₀ of Frobenius norm")
    assert set(ticks(ax.xaxis)) <= {str(step) for step in range(5, 20)}


def test_ticks_are_the_steps_of_the_result():
    result = lstmx.influence(recorded(lstmx.LSTM, 40), outputs=[39, 10], inputs=[0, 20, 30])
    figure = lstmx.plot.influence(result)
    render(figure)
    assert ticks(figure.axes[0].xaxis) == ["0", "20", "30"]
    assert ticks(figure.axes[0].yaxis) == ["39", "10"]


def test_large_maps_are_thinned_out_and_say_so():
    pairs = lstmx.plot.influence(sloped(range(1500, 1503), range(1200))).axes[0]
    assert pairs.images[0].get_array().shape == (999, 600)
    assert (pairs.get_xlabel(), pairs.get_ylabel()) == ("input step (means of 2)", "output step")


def test_a_long_line_of_influence_is_thinned_out_and_says_so():
    figure = lstmx.plot.influence(sloped([4999], range(5000), -0.001))
    render(figure)
    assert [steps_drawn(ax) for ax in figure.axes] == [1000, 1000]
    assert figure.axes[0].get_xlabel() == "input step (mean and range of 5)"
    assert figure.axes[1].get_xlabel() == "lag in steps (mean and range of 5)"


def test_what_is_twelve_decades_below_the_greatest_is_left_out():
    figure = lstmx.plot.influence(sloped([1999], range(2000)))
    line, profile = (ax.lines[0].get_ydata() for ax in figure.axes)
    assert len(line) == len(profile) == 1 + int(120 * np.log(10))
    np.testing.assert_allclose(profile[[0, -1]], [0, -27.6 / np.log(10)])
    assert figure.axes[1].get_title("left") == "lag profile (beyond, less than 10⁻¹² of the greatest)"


def test_short_influence_on_many_outputs_is_a_map_over_the_lag():
    figure = lstmx.plot.influence(sloped(range(300), range(300), -1))
    reach = 1 + int(12 * np.log(10))
    pairs = figure.axes[0]
    expected = np.where(np.subtract.outer(np.arange(300), np.arange(reach)) < 0, np.nan, -np.arange(reach))
    np.testing.assert_allclose(image(pairs, 300, reach), expected / np.log(10))
    assert (pairs.get_xlabel(), pairs.get_ylabel()) == ("lag in steps", "output step")
    assert pairs.get_title("left") == "influence on each output, by lag"


@pytest.mark.sample(1)
@pytest.mark.parametrize("steps", [[0], [0, 1]])
def test_influence_of_nothing_is_drawn_without_marks(steps):
    nothing = Influence(np.full((len(steps), 2), -np.inf), np.array(steps), np.array([2, 3]), None)
    figure = lstmx.plot.influence(nothing)
    render(figure)
    assert len(figure.axes[1].lines) == 1


@pytest.mark.sample(1)
def test_the_smallest_influence_is_drawn(kind):
    render(lstmx.plot.influence(lstmx.influence(recorded(kind, 1, hidden=1))))


# ----------------------------------------------------------------------------------------------- sheets


MAKE = {
    "gradient_flow": lstmx.gradient_flow,
    "gates_ledger": lstmx.gradient_flow,
    "path_spectrum": lstmx.path_spectrum,
    "influence": lstmx.influence,
}
FIGURES = ["gradient_flow", "path_spectrum", "influence"]


def drawn(name, result, *sequence, **sheet):
    return getattr(lstmx.plot, name)(result, *sequence, **sheet)


def content(sheet):
    """All lines, images and bands of a figure or axes."""
    axes = sheet.axes if isinstance(sheet, Figure) else [sheet]
    found = [np.asarray(line.get_ydata(), float) for ax in axes for line in ax.lines]
    found += [np.ma.filled(shown.get_array(), np.nan) for ax in axes for shown in ax.images]
    return found + [patch.get_data().values for ax in axes for patch in ax.patches]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    ("batch", "sequence"), [((3,), 2), ((3,), -1), ((3,), (1,)), ((2, 3), (1, 2)), ((2, 3), (-1, 0))]
)
def test_a_sequence_of_a_batch_is_picked(name, batch, sequence, library):
    history = recorded(lstmx.LSTM, 12, batch=batch)
    index = sequence if isinstance(sequence, tuple) else (sequence,)
    result = to(library, MAKE[name](history))
    if name == "gradient_flow":  # its parameter gradients, and alignment with them, are of the whole batch
        result = dataclasses.replace(result, parameter_alignment=None)
    found = content(drawn(name, result, sequence))
    alone = MAKE[name](history.sequence(*index))
    if name == "gradient_flow":
        alone = dataclasses.replace(alone, parameter_alignment=None)
    for shown, expected in zip(found, content(drawn(name, alone)), strict=True):
        np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-4)


def test_a_sequence_of_matrix_orders_is_picked():
    paths = lstmx.path_spectrum(recorded(lstmx.LSTM, 6, batch=(2,)), 3, matrix=True)
    figure = lstmx.plot.path_spectrum(paths, 1)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), decades(paths.log_matrix_norms[:, 1]))
    assert figure.get_suptitle().startswith("orders of the Jacobian product, sequence 1: mean order")


@pytest.mark.parametrize(
    ("name", "called"),
    [("gradient_flow", "flow"), ("gates_ledger", "flow"), ("path_spectrum", "paths"), ("influence", "influence")],
)
def test_wrong_results_and_sequences_are_refused(name, called):
    result = MAKE[name](recorded(lstmx.LSTM, 4, batch=(3,)))
    for sequence, error, message in (
        (
            (0, 0),
            ValueError,
            rf"sequence is \(0, 0\); the {called} has batch axes \(3,\): expected one integer for",
        ),
        (3, IndexError, r"sequence index \(3,\) is outside the batch axes \(3,\)"),
        (0.5, TypeError, "sequence index 0.5 is not an integer"),
        (True, TypeError, "sequence index True is not an integer"),
    ):
        with pytest.raises(error, match=message):
            drawn(name, result, sequence)
    with pytest.raises(TypeError, match=rf"{called} is a list; expected an? \w+, as from lstmx\.\w+\(history\)"):
        drawn(name, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_on_the_callers_figure_or_subfigure(name):
    result = MAKE[name](recorded(lstmx.LSTM, 12))
    left, right = Figure().subfigures(1, 2)
    assert drawn(name, result, figure=left) is left
    assert left.axes
    assert not right.axes
    with pytest.raises(ValueError, match=r"figure already holds \d axes; expected an empty Figure or SubFigure"):
        drawn(name, result, figure=left)
    assert drawn(name, result)._repr_png_().startswith(b"\x89PNG")


def test_axes_are_those_of_the_caller():
    flow = lstmx.gradient_flow(recorded(lstmx.LSTM, 12))
    for draw, result in ((lstmx.plot.gates_ledger, flow), (lstmx.plot.compare_flows, {"LSTM": flow})):
        ax = Figure().add_subplot()
        assert draw(result, ax=ax) is ax
        assert ax.lines
        with pytest.raises(TypeError, match="ax is a Figure; expected matplotlib Axes or None"):
            draw(result, ax=ax.figure)
        assert draw(result)._repr_png_().startswith(b"\x89PNG")


def test_without_recurrent_weights_the_profile_is_of_the_input_kernel():
    cell = lstmx.MinGRU(2, 3)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((9, 2), "float32"))
    figure = lstmx.plot.gradient_flow(lstmx.gradient_flow(history))
    assert figure.axes[1].get_title("left") == "part of each step in ∂L/∂W"

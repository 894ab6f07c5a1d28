"""Every figure in every context of a pass: it draws what the history holds, or says what to do instead."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from reference import labels, render

import lstmx
import lstmx.plot
from lstmx.arrays import map_tree
from lstmx.edits import clamp
from lstmx.plot import canvas

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")

LENGTH, FEATURES, SEQUENCE = 24, 3, 1
COUNTS = np.ones((LENGTH, 2), bool)
COUNTS[[0, 1, 9, 10, 11, 14], SEQUENCE] = COUNTS[-5:, 0] = False  # padding in front, two holes, padding behind
AT = np.flatnonzero(COUNTS[:, SEQUENCE])


def fading(params, state, x):
    """A matrix that a gate lets fade, a vector and a number; shows two gates and something else."""
    forget, enter = jax.nn.sigmoid(params["f"] @ x), jax.nn.sigmoid(params["i"] @ x)
    key = params["k"] @ x
    matrix = forget[:, None] * state["C"] + jnp.outer(enter * state["h"], key)
    after = {"C": matrix, "h": jnp.tanh(matrix @ key + x), "n": 0.9 * state["n"] + 0.1 * key.sum()}
    return after, {"forget": forget, "enter": enter, "key": key}


def ten_lines(params, h, x):
    return jnp.tanh(params["W"] @ x + params["U"] @ h)


@functools.cache
def recorded(context):
    draws = np.random.default_rng(3)
    xs = draws.normal(size=(LENGTH, 2, FEATURES))
    masked = np.where(COUNTS[..., None], xs, np.nan)
    if context == "step function, masked":
        start = {"C": jnp.zeros((3, 3)), "h": jnp.ones(3) / 2, "n": jnp.zeros(())}
        cell = lstmx.from_step(fading, start, FEATURES, output="h", gates=["forget", "enter"])
        params = {name: jnp.asarray(draws.normal(size=(3, 3))) for name in "fik"}
        return lstmx.record(cell, params, jnp.asarray(masked), mask=jnp.asarray(COUNTS))
    if context == "step function":
        cell = lstmx.from_step(ten_lines, jnp.zeros(4), FEATURES, name="ten lines")
        params = {"W": jnp.asarray(draws.normal(size=(4, 3))), "U": jnp.asarray(draws.normal(size=(4, 4)) / 3)}
        return lstmx.record(cell, params, jnp.asarray(xs[:, 0]), keep="states")
    lstm = lstmx.LSTM(FEATURES, 4)
    cell, said = {
        "masked": (lstm, {"mask": COUNTS}),
        "Zoneout": (lstmx.Zoneout(lstm, 0.3, 0.2), {"key": 5}),
        "stack, masked": (lstmx.Stack([lstm, lstmx.LSTM(4, 3), lstmx.LSTM(3, 2)]), {"mask": COUNTS}),
        "both directions": (lstmx.Stack([lstm, lstmx.Bidirectional(lstmx.GRU(4, 2))]), {"mask": COUNTS}),
    }[context]
    params = jax.tree.map(lambda x: draws.normal(0, 0.7, x.shape), cell.init(draws, "float64"))
    return lstmx.record(cell, params, masked if "mask" in said else xs, **said)


STEP = ("step function", "step function, masked")
LAYERS = ("stack, masked", "both directions")
CONTEXTS = (*STEP, "masked", "Zoneout", *LAYERS)


def flow(history):
    return lstmx.gradient_flow(history)


def points_of(history):
    """Fixed points without input, from some states of the first sequence."""
    pick = (slice(None, None, 8), *(0 for _ in history.batch))
    candidates = map_tree(lambda x: x[pick], history.states)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam adds a Python float to an integer count
        return lstmx.fixed_points(history.cell, history.params, None, candidates)


def followed(history):
    """Those points along an input that grows."""
    points, xp = points_of(history), history.outputs.__array_namespace__()
    ones = xp.ones(history.cell.input_size, dtype=history.outputs.dtype)
    return lstmx.continue_fixed_points(
        history.cell, history.params, [0, 0.02], points, lambda value: value * ones, steps=8
    )


def effect_of(history):
    said = {"key": 5} if isinstance(history.cell, lstmx.Zoneout) else {"mask": COUNTS}
    xs = np.asarray(history.inputs)
    edits = clamp(forget_gate=1.0, steps=slice(5, 13))
    edits = {"layer 0": edits} if isinstance(history.cell, lstmx.Stack) else edits
    edited = lstmx.intervene(history.cell, history.params, xs, edits, **said)
    return lstmx.effect(history, edited, lambda outputs: (outputs**2).mean(-1))


def where(history):
    return (SEQUENCE,) if history.batch else (0,)


def attribution_of(history):
    xp = history.outputs.__array_namespace__()
    weights = xp.ones(history.outputs.shape[-1], dtype=history.outputs.dtype)
    return lstmx.attribute(history, weights, nodes=2)


DRAW = {
    "dynamics": lambda h: lstmx.plot.dynamics(h, *where(h)),
    "saturation": lambda h: lstmx.plot.saturation(lstmx.gate_statistics(h)),
    "timescales": lambda h: lstmx.plot.timescales(lstmx.gate_statistics(h)),
    "comparison": lstmx.plot.comparison,
    "observatory": lstmx.plot.observatory,
    "animation": lambda h: lstmx.plot.animation(h, "film.gif"),
    "reach": lstmx.plot.reach,
    "gradient_flow": lambda h: lstmx.plot.gradient_flow(flow(h), *where(h)),
    "gates_ledger": lambda h: lstmx.plot.gates_ledger(flow(h), *where(h)),
    "compare_flows": lambda h: lstmx.plot.compare_flows({"this": flow(h)}, *where(h)),
    "path_spectrum": lambda h: lstmx.plot.path_spectrum(lstmx.path_spectrum(h, 3), *where(h)),
    "influence": lambda h: lstmx.plot.influence(lstmx.influence(h), *where(h)),
    "attribution": lambda h: lstmx.plot.attribution(attribution_of(h), *where(h)),
    "spectrum": lambda h: lstmx.plot.spectrum(lstmx.lyapunov_spectrum(h)),
    "local_exponents": lambda h: lstmx.plot.local_exponents(lstmx.lyapunov_spectrum(h)),
    "covariant": lambda h: lstmx.plot.covariant(lstmx.covariant_vectors(h), *where(h)),
    "eigenvalues": lambda h: lstmx.plot.eigenvalues(points_of(h)),
    "phase_portrait": lambda h: lstmx.plot.phase_portrait(points_of(h), h),
    "bifurcation": lambda h: lstmx.plot.bifurcation(followed(h)),
    "memory": lambda h: lstmx.plot.memory(lstmx.memory_report(h, lags=10)),
    "depth": lambda h: lstmx.plot.depth(flow(h), *where(h)),
    "variants": lambda h: lstmx.plot.variants({"this": h}, None, *where(h)),
    "effect": lambda h: lstmx.plot.effect(effect_of(h), *where(h)),
}

ONE_LAYER = r"is a LayeredFlow; expected the GradientFlow of one layer, such as \S+\['layer 0'\]"
BOTH_WAYS = r'reads time in both directions.*history\.parts\["forward"\]'
REFUSED = {
    "comparison": (CONTEXTS, "expected a Comparison, as from lstmx.compare"),
    "reach": (CONTEXTS, "expected a Comparison, as from lstmx.compare"),
    "animation": (CONTEXTS, "expected an lstmx.Observatory"),
    "observatory": (CONTEXTS, "expected an lstmx.Observatory"),
    "gradient_flow": (LAYERS, ONE_LAYER),
    "gates_ledger": (LAYERS, ONE_LAYER),
    "compare_flows": (LAYERS, ONE_LAYER),
    "depth": (CONTEXTS[:4], r"expected a LayeredFlow.*lstmx\.plot\.gradient_flow draws that of one cell"),
    "variants": (LAYERS, r"histories\['this'\] is a StackHistory.*history\.parts\[\.\.\.\] has 'layer 0'"),
    "influence": (LAYERS[1:], BOTH_WAYS),
    "spectrum": (LAYERS[1:], BOTH_WAYS),
    "local_exponents": (LAYERS[1:], BOTH_WAYS),
    "covariant": (LAYERS[1:], BOTH_WAYS),
    "eigenvalues": (LAYERS[1:], BOTH_WAYS),
    "phase_portrait": (LAYERS[1:], BOTH_WAYS),
    "bifurcation": (LAYERS[1:], BOTH_WAYS),
    "memory": (LAYERS[1:], BOTH_WAYS),
}
ALSO_REFUSED = {
    ("saturation", "step function"): "has no gates; gate statistics need a gated cell",
    ("timescales", "step function"): "has no gates; gate statistics need a gated cell",
    (
        "timescales",
        "step function, masked",
    ): r"timescale is None: no gate multiplies.*lstmx\.plot\.saturation draws",
    ("path_spectrum", "both directions"): BOTH_WAYS,
    **{("gates_ledger", one): r"flow\.gates is None; expected.*lstmx\.plot\.gradient_flow draws" for one in STEP},
    **{
        ("path_spectrum", one): "has no cell state.*path_spectrum takes the history of a cell with one"
        for one in STEP
    },
    **{("effect", one): "expected a cell of the library, whose gates edits change by name" for one in STEP},
    **{
        (
            name,
            one,
        ): r"statistics is a dict, as of layers; expected the GateStatistics of one: statistics\['layer 0'\]"
        for name in ("saturation", "timescales")
        for one in LAYERS
    },
}


def refusal(name, context):
    contexts, words = REFUSED.get(name, ((), None))
    return words if context in contexts else ALSO_REFUSED.get((name, context))


def test_every_figure_is_here():
    assert sorted(DRAW) == sorted(lstmx.plot.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", DRAW)
def test_a_figure_draws_or_says_what_to_do(name, context):
    words = refusal(name, context)
    if words is not None:
        with pytest.raises((TypeError, ValueError), match=words):
            DRAW[name](recorded(context))
        return
    drawn = DRAW[name](recorded(context))
    render(drawn if isinstance(drawn, Figure) else drawn.figure)  # a warning is an error here


# -------------------------------------------------------------------------------------------- what they hold


def panel(figure, title):
    (found,) = [ax for ax in figure.axes if ax.get_title("left") == title]
    return found


def image(ax, rows, columns=LENGTH):
    """The image of a heat map [rows, columns], once for each cell of it; NaN where it is blank."""
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    return shown[:: shown.shape[0] // rows, :: shown.shape[1] // columns]


def decades(logs):
    """Natural logs as log₁₀, with a gap for each exact zero."""
    return np.where(np.isneginf(logs), np.nan, logs) / np.log(10)


def ydata(ax):
    return np.stack([line.get_ydata() for line in ax.lines], axis=1)


def blanked(values):
    """One sequence [T, ...] with NaN at its steps that do not count."""
    values = np.array(values, float)
    values[~COUNTS[:, SEQUENCE]] = np.nan
    return values


def of(history, values):
    return np.asarray(values)[:, SEQUENCE] if history.batch else np.asarray(values)


@pytest.mark.slow
def test_the_dashboard_of_a_step_function_has_a_panel_for_each_array():
    history = recorded("step function, masked")
    figure = lstmx.plot.dynamics(history, SEQUENCE)
    matrix = blanked(of(history, history.C_state)).reshape(LENGTH, 9)
    np.testing.assert_array_equal(image(panel(figure, "C state"), 9), matrix.T)
    assert panel(figure, "C state").get_ylabel() == "entry of 3 × 3"
    np.testing.assert_array_equal(image(panel(figure, "h state"), 3), blanked(of(history, history.h_state)).T)
    np.testing.assert_array_equal(ydata(panel(figure, "n state"))[:, 0], blanked(of(history, history.n_state)))
    np.testing.assert_array_equal(image(panel(figure, "key"), 3), blanked(of(history, history.key)).T)
    for name in ("forget", "enter"):
        gate = of(history, getattr(history, name))
        np.testing.assert_array_equal(image(panel(figure, name), 3), blanked(gate).T)
        assert panel(figure, name).images[0].get_clim() == (0, 1)
    means = ydata(panel(figure, "gates: mean over units"))
    np.testing.assert_allclose(means[:, 0], blanked(of(history, history.forget)).mean(1))
    norm = np.linalg.norm(matrix, axis=1)
    np.testing.assert_allclose(ydata(panel(figure, "states: norm"))[:, 0], norm)
    assert labels(panel(figure, "states: norm")) == ["C", "h", "n"]
    title = f"fading with a state of 13 numbers over {len(AT)} of {LENGTH} steps, sequence {SEQUENCE}"
    assert figure.get_suptitle() == title


def test_a_step_function_of_one_array_is_a_heat_map():
    history = recorded("step function")
    figure = lstmx.plot.dynamics(history)
    np.testing.assert_array_equal(image(panel(figure, "hidden state"), 4), np.asarray(history.hidden_state).T)
    assert figure.get_suptitle() == f"ten lines with a state of 4 numbers over {LENGTH} steps"
    assert [ax.get_title("left") for ax in figure.axes[:3]] == [
        "inputs, by feature",
        "hidden state",
        "hidden state: norm",
    ]


@pytest.mark.slow
def test_the_dashboard_leaves_steps_that_do_not_count_blank():
    history = recorded("masked")
    figure = lstmx.plot.dynamics(history, SEQUENCE)
    np.testing.assert_array_equal(ydata(panel(figure, "inputs, by feature")), blanked(history.inputs[:, SEQUENCE]))
    hidden = history.hidden_state[:, SEQUENCE]
    np.testing.assert_array_equal(ydata(panel(figure, "hidden state, by unit")), blanked(hidden))
    forget = history.forget_gate[:, SEQUENCE]
    ax = panel(figure, "forget gate")
    np.testing.assert_array_equal(image(ax, 4), blanked(forget).T)
    assert ax.patch.get_hatch()
    distribution = panel(figure, "gates: distribution").patches[1]
    assert distribution.get_label() == "forget"
    fraction, edges, _ = distribution.get_data()
    np.testing.assert_array_equal(fraction, np.histogram(forget[AT], edges)[0] / forget[AT].size)
    np.testing.assert_allclose(ydata(panel(figure, "gates: mean over units"))[:, 1], blanked(forget).mean(1))
    assert figure.get_suptitle() == f"LSTM of 4 units over {len(AT)} of {LENGTH} steps, sequence {SEQUENCE}"


@pytest.mark.slow
def test_whole_sequences_have_no_hatching():
    figure = lstmx.plot.dynamics(recorded("Zoneout"))
    assert panel(figure, "forget gate").patch.get_hatch() is None
    assert figure.get_suptitle().startswith("LSTM with zoneout of 4 units")


@pytest.mark.slow
@pytest.mark.parametrize("context", LAYERS)
def test_layers_are_rows_with_their_states_in_the_order_of_time(context):
    history = recorded(context)
    figure = lstmx.plot.dynamics(history, SEQUENCE)
    cells = history.cells()
    titles = [ax.get_title("left") for ax in figure.axes if ax.get_title("left")]
    assert titles[0].startswith(next(reversed(cells)))  # the top layer at the top
    for name, (part, in_time) in cells.items():
        of_layer = f"{name} ({type(part.cell).__name__}): "
        gate = part.cell.retention_gate
        arrays = {f"{field} state": x for field, x in part.states._asdict().items()}
        for what, values in (arrays | {gate.replace("_", " "): getattr(part, gate)}).items():
            expected = blanked(in_time(values)[:, SEQUENCE])
            shown = image(panel(figure, of_layer + what), expected.shape[1])
            np.testing.assert_array_equal(shown, expected.T)
    norms = ydata(panel(figure, "outputs: norm"))
    first = np.linalg.norm(history.layers[0].hidden_state[:, SEQUENCE], axis=1)
    np.testing.assert_allclose(norms[:, 0], blanked(first))
    assert figure.get_suptitle() == f"{len(cells)} layers over {len(AT)} of {LENGTH} steps, sequence {SEQUENCE}"


def test_layers_without_gates_are_drawn():
    stack = lstmx.Stack([lstmx.SimpleRNN(3, 4), lstmx.SimpleRNN(4, 2)])
    history = lstmx.record(stack, stack.init(np.random.default_rng(0)), np.ones((5, 3), "float32"))
    figure = lstmx.plot.dynamics(history)
    render(figure)
    assert figure.axes[0].get_title("left") == "layer 1 (SimpleRNN): hidden state"


@pytest.mark.slow
def test_the_flow_of_a_step_function_is_that_of_its_joint_state():
    result = flow(recorded("step function"))
    figure = lstmx.plot.gradient_flow(result)
    (norms,) = figure.axes
    np.testing.assert_allclose(norms.lines[0].get_ydata(), decades(result.log_norm))
    assert len(norms.lines) == 1
    assert figure.get_suptitle().startswith(f"gradient over {LENGTH} steps: ")


@pytest.mark.slow
def test_a_masked_flow_is_blank_where_steps_do_not_count_and_reads_like_its_piece():
    history = recorded("masked")
    figure = lstmx.plot.gradient_flow(flow(history), SEQUENCE)
    alone = flow(history.sequence(SEQUENCE).pieces()[0])
    for line, name in zip(figure.axes[0].lines, ("log_norm", "log_highway"), strict=True):
        drawn = line.get_ydata()
        assert np.isnan(drawn[~COUNTS[:, SEQUENCE]]).all()
        np.testing.assert_allclose(drawn[AT], decades(getattr(alone, name)), atol=1e-12)
    title, reading = figure.get_suptitle().split("\n")
    assert title == f"gradient over {len(AT)} of {LENGTH} steps, sequence {SEQUENCE}: {alone.verdict}"
    assert reading.startswith(f"half-life {alone.half_life:.4g} steps")

    compared = lstmx.plot.compare_flows({"masked": flow(history), "piece": flow(history)}, SEQUENCE)
    np.testing.assert_allclose(compared.lines[0].get_ydata(), decades(alone.log_norm)[::-1], atol=1e-12)
    assert labels(compared)[0] == f"masked: half-life {alone.half_life:.4g} steps"


@pytest.mark.slow
def test_losses_at_many_steps_have_no_half_life_anywhere():
    history = recorded("masked")
    result = lstmx.gradient_flow(history, np.ones(history.outputs.shape))
    title = lstmx.plot.gradient_flow(result, SEQUENCE).get_suptitle()
    assert ": undefined\n" in title
    assert f"losses enter at {len(AT)} steps" in title
    assert labels(lstmx.plot.compare_flows({"many": result}, SEQUENCE)) == [
        f"many: no half-life, losses at {len(AT)} steps"
    ]


def test_the_title_has_both_rates_of_a_decay_that_is_not_one_exponential():
    cell = lstmx.SimpleRNN(1, 1)
    gains = np.r_[np.full(200, 0.9), np.full(100, 0.5)]
    history = lstmx.record(cell, cell.init(np.random.default_rng(0), "float64"), np.zeros((300, 1)))
    logs = np.cumsum(np.log(gains)[::-1])[::-1]
    result = flow(history)
    result = type(result)(**{**vars(result), "log_norm": logs})
    title = lstmx.plot.gradient_flow(result).get_suptitle()
    near, far, lag = result.rates
    assert title.endswith(f"\nnot one exponential: {near:.4g} up to {lag:.0f} steps back, {far:.4g} beyond")


def test_the_ledger_is_blank_where_steps_do_not_count():
    result = flow(recorded("masked"))
    ax = lstmx.plot.gates_ledger(result, SEQUENCE)
    values = np.array([patch.get_data().values - patch.get_data().baseline for patch in ax.patches])
    assert np.isnan(values[:, ~COUNTS[:, SEQUENCE]]).all()
    np.testing.assert_allclose(values[:, AT].sum(axis=0), 1)
    assert ax.get_title("left") == "share of each way back"  # what does not count is no step without gradient


def test_depth_is_blank_where_steps_do_not_count():
    result = flow(recorded("stack, masked"))
    above, below = lstmx.plot.depth(result, SEQUENCE).axes[:2]
    norms = result.log_norm[:, :, SEQUENCE]
    np.testing.assert_allclose(image(above, 3), (norms - np.nanmax(norms)) / np.log(10))
    np.testing.assert_allclose(ydata(below), decades(norms).T)
    assert np.isnan(norms[:, ~COUNTS[:, SEQUENCE]]).all()


def test_paths_of_a_masked_sequence_are_those_of_its_piece():
    history = recorded("masked")
    found = [
        lstmx.plot.path_spectrum(lstmx.path_spectrum(history, 3), SEQUENCE),
        lstmx.plot.path_spectrum(lstmx.path_spectrum(history.sequence(SEQUENCE).pieces()[0], 3)),
    ]
    masked, alone = (figure.axes for figure in found)
    for one, other in zip(masked[0].lines, alone[0].lines, strict=True):
        np.testing.assert_allclose(one.get_ydata(), other.get_ydata())
    for one, other in zip(masked[1].patches, alone[1].patches, strict=True):
        np.testing.assert_allclose(one.get_data().values, other.get_data().values)
    assert found[0].get_suptitle().startswith(f"orders of the gradient over {len(AT)} of {LENGTH} steps, sequence")


def test_influence_on_and_of_steps_that_do_not_count_is_blank():
    pairs = image(lstmx.plot.influence(lstmx.influence(recorded("masked")), SEQUENCE).axes[0], LENGTH)
    gone = ~COUNTS[:, SEQUENCE]
    assert np.isnan(pairs[gone]).all()
    assert np.isnan(pairs[:, gone]).all()
    assert np.isfinite(pairs[AT[-1], AT]).all()


@pytest.mark.slow
def test_variants_are_blank_where_steps_do_not_count():
    history = recorded("masked")
    step = recorded("step function, masked")
    result = {"LSTM": flow(history), "step": flow(step)}
    figure = lstmx.plot.variants({"LSTM": history, "step": step}, result, SEQUENCE)
    render(figure)
    gate, none, cell, output, *gradients = figure.axes
    assert not none.images
    np.testing.assert_array_equal(image(gate, 4), blanked(history.forget_gate[:, SEQUENCE]).T)
    np.testing.assert_array_equal(image(cell, 4), blanked(history.cell_state[:, SEQUENCE]).T)
    np.testing.assert_array_equal(image(output, 3), blanked(of(step, step.hidden_state)).T)
    for ax, one in zip(gradients, result.values(), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), decades(of(step, one.log_norm)))


def test_an_effect_is_blank_where_steps_do_not_count():
    effect = effect_of(recorded("masked"))
    figure = lstmx.plot.effect(effect, SEQUENCE)
    change, norm, loss, *pair = [ax for ax in figure.axes if ax.get_title("left")]
    np.testing.assert_array_equal(image(change, 4), blanked(effect.outputs[:, SEQUENCE]).T)
    np.testing.assert_array_equal(ydata(norm)[:, 0], blanked(effect.norm[:, SEQUENCE]))
    np.testing.assert_array_equal(ydata(loss)[:, 1], blanked(effect.loss_after[:, SEQUENCE]))
    before = np.mean(effect.loss_before[AT, SEQUENCE])
    assert loss.get_title("left").startswith(f"loss of each step: {before:.4g} before")
    np.testing.assert_array_equal(image(pair[0], 4), blanked(effect.history.forget_gate[:, SEQUENCE]).T)
    np.testing.assert_array_equal(image(pair[1], 4), blanked(effect.edited.forget_gate[:, SEQUENCE]).T)


@pytest.mark.slow
def test_an_effect_on_layers_shows_what_was_edited_in_which():
    effect = effect_of(recorded("stack, masked"))
    figure = lstmx.plot.effect(effect, SEQUENCE)
    edited = panel(figure, "layer 0: forget gate, edited")
    forget = effect.edited.parts["layer 0"].forget_gate[:, SEQUENCE]
    np.testing.assert_array_equal(image(edited, 4), blanked(forget).T)
    assert edited.images[0].get_clim() == (0, 1)
    rows = lstmx.plot.dynamics(effect.edited, SEQUENCE)
    np.testing.assert_array_equal(image(panel(rows, "layer 0 (LSTM): forget gate"), 4), blanked(forget).T)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["step function, masked", "masked", "stack, masked"])
def test_a_phase_portrait_has_the_joint_states_that_count(context):
    history = recorded(context)
    ax = lstmx.plot.phase_portrait(points_of(history), history)
    states = [np.asarray(x).reshape(LENGTH, 2, -1)[COUNTS] for x in jax.tree.leaves(history.states)]
    states = np.concatenate(states, axis=-1)
    variance = np.sort(np.linalg.eigvalsh(np.cov(states.T, bias=True)))[::-1][:2]
    drawn = np.stack(ax.lines[0].get_data(), axis=-1)
    assert len(drawn) == COUNTS.sum()
    np.testing.assert_allclose(drawn.var(axis=0), variance)


def test_statistics_of_a_step_functions_gates_are_drawn():
    history = recorded("step function, masked")
    ax = lstmx.plot.saturation(lstmx.gate_statistics(history))
    assert ax.get_title("left") == "gate saturation of 3 units"
    forget = np.asarray(history.forget)[COUNTS]
    np.testing.assert_allclose(ax.lines[1].get_xdata(), (forget < 0.1).mean(axis=0))


def test_memory_of_layers_has_a_mark_for_each_notion_of_each():
    report = lstmx.memory_report(recorded("stack, masked"), lags=10)
    left = lstmx.plot.memory(report).axes[0]
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert names == [notion.name for notion in report.notions]
    assert "highway, geometric, layer 2" in names
    assert len(left.lines) == len(names)


# ------------------------------------------------------------------------------------------ long and holed


def test_blocks_are_means_of_the_steps_that_count():
    draws = np.random.default_rng(0)
    values, counts = draws.normal(size=(2500, 2)), draws.random(2500) < 0.6
    counts[900:930] = False
    values[~counts] = np.nan
    ax = Figure().add_subplot()
    canvas.lines(ax, values, ["a", "b"], counts=counts)
    blocks = np.append(values, np.full((2, 2), np.nan), axis=0).reshape(-1, 3, 2)
    known = np.isfinite(blocks[..., 0]).any(axis=1)
    expected = np.full((len(blocks), 2), np.nan)
    expected[known] = np.nanmean(blocks[known], axis=1)
    np.testing.assert_allclose(ydata(ax), expected)
    heights = ax.collections[0].get_paths()
    drawn = np.concatenate([path.vertices[:, 1] for path in heights])
    assert (drawn.min(), drawn.max()) == (np.nanmin(values[:, 0]), np.nanmax(values[:, 0]))

    ax = Figure().add_subplot()
    canvas.heat_map(ax, values, "unit", None, counts=counts)
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown[:: shown.shape[0] // 2], expected.T)


def test_a_step_alone_between_holes_has_a_dot():
    counts = np.arange(60) % 2 == 0
    ax = Figure().add_subplot()
    canvas.lines(ax, np.ones((60, 1)), ["a"], counts=counts)
    (line,) = ax.lines
    assert line.get_marker() == "."
    assert list(line.get_markevery()) == list(range(0, 60, 2))


# -------------------------------------------------------------------------------------- what is no history


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda cell, params, xs, path: lstmx.excerpt(cell, params, xs, every=3),
            "is an Excerpt.*expected a History",
        ),
        (lambda cell, params, xs, path: lstmx.record_to(path, cell, params, xs), r"is on disk.*history\.read\(\)"),
    ],
)
@pytest.mark.parametrize("name", ["dynamics", "variants", "phase_portrait"])
def test_what_is_no_history_in_memory_is_refused(make, words, name, tmp_path):
    cell = lstmx.LSTM(FEATURES, 4)
    params = cell.init(np.random.default_rng(0), "float64")
    other = make(cell, params, np.ones((5, FEATURES)), tmp_path / "pass")
    draw = {
        "dynamics": lstmx.plot.dynamics,
        "variants": lambda other: lstmx.plot.variants({"a": other}),
        "phase_portrait": lambda other: lstmx.plot.phase_portrait(points_of(recorded("masked")), other),
    }[name]
    with pytest.raises(TypeError, match=words):
        draw(other)

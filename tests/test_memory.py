"""`memory_report`: its notions in closed form, against autodiff of truncated passes, and its words."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_pass, random_history, to

import lstmx

HIGHWAY = ["highway, geometric", "highway, slowest unit", "highway, arithmetic"]
OTHERS = [
    "Lyapunov time",
    "gradient half-life",
    "gradient horizon",
    "influence lag",
    "truncation length",
    "linear memory",
]


@functools.cache
def short(kind, library="numpy", batch=()):
    history = random_history(kind, length=12, batch=batch, features=2, hidden=3, seed=1)
    return to(library, history)


@functools.cache
def report(kind, library="numpy", batch=()):
    return lstmx.memory_report(short(kind, library, batch), lags=10)


@functools.cache
def leaky():
    """An LSTM of two units without recurrent weights whose forget gates stay at σ(3), over 400 steps."""
    draws = np.random.default_rng(0)
    kernel = draws.normal(size=(1, 8))
    kernel[:, 2:4] = 0
    params = lstmx.LSTMParams(kernel, np.zeros((2, 8)), np.repeat([0.0, 3.0, 0.0, 0.0], 2))
    history = lstmx.record(lstmx.LSTM(1, 2), params, draws.normal(size=(400, 1)))
    return lstmx.memory_report(history)


# ---------------------------------------------------------------------------------------------------- closed forms


def test_without_recurrent_weights_every_notion_is_the_forget_gates():
    """f = σ(3): 20.58 steps for a decay by e, and the time of a decay by any factor from it."""
    made, scale = leaky(), -1 / math.log(1 / (1 + math.exp(-3)))
    np.testing.assert_allclose(scale, 20.581488, rtol=1e-7)
    for name in HIGHWAY:
        np.testing.assert_allclose(made[name].value, scale, rtol=1e-9)
    np.testing.assert_allclose(made["Lyapunov time"].value, scale, rtol=0.005)
    np.testing.assert_allclose(made["gradient half-life"].value, math.log(2) * scale, rtol=0.01)
    np.testing.assert_allclose(made["influence lag"].value, math.log(20) * scale, rtol=0.15)
    assert made.lags == 200
    assert {notion.unit for notion in made.notions} == {"steps"}


@functools.cache
def reservoir(name):
    """The report on a SimpleRNN whose states stay so small that it is linear, fed with noise."""
    kernels = {
        "orthogonal": 0.9 * np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0],
        "diagonal": np.diag([0.9, 0.7, 0.5, 0.3]),
        "delay line": np.eye(6, k=1),
    }
    kernel = kernels[name]
    size = len(kernel)
    into = np.eye(1, size) if name == "delay line" else np.random.default_rng(2).normal(size=(1, size))
    params = lstmx.SimpleRNNParams(1e-4 * into, kernel, np.zeros(size))
    xs = np.random.default_rng(1).normal(size=(4000, 8, 1))
    return lstmx.memory_report(lstmx.record(lstmx.SimpleRNN(1, size), params, xs), lags=80)


@pytest.mark.slow
def test_a_linear_network_remembers_as_many_inputs_as_it_has_units():
    """V42, and Jaeger's bound."""
    for name, units in (("orthogonal", 6), ("diagonal", 4), ("delay line", 6)):
        made = reservoir(name)
        np.testing.assert_allclose(made.capacity.sum(), units, rtol=0.02)
        np.testing.assert_allclose(made["linear memory"].value, made.capacity.sum(), rtol=1e-12)
        assert made.capacity.shape == (80,)
        assert (made.capacity >= 0).all()
        assert (made.capacity <= 1).all()


@pytest.mark.slow
def test_linear_memory_has_the_known_shape_over_lags():
    """V42; and (U^k w) C⁻¹ (U^k w) with C = Σ U^j w wᵀ U^jᵀ, here for a diagonal U, where w scales away."""
    decays = np.array([0.9, 0.7, 0.5, 0.3])
    covariance = 1 / (1 - np.outer(decays, decays))
    powers = decays ** np.arange(80)[:, None]
    expected = (powers * np.linalg.solve(covariance, powers.T).T).sum(axis=1)
    np.testing.assert_allclose(expected[0], 0.99106975, rtol=0, atol=5e-9)
    np.testing.assert_allclose(reservoir("diagonal").capacity, expected, rtol=0, atol=0.015)
    delay = reservoir("delay line").capacity
    np.testing.assert_allclose(delay[:6], 1, rtol=0, atol=1e-6)
    assert delay[6:].max() < 0.01


def test_an_orthogonal_kernel_has_the_time_scale_of_its_gain():
    """0.9 of an orthogonal matrix in every direction: −1/ln 0.9."""
    made, scale = reservoir("orthogonal"), -1 / math.log(0.9)
    np.testing.assert_allclose(made["Lyapunov time"].value, scale, rtol=1e-4)
    np.testing.assert_allclose(made["gradient half-life"].value, math.log(2) * scale, rtol=1e-3)
    assert made["gradient horizon"].value == math.ceil(math.log(100) * scale)


# -------------------------------------------------------------------------------------------- truncated gradients


def autodiff_biases(history, weights, lags):
    """‖g_K − g‖ / ‖g‖ by jax.grad of the last K steps from the recorded state, for each of `lags`."""
    cell, length = history.cell, len(history)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(params, k):
        start = type(history.initial)(*(field[length - k] for field in history.before))

        def loss(params):
            outputs, _ = lstmx.run(cell, params, jnp.asarray(history.inputs[length - k :]), start)
            return jnp.sum(outputs[-1] * weights)

        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.grad(loss)(params))])

    params = to("jax", history.params)
    whole = np.asarray(gradient(params, length))
    return [np.linalg.norm(gradient(params, k) - whole) / np.linalg.norm(whole) for k in lags]


@pytest.mark.slow
def test_truncation_bias_is_that_of_autodiff_from_a_detached_state(kind):
    """Of gradients summed over the batch."""
    history, made = short(kind, "numpy", (2,)), report(kind, "numpy", (2,))
    expected = autodiff_biases(history, 1.0, [1, 4, 10])
    assert made.truncation_bias.shape == (10,)
    np.testing.assert_allclose(made.truncation_bias[[0, 3, 9]], expected, rtol=1e-9)
    length = made["truncation length"].value
    assert length == math.inf or made.truncation_bias[int(length) - 1] <= 0.05


def test_truncation_to_the_whole_pass_has_no_bias(kind):
    biases = lstmx.memory_report(short(kind)).truncation_bias
    assert len(biases) == 12
    assert biases[-1] < 1e-14
    assert biases[0] > 0.1


@pytest.mark.slow
def test_a_loss_of_ones_own_has_its_own_bias():
    history = short(lstmx.LSTM)
    weights = np.array([1.0, -2.0, 0.5])
    direct = np.zeros((12, 3))
    direct[-1] = weights
    made = lstmx.memory_report(history, direct, lags=10)
    np.testing.assert_allclose(made.truncation_bias[2], autodiff_biases(history, weights, [3])[0], rtol=1e-9)


def test_the_bias_that_is_allowed_sets_the_truncation_length():
    history = short(lstmx.LSTM)
    for bias in (0.6, 0.3, 0.1):
        made = lstmx.memory_report(history, bias=bias)
        enough = [k for k in range(1, 13) if (made.truncation_bias[k - 1 :] <= bias).all()]
        assert made["truncation length"].value == enough[0]
        assert f"to within {bias:g} of its norm" in made["truncation length"].definition
    assert report(lstmx.LSTM)["truncation length"].value in (*range(1, 11), math.inf)


# ------------------------------------------------------------------------------------------------ faces and sizes


@pytest.mark.slow
def test_numpy_and_jax_agree(kind):
    numpy, jax = (report(kind, library) for library in ("numpy", "jax"))
    assert isinstance(jax.truncation_bias, np.ndarray)
    assert isinstance(jax.capacity, np.ndarray)
    assert_close((jax.truncation_bias, jax.capacity), (numpy.truncation_bias, numpy.capacity), 1e-8)
    assert [notion.name for notion in jax.notions] == [notion.name for notion in numpy.notions]
    for one, other in zip(jax.notions, numpy.notions, strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=1e-8)
        assert (one.unit, one.definition) == (other.unit, other.definition)


@pytest.mark.slow
def test_a_loss_as_an_array_or_a_function_is_that_in_words():
    direct = np.zeros((12, 3))
    direct[-1] = 1
    expected = report(lstmx.LSTM)
    made = lstmx.memory_report(short(lstmx.LSTM), direct, lags=10)
    assert_close(made.truncation_bias, expected.truncation_bias, 1e-12)
    np.testing.assert_equal(made.notions, expected.notions)
    made = lstmx.memory_report(short(lstmx.LSTM, "jax"), lambda outputs: jnp.sum(outputs[-1]), lags=10)
    assert_close(made.truncation_bias, expected.truncation_bias, 1e-9)


def test_only_a_cell_with_a_retention_gate_has_a_highway(kind):
    names = [notion.name for notion in report(kind).notions]
    assert names == (OTHERS if kind is lstmx.SimpleRNN else HIGHWAY + OTHERS)
    gate = {lstmx.LSTM: "forget gate", lstmx.GRU: "update gate"}.get(kind, "")
    assert all(gate in report(kind)[name].definition for name in names if name in HIGHWAY)


def test_notions_are_those_of_the_analyses_they_come_from(kind):
    history, made = short(kind, "numpy", (2,)), report(kind, "numpy", (2,))
    flow = lstmx.gradient_flow(history, "last")
    assert made["gradient half-life"].value == np.median(flow.half_life)
    assert made["gradient horizon"].value == np.median(flow.horizon(0.01))
    np.testing.assert_allclose(
        made["Lyapunov time"].value, lstmx.lyapunov_spectrum(history, 1).timescale, rtol=1e-12
    )
    reach = lstmx.influence(history[2:], 9)
    np.testing.assert_allclose(made["influence lag"].value, np.median(reach.quantile(0.95)), rtol=1e-12)
    if kind is not lstmx.SimpleRNN:
        scales = lstmx.gate_statistics(history).timescale
        np.testing.assert_allclose(made[HIGHWAY[0]].value, np.median(scales), rtol=1e-12)
        np.testing.assert_allclose(made[HIGHWAY[1]].value, np.max(scales), rtol=1e-12)


@pytest.mark.parametrize("batch", [(2,), (2, 3)], ids=str)
def test_batch_axes_are_summed_up_in_one_report(kind, batch):
    made = lstmx.memory_report(random_history(kind, length=9, batch=batch, features=2, hidden=3))
    assert made.truncation_bias.shape == made.capacity.shape == (9,)
    assert all(isinstance(notion.value, float) for notion in made.notions)
    assert repr(made) == f"MemoryReport({len(made.notions)} notions, lags up to 9)"


@pytest.mark.parametrize("length", [1, 2])
def test_a_short_pass_has_a_report(kind, length):
    made = lstmx.memory_report(random_history(kind, length=length, features=2, hidden=3))
    assert made.lags == length
    assert np.isnan(made.capacity).all()
    assert math.isnan(made["linear memory"].value)
    assert made.truncation_bias[-1] < 1e-14
    assert all(notion.name in str(made) for notion in made.notions)


def test_a_constant_input_leaves_nothing_to_recover(kind):
    """No variance to explain: capacity 0, and no warning."""
    cell, params, xs, state = draw_pass(kind, length=120, features=2, hidden=3)
    made = lstmx.memory_report(lstmx.record(cell, params, np.ones_like(xs), state), lags=8)
    np.testing.assert_array_equal(made.capacity, 0)
    assert made["linear memory"].value == 0


def test_float32_has_the_same_report_roughly():
    single, double = (
        lstmx.memory_report(random_history(lstmx.LSTM, length=60, hidden=3, dtype=dtype), lags=10)
        for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single.truncation_bias, double.truncation_bias, rtol=0, atol=1e-4)
    for one, other in zip(single.notions, double.notions, strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=0.01)


def test_a_horizon_may_be_asked_for_at_another_fraction():
    history = short(lstmx.GRU)
    far, near = (lstmx.memory_report(history, fraction=fraction)["gradient horizon"] for fraction in (0.2, 0.8))
    assert near.value <= far.value
    assert "at most 0.8 of its value" in near.definition


# ----------------------------------------------------------------------------------------------------------- words


def with_values(made, values):
    notions = tuple(lstmx.Notion(name, value, "steps", "") for name, value in values.items())
    return lstmx.MemoryReport(notions, *(getattr(made, name) for name in LATER))


LATER = ["lags", "truncation_bias", "capacity", "flow", "spectrum", "influence", "features"]


def test_notions_that_agree_draw_no_remark():
    made = report(lstmx.LSTM)
    for values in ({"a": 2.0, "b": 6.0}, {"a": 2.0, "b": math.inf, "c": math.nan, "d": 0.0}):
        assert with_values(made, values).remark == ""


def test_notions_that_differ_draw_a_remark():
    made = report(lstmx.LSTM)
    remark = with_values(made, {"a": 2.0, "b": 7.0, "c": 20.0}).remark
    assert "by a factor of 10, from a (2 steps) to c (20 steps)" in remark
    longer = with_values(made, {"highway, slowest unit": 5.0, "Lyapunov time": 50.0}).remark
    assert "joint state remembers longer than the retention gates" in longer
    shorter = with_values(made, {"highway, slowest unit": 50.0, "Lyapunov time": 5.0}).remark
    assert "promise more than the joint state keeps" in shorter
    hidden = with_values(made, {"highway, geometric": 5.0, "highway, arithmetic": 50.0}).remark
    assert "a mean of gates hides" in hidden
    assert "nothing is forgotten" in with_values(made, {"a": math.inf}).remark
    assert with_values(made, {"a": 2.0, "b": 7.0}).remark in str(with_values(made, {"a": 2.0, "b": 7.0}))


def test_a_report_prints_every_notion_with_unit_and_definition():
    made = leaky()
    lines = str(made).splitlines()
    assert lines[0] == "how long the network remembers (lags up to 200 steps looked at)"
    for line, notion in zip(lines[1:], made.notions, strict=False):
        assert line.split()[: len(notion.name.split())] == notion.name.split()
        assert f"{notion.value:.4g} {notion.unit}" in line
        assert line.endswith(notion.definition)
    assert lines[-1] == made.remark


def test_another_name_is_refused_with_the_list():
    with pytest.raises(
        KeyError, match=r"no notion 'memory'; this report has \['Lyapunov time', 'gradient half-life'"
    ):
        report(lstmx.SimpleRNN)["memory"]


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"lags": 0}, ValueError, "lags is 0; expected an integer of at least 1"),
        ({"lags": 2.5}, TypeError, r"lags is 2\.5; expected an integer of at least 1"),
        ({"fraction": 0}, ValueError, "fraction is 0; expected a number between 0 and 1"),
        ({"fraction": 1.0}, ValueError, r"fraction is 1\.0; expected a number between 0 and 1"),
        ({"bias": -0.1}, ValueError, r"bias is -0\.1; expected a number between 0 and 1"),
        ({"bias": math.nan}, ValueError, "bias is nan; expected a number between 0 and 1"),
        ({"bias": "5 %"}, ValueError, "bias is '5 %'; expected a number between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        lstmx.memory_report(short(lstmx.LSTM), **options)


@pytest.mark.slow
def test_a_loss_that_reads_earlier_outputs_is_refused():
    direct = np.zeros((12, 3))
    direct[[4, 11]] = 1
    with pytest.raises(
        ValueError, match=r"loss reads the output of step 4; .* alone, 11\. For an earlier one pass"
    ):
        lstmx.memory_report(short(lstmx.LSTM), direct)
    with pytest.raises(ValueError, match="loss reads the output of step 0"):
        lstmx.memory_report(short(lstmx.LSTM, "jax"), lambda outputs: jnp.sum(outputs**2))


def test_arguments_that_are_none_are_refused():
    with pytest.raises(TypeError, match="history is a int; expected a History"):
        lstmx.memory_report(3)
    with pytest.raises(TypeError, match="loss is a function, which takes JAX"):
        lstmx.memory_report(short(lstmx.LSTM), lambda outputs: outputs[-1].sum())
    with pytest.raises(ValueError, match="hold no sequence"):
        lstmx.memory_report(random_history(lstmx.LSTM, batch=(0,)))


def test_numbers_that_are_none_are_refused_with_their_place():
    history = random_history(lstmx.LSTM)
    history.inputs[4, 1] = np.nan
    with pytest.raises(ValueError, match="inputs is nan first at step 4, feature 1"):
        lstmx.memory_report(history)


def test_within_a_transformation_it_says_that_it_cannot_run():
    history = short(lstmx.LSTM)

    def biases(xs):
        return lstmx.memory_report(lstmx.record(history.cell, history.params, xs)).truncation_bias

    with pytest.raises(TypeError, match="cannot run inside a JAX transformation"):
        jax.jit(biases)(jnp.asarray(history.inputs))


def test_constant_inputs_are_not_remembered_whatever_their_rounding():
    cell, params, xs, state = draw_pass(lstmx.GRU, length=300, features=2, hidden=3)
    report = lstmx.memory_report(lstmx.record(cell, params, 0 * xs + 0.3, state), lags=8)
    np.testing.assert_array_equal(report.capacity, 0)
    xs[..., 1] = 0.3
    both, one = (
        lstmx.memory_report(lstmx.record(cell, params, inputs, state), lags=8).capacity
        for inputs in (xs, np.where([True, False], xs, 0.5))
    )
    assert both[0] < 1
    assert one[0] < 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1e-8])
def test_the_linear_memory_of_a_linear_network_does_not_depend_on_its_scale(scale):
    units, draws = 6, np.random.default_rng(3)
    kernel = 0.9 * np.linalg.qr(draws.normal(size=(units, units)))[0]
    params = lstmx.SimpleRNNParams(scale * draws.normal(size=(1, units)), kernel, np.zeros(units))
    history = lstmx.record(lstmx.SimpleRNN(1, units), params, draws.normal(size=(8000, 1)))
    np.testing.assert_allclose(lstmx.memory_report(history).capacity.sum(), units, rtol=0.02)

"""MinLSTM and MinGRU: the parallel scan against the loop, exact logarithms, what a linear recurrence implies."""

import family
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from reference import assert_close, to

import lstmx

KINDS = [lstmx.MinLSTM, lstmx.MinGRU]
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def drawn(kind, batch=(), length=7, dtype="float64", seed=0):
    cell = kind(3, 4)
    params, state, xs, draws = family.draw(cell, batch, length=length, dtype=dtype, seed=seed)
    return cell, params, xs, state, draws


def remembering(cell, params):
    """The parameters with time scales of some 400 steps."""
    biases = cell.retention_biases(np.full(4, 6.0))
    for gate, values in biases.items():
        block, sign = cell.layout.gates[gate]
        params.bias[4 * block : 4 * block + 4] = sign * values
    return params


# ------------------------------------------------------------------------------------------- the parallel scan


@pytest.mark.sample(2)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@each
def test_all_steps_at_once_are_the_steps_one_by_one(kind, dtype, tolerance, library):
    for length, batch in ((1, ()), (29, (2,)), *(((2000, ()),) if library == "numpy" else ())):
        cell, params, xs, state, _ = drawn(kind, batch, length, dtype)
        given = to(library, (params, xs, state))
        (outputs, final), plain = lstmx.run(cell, *given, parallel=True), lstmx.run(cell, *given)[0]
        assert outputs.dtype == dtype
        assert_close(final.hidden, outputs[-1], 0)
        # A negative initial state makes outputs pass through zero: the error is relative to the largest.
        np.testing.assert_allclose(outputs, plain, rtol=0, atol=tolerance * np.abs(plain).max())


@pytest.mark.parametrize("library", ["numpy", pytest.param("jax", marks=pytest.mark.slow)])
@each
def test_of_positive_states_every_output_has_its_digits_over_a_long_memory(kind, library):
    cell, params, xs, state, _ = drawn(kind, length=3000, dtype="float32")
    state = state._replace(hidden=np.abs(state.hidden))
    params = remembering(cell, params)
    precise = jax.tree.map(lambda x: x.astype("float64"), (params, xs, state))
    expected = lstmx.run(cell, *precise)[0]
    np.testing.assert_allclose(lstmx.run(cell, *precise, parallel=True)[0], expected, rtol=1e-12)
    outputs = lstmx.run(cell, *to(library, (params, xs, state)), parallel=True)[0]
    np.testing.assert_allclose(outputs, expected, rtol=3e-6)


@each
def test_outputs_from_zero_are_the_sum_over_all_steps_before(kind):
    cell, params, xs, _, _ = drawn(kind, length=9)
    history = lstmx.record(cell, params, xs)
    kept, added = (np.exp(x) for x in cell.logarithms(history.preactivations))
    expected = [sum(added[s] * kept[s + 1 : t + 1].prod(axis=0) for s in range(t + 1)) for t in range(9)]
    np.testing.assert_allclose(lstmx.run(cell, params, xs, parallel=True)[0], expected, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lstmx.MinLSTM, lstmx.MinGRU])
def test_gradients_through_both_agree(kind):
    cell, params, xs, state, draws = drawn(kind, (2,), 13)
    weights = draws.normal(size=(13, 2, 4))
    given = to("jax", (params, xs, state))

    def gradient(**options):
        def loss(*args):
            outputs, final = lstmx.run(cell, *args, **options)
            return (outputs * weights).sum() + (final.hidden**2).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*given)

    parallel = gradient(parallel=True)
    assert_close(parallel, gradient(), 1e-11)
    assert_close(parallel, gradient(parallel=True, differentiation="autodiff"), 1e-11)
    history = lstmx.record(cell, params, xs, state)
    backward = lstmx.backward(history, weights, history.final._replace(hidden=2 * history.final.hidden))
    assert_close(parallel, (backward.parameters, backward.inputs, backward.initial), 1e-11)


def test_the_derivative_from_a_zero_state_is_finite_and_forward_mode_works():
    cell, params, xs, _, _ = drawn(lstmx.MinLSTM, length=20)
    params, xs, zero = to("jax", (params, xs, cell.initial_state(params)))

    def outputs(zero, **options):
        return lstmx.run(cell, params, xs, zero, **options)[0]

    one = jax.tree.map(jnp.ones_like, zero)
    autodiff = {"differentiation": "autodiff"}
    parallel = jax.jvp(lambda zero: outputs(zero, parallel=True, **autodiff), (zero,), (one,))
    assert_close(parallel, jax.jvp(lambda zero: outputs(zero, **autodiff), (zero,), (one,)), 1e-13)
    with pytest.raises(TypeError, match="run has a reverse mode only"):
        jax.jvp(lambda zero: outputs(zero, parallel=True), (zero,), (one,))


@each
def test_a_layer_below_another_runs_in_parallel_too(kind):
    layers = lstmx.Stack([kind(3, 4), kind(4, 2)])
    params = layers.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(20, 3))
    assert_close(lstmx.run(layers, params, xs, parallel=True), lstmx.run(layers, params, xs), 1e-14)


@pytest.mark.parametrize(
    ("cell", "options", "error", "words"),
    [
        (
            lstmx.LSTM(3, 4),
            {},
            ValueError,
            r"gates that read the input alone; those of LSTM\(.*read the state too",
        ),
        (
            lstmx.MinGRU(3, 4, candidate_activation="tanh"),
            {},
            ValueError,
            "which candidate_activation='tanh' can make negative; expected 'positive'",
        ),
        (lstmx.Zoneout(lstmx.MinLSTM(3, 4)), {}, ValueError, "parallel=True takes a cell as it is; Zoneout"),
        (lstmx.MinLSTM(3, 4), {"chunk": 2}, ValueError, "chunk is given with parallel=True"),
        (lstmx.MinLSTM(3, 4), {"lengths": 2}, ValueError, "lengths is given with parallel=True"),
        (lstmx.MinLSTM(3, 4), {"parallel": 1}, TypeError, "parallel is 1; expected True, False or 'newton'"),
    ],
)
def test_what_cannot_run_in_parallel_is_refused(cell, options, error, words):
    params = cell.init(np.random.default_rng(0))
    with pytest.raises(error, match=words):
        lstmx.run(cell, params, np.ones((5, 3), "float32"), **{"parallel": True, **options})


def test_other_candidates_are_refused():
    with pytest.raises(ValueError, match="candidate_activation is 'relu'; expected one of 'positive'"):
        lstmx.MinLSTM(3, 4, candidate_activation="relu")


# ---------------------------------------------------------------------------------------------- exact logarithms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logs_of_gates_that_round_to_0_or_1_are_exact(dtype):
    mpmath.mp.dps = 60
    cell = lstmx.MinLSTM(1, 6)
    forget, into = np.array([30.0, -30, 50, 40, -90, 0.5]), np.array([-30.0, 30, 40, 50, -80, 0.25])
    a = np.concatenate([forget, into, np.zeros(6)]).astype(dtype)

    def sigma(x):
        return 1 / (1 + mpmath.exp(-mpmath.mpf(float(x))))

    shares = [sigma(i) / sigma(f) for f, i in zip(forget, into, strict=True)]
    kept = [float(-mpmath.log(1 + share)) for share in shares]
    taken = [float(-mpmath.log(1 + 1 / share)) for share in shares]
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(cell.log_retention(None, a), kept, rtol=tolerance)
    np.testing.assert_allclose(-np.logaddexp(0, -cell.gate_logit("input_gate", None, a)), taken, rtol=tolerance)
    gates = cell.gates(a)
    np.testing.assert_allclose(gates.input_gate + gates.forget_gate, 1, rtol=tolerance)


@each
def test_a_carousel_that_rounds_to_1_still_has_a_time_scale(kind):
    cell, params, xs, _, _ = drawn(kind, length=50, dtype="float32")
    params = jax.tree.map(np.zeros_like, params)
    for gate, values in cell.retention_biases(np.full(4, 25.0)).items():
        block, sign = cell.layout.gates[gate]
        params.bias[4 * block : 4 * block + 4] = sign * values
    history = lstmx.record(cell, params, xs)
    assert (history.gates[1] == 1).all()
    np.testing.assert_allclose(lstmx.gate_statistics(history).timescale, np.exp(25.0), rtol=1e-5)
    np.testing.assert_allclose(lstmx.highway(history), -50 * np.exp(-25.0), rtol=1e-5)


# ------------------------------------------------------------------------------------- what linearity implies


@each
def test_under_a_constant_input_the_state_relaxes_to_the_candidate(kind):
    cell, params, xs, state, _ = drawn(kind)
    history = lstmx.record(cell, params, np.broadcast_to(xs[0], (40, 3)), state)
    kept, at = np.exp(cell.log_retention(None, history.preactivations))[0], history.candidate[0]
    steps = np.arange(1, 41)[:, None]
    np.testing.assert_allclose(
        history.hidden_state, at + kept**steps * (state.hidden - at), rtol=1e-12, atol=1e-14
    )
    candidates = cell.state_type(history.hidden_state[:3])
    points = lstmx.fixed_points(cell, params, xs[0], candidates)
    np.testing.assert_allclose(points.fixed.states.hidden[0], at, rtol=1e-9)
    assert points.index_sum == 1


@pytest.mark.sample(2)
@each
def test_exponents_are_mean_log_gates(kind, library):
    cell, params, xs, state, _ = drawn(kind, length=60)
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    spectrum = lstmx.lyapunov_spectrum(history, "all", transient=0)
    expected = np.sort(np.asarray(lstmx.highway(history)) / 60)[::-1]
    np.testing.assert_allclose(spectrum.exponents, expected, atol=0.05)  # a random frame turns into the axes
    np.testing.assert_allclose(spectrum.exponents.sum(), expected.sum(), rtol=1e-11)
    assert spectrum.sum_rule.discrepancy < 1e-11


@each
def test_the_gate_kernel_weighs_candidates_into_the_state(kind):
    cell = kind(3, 1)
    params, _, xs, _ = family.draw(cell, length=12)
    history = lstmx.record(cell, params, xs)
    taken = history.input_gate[:, 0]
    reach = np.array([np.exp(np.sum(np.log(1 - taken[s + 1 :]))) for s in range(12)])
    weights = lstmx.gate_kernel(history, 11)[0] * (taken * reach).sum()
    np.testing.assert_allclose(weights @ history.candidate[:, 0], history.hidden_state[-1, 0], rtol=1e-12)


@each
def test_analyses_take_a_cell_without_recurrent_weights(kind):
    cell, params, xs, state, _ = drawn(kind, length=300)
    report = lstmx.memory_report(lstmx.record(cell, params, xs, state), lags=20)
    assert np.isfinite(report["influence lag"].value)
    assert set(report.flow.gates or {"straight"}) == {"straight"}
    with pytest.raises(ValueError, match=f"a {kind.__name__} has no recurrent weights, and so no gain"):
        lstmx.critical_gain(cell)


# ---------------------------------------------------------------------------------------------- initial values


@each
def test_schemes_set_the_gate_that_acts(kind):
    cell = kind(3, 400)
    still = np.zeros((1, 3), "float32")

    def kept(scheme):
        params = cell.init(np.random.default_rng(0), scheme=scheme)
        return np.exp(lstmx.highway(lstmx.record(cell, params, still)))

    np.testing.assert_allclose(kept(lstmx.schemes.unit_forget_bias(2.0)), 1 / (1 + np.exp(-2.0)), rtol=1e-6)
    spread = np.sort(kept(lstmx.schemes.uniform_gates()))
    np.testing.assert_allclose(spread, (np.arange(400) + 0.5) / 400, atol=0.08)
    u = kept(lstmx.schemes.chrono(100)) / (1 - kept(lstmx.schemes.chrono(100)))
    assert (u > 0.999).all()
    assert (u < 99.01).all()


@pytest.mark.parametrize(
    "scheme", [lstmx.schemes.identity(), lstmx.schemes.orthogonal(), lstmx.schemes.defaults_of("pytorch")]
)
def test_schemes_of_recurrent_weights_are_refused(scheme):
    with pytest.raises(ValueError, match="draws recurrent weights; a MinLSTM has none"):
        lstmx.MinLSTM(3, 4).init(0, scheme=scheme)

"""ReLU and hard sigmoids in an LSTM and a GRU: closed forms, kinks, flat gates, and plain scans."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, to

import lstmx

os.environ.setdefault("KERAS_BACKEND", "jax")

RELU = {"candidate_activation": "relu", "output_activation": "relu"}
HARD = {"hard_sigmoid": 3.0, "hard_sigmoid_0.2": 2.5}
GATES = {
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_sigmoid_0.2": lambda a: jnp.clip(0.2 * a + 0.5, 0, 1),
}
each_hard = pytest.mark.parametrize("kind", HARD)


def constant_lstm(biases, library="numpy", dtype="float64", **options):
    """One unit whose pre-activations i, f, g, o are these numbers at every step, and x = 0."""
    cell = lstmx.LSTM(1, 1, **options)
    params = lstmx.LSTMParams(np.zeros((1, 4), dtype), np.zeros((1, 4), dtype), np.asarray(biases, dtype))
    return cell, to(library, params)


# -------------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_relu_unit_with_gates_of_one_half_adds_up_its_candidate(library, dtype):
    cell, params = constant_lstm([0, 0, 2, 0], library, dtype, **RELU)
    history = lstmx.record(cell, params, to(library, np.zeros((3, 1), dtype)))
    np.testing.assert_array_equal(history.cell_state[:, 0], [1, 1.5, 1.75])
    np.testing.assert_array_equal(history.hidden_state[:, 0], [0.5, 0.75, 0.875])
    assert history.hidden_state.dtype == dtype


@each_hard
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hard_gate_is_the_line_that_is_cut_off(library, kind, dtype):
    edge, cell = HARD[kind], lstmx.GRU(1, 7, gate_activation=kind)
    a = np.array([-np.inf, -edge, -edge / 2, 0, edge / 2, edge, np.inf], dtype)
    gates = cell.gates(to(library, np.concatenate([a, a, np.zeros(14, dtype)])))
    np.testing.assert_allclose(gates.update_gate, [0, 0, 0.25, 0.5, 0.75, 1, 1], rtol=1e-7)
    assert gates.update_gate.dtype == dtype


@each_hard
def test_at_a_kink_the_slope_is_nought(library, kind):
    edge = HARD[kind]
    for bias, slope in ((-edge, 0), (edge, 0), (np.nextafter(edge, 0), 1 / (2 * edge)), (0, 1 / (2 * edge))):
        cell, params = constant_lstm([bias, 0, 2, 0], library, gate_activation=kind, **RELU)
        history = lstmx.record(cell, params, to(library, np.zeros((1, 1))))
        steps = lstmx.linearise(history)
        np.testing.assert_allclose(np.asarray(steps.slopes.input), 2 * slope)
    cell, params = constant_lstm([0, 0, 0, 0], library, **RELU)
    steps = lstmx.linearise(lstmx.record(cell, params, to(library, np.zeros((1, 1)))))
    for slope in (steps.slopes.candidate, steps.slopes.readout):
        np.testing.assert_array_equal(slope, [[0]])


def test_what_is_not_a_number_stays_none(library):
    for cell in (
        lstmx.SimpleRNN(1, 1, activation="relu"),
        lstmx.LSTM(1, 1, gate_activation="hard_sigmoid", **RELU),
    ):
        assert np.isnan(np.asarray(cell.gates(to(library, np.full(4, np.nan)))[0])).all()


# --------------------------------------------------------------------------------------------------- autodiff


def plain_lstm(cell, params, xs, state):
    """Outputs of a plain scan in jax.numpy."""
    gate = GATES[cell.gate_activation]
    phi, psi = (
        jnp.tanh if kind == "tanh" else jax.nn.relu for kind in (cell.candidate_activation, cell.output_activation)
    )

    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ params.input_kernel + h @ params.recurrent_kernel + params.bias, 4, axis=-1)
        c = gate(f) * c + gate(i) * phi(g)
        h = gate(o) * psi(c)
        return (h, c), h

    return jax.lax.scan(step, tuple(state), xs)[1]


def plain_gru(cell, params, xs, state):
    gate, phi = GATES[cell.gate_activation], jnp.tanh if cell.candidate_activation == "tanh" else jax.nn.relu

    def step(h, x):
        r, z, n = jnp.split(x @ params.input_kernel + params.bias, 3, axis=-1)
        if cell.reset == "after":
            u_r, u_z, q = jnp.split(h @ params.recurrent_kernel, 3, axis=-1)
            n = n + gate(r + u_r) * (q + params.candidate_bias)
        else:
            u_r, u_z = jnp.split(h @ params.recurrent_kernel[:, : 2 * h.shape[-1]], 2, axis=-1)
            n = n + (gate(r + u_r) * h) @ params.recurrent_kernel[:, 2 * h.shape[-1] :]
        kept = gate(z + u_z)
        h = (1 - kept) * phi(n) + kept * h
        return h, h

    return jax.lax.scan(step, state.hidden, xs)[1]


WIDE = {
    "LSTM, ReLU": lstmx.LSTM(40, 60, **RELU),
    "LSTM, ReLU, hard": lstmx.LSTM(40, 60, gate_activation="hard_sigmoid", **RELU),
    "LSTM, hard 0.2": lstmx.LSTM(40, 60, gate_activation="hard_sigmoid_0.2"),
    "GRU, ReLU, hard": lstmx.GRU(40, 60, candidate_activation="relu", gate_activation="hard_sigmoid"),
    "GRU before, hard 0.2": lstmx.GRU(40, 60, "before", gate_activation="hard_sigmoid_0.2"),
}


def drawn(cell, length=8, seed=0):
    """Weights with which a part of the gates is flat, and none is at a kink."""
    draws = np.random.default_rng(seed)
    scale = 2 / np.sqrt(cell.input_size + cell.hidden_size)
    shapes = cell.parameter_shapes()
    params = type(shapes)(*(draws.normal(0, scale, shape) for shape in shapes))
    state = cell.state_type(*(draws.normal(size=(2, cell.hidden_size)) for _ in cell.state_type._fields))
    xs = draws.normal(size=(length, 2, cell.input_size))
    return params, xs, state, draws.normal(size=(length, 2, cell.hidden_size))


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_outputs_and_gradients_are_those_of_autodiff_of_a_plain_scan(name):
    cell = WIDE[name]
    params, xs, state, weights = drawn(cell)
    plain = plain_lstm if isinstance(cell, lstmx.LSTM) else plain_gru

    def of_plain(params, xs, state):
        outputs = plain(cell, params, xs, state)
        return (outputs * weights).sum(), outputs

    given = to("jax", (params, xs, state))
    expected, outputs = jax.jit(jax.grad(of_plain, argnums=(0, 1, 2), has_aux=True))(*given)
    history = lstmx.record(cell, params, xs, state)
    if cell.gate_activation != "sigmoid":
        flat = np.concatenate([np.ravel(getattr(history, gate)) for gate in cell.gate_names])
        assert 0.02 < ((flat == 0) | (flat == 1)).mean() < 0.5
    assert_close(history.outputs, outputs, 1e-12)
    backward = lstmx.backward(history, weights)
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    found = jax.tree.map(lambda x: np.asarray(x) / scale, (backward.parameters, backward.inputs, backward.initial))
    assert_close(found, jax.tree.map(lambda x: np.asarray(x) / scale, expected), 1e-13)

    def of_run(params, xs, state, how):
        return (lstmx.run(cell, params, xs, state, differentiation=how)[0] * weights).sum()

    for how in ("pullback", "autodiff"):
        made = jax.jit(jax.grad(of_run, argnums=(0, 1, 2)), static_argnums=3)(*given, how)
        assert_close(
            jax.tree.map(lambda x: x / scale, made), jax.tree.map(lambda x: np.asarray(x) / scale, expected), 1e-13
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM, ReLU, hard", "GRU, ReLU, hard"])
def test_a_gradient_flow_is_that_of_autodiff(library, name):
    """The norm of ∂L/∂s_t from the plain scan that starts after step t."""
    cell = WIDE[name]
    params, xs, state, weights = drawn(cell)
    plain = plain_lstm if isinstance(cell, lstmx.LSTM) else plain_gru
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    flow = lstmx.gradient_flow(history, to(library, weights))

    def rest(state, xs, weights):
        return (plain(cell, params, xs, state) * weights).sum()

    states = history.to_numpy().states
    for t in (0, 3, 6):
        here = jax.tree.map(lambda x, t=t: jnp.asarray(x[t]), states)
        found = jax.grad(rest)(here, jnp.asarray(xs[t + 1 :]), jnp.asarray(weights[t + 1 :]))
        found = found._replace(hidden=found.hidden + weights[t])
        norm = np.sqrt(sum((np.asarray(x) ** 2).sum(axis=-1) for x in found))
        np.testing.assert_allclose(flow.log_norm[t], np.log(norm), rtol=1e-11, atol=1e-12)


# -------------------------------------------------------------------------------------------------- flat gates


@pytest.mark.slow
@each_hard
def test_nothing_flows_along_a_gate_that_is_closed(library, kind):
    cell, params = constant_lstm([0, -4, 1, 0], library, gate_activation=kind)
    start = to(library, lstmx.LSTMState(np.ones(1), np.full(1, 5.0)))
    history = lstmx.record(cell, params, to(library, np.zeros((6, 1))), start)
    np.testing.assert_array_equal(history.log_forget, np.full((6, 1), -np.inf))
    np.testing.assert_array_equal(lstmx.highway(history), [-np.inf])
    flow = lstmx.gradient_flow(history)
    np.testing.assert_array_equal(flow.log_norm[:-1], np.full(5, -np.inf))
    assert np.isfinite(np.asarray(flow.log_norm[-1]))
    assert np.isneginf(np.asarray(lstmx.lyapunov_spectrum(history, 2, transient=0).exponents)).all()
    kernel = lstmx.gate_kernel(history, 5)[0]
    np.testing.assert_array_equal(kernel, [0, 0, 0, 0, 0, 1])
    statistics = lstmx.gate_statistics(history)
    assert_close(
        (statistics.timescale, statistics.timescale_arithmetic, statistics.half_life), (np.zeros(1),) * 3, 0
    )
    assert float(statistics["forget_gate"].left[0]) == 1
    summary = lstmx.summarise(cell, params, to(library, np.zeros((6, 1))))
    assert_close((summary.timescale, summary.timescale_arithmetic), (np.zeros(1),) * 2, 0)


def test_a_gate_kernel_without_an_output_gate_stops_at_a_closed_forget_gate(library):
    cell = lstmx.LSTM(1, 1, output_gate=False, gate_activation="hard_sigmoid")
    params = lstmx.LSTMParams(np.array([[0.0, 1.0, 0.0]]), np.zeros((1, 3)), np.array([0.0, 0.0, 1.0]))
    history = lstmx.record(cell, *to(library, (params, np.array([[0.0], [-9.0], [0.0], [0.0]]))))
    np.testing.assert_allclose(lstmx.gate_kernel(history, 3), [[0, 1 / 7, 2 / 7, 4 / 7]], rtol=1e-14)


@pytest.mark.sample(3)
@each_hard
def test_a_gate_that_is_open_keeps_the_state_for_ever(library, kind):
    cell, params = constant_lstm([-4, 3, 1, 0], library, gate_activation=kind)
    history = lstmx.record(
        cell, params, to(library, np.zeros((6, 1))), to(library, lstmx.LSTMState(np.ones(1), np.full(1, 0.5)))
    )
    np.testing.assert_array_equal(history.cell_state, np.full((6, 1), 0.5))
    np.testing.assert_array_equal(history.log_forget, np.zeros((6, 1)))
    np.testing.assert_array_equal(lstmx.highway(history), [0])
    np.testing.assert_array_equal(lstmx.gate_statistics(history).timescale, [np.inf])


@each_hard
def test_the_log_of_a_hard_gate_keeps_its_digits_near_nought_and_one(library, kind):
    edge, tiny = HARD[kind], 2.0**-40
    cell, params = constant_lstm([edge - tiny, tiny - edge, 0, 0], library, gate_activation=kind)
    history = lstmx.record(cell, params, to(library, np.zeros((1, 1))))
    np.testing.assert_allclose(history.log_gate("input_gate"), [[-tiny / (2 * edge)]], rtol=1e-11)
    np.testing.assert_allclose(history.log_forget, [[np.log(tiny / (2 * edge))]], rtol=1e-14)


@pytest.mark.sample(1)
@each_hard
def test_a_single_closed_step_ends_the_time_scale_but_not_the_arithmetic_one(library, kind):
    cell, params = constant_lstm([0, 0, 1, 0], library, gate_activation=kind)
    params = params._replace(input_kernel=to(library, np.array([[0.0, 1.0, 0.0, 0.0]])))
    xs = np.zeros((8, 1))
    xs[3] = -10
    for found in (
        lstmx.gate_statistics(lstmx.record(cell, params, to(library, xs))),
        lstmx.summarise(cell, params, to(library, xs)),
        lstmx.summarise(lstmx.Zoneout(cell, hidden=0.0, state=0.0), params, to(library, xs), key=0),
    ):
        np.testing.assert_array_equal(found.timescale, [0])
        np.testing.assert_allclose(found.timescale_arithmetic, [-1 / np.log(7 / 16)], rtol=1e-13)
    resets = np.arange(8) == 3  # what starts there has nothing to keep
    found = lstmx.summarise(cell, params, to(library, xs), resets=to(library, resets))
    np.testing.assert_allclose(found.timescale, [1 / np.log(2)], rtol=1e-13)


@pytest.mark.slow
def test_where_a_gate_is_closed_its_log_has_the_derivative_nought():
    cell, params = constant_lstm([0, -4, 1, 0], "jax", gate_activation="hard_sigmoid")
    made = jax.grad(lambda params: lstmx.record(cell, params, jnp.zeros((2, 1))).log_forget.sum())(params)
    np.testing.assert_array_equal(made.bias, np.zeros(4))


def test_a_report_and_a_file_take_such_cells(tmp_path):
    cell = lstmx.LSTM(3, 4, gate_activation="hard_sigmoid", candidate_activation="relu")
    draws = np.random.default_rng(0)
    params = lstmx.LSTMParams(*(draws.normal(0, 0.7, shape) for shape in cell.parameter_shapes()))
    history = lstmx.record(cell, params, draws.normal(size=(120, 3)))
    assert (np.asarray(history.forget_gate) == 0).any()
    report = lstmx.memory_report(history, lags=20)
    assert report["highway, geometric"].value == 0
    assert "highway" in str(report)
    lstmx.save(tmp_path / "cell.safetensors", cell, params)
    assert lstmx.load(tmp_path / "cell.safetensors", "numpy")[0] == cell
    assert repr(cell) == (
        "LSTM(input_size=3, hidden_size=4, candidate_activation='relu', gate_activation='hard_sigmoid')"
    )


# ---------------------------------------------------------------------------------- initial values, critical gains


@each_hard
def test_schemes_give_a_hard_gate_the_retention_that_they_give_a_sigmoid_one(kind):
    for scheme in (lstmx.schemes.chrono(100), lstmx.schemes.uniform_gates()):
        gates = []
        for name in (kind, "sigmoid"):
            cell = lstmx.LSTM(2, 5, gate_activation=name)
            params = cell.init(np.random.default_rng(0), "float64", scheme=scheme)
            history = lstmx.record(cell, params, np.zeros((1, 2)))
            gates.append((history.forget_gate, history.input_gate))
        assert_close(gates[0], gates[1], 1e-13)
    gru = lstmx.GRU(2, 5, gate_activation=kind)
    kept, expected = (
        lstmx.record(
            one, one.init(np.random.default_rng(0), "float64", lstmx.schemes.chrono(100)), np.zeros((1, 2))
        )
        for one in (gru, lstmx.GRU(2, 5))
    )
    assert_close(kept.update_gate, expected.update_gate, 1e-13)


@each_hard
def test_a_forget_bias_is_stored_as_it_is_and_so_is_that_of_keras(kind):
    cell = lstmx.LSTM(2, 3, gate_activation=kind)
    for scheme in ((), lstmx.schemes.unit_forget_bias(), lstmx.schemes.defaults_of("keras")):
        params = cell.init(np.random.default_rng(0), "float64", scheme=scheme)
        np.testing.assert_array_equal(params.bias[3:6], 1)
    history = lstmx.record(cell, params, np.zeros((1, 2)))
    np.testing.assert_allclose(history.forget_gate, np.full((1, 3), (1 + HARD[kind]) / (2 * HARD[kind])))


@each_hard
def test_critical_gains_are_those_of_the_hard_gates(kind):
    edge = HARD[kind]

    def gate(bias):
        return min(1, max(0, bias / (2 * edge) + 0.5))

    cell = lstmx.LSTM(1, 2, gate_activation=kind)
    gain = lstmx.critical_gain(cell, forget_bias=1.0, input_gate=-0.5, output_gate=0.75)
    np.testing.assert_allclose(gain, (1 - gate(1)) / (gate(-0.5) * gate(0.75)), rtol=1e-14)
    coupled = lstmx.LSTM(1, 2, coupled=True, gate_activation=kind)
    np.testing.assert_allclose(lstmx.critical_gain(coupled, output_gate=0.5), 1 / gate(0.5), rtol=1e-14)
    gru = lstmx.GRU(1, 2, gate_activation=kind)
    np.testing.assert_allclose(lstmx.critical_gain(gru, reset_gate=1.0, update_gate=2.0), 1 / gate(1), rtol=1e-13)
    assert lstmx.critical_gain(cell, forget_bias=4.0) == 0
    assert lstmx.critical_gain(cell, input_gate=-4.0) == np.inf
    for one, biases in ((cell, {"forget_gate": 4.0, "output_gate": -4.0}), (gru, {"update_gate": 4.0})):
        with pytest.raises(ValueError, match="gates of exactly 0 or 1 keep the zero state as it is at every gain"):
            lstmx.critical_gain(one, **biases)


@each_hard
def test_at_the_critical_gain_of_hard_gates_the_zero_state_has_an_eigenvalue_of_one(kind):
    for cell in (lstmx.LSTM(2, 3, gate_activation=kind), lstmx.GRU(2, 3, "before", gate_activation=kind)):
        params = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
        at = cell.layout.blocks.index("candidate") * 3
        params.recurrent_kernel[:, at : at + 3] = lstmx.critical_gain(
            cell, **({"forget_bias": 0.0} if isinstance(cell, lstmx.LSTM) else {})
        ) * np.eye(3)
        history = lstmx.record(cell, params, np.zeros((1, 2)))
        assert np.abs(np.linalg.eigvals(lstmx.jacobians(history)[0])).max() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    "cell",
    [
        lstmx.LSTM(2, 3, candidate_activation="relu"),
        lstmx.LSTM(2, 3, output_activation="relu"),
        lstmx.GRU(2, 3, candidate_activation="relu"),
    ],
    ids=repr,
)
def test_relu_has_no_critical_gain(cell):
    with pytest.raises(ValueError, match=r"activation='relu'\) has no derivative at zero"):
        lstmx.critical_gain(cell)


@pytest.mark.parametrize(
    ("cell", "bounded"),
    [
        (lstmx.LSTM(2, 3), True),
        (lstmx.LSTM(2, 3, candidate_activation="relu"), True),  # h is bounded by tanh, and so is g
        (lstmx.LSTM(2, 3, output_activation="relu"), False),
        (lstmx.LSTM(2, 3, gate_activation="hard_sigmoid"), False),
        (lstmx.LSTM(2, 3, coupled=True, gate_activation="hard_sigmoid_0.2"), True),
        (lstmx.GRU(2, 3, gate_activation="hard_sigmoid"), True),
        (lstmx.GRU(2, 3, candidate_activation="relu"), False),
    ],
)
def test_a_state_is_bounded_where_no_gate_can_keep_all_of_a_growing_one(cell, bounded):
    assert cell.bounded is bounded


# ------------------------------------------------------------------------------------------------------ refusals


def test_other_words_are_refused_by_name():
    for kind in (lstmx.LSTM, lstmx.GRU):
        with pytest.raises(
            ValueError, match="gate_activation is 'hard'; expected one of 'sigmoid', 'hard_sigmoid'"
        ):
            kind(2, 3, gate_activation="hard")
    with pytest.raises(ValueError, match="candidate_activation is 'identity'; expected one of 'tanh', 'relu'"):
        lstmx.GRU(2, 3, candidate_activation="identity")


@pytest.mark.parametrize(
    "kind", [lstmx.JANET, lstmx.MGU, lstmx.MinLSTM, lstmx.MinGRU, lstmx.SLSTM, lstmx.SimpleRNN]
)
def test_other_cells_say_which_have_the_option(kind):
    with pytest.raises(
        TypeError, match=f"'hard_sigmoid'; LSTM and GRU have this option, and a {kind.__name__} has"
    ):
        kind(2, 3, gate_activation="hard_sigmoid")


@pytest.mark.parametrize(
    "cell", [lstmx.LSTM(2, 3, **RELU), lstmx.GRU(2, 3, gate_activation="hard_sigmoid")], ids=repr
)
@pytest.mark.parametrize("name", ["torch", "haiku", "equinox"])
def test_frameworks_that_cannot_express_the_options_refuse_them(cell, name):
    with pytest.raises(ValueError, match="cannot express"):
        getattr(lstmx.convert, f"to_{name}")(cell, cell.init(0))


# --------------------------------------------------------------------------------------------------------- Keras


@pytest.mark.slow  # a framework to import
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of theirs, while they load
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU before"])
def test_an_output_is_that_of_keras(kind, activation, gate):
    keras = pytest.importorskip("keras", reason="compares with Keras")
    draws = np.random.default_rng(0)
    name, *before = kind.split()
    options = {"reset_after": not before} if name == "GRU" else {}
    layer = getattr(keras.layers, name)(
        60, activation=activation, recurrent_activation=gate, return_sequences=True, **options
    )
    layer.build((2, 6, 40))
    weights = [draws.normal(0, 0.15, x.shape).astype("float32") for x in layer.get_weights()]
    layer.set_weights(weights)
    xs = draws.normal(size=(2, 6, 40)).astype("float32")
    cell, params = lstmx.convert.from_keras(layer)
    assert (cell.candidate_activation, cell.gate_activation) == (activation, gate)
    outputs = lstmx.run(cell, params, np.moveaxis(xs, 1, 0))[0]
    for expected in (layer(xs), lstmx.convert.to_keras(cell, params)(xs)[0]):
        close = {"rtol": 1e-6, "atol": 1e-6 * np.abs(np.asarray(expected)).max()}
        np.testing.assert_allclose(np.moveaxis(outputs, 0, 1), np.asarray(expected), **close)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "cell", "words"),
    [
        (
            "keras",
            lstmx.GRU(2, 3, gate_activation="hard_sigmoid_0.2"),
            "it has .* with tanh or relu or identity and",
        ),
        (
            "keras",
            lstmx.LSTM(2, 3, candidate_activation="relu"),
            "one activation for the candidate and the output",
        ),
        ("flax", lstmx.LSTM(2, 3, candidate_activation="relu"), "one activation for the candidate and the output"),
        (
            "onnx",
            lstmx.LSTM(2, 3, output_activation="identity"),
            "it has .* with tanh or relu and sigmoid or hard_",
        ),
    ],
)
def test_activations_that_one_framework_has_not(name, cell, words):
    with pytest.raises(ValueError, match=words):
        getattr(lstmx.convert, f"to_{name}")(cell, cell.init(0))


@pytest.mark.slow  # a framework to import
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "hard_sigmoid_0.2"])
@pytest.mark.parametrize(
    "cell",
    [lstmx.LSTM(40, 60, **RELU), lstmx.GRU(40, 60, candidate_activation="relu"), lstmx.SimpleRNN(40, 60, "relu")],
    ids=repr,
)
def test_a_module_of_flax_computes_the_same(cell, gate):
    nnx = pytest.importorskip("flax.nnx", reason="compares with Flax")
    if not isinstance(cell, lstmx.SimpleRNN):
        cell = dataclasses.replace(cell, gate_activation=gate)
    params = cell.init(0)
    xs = np.random.default_rng(0).normal(size=(6, 2, 40)).astype("float32")
    outputs = lstmx.run(cell, params, xs)[0]
    module = lstmx.convert.to_flax(cell, params, kind="nnx")
    expected = nnx.RNN(module, time_major=True)(xs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6 * np.abs(np.asarray(expected)).max())
    assert lstmx.convert.from_flax(module)[0] == cell
    words = {"activation": "relu"} | ({"gate_activation": gate} if not isinstance(cell, lstmx.SimpleRNN) else {})
    assert lstmx.convert.from_flax(lstmx.convert.to_flax(cell, params), **words)[0] == cell


# ---------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.slow  # a framework to import
@pytest.mark.parametrize(
    ("words", "scales", "options"),
    [
        (["HardSigmoid", "Relu", "Relu"], {}, {"gate_activation": "hard_sigmoid_0.2", **RELU}),
        (["Sigmoid", "Tanh", "Relu"], {}, {"output_activation": "relu"}),
        (
            ["HardSigmoid", "Relu", "Tanh"],
            {"activation_alpha": [1 / 6], "activation_beta": [0.5]},
            {"gate_activation": "hard_sigmoid", "candidate_activation": "relu"},
        ),
        (["HardSigmoid", "Relu"], {}, {"gate_activation": "hard_sigmoid_0.2", "candidate_activation": "relu"}),
        (["HardSigmoid", "Tanh"], {"activation_alpha": [1 / 6]}, {"gate_activation": "hard_sigmoid"}),
    ],
)
def test_an_output_is_that_of_onnx(words, scales, options):
    onnx = pytest.importorskip("onnx", reason="compares with ONNX")
    runtime = pytest.importorskip("onnxruntime", reason="compares with ONNX")
    plain = (lstmx.LSTM if len(words) == 3 else lstmx.GRU)(40, 60)
    draws = np.random.default_rng(0)
    params = type(plain.parameter_shapes())(
        *(draws.normal(0, 0.15, shape).astype("float32") for shape in plain.parameter_shapes())
    )
    model = lstmx.convert.to_onnx(plain, params)
    attributes = {"activations": words, **scales}
    model.graph.node[0].attribute.extend(onnx.helper.make_attribute(*pair) for pair in attributes.items())
    cell, read = lstmx.convert.from_onnx(model)
    assert cell == type(plain)(40, 60, **options)
    assert lstmx.convert.from_onnx(lstmx.convert.to_onnx(cell, read))[0] == cell
    xs = draws.normal(size=(6, 2, 40)).astype("float32")
    start = {name: np.zeros((1, 2, 60), "float32") for name in ("h", "c")[: len(words) - 1]}
    outputs = lstmx.run(cell, read, xs)[0]
    for one in (model, lstmx.convert.to_onnx(cell, read)):
        made = runtime.InferenceSession(one.SerializeToString()).run(["Y"], {"X": xs, **start})[0][:, 0]
        np.testing.assert_allclose(outputs, made, rtol=1e-6, atol=1e-6 * np.abs(made).max())

"""Every cell and option: equations, derivatives and analyses, against what shares no code with them."""

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, draw_state, inner, linear_step, to

import lstmx

CELLS = family.of_size(3, 4)

each = pytest.mark.parametrize("name", family.NAMES)
each_new = pytest.mark.parametrize("name", family.NEW)
each_form = pytest.mark.parametrize(
    "name", [*family.FORMS, "no gates", "FGR, ReLU, hard", "MGU", "MinLSTM", "MinGRU", "SLSTM"]
)


@each
def test_a_pass_follows_the_equations(name):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, length=6)
    history = lstmx.record(cell, params, xs, state)
    for t, x in enumerate(xs):
        state, activations = family.equations(cell, params, state, x)
        assert_close(jax.tree.map(lambda field, t=t: field[t], history.states), state, 1e-14)
        for gate, value in activations.items():
            np.testing.assert_allclose(getattr(history, gate)[t], value, rtol=1e-13, atol=1e-14)


@pytest.mark.sample(3)
@each
def test_one_step_back_and_forward_is_the_one_of_autodiff(name):
    cell = CELLS[name]
    params, before, x, draws = family.draw(cell, (2,))
    linear = linear_step(cell, params, before, x)[2]
    v = draw_state(cell, draws, (2,))
    u = draws.normal(size=x.shape)

    def step(*args):
        return cell.step(*args)[0]

    @jax.jit
    def oracle(params, before, x, v, u):
        still = jax.tree.map(jnp.zeros_like, params)
        pull = jax.vjp(step, params, before, x)[1](v)
        return pull, jax.jvp(step, (params, before, x), (still, v, u))[1]

    (d_params, d_before, d_x), pushed = oracle(params, before, x, v, u)
    back, d_a = linear.vjp(cell.pack(v))
    found = linear.parameter_vjp(d_a), cell.unpack(back), linear.input_vjp(d_a)
    assert_close(found, (d_params, d_before, d_x), 1e-13)
    assert_close(linear.jvp(cell.pack(v), u), cell.pack(pushed), 1e-13)


@each
def test_the_ways_back_and_the_straight_way_make_up_the_pull(name):
    cell = CELLS[name]
    params, before, x, draws = family.draw(cell, (3,), seed=1)
    step = linear_step(cell, params, before, x)[2]
    v = draws.normal(size=(3, cell.state_size))
    pulled, d_a = step.vjp(v)
    assert_same(step.drive_vjp(v), d_a)
    ways = step.by_gate(d_a)
    assert list(ways) == list(cell.way_names)
    assert_close(sum(ways.values()) + step.along_state(v), pulled, 1e-14)


@each
def test_jacobians_determinants_and_newton_steps_agree_with_each_other(name):
    cell = CELLS[name]
    params, before, x, draws = family.draw(cell, (2,), seed=2)
    step = linear_step(cell, params, before, x)[2]
    v, u = draws.normal(size=(2, cell.state_size)), draws.normal(size=x.shape)
    whole, of_input = step.matrices(), step.input_matrices()
    np.testing.assert_allclose(_times(whole, v) + _times(of_input, u), step.jvp(v, u), atol=1e-13)
    closed = step.log_determinant()
    if closed is not None:
        np.testing.assert_allclose(np.exp(closed), np.abs(np.linalg.det(whole)), rtol=1e-9, atol=1e-25)
    move = step.newton_step(v)
    regular = np.linalg.cond(np.eye(cell.state_size) - whole) < 1e6  # an SLSTM's m may drift
    left = (move - _times(whole, move))[regular]
    np.testing.assert_allclose(left, v[regular], atol=1e-11)


def _times(matrices, vectors):
    return np.einsum("bij,bj->bi", matrices, vectors)


@pytest.mark.slow
@each_form
def test_gradients_of_a_run_are_those_of_autodiff_in_both_libraries(name):
    cell = CELLS[name]
    params, state, xs, draws = family.draw(cell, (2,), length=5, seed=3)
    weights = draws.normal(size=(5, 2, cell.output_size))
    given = to("jax", (params, xs, state))

    def gradient(**options):
        def loss(params, xs, state):
            outputs, final = lstmx.run(cell, params, xs, state, **options)
            return (outputs * weights).sum() + sum((field**2).sum() for field in final)

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*given)

    expected = gradient(differentiation="autodiff")
    assert_close(gradient(chunk=2), expected, 1e-12)  # chunks rebuilt from outputs
    history = lstmx.record(cell, params, xs, state, keep="states")
    final = jax.tree.map(lambda x: 2 * x, history.final)
    backward = lstmx.backward(history, weights, final)
    assert_close((backward.parameters, backward.inputs, backward.initial), expected, 1e-12)


@pytest.mark.slow
@each_form
def test_an_analysis_in_numpy_is_the_one_in_jax(name):
    cell = CELLS[name]
    params, state, xs, draws = family.draw(cell, (2,), length=6, seed=4)
    loss = draws.normal(size=(6, 2, cell.output_size))
    both = [lstmx.record(cell, *to(library, (params, xs, state))) for library in ("numpy", "jax")]
    assert_close(both[1], both[0], 1e-13)
    flows = [
        lstmx.gradient_flow(history, to(which, loss))
        for history, which in zip(both, ("numpy", "jax"), strict=True)
    ]
    assert_close(flows[1], flows[0], 1e-11)
    backward = lstmx.backward(both[0], loss)
    assert_close((flows[0].parameters, flows[0].inputs), (backward.parameters, backward.inputs), 1e-12)
    assert set(flows[0].gates) == {*cell.way_names, *({"straight"} if cell.retention_gate else set())}
    shares = sum(np.asarray(way.share) for way in flows[0].gates.values())
    np.testing.assert_allclose(shares, 1, atol=1e-12)


@each_new
def test_profile_and_alignment_are_those_of_each_step_s_own_gradient(name):
    cell = CELLS[name]
    params, state, xs, draws = family.draw(cell, length=5, seed=5)
    loss = draws.normal(size=(5, cell.output_size))
    history = lstmx.record(cell, params, xs, state)
    flow = lstmx.gradient_flow(history, loss)
    kernel = "recurrent_kernel" if "recurrent_kernel" in params._fields else "input_kernel"
    whole = getattr(flow.parameters, kernel)
    cotangent = cell.initial_state(params)
    for t in reversed(range(5)):
        step = history[t : t + 1]
        direct = np.concatenate([loss[t : t + 1]])
        here = lstmx.backward(step, direct, cotangent)
        own = getattr(here.parameters, kernel)
        np.testing.assert_allclose(flow.log_parameter_profile[t], np.log(np.linalg.norm(own)), rtol=1e-11)
        cosine = inner(own, whole) / np.linalg.norm(own) / np.linalg.norm(whole)
        np.testing.assert_allclose(flow.parameter_alignment[t], cosine, atol=1e-12)
        cotangent = here.initial
    assert_close(flow.initial, cotangent, 1e-12)


@pytest.mark.sample(12)
@each_new
def test_exponents_of_a_pass_are_those_of_its_jacobians(name):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, length=40, seed=6)
    history = lstmx.record(cell, params, xs, state)
    options = {"count": 2, "transient": 0, "reorthonormalise": 1}
    expected = lstmx.lyapunov_spectrum(lstmx.jacobians(history), **options).exponents
    np.testing.assert_allclose(lstmx.lyapunov_spectrum(history, **options).exponents, expected, atol=1e-11)


@each_new
def test_statistics_read_the_gates_that_the_history_shows(name):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, (2,), length=8, seed=7)
    history = lstmx.record(cell, params, xs, state)
    statistics = lstmx.gate_statistics(history)
    for gate in cell.gate_names:
        values = getattr(history, gate)
        np.testing.assert_allclose(statistics[gate].mean, values.mean(axis=(0, 1)), atol=1e-13)
        with np.errstate(divide="ignore"):  # a hard gate may be 0
            np.testing.assert_allclose(history.log_gate(gate), np.log(values), atol=1e-12)
    with np.errstate(divide="ignore"):
        kept = np.log(getattr(history, cell.retention_gate))
        np.testing.assert_allclose(statistics.timescale, 1 / np.abs(kept.mean(axis=(0, 1))), rtol=1e-11)
    np.testing.assert_allclose(lstmx.highway(history), kept.sum(axis=0), atol=1e-12)


@each_new
def test_pieces_of_a_pass_continue_it(name):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, length=7, seed=8)
    whole = lstmx.record(cell, params, xs, state)
    first = lstmx.record(cell, params, xs[:3], state)
    second = lstmx.record(cell, params, xs[3:], first.final)
    assert_same(lstmx.History.concatenate(first, second), whole)
    assert_same(lstmx.run(cell, params, xs[3:], first.final), (whole.hidden_state[3:], whole.final))


@pytest.mark.sample(1)
@each_form
def test_vmap_over_sequences_is_the_batched_call(name):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, (2, 1), length=4, seed=9)
    params, xs, state = to("jax", (params, xs, state))
    over_both = jax.vmap(
        jax.vmap(lambda xs, state: lstmx.run(cell, params, xs, state), (1, 0), (1, 0)), (1, 0), (1, 0)
    )
    assert_close(over_both(xs, state), lstmx.run(cell, params, xs, state), 1e-14)


@each
def test_one_unit_and_one_step_in_float32(name):
    cell = family.of_size(1, 1)[name]
    params = cell.init(np.random.default_rng(0))
    history = lstmx.record(cell, params, np.ones((1, 1), "float32"))
    assert history.hidden_state.shape == (1, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(history)} == {np.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(lstmx.backward(history, np.ones((1, 1), "float32")))} == {
        np.dtype("float32")
    }


@each
def test_a_saved_cell_comes_back_with_its_options(name, tmp_path):
    cell = CELLS[name]
    params, _, _, _ = family.draw(cell, seed=10)
    lstmx.save(tmp_path / "cell.safetensors", cell, params)
    loaded, back = lstmx.load(tmp_path / "cell.safetensors", "numpy")
    assert loaded == cell
    assert_same(back, params)


def test_blocks_of_a_jacobian_are_named_by_two_states():
    cell = CELLS["FGR"]
    params, state, xs, _ = family.draw(cell, length=3)
    history = lstmx.record(cell, params, xs, state)
    whole = lstmx.jacobians(history)
    assert_same(lstmx.jacobians(history, "cell_input_gate"), whole[:, 4:8, 8:12])
    assert_same(lstmx.jacobians(history, "output_gate_hidden"), whole[:, 16:20, :4])


# ------------------------------------------------------------------------------------------------ closed forms


def test_without_a_forget_gate_the_cell_state_is_carried_whole():
    cell = lstmx.LSTM(2, 3, forget_gate=False)
    params = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
    history = lstmx.record(cell, params, np.ones((50, 2)))
    assert_same(np.asarray(lstmx.jacobians(history, "cell_cell")), np.broadcast_to(np.eye(3), (50, 3, 3)))
    assert_same(lstmx.highway(history), np.zeros(3))
    assert np.isposinf(lstmx.gate_statistics(history).timescale).all()
    assert_same(history.log_forget, np.zeros((50, 3)))


def test_coupled_gates_with_zero_weights_move_the_cell_state_by_halves():
    cell = lstmx.LSTM(2, 3, forget_bias=0.0, coupled=True)
    params = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
    start = cell.state_type(np.zeros(3), np.array([1.0, -2.0, 4.0]))
    history = lstmx.record(cell, params, np.ones((4, 2)), start)
    np.testing.assert_array_equal(history.cell_state, start.cell * 0.5 ** np.arange(1, 5)[:, None])
    np.testing.assert_allclose(lstmx.gate_statistics(history).timescale, 1 / np.log(2))


@pytest.mark.slow
def test_without_peephole_weights_the_vanilla_lstm_is_the_one_without_peepholes():
    plain, vanilla = (lstmx.LSTM.variant(name, 3, 4) for name in ("NP", "V"))
    params = plain.init(0)
    peeping = vanilla.init(0)
    assert not np.any(np.asarray(peeping.peephole))
    xs = jnp.ones((5, 3), "float32")
    assert_same(lstmx.run(vanilla, peeping, xs), lstmx.run(plain, params, xs))


def test_the_minimal_gated_unit_is_a_gru_whose_gates_share_their_weights():
    unit, gru = lstmx.MGU(3, 4), lstmx.GRU(3, 4, reset="before")
    params, state, xs, _ = family.draw(unit, (2,), length=6)

    def widened(x):  # r = f, z = 1 − f
        f, n = x[..., :4], x[..., 4:]
        return np.concatenate([f, -f, n], axis=-1)

    as_gru = type(gru.parameter_shapes())(*map(widened, params))
    expected = lstmx.record(gru, as_gru, xs, gru.state_type(*state))
    history = lstmx.record(unit, params, xs, state)
    np.testing.assert_allclose(history.hidden_state, expected.hidden_state, atol=1e-14)
    np.testing.assert_allclose(lstmx.jacobians(history), lstmx.jacobians(expected), atol=1e-14)


@pytest.mark.parametrize(
    ("cell", "biases", "gain"),
    [
        (lstmx.LSTM(1, 2, input_gate=False, forget_bias=0.0), {}, 1.0),
        (lstmx.LSTM(1, 2, forget_gate=False), {}, 0.0),
        (lstmx.LSTM(1, 2, coupled=True), {}, 2.0),
        (lstmx.LSTM(1, 2, output_gate=False, forget_bias=0.0), {}, 1.0),
        (lstmx.MGU(1, 2), {"forget_gate": 0.0}, 2.0),
        (lstmx.JANET(1, 2, beta=0.0), {}, 1.0),
        (lstmx.JANET(1, 2, beta=1.0, forget_bias=1.0), {}, 2 / (1 + np.e)),
        (lstmx.GRU(1, 2, reset="before"), {}, 2.0),
    ],
)
def test_critical_gains_in_closed_form(cell, biases, gain):
    np.testing.assert_allclose(lstmx.critical_gain(cell, **biases), gain, rtol=1e-14)


@pytest.mark.parametrize("name", ["V", "NIG", "CIFG", "NOG", "MGU", "JANET", "GRU before"])
def test_at_the_critical_gain_the_zero_state_has_an_eigenvalue_of_one(name):
    cell = CELLS[name]
    params = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
    draws = np.random.default_rng(1)
    biases = {gate: draws.normal() for gate in cell.gate_blocks}
    bias = params.bias.copy()
    for gate, block in cell.gate_blocks.items():
        bias[4 * block : 4 * block + 4] = biases[gate]
    kernel = np.zeros_like(params.recurrent_kernel)
    at = cell.layout.blocks.index("candidate") * 4
    kernel[:, at : at + 4] = lstmx.critical_gain(cell, **biases) * np.eye(4)  # all its eigenvalues are the gain
    params = params._replace(bias=bias, recurrent_kernel=kernel)
    history = lstmx.record(cell, params, np.zeros((1, 3)))
    assert not np.any(history.hidden_state)
    values = np.linalg.eigvals(lstmx.jacobians(history)[0])
    np.testing.assert_allclose(np.abs(values).max(), 1, rtol=1e-12)


# --------------------------------------------------------------------------------------------- initial values


@pytest.mark.parametrize(
    ("cell", "block", "sign"),
    [
        (CELLS["V"], 1, 1),
        (CELLS["NIG"], 0, 1),
        (CELLS["CIFG"], 0, -1),
        (CELLS["MGU"], 0, -1),
        (CELLS["JANET"], 0, 1),
    ],
)
def test_a_scheme_sets_the_gate_that_keeps_the_state(cell, block, sign):
    bias = cell.init(np.random.default_rng(0), scheme=lstmx.schemes.unit_forget_bias(2.5)).bias
    np.testing.assert_array_equal(bias[4 * block : 4 * block + 4], sign * 2.5)
    chrono = cell.init(np.random.default_rng(0), scheme=lstmx.schemes.chrono(100))
    history = lstmx.record(cell, chrono, np.zeros((1, 3), "float32"))
    u = np.exp(sign * chrono.bias[4 * block : 4 * block + 4])
    np.testing.assert_allclose(getattr(history, cell.retention_gate)[0], u / (1 + u), rtol=1e-5)
    assert (u >= 1).all()
    assert (u <= 99).all()


def test_the_forget_bias_is_stored_where_the_forget_gate_reads_it():
    draw = {name: CELLS[name].init(np.random.default_rng(0)) for name in family.VARIANTS}
    assert all(draw[name].bias[4] == 1 for name in ("V", "NOG", "NIAF", "NOAF", "NP", "FGR"))
    assert draw["NIG"].bias[0] == 1
    assert draw["CIFG"].bias[0] == -1
    assert not draw["NFG"].bias.any()
    assert lstmx.JANET(3, 4, forget_bias=2.0).init(0).bias[0] == 2


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"coupled": True, "input_gate": False},
            ValueError,
            "coupled=True ties .* input_gate=False takes one away",
        ),
        ({"coupled": True, "forget_gate": False}, ValueError, "forget_gate=False takes one away"),
        ({"full_gate_recurrence": True, "coupled": True}, ValueError, "three gates of their own; coupled=True"),
        ({"full_gate_recurrence": True, "output_gate": False}, ValueError, "output_gate=False leaves fewer"),
        ({"peepholes": 1}, TypeError, "peepholes is 1; expected True or False"),
        ({"candidate_activation": "gelu"}, ValueError, "candidate_activation is 'gelu'; expected one of"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        lstmx.LSTM(3, 4, **options)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="name is 'LSTM'; expected one of 'V', 'NIG'"):
        lstmx.LSTM.variant("LSTM", 3, 4)
    with pytest.raises(ValueError, match="reset is 'inside'; expected one of 'after', 'before'"):
        lstmx.GRU(3, 4, reset="inside")
    with pytest.raises(ValueError, match="beta is nan; expected a finite number"):
        lstmx.JANET(3, 4, beta=float("nan"))


def test_analyses_say_what_a_cell_lacks():
    with pytest.raises(ValueError, match=r"unit_forget_bias sets the gate .* forget_gate=False.* has none"):
        CELLS["NFG"].init(0, scheme=lstmx.schemes.unit_forget_bias())
    with pytest.raises(ValueError, match="full gate recurrence has no closed form"):
        lstmx.critical_gain(CELLS["FGR"])
    params = CELLS["NP"].init(0)
    with pytest.raises(
        TypeError, match=r"params is a LSTMParams; LSTM.*peepholes=True.* expects LSTMVariantParams"
    ):
        lstmx.run(CELLS["V"], params, jnp.ones((2, 3)))
    variant = CELLS["V"].init(0)
    with pytest.raises(ValueError, match=r"params.gate_kernel is given; LSTM.* has none: expected None"):
        lstmx.run(CELLS["V"], variant._replace(gate_kernel=jnp.ones((12, 12))), jnp.ones((2, 3)))


def test_a_cell_is_shown_with_the_options_that_were_changed():
    assert repr(lstmx.LSTM(3, 4)) == "LSTM(input_size=3, hidden_size=4)"
    assert repr(CELLS["CIFG"]) == "LSTM(input_size=3, hidden_size=4, peepholes=True, coupled=True)"
    assert repr(CELLS["GRU before"]) == "GRU(input_size=3, hidden_size=4, reset='before')"

"""`jacobians`, `input_jacobians` and `isometry`: closed forms against autodiff and against published values."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_pass, is_in, lcg, lcg_params, random_history, to

import lstmx

BLOCKS = ["hidden_hidden", "hidden_cell", "cell_hidden", "cell_cell"]


def joint(state):
    return np.concatenate([np.asarray(x) for x in state], axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def autodiff(cell, params, flat, x):
    """∂s_t/∂s_{t-1} and ∂s_t/∂x_t of single steps, by jax.jacfwd of the step."""

    def one(flat, x):
        fields = (flat[k : k + cell.hidden_size] for k in range(0, len(flat), cell.hidden_size))
        return jnp.concatenate(cell.step(params, cell.state_type(*fields), x)[0])

    return jax.vmap(jax.jacfwd(one, argnums=(0, 1)))(flat, x)


@functools.cache
def largest(kind):
    """A history over batch axes (2, 3) in NumPy, and its Jacobians by state and by input."""
    history = random_history(kind, length=4, batch=(2, 3), features=3, hidden=4, seed=2)
    before = joint(history.before)
    made = autodiff(history.cell, history.params, before.reshape(24, -1), history.inputs.reshape(24, 3))
    return history, *(np.asarray(jacobian).reshape(4, 2, 3, *jacobian.shape[1:]) for jacobian in made)


@functools.cache
def example(kind, batch=()):
    """The same with the first of the sequences along the axes that are not in `batch`."""
    history, jacobians, by_input = largest(kind)
    first = (slice(None),) * len(batch) + (0,) * (2 - len(batch))
    initial = type(history.initial)(*(field[first] for field in history.initial))
    alone = lstmx.record(history.cell, history.params, history.inputs[:, *first], initial)
    return alone, jacobians[:, *first], by_input[:, *first]


def in_library(library, history):
    return to(library, history)


# ---------------------------------------------------------------------------------------------- against autodiff


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_jacobians_are_those_of_autodiff(kind, batch):
    history, expected, by_input = example(kind, batch)
    assert_close(lstmx.jacobians(history), expected, 1e-14)
    assert_close(lstmx.input_jacobians(history), by_input, 1e-14)


@pytest.mark.sample(2)
def test_jacobians_under_jax_are_those_of_autodiff(kind):
    history, expected, by_input = largest(kind)
    made = lstmx.jacobians(in_library("jax", history)), lstmx.input_jacobians(in_library("jax", history))
    assert is_in("jax", made)
    assert_close(made, (expected, by_input), 1e-14)


def test_a_history_of_states_alone_has_the_same_jacobians(kind):
    whole, states = (random_history(kind, keep=keep) for keep in ("all", "states"))
    assert_close(lstmx.jacobians(states), lstmx.jacobians(whole), 1e-14)
    assert_close(lstmx.input_jacobians(states), lstmx.input_jacobians(whole), 1e-14)
    assert_close(lstmx.isometry(states).singular_values, lstmx.isometry(whole).singular_values, 1e-14)


@pytest.mark.parametrize(("length", "hidden"), [(1, 4), (4, 1), (1, 1)])
def test_one_step_and_one_unit_are_enough(kind, length, hidden):
    history = random_history(kind, length=length, features=2, hidden=hidden)
    size = hidden * len(history.states)
    assert lstmx.jacobians(history).shape == (length, size, size)
    assert lstmx.input_jacobians(history).shape == (length, size, 2)
    assert_close(lstmx.jacobians(history), differences(history), 1e-8)
    values = lstmx.isometry(history)
    assert values.singular_values.shape == (length, size)
    assert_close(values.mean_square, (lstmx.jacobians(history) ** 2).sum(axis=(1, 2)) / size, 1e-14)


def differences(history, width=1e-5):
    """J_t by central differences of the step."""
    cell, params, before = history.cell, history.params, joint(history.before)

    def after(flat):
        fields = np.split(flat, len(history.states), axis=-1)
        return joint(cell.step(params, cell.state_type(*fields), history.inputs)[0])

    columns = [(after(before + u) - after(before - u)) / (2 * width) for u in width * np.eye(before.shape[-1])]
    return np.stack(columns, axis=-1)


def test_one_step_of_one_unit_is_enough_under_jax():
    history = random_history(lstmx.LSTM, "jax", length=1, hidden=1)
    assert_close(lstmx.jacobians(history), differences(history.to_numpy()), 1e-8)
    assert lstmx.input_jacobians(history).shape == (1, 2, 3)
    assert lstmx.isometry(history).mean_square.shape == (1,)


def test_float32_stays_float32(kind):
    history = random_history(kind, dtype="float32")
    assert lstmx.jacobians(history).dtype == "float32"
    assert lstmx.input_jacobians(history).dtype == "float32"
    double = random_history(kind, "numpy")
    assert_close(np.asarray(lstmx.jacobians(history), np.float64), lstmx.jacobians(double), 2e-6)


# -------------------------------------------------------------------------------------------------------- blocks


def test_blocks_are_slices_of_the_whole():
    history = example(lstmx.LSTM, (2,))[0]
    whole = lstmx.jacobians(history)
    rows = dict(zip(BLOCKS, [np.s_[:4, :4], np.s_[:4, 4:], np.s_[4:, :4], np.s_[4:, 4:]], strict=True))
    for name, rows_and_columns in rows.items():
        np.testing.assert_array_equal(lstmx.jacobians(history, name), whole[(..., *rows_and_columns)])


def test_the_cell_cell_block_is_the_forget_gate():
    history = example(lstmx.LSTM, (2,))[0]
    expected = history.gates.forget_gate[..., None] * np.eye(4)
    assert_close(lstmx.jacobians(history, "cell_cell"), expected, 1e-15)


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_a_cell_with_one_state_has_one_block(kind):
    history = example(kind)[0]
    np.testing.assert_array_equal(lstmx.jacobians(history, "hidden_hidden"), lstmx.jacobians(history))
    with pytest.raises(ValueError, match="block is 'cell_cell'; expected one of 'hidden_hidden'"):
        lstmx.jacobians(history, "cell_cell")


# ---------------------------------------------------------------------------------------------- published values


@functools.cache
def check_net():
    """V01's three units over six steps."""
    cell, params = lcg_params(lstmx.LSTM, 2, 3, 0.5)
    return lstmx.record(cell, params, np.sin(0.7 * np.arange(1, 13)).reshape(6, 2))


def test_the_check_net_has_the_known_jacobians():
    """V02: the product over all six steps, and the blocks and the determinant of the second."""
    history = check_net()
    jacobians = lstmx.jacobians(history)
    product = functools.reduce(lambda product, jacobian: jacobian @ product, jacobians)
    np.testing.assert_allclose(np.linalg.norm(product), 0.09734999345895592, rtol=1e-12)
    norms = [np.linalg.norm(lstmx.jacobians(history, block)[1]) for block in BLOCKS]
    np.testing.assert_allclose(
        norms, [0.1764720385, 0.4225837799, 0.3380111543, 0.9365240861], rtol=0, atol=5.1e-11
    )
    np.testing.assert_allclose(np.linalg.slogdet(jacobians[1])[1], -14.395570424015, rtol=0, atol=1e-12)


def test_the_check_gru_has_the_known_jacobian_product():
    """V03."""
    cell, params = lcg_params(lstmx.GRU, 2, 3, 0.5)
    history = lstmx.record(cell, params, np.sin(0.7 * np.arange(1, 13)).reshape(6, 2))
    product = functools.reduce(lambda product, jacobian: jacobian @ product, lstmx.jacobians(history))
    np.testing.assert_allclose(np.linalg.norm(product), 0.1179250124844343, rtol=1e-13)


def test_the_zero_state_of_an_lstm_has_the_known_eigenvalues():
    """V28: σ(b_f) + σ(b_i) σ(b_o) eig(U_g) and zeros, without input; only the candidate's kernel matters."""
    candidate = lcg_kernel(6, 2, 0.8)
    kernel = np.concatenate([lcg_kernel(6, 7), lcg_kernel(6, 8), candidate, lcg_kernel(6, 9)], axis=1)
    bias = np.repeat([0.3, 1.0, 0.0, -0.2], 6)
    history = lstmx.record(lstmx.LSTM(1, 6), lstmx.LSTMParams(np.zeros((1, 24)), kernel, bias), np.zeros((1, 1)))
    (jacobian,) = lstmx.jacobians(history)
    i, f, o = (1 / (1 + np.exp(-b)) for b in (0.3, 1.0, -0.2))
    expected = np.concatenate([f + i * o * np.linalg.eigvals(candidate), np.zeros(6)])
    eigenvalues = np.linalg.eigvals(jacobian)
    assert np.abs(eigenvalues[:, None] - expected).min(axis=1).max() < 1e-12
    assert np.abs(eigenvalues[:, None] - expected).min(axis=0).max() < 1e-12
    np.testing.assert_allclose(np.abs(eigenvalues).max(), 0.9031628168494, rtol=0, atol=1e-12)


def lcg_kernel(size, seed, scale=1.0):
    """A square kernel of the portable numbers, transposed as PyTorch keeps it."""
    return lcg((size, size), seed, scale).T


# -------------------------------------------------------------------------------------------------- determinants


@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.SimpleRNN])
def test_log_determinants_in_closed_form_are_those_of_the_matrices(kind, library):
    batch = (2, 3)
    history = in_library(library, example(kind, batch)[0])
    made = lstmx.linearise(history).log_determinant()
    assert_close(made, np.linalg.slogdet(example(kind, batch)[1])[1], 1e-12)


def test_a_gru_has_no_closed_form_of_its_determinant():
    assert lstmx.linearise(example(lstmx.GRU)[0]).log_determinant() is None


def test_a_saturated_gate_keeps_its_log_determinant():
    """A forget gate of e^−400 and an output gate of 1 − e^−400: 1 − o rounds to 0."""
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=3, hidden=2)
    bias = np.array([0, 0, -400, -400, 0, 0, 400, 400.0])
    history = lstmx.record(cell, params._replace(bias=bias), xs, state)
    a = history.preactivations
    readout = np.log(np.abs(np.tanh(history.states.cell)))
    expected = (a[:, 2:4] + readout - a[:, 6:]).sum(axis=1)
    expected += np.linalg.slogdet(params.recurrent_kernel[:, 6:])[1]
    np.testing.assert_allclose(lstmx.linearise(history).log_determinant(), expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ isometry


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_singular_values_are_numpys(kind, batch):
    history, jacobians, _ = example(kind, batch)
    made = lstmx.isometry(history)
    assert_close(made.singular_values, np.linalg.svd(jacobians, compute_uv=False), 1e-14)
    size = jacobians.shape[-1]
    squares = jacobians @ jacobians.swapaxes(-1, -2)
    mean_square = np.trace(squares, axis1=-2, axis2=-1) / size
    assert_close(made.mean_square, mean_square, 1e-14)
    fourth = np.trace(squares @ squares, axis1=-2, axis2=-1) / size
    assert_close(made.variance, fourth - mean_square**2, 1e-13)
    np.testing.assert_allclose(made.log_condition, np.log(np.linalg.cond(jacobians)), rtol=1e-11, atol=1e-11)


def test_singular_values_under_jax_are_those_in_numpy_and_come_back_in_numpy():
    history = example(lstmx.LSTM, (2,))[0]
    made = lstmx.isometry(in_library("jax", history))
    assert isinstance(made.singular_values, np.ndarray)
    assert_close(made, lstmx.isometry(history), 1e-14)


def test_an_orthogonal_network_at_rest_is_an_isometry(library):
    kernel = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    params = to(library, lstmx.SimpleRNNParams(np.zeros((2, 5)), kernel, np.zeros(5)))
    made = lstmx.isometry(lstmx.record(lstmx.SimpleRNN(2, 5), params, to(library, np.zeros((3, 2)))))
    assert_close(made.mean_square, np.ones(3), 1e-14)
    assert_close(made.variance, np.zeros(3), 1e-14)
    assert_close(made.log_condition, np.zeros(3), 1e-14)
    assert "mean squared singular value 1, its variance" in str(made)


def test_singular_jacobians_have_an_infinite_condition():
    params = lstmx.SimpleRNNParams(np.zeros((1, 2)), np.diag([1.0, 0.0]), np.zeros(2))
    made = lstmx.isometry(lstmx.record(lstmx.SimpleRNN(1, 2), params, np.zeros((3, 1))))
    assert np.isposinf(made.log_condition).all()
    assert_close(made.mean_square, np.full(3, 0.5), 1e-15)


def test_singular_values_do_not_depend_on_the_parts_they_are_worked_in(monkeypatch):
    history = random_history(lstmx.LSTM, length=7, batch=(2,))
    whole = lstmx.isometry(history)
    module = sys.modules["lstmx.dynamics.jacobians"]
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 3 * 2 * 64)  # three steps
    assert_close(lstmx.isometry(history), whole, 1e-14)


def test_jacobians_and_isometry_can_be_traced():
    history = random_history(lstmx.LSTM, "jax", length=3)

    @jax.jit
    def both(history):
        return lstmx.jacobians(history), lstmx.isometry(history).mean_square

    assert_close(both(history), (lstmx.jacobians(history), lstmx.isometry(history).mean_square), 1e-14)


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("function", [lstmx.jacobians, lstmx.input_jacobians, lstmx.isometry])
def test_what_is_no_history_is_refused(function):
    with pytest.raises(TypeError, match="history is a ndarray; expected a History"):
        function(np.zeros((3, 4, 4)))


@pytest.mark.parametrize("block", ["hidden", "cell-cell", "forget_gate"])
def test_another_word_for_a_block_is_refused(block):
    expected = ", ".join(f"'{name}'" for name in BLOCKS)
    with pytest.raises(ValueError, match=f"block is '{block}'; expected one of {expected}"):
        lstmx.jacobians(example(lstmx.LSTM)[0], block)


@pytest.mark.parametrize("function", [lstmx.jacobians, lstmx.input_jacobians, lstmx.isometry])
def test_numbers_that_are_not_finite_are_named(function):
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    state.cell[1] = np.nan
    history = lstmx.record(cell, params, xs, state)
    with pytest.raises(ValueError, match=r"_state is nan first at step 0, unit \d; expected finite numbers"):
        function(history)
    xs[2, 1] = np.inf
    history = lstmx.record(cell, params, xs, draw_pass(lstmx.LSTM)[3])
    with pytest.raises(ValueError, match="inputs is inf first at step 2, feature 1; expected finite numbers"):
        function(history)
    broken = params._replace(bias=params.bias * np.nan)
    with pytest.raises(ValueError, match=r"params\.bias holds NaN or infinity"):
        function(lstmx.History(cell, broken, history.initial, *history.rows))

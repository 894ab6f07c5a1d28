"""LSTMs with a projection or a layer normalisation: closed forms, and analyses of a state of two widths."""

import dataclasses

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same

import lstmx
from lstmx.comparison.matching import matched

NAMES = ("projection, peepholes", "layer norm", "layer norm, projection")
CELLS = family.of_size(3, 4)

each = pytest.mark.parametrize("name", NAMES)


def recorded(name, length=6, batch=()):
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, batch, length=length)
    return lstmx.record(cell, params, xs, state)


# ------------------------------------------------------------------------------------------------ closed forms


def test_a_projection_by_the_identity_is_none():
    plain = lstmx.LSTM(3, 4)
    projected = dataclasses.replace(plain, projection=4)
    params, state, xs, draws = family.draw(plain, (2,), length=7)
    wide = projected.init(np.random.default_rng(0), "float64")._replace(**params._asdict(), projection=np.eye(4))
    loss = draws.normal(size=(7, 2, 4))
    histories = lstmx.record(plain, params, xs, state), lstmx.record(projected, wide, xs, state)
    assert_close(histories[1].states, histories[0].states, 1e-15)
    ours, theirs = (lstmx.backward(history, loss) for history in histories)
    assert_close((theirs.inputs, theirs.initial), (ours.inputs, ours.initial), 1e-14)
    assert_close(theirs.parameters[:3], ours.parameters[:3], 1e-14)
    # h_t = m_t, so ∂L/∂P is Σ_t h_tᵀ ∂L/∂h_t, with the total cotangent of h_t.
    hidden = lstmx.gradient_flow(histories[0], loss).hidden
    expected = np.einsum("tbi,tbj->ij", histories[0].hidden_state, hidden)
    np.testing.assert_allclose(theirs.parameters.projection, expected, atol=1e-13)


def test_a_number_added_to_all_sums_is_normalised_away():
    history = recorded("layer norm")
    params, draws = history.params, np.random.default_rng(1)
    moved = params._replace(
        input_kernel=params.input_kernel + draws.normal(size=(3, 1)),
        recurrent_kernel=params.recurrent_kernel + draws.normal(size=(4, 1)),
    )
    again = lstmx.record(history.cell, moved, history.inputs, history.initial)
    assert_close(again.states, history.states, 1e-13)
    kernels = lstmx.backward(history, np.ones((6, 4))).parameters[:2]
    for kernel in kernels:  # so their gradients add up to 0 over all units and gates
        np.testing.assert_allclose(kernel.sum(axis=-1), 0, atol=1e-13)


def test_sums_of_any_size_are_normalised_to_one():
    history = recorded("layer norm")
    large = history.params._replace(
        input_kernel=1e4 * history.params.input_kernel, recurrent_kernel=1e4 * history.params.recurrent_kernel
    )
    larger = large._replace(input_kernel=10 * large.input_kernel, recurrent_kernel=10 * large.recurrent_kernel)
    passes = [lstmx.record(history.cell, params, history.inputs, history.initial) for params in (large, larger)]
    assert_close(passes[0].states, passes[1].states, 1e-9)


def test_one_unit_normalised_is_its_shift():
    cell = lstmx.LSTM(2, 1, layer_norm=True)
    params, state, xs, _ = family.draw(cell, length=5)
    history = lstmx.record(cell, params, xs, state)
    np.testing.assert_array_equal(history.hidden_state, history.output_gate * np.tanh(params.cell_shift))
    assert not np.any(lstmx.jacobians(history, "hidden_cell"))


# ---------------------------------------------------------------------------------------------------- analyses


@pytest.mark.sample(1)
@each
def test_influence_is_the_derivative_of_an_output_by_an_input(name):
    history = recorded(name)
    cell = history.cell
    found = lstmx.influence(history, outputs=5).norms[0]
    given = jax.tree.map(jnp.asarray, (history.params, history.initial))

    def last(xs):
        return lstmx.run(cell, given[0], xs, given[1], differentiation="autodiff")[0][5]

    jacobian = np.asarray(jax.jacfwd(last)(jnp.asarray(history.inputs)))  # [outputs, T, D]
    np.testing.assert_allclose(found, np.linalg.norm(jacobian, axis=(0, 2)), rtol=1e-11)


@each
def test_long_products_and_orders_of_paths_are_those_of_the_jacobians(name):
    history = recorded(name)
    product = np.linalg.multi_dot(list(lstmx.jacobians(history)[::-1]))
    singular = np.linalg.svd(product, compute_uv=False)
    found = np.exp(lstmx.long_jacobian(history).log_singular_values)
    np.testing.assert_allclose(found[:3], singular[:3], rtol=1e-9)
    matrices = lstmx.path_spectrum(history, max_order=3, matrix=True).matrices
    np.testing.assert_allclose(matrices.sum(axis=0), product, atol=1e-12)


@each
def test_blocks_of_jacobians_have_the_widths_of_their_states(name):
    history = recorded(name, batch=(2,))
    whole, p = lstmx.jacobians(history), history.cell.output_size
    assert whole.shape == (6, 2, p + 4, p + 4)
    assert_same(lstmx.jacobians(history, "hidden_cell"), whole[..., :p, p:])
    assert_same(lstmx.jacobians(history, "cell_hidden"), whole[..., p:, :p])


@pytest.mark.slow
def test_fixed_points_of_a_projected_cell_stand_still():
    cell = CELLS["projection"]
    params, _, _, _ = family.draw(cell)
    draws = np.random.default_rng(0)
    candidates = cell.state_type(draws.normal(size=(20, 3)), draws.normal(size=(20, 4)))
    points = lstmx.fixed_points(cell, params, None, candidates).fixed
    assert len(points.q) > 0
    zero = np.zeros((len(points.q), 3))
    after, _ = cell.step(params, points.states, zero)
    assert_close(after, points.states, 1e-8)
    assert points.states.hidden.shape[1:] == (3,)


@pytest.mark.slow  # many shapes to compile
def test_layers_read_what_is_projected():
    cell = CELLS["layer norm, projection"]
    p = cell.output_size
    stack = lstmx.Stack([cell, lstmx.Bidirectional(lstmx.LSTM(p, 2, projection=1)), lstmx.GRU(2, 3)])
    params = stack.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(5, 2, 3))
    history = lstmx.record(stack, params, xs, lengths=np.array([5, 3]))
    outputs, _ = lstmx.run(stack, params, xs, lengths=np.array([5, 3]))
    assert_close(history.outputs, outputs, 1e-14)
    assert lstmx.gradient_flow(history).log_norm.shape == (4, 5, 2)

    @jax.jit
    @jax.grad
    def gradient(params, xs):
        return (lstmx.run(stack, params, xs, lengths=np.array([5, 3]), differentiation="autodiff")[0] ** 2).sum()

    expected = gradient(*jax.tree.map(jnp.asarray, (params, xs)))
    assert_close(lstmx.backward(history, 2 * outputs).parameters, expected, 1e-12)


@pytest.mark.slow  # compiles training
def test_a_model_learns_and_its_memory_is_reported():
    cell = CELLS["layer norm, projection"]
    model = lstmx.Model(cell, 3, "mean_squared_error")
    waves = np.sin(0.4 * np.arange(60))[:, None, None] + np.zeros((1, 4, 3))
    task = lstmx.tasks.next_step(waves.astype("float32"))
    with jax.numpy_dtype_promotion("standard"):  # of Adam's count of steps
        training = lstmx.train(model, model.init(0), task.batch, steps=20, progress=False)
    assert training.losses[-1] < training.losses[0]
    params = jax.tree.map(np.asarray, training.params.cell)
    history = lstmx.record(cell, params, np.ones((30, 3), "float32"))  # NumPy compiles nothing
    assert lstmx.memory_report(history)["highway, geometric"].value > 0


def test_hidden_sizes_are_matched_with_the_projection_s_share():
    task = lstmx.tasks.next_step(np.zeros((5, 4, 3), "float32"))
    cells = {"LSTM": lstmx.LSTM(3, 200), "projected": lstmx.LSTM(3, 8, projection=2)}
    near = matched(cells, task, "parameters")["projected"]
    assert abs(near.projection / near.hidden_size - 1 / 4) < 1 / near.hidden_size


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"projection": 9}, ValueError, "projection is 9; expected at most hidden_size=8"),
        ({"projection": 0}, ValueError, "projection is 0; expected an integer of at least 1"),
        ({"projection": True}, TypeError, "projection is True"),
        ({"layer_norm": 1}, TypeError, "layer_norm is 1"),
        ({"layer_norm": True, "peepholes": True}, ValueError, "peepholes=True adds a third sum"),
        ({"layer_norm": True, "full_gate_recurrence": True}, ValueError, "full_gate_recurrence=True adds a third"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        lstmx.LSTM(3, 8, **options)


def test_what_has_no_closed_form_or_no_square_is_refused():
    cell = lstmx.LSTM(3, 8, projection=2)
    with pytest.raises(ValueError, match="has no closed form"):
        lstmx.critical_gain(cell, forget_gate=0.0, input_gate=0.0, output_gate=0.0)
    with pytest.raises(ValueError, match=r"identity makes square blocks; the recurrent kernel .* is \(2, 32\)"):
        cell.init(0, scheme=lstmx.schemes.identity())
    state, xs = lstmx.LSTMState(np.zeros(8, "float32"), np.zeros(8, "float32")), np.zeros((4, 3), "float32")
    with pytest.raises(ValueError, match=r"state.hidden has shape \(8,\); .* \[\*batch, projection\] = \(2,\)"):
        lstmx.run(cell, cell.init(0), xs, state)


def test_recurrent_rows_start_orthonormal_and_gains_at_one():
    cell = lstmx.LSTM(3, 8, projection=2, layer_norm=True)
    params = cell.init(np.random.default_rng(0), "float64")
    for block in np.split(params.recurrent_kernel, 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(2), atol=1e-14)
    for gain in (params.input_gain, params.recurrent_gain, params.cell_gain, 1 - params.cell_shift):
        np.testing.assert_array_equal(gain, 1)
    uniform = cell.init(np.random.default_rng(0), scheme=lstmx.schemes.defaults_of("pytorch"))
    assert 0.2 < np.abs(uniform.projection).max() <= 8**-0.5

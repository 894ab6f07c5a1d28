"""The faces of each cell: closed forms, autodiff, finite differences, adjoints, and the standard alone."""

import dataclasses

import array_api_strict
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    CELLS,
    assert_close,
    assert_same,
    batches,
    draw_params,
    draw_state,
    inner,
    is_in,
    lcg,
    lcg_params,
    linear_step,
    plain_step,
    seeds,
    sizes,
    to,
)

import lstmx

NAMES = [kind.__name__ for kind in CELLS]
each_cell = pytest.mark.parametrize("kind", CELLS, ids=NAMES)


def draw_step(kind, seed, features=3, hidden=4, batch=(), dtype="float64", scale=0.7):
    """A step in NumPy: cell, params, before, x, pre-activations, linear maps, the source of more."""
    draws = np.random.default_rng(seed)
    cell = kind(features, hidden)
    params, before = draw_params(cell, draws, dtype, scale), draw_state(cell, draws, batch, dtype)
    x = draws.normal(size=(*batch, features)).astype(dtype)
    _, a, step = linear_step(cell, params, before, x)
    return cell, params, before, x, a, step, draws


def jacobian(step):
    """∂(state after)/∂(state before) of one unbatched step, a column for each basis tangent pushed forward."""
    return np.stack([step.jvp(tangent) for tangent in np.eye(step.size)], axis=1)


def jacobian_by_vjp(step):
    """The same, a row for each basis cotangent pulled back."""
    return np.stack([step.vjp(cotangent)[0] for cotangent in np.eye(step.size)])


def walk(cell, params, xs):
    """The linear maps of each step from the zero state."""
    state = cell.initial_state(params)
    for x in xs:
        state, _, step = linear_step(cell, params, state, x)
        yield step


# ----------------------------------------------------------------------------------------- closed forms

PARITY_XS = np.sin(0.7 * np.arange(1, 13)).reshape(6, 2)


def parity_jacobians(kind, faces):
    cell, params = lcg_params(kind, 2, 3, 0.5)
    return [faces(step) for step in walk(cell, params, PARITY_XS)]


@pytest.mark.parametrize("faces", [jacobian, jacobian_by_vjp])
def test_blocks_of_the_lstm_jacobian_have_their_norms(faces):
    J = parity_jacobians(lstmx.LSTM, faces)
    blocks = [J[1][:3, :3], J[1][:3, 3:], J[1][3:, :3], J[1][3:, 3:]]
    norms = [np.linalg.norm(block) for block in blocks]
    np.testing.assert_allclose(norms, [0.1764720385, 0.4225837799, 0.3380111543, 0.9365240861], atol=1e-10)
    assert np.linalg.slogdet(J[1])[1] == pytest.approx(-14.395570424015, abs=1e-11)
    assert np.linalg.norm(np.linalg.multi_dot(J[::-1])) == pytest.approx(0.09734999345895592, abs=1e-12)


@pytest.mark.parametrize("faces", [jacobian, jacobian_by_vjp])
def test_the_product_of_gru_jacobians_has_its_norm(faces):
    J = parity_jacobians(lstmx.GRU, faces)
    assert np.linalg.norm(np.linalg.multi_dot(J[::-1])) == pytest.approx(0.1179250124844343, abs=1e-13)


@pytest.mark.parametrize("faces", [jacobian, jacobian_by_vjp])
def test_the_simple_jacobian_is_a_row_scaled_kernel(faces):
    _, params, *_, step, _ = draw_step(lstmx.SimpleRNN, 0)
    expected = (1 - step.after.hidden**2)[:, None] * params.recurrent_kernel.T
    np.testing.assert_allclose(faces(step), expected, atol=1e-15)


def test_the_lstm_determinant_follows_from_its_gates():
    cell, params, _, _, a, step, _ = draw_step(lstmx.LSTM, 0)
    f, o = cell.gates(a).forget_gate, cell.gates(a).output_gate
    readout = np.linalg.slogdet(params.recurrent_kernel[:, 12:])[1]
    expected = np.sum(np.log(f) + np.log(np.abs(np.tanh(step.after.cell)) * o * (1 - o))) + readout
    actual = np.linalg.slogdet(jacobian(step))[1]
    assert actual == pytest.approx(expected, abs=1e-12)


def test_the_gru_jacobian_is_its_three_terms():
    cell, params, before, _, a, step, _ = draw_step(lstmx.GRU, 0)
    (r, z, n), q = cell.gates(a), a[12:]
    reset, update, candidate = (params.recurrent_kernel[:, k : k + 4].T for k in (0, 4, 8))
    inside = r[:, None] * candidate + (q * r * (1 - r))[:, None] * reset
    expected = np.diag(z) + ((before.hidden - n) * z * (1 - z))[:, None] * update
    expected += ((1 - z) * (1 - n**2))[:, None] * inside
    np.testing.assert_allclose(jacobian(step), expected, atol=1e-15)


@pytest.mark.parametrize(
    ("bias", "logarithm"),
    [
        (0, -0.6931471805599453),
        (1, -0.3132616875182228),
        (2, -0.1269280110429725),
        (3, -0.0485873515737421),
        (5, -0.0067153484891181),
    ],
)
def test_without_weights_the_cell_tangent_decays_by_the_forget_bias(bias, logarithm):
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([0.0, bias, 0, 0], 3))
    tangent = np.repeat([0.0, 1.0], 3)
    for step in walk(cell, params, np.ones((40, 2))):
        tangent = step.jvp(tangent)
    np.testing.assert_allclose(np.log(tangent[3:]), 40 * logarithm, rtol=1e-12)


def test_an_open_forget_gate_keeps_cell_state_tangent_and_cotangent_to_the_bit():
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(lcg((2, 12), 1), np.zeros((3, 12)), np.repeat([-1e4, 1e4, 0, 0], 3))
    params.input_kernel[:, :6] = 0
    state = lstmx.LSTMState(np.zeros(3), lcg(3, 2))
    tangent = cotangent = cell.pack((np.zeros(3), lcg(3, 3)))
    for x in lcg((50, 2), 4):
        state, _, step = linear_step(cell, params, state, x)
        tangent, cotangent = step.jvp(tangent), step.vjp(cotangent)[0]
    np.testing.assert_array_equal(state.cell, lcg(3, 2))
    np.testing.assert_array_equal(tangent[3:], lcg(3, 3))
    np.testing.assert_array_equal(cotangent[3:], lcg(3, 3))


def test_a_full_update_gate_keeps_the_gru_state_to_the_bit():
    cell, params, before, x, *_ = draw_step(lstmx.GRU, 0)
    params.bias[4:8] = 1e4
    after, _, step = linear_step(cell, params, before, x)
    np.testing.assert_array_equal(after.hidden, before.hidden)
    np.testing.assert_array_equal(step.jvp(lcg(4, 3)), lcg(4, 3))


@each_cell
@hypothesis.given(seed=seeds, features=sizes, hidden=sizes, batch=batches)
def test_step_is_the_textbook_s(kind, seed, features, hidden, batch):
    cell, params, before, x, a, step, _ = draw_step(kind, seed, features, hidden, batch)
    expected, activations = plain_step(cell, params, before, x)
    assert_close(step.after, expected, 1e-14)
    assert_close(cell.gates(a), cell.gate_type(**activations), 1e-14)
    assert type(step.after) is cell.state_type


# --------------------------------------------------------------------------------- against other oracles


@pytest.mark.slow
@each_cell
@hypothesis.settings(max_examples=10)
@hypothesis.given(seed=seeds, features=sizes, hidden=sizes, batch=batches)
def test_vjp_is_jax_vjp_of_step(kind, seed, features, hidden, batch):
    cell, params, before, x, a, step, draws = draw_step(kind, seed, features, hidden, batch)
    cotangent = draw_state(cell, draws, batch)

    @jax.jit  # one compilation for all operations of a shape
    def oracle(params, before, x, a, cotangent):
        _, vjp = jax.vjp(lambda *args: cell.step(*args)[0], params, before, x)
        _, vjp_of_update = jax.vjp(lambda a: cell.update(before, a), a)
        return vjp(cotangent), vjp_of_update(cotangent)[0]

    cotangents, expected = oracle(params, before, x, a, cotangent)

    state_cotangent, a_cotangent = step.vjp(cell.pack(cotangent))

    assert_close(a_cotangent, expected, 1e-10)
    here = step.parameter_vjp(a_cotangent)
    assert type(here) is type(params)
    assert_close((here, cell.unpack(state_cotangent), step.input_vjp(a_cotangent)), cotangents, 1e-10)


@pytest.mark.slow
@each_cell
@hypothesis.settings(max_examples=10)
@hypothesis.given(seed=seeds, features=sizes, hidden=sizes, batch=batches)
def test_jvp_is_jax_jvp_of_step(kind, seed, features, hidden, batch):
    cell, params, before, x, _, linear, draws = draw_step(kind, seed, features, hidden, batch)
    tangent, x_tangent = draw_state(cell, draws, batch), draws.normal(size=x.shape)

    @jax.jit
    def oracle(params, before, x, tangent, x_tangent):
        return jax.jvp(lambda *args: cell.step(params, *args)[0], (before, x), (tangent, x_tangent))[1]

    still, moved = (oracle(params, before, x, tangent, u) for u in (np.zeros_like(x), x_tangent))
    assert_close(linear.jvp(cell.pack(tangent)), cell.pack(still), 1e-10)
    assert_close(linear.jvp(cell.pack(tangent), x_tangent), cell.pack(moved), 1e-10)


@each_cell
@hypothesis.given(seed=seeds, features=sizes, hidden=sizes, batch=batches)
def test_vjp_is_the_adjoint_of_jvp(kind, seed, features, hidden, batch):
    cell, _, _, x, _, step, draws = draw_step(kind, seed, features, hidden, batch)
    v, u = draws.normal(size=(2, *batch, cell.state_size))
    u_x = draws.normal(size=x.shape)
    pulled, a_cotangent = step.vjp(v)
    assert inner(v, step.jvp(u)) == pytest.approx(inner(pulled, u), rel=1e-12, abs=1e-12)
    left = inner(v, step.jvp(u, u_x))
    right = inner(pulled, u) + inner(step.input_vjp(a_cotangent), u_x)
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12)


@each_cell
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_jvp_is_a_central_difference(kind, batch):
    cell, params, before, x, _, step, draws = draw_step(kind, 5, batch=batch)
    tangent, x_tangent = draw_state(cell, draws, batch), draws.normal(size=x.shape)

    def moved(h):
        state = cell.state_type(*(s + h * u for s, u in zip(before, tangent, strict=True)))
        return cell.pack(cell.step(params, state, x + h * x_tangent)[0])

    h = 1e-3
    difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)  # error O(h^4)
    np.testing.assert_allclose(step.jvp(cell.pack(tangent), x_tangent), difference, atol=1e-9)


@each_cell
def test_vjp_is_the_straight_way_and_the_way_through_the_preactivations(kind):
    cell, _, before, _, a, step, draws = draw_step(kind, 6, batch=(3,))
    cotangent = draw_state(cell, draws, (3,))
    pulled, a_cotangent = step.vjp(cell.pack(cotangent))
    np.testing.assert_array_equal(step.drive_vjp(cell.pack(cotangent)), a_cotangent)
    straight = step.along_state(cell.pack(cotangent))
    assert_close(pulled, straight + sum(step.by_gate(a_cotangent).values()), 1e-15)

    _, vjp = jax.vjp(lambda state: cell.update(state, jnp.asarray(a)), to("jax", before))
    assert_close(cell.unpack(straight), vjp(to("jax", cotangent))[0], 1e-14)


def test_the_total_cotangent_counts_the_readout_of_the_cell_state():
    cell, _, _, _, a, step, draws = draw_step(lstmx.LSTM, 7)
    cotangent = draw_state(cell, draws)
    total = step.totals(cell.pack(cotangent))
    through = cotangent.hidden * cell.gates(a).output_gate * (1 - np.tanh(step.after.cell) ** 2)
    np.testing.assert_array_equal(total["hidden"], cotangent.hidden)
    np.testing.assert_allclose(total["cell"], cotangent.cell + through, atol=1e-15)


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_the_total_cotangent_of_one_field_is_itself(kind):
    *_, step, draws = draw_step(kind, 7)
    cotangent = draws.normal(size=4)
    assert_same(step.totals(cotangent), {"hidden": cotangent})


@each_cell
def test_faces_take_all_steps_at_once(kind):
    cell, params, before, x, _, steps, draws = draw_step(kind, 8, batch=(5, 2))
    v = draws.normal(size=(5, 2, cell.state_size))
    whole = steps.jvp(v, x), *steps.vjp(v)
    for t in range(5):
        step = linear_step(cell, params, jax.tree.map(lambda leaf, t=t: leaf[t], before), x[t])[2]
        assert_close([part[t] for part in whole], (step.jvp(v[t], x[t]), *step.vjp(v[t])), 1e-14)


@each_cell
def test_faces_need_nothing_beyond_the_array_standard(kind):
    cell, params, before, x, _, _, draws = draw_step(kind, 9, batch=(2,))
    v, u_x = draws.normal(size=(2, cell.state_size)), draws.normal(size=x.shape)

    def faces(params, before, x, v, u_x):
        after, a, step = linear_step(cell, params, before, x)
        pulled, a_cotangent = step.vjp(v)
        return (
            (after, a, cell.gates(a), step.slopes, pulled, a_cotangent, step.jvp(v, u_x)),
            step.totals(v),
            step.along_state(v),
            step.drive_vjp(v),
            step.parameter_vjp(a_cotangent),
            step.input_vjp(a_cotangent),
            cell.initial_state(params, (2,)),
        )

    given = (params, before, x, v, u_x)
    strict = faces(*jax.tree.map(array_api_strict.asarray, given))
    assert all(leaf.__array_namespace__() is array_api_strict for leaf in jax.tree.leaves(strict))
    assert_close(jax.tree.map(np.asarray, strict), faces(*given), 1e-14)


@pytest.mark.sample(3)
@each_cell
def test_faces_keep_float32(kind, library):
    cell, params, before, x, _, _, draws = draw_step(kind, 10, batch=(2,), dtype="float32")
    v = draws.normal(size=(2, cell.state_size)).astype("float32")
    params, before, x, v = to(library, (params, before, x, v))
    after, a, step = linear_step(cell, params, before, x)
    found = after, a, step.vjp(v), step.jvp(v, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    assert is_in(library, found)


@each_cell
@pytest.mark.parametrize("size", [12, 18])
def test_saturated_jacobians_are_small_not_zero_in_float32(kind, size, library):
    # sigma'(a) as f(1 - f) is exactly 0 in float32 from |a| = 17, and 1 - tanh(a)^2 from |a| = 9.
    cell, params, before, x, _, _, draws = draw_step(kind, 11)
    signs = np.where(draws.uniform(size=params.bias.shape) < 0.5, -1.0, 1.0)
    params = params._replace(bias=size * signs)
    exact = jax.tree.map(lambda leaf: leaf.astype("float32").astype("float64"), (params, before, x))
    v = np.ones(cell.state_size)

    def pulled(params, before, x, v):
        return linear_step(cell, params, before, x)[2].drive_vjp(v)

    expected = pulled(*exact, v)
    narrow = to(library, jax.tree.map(lambda leaf: leaf.astype("float32"), (*exact, v)))
    actual = pulled(*narrow)
    assert np.all(expected != 0)
    # A rounding of a pre-activation of 18 is 1e-6, and the slope is its exponential.
    np.testing.assert_allclose(actual, expected, rtol=2e-5)


@each_cell
def test_gates_lie_in_the_unit_interval_and_candidates_in_twice_that(kind, library):
    cell = kind(1, 1)
    blocks = cell.parameter_shapes().bias[0] + (1 if kind is lstmx.GRU else 0)
    a = np.random.default_rng(0).normal(0, 100, (500, blocks))
    assert np.abs(a).max() > 200
    for name, gate in cell.gates(to(library, a))._asdict().items():
        low, high = (0, 1) if name in cell.gate_blocks else (-1, 1)
        assert (float(np.min(gate)), float(np.max(gate))) == (low, high)


# ------------------------------------------------------------------------------------------ initialisation


def source(library, seed=0):
    return np.random.default_rng(seed) if library == "numpy" else jax.random.key(seed)


@pytest.mark.sample(7)
@each_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_key_decides_the_library(kind, library, dtype):
    cell = kind(3, 8)
    params = cell.init(source(library), dtype=dtype)
    assert is_in(library, params)
    assert jax.tree.map(np.shape, params, is_leaf=lambda x: not isinstance(x, tuple)) == cell.parameter_shapes()
    assert {leaf.dtype for leaf in params} == {np.dtype(dtype)}
    state = cell.initial_state(params, (2, 5))
    assert is_in(library, state)
    assert_same(state, cell.state_type(*(np.zeros((2, 5, 8), dtype) for _ in cell.state_type._fields)))


@each_cell
def test_an_integer_is_a_jax_key_where_jax_is_installed(kind):
    for seed in (5, np.int32(5)):
        assert is_in("jax", kind(3, 8).init(seed))
        assert_same(kind(3, 8).init(seed), kind(3, 8).init(jax.random.key(5)))


@each_cell
def test_a_seed_repeats_and_another_differs(kind, library):
    cell = kind(3, 8)
    one = cell.init(source(library, 1))
    assert_same(one, cell.init(source(library, 1)))
    other = cell.init(source(library, 2))
    assert not np.any(np.asarray(one.input_kernel) == np.asarray(other.input_kernel))
    assert not np.any(np.asarray(one.recurrent_kernel) == np.asarray(other.recurrent_kernel))


@pytest.mark.sample(5)
@each_cell
def test_the_input_kernel_is_glorot_uniform_for_each_gate(kind, library):
    cell = kind(30, 20)
    kernel = np.asarray(cell.init(source(library), dtype="float64").input_kernel)
    limit = np.sqrt(6 / (30 + 20))
    for block in np.split(kernel, kernel.shape[1] // 20, axis=1):
        assert 0.97 * limit < np.abs(block).max() <= limit
        assert block.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)  # 4 standard errors
        assert abs(block.mean()) < 0.1 * limit


@pytest.mark.sample(7)
@each_cell
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
def test_the_recurrent_kernel_is_orthogonal_for_each_gate(kind, library, dtype, tolerance):
    kernel = np.asarray(kind(3, 8).init(source(library), dtype=dtype).recurrent_kernel)
    blocks = np.split(kernel, kernel.shape[1] // 8, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=tolerance)
    assert len({block.tobytes() for block in blocks}) == len(blocks)


@pytest.mark.parametrize("forget_bias", [0, 1.0, -2.5])
def test_the_forget_bias_is_stored_and_the_others_are_zero(library, forget_bias):
    params = lstmx.LSTM(3, 8, forget_bias=forget_bias).init(source(library))
    np.testing.assert_array_equal(params.bias, np.repeat([0, forget_bias, 0, 0], 8))


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_other_biases_start_at_zero(kind, library):
    params = kind(3, 8).init(source(library))
    assert all(not np.any(bias) for bias in params[2:])


@pytest.mark.slow
@each_cell
def test_init_takes_a_traced_key(kind):
    cell, keys = kind(3, 4), jax.random.split(jax.random.key(0), 3)
    eager = [cell.init(key, dtype="float64") for key in keys]
    assert_close(jax.jit(lambda key: cell.init(key, dtype="float64"))(keys[0]), eager[0], 1e-15)
    ensemble = jax.vmap(lambda key: cell.init(key, dtype="float64"))(keys)
    assert_close(ensemble, jax.tree.map(lambda *leaves: jnp.stack(leaves), *eager), 1e-14)


# ---------------------------------------------------------------------------------------------- as objects


@each_cell
def test_a_cell_is_frozen_and_equal_to_its_like(kind):
    cell = kind(3, 8)
    assert cell == kind(input_size=3, hidden_size=8)
    assert hash(cell) == hash(kind(3, 8))
    assert cell != kind(3, 9)
    assert repr(cell).startswith(f"{kind.__name__}(input_size=3, hidden_size=8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.hidden_size = 9


def test_cells_of_other_kinds_or_options_differ():
    assert len({*(kind(3, 8) for kind in CELLS), lstmx.LSTM(3, 8, forget_bias=0.0)}) == 4


@each_cell
def test_every_gate_names_its_block(kind):
    cell, _, _, _, a, _, _ = draw_step(kind, 12)
    gates = cell.gates(a)
    assert set(cell.gate_blocks) <= set(gates._fields)
    assert cell.retention_gate is None or cell.retention_gate in cell.gate_blocks
    for name, k in cell.gate_blocks.items():
        expected = 1 / (1 + np.exp(-a[4 * k : 4 * k + 4]))
        np.testing.assert_allclose(getattr(gates, name), expected, atol=1e-15)

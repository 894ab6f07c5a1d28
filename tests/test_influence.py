"""`influence` against the Jacobian of the whole run, and `gate_kernel` against the cell state it reads."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import LIBRARIES, assert_close, assert_same, draw_pass, lcg, lcg_params, random_history, to

import lstmx

# ------------------------------------------------------------------------------------------------ oracles


@functools.partial(jax.jit, static_argnums=0)
def derivatives(cell, params, xs, state):
    """∂h_t/∂x_s [T, H, T, D] and ∂h_t/∂s_s [T, H, T, S] of one sequence, by autodiff of a plain scan."""

    def outputs(xs, bumps):
        def step(before, item):
            x, bump = item
            after, _ = cell.step(params, before, x)
            moved = jnp.split(bump, len(after))
            after = type(after)(*(a + b for a, b in zip(after, moved, strict=True)))
            return after, after.hidden

        return jax.lax.scan(step, state, (xs, bumps))[1]

    bumps = jnp.zeros((len(xs), len(state) * cell.hidden_size))
    return jax.jacrev(outputs, argnums=(0, 1))(xs, bumps)


@functools.cache
def example(kind, batch=(), length=6, hidden=3):
    """A pass, and ‖∂h_t/∂x_s‖ and ‖∂h_t/∂s_s‖, each [T, T, *batch]."""
    made = draw_pass(kind, length=length, batch=batch, features=2, hidden=hidden, seed=2)
    cell, params, xs, state = made
    expected = {of: np.zeros((length, length, *batch)) for of in ("inputs", "state")}
    for index in np.ndindex(*batch):
        single = type(state)(*(x[index] for x in state))
        found = derivatives(cell, params, jnp.asarray(xs[(slice(None), *index)]), single)
        for of, jacobian in zip(expected, found, strict=True):
            norms = np.sqrt(np.sum(np.asarray(jacobian) ** 2, axis=(1, 3)))
            expected[of][(slice(None), slice(None), *index)] = norms
    return made, expected


def history_of(made, library):
    cell, params, xs, state = made
    return lstmx.record(cell, *to(library, (params, xs, state)))


def influence_of(norms, outputs=None, inputs=None):
    """A result put together by hand."""
    norms = np.asarray(norms, np.float64)
    outputs = np.arange(norms.shape[0]) if outputs is None else np.asarray(outputs)
    inputs = np.arange(norms.shape[1]) if inputs is None else np.asarray(inputs)
    with np.errstate(divide="ignore"):
        return lstmx.Influence(np.log(norms), outputs, inputs, None)


# ----------------------------------------------------------------------------------- published check values


def check_net(library):
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1.0)
    return lstmx.record(cell, *to(library, (params, lcg((40, 3), 5, 1.5))))


@pytest.mark.sample(1)
def test_the_check_net_has_the_known_influence_on_its_last_output(library):
    """V13."""
    matrix = lstmx.influence(check_net(library), outputs=39)
    steps = np.array([1, 10, 20, 30, 39, 40]) - 1
    expected = [1.805493e-3, 4.297077e-3, 1.8825583e-2, 2.1417389e-2, 0.3190332, 0.4808449]
    np.testing.assert_allclose(matrix.norms[0, steps], expected, rtol=3e-7)
    np.testing.assert_allclose(matrix.mean_lag, 7.3371789, rtol=0, atol=5e-8)
    assert matrix.quantile(0.95) == 20


def test_the_check_net_has_the_known_influence_of_its_initial_state():
    """V13, the two halves of the initial state apart: rows of h in the whole Jacobian product."""
    matrices = lstmx.path_spectrum(check_net("numpy"), max_order=0, matrix=True).matrices
    whole = matrices.sum(axis=0)[:5]
    norms = [np.linalg.norm(whole[:, :5]), np.linalg.norm(whole[:, 5:])]
    np.testing.assert_allclose(norms, [1.0699058e-3, 2.2074595e-3], rtol=3e-7)


# ------------------------------------------------------------------------------------------------- all pairs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "of", "batch"),
    [("numpy", of, batch) for of in ("inputs", "state") for batch in ((), (2, 2))]
    + [("jax", "state", ()), ("jax", "inputs", (2, 2))],
)
def test_all_pairs_are_those_of_the_jacobian_of_the_run(kind, library, batch, of):
    made, expected = example(kind, batch)
    matrix = lstmx.influence(history_of(made, library), of=of)
    assert_close(matrix.norms, expected[of], 1e-13)
    earlier = np.tril(np.ones((6, 6), bool))
    np.testing.assert_allclose(
        np.asarray(matrix.log_norms)[earlier], np.log(expected[of][earlier]), rtol=0, atol=1e-12
    )
    assert np.isneginf(np.asarray(matrix.log_norms)[~earlier]).all()
    assert matrix.standard_error is None
    assert_same(matrix.outputs, np.arange(6))
    assert_same(matrix.inputs, np.arange(6))


def test_a_state_moves_the_output_of_its_own_step_by_the_identity(kind):
    matrix = lstmx.influence(history_of(example(kind)[0], "numpy"), of="state")
    np.testing.assert_allclose(np.diagonal(matrix.norms), np.sqrt(3), rtol=1e-14)


def test_a_single_unit_at_a_single_step_has_an_influence(kind):
    made, expected = example(kind, length=1, hidden=1)
    for of in ("inputs", "state"):
        assert_close(lstmx.influence(history_of(made, "numpy"), of=of).norms, expected[of], 1e-14)


@pytest.mark.sample(2)
def test_chosen_steps_are_reported_in_the_order_given(kind):
    made, expected = example(kind)
    for library in LIBRARIES if kind is lstmx.LSTM else ["numpy"]:
        matrix = lstmx.influence(history_of(made, library), outputs=[4, 1, 4], inputs=np.array([3, 0]))
        assert_close(matrix.norms, expected["inputs"][[4, 1, 4]][:, [3, 0]], 1e-13)
        assert_same(matrix.outputs, np.array([4, 1, 4]))
        assert_same(matrix.inputs, np.array([3, 0]))


@pytest.mark.parametrize("step", [3, np.int32(3)])
def test_a_single_step_is_taken_as_one(step):
    made, expected = example(lstmx.GRU)
    matrix = lstmx.influence(history_of(made, "numpy"), outputs=step, inputs=step)
    assert_close(matrix.norms, expected["inputs"][3:4, 3:4], 1e-13)


@pytest.mark.slow
def test_a_long_history_is_reported_for_its_last_output_alone():
    history = random_history(lstmx.SimpleRNN, length=513, hidden=2)
    matrix = lstmx.influence(history)
    assert matrix.norms.shape == (1, 513)
    assert_same(matrix.outputs, np.array([512]))
    assert_close(matrix.norms, lstmx.influence(history, outputs=[100, 512]).norms[1:], 1e-14)
    assert lstmx.influence(history[:512], inputs=[0]).norms.shape == (512, 1)


@pytest.mark.sample(1)
def test_numpy_and_jax_find_the_same_influence(kind):
    made, _ = example(kind, (2, 2))
    numpy, jaxed = (lstmx.influence(history_of(made, library)) for library in LIBRARIES)
    assert isinstance(numpy.log_norms, np.ndarray)
    assert isinstance(jaxed.log_norms, jax.Array)
    assert_close(jaxed, numpy, 1e-13)


def test_outputs_worked_on_in_groups_are_those_of_one_pass(kind, monkeypatch):
    history = history_of(example(kind, (2, 2))[0], "numpy")
    whole = lstmx.influence(history, outputs=[5, 0, 3, 2], of="state")
    monkeypatch.setattr(sys.modules["lstmx.gradients.influence"], "_GROUP_ELEMENTS", 30)
    assert_close(lstmx.influence(history, outputs=[5, 0, 3, 2], of="state"), whole, 1e-14)


def test_the_influence_does_not_depend_on_the_chunks_it_is_worked_in(kind, monkeypatch):
    history = history_of(example(kind)[0], "numpy")
    whole = lstmx.influence(history)
    monkeypatch.setattr("lstmx.linear.walks._chunk_steps", lambda history: 4)
    assert_close(lstmx.influence(history), whole, 1e-14)


def test_a_history_of_states_has_the_same_influence_as_one_of_everything(kind):
    cell, params, xs, state = example(kind)[0]
    every, states = (
        lstmx.influence(lstmx.record(cell, params, xs, state, keep=keep)) for keep in ("all", "states")
    )
    assert_close(states, every, 1e-13)


@pytest.mark.sample(3)
@pytest.mark.parametrize(("dtype", "weight"), [("float32", 1e-6), ("float64", 1e-6), ("float64", 50.0)])
def test_an_influence_out_of_the_float_range_keeps_its_log_norm(library, dtype, weight):
    """One unit near zero: ln |∂h_t/∂x_s| = (t − s) ln w + ln 3."""
    cell = lstmx.SimpleRNN(1, 1)
    params = lstmx.SimpleRNNParams(np.full((1, 1), 3, dtype), np.full((1, 1), weight, dtype), np.zeros(1, dtype))
    history = lstmx.record(cell, *to(library, (params, np.zeros((300, 1), dtype))))
    matrix = lstmx.influence(history, outputs=[299, 20], inputs=[0, 20, 290])
    lag = np.array([[299, 279, 9], [20, 0, np.inf]])
    expected = np.log(3) + lag * np.log(float(np.dtype(dtype).type(weight)))
    expected[1, 2] = -np.inf
    np.testing.assert_allclose(matrix.log_norms, expected, rtol=1e-6 if dtype == "float32" else 1e-13)


# -------------------------------------------------------------------------------------------------- probes


@pytest.mark.sample(2)
@pytest.mark.parametrize(("library", "of"), [("numpy", "inputs"), ("numpy", "state"), ("jax", "inputs")])
def test_probes_estimate_the_squared_norm_without_bias(kind, library, of):
    """4000 sign vectors: every z-score of the squared norm is within 4 of the standard error that is given."""
    made, expected = example(kind)
    matrix = lstmx.influence(history_of(made, library), probes=4000, of=of, seed=3)
    earlier = np.tril(np.ones((6, 6), bool))
    exact = expected[of][earlier] ** 2
    found = np.asarray(matrix.norms)[earlier] ** 2
    error = 2 * np.asarray(matrix.standard_error)[earlier] * found  # of a square: twice the relative one
    spread = error > 1e-12 * found  # a probe of unit length is exact where ∂h_t/∂s_t is the identity
    z = (found - exact)[spread] / error[spread]
    assert spread.sum() >= 15
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(found[~spread], exact[~spread], rtol=1e-12)


@pytest.mark.slow
def test_the_standard_error_is_the_spread_of_estimates_from_other_seeds():
    """300 estimates by 20 probes: their standard deviation is known to 4 %, so 16 % is four errors of it."""
    history = history_of(example(lstmx.LSTM)[0], "numpy")
    runs = [lstmx.influence(history, outputs=5, inputs=[1, 4], probes=20, seed=seed) for seed in range(300)]
    squares = np.array([run.norms[0] for run in runs]) ** 2
    errors = np.array([run.standard_error[0] for run in runs])
    claimed = np.sqrt(np.mean((2 * errors * squares) ** 2, axis=0))
    np.testing.assert_allclose(squares.std(axis=0, ddof=1), claimed, rtol=0.16)
    exact = example(lstmx.LSTM)[1]["inputs"][5, [1, 4]] ** 2
    assert np.all(np.abs(squares.mean(axis=0) - exact) < 4 * squares.std(axis=0) / np.sqrt(300))


def test_the_standard_error_is_that_of_the_mean_of_the_probes_squares():
    """Worked out from the Jacobian and the signs themselves."""
    made, _ = example(lstmx.LSTM)
    cell, params, xs, state = made
    jacobian = np.asarray(derivatives(cell, params, jnp.asarray(xs), state)[0])[5, :, 2]
    signs = np.random.default_rng(7).choice([-1.0, 1.0], size=(9, 3))
    squares = np.sum((signs @ jacobian) ** 2, axis=-1)
    matrix = lstmx.influence(history_of(made, "numpy"), outputs=5, inputs=2, probes=9, seed=7)
    np.testing.assert_allclose(matrix.norms[0, 0], np.sqrt(squares.mean()), rtol=1e-12)
    relative = squares.std(ddof=1) / np.sqrt(9) / squares.mean() / 2
    np.testing.assert_allclose(matrix.standard_error[0, 0], relative, rtol=1e-12)


@pytest.mark.sample(2)
def test_probes_of_one_unit_are_exact(kind):
    """A sign squares to 1, so every probe of a single unit is the answer."""
    made, expected = example(kind, length=3, hidden=1)
    matrix = lstmx.influence(history_of(made, "numpy"), probes=2)
    assert_close(matrix.norms, expected["inputs"], 1e-14)
    np.testing.assert_allclose(matrix.standard_error, 0, atol=1e-15)


def test_probes_of_a_seed_are_the_same_in_both_libraries_and_differ_between_seeds():
    made, _ = example(lstmx.GRU)
    numpy, jaxed = (lstmx.influence(history_of(made, library), probes=3, seed=1) for library in LIBRARIES)
    assert_close(jaxed, numpy, 1e-13)
    other = lstmx.influence(history_of(made, "numpy"), probes=3, seed=2)
    assert np.abs(other.norms - numpy.norms).max() > 1e-3


# ------------------------------------------------------------------------------------------- what it comes to


def test_the_lag_profile_is_the_mean_over_the_pairs_of_each_lag():
    matrix = influence_of([[1.0, 0, 0], [4, 3, 0], [9, 6, 5]])
    assert_close(matrix.lag_profile, np.array([3.0, 5, 9]), 1e-15)
    assert_close(matrix.mean_lag, np.array((0 * 3 + 1 * 5 + 2 * 9) / 17), 1e-15)


def test_the_lag_profile_of_chosen_steps_leaves_out_lags_without_a_pair():
    matrix = influence_of([[8.0, 2]], outputs=[5], inputs=[1, 4])
    np.testing.assert_allclose(matrix.lag_profile, [np.nan, 2, np.nan, np.nan, 8], rtol=1e-15)
    np.testing.assert_allclose(matrix.mean_lag, (1 * 2 + 4 * 8) / 10, rtol=1e-15)
    assert matrix.quantile(0.1) == 1
    assert matrix.quantile(0.5) == 4


def test_the_lag_profile_keeps_the_sequences_of_a_batch_apart():
    norms = np.zeros((2, 2, 3))
    norms[0, 0], norms[1, 1], norms[1, 0] = 1, 3, [2, 4, 0]
    matrix = influence_of(norms)
    assert_close(matrix.lag_profile, np.array([[2.0, 2, 2], [2, 4, 0]]), 1e-15)
    assert_close(matrix.mean_lag, np.array([1 / 2, 2 / 3, 0]), 1e-15)
    assert_same(matrix.quantile(0.5), np.array([0, 1, 0]))


@pytest.mark.parametrize(
    ("fraction", "lag"), [(0.01, 0), (0.4, 0), (0.41, 1), (0.7, 1), (0.71, 2), (0.95, 3), (1, 3)]
)
def test_a_quantile_is_the_least_lag_that_holds_the_fraction(fraction, lag):
    assert influence_of([[1.0, 2, 3, 4]], outputs=[3]).quantile(fraction) == lag


@pytest.mark.sample(1)
def test_inputs_after_every_output_leave_nothing_to_profile(library):
    matrix = lstmx.influence(random_history(lstmx.GRU, library), outputs=2, inputs=[3, 5])
    assert np.isneginf(matrix.log_norms).all()
    assert np.isnan(matrix.lag_profile).all()
    assert np.isnan(matrix.mean_lag)


@pytest.mark.slow
def test_lags_count_the_steps_that_count(library):
    cell = lstmx.LSTM(3, 5)
    params, xs = cell.init(np.random.default_rng(0), "float64"), np.random.default_rng(1).normal(size=(40, 1, 3))
    mask = np.ones((40, 1), bool)
    mask[:2] = mask[10:32] = False
    whole = lstmx.influence(lstmx.record(cell, *to(library, (params, xs[mask]))), outputs=[15])
    held = lstmx.influence(lstmx.record(cell, *to(library, (params, xs)), mask=to(library, mask)), outputs=[39])
    np.testing.assert_array_equal(held.lags[0, mask[:, 0], 0], whole.lags[0])
    assert (held.lags[0, ~mask[:, 0]] == -1).all()
    assert_close(held.lag_profile[:, 0], whole.lag_profile, 1e-14)
    assert_close(held.mean_lag[0], whole.mean_lag, 1e-14)
    assert held.quantile(0.95)[0] == whole.quantile(0.95)


@pytest.mark.parametrize("offset", [-20_000.0, 5_000.0])
def test_mean_lag_and_quantiles_do_not_need_norms_within_the_float_range(offset):
    logs = np.log([[1.0, 2, 3, 4]])
    matrix = lstmx.Influence(logs + offset, np.array([3]), np.arange(4), None)
    np.testing.assert_allclose(matrix.mean_lag, (0 * 4 + 1 * 3 + 2 * 2 + 3 * 1) / 10, rtol=1e-11)
    assert matrix.quantile(0.41) == 1
    assert matrix.quantile(0.95) == 3


@pytest.mark.parametrize("fraction", [0, -0.5, 1.1, np.nan])
def test_a_quantile_takes_only_a_fraction(fraction):
    with pytest.raises(ValueError, match=r"fraction is .*; expected a number between 0 and 1"):
        influence_of([[1.0]]).quantile(fraction)


def test_an_influence_is_a_tree_that_says_what_it_is():
    matrix = influence_of([[1.0, 0], [1, 1]])
    assert repr(matrix) == "Influence(2 output steps on 2 earlier steps, exact)"
    assert isinstance(jax.tree.map(lambda x: x, matrix), lstmx.Influence)
    probed = lstmx.influence(random_history(lstmx.GRU), outputs=3, probes=2)
    assert repr(probed) == "Influence(1 output steps on 7 earlier steps, by probes)"


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"outputs": 7}, ValueError, "outputs holds step 7; expected 0 to 6"),
        ({"outputs": [0, -1]}, ValueError, "outputs holds step -1; expected 0 to 6"),
        ({"inputs": [2, 9]}, ValueError, "inputs holds step 9; expected 0 to 6"),
        ({"outputs": []}, ValueError, "outputs is empty; expected at least one step"),
        ({"inputs": ()}, ValueError, "inputs is empty"),
        ({"outputs": 1.0}, TypeError, r"outputs holds 1\.0; expected integer steps"),
        ({"outputs": [True]}, TypeError, "outputs holds True; expected integer steps"),
        ({"inputs": ["0"]}, TypeError, "inputs holds '0'; expected integer steps"),
        ({"probes": 1}, ValueError, "probes is 1; expected an integer of at least 2"),
        ({"probes": 0}, ValueError, "probes is 0"),
        ({"probes": 8.0}, TypeError, r"probes is 8\.0; expected an integer"),
        ({"of": "cell"}, ValueError, "of is 'cell'; expected one of 'inputs', 'state'"),
    ],
    ids=str,
)
def test_options_of_another_kind_or_range_are_refused(library, options, error, match):
    with pytest.raises(error, match=match):
        lstmx.influence(random_history(lstmx.GRU, library), **options)


def test_exact_influence_of_too_many_units_is_refused_and_probes_take_it():
    cell = lstmx.SimpleRNN(1, 513)
    params = lstmx.SimpleRNNParams(np.ones((1, 513)), np.zeros((513, 513)), np.zeros(513))
    history = lstmx.record(cell, params, np.zeros((2, 1)))
    with pytest.raises(ValueError, match="exact influence takes at most 512 units; pass probes=32 for 513"):
        lstmx.influence(history)
    assert lstmx.influence(history, probes=2).norms.shape == (2, 2)


def test_numbers_that_are_not_finite_are_named(kind, library):
    cell, params, xs, state = draw_pass(kind)
    xs[4, 2] = xs[5, 0] = np.nan
    with pytest.raises(ValueError, match="inputs is nan first at step 4, feature 2; expected finite"):
        lstmx.influence(history_of((cell, params, xs, state), library))
    history = random_history(kind, library)
    broken = params._replace(bias=params.bias * np.nan)
    with pytest.raises(ValueError, match=r"params\.bias holds NaN or infinity"):
        lstmx.influence(lstmx.History(cell, to(library, broken), history.initial, *history.rows))


def test_an_infinite_cell_state_is_refused(library):
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    state.cell[1] = np.inf
    history = history_of((cell, params, xs, state), library)
    with pytest.raises(ValueError, match=r"cell.* is inf first at step 0, unit 1; expected finite"):
        lstmx.influence(history)


def test_a_progress_bar_changes_no_number(capsys):
    history = random_history(lstmx.GRU)
    assert_close(lstmx.influence(history, progress=True), lstmx.influence(history), 0)
    assert "influence" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- the gate kernel


def weights_of(history):
    """w_{t,s} = i_s ∏ f_r over s < r ≤ t, [T, T, *batch, H], by plain products."""
    i, f = np.asarray(history.input_gate), np.asarray(history.forget_gate)
    weights = np.zeros((len(i), *i.shape))
    for t in range(len(i)):
        for s in range(t + 1):
            weights[t, s] = i[s] * np.prod(f[s + 1 : t + 1], axis=0)
    return weights


@pytest.mark.sample(2)
@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_the_weights_of_the_kernel_add_up_to_the_cell_state(library, batch):
    """c_t = Σ_s w_{t,s} g_s + (∏ f) c_0: the reading that the kernel is made of."""
    history = history_of(example(lstmx.LSTM, batch)[0], library)
    weights = weights_of(history)
    for t in range(6):
        content = np.sum(weights[t] * np.asarray(history.candidate), axis=0)
        initial = np.exp(lstmx.highway(history, 0, t + 1)) * np.asarray(history.initial.cell)
        assert_close(content + initial, np.asarray(history.cell_state[t]), 5e-16)


def test_the_kernel_of_one_unit_shares_out_its_cell_state():
    """For one unit the norm is the weight itself: kernel times Σ w, times g, is the cell state less ∏ f c_0."""
    history = history_of(example(lstmx.LSTM, hidden=1)[0], "numpy")
    kernel = lstmx.gate_kernel(history)
    total = weights_of(history)[..., 0].sum(axis=1)
    for t in range(6):
        content = total[t] * kernel[t] @ history.candidate[:, 0]
        initial = np.exp(lstmx.highway(history, 0, t + 1)) * history.initial.cell
        assert_close(content + initial, history.cell_state[t], 5e-16)


@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_the_kernel_is_the_normalised_sum_of_output_gate_times_weight(library, batch):
    history = history_of(example(lstmx.LSTM, batch)[0], library)
    kernel = lstmx.gate_kernel(history)
    assert isinstance(kernel, np.ndarray)
    assert kernel.dtype == np.float64
    sums = np.sum(np.asarray(history.output_gate)[:, None] * weights_of(history), axis=-1)
    assert_close(kernel, sums / sums.sum(axis=1, keepdims=True), 1e-14)
    np.testing.assert_allclose(kernel.sum(axis=1), 1, rtol=1e-14)
    assert (kernel[~np.tril(np.ones((6, 6), bool))] == 0).all()


def test_the_kernel_of_chosen_steps_and_of_a_long_history():
    history = history_of(example(lstmx.LSTM)[0], "numpy")
    kernel = lstmx.gate_kernel(history)
    assert_same(lstmx.gate_kernel(history, outputs=[5, 2]), kernel[[5, 2]])
    assert_same(lstmx.gate_kernel(history, outputs=0), kernel[:1])
    assert lstmx.gate_kernel(random_history(lstmx.LSTM, length=513)).shape == (1, 513)


def test_the_kernel_is_not_the_sensitivity():
    """Without a weight from its inputs an LSTM does not feel them; its gates store and keep all the same."""
    cell, params, xs, state = example(lstmx.LSTM)[0]
    history = lstmx.record(cell, params._replace(input_kernel=0 * params.input_kernel), xs, state)
    assert np.isneginf(lstmx.influence(history).log_norms).all()
    kernel = lstmx.gate_kernel(history)
    np.testing.assert_allclose(kernel.sum(axis=1), 1, rtol=1e-14)
    sensitivity = lstmx.influence(history_of(example(lstmx.LSTM)[0], "numpy")).norms
    shares = sensitivity / sensitivity.sum(axis=1, keepdims=True)
    assert np.abs(lstmx.gate_kernel(history_of(example(lstmx.LSTM)[0], "numpy")) - shares).max() > 0.05


@pytest.mark.parametrize("shut", ["input_gate", "output_gate"])
def test_the_kernel_is_normalised_where_a_gate_is_shut_beyond_the_float_range(shut):
    """exp(−800) is 0 in float64, its share of a sum is not."""
    cell, params, xs, state = example(lstmx.LSTM)[0]
    block = 3 * cell.gate_blocks[shut]
    bias = params.bias.copy()
    bias[block : block + 3] = -800
    kernel = lstmx.gate_kernel(lstmx.record(cell, params._replace(bias=bias), xs, state))
    np.testing.assert_allclose(kernel.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_a_cell_without_an_input_gate_has_no_kernel(library, kind):
    match = rf"{kind.__name__}\(.*\) has no input gate of its own; expected a cell with one"
    with pytest.raises(ValueError, match=match):
        lstmx.gate_kernel(random_history(kind, library))


@pytest.mark.parametrize(
    ("outputs", "error", "match"),
    [
        (7, ValueError, "outputs holds step 7; expected 0 to 6"),
        ([], ValueError, "outputs is empty"),
        (0.5, TypeError, r"outputs holds 0\.5; expected integer steps"),
    ],
)
def test_kernel_steps_outside_the_history_are_refused(outputs, error, match):
    with pytest.raises(error, match=match):
        lstmx.gate_kernel(random_history(lstmx.LSTM), outputs)


def test_the_kernel_refuses_to_run_within_jit():
    with pytest.raises(TypeError, match="history is inside a JAX transformation; its weights are summed"):
        jax.jit(lstmx.gate_kernel)(random_history(lstmx.LSTM, "jax"))


def test_what_is_printed():
    cell = lstmx.LSTM(3, 5)
    params = cell.init(np.random.default_rng(0), "float64")
    history = lstmx.record(cell, params, np.random.default_rng(1).normal(size=(30, 2, 3)))
    made = lstmx.influence(history)
    lines = str(made).splitlines()
    assert lines[0].startswith("how far h_t depends on x_s: 30 output steps on 30 earlier ones, from the least to")
    assert lines[1].startswith(f"  mean lag {made.mean_lag.min():.4g} to {made.mean_lag.max():.4g} steps")
    half, most = made.quantile(0.5), made.quantile(0.95)
    assert f"within {half.min():.4g}" in lines[2]
    assert f"{most.max():.4g} of 29 looked at" in lines[2]
    assert "estimates from probes" in str(lstmx.influence(history, probes=4))

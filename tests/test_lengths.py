"""Padded batches and sequences that start inside a row, against each sequence run alone."""

import itertools

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, to

import lstmx

CELLS = family.of_size(3, 4)
LENGTHS = np.array([[6, 1], [4, 3]])
RESETS = np.zeros((6, 2, 2), bool)
RESETS[3, 0, 0] = RESETS[0, 0, 1] = RESETS[2, 1, 0] = RESETS[3, 1, 0] = RESETS[5, 1, 1] = True

each = pytest.mark.parametrize("name", ["NP", "V", "FGR", "CIFG", "GRU", "GRU before", "SimpleRNN"])
few = pytest.mark.parametrize("name", ["NP", "GRU before"])


def drawn(name, seed=0):
    """Cell, parameters, inputs whose padding is large, and a non-zero initial state; NumPy."""
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, (2, 2), length=6, seed=seed)
    past = np.arange(6)[:, None, None] >= LENGTHS
    xs[past] = 1e3
    return cell, params, xs, state


def alone(cell, params, xs, state, index):
    """One sequence without its padding."""
    length = LENGTHS[index]
    one = jax.tree.map(lambda x: x[index], state)
    return lstmx.record(cell, params, xs[:length, *index], one)


def each_alone(*made):
    return {index: alone(*made, index) for index in np.ndindex(2, 2)}


@pytest.mark.sample(3)
@each
def test_a_padded_batch_is_each_sequence_alone(name, library):
    made = drawn(name)
    cell, *given = made
    outputs, final = lstmx.run(cell, *to(library, given), lengths=LENGTHS)
    history = lstmx.record(cell, *to(library, given), lengths=LENGTHS)
    for index, one in each_alone(*made).items():
        length = LENGTHS[index]
        assert_close(outputs[:length, *index], one.hidden_state, 1e-13)
        assert not np.any(outputs[length:, *index])
        last = jax.tree.map(lambda x, at=index: x[at], final)
        assert_close(last, one.final, 1e-13)
        for field, expected in one.states._asdict().items():
            found = np.asarray(getattr(history.states, field))[:, *index]
            np.testing.assert_allclose(found[:length], expected, atol=1e-13)
            assert_same(found[length:], np.broadcast_to(found[length - 1], found[length:].shape))
    assert_same(np.asarray(history.lengths), LENGTHS)
    past = np.arange(6)[:, None, None] >= LENGTHS
    assert_same(np.asarray(history.inputs), np.where(past[..., None], 0, made[2]))


@pytest.mark.slow
@each
def test_gradients_of_a_padded_batch_are_the_sum_over_sequences(name):
    cell, params, xs, state = drawn(name, seed=1)
    weights = np.random.default_rng(2).normal(size=(6, 2, 2, 4))
    given = to("jax", (params, xs, state))

    @jax.jit
    def gradient(lengths, params, xs, state):
        def loss(params, xs, state):
            outputs, final = lstmx.run(cell, params, xs, state, lengths=lengths, chunk=4)
            return (outputs * weights).sum() + sum((field**2).sum() for field in final)

        return jax.grad(loss, argnums=(0, 1, 2))(params, xs, state)

    d_params, d_xs, d_state = gradient(jnp.asarray(LENGTHS), *given)
    history = lstmx.record(cell, params, xs, state, lengths=LENGTHS)
    found = lstmx.backward(history, weights, jax.tree.map(lambda x: 2 * x, history.final))
    assert_close((found.parameters, found.inputs, found.initial), (d_params, d_xs, d_state), 1e-11)
    total = jax.tree.map(np.zeros_like, params)
    for index, one in each_alone(cell, params, xs, state).items():
        length = LENGTHS[index]
        here = lstmx.backward(one, weights[:length, *index], jax.tree.map(lambda x: 2 * x, one.final))
        total = jax.tree.map(np.add, total, here.parameters)
        assert_close(found.inputs[:length, *index], here.inputs, 1e-11)
        assert not found.inputs[length:, *index].any()
        assert_close(jax.tree.map(lambda x, at=index: x[at], found.initial), here.initial, 1e-11)
    assert_close(found.parameters, total, 1e-11)


@pytest.mark.slow
@few
def test_gradient_flow_and_its_summary_leave_the_padding_out(name, library):
    made = drawn(name, seed=3)
    cell, *given = made
    history = lstmx.record(cell, *to(library, given), lengths=LENGTHS)
    flow = lstmx.gradient_flow(history, "last")
    for index, one in each_alone(*made).items():
        length, expected = LENGTHS[index], lstmx.gradient_flow(one, "last")
        for field in ("log_norm", "log_norm_hidden", "log_highway", "log_parameter_profile"):
            found = np.asarray(getattr(flow, field))[:, *index]
            np.testing.assert_allclose(found[:length], getattr(expected, field), atol=1e-11)
            assert np.isnan(found[length:]).all()
        np.testing.assert_allclose(flow.hidden[:length, *index], expected.hidden, atol=1e-12)
        np.testing.assert_allclose(flow.decay_rate.rate[index], expected.decay_rate.rate, atol=1e-11)
        np.testing.assert_allclose(flow.horizon(0.5)[index], expected.horizon(0.5))
        assert flow.verdict[index] == expected.verdict
    assert np.asarray(flow.inputs).shape == given[1].shape
    assert "nan" not in str(flow).splitlines()[1]


@pytest.mark.sample(1)
@few
def test_statistics_count_each_step_of_each_sequence_once(name, library):
    made = drawn(name, seed=4)
    cell, *given = made
    statistics = lstmx.gate_statistics(lstmx.record(cell, *to(library, given), lengths=LENGTHS, keep="states"))
    online = lstmx.summarise(cell, *to(library, given), lengths=LENGTHS)
    ones = each_alone(*made).values()
    for gate in cell.gate_names:
        values = np.concatenate([getattr(one, gate) for one in ones])
        found = statistics[gate]
        np.testing.assert_allclose(found.mean, values.mean(axis=0), atol=1e-13)
        np.testing.assert_allclose(found.std, values.std(axis=0), atol=1e-13)
        np.testing.assert_allclose(found.min, values.min(axis=0), atol=1e-13)
        np.testing.assert_allclose(found.max, values.max(axis=0), atol=1e-13)
        np.testing.assert_allclose(found.left, (values < 0.1).mean(axis=0), atol=1e-13)
        assert_close(online[gate], found, 1e-12)
    kept = np.concatenate([np.log(getattr(one, cell.retention_gate)) for one in ones])
    np.testing.assert_allclose(statistics.timescale, -1 / kept.mean(axis=0), rtol=1e-11)


@few
def test_influence_jacobians_and_highway_of_a_padded_batch(name):
    cell, params, xs, state = drawn(name, seed=5)
    history = lstmx.record(cell, params, xs, state, lengths=LENGTHS)
    reach, matrices = lstmx.influence(history), lstmx.jacobians(history)
    for index, one in each_alone(cell, params, xs, state).items():
        length = LENGTHS[index]
        expected = lstmx.influence(one).log_norms
        np.testing.assert_allclose(reach.log_norms[:length, :length, *index], expected, atol=1e-11)
        assert np.isneginf(reach.log_norms[:length, length:, *index]).all()
        assert np.isneginf(reach.log_norms[length:, :, *index]).all()  # outputs that are 0 depend on nothing
        np.testing.assert_allclose(matrices[:length, *index], lstmx.jacobians(one), atol=1e-12)
        assert_same(
            matrices[length:, *index], np.broadcast_to(np.eye(cell.state_size), matrices[length:, 0, 0].shape)
        )
        np.testing.assert_allclose(lstmx.highway(history)[index], lstmx.highway(one), atol=1e-12)


@pytest.mark.sample(1)
@each
def test_a_reset_starts_a_sequence_anew(name, library):
    cell, params, xs, state = drawn(name, seed=6)
    given = to(library, (params, xs, state))
    outputs, final = lstmx.run(cell, *given, resets=to(library, RESETS), lengths=LENGTHS)
    history = lstmx.record(cell, *given, resets=to(library, RESETS), lengths=LENGTHS)
    pieces = history.pieces()
    found = iter(pieces)
    for index in np.ndindex(2, 2):
        length = LENGTHS[index]
        starts = [0, *(t for t in np.flatnonzero(RESETS[:length, *index]) if t), length]
        for a, b in itertools.pairwise(starts):
            own = jax.tree.map(lambda x, at=index: x[at], state)
            first = cell.initial_state(params) if RESETS[a, *index] else own
            expected = lstmx.record(cell, params, xs[a:b, *index], first)
            assert_close(outputs[a:b, *index], expected.hidden_state, 1e-13)
            piece = next(found)
            assert piece.cell == cell
            assert_close(piece, expected, 1e-12)
        assert_close(jax.tree.map(lambda x, at=index: x[at], final), expected.final, 1e-13)
    assert next(found, None) is None


@few
def test_no_gradient_crosses_a_reset(name):
    cell, params, xs, state = drawn(name, seed=7)
    history = lstmx.record(
        cell, params, xs[:, 0, 0], jax.tree.map(lambda x: x[0, 0], state), resets=RESETS[:, 0, 0]
    )
    flow = lstmx.gradient_flow(history, "last")
    later = lstmx.gradient_flow(lstmx.record(cell, params, xs[3:, 0, 0]), "last")
    assert np.isneginf(flow.log_norm[:3]).all()
    np.testing.assert_allclose(flow.log_norm[3:], later.log_norm, atol=1e-12)
    assert_close(flow.parameters, later.parameters, 1e-12)
    assert not any(field.any() for field in flow.initial)


def test_a_summary_leaves_the_padding_out():
    made = drawn("GRU")
    history = lstmx.record(*made, lengths=LENGTHS)
    values = np.concatenate([one.update_gate.ravel() for one in each_alone(*made).values()])
    line = f"update gate: mean {values.mean():.4f}, standard deviation {values.std():.4f}"
    assert line in history.summary().splitlines()


def test_a_single_sequence_may_have_a_length():
    cell, params, xs, _ = drawn("NP")
    history = lstmx.record(cell, params, xs[:, 0, 0], lengths=np.int64(4))
    assert history.lengths == 4
    (piece,) = history.pieces()
    assert_same(piece, lstmx.record(cell, params, xs[:4, 0, 0]))


def test_a_history_without_lengths_has_them_all_the_same():
    cell, params, xs, state = drawn("GRU")
    history = lstmx.record(cell, params, xs, state)
    assert_same(history.lengths, np.full((2, 2), 6))
    assert history.counts is None
    assert history.whole
    assert [len(piece) for piece in history.pieces()] == [6] * 4


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ({"lengths": np.array([6, 1])}, r"lengths has shape \(2,\) .* expected an integer for each .* \(2, 2\)"),
        ({"lengths": LENGTHS.astype(float)}, "lengths has shape .* dtype float64; expected an integer"),
        ({"lengths": LENGTHS + 1}, "lengths holds 7; expected 1 to 6"),
        ({"lengths": LENGTHS - 1}, "lengths holds 0; expected 1 to 6"),
        (
            {"resets": RESETS[:5]},
            r"resets has shape \(5, 2, 2\) .* expected booleans \[T, \*batch\] = \(6, 2, 2\)",
        ),
        ({"resets": RESETS.astype(int)}, "dtype int64; expected booleans"),
    ],
)
@pytest.mark.parametrize("function", [lstmx.run, lstmx.record, lstmx.summarise])
def test_wrong_lengths_and_resets_are_refused(function, controls, words):
    with pytest.raises(ValueError, match=words):
        function(*drawn("NP"), **controls)


def test_path_orders_and_kernels_of_a_padded_batch_are_those_of_each_sequence():
    made = drawn("NP", seed=8)
    history = lstmx.record(*made, lengths=LENGTHS)
    spectrum, kernel = lstmx.path_spectrum(history, max_order=3), lstmx.gate_kernel(history)
    matrices = lstmx.path_spectrum(history, max_order=3, matrix=True).matrices
    for index, one in each_alone(*made).items():
        length = LENGTHS[index]
        expected = lstmx.path_spectrum(one, max_order=3)
        np.testing.assert_allclose(spectrum.log_norms[:length, :, *index], expected.log_norms, atol=1e-11)
        initial = jax.tree.map(lambda x, at=index: x[:, *at], spectrum.initial)
        assert_close(initial, expected.initial, 1e-11)
        whole = lstmx.path_spectrum(one, max_order=3, matrix=True).matrices
        np.testing.assert_allclose(matrices[:, *index], whole, atol=1e-11)
        np.testing.assert_allclose(kernel[:length, :length, *index], lstmx.gate_kernel(one), atol=1e-13)
        np.testing.assert_allclose(kernel[length:, :, *index].sum(axis=1), 1)
        assert not kernel[:, length:, *index].any()


@pytest.mark.parametrize("library", ["numpy", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_spectrum_counts_each_sequence_up_to_its_end(library):
    cell = lstmx.LSTM(3, 4)
    params, state, xs, _ = family.draw(cell, (3,), length=60)
    lengths = np.array([60, 25, 41])
    history = lstmx.record(cell, *to(library, (params, xs, state)), lengths=lengths)
    options = {"count": "all", "transient": 5, "reorthonormalise": 2, "window": 10}
    spectrum = lstmx.lyapunov_spectrum(history, **options)
    options |= {"reorthonormalise": 1, "window": 1}
    alone = [lstmx.lyapunov_spectrum(piece, **options).exponents for piece in history.pieces()]
    found = -np.sort(-spectrum.per_sequence, axis=-1)
    np.testing.assert_allclose(found, alone, atol=1e-11)
    np.testing.assert_allclose(spectrum.exponents, spectrum.per_sequence.mean(axis=0), atol=1e-14)
    assert spectrum.sum_rule.discrepancy < 1e-10
    moving = [[5, 5, 5], [10, 10, 10], [10, 5, 10], [10, 0, 10], [10, 0, 1], [10, 0, 0]]
    np.testing.assert_array_equal(spectrum.moving, moving)
    np.testing.assert_array_equal(np.isnan(spectrum.local[..., 0]), spectrum.moving == 0)
    assert np.isfinite(spectrum.over_sequences).all()
    assert "of 3 sequences, those of each that count, after 5" in str(spectrum)
    assert len(lstmx.plot.local_exponents(spectrum).lines) > 0


def test_a_spectrum_refuses_sequences_it_cannot_follow():
    params, state, xs, _ = family.draw(cell := lstmx.LSTM(3, 4), (2,), length=30)
    padded = lstmx.record(cell, params, xs, state, lengths=np.array([30, 8]))
    with pytest.raises(ValueError, match="transient is 8; expected less than the 8 steps of the shortest"):
        lstmx.lyapunov_spectrum(padded, transient=8)
    with pytest.raises(ValueError, match=r"audit takes whole sequences; .* history.pieces\(\)"):
        lstmx.lyapunov_spectrum(padded, audit=True)
    resets = np.zeros((30, 2), bool)
    resets[7, 1] = True
    anew = lstmx.record(cell, params, xs, state, resets=resets)
    with pytest.raises(ValueError, match=r"this history has resets, .* history.pieces\(\)"):
        lstmx.lyapunov_spectrum(anew)
    resets[:] = False
    resets[0] = True
    lstmx.lyapunov_spectrum(lstmx.record(cell, params, xs, state, resets=resets))


@pytest.mark.slow
def test_a_spectrum_is_of_the_steps_that_count(library):
    cell = lstmx.LSTM(3, 5)
    params, xs = cell.init(np.random.default_rng(0), "float64"), np.random.default_rng(1).normal(size=(120, 1, 3))
    mask = np.ones((120, 1), bool)
    mask[20:90] = False
    held = lstmx.lyapunov_spectrum(lstmx.record(cell, *to(library, (params, xs)), mask=to(library, mask)))
    alone = lstmx.lyapunov_spectrum(lstmx.record(cell, *to(library, (params, xs[mask]))))
    assert (held.steps, held.transient, held.window) == (alone.steps, alone.transient, alone.window)
    assert_close(held.exponents, alone.exponents, 1e-13)
    assert "from 45 steps of 1 sequence after 5" in str(held)


@pytest.mark.slow
def test_a_spectrum_of_a_padded_batch_is_differentiated():
    cell, mask = lstmx.LSTM(3, 5), np.ones((30, 2), bool)
    mask[:4, 0] = mask[9:12, 1] = False
    params, xs = to("jax", (cell.init(np.random.default_rng(0), "float64"), np.ones((30, 2, 3))))

    def greatest(bias):
        history = lstmx.record(cell, params._replace(bias=bias), xs, mask=mask)
        return lstmx.lyapunov_spectrum(history, 1, transient=3, reorthonormalise=1).exponents[0]

    slope, step = jax.grad(greatest)(params.bias), 1e-5
    for k in (0, 6, 19):
        moved = [greatest(params.bias.at[k].add(sign * step)) for sign in (1, -1)]
        np.testing.assert_allclose(slope[k], (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-9)
    assert np.isfinite(jax.vmap(greatest)(jnp.stack([params.bias, 2 * params.bias]))).all()


@pytest.mark.slow
def test_figures_of_a_padded_batch_show_its_sequences():
    history = lstmx.record(*drawn("NP"), lengths=LENGTHS)
    figure = lstmx.plot.dynamics(history, sequence=(1, 0))
    assert len(figure.axes[0].lines) == 3

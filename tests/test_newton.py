"""Time in parallel: `run(..., parallel="newton")` against the loop, in every context, and when it is to be had."""

import contexts
import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, to

import lstmx
from lstmx.passes import newton


def drawn(name, batch=(), length=11, hidden=3, seed=0):
    """A cell of the family, and (params, xs, state) of it in JAX."""
    cell = family.of_size(3, hidden)[name]
    params, state, xs, draws = family.draw(cell, batch, length=length, seed=seed)
    return cell, to("jax", (params, xs, state)), draws


def gradients(cell, given, weights, **options):
    """Of a loss of all outputs and final states, inside jit; and these."""

    def loss(params, xs, state):
        outputs, final = lstmx.run(cell, params, xs, state, **options)
        squares = sum((x**2).sum() for x in jax.tree.leaves(final))
        return (outputs * weights).sum() + squares, (outputs, final)

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*given)


# ------------------------------------------------------------------------------------------- against the loop


@pytest.mark.slow
@pytest.mark.parametrize("name", [*family.FORMS, "no gates", "GRU", "MGU", "MinLSTM", "SLSTM", "SimpleRNN"])
def test_outputs_and_gradients_are_those_of_the_loop(name):
    cell, given, draws = drawn(name, (2,))
    weights = draws.normal(size=(11, 2, cell.output_size))
    assert_close(gradients(cell, given, weights, parallel="newton"), gradients(cell, given, weights), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SimpleRNN", "units"),
        ("V", "units"),
        ("GRU before", "units"),
        ("projection", "diagonal"),
        ("layer norm", "diagonal"),
    ],
)
def test_wide_states_in_windows_are_those_of_the_loop(name, kind):
    cell, given, draws = drawn(name, (2,), 17, hidden=40 if name in ("SimpleRNN", "GRU before") else 17)
    assert newton.kind_of(cell) == kind
    weights = draws.normal(size=(17, 2, cell.output_size))
    made = gradients(cell, given, weights, parallel="newton", chunk=7)
    assert_close(made, gradients(cell, given, weights), 1e-10)


@pytest.mark.slow
def test_the_way_back_of_very_wide_states_is_a_loop():
    cell, given, draws = drawn("V", (), 9, hidden=130)
    weights = draws.normal(size=(9, 130))
    assert_close(gradients(cell, given, weights, parallel="newton"), gradients(cell, given, weights), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("context", [one for one in contexts.CONTEXTS if one not in contexts.IMPLIED])
def test_in_every_context_it_is_what_a_plain_loop_gives(context):
    """Outputs, final states and gradients, also of a second set of parameters under vmap."""
    case = contexts.case_of(context, "small", "jax")

    def compute(*given):
        def loss(params, xs, state):
            outputs, final = lstmx.run(case.cell, params, xs, state, parallel="newton", **case.said)
            squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(final))
            return (outputs * case.weights).sum() + squares, (outputs, final)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*given)

    several = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), case.given[0])
    made = jax.jit(jax.vmap(compute, in_axes=(0, None, None)))(several, *to("jax", case.given[1:]))
    found, (outputs, final) = jax.tree.map(lambda x: x[0], made)
    case.same(outputs, [one.outputs for one in case.by_hand], otherwise=0)
    np.testing.assert_allclose(
        contexts.plain.state_of(final), [one.final for one in case.by_hand], rtol=1e-10, atol=1e-12
    )
    contexts.gradients_hold(case)(found)


@pytest.mark.slow
def test_second_derivatives_are_those_of_the_loop():
    cell, given, draws = drawn("V", (), 7)
    along = jax.tree.map(lambda x: jnp.asarray(draws.normal(size=x.shape)), given[0])

    def slope(params, **options):
        gradient = jax.grad(lambda p: (lstmx.run(cell, p, *given[1:], **options)[0] ** 2).sum())(params)
        return sum((a * b).sum() for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True))

    options = {"parallel": "newton"}, {}
    found, expected = (jax.jit(jax.grad(lambda p, o=o: slope(p, **o)))(given[0]) for o in options)
    assert_close(found, expected, 1e-10)


@pytest.mark.slow
def test_it_runs_inside_shard_map_and_on_a_mesh():
    cell, (params, xs, _), draws = drawn("GRU", (4,))
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    weights = jnp.asarray(draws.normal(size=(11, 4, 3)))

    def loss(params, xs, weights, **options):
        return (lstmx.run(cell, params, xs, **options)[0] * weights).sum()

    def here(params, xs, weights):
        return jax.lax.psum(loss(params, xs, weights, parallel="newton"), "batch")

    cut = spec(None, "batch")
    whole = jax.shard_map(here, mesh=mesh, in_specs=(spec(), cut, cut), out_specs=spec())
    expected = jax.jit(jax.grad(loss))(params, xs, weights)
    assert_close(jax.jit(jax.grad(whole))(params, xs, weights), expected, 1e-10)
    placed = jax.device_put((xs, weights), jax.sharding.NamedSharding(mesh, spec(None, "batch")))
    spread = jax.jit(jax.grad(lambda *given: loss(*given, parallel="newton")))(params, *placed)
    assert_close(spread, expected, 1e-10)


# ---------------------------------------------------------------------------------------------- iterations


def iterates(cell, given, counts):
    """The trajectory of a window after each of some numbers of iterations, and that of the loop."""
    params, xs, state = given
    start = cell.pack(state)
    one = jax.jit(lambda most: newton.iterated(cell, params, start, xs, None, most))
    return [one(most) for most in counts], cell.pack(lstmx.record(cell, params, xs, state).states)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_after_k_iterations_k_steps_are_exact(gain):
    cell, (params, xs, state), _ = drawn("SimpleRNN", (), 12)
    given = params._replace(recurrent_kernel=gain * params.recurrent_kernel), xs, state
    counts = (0, 1, 2, 3, 5)
    found, expected = iterates(cell, given, counts)
    for k, now in zip(counts, found, strict=True):
        assert int(now.rounds) == k
        np.testing.assert_allclose(now.states[:k], expected[:k], rtol=0, atol=1e-14)
    assert np.abs(found[1].states - expected)[2:].max() > 1e-3  # and not all are


def needed(cell, params, xs, chunk=None):
    """Iterations of the window that takes most."""
    start = cell.initial_state(params, tuple(xs.shape[1:-1]))
    count = jax.jit(lambda params, xs: newton.newton_pass(cell, chunk, params, xs, start, None)[1])
    return int(count(params, xs).max())


def driven(gain, length, units=8, seed=0):
    """A SimpleRNN of random weights with a gain, and weak inputs."""
    draws = np.random.default_rng(seed)
    cell = lstmx.SimpleRNN(2, units)
    params = cell.parameter_shapes()
    kernels = 0.3 * draws.normal(size=params[0]), gain / np.sqrt(units) * draws.normal(size=params[1])
    params = type(params)(*kernels, np.zeros(units))
    return cell, *to("jax", (params, draws.normal(size=(length, 2))))


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.7])
def test_iterations_do_not_grow_with_length_where_the_network_forgets(gain):
    cell, params, xs = driven(gain, 16_384)
    assert lstmx.lyapunov_spectrum(lstmx.record(cell, params, xs[:2000]), 1).exponents[0] < 0
    assert needed(cell, params, xs) <= needed(cell, params, xs[:256]) + 2


@pytest.mark.slow
def test_iterations_grow_like_length_in_chaos():
    cell, params, xs = driven(3.0, 1024, units=16)
    xs = 0.1 * xs
    assert lstmx.lyapunov_spectrum(lstmx.record(cell, params, xs), 1).exponents[0] > 0
    counts = [needed(cell, params, xs[:length]) for length in (256, 512, 1024)]
    assert counts[2] > 1.6 * counts[1] > 1.6**2 * counts[0] > 1.6**2 * 20


@pytest.mark.slow
def test_memory_is_bounded_by_windows():
    """What a compiled pass takes beside arguments and results grows by the trajectory, not by its matrices."""
    cell = lstmx.SimpleRNN(1, 16)
    params = type(cell.parameter_shapes())(*map(jax.ShapeDtypeStruct, cell.parameter_shapes(), 3 * ["float64"]))

    def memory(length, chunk):
        xs = jax.ShapeDtypeStruct((length, 1), "float64")
        one = jax.jit(lambda params, xs: lstmx.run(cell, params, xs, parallel="newton", chunk=chunk)[0])
        return one.lower(params, xs).compile().memory_analysis().temp_size_in_bytes

    small, longer, whole = memory(1024, 64), memory(4096, 64), memory(4096, 4096)
    trajectory = 8 * 16 * (4096 - 1024)
    assert longer - small < 3 * trajectory
    assert whole > 8 * 4096 * 16 * 16 > 4 * longer


@pytest.mark.slow
def test_where_numbers_leave_the_range_of_a_float_steps_are_taken_one_by_one():
    """One of two sequences overflows, at the step at which the loop does; the other stays 0."""
    cell = lstmx.SimpleRNN(1, 2, activation="relu")
    params = type(cell.parameter_shapes())(np.ones((1, 2)), 40.0 * np.eye(2), np.zeros(2))
    xs = np.zeros((250, 2, 1))
    xs[0, 0] = 1.0
    params, xs = to("jax", (params, xs))
    found, expected = (lstmx.run(cell, params, xs, **options)[0] for options in ({"parallel": "newton"}, {}))
    assert not np.isfinite(expected[-1, 0]).any()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"parallel": "x"}, ValueError, "parallel is 'x'; expected True, False or 'newton'"),
        ({"parallel": 2}, TypeError, "parallel is 2; expected True, False or 'newton'"),
        ({}, ValueError, "parallel is 'newton', which runs in JAX, and params are arrays of NumPy"),
        ({"differentiation": "autodiff"}, ValueError, "differentiation is 'autodiff' with parallel='newton'"),
        ({"chunk": 6}, ValueError, "chunk is 6; expected at most the 5 steps of xs"),
        ({"chunk": 0}, ValueError, "chunk is 0"),
    ],
)
@pytest.mark.parametrize("layers", [False, True])
def test_what_newton_does_not_take_is_refused(options, error, words, layers):
    cell = lstmx.Stack([lstmx.GRU(3, 4)]) if layers else lstmx.GRU(3, 4)
    params, xs = cell.init(np.random.default_rng(0)), np.ones((5, 3), "float32")
    if "chunk" in options:
        params, xs = to("jax", (params, xs))
    with pytest.raises(error, match=words):
        lstmx.run(cell, params, xs, **{"parallel": "newton", **options})


def test_forward_mode_is_refused():
    cell, (params, xs, state), _ = drawn("SimpleRNN", (), 4)
    with pytest.raises(TypeError, match="run has a reverse mode only"):
        jax.jvp(lambda xs: lstmx.run(cell, params, xs, state, parallel="newton")[0], (xs,), (xs,))


# ------------------------------------------------------------------------------------- whether it is to be had


def random_network(k):
    """A network of the next kind, with a gain from 0.3 to 5 and inputs of a scale from 0.1 to 1.5.

    Each kind has one size, of 3 to 7 units, so that it is compiled once.
    """
    draws = np.random.default_rng(1000 + k)
    kind = k % len(family.NAMES)
    name = family.NAMES[kind]
    cell = family.of_size(3, 3 + kind % 5)[name]
    gain, scale = (np.exp(draws.uniform(np.log(low), np.log(high))) for low, high in ((0.3, 5.0), (0.1, 1.5)))
    params, state, xs, _ = family.draw(cell, length=512, seed=k)
    if hasattr(params, "recurrent_kernel"):
        gain /= 0.7 * np.sqrt(cell.hidden_size)
        params = params._replace(recurrent_kernel=gain * params.recurrent_kernel)
    return cell, to("jax", (params, scale * xs, state))


def ranks(values):
    """Their ranks, those of equal values in the mean."""
    values = np.asarray(values, float)
    return np.array([(values < x).sum() + ((values == x).sum() - 1) / 2 for x in values])


def agreement(numbers):
    """The rank correlation of what was expected and what was needed, over random networks."""
    pairs = []
    for k in numbers:
        cell, given = random_network(k)
        found = lstmx.parallelisability(lstmx.record(cell, *given), measure=True)
        pairs.append((found.iterations, found.measured))
    expected, needed = zip(*pairs, strict=True)
    return np.corrcoef(ranks(expected), ranks(needed))[0, 1]


@pytest.mark.slow
def test_what_is_expected_is_what_60_networks_of_all_cells_need():
    assert agreement(range(60)) >= 0.9


@pytest.mark.slow
def test_what_is_expected_of_a_few_networks():
    assert agreement([34, 5]) > 0.99


@pytest.mark.parametrize("layers", [1, 2])
def test_where_no_gate_reads_the_state_one_iteration_is_expected(layers):
    cell = lstmx.Stack([lstmx.MinGRU(3, 3)] * layers)
    draws = np.random.default_rng(0)
    history = lstmx.record(cell, cell.init(draws, "float64"), draws.normal(size=(300, 3)))
    found = lstmx.parallelisability(history)
    assert (found.iterations, found.longest, found.pays) == (1, None, True)


@pytest.mark.slow
def test_growth_is_that_of_a_product_in_closed_form():
    """Of one unit at its fixed point 0, J is its weight u: K = u + u² + …, and M = 1 where u < 1."""
    cell = lstmx.SimpleRNN(1, 1)

    def found(u, length):
        params = type(cell.parameter_shapes())(np.ones((1, 1)), np.full((1, 1), u), np.zeros(1))
        return lstmx.parallelisability(lstmx.record(cell, params, np.zeros((length, 1))))

    dies = found(0.5, 200)
    np.testing.assert_allclose([dies.exponent, dies.growth, dies.total], [np.log(0.5), 0, 0], atol=1e-12)
    assert dies.longest is None
    assert dies.pays
    grows, rate = found(1.001, 8000), np.log(1.001)
    total = np.log((1.001**8001 - 1.001) / 0.001)
    np.testing.assert_allclose([grows.exponent, grows.growth], [rate, 8000 * rate], rtol=1e-9)
    np.testing.assert_allclose(grows.total, total, rtol=1e-9)
    assert not grows.pays
    assert 1000 < grows.longest < 8000
    assert f"λ₁ is above 0: time in parallel does not pay beyond {grows.longest:,} steps" in str(grows)
    assert found(1.001, grows.longest).pays
    assert not found(1.001, int(1.1 * grows.longest)).pays
    one = found(0.5, 1)
    assert "Expected: 1 iteration for 1 step; time in parallel does not pay" in str(one)
    nothing = found(0.0, 50)
    assert "λ₁ -inf nats per step" in str(nothing)
    assert nothing.iterations == 1


def test_measuring_takes_jax_and_verdicts_take_numbers():
    cell = lstmx.GRU(3, 4)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((40, 3), "float32"))
    with pytest.raises(ValueError, match=r"measure is True, which takes a history in memory in JAX.* in NumPy"):
        lstmx.parallelisability(history, measure=True)
    params, xs = to("jax", (history.params, history.inputs))
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda params: lstmx.parallelisability(lstmx.record(cell, params, xs)))(params)


def test_of_wide_states_at_least_so_many_are_expected():
    cell = lstmx.LSTM(3, 17)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((40, 3), "float32"))
    found = lstmx.parallelisability(history)
    assert not found.whole
    assert "Expected: at least " in str(found)

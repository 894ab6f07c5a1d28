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


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", family.NAMES)
def test_outputs_and_gradients_are_those_of_the_loop(name):
    cell, given, draws = drawn(name, (2,))
    weights = draws.normal(size=(11, 2, cell.output_size))
    assert_close(gradients(cell, given, weights, parallel="newton"), gradients(cell, given, weights), 1e-10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("V", "units"),
        *(pytest.param(name, "units", marks=pytest.mark.slow) for name in ("SimpleRNN", "GRU before", "SLSTM")),
        pytest.param("projection", "diagonal", marks=pytest.mark.slow),
        pytest.param("layer norm", "diagonal", marks=pytest.mark.slow),
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


@pytest.mark.parametrize(
    "context",
    [name if name == "mask" else pytest.param(name, marks=pytest.mark.slow) for name in contexts.CONTEXTS],
)
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
        return sum((a * b).sum() for a, b in zip(gradient, along, strict=True))

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


@pytest.mark.parametrize("gain", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
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

"""The backward pass of `run`: against autodiff, at every chunk length and batch rank, and what it costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import CELLS, assert_close, draw_pass, to

import lstmx
from lstmx.passes import backward
from lstmx.passes import forward as loops


def scanned(cell, params, xs, state):
    """The plain scan, without this library's loops."""

    def step(before, x):
        after, _ = cell.step(params, before, x)
        return after, after.hidden

    final, outputs = jax.lax.scan(step, state, xs)
    return outputs, final


def pulled(forward, outputs_cotangent, final_cotangent):
    """Gradients of parameters, inputs and initial state, by the given forward pass."""

    def gradients(*given):
        return jax.vjp(forward, *given)[1]((outputs_cotangent, final_cotangent))

    return gradients


def problem(kind, length=7, batch=(), **options):
    cell, *given = draw_pass(kind, length, batch, **options)
    given = list(to("jax", given))
    draws = np.random.default_rng(5)
    outputs = draws.normal(size=(length, *batch, cell.hidden_size))
    final = type(given[2])(*(draws.normal(size=field.shape) for field in given[2]))
    return cell, given, to("jax", (outputs, final))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "batch"), [(lstmx.LSTM, (2, 3)), (lstmx.GRU, ()), (lstmx.SimpleRNN, (1,))])
def test_the_gradient_is_autodiff_s_at_every_chunk_length(kind, batch):
    cell, given, cotangents = problem(kind, 6, batch)
    chunks = (None, 1, 3, 4, 6)  # chosen, single steps, a divisor, none, the whole

    @jax.jit
    def all_ways(*given):
        forwards = [lambda *args, c=c: lstmx.run(cell, *args, chunk=c) for c in chunks]
        forwards.append(lambda *args: lstmx.run(cell, *args, differentiation="autodiff"))
        forwards.append(lambda *args: scanned(cell, *args))
        return [pulled(forward, *cotangents)(*given) for forward in forwards]

    *ours, plain = all_ways(*given)
    for found in ours:
        assert_close(found, plain, 1e-12)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("kind", "length", "batch", "features", "hidden"),
    [
        (lstmx.GRU, 521, (), 2, 3),  # a prime length
        (lstmx.LSTM, 521, (2,), 2, 3),
        (lstmx.LSTM, 20, (2,), 60, 50),  # kept
        (lstmx.SimpleRNN, 20, (2,), 60, 50),
        (lstmx.GRU, 20, (1,), 60, 50),
        (lstmx.LSTM, 1, (), 2, 3),
        (lstmx.GRU, 5, (2,), 2, 1),
    ],
)
def test_the_gradient_is_autodiff_s_at_every_size(kind, length, batch, features, hidden):
    cell, given, cotangents = problem(kind, length, batch, features=features, hidden=hidden)
    given[0] = jax.tree.map(lambda x: x / hidden**0.5, given[0])  # or a wide SimpleRNN's gradient explodes
    ours = jax.jit(pulled(lambda *args: lstmx.run(cell, *args), *cotangents))(*given)
    plain = jax.jit(pulled(lambda *args: scanned(cell, *args), *cotangents))(*given)
    assert_close(ours, plain, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.SimpleRNN])
def test_it_composes_with_vmap_checkpoint_and_grad(kind):
    cell, (params, xs, _), _ = problem(kind, 6, (3,))

    def loss(params, xs, **options):
        return jnp.sum(jnp.sin(lstmx.run(cell, params, xs, **options)[0]))

    def twice(params, xs, **options):
        return jnp.sum(jnp.cos(jax.grad(loss, 1)(params, xs, **options)))

    @jax.jit
    def ways(params, xs):
        plain = jax.grad(loss, (0, 1))(params, xs, differentiation="autodiff")
        checkpointed = jax.grad(jax.checkpoint(loss), (0, 1))(params, xs)
        ours = jax.vmap(jax.grad(loss, (0, 1)), (None, 1), (0, 1))(params, xs)
        each = jax.tree.map(lambda x: x.sum(0), ours[0]), ours[1]
        seconds = [jax.grad(twice)(params, xs), jax.grad(twice)(params, xs, differentiation="autodiff")]
        return plain, checkpointed, each, seconds

    plain, checkpointed, each, seconds = ways(params, xs)
    assert_close(checkpointed, plain, 1e-12)
    assert_close(each, plain, 1e-12)
    assert_close(*seconds, 1e-12)


@pytest.mark.sample(1)
def test_forward_mode_takes_autodiff_and_says_so(kind):
    cell, (params, xs, _), _ = problem(kind)

    def outputs(xs, **options):
        return lstmx.run(cell, params, xs, **options)[0]

    tangent = jnp.cos(xs)
    for forward in (lambda: jax.jvp(outputs, (xs,), (tangent,)), lambda: jax.jacfwd(outputs)(xs)):
        with pytest.raises(TypeError, match='pass differentiation="autodiff"'):
            forward()
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jit(lambda xs: jax.jvp(outputs, (xs,), (tangent,)))(xs)
    _, found = jax.jvp(lambda xs: outputs(xs, differentiation="autodiff"), (xs,), (tangent,))
    small = 1e-6
    expected = (outputs(xs + small * tangent) - outputs(xs - small * tangent)) / (2 * small)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"chunk": 0}, ValueError, "chunk is 0"),
        ({"chunk": 8}, ValueError, "chunk is 8; expected at most the 7 steps"),
        ({"chunk": 2.5}, TypeError, "chunk is 2.5"),
        ({"chunk": 2, "differentiation": "autodiff"}, ValueError, "has no chunks"),
        ({"differentiation": "forward"}, ValueError, "differentiation is 'forward'; expected one of 'pullback'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_options_are_named(library, options, error, words):
    cell, *given = draw_pass(lstmx.LSTM)
    with pytest.raises(error, match=words):
        lstmx.run(cell, *to(library, given), **options)


@pytest.mark.slow
def test_both_platforms_forms_agree(kind, monkeypatch):
    cell, given, cotangents = problem(kind, 9, (2,))

    def everything():
        jax.clear_caches()  # the form is chosen when JAX traces
        gradients = jax.jit(pulled(lambda *args: lstmx.run(cell, *args), *cotangents))(*given)
        return gradients, lstmx.record(cell, *given), lstmx.run(cell, *jax.tree.map(np.asarray, given))

    here = everything()
    used = []

    def accelerator_s(cpu, accelerator, *args):
        used.append(accelerator)
        return accelerator(*args)

    monkeypatch.setattr(loops, "by_platform", accelerator_s)
    there = everything()
    jax.clear_caches()
    assert used
    assert_close(there, here, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "batch"), [(lstmx.LSTM, (1,)), (lstmx.GRU, ()), (lstmx.SimpleRNN, ())])
def test_temporary_memory_does_not_grow_with_the_pass(kind, batch):
    cell = kind(2, 8)
    params = cell.init(0)

    def temporary(length, **options):
        xs = jax.ShapeDtypeStruct((length, *batch, 2), "float32")
        cotangent = jax.ShapeDtypeStruct((length, *batch, 8), "float32")

        def both(xs, cotangent):
            outputs, pull = jax.vjp(lambda p, x: lstmx.run(cell, p, x, **options)[0], params, xs)
            return outputs, pull(cotangent)

        return jax.jit(both).lower(xs, cotangent).compile().memory_analysis().temp_size_in_bytes

    whole = 20_000 * cell.preactivation_size * 4
    assert temporary(20_000) < min(whole / 4, 3 * temporary(2_000))
    assert temporary(20_000, differentiation="autodiff") > whole


def test_a_training_step_is_traced_once():
    cell, (params, xs, _), _ = problem(lstmx.LSTM, 6, (2,))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradient(params, xs):
        return jax.grad(lambda params: jnp.sum(lstmx.run(cell, params, xs)[0]))(params)

    for factor in (1.0, 2.0):
        gradient(params, factor * xs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
def test_a_batch_split_in_parts_has_the_gradient_of_the_whole(kind, monkeypatch):
    cell, given, cotangents = problem(kind, 6, (4, 3))
    history = lstmx.record(cell, *given)
    found = []
    for devices in (1, 4):
        monkeypatch.setattr(backward, "devices", lambda xp, n=devices: n)
        jax.clear_caches()
        found.append(lstmx.backward(history, *cotangents))
        parts = backward.no_gradient(given[0], given[1])
        assert len(parts[0]) == devices
    jax.clear_caches()
    assert_close(*found, 1e-12)

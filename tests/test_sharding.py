"""A batch over several devices: the same numbers, where they lie, and one sum of gradients."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstmx
from lstmx.arrays import map_tree
from lstmx.passes import sharding

PROGRAM = r"""
import re
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import lstmx

def same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert jnp.allclose(a, b, rtol=1e-12, atol=1e-12)

def pulled(params, xs, cotangent):
    outputs, pull = jax.vjp(lambda p, x: lstmx.run(cell, p, x)[0], params, xs)
    return outputs, *pull(cotangent)

for kind, hidden in ((lstmx.LSTM, 5), (lstmx.GRU, 100)):  # rebuilt, kept
    cell = kind(3, hidden)
    params = cell.init(0, dtype="float64")
    xs = jax.random.normal(jax.random.key(0), (40, 16, 3), "float64")
    cotangent = jax.random.normal(jax.random.key(1), (40, 16, hidden), "float64")
    split, split_cotangent = lstmx.shard_batch(xs), lstmx.shard_batch(cotangent)
    assert len(split.sharding.device_set) == 8

    compiled = jax.jit(pulled).lower(params, split, split_cotangent).compile()
    found = compiled(params, split, split_cotangent)
    same(found, pulled(params, xs, cotangent))
    assert found[0].sharding == split.sharding and found[2].sharding == split.sharding
    assert all(leaf.sharding.is_fully_replicated for leaf in found[1])
    parts = [part for part in re.split(r"\n(?=%|ENTRY)", compiled.as_text()) if re.search(r"= .* all-\w+\(", part)]
    assert len(parts) == 1 and parts[0].startswith("ENTRY"), "gradients meet once, outside of all loops"
    assert len(re.findall(r" all-reduce\(", parts[0])) == 1 and "all-gather(" not in parts[0]

    history = lstmx.record(cell, params, split)
    same(history, lstmx.record(cell, params, xs))
    assert history.stored.sharding == history.hidden_state.sharding == split.sharding
    again = lstmx.record(cell, params, split, reuse=history)
    assert again.stored.sharding == split.sharding
    same(lstmx.summarise(cell, params, split), lstmx.summarise(cell, params, xs))
    same(lstmx.run(cell, params, split), lstmx.run(cell, params, xs))
"""


@pytest.mark.slow
def test_a_batch_over_devices_has_the_numbers_of_one():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


MESHES = r"""
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import lstmx

CELLS = {
    "rebuilt": (lstmx.LSTM(3, 5), {}),
    "chunks": (lstmx.LSTM(3, 5), {"chunk": 7}),
    "kept": (lstmx.GRU(3, 100), {}),
    "autodiff": (lstmx.SimpleRNN(3, 5), {"differentiation": "autodiff"}),
    "parallel": (lstmx.MinLSTM(3, 5), {"parallel": True}),
    "zoneout": (lstmx.Zoneout(lstmx.GRU(3, 5, reset="before"), 0.3), {}),
    "stack": (lstmx.Stack([lstmx.LSTM(3, 5), lstmx.Bidirectional(lstmx.JANET(5, 4))]), {}),
}
STEPS, STATES = P(None, "batch"), P("batch")

def everything(cell, options, params, xs, said):
    def loss(params, xs):
        outputs, final = lstmx.run(cell, params, xs, **said, **options)
        return (outputs**2).sum() + sum((x**3).sum() for x in jax.tree.leaves(final)), (outputs, final)

    gradients, (outputs, final) = jax.grad(loss, (0, 1), has_aux=True)(params, xs)
    history = lstmx.record(cell, params, xs, **said)
    return gradients, outputs, final, history.outputs

def same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)

def mapped(cell, options, params, xs, said, expected):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    final = jax.tree.map(lambda _: STATES, expected[2])
    outs = (jax.tree.map(lambda _: P(), params), STEPS), STEPS, final, STEPS
    places = P(), STEPS, jax.tree.map(lambda _: STATES, said)
    function = jax.shard_map(
        lambda *given: everything(cell, options, *given), mesh=mesh, in_specs=places, out_specs=outs)
    same(jax.jit(function)(params, xs, said), expected)
    if isinstance(cell, lstmx.Cell):
        def walked(params, xs, said):
            history = lstmx.record(cell, params, xs, **said)
            return lstmx.gradient_flow(history, "last").log_norm, lstmx.backward(history, history.outputs).inputs

        function = jax.shard_map(walked, mesh=mesh, in_specs=places, out_specs=(STEPS, STEPS))
        same(jax.jit(function)(params, xs, said), jax.jit(walked)(params, xs, said))

def explicit(cell, options, params, xs, said, expected):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    xs = jax.device_put(xs, NamedSharding(mesh, STEPS))
    said = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, STATES)), said)
    function = lambda *given: everything(cell, options, *given)
    with jax.set_mesh(mesh):
        for one in (function, jax.jit(function)):
            found = one(params, xs, said)
            same(found, expected)
            assert found[1].sharding.spec[:2] == found[3].sharding.spec[:2] == (None, "batch")
            assert all(x.sharding.spec[0] == "batch" for x in jax.tree.leaves(found[2]))

for name, (cell, options) in CELLS.items():
    params = cell.init(0, dtype="float64")
    xs = jax.random.normal(jax.random.key(0), (20, 4, 3), "float64")
    said = {} if name == "parallel" else {"lengths": jnp.array([20, 13, 7, 1])}
    expected = jax.jit(lambda *given: everything(cell, options, *given))(params, xs, said)
    mapped(cell, options, params, xs, said, expected)
    explicit(cell, options, params, xs, said, expected)
"""


@pytest.mark.slow
def test_in_a_shard_map_and_on_explicit_axes_the_numbers_are_those_of_one_device():
    done = subprocess.run([sys.executable, "-c", MESHES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_split_is_refused():
    for shape in ((4, 3), (4, 3, 2)):
        with pytest.raises(ValueError, match=r"expected \[T, batch, ...\] with a batch that splits evenly over 2"):
            lstmx.shard_batch(np.zeros(shape))
    with pytest.raises(TypeError, match="xs is a list"):
        lstmx.shard_batch([1, 2])


@pytest.mark.parametrize(
    ("devices", "words"),
    [([0, 0], "devices lists .* twice; expected different devices"), ([], "devices is empty"), ("no", "a list")],
)
def test_devices_are_a_list_of_different_ones(devices, words):
    known = [jax.devices()[k] for k in devices] if isinstance(devices, list) else devices
    with pytest.raises((TypeError, ValueError), match=words):
        lstmx.shard_batch(np.zeros((4, 2, 3)), known)


def test_only_numbers_are_placed():
    with pytest.raises(TypeError, match="xs is an array of <U1; expected numbers"):
        lstmx.shard_batch(np.array([[["a"]]]))
    for dtype in ("float32", "int32", "bool", jnp.bfloat16):
        assert lstmx.shard_batch(np.zeros((4, 2, 3), dtype)).dtype == dtype
    assert lstmx.shard_batch(jax.random.split(jax.random.key(0), (4, 2, 3))).shape == (4, 2, 3)


@pytest.mark.slow
def test_cores_become_devices_before_jax_starts_and_never_after():
    program = "import jax, lstmx; lstmx.use_cores(3); print(jax.device_count())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "3\n"
    lstmx.use_cores(jax.device_count())  # as it is
    with pytest.raises(RuntimeError, match="n is 5, but JAX has started already, with 2 CPU devices"):
        lstmx.use_cores(5)
    with pytest.raises(ValueError, match="n is 0; expected an integer of at least 1 and at most 4096"):
        lstmx.use_cores(0)
    with pytest.raises(TypeError, match=r"n is 2\.0; expected an integer"):
        lstmx.use_cores(2.0)


def spread_over(monkeypatch, compute):
    """What is computed on one device, and with batches spread over two; in how many calls they were."""
    split, kind = [], sharding.Spread

    def made(*fields):
        split.append(fields[-1])
        assert not fields[-1] or len(jax.tree.leaves(fields[0])[0].devices()) == 2
        return kind(*fields)

    monkeypatch.setattr(sharding, "Spread", made)
    monkeypatch.setattr(sharding, "_WORTH", 1)
    two = compute()
    monkeypatch.setattr(sharding, "_WORTH", 10**9)
    count = sum(split)
    one = compute()
    monkeypatch.undo()
    return one, two, count


@pytest.mark.slow
def test_training_uses_the_devices_that_are_there(monkeypatch):
    task = lstmx.tasks.next_step(np.random.default_rng(0).normal(size=(9, 12, 2)).astype("float32"), batch=4)
    model = lstmx.Model(lstmx.LSTM(2, 3), 2, "mean_squared_error")

    def compute():
        first = lstmx.train(model, model.init(0, "float64"), task.batch, optax.sgd(0.1), 2, progress=False)
        return lstmx.train(model, None, task.batch, optax.sgd(0.1), 2, resume=first, progress=False)

    one, two, count = spread_over(monkeypatch, compute)
    assert count == 4
    assert all(not getattr(x, "committed", False) for x in jax.tree.leaves((two.params, two.optimizer_state)))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)

    def on_first(step):
        return map_tree(lambda x: jax.device_put(x, jax.devices()[0]), task.batch(step))

    given = model, model.init(0), on_first, optax.sgd(0.1), 1
    assert spread_over(monkeypatch, lambda: lstmx.train(*given, progress=False))[2] == 0


@pytest.mark.slow
def test_attribution_uses_the_devices_that_are_there(monkeypatch):
    cell = lstmx.GRU(2, 3)
    history = lstmx.record(
        cell, cell.init(0, "float64"), jax.random.normal(jax.random.key(1), (6, 3, 2), "float64")
    )
    one, two, count = spread_over(monkeypatch, lambda: lstmx.attribute(history, np.ones(3), nodes=4))
    assert count == 1
    for name in ("inputs", "initial", "defect"):
        assert not getattr(two, name).committed
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-12)

"""A batch over several devices: the same numbers, where they lie, and one sum of gradients."""

import subprocess
import sys

import numpy as np
import pytest

import lstmx

PROGRAM = r"""
import re, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import lstmx

def same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert jnp.allclose(a, b, rtol=1e-12, atol=1e-12)

def pulled(params, xs, cotangent):
    outputs, pull = jax.vjp(lambda p, x: lstmx.run(cell, p, x)[0], params, xs)
    return outputs, *pull(cotangent)

for kind, hidden in ((lstmx.LSTM, 5), (lstmx.GRU, 5), (lstmx.LSTM, 100)):  # rebuilt, rebuilt, kept
    cell = kind(3, hidden)
    params = cell.init(0, dtype="float64")
    xs = jax.random.normal(jax.random.key(0), (40, 16, 3), "float64")
    cotangent = jax.random.normal(jax.random.key(1), (40, 16, hidden), "float64")
    split, split_cotangent = lstmx.shard_batch(xs), lstmx.shard_batch(cotangent)
    assert len(split.sharding.device_set) == int(sys.argv[1])

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
@pytest.mark.parametrize("devices", [2, 8])
def test_a_batch_over_devices_has_the_numbers_of_one(devices):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(devices)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_split_is_refused():
    for shape in ((4, 3), (4, 3, 2)):
        with pytest.raises(ValueError, match=r"expected \[T, batch, ...\] with a batch that splits evenly over 2"):
            lstmx.shard_batch(np.zeros(shape))
    with pytest.raises(TypeError, match="xs is a list"):
        lstmx.shard_batch([1, 2])

"""One of several processes of a job, which compares what it gets with its own numbers; see `test_processes.py`.

python two_processes.py PORT PROCESSES NUMBER DEVICES PROGRAM [ARGUMENT ...]
"""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx.arrays import fetched, leaves

T, B, D, H = 24, 8, 3, 6


def given(cell, seed=0):
    """Parameters and inputs, the same in every process."""
    return cell.init(seed), np.random.default_rng(seed).normal(size=(T, B, D)).astype("float32")


def own(x):
    """This process's part of what all processes have, along axis 1."""
    size = x.shape[1] // jax.process_count()
    return x[:, jax.process_index() * size :][:, :size]


def spread(x):
    """What all processes have, as one array over all of their devices."""
    return lstmx.shard_batch(own(x)) if x.ndim > 2 else spread(x[..., None])[..., 0]


def numbers(tree):
    """The arrays of a result in NumPy, and its other leaves in words."""
    return [fetched(leaf) if hasattr(leaf, "dtype") else str(leaf) for leaf in leaves(tree)]


def same(name, found, expected):
    """Fail where something differs by more than 1e-5 of the largest."""
    found, expected = numbers(found), numbers(expected)
    assert len(found) == len(expected) > 0, f"{name}: {len(found)} arrays, not {len(expected)}"
    for k, (here, there) in enumerate(zip(found, expected, strict=True)):
        if isinstance(there, str):
            assert here == there, f"{name}, {k}: {here} is not {there}"
            continue
        assert (here.shape, here.dtype) == (there.shape, there.dtype), f"{name}, {k}: {here.shape} {there.shape}"
        if not np.issubdtype(here.dtype, np.inexact):
            assert (here == there).all(), f"{name}, {k}"
            continue
        known = np.isfinite(there)
        assert (np.isfinite(here) == known).all(), f"{name}, {k}: other numbers are finite"
        off = np.abs(here[known] - there[known]).max(initial=0)
        largest = np.abs(there[known]).max(initial=0)
        assert off <= 1e-5 * largest, f"{name}, {k}: off by {off} where the largest is {largest}"


def refused(words, call):
    """Fail unless a call is refused in these words."""
    with pytest.raises((TypeError, ValueError, OSError), match=re.escape(words)):
        call()


def contents(path):
    """All files of a store, by name."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


# ------------------------------------------------------------------------------------------------- programs


def basics(folder):
    """What a job is made of, in little time."""
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    number, devices = jax.process_index(), jax.local_device_count()
    whole = spread(xs)
    assert whole.shape == xs.shape
    assert not whole.is_fully_addressable
    same("shard_batch", whole, xs)
    history = lstmx.record(cell, params, whole)
    alone = lstmx.record(cell, params, jnp.asarray(xs))
    same("record", history.states, alone.states)
    assert not history.hidden_state.is_fully_addressable  # what is large stays where it lies
    flow = lstmx.gradient_flow(history)
    assert flow.log_norm.is_fully_addressable  # what is small is there
    same("gradient_flow", flow.log_norm, lstmx.gradient_flow(alone).log_norm)
    assert (number == 1) or str(flow)  # and is read by one process

    some = xs[:, : devices if number else 2 * devices]
    refused("in process 0 and", lambda: lstmx.shard_batch(some))
    refused("spread over processes already", lambda: lstmx.shard_batch(whole))
    wrong = xs.copy()
    wrong[5, 7, 1] = np.nan  # with the last process, and told in all
    refused(
        "inputs is nan first at step 5, sequence (7,), feature 1",
        lambda: lstmx.gradient_flow(lstmx.record(cell, params, spread(wrong))),
    )
    record(folder, "pass")
    if number == 0:
        lstmx.record_to(f"{folder}/one", cell, params, jnp.asarray(xs), parts=jax.device_count())
        assert contents(f"{folder}/one") == contents(f"{folder}/pass")
        assert sorted(file.name for file in Path(folder).iterdir()) == ["one", "pass"]


def record(folder, name, together=False, tell=None):
    """Write the pass of all sequences."""
    from lstmx.history import store

    store._CHUNK = 1024  # 5 steps
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    return lstmx.record_to(f"{folder}/{name}", cell, params, xs if together else spread(xs), together=together)


PROGRAMS = {one.__name__: one for one in (basics, record)}

if __name__ == "__main__":
    port, processes, number, devices, program, *arguments = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    lstmx.use_cores(int(devices))
    jax.distributed.initialize(
        f"127.0.0.1:{port}", int(processes), int(number), heartbeat_timeout_seconds=10, initialization_timeout=120
    )
    PROGRAMS[program](*arguments)
    jax.distributed.shutdown()

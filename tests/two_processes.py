"""One of several processes of a job, which compares what it gets with its own numbers; see `test_processes.py`.

python two_processes.py PORT PROCESSES NUMBER DEVICES PROGRAM [ARGUMENT ...]
"""

import dataclasses
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx.arrays import fetched, leaves
from lstmx.history import store, verified

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
    """What a job is made of, and what it is refused, in little time."""
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    first, devices = jax.process_index() == 0, jax.local_device_count()
    whole = spread(xs)
    assert not whole.is_fully_addressable
    outputs, _ = lstmx.run(cell, params, whole)
    assert not outputs.is_fully_addressable  # what is large stays where it lies
    same("outputs", numbers(outputs), lstmx.run(cell, params, xs)[0])
    some = xs[:, : 2 * devices if first else devices]
    refused("in process 0 and", lambda: lstmx.shard_batch(some))
    refused("spread over processes already", lambda: lstmx.shard_batch(whole))
    path = f"{folder}/pass"
    store._CHUNK = 1024  # 5 steps
    assert lstmx.record_to(path, cell, params, whole).finished
    refused("pass holds a finished history", lambda: lstmx.record_to(path, cell, params, whole))
    if first:
        lstmx.record_to(f"{folder}/one", cell, params, xs, parts=jax.device_count())
        assert contents(f"{folder}/one") == contents(path)
        assert sorted(file.name for file in Path(folder).iterdir()) == ["one", "pass"]
    flow = lstmx.gradient_flow(lstmx.record(cell, params, whole))
    assert not flow.inputs.is_fully_addressable
    assert flow.log_norm.is_fully_addressable  # what is small is there
    if first:
        assert "vanish" in str(flow) or "step" in str(flow)
    xs[5, 7, 1] = np.nan  # with the last process, and told in all
    history = lstmx.record(cell, params, spread(xs))
    for analysis in (lstmx.gradient_flow, lstmx.gate_statistics, lstmx.jacobians):
        refused("inputs is nan first at step 5, sequence (7,), feature 1", lambda read=analysis: read(history))
    mask = np.ones((T, B), bool)
    mask[:, 6] = False
    refused(
        "mask leaves sequence (6,) without a step", lambda: lstmx.run(cell, params, spread(xs), mask=spread(mask))
    )
    refused("expected 1 to 24", lambda: lstmx.run(cell, params, spread(xs), lengths=np.full(B, 25)))


def record(folder, name, together="", stop=-1, victims=""):
    """Write the pass of all sequences; victims say so and wait before, and others after, they write a step."""
    number = jax.process_index()
    put, write = store.Store.put, verified.Verified.write

    def noted(self, start, values, own=None):
        with open(f"{folder}/written", "a") as log:
            log.writelines(f"{self._name}/{self._key(chunk)}\n" for chunk in self._chunks(start, start + 1, own))
        return write(self, start, values, own)

    def putting(self, part, own=None):
        if self.finished == int(stop) and str(number) in victims:
            print("here", flush=True)
            time.sleep(600)
        put(self, part, own)

    store.Store.put, verified.Verified.write, store._CHUNK = putting, noted, 1024  # 5 steps
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    path = f"{folder}/{name}"
    found = lstmx.record_to(path, cell, params, xs if together else spread(xs), together=bool(together))
    if not number:
        same("record_to", found.read().states, lstmx.record(cell, params, jnp.asarray(xs)).states)


def leaky(params, h, x):
    """A step function, for `from_step`."""
    leak = jax.nn.sigmoid(params["leak"])
    return leak * h + (1 - leak) * jnp.tanh(params["W"] @ x + params["U"] @ h), {"leak": leak}


def analysed():
    """Functions of the inputs by name: what is computed of a pass."""
    cell, stack = lstmx.LSTM(D, H), lstmx.Stack([lstmx.GRU(D, H), lstmx.SimpleRNN(H, 4)])
    step = lstmx.from_step(leaky, jnp.zeros(H), input_size=D, gates=["leak"])
    params, layers = cell.init(0), stack.init(0)
    theirs = {"W": jnp.ones((H, D)) / 3, "U": jnp.eye(H) / 2, "leak": jnp.linspace(0, 3, H)}
    lengths = np.array([24, 20, 7, 24, 7, 20, 24, 7])
    ones = np.ones(H, "float32")

    def history(xs, **said):
        return lstmx.record(cell, params, xs, **said)

    def stacked(xs, **said):
        return lstmx.record(stack, layers, xs, **said)

    def gradient(xs):
        return jax.grad(lambda params, xs: (lstmx.run(cell, params, xs)[0] ** 2).sum(), (0, 1))(params, xs)

    def effect(xs):
        edited = lstmx.intervene(cell, params, xs, lstmx.edits.clamp(forget_gate=1.0, units=[0]))
        found = lstmx.effect(history(xs), edited)
        return found.outputs, found.norm, str(found)

    def attributed(xs, method, **options):
        found = lstmx.attribute(history(xs), ones, method, **options)
        return found.steps, found.initial, found.biases

    def trained(xs):
        task = lstmx.tasks.next_step(np.random.default_rng(1).normal(size=(13, 20, D)).astype("float32"), batch=8)
        place = np.asarray if xs.is_fully_addressable else spread

        def batches(number):
            return lstmx.tasks.Batch(*(place(x) for x in task.batch(number)))

        found = lstmx.compare(
            [lstmx.SimpleRNN(D, H)],
            dataclasses.replace(task, batch=batches),
            steps=4,
            evaluations=2,
            seeds=2,
            progress=False,
        )
        return found.training_loss, found.final_loss

    def flowed(xs):
        flow = lstmx.gradient_flow(history(xs, lengths=lengths), lambda outputs: (outputs**2).sum())
        return flow, str(flow)

    def observed(xs):
        looking = lstmx.Observatory(cell, xs)
        for number in range(2):
            looking(number, params)
        return looking["log_norm"], str(looking)

    return {
        "run": lambda xs: lstmx.run(cell, params, xs, lengths=lengths),
        "run with what is said spread, too": lambda xs: lstmx.run(
            cell,
            params,
            xs,
            resets=(spread if xs.ndim and not xs.is_fully_addressable else jnp.asarray)(
                np.random.default_rng(4).random((T, B)) < 0.1
            ),
        ),
        "gradients": gradient,
        "record": lambda xs: (history(xs).states, history(xs).gates, history(xs).preactivations),
        "record, reuse": lambda xs: lstmx.record(cell, params, -xs, reuse=history(xs)).states,
        "pieces": lambda xs: [one.states for one in history(xs, lengths=lengths).pieces()],
        "summary": lambda xs: [history(xs, lengths=lengths).summary(), stacked(xs).summary()],
        "to_numpy": lambda xs: history(xs).to_numpy().states,
        "to_xarray": lambda xs: [x.values for x in history(xs).to_xarray().data_vars.values()],
        "effect": effect,
        "backward": lambda xs: lstmx.backward(history(xs), history(xs).outputs),
        "gate_statistics": lambda xs: lstmx.gate_statistics(history(xs, lengths=lengths)),
        "summarise": lambda xs: lstmx.summarise(cell, params, xs),
        "gradient_flow": flowed,
        "gradient_flow of a stack": lambda xs: str(lstmx.gradient_flow(stacked(xs))),
        "gradient_flow of a step": lambda xs: lstmx.gradient_flow(lstmx.record(step, theirs, xs)).log_norm,
        "path_spectrum": lambda xs: lstmx.path_spectrum(history(xs), max_order=3).log_norms,
        "influence": lambda xs: lstmx.influence(history(xs), [5, 23]),
        "highway": lambda xs: lstmx.highway(history(xs)),
        "jacobians": lambda xs: (lstmx.jacobians(history(xs)), lstmx.input_jacobians(history(xs))),
        "isometry": lambda xs: (lstmx.isometry(history(xs)).mean_square, str(lstmx.isometry(history(xs)))),
        "lyapunov_spectrum": lambda xs: (
            lstmx.lyapunov_spectrum(stacked(xs, lengths=lengths), count=2, transient=0).per_sequence
        ),
        "memory_report": lambda xs: str(lstmx.memory_report(history(xs), lags=6)),
        "attribute": lambda xs: attributed(xs, "integrated_gradients", nodes=4),
        "attribute, lrp": lambda xs: attributed(xs, "lrp"),
        "units_like": lambda xs: lstmx.units_like(history(xs), np.sin(np.arange(T * B)).reshape(T, B)).correlation,
        "compare": trained,
        "observatory": observed,
    }


def analyses(folder):
    """Every function of `analysed` on what lies with all processes, beside what lies here; and figures."""
    xs = given(lstmx.LSTM(D, H))[1]
    whole, failed = spread(xs), []
    for name, function in analysed().items():
        expected = None if jax.process_index() else function(jnp.asarray(xs))  # by one of them, which takes time
        try:
            found = numbers(function(whole))
            if not jax.process_index():
                same(name, found, expected)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
    assert not failed, "\n".join(failed)
    mapped()
    shown(folder)


def shown(folder):
    """Figures and pages, of what one process or all of them read."""
    import matplotlib as mpl

    mpl.use("Agg")
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    history = lstmx.record(cell, params, spread(xs))
    flow, statistics = lstmx.gradient_flow(history), lstmx.gate_statistics(history)
    influence, spectrum = lstmx.influence(history), lstmx.lyapunov_spectrum(history, count=2)
    lstmx.plot.dynamics(history, sequence=1)
    lstmx.page(history, f"{folder}/page{jax.process_index()}.html", flow=flow)
    alone = lstmx.record(cell, params, jnp.asarray(xs))
    if jax.process_index() == 0:
        lstmx.page(alone, f"{folder}/alone.html", flow=lstmx.gradient_flow(alone))
        read = [len(Path(folder, f"{name}.html").read_text()) for name in ("page0", "alone")]
        assert abs(read[0] - read[1]) < 0.01 * read[1]
        lstmx.plot.gradient_flow(flow)
        lstmx.plot.gates_ledger(flow)
        lstmx.plot.saturation(statistics)
        lstmx.plot.influence(influence, sequence=1)
        lstmx.plot.spectrum(spectrum)
    refused("history.to_numpy()", lambda: history.save(f"{folder}/pass"))


def run(program):
    """A program."""
    exec(program, {})


def mapped():
    """`jax.shard_map` as it is by default, over the devices of all processes."""
    cell = lstmx.LSTM(D, H)
    params, xs = given(cell)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    steps, whole = jax.sharding.PartitionSpec(None, "batch"), jax.sharding.PartitionSpec()

    def walked(params, xs):
        history = lstmx.record(cell, params, xs)
        loss, gradient = jax.value_and_grad(lambda params: (lstmx.run(cell, params, xs)[0] ** 2).sum())(params)
        return lstmx.gradient_flow(history, "last").log_norm, jax.lax.psum(loss, "batch"), gradient

    outs = steps, whole, jax.tree.map(lambda _: whole, params)
    function = jax.shard_map(walked, mesh=mesh, in_specs=(whole, steps), out_specs=outs)
    place = jax.sharding.NamedSharding(mesh, steps)
    found = jax.jit(function)(params, jax.make_array_from_process_local_data(place, own(xs)))
    history = lstmx.record(cell, params, jnp.asarray(xs))
    loss, gradient = jax.value_and_grad(lambda params: (lstmx.run(cell, params, xs)[0] ** 2).sum())(params)
    same("shard_map", found, (lstmx.gradient_flow(history, "last").log_norm, loss, gradient))


PROGRAMS = {one.__name__: one for one in (basics, analyses, run, record)}

if __name__ == "__main__":
    port, processes, number, devices, program, *arguments = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    lstmx.use_cores(int(devices))
    jax.distributed.initialize(
        f"127.0.0.1:{port}", int(processes), int(number), heartbeat_timeout_seconds=10, initialization_timeout=120
    )
    PROGRAMS[program](*arguments)
    jax.distributed.shutdown()
    print("done", flush=True)

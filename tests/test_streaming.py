"""`record_to`: the same pass as in memory, and nothing finished is lost whatever stops it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import zarr
from family import draw, of_size
from reference import assert_same, is_in, to
from test_disk import assert_bitwise

import lstmx
from lstmx.history import store as disk
from lstmx.passes import streaming


def a_pass(library="numpy", name="V", batch=(2,), length=50):
    cell = of_size(3, 4)[name]
    params, state, xs, _ = draw(cell, batch, length=length)
    return cell, *to(library, (params, xs, state))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 256)  # 8 steps of a_pass


def contents(path):
    """All files of a store, by name."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def stop_after(monkeypatch, chunks, error):
    """Let the next chunks be written, then raise at the next one, in the midst of its arrays."""
    original, count = disk.Store._mark, iter(range(10**6))

    def mark(self, finished):
        if next(count) >= chunks:
            raise error
        original(self, finished)

    monkeypatch.setattr(disk.Store, "_mark", mark)


# ------------------------------------------------------------------------------------------- the same pass


@pytest.mark.sample(1)
@pytest.mark.parametrize("keep", ["all", "states"])
def test_a_streamed_pass_is_the_recorded_one(library, keep, tmp_path):
    cell, params, xs, state = a_pass(library)
    found = lstmx.record_to(tmp_path / "pass", cell, params, xs, state, keep=keep)
    assert found.finished
    assert found.store.chunk == 8
    assert is_in(library, found.read())
    expected = lstmx.record(cell, params, xs, state, keep=keep)
    assert jax.tree.structure(found.read()) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found.read()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)
    assert_bitwise(lstmx.load_history(tmp_path / "pass").read(), found.read())


@pytest.mark.parametrize("name", ["projection", "SLSTM", "MinGRU", "GRU before"])
@pytest.mark.parametrize("length", [1, 33])
def test_a_streamed_pass_of_other_cells_and_lengths(name, length, tmp_path):
    cell, params, xs, _ = a_pass(name=name, batch=(), length=length)
    found = lstmx.record_to(str(tmp_path / "pass"), cell, params, xs)
    for left, right in zip(
        jax.tree.leaves(found.read()), jax.tree.leaves(lstmx.record(cell, params, xs)), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_a_streamed_pass_of_unequal_sequences(library, batch, tmp_path, monkeypatch):
    cell, params, xs, state = a_pass(library, batch=batch)
    rng = np.random.default_rng(4)
    unequal = {"lengths": rng.integers(3, 51, size=batch), "resets": rng.random((50, *batch)) < 0.1}
    expected = lstmx.record(cell, params, xs, state, **unequal)
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(tmp_path / "pass", cell, params, xs, state, **unequal)
    with pytest.raises(ValueError, match=r"first .* steps of another run: its reset of steps 0 to"):
        lstmx.record_to(tmp_path / "pass", cell, params, xs, state, **unequal | {"resets": ~unequal["resets"]})
    found = lstmx.record_to(tmp_path / "pass", cell, params, xs, state, **unequal)
    assert found.cell == expected.cell
    assert is_in(library, found.read())
    for left, right in zip(jax.tree.leaves(found.read()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found.lengths, unequal["lengths"])
    np.testing.assert_array_equal(found.controls.reset, expected.controls.reset)
    with pytest.raises(ValueError, match="lengths holds 60; expected 1 to 50"):
        lstmx.record_to(tmp_path / "other", cell, params, xs, lengths=np.full(batch, 60))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_two_programs_are_compiled(tmp_path, caplog):
    given = a_pass("jax")
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        lstmx.record_to(tmp_path / "pass", *given)
    compiled = [
        message for message in caplog.messages if message.startswith("Finished XLA compilation of jit(_record)")
    ]
    assert len(compiled) == 2


def test_inputs_may_lie_on_disk(tmp_path):
    cell, params, xs, state = a_pass()
    expected = lstmx.record_to(tmp_path / "pass", cell, params, xs, state).read()
    mapped = np.memmap(tmp_path / "xs", dtype=xs.dtype, mode="w+", shape=xs.shape)
    mapped[...] = xs
    stored = zarr.create_array(tmp_path / "xs.zarr", shape=xs.shape, dtype=xs.dtype, chunks=(7, 2, 3))
    stored[...] = xs
    for name, given in {"memmap": mapped, "zarr": stored}.items():
        assert_bitwise(lstmx.record_to(tmp_path / name, cell, params, given, state).read(), expected)


def test_a_bar_counts_steps(tmp_path, capsys, monkeypatch):
    cell, params, xs, state = a_pass()
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(tmp_path / "pass", cell, params, xs, state)
    lstmx.record_to(tmp_path / "pass", cell, params, xs, state, progress=True)
    shown = capsys.readouterr().err
    assert "16.0/50.0" in shown
    assert "100%" in shown


# ----------------------------------------------------------------------------------- stopped, and gone on with


@pytest.mark.sample(1)
@pytest.mark.parametrize("chunks", [0, 1, 6])
def test_a_stopped_run_goes_on_to_the_same_bytes(library, chunks, tmp_path, monkeypatch):
    cell, params, xs, state = a_pass(library)
    lstmx.record_to(tmp_path / "whole", cell, params, xs, state)
    with monkeypatch.context() as patched:
        stop_after(patched, chunks, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(tmp_path / "pass", cell, params, xs, state)
    if chunks:
        part = lstmx.load_history(tmp_path / "pass")
        assert not part.finished
        assert "of 50 steps" in repr(part)
        assert_same(part.read(), lstmx.load_history(tmp_path / "whole")[: 8 * chunks])
    (tmp_path / "pass" / "inputs" / "left.partial").write_text("by a killed run")
    assert lstmx.record_to(tmp_path / "pass", cell, params, xs, state).finished
    assert contents(tmp_path / "pass") == contents(tmp_path / "whole")


def test_a_full_disk_loses_no_finished_chunk(tmp_path, monkeypatch):
    cell, params, xs, state = a_pass()
    lstmx.record_to(tmp_path / "whole", cell, params, xs, state)
    with monkeypatch.context() as patched:
        stop_after(patched, 3, OSError(28, "No space left on device"))
        with pytest.raises(
            OSError, match=r"No space left.*steps 24 to 32.*first 24 of 50 steps are safe.*pass"
        ) as caught:
            lstmx.record_to(tmp_path / "pass", cell, params, xs, state)
    assert caught.value.errno == 28
    assert caught.value.filename == str(tmp_path / "pass")
    assert len(lstmx.load_history(tmp_path / "pass")) == 24
    lstmx.record_to(tmp_path / "pass", cell, params, xs, state)
    assert contents(tmp_path / "pass") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_limit_of_the_system_is_told_likewise(tmp_path):
    """A real failure of the file system, inside zarr: no file may grow over 20 kB."""
    code = f"""
import resource, sys
import numpy as np
import lstmx
cell = lstmx.GRU(1, 8)
xs = np.zeros((20_000, 1), "float32")
xs[10_000:] = np.random.default_rng(1).normal(size=(10_000, 1))
from lstmx.history import store
store._CHUNK = 24 * 1000
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    lstmx.record_to({str(tmp_path / "pass")!r}, cell, cell.init(np.random.default_rng(0)), xs)
except OSError as error:
    print(error)
"""
    made = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in made.stdout
    safe = len(lstmx.load_history(tmp_path / "pass"))
    assert f"The first {safe} of 20000 steps are safe" in made.stdout
    assert 9_000 <= safe < 20_000
    lstmx.load_history(tmp_path / "pass").read()


KILLED = """
import sys
import numpy as np
import lstmx
from lstmx.history import store
store._CHUNK = 2**11
library, path = sys.argv[1:]
cell = lstmx.LSTM(3, 8)
params = cell.init(np.random.default_rng(0) if library == "numpy" else __import__("jax").random.key(0))
xs = np.random.default_rng(1).normal(size=(2500, 3)).astype("float32")
print("ready", flush=True)
lstmx.record_to(path, cell, params, xs)
print("done", flush=True)
"""


def run_for(seconds, library, path):
    """Start a run, kill it after so long, and say whether it was done."""
    command = [sys.executable, "-c", KILLED, library, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return "done" in process.stdout.read()


@pytest.mark.slow
def test_runs_killed_at_random_moments_go_on_to_the_same_bytes(library, tmp_path):
    """What each kill left opens, and is a part of the whole."""
    whole = tmp_path / "whole"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", KILLED, library, str(whole)], check=True, capture_output=True)
    lasted = time.monotonic() - started
    expected, path = lstmx.load_history(whole).to_numpy().read(), tmp_path / "pass"
    draws, done, least = np.random.default_rng(0), False, 0
    for _ in range(4):
        if done := run_for(draws.uniform(0, 0.2 * lasted), library, path):
            break
        if not path.exists():
            continue
        store = disk.Store(path)
        assert store.finished >= least
        least = store.finished
        if least:
            assert_same(lstmx.load_history(path).to_numpy().read(), expected[:least])
    if not done:
        subprocess.run([sys.executable, "-c", KILLED, library, str(path)], check=True, capture_output=True)
    assert contents(path) == contents(whole)


# --------------------------------------------------------------------------------------------------- errors


def unfinished(path, monkeypatch, **options):
    cell, params, xs, state = a_pass(**options)
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(path, cell, params, xs, state)
    return cell, params, xs, state


def test_a_finished_history_is_not_overwritten(tmp_path):
    given = a_pass()
    lstmx.record_to(tmp_path / "pass", *given)
    before = contents(tmp_path / "pass")
    with pytest.raises(FileExistsError, match="finished history of 50 steps; nothing is overwritten"):
        lstmx.record_to(tmp_path / "pass", *given)
    assert contents(tmp_path / "pass") == before


def test_another_run_does_not_go_on(tmp_path, monkeypatch):
    cell, params, xs, state = unfinished(tmp_path / "pass", monkeypatch)
    before = contents(tmp_path / "pass")
    other = xs.copy()
    other[9] += 1
    cases = {
        "parameter bias": (cell, params._replace(bias=params.bias + 1), xs, state),
        "initial hidden": (cell, params, xs, state._replace(hidden=-state.hidden)),
        "initial cell": (cell, params, xs, state._replace(cell=-state.cell)),
        "inputs of steps 8 to 16": (cell, params, other, state),
        "the shape of xs": (cell, params, xs[:40], state),
        "its library": (cell, *to("jax", (params, xs, state))),
        "its cell": (of_size(3, 4)["NIAF"], params, xs, state),
        "the dtype": (cell, *jax.tree.map(lambda x: x.astype("float32"), (params, xs, state))),
    }
    for message, given in cases.items():
        with pytest.raises(ValueError, match=f"first 16 steps of another run.*{message}"):
            lstmx.record_to(tmp_path / "pass", *given)
    with pytest.raises(ValueError, match="keep is all, not states"):
        lstmx.record_to(tmp_path / "pass", cell, params, xs, state, keep="states")
    assert contents(tmp_path / "pass") == before


def test_wrong_arguments_make_no_folder(tmp_path):
    cell, params, xs, state = a_pass()
    path = tmp_path / "pass"
    with pytest.raises(ValueError, match=r"xs has 2 features.*got \(50, 2, 2\)"):
        lstmx.record_to(path, cell, params, xs[..., :2], state)
    with pytest.raises(ValueError, match="no time steps"):
        lstmx.record_to(path, cell, params, xs[:0], state)
    with pytest.raises(TypeError, match="xs is float32"):
        lstmx.record_to(path, cell, params, xs.astype("float32"), state)
    with pytest.raises(TypeError, match="xs is a list"):
        lstmx.record_to(path, cell, params, xs.tolist(), state)
    with pytest.raises(ValueError, match=r"state.hidden has shape"):
        lstmx.record_to(path, cell, params, xs[:, 0], state)
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda xs: lstmx.record_to(path, cell, params, xs, state))(xs)
    with pytest.raises(TypeError, match="progress is 'yes'; expected True or False"):
        lstmx.record_to(path, cell, params, xs, state, progress="yes")
    stack = lstmx.Stack([lstmx.LSTM(3, 4)])
    with pytest.raises(TypeError, match="record layers in memory"):
        lstmx.record_to(path, stack, stack.init(np.random.default_rng(0)), xs)
    assert not list(tmp_path.iterdir())
    Path(path).mkdir()
    with pytest.raises(ValueError, match="is no Zarr group"):
        lstmx.record_to(path, cell, params, xs, state)


# --------------------------------------------------------------------------------------- parts of the batch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["V", "SLSTM"])
def test_parts_of_the_batch_are_run_and_written_apart(library, name, tmp_path):
    cell, params, xs, state = a_pass(library, name, batch=(6, 2))
    lengths = np.arange(12).reshape(6, 2) + 30
    found = lstmx.record_to(tmp_path / "pass", cell, params, xs, state, lengths=lengths, parts=3)
    assert found.store.arrays["inputs"].chunks == (1, 2, 2, 3)
    assert found.store.parts == 3
    expected = lstmx.record(cell, params, xs, state, lengths=lengths)
    for left, right in zip(jax.tree.leaves(found.read()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_a_run_in_parts_goes_on_in_its_parts(tmp_path, monkeypatch):
    cell, params, xs, state = a_pass(batch=(4,))
    given = cell, params, xs, state
    whole = lstmx.record_to(tmp_path / "whole", *given, parts=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(tmp_path / "pass", *given, parts=2)
    with pytest.raises(ValueError, match="of another run: parts is 2, not 4; choose another path"):
        lstmx.record_to(tmp_path / "pass", *given, parts=4)
    assert lstmx.record_to(tmp_path / "pass", *given).store.parts == 2
    assert contents(tmp_path / "pass") == contents(whole.path)


@pytest.mark.slow
def test_what_lies_on_devices_is_written_in_their_parts(tmp_path):
    cell, params, xs, state = a_pass("jax", batch=(4,))
    split = lstmx.shard_batch(xs)
    mesh, spec = split.sharding.mesh, jax.sharding.PartitionSpec
    found = lstmx.record_to(tmp_path / "pass", cell, params, split, state)
    assert found.store.parts == 2
    lstmx.record_to(tmp_path / "one", cell, params, xs, state, parts=2)
    assert contents(tmp_path / "pass") == contents(tmp_path / "one")
    lstmx.record_to(tmp_path / "together", cell, params, xs, state, together=True)
    assert contents(tmp_path / "pass") == contents(tmp_path / "together")
    with pytest.raises(ValueError, match="written in 1 parts, and lies in 2 on the devices"):
        lstmx.record_to(tmp_path / "new", cell, params, split, state, parts=1)
    in_time = jax.device_put(xs, jax.sharding.NamedSharding(mesh, spec("batch")))
    with pytest.raises(
        ValueError, match=r"xs is split over devices along its axes \[0\]; .* the first batch axis"
    ):
        lstmx.record_to(tmp_path / "new", cell, params, in_time, state)
    copied = jax.device_put(xs, jax.sharding.NamedSharding(mesh, spec()))
    assert lstmx.record_to(tmp_path / "copied", cell, params, copied, state).store.parts == 1


def test_parts_and_processes_that_cannot_be_are_refused(tmp_path, monkeypatch):
    cell, params, xs, state = a_pass(batch=(4,))
    for parts in (3, 8):
        with pytest.raises(ValueError, match=rf"parts is {parts}; expected a number that divides the first batch"):
            lstmx.record_to(tmp_path / "pass", cell, params, xs, state, parts=parts)
    with pytest.raises(ValueError, match="parts is 2; expected a number that divides the first batch axis, of"):
        lstmx.record_to(tmp_path / "pass", *a_pass(batch=()), parts=2)
    with pytest.raises(TypeError, match="together is 1; expected True or False"):
        lstmx.record_to(tmp_path / "pass", cell, params, xs, state, together=1)
    monkeypatch.setattr(streaming, "process", lambda: streaming.Process(0, 3))
    with pytest.raises(ValueError, match=r"xs has shape \(50, 4, 3\); .* evenly over the 3 processes of the job"):
        lstmx.record_to(tmp_path / "pass", cell, params, xs, state, together=True)
    monkeypatch.setattr(streaming, "process", lambda: streaming.Process(0, 2))
    monkeypatch.setattr(streaming, "has_locks_for_many", False)  # as on Windows
    with pytest.raises(OSError, match="several processes takes locks that this system does not have"):
        lstmx.record_to(tmp_path / "pass", cell, params, xs, state, together=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_long_sequence_goes_from_one_writer_to_the_next(library, tmp_path):
    cell, params, xs, state = a_pass(library)
    whole = lstmx.record(cell, params, xs, state)
    for number, (start, stop) in enumerate(((0, 17), (17, 40), (40, 50))):
        before = state if not number else lstmx.load_history(tmp_path / str(number - 1)).final
        found = lstmx.record_to(tmp_path / str(number), cell, params, xs[start:stop], before)
        for left, right in zip(found.read().states, whole[start:stop].states, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-14)

"""Who writes to a folder: one at a time, told in words; and what is said to be finished is on the disk."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_streaming import a_pass, contents

import lstmx
from lstmx.history import store as disk


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 256)  # 8 steps of a_pass


class Told:
    """Inputs that call a function before a stretch of them is read."""

    def __init__(self, xs, tell):
        self.xs, self.tell = xs, tell
        self.shape, self.dtype, self.ndim = xs.shape, xs.dtype, xs.ndim

    def __getitem__(self, steps):
        self.tell(steps.start)
        return self.xs[steps]


def raced(count, write):
    """Call `write` in so many threads at once: what it returned, and in what words it was refused."""
    barrier, finished, refused = threading.Barrier(count), [], []

    def one():
        barrier.wait()
        try:
            finished.append(write())
        except (BlockingIOError, FileExistsError) as error:
            refused.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return finished, refused


def test_of_threads_that_record_to_one_path_one_wins(tmp_path):
    cell, params, xs, state = a_pass()
    lstmx.record_to(tmp_path / "whole", cell, params, xs, state)
    finished, refused = raced(4, lambda: lstmx.record_to(tmp_path / "pass", cell, params, xs, state))
    assert len(finished) == 1
    assert len(refused) == 3
    for words in refused:
        assert (
            "another process, or another thread of this one, writes here" in words or "finished history" in words
        )
    assert contents(tmp_path / "pass") == contents(tmp_path / "whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pass", "whole"]


def test_of_threads_that_save_to_one_path_one_wins(tmp_path):
    history = lstmx.record(*a_pass())
    _, refused = raced(3, lambda: history.save(tmp_path / "pass"))
    assert len(refused) == 2
    assert len(lstmx.load_history(tmp_path / "pass").read()) == 50
    assert [file.name for file in tmp_path.iterdir()] == ["pass"]


LIVE = """
import sys, time
sys.path[:0] = sys.argv[2:]
from test_streaming import a_pass
from test_writers import Told
import lstmx
from lstmx.history import store
store._CHUNK = 256
def tell(start):
    if start == 16:
        print("here", flush=True)
        time.sleep(600)
cell, params, xs, state = a_pass()
lstmx.record_to(sys.argv[1], cell, params, Told(xs, tell), state)
"""


@pytest.mark.slow
def test_a_live_writer_is_not_joined_and_a_killed_one_holds_nobody_off(tmp_path):
    cell, params, xs, state = a_pass()
    command = [sys.executable, "-c", LIVE, str(tmp_path / "pass"), str(Path(__file__).parent)]
    (tmp_path / f"pass.{'0' * 32}.partial").mkdir()
    (tmp_path / f"pass.{'mine':32}.partial").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        try:
            with pytest.raises(BlockingIOError, match=r"another process.*writes here; nothing was changed.*pass"):
                lstmx.record_to(tmp_path / "pass", cell, params, xs, state)
            assert len(lstmx.load_history(tmp_path / "pass")) == 16
        finally:
            process.send_signal(signal.SIGKILL)
    assert lstmx.record_to(tmp_path / "pass", cell, params, xs, state).finished
    lstmx.record_to(tmp_path / "whole", cell, params, xs, state)
    assert contents(tmp_path / "pass") == contents(tmp_path / "whole")
    left = sorted(file.name for file in tmp_path.iterdir())  # the folder that a dead process had begun is gone
    assert left == ["pass", f"pass.{'mine':32}.partial", "whole"]


KILLS = """
import os, shutil, signal, sys
sys.modules["jax"] = None  # a process that is forked has no threads yet
from pathlib import Path
import numpy as np
import numpy.ma  # once, or each process imports it
import zarr
import lstmx
from lstmx.history import store
store._CHUNK = 128  # two chunks
folder = Path(sys.argv[1])
cell = lstmx.SimpleRNN(3, 8)
params = cell.init(np.random.default_rng(0))
xs = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
left = 0

def counted(function):
    def call(*given):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given)
    return call

def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}

def record(name, moment=0):
    global left
    process = os.fork()
    if not process:
        left = moment
        os.fsync, os.replace = counted(os.fsync), counted(os.replace)
        Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)
        lstmx.record_to(folder / name, cell, params, xs, keep="states")
        print(-left, flush=True)
        os._exit(0)
    return os.waitpid(process, 0)[1]

assert not record("whole")
for moment in range(1, 80):
    assert os.WIFSIGNALED(record("pass", moment)), moment
    assert not record("pass"), moment
    assert contents(folder / "pass") == contents(folder / "whole"), moment
    assert sorted(file.name for file in folder.iterdir()) == ["pass", "whole"], moment
    shutil.rmtree(folder / "pass")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_runs_killed_at_every_call_go_on_to_the_same_bytes(tmp_path):
    """Of those that write: each run goes on to the bytes of one that ran through."""
    made = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True)
    assert not made.returncode, made.stderr
    assert int(made.stdout.splitlines()[0]) > 79  # calls in all


def test_what_is_gone_is_not_said_to_be_safe(tmp_path):
    cell, params, xs, state = a_pass()

    def removed(start):
        if start == 24:
            shutil.rmtree(tmp_path / "pass")

    with pytest.raises(OSError, match="the folder was removed, or another one put in its place") as caught:
        lstmx.record_to(tmp_path / "pass", cell, params, Told(xs, removed), state)
    assert "are safe" not in str(caught.value)
    assert "What was written before is not safe either" in str(caught.value)
    assert not list(tmp_path.iterdir())

    def replaced(start):
        if start == 24:
            (tmp_path / "pass").rename(tmp_path / "moved")
            shutil.copytree(tmp_path / "moved", tmp_path / "pass")

    with pytest.raises(OSError, match="another one put in its place"):
        lstmx.record_to(tmp_path / "pass", cell, params, Told(xs, replaced), state)
    assert len(lstmx.load_history(tmp_path / "pass")) == len(lstmx.load_history(tmp_path / "moved")) == 24

    def nibbled(start):
        if start == 24:
            (tmp_path / "other" / "inputs" / "c.1.0.0").unlink()

    with pytest.raises(ValueError, match=r"chunk c\.1\.0\.0 of the array inputs is missing"):
        lstmx.record_to(tmp_path / "other", cell, params, Told(xs, nibbled), state)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read there")
def test_a_chunk_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    cell, params, xs, state = a_pass()
    events, sync, replace = [], os.fsync, Path.replace

    def syncing(opened):
        sync(opened)
        events.append(("on disk", os.readlink(f"/proc/self/fd/{opened}")))

    def replacing(path, target):
        if Path(target).name == "zarr.json" and path.name == "finished.partial":
            events.append(("counts", str(target)))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    path = tmp_path / "pass"
    lstmx.record_to(path, cell, params, xs, state)
    marks = [number for number, event in enumerate(events) if event[0] == "counts"]
    assert len(marks) == 7
    made = [Path(name) for what, name in events[: marks[0]] if what == "on disk"]
    assert tmp_path in made  # the folder's own name
    assert any(name.name == "c.0" and name.parent.name == "parameter_bias" for name in made)
    for chunk, mark in enumerate(marks):
        before = {name for what, name in events[:mark] if what == "on disk"}
        due = {str(file) for array in path.iterdir() for file in array.glob(f"c.{chunk}.*")}
        due = {file for file in due if "parameter_" not in file and "initial_" not in file}
        assert len(due) == 4
        assert due <= before
        assert {str(Path(file).parent) for file in due} <= before
        assert events[mark - 1] == ("on disk", str(path / "inputs" / "finished.partial"))
        assert events[mark + 1] == ("on disk", str(path))
    events.clear()
    lstmx.record_to(tmp_path / "other", cell, params, xs, state, durable=False)
    assert {what for what, _ in events} == {"counts"}
    with pytest.raises(TypeError, match="durable is 1; expected True or False"):
        lstmx.record_to(tmp_path / "more", cell, params, xs, state, durable=1)


@pytest.mark.parametrize(
    "address", ["s3://bucket/pass", Path("s3://bucket/pass"), "gs://b/p", "memory://p", "zip::s3://b"]
)
def test_addresses_are_no_paths(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell, params, xs, state = a_pass()
    history = lstmx.record(cell, params, xs, state)
    for use in (
        lambda: lstmx.record_to(address, cell, params, xs, state),
        lambda: history.save(address),
        lambda: lstmx.load_history(address),
        lambda: lstmx.save(address, cell, params),
        lambda: lstmx.load(address),
        lambda: lstmx.page(history, address),
        lambda: lstmx.Observatory(cell, xs, path=address),
        lambda: lstmx.Observatory(cell, xs, tensorboard=address),
    ):
        with pytest.raises(ValueError, match=r"is '.*', an address; expected a path on this machine"):
            use()
    assert not list(tmp_path.iterdir())
    history.save("a:b")
    assert (tmp_path / "a:b").is_dir()


def test_who_helped_a_writer_holds_others_off_until_it_ends(tmp_path):
    cell, params, xs, state = a_pass()
    path = tmp_path / "pass"
    with disk.helping(path, 1):
        with pytest.raises(BlockingIOError, match=r"another process.*writes here; nothing was changed"):
            lstmx.record_to(path, cell, params, xs, state)
        with pytest.raises(BlockingIOError, match="writes here"), disk.helping(path, 1):
            pass
        lstmx.record_to(tmp_path / "other", cell, params, xs, state)
    (tmp_path / ".pass.lock.7").touch()  # of a process that was killed
    assert lstmx.record_to(path, cell, params, xs, state).finished
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "pass"]

"""Several processes of one job, by JAX's distributed runtime: what one process does, or a sentence."""

import contextlib
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from two_processes import contents

import lstmx

WORKER = Path(__file__).with_name("two_processes.py")


@contextlib.contextmanager
def job(program, *arguments, devices=1, processes=2):
    """The processes of a job, which are killed in the end if they are still there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(WORKER), str(port), str(processes)]
    rest = [str(devices), program, *map(str, arguments)]
    started = [
        subprocess.Popen([*command, str(number), *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def done(program, *arguments, **options):
    """Run a program to its end in every process."""
    with job(program, *arguments, **options) as processes:
        for process in processes:
            _, errors = process.communicate(timeout=1200)
            assert not process.returncode, errors


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    done("basics", tmp_path)


@pytest.mark.slow
def test_analyses_and_figures_of_what_lies_on_two_devices_of_each_process_are_those_of_one(tmp_path):
    done("analyses", tmp_path, devices=2)


@pytest.mark.slow
def test_whoever_is_killed_no_finished_chunk_is_lost_and_none_is_written_twice(tmp_path):
    for together, step, victims in (("yes", 5, "1"), ("", 10, "0"), ("yes", 15, "01")):
        with job("record", tmp_path, "pass", together, step, victims) as processes:
            for number in map(int, victims):
                assert "here\n" in iter(processes[number].stdout.readline, "")  # after what Gloo says
            for number in map(int, victims):
                processes[number].kill()
            for process in processes:
                process.communicate(timeout=200)
                assert process.returncode
        assert len(lstmx.load_history(tmp_path / "pass")) == step
    done("record", tmp_path, "pass")
    written = (tmp_path / "written").read_text().splitlines()
    again = {name for name in written if written.count(name) > 1}
    assert all(name.split("/c.")[1][0] in "123" for name in again)  # of chunks that were not finished
    assert {file.name for file in tmp_path.iterdir()} == {"pass", "written"}
    done("record", tmp_path, "one", processes=1, devices=2)
    assert contents(tmp_path / "pass") == contents(tmp_path / "one")


@pytest.mark.slow
def test_the_program_of_the_readme_runs(tmp_path):
    readme = (WORKER.parents[1] / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```py\n(.*?)```", readme, flags=re.DOTALL)
    lines = [line for line in program.splitlines() if "initialize" not in line]  # which the worker did
    done("run", "\n".join(lines).replace("/shared", str(tmp_path)))
    assert lstmx.load_history(tmp_path / "pass.zarr").batch == (16,)

"""Several processes of one job, by JAX's distributed runtime: what one process does, or a sentence."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

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
            _, errors = process.communicate(timeout=600)
            assert not process.returncode, errors


def test_two_processes_do_what_one_does(tmp_path):
    done("basics", tmp_path)

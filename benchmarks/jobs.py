"""The list of jobs, and each of them run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.sizes import TIP, Case

ROWS = ("forward", "record", "gradient", "flow", "padded", "growth", "import", "memory", "long", "tip", "dynamics")
SHARED = ("forward", "record", "gradient")
"""Rows that are measured on two cores, too."""
PER_CASE = ("forward", "record", "gradient", "flow")
SMALL_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"
FIRST_CALLS = 3
"""Processes per import time."""


def plan(cases: list[Case], rows: list[str], peers: list[str], quick: bool) -> list[dict[str, Any]]:
    """Every job that these arguments ask for, in the order in which they are run."""
    repetitions = 3 if quick else 7
    common = {"cores": 1, "repetitions": repetitions, "quick": quick}
    jobs: list[dict[str, Any]] = []
    for case in cases:
        for cores in (1, 2) if case.batch % 2 == 0 and (os.cpu_count() or 1) > 1 else (1,):
            alone = ("flow", "padded") if case.batch > 1 else ("flow",)
            wanted = [row for row in rows if row in SHARED or (row in alone and cores == 1)]
            if wanted:
                jobs.append(
                    common | {"kind": "case", "case": case, "cores": cores, "rows": wanted, "peers": peers}
                )
    if "memory" in rows:
        for case in cases:
            jobs += [common | {"kind": "memory", "case": case, "candidate": name} for name in ("lstmx", *peers)]
    if "import" in rows:
        names = ("jax", "lstmx", *peers) * (1 if quick else FIRST_CALLS)
        jobs += [common | {"kind": "first", "candidate": name} for name in names]
    if "growth" in rows:
        jobs.append(common | {"kind": "growth"})
    if "tip" in rows:
        tip = common | {
            "kind": "tip",
            "case": TIP,
            "rows": list(SHARED),
            "peers": [],
        }
        jobs += [tip | {"flag": flag} for flag in (False, True)]
    if "long" in rows and not quick:
        jobs.append(common | {"kind": "long"})
    if "dynamics" in rows:
        jobs.append(common | {"kind": "dynamics", "cores": os.cpu_count() or 1})
    return jobs


def results(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Run the jobs one after another; a job that fails gives its error instead of a result."""
    for number, job in enumerate(jobs, 1):
        start = time.perf_counter()
        result = _run(job)
        seconds = time.perf_counter() - start
        outcome = "failed: " + result["error"].splitlines()[-1] if "error" in result else "done"
        print(f"[{number}/{len(jobs)}] {_title(job)}: {outcome} in {seconds:.0f} s", file=sys.stderr, flush=True)
        yield result | {"wall_s": seconds}


def _run(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "job.json"), Path(folder, "result.json")
        question.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks._worker", str(question), str(answer)]
        done = subprocess.run(command, env=_environment(job), stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode or not answer.exists():
            return job | {"error": done.stderr.strip() or f"exit status {done.returncode}"}
        return json.loads(answer.read_text(encoding="utf-8"))


def _environment(job: dict[str, Any]) -> dict[str, str]:
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    if job["kind"] == "memory":  # freed memory goes back to the system at once, so that the peak can be seen
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    if job.get("flag"):
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {SMALL_LOOPS}".strip()
    return environment


def _title(job: dict[str, Any]) -> str:
    parts = [job["kind"]]
    if "case" in job:
        parts.append(Case(*job["case"]).title)
    if job["kind"] == "case":
        parts.append(f"{job['cores']} core{'s' * (job['cores'] > 1)}")
    if "candidate" in job:
        parts.append(job["candidate"])
    if "flag" in job:
        parts.append("with the flag" if job["flag"] else "without the flag")
    return " ".join(parts)

"""One job in a process of its own: `python -m benchmarks._worker JOB.json RESULT.json`.

Which cores, how many threads and how many JAX devices there are must be said before JAX and PyTorch start, so
nothing that imports them is imported at the top of this file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from benchmarks.sizes import Case


def main() -> None:
    """Do the job in the first file, write its result into the second."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = _first(job) if job["kind"] == "first" else _measured(job)
    Path(sys.argv[2]).write_text(json.dumps(job | result, allow_nan=False), encoding="utf-8")


def _first(job: dict[str, Any]) -> dict[str, Any]:
    """Without any preparation that would import something."""
    from benchmarks import special

    _keep_to(job["cores"])
    return {"seconds": special.first_calls(job["candidate"])}


def _measured(job: dict[str, Any]) -> dict[str, Any]:
    _keep_to(job["cores"])
    import jax

    sharded = job["cores"] > 1 and job["kind"] != "dynamics"
    if sharded:
        jax.config.update("jax_num_cpu_devices", job["cores"])
    settings = {"devices": [str(device) for device in jax.devices()], "threads": _torch_threads(job)}
    before = _interruptions()
    found = _DO[job["kind"]](job)
    return {"settings": settings | {"interruptions": _interruptions() - before}} | found


def _interruptions() -> int:
    """How often other processes took a core from this one so far: the fewer, the better the figures."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _keep_to(cores: int) -> None:
    """Let this process run on so many of its cores only; where the system cannot, on all."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _torch_threads(job: dict[str, Any]) -> int | None:
    if "torch" not in (*job.get("peers", ()), job.get("candidate")):
        return None
    import torch

    torch.set_num_threads(job["cores"])
    return torch.get_num_threads()


def _case(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.problem import Problem
    from benchmarks.rows import Bench

    bench = Bench(Problem(Case(*job["case"])), job["peers"], job["cores"] > 1, job["repetitions"])
    return {"rows": bench.measure(job["rows"])}


def _growth(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import special

    quick, repetitions = job["quick"], job["repetitions"]
    return {
        "growth": special.growth(quick, repetitions),
        "batches": special.sweep(special.BATCHES, quick, repetitions),
        "widths": special.sweep(special.WIDTHS, quick, repetitions),
    }


def _long(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import special

    return {"long": special.long(job["repetitions"])}


def _dynamics(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.dynamics import dynamics

    return {"dynamics": dynamics(job["quick"], job["repetitions"])}


def _memory(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import special

    return {"memory": special.memory(job["candidate"], Case(*job["case"]))}


_DO = {"case": _case, "tip": _case, "growth": _growth, "long": _long, "memory": _memory, "dynamics": _dynamics}


if __name__ == "__main__":
    main()

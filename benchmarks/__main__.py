"""`python -m benchmarks`: this library beside its peers, in the same run. README.md says what each row returns."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from benchmarks import jobs, report
from benchmarks.goals import goals
from benchmarks.harness import machine
from benchmarks.peers import PACKAGES, installed
from benchmarks.sizes import CASES, QUICK, Case


def main() -> None:
    """Measure what the arguments ask for and print the tables."""
    arguments = _arguments()
    absent = [name for name in arguments.peers if not installed(name)]
    peers = [name for name in arguments.peers if name not in absent]
    about: dict[str, Any] = {
        "machine": machine(),
        "jax": importlib.metadata.version("jax"),
        "date": time.strftime("%Y-%m-%d"),
        "quick": arguments.quick,
        "skipped": absent,
    }
    about["load"] = round(os.getloadavg()[0], 2)
    print(f"{about['machine']}; load {about['load']} before the start")
    if absent:
        print(f"not installed, skipped: {', '.join(absent)}")
    start = time.perf_counter()
    cases = arguments.cases or (QUICK if arguments.quick else CASES)
    rows = arguments.rows or (jobs.PER_CASE if arguments.quick else jobs.ROWS)
    found = list(jobs.results(jobs.plan(cases, rows, peers, arguments.quick)))
    about["minutes"] = (time.perf_counter() - start) / 60

    judged = goals(found)
    print(report.tables(about, found, judged))
    if arguments.markdown:
        arguments.markdown.write_text(report.page(about, found, judged), encoding="utf-8")
    if arguments.json:
        everything = {"about": about, "results": found, "goals": judged}
        arguments.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    if arguments.plot:
        from benchmarks.figure import draw

        draw(found, about["machine"], arguments.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="time lstmx beside its peers")
    parser.add_argument("--peers", type=_names(PACKAGES), default=list(PACKAGES), help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--cases", type=_cases, help="TxBxDxH,...: 1000x1x16x32,500x32x64x256")
    parser.add_argument("--rows", type=_names(jobs.ROWS), help=f"of {', '.join(jobs.ROWS)}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="three repetitions; unless said, of three cases and the rows of each case alone",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the peers' times over ours, PNG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page of ratios")
    return parser.parse_args()


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """What reads a list of these names."""

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return names


def _cases(text: str) -> list[Case]:
    try:
        return [Case.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()

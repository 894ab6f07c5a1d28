"""`python -m benchmarks.memory_tasks`: who learns which task of memory, and how far the gradient reaches.

Every (task, model, seed) is trained once and leaves one JSON file in the output folder; a run that is there is
not done again, so a second call goes on where the first one was stopped. From the files come `results.md` and
`results.csv`.
"""

from __future__ import annotations

import argparse
import time
from itertools import groupby
from pathlib import Path

import jax
from tqdm import tqdm

from benchmarks import memory_table
from benchmarks.harness import machine
from benchmarks.memory_runs import FULL, MODELS, QUICK, Problem, Run, load, plan, save, train


def main(arguments: list[str] | None = None) -> None:
    """Do the runs that are missing, then write the tables of all there are."""
    options = _arguments(arguments)
    known = QUICK if options.quick else FULL
    unknown = [name for name in options.tasks or [] if name not in known]
    if unknown:
        raise SystemExit(f"no task {unknown[0]!r}; those are {', '.join(known)}")
    problems = {name: known[name] for name in options.tasks or known}
    seeds = options.seeds or (2 if options.quick else 5)
    runs = plan(problems, options.models, seeds, units=16 if options.quick else 64)
    folder = options.output or Path("memory-tasks-quick" if options.quick else "memory-tasks")
    (folder / "runs").mkdir(parents=True, exist_ok=True)

    stopped = work(runs, problems, folder / "runs", options.hours)
    found = [result for run in runs if (result := load(run, folder / "runs")) is not None]
    head = f"{machine()}; {len(found)} of {len(runs)} runs"
    if options.quick:
        head += "\n\nA quick run, which shows that everything works: too short and too small to judge a model by."
    text = memory_table.markdown(found, list(problems), options.models, head)
    (folder / "results.md").write_text(text, encoding="utf-8")
    memory_table.write_csv(found, folder / "results.csv")
    print(text)
    print(
        f"{stopped}: the same command goes on" if stopped else "all done",
        f"tables and runs are in {folder}/",
        sep="; ",
    )


def work(runs: list[Run], problems: dict[str, Problem], folder: Path, hours: float) -> str:
    """Do the runs that are missing; why it ended early, "" if it did not."""
    missing = [run for run in runs if load(run, folder) is None]
    end = time.monotonic() + hours * 3600
    cost = sum(run.steps * problems[run.problem].length for run in missing)
    with tqdm(total=cost, unit="step", unit_scale=True, smoothing=0) as bar:
        try:
            for (name, model), group in groupby(missing, key=lambda run: (run.problem, run.model)):
                problem = problems[name]
                task = problem.make()
                for run in group:  # of one task and model: compiled once for all seeds
                    if time.monotonic() > end:
                        return f"{hours:g} hours are over"
                    bar.set_description(f"{name} {model} {run.seed}")
                    results = train(run, problem, task)
                    save(run, folder, results)
                    bar.update(run.steps * problem.length)
                jax.clear_caches()  # or the programs of all models fill the memory
        except KeyboardInterrupt:
            return "interrupted"
    return ""


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_tasks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tasks and models, in minutes")
    parser.add_argument("--hours", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--output", type=Path, help="folder of runs and tables")
    parser.add_argument("--seeds", type=_count, help="seeds of each task and model; 5, or 2 with --quick")
    parser.add_argument("--tasks", type=_names, help=f"of {', '.join(FULL)}; with --quick of {', '.join(QUICK)}")
    parser.add_argument("--models", type=_models, default=list(MODELS), help=f"of {', '.join(MODELS)}")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _models(text: str) -> list[str]:
    names = _names(text)
    for name in names:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(MODELS)}")
    return names


if __name__ == "__main__":
    main()

"""The rows that are measured for each case: forward, record, gradient, flow, padded."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import lstmx
from benchmarks import loops, peers
from benchmarks.harness import measure
from benchmarks.limits import Limit
from benchmarks.problem import CHECKED_STEPS, Problem, largest_difference, largest_relative
from benchmarks.report import one_line


class Candidate(NamedTuple):
    """What is timed, and how its result is checked."""

    kind: str
    """"ours", "jax", "torch", "loop" or "limit"."""
    call: Callable[[], Any]
    returns: str
    difference: Callable[[Any], float | None] = lambda result: None
    """From the float64 reference."""
    steps: int | None = None
    """Steps of one call, where they are fewer than T."""
    compiled: bool = True
    """Whether the first call tells how long compilation takes."""


class Bench:
    """A case with all its candidates built once.

    Args:
        problem: the case.
        names: peers to compare with.
        sharded: ours and the limit lie on all devices, and ours on one device is a candidate of its own.
        repetitions: rounds of `measure`.
    """

    def __init__(self, problem: Problem, names: list[str], sharded: bool, repetitions: int) -> None:
        self.problem, self.sharded, self.repetitions = problem, sharded, repetitions
        self.place = lstmx.shard_batch if sharded else np.asarray
        form = peers.ours(problem)
        self.ours = peers.JaxCandidate(problem, form, self.place, compiled=False)
        self.built: dict[str, Any] = {"lstmx": self.ours}
        if sharded:
            self.built["lstmx, one device"] = peers.build("lstmx", problem)
        for name in names:
            self.built[peers.TITLES[name]] = peers.build(name, problem)
        self.limit = Limit(problem, self.place)

    def measure(self, rows: list[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of these names, in this order, each printed when it is there."""
        found = {}
        for row in rows:
            found[row] = getattr(self, row)()
            print(one_line(row, self.problem.case, 1 + self.sharded, found[row]), flush=True)
        return found

    def forward(self) -> list[dict[str, Any]]:
        """All outputs."""
        candidates = {title: self._forward(built) for title, built in self.built.items()}
        ours, jitted = candidates["lstmx"], jax.jit(lambda params, xs: lstmx.run(self.problem.cell, params, xs)[0])
        inside = ours._replace(call=lambda: jitted(self.ours.params, self.ours.xs))
        candidates = {"lstmx": ours, "lstmx in jax.jit": inside} | candidates
        candidates["products alone"] = Candidate("limit", self.limit.forward, "last product")
        return self._timed(candidates)

    def _forward(self, built: Any) -> Candidate:
        def difference(result: Any) -> float:
            return largest_difference(
                [built.outputs(result)[:CHECKED_STEPS]], [self.problem.reference.hidden_state]
            )

        return Candidate(_kind(built, self), built.forward, "outputs [T, B, H]", difference)

    def gradient(self) -> list[dict[str, Any]]:
        """Outputs, and for a given cotangent of them the gradients of parameters and inputs."""
        candidates = {title: self._gradient(built) for title, built in self.built.items()}
        candidates["products alone"] = Candidate("limit", self.limit.gradient, "last products")
        return self._timed(candidates)

    def _gradient(self, built: Any) -> Candidate:
        def difference(result: Any) -> float:
            outputs = built.outputs(result[0])[:CHECKED_STEPS]
            found = largest_difference([outputs], [self.problem.reference.hidden_state])
            expected = self.problem.reference_gradient
            if expected is None:  # too long for float64 NumPy: against ours
                expected = self.ours.gradients(self.ours.gradient())
            return float(np.max([found, largest_relative(built.gradients(result), expected)]))

        return Candidate(
            _kind(built, self), built.gradient, "outputs, gradients of W, U, b and inputs", difference
        )

    def record(self) -> list[dict[str, Any]]:
        """Ours with everything kept, beside the others' outputs alone, and loops that keep everything."""
        candidates = self._records()
        for title, built in self.built.items():
            candidates[f"{title}, forward alone"] = self._forward(built)._replace(compiled=False)
        found = self._timed(candidates)
        return found if self.sharded else found + self._loops()

    def _records(self) -> dict[str, Candidate]:
        cell, params, xs = self.problem.cell, self.ours.params, self.ours.xs
        kept = "pre-activations i, f, g, o and h, c of every step"
        latest: list[Any] = []

        def fresh() -> Any:
            history = lstmx.record(cell, params, xs)
            if not latest:  # the first call: what `reuse` takes first
                latest.append(history)
            return history

        def reused() -> Any:
            latest[0] = lstmx.record(cell, params, xs, reuse=latest[0])
            return latest[0]

        def with_gates() -> Any:
            history = lstmx.record(cell, params, xs)
            return history.gates, history.states

        def read(history: Any) -> float:
            return self._record_difference([*history.gates, *reversed(history.states)])

        def read_gates(result: Any) -> float:
            return self._record_difference([*result[0], *reversed(result[1])])

        return {
            "lstmx.record": Candidate("ours", fresh, kept, read),
            "lstmx.record, reuse=": Candidate("ours", reused, kept, read),
            "lstmx.record, then .gates": Candidate(
                "ours", with_gates, "i, f, g, o, h, c of every step", read_gates
            ),
        }

    def _loops(self) -> list[dict[str, Any]]:
        made = {"NumPy loop that keeps its gates": loops.numpy_loop(self.problem)}
        if "PyTorch nn.LSTM" in self.built:
            made["PyTorch LSTMCell loop that keeps its gates"] = loops.torch_loop(self.problem)
        returns = "i, f, g, o, c, h of every step"
        steps = min(self.problem.case.length, loops.STEPS)
        candidates = {
            name: Candidate("loop", loop, returns, self._record_difference, steps, compiled=False)
            for name, loop in made.items()
        }
        return self._timed(candidates, 3)

    def _record_difference(self, rows: Any) -> float:
        history = self.problem.reference
        expected = [*history.gates, *reversed(history.states)]
        return largest_difference([np.asarray(x)[:CHECKED_STEPS] for x in rows], expected)

    def flow(self) -> list[dict[str, Any]]:
        """Norms of the gradient at every step, beside the passes that it is compared with."""
        cell, params, xs = self.problem.cell, self.ours.params, self.ours.xs
        history = lstmx.record(cell, params, xs, keep="states")

        def flow() -> Any:
            return lstmx.gradient_flow(history, "last", outputs="norms")

        def states() -> Any:
            return lstmx.record(cell, params, xs, keep="states")

        def difference(result: Any) -> float | None:
            expected = self.problem.reference_flow
            return None if expected is None else largest_relative([result.log_norm_hidden], [expected])

        norms = "log norms [T, B] of the joint, hidden and cell cotangents, highway, parameter profile, gradients"
        return self._timed(
            {
                "lstmx.gradient_flow, norms": Candidate("ours", flow, norms, difference),
                "lstmx.record, keep='states'": Candidate("ours", states, "h, c of every step", compiled=False),
                "gradient of lstmx.run": self._gradient(self.ours)._replace(compiled=False),
                "lstmx.run": self._forward(self.ours)._replace(compiled=False),
            }
        )

    def padded(self) -> list[dict[str, Any]]:
        """A batch of sequences of T/2 to T steps, by `lengths=`, beside the same batch taken as of one length."""
        cell, ours = self.problem.cell, self.ours
        length, batch = ours.xs.shape[:2]
        lengths = np.linspace(length // 2, length, batch).astype(int)
        counts = (np.arange(length)[:, None] < lengths)[..., None]

        @functools.partial(jax.jit, static_argnames="how")
        def gradient(params: Any, xs: Any, cotangent: Any, how: str = "pullback") -> Any:
            def outputs(params: Any, xs: Any) -> Any:
                return lstmx.run(cell, params, xs, lengths=lengths, differentiation=how)[0]

            made, pull = jax.vjp(outputs, params, xs)
            return made, pull(cotangent)

        given = ours.params, ours.xs, ours.cotangent

        def of_outputs(result: Any) -> float:
            expected = np.where(counts[:CHECKED_STEPS], self.problem.reference.hidden_state, 0)
            return largest_difference([result[:CHECKED_STEPS]], [expected])

        def of_gradient(result: Any) -> float:
            expected = ours.gradients(gradient(*given, how="autodiff"))
            return float(np.max([of_outputs(result[0]), largest_relative(ours.gradients(result), expected)]))

        both = "outputs, gradients of W, U, b and inputs"
        return self._timed(
            {
                "forward, lengths=": Candidate(
                    "ours",
                    lambda: lstmx.run(cell, ours.params, ours.xs, lengths=lengths)[0],
                    "outputs [T, B, H]",
                    of_outputs,
                ),
                "forward": self._forward(ours)._replace(compiled=False),
                "gradient, lengths=": Candidate("ours", lambda: gradient(*given), both, of_gradient),
                "gradient": self._gradient(ours)._replace(compiled=False),
            }
        )

    def _timed(self, candidates: dict[str, Candidate], repetitions: int | None = None) -> list[dict[str, Any]]:
        calls = {name: candidate.call for name, candidate in candidates.items()}
        times = measure(calls, repetitions or self.repetitions, pause=0.02 if self.sharded else 0)
        found = []
        for name, candidate in candidates.items():
            steps, first = candidate.steps or self.problem.case.length, times[name].first
            difference = candidate.difference(candidate.call())
            found.append(
                {
                    "name": name,
                    "kind": candidate.kind,
                    "returns": candidate.returns,
                    "median_us": times[name].median / steps * 1e6,
                    "least_us": times[name].least / steps * 1e6,
                    "compile_s": max(0.0, first - times[name].median) if candidate.compiled else None,
                    "repetitions": times[name].repetitions,
                    "difference": difference
                    if difference is None or math.isfinite(difference)
                    else str(difference),
                }
            )
        return found


def _kind(built: Any, bench: Bench) -> str:
    if built is bench.ours or built is bench.built.get("lstmx, one device"):
        return "ours"
    return "jax" if isinstance(built, peers.JaxCandidate) else "torch"


def temporary_bytes(function: Callable[..., Any], *args: Any) -> tuple[int, int]:
    """Bytes of temporary memory and of results of a function, compiled for these arguments."""
    analysis = jax.jit(function).lower(*args).compile().memory_analysis()
    return analysis.temp_size_in_bytes, analysis.output_size_in_bytes

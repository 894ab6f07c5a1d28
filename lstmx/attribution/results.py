"""What `attribute` gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, namespace, result
from lstmx.attribution.targets import Target
from lstmx.checks import positive

WORDS = {
    "integrated_gradients": "integrated gradients",
    "gradient_input": "gradient times input",
    "lrp": "layer-wise relevance propagation",
    "contextual": "contextual decomposition",
    "cell_path": "the path along the state",
}

_ROUGH = 1e-3  # share that is not accounted for above which more nodes are wanted, or another path


@result(static=("method",))
class Attribution:
    """What each step of a pass, its initial state and the biases contribute to a target, sequence by sequence.

    The contributions, what the stabiliser took and the defect add up to what the target is more than at the
    baseline.

    Attributes:
        method: the word that was asked for.
        steps: contributions of the steps, [T, *batch]: of x_t, the sum over its features; by "cell_path" of all
            that the step adds to the state. 0 at a step that does not count.
        inputs: contributions of each feature of x_t, [T, *batch, D]; None by "contextual" and "cell_path".
        units: contributions of what each step adds to each unit of the state, [T, *batch, H], by "cell_path"; None
            by another method.
        initial: contribution of the initial state, [*batch].
        initial_units: of each of its numbers, a state with fields [*batch, H]; None by "contextual".
        biases: contributions of the biases at each step, [T, *batch]; 0 where a method gives them none.
        stabiliser: what the stabiliser of "lrp" has taken, [*batch]; 0 by another method.
        defect: the part of the target's change that the contributions do not account for, [*batch].
        value: the target, [*batch].
        baseline_value: what it is at the baseline, [*batch]: by "integrated_gradients" the target of the
            baseline's pass; by another method the constant of the target.
        history: the recorded pass.
        target: what was asked for.
        baseline: inputs of the baseline, [T, *batch, D].
    """

    method: str
    steps: Array
    inputs: Array | None
    units: Array | None
    initial: Array
    initial_units: Any
    biases: Array
    stabiliser: Array
    defect: Array
    value: Array
    baseline_value: Array
    history: Any
    target: Target
    baseline: Array

    @property
    def relative_defect(self) -> Array:
        """|defect| over the target's change, or where that is less over the greatest contribution, [*batch]."""
        xp = namespace(self.steps)
        change = xp.abs(self.value - self.baseline_value)
        greatest = xp.max(xp.abs(self.steps), axis=0)
        whole = xp.where(change > greatest, change, greatest)
        return xp.abs(self.defect) / xp.where(whole == 0, xp.ones_like(whole), whole)

    def top(self, count: int = 10) -> Array:
        """The steps that contribute most, by absolute value, [count, *batch], the greatest first.

        Raises:
            TypeError: count is no integer.
            ValueError: it is less than 1.
        """
        positive("count", count)
        xp = namespace(self.steps)
        return xp.argsort(-xp.abs(self.steps), axis=0, stable=True)[:count]

    def __repr__(self) -> str:
        length, *batch = self.steps.shape
        of = f", batch {tuple(batch)}" if batch else ""
        return f"Attribution({self.method!r}: {length} steps{of})"

    def __str__(self) -> str:
        """What adds up to the target, and the steps that contribute most."""
        steps = fetched(self.steps, np.float64)
        sums = {
            "target": self.value,
            "at the baseline" if self.method == "integrated_gradients" else "constant": self.baseline_value,
            "all steps": steps.sum(axis=0),
            "initial state": self.initial,
            "biases": fetched(self.biases, np.float64).sum(axis=0),
        }
        if self.method == "lrp":
            sums["stabiliser"] = self.stabiliser
        sums["defect"] = self.defect
        batch = steps.shape[1:]
        middle = f", medians of {int(np.prod(batch))} sequences" if batch else ""
        told = {name: np.median(fetched(value, np.float64)) for name, value in sums.items()}
        width = max(map(len, told))
        lines = [f"contributions by {WORDS[self.method]} over {len(steps):,} steps{middle}"]
        lines += [f"  {name:<{width}}  {value:+.6g}" for name, value in told.items()]
        share = np.median(fetched(self.relative_defect, np.float64))
        lines.append(f"what is not accounted for is {share:.2g} of the change")
        if self.method == "integrated_gradients" and share > _ROUGH:
            lines.append(
                "the target is rough between baseline and inputs: take a baseline that the network knows, such as "
                "a mean input, or more nodes"
            )
        if not batch:
            order = fetched(self.top(8))
            lines.append("most: " + ", ".join(f"step {t} {steps[t]:+.4g}" for t in order))
        return "\n".join(lines)

"""The cases of the kit: what each gives, and the truth that the files beside this one hold."""

from __future__ import annotations

import functools
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lstmx.arrays import require
from lstmx.cells.description import cell_from
from lstmx.layers import Layers
from lstmx.layers.structures import KINDS

ORDER = ("reset_gate", "input_gate", "forget_gate", "update_gate", "candidate", "stabiliser_state", "cell_state")
ORDER += ("normaliser_state", "output_gate", "hidden_state", "outputs")
"""What a step computes, in the order in which it does."""
DYNAMICS = ("jacobians", "finite_time_exponents", "lyapunov_exponents")


@dataclass(frozen=True, eq=False)
class Case:
    """A network, what it reads, and what is asked of it.

    All arrays are NumPy's, float64, and everything that is given is a multiple of 1/64, so that float32 holds it
    exactly. Arrays of a network of several cells have the name of the cell in front: "layer 0/bias",
    "backward/hidden_state".

    Attributes:
        name: of the case, such as "gru, reset after".
        words: what it is.
        cell: the cell or layers of lstmx, whose docstring has the equations: `help(case.cell)`.
        params: the parameters by name, packed as the docstring of the cell's parameters says, such as
            "input_kernel" [D, 4H] in blocks i, f, g, o.
        two_biases: "input_bias" and "recurrent_bias" for implementations that have a bias beside x W and one
            beside h U, in the blocks of "bias": they add up to it, but in a GRU with reset after the product,
            where the candidate's recurrent bias is "candidate_bias". Empty where a cell has one bias.
        state: the initial state by name, "hidden_state" [B, H] and the like.
        xs: inputs, [T, B, D]. Steps behind the end of a sequence hold numbers, too, which nothing should read.
        lengths: the steps of each sequence that count, [B]; None where all do.
        weights: of the loss L = Σ weights ∘ outputs, as `outputs`; 0 at steps that do not count.
        x: the constant input of the fixed points, [D].
        asked: the shape of each result that is asked for, by name; see `lstmx.conformance`. The first axis of
            "fixed_points" is their number.
        truth: the results, rounded to float64 from 40 digits and more.
    """

    name: str
    words: str
    cell: Any
    params: dict[str, np.ndarray]
    two_biases: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    xs: np.ndarray
    lengths: np.ndarray | None
    weights: np.ndarray
    x: np.ndarray
    truth: dict[str, np.ndarray] = field(repr=False)

    @property
    def asked(self) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.truth.items()}

    @property
    def parts(self) -> list[tuple[str, Any]]:
        """What stands in front of the names of each cell, and the cell: [("", cell)] where there is one."""
        return (
            [(f"{name}/", cell) for name, cell in self.cell.parts.items()] if self.layered else [("", self.cell)]
        )

    @property
    def layered(self) -> bool:
        """Whether this is a network of several cells."""
        return isinstance(self.cell, Layers)

    @property
    def counts(self) -> np.ndarray:
        """Whether each step of each sequence counts, [T, B]."""
        steps = np.arange(len(self.xs))[:, None]
        return np.broadcast_to(steps < (len(self.xs) if self.lengths is None else self.lengths), self.xs.shape[:2])

    def tree(self) -> Any:
        """The parameters as lstmx takes them: the cell's own class, of layers one for each in a tuple."""
        made = [
            type(shapes)(*(self.params.get(f"{part}{name}") for name in shapes._fields))
            for part, shapes in ((part, cell.parameter_shapes()) for part, cell in self.parts)
        ]
        return self.cell.tree(made) if self.layered else made[0]

    def start(self) -> Any:
        """The initial state as lstmx takes it."""
        made = [
            cell.state_type(*(self.state[f"{part}{name}_state"] for name in cell.state_type._fields))
            for part, cell in self.parts
        ]
        return self.cell.tree(made) if self.layered else made[0]

    def __repr__(self) -> str:
        return f"Case({self.name!r}: {self.words}, {len(self.asked)} results)"


def cases() -> dict[str, Case]:
    """All cases by name, read anew from the files of the package.

    Returns:
        Cases by name; each call gives arrays of its own, which may be changed.

    Example:
        >>> import lstmx
        >>> case = lstmx.conformance.cases()["lstm, padded"]
        >>> case.xs.shape, case.lengths.tolist(), case.asked["forget_gate"]
        ((5, 2, 2), [5, 3], (5, 2, 3))
    """
    words, data = _files()
    arrays = require("safetensors.numpy", "the kit's cases").load(data)
    made = {}
    for name, told in json.loads(words).items():
        own = {key.removeprefix(f"{name}:"): value for key, value in arrays.items() if key.startswith(f"{name}:")}
        truth = _under("truth:", own)
        made[name] = Case(
            name,
            told["words"],
            cell_from(told["cell"], KINDS),
            _under("params:", own),
            _under("biases:", own),
            _under("state:", own),
            own["xs"],
            own.get("lengths"),
            own["weights"],
            own["x"],
            {key: truth[key] for key in sorted(truth, key=_place)},
        )
    return made


def _place(name: str) -> tuple[int, int, str]:
    """Where a result stands among the others: as a step computes them, then gradients, Jacobians, points."""
    leaf = name.rpartition("/")[2].removeprefix("gradient.").removeprefix("final_").removeprefix("initial_")
    kind = 3 if name in DYNAMICS else 4 if name == "fixed_points" else 2 if name.startswith("gradient.") else 0
    kind += name.startswith("final_")
    return kind, ORDER.index(leaf) if leaf in ORDER else len(ORDER), name


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): np.array(arrays[key]) for key in sorted(arrays) if key.startswith(prefix)}


@functools.cache
def _files() -> tuple[str, bytes]:
    folder = importlib.resources.files("lstmx.conformance")
    return (folder / "cases.json").read_text(encoding="utf-8"), (folder / "cases.safetensors").read_bytes()

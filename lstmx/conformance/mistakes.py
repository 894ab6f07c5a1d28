"""The known mistakes, each with the forms in which it is made; what is not listed here has no name in the kit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from lstmx.conformance.cases import DYNAMICS, Case
from lstmx.conformance.equations import blocks_of

GROUPS = ("pass", "gradients", "dynamics", "fixed points")

_WORDS = {
    "swapped gates": "gates stand in each other's place",
    "forget bias missing": "the forget gate's bias lacks 1, which is part of the stored bias here",
    "forget bias added twice": "1 is added to the forget gate's bias, which has it already",
    "reset before for after": "the reset gate acts on h before the recurrent product, not on the product",
    "reset after for before": "the reset gate acts on the recurrent product, not on h before it",
    "one bias of two": "one of the two biases beside x W and h U is left out",
    "(c, h) for (h, c)": "the two parts of the state stand in each other's place",
    "padded backward direction": "the backward direction starts at the end of the padding, not of the sequence",
    "lengths ignored": "steps behind the end of a sequence move its state",
    "detached h": "no gradient passes through the recurrent reading of h",
    "Jacobians in the wrong order": "the Jacobians of the steps are multiplied in the wrong order",
    "Jacobian of h alone": "the Jacobian is ∂h/∂h at fixed c, where that of the joint state is meant",
    "logarithms of base 2": "exponents are logarithms of base 2, where natural ones are meant",
    "direct gradients": "∂L/∂h_t or ∂L/∂c_t holds fixed what depends on it, where the total is meant",
    "inverted update gate": "the gate that keeps the old state takes in the new, or is shown as 1 minus itself",
    "transposed recurrent kernel": "the blocks of the recurrent kernel are transposed",
    "another hard sigmoid": "the hard sigmoid has the other slope of the two in use, 1/6 and 0.2",
    "single precision": "float64 is returned with the digits of float32",
}


class Form(NamedTuple):
    """One way of making a mistake."""

    mistake: str
    words: str
    changes: dict[str, Any]
    groups: tuple[str, ...] = GROUPS
    """The results that it is in; the others are as without it."""
    common: bool = True
    """Whether it is tried together with others, too."""


def mistakes() -> dict[str, str]:
    """The mistakes that `check_against` knows, in words.

    Returns:
        What is wrong, by the name in which results list it.

    Example:
        >>> import lstmx
        >>> lstmx.conformance.mistakes()["forget bias added twice"]
        "1 is added to the forget gate's bias, which has it already"
    """
    return dict(_WORDS)


def group_of(name: str) -> str:
    """Which of `GROUPS` a result is in."""
    if name.startswith("gradient."):
        return "gradients"
    return "dynamics" if name in DYNAMICS else "fixed points" if name == "fixed_points" else "pass"


def forms_of(case: Case) -> Iterator[Form]:
    """The mistakes that can be made in a case."""
    yield from _of_gates(case)
    yield from _of_parameters(case)
    yield from _of_states(case)
    yield from _of_derivatives(case)


def _of_gates(case: Case) -> Iterator[Form]:
    cells = dict(case.parts)
    for names in dict.fromkeys(blocks_of(cell) for cell in cells.values()):
        for order in itertools.permutations(range(len(names))):
            moved = [k for k, j in enumerate(order) if k != j]
            if moved:
                listed = ", ".join(names[j] for j in order)
                yield Form(
                    "swapped gates",
                    f"blocks are read in the order {listed}; they are packed {', '.join(names)}",
                    {"blocks": order},
                    common=len(moved) == 2,
                )
    gates = [name for name in case.truth if name.rpartition("/")[2] in _gate_names(case) and "." not in name]
    shown = dict.fromkeys(name.rpartition("/")[2] for name in gates)
    for left, right in itertools.combinations(shown, 2):
        pairs = [(f"{part}{left}", f"{part}{right}") for part in cells]
        words = f"{left} and {right} are returned under each other's name"
        yield Form("swapped gates", words, {"labels": pairs}, ("pass",))
    kinds = {type(cell).__name__ for cell in cells.values()}
    if kinds & {"GRU", "MGU", "MinGRU"}:
        yield Form("inverted update gate", "it takes in the new and keeps the rest", {"inverted": True})
        names = [name for name in gates if name.rpartition("/")[2] == "update_gate"]
        yield Form("inverted update gate", "what is returned is 1 minus it", {"complements": names}, ("pass",))
    resets = {getattr(cell, "reset", None) for cell in cells.values()}
    if "after" in resets:
        yield Form("reset before for after", "with both biases of the candidate", {"reset": "before"})
        words = "and without the candidate's recurrent bias"
        yield Form("reset before for after", words, {"reset": "before", "lost_inside": "left out"})
    if "before" in resets:
        yield Form("reset after for before", "with the candidate's bias outside the product", {"reset": "after"})
    words = {getattr(cell, "gate_activation", "sigmoid") for cell in cells.values()}
    for one, other in (("hard_sigmoid", "hard_sigmoid_0.2"), ("hard_sigmoid_0.2", "hard_sigmoid")):
        if one in words:
            yield Form("another hard sigmoid", f"{other} for {one}", {"gate_activation": other})


def _gate_names(case: Case) -> set[str]:
    return {name for _, cell in case.parts for name in cell.gate_type._fields}


def _of_parameters(case: Case) -> Iterator[Form]:
    if any("forget_gate" in blocks_of(cell) or getattr(cell, "coupled", False) for _, cell in case.parts):
        yield Form("forget bias missing", "its gate is computed with 1 less", {"forget_bias": -1.0})
        yield Form("forget bias added twice", "its gate is computed with 1 more", {"forget_bias": 1.0})
    ways = ("left out", "read as 0") if any(name.endswith("candidate_bias") for name in case.params) else ()
    for way in ways:
        yield Form("one bias of two", f"the candidate's recurrent bias is {way}", {"lost_inside": way})
    if case.two_biases:
        words = "only the one beside x W is read"
        for inside in ({"lost_inside": way} for way in ways) if ways else ({},):
            yield Form("one bias of two", words, {"lost_bias": "recurrent", **inside})
        yield Form("one bias of two", "only the one beside h U is read", {"lost_bias": "input"})
    if any(name.endswith("recurrent_kernel") for name in case.params):
        yield Form("transposed recurrent kernel", "every block of it", {"transposed": True})


def _of_states(case: Case) -> Iterator[Form]:
    pairs = [part for part, cell in case.parts if cell.state_type._fields == ("hidden", "cell")]
    if pairs and not any(getattr(cell, "projection", None) for _, cell in case.parts):
        read = {"read_swapped": True} if len(pairs) == len(case.parts) else {}
        shown = {
            lead: [(f"{lead}{part}hidden_state", f"{lead}{part}cell_state") for part in pairs]
            for lead in ("", "final_", "gradient.", "gradient.initial_")
        }
        mistake, ended = "(c, h) for (h, c)", {"labels": shown["final_"]}
        every = {"labels": [*shown[""], *shown["final_"]]}
        if read:
            yield Form(mistake, "the initial state is read so", read)
            yield Form(mistake, "the initial state is read so, and the final state returned so", read | ended)
            yield Form(mistake, "the initial state is read so, and all states returned so", read | every)
        yield Form(mistake, "the final state is returned so", ended, ("pass",))
        yield Form(mistake, "the states of all steps are returned so", {"labels": shown[""]}, ("pass",))
        yield Form(mistake, "all states are returned so", every, ("pass",))
        labels = {"labels": shown["gradient."]}
        yield Form(mistake, "the gradients of the states are returned so", labels, ("gradients",))
        labels = {"labels": shown["gradient.initial_"]}
        yield Form(mistake, "the gradients of the initial state are returned so", labels, ("gradients",))
        labels = {"labels": [*shown["gradient."], *shown["gradient.initial_"]]}
        yield Form(mistake, "all gradients of states are returned so", labels, ("gradients",))
    if case.lengths is not None:
        if getattr(case.cell, "both_directions", False):
            yield Form("padded backward direction", "it reads the padding first", {"padding": "read"})
            both = {"padding": "read", "lengths": "ignored"}
            words = "it reads the padding first, and final states are those behind it"
            yield Form("padded backward direction", words, both)
        yield Form("lengths ignored", "final states are those behind the padding", {"lengths": "ignored"})


def _of_derivatives(case: Case) -> Iterator[Form]:
    derived = ("gradients", "dynamics")
    for place, words in (("hidden", "where the recurrent kernel reads it"), ("state", "nor through any state")):
        for groups in (("gradients",), derived):
            yield Form("detached h", words, {"detached": place}, groups)
    for groups in (("gradients",), ("dynamics",), derived):
        where = {1: f"in the {groups[0]}", 2: "in gradients and exponents"}[len(groups)]
        for order in ("reversed", "transposed"):
            words = f"{order} {where}"
            yield Form("Jacobians in the wrong order", words, {"order": order}, groups)
    if any(cell.state_type._fields == ("hidden", "cell") for _, cell in case.parts) and not case.layered:
        yield Form("Jacobian of h alone", "the way through the cell state is left out", {"jacobian": "hidden"},
                   ("dynamics",))  # fmt: skip
    yield Form("logarithms of base 2", "of all exponents", {"base": 2}, ("dynamics",))
    words = "it is the loss's own, all other outputs held fixed"
    yield Form("direct gradients", words, {"total": "outputs"}, ("gradients",))
    words = "the fields of a state are held fixed, which the total is not"
    yield Form("direct gradients", words, {"total": "fields"}, ("gradients",))

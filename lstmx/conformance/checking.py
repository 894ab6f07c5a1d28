"""`check_against`: what an implementation returns against the truth, and which known mistake explains the rest."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lstmx.checks import array, finite_number, one_of
from lstmx.conformance.cases import Case, cases
from lstmx.conformance.equations import BLOCKED, World, blocks_of
from lstmx.conformance.mistakes import GROUPS, Form, forms_of, group_of, mistakes

Implementation: TypeAlias = Callable[[Case], "Mapping[str, Any] | None"]

_ROUNDINGS = 1000  # of the dtype that a result may be off by, in units of the greatest number in it
_LOST = 0.1  # nats per step: an exponent less sure than that is not compared
_AT_ONCE = 8  # explanations of the same numbers that are followed


@dataclass(frozen=True)
class Difference:
    """Where results of an implementation first differ from the truth.

    Attributes:
        name: the result.
        step: the first step at which it differs, of gradients the last; None for what has no steps.
        sequence: the sequence in the batch; None for what has none.
        unit: the place in the other axes.
        found: the number there; NaN where nothing stands there.
        expected: the truth; NaN where nothing should be there.
        place: what stands there, in words.
    """

    name: str
    step: int | None
    sequence: int | None
    unit: tuple[int, ...]
    found: float
    expected: float
    place: str

    @property
    def error(self) -> float:
        """|found − expected|."""
        return abs(self.found - self.expected)

    def __str__(self) -> str:
        where = f"{self.name} at " if self.place else self.name
        by = f", {self.error:.2g} off" if np.isfinite(self.error) else ""
        if np.isnan(self.expected):
            return f"{where}{self.place}: {self.found:.9g} is none"
        if np.isnan(self.found) and self.name == "fixed_points":
            return f"{where}{self.place}: {self.expected:.9g} is missing"
        return f"{where}{self.place}: {self.found:.9g} where {self.expected:.9g} is right{by}"


@dataclass(frozen=True)
class CaseResult:
    """What became of one case.

    Attributes:
        name: of the case.
        compared: the results that the implementation returned.
        missing: those that it did not return.
        dtype: the least precise dtype of what it returned; None where it returned nothing.
        mistakes: the known mistakes that explain what differs.
        words: in which form each was made.
        difference: where results first differ from the truth; None where they do not.
        explained: whether the known mistakes explain every number.
    """

    name: str
    compared: tuple[str, ...]
    missing: tuple[str, ...]
    dtype: str | None
    mistakes: tuple[str, ...]
    words: tuple[str, ...]
    difference: Difference | None
    explained: bool

    @property
    def passed(self) -> bool:
        """Whether all that was returned is right."""
        return self.difference is None

    def __str__(self) -> str:
        if self.difference is None:
            told = f"{len(self.compared)} of {len(self.compared) + len(self.missing)} results, in {self.dtype}"
            return f"{self.name}: {f'right: {told}' if self.compared else 'not answered'}"
        first = f"first differs in {self.difference}"
        known = "; ".join(f"{name} ({words})" for name, words in zip(self.mistakes, self.words, strict=True))
        if self.explained:
            return f"{self.name}: {known}; {first}"
        return f"{self.name}: no known mistake explains it{f' beside {known}' if known else ''}; {first}"


@dataclass(frozen=True)
class Conformance:
    """What an implementation does right, and which known mistakes it makes; `print` says it.

    Attributes:
        cases: what became of each case.
    """

    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether all that was returned is right."""
        return all(case.passed for case in self.cases)

    @property
    def mistakes(self) -> dict[str, tuple[str, ...]]:
        """The cases in which each known mistake was made, the most frequent first."""
        found: dict[str, list[str]] = {}
        for case in self.cases:
            for name in case.mistakes:
                found.setdefault(name, []).append(case.name)
        return {name: tuple(found[name]) for name in sorted(found, key=lambda name: -len(found[name]))}

    @property
    def unexplained(self) -> tuple[str, ...]:
        """The cases with numbers that no known mistake explains."""
        return tuple(case.name for case in self.cases if not case.explained)

    def __getitem__(self, name: str) -> CaseResult:
        """What became of one case."""
        return {case.name: case for case in self.cases}[
            one_of("name", name, tuple(case.name for case in self.cases))
        ]

    def __str__(self) -> str:
        answered = [case for case in self.cases if case.compared]
        right = sum(case.passed for case in answered)
        lines = [
            f"{right} of {len(answered)} cases are right, {sum(len(case.compared) for case in answered)} results "
            f"compared; {len(self.cases) - len(answered)} cases were not answered"
        ]
        for name, where in self.mistakes.items():
            lines.append(f"MISTAKE: {name}: {mistakes()[name]} ({_counted(where)})")
        if self.unexplained:
            lines.append(f"UNKNOWN: no known mistake explains {_counted(self.unexplained)}")
        return "\n".join([*lines, *(f"  {case}" for case in self.cases)])

    def __repr__(self) -> str:
        found = ", ".join(self.mistakes) or ("none" if self.passed else "none that is known")
        return f"Conformance({len(self.cases)} cases, mistakes: {found})"


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} case{'s' * (len(names) != 1)}"


def check_against(
    implementation: Implementation, names: Iterable[str] | None = None, *, tolerance: float | None = None
) -> Conformance:
    """Compare an implementation of recurrent cells with the truth, and name the mistakes that it makes.

    What differs is explained by trying: each known mistake, and then two of them together, is made in a plain
    NumPy implementation, and is named where all numbers that came are the ones that it leads to.

    Args:
        implementation: a function from a `Case` to a dict of arrays, NumPy's or JAX's, float32 or float64, by the
            names in `case.asked` and of the shapes there; any part of them, and None or an empty dict for a case
            that it does not have. It may raise NotImplementedError for that, too.
        names: the cases to try; None for all.
        tolerance: what a number may be off by, in units of the greatest number of its result or of 1, whichever is
            more; None for 1,000 roundings of the dtype that came: 2.2e-13 in float64, 1.2e-4 in float32. Fixed
            points may be off by the root of that, and exponents by more where directions have been lost. float32
            is the least precise dtype of what a case returned.

    Returns:
        The result: `passed`, `mistakes` by name, and of each case where it first differs.

    Raises:
        TypeError: the implementation cannot be called, or what it returns is no dict of real float32 or float64
            arrays; or a tolerance that is no number.
        ValueError: it returns a name that is not asked for, or an array of another shape that no known mistake
            explains; or it raises an error; or it answers no case; or no such case; or a tolerance not above 0.

    Example:
        >>> import lstmx
        >>> def mine(case):
        ...     if case.name == "simple rnn":
        ...         h, made = case.state["hidden_state"], []
        ...         for x in case.xs:
        ...             h = numpy.tanh(x @ case.params["input_kernel"] + h @ case.params["recurrent_kernel"].T)
        ...             made.append(h)
        ...         return {"outputs": numpy.stack(made)}
        >>> import numpy
        >>> found = lstmx.conformance.check_against(mine)
        >>> found.passed, found.unexplained
        (False, ('simple rnn',))
    """
    if not callable(implementation):
        raise TypeError(
            f"implementation is {_kind(implementation)}; expected a function that takes a Case and returns a dict "
            "of arrays"
        )
    _check_tolerance(tolerance)
    every = cases()
    given = cases()  # of its own, which the implementation may change
    results = []
    for name in _chosen(names, every):
        found = _answer(implementation, every[name], given[name], tolerance)
        results.append((every[name], found))
    if not any(found for _, found in results):
        raise ValueError(
            "implementation returned nothing for any of these cases, so that there is nothing to compare; "
            "case.asked has the names of what is asked for"
        )
    explained = [(case, found, *_explanations(case, found, tolerance)) for case, found in results]
    common = Counter(
        name for *_, options, _ in explained for name in {f.mistake for forms in options for f in forms}
    )
    return Conformance(tuple(_result(*one, common, tolerance) for one in explained))


def _chosen(names: Any, every: dict[str, Case]) -> list[str]:
    if names is None:
        return list(every)
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple)) or not listed:
        raise TypeError(f"names is {names!r}; expected a list of names of cases, or None for all")
    return [one_of("names", name, tuple(every)) for name in listed]


def _check_tolerance(tolerance: Any) -> None:
    if tolerance is None:
        return
    if isinstance(tolerance, (bool, np.bool_)) or not isinstance(tolerance, (int, float, np.integer, np.floating)):
        raise TypeError(f"tolerance is {tolerance!r}; expected a number above 0, or None")
    finite_number("tolerance", tolerance, "a finite number above 0", lambda x: x > 0)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


# ------------------------------------------------------------------------------------------- what is returned


def _answer(
    implementation: Implementation, case: Case, given: Case, tolerance: float | None
) -> dict[str, np.ndarray]:
    """What an implementation returns for a case, in NumPy; empty where it does not have it."""
    try:
        answer = implementation(given)
    except NotImplementedError:
        return {}
    except Exception as error:
        raise ValueError(
            f"implementation raised {type(error).__name__} on the case {case.name!r}: {error}"
        ) from error
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise TypeError(
            f"implementation returned {_kind(answer)} for the case {case.name!r}; expected a dict of arrays"
        )
    found = {}
    for name, value in answer.items():
        if name not in case.truth:
            raise ValueError(
                f"implementation returned {name!r} for the case {case.name!r}; expected any of "
                f"{', '.join(case.truth)}"
            )
        what = f"implementation's {name} for the case {case.name!r}"
        if isinstance(value, (list, tuple, str, bytes)):
            raise TypeError(f"{what} is {_kind(value)}; expected an array, as of numpy.asarray")
        value = array(what, value)
        if str(value.dtype) not in ("float32", "float64"):
            raise TypeError(f"{what} is {value.dtype}; expected float32 or float64")
        found[name] = np.asarray(value)
    wrong = [name for name, value in found.items() if not _shaped(value, case.truth[name].shape, name)]
    if wrong and not _explanations(case, found, tolerance)[1]:
        name = wrong[0]
        expected = ("N", *case.truth[name].shape[1:]) if name == "fixed_points" else case.truth[name].shape
        shape = found[name].shape
        first = "; time comes first" if (shape[1::-1], *shape[2:]) == (expected[:2], *expected[2:]) else ""
        raise ValueError(
            f"implementation's {name} for the case {case.name!r} has shape {shape}; expected "
            f"({', '.join(map(str, expected))}{',' * (len(expected) == 1)}){first}"
        )
    return found


def _shaped(value: np.ndarray, shape: tuple[int, ...], name: str) -> bool:
    return (
        value.shape[1:] == shape[1:] and value.ndim == len(shape)
        if name == "fixed_points"
        else value.shape == shape
    )


def _dtype(found: dict[str, np.ndarray]) -> str:
    return min((str(value.dtype) for value in found.values()), key=("float32", "float64").index)


def _tolerance(found: dict[str, np.ndarray], tolerance: float | None) -> float:
    return float(tolerance) if tolerance is not None else _ROUNDINGS * float(np.finfo(_dtype(found)).eps)


# ------------------------------------------------------------------------------------------------- comparison


def _timed(name: str) -> bool:
    """Whether a result has the axes [T, B] in front."""
    leaf = name.removeprefix("gradient.")
    if leaf.startswith(("final_", "initial_")) or name in ("fixed_points", *_EXPONENTS):
        return False
    gradient = name.startswith("gradient.")
    return not gradient or leaf == "inputs" or leaf.endswith("_state")


_EXPONENTS = ("finite_time_exponents", "lyapunov_exponents")


def _off(case: Case, name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> np.ndarray:
    """Where numbers of one shape differ, booleans of that shape."""
    with np.errstate(all="ignore"):
        finite = np.isfinite(expected)
        scale = max(1.0, np.abs(expected[finite]).max(initial=0.0))
        allowed = tolerance * np.broadcast_to(scale, expected.shape)
        asked = finite
        if name in _EXPONENTS:
            behind = expected.max(axis=-1, keepdims=True) - expected
            allowed = allowed * (1 + np.exp(np.minimum(len(case.xs) * behind, 700.0)))
            asked = asked & (allowed < _LOST)
            return ~(np.abs(found - expected) <= allowed) & asked | np.isnan(found)
        if _timed(name):
            asked = asked & case.counts.reshape(*case.counts.shape, *(1,) * (expected.ndim - 2))
        return ~(np.abs(found - expected) <= allowed) & asked


def _same(case: Case, name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    if name != "fixed_points":
        return found.shape == expected.shape and not _off(case, name, found, expected, tolerance).any()
    if not _shaped(found, expected.shape, name) or not np.isfinite(found).all() or not len(found):
        return False
    apart = np.abs(found[:, None] - expected[None]).max(axis=-1)
    allowed = np.sqrt(tolerance) * max(1.0, np.abs(expected).max(initial=0.0))
    return bool(len(expected) and (apart.min(axis=0) <= allowed).all() and (apart.min(axis=1) <= allowed).all())


# -------------------------------------------------------------------------------------------------- diagnosis


class _Trial:
    """Results of an implementation on a case, to be explained by mistakes."""

    def __init__(self, case: Case, found: dict[str, np.ndarray], tolerance: float):
        self.case, self.tolerance = case, tolerance
        self.found = {group: {k: v for k, v in found.items() if group_of(k) == group} for group in GROUPS}
        self.forms = list(forms_of(case))
        self.tried: dict[Any, bool] = {}

    def holds(self, forms: tuple[Form, ...], group: str) -> bool:
        """Whether mistakes together lead to just these numbers."""
        key = (tuple(sorted(map(id, forms))), group)
        if key not in self.tried:
            changes = _together([form.changes for form in forms if group in form.groups])
            self.tried[key] = changes is not None and self._leads(changes, group)
        return self.tried[key]

    def _leads(self, changes: dict[str, Any], group: str) -> bool:
        found = self.found[group]
        if not changes:
            made = self.case.truth
        else:
            with np.errstate(all="ignore"):
                made = World(self.case, changes).results(found)
        return all(
            name in made and _same(self.case, name, value, made[name], self.tolerance)
            for name, value in found.items()
        )

    def more(self, group: str) -> Iterable[list[tuple[Form, ...]]]:
        """What may be added: nothing, one mistake, or two."""
        yield [()]
        yield [(form,) for form in self.forms if group in form.groups]
        some = [form for form in self.forms if form.common and group in form.groups]
        if group != "pass":  # of which the pass shows nothing
            some = [form for form in some if "pass" not in form.groups]
        yield [pair for pair in itertools.combinations(some, 2) if pair[0].mistake != pair[1].mistake]

    def explain(self) -> tuple[list[tuple[Form, ...]], bool]:
        """The shortest explanations, and whether they explain all: group by group of results."""
        kept: list[tuple[Form, ...]] = [()]
        done: list[str] = []
        for group in GROUPS:
            if not self.found[group]:
                continue
            done.append(group)
            for added in self.more(group):
                longer = [(*one, *other) for one in kept for other in added]
                fitting = [forms for forms in longer if all(self.holds(forms, one) for one in done)]
                if fitting:
                    kept = fitting[:_AT_ONCE]
                    break
            else:
                return (kept if any(kept) else [()]), False
        return kept, True


def _together(changes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Changes of several mistakes as one; None where two change the same."""
    made: dict[str, Any] = {}
    for one in changes:
        for key, value in one.items():
            if key == "labels":
                made[key] = [*made.get(key, []), *value]
            elif key in made:
                return None
            else:
                made[key] = value
    return made


_SINGLE = Form("single precision", "all of it", {})


def _explanations(
    case: Case, found: dict[str, np.ndarray], tolerance: float | None
) -> tuple[list[tuple[Form, ...]], bool]:
    """The mistakes that may explain what came, each a way to do so, and whether they explain all of it."""
    if not found:
        return [()], True
    options, explained = _Trial(case, found, _tolerance(found, tolerance)).explain()
    if explained or tolerance is not None or _dtype(found) == "float32":
        return options, explained
    single = {name: value.astype(np.float32) for name, value in found.items()}
    looser, all_of_it = _Trial(case, single, _tolerance(single, None)).explain()
    return ([(*forms, _SINGLE) for forms in looser], True) if all_of_it else (options, False)


def _result(
    case: Case,
    found: dict[str, np.ndarray],
    options: list[tuple[Form, ...]],
    explained: bool,
    common: Counter[str],
    tolerance: float | None,
) -> CaseResult:
    """Of several explanations that of mistakes that other cases have, too."""
    forms = max(options, key=lambda forms: (-len(forms), sum(common[form.mistake] for form in forms)))
    return CaseResult(
        case.name,
        tuple(name for name in case.truth if name in found),
        tuple(name for name in case.truth if name not in found),
        _dtype(found) if found else None,
        tuple(form.mistake for form in forms),
        tuple(form.words for form in forms),
        first_difference(case, found, _tolerance(found, tolerance)) if found else None,
        explained,
    )


# ------------------------------------------------------------------------------------------- where they differ


def first_difference(case: Case, found: dict[str, np.ndarray], tolerance: float) -> Difference | None:
    """Where results first differ from the truth: by group, step, and the order in which a step computes."""
    places = []
    for rank, (name, expected) in enumerate(case.truth.items()):
        if name not in found or _same(case, name, found[name], expected, tolerance):
            continue
        value, group = found[name], group_of(name)
        if name == "fixed_points":
            places.append(((GROUPS.index(group), 0, rank), _point(value, expected, tolerance)))
            continue
        if value.shape != expected.shape:
            place = f"shape {value.shape} instead of {expected.shape}"
            difference = Difference(name, None, None, (), np.nan, np.nan, place)
            places.append(((GROUPS.index(group), 0, rank), difference))
            continue
        off = np.argwhere(_off(case, name, value, expected, tolerance))
        backward = group == "gradients"
        first = off[off[:, 0] == (off[:, 0].max() if backward else off[:, 0].min())][0] if _timed(name) else off[0]
        step = (len(case.xs) - 1 - first[0] if backward else first[0]) if _timed(name) else len(case.xs)
        at = tuple(int(k) for k in first)
        places.append(((GROUPS.index(group), int(step), rank), _at(case, name, at, value, expected)))
    return min(places, key=lambda place: place[0])[1] if places else None


def _at(case: Case, name: str, at: tuple[int, ...], found: np.ndarray, expected: np.ndarray) -> Difference:
    numbers = float(found[at]), float(expected[at])
    leaf = name.removeprefix("gradient.")
    if _timed(name):
        step, sequence, *unit = at
        word = "feature" if leaf == "inputs" else "unit"
        place = f"step {step}, sequence {sequence}, {word} {', '.join(map(str, unit))}"
        if name == "jacobians":
            place = f"step {step}, sequence {sequence}, row {unit[0]}, column {unit[1]} of the joint state"
        return Difference(name, step, sequence, tuple(unit), *numbers, place)
    if leaf.startswith(("final_", "initial_")) or name in _EXPONENTS:
        word = "exponent" if name in _EXPONENTS else "unit"
        place = f"sequence {at[0]}, {word} {', '.join(map(str, at[1:]))}"
        return Difference(name, None, at[0], at[1:], *numbers, place)
    return Difference(name, None, None, at, *numbers, f"{list(at)}{_block(case, leaf, at[-1])}")


def _block(case: Case, name: str, column: int) -> str:
    """Which gate and unit a column of a parameter is for, in words."""
    part, _, leaf = name.rpartition("/")
    cell = dict(case.parts)[f"{part}/" if part else ""]
    if leaf not in BLOCKED:
        return ""
    return f" (of the {blocks_of(cell)[column // cell.hidden_size]} of unit {column % cell.hidden_size})"


def _point(found: np.ndarray, expected: np.ndarray, tolerance: float) -> Difference:
    """The fixed point that is missing, or that is none."""
    allowed = np.sqrt(tolerance) * max(1.0, np.abs(expected).max(initial=0.0))
    if len(found) and (wrong := np.argwhere(~np.isfinite(found))).size:
        k, j = map(int, wrong[0])
        return Difference("fixed_points", None, None, (k, j), float(found[k, j]), np.nan, f"point {k}, number {j}")
    apart = (
        np.abs(found[:, None] - expected[None]).max(axis=-1) if len(found) else np.full((1, len(expected)), np.inf)
    )
    missed = np.flatnonzero(apart.min(axis=0) > allowed)
    if len(missed):
        k = int(missed[0])
        place = f"the point that begins so, number {k} of {len(expected)}"
        return Difference("fixed_points", None, None, (k, 0), np.nan, float(expected[k, 0]), place)
    k = int(np.flatnonzero(apart.min(axis=1) > allowed)[0])
    place = f"point {k}, which begins so"
    return Difference("fixed_points", None, None, (k, 0), float(found[k, 0]), np.nan, place)

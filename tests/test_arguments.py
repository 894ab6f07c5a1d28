"""Every argument of every public function, given a hundred wrong kinds of value: refused in words, or taken.

A refusal is an error that lstmx raises itself and that names the argument. `test_refusals.py` has what single
functions say.
"""

import collections
import datetime
import decimal
import fractions
import inspect
import os
import traceback
from pathlib import Path

import numpy as np
import pytest
import test_refusals as refusals

import lstmx
from lstmx import checks

HERE = os.path.dirname(lstmx.__file__) + os.sep
WORDED = (TypeError, ValueError, ImportError, FileNotFoundError, FileExistsError, RuntimeError)
PUBLIC = refusals.PUBLIC | {
    f"objectives.{name}": getattr(lstmx.objectives, name) for name in lstmx.objectives.__all__
}
CALLABLE = {
    name: value
    for name, value in PUBLIC.items()
    if name not in refusals.ELSEWHERE
    and (inspect.isfunction(value) or (hasattr(value, "parameter_shapes") and value is not lstmx.Cell))
}


class Thing:
    """An object of a class of one's own."""


class NoTruth:
    """What can be neither true nor compared."""

    __hash__ = None

    def __bool__(self):
        raise RuntimeError("no truth")

    def __eq__(self, other):
        raise RuntimeError("no comparison")


class Shaped:
    """What has a shape and a dtype, and is no array."""

    shape, dtype, ndim = (3,), "float32", 1


def arrays():
    """Arrays of many shapes and dtypes."""
    shapes = [(), (0,), (0, 3), (5, 3), (4,), (40, 4), (4, 4), (2, 3, 4)]
    made = {f"zeros {shape} of {dtype}": np.zeros(shape, dtype) for shape in shapes for dtype in ("f4", "f8")}
    made |= {dtype: np.ones(3, dtype) for dtype in ("i8", "u1", "?", "f2", "c16", "U1", "V8", "m8[D]")}
    made |= {"of objects": np.array([None, 1], object), "a record": np.zeros(2, [("a", "f4")])}
    made |= {"of dates": np.array(["2020"], "M8[D]"), "NaN": np.full(4, np.nan, "f4")}
    made |= {"infinity": np.full((40, 4), np.inf, "f4"), "of 40 flags": np.ones(40, bool)}
    made |= {"masked": np.ma.masked_array(np.ones(3), mask=[0, 1, 0])}
    return made | {"masked integers": np.ma.masked_array(np.ones(1, int), mask=[1])}


def kinds():
    """A hundred kinds of value by what they are called; `things` of a pass among them."""
    numbers = [0, 1, -1, 10**12, 10**30, 0.5, 2.0, float("nan"), float("inf"), 1j]
    numbers += [np.int64(3), np.float32(0.5), np.timedelta64(1, "D"), decimal.Decimal(1), fractions.Fraction(1, 2)]
    words = ["", "no", "last", "all", "\0", b"no", bytearray(b"x"), Path("/nowhere/at/all")]
    many = [[], (), {}, set(), [None], [1, 2], ["a"], (1, 2, 3), {"a": 1}, {1: 2}, [[1, 2], [3]], range(3)]
    others = [
        None,
        True,
        np.True_,
        ...,
        slice(0, 3),
        slice("a", "b"),
        NotImplemented,
        int,
        lstmx.LSTM,
        np,
        Thing(),
    ]
    others += [NoTruth(), Shaped(), datetime.date(2020, 1, 1), datetime.timedelta(1), collections.deque([1])]
    others += [ValueError("x"), np.dtype("float32"), np.random.default_rng(0), np.random.SeedSequence(1)]
    others += [lstmx.GRU(3, 4), lambda *given: None]
    named = {f"{type(value).__name__} {str(value)[:20]!r}": value for value in (*numbers, *words, *many)}
    named |= {f"other {k}": value for k, value in enumerate(others)}
    return named | arrays() | {f"the {name}": value for name, value in refusals.things().items()}


def options(function):
    """The arguments of a function by name."""
    every = inspect.signature(function).parameters.values()
    return {p.name: p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"}


QUICK = {
    "autonomous_spectrum": {"x": None, "state": None, "steps": 40},
    "compare": {"steps": 1},
    "continue_fixed_points": {"steps": 4},
    "cycles": {"rounds": 0},
    "fixed_points": {"iterations": 2, "rounds": 0},
    "memory_report": {"lags": 3},
    "train": {"steps": 1},
}


def right(name):
    """Arguments as the function takes them, for little work."""
    needed = {argument: refusals.right(argument, name) for argument in refusals.required(CALLABLE[name])}
    return needed | refusals.MORE.get(name, {}) | QUICK.get(name, {})


def said(name, argument, value):
    """What is wrong in how a function refuses a value; None where it refuses it in words, "" where it takes it."""
    function = CALLABLE[name]
    try:
        function(**right(name) | {argument: value})
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = frame.filename.startswith(HERE)
        # Where another argument has nothing right here, such as a converter's model, that may be refused first.
        told = options(function) if any(value is None for value in right(name).values()) else [argument]
        if isinstance(error, WORDED) and ours and any(word in str(error) for word in (*told, "pip install")):
            return None
        return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
    return ""


FLAGS = [
    (name, p.name) for name in CALLABLE for p in options(CALLABLE[name]).values() if isinstance(p.default, bool)
]
COUNTS = [
    (name, p.name)
    for name in CALLABLE
    for p in options(CALLABLE[name]).values()
    if p.annotation in ("int", "int | None")
]


@pytest.mark.sample(17)
@pytest.mark.parametrize(("name", "argument"), FLAGS)
def test_a_flag_is_true_or_false(name, argument):
    for value in ("no", "", 0, 1, None, [], 1.0, np.array(True), np.ones(2, bool), Thing()):
        assert said(name, argument, value) is None, value


@pytest.mark.sample(53)
@pytest.mark.parametrize(("name", "argument"), COUNTS)
def test_a_count_is_a_whole_number(name, argument):
    for value in (True, np.True_, 1.5, 2.0, 1j, "3", b"3", [3], np.ones(2, int), float("nan"), Thing(), -1):
        assert said(name, argument, value) is None, value


def test_a_flag_of_numpy_is_one():
    checks.flag("it", np.True_)
    cell = lstmx.LSTM(3, 4, peepholes=np.True_)
    assert cell == lstmx.LSTM(3, 4, peepholes=True)
    assert repr(cell) == repr(lstmx.LSTM(3, 4, peepholes=True))
    history = refusals.things()["history"]
    assert lstmx.path_spectrum(history, 2, matrix=np.False_).log_norms is not None


# ------------------------------------------------------------------------------------------ every other argument

FUNCTIONS = {
    "loss",
    "step",
    "output",
    "init",
    "edits",
    "batches",
    "optimizer",
    "schemes",
    "observe",
    "after_step",
    "params_of",
}
"""Arguments that take functions: what these do with what they are given is theirs."""
WRITTEN = {"path"}  # of files, which words and paths are: they are written
FIRST = {"load", "load_history", "convert.from_haiku", "edits.clamp", "plot.depth", "plot.animation"}
"""Functions that refuse what stands here for another argument first."""
LONG = {"steps", "iterations", "period", "rounds"}  # which take as long as they are told


def cases(count):
    """Some values for each argument of each function, drawn by its name."""
    known = kinds()
    for name, function in CALLABLE.items():
        for argument in () if name in FIRST else options(function):
            drawn = np.random.default_rng([ord(letter) for letter in name + argument])
            for kind in drawn.permutation(list(known))[:count]:
                value = known[kind]
                if argument in FUNCTIONS and callable(value):
                    continue
                if argument in WRITTEN and isinstance(value, (str, Path)):
                    continue
                if argument in LONG and isinstance(value, int) and value > 1:
                    continue
                if argument == "title" and isinstance(value, str):  # of which no font has every letter
                    continue
                if argument == "reuse" and kind == "the history":  # which is dead then
                    continue
                yield name, argument, str(kind), value


def wrong(count):
    """What of these is refused in other words, a line each."""
    found = []
    for name, argument, kind, value in cases(count):
        words = said(name, argument, value)
        if words:
            found.append(f"{name}({argument}={kind}): {words[:300]}")
    return found


@pytest.mark.slow
def test_many_values_are_taken_or_refused_by_name():
    assert not (found := wrong(4)), "\n".join(found)

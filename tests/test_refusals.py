"""Every public function, given something else than it takes, says in a sentence which argument it is."""

import functools
import inspect
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx

NAMESPACES = ("convert", "edits", "plot", "schemes", "tasks")
PUBLIC = {name: getattr(lstmx, name) for name in lstmx.__all__}
for _namespace in NAMESPACES:
    PUBLIC |= {f"{_namespace}.{name}": getattr(PUBLIC[_namespace], name) for name in PUBLIC[_namespace].__all__}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


@functools.cache
def things():
    """A cell with all that is made of it, by name."""
    cell = lstmx.LSTM(3, 4)
    params = cell.init(np.random.default_rng(0))
    xs = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
    history = lstmx.record(cell, params, xs)
    stack = lstmx.Stack([cell, lstmx.GRU(4, 4)])
    folder = Path(tempfile.mkdtemp()) / "pass"
    history.save(folder)
    edited = lstmx.intervene(cell, params, xs, lstmx.edits.ablate(units=1))
    return {
        "cell": cell,
        "params": params,
        "xs": xs,
        "history": history,
        "edited": edited,
        "edits": lstmx.edits.ablate(units=1),
        "excerpt": lstmx.excerpt(cell, params, xs, every=2),
        "stored": lstmx.load_history(folder),
        "layers": lstmx.record(stack, stack.init(np.random.default_rng(0)), xs),
        "effect": lstmx.effect(history, edited),
        "statistics": lstmx.gate_statistics(history),
        "flow": lstmx.gradient_flow(history),
        "points": lstmx.fixed_points(cell, params, None, history.states, iterations=2),
    }


WRONG = {
    "an excerpt": lambda: things()["excerpt"],
    "an edited pass": lambda: things()["edited"],
    "a history on disk": lambda: things()["stored"],
    "a StackHistory": lambda: things()["layers"],
    "a number": lambda: 3,
    "None": lambda: None,
}
RIGHT = {
    "outputs_cotangent": lambda: things()["history"].hidden_state,
    "path": lambda: Path(tempfile.mkdtemp()) / "new",
    "x": lambda: things()["xs"],
    "candidates": lambda: things()["history"].states,
    "exponents": lambda: np.array([0.1, -0.3]),
    "step": lambda: lambda params, state, x: state,
    "state": lambda: np.zeros(4),
    "steps": lambda: 2,
    "input_size": lambda: 3,
    "hidden_size": lambda: 3,
    "model": lambda: lstmx.Model(lstmx.LSTM(2, 4), 1, "mean_squared_error"),
    "batches": lambda: lstmx.tasks.adding_problem(length=4, batch=2).batch,
    "batch": lambda: lstmx.tasks.adding_problem(length=4, batch=2).batch(0),
    "cells": lambda: [lstmx.LSTM(2, 4)],
    "task": lambda: lstmx.tasks.adding_problem(length=4, batch=2),
    "weights": lambda: np.zeros(96, "float32"),
}
ELSEWHERE = {
    *("convert.record_flax", "convert.record_keras", "convert.record_torch"),  # other names of the same
    *("record_flax", "record_keras", "record_torch"),  # which need models of theirs; tests/test_live.py has these
    *("record_onnx", "convert.record_onnx"),  # and tests/test_models_onnx.py this
}
MORE = {"edits.noise": {"cell_state": 1.0}, "fixed_points": {"x": None}}


def required(function):
    """Names of the arguments that have to be given."""
    parameters = inspect.signature(function).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind in plain]


def right(name, function):
    """An argument as a function takes it."""
    if name == "params" and function in ("train", "evaluate"):
        return RIGHT["model"]().init(0)
    return things()[name] if name in things() and name not in RIGHT else RIGHT.get(name, lambda: None)()


CASES = [(name, argument) for name in FUNCTIONS if name not in ELSEWHERE for argument in required(FUNCTIONS[name])]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_what_a_function_does_not_take_is_refused_by_name(name, argument, wrong):
    function = FUNCTIONS[name]
    given = {other: right(other, name) for other in required(function)} | MORE.get(name, {})
    given[argument] = WRONG[wrong]()
    try:
        function(**given)
    except (TypeError, ValueError) as error:
        words = str(error)
    except ImportError as error:
        words = None if "pip install" in str(error) else f"{error}"
    else:
        return  # it takes this
    told = re.search("expect|takes|needs|not known|no array|is of one cell", words or "expected")
    assert words is None or (told and re.search(rf"\b{argument}\b", words)), words


# --------------------------------------------------------------------------------------- vectors of linear maps


def steps_of(kind):
    cell = lstmx.LSTM(3, 6)
    params, xs = jax.tree.map(lambda x: jnp.asarray(x, "float32"), (cell.init(np.random.default_rng(0)), XS[:5]))
    if kind == "matrices":
        return lstmx.linearise(jnp.ones((5, 12, 12), "float32"))
    if kind == "step function":
        cell = lstmx.from_step(lambda p, h, x: jnp.tanh(p @ h), np.zeros(12, "float32"), 3)
        params = jnp.eye(12, dtype="float32")
    if kind == "stack":
        cell = lstmx.Stack([lstmx.LSTM(3, 3), lstmx.SimpleRNN(3, 6)])
        params = cell.init(0)
    return lstmx.linearise(lstmx.record(cell, params, xs))


XS = np.ones((8, 3), "float32")
S12 = r"expected \(12,\)"
VECTORS = {
    "long": (jnp.ones(13), ValueError, rf"has shape \(13,\); {S12}"),
    "twice": (jnp.ones(24), ValueError, rf"has shape \(24,\); {S12}"),
    "short": (jnp.ones(11), ValueError, rf"has shape \(11,\); {S12}"),
    "integers": (jnp.ones(12, int), TypeError, "is int32; expected float32, as the steps are"),
    "flags": (jnp.ones(12, bool), TypeError, "is bool; expected float32"),
    "a list": ([1.0] * 12, TypeError, "is a list; expected a NumPy or JAX array"),
    "NumPy": (np.ones(12, "float32"), TypeError, "is a ndarray; expected one of the library of the steps"),
}


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("kind", ["cell", "step function", "stack", "matrices"])
def test_a_vector_that_is_none_of_a_step_is_refused(kind, vector):
    steps = steps_of(kind)
    vector, error, words = VECTORS[vector]
    if isinstance(vector, jax.Array) and vector.dtype == jnp.float64:
        vector = vector.astype("float32")
    words = words.replace("int32", str(jnp.ones(1, int).dtype))
    with pytest.raises(error, match=f"^cotangent {words}"):
        steps[3].vjp(vector)
    with pytest.raises(error, match=f"^tangent {words}"):
        steps[3].jvp(vector)


def test_vectors_of_all_steps_and_of_inputs_are_checked():
    steps = steps_of("cell")
    with pytest.raises(ValueError, match=r"cotangent has shape \(12,\); expected \(5, 12\), one of each step"):
        steps.vjp(jnp.ones(12, "float32"))
    with pytest.raises(ValueError, match=r"x_tangent has shape \(4,\); expected \(3,\)"):
        steps[0].jvp(None, jnp.ones(4, "float32"))
    with pytest.raises(TypeError, match="tangent and x_tangent are both None"):
        steps[0].jvp(None)
    with pytest.raises(TypeError, match="cotangent is a NoneType"):
        steps[0].vjp(None)
    with pytest.raises(TypeError, match="x_tangent is given; matrices alone have no inputs"):
        steps_of("matrices")[0].jvp(None, jnp.ones(3, "float32"))


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (
            jnp.ones((3, 4, 5)),
            ValueError,
            r"history is an array \(3, 4, 5\); expected Jacobians \[T, \*batch, S, S\]",
        ),
        (np.ones((3, 4)), ValueError, "expected Jacobians"),
        (np.ones((3, 4, 4), int), TypeError, "history is an array of int64; expected float32 or float64"),
    ],
)
def test_an_array_that_holds_no_jacobians_is_refused(array, error, words):
    for function in (lstmx.linearise, lstmx.lyapunov_spectrum):
        with pytest.raises(error, match=words):
            function(array)

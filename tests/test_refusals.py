"""Every public function, given something else than it takes, says in a sentence which argument it is."""

import copy
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
from lstmx.arrays import leaves

NAMESPACES = ("conformance", "convert", "edits", "plot", "schemes", "tasks")
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
    seen = lstmx.Observatory(cell, xs)
    seen(0, params)
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
        "attribution": lstmx.attribute(history, np.ones(4, "float32")),
        "observatory": seen,
        "points": lstmx.fixed_points(cell, params, None, history.states, iterations=2, rounds=0),
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
    "target": lambda: np.ones(4, "float32"),
    "outputs_cotangent": lambda: things()["history"].hidden_state,
    "path": lambda: Path(tempfile.mkdtemp()) / "new",
    "x": lambda: things()["xs"],
    "candidates": lambda: things()["history"].states,
    "exponents": lambda: np.array([0.1, -0.3]),
    "step": lambda: lambda params, state, x: state,
    "state": lambda: np.zeros(4),
    "steps": lambda: 2,
    "period": lambda: 2,
    "params_of": lambda: lambda value: things()["params"],
    "values": lambda: [0.0, 1.0],
    "signal": lambda: np.arange(len(things()["xs"])),
    "input_size": lambda: 3,
    "hidden_size": lambda: 3,
    "model": lambda: lstmx.Model(lstmx.LSTM(2, 4), 1, "mean_squared_error"),
    "batches": lambda: lstmx.tasks.adding_problem(length=4, batch=2).batch,
    "batch": lambda: lstmx.tasks.adding_problem(length=4, batch=2).batch(0),
    "cells": lambda: [lstmx.LSTM(2, 4)],
    "task": lambda: lstmx.tasks.adding_problem(length=4, batch=2),
    "weights": lambda: np.zeros(96, "float32"),
    "implementation": lambda: lambda case: {"outputs": case.truth["outputs"]},
    "name": lambda: "lstmx",
}
ELSEWHERE = {
    *("convert.record_flax", "convert.record_keras", "convert.record_torch"),  # other names of the same
    *("record_flax", "record_keras", "record_torch"),  # which need models of theirs; tests/test_live.py has these
    *("record_onnx", "convert.record_onnx"),  # and tests/test_models_onnx.py this
}
MORE = {
    "edits.noise": {"cell_state": 1.0},
    "fixed_points": {"x": None},
    "online": {"loss": "sum"},
    "cycles": {"x": None},
    "search": {"units": [0]},
}


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


@pytest.mark.sample(118)
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


@pytest.mark.sample(9)
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
    for function in (lstmx.linearise, lstmx.lyapunov_spectrum, lstmx.covariant_vectors):
        with pytest.raises(error, match=words):
            function(array)


# ------------------------------------------------------------------------------------------ no sequence


def step_cell():
    """A step function with parameters, in float32; JAX is there wherever it is called."""
    import jax.numpy as jnp

    cell = lstmx.from_step(lambda p, h, x: jnp.tanh(p["W"] @ x + p["U"] @ h), jnp.zeros(4), input_size=3)
    return cell, {"W": jnp.ones((4, 3)) / 3, "U": jnp.eye(4) / 2}


ANALYSES = ["gradient_flow", "path_spectrum", "gate_statistics", "influence", "jacobians", "input_jacobians"]
ANALYSES += ["isometry", "long_jacobian", "lyapunov_spectrum", "covariant_vectors"]
ANALYSES += ["memory_report", "highway", "linearise"]


@pytest.mark.parametrize("analysis", [*ANALYSES, "plot.dynamics", "summary", "summarise"])
@pytest.mark.parametrize("layers", [False, True])
def test_a_batch_without_a_sequence_is_refused(analysis, layers):
    cell = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.LSTM(4, 4)]) if layers else lstmx.LSTM(3, 4)
    params, xs = cell.init(np.random.default_rng(0)), np.zeros((5, 0, 3), "float32")
    history = lstmx.record(cell, params, xs)
    analyse = {"summary": type(history).summary, "summarise": lambda _: lstmx.summarise(cell, params, xs)}
    with pytest.raises(ValueError, match=r"the batch axes \(0,\) of .* hold no sequence; expected at least one"):
        (PUBLIC | analyse)[analysis](history)


def test_a_spectrum_of_no_state_is_refused():
    cell, params = things()["cell"], things()["params"]
    with pytest.raises(ValueError, match=r"axes \(0,\) of state hold no sequence"):
        lstmx.autonomous_spectrum(cell, params, None, cell.initial_state(params, (0,)), 10)


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["LSTM", "step function", "stack"])
def test_a_pass_and_its_gradient_may_have_no_sequence(kind):
    if kind == "step function":
        pytest.importorskip("jax")
        cell, params = step_cell()
        xs = params["W"].__array_namespace__().zeros((5, 0, 3), params["W"].dtype)
    else:
        cell = lstmx.LSTM(3, 4) if kind == "LSTM" else lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 4)])
        params, xs = cell.init(np.random.default_rng(0)), np.zeros((5, 0, 3), "float32")
    assert lstmx.run(cell, params, xs)[0].shape == (5, 0, 4)
    assert lstmx.truncated(cell, params, xs, steps=2)[0].shape == (5, 0, 4)
    history = lstmx.record(cell, params, xs)
    gradients = lstmx.backward(history, history.outputs)
    assert gradients.inputs.shape == (5, 0, 3)
    assert all(not np.asarray(x).any() for x in leaves(gradients.parameters))


# ------------------------------------------------------------------------------------------ what a cell is


@pytest.mark.parametrize("name", [name for name, argument in CASES if argument == "cell"])
def test_a_class_in_the_place_of_a_cell_is_told_from_one(name):
    function = PUBLIC[name]
    given = {other: right(other, name) for other in required(function)} | MORE.get(name, {})
    with pytest.raises(TypeError, match="cell is the class LSTM, not a cell; expected a cell such as"):
        function(**given | {"cell": lstmx.LSTM})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lstmx.Stack(things()["cell"]), "cells is a LSTM; expected a list of cells from the bottom"),
        (lambda: lstmx.Stack(lstmx.LSTM), "cells is the class LSTM, not a cell; expected a list of cells"),
        (lambda: lstmx.Stack([lstmx.LSTM]), "layer 0 is the class LSTM, not a cell; expected a cell or a Bid"),
        (lambda: lstmx.Bidirectional(lstmx.LSTM), "cell is the class LSTM, not a cell"),
        (lambda: lstmx.Zoneout(lstmx.LSTM), "cell is the class LSTM, not a cell"),
        (lambda: lstmx.Model(lstmx.LSTM, 1), "cell is the class LSTM, not a cell"),
        (lambda: lstmx.compare([lstmx.LSTM], RIGHT["task"]()), "cell 0 is the class LSTM, not a cell"),
        (lambda: lstmx.check_cell(lstmx.Zoneout(things()["cell"])), r"check the one inside, LSTM\("),
        (lambda: lstmx.check_cell(things()["layers"].cell), r"check each cell in it, LSTM\(.*, GRU\("),
    ],
)
def test_what_is_made_of_cells_says_what_came_and_what_to_give(make, words):
    if "check_cell" in inspect.getsource(make):
        pytest.importorskip("jax")
    with pytest.raises(TypeError, match=words):
        make()


# ------------------------------------------------------------------------------------- losses, flags, files


@pytest.mark.parametrize("analysis", [lstmx.gradient_flow, lstmx.memory_report])
@pytest.mark.parametrize("loss", ["first", None, 3, [1.0]], ids=str)
def test_a_loss_that_is_none_is_told_all_that_is_one(analysis, loss):
    words = r'loss is (\'first\'|None|3|a list); expected "last", an array .* under JAX a function of the outputs'
    with pytest.raises((TypeError, ValueError), match=words):
        analysis(things()["history"], loss)


@pytest.mark.parametrize(
    ("loss", "came"),
    [
        (lambda outputs: None, "a NoneType"),
        (lambda outputs: outputs.sum(axis=0), r"an array \(4,\) of float32"),
        (lambda outputs: (outputs > 0).sum(), r"an array \(\) of int"),
        (lambda outputs: {"loss": outputs.sum()}, "a dict"),
    ],
    ids=["nothing", "a vector", "an integer", "a dict"],
)
def test_what_a_loss_gives_is_named_where_it_is_no_scalar(loss, came):
    jnp = pytest.importorskip("jax.numpy")
    cell, params = step_cell()
    params = {name: x.astype("float32") for name, x in params.items()}
    history = lstmx.record(cell, params, jnp.ones((5, 3), "float32"))
    with pytest.raises(ValueError, match=f"loss gives {came}.* of the outputs; expected a real scalar"):
        lstmx.gradient_flow(history, loss)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda history: lstmx.path_spectrum(history, matrix="a"), "matrix is 'a'; expected True or False"),
        (lambda history: lstmx.path_spectrum(history, progress=1), "progress is 1; expected True or False"),
        (lambda history: lstmx.gradient_flow(history, progress="a"), "progress is 'a'; expected True or False"),
        (lambda history: lstmx.lyapunov_spectrum(history, check="x"), "check is 'x'; expected True or False"),
        (
            lambda history: lstmx.fixed_points(history.cell, history.params, None, history.states, rounds="x"),
            "rounds is 'x'; expected an integer of at least 0",
        ),
        (lambda history: lstmx.influence(history, seed="a"), "seed is 'a'; expected an integer"),
    ],
)
def test_a_flag_or_a_seed_that_is_none_is_refused(call, words):
    with pytest.raises(TypeError, match=words):
        call(things()["history"])


def test_a_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; expected a .safetensors file.* lstmx.load_history"):
        lstmx.load(things()["stored"].path)
    lstmx.save(tmp_path / "cell", things()["cell"], things()["params"])
    with pytest.raises(ValueError, match=r"is a file; expected a folder .* lstmx.load"):
        lstmx.load_history(tmp_path / "cell")


# --------------------------------------------------------------------------------------------------- layers


@functools.cache
def layered(kind):
    """A history of layers, on disk where the name says so."""
    if kind == "directions":
        pair = lstmx.Bidirectional(things()["cell"])
        return lstmx.record(pair, pair.init(np.random.default_rng(0)), things()["xs"])
    if kind == "stack":
        return things()["layers"]
    things()["layers"].save(folder := Path(tempfile.mkdtemp()) / "layers")
    return lstmx.load_history(folder)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("stack", "forget_gate", r"a StackHistory has no forget_gate.*history.parts\['layer 0'\].forget_gate"),
        ("directions", "forget_gate", r"a BidirectionalHistory has no.*history.parts\['forward'\].forget_gate"),
        (
            "on disk",
            "outputs",
            r"on disk has no outputs.*history.read\(\).outputs.*parts\['layer 0'\].read",
        ),
    ],
)
def test_what_layers_do_not_have_says_where_it_is(kind, name, words):
    history = layered(kind)
    with pytest.raises(AttributeError, match=words):
        getattr(history, name)
    assert not hasattr(history, "_private")
    assert len(copy.copy(history)) == 40


def test_a_history_on_disk_says_how_to_read_what_it_has_not():
    with pytest.raises(AttributeError, match=r"on disk has no forget_gate.*history.read\(\).forget_gate"):
        _ = things()["stored"].forget_gate
    assert len(copy.copy(things()["stored"])) == 40


def test_a_pass_in_both_directions_has_no_stretches_and_no_steps():
    with pytest.raises(TypeError, match="a BidirectionalHistory has no stretches of time that are passes"):
        layered("directions")[0:5]
    with pytest.raises(TypeError, match="a history is not iterated step by step"):
        iter(layered("directions"))


@pytest.mark.parametrize("analysis", ["gradient_flow", "gate_statistics", "lyapunov_spectrum"])
def test_layers_on_disk_are_analysed_in_memory_or_one_at_a_time(analysis):
    history = layered("on disk")
    with pytest.raises(TypeError, match=r"history is of layers on disk; .*history.read\(\).*'layer 0', 'layer 1'"):
        PUBLIC[analysis](history)
    PUBLIC[analysis](history.parts["layer 0"])
    PUBLIC[analysis](history.read())


def test_a_layer_without_a_cell_state_is_named():
    with pytest.raises(ValueError, match=r"GRU\(.*\), layer 1 of the stack, has no cell state.*or of a stack"):
        lstmx.path_spectrum(things()["layers"])


# ----------------------------------------------------------------------------------------------- results shown


def test_results_are_short_to_look_at():
    history, task = things()["history"], RIGHT["task"]()
    flow, statistics = things()["flow"], things()["statistics"]
    spectrum = lstmx.lyapunov_spectrum(history, "all", audit=True)
    paths = [lstmx.path_spectrum(history, 2, matrix=matrix) for matrix in (False, True)]
    shown = [flow, flow.gates["forget_gate"], statistics, statistics["forget_gate"], spectrum, spectrum.sum_rule]
    shown += [spectrum.audit, *paths, lstmx.isometry(history), lstmx.influence(history), things()["effect"]]
    shown += [things()["excerpt"], things()["points"], lstmx.backward(history, history.outputs)]
    shown += [task, task.batch(0)]
    vectors = lstmx.covariant_vectors(history, 2)
    shown += [vectors, vectors.hyperbolicity(), vectors.read()]
    shown += [lstmx.gradient_flow(things()["layers"]), lstmx.memory_report(history), lstmx.long_jacobian(history)]
    for result in shown:
        assert len(repr(result)) < 200
        assert repr(result).startswith(type(result).__name__)
    assert repr(flow) == f"GradientFlow(40 steps: {flow.verdict})"
    assert repr(paths[0]) == "PathSpectrum(orders 0 to 2, 40 steps)"
    assert repr(paths[1]) == "PathSpectrum(orders 0 to 2, matrices)"


@pytest.mark.parametrize("matrix", [False, True])
def test_a_path_spectrum_is_told_in_three_lines(matrix):
    mask = np.ones((40, 2), bool)
    mask[:3, 0] = mask[35:, 1] = False  # neither sequence counts everywhere, one not at the first step
    xs = np.random.default_rng(1).normal(size=(40, 2, 3)).astype("float32")
    history = lstmx.record(things()["cell"], things()["params"], xs, mask=mask)
    paths = lstmx.path_spectrum(history, 2, matrix=matrix)
    first, orders, share = str(paths).splitlines()
    assert "nan" not in str(paths)
    if matrix:
        logs, whole = paths.log_matrix_norms, paths.highway_share
    else:
        logs = np.stack([paths.log_norms[3, :, 0], paths.log_norms[0, :, 1]], axis=1)
        whole = np.array([paths.highway_share[3, 0], paths.highway_share[0, 1]])
    assert "(medians of 2 sequences)" in first
    assert f"0: {np.median(logs[0]):.4g}, 1: {np.median(logs[1]):.4g}, 2: " in orders
    assert f"{np.median(whole):.4g} of the whole" in share


@pytest.mark.slow
def test_results_inside_a_transformation_are_shown_without_numbers():
    jax = pytest.importorskip("jax")
    cell, told = things()["cell"], {}

    def looked_at(params, xs):
        history = lstmx.record(cell, params, xs)
        for result in (
            lstmx.gradient_flow(history),
            lstmx.gate_statistics(history),
            lstmx.path_spectrum(history),
            lstmx.lyapunov_spectrum(history),
            lstmx.isometry(history),
        ):
            told[type(result).__name__] = str(result)
        return xs

    jax.eval_shape(looked_at, cell.init(0, "float64"), things()["xs"].astype("float64"))
    assert told["GradientFlow"] == "GradientFlow(40 steps)"
    assert all(text.startswith(f"{name}(") for name, text in told.items())
    assert len(told) == 5


def test_a_pass_too_short_for_a_notion_says_what_it_takes():
    report = lstmx.memory_report(things()["history"])
    (line,) = (line for line in str(report).splitlines() if "linear memory" in line)
    assert re.search(
        r"linear memory +unknown +past.*too short, for the fit needs 32 steps that follow 39 others", line
    )
    assert "nan" not in str(report)
    long = lstmx.memory_report(things()["history"], lags=9)
    assert "unknown" not in str(long)
    assert long["linear memory"].value > 0

"""What a type checker, and so an editor, knows of a user's script."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lstmx

START = """
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import lstmx
from lstmx.arrays import Array
from lstmx.linear.steps import PassSteps

xs = np.ones((50, 3), "float32")
cell = lstmx.LSTM(3, 8)
params = cell.init(0)
history = lstmx.record(cell, params, xs)
stack = lstmx.Stack([lstmx.GRU(3, 8), lstmx.Bidirectional(lstmx.GRU(8, 4))])
layered = lstmx.record(stack, stack.init(0), xs)
both = lstmx.Bidirectional(lstmx.GRU(3, 8))
LSTMParams = lstmx.LSTMParams | lstmx.LSTMVariantParams
LSTMState = lstmx.LSTMState | lstmx.GateRecurrentState
"""

KNOWN = """
assert_type(params, LSTMParams)
assert_type(params.recurrent_kernel, Array)
assert_type(lstmx.GRU(3, 8).init(0), lstmx.GRUParams | lstmx.ResetBeforeParams)
assert_type(lstmx.SimpleRNN(3, 8).init(0), lstmx.SimpleRNNParams)
assert_type(lstmx.SLSTM(3, 8).init(0), lstmx.SLSTMParams)
assert_type(lstmx.JANET(3, 8).init(0), lstmx.JANETParams)
assert_type(lstmx.MGU(3, 8).init(0), lstmx.MGUParams)
assert_type(lstmx.MinLSTM(3, 8).init(0), lstmx.MinLSTMParams)
assert_type(lstmx.MinGRU(3, 8).initial_state(lstmx.MinGRU(3, 8).init(jax.random.key(0))), lstmx.MinGRUState)
assert_type(lstmx.Zoneout(lstmx.MGU(3, 8)).init(np.random.default_rng(0)), lstmx.MGUParams)
assert_type(stack.init(0), tuple[Any, ...])
assert_type(both.init(0), lstmx.Directions)
assert_type(cell.initial_state(params), LSTMState)
assert_type(lstmx.run(cell, params, xs), tuple[Array, LSTMState])
assert_type(lstmx.run(cell, params, jnp.ones((50, 3)))[1].cell, Array)
assert_type(lstmx.run(stack, stack.init(0), xs), tuple[Array, tuple[Any, ...]])
assert_type(lstmx.run(both, both.init(0), xs)[1], lstmx.Directions)
assert_type(lstmx.truncated(cell, params, xs, steps=10)[1], LSTMState)
assert_type(history, lstmx.History[LSTMParams, LSTMState])
assert_type(history.states, LSTMState)
assert_type(history.initial.hidden, Array)
assert_type(history.forget_gate, Array)
assert_type(history[3:].params, LSTMParams)
assert_type(history.counts, Array | None)
for each in (cell, lstmx.MGU(3, 8)):
    passed = lstmx.record(each, each.init(0), xs, lengths=50)
    assert_type(passed.states.hidden, Array)
    assert_type(lstmx.backward(passed, passed.outputs).parameters.bias, Array)
assert_type(layered, lstmx.StackHistory)
assert_type(lstmx.record(both, both.init(0), xs).forward, lstmx.History)
assert_type(lstmx.excerpt(cell, params, xs, every=2).final, LSTMState)
assert_type(lstmx.intervene(cell, params, xs, lstmx.edits.clamp(forget_gate=1.0)).states, LSTMState)
assert_type(lstmx.record_to("folder", cell, params, xs)[3:].states, LSTMState)
assert_type(lstmx.load_history("folder", cell).read().params, LSTMParams)
assert_type(lstmx.backward(history, xs).parameters, LSTMParams)
assert_type(lstmx.gradient_flow(history).initial, LSTMState)
assert_type(lstmx.gradient_flow(history, "last").half_life, np.ndarray)
assert_type(lstmx.gradient_flow(layered), lstmx.LayeredFlow)
assert_type(lstmx.path_spectrum(history).log_total, Array)
assert_type(lstmx.online(cell, params, xs, "sum").parameters, LSTMParams)
assert_type(lstmx.online(cell, params, xs, "sum", "snap1").final, LSTMState)
assert_type(lstmx.online(stack, stack.init(0), xs, xs).loss, Array | None)
assert_type(lstmx.credit_error(history).by_order, lstmx.Agreement | None)
assert_type(lstmx.influence(history, 40).standard_error, Array | None)
assert_type(lstmx.highway(history), Array)
assert_type(lstmx.jacobians(history), Array)
assert_type(lstmx.linearise(history)[3], PassSteps)
assert_type(lstmx.lyapunov_spectrum(history).sum_rule, lstmx.SumRule | None)
assert_type(lstmx.covariant_vectors(history).read().slowest, int | None)
assert_type(lstmx.fixed_points(cell, params, None, history.states).fixed.states, LSTMState)
assert_type(lstmx.gate_statistics(history)["forget_gate"].mean, Array)
assert_type(lstmx.gate_statistics(layered), dict[str, lstmx.GateStatistics])
assert_type(lstmx.summarise(cell, params, xs), lstmx.GateStatistics)
assert_type(lstmx.memory_report(history).spectrum, lstmx.LyapunovSpectrum)
assert_type(lstmx.conformance.check_against(lambda case: {"outputs": case.xs}), lstmx.conformance.Conformance)
"""

WRONG = {
    "assert_type(history.states, LSTMParams)": "reportAssertTypeFailure",
    "lstmx.run(3, params, xs)": "reportArgumentType",
    "lstmx.run(cell, params)": "reportCallIssue",
    "lstmx.run(cell, params, xs, lengths=2.5)": "reportArgumentType",
    "lstmx.intervene(cell, params, xs, 3)": "reportArgumentType",
    "lstmx.run(cell, params, [1.0, 2.0])": "reportArgumentType",
    "lstmx.record(cell, params, xs, step=3)": "reportCallIssue",
    "lstmx.backward(history)": "reportCallIssue",
    "lstmx.backward(history, 1.0)": "reportArgumentType",
    "lstmx.jacobians(params)": "reportArgumentType",
    "lstmx.conformance.check_against(3)": "reportArgumentType",
    "lstmx.chrono": "reportAttributeAccessIssue",
    "lstmx.SimpleRNN(3, 8).init(0).candidate_bias": "reportAttributeAccessIssue",
    "lstmx.gradient_flow(history).rate": "reportAttributeAccessIssue",
    "history.states = history.initial": "reportAttributeAccessIssue",
}


@pytest.fixture
def errors(tmp_path):
    """A function from a script to the errors in it, as pairs of the line's text and the rule."""
    pytest.importorskip("basedpyright")

    def errors(script):
        (tmp_path / "script.py").write_text(script)
        settings = {"typeCheckingMode": "standard", "extraPaths": [str(Path(lstmx.__file__).parents[1])]}
        (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        lines = script.splitlines()
        told = json.loads(done.stdout)["generalDiagnostics"]
        return [(lines[one["range"]["start"]["line"]], one["rule"], one["message"]) for one in told]

    return errors


@pytest.mark.slow
def test_types_are_known_and_wrong_uses_are_errors(errors):
    wrong = list(WRONG)
    found = errors(START + KNOWN + "\n".join(wrong) + "\n")
    assert [one for one in found if one[0] not in WRONG] == []
    for line, rule in WRONG.items():
        assert rule in [one[1] for one in found if one[0] == line], line

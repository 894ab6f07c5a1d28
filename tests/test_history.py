"""What a history holds, what can be read off it, and how it is cut and joined."""

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import CELLS, assert_close, assert_same, draw_params, draw_pass, is_in, random_history

import lstmx

each_cell = pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
each_keep = pytest.mark.parametrize("keep", ["all", "states"])
each_batch = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=["one", "batch", "two batch axes"])

GATES = {
    lstmx.LSTM: ["input_gate", "forget_gate", "candidate", "output_gate"],
    lstmx.GRU: ["reset_gate", "update_gate", "candidate"],
    lstmx.SimpleRNN: ["candidate"],
}


# ------------------------------------------------------------------------------------- what can be read off


@pytest.mark.sample(18)
@each_keep
@each_batch
def test_a_history_holds_its_pass(kind, library, keep, batch):
    cell, params, xs, state = draw_pass(kind, batch=batch)
    history = random_history(kind, library, keep, batch=batch)
    assert history.cell == cell
    assert_same((history.params, history.inputs, history.initial), (params, xs, state))
    assert is_in(library, history)
    assert len(history) == 7
    assert history.batch == batch
    assert history.hidden_state.shape == (7, *batch, 4)
    assert_same(history.final, jax.tree.map(lambda leaf: leaf[-1], history.states))


@each_keep
def test_before_is_the_state_one_step_earlier(kind, library, keep):
    history = random_history(kind, library, keep, batch=(2,))
    before = history.before
    assert type(before) is history.cell.state_type
    for start, whole, first in zip(before, history.states, history.initial, strict=True):
        np.testing.assert_array_equal(start[0], first)
        np.testing.assert_array_equal(start[1:], whole[:-1])


@pytest.mark.sample(17)
@each_batch
def test_rebuilt_preactivations_are_the_stored_ones(kind, library, batch):
    stored, rebuilt = (random_history(kind, library, keep, batch=batch) for keep in ("all", "states"))
    assert rebuilt.stored is None
    assert_same(rebuilt.states, stored.states)
    assert_close(rebuilt.preactivations, stored.preactivations, 1e-14)
    assert_close(rebuilt.gates, stored.gates, 1e-14)


@each_keep
def test_every_gate_is_an_attribute(kind, library, keep):
    history = random_history(kind, library, keep, batch=(2,))
    assert list(history.gates._fields) == GATES[kind]
    for name in GATES[kind]:
        assert getattr(history, name).shape == (7, 2, 4)
        np.testing.assert_array_equal(getattr(history, name), getattr(history.gates, name))
        assert name in dir(history)
        if name != "candidate":
            np.testing.assert_allclose(history.log_gate(name), np.log(getattr(history, name)), rtol=1e-13)


def test_gates_make_the_states_of_an_lstm(library):
    history = random_history(lstmx.LSTM, library)
    c = history.forget_gate * history.before.cell + history.input_gate * history.candidate
    np.testing.assert_allclose(history.cell_state, c, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        history.hidden_state, history.output_gate * np.tanh(np.asarray(c)), rtol=0, atol=1e-15
    )


def test_gates_make_the_states_of_a_gru(library):
    history = random_history(lstmx.GRU, library)
    h = (1 - history.update_gate) * history.candidate + history.update_gate * history.before.hidden
    np.testing.assert_allclose(history.hidden_state, h, rtol=0, atol=1e-15)


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_log_of_a_gate_is_exact_where_the_gate_rounds(library, dtype):
    # sigma(80) is 1 and sigma(-80) has no correct digits as 0.5 (1 + tanh(-40)); their logarithms are finite.
    cell = lstmx.LSTM(1, 4)
    a = np.array([-80.0, -20, 20, 80])
    params = lstmx.LSTMParams(np.zeros((1, 16)), np.zeros((4, 16)), np.concatenate([-a, a, a, a]))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    if library == "jax":
        params = jax.tree.map(jnp.asarray, params)
    history = lstmx.record(cell, params, np.zeros((2, 1), dtype))
    np.testing.assert_array_equal(history.forget_gate[0, 3], 1)
    expected = [-80, -20 - np.log1p(np.exp(-20)), -np.log1p(np.exp(-20)), -np.log1p(np.exp(-80))]
    tolerance = 3 * np.finfo(dtype).eps
    assert history.log_forget.dtype == dtype
    np.testing.assert_allclose(history.log_forget, [expected] * 2, rtol=tolerance)
    np.testing.assert_allclose(history.log_gate("input_gate"), [expected[::-1]] * 2, rtol=tolerance)


@pytest.mark.parametrize(
    ("kind", "read", "message"),
    [
        (lstmx.GRU, lambda h: h.cell_state, "a GRU has no cell state; its history has hidden_state"),
        (lstmx.SimpleRNN, lambda h: h.cell_state, "a SimpleRNN has no cell state"),
        (lstmx.GRU, lambda h: h.forget_gate, "a GRU has no forget_gate; .*: reset_gate, update_gate, candidate"),
        (lstmx.GRU, lambda h: h.log_forget, "a GRU has no forget_gate; .*: reset_gate, update_gate, candidate"),
        (lstmx.SimpleRNN, lambda h: h.input_gate, "a SimpleRNN has no input_gate; .*: candidate"),
        (lstmx.LSTM, lambda h: h.log_gate("candidate"), "an? LSTM has no candidate"),
        (lstmx.LSTM, lambda h: h.nonsense, "has no nonsense; .*: input_gate, forget_gate, candidate, output_gate"),
    ],
)
def test_an_attribute_that_is_absent_says_what_there_is(kind, read, message):
    with pytest.raises(AttributeError, match=message):
        read(random_history(kind))


def test_gates_outside_the_unit_interval_are_preactivations_under_a_wrong_name(kind, library):
    cell, params, xs, _ = draw_pass(kind, length=50)
    history = lstmx.record(cell, params, 5 * xs)
    for name, k in cell.gate_blocks.items():
        a = history.preactivations[..., 4 * k : 4 * k + 4]
        gate = getattr(history, name)
        assert a.min() < 0
        assert a.max() > 1
        assert gate.min() >= 0
        assert gate.max() <= 1
    assert np.abs(history.candidate).max() <= 1


@each_batch
def test_a_history_prints_on_one_line(kind, library, batch):
    text = repr(random_history(kind, library, "states", batch=batch, dtype="float32"))
    shape = f", batch {batch}" if batch else ""
    name = {"numpy": "NumPy", "jax": "JAX"}[library]
    assert text == f"History({kind(3, 4)}: 7 steps{shape}, float32, {name}, keep='states')"


def test_a_summary_has_a_line_for_each_state_and_gate(kind, library):
    history = random_history(kind, library, batch=(2,))
    lines = history.summary().splitlines()
    assert lines[0] == repr(history)
    hidden = np.asarray(history.final.hidden)
    assert lines[1] == f"final hidden state: from {hidden.min():+.4f} to {hidden.max():+.4f}"
    assert len(lines) == 1 + len(history.final) + len(history.cell.gate_blocks) + bool(history.cell.gate_names)
    for line, name in zip(lines[1 + len(history.final) :], history.cell.gate_blocks, strict=False):
        gate = np.asarray(getattr(history, name))
        words = name.replace("_", " ")
        assert line == f"{words}: mean {gate.mean():.4f}, standard deviation {gate.std():.4f}"


# -------------------------------------------------------------------------------------------- cut and joined


@pytest.mark.sample(3)
@each_cell
@each_keep
@hypothesis.given(data=st.data(), length=st.integers(1, 8))
def test_a_slice_starts_in_the_state_before_it(kind, keep, data, length):
    history = random_history(kind, keep=keep, length=length, batch=(2,))
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    part = history[start:stop]
    assert len(part) == stop - start
    assert_same(part.initial, jax.tree.map(lambda leaf: leaf[start], history.before))
    assert_same(part.inputs, history.inputs[start:stop])
    again = lstmx.record(part.cell, part.params, part.inputs, part.initial, keep=keep)
    assert_same(part, again)
    assert_same(history[start - length : stop], part)


@each_cell
@each_keep
@hypothesis.given(data=st.data(), length=st.integers(2, 8))
def test_concatenating_the_parts_gives_the_whole_to_the_bit(kind, keep, data, length):
    history = random_history(kind, keep=keep, length=length)
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=3)))
    parts = [history[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    joined = lstmx.History.concatenate(*parts)
    assert joined.cell == history.cell
    assert jax.tree.structure(joined) == jax.tree.structure(history)
    assert_same(joined, history)


def test_slices_are_those_of_a_list_in_both_libraries(kind, library):
    history = random_history(kind, library, batch=(2,))
    assert_same(history[:], history)
    assert_same(history[-2:], history[5:7])
    assert_same(history[:100], history)
    assert_same(history[2:][1:], history[3:])
    assert is_in(library, history[3:])
    assert_same(lstmx.History.concatenate(history[:3], history[3:]), history)


def test_parts_of_both_kinds_are_joined_as_states(kind):
    history = random_history(kind)
    joined = lstmx.History.concatenate(history[:3], random_history(kind, keep="states")[3:])
    assert joined.stored is None
    assert_close(joined.preactivations, history.preactivations, 1e-14)


def test_streamed_passes_join_to_the_whole(kind, library):
    history = random_history(kind, library, batch=(2,))
    first = lstmx.record(history.cell, history.params, history.inputs[:3], history.initial)
    second = lstmx.record(history.cell, history.params, history.inputs[3:], first.final)
    assert_close(lstmx.History.concatenate(first, second), history, 1e-15)


@pytest.mark.sample(3)
@each_keep
def test_a_sequence_of_a_batch_is_a_history(kind, library, keep):
    history = random_history(kind, library, keep, batch=(2, 3))
    one = history.sequence(1, -1)
    assert one.batch == ()
    np.testing.assert_array_equal(one.hidden_state, history.hidden_state[:, 1, 2])
    assert_same(one.initial, jax.tree.map(lambda leaf: leaf[1, 2], history.initial))
    assert_close(one.candidate, history.candidate[:, 1, 2], 1e-14)
    assert_same(one, random_history(kind, library, keep, batch=(2, 3)).sequence(np.int64(1), 2))
    alone = random_history(kind, library, keep)
    assert_same(alone.sequence(), alone)


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (slice(3, 3), ValueError, r"history\[3:3\] is empty; this history has steps 0 to 6"),
        (slice(5, 2), ValueError, r"history\[5:2\] is empty"),
        (slice(9, None), ValueError, r"history\[7:7\] is empty"),
        (slice(0, 6, 2), ValueError, r"history\[0:6:2\] skips steps; a history is contiguous in time"),
        (slice(None, None, -1), ValueError, "skips steps"),
        (2, TypeError, r"a history is sliced by time, history\[start:stop\]; got 2"),
        ("hidden", TypeError, "a history is sliced by time"),
        ((slice(None), 0), TypeError, r"use history.sequence\(...\)"),
    ],
)
def test_what_is_no_stretch_of_time_is_refused(steps, error, message):
    with pytest.raises(error, match=message):
        random_history(lstmx.LSTM, batch=(2,))[steps]


def test_a_history_is_not_iterated():
    with pytest.raises(TypeError, match="not iterated step by step; use its arrays"):
        iter(random_history(lstmx.LSTM))


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ((), ValueError, r"0 indices for batch axes \(2, 3\); expected one for each"),
        ((1,), ValueError, "1 indices for batch axes"),
        ((0, 1.0), TypeError, "sequence index 1.0 is not an integer"),
        ((True, 0), TypeError, "sequence index True is not an integer"),
        ((0, 3), IndexError, r"sequence index \(0, 3\) is outside the batch axes \(2, 3\)"),
        ((-3, 0), IndexError, "outside the batch axes"),
    ],
)
def test_a_sequence_is_named_by_one_integer_for_each_batch_axis(library, index, error, message):
    with pytest.raises(error, match=message):
        random_history(lstmx.LSTM, library, batch=(2, 3)).sequence(*index)


def test_histories_that_do_not_follow_one_another_are_not_joined(library):
    join, history = lstmx.History.concatenate, random_history(lstmx.LSTM, library, batch=(2,))
    with pytest.raises(ValueError, match="concatenate needs at least one history"):
        join()
    with pytest.raises(TypeError, match="history 1 is a LSTMState; expected a History"):
        join(history, history.final)
    with pytest.raises(
        ValueError, match="history 1 has an initial state that is not the final state of the one before"
    ):
        join(history[:3], history[4:])
    with pytest.raises(ValueError, match="history 2 has an initial state"):
        join(history[:3], history[3:5], history[:3])
    with pytest.raises(ValueError, match=r"history 1 is of GRU\(.*\); the one before it is of LSTM"):
        join(history[:3], random_history(lstmx.GRU, library, batch=(2,))[3:])
    with pytest.raises(ValueError, match=r"history 1 has batch axes \(\); the one before it \(2,\)"):
        join(history[:3], history.sequence(0)[3:])
    other = lstmx.record(history.cell, random_history(lstmx.LSTM, library, seed=1).params, history.inputs)
    with pytest.raises(ValueError, match="history 1 has other parameters than the one before it"):
        join(history[:3], other[3:])


# ------------------------------------------------------------------------------------------- as an object


@each_keep
def test_a_history_is_a_pytree(kind, library, keep):
    history = random_history(kind, library, keep, batch=(2,))
    leaves, structure = jax.tree.flatten(history)
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, lstmx.History)
    assert (again.cell, again.stored is None) == (history.cell, keep == "states")
    assert_same(again, history)
    through = jax.jit(lambda history: history)(history)
    assert is_in("jax", through)
    assert_same(jax.tree.map(np.asarray, through), history.to_numpy())
    doubled = jax.tree.map(lambda leaf: 2 * leaf, history)
    np.testing.assert_array_equal(doubled.hidden_state, 2 * history.hidden_state)


def test_histories_are_cut_and_joined_under_jit(kind):
    history = random_history(kind, "jax", batch=(2,))
    joined = jax.jit(lambda h: lstmx.History.concatenate(h[:3], h[3:]))(history)
    assert_same(joined, history)


def test_a_history_goes_to_the_host_and_what_follows_runs_there(kind):
    history = random_history(kind, "jax", batch=(2,))
    host = history.to_numpy()
    assert is_in("numpy", host)
    assert_same(host, history)
    assert is_in("numpy", lstmx.backward(host, host.hidden_state))
    assert is_in("numpy", host.gates)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_history_can_be_copied_and_pickled(kind, library, duplicate):
    history = random_history(kind, library)
    again = duplicate(history)
    assert again.cell == history.cell
    assert_same(again, history)


def test_histories_are_frozen_and_equal_to_themselves_only(kind):
    one, other = random_history(kind), random_history(kind)
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    with pytest.raises(AttributeError):
        one.inputs = other.inputs


def test_parameters_of_a_history_are_those_that_ran(kind):
    history = random_history(kind)
    changed = draw_params(history.cell, np.random.default_rng(9))
    assert not np.array_equal(history.params.bias, changed.bias)
    assert_same(lstmx.record(history.cell, history.params, history.inputs, history.initial), history)

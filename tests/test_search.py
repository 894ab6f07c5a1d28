"""Where units are on together, and which follow a signal: against plain loops, planted patterns and chance."""

import dataclasses
import re

import jax
import numpy as np
import pytest

import lstmx
from lstmx.history import History

RNG = np.random.default_rng


def recorded(values, lengths=None, mask=None):
    """A history whose hidden state is `values` [T, *batch, H]."""
    cell = lstmx.SimpleRNN(1, values.shape[-1])
    params = cell.init(RNG(0), dtype=values.dtype)
    xs = np.zeros((*values.shape[:-1], 1), values.dtype)
    made = lstmx.record(cell, params, xs, lengths=lengths, mask=mask)
    return History(cell, params, made.initial, xs, cell.state_type(values), None, made.controls)


def noise(seed, length, scales):
    """Columns that change at these time scales, [T, H], each with variance 1."""
    rng, keep = RNG(seed), np.exp(-1 / np.asarray(scales, float))
    made = np.zeros((length, len(keep)))
    made[0] = rng.normal(size=len(keep))
    for t in range(1, length):
        made[t] = keep * made[t - 1] + np.sqrt(1 - keep**2) * rng.normal(size=len(keep))
    return made


# ------------------------------------------------------------------------------------------------------- search


def by_hand(values, units, above, share=1.0, counts=None):
    """Maximal stretches of a sequence [T, H], as (start, stop, units and steps that are on)."""
    found, start = [], None
    on = [sum(values[t, u] >= above for u in units) for t in range(len(values))]
    hit = [n >= share * len(units) and (counts is None or counts[t]) for t, n in enumerate(on)]
    for t, here in enumerate([*hit, False]):
        if here and start is None:
            start = t
        elif not here and start is not None:
            found.append((start, t, sum(on[start:t])))
            start = None
    return sorted(found, key=lambda one: (-one[2], one[0]))


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_stretches_are_those_of_a_plain_loop(library, share):
    history = recorded(noise(0, 300, [3, 5, 8, 9, 20]))
    given = history if library == "numpy" else jax.tree.map(jax.numpy.asarray, history)
    found = lstmx.search(given, units=[0, 2, 4], above=0.1, share=share, most=1000)
    expected = by_hand(history.hidden_state, [0, 2, 4], 0.1, share)
    assert list(zip(found.start, found.stop, strict=True)) == [one[:2] for one in expected]
    np.testing.assert_allclose(found.share * (found.stop - found.start) * 3, [one[2] for one in expected])
    assert len(lstmx.search(given, units=[0, 2, 4], above=0.1, share=share, most=2)) == 2


def test_a_marked_stretch_gives_its_units_and_is_left_out():
    values = noise(1, 200, [4] * 6)
    values[20:26, [1, 3]] = values[90:99, [1, 3]] = values[150:154, [1, 3]] = 5
    values[20:26, [0, 2, 4, 5]] = -1
    found = lstmx.search(recorded(values), stretch=(21, 25), above=3.0)
    assert found.units.tolist() == [1, 3]
    assert list(zip(found.start, found.stop, strict=True)) == [(90, 99), (150, 154)]
    with pytest.raises(ValueError, match=r"no unit's hidden_state is at least 6 throughout steps 21 to 24; .* 5"):
        lstmx.search(recorded(values), stretch=(21, 25), above=6.0)


def test_sequences_of_a_batch_and_steps_that_do_not_count():
    values = noise(2, 80, [6] * 9).reshape(80, 3, 3)
    mask = RNG(3).uniform(size=(80, 3)) > 0.15
    history = recorded(values, mask=mask)
    found = lstmx.search(history, units=[0, 1], above=-0.2, most=1000)
    for b in range(3):
        mine = found.sequence[:, 0] == b
        expected = by_hand(values[:, b], [0, 1], -0.2, counts=mask[:, b])
        assert list(zip(found.start[mine], found.stop[mine], strict=True)) == [one[:2] for one in expected]
    inside = lstmx.search(history, stretch=(5, 6), sequence=2, above=float(values[5, 2].min()), most=1000)
    assert not ((inside.start <= 5) & (inside.stop > 5) & (inside.sequence[:, 0] == 2)).any()


def test_a_stretch_is_measured_at_its_steps_that_count():
    values = noise(2, 40, [6] * 6).reshape(40, 3, 2)
    history = recorded(values, lengths=np.array([40, 20, 7]))
    inside, beyond = (lstmx.search(history, stretch=[5, end], sequence=2, above=-9.0) for end in (7, 12))
    np.testing.assert_array_equal(inside.start, beyond.start)
    values[5:7, 2, 0], values[7:, 2, 0] = -9, 9
    least = lstmx.search(recorded(values, lengths=np.array([40, 20, 7])), stretch=(5, 12), sequence=2, above=-8.0)
    assert least.units.tolist() == [1]
    with pytest.raises(ValueError, match=r"stretch is \(30, 33\), where no step of the sequence counts"):
        lstmx.search(history, stretch=(30, 33), sequence=2, above=0.0)


@pytest.mark.parametrize("disk", [False, True])
def test_numbers_that_are_not_finite_are_named_where_they_count(disk, tmp_path):
    values = noise(2, 40, [6] * 6).reshape(40, 3, 2)
    values[30, 2, 0] = np.nan  # beyond the end
    history = recorded(values, lengths=np.array([40, 20, 7]))
    assert lstmx.units_like(history, values[..., 1]).correlation[1] == pytest.approx(1)
    values[12, 1, 1], values[35, 0, 0] = np.inf, np.nan
    history = recorded(values, lengths=np.array([40, 20, 7]))
    if disk:
        history.save(tmp_path / "pass")
        history = lstmx.load_history(tmp_path / "pass")
    words = r"hidden_state is inf first at step 12, sequence \(1,\), unit 1; expected finite numbers"
    with pytest.raises(ValueError, match=words):
        lstmx.units_like(history, np.arange(40) % 7)
    with pytest.raises(ValueError, match=words):
        lstmx.search(history, units=[0])


@pytest.mark.parametrize("field", [None, "hidden_state", "forget_gate"])
def test_a_history_on_disk_is_searched_as_in_memory(tmp_path, field):
    cell = lstmx.LSTM(2, 5)
    params = cell.init(RNG(0))
    xs = RNG(1).normal(size=(400, 2)).astype("float32")
    history = lstmx.record(cell, params, xs)
    history.save(tmp_path / "pass")
    stored = lstmx.load_history(tmp_path / "pass")
    above = float(np.median(getattr(history, field or "cell_state")))
    signal = xs[:, 0]
    found, same = (lstmx.search(one, units=[0, 1], above=above, field=field) for one in (history, stored))
    np.testing.assert_array_equal(found.start, same.start)
    one, other = (lstmx.units_like(each, signal, field=field) for each in (history, stored))
    np.testing.assert_allclose(one.correlation, other.correlation, atol=1e-6)
    np.testing.assert_array_equal(one.found, other.found)
    assert found.field == (field or "cell_state")


def test_what_search_refuses():
    history = recorded(noise(0, 30, [3, 3]))
    stack = lstmx.Stack([lstmx.SimpleRNN(1, 2)])
    layered = lstmx.record(stack, stack.init(RNG(0)), np.zeros((5, 1), "float32"))
    for given, options, words in (
        (history, {}, "expected units=.* or stretch=.*: one of both"),
        (history, {"units": [0], "stretch": (0, 3)}, "one of both"),
        (history, {"units": [0, 0]}, r"units is \[0, 0\]; expected at least one unit, none twice"),
        (history, {"units": [2]}, r"units is \[2\]; expected indices from 0 to 1"),
        (history, {"units": [0.5]}, r"units is \[0.5\]; expected a list of indices"),
        (history, {"stretch": (5, 5)}, r"stretch is \(5, 5\); expected two steps in order, from 0 to 30"),
        (history, {"stretch": 5}, "stretch is 5; expected its first step and the one after its last"),
        (history, {"units": [0], "share": 0}, "share is 0; expected a number above 0 and at most 1"),
        (history, {"units": [0], "above": float("nan")}, "above is nan; expected a finite number"),
        (history, {"units": [0], "field": "cell_state"}, "field is 'cell_state'; expected one of 'hidden_state'"),
        (history, {"units": [0], "most": 0}, "most is 0"),
        (history, {"units": [0], "sequence": "x"}, "sequence is 'x' without stretch; expected both"),
        (history, {"stretch": (0, 2), "sequence": (True,)}, r"sequence is \(True,\); expected integers"),
        (history, {"stretch": (0, 2), "sequence": 1}, r"sequence is 1; expected an integer for each of the batch"),
        (layered, {"units": [0]}, "takes the history of one cell: history.parts"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            lstmx.search(given, **options)


# --------------------------------------------------------------------------------------------------- units_like


def test_correlations_and_p_values_are_those_of_plain_shifts():
    values, signal = noise(4, 90, [2, 3, 5, 9]), noise(5, 90, [4])[:, 0]
    signal += 0.8 * values[:, 1]
    found = lstmx.units_like(recorded(values), signal)
    shifted = np.array(
        [[np.corrcoef(x, np.roll(signal, lag))[0, 1] for lag in range(90)] for x in values.T]
    )  # all there are
    np.testing.assert_allclose(found.correlation, shifted[:, 0], atol=1e-12)
    scaled = np.abs(shifted) / np.sqrt((shifted**2).mean(axis=1))[:, None]
    pooled = scaled[:, 1:].ravel()
    expected = [(1 + np.sum(pooled >= one - 1e-9)) / (1 + len(pooled)) for one in scaled[:, 0]]
    np.testing.assert_allclose(found.p_value, expected)
    assert (found.shifts, found.found.tolist()) == (89, [1])


def test_sequences_are_shifted_within_themselves_and_padding_is_not_read():
    values, signal = noise(6, 50, [3] * 8).reshape(50, 2, 4), noise(7, 50, [3, 3])
    mask = np.ones((50, 2), bool)
    mask[:7, 0] = mask[44:, 1] = mask[20, 1] = False
    signal[~mask] = np.nan
    found = lstmx.units_like(recorded(values, mask=mask), signal)
    x, y = (np.concatenate([a[mask[:, b], b] for b in range(2)]) for a in (values, signal))
    expected = [np.corrcoef(column, y)[0, 1] for column in x.T]
    np.testing.assert_allclose(found.correlation, expected, atol=1e-12)
    alone = lstmx.units_like(recorded(values[:, 0]), np.where(mask[:, :1], signal[:, :1], 0)[:, 0])
    assert alone.correlation.shape == (4,)


def test_a_signal_for_all_sequences_and_booleans():
    values = noise(8, 60, [3] * 6).reshape(60, 2, 3)
    signal = noise(9, 60, [3])[:, 0] > 0
    found = lstmx.units_like(recorded(values), signal)
    both = lstmx.units_like(recorded(values), np.stack([signal, signal], axis=1).astype(float))
    np.testing.assert_array_equal(found.correlation, both.correlation)


@pytest.mark.parametrize("scale", [3, 10])
def test_planted_units_are_found(scale):
    values, signal = noise(10, 2000, np.geomspace(1, 40, 128)), noise(11, 2000, [scale])[:, 0]
    planted = [5, 40, 99]
    values[:, planted] += signal[:, None] * np.array([1.0, -1.5, 0.7])
    found = lstmx.units_like(recorded(values.astype("float32")), signal)
    assert found.found.tolist() == [40, 5, 99]


def test_units_that_do_not_move_are_never_found():
    values = noise(12, 200, [3, 3, 3])
    values[:, 1] = 0.25
    found = lstmx.units_like(recorded(values), values[:, 0].copy())
    assert (found.correlation[1], found.p_value[1], found.found.tolist()) == (0, 1, [0])


@pytest.mark.slow  # 200 passes
@pytest.mark.parametrize(
    ("length", "scales", "scale"),
    [(400, np.geomspace(1, 40, 32), 20), (400, np.full(32, 50.0), 20), (1000, np.full(20, 1000.0), 1000)],
    ids=["mixed", "slow", "as slow as the pass is long"],
)
def test_chance_is_rarely_taken_for_a_finding(length, scales, scale):
    wrong, history = 0, recorded(np.zeros((length, len(scales))))
    for k in range(200):
        values, signal = noise(2 * k, length, scales), noise(2 * k + 1, length, [scale])[:, 0]
        one = dataclasses.replace(history, states=lstmx.SimpleRNNState(values))
        wrong += len(lstmx.units_like(one, signal).found) > 0
    assert wrong <= 10  # 5 %


def test_independent_steps_are_those_of_the_autocorrelations():
    length, keep = 20_000, np.exp(-1 / np.array([2.0, 10.0, 60.0]))
    values, signal = noise(20, length, [2, 10, 60]), noise(21, length, [20])[:, 0]
    product = keep * np.exp(-1 / 20)
    expected = length / (1 + 2 * product / (1 - product))  # Bartlett
    found = lstmx.units_like(recorded(values), signal)
    np.testing.assert_allclose(found.independent_steps, expected, rtol=0.35)  # of 200 shifts


def test_units_as_slow_as_the_pass_is_long_are_not_judged():
    values, signal = noise(22, 300, [300, 2, 2]), noise(23, 300, [300])[:, 0]
    values[:, 1] += 2 * signal
    values[:, 0] = signal  # for all that is known, by chance
    found = lstmx.units_like(recorded(values), signal)
    assert found.correlation[0] == pytest.approx(1)
    assert found.independent_steps[0] < 15 < found.independent_steps[2]
    assert found.p_value[0] == 1
    assert 0 not in found.found
    assert "of the units it cannot be said: with the signal they change so slowly" in str(found)


def test_layers_have_a_result_for_each_cell_in_the_order_of_time():
    stack = lstmx.Stack([lstmx.Bidirectional(lstmx.GRU(1, 6)), lstmx.LSTM(12, 5)])
    params = stack.init(RNG(0))
    xs = RNG(1).normal(size=(300, 1)).astype("float32")
    history = lstmx.record(stack, params, xs)
    found = lstmx.units_like(history, xs[:, 0])
    assert list(found) == list(history.cells())
    for name, (part, in_time) in history.cells().items():
        field = getattr(part, found[name].field)
        unit = [np.corrcoef(x, xs[:, 0])[0, 1] for x in np.asarray(in_time(field)).T]
        np.testing.assert_allclose(found[name].correlation, unit, atol=1e-5)


def test_what_units_like_refuses():
    history = recorded(noise(0, 30, [3, 3]))
    signal = noise(1, 30, [3])[:, 0]
    broken = signal.copy()
    broken[7] = np.inf
    for given, options, words in (
        (signal[:-1], {}, r"signal has shape \(29,\); expected \[T\] or \[T, \*batch\], \(30,\)"),
        ("x" * 30, {}, "signal is a str; expected real numbers or booleans, as an array or a list"),
        ([[1], [1, 2]], {}, "signal is a list; expected real numbers or booleans"),
        (signal.astype(complex), {}, "signal is an array of complex128"),
        (np.ones(30), {}, "signal is the same at every step that counts"),
        (broken, {}, "signal holds NaN or infinity, first at step 7"),
        (signal, {"level": 1.0}, "level is 1.0; expected a number between 0 and 1"),
        (signal, {"shifts": 5}, "shifts is 5; expected an integer of at least 19"),
        (signal, {"field": "gate"}, "field is 'gate'; expected one of 'hidden_state'"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            lstmx.units_like(history, given, **options)

    with pytest.raises(ValueError, match="2 of the history's steps count; expected at least 3"):
        lstmx.units_like(recorded(noise(0, 2, [3])), [0, 1])

    @jax.jit
    def inside(history):
        return lstmx.units_like(history, signal).correlation

    with pytest.raises(TypeError, match="history is inside a JAX transformation"):
        inside(jax.tree.map(jax.numpy.asarray, history))


def test_what_is_printed():
    values = noise(3, 100, [3] * 4)
    shown = str(lstmx.search(recorded(values), units=[0, 1], above=0.5))
    assert re.match(
        r"units 0, 1: hidden state of at least 0.5\n\nfirst step   steps  units on\n +\d+ +\d+ +100%", shown
    )
    alone = lstmx.search(recorded(values), units=[0], above=90.0)
    assert str(alone) == "unit 0: hidden state of at least 90\n\nnowhere else"
    assert repr(alone) == "Stretches(0 of 1 unit, hidden_state of at least 90)"
    told = str(lstmx.units_like(recorded(values), values[:, 2].copy()))
    assert told.startswith(
        "1 of 4 units follow the signal with their hidden state; of these an expected 5% at most"
    )
    assert re.search(r"\n +2 +\+1.000", told)

"""Edited passes against plain loops that change the same values, and what is said of them."""

import dataclasses
import functools
import pickle

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, draw_pass, is_in, labels, render, to

import lstmx
from lstmx.editing import field_of
from lstmx.history.excerpt import fields_of

CELLS = family.of_size(3, 4)
each = pytest.mark.parametrize("name", family.one_of_each_form(family.NAMES))


def passed(name="NP", length=6, batch=(), seed=0, **options):
    """A cell, its parameters, inputs and a state, in NumPy."""
    cell = CELLS[name]
    params, state, xs, _ = family.draw(cell, batch, length=length, seed=seed, **options)
    return cell, params, xs, state


def changed(cell, params, xs, state=None, *, edits, **options):
    """`intervene` with the state where `record` has it."""
    return lstmx.intervene(cell, params, xs, edits, state, **options)


def looped(cell, params, xs, state, change):
    """A plain loop over one sequence: states and activations by name; `change(step, name, value)` edits."""
    rows = []
    for t, x in enumerate(xs):
        state, gates = family.equations(cell, params, state, x, lambda name, value, t=t: change(t, name, value))
        rows.append(gates | {f"{field}_state": value for field, value in state._asdict().items()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def assert_pass(edited, expected, tolerance=1e-13):
    for name, values in expected.items():
        np.testing.assert_allclose(field_of(edited, name), values, rtol=tolerance, atol=tolerance, err_msg=name)


# ---------------------------------------------------------------------------------------- against plain loops


@pytest.mark.sample(9)
@each
def test_a_function_that_bends_everything_bends_what_the_equations_compute_from_it(name, library):
    cell, params, xs, state = passed(name)
    offset = {what: 0.1 + 0.07 * k for k, what in enumerate(fields_of(cell))}

    def bend(step, values):
        suffix = "_state" if "hidden" in values._fields else ""
        where = values[0].__array_namespace__().where
        made = {
            field: where(step % 2 == 1, 0.5 * value + offset[f"{field}{suffix}"], value)
            for field, value in values._asdict().items()
        }
        return values._replace(**made)

    def change(step, what, value):
        return 0.5 * value + offset[what] if step % 2 else value

    edited = changed(cell, *to(library, (params, xs, state)), edits=bend)
    assert_pass(edited, looped(cell, params, xs, state, change))
    assert is_in(library, (edited.states, edited.gates, edited.acted))
    for what in fields_of(cell):
        np.testing.assert_array_equal(edited.acted[what], [False, True] * 3)


@each
def test_each_value_alone_reaches_what_is_computed_from_it_and_nothing_else(name):
    cell, params, xs, state = passed(name, length=4)
    for what in fields_of(cell):

        def change(step, other, value, what=what):
            ends = np.isin(np.arange(value.shape[-1]), (0, value.shape[-1] - 1))
            return np.where(ends & (step == 2), 0.3, value) if other == what else value

        edited = changed(
            cell, params, xs, state, edits=lstmx.edits.clamp(**{what: 0.3}, units=[0, -1], steps=slice(2, 3))
        )
        assert_pass(edited, looped(cell, params, xs, state, change))
        assert {one for one in fields_of(cell) if edited.acted[one].any()} == {what}
        np.testing.assert_array_equal(edited.acted[what], np.arange(4) == 2)


@each
def test_without_a_change_the_pass_is_the_recorded_one(name):
    cell, params, xs, state = passed(name, batch=(2,))
    history = lstmx.record(cell, params, xs, state)
    edited = changed(cell, params, xs, state, edits=[])
    # An edited SLSTM computes its state from the gates that act, with roundings of its own.
    agree = functools.partial(assert_close, tolerance=1e-13) if type(cell) is lstmx.SLSTM else assert_same
    agree((edited.states, edited.gates), (history.states, history.gates))
    agree(edited.preactivations, history.preactivations)
    agree((edited.final, edited.initial, edited.inputs), (history.final, state, xs))
    same = changed(cell, params, xs, state, edits=lambda step, values: values)
    agree(same.states, history.states)
    assert not any(np.any(acted) for acted in same.acted.values())


@pytest.mark.sample(7)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "held", "kept"),
    [
        ("NP", {"forget_gate": 1.0, "input_gate": 0.0}, "cell_state"),
        ("V", {"forget_gate": 1.0, "input_gate": 0.0}, "cell_state"),
        ("CIFG", {"forget_gate": 1.0, "input_gate": 0.0}, "cell_state"),
        ("GRU", {"update_gate": 1.0}, "hidden_state"),
        ("GRU before", {"update_gate": 1.0}, "hidden_state"),
        ("MGU", {"update_gate": 1.0, "forget_gate": 0.0}, "hidden_state"),
        ("JANET", {"forget_gate": 1.0, "candidate": 0.0}, "hidden_state"),
    ],
)
def test_with_the_old_kept_and_nothing_taken_in_a_state_stays_to_the_bit(name, held, kept, dtype, library):
    cell, params, xs, state = passed(name, length=50, batch=(2,), dtype=dtype)
    edited = changed(cell, *to(library, (params, xs, state)), edits=lstmx.edits.clamp(**held))
    start = getattr(state, kept.removesuffix("_state"))
    assert_same(field_of(edited, kept), np.broadcast_to(start, (50, 2, 4)))


# ------------------------------------------------------------------------------------------------ ready-made


def test_edits_follow_one_another_in_their_order():
    cell, params, xs, state = passed()
    clamp = lstmx.edits.clamp(forget_gate=0.5)

    def double(step, values):
        return values._replace(forget_gate=2 * values.forget_gate) if "forget_gate" in values._fields else values

    first, then = (
        changed(cell, params, xs, state, edits=edits).forget_gate for edits in ([clamp, double], (double, clamp))
    )
    assert_same(first, np.ones((6, 4)))
    assert_same(then, np.full((6, 4), 0.5))


def test_a_clamp_takes_a_value_for_each_unit_and_any_way_to_name_units_and_steps(library):
    cell, params, xs, state = passed()
    given = to(library, (params, xs, state))
    values = np.array([0.1, 0.2, 0.3, 0.4])
    base = np.asarray(lstmx.record(cell, *given).forget_gate)
    for units, steps, at in [
        (None, None, np.s_[:, :]),
        (2, 0, np.s_[:1, 2:3]),
        (slice(1, None), range(1), np.s_[:1, 1:]),
        (np.array([0, 1]), slice(None, 1), np.s_[:1, :2]),
        ([-1], slice(0, 1, 2), np.s_[:1, 3:]),
    ]:
        edited = changed(cell, *given, edits=lstmx.edits.clamp(forget_gate=values, units=units, steps=steps))
        expected = base.copy()
        expected[at] = np.broadcast_to(values, base.shape)[at]
        found = np.asarray(edited.forget_gate)
        np.testing.assert_array_equal(found[at], expected[at])
        np.testing.assert_allclose(found[:1], expected[:1], rtol=1e-14)


@pytest.mark.sample(1)
def test_an_ablation_takes_a_unit_out_or_leaves_its_mean(library):
    cell, params, xs, state = passed(batch=(3,), length=8)
    given = to(library, (params, xs, state))
    silent = changed(cell, *given, edits=lstmx.edits.ablate(units=1))
    assert not np.any(silent.hidden_state[..., 1])
    assert not np.any(silent.cell_state[..., 1])
    without = params.recurrent_kernel.copy()
    without[1] = 0  # what others hear of unit 1
    start = state._replace(hidden=state.hidden * 1)
    start.hidden[..., 1] = 0
    deaf = lstmx.record(cell, params._replace(recurrent_kernel=without), xs, start)
    others = [0, 2, 3]
    first = changed(cell, *to(library, (params, xs, start)), edits=lstmx.edits.ablate("hidden_state", units=1))
    np.testing.assert_allclose(first.hidden_state[..., others], deaf.hidden_state[..., others], atol=1e-14)

    history = lstmx.record(cell, *given)
    edited = changed(cell, *given, edits=lstmx.edits.ablate("output_gate", units=[0], mean_of=history, steps=3))
    mean = np.mean(np.asarray(history.output_gate)[..., 0])
    np.testing.assert_allclose(edited.output_gate[3, :, 0], np.full(3, mean), rtol=1e-14)
    np.testing.assert_allclose(edited.output_gate[2], history.output_gate[2], rtol=1e-14)


def test_a_patched_state_continues_as_the_pass_that_it_comes_from():
    cell, params, xs, state = passed("V", length=9, batch=(2,))
    source = lstmx.record(cell, params, xs)  # from zeros
    edited = changed(cell, params, xs, state, edits=lstmx.edits.patch(source, steps=4))
    assert_same(jax.tree.map(lambda x: x[4:], edited.states), jax.tree.map(lambda x: x[4:], source.states))
    assert_same(edited.hidden_state[:4], lstmx.record(cell, params, xs, state).hidden_state[:4])
    gates = changed(cell, params, xs, state, edits=lstmx.edits.patch(edited, "forget_gate", "candidate"))
    assert_same((gates.forget_gate, gates.candidate), (edited.forget_gate, edited.candidate))


@pytest.mark.slow
def test_noise_follows_from_key_step_and_shape_alone(library):
    cell, params, xs, state = passed(length=400, batch=(2,))
    given = to(library, (params, xs, state))
    edit = lstmx.edits.noise(3, candidate=0.2, hidden_state=0.1, units=slice(1, None), steps=slice(1, None))
    edited, again = (changed(cell, *given, edits=edit) for _ in range(2))
    assert_same(edited.states, again.states)
    short = changed(cell, given[0], given[1][:7], given[2], edits=edit)
    assert_close(short.states, jax.tree.map(lambda x: x[:7], edited.states), 1e-14)
    other = changed(cell, *given, edits=dataclasses.replace(edit, key=4))
    assert not np.any(np.asarray(other.candidate)[1, :, 1:] == np.asarray(edited.candidate)[1, :, 1:])

    still = lstmx.edits.clamp(candidate=0.0, hidden_state=0.0, cell_state=0.0)  # what is left is the noise
    draws = changed(cell, *given, edits=[still, edit])
    for what, scale in (("candidate", 0.2), ("hidden_state", 0.1)):
        values = np.asarray(field_of(draws, what))
        assert not values[..., 0].any()
        assert not values[0].any()
        drawn = values[1:, :, 1:]
        assert len(np.unique(drawn)) == drawn.size
        assert abs(drawn.mean()) < 4 * scale / np.sqrt(drawn.size)
        np.testing.assert_allclose(drawn.std(), scale, rtol=0.06)
    both = [np.asarray(field_of(draws, what))[1:, :, 1:].ravel() for what in ("candidate", "hidden_state")]
    assert abs(np.corrcoef(both)[0, 1]) < 0.1


def test_a_seed_is_the_jax_key_of_it():
    cell, params, xs, state = passed()
    by_seed = changed(cell, *to("jax", (params, xs, state)), edits=lstmx.edits.noise(5, cell_state=1.0))
    for key in (jax.random.key(5), jax.random.PRNGKey(5)):
        by_key = changed(
            cell, params, xs, state, edits=lstmx.edits.noise(key, cell_state=1.0)
        )  # is in JAX by the key
        assert is_in("jax", by_key.states)
        assert_same(by_key.states, by_seed.states)


def test_edits_are_shown_with_what_was_asked():
    cell, params, xs, _ = passed()
    history = lstmx.record(cell, params, xs)
    shown = {
        "clamp(forget_gate=1.0, units=[0, 3], steps=10:20)": lstmx.edits.clamp(
            forget_gate=1.0, units=[0, 3], steps=slice(10, 20)
        ),
        "clamp(cell_state=array[4])": lstmx.edits.clamp(cell_state=np.ones(4)),
        "ablate()": lstmx.edits.ablate(),
        "ablate(input_gate, to means, steps=::2)": lstmx.edits.ablate(
            "input_gate", mean_of=history, steps=slice(None, None, 2)
        ),
        "patch(a history, hidden_state, cell_state, steps=0:9:3)": lstmx.edits.patch(
            history, steps=range(0, 9, 3)
        ),
        "noise(0, hidden_state=0.1, steps=[0, 1, 2, 3, 4, 5, ... 8 in all])": lstmx.edits.noise(
            0, hidden_state=0.1, steps=list(range(8))
        ),
        "noise(key, hidden_state=0.1)": lstmx.edits.noise(jax.random.key(0), hidden_state=0.1),
    }
    for words, edit in shown.items():
        assert repr(edit) == words
    edited = changed(cell, params, xs, edits=[lstmx.edits.ablate(), lambda step, values: values])
    assert repr(edited).endswith("6 steps, float64, NumPy; ablate(); <lambda>)")


# ----------------------------------------------------------------------------------------------- forms of a pass


@pytest.mark.sample(1)
@pytest.mark.parametrize(("length", "hidden", "batch"), [(1, 1, ()), (3, 1, (2, 3)), (1, 4, (2,)), (2, 2, (0,))])
def test_any_form_of_a_pass_can_be_edited(length, hidden, batch, library):
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=length, batch=batch, hidden=hidden)
    given = to(library, (params, xs, state))
    edits = [
        lstmx.edits.clamp(forget_gate=0.5, units=0, steps=0),
        lstmx.edits.noise(0, cell_state=0.1),
        lambda step, v: v,
    ]
    edited = changed(cell, *given, edits=edits)
    assert edited.forget_gate.shape == (length, *batch, hidden)
    assert len(edited) == length
    assert edited.batch == batch
    np.testing.assert_array_equal(edited.forget_gate[0, ..., 0], np.full(batch, 0.5))
    assert "LSTM" in str(lstmx.effect(lstmx.record(cell, *given), edited, lambda h: (h**2).sum(-1)))


def test_a_batch_is_each_of_its_sequences():
    cell, params, xs, state = passed("FGR", batch=(2, 3))
    edit = lstmx.edits.clamp(forget_gate=0.2, cell_state=0.4, units=[1], steps=slice(1, 4))
    edited = changed(cell, params, xs, state, edits=edit)
    one = changed(cell, params, xs[:, 1, 2], jax.tree.map(lambda x: x[1, 2], state), edits=edit)
    assert_close(edited.sequence(1, 2).states, one.states, 1e-14)
    assert edited.sequence(1, 2).batch == ()
    with pytest.raises(ValueError, match=r"1 indices for batch axes \(2, 3\)"):
        edited.sequence(1)
    mapped = jax.vmap(lambda xs, state: changed(cell, params, xs, state, edits=edit).hidden_state, (1, 0), 1)
    assert_close(
        mapped(*to("jax", (xs[:, 0], jax.tree.map(lambda x: x[0], state)))), edited.hidden_state[:, 0], 1e-13
    )


def test_an_edited_pass_has_the_names_of_a_history():
    cell, params, xs, state = passed("GRU", batch=(2,))
    history = lstmx.record(cell, params, xs, state)
    edited = changed(cell, *to("jax", (params, xs, state)), edits=lstmx.edits.ablate("reset_gate"))
    for name in ("hidden_state", "reset_gate", "update_gate", "candidate", "inputs", "batch", "cell"):
        assert np.shape(getattr(edited, name)) == np.shape(getattr(history, name))
        assert name in dir(edited)
    assert is_in("numpy", edited.to_numpy().states)
    assert_same(pickle.loads(pickle.dumps(edited.to_numpy())).states, edited.states)
    with pytest.raises(
        AttributeError, match="an edited pass of a GRU has no forget_gate; its gates are: reset_gate"
    ):
        _ = edited.forget_gate
    with pytest.raises(AttributeError, match="has no cell_state"):
        _ = edited.cell_state


# ---------------------------------------------------------------------------------------- under transformations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["V", "GRU before", "FGR"])
def test_an_edited_pass_is_differentiated_through_its_edits(name):
    cell, params, xs, state = passed(name, length=5)
    weights = np.random.default_rng(1).normal(size=(5, 4))
    gate = cell.retention_gate

    def loss(params, xs, value):
        def mine(step, values):
            bent = values._asdict()
            return values._replace(candidate=0.5 * bent["candidate"]) if "candidate" in bent else values

        edits = [lstmx.edits.clamp(**{gate: value}, units=[0, 2], steps=slice(1, 4)), mine]
        return (changed(cell, params, xs, state, edits=edits).hidden_state * weights).sum()

    given = params, xs, np.array(0.6)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*to("jax", given))
    direction = jax.tree.map(lambda x: np.random.default_rng(2).normal(size=x.shape), given)
    ends = [loss(*jax.tree.map(lambda x, u, h=h: x + h * u, given, direction)) for h in (1e-5, -1e-5)]
    slope = sum(
        np.sum(np.asarray(g) * u) for g, u in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    )
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


def test_a_traced_value_makes_a_pass_in_jax_of_numpy_parameters():
    cell, params, xs, state = passed()

    def total(value):
        return changed(cell, params, xs, state, edits=lstmx.edits.clamp(forget_gate=value)).hidden_state.sum()

    at = jax.grad(total)(0.5)
    np.testing.assert_allclose(at, (total(0.5 + 1e-6) - total(0.5 - 1e-6)) / 2e-6, rtol=1e-7)


@pytest.mark.slow
def test_edits_and_edited_passes_travel_through_jit():
    cell, params, xs, state = passed()
    given = to("jax", (params, xs, state))
    edit = lstmx.edits.clamp(cell_state=1.0, forget_gate=0.5, steps=2)
    made = jax.jit(lambda edit: changed(cell, *given, edits=edit))(edit)
    assert isinstance(made, lstmx.Edited)
    assert_close(made.states, changed(cell, *given, edits=edit).states, 1e-14)
    history = lstmx.record(cell, *given)
    effect = jax.jit(lambda made: lstmx.effect(history, made, lambda h: h.sum(-1)))(made)
    assert_close(effect.norm, lstmx.effect(history, made).norm, 1e-14)
    still = jax.grad(lambda x: lstmx.effect(history, dataclasses.replace(made, states=x)).norm.sum())(
        history.states
    )
    assert not np.any(still.hidden)  # where nothing changed


@pytest.mark.slow
def test_equal_edits_and_the_same_function_are_compiled_once():
    traced = []

    @dataclasses.dataclass(frozen=True)
    class Counted(lstmx.GRU):
        def settle(self, before, gates, a):
            traced.append(a.shape)
            return super().settle(before, gates, a)

        linearise = lstmx.GRU.linearise

    _, params, xs, _ = draw_pass(lstmx.GRU, length=5)
    params, xs = to("jax", (params, xs))
    cell, counts = Counted(3, 4), []

    def mine(step, values):
        return values

    for value in (0.0, 0.5, 1.0):
        history = lstmx.record(cell, params, xs)
        changed(
            cell, params, xs, edits=lstmx.edits.clamp(reset_gate=value, units=[int(2 * value)], steps=slice(1, 3))
        )
        changed(cell, params, xs, edits=[lstmx.edits.noise(int(2 * value), hidden_state=value), mine])
        changed(cell, params, xs, edits=lstmx.edits.patch(history, "candidate"))
        counts.append(len(traced))
    assert counts[0] == counts[1] == counts[2] > 0


def test_a_function_gets_values_that_it_cannot_write_to_and_a_step_that_counts():
    cell, params, xs, state = passed(length=3)
    seen = []

    def watch(step, values):
        seen.append((step, type(values).__name__))
        return values

    changed(cell, params, xs, state, edits=watch)
    assert {(step, kind) for step, kind in seen} == {(t, k) for t in range(3) for k in ("LSTMGates", "LSTMState")}
    assert all(type(step) is int for step, _ in seen)

    def spoil(step, values):
        values[0][:] = 1
        return values

    with pytest.raises(ValueError, match="read-only"):
        changed(cell, params, xs, state, edits=spoil)


# --------------------------------------------------------------------- steps that do not count, starts, Zoneout

EDITS = {"forget_gate": 0.3, "cell_state": 0.4}


def edit_of(names=EDITS):
    return [lstmx.edits.clamp(**{name: value}, units=[0, 2], steps=slice(1, 7)) for name, value in names.items()]


def clamped(names=EDITS):
    """What `edit_of` does, for a plain loop."""

    def change(step, name, value):
        chosen = np.isin(np.arange(value.shape[-1]), (0, 2)) & (1 <= step < 7)
        return np.where(chosen, names[name], value) if name in names else value

    return change


def controlled_loop(cell, params, xs, state, change, hold, reset, kept=None):
    """A plain loop over one sequence whose steps may not count, start anew, and keep a part of the state."""
    inner, rows = getattr(cell, "cell", cell), []
    for t, x in enumerate(xs):

        def now(name, value, t=t):
            return value if kept is not None and name.endswith("_state") else change(t, name, value)

        start = jax.tree.map(np.zeros_like, state) if reset[t] else state
        after, gates = family.equations(inner, params, start, x, now)
        if kept is not None:
            mixed = (d[t] * old + (1 - d[t]) * new for d, old, new in zip(kept, start, after, strict=True))
            named = zip(after._fields, mixed, strict=True)
            after = type(after)(*(change(t, f"{name}_state", value) for name, value in named))
        state = state if hold[t] else after
        rows.append((state, gates))
    states, gates = zip(*rows, strict=True)
    return jax.tree.map(lambda *x: np.stack(x), *states), {n: np.stack([g[n] for g in gates]) for n in gates[0]}


def said_of_steps(length=9):
    """Which steps of two sequences count, one with a gap and one padded, and where they start."""
    mask, resets = np.ones((length, 2), bool), np.zeros((length, 2), bool)
    mask[3:5, 0] = mask[6:, 1] = False
    resets[4:6, 0] = resets[2, 1] = True
    return mask, resets


@pytest.mark.sample(2)
@pytest.mark.parametrize("zoneout", [None, "mean", "drawn"])
def test_edits_of_gapped_passes_and_zoneouts_are_those_of_a_plain_loop(zoneout, library):
    mask, resets = said_of_steps()
    inner = lstmx.LSTM(3, 4)
    cell = lstmx.Zoneout(inner, hidden=0.3, state=0.2) if zoneout else inner
    params, state, xs, _ = family.draw(inner, (2,), length=9)
    given = to(library, (params, np.where(mask[..., None], xs, np.nan), state))
    options = {"mask": mask, "resets": resets}
    if zoneout == "drawn":
        options["key"] = 3
    edited = changed(cell, *given, edits=edit_of(), **options)
    reset = resets & mask
    for k in range(2):
        kept = None
        if zoneout == "drawn":
            kept = jax.tree.map(lambda d, k=k: np.asarray(d)[:, k], edited.controls.kept)
        elif zoneout:
            kept = [np.full(9, 0.3), np.full(9, 0.2)]
        first = jax.tree.map(lambda x, k=k: x[k], state)
        expected = controlled_loop(cell, params, xs[:, k], first, clamped(), ~mask[:, k], reset[:, k], kept)
        found = jax.tree.map(lambda x, k=k: np.asarray(x)[:, k], (edited.states, edited.gates))
        assert_close(found[0], expected[0], 1e-13)
        for name, values in expected[1].items():
            np.testing.assert_allclose(getattr(found[1], name)[mask[:, k]], values[mask[:, k]], atol=1e-13)
    assert not np.any(np.asarray(edited.outputs)[~mask])
    np.testing.assert_array_equal(edited.lengths, mask.sum(axis=0))
    np.testing.assert_array_equal(edited.acted["forget_gate"], [False] + [True] * 6 + [False] * 2)
    if zoneout == "drawn":
        assert_same(edited.controls.kept, lstmx.record(cell, *given, **options).controls.kept)


def test_an_effect_leaves_out_steps_that_do_not_count():
    cell, params, xs, state = passed(length=8, batch=(2,))
    lengths, edit = np.array([8, 4]), lstmx.edits.clamp(input_gate=0.0, steps=slice(2, None))
    history = lstmx.record(cell, params, xs, state, lengths=lengths)
    edited = changed(cell, params, xs, state, edits=edit, lengths=lengths)
    effect = lstmx.effect(history, edited, lambda outputs: 1 + (outputs**2).sum(-1))
    for k, length in enumerate(lengths):
        one = lambda x, k=k, length=length: x[:length, k]  # noqa: E731
        start = jax.tree.map(lambda x, k=k: x[k], state)
        alone = lstmx.effect(
            lstmx.record(cell, params, one(xs), start),
            changed(cell, params, one(xs), start, edits=edit),
            lambda outputs: 1 + (outputs**2).sum(-1),
        )
        for name in ("outputs", "norm", "loss", "loss_before"):
            assert_close(one(getattr(effect, name)), getattr(alone, name), 1e-14)
            assert not np.any(getattr(effect, name)[length:, k])
        assert_close(effect.by_unit[k], alone.by_unit, 1e-14)
    words = str(effect)
    counted = np.arange(8)[:, None] < lengths
    assert f"by {effect.norm[counted].mean():.3g} on average" in words
    assert f"by {(effect.norm[7, 0] + effect.norm[3, 1]) / 2:.3g} at the last step" in words
    with pytest.raises(ValueError, match="other steps that count, start anew or were drawn for than history"):
        lstmx.effect(lstmx.record(cell, params, xs, state), edited)


# ------------------------------------------------------------------------------------------------------ layers


def layered(library="numpy", dropout=0.0):
    stack = lstmx.Stack(
        [lstmx.LSTM(3, 4), lstmx.Bidirectional(lstmx.Zoneout(lstmx.GRU(4, 3))), lstmx.LSTM(6, 4)], dropout=dropout
    )
    mask, resets = said_of_steps()
    params = to(library, stack.init(np.random.default_rng(0), "float64"))
    xs = to(library, np.random.default_rng(1).normal(size=(9, 2, 3)))
    return stack, params, xs, {"mask": mask, "resets": resets}


@pytest.mark.sample(1)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_edits_of_layers_are_those_of_each_cell_on_what_the_layers_below_gave(library, dropout):
    stack, params, xs, said = layered(library, dropout)
    key = {"key": 5} if dropout else {}
    low, back = lstmx.edits.clamp(forget_gate=0.5, steps=2), lstmx.edits.ablate("update_gate", units=1, steps=3)
    edited = lstmx.intervene(stack, params, xs, edits={"layer 1, backward": [back], "layer 0": low}, **said, **key)
    first = edited.parts["layer 0"]
    expected = lstmx.intervene(stack.cells[0], params[0], xs, low, **said)
    assert_close((first.states, first.gates), (expected.states, expected.gates), 1e-14)
    pair = edited.parts["layer 1"]
    above = first.outputs if edited.masks is None else first.outputs * edited.masks[0]
    assert isinstance(pair.parts["forward"], lstmx.History)
    assert_close(pair.parts["forward"].inputs, np.where(said["mask"][..., None], above, 0), 1e-14)
    backward = pair.parts["backward"]
    assert_close(backward.inputs, np.where(said["mask"][..., None], above, 0)[::-1], 1e-14)
    assert not np.any(np.asarray(backward.update_gate)[3, :, 1])
    np.testing.assert_array_equal(edited.changes["layer 1, backward: update_gate"], np.arange(9)[::-1] == 3)
    top = edited.parts["layer 2"]
    inputs = pair.outputs if edited.masks is None else pair.outputs * edited.masks[1]
    again = lstmx.record(stack.cells[2], params[2], inputs, **said)
    assert_close((top.states, edited.outputs), (again.states, again.outputs), 1e-14)
    assert edited.edits == (
        "layer 0: clamp(forget_gate=0.5, steps=[2])",
        "layer 1: backward: ablate(update_gate, units=[1], steps=[3])",
    )
    none = lstmx.intervene(stack, params, xs, {}, **said, **key)
    assert_close(none.outputs, lstmx.record(stack, params, xs, **said, **key).outputs, 1e-14)
    assert is_in(library, (edited.outputs, none.outputs))
    assert is_in("numpy", edited.to_numpy())


@pytest.mark.slow
def test_an_effect_of_edited_layers_is_that_on_the_top():
    stack, params, xs, said = layered("jax")
    edits = {"layer 0": lstmx.edits.clamp(forget_gate=0.5, steps=2)}
    history = lstmx.record(stack, params, xs, **said)
    edited = lstmx.intervene(stack, params, xs, edits, **said)
    effect = lstmx.effect(history, edited, lambda outputs: (outputs**2).sum(-1))
    assert_close(effect.outputs, edited.outputs - history.outputs, 1e-15)
    assert effect.changed == ("layer 0: forget_gate",)
    np.testing.assert_array_equal(effect.acted, np.arange(9) == 2)
    assert "effect of layer 0: clamp(forget_gate=0.5, steps=[2])" in str(effect)
    render(lstmx.plot.effect(effect, 1))
    jitted = jax.jit(lambda xs: lstmx.intervene(stack, params, xs, edits, **said).outputs)(xs)
    assert_close(jitted, edited.outputs, 1e-14)
    with pytest.raises(ValueError, match="edited has other params than history"):
        lstmx.effect(lstmx.record(stack, jax.tree.map(lambda x: x + 1, params), xs, **said), edited)
    with pytest.raises(TypeError, match="history is an EditedLayers, whose steps do not follow"):
        lstmx.gradient_flow(edited)


def test_layers_may_hold_a_step_function_that_no_edit_is_for():
    def step(params, h, x):
        return jnp.tanh(params["W"] @ x + params["U"] @ h)

    stack = lstmx.Stack([lstmx.GRU(3, 3), lstmx.from_step(step, jnp.zeros(4), 3)])
    params = to("jax", (stack.cells[0].init(np.random.default_rng(0), "float64"), {}))
    params = params[0], {"W": jnp.ones((4, 3)) / 4, "U": jnp.eye(4) / 2}
    edited = lstmx.intervene(stack, params, jnp.ones((5, 3)), {"layer 0": lstmx.edits.clamp(update_gate=1.0)})
    assert not np.any(edited.parts["layer 0"].hidden_state)
    assert edited.outputs.shape == (5, 4)
    for cell, given, edits in [
        (stack, params, {"layer 1": lstmx.edits.ablate()}),
        (stack.cells[1], params[1], lstmx.edits.ablate()),
    ]:
        with pytest.raises(TypeError, match=r"step\(input_size=3"):
            lstmx.intervene(cell, given, jnp.ones((5, 3)), edits)


def test_what_names_no_layer_is_refused():
    stack, params, xs, _ = layered()
    edit = lstmx.edits.clamp(forget_gate=0.5)
    with pytest.raises(
        TypeError, match=r"edits is a Edit; of layers expected a dict .* out of 'layer 0', 'layer 1, f"
    ):
        lstmx.intervene(stack, params, xs, edit)
    with pytest.raises(ValueError, match="edits names 'layer 1'; the cells are 'layer 0', 'layer 1, forward'"):
        lstmx.intervene(stack, params, xs, {"layer 1": edit})
    with pytest.raises(TypeError, match="edits holds a float"):
        lstmx.intervene(stack, params, xs, {"layer 0": 1.0})
    with pytest.raises(ValueError, match="a name in clamp is 'forget_gate'"):
        lstmx.intervene(stack, params, xs, {"layer 1, forward": edit})
    cell = stack.cells[0]
    with pytest.raises(TypeError, match="edits is a dict, of names of layers; LSTM"):
        lstmx.intervene(cell, params[0], xs, {"layer 0": edit})


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: lstmx.edits.clamp(reset_gate=1.0),
            ValueError,
            "a name in clamp is 'reset_gate'; expected one of 'hidden_st",
        ),
        (lambda: lstmx.edits.ablate("cell"), ValueError, "a name in ablate is 'cell'"),
        (
            lambda: lstmx.edits.clamp(forget_gate=1.0, units=4),
            ValueError,
            "units has 4; this LSTM has units 0 to 3",
        ),
        (
            lambda: lstmx.edits.clamp(forget_gate=1.0, units=[0, -5]),
            ValueError,
            "units has -5; this LSTM has units 0 to 3",
        ),
        (lambda: lstmx.edits.ablate(steps=6), ValueError, "steps has 6; this pass has steps 0 to 5"),
        (lambda: lstmx.edits.ablate(steps=slice(2, 9)), ValueError, "steps has 9; this pass has steps 0 to 5"),
        (
            lambda: lstmx.edits.ablate(steps=slice(3, 3)),
            ValueError,
            "steps is 3:3, which holds none of the steps 0 to 5",
        ),
        (lambda: lstmx.edits.ablate(steps=range(4, 8)), ValueError, "steps has 6"),
        (
            lambda: lstmx.edits.clamp(forget_gate=np.ones(3)),
            ValueError,
            r"has shape \(3,\); this pass takes a number or \[H\]",
        ),
        (
            lambda: lstmx.edits.clamp(forget_gate=np.ones(4, "f4")),
            TypeError,
            "forget_gate of clamp is float32; the param",
        ),
        (lambda: 1.0, TypeError, "edits holds a float; expected one such as lstmx.edits.clamp"),
        (lambda: [lstmx.edits.ablate(), None], TypeError, "edits holds a NoneType"),
        (lambda: lambda step, v: None, TypeError, "the edit <lambda> returned a NoneType for LSTMGates"),
        (lambda: lambda step, v: tuple(v), TypeError, "returned a tuple for LSTMGates; expected the same"),
        (
            lambda: lambda step, v: v._replace(**{v._fields[0]: 1.0}),
            TypeError,
            "input_gate as returned by the edit <lambda> is a float; expected an array of float64",
        ),
        (
            lambda: lambda step, v: v._replace(**{v._fields[0]: v[0][..., :2]}),
            ValueError,
            r"input_gate as returned by the edit <lambda> has shape \(2,\); expected \(4,\)",
        ),
        (
            lambda: lambda step, v: v._replace(**{v._fields[0]: v[0].astype("float32")}),
            TypeError,
            "input_gate as returned by the edit <lambda> is float32; it came as float64",
        ),
    ],
)
def test_what_does_not_fit_the_pass_is_refused(make, error, words, library):
    cell, params, xs, state = passed()
    with pytest.raises(error, match=words):
        changed(cell, *to(library, (params, xs, state)), edits=make())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: lstmx.edits.clamp(),
            TypeError,
            r"clamp was given no gate or state; .* lstmx.edits.clamp\(forget_gate=1.0\)",
        ),
        (
            lambda: lstmx.edits.clamp(forget_gate="1"),
            TypeError,
            "forget_gate is a str; expected a NumPy or JAX array",
        ),
        (
            lambda: lstmx.edits.clamp(forget_gate=np.nan),
            ValueError,
            "forget_gate is nan; expected a finite number",
        ),
        (lambda: lstmx.edits.clamp(forget_gate=True), ValueError, "forget_gate is True; expected a finite number"),
        (
            lambda: lstmx.edits.clamp(forget_gate=np.ones((2, 4))),
            ValueError,
            r"has shape \(2, 4\); expected a number or",
        ),
        (lambda: lstmx.edits.clamp(forget_gate=1.0, units=1.5), TypeError, "units holds 1.5; expected an integer"),
        (
            lambda: lstmx.edits.clamp(forget_gate=1.0, units=np.array([True, False])),
            TypeError,
            "units holds .*True",
        ),
        (lambda: lstmx.edits.ablate(steps=[]), ValueError, "steps is empty; expected at least one position"),
        (lambda: lstmx.edits.ablate(1), TypeError, "a name is a int; expected the name of a gate or state"),
        (
            lambda: lstmx.edits.ablate(mean_of=np.ones(3)),
            TypeError,
            "mean_of is a ndarray; expected a History or Edited",
        ),
        (lambda: lstmx.edits.patch(None), TypeError, "history is a NoneType; expected a History or Edited"),
        (lambda: lstmx.edits.noise(-1, cell_state=1.0), ValueError, "key is -1; a seed is an integer from 0"),
        (
            lambda: lstmx.edits.noise(np.random.default_rng(0), cell_state=1.0),
            TypeError,
            "key is a Generator; expected",
        ),
        (
            lambda: lstmx.edits.noise(0, cell_state=-1.0),
            ValueError,
            "cell_state is -1.0; expected a standard deviation",
        ),
        (lambda: lstmx.edits.noise(0), TypeError, "noise was given no gate or state"),
    ],
)
def test_what_no_pass_could_take_is_refused_at_once(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_patch_fits_one_length_batch_and_dtype():
    cell, params, xs, state = passed(batch=(2,))
    history = lstmx.record(cell, params, xs, state)
    with pytest.raises(
        ValueError, match=r"hidden_state of patch has shape \(5, 2, 4\); this pass takes \[T, \*batch, H\]"
    ):
        changed(cell, params, xs, state, edits=lstmx.edits.patch(history[:5]))
    with pytest.raises(ValueError, match=r"cell_state of patch has shape \(6, 4\)"):
        changed(cell, params, xs, state, edits=lstmx.edits.patch(history.sequence(0), "cell_state"))
    narrow = jax.tree.map(lambda x: x.astype("float32"), (params, xs, state))
    with pytest.raises(TypeError, match="hidden_state of patch is float64"):
        changed(cell, *narrow, edits=lstmx.edits.patch(history))
    with pytest.raises(ValueError, match="a name is 'reset_gate'; expected one of"):
        lstmx.edits.patch(history, "reset_gate")
    excerpt = lstmx.excerpt(cell, params, xs, state, every=2)
    with pytest.raises(TypeError, match="history is a Excerpt"):
        lstmx.edits.patch(excerpt)


def test_what_is_no_edit_and_no_cell_with_gates_is_refused():
    cell, params, xs, state = passed()
    edited = changed(cell, params, xs, state, edits=lstmx.edits.ablate())
    with pytest.raises(TypeError, match="reuse is a Edited"):
        lstmx.record(cell, params, xs, state, reuse=edited)

    class Unhashable:
        __hash__ = None

        def __call__(self, step, values):
            return values

    with pytest.raises(TypeError, match="edits holds a Unhashable without a hash"):
        changed(cell, params, xs, edits=Unhashable())
    with pytest.raises(
        TypeError, match="input_gate as returned by the edit <lambda> is of JAX in a pass in NumPy"
    ):
        changed(cell, params, xs, edits=lambda step, v: type(v)(*map(jnp.asarray, v)))


@pytest.mark.parametrize(
    "analysis",
    [
        lstmx.gradient_flow,
        lstmx.path_spectrum,
        lstmx.influence,
        lstmx.gate_kernel,
        lstmx.gate_statistics,
        lstmx.jacobians,
        lstmx.input_jacobians,
        lstmx.isometry,
        lstmx.long_jacobian,
        lstmx.lyapunov_spectrum,
        lstmx.memory_report,
        lstmx.highway,
        lambda edited: lstmx.backward(edited, edited.hidden_state),
        lstmx.plot.saturation,
        lstmx.plot.timescales,
    ],
)
def test_an_analysis_refuses_an_edited_pass(analysis):
    cell, params, xs, state = passed(length=20)
    edited = changed(cell, params, xs, state, edits=lstmx.edits.ablate(steps=3))
    with pytest.raises(TypeError, match="Edited"):
        analysis(edited)


# -------------------------------------------------------------------------------------------------------- effects


@pytest.mark.sample(1)
def test_an_effect_whose_square_no_float_holds_has_its_norm(library):
    cell = lstmx.GRU(2, 3)
    zeros = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0)))
    params, xs = to(library, (zeros, np.zeros((4, 2), "float32")))
    edited = lstmx.intervene(cell, params, xs, lstmx.edits.clamp(candidate=1e-30))
    effect = lstmx.effect(lstmx.record(cell, params, xs), edited)
    np.testing.assert_allclose(effect.norm, np.sqrt(3) * 1e-30 * (1 - 0.5 ** np.arange(1, 5)), rtol=1e-6)


@pytest.mark.sample(1)
def test_an_effect_is_the_change_of_outputs_and_of_a_loss(library):
    cell, params, xs, state = passed(batch=(2,), length=10)
    given = to(library, (params, xs, state))
    history = lstmx.record(cell, *given)
    edited = changed(cell, *given, edits=lstmx.edits.clamp(input_gate=0.0, units=[1, 2], steps=slice(4, 6)))
    effect = lstmx.effect(history, edited, lambda outputs: (outputs**2).sum(-1))
    before, after = (np.asarray(one.hidden_state) for one in (history, edited))
    np.testing.assert_array_equal(effect.outputs, after - before)
    np.testing.assert_allclose(effect.norm, np.linalg.norm(after - before, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(effect.by_unit, np.sqrt(np.mean((after - before) ** 2, axis=0)), rtol=1e-14)
    np.testing.assert_allclose(effect.loss, (after**2).sum(-1) - (before**2).sum(-1), atol=1e-15)
    assert not np.any(np.asarray(effect.norm)[:4] > 1e-15)
    assert np.all(np.asarray(effect.norm)[4:] > 0)
    np.testing.assert_array_equal(effect.acted, [False] * 4 + [True] * 2 + [False] * 4)
    assert effect.changed == ("input_gate",)
    words = str(effect)
    assert "effect of clamp(input_gate=0.0, units=[1, 2], steps=4:6) on LSTM(input_size=3, hidden_size=4)" in words
    assert "10 steps, batch (2,); values changed at 2 of them, from step 4 to 5: input_gate" in words
    assert f"moved by {effect.norm.max():.3g} (L2) at most" in words
    assert f"loss: {(before**2).sum(-1).mean():.4g} before, {(after**2).sum(-1).mean():.4g} after" in words
    assert repr(effect).endswith(": 10 steps, with loss)")
    none = lstmx.effect(edited, edited)
    assert none.loss is None
    assert not np.any(none.outputs)
    unmoved = str(lstmx.effect(history, changed(cell, *given, edits=[])))
    assert "no value was changed" in unmoved
    assert "outputs: not one of them moved" in unmoved


def test_an_effect_is_of_the_edits_alone():
    cell, params, xs, state = passed(batch=(2,))
    edit = lstmx.edits.ablate("candidate")
    edited = changed(cell, params, xs, state, edits=edit)
    history = lstmx.record(cell, params, xs, state)
    coupled, *others = passed("CIFG", batch=(2,))
    for other, words in [
        (lstmx.record(coupled, *others), "edited has the cell LSTM"),
        (history[:3], "edited has the length 6, history 3"),
        (history.sequence(0), r"edited has the batch axes \(2,\), history \(\)"),
        (lstmx.record(cell, *to("jax", (params, xs, state))), "edited has the library numpy, history jax"),
        (
            lstmx.record(cell, params._replace(bias=params.bias + 1), xs, state),
            "edited has other params than history",
        ),
        (lstmx.record(cell, params, xs + 1, state), "edited has other inputs than history"),
        (lstmx.record(cell, params, xs), "edited has other initial than history"),
    ]:
        with pytest.raises(ValueError, match=words):
            lstmx.effect(other, edited)
    with pytest.raises(TypeError, match="edited is a History; expected an Edited"):
        lstmx.effect(history, history)
    with pytest.raises(TypeError, match="history is a ndarray"):
        lstmx.effect(xs, edited)
    with pytest.raises(TypeError, match="loss is a ndarray; expected a function of the outputs"):
        lstmx.effect(history, edited, xs)
    with pytest.raises(ValueError, match=r"loss returned \(\); expected the loss of each step, .* = \(6, 2\)"):
        lstmx.effect(history, edited, lambda outputs: outputs.mean())


# -------------------------------------------------------------------------------------------------------- figures


def drawn(length=30, batch=(), name="NP", loss=None, edit=None):
    cell, params, xs, state = passed(name, length=length, batch=batch)
    edited = changed(cell, params, xs, state, edits=edit or lstmx.edits.clamp(forget_gate=1.0, steps=0))
    return lstmx.effect(lstmx.record(cell, params, xs, state), edited, loss)


@pytest.mark.slow
@pytest.mark.usefixtures("_pyplot_is_left_alone")
def test_the_figure_shows_the_change_the_loss_and_what_was_edited():
    edits = [
        lstmx.edits.clamp(forget_gate=1.0, units=0, steps=slice(5, 9)),
        lstmx.edits.ablate("cell_state", steps=20),
    ]
    effect = drawn(batch=(2,), edit=edits, loss=lambda outputs: (outputs**2).sum(-1))
    figure = lstmx.plot.effect(effect, 1)
    render(figure)
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_title("left").split(":")[0] for ax in panels] == [
        "change of the outputs",
        "norm of the change",
        "loss of each step",
        "forget gate, before",
        "forget gate, edited",
        "cell state, before",
        "cell state, edited",
    ]
    np.testing.assert_allclose(panels[1].lines[0].get_ydata(), effect.norm[:, 1])
    for line, values in zip(panels[2].lines, (effect.loss_before, effect.loss_after), strict=True):
        np.testing.assert_allclose(line.get_ydata(), values[:, 1])
    assert labels(panels[2]) == ["before", "edited"]
    change = panels[0].images[0]
    assert change.get_clim() == (-np.abs(effect.outputs[:, 1]).max(), np.abs(effect.outputs[:, 1]).max())
    for ax, values in zip(panels[3:5], (effect.history.forget_gate, effect.edited.forget_gate), strict=True):
        shown = np.asarray(ax.images[0].get_array())
        np.testing.assert_allclose(shown[:: len(shown) // 4][:4, :: shown.shape[1] // 30][:, :30], values[:, 1].T)
        assert ax.images[0].get_clim() == (0, 1)
    assert panels[5].images[0].get_clim() == panels[6].images[0].get_clim()
    bands = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in panels[1].patches]
    assert bands == [(4.5, 8.5), (19.5, 20.5)]
    assert figure.get_suptitle().startswith("effect over 30 steps, sequence 1\nclamp(forget_gate=1.0, units=[0]")


@pytest.mark.slow
@pytest.mark.usefixtures("_pyplot_is_left_alone")
def test_a_figure_of_any_effect_can_be_drawn():
    for effect in (
        drawn(length=1),
        drawn(length=2500, edit=lstmx.edits.noise(0, hidden_state=0.1, steps=slice(0, None, 7))),
        drawn(edit=lambda step, values: values),  # nothing changed
        drawn(name="SimpleRNN", edit=lstmx.edits.ablate(units=0)),
    ):
        render(lstmx.plot.effect(effect))
    long = lstmx.plot.effect(drawn(length=2500, edit=lstmx.edits.clamp(forget_gate=1.0, steps=slice(2400, None))))
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in long.axes[1].patches] == [
        (2399.5, 2499.5)
    ]
    cell, params, xs, _ = passed()
    render(lstmx.plot.dynamics(changed(cell, params, xs, edits=lstmx.edits.ablate("output_gate", steps=2))))


def test_a_figure_says_what_it_cannot_draw():
    effect = drawn(batch=(2,))
    with pytest.raises(TypeError, match="effect is a History; expected an Effect"):
        lstmx.plot.effect(effect.history)
    with pytest.raises(IndexError, match=r"sequence index \(2,\) is outside the batch axes \(2,\)"):
        lstmx.plot.effect(effect, 2)

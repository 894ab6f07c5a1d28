"""What works with what: every analysis in every context of a pass, and what it should give there.

`TABLE[analysis][context]` is either a truth, which `test_contexts.py` checks at two sizes in two libraries, or a
refusal in words. `python tests/contexts.py` prints it as README.md here has it.
"""

import functools
import itertools
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain
import test_page as pages
from reference import to

import lstmx
from lstmx.edits import clamp

SIZES = {"small": (3, 4, 12), "large": (5, 96, 8)}  # D, H and T: D + H below and above 96
LIBRARIES = ("numpy", "jax")

CELL = ("plain", "lengths", "mask", "resets", "Zoneout", "Zoneout, key", "step function", "on disk")
STACK = ("stack", "stack, key", "stack, mask")
BOTH = ("both directions", "both directions, mask", "both directions in a stack")
CONTEXTS = (*CELL, *STACK, *BOTH)
WORDS = {
    "plain": "an `LSTM`",
    "lengths": "`lengths=`",
    "mask": "`mask=` with padding in front and holes, NaN under it",
    "resets": "`resets=`",
    "Zoneout": "`Zoneout(LSTM)` without a key",
    "Zoneout, key": "`Zoneout(LSTM)` with `key=`",
    "step function": "`from_step`, in JAX",
    "on disk": "`record_to(path, ...)`, inputs a `numpy.memmap`",
    "stack": "`Stack` of an `LSTM` and a `GRU`",
    "stack, key": "the same with dropout and `key=`",
    "stack, mask": "the same with `mask=`",
    "both directions": "`Bidirectional`",
    "both directions, mask": "the same with `mask=`",
    "both directions in a stack": "a `Stack` with a `Bidirectional` inside",
}
# Contexts that another has within it: JAX, which compiles each, is left out of them.
IMPLIED = {"lengths": "mask", "stack": "stack, mask", "both directions": "both directions, mask"}
ZONED = ("Zoneout", "Zoneout, key")
MASKED = ("lengths", "mask", "stack, mask", "both directions, mask")


# ------------------------------------------------------------------------------------------------- the passes


class Case:
    """One pass, in one library, and what it should give.

    `at[b]` are the counted steps of sequence b; `n[b]` is how many there are.
    """

    def __init__(self, context: str, size: str, library: str):
        self.context, self.library = context, library
        self.features, self.hidden, self.length = self.sizes = SIZES[size]
        self.cell, self.kind = self._cell()
        draws = np.random.default_rng(7)
        scale = 1.2 / math.sqrt(self.features + self.hidden)
        bare = lstmx.LSTM(self.features, self.hidden) if context == "step function" else self.cell
        params = bare.init(np.random.default_rng(0), "float64")
        self.params = jax.tree.map(lambda x: draws.normal(0, scale, x.shape), params)
        state = jax.tree.map(lambda x: draws.normal(0, 0.5, x.shape), bare.initial_state(self.params, (2,)))
        self.s0 = plain.state_of(state)
        self.xs = draws.normal(size=(self.length, 2, self.features))
        self.weights = draws.normal(size=(self.length, 2, self.cell.output_size))
        self.counts, self.resets = self._timing()
        self.xs[~self.counts] = np.nan
        self.at = [np.flatnonzero(self.counts[:, b]) for b in range(2)]
        self.n = np.array([len(at) for at in self.at])
        self.said = self._said()
        self.folder = tempfile.TemporaryDirectory()
        self.given = to(library, (self.params, self.xs, state))
        if context == "step function":  # parameters in a dict, a state in a tuple
            self.given = (self.given[0]._asdict(), self.given[1], tuple(self.given[2]))
        if context == "on disk":
            np.save(path := self.new_path().with_suffix(".npy"), self.xs)
            mapped = np.load(path, mmap_mode="r")
            self.given = (self.given[0], mapped, self.given[2])

    def _cell(self) -> tuple[Any, str]:
        lstm = lstmx.LSTM(self.features, self.hidden)
        gru = lstmx.GRU(self.hidden, self.hidden)
        if self.context in STACK:
            return lstmx.Stack([lstm, gru], dropout=0.4 if "key" in self.context else 0.0), "stack"
        if self.context == "both directions in a stack":
            return lstmx.Stack([lstm, lstmx.Bidirectional(gru)]), "stack with both"
        if self.context in BOTH:
            return lstmx.Bidirectional(lstmx.GRU(self.features, self.hidden)), "both"
        if self.context in ZONED:
            return lstmx.Zoneout(lstm, hidden=0.3, state=0.2), "lstm"
        if self.context == "step function":
            return plain.step_function(self.features, self.hidden), "lstm"
        return lstm, "lstm"

    def _timing(self) -> tuple[np.ndarray, np.ndarray]:
        counts, resets = np.ones((self.length, 2), bool), np.zeros((self.length, 2), bool)
        if self.context == "lengths":
            counts[-3:, 1] = False
        elif self.context in MASKED:  # padding in front, a hole, and padding behind
            counts[[0, 1, 4], 0] = counts[[2, 3, -2, -1], 1] = False
        if self.context == "resets":
            resets[self.length // 3, 0] = resets[[0, self.length // 2], 1] = True
        return counts, resets

    def _said(self) -> dict[str, Any]:
        if self.context == "lengths":
            return {"lengths": self.n}
        if self.context in MASKED:
            return {"mask": to(self.library, self.counts)}
        if self.context == "resets":
            return {"resets": to(self.library, self.resets)}
        return {"key": 5} if "key" in self.context else {}

    def new_path(self) -> Path:
        """Where nothing is yet."""
        return Path(tempfile.mkdtemp(dir=self.folder.name), "made")

    def recorded(self, *given: Any) -> Any:
        """The history of this pass, recorded once; or of other arguments, anew."""
        if all(a is b for a, b in zip(given, self.given, strict=True)):
            return self.history
        return lstmx.record(self.cell, *given, **self.said)

    @functools.cached_property
    def history(self) -> Any:
        if self.context == "on disk":
            return lstmx.record_to(self.new_path(), self.cell, *self.given)
        return lstmx.record(self.cell, *self.given, **self.said)

    # ---------------------------------------------------------------------------------- what it should give

    def named(self, params: Any) -> Any:
        """Parameters, or their gradients, in the order of those in `self.params`."""
        return type(self.params)(**params) if self.context == "step function" else params

    def front(self, x: Any) -> np.ndarray:
        """`x` [T, B, ...] with the counted steps in front, zeros behind."""
        made = np.zeros_like(x)
        for b, at in enumerate(self.at):
            made[: len(at), b] = np.asarray(x)[at, b]
        return made

    @functools.cached_property
    def rows(self) -> plain.Rows:
        kept, dropped = np.zeros((self.length, 2, self.s0.shape[-1])), np.ones((self.length, 2, self.hidden))
        if self.context == "Zoneout":
            kept[...] = np.repeat([0.3, 0.2], self.hidden)
        if self.context == "Zoneout, key":
            kept = plain.state_of(self.history.controls.kept)
        if self.context == "stack, key":
            dropped = np.asarray(self.history.masks[0])
        return plain.Rows(*map(self.front, (self.xs, self.resets, kept, dropped)))

    @property
    def core(self) -> Any:
        """The cell of the equations, or the layers."""
        if self.context == "step function":
            return lstmx.LSTM(self.features, self.hidden)
        return self.cell.core if self.kind == "lstm" else self.cell

    @functools.cached_property
    def by_hand(self) -> list[plain.Pass]:
        """Each sequence alone, in NumPy."""
        return [
            plain.by_hand(self.kind, self.core, self.params, self.s0[b], [r[:, b] for r in self.rows], self.n[b])
            for b in range(2)
        ]

    @functools.cached_property
    def before(self) -> np.ndarray:
        """The joint state before each step, [T, B, S]."""
        made = np.zeros((self.length, 2, self.s0.shape[-1]))
        for b, one in enumerate(self.by_hand):
            made[: self.n[b], b] = np.concatenate([self.s0[b : b + 1], one.states[:-1]])
        return made

    @functools.cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """∂s_t/∂s_{t-1} and ∂s_t/∂x_t."""
        return tuple(map(np.array, plain.jacobians(self.kind, self.params, self.before, self.rows)))

    def gradients(self, weights: np.ndarray, squares: float) -> tuple[Any, ...]:
        """Of Σ weights · outputs + squares · Σ final²: by parameters, initial state, inputs and states."""
        nothing = np.zeros((self.length, *self.s0.shape))
        given = (self.params, self.s0, self.rows, nothing, self.n, self.front(weights), squares)
        return jax.tree.map(np.asarray, plain.gradients(self.kind, *given))

    @functools.cached_property
    def last(self) -> np.ndarray:
        """1 for the last output of each sequence, [T, B, H]."""
        made = np.zeros_like(self.weights)
        for b, at in enumerate(self.at):
            made[at[-1], b] = 1
        return made

    def cells(self) -> tuple[str, ...]:
        return tuple(self.by_hand[0].gates)

    @property
    def shown(self) -> slice:
        """Which numbers of the joint state are outputs."""
        size = self.s0.shape[-1]
        return slice(size - self.hidden, size) if self.kind == "stack" else slice(0, self.hidden)

    def gate(self, name: str, cell: str = "") -> list[np.ndarray]:
        """A gate of each sequence."""
        return [one.gates[cell][name] for one in self.by_hand]

    def log_retention(self, cell: str = "") -> list[np.ndarray]:
        """What each step leaves of the old cell state along its gate (of h in a GRU), [n, H] of each sequence."""
        name = "forget_gate" if "forget_gate" in self.by_hand[0].gates[cell] else "update_gate"
        found = []
        for b, gate in enumerate(self.gate(name, cell)):
            kept = self.rows.kept[: self.n[b], b, -self.hidden :] if self.kind == "lstm" else 0.0
            share = kept + (1 - kept) * gate
            if self.context == "resets":
                share = np.where(self.rows.reset[: self.n[b], b, None], 0, share)
            with np.errstate(divide="ignore"):
                found.append(np.log(share))
        return found

    def same(self, found: Any, expected: Any, tolerance: float = 1e-10, otherwise: float | None = None) -> None:
        """`found` [T, B, ...] is `expected`, [n, ...] of each sequence, and `otherwise` where no step counts."""
        found = np.asarray(found)
        for b, at in enumerate(self.at):
            wanted = expected[b] if isinstance(expected, list) else expected[: len(at), b]
            np.testing.assert_allclose(found[at, b], wanted, rtol=tolerance, atol=tolerance)
        if otherwise is not None:
            np.testing.assert_array_equal(found[~self.counts], otherwise)


@functools.cache
def case_of(context: str, size: str, library: str) -> Case:
    return Case(context, size, library)


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Two trees of the same arrays."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------- the table


class Refused(NamedTuple):
    """An error in words."""

    error: type[Exception]
    words: str


class Analysis(NamedTuple):
    """A row: `make(case)` gives how it is computed from (params, xs, state), and what checks the result."""

    name: str
    covers: tuple[str, ...]
    make: Callable[[Case], tuple[Callable[..., Any], Callable[[Any], None]]]
    traced: Any  # True, a refusal, or None where nothing in it could be traced
    libraries: tuple[str, ...]


# Inside a JAX transformation other than as `traced` of the row says.
TRACED_APART = {
    ("lyapunov_spectrum", context): Refused(ValueError, "some steps of this history do not count")
    for context in MASKED
}
ANALYSES: dict[str, Analysis] = {}
TABLE: dict[str, dict[str, bool | Refused]] = {}


def analysis(
    holds: Any,
    refused: Any = None,
    *,
    name: str = "",
    covers: Any = None,
    traced: Any = True,
    libraries: Any = LIBRARIES,
):
    """Put a row into the table.

    Args:
        holds: the contexts in which it is right.
        refused: the others, (contexts, error, words) each.
        name: of the row; else that of the function.
        covers: the public functions in it; else the one of its name.
        traced: whether it works inside `jax.jit` and `jax.vmap`; or the refusal; None where that means nothing.
        libraries: in which it works.
    """

    def put(make):
        called = name or make.__name__
        ANALYSES[called] = Analysis(called, (called,) if covers is None else covers, make, traced, libraries)
        TABLE[called] = dict.fromkeys(holds, True)
        for contexts, error, words in refused or ():
            TABLE[called] |= dict.fromkeys(contexts, Refused(error, words))
        return make

    return put


def without(*contexts):
    return tuple(one for one in CONTEXTS if one not in contexts)


def unknown(argument):
    """Python's own words where a function does not take an argument."""
    return TypeError, f"unexpected keyword argument '{argument}'"


NO_SUCH_GATE = "^(lengths|mask|resets|key): a (LSTM|Zoneout) has the gates"
IN_TRACE = Refused(TypeError, "inside a JAX transformation")
BOTH_WAYS = TypeError, "both directions"
ON_DISK = ("on disk",), TypeError, r"on disk; .* history.read\(\)"
KEYS = ("Zoneout, key", "stack, key")


# --------------------------------------------------------------------------------------------------- passes


@analysis(CONTEXTS)
def run(case):
    def verify(found):
        outputs, final = found
        case.same(outputs, [one.outputs for one in case.by_hand], otherwise=0)
        np.testing.assert_allclose(plain.state_of(final), [one.final for one in case.by_hand], atol=1e-12)

    return lambda *given: lstmx.run(case.cell, *given, **case.said), verify


@analysis(CONTEXTS, name="jax.grad of run", covers=(), libraries=("jax",))
def grad_of_run(case):
    def compute(*given):
        def loss(params, xs, state):
            outputs, final = lstmx.run(case.cell, params, xs, state, **case.said)
            return (outputs * case.weights).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(final))

        return jax.grad(loss, argnums=(0, 1, 2))(*given)

    return compute, gradients_hold(case)


def gradients_hold(case, squares=1.0):
    def verify(found):
        params, xs, state = found
        d_params, d_state, d_xs, _ = case.gradients(case.weights, squares)
        close(case.named(params), d_params)
        case.same(xs, d_xs, otherwise=0)
        close(plain.state_of(state), d_state)

    return verify


@analysis(without("on disk"), [ON_DISK])
def backward(case):
    def compute(*given):
        history = case.recorded(*given)
        final = getattr(history, "final", None)
        twice = jax.tree.map(lambda x: 2 * x, final)
        found = lstmx.backward(history, to(case.library, case.weights), twice)
        return found.parameters, found.inputs, found.initial

    return compute, gradients_hold(case)


@analysis(CONTEXTS)
def record(case):
    def compute(*given):
        kept = lstmx.record(case.cell, *given, keep="states", **case.said)
        return case.recorded(*given), kept

    def verify(found):
        for history in found:
            whole = history.read() if isinstance(history, lstmx.StoredHistory) else history
            case.same(whole.outputs, [one.outputs for one in case.by_hand], otherwise=0)
            np.testing.assert_array_equal(whole.lengths, case.n)
            cells = {"": (whole, np.asarray)} if case.kind == "lstm" else whole.cells()
            assert tuple(cells) == case.cells()
            for name, (part, turn) in cells.items():
                shown = case.by_hand[0].gates[name] if case.context != "step function" else ("forget_gate",)
                for gate in shown:
                    case.same(turn(getattr(part, gate)), case.gate(gate, name))

    return compute, verify


@analysis(
    (*CELL[:6], "on disk"),
    [(("step function", *STACK, *BOTH), TypeError, "an excerpt is of one cell with gates")],
)
def excerpt(case):
    every, fields = 2, ["forget_gate", "cell_state"]

    def verify(found):
        steps = np.arange((case.length - 1) % every, case.length, every)
        cells = [one.states[:, case.hidden :] for one in case.by_hand]
        for b, at in enumerate(case.at):
            chosen = np.isin(at, steps)
            for field, expected in (("cell_state", cells[b]), ("forget_gate", case.gate("forget_gate")[b])):
                kept = np.asarray(getattr(found, field))[np.isin(steps, at), b]
                np.testing.assert_allclose(kept, expected[chosen], atol=1e-12)

    def compute(*given):
        return lstmx.excerpt(case.cell, *given, every=every, fields=fields, **case.said)

    return compute, verify


EDITED = slice(3, 6)
EDITED_GATE = {
    "lstm": "forget_gate",
    "stack": "forget_gate",
    "both": "update_gate",
    "stack with both": "forget_gate",
}


def edited_by_hand(case):
    """Outputs of each sequence where a gate of the lowest cell is one half at some steps, of the whole pass."""
    core, found = case.core, []
    for b, at in enumerate(case.at):

        def change(step, name, value, at=at):
            held = name == EDITED_GATE[case.kind] and EDITED.start <= at[step] < EDITED.stop
            return np.full_like(value, 0.5) if held else value

        rows = [r[:, b] for r in case.rows]
        found.append(plain.by_hand(case.kind, core, case.params, case.s0[b], rows, len(at), change).outputs)
    return found


def intervened(case, *given):
    edits = clamp(**{EDITED_GATE[case.kind]: 0.5}, steps=EDITED)
    if case.kind != "lstm":
        edits = {case.cells()[0]: edits}
    return lstmx.intervene(case.cell, given[0], given[1], edits, given[2], **case.said)


NO_EDITS = ("step function",), TypeError, "expected a cell of the library, whose gates edits change"


@analysis(without("step function"), [NO_EDITS])
def intervene(case):
    return lambda *given: intervened(case, *given), lambda found: case.same(
        found.outputs, edited_by_hand(case), otherwise=0
    )


@analysis(
    without("step function", "on disk"),
    [NO_EDITS, (("on disk",), TypeError, "history is a StoredHistory; expected a History")],
)
def effect(case):
    def compute(*given):
        return lstmx.effect(case.recorded(*given), intervened(case, *given))

    def verify(found):
        changes = [a - b.outputs for a, b in zip(edited_by_hand(case), case.by_hand, strict=True)]
        case.same(found.outputs, changes)
        case.same(found.norm, [np.linalg.norm(x, axis=-1) for x in changes])

    return compute, verify


@analysis(CONTEXTS)
def truncated(case):
    steps = 5

    def compute(*given):
        params, xs, state = given

        def last(xs):
            outputs, final = lstmx.truncated(case.cell, params, xs, state, steps=steps, **case.said)
            return outputs[-1].sum(), (outputs, final)

        if case.library == "numpy":
            return last(xs)[1], None
        slope, made = jax.grad(last, has_aux=True)(jnp.asarray(xs))
        return made, slope

    def verify(found):
        run(case)[1](found[0])
        if found[1] is None or case.context in BOTH:  # no matrices go from step to step there
            return
        J, G = case.matrices
        expected = np.zeros_like(case.xs)
        for b, at in enumerate(case.at):
            v = np.zeros(case.s0.shape[-1])
            v[case.shown] = at[-1] == case.length - 1  # else the last output is 0
            for t in range(len(at) - 1, len(at) - 1 - int((at >= case.length - steps).sum()), -1):
                expected[t, b] = v @ G[t, b]
                v = v @ J[t, b]
        case.same(found[1], expected, otherwise=0)

    return compute, verify


# ------------------------------------------------------------------------------------------------ gradients


def by_cell(case, weights):
    """The gradient by each cell's state, [T, B, S], which a plain pass gets from numbers added to its states."""
    *_, moved = case.gradients(weights, 0.0)
    sizes = {"lstm": (2,), "stack": (2, 1), "both": (1, 1), "stack with both": (2, 1, 1)}[case.kind]
    ends = case.hidden * np.cumsum([0, *sizes])
    return [moved[..., a:b] for a, b in itertools.pairwise(ends)]


def flows_hold(case, flow, weights):
    """Norms of the gradient by each cell's state."""
    joint = by_cell(case, weights)
    with np.errstate(divide="ignore"):
        whole = [np.log(np.linalg.norm(x, axis=-1)) for x in joint]
        hidden = [np.log(np.linalg.norm(x[..., : case.hidden], axis=-1)) for x in joint]
    layered = case.kind != "lstm"
    norms = flow.log_norm if layered else flow.log_norm[None]
    hiddens = flow.log_norm_hidden if layered else flow.log_norm_hidden[None]
    for k in range(len(joint)):
        case.same(norms[k], whole[k], otherwise=np.nan)
        case.same(hiddens[k], hidden[k], otherwise=np.nan)


def gradient_flow_of(outputs):
    def make(case):
        def compute(*given):
            history = case.recorded(*given)
            some = lstmx.gradient_flow(history, to(case.library, case.weights), outputs=outputs)
            return some, lstmx.gradient_flow(history, outputs=outputs)

        def verify(found):
            for flow, weights in zip(found, (case.weights, case.last), strict=True):
                flows_hold(case, flow, weights)
                d_params, d_state, d_xs, _ = case.gradients(weights, 0.0)
                close(case.named(flow.parameters), d_params)
                close(plain.state_of(flow.initial), d_state)
                if outputs == "all" or case.kind != "lstm":
                    case.same(flow.inputs, d_xs, otherwise=0)
                ways = getattr(flow, "gates", None)
                if outputs == "all" and ways:
                    shares = sum(np.asarray(way.share) for way in ways.values())
                    np.testing.assert_allclose(shares[~np.isnan(shares)], 1, atol=1e-9)

        return compute, verify

    return make


for _outputs in ("all", "norms"):
    analysis(CONTEXTS, name=f'gradient_flow, "{_outputs}"', covers=("gradient_flow",))(gradient_flow_of(_outputs))


@analysis(without(*BOTH), [(BOTH, *BOTH_WAYS)])
def online(case):
    """At the large size, where a whole influence has millions of numbers, by a window as long as the pass."""
    small = case.hidden < 10
    options = {"method": "rtrl"} if small else {"method": "truncated", "window": case.length}

    def compute(*given):
        params, xs, state = given
        options_of_all = {"state": state} | case.said
        weights = to(case.library, case.weights)
        exact = lstmx.online(case.cell, params, xs, weights, **options, **options_of_all)
        near = lstmx.online(case.cell, params, xs, weights, "snap1", **options_of_all) if small else exact
        return exact.parameters, exact.final, near.parameters

    def verify(found):
        exact, final, near = found
        close(case.named(exact), case.gradients(case.weights, 0.0)[0])
        np.testing.assert_allclose(plain.state_of(final), [one.final for one in case.by_hand], atol=1e-12)
        if small:
            expected = plain.nearest_influence(case.kind, case.params, case.before, case.rows, case.matrices[0])
            cotangents = np.zeros((*case.counts.shape, case.s0.shape[-1]))
            cotangents[..., case.shown] = case.front(case.weights)
            np.testing.assert_allclose(
                np.concatenate([np.ravel(x) for x in jax.tree.leaves(case.named(near))]),
                np.einsum("tbs,tbsp->p", cotangents, expected),
                atol=1e-10,
            )

    return compute, verify


@analysis((*CELL[:7], *STACK), [(BOTH, *BOTH_WAYS), ON_DISK])
def credit_error(case):
    """Of what is exact: the whole influence, and at the large size a window as long as the pass."""
    lags = 3
    options = {"method": "rtrl"} if case.hidden < 10 else {"method": "truncated", "window": case.length}

    def compute(*given):
        found = lstmx.credit_error(
            case.recorded(*given), to(case.library, case.weights), lags=lags, max_order=1, **options
        )
        return found.total, found.by_lag, found.by_step

    def verify(found):
        total, by_lag, by_step = found
        np.testing.assert_allclose([total.cosine, total.ratio], 1, rtol=1e-9)
        np.testing.assert_allclose(by_lag.share, 1, rtol=1e-9)
        assert (np.isnan(np.asarray(by_step.share)) == ~case.counts).all()
        v = np.zeros_like(case.before)
        v[..., case.shown] = case.front(case.weights)
        for lag in range(lags):
            for b in range(2):
                one = plain.Rows(*(r[:, b : b + 1] for r in case.rows))
                parts = plain.parameter_parts(
                    case.kind, case.params, case.before[:, b : b + 1], one, v[:, b : b + 1]
                )
                whole = norm_of(jax.tree.map(lambda x: x.sum(axis=0), parts))
                np.testing.assert_allclose(by_lag.log_norm[lag, b], np.log(whole), atol=1e-9)
            v[:-1] = np.einsum("tbs,tbsr->tbr", v[1:], case.matrices[0][1:])
            v[-1] = 0

    return compute, verify


NO_CELL_STATE = (("step function", *STACK), ValueError, "has no cell state")


@analysis(CELL[:6], [NO_CELL_STATE, (BOTH, *BOTH_WAYS), ON_DISK])
def path_spectrum(case):
    most = 3

    def verify(found):
        straight = np.arange(2 * case.hidden) >= case.hidden
        seed = (~straight).astype(float)
        matrices = (case.matrices[0][:n, b] for b, n in enumerate(case.n))
        every = [plain.orders(own, seed, straight, most) for own in matrices]
        with np.errstate(divide="ignore"):
            logs = [np.log(np.linalg.norm(one[1:], axis=-1)) for one in every]
            whole = [np.log(np.linalg.norm(one[1:].sum(axis=1), axis=-1)) for one in every]
        case.same(np.moveaxis(np.asarray(found.log_norms), 1, -1), [x[:, :-1] for x in logs])
        case.same(found.log_remainder, [x[:, -1] for x in logs])
        case.same(found.log_total, whole)
        initial = np.moveaxis(plain.state_of(found.initial), 1, 0)
        np.testing.assert_allclose(initial, [one[0] for one in every], atol=1e-10)

    return lambda *given: lstmx.path_spectrum(case.recorded(*given), most), verify


def reach_by_hand(case, b):
    """‖∂h_t/∂x_s‖ and ‖∂h_t/∂s_s‖ of one sequence, [n, n] each."""
    J, G = (m[: case.n[b], b] for m in case.matrices)
    n = len(J)
    inputs, states = np.zeros((n, n)), np.zeros((n, n))
    for t in range(n):
        product = np.eye(J.shape[-1])[case.shown]
        for s in range(t, -1, -1):
            inputs[t, s], states[t, s] = np.linalg.norm(product @ G[s]), np.linalg.norm(product)
            product = product @ J[s]
    return inputs, states


@analysis((*CELL[:7], *STACK), [(BOTH, *BOTH_WAYS), ON_DISK])
def influence(case):
    def compute(*given):
        history = case.recorded(*given)
        return [lstmx.influence(history, of=of) for of in ("inputs", "state")]

    def verify(found):
        for b, at in enumerate(case.at):
            for one, expected in zip(found, reach_by_hand(case, b), strict=True):
                with np.errstate(divide="ignore"):
                    wanted = np.log(expected)
                logs = np.asarray(one.log_norms)[np.ix_(at, at, [b])][..., 0]
                np.testing.assert_allclose(logs, wanted, atol=1e-9)
                profile = [np.diagonal(expected, -lag).mean() for lag in range(case.n[b])]
                found_profile = one.lag_profile[:, b]
                np.testing.assert_allclose(found_profile[: case.n[b]], profile, rtol=1e-8)
                assert np.isnan(found_profile[case.n[b] :]).all()
        assert np.isneginf(np.moveaxis(np.asarray(found[0].log_norms), 0, 2)[~case.counts]).all()

    return compute, verify


@analysis(
    CELL[:6],
    [
        (("step function",), ValueError, "has no input gate of its own; expected a cell with one"),
        ((*STACK, *BOTH), TypeError, "takes the history of one cell"),
        ON_DISK,
    ],
    traced=IN_TRACE,
)
def gate_kernel(case):
    def verify(found):
        logs = case.log_retention()
        for b, at in enumerate(case.at):
            i, o = case.gate("input_gate")[b], case.gate("output_gate")[b]
            taken = (1 - case.rows.kept[: len(at), b, case.hidden :]) * i
            expected = np.zeros((len(at), len(at)))
            for t in range(len(at)):
                for s in range(t + 1):
                    expected[t, s] = (o[t] * taken[s] * np.exp(logs[b][s + 1 : t + 1].sum(axis=0))).sum()
            expected /= expected.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(found[np.ix_(at, at, [b])][..., 0], expected, atol=1e-12)
        assert not np.moveaxis(found, 0, 2)[~case.counts].any()

    return lambda *given: lstmx.gate_kernel(case.recorded(*given)), verify


@analysis(
    CELL[:6],
    [
        (("step function",), ValueError, "has no input gate of its own; expected a cell with one"),
        ((*STACK, *BOTH), TypeError, "takes the history of one cell"),
        ON_DISK,
    ],
    traced=IN_TRACE,
)
def effective_attention(case):
    def verify(found):
        logs = case.log_retention()
        for b, at in enumerate(case.at):
            with np.errstate(divide="ignore"):
                taken = np.log((1 - case.rows.kept[: len(at), b, case.hidden :]) * case.gate("input_gate")[b])
            for t in range(len(at)):
                expected = np.full((len(at), case.hidden), -np.inf)
                for s in range(t + 1):
                    expected[s] = taken[s] + logs[b][s + 1 : t + 1].sum(axis=0)
                np.testing.assert_allclose(found.log_weights[at[t], at, b], expected, rtol=1e-10)
                np.testing.assert_allclose(found.log_initial[at[t], b], logs[b][: t + 1].sum(axis=0), rtol=1e-10)
        assert np.isneginf(np.moveaxis(found.log_weights, 0, 2)[~case.counts]).all()

    return lambda *given: lstmx.effective_attention(case.recorded(*given)), verify


NODES = 3


@analysis(without("on disk"), [ON_DISK])
def attribute(case):
    def compute(*given):
        target = to(case.library, case.weights)
        found = lstmx.attribute(case.recorded(*given), target, nodes=NODES)
        return found.inputs, found.initial_units, found.value, found.defect

    def verify(found):
        inputs, initial, value, defect = found
        places, shares = np.polynomial.legendre.leggauss(NODES)
        xs, weights = np.nan_to_num(case.front(case.xs)), case.front(case.weights)
        total, start = np.zeros_like(xs), np.zeros_like(case.s0)
        for place, share in zip((places + 1) / 2, shares / 2, strict=True):
            rows = plain.Rows(place * xs, *case.rows[1:])
            nothing = np.zeros((case.length, *case.s0.shape))
            given = (case.params, place * case.s0, rows, nothing, case.n, weights, 0.0)
            _, d_state, d_xs, _ = jax.tree.map(np.asarray, plain.gradients(case.kind, *given))
            total, start = total + share * d_xs, start + share * d_state
        case.same(inputs, total * xs, otherwise=0)
        close(plain.state_of(initial), start * case.s0)
        outputs = [one.outputs for one in case.by_hand]
        expected = [(case.weights[at, b] * outputs[b]).sum() for b, at in enumerate(case.at)]
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        assert (np.abs(np.asarray(defect)) < 0.2 * (1 + np.abs(value))).all()

    return compute, verify


@analysis(
    (*CELL[:6], "on disk", *STACK, *BOTH),
    [(("step function",), ValueError, "has no highway")],
)
def highway(case):
    def verify(found):
        found = {"": found} if case.kind == "lstm" else found
        assert set(found) == set(case.cells())
        for name, products in found.items():
            close(products, np.stack([x.sum(axis=0) for x in case.log_retention(name)]))

    return lambda *given: lstmx.highway(case.recorded(*given)), verify


# ------------------------------------------------------------------------------------------------ statistics


def statistics_hold(case):
    def verify(found):
        found = {"": found} if case.kind == "lstm" else found
        assert set(found) == set(case.cells())  # a compiled dict comes back sorted
        for cell, statistics in found.items():
            for gate, unit in statistics.gates.items():
                values = np.concatenate(case.gate(gate, cell))
                expected = (values.mean(0), values.std(0), values.min(0), values.max(0))
                saturated = (values < 0.1).mean(0), (values > 0.9).mean(0)
                close((unit.mean, unit.std, unit.min, unit.max, unit.left, unit.right), (*expected, *saturated))
            if case.context == "step function":
                assert statistics.timescale is None
                continue
            logs = np.concatenate(case.log_retention(cell))
            logs = logs[np.isfinite(logs).all(axis=-1)]
            close(statistics.timescale, -1 / logs.mean(axis=0))
            close(statistics.timescale_arithmetic, -1 / np.log(np.exp(logs).mean(axis=0)))

    return verify


@analysis(CONTEXTS)
def gate_statistics(case):
    return lambda *given: lstmx.gate_statistics(case.recorded(*given)), statistics_hold(case)


@analysis(CONTEXTS)
def summarise(case):
    return lambda *given: lstmx.summarise(case.cell, *given, **case.said), statistics_hold(case)


def gate_of(case, cell):
    """The gate that keeps a cell's state, and what it is in each sequence, [n, H] in the order of time."""
    name = "forget_gate" if "forget_gate" in case.by_hand[0].gates[cell] else "update_gate"
    return name, case.gate(name, cell)


@analysis(CELL, [((*STACK, *BOTH), TypeError, "takes the history of one cell")], traced=IN_TRACE)
def search(case):
    name, values = gate_of(case, case.cells()[0])
    above = float(np.median(np.concatenate(values)[:, :2].min(axis=1))) + 1e-7  # no value itself

    def verify(found):
        hits = {(b, int(t)) for b, at in enumerate(case.at) for t in at[(values[b][:, :2] >= above).all(axis=1)]}
        shown = [
            (int(b), t)
            for a, z, (b,) in zip(found.start, found.stop, found.sequence, strict=True)
            for t in range(a, z)
        ]
        assert len(shown) == len(set(shown))
        assert set(shown) == hits
        for b, t in {(b, z) for z, (b,) in zip(found.stop.tolist(), found.sequence.tolist(), strict=True)}:
            assert (b, t) not in hits  # a stretch goes as far as it can

    return lambda *given: lstmx.search(case.recorded(*given), units=[0, 1], above=above, field=name), verify


@analysis(CONTEXTS, traced=IN_TRACE)
def units_like(case):
    signal = np.random.default_rng(3).normal(size=case.counts.shape)

    def compute(*given):
        history, field = case.recorded(*given), None
        if case.kind == "lstm":
            field = "forget_gate"
        return lstmx.units_like(history, np.where(case.counts, signal, np.nan), field=field)

    def verify(found):
        if case.kind != "lstm":
            parts = {name: (part, turned) for name, (part, turned) in case.history.cells().items()}
            assert set(found) == set(parts)
            for name, (part, turned) in parts.items():
                values = np.asarray(turned(getattr(part, found[name].field)))[case.counts]
                expected = [np.corrcoef(x, signal[case.counts])[0, 1] for x in values.T]
                np.testing.assert_allclose(found[name].correlation, expected, atol=1e-10)
            return
        y = np.concatenate([signal[at, b] for b, at in enumerate(case.at)])
        expected = [np.corrcoef(x, y)[0, 1] for x in np.concatenate(case.gate("forget_gate")).T]
        np.testing.assert_allclose(found.correlation, expected, atol=1e-10)

    return compute, verify


@analysis(CONTEXTS, traced=IN_TRACE)
def page(case):
    def verify(path):
        shown = {one["name"]: one for one in pages.data_of(path)["series"]}
        for name in case.cells():
            gate, values = gate_of(case, name)
            for b, at in enumerate(case.at):
                series = shown[", ".join(filter(None, (name, f"sequence {b}")))]
                (field,) = [one for one in series["fields"] if one["name"] == gate.replace("_", " ")]
                made = pages.decoded(field, case.length)
                np.testing.assert_allclose(made[at], values[b], atol=0.003)
                assert np.isnan(np.delete(made, at, axis=0)).all()

    def compute(*given):
        return lstmx.page(case.recorded(*given), case.new_path().with_suffix(".html"))

    return compute, verify


# -------------------------------------------------------------------------------------------------- dynamics

JOINT = (*CELL[:7], *STACK)


@analysis(JOINT, [(BOTH, *BOTH_WAYS), ON_DISK])
def jacobians(case):
    def verify(found):
        case.same(found, case.matrices[0])
        np.testing.assert_array_equal(
            np.asarray(found)[~case.counts], np.eye(case.s0.shape[-1])[None].repeat((~case.counts).sum(), 0)
        )

    return lambda *given: lstmx.jacobians(case.recorded(*given)), verify


@analysis(JOINT, [(BOTH, *BOTH_WAYS), ON_DISK])
def input_jacobians(case):
    return lambda *given: lstmx.input_jacobians(case.recorded(*given)), lambda found: case.same(
        found, case.matrices[1], otherwise=0
    )


@analysis(JOINT, [(BOTH, *BOTH_WAYS), ON_DISK])
def linearise(case):
    size = case.s0.shape[-1]
    draws = np.random.default_rng(1)
    u, v = draws.normal(size=(2, case.length, 2, size))
    u_x = draws.normal(size=(case.length, 2, case.features))

    def compute(*given):
        steps = lstmx.linearise(case.recorded(*given))
        before, drive = steps.vjp(to(case.library, v))
        forward = steps.jvp(*to(case.library, (u, u_x)))
        counted = to(case.library, case.counts.astype(float)[..., None])
        within = steps.drive_vjp(to(case.library, v) * counted)
        return steps.matrices(), before, steps.input_vjp(drive), forward, steps.parameter_vjp(within)

    def verify(found):
        (J, G), fu, fv, fx = case.matrices, case.front(u), case.front(v), case.front(u_x)
        case.same(found[0], J)
        case.same(found[1], np.einsum("tbs,tbsr->tbr", fv, J))
        case.same(found[2], np.einsum("tbs,tbsd->tbd", fv, G), otherwise=0)
        case.same(found[3], np.einsum("tbsr,tbr->tbs", J, fu) + np.einsum("tbsd,tbd->tbs", G, fx))
        parts = plain.parameter_parts(case.kind, case.params, case.before, case.rows, fv)
        close(case.named(found[4]), jax.tree.map(lambda x: x.sum(axis=0), parts))

    return compute, verify


@analysis(JOINT, [(BOTH, *BOTH_WAYS), ON_DISK])
def isometry(case):
    def verify(found):
        case.same(found.singular_values, np.linalg.svd(case.matrices[0], compute_uv=False), otherwise=np.nan)

    return lambda *given: lstmx.isometry(case.recorded(*given)), verify


@analysis(JOINT, [(BOTH, *BOTH_WAYS), ON_DISK], traced=IN_TRACE)
def long_jacobian(case):
    def verify(found):
        for b in range(2):
            J = case.matrices[0][: case.n[b], b]
            product = functools.reduce(lambda whole, one: one @ whole, J)
            values = np.linalg.svd(product, compute_uv=False)
            np.testing.assert_allclose(np.exp(found.log_singular_values[b]), values, atol=1e-13 * values[0])
            with np.errstate(divide="ignore"):
                volume = np.linalg.slogdet(J)[1].sum()
            np.testing.assert_allclose(found.log_singular_values[b].sum(), volume, rtol=1e-9)

    return lambda *given: lstmx.long_jacobian(case.recorded(*given)), verify


WHOLE = tuple(one for one in JOINT if one != "resets")
STARTS_ANEW = ("resets",), ValueError, r"do not start anew within the pass; .* history.pieces\(\)"
EVERY_STEP = {"count": "all", "transient": 0, "reorthonormalise": 1, "window": 1}


@analysis(
    (*WHOLE, "on disk"),
    [(BOTH, *BOTH_WAYS), STARTS_ANEW],
)
def lyapunov_spectrum(case):
    def verify(found):
        expected = [plain.exponents(case.matrices[0][: case.n[b], b]) for b in range(2)]
        np.testing.assert_allclose(-np.sort(-found.per_sequence), -np.sort(-np.array(expected)), atol=1e-9)

    return lambda *given: lstmx.lyapunov_spectrum(case.recorded(*given), **EVERY_STEP), verify


@analysis((*WHOLE, "on disk"), [(BOTH, *BOTH_WAYS), STARTS_ANEW], traced=IN_TRACE)
def covariant_vectors(case):
    count, transient = 2, 1

    def verify(found):
        start = np.linalg.qr(np.random.default_rng(0).standard_normal((case.s0.shape[-1],) * 2))[0][:, :count]
        for b, n in enumerate(case.n):
            pushed = list(itertools.accumulate(case.matrices[0][:n, b], lambda x, J: J @ x, initial=start))[1:]
            last = np.linalg.qr(pushed[-1])[
                0
            ]  # where vectors begin; before, they are combinations of what is pushed
            parts = np.linalg.lstsq(pushed[-1], last)[0]
            for x, vectors in zip(pushed[transient : n - transient], found.vectors[:, b], strict=False):
                expected = (x @ parts).T
                expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
                sign = np.sign((expected * vectors).sum(axis=-1, keepdims=True))
                np.testing.assert_allclose(vectors, sign * expected, atol=1e-9)
            assert np.isnan(found.vectors[n - 2 * transient :, b]).all()

    return lambda *given: lstmx.covariant_vectors(case.recorded(*given), count, transient=transient), verify


@analysis(
    (*WHOLE, "on disk"),
    [(BOTH, *BOTH_WAYS), STARTS_ANEW],
    traced=IN_TRACE,
)
def parallelisability(case):
    def verify(found):
        growth, total = [0.0], []
        for b in range(2):
            J = case.matrices[0][: case.n[b], b]
            for s in range(len(J)):
                products = itertools.accumulate(J[s:], lambda whole, one: one @ whole)
                norms = np.array([np.linalg.norm(product) for product in products])
                least = np.minimum.accumulate([1.0, *norms])[:-1]
                growth.append(np.log(norms / least).max())
                total.append(np.log(norms.sum()))
        # Of more than 16 numbers in the state 16 directions are followed.
        tolerance = 1e-9 if case.s0.shape[-1] <= 16 else 0.5
        np.testing.assert_allclose([found.growth, found.total], [max(growth), max(total)], atol=tolerance)

    return lambda *given: lstmx.parallelisability(case.recorded(*given)), verify


OF_CELLS = ("plain", "Zoneout", "step function", "on disk", "stack")
SAYS_NOTHING = [
    (("lengths",), *unknown("lengths")),
    (("mask", "stack, mask", "both directions, mask"), *unknown("mask")),
    (("resets",), *unknown("resets")),
    (KEYS, *unknown("key")),
]


@analysis(OF_CELLS, [*SAYS_NOTHING, (("both directions", "both directions in a stack"), *BOTH_WAYS)])
def autonomous_spectrum(case):
    steps = 6

    def compute(*given):
        params, _, state = given
        x = to(case.library, np.linspace(-1, 1, case.features))
        one = jax.tree.map(lambda s: s[0], state)
        options = EVERY_STEP | case.said
        return lstmx.autonomous_spectrum(case.cell, params, x, one, steps, **options)

    def verify(found):
        x = np.broadcast_to(np.linspace(-1, 1, case.features), (steps, case.features))
        rows = [x, *(r[:1, 0].repeat(steps, axis=0) for r in case.rows[1:])]
        core = lstmx.LSTM(case.features, case.hidden) if case.kind == "lstm" else case.cell
        made = plain.by_hand(case.kind, core, case.params, case.s0[0], rows, steps)
        before = np.concatenate([case.s0[:1], made.states[:-1]])[:, None]
        J, _ = plain.jacobians(case.kind, case.params, before, plain.Rows(*(r[:, None] for r in rows)))
        expected = plain.exponents(np.asarray(J)[:, 0])
        np.testing.assert_allclose(found.exponents, -np.sort(-expected), atol=1e-9)

    return compute, verify


@analysis(
    OF_CELLS, [*SAYS_NOTHING, (("both directions", "both directions in a stack"), *BOTH_WAYS)], traced=IN_TRACE
)
def fixed_points(case):
    def compute(*given):
        params, _, state = given
        x = to(case.library, np.linspace(-1, 1, case.features))
        with jax.numpy_dtype_promotion("standard"):  # which optax needs
            return lstmx.fixed_points(case.cell, params, x, state, iterations=60, rounds=1, **case.said)

    def verify(found):
        points = plain.state_of(found.fixed.states)
        assert len(points) > 0
        x = np.broadcast_to(np.linspace(-1, 1, case.features), (1, len(points), case.features))
        rows = plain.Rows(x, *(r[:1, :1].repeat(len(points), axis=1) for r in case.rows[1:]))
        for k, point in enumerate(points):
            after = plain.joint_step(case.kind, case.params, point, plain.Rows(*(r[0, k] for r in rows)))
            np.testing.assert_allclose(after, point, atol=1e-9)
        J, _ = plain.jacobians(case.kind, case.params, points[None], rows)
        for k, matrix in enumerate(np.asarray(J)[0]):
            magnitudes = np.sort(np.abs(np.linalg.eigvals(matrix)))
            np.testing.assert_allclose(np.sort(np.abs(found.fixed.eigenvalues[k])), magnitudes, atol=1e-7)

    return compute, verify


@analysis(
    OF_CELLS, [*SAYS_NOTHING, (("both directions", "both directions in a stack"), *BOTH_WAYS)], traced=IN_TRACE
)
def cycles(case):
    def compute(*given):
        params, _, state = given
        x = to(case.library, np.linspace(-1, 1, case.features))
        return lstmx.cycles(case.cell, params, x, 1, state, rounds=0, **case.said)

    def verify(found):
        """Of period 1, which every network has: after one step of the plain loop each is where it was."""
        points = plain.state_of(jax.tree.map(lambda s: s[:, 0], found.states))
        assert len(points) == len(found) > 0
        x = np.broadcast_to(np.linspace(-1, 1, case.features), (1, len(points), case.features))
        rows = plain.Rows(x, *(r[:1, :1].repeat(len(points), axis=1) for r in case.rows[1:]))
        for k, point in enumerate(points):
            after = plain.joint_step(case.kind, case.params, point, plain.Rows(*(r[0, k] for r in rows)))
            np.testing.assert_allclose(after, point, atol=1e-9)
        J, _ = plain.jacobians(case.kind, case.params, points[None], rows)
        for k, matrix in enumerate(np.asarray(J)[0]):
            magnitudes = np.sort(np.abs(np.linalg.eigvals(matrix)))
            np.testing.assert_allclose(np.sort(np.abs(found.multipliers[k])), magnitudes, atol=1e-7)

    return compute, verify


@analysis(
    OF_CELLS, [*SAYS_NOTHING, (("both directions", "both directions in a stack"), *BOTH_WAYS)], traced=IN_TRACE
)
def continue_fixed_points(case):
    def compute(*given):
        params, _, state = given
        x = to(case.library, np.linspace(-1, 1, case.features))
        with jax.numpy_dtype_promotion("standard"):  # which optax needs
            points = lstmx.fixed_points(case.cell, params, x, state, iterations=60, rounds=0, **case.said)
            values = [1.0, 1.1]
            return lstmx.continue_fixed_points(case.cell, params, values, points, lambda v: v * x, steps=200)

    def verify(found):
        """At the far end of each branch the plain loop stands still."""
        assert len(found.branches) > 0
        for branch in found.branches:
            point = plain.state_of(jax.tree.map(lambda s: s[-1:], branch.states))
            x = np.broadcast_to(branch.values[-1] * np.linspace(-1, 1, case.features), (1, 1, case.features))
            rows = plain.Rows(x, *(r[:1, :1] for r in case.rows[1:]))
            one = plain.Rows(*(r[0, 0] for r in rows))
            np.testing.assert_allclose(
                plain.joint_step(case.kind, case.params, point[0], one), point[0], atol=1e-9
            )
            J, _ = plain.jacobians(case.kind, case.params, point[None], rows)
            magnitudes = np.sort(np.abs(np.linalg.eigvals(np.asarray(J)[0, 0])))
            np.testing.assert_allclose(np.sort(np.abs(branch.eigenvalues[-1])), magnitudes, atol=1e-7)

    return compute, verify


@analysis(
    ("plain", "Zoneout", "on disk"),
    [
        (("step function",), ValueError, "has no closed form"),
        (("lengths", "mask", "resets", "Zoneout, key"), ValueError, NO_SUCH_GATE),
        ((*STACK, *BOTH), TypeError, "expected a cell such as"),
    ],
    traced=None,
)
def critical_gain(case):
    def compute(*given):
        return lstmx.critical_gain(case.cell, **case.said)

    def verify(gain):
        """With U_g = g · 1, of eigenvalue g, the Jacobian at the zero state has the eigenvalue 1."""
        h = case.hidden
        kernel, bias = np.zeros((h, 4 * h)), np.zeros(4 * h)
        kernel[:, 2 * h : 3 * h] = gain * np.eye(h)
        bias[h : 2 * h] = 1
        params = case.params._replace(recurrent_kernel=kernel, bias=bias)
        rows = plain.Rows(*(np.zeros_like(r[:1, :1]) for r in case.rows[:2]), *(r[:1, :1] for r in case.rows[2:]))
        J = plain.jacobians("lstm", params, np.zeros((1, 1, 2 * h)), rows)[0][0, 0]
        assert np.abs(np.linalg.eigvals(J) - 1).min() < 1e-7

    return compute, verify


@analysis(
    ("plain", "on disk"),
    [
        (
            ("Zoneout", "step function", "stack", *BOTH[::2]),
            TypeError,
            "expected one cell that has its derivatives in closed form",
        ),
        *SAYS_NOTHING,
    ],
    traced=None,
)
def check_cell(case):
    def verify(found):
        assert max(found.values()) < 1e-11

    return lambda *given: lstmx.check_cell(case.cell, given[0], **case.said), verify


@analysis(
    WHOLE,
    [(BOTH, *BOTH_WAYS), STARTS_ANEW, ON_DISK],
    traced=IN_TRACE,
)
def memory_report(case):
    lags = 4

    def verify(found):
        J = case.matrices[0]
        v = np.zeros_like(case.before)
        lag = []
        for b, n in enumerate(case.n):
            v[n - 1, b, case.shown] = 1
            for t in range(n - 1, 0, -1):
                v[t - 1, b] = v[t, b] @ J[t, b]
            profile = reach_by_hand(case, b)[0][-1][::-1][:lags]
            lag.append(np.argmax(np.cumsum(profile) >= 0.95 * profile.sum()))
        assert found["influence lag"].value == np.median(lag)
        parts = parts_from_the_end(case, v)
        whole = norm_of(jax.tree.map(lambda x: x.sum(axis=0), parts))
        bias = [norm_of(jax.tree.map(lambda x, k=k: x[k:].sum(axis=0), parts)) / whole for k in range(1, lags + 1)]
        np.testing.assert_allclose(found.truncation_bias, bias, rtol=1e-8)
        moved, horizon = np.concatenate(by_cell(case, case.last), axis=-1), []
        for b, n in enumerate(case.n):
            norms = np.linalg.norm(moved[:n, b], axis=-1)
            below = norms[::-1] <= 0.01 * norms[-1]
            horizon.append(below.argmax() if below.any() else np.inf)
        assert found["gradient horizon"].value == np.median(horizon)
        for cell in case.cells():
            place = f", {cell}" if cell else ""
            if case.context != "step function":
                scale = -1 / np.concatenate(case.log_retention(cell)).mean(axis=0)
                np.testing.assert_allclose(found[f"highway, geometric{place}"].value, np.median(scale), rtol=1e-10)

    return lambda *given: lstmx.memory_report(case.recorded(*given), lags=lags), verify


def norm_of(tree):
    return math.sqrt(sum(float((np.asarray(x) ** 2).sum()) for x in jax.tree.leaves(tree)))


def parts_from_the_end(case, v):
    """What each step adds to the parameters' gradient, by its distance from the end of its sequence: [T, ...]."""

    def turned(x):
        made = np.zeros_like(x)
        for b, n in enumerate(case.n):
            made[:n, b] = x[:n, b][::-1]
        return made

    rows = plain.Rows(*map(turned, case.rows))
    return plain.parameter_parts(case.kind, case.params, turned(case.before), rows, turned(v))


# ----------------------------------------------------------------------------------------------------- files


def stored_holds(case):
    def verify(found):
        whole = found.read()
        case.same(whole.outputs, [one.outputs for one in case.by_hand], otherwise=0)
        if case.kind == "lstm":
            case.same(whole.forget_gate, case.gate("forget_gate"))

    return verify


@analysis(
    ("plain", "lengths", "mask", "resets", "Zoneout", "step function", "on disk"),
    [
        (KEYS, *unknown("key")),
        (("stack", "stack, mask", *BOTH), TypeError, "record layers in memory"),
    ],
    name="record_to, load_history",
    covers=("record_to", "load_history"),
    traced=IN_TRACE,
)
def record_to(case):
    def compute(*given):
        path = case.new_path()
        lstmx.record_to(path, case.cell, *given, **case.said)
        return loaded(case, path)

    return compute, stored_holds(case)


def loaded(case, path):
    """The history on disk; that of a step function is read with it."""
    return lstmx.load_history(path, **({"cell": case.cell} if case.context == "step function" else {}))


@analysis(
    without("on disk"),
    [(("on disk",), AttributeError, "a history on disk has no save; one in memory")],
    name="history.save",
    covers=(),
    traced=IN_TRACE,
)
def save_history(case):
    def compute(*given):
        path = case.new_path()
        case.recorded(*given).save(path)
        return loaded(case, path)

    return compute, stored_holds(case)


@analysis(
    without("on disk"),
    [(("on disk",), AttributeError, "a history on disk has no to_xarray; one in memory")],
    name="history.to_xarray",
    covers=(),
    traced=IN_TRACE,
)
def to_xarray(case):
    def verify(found):
        if case.kind != "lstm":
            parts = {name: lstmx.History.from_xarray(one) for name, one in found.items()}
            assert {name: part.cell for name, part in parts.items()} == {
                name: part.cell for name, (part, _) in case.history.cells().items()
            }
            top = [part for name, part in parts.items() if "backward" not in name][-1]
            held = np.asarray(top.outputs)[..., : case.hidden]
            case.same(held, [one.outputs[:, : case.hidden] for one in case.by_hand], otherwise=0)
            return
        if case.context == "step function":
            back = lstmx.History.from_xarray(found, case.cell)
            case.same(back.outputs, [one.outputs for one in case.by_hand], otherwise=0)
            return
        case.same(found["cell_state"].values, [one.states[:, case.hidden :] for one in case.by_hand])
        case.same(found["forget_gate"].values, case.gate("forget_gate"))
        back = lstmx.History.from_xarray(found)
        case.same(back.outputs, [one.outputs for one in case.by_hand], otherwise=0)

    return lambda *given: case.recorded(*given).to_xarray(), verify


@analysis(
    ("plain", "Zoneout", "on disk", "stack", "both directions", "both directions in a stack"),
    [*SAYS_NOTHING, (("step function",), TypeError, "is not known by name")],
    name="save, load",
    covers=("save", "load"),
    traced=None,
)
def save(case):
    def compute(*given):
        path = case.new_path()
        lstmx.save(path, case.cell, given[0], **case.said)
        return lstmx.load(path, library=case.library)

    def verify(found):
        assert found[0] == case.cell
        close(found[1], case.params, 0)

    return compute, verify


# ------------------------------------------------------------------------------------------- as README.md has it


def markdown() -> str:
    """The contexts in words, and the table: a row for each analysis, a column for each context."""
    lines = [f"- {name}: {words}" for name, words in WORDS.items()]
    lines += ["", "| | " + " | ".join(CONTEXTS) + " |", "|---" * (len(CONTEXTS) + 1) + "|"]
    for name, row in TABLE.items():
        cells = (mark(row[context]) for context in CONTEXTS)
        lines.append(f"| {in_code(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mark(outcome: bool | Refused) -> str:
    """✓ for a truth, · where a function takes no such argument, – for a refusal in words."""
    if outcome is True:
        return "✓"
    return "·" if "unexpected keyword" in outcome.words or outcome.words is NO_SUCH_GATE else "–"


def in_code(name: str) -> str:
    """The name of a row with its functions as code."""
    return re.sub(r"\w+(?:\.\w+)?(?=$|, | of)|(?<=of )\w+", lambda word: f"`{word[0]}`", name)


if __name__ == "__main__":
    print(markdown())

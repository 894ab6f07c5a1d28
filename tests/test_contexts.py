"""The table of `contexts`, run: every analysis in every context gives what a plain loop gives, or says why not."""

import inspect
import re
from pathlib import Path

import contexts
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx

# What compiles is slow: in the fast part JAX has the contexts that differ most, and not what takes longest.
FAST = ("mask", "step function")
COMPILED_LONG = (
    *("memory_report", "autonomous_spectrum", "fixed_points", "cycles", "continue_fixed_points"),
    *("covariant_vectors", "online", "credit_error"),
)
HERE = Path(__file__).parent


def is_told(name, context, library, size):
    """Whether an entry says something that others do not: no refusal depends on the size."""
    row = contexts.TABLE[name]
    implied = library == "jax" and row.get(contexts.IMPLIED.get(context)) is True
    return (size == "small" or row[context] is True) and not implied


def is_fast(name, context, library, size):
    return size == "small" and (library == "numpy" or (context in FAST and name not in COMPILED_LONG))


def cases():
    """Every entry of the table."""
    return [
        pytest.param(name, context, library, size, id=f"{name}-{context}-{library}-{size}", marks=marks)
        for size in ("small", "large")
        for name, row in contexts.TABLE.items()
        for context in row
        for library in contexts.LIBRARIES
        if library in contexts.ANALYSES[name].libraries and (context, library) != ("step function", "numpy")
        if is_told(name, context, library, size)
        for marks in [() if is_fast(name, context, library, size) else pytest.mark.slow]
    ]


def is_traced(name, context, library, size):
    """Whether an entry is also computed inside jit and vmap."""
    traced = contexts.ANALYSES[name].traced is not None and context != "on disk"
    return traced and library == "jax" and size == "small" and contexts.TABLE[name][context] is True


ENTRIES = cases()
TRACED = [one for one in ENTRIES if is_traced(*one.values)]


def is_right_inside_jit(name, context, library, size):
    """Whether the numbers of an entry are those inside jit and vmap, where they are judged alike."""
    traced = contexts.TRACED_APART.get((name, context), contexts.ANALYSES[name].traced)
    return is_traced(name, context, library, size) and traced is True and not is_fast(name, context, library, size)


@pytest.mark.sample(200)
@pytest.mark.parametrize(
    ("name", "context", "library", "size"), [one for one in ENTRIES if not is_right_inside_jit(*one.values)]
)
def test_an_analysis_is_right_or_says_why_not(name, context, library, size):
    case, outcome = contexts.case_of(context, size, library), contexts.TABLE[name][context]
    compute, verify = contexts.ANALYSES[name].make(case)
    if outcome is True:
        verify(compute(*case.given))
    else:
        with pytest.raises(outcome.error, match=outcome.words):
            compute(*case.given)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "context", "library", "size"), TRACED)
def test_an_analysis_is_right_inside_jit_and_vmap_or_says_why_not(name, context, library, size):
    case, row = contexts.case_of(context, size, library), contexts.ANALYSES[name]
    traced = contexts.TRACED_APART.get((name, context), row.traced)
    compute, verify = row.make(case)
    # Parameters along a leading axis, of which the second are others.
    several = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), case.given[0])
    each = jax.jit(jax.vmap(compute, in_axes=(0, None, None)))
    if traced is True:
        verify(jax.tree.map(lambda x: x[0], each(several, *case.given[1:])))
        return
    with pytest.raises(traced.error, match=traced.words):
        jax.jit(compute)(*case.given)
    with pytest.raises(traced.error, match=traced.words):
        each(several, *case.given[1:])


@pytest.mark.slow
@pytest.mark.parametrize("context", ["plain", "mask", "stack"])
def test_log_norms_of_a_flow_can_be_differentiated(context):
    """Against central differences along one direction in the space of parameters."""
    case = contexts.case_of(context, "small", "jax")
    params, *given = case.given
    draws = np.random.default_rng(3)
    along = jax.tree.map(lambda x: jnp.asarray(draws.normal(size=x.shape)), params)

    @jax.jit
    def norms(by):
        moved = jax.tree.map(lambda x, u: x + by * u, params, along)
        flow = lstmx.gradient_flow(lstmx.record(case.cell, moved, *given, **case.said), outputs="norms")
        counted = jnp.isfinite(flow.log_norm)
        return jnp.where(counted, flow.log_norm, 0.0).sum()

    slope = (norms(1e-5) - norms(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(norms)(0.0), slope, rtol=1e-7)


# ----------------------------------------------------------------------------------------------- the table itself


def is_an_analysis(function):
    """Whether a public function takes a history, or a cell with its parameters, or a file of either."""
    names = list(inspect.signature(function).parameters)
    return names[0] in ("history", "cell") or {"cell", "params"} <= set(names) or function is lstmx.load_history


def test_every_public_analysis_is_in_the_table():
    public = {name: getattr(lstmx, name) for name in dir(lstmx) if not name.startswith("_")}
    expected = {name for name, value in public.items() if inspect.isfunction(value) and is_an_analysis(value)}
    covered = {name for row in contexts.ANALYSES.values() for name in row.covers}
    assert expected - covered == set()
    assert covered <= public.keys()


@pytest.mark.parametrize("name", contexts.TABLE)
def test_every_analysis_has_an_entry_in_every_context(name):
    assert set(contexts.TABLE[name]) == set(contexts.CONTEXTS)


def test_the_readmes_have_the_table_and_what_is_refused():
    assert contexts.markdown() in (HERE / "README.md").read_text(encoding="utf-8")
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## What works with what\n")[2].partition("\n## ")[0]
    kept = {"history.save", "history.to_xarray"}  # of what is on disk already
    refused = {name for name, row in contexts.TABLE.items() if "–" in map(contexts.mark, row.values())} - kept
    names = {word for name in refused for word in re.findall(r"\w+", contexts.in_code(name).split("`")[1])}
    assert {name for name in names if f"`{name}`" not in section} == set()

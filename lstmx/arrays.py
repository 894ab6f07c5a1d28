"""Which array library a value belongs to, and what differs between NumPy and JAX.

This is the only room that asks whether JAX is there. Everything above it is written once, over the
array namespace `xp` (`numpy` or `jax.numpy`) that `namespace` reads off the values themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, dataclass_transform, overload

import numpy as np

jax: Any
jnp: Any
multihost_utils: Any
try:
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils
except ImportError:  # NumPy alone: every function below has a branch that needs nothing else
    jax = jnp = multihost_utils = None

if TYPE_CHECKING:
    from jax import Array as JaxArray

    Array: TypeAlias = np.ndarray | JaxArray
else:
    Array = Any  # what runs asks values by the array protocol, never by their type
Tree = Any
T = TypeVar("T")

has_jax = jax is not None
loops_are_kernels = has_jax and jax.__version_info__ >= (0, 12)  # XLA on the CPU compiles a small loop as one


def require(package: str, purpose: str, name: str | None = None) -> ModuleType:
    """Import an optional package, or say what needs it and what to install.

    Args:
        package: the module's dotted name.
        purpose: what needs it.
        name: the package's name, if it is another.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = name or package.partition(".")[0]
        raise ImportError(
            f"{purpose} needs the package {name}, which is not installed: pip install {name}"
        ) from error


# --------------------------------------------------------------------------------------- which library


def namespace(*arrays: Array) -> ModuleType:
    """The array namespace of the given arrays: JAX wherever one of them is JAX, else NumPy.

    Asks the values by the array protocol, never by their type, so every JAX tracer answers `jax.numpy`.

    Raises:
        TypeError: nothing given is an array, or two libraries meet of which neither is NumPy.
    """
    found = {_namespace_of(a) for a in arrays if hasattr(a, "__array_namespace__")}
    if len(found) > 1:
        found.discard(np)  # a NumPy operand beside JAX is a constant of the JAX program
    if len(found) != 1:
        given = ", ".join(sorted({type(a).__name__ for a in arrays})) or "nothing"
        raise TypeError(f"expected arrays of NumPy or of JAX, got {given}")
    return found.pop()


def _namespace_of(array: Array) -> ModuleType:
    try:
        return array.__array_namespace__()
    except NotImplementedError:  # a JAX key, which has the method and does not answer
        return jnp


def is_jax(xp: ModuleType) -> bool:
    """Whether an array namespace is JAX's."""
    return xp is jnp and has_jax


def library(jax: bool) -> ModuleType:
    """The array namespace of JAX where it is asked for and installed, else NumPy's."""
    return jnp if jax and has_jax else np


def is_traced(*trees: Tree) -> bool:
    """Whether any leaf is an abstract value inside `jit`, `grad` or `vmap`, whose numbers cannot be read."""
    return has_jax and any(isinstance(leaf, jax.core.Tracer) for tree in trees for leaf in leaves(tree))


# ------------------------------------------------------------------------------------------------ trees


def leaves(tree: Tree) -> Iterator[Array]:
    """The arrays of a tree, in order: of dicts, (named) tuples, lists and results; None holds none.

    What JAX knows as a tree beside these, such as a module of Equinox, is one here, too.
    """
    if isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from leaves(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from leaves(branch)
    elif tree is None:
        return
    elif hasattr(type(tree), "_array_fields"):
        for name in type(tree)._array_fields:
            yield from leaves(getattr(tree, name))
    elif has_jax and not hasattr(tree, "dtype"):
        yield from jax.tree.leaves(tree)
    else:
        yield tree


def map_tree(f: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `f` to each array of a tree, as `leaves` has them, and to those at its place in the others."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_tree(f, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, (tuple, list)):
        mapped = [map_tree(f, *branches) for branches in zip(tree, *others, strict=True)]
        return type(tree)(*mapped) if hasattr(tree, "_fields") else type(tree)(mapped)
    if hasattr(type(tree), "_array_fields"):
        branches = ((name, [getattr(one, name) for one in (tree, *others)]) for name in type(tree)._array_fields)
        return dataclasses.replace(tree, **{name: map_tree(f, *found) for name, found in branches})
    if has_jax and not hasattr(tree, "dtype"):
        return jax.tree.map(f, tree, *others)
    return f(tree, *others)


def dtype_of(tree: Tree) -> Any:
    """The dtype of a tree's first array: that of all of a cell's parameters."""
    return next(leaves(tree)).dtype


@overload
def result(cls: type[T]) -> type[T]: ...
@overload
def result(*, static: Sequence[str] = ()) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(eq_default=False, frozen_default=True)
def result(cls: type[T] | None = None, *, static: Sequence[str] = ()) -> Any:
    """Make a class a frozen dataclass with identity equality and, where JAX is there, a pytree.

    Args:
        cls: the class, with annotated fields.
        static: names of fields that hold no arrays; they become part of the pytree's structure.
    """
    if cls is None:
        return functools.partial(result, static=static)
    made: Any = dataclasses.dataclass(frozen=True, eq=False, repr=cls.__repr__ is object.__repr__)(cls)
    names = [field.name for field in dataclasses.fields(made)]
    if made.__str__ is not object.__str__:
        made.__str__ = _without_numbers(made.__str__, repr)
    if hasattr(made, "_repr_html_"):
        made._repr_html_ = _without_numbers(made._repr_html_, lambda self: None)  # then a notebook shows `repr`
    made._array_fields = tuple(name for name in names if name not in static)
    if has_jax:
        jax.tree_util.register_dataclass(made, list(made._array_fields), list(static))
    return made


def _without_numbers(told: Callable[[Any], Any], otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What says a result's numbers, and `otherwise` inside a JAX transformation, where they cannot be read."""

    @functools.wraps(told)
    def shown(self: Any) -> Any:
        return otherwise(self) if is_traced(self) else told(self)

    return shown


def all_finite(x: Array) -> bool:
    """Whether an array that is no tracer holds neither NaN nor infinity."""
    if is_elsewhere(x):
        return bool(jnp.isfinite(x).all())
    if not is_jax(namespace(x)) or all(d.platform == "cpu" for d in x.devices()):  # type: ignore  # a jax.Array
        return bool(np.isfinite(np.asarray(x)).all())  # XLA's own reduction on a CPU takes ten times as long
    with (
        jax.ensure_compile_time_eval()
    ):  # or what is computed of a constant is no number while a program is traced
        return bool(jnp.isfinite(x).all())


# ------------------------------------------------------------------------------------------------ loops


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Tree, xs: Tree, *, reverse: bool = False
) -> tuple[Tree, Tree]:
    """Thread `carry` through `step(carry, x) -> (carry, y)` over axis 0 of `xs`, and stack the `y`.

    `jax.lax.scan` for JAX, a loop that writes rows into arrays made at its first step for NumPy. There must
    be at least one step: callers reject length 0 at the door.
    """
    if is_jax(namespace(*leaves(carry), *leaves(xs))):
        return jax.lax.scan(step, carry, xs, reverse=reverse)
    length = next(leaves(xs)).shape[0]
    order = range(length - 1, -1, -1) if reverse else range(length)
    stacked: list[Array] = []
    rows: Tree = None
    for t, x in zip(order, _rows(xs, reverse), strict=False):
        carry, rows = step(carry, x)
        if not stacked:
            stacked = [np.empty((length, *np.shape(row)), np.asarray(row).dtype) for row in leaves(rows)]
        for into, row in zip(stacked, leaves(rows), strict=True):
            into[t] = row
    filled = iter(stacked)
    return carry, map_tree(lambda _: next(filled), rows)


def _rows(tree: Tree, reverse: bool) -> Iterator[Tree]:
    """The rows of a tree of NumPy arrays along axis 0, each as a tree of the same form."""
    if tree is None:
        return itertools.repeat(None)
    if isinstance(tree, dict):
        return (dict(zip(tree, row, strict=True)) for row in _rows(tuple(tree.values()), reverse))
    if isinstance(tree, tuple):
        return map(getattr(type(tree), "_make", tuple), zip(*(_rows(x, reverse) for x in tree), strict=False))
    return iter(tree[::-1] if reverse else tree)


def jit(static: Sequence[str] = (), donate: Sequence[str] = ()) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Compile a function under JAX when it is called with JAX values; call it as it is with NumPy values.

    The function's arguments are arrays, trees of arrays or, where named in `static`, hashable values. Results may
    take the memory of those named in `donate`.
    """

    def decorate(f: Callable[..., T]) -> Callable[..., T]:
        options = {"static_argnames": tuple(static), "donate_argnames": tuple(donate), "keep_unused": bool(donate)}
        compiled = jax.jit(f, **options) if has_jax else None

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> T:
            if compiled is not None and is_jax(namespace(*leaves((args, tuple(kwargs.values()))))):
                return compiled(*args, **kwargs)
            return f(*args, **kwargs)

        return call

    return decorate


def after(first: Array, value: Array) -> Array:
    """`value`, of which nothing is computed further before `first` is there.

    A decomposition of a batch of matrices waits for threads of the pool that it runs in itself: in jaxlib 0.10 two
    at a time, as many as a machine of two cores has threads, wait for ever. So one is made to need the other:
    what is added is 0, which XLA does not know.
    """
    if not is_jax(namespace(first, value)):
        return value
    return value + (first.reshape(-1)[0] == -1.25e30).astype(value.dtype)


def by_platform(cpu: Callable[..., T], accelerator: Callable[..., T], *args: Any) -> T:
    """`cpu(*args)` where the compiled program runs on a CPU, and in NumPy; else `accelerator(*args)`.

    JAX decides it where it lowers the program, not where it traces it.
    """
    arrays = [leaf for arg in args for leaf in leaves(arg)]
    if is_jax(namespace(*arrays)):
        return jax.lax.platform_dependent(*args, cpu=cpu, default=accelerator)
    return cpu(*args)


def custom_gradient(
    function: Callable[..., Any],
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., tuple[Any, ...]],
    static: Sequence[int],
) -> Callable[..., Any]:
    """`function` with a reverse-mode rule of its own under JAX (`jax.custom_vjp`); the function as it is without.

    Args:
        function: what is called, and what runs where no derivative is taken.
        forward: the same with what `backward` needs: (value, residuals).
        backward: from the static arguments, the residuals and the value's cotangent to those of the others.
        static: positions of the arguments that hold no arrays.
    """
    if not has_jax:
        return function
    made = jax.custom_vjp(function, nondiff_argnums=tuple(static))
    made.defvjp(forward, backward)
    return made


def derivative_of(
    plain: Callable[..., Any], function: Callable[..., Any], static: Sequence[int]
) -> Callable[..., Any]:
    """`function`, which under JAX's differentiation, forward or reverse, is `plain`: the same values another way.

    Args:
        plain: what is differentiated; it returns what `function` returns.
        function: what runs where no derivative is taken.
        static: positions of the arguments that hold no arrays.
    """
    if not has_jax:
        return function
    made = jax.custom_jvp(function, nondiff_argnums=tuple(static))

    @made.defjvp
    def rule(*args: Any) -> Any:
        *fixed, primals, tangents = args
        return jax.jvp(functools.partial(plain, *fixed), primals, tangents)

    return made


def varying_as(xs: Array, tree: Tree) -> Tree:
    """`tree`, which inside `jax.shard_map` becomes one that differs from device to device where `xs` does.

    A loop whose carry comes to depend on `xs` needs that; and JAX then sums the tree's gradients over the devices.
    """
    if not is_jax(namespace(xs)) or not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    zero = jnp.sum(jnp.zeros_like(xs))  # what it is added to differs wherever it does
    return map_tree(lambda x: x + zero.astype(x.dtype), tree)


def spread_as(xs: Array, f: Callable[..., Any], dropped: tuple[int, ...], *args: Tree) -> Any:
    """`f(*args)`, where `xs` [T, *batch, D] lies on a mesh with explicit axes worked as with automatic ones.

    Args:
        xs: the sequences.
        f: gives a tuple of trees of arrays [T, *batch, ...] or [*batch, ...].
        dropped: for each of these trees 0 or 1, the axes that its arrays lack in front.
        args: trees of arrays.
    """
    if not is_jax(namespace(xs)) or not jax.typeof(xs).sharding.mesh.explicit_axes:
        return f(*args)
    axes = jax.typeof(xs).sharding.spec[:-1]
    specs = tuple(jax.sharding.PartitionSpec(*axes[start:]) for start in dropped)
    return jax.sharding.auto_axes(f, out_sharding=specs)(*args)


def devices(xp: ModuleType) -> int:
    """Devices that an array of the library may be split over."""
    return jax.device_count() if is_jax(xp) else 1


def materialised(x: Array) -> Array:
    """`x` as an array in memory, not as a view or an expression that a compiler may move into a loop.

    A loop that multiplies by a transposed matrix wants it transposed once, before: XLA on the CPU otherwise
    fuses the transposition, and what the vector is computed from, into a naive product.
    """
    xp = namespace(x)
    if is_jax(xp):
        return jax.lax.optimization_barrier(x)
    return np.ascontiguousarray(x) if xp is np else x


def constant_tree(tree: Tree) -> Tree:
    """`tree` as constants: no derivative flows through it."""
    return map_tree(lambda x: jax.lax.stop_gradient(x) if is_jax(namespace(x)) else x, tree)


def ready(tree: Tree) -> Tree:
    """`tree` once its arrays are computed: JAX returns before they are."""
    return map_tree(lambda x: x.block_until_ready() if hasattr(x, "block_until_ready") else x, tree)


# -------------------------------------------------------------------------------------------- processes


def is_elsewhere(x: Any) -> bool:
    """Whether a part of an array lies with other processes, by JAX's distributed runtime."""
    return has_jax and isinstance(x, jax.Array) and not is_traced(x) and not x.is_fully_addressable


def fetched(x: Any, dtype: Any = None) -> np.ndarray:
    """An array in NumPy, as `numpy.asarray`; of what lies with several processes the whole, in each of them.

    Then every process has to come here.
    """
    if is_elsewhere(x) and not x.is_fully_replicated:
        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x, dtype)


def to_numpy(tree: Tree) -> Tree:
    """Copy a tree's arrays to NumPy on the host; see `fetched`."""
    return map_tree(fetched, tree)


def gathered(tree: T, large: Sequence[str] = ()) -> T:
    """A tree whose arrays that lie with several processes are whole in each of them; see `fetched`.

    For results that are small beside a pass: one process alone can then read and print them.

    Args:
        tree: the arrays.
        large: names of fields of a result that stay where they lie.
    """
    if large:
        names = type(tree)._array_fields  # type: ignore  # a result
        small = {name: getattr(tree, name) for name in names if name not in large}
        return dataclasses.replace(tree, **gathered(small))  # type: ignore  # a result
    return map_tree(lambda x: jnp.asarray(fetched(x)) if is_elsewhere(x) else x, tree)


class Process(NamedTuple):
    """One process of a job."""

    number: int
    processes: int
    """Of the job, in all."""


def process() -> Process:
    """This process among those of JAX's distributed runtime."""
    return Process(jax.process_index(), jax.process_count()) if has_jax else Process(0, 1)


def told_by_all(text: str) -> list[str]:
    """What each process says, by their numbers, of up to 400 characters; every process has to come here."""
    said = np.frombuffer(text.encode()[:400].ljust(400), np.uint8)
    return [bytes(row).decode(errors="ignore").rstrip() for row in multihost_utils.process_allgather(said)]


# -------------------------------------------------------------------------------------------- functions


def sigmoid(xp: ModuleType, a: Array) -> Array:
    """σ(a) = ½(1 + tanh(a/2)): no exponential that could overflow.

    Its absolute error is at the rounding level, its relative error near 0 is not: for logarithms of gates
    use `log_sigmoid` of the pre-activation.
    """
    return 0.5 * (1 + xp.tanh(0.5 * a))


def activations(
    a: Array, size: int, tanh: tuple[int, ...] = (), linear: tuple[int, ...] = ()
) -> tuple[Array, ...]:
    """σ of each block of `size` columns of the last axis, tanh of those named in `tanh`, and `linear` as they are.

    A NumPy step costs by the call, so all blocks go through one tanh there: σ(a) = ½ + ½ tanh(½ a).
    """
    xp = namespace(a)
    starts = range(0, a.shape[-1], size)
    if xp is not np:
        parts = [a[..., k : k + size] for k in starts]
        return tuple(
            x if k in linear else xp.tanh(x) if k in tanh else sigmoid(xp, x) for k, x in enumerate(parts)
        )
    factor, offset = _affine(len(starts), size, tanh, a.dtype)
    made: Any = a * factor
    np.tanh(made, out=made)
    made *= factor
    made += offset
    return tuple((a if n in linear else made)[..., k : k + size] for n, k in enumerate(starts))


@functools.lru_cache(maxsize=64)
def _affine(count: int, size: int, tanh: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    """½ and ½ for the columns of a σ block, 1 and 0 for those of a tanh block."""
    factor = np.repeat(np.array([1.0 if k in tanh else 0.5 for k in range(count)], dtype), size)
    return factor, np.where(factor == 1, factor.dtype.type(0), factor)


def sigmoid_and_slope(xp: ModuleType, a: Array) -> tuple[Array, Array]:
    """σ(a) and σ'(a) = σ(a) σ(−a), both with a relative error at the rounding level wherever they are normal.

    ½(1 + tanh(a/2)) is 0 for a < −17 in float32 and f(1 − f) already for |a| > 17, so a product of Jacobians
    made of them would vanish where the true one is only small.
    """
    e = xp.exp(-xp.abs(a))
    larger = 1 / (1 + e)
    return xp.where(a >= 0, larger, e * larger), e * larger * larger


def tanh_slope(xp: ModuleType, a: Array) -> Array:
    """tanh'(a) = 4 e / (1 + e)² with e = exp(−2|a|): 1 − tanh² is 0 already for |a| > 9 in float32."""
    e = xp.exp(-2 * xp.abs(a))
    return 4 * e / (1 + e) ** 2


def log_sigmoid(a: Array) -> Array:
    """Natural log of σ(a), exact where log(sigmoid(a)) is already 0 (a > 17 in float32) or −inf."""
    xp = namespace(a)
    return -xp.logaddexp(xp.zeros_like(a), -a)


def exp(x: Array) -> Array:
    """e^x, infinite above the float range without a warning."""
    with np.errstate(over="ignore"):
        return namespace(x).exp(x)


def log(x: Array) -> Array:
    """Natural log, −inf at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return namespace(x).log(x)


def columns(packed: Array, sizes: tuple[int, ...]) -> list[Array]:
    """The arrays [..., size] of these sizes that a packed last axis holds one after another."""
    found, at = [], 0
    for size in sizes:
        found.append(packed[..., at : at + size])
        at += size
    return found


def cumulative_max(x: Array) -> Array:
    """The greatest of x_0, …, x_t along axis 0."""
    return jax.lax.cummax(x, axis=0) if is_jax(namespace(x)) else np.maximum.accumulate(x, axis=0)


def solve(matrix: Array, right: Array) -> Array:
    """The solutions [*n, N] of linear systems [*n, N, N]; infinite or NaN where a matrix is singular."""
    xp = namespace(matrix, right)
    try:
        return xp.linalg.solve(matrix, right[..., None])[..., 0]
    except np.linalg.LinAlgError:  # NumPy refuses all of them for one
        if matrix.ndim == 2:
            return np.full_like(right, np.nan)
        return np.stack([solve(a, b) for a, b in zip(matrix, right, strict=True)])


def triangular_inverse(upper: Array) -> Array:
    """The inverses [*n, N, N] of regular upper triangular matrices, row by row from the last, for all at once.

    In JAX a solution at each step of a loop would wait for threads of a library, and products do not. NumPy
    eliminates: below a triangular matrix's pivots nothing is left to do, and none is exchanged.
    """
    if not is_jax(namespace(upper)):
        return np.linalg.inv(upper)
    size = upper.shape[-1]

    def row(found: Array, at: Any) -> tuple[Array, None]:
        own, unit, k = at
        solution = (unit - (own[..., None, :] @ found)[..., 0, :]) / own[..., k, None]
        return jax.lax.dynamic_update_index_in_dim(found, solution, k, -2), None

    rows = jnp.moveaxis(upper, -2, 0), jnp.eye(size, dtype=upper.dtype), jnp.arange(size)
    return scan(row, jnp.zeros_like(upper), rows, reverse=True)[0]


def sum_over_time(x: Array) -> Array:
    """Sum over axis 0 that stays accurate over millions of steps.

    A running float32 sum of 10⁶ log-gates is off by up to a percent. NumPy and JAX with float64 enabled
    accumulate in float64; float32 JAX sums blocks of √T steps, then the blocks' sums.
    """
    xp = namespace(x)
    length = x.shape[0]
    if not is_jax(xp):
        return np.asarray(x).sum(axis=0, dtype=np.float64)
    if jax.config.jax_enable_x64:
        return jnp.sum(x, axis=0, dtype=jnp.float64)
    size = max(1, int(length**0.5))
    whole = length // size * size
    blocks = x[:whole].reshape((-1, size, *x.shape[1:])).sum(axis=1)
    return blocks.sum(axis=0) + x[whole:].sum(axis=0)

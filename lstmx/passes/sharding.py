"""Batches over several devices, of one process or of many."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lstmx.arrays import (
    Array,
    Tree,
    has_jax,
    is_jax,
    is_traced,
    jax,
    jnp,
    leaves,
    map_tree,
    namespace,
    told_by_all,
)
from lstmx.checks import array, positive

T = TypeVar("T")
_MOST_CORES = 4096
_WORTH = 2**12  # steps times sequences from which on the devices work longer than they wait for each other


def use_cores(n: int | None = None) -> None:
    """Make CPU cores devices of JAX, for `shard_batch` to split batches over.

    XLA on a CPU spreads single products over the cores, and works on one device after the other's steps; devices
    work on their sequences at once. To be called before JAX computes anything. GPUs, where there are any, stay the
    devices that JAX uses first.

    Args:
        n: how many devices; None for one for each core that this process may use.

    Raises:
        ImportError: JAX is not installed.
        TypeError: n is no integer.
        ValueError: n is below 1 or over 4096.
        RuntimeError: JAX has started already, with another number of CPU devices.

    Example:
        >>> import lstmx
        >>> lstmx.use_cores()  # doctest: +SKIP
        >>> outputs, final = lstmx.run(cell, params, lstmx.shard_batch(xs))  # doctest: +SKIP
    """
    if not has_jax:
        raise ImportError("use_cores needs the package jax, which is not installed: pip install jax")
    count = _cores() if n is None else positive("n", n, 1, _MOST_CORES)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        found = len(jax.local_devices(backend="cpu"))
        if found != count:
            raise RuntimeError(
                f"n is {n}, but JAX has started already, with {found} CPU device{'s' * (found > 1)}, and keeps "
                "them: call use_cores before anything is computed in JAX, best after the imports"
            ) from error


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard_batch(xs: Array, devices: Any = None) -> Array:
    """Place sequences on several devices, split along the first batch axis.

    `run`, `record`, `summarise` and what `jax.grad` makes of them then work on each device's sequences where they
    lie; parameters go to every device, and their gradients are summed over the devices. Any other placement by
    `jax.sharding` is followed alike. `lstmx.use_cores()` makes CPU cores devices.

    In a job of several processes, started by `jax.distributed.initialize`, every process calls this with the
    sequences that it has, the same number each. The result is the batch of them all, process by process, of which
    each process holds its own part. Every process then makes the same calls with it.

    Args:
        xs: [T, batch, ...]: inputs, outputs or their cotangents, time first; of several processes this one's.
        devices: the JAX devices, as many of each process; None for all.

    Returns:
        The same numbers as a JAX array that lies on the devices.

    Raises:
        ImportError: JAX is not installed.
        TypeError: xs is no array of numbers, or devices no list of devices.
        ValueError: there is no device, or one twice; or xs has no batch axis, or one that this process's devices
            do not divide; or processes differ in the shape or dtype of xs or in the number of devices.
    """
    if not has_jax:
        raise ImportError("shard_batch needs the package jax, which is not installed: pip install jax")
    array("xs", xs)
    if not (hasattr(xs, "devices") or jnp.issubdtype(xs.dtype, np.number) or xs.dtype == np.dtype(bool)):
        raise TypeError(f"xs is an array of {xs.dtype}; expected numbers")
    devices = jax.devices() if devices is None else devices
    if not isinstance(devices, (list, tuple)) or not all(isinstance(one, jax.Device) for one in devices):
        raise TypeError(f"devices is {devices!r}; expected a list of JAX devices, such as jax.devices()[:2]")
    if not devices:
        raise ValueError("devices is empty; expected at least one JAX device, or None for all")
    twice = next((one for k, one in enumerate(devices) if one in devices[:k]), None)
    if twice is not None:
        raise ValueError(f"devices lists {twice} twice; expected different devices")
    here = [one for one in devices if one.process_index == jax.process_index()]
    if is_traced(xs) or len(here) == len(devices):
        _divided(xs, len(devices))
        return jax.device_put(xs, _split(devices, 1))
    if getattr(xs, "is_fully_addressable", True) is False:
        raise ValueError("xs is spread over processes already; expected the sequences of this one alone")
    count = f"{len(here)} device{'s' * (len(here) != 1)}"
    first, *others = told_by_all(f"{tuple(xs.shape)} of {xs.dtype} for {count}")
    for number, other in enumerate(others, 1):
        if other != first:
            raise ValueError(
                f"xs is {first} in process 0 and {other} in process {number}; expected the same of all processes"
            )
    _divided(xs, len(here))
    return jax.make_array_from_process_local_data(
        _split(sorted(devices, key=lambda one: one.process_index), 1), xs
    )


def _divided(xs: Array, devices: int) -> None:
    if xs.ndim < 3 or not devices or xs.shape[1] % devices:
        raise ValueError(
            f"xs has shape {tuple(xs.shape)}; expected [T, batch, ...] with a batch that splits evenly over "
            f"{devices} devices"
        )


def _split(devices: Any, axis: int) -> Any:
    """A placement with this axis split over the devices."""
    mesh = jax.sharding.Mesh(devices, ("batch",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * axis, "batch"))


class Spread(NamedTuple):
    """What `spread` gives."""

    sequences: Tree
    states: Tree
    whole: Tree
    is_split: bool
    """Whether they lie on other devices than they came on."""


def spread(sequences: Tree, states: Tree = None, whole: Tree = None) -> Spread:
    """The arguments, split over the devices of this process where these divide a batch that is worth it.

    Else they stay where they are, and so in NumPy, inside a JAX transformation, and where the caller has placed
    one. What is computed of them when they are split is brought back by `brought_back`.

    Args:
        sequences: arrays [T, batch, ...].
        states: arrays [batch, ...].
        whole: arrays that every device needs whole, such as parameters.
    """
    as_they_are = Spread(sequences, states, whole, False)
    if not is_jax(namespace(*leaves(sequences))) or is_traced(sequences, states, whole):
        return as_they_are
    devices = jax.local_devices()
    sizes = {x.shape[1] for x in leaves(sequences)} | {x.shape[0] for x in leaves(states)}
    if len(devices) == 1 or len(sizes) != 1 or max(sizes) % len(devices) or jax.config.jax_default_device:
        return as_they_are
    if math.prod(next(leaves(sequences)).shape[:2]) < _WORTH:
        return as_they_are
    if any(_is_placed(x) for x in leaves((sequences, states, whole))):
        return as_they_are

    def placed(tree: Tree, sharding: Any) -> Tree:
        return map_tree(lambda x: jax.device_put(x, sharding) if hasattr(x, "shape") else x, tree)

    copied = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("batch",)), jax.sharding.PartitionSpec())
    return Spread(
        placed(sequences, _split(devices, 1)), placed(states, _split(devices, 0)), placed(whole, copied), True
    )


def _is_placed(x: Any) -> bool:
    """Whether somebody has put an array somewhere, but for `spread`, which copied it to all devices."""
    return getattr(x, "committed", False) and not (
        x.is_fully_replicated and x.sharding.device_set == {*jax.local_devices()}
    )


def brought_back(tree: T) -> T:
    """Arrays as they would be without `spread`."""
    return map_tree(lambda x: jnp.asarray(np.asarray(x)) if hasattr(x, "shape") else x, tree)

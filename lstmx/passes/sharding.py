"""Batches over several devices."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, has_jax, jax
from lstmx.checks import array


def shard_batch(xs: Array, devices: Any = None) -> Array:
    """Place sequences on several devices, split along the first batch axis.

    `run`, `record`, `summarise` and what `jax.grad` makes of them then work on each device's sequences where they
    lie; parameters go to every device, and their gradients are summed over the devices. Any other placement by
    `jax.sharding` is followed alike. CPU cores become devices by `jax.config.update("jax_num_cpu_devices", 2)`
    before JAX is first used.

    Args:
        xs: [T, batch, ...]: inputs, outputs or their cotangents, time first.
        devices: the JAX devices; None for all.

    Returns:
        The same numbers as a JAX array that lies on the devices.

    Raises:
        ImportError: JAX is not installed.
        TypeError: xs is no array, or devices no list of devices.
        ValueError: there is no device; or xs has no batch axis, or one that the devices do not divide.
    """
    if not has_jax:
        raise ImportError("shard_batch needs the package jax, which is not installed: pip install jax")
    array("xs", xs)
    devices = jax.devices() if devices is None else devices
    if not isinstance(devices, (list, tuple)) or not all(isinstance(one, jax.Device) for one in devices):
        raise TypeError(f"devices is {devices!r}; expected a list of JAX devices, such as jax.devices()[:2]")
    if not devices:
        raise ValueError("devices is empty; expected at least one JAX device, or None for all")
    if xs.ndim < 3 or xs.shape[1] % len(devices):
        raise ValueError(
            f"xs has shape {tuple(xs.shape)}; expected [T, batch, ...] with a batch that splits evenly over "
            f"{len(devices)} devices"
        )
    mesh = jax.sharding.Mesh(devices, ("batch",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "batch"))
    return jax.device_put(xs, split)

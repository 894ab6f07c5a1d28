"""What published code computes under the name of a Lyapunov spectrum, for comparison with its numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from lstmx.arrays import Array, namespace
from lstmx.dynamics.jacobians import jacobians_of
from lstmx.dynamics.passing import PROBED, Options, Walk
from lstmx.dynamics.spectrum import LyapunovSpectrum, PublishedRecipes
from lstmx.history import History

_ELEMENTS = 2**22  # of Jacobians at a time


def published_recipes(spectrum: LyapunovSpectrum, history: History, seed: int) -> LyapunovSpectrum:
    """The spectrum with what published recipes give on the same steps, a QR decomposition at each of them."""
    h, axes = history.cell.output_size, tuple(range(1, 1 + len(history.batch)))
    xp = namespace(history.inputs)

    def whole(part: History) -> Array:
        return jacobians_of(part)

    def hidden(part: History) -> Array:
        return whole(part)[..., :h, :h]

    def exponents(matrices: Callable[[History], Array]) -> Array:
        first = matrices(history[:1])[0]
        size, count = first.shape[-1], min(len(spectrum.exponents), first.shape[-1])
        options = Options(count, spectrum.transient, 1, check=False, seed=seed)
        walk = Walk(len(history), first, tuple(first.shape[:-2]), size, options)
        walk.prepare(matrices(history[:PROBED]))
        most = max(1, _ELEMENTS // (math.prod(history.batch) * history.cell.state_size**2))
        return walk.spectrum(lambda start, stop: matrices(history[start:stop]), most).exponents

    audit = PublishedRecipes(
        hidden_only=exponents(hidden),
        transposed_base2=exponents(lambda part: xp.swapaxes(hidden(part), -1, -2)) / math.log(2),
        batch_mean=exponents(lambda part: xp.mean(whole(part), axis=axes)) if history.batch else None,
    )
    return dataclasses.replace(spectrum, audit=audit)

"""What is said aloud of a training, and at which step it was first true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from lstmx.observatory.looking import Axes

_GROWN = math.log(1000)  # of a gradient that explodes
_GONE = math.log(1e-7)  # of one that vanishes: what float32 cannot add to 1
_NEAR = 10  # steps within which it does
_REACHED, _LOST = math.log(0.01), math.log(0.001)  # apart, or what is near one of them would come and go
_JUMPED = math.log(2)  # of the outputs, by one update
_CROSSED = math.log(100)  # by which a small change grows along the probe


class Alarm(NamedTuple):
    """Something that went wrong in a training, or turned."""

    kind: str
    """"not finite", "exploding", "vanishing", "crossing", "unstable", "shut", "open" or "lag"."""
    step: int
    """The step of the first look at which it was true."""
    words: str
    """What it is."""

    def __str__(self) -> str:
        return f"step {self.step}: {self.words}"


def alarms_of(
    steps: np.ndarray, readings: Readings, axes: Axes, kept: Mapping[str, str | None], lag: int | None
) -> list[Alarm]:
    """All alarms, in the order of the looks at which they were first true.

    Args:
        steps: of the looks, [looks].
        readings: as of `looking.look`.
        axes: their axes.
        kept: the retention gate of each layer.
        lag: steps that the gradient has to reach back; None where nothing is asked.
    """
    found = [
        Alarm(kind, int(steps[true.argmax()]), words(int(true.argmax())))
        for kind, true, words in (*_of_the_pass(readings, axes, lag), *_of_gates(readings, axes, kept))
        if true.any()
    ]
    return sorted(found, key=lambda alarm: alarm.step)


class Readings(Protocol):
    """What gives readings by name, with an axis of looks in front."""

    def __getitem__(self, name: str) -> np.ndarray: ...


_Kind = tuple[str, np.ndarray, Callable[[int], str]]


def _of_the_pass(readings: Readings, axes: Axes, lag: int | None) -> Iterator[_Kind]:
    """Each kind of alarm, whether it is true at each look, and its words for a look."""
    yield "not finite", readings["finite"] == 0, lambda _: "the parameters or the states are not finite"
    for name, given in zip(axes.given, readings["given_finite"].T, strict=True):
        yield "not finite", given == 0, lambda _, name=name: f"the {name.replace('_', ' ')} is not finite"

    norms = readings["log_norm"]
    most = np.where(np.isnan(norms), -np.inf, norms)
    farthest = most.argmax(axis=1)
    yield (
        "exploding",
        most.max(axis=1) > _GROWN,
        lambda at: (
            f"the gradient explodes: {farthest[at]} steps back it is {_power(most[at].max())} times what it is at "
            "the loss"
        ),
    )
    near = min(_NEAR, norms.shape[1] - 1)
    yield (
        "vanishing",
        norms[:, near] < _GONE,
        lambda at: f"the gradient vanishes: {near} steps back {_power(norms[at, near])} of it is left",
    )

    leading, limit = readings["exponents"][:, 0], _CROSSED / norms.shape[1]
    below = np.maximum.accumulate(leading <= limit)
    yield (
        "crossing",
        (leading > limit) & below,
        lambda at: (
            f"the leading Lyapunov exponent is {leading[at]:+.3g} nats per step and has crossed {limit:+.3g}, "
            f"ln 100 / {norms.shape[1]}, so that close states drift apart more than 100-fold in the "
            f"{norms.shape[1]} steps of the probe"
        ),
    )
    jumps = readings["jump"]
    yield (
        "unstable",
        jumps > _JUMPED,
        lambda at: (
            "the updates are unstable: the last one, made once more or taken back, makes the outputs on the probe "
            f"{_power(jumps[at])} times as large"
        ),
    )
    if lag is not None:
        reaches = norms[:, lag] > _REACHED
        yield (
            "lag",
            (norms[:, lag] <= _LOST) & np.maximum.accumulate(reaches),
            lambda at: (
                f"the gradient no longer reaches {lag} steps back: {_power(norms[at, lag])} of it is left there, "
                "where at an earlier look it was over 1 %"
            ),
        )


def _of_gates(readings: Readings, axes: Axes, kept: Mapping[str, str | None]) -> Iterator[_Kind]:
    """The same for each gate."""
    for k, layer in enumerate(axes.layer):
        for j, gate in enumerate(axes.gate):
            which = f"the {gate.replace('_', ' ')} of {layer}"
            shut, opened = readings["shut"][:, k, j], readings["open"][:, k, j]
            yield (
                "shut",
                shut > 0.5,
                lambda at, shut=shut, which=which: (
                    f"{which} is dead: in {shut[at]:.0%} of the units it stays below 0.001 on the whole probe"
                ),
            )
            if gate == kept[layer]:  # which stays open to remember
                continue
            yield (
                "open",
                opened > 0.5,
                lambda at, opened=opened, which=which: (
                    f"{which} is stuck: in {opened[at]:.0%} of the units it stays above 0.999 on the whole probe"
                ),
            )


def _power(log: float) -> str:
    """E to the power of a number, which may be beyond the range of a float."""
    if log == -math.inf:
        return "nothing"
    return f"{math.exp(log):.3g}" if abs(log) < 700 else f"10^{log / math.log(10):.0f}"

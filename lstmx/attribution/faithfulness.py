"""Whether contributions say what counts: the target as steps are taken out of a pass, or put in, by them."""

from __future__ import annotations

import numpy as np

from lstmx.arrays import fetched, is_traced, map_tree, namespace, result
from lstmx.attribution.rerun import again, at_once
from lstmx.attribution.results import Attribution
from lstmx.checks import LARGEST, positive, seeding


@result
class Faithfulness:
    """The target as more and more steps' inputs are those of the baseline, or of the pass.

    Steps go in the order of their contributions, those that raise the target most first.

    Attributes:
        fractions: of the steps that count, [K], from 0 to 1.
        deletion: the target with that share of the steps taken out, [K, *batch].
        insertion: the target with that share of the steps alone put in, [K, *batch].
        shuffled: as deletion, with the steps in a drawn order, [K, *batch].
    """

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    shuffled: np.ndarray

    @property
    def deletion_area(self) -> np.ndarray:
        """Mean of the target over the fractions taken out, [*batch]: the less the better the order."""
        return _area(self.fractions, self.deletion)

    @property
    def insertion_area(self) -> np.ndarray:
        """Mean of the target over the fractions put in, [*batch]: the more the better the order."""
        return _area(self.fractions, self.insertion)

    @property
    def shuffled_area(self) -> np.ndarray:
        """Mean of the target over the fractions taken out in a drawn order, [*batch]."""
        return _area(self.fractions, self.shuffled)

    def __repr__(self) -> str:
        return f"Faithfulness({len(self.fractions)} fractions, batch {self.deletion.shape[1:]})"

    def __str__(self) -> str:
        """The areas, in medians over sequences."""
        areas = {
            "taken out by contribution": self.deletion_area,
            "taken out in a drawn order": self.shuffled_area,
            "put in by contribution": self.insertion_area,
        }
        width = max(map(len, areas))
        start, end = np.median(self.deletion[0]), np.median(self.deletion[-1])
        lines = [f"target {start:.4g} with all steps, {end:.4g} with none; its mean over the steps"]
        return "\n".join([*lines, *(f"  {name:<{width}}  {np.median(area):.4g}" for name, area in areas.items())])


def _area(fractions: np.ndarray, curve: np.ndarray) -> np.ndarray:
    return np.trapezoid(curve, fractions, axis=0)


def faithfulness(attribution: Attribution, points: int = 21, *, seed: int = 0) -> Faithfulness:
    """Take steps out of a pass by their contributions, and put them in, and see what becomes of the target.

    The inputs of a step that is out are those of the attribution's baseline. All passes are run again, many in one
    go, with the initial state, lengths, masks and draws of the recorded one.

    Args:
        attribution: from `lstmx.attribute`.
        points: fractions of the steps, from none to all, at least 2.
        seed: of the drawn order.

    Returns:
        A `Faithfulness`; `print` shows the areas under its curves.

    Raises:
        TypeError: this is no Attribution, or it is inside a JAX transformation.
        ValueError: fewer than 2 points.
    """
    if not isinstance(attribution, Attribution):
        raise TypeError(f"attribution is a {type(attribution).__name__}; expected what lstmx.attribute gives")
    if is_traced(attribution):
        raise TypeError(
            "attribution is inside a JAX transformation, where steps have no order yet; call this outside"
        )
    positive("points", points, 2, LARGEST)
    seeding("seed", seed)
    history, steps = attribution.history, fetched(attribution.steps, np.float64)
    counts = np.ones(steps.shape, bool) if history.counts is None else fetched(history.counts)
    drawn = np.random.default_rng(seed).uniform(size=steps.shape)
    places = _places(-steps, counts), _places(drawn, counts)
    fractions = np.linspace(0, 1, points)
    first = np.rint(fractions.reshape(-1, *(1,) * steps.ndim) * counts.sum(axis=0))  # how many, [K, 1, *batch]
    out = np.concatenate([places[0] < first, places[0] >= first, places[1] < first])
    xp, most = namespace(history.inputs), at_once(history)
    found = []
    for k in range(0, len(out), most):
        flags = xp.asarray(np.moveaxis(out[k : k + most], 0, 1)[..., None])
        xs = xp.where(flags, attribution.baseline[:, None], history.inputs[:, None])
        number = xs.shape[1]
        start = map_tree(lambda x, n=number: xp.broadcast_to(x, (n, *x.shape)), history.initial)
        found.append(fetched(attribution.target.values(again(history, xs, start).outputs)))
    deletion, insertion, shuffled = np.split(np.concatenate(found), 3)
    return Faithfulness(fractions, deletion, insertion, shuffled)


def _places(order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The place of each step of [T, *batch] among those that count, the least of `order` first; others last."""
    ranked = np.argsort(np.where(counts, order, np.inf), axis=0, kind="stable")
    return np.argsort(ranked, axis=0, kind="stable")

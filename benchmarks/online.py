"""`python -m benchmarks.online`: a small copy memory, trained with the gradient of each method of `lstmx.online`.

An LSTM reads two symbols out of four, waits, and repeats them; the loss is the cross entropy at the two steps that
answer. Every arm of a seed starts from the same parameters and sees the same batches. The gradient of the readout
is exact in all of them. Prints the table of online.md here.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import lstmx
from benchmarks.harness import machine


class Sizes(NamedTuple):
    """How much is done."""

    delay: int
    units: int
    steps: int
    seeds: int


class Arm(NamedTuple):
    """A way to get the gradient of the cell; None for the method is backpropagation."""

    method: str | None = None
    options: tuple[tuple[str, int], ...] = ()
    share: float = 1.0
    """Of the recurrent weights that there are."""


FULL, QUICK = Sizes(6, 12, 1200, 3), Sizes(2, 4, 10, 2)
ARMS = {
    "backpropagation": Arm(),
    "rtrl": Arm("rtrl"),
    "snap1": Arm("snap1"),
    "truncated, window 4": Arm("truncated", (("window", 4),)),
    "backpropagation, 10 % of the recurrent weights": Arm(share=0.1),
    "sparse, order 2, the same weights": Arm("sparse", (("order", 2),), share=0.1),
    "snap1, the same weights": Arm("sparse", (("order", 1),), share=0.1),
}
SYMBOLS, LETTERS, BATCH, RATE, CLIP = 4, 2, 16, 1e-2, 1.0


def main(arguments: list[str] | None = None) -> None:
    """Train every arm with every seed, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small task and model, to see that all works")
    sizes = QUICK if parser.parse_args(arguments).quick else FULL
    rows = {name: [run(arm, seed, sizes) for seed in tqdm(range(sizes.seeds), name)] for name, arm in ARMS.items()}
    print(markdown(rows, sizes))


def draw(seed: int, step: int, sizes: Sizes, count: int) -> tuple[jax.Array, jax.Array]:
    """Inputs [T, B, SYMBOLS + 2] of symbols, blanks, a marker and blanks; and the symbols [LETTERS, B]."""
    symbols = np.random.default_rng([seed, step]).integers(0, SYMBOLS, (LETTERS, count))
    codes = np.full((2 * LETTERS + sizes.delay, count), SYMBOLS)
    codes[:LETTERS], codes[LETTERS + sizes.delay - 1] = symbols, SYMBOLS + 1
    return jnp.asarray(np.eye(SYMBOLS + 2, dtype="float32")[codes]), jnp.asarray(symbols)


def answered(readout: Any, outputs: jax.Array, symbols: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cross entropy at the steps that answer, and the share of symbols that are right."""
    logits = outputs[-LETTERS:] @ readout
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, symbols).mean()
    return loss, (logits.argmax(axis=-1) == symbols).mean()


def weights(arm: Arm, seed: int, sizes: Sizes) -> Any:
    """Which weights there are, booleans like the parameters."""
    there = jax.tree.map(lambda x: np.ones(x.shape, bool), lstmx.LSTM(SYMBOLS + 2, sizes.units).init(seed))
    draws = np.random.default_rng([seed, 7])
    return there._replace(recurrent_kernel=draws.random(there.recurrent_kernel.shape) < arm.share)


def options(arm: Arm, there: Any) -> dict[str, Any]:
    """What `online` is told."""
    return dict(arm.options) | ({"pattern": there} if arm.method == "sparse" else {})


@functools.cache
def trainer(arm: Arm, seed: int, sizes: Sizes) -> tuple[Any, Any]:
    """The optimiser, and a compiled training step, of an arm with the weights of a seed."""
    cell, there = lstmx.LSTM(SYMBOLS + 2, sizes.units), weights(arm, seed, sizes)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))

    @jax.jit
    def train(model: Any, state: Any, xs: jax.Array, symbols: jax.Array) -> tuple[Any, Any]:
        params, readout = model
        outputs, pull = jax.vjp(lambda params: lstmx.run(cell, params, xs)[0], params)
        of_readout, direct = jax.grad(lambda *given: answered(*given, symbols)[0], argnums=(0, 1))(
            readout, outputs
        )
        if arm.method is None:
            own = jax.tree.map(lambda x, known: x * known, pull(direct)[0], there)
        else:
            own = lstmx.online(cell, params, xs, direct, arm.method, **options(arm, there)).parameters
        moves, state = optimizer.update((own, of_readout), state, model)
        return optax.apply_updates(model, moves), state

    return optimizer, train


def run(arm: Arm, seed: int, sizes: Sizes) -> dict[str, Any]:
    """One training; arms that have all weights share what was compiled."""
    cell, there = lstmx.LSTM(SYMBOLS + 2, sizes.units), weights(arm, seed, sizes)
    optimizer, train = trainer(arm, seed if arm.share < 1 else 0, sizes)
    params = jax.tree.map(lambda x, known: x * known, cell.init(seed), there)
    draws = np.random.default_rng([seed, 8])
    model = params, jnp.asarray(draws.normal(0, sizes.units**-0.5, (sizes.units, SYMBOLS)), "float32")
    state, start = optimizer.init(model), time.process_time()
    for step in range(sizes.steps):
        model, state = train(model, state, *draw(seed, step + 1, sizes, BATCH))
    jax.block_until_ready(model)
    seconds = time.process_time() - start
    xs, symbols = draw(seed, 0, sizes, 512)
    loss, right = answered(model[1], lstmx.run(cell, model[0], xs)[0], symbols)
    cost = None
    if arm.method is not None:
        cost = lstmx.online(cell, model[0], xs[:, 0], "sum", arm.method, **options(arm, there))
    return {"loss": float(loss), "right": float(right), "seconds": seconds, "cost": cost}


def markdown(rows: dict[str, list[dict[str, Any]]], sizes: Sizes) -> str:
    """The table."""
    lines = [
        f"{LETTERS} of {SYMBOLS} symbols, delay {sizes.delay} (T = {2 * LETTERS + sizes.delay}), an LSTM of "
        f"{sizes.units} units, {sizes.steps:,} training steps of {BATCH} sequences, {sizes.seeds} seeds. Without "
        f"memory the loss is {np.log(SYMBOLS):.4f} and {1 / SYMBOLS:.0%} of the symbols are right.",
        "",
        machine(),
        "",
        "| | loss of each seed | symbols right, of each seed | influence | multiplications a step | "
        "bytes carried | seconds of CPU a seed |",
        "|---" * 7 + "|",
    ]
    for name, found in rows.items():
        cost, told = found[0]["cost"], ["–"] * 3
        if cost is not None:
            told = [f"{cost.entries:,} of {cost.whole:,}", f"{cost.products:,}", f"{cost.memory:,}"]
        if cost is not None and not cost.products:
            told[:2] = ["–", "–"]
        each = ", ".join(f"{one['loss']:.4f}" for one in found)
        right = ", ".join(f"{one['right']:.1%}" for one in found)
        seconds = np.median([one["seconds"] for one in found])
        lines.append(f"| {name} | {each} | {right} | {' | '.join(told)} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

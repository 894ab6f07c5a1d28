"""Tasks with exact definitions and the loss that a memoryless model reaches on each.

A task is a source of batches that are functions of the step number alone, so training is deterministic for a
seed and resumes anywhere. Batches are NumPy arrays; training moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstmx.checks import array, positive


class Batch(NamedTuple):
    """Sequences and what should come out."""

    inputs: Any
    """[T, B, D], float32."""
    targets: Any
    """Classes [T, B], integer, or values [T, B, O], float32."""
    weights: Any
    """[T, B], float32: how much each step counts in the loss; 0 where nothing is asked."""


@dataclass(frozen=True, eq=False)
class Task:
    """A source of training batches, a fixed validation batch and a baseline to beat.

    Attributes:
        name: what it is called in tables and figures.
        input_size: features D of each input.
        output_size: classes or values O asked for at a step.
        loss: "cross_entropy" (nats) or "mean_squared_error".
        batch: training batch for a step number, the same whenever it is asked.
        validation: batch that no training batch shares a sequence with.
        baseline: loss of the best predictor without memory, or of the one that `baseline_name` says.
        baseline_name: what the baseline does.
    """

    name: str
    input_size: int
    output_size: int
    loss: str
    batch: Callable[[int], Batch]
    validation: Batch
    baseline: float
    baseline_name: str


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The characters of a text, in code-point order, and their numbers.

    Attributes:
        characters: every character once.
    """

    characters: str

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Text to classes, [len(text)].

        Raises:
            ValueError: a character that the vocabulary lacks, with its position.
        """
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        known = np.frombuffer(self.characters.encode("utf-32-le"), np.uint32)
        classes = np.minimum(np.searchsorted(known, points), len(known) - 1)
        wrong = np.flatnonzero(known[classes] != points)
        if wrong.size:
            at = int(wrong[0])
            raise ValueError(f"character {text[at]!r} at position {at} is not among the vocabulary's {len(self)}")
        return classes.astype(np.int32)

    def decode(self, classes: Any) -> str:
        """Classes to text.

        Raises:
            ValueError: a class outside the vocabulary.
        """
        classes = np.asarray(classes)
        if classes.size and not (classes.min() >= 0 and classes.max() < len(self)):
            raise ValueError(f"classes run from {classes.min()} to {classes.max()}; expected 0 to {len(self) - 1}")
        return "".join(self.characters[i] for i in classes)

    def one_hot(self, classes: Any) -> np.ndarray:
        """Classes [...] to float32 indicator vectors [..., len(vocabulary)]."""
        return np.eye(len(self), dtype=np.float32)[np.asarray(classes)]


@dataclass(frozen=True, eq=False)
class CharacterTask(Task):
    """`next_character`'s task, with its text.

    Attributes:
        vocabulary: all characters of the text.
        train_text: what batches are drawn from.
        validation_text: the rest of the text, after it.
    """

    vocabulary: Vocabulary
    train_text: str
    validation_text: str


def next_character(
    text: str, length: int = 64, batch: int = 32, validation: float = 0.1, seed: int = 0
) -> CharacterTask:
    """Predict each next character of a text.

    The text is split once, contiguously: its first part is trained on, its last is validated on. A training
    batch is `batch` stretches of `length` characters that start anywhere in the first part; the validation
    batch is the last part cut into stretches of `length`, up to 64 of them, evenly spaced.

    The baseline is a character-bigram model: p(next | this) from counts of the training part, each count plus
    one, scored on the same validation batch.

    Args:
        text: at least `20·length` characters.
        length: steps T of each sequence.
        batch: sequences B of a training batch.
        validation: fraction of the text held back, between 0 and 1.
        seed: of the training stretches.

    Returns:
        The task; cross entropy in nats per character.

    Raises:
        TypeError: text is no string, or a size is no integer.
        ValueError: the text is too short, or a number out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}; expected a string")
    length, batch = positive("length", length), positive("batch", batch)
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation!r}; expected a fraction between 0 and 1")
    split = round(len(text) * (1 - validation))
    least = length + 1
    if split < 10 * least or len(text) - split < least:
        raise ValueError(
            f"text has {len(text)} characters; sequences of length {length} with validation={validation} need "
            f"at least {10 * least} to train on and {least} to validate on"
        )
    vocabulary = Vocabulary("".join(sorted(set(text))))
    classes = vocabulary.encode(text)
    train, held = classes[:split], classes[split:]

    def cut(source: np.ndarray, starts: np.ndarray) -> Batch:
        stretch = source[starts[None, :] + np.arange(length + 1)[:, None]]
        ones = np.ones((length, len(starts)), np.float32)
        return Batch(vocabulary.one_hot(stretch[:-1]), stretch[1:], ones)

    def draw(step: int) -> Batch:
        return cut(train, np.random.default_rng([seed, step]).integers(0, len(train) - length, batch))

    count = min(64, (len(held) - 1) // length)
    validation_batch = cut(held, np.linspace(0, len(held) - least, count).astype(int))
    baseline = _bigram_loss(train, validation_batch, len(vocabulary))
    return CharacterTask(
        "next character",
        len(vocabulary),
        len(vocabulary),
        "cross_entropy",
        draw,
        validation_batch,
        baseline,
        "character bigrams",
        vocabulary,
        text[:split],
        text[split:],
    )


def _bigram_loss(train: np.ndarray, batch: Batch, size: int) -> float:
    """Cross entropy per character of add-one smoothed bigram counts, in nats."""
    counts = np.ones((size, size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    log_p = np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(-log_p[batch.inputs.argmax(-1), batch.targets].mean())


def adding_problem(length: int = 100, batch: int = 32, seed: int = 0) -> Task:
    """Add the two marked numbers of a sequence.

    Input: at each step a value drawn from U[0, 1) and a marker; the marker is 1 at one step of the first half
    and at one of the second, else 0. Target at the last step: the sum of the two marked values. Mean squared
    error; predicting 1 always costs 1/6, knowing one of the values 1/12.

    Args:
        length: steps T, at least 2.
        batch: sequences B of a training batch; the validation batch has 256.
        seed: of all draws.

    Returns:
        The task, input size 2, output size 1.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size out of range.

    References:
        Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks", ICML 2016: the form and the
        generator followed here. The task is of Hochreiter & Schmidhuber 1997.
    """
    length, batch = positive("length", length, 2), positive("batch", batch)

    def draw(rng: np.random.Generator, count: int) -> Batch:
        inputs = np.zeros((length, count, 2), np.float32)
        inputs[..., 0] = rng.random((length, count), np.float32)
        first = rng.integers(0, length // 2, count)
        second = rng.integers(length // 2, length, count)
        columns = np.arange(count)
        inputs[first, columns, 1] = inputs[second, columns, 1] = 1
        targets = np.zeros((length, count, 1), np.float32)
        targets[-1, :, 0] = (inputs[..., 0] * inputs[..., 1]).sum(axis=0)
        weights = np.zeros((length, count), np.float32)
        weights[-1] = 1
        return Batch(inputs, targets, weights)

    return Task(
        f"adding problem, T = {length}",
        2,
        1,
        "mean_squared_error",
        lambda step: draw(np.random.default_rng([seed, step]), batch),
        draw(np.random.default_rng([seed, 0, 1]), 256),
        1 / 6,
        "always 1",
    )


def copy_memory(delay: int = 100, batch: int = 32, seed: int = 0) -> Task:
    """Repeat ten symbols after a delay.

    Ten categories: blank 0, symbols 1 to 8, marker 9. Input of `delay` + 20 steps: ten uniform symbols,
    `delay` − 1 blanks, the marker, ten blanks. Target: `delay` + 10 blanks, then the ten symbols. Cross
    entropy over all steps; without memory it is 10 ln 8 / (delay + 20).

    Args:
        delay: steps between the last symbol and the first that is asked for, at least 1.
        batch: sequences B of a training batch; the validation batch has 256.
        seed: of all draws.

    Returns:
        The task, input size 10 (one-hot), output size 9.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size out of range.

    References:
        Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks", ICML 2016.
    """
    delay, batch = positive("delay", delay), positive("batch", batch)
    length = delay + 20

    def draw(rng: np.random.Generator, count: int) -> Batch:
        symbols = rng.integers(1, 9, (10, count))
        classes = np.zeros((length, count), np.int32)
        classes[:10] = symbols
        classes[delay + 9] = 9
        targets = np.zeros((length, count), np.int32)
        targets[-10:] = symbols
        return Batch(np.eye(10, dtype=np.float32)[classes], targets, np.ones((length, count), np.float32))

    return Task(
        f"copy memory, delay {delay}",
        10,
        9,
        "cross_entropy",
        lambda step: draw(np.random.default_rng([seed, step]), batch),
        draw(np.random.default_rng([seed, 0, 1]), 256),
        10 * float(np.log(8)) / length,
        "no memory",
    )


def next_step(sequences: Any, validation: float = 0.2, batch: int = 32, seed: int = 0) -> Task:
    """Predict each next value of real-valued sequences.

    The baseline repeats the current value.

    Args:
        sequences: [T + 1, N, D] float32, N ≥ 2 sequences; the last ones, at least one, are validated on.
        validation: fraction of the sequences held back, between 0 and 1.
        batch: sequences B of a training batch, drawn with replacement.
        seed: of the draws.

    Returns:
        The task, input and output size D; mean squared error over all steps and features.

    Raises:
        TypeError: sequences is no float32 array.
        ValueError: a shape or a number out of range.
    """
    array("sequences", sequences)
    values = np.asarray(sequences)
    if values.dtype != np.float32:
        raise TypeError(f'sequences are {values.dtype}; expected float32: sequences.astype("float32")')
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[1] < 2:
        raise ValueError(f"sequences has shape {values.shape}; expected [T + 1, N, D] with T ≥ 1 and N ≥ 2")
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation!r}; expected a fraction between 0 and 1")
    batch = positive("batch", batch)
    held = min(max(1, round(values.shape[1] * validation)), values.shape[1] - 1)
    train = values.shape[1] - held

    def cut(columns: Any) -> Batch:
        chosen = values[:, columns]
        return Batch(chosen[:-1], chosen[1:], np.ones((len(chosen) - 1, chosen.shape[1]), np.float32))

    test = cut(np.arange(train, values.shape[1]))
    return Task(
        "next step",
        values.shape[2],
        values.shape[2],
        "mean_squared_error",
        lambda step: cut(np.random.default_rng([seed, step]).integers(0, train, batch)),
        test,
        float(((test.targets - test.inputs) ** 2).mean()),
        "repeat the last value",
    )

"""The characters of a text, and the task of predicting the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lstmx.checks import LARGEST, finite_number, positive, seeding
from lstmx.tasks.base import Batch, SeededBatches, Task


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
    length, batch, seed = positive("length", length), positive("batch", batch, 1, LARGEST), seeding("seed", seed)
    finite_number("validation", validation, "a fraction between 0 and 1", lambda x: 0 < x < 1)
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

    def draw(rng: np.random.Generator) -> Batch:
        return cut(train, rng.integers(0, len(train) - length, batch))

    count = min(64, (len(held) - 1) // length)
    validation_batch = cut(held, np.linspace(0, len(held) - least, count).astype(int))
    baseline = _bigram_loss(train, validation_batch, len(vocabulary))
    return CharacterTask(
        "next character",
        len(vocabulary),
        len(vocabulary),
        "cross_entropy",
        SeededBatches(draw, seed),
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

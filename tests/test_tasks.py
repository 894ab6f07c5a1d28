"""Tasks: exact definitions, baselines and splits."""

import sys

import numpy as np
import pytest

import lstmx
from lstmx.tasks import Vocabulary

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60


def test_adding_problem_asks_for_the_sum_of_the_two_marked_values():
    task = lstmx.tasks.adding_problem(length=30, batch=200, seed=3)
    inputs, targets, weights = task.batch(5)
    assert inputs.shape == (30, 200, 2)
    assert inputs.dtype == np.float32
    markers = inputs[..., 1]
    np.testing.assert_array_equal(markers[:15].sum(axis=0), 1)
    np.testing.assert_array_equal(markers[15:].sum(axis=0), 1)
    np.testing.assert_allclose(targets[-1, :, 0], (inputs[..., 0] * markers).sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(weights.sum(axis=0), 1)
    np.testing.assert_array_equal(weights[-1], 1)


def test_adding_problem_baseline_is_one_sixth():
    task = lstmx.tasks.adding_problem(length=10, batch=100_000)
    assert task.baseline == pytest.approx(1 / 6)
    targets = task.batch(0).targets[-1]
    assert np.mean((targets - 1) ** 2) == pytest.approx(1 / 6, rel=0.02)  # 3 standard errors are 0.9 %


def test_adding_problem_of_odd_length_marks_both_halves():
    markers = lstmx.tasks.adding_problem(length=5, batch=500).batch(0).inputs[..., 1]
    assert set(np.argmax(markers, axis=0)) == {0, 1}
    assert set(4 - np.argmax(markers[::-1], axis=0)) == {2, 3, 4}


def test_copy_memory_repeats_the_symbols_after_the_delay():
    task = lstmx.tasks.copy_memory(delay=7, batch=50, seed=1)
    inputs, targets, weights = task.batch(0)
    assert inputs.shape == (27, 50, 10)
    classes = inputs.argmax(-1)
    np.testing.assert_array_equal(targets[-10:], classes[:10])
    assert classes[:10].min() >= 1
    assert classes[:10].max() <= 8
    np.testing.assert_array_equal(classes[10:16], 0)
    np.testing.assert_array_equal(classes[16], 9)
    np.testing.assert_array_equal(classes[17:], 0)
    np.testing.assert_array_equal(targets[:-10], 0)
    np.testing.assert_array_equal(weights, 1)


@pytest.mark.parametrize(
    ("delay", "baseline"),
    [(100, 0.1732867951), (200, 0.0945200701), (500, 0.0399892604), (1000, 0.0203866818), (2000, 0.0102942651)],
)
def test_copy_memory_baseline(delay, baseline):
    assert lstmx.tasks.copy_memory(delay=delay, batch=1).baseline == pytest.approx(baseline, abs=1e-9)


@pytest.mark.parametrize(
    "make", [lambda s: lstmx.tasks.adding_problem(10, 4, s), lambda s: lstmx.tasks.copy_memory(5, 4, s)]
)
def test_batches_are_functions_of_seed_and_step(make):
    first, again, other = make(0), make(0), make(1)
    np.testing.assert_array_equal(first.batch(7).inputs, again.batch(7).inputs)
    assert not np.array_equal(first.batch(7).inputs, first.batch(8).inputs)
    assert not np.array_equal(first.batch(7).inputs, other.batch(7).inputs)
    assert not np.array_equal(first.batch(0).inputs, first.validation.inputs[:, :4])


def test_next_character_targets_are_the_next_inputs():
    task = lstmx.tasks.next_character(TEXT, length=16, batch=8)
    inputs, targets, _ = task.batch(3)
    classes = inputs.argmax(-1)
    np.testing.assert_array_equal(classes[1:], targets[:-1])
    stretch = task.vocabulary.decode(classes[:, 0]) + task.vocabulary.decode(targets[-1:, 0])
    assert stretch in task.train_text
    np.testing.assert_array_equal(inputs.sum(-1), 1)


def test_next_character_splits_the_text_once():
    task = lstmx.tasks.next_character(TEXT, length=16, batch=8, validation=0.25)
    assert task.train_text + task.validation_text == TEXT
    assert len(task.validation_text) == round(len(TEXT) * 0.25)
    held = task.vocabulary.decode(task.validation.inputs.argmax(-1)[:, 0])
    assert task.validation_text.startswith(held)


def test_bigram_baseline_is_a_direct_count():
    task = lstmx.tasks.next_character("ab" * 200 + "ac" * 100, length=10, batch=2, validation=0.3)
    train, size = task.train_text, 3
    loss = []
    for x, y in zip(task.validation.inputs.argmax(-1).ravel(), task.validation.targets.ravel(), strict=True):
        a, b = task.vocabulary.decode([x]), task.vocabulary.decode([y])
        loss.append(-np.log((train.count(a + b) + 1) / (train[:-1].count(a) + size)))
    assert task.baseline == pytest.approx(np.mean(loss), rel=1e-12)


def test_vocabulary_round_trip():
    vocabulary = Vocabulary("".join(sorted(set("naïve – text\n"))))
    assert vocabulary.decode(vocabulary.encode("naïve – text\n")) == "naïve – text\n"
    with pytest.raises(ValueError, match="character 'z' at position 2 is not among"):
        vocabulary.encode("tez")
    with pytest.raises(ValueError, match="classes run from 0 to 99"):
        vocabulary.decode([0, 99])


def test_next_step_baseline_repeats_the_last_value():
    sequences = np.random.default_rng(0).standard_normal((12, 10, 3)).astype(np.float32)
    task = lstmx.tasks.next_step(sequences)
    assert task.validation.inputs.shape == (11, 2, 3)
    np.testing.assert_array_equal(task.validation.targets, sequences[1:, 8:])
    assert task.baseline == pytest.approx(np.mean((sequences[1:, 8:] - sequences[:-1, 8:]) ** 2), rel=1e-6)
    drawn = task.batch(0).inputs
    assert all(any(np.array_equal(drawn[:, k], sequences[:-1, n]) for n in range(8)) for k in range(32))


def test_digits_are_read_pixel_by_pixel():
    from sklearn.datasets import load_digits

    digits, task = load_digits(), lstmx.tasks.sequential_digits(batch=6)
    inputs, targets, weights = task.batch(0)
    assert inputs.shape == (64, 6, 1)
    assert inputs.dtype == weights.dtype == np.float32
    np.testing.assert_array_equal(weights.sum(axis=0), 1)
    np.testing.assert_array_equal(weights[-1], 1)
    for image, digit in zip(inputs[..., 0].T, targets[-1], strict=True):
        (found,) = np.flatnonzero((digits.data == 16 * image).all(axis=1))
        assert digits.target[found] == digit
    assert (task.baseline, task.baseline_name) == (pytest.approx(np.log(10)), "chance")


def test_digits_are_split_once_for_all_seeds():
    tasks = [lstmx.tasks.sequential_digits(batch=2000, seed=seed) for seed in (0, 1)]
    trained = [{image.tobytes() for image in task.batch(0).inputs[..., 0].T} for task in tasks]
    held = [{image.tobytes() for image in task.validation.inputs[..., 0].T} for task in tasks]
    assert held[0] == held[1]
    assert len(held[0]) == 360
    assert not (trained[0] | trained[1]) & held[0]
    assert 1000 < len(trained[0]) < 1437  # about 1,437 (1 − exp(−2000 / 1437)) = 1,080
    assert not np.array_equal(tasks[0].batch(0).inputs, tasks[1].batch(0).inputs)
    classes = np.bincount(tasks[0].validation.targets[-1])
    assert classes.min() >= 25
    assert len(classes) == 10


def test_permuted_digits_are_the_same_pixels_in_one_other_order():
    plain, permuted = (lstmx.tasks.sequential_digits(flag, batch=40, seed=2) for flag in (False, True))
    np.testing.assert_array_equal(plain.validation.targets, permuted.validation.targets)
    left, right = (task.validation.inputs[..., 0] for task in (plain, permuted))
    order = [int(np.flatnonzero((right == row).all(axis=1))[0]) for row in left if row.any()]
    assert len(order) == len(set(order)) > 50  # some pixels at the edge are never inked
    assert order != sorted(order)
    np.testing.assert_array_equal(np.sort(left, axis=0), np.sort(right, axis=0))
    np.testing.assert_array_equal(
        np.sort(plain.batch(1).inputs, axis=0), np.sort(permuted.batch(1).inputs, axis=0)
    )
    again = lstmx.tasks.sequential_digits(True, seed=3)
    np.testing.assert_array_equal(again.validation.inputs, permuted.validation.inputs)


def test_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ImportError, match=r"sequential_digits needs the package scikit-learn, .* pip install scikit-l"
    ):
        lstmx.tasks.sequential_digits()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: lstmx.tasks.next_character(b"abc"), TypeError, "text is a bytes; expected a string"),
        (lambda: lstmx.tasks.next_character("short"), ValueError, "text has 5 characters; .* need at least 650"),
        (
            lambda: lstmx.tasks.next_character(TEXT, validation=1.0),
            ValueError,
            "validation is 1.0; expected a fraction",
        ),
        (lambda: lstmx.tasks.next_character(TEXT, length=2.5), TypeError, "length is 2.5; expected an integer"),
        (lambda: lstmx.tasks.adding_problem(1), ValueError, "length is 1; expected an integer of at least 2"),
        (lambda: lstmx.tasks.copy_memory(0), ValueError, "delay is 0; expected an integer of at least 1"),
        (lambda: lstmx.tasks.copy_memory(5, True), TypeError, "batch is True"),
        (lambda: lstmx.tasks.next_step(np.zeros((3, 4, 2))), TypeError, "sequences are float64; expected float32"),
        (lambda: lstmx.tasks.next_step(np.zeros((3, 4), "float32")), ValueError, "sequences has shape"),
        (lambda: lstmx.tasks.next_step([[1.0]]), TypeError, "sequences is a list"),
        (lambda: lstmx.tasks.sequential_digits("yes"), TypeError, "permuted is 'yes'; expected True or False"),
        (
            lambda: lstmx.tasks.sequential_digits(batch=0),
            ValueError,
            "batch is 0; expected an integer of at least 1",
        ),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()

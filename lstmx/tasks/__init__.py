"""Tasks with exact definitions and the loss that a memoryless model reaches on each.

A task is a source of batches that are functions of the step number alone, so training is deterministic for a
seed and resumes anywhere. Batches are NumPy arrays; training moves them.
"""

from lstmx.contents import publish
from lstmx.tasks.base import Batch, SeededBatches, Task
from lstmx.tasks.characters import CharacterTask, Vocabulary, next_character
from lstmx.tasks.sequences import next_step, sequential_digits
from lstmx.tasks.synthetic import adding_problem, copy_memory

__all__ = [
    "Batch",
    "CharacterTask",
    "SeededBatches",
    "Task",
    "Vocabulary",
    "adding_problem",
    "copy_memory",
    "next_character",
    "next_step",
    "sequential_digits",
]

publish(__name__)

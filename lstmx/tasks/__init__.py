"""Tasks with exact definitions and the loss that a memoryless model reaches on each.

A task is a source of batches that are functions of the step number alone, so training is deterministic for a
seed and resumes anywhere. Batches are NumPy arrays; training moves them.
"""

from lstmx.tasks.base import Batch as Batch
from lstmx.tasks.base import SeededBatches as SeededBatches
from lstmx.tasks.base import Task as Task
from lstmx.tasks.characters import CharacterTask as CharacterTask
from lstmx.tasks.characters import Vocabulary as Vocabulary
from lstmx.tasks.characters import next_character as next_character
from lstmx.tasks.sequences import next_step as next_step
from lstmx.tasks.sequences import sequential_digits as sequential_digits
from lstmx.tasks.synthetic import adding_problem as adding_problem
from lstmx.tasks.synthetic import copy_memory as copy_memory

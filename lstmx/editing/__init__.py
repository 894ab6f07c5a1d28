"""Interventions: a pass whose gates and states are changed on the way, and what that does to the outputs."""

from lstmx.editing.edited import Edited as Edited
from lstmx.editing.edited import EditedLayers as EditedLayers
from lstmx.editing.edits import Edit as Edit
from lstmx.editing.edits import ablate as ablate
from lstmx.editing.edits import clamp as clamp
from lstmx.editing.edits import field_of as field_of
from lstmx.editing.edits import noise as noise
from lstmx.editing.edits import patch as patch
from lstmx.editing.effect import Effect as Effect
from lstmx.editing.effect import effect as effect

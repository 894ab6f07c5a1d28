"""Edits: what changes gates and states inside a pass, for `lstmx.intervene`.

An edit is one of these, or a function of your own `(step, gates or a state) -> the same`; several go in a list.
"""

from lstmx.contents import publish
from lstmx.editing.edits import Edit, ablate, clamp, noise, patch

__all__ = ["Edit", "ablate", "clamp", "noise", "patch"]

publish(__name__)

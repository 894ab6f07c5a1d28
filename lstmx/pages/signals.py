"""Numbers that a reader of a text could keep count of."""

from __future__ import annotations

import numpy as np

_OPENING, _CLOSING = "([{", ")]}"


def text_signals(text: str) -> dict[str, np.ndarray]:
    """Numbers that a reader of a text could keep count of, by name, one for each character."""
    since_newline, since_space, indent, brackets = (np.zeros(len(text)) for _ in range(4))
    quoted = np.zeros(len(text))
    column = word = indentation = depth = 0
    leading, inside = True, False
    for t, character in enumerate(text):
        if character == "\n":
            column, indentation, leading = 0, 0, True
        else:
            column += 1
            leading = leading and character == " "
            indentation += leading
        word = 0 if character.isspace() else word + 1
        inside = inside != (character == '"')
        depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        since_newline[t], since_space[t], indent[t] = column, word, indentation
        quoted[t], brackets[t] = inside, depth
    return {
        "the position in the line": since_newline,
        "the position in the word": since_space,
        "the line's indentation": indent,
        "being inside double quotes": quoted,
        "the depth of brackets": brackets,
    }

"""What `dir` and `help` show of a namespace: its public names, with a line for each."""

from __future__ import annotations

import sys


def publish(name: str, headings: dict[str, str] | None = None) -> None:
    """Let `dir` of a module give what its `__all__` names, and its docstring end with a table of that.

    The line of each name is the first line of its own docstring.

    Args:
        name: the module's `__name__`; called once all that it makes public is there.
        headings: titles within the table, each by the name that it stands above; None for a table without.
    """
    module = sys.modules[name]
    headings = headings or {}
    margin = " " * (2 if headings else 0)
    width = max(map(len, module.__all__))
    table = []
    for public in module.__all__:
        if public in headings:
            table += ["", headings[public]]
        first = (getattr(module, public).__doc__ or "").strip().partition("\n")[0]
        table.append(f"{margin}{public:<{width}}  {first}")
    listed = [*module.__all__, *(["__version__"] if hasattr(module, "__version__") else [])]
    text = "\n".join([(module.__doc__ or "").rstrip(), *([] if headings else [""]), *table, ""])
    vars(module).update(__doc__=text, __dir__=lambda: listed)

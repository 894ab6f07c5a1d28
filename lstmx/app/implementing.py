"""The implementation that a word on the command line names."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from lstmx.conformance import framework
from lstmx.conformance.frameworks import FRAMEWORKS


def implementation_of(text: str) -> Any:
    """What "torch" or "my_module:function" names; modules are looked for in the folder one is in, too.

    Raises:
        ValueError: it is neither, the module raises while it is imported, or it has no such function.
        TypeError: what it names cannot be called.
        ImportError: there is no such module, or the library is not installed.
    """
    if text in FRAMEWORKS:
        return framework(text)
    module, colon, name = text.partition(":")
    if not colon or not name or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"implementation is {text!r}; expected {', '.join(FRAMEWORKS)}, or a function of your own as "
            "module:function"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ImportError(f"implementation is {text!r}, and there is no module {error.name}") from error
        raise ImportError(
            f"implementation is {text!r}, and {module} imports a module that is not there: {error}"
        ) from error
    except Exception as error:  # of what the module does when it is imported
        raise ValueError(
            f"implementation is {text!r}, and importing {module} raised {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"implementation is {text!r}, and {module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"implementation is {text!r}, which is a {type(found).__name__} and cannot be called")
    return found

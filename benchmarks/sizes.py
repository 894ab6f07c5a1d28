"""The sizes of a case, without any import that would start a library."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """The sizes T, B, D, H."""

    length: int
    batch: int
    features: int
    units: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """A case from "1000x1x16x32".

        Raises:
            ValueError: not four positive whole numbers.
        """
        sizes = text.lower().split("x")
        if len(sizes) != 4 or not all(size.isdigit() and int(size) > 0 for size in sizes):
            raise ValueError(f"a case is four positive numbers TxBxDxH such as 1000x1x16x32, got {text!r}")
        return cls(*map(int, sizes))

    @property
    def title(self) -> str:
        """T×B×D×H."""
        return "×".join(f"{size}" for size in self)


CASES = (
    Case(1000, 1, 16, 32),
    Case(1000, 1, 64, 128),
    Case(2000, 8, 32, 64),
    Case(500, 16, 64, 128),
    Case(500, 32, 64, 256),
    Case(100, 128, 64, 512),
    Case(200_000, 1, 16, 32),
)
"""Those of the tables."""
QUICK = (CASES[0], CASES[2], CASES[3])
"""Those that `--quick` takes."""
TIP = Case(20_000, 1, 16, 32)
"""Where the flag for small loops is tried."""

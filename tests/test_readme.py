"""The README's Python, run as it stands, and its commands, present as CI looks for them."""

import re
from pathlib import Path

import matplotlib
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow  # a minute, alone
def test_readme_blocks_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with matplotlib.rc_context({"backend": "agg"}):
        names: dict = {}
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), names)
    assert len(BLOCKS) >= 2
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("words", ["-m lstmx deep-dive", '-e ".[test]"', "-m pytest"])
def test_readme_commands_are_single_lines(words):
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(lines) == 2
    assert any(words in line for line in lines)

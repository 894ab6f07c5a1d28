"""The table of other people's models in README.md here is what the corpora of `test_models_*.py` hold."""

import re
from pathlib import Path

import corpus
import pytest

HERE = Path(__file__).parent


@pytest.mark.slow  # every framework to import
def test_the_readmes_have_the_table_as_it_is():
    found = corpus.markdown()
    assert found in (HERE / "README.md").read_text(encoding="utf-8")
    number, agreed, refused = re.search(r"Of (\d+) models.* (\d+) agree.* (\d+) are refused", found).groups()
    words = (HERE.parent / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"Of {number} models .* {agreed} agree .* and {refused} are refused", words)

"""The README's table of other people's models is what the corpora of `test_models_*.py` hold."""

from pathlib import Path

import corpus
import pytest


@pytest.mark.slow  # every framework to import
def test_the_readme_has_the_table_as_it_is():
    assert corpus.readme() in Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")

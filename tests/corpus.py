"""Models of other frameworks that the tests build, and what becomes of them.

Each `test_models_*.py` has a `CORPUS`: a label, how the model is built and called, and True where lstmx agrees
with the framework to six digits, or the words in which it refuses. `python tests/corpus.py`, with the frameworks
installed, prints what README.md here has of it.
"""

import importlib
import os
import re
import sys
from pathlib import Path

MODULES = {
    "PyTorch": "test_models_torch",
    "Keras": "test_models_keras",
    "Flax": "test_models_flax",
    "Equinox": "test_models_equinox",
    "Haiku": "test_models_haiku",
    "ONNX": "test_models_onnx",
}
FEATURES = {
    "LSTM": r"LSTM",
    "GRU": r"GRU",
    "simple RNN": r"^RNN(, | of (ReLU|sig))|RNNCell|SimpleRNN|SimpleCell|Vanilla",
    "no bias, one bias": r"no bias|one bias",
    "several layers or cells": r"\d layers|(two|three) cells|DeepRNN",
    "both directions": r"both directions",
    "projection, peepholes": r"projection|peephole",
    "initial states": r"initial|drawn",
    "lengths, masks, packing": r"length|mask|packed",
    "activations": r"relu|ReLU|, linear|sigmoid|gelu|GELU|Elu|hard |Vanilla|of tanh",
    "backwards, batch first, unrolled, in pieces": r"backwards|batch first|unroll|piece|loop",
    "weight norm, pruning and the like": r"norm|pruned|orthogonal|dropping",
    "other dtypes": r"float|int8|precision|quantised",
    "classes, arrays and forwards of one's own": r"class|beside|a forward|(array|module) more|another|"
    r"a product$|Conv|images|LoRA|low-rank",
}


def agrees(outcome):
    """Whether a model is recorded with the right numbers; some of ONNX have states that no parameters hold."""
    return outcome is True or "record_onnx" in outcome


def corpora():
    """The corpus of each framework, as (label, whether it agrees) for each model."""
    return {
        name: [(one[0], agrees(one[-1])) for one in importlib.import_module(module).CORPUS]
        for name, module in MODULES.items()
    }


def markdown():
    """The table, as README.md here has it."""
    found = corpora()
    agreed = sum(outcome for corpus in found.values() for _, outcome in corpus)
    total = sum(map(len, found.values()))
    lines = [
        f"Of {total} models in six frameworks, {agreed} agree with the framework's own outputs to 10⁻⁶, and "
        f"{total - agreed} are refused with the reason. Of each kind, agreed + refused:",
        "",
        f"| | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    rows = {"all": ""} | FEATURES
    for row, pattern in rows.items():
        counts = []
        for corpus in found.values():
            outcomes = [outcome for label, outcome in corpus if re.search(pattern, label)]
            counts.append(f"{sum(outcomes)} + {len(outcomes) - sum(outcomes)}" if outcomes else "")
        lines.append(f"| {row} | {' | '.join(counts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.path.insert(0, str(Path(__file__).parent.parent))
    print(markdown())

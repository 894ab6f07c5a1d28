"""Run where only numpy and matplotlib are installed: what must work there works, what cannot says what it needs.

Not collected by pytest; `.ci/run` runs it in an environment of its own.
"""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

import lstmx

for absent in ("jax", "optax", "tqdm", "safetensors", "zarr", "xarray"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is installed: this proves nothing here"

xs = np.random.default_rng(0).standard_normal((50, 3)).astype("float32")
folder = Path(tempfile.mkdtemp())
for cell in (lstmx.LSTM(3, 8), lstmx.GRU(3, 8), lstmx.SimpleRNN(3, 8)):
    params = cell.init(0)
    assert isinstance(params.bias, np.ndarray)
    outputs, final = lstmx.run(cell, params, xs)
    history = lstmx.record(cell, params, xs, keep="states")
    np.testing.assert_array_equal(history.hidden_state, outputs)
    np.testing.assert_array_equal(history.final.hidden, final.hidden)
    assert np.isfinite(lstmx.backward(history, np.ones_like(outputs)).inputs).all()
    flow = lstmx.gradient_flow(history, "last")
    assert np.isfinite(flow.log_norm).all()
    assert lstmx.influence(history).log_norms.shape == (50, 50)
    for objective in lstmx.objectives.__all__:
        assert np.isfinite(getattr(lstmx.objectives, objective)(history))
    lstmx.plot.gradient_flow(flow).savefig(folder / "flow.png")
    lstmx.plot.dynamics(history).savefig(folder / f"{type(cell).__name__}.png")
    if cell.gate_blocks:
        statistics = lstmx.gate_statistics(history)
        assert "forget gate" in str(statistics) or "update gate" in str(statistics)
        lstmx.plot.saturation(statistics).figure.savefig(folder / "saturation.png")
        lstmx.plot.timescales(statistics).figure.savefig(folder / "timescales.png")

assert np.isfinite(
    lstmx.path_spectrum(lstmx.record(lstmx.LSTM(3, 8), lstmx.LSTM(3, 8).init(0), xs)).log_total
).all()

task = lstmx.tasks.adding_problem(10)
model = lstmx.Model(lstmx.LSTM(2, 4), 1, "mean_squared_error")
for name, call in {
    "progress": lambda: lstmx.gradient_flow(history, progress=True),
    "train": lambda: lstmx.train(model, model.init(0), task.batch),
    "evaluate": lambda: lstmx.evaluate(model, model.init(0), task.validation),
    "compare": lambda: lstmx.compare([model.cell], task),
    "save": lambda: lstmx.save(folder / "cell.safetensors", cell, params),
    "history.save": lambda: history.save(folder / "history"),
    "to_xarray": history.to_xarray,
}.items():
    message = ""
    try:
        call()
    except ImportError as error:
        message = str(error)
    package, purpose = {
        "progress": ("tqdm", "progress=True"),
        "save": ("safetensors", "saving parameters"),
        "history.save": ("zarr", "a history on disk"),
        "to_xarray": ("xarray", "to_xarray"),
    }.get(name, ("jax", "training"))
    expected = f"{purpose} needs the package {package}, which is not installed: pip install {package}"
    assert message == expected, f"{name}: {message!r}"
print("NumPy alone: ok")

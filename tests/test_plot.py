"""Figures are checked by what they hold; that they look right was seen by eye."""

import dataclasses
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from reference import labels, render

import lstmx
import lstmx.plot
from lstmx.arrays import map_tree
from lstmx.comparison import Comparison
from lstmx.plot import canvas

CELLS = [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN]


def recorded(kind, length=40, hidden=8, features=3, batch=(), library="numpy"):
    cell = kind(features, hidden)
    shapes = cell.parameter_shapes()  # not init, whose orthogonal kernels take seconds for 1024 units
    draws = np.random.default_rng(1)
    params = type(shapes)(*(draws.normal(0, hidden**-0.5, shape).astype("float32") for shape in shapes))
    params = params._replace(input_kernel=params.input_kernel * hidden**0.5)
    if library == "jax":
        params = jax.tree.map(jax.numpy.asarray, params)
    t = np.arange(length).reshape(-1, *[1] * (len(batch) + 1))
    phases = np.random.default_rng(2).uniform(0, 6, (*batch, features))
    return lstmx.record(cell, params, np.sin(t / 5 + phases).astype("float32"))


def panel(figure, title):
    (found,) = [ax for ax in figure.axes if ax.get_title("left") == title]
    return found


def ydata(ax):
    return np.stack([line.get_ydata() for line in ax.lines], axis=1)


def cells_of(ax, length, rows):
    """The image of a heat map [rows, length], once for each cell of it."""
    image = np.asarray(ax.images[0].get_array())
    assert image.shape[0] % rows == image.shape[1] % length == 0
    return image[:: image.shape[0] // rows, :: image.shape[1] // length]


pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")


@pytest.mark.slow
def test_import_leaves_matplotlib_for_later():
    code = "import sys, lstmx.plot; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------- dynamics


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
@pytest.mark.parametrize("kind", CELLS)
def test_dashboard_lines_are_fields_of_the_history(kind, library):
    history = recorded(kind, library=library)
    figure = lstmx.plot.dynamics(history)

    hidden = np.asarray(history.hidden_state)
    np.testing.assert_array_equal(ydata(panel(figure, "inputs, by feature")), history.inputs)
    np.testing.assert_array_equal(ydata(panel(figure, "hidden state, first units")), hidden[:, :6])
    norms = np.sqrt((hidden.astype("float64") ** 2).sum(1))
    title = "states: norm" if kind is lstmx.LSTM else "hidden state: norm"
    np.testing.assert_allclose(ydata(panel(figure, title))[:, 0], norms, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
def test_dashboard_shows_every_gate_as_map_distribution_and_mean(kind, library):
    history = recorded(kind, library=library)
    figure = lstmx.plot.dynamics(history)

    distributions = panel(figure, "gates: distribution").patches
    means = panel(figure, "gates: mean over units")
    assert len(distributions) == len(means.lines) == len(history.cell.gate_blocks)
    for k, name in enumerate(history.cell.gate_blocks):
        gate = np.asarray(getattr(history, name))
        heat = panel(figure, name.replace("_", " "))
        np.testing.assert_allclose(cells_of(heat, 40, 8), gate.T, atol=1e-6)
        assert heat.images[0].get_clim() == (0, 1)
        assert heat.images[0].colorbar.ax.get_ylabel() == "activation"
        assert distributions[k].get_label() == means.lines[k].get_label() == name.removesuffix("_gate")
        fraction, edges, _ = distributions[k].get_data()
        np.testing.assert_allclose(fraction.sum(), 1)
        np.testing.assert_allclose(fraction @ (edges[1:] + edges[:-1]) / 2, gate.mean(), atol=0.01)
        np.testing.assert_allclose(means.lines[k].get_ydata(), gate.mean(1), rtol=1e-5)


@pytest.mark.slow
def test_lstm_dashboard_shows_the_cell_state():
    history = recorded(lstmx.LSTM)
    figure = lstmx.plot.dynamics(history)
    np.testing.assert_array_equal(ydata(panel(figure, "cell state, first units")), history.cell_state[:, :6])
    norms = ydata(panel(figure, "states: norm"))[:, 1]
    np.testing.assert_allclose(norms, np.sqrt((history.cell_state**2).sum(1)), rtol=1e-5)


@pytest.mark.slow
def test_gru_dashboard_shows_the_candidate_in_its_place():
    history = recorded(lstmx.GRU)
    figure = lstmx.plot.dynamics(history)
    np.testing.assert_array_equal(ydata(panel(figure, "candidate, first units")), history.candidate[:, :6])
    heat = panel(figure, "candidate")
    np.testing.assert_array_equal(cells_of(heat, 40, 8), history.candidate.T)
    assert heat.images[0].get_clim() == (-1, 1)


def test_simple_dashboard_shows_the_hidden_state_for_want_of_gates():
    history = recorded(lstmx.SimpleRNN)
    figure = lstmx.plot.dynamics(history)
    heat = panel(figure, "hidden state")
    np.testing.assert_array_equal(cells_of(heat, 40, 8), history.hidden_state.T)
    assert heat.images[0].get_clim() == (-1, 1)
    fraction, edges, _ = panel(figure, "hidden state: distribution").patches[0].get_data()
    assert (edges[0], edges[-1]) == (-1, 1)
    np.testing.assert_allclose(fraction.sum(), 1)
    mean = panel(figure, "hidden state: mean over units").lines[0].get_ydata()
    np.testing.assert_allclose(mean, history.hidden_state.mean(1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "panels"), list(zip(CELLS, (9, 9, 6), strict=True)))
def test_every_panel_has_a_title_and_two_labels(kind, panels):
    figure = lstmx.plot.dynamics(recorded(kind))
    titled = [ax for ax in figure.axes if ax.get_title("left")]
    assert len(titled) == len({ax.get_title("left") for ax in titled}) == panels
    for ax in titled:
        assert ax.get_xlabel() == ("activation" if "distribution" in ax.get_title("left") else "step")
        assert ax.get_ylabel()
    assert figure.get_suptitle() == f"{kind.__name__} of 8 units over 40 steps"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(("length", "hidden"), [(1, 1), (8, 1)])
def test_smallest_histories_are_drawn_with_whole_ticks(kind, length, hidden):
    figure = lstmx.plot.dynamics(recorded(kind, length, hidden, features=1))
    render(figure)  # a warning is an error here
    ax = panel(figure, "inputs")
    assert ax.lines[0].get_marker() == "."
    left, right = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if left <= tick <= right]
    assert ticks == sorted({round(tick) for tick in ticks})
    assert 0 in ticks


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_long_histories_are_thinned_out_and_say_so(kind):
    history = recorded(kind, length=10_000)
    figure = lstmx.plot.dynamics(history)
    render(figure)

    name = history.cell.retention_gate or "hidden_state"
    heat = panel(figure, name.replace("_", " "))
    assert heat.images[0].get_array().shape[1] == 1000
    blocks = np.asarray(getattr(history, name)).reshape(1000, 10, 8).mean(1)
    np.testing.assert_allclose(cells_of(heat, 1000, 8), blocks.T, atol=1e-6)
    assert heat.get_xlabel() == "step (means of 10)"
    assert heat.get_ylabel() == "unit"

    lines = panel(figure, "hidden state, first units")
    hidden = history.hidden_state[:, :6].astype("float64")
    low, high = hidden.min(0), hidden.max(0)
    height = (high - low).max()
    lanes = (hidden - (low + high) / 2) / height + np.arange(
        6
    )  # over so many steps each unit has a lane of its own
    blocks = lanes.reshape(1000, 10, 6)
    np.testing.assert_allclose(ydata(lines), blocks.mean(1), atol=1e-6)
    assert lines.get_yticks().tolist() == [*range(6)]
    assert [text.get_text() for text in lines.get_yticklabels()] == [*"012345"]
    assert lines.get_ylabel() == f"unit (lane: {height:.2g})"
    assert lines.get_legend() is None
    for k, drawn in enumerate(lines.collections):
        heights = drawn.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose((heights.min(), heights.max()), (blocks[..., k].min(), blocks[..., k].max()))
    assert len(lines.collections) == 6
    assert lines.get_xlabel() == "step (mean and range of 10)"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_wide_histories_are_thinned_out_and_say_so(kind):
    history = recorded(kind, length=20, hidden=1024)
    name = history.cell.retention_gate or "hidden_state"
    heat = panel(lstmx.plot.dynamics(history), name.replace("_", " "))
    assert heat.images[0].get_array().shape[0] == 512
    blocks = np.asarray(getattr(history, name)).reshape(20, 512, 2).mean(2)
    np.testing.assert_allclose(cells_of(heat, 20, 512), blocks.T, atol=1e-6)
    assert heat.get_xlabel() == "step"
    assert heat.get_ylabel() == "unit (means of 2)"


@pytest.mark.slow
def test_a_spike_of_one_step_stays_visible():
    history = recorded(lstmx.GRU, length=5000, features=1)
    history.inputs[3210] = 50
    ax = panel(lstmx.plot.dynamics(history), "inputs")
    highest = ax.collections[0].get_paths()[0].vertices
    highest = highest[highest[:, 1].argmax()]
    assert highest[1] == 50
    assert abs(highest[0] - 3210) < 5


@pytest.mark.slow
def test_the_last_block_is_as_long_as_what_is_left():
    history = recorded(lstmx.GRU, length=1001, features=7)
    figure = lstmx.plot.dynamics(history)
    line = panel(figure, "hidden state, first units").lines[0]
    assert len(line.get_xdata()) == 501
    assert line.get_xdata()[[0, -1]].tolist() == [0.5, 1000]
    norm = panel(figure, "hidden state: norm").lines[0].get_ydata()
    np.testing.assert_allclose(norm[-1], np.linalg.norm(history.hidden_state[-1]), rtol=1e-6)

    heat = panel(figure, "inputs")
    assert heat.images[0].get_extent() == [-0.5, 1001.5, -0.5, 6.5]
    assert heat.get_xlim() == (-0.5, 1000.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "limits"),
    [(np.eye(7)[np.arange(20) % 7], (0, 1)), (np.full((20, 7), -2.0), (-2, 2)), (np.zeros((20, 7)), (0, 1))],
)
def test_many_features_become_a_heat_map_of_fitting_colours(inputs, limits):
    cell = lstmx.GRU(7, 4)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), inputs.astype("float32"))
    heat = panel(lstmx.plot.dynamics(history), "inputs")
    np.testing.assert_array_equal(cells_of(heat, 20, 7), inputs.T)
    assert heat.images[0].get_clim() == limits
    assert heat.get_ylabel() == "feature"


@pytest.mark.slow
def test_steps_that_are_not_numbers_are_left_blank():
    history = recorded(lstmx.LSTM, length=2500)
    for values in (*history.states, history.stored):
        values[1000:] = np.nan
    figure = lstmx.plot.dynamics(history)
    render(figure)
    assert np.isnan(ydata(panel(figure, "hidden state, first units"))[500:]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "sequence"), [((3,), 2), ((3,), -1), ((3,), (1,)), ((2, 3), (1, 2))])
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_a_sequence_of_a_batch_is_picked(batch, sequence, library):
    history = recorded(lstmx.LSTM, batch=batch, library=library)
    figure = lstmx.plot.dynamics(history, sequence)
    index = sequence if isinstance(sequence, tuple) else (sequence,)
    expected = np.asarray(history.hidden_state)[(slice(None), *index)]
    np.testing.assert_array_equal(ydata(panel(figure, "hidden state, first units")), expected[:, :6])
    assert figure.get_suptitle().endswith(f", sequence {sequence}")


@pytest.mark.parametrize(
    ("batch", "sequence", "error", "message"),
    [
        ((), 1, ValueError, r"sequence is 1; the history has batch axes \(\): expected 0"),
        ((2, 3), 0, ValueError, r"sequence is 0; the history has batch axes \(2, 3\): expected one integer for"),
        ((3,), 3, IndexError, r"sequence index \(3,\) is outside the batch axes \(3,\)"),
        ((3,), 0.5, TypeError, "sequence index 0.5 is not an integer"),
    ],
)
def test_a_wrong_sequence_is_refused(batch, sequence, error, message):
    with pytest.raises(error, match=message):
        lstmx.plot.dynamics(recorded(lstmx.LSTM, batch=batch), sequence)


# ------------------------------------------------------------------------------------------- statistics


@pytest.mark.sample(1)
@pytest.mark.parametrize("library", ["numpy", "jax"])
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
def test_saturation_is_a_point_for_each_unit_and_gate(kind, library):
    statistics = lstmx.gate_statistics(recorded(kind, library=library))
    ax = lstmx.plot.saturation(statistics)
    render(ax.figure)

    guide, *gates = ax.lines
    assert np.add(*guide.get_data()).tolist() == [1, 1]
    assert [line.get_label() for line in gates] == [name.replace("_", " ") for name in statistics.gates]
    assert len({(line.get_color(), line.get_marker()) for line in gates}) == len(gates)
    for line, gate in zip(gates, statistics.gates.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), gate.left)
        np.testing.assert_array_equal(line.get_ydata(), gate.right)
    assert ax.get_xlabel() == "left saturation (fraction of time below 0.1)"
    assert ax.get_ylabel() == "right saturation (fraction of time above 0.9)"
    assert ax.get_title("left") == "gate saturation of 8 units"


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 8, 1024])
def test_timescales_are_sorted_by_the_geometric_one(hidden):
    statistics = lstmx.gate_statistics(recorded(lstmx.LSTM, hidden=hidden, library="jax"))
    ax = lstmx.plot.timescales(statistics)
    render(ax.figure)

    arithmetic, geometric = ax.lines
    order = np.argsort(statistics.timescale)
    np.testing.assert_array_equal(geometric.get_ydata(), np.sort(statistics.timescale))
    np.testing.assert_array_equal(arithmetic.get_ydata(), np.asarray(statistics.timescale_arithmetic)[order])
    assert geometric.get_label() == "geometric −1/⟨ln f⟩"
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "time scale (steps)"
    assert ax.get_xlabel() == "unit, sorted by geometric time scale"
    assert ax.get_title("left") == "time scales of the forget gate"


def test_equal_timescales_lie_between_distinct_ticks():
    statistics = lstmx.gate_statistics(recorded(lstmx.LSTM, hidden=2))
    scales = np.array([30.0, 30.001])
    ax = lstmx.plot.timescales(dataclasses.replace(statistics, timescale=scales, timescale_arithmetic=scales))
    render(ax.figure)
    low, high = ax.get_ylim()
    shown = [
        text.get_text()
        for tick, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        if low <= tick <= high
    ]
    assert shown == ["10", "20", "50", "100"]


def test_units_without_a_finite_timescale_are_counted_not_drawn():
    statistics = lstmx.gate_statistics(recorded(lstmx.LSTM, hidden=4))
    scales = np.array([np.inf, 2.0, np.inf, 1.0])
    statistics = dataclasses.replace(statistics, timescale=scales, timescale_arithmetic=np.full(4, np.inf))
    ax = lstmx.plot.timescales(statistics)
    render(ax.figure)
    arithmetic, geometric = ax.lines
    np.testing.assert_array_equal(geometric.get_ydata(), [1, 2, np.nan, np.nan])
    assert geometric.get_label() == "geometric −1/⟨ln f⟩ (2 of 4 units infinite)"
    assert np.isnan(arithmetic.get_ydata()).all()
    render(lstmx.plot.timescales(dataclasses.replace(statistics, timescale=np.full(4, np.inf))).figure)


@pytest.mark.parametrize("draw", [lstmx.plot.saturation, lstmx.plot.timescales])
def test_statistics_are_drawn_on_the_callers_axes(draw):
    statistics = lstmx.gate_statistics(recorded(lstmx.LSTM))
    ax = Figure().add_subplot()
    assert draw(statistics, ax=ax) is ax
    assert len(ax.lines) >= 2
    with pytest.raises(TypeError, match="ax is a Figure; expected matplotlib Axes or None"):
        draw(statistics, ax=ax.figure)
    with pytest.raises(TypeError, match="statistics is a History; expected GateStatistics, as from"):
        draw(recorded(lstmx.LSTM))


# ------------------------------------------------------------------------------------------- comparison


def compared(steps=1000, evaluations=11, models=3, error=True, least=0.1, seeds=1, looks=0):
    marks = np.linspace(0, steps, evaluations).round().astype(int)
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (models, seeds, steps))
    rates = (np.arange(models) + 1)[:, None, None] / steps + np.arange(seeds)[:, None] / (9 * steps)
    loss = least + np.exp(-rates * marks)
    return Comparison(
        names=tuple(f"model {k}" for k in range(models)),
        cells=(lstmx.LSTM(2, 3),) * models,
        task="adding problem",
        metric="mean squared error",
        seeds=tuple(range(seeds)),
        training_loss=noise * (least + np.exp(-rates * np.arange(steps))),
        validation_steps=marks,
        validation_loss=loss,
        validation_error=np.sqrt(loss) if error else None,
        final_loss=loss[..., -1],
        steps_to_half=np.full((models, seeds), np.inf),
        baseline=0.9,
        baseline_name="always 1",
        parameter_counts=np.arange(models),
        operations=np.arange(models),
        trainings=(),
        interrupted=False,
        observatories=((observed(lstmx.LSTM(2, 3), looks),) * seeds,) * models if looks else None,
    )


def observed(cell, looks, every=10):
    """An observatory of a cell whose weights grow, look by look."""
    params = cell.init(np.random.default_rng(0))
    observatory = lstmx.Observatory(cell, np.ones((10, 2, cell.input_size), "float32"), every, lag=7)
    for look in range(looks):
        update = map_tree(lambda x: np.float32(0.1) * x, params)
        observatory(every * look, params, update=update, training_loss=np.exp(-look))
        params = map_tree(lambda x, y: x + y, params, update)
    return observatory


def filmed(observatory, **asked):
    """The figure of an animation that is written and forgotten."""
    with tempfile.TemporaryDirectory() as folder:
        return lstmx.plot.animation(observatory, Path(folder) / "film.gif", **asked)


def labelled(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def test_comparison_draws_the_curves_of_every_model():
    comparison = compared()
    figure = lstmx.plot.comparison(comparison)
    render(figure)

    loss, error = figure.axes
    for k, name in enumerate(comparison.names):
        for ax, field in ((loss, comparison.validation_loss), (error, comparison.validation_error)):
            line = labelled(ax, f"{name}, validation")
            np.testing.assert_array_equal(line.get_xdata(), comparison.validation_steps)
            np.testing.assert_array_equal(line.get_ydata(), field[k, 0])
        training = loss.lines[k]
        np.testing.assert_allclose(training.get_ydata(), comparison.training_loss[k, 0].reshape(250, 4).mean(1))
        assert training.get_color() == labelled(loss, f"{name}, validation").get_color()
    assert labelled(loss, "training (means of 4 steps)")
    assert set(labelled(loss, "always 1").get_ydata()) == {0.9}
    assert labelled(loss, "always 1").get_linestyle() == "--"
    assert (loss.get_ylabel(), error.get_ylabel()) == ("mean squared error", "mean absolute error")
    assert loss.get_xlabel() == error.get_xlabel() == "training step"
    assert error.get_ylim()[0] == 0
    assert figure.get_suptitle() == "adding problem"


def test_comparison_without_error_has_one_panel():
    (ax,) = lstmx.plot.comparison(compared(steps=40, error=False)).axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), compared(steps=40).training_loss[0, 0])
    assert labelled(ax, "training")


@pytest.mark.sample(1)
@pytest.mark.parametrize(("seeds", "drawn"), [(5, 5), (12, 12), (13, 0)])
def test_several_seeds_are_drawn_as_means_in_bands_with_a_line_for_each_of_few(seeds, drawn):
    comparison = compared(seeds=seeds, models=2)
    figure = lstmx.plot.comparison(comparison)
    render(figure)

    loss, error = figure.axes
    assert figure.get_suptitle() == f"adding problem, {seeds} seeds"
    each = ["each seed"] if drawn else []
    names = ["model 0, validation", "model 1, validation"]
    assert labels(loss) == [*names, "95 % interval of the mean", *each, "always 1"]
    for ax, field in ((loss, comparison.validation_loss), (error, comparison.validation_error)):
        mean, low, high = comparison.over_seeds(field)
        for k, name in enumerate(names):
            bold = labelled(ax, name)
            np.testing.assert_array_equal(bold.get_ydata(), mean[k])
            outline = ax.collections[k].get_paths()[0].vertices
            assert {*low[k], *high[k]} <= {*outline[:, 1]}
            thin = [line for line in ax.lines if line.get_color() == bold.get_color() and line is not bold]
            assert len(thin) == drawn
            for line, one in zip(thin, field[k], strict=False):
                np.testing.assert_array_equal(line.get_ydata(), one)


def test_seeds_that_were_interrupted_are_left_out():
    comparison = compared(seeds=3)
    comparison.training_loss[1, 2, 500:] = comparison.validation_loss[1, 2, 5:] = np.nan
    figure = lstmx.plot.comparison(comparison)
    render(figure)
    assert figure.get_suptitle() == "adding problem, 2 seeds"
    line = labelled(figure.axes[0], "model 1, validation")
    np.testing.assert_array_equal(line.get_ydata(), comparison.validation_loss[1, :2].mean(axis=0))


@pytest.mark.parametrize(("least", "scale"), [(0.5, "linear"), (0.001, "log")])
def test_losses_over_decades_are_drawn_on_a_logarithmic_scale(least, scale):
    comparison = compared(models=9, least=least)
    assert lstmx.plot.comparison(comparison).axes[0].get_yscale() == scale


@pytest.mark.sample(1)
@pytest.mark.parametrize("steps", [1, 60])
def test_short_and_interrupted_comparisons_are_drawn(steps):
    comparison = compared(steps=steps, evaluations=2)
    comparison.training_loss[-1, -1, steps // 2 :] = np.nan
    comparison.validation_loss[-1, -1, 1:] = np.nan
    figure = lstmx.plot.comparison(comparison)
    render(figure)
    assert figure.axes[0].lines[0].get_marker() == ("." if steps == 1 else "")


def test_no_two_of_many_models_look_alike():
    loss = lstmx.plot.comparison(compared(models=20)).axes[0]
    looks = {(line.get_color(), line.get_marker()) for line in loss.lines if "validation" in line.get_label()}
    assert len(looks) == 20


def test_only_a_comparison_is_compared():
    with pytest.raises(TypeError, match="comparison is a dict; expected a Comparison, as from"):
        lstmx.plot.comparison({})


# ----------------------------------------------------------------------------------------------- sheets


DRAWN = [(lstmx.plot.dynamics, lambda: recorded(lstmx.LSTM)), (lstmx.plot.comparison, compared)]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("draw", "make"), DRAWN)
def test_figures_are_drawn_on_the_callers_figure_or_subfigure(draw, make):
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    assert draw(make(), figure=left) is left
    assert left.axes
    assert not right.axes
    whole = Figure()
    assert draw(make(), figure=whole) is whole
    assert whole.axes
    with pytest.raises(ValueError, match=r"figure already holds \d+ axes; expected an empty Figure or SubFigure"):
        draw(make(), figure=whole)
    with pytest.raises(TypeError, match="figure is a str; expected a matplotlib Figure, SubFigure or None"):
        draw(make(), figure="dynamics.png")


@pytest.mark.slow
def test_a_small_figure_keeps_room_for_its_panels():
    figure = Figure(figsize=(8, 6), layout="constrained")
    lstmx.plot.dynamics(recorded(lstmx.LSTM), figure=figure)
    render(figure)
    widths = [ax.get_position().width for ax in figure.axes[:9]]
    assert min(widths) > 0.15


def test_only_a_history_has_dynamics():
    with pytest.raises(TypeError, match="history is a ndarray; expected a History, as made by record"):
        lstmx.plot.dynamics(np.zeros((3, 2)))


@pytest.mark.slow
def test_new_figures_and_axes_show_themselves_in_a_notebook():
    history = recorded(lstmx.LSTM)
    for shown in (lstmx.plot.dynamics(history), lstmx.plot.saturation(lstmx.gate_statistics(history))):
        assert shown._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [1, 3, 7, 10, 50])
def test_block_means_are_means_of_blocks(size):
    values = np.random.default_rng(0).standard_normal((10, 2))
    expected = [values[k : k + size].mean(0) for k in range(0, 10, size)]
    np.testing.assert_allclose(canvas.block_means(values, size), expected)


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 123_456])
def test_block_size_is_the_least_that_keeps_within_the_limit(length):
    size = canvas.block_size(length)
    assert -(-length // size) <= 1000
    assert size == 1 or -(-length // (size - 1)) > 1000


def test_styles_differ():
    assert len(set(itertools.islice(canvas.styles(), 56))) == 56

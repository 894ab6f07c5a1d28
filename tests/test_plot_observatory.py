"""The figures of a training that was looked at hold its readings."""

import dataclasses

import numpy as np
import pytest
from matplotlib.animation import writers
from PIL import Image
from reference import labels, render
from test_observatory import looked_at
from test_plot import compared, observed, panel

import lstmx
import lstmx.plot

pytestmark = pytest.mark.usefixtures("_pyplot_is_left_alone")


@pytest.mark.slow
def test_a_training_is_drawn_by_its_readings():
    observatory = observed(lstmx.LSTM(3, 4), 12)
    figure = lstmx.plot.observatory(observatory)
    render(figure)
    np.testing.assert_array_equal(
        panel(figure, "training loss").lines[0].get_ydata(), observatory["training_loss"]
    )
    reach = panel(figure, "how far the gradient reaches")
    for share, line in zip((0.5, 0.1, 0.01), reach.lines, strict=False):
        for norms, lag in zip(observatory["log_norm"], line.get_ydata(), strict=True):
            assert lag == next((k for k, norm in enumerate(norms) if norm <= np.log(share)), 10)
    np.testing.assert_array_equal(reach.lines[0].get_xdata(), observatory.steps)
    assert labels(reach)[3] == "lag that is needed, 7"
    exponents = panel(figure, "leading Lyapunov exponents")
    drawn = [line.get_ydata() for line in exponents.lines if len(line.get_ydata()) == 12]
    np.testing.assert_array_equal(np.stack(drawn, axis=1), observatory["exponents"])
    updates = panel(figure, "update against weights").lines[0].get_ydata()
    ratio = observatory["update_norm"] / observatory["weight_norm"]
    np.testing.assert_array_equal(updates, np.log10(ratio[:, 0]))
    ridge = panel(figure, "forget gate")
    drawn = [patch.get_data() for patch in ridge.patches]
    ridges = {float(one.baseline[()]): one.values for one in drawn if one.baseline is not None}
    looks = np.unique(np.linspace(0, 11, 10).round().astype(int))
    shares = observatory["distribution"][looks, 0, 1]
    assert [*ridges] == [*range(9, -1, -1)]
    for row, share in enumerate(shares):
        np.testing.assert_allclose(ridges[row], row + 1.8 * share / shares.max())
    shown = panel(figure, "input gate").get_yticklabels()
    assert [text.get_text() for text in shown] == ["0", "40", "70", "110"]


@pytest.mark.slow
def test_lines_are_broken_where_looks_are_missing():
    observatory = lstmx.Observatory(lstmx.LSTM(3, 4), np.ones((12, 2, 3), "float32"), 10)
    for step in (0, 10, 40, 50):
        observatory(step, lstmx.LSTM(3, 4).init(np.random.default_rng(0)), training_loss=step)
    (line,) = panel(lstmx.plot.observatory(observatory), "training loss").lines
    np.testing.assert_array_equal(line.get_ydata(), [0, 10, np.nan, 40, 50])
    np.testing.assert_array_equal(line.get_xdata(), [0, 10, 10, 40, 50])


def test_alarms_are_lines_that_are_named():
    observatory = looked_at([1.0, 0.75, 1.25], lag=30)
    kinds = [alarm.kind for alarm in observatory.alarms]
    assert kinds == ["lag", "exploding", "crossing"]
    figure = lstmx.plot.observatory(observatory)
    render(figure)
    named = labels(panel(figure, "how far the gradient reaches"))
    assert named[4:] == [f"alarm: {kind}, step {step}" for kind, step in zip(kinds, (10, 20, 20), strict=True)]
    for title in ("how far the gradient reaches", "leading Lyapunov exponents"):
        dashed = [line for line in panel(figure, title).lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == [10, 20, 20]
    assert not [ax for ax in figure.axes if ax.get_xlabel() == "activation"]  # it has no gates


@pytest.mark.slow
def test_gates_are_those_of_a_layer():
    observatory = observed(lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)]), 2)
    titles = [ax.get_title("left") for ax in lstmx.plot.observatory(observatory).axes]
    assert titles[-2:] == ["reset gate", "update gate"]
    titles = [ax.get_title("left") for ax in lstmx.plot.observatory(observatory, "layer 0").axes]
    assert titles[-3:] == ["input gate", "forget gate", "output gate"]
    with pytest.raises(ValueError, match="layer is 'layer 2'; expected one of 'layer 0', 'layer 1', or None"):
        lstmx.plot.observatory(observatory, "layer 2")


@pytest.mark.slow
def test_a_film_has_a_frame_for_each_look(tmp_path):
    observatory = observed(lstmx.LSTM(3, 4), 5)
    figure = lstmx.plot.animation(observatory, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 5
    gradient, gates = panel(figure, "gradient"), panel(figure, "gates")
    np.testing.assert_array_equal(gradient.lines[0].get_ydata(), observatory["log_norm"][-1] / np.log(10))
    assert gradient.texts[0].get_text() == "step 40\nloss 0.0183"
    for k, stairs in enumerate(gates.patches):
        np.testing.assert_array_equal(stairs.get_data().values, observatory["distribution"][-1, 0, k])
    assert labels(gates) == ["input gate", "forget gate", "output gate"]


@pytest.mark.slow
def test_looks_that_were_not_finite_and_cells_without_gates_are_drawn(tmp_path):
    for gains in ([1.0, np.nan], [np.nan]):
        render(lstmx.plot.observatory(looked_at(gains)))  # a warning is an error here
        render(lstmx.plot.animation(looked_at(gains), tmp_path / "film.gif"))
    observatory = observed(lstmx.GRU(3, 4), 2)
    observatory(20, lstmx.GRU(3, 4).init(np.random.default_rng(0))._replace(bias=np.full(12, np.nan, "float32")))
    render(lstmx.plot.observatory(observatory))
    render(lstmx.plot.animation(observatory, tmp_path / "film.gif"))
    assert [alarm.kind for alarm in observatory.alarms] == ["not finite"]


def test_a_film_that_nothing_writes_is_refused(tmp_path, monkeypatch):
    observatory = observed(lstmx.LSTM(3, 4), 1)
    with pytest.raises(ValueError, match=r"expected a file that ends in \.gif or \.mp4"):
        lstmx.plot.animation(observatory, tmp_path / "film.png")
    monkeypatch.setattr(writers, "is_available", lambda name: name == "pillow")
    with pytest.raises(RuntimeError, match=r"\.mp4 takes ffmpeg, which is not installed; write a \.gif"):
        lstmx.plot.animation(observatory, tmp_path / "film.mp4")
    with pytest.raises(TypeError, match="path is"):
        lstmx.plot.animation(observatory, 3)


def test_before_the_first_look_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="observatory has not looked yet; expected at least one look"):
        lstmx.plot.observatory(observed(lstmx.LSTM(3, 4), 0))


@pytest.mark.slow
def test_a_comparison_shows_when_each_model_reaches_how_far():
    comparison = compared(20, models=2, seeds=3, looks=5)
    reached, far = looked_at([0.8, 0.9, 1.0]), looked_at([1.0, 1.0, 1.0])
    comparison = dataclasses.replace(comparison, observatories=((reached, reached, far), (far,) * 3))
    ax = lstmx.plot.reach(comparison)
    render(ax.figure)
    first, second = [line for line in ax.lines if line.get_label() in comparison.names]
    expected = np.ceil(np.log(0.01) / np.log([0.8, 0.9]))
    np.testing.assert_array_equal(first.get_ydata(), [expected[0], 40, 40])
    assert expected[1] > 40
    np.testing.assert_array_equal(second.get_ydata(), [40] * 3)
    np.testing.assert_array_equal(first.get_xdata(), [0, 10, 20])
    assert ax.get_title("left").replace("\n", " ") == (
        "adding problem: how far the gradient reaches, median of 3 seeds"
    )
    with pytest.raises(ValueError, match=r"comparison\.observatories is None; expected a comparison that was obs"):
        lstmx.plot.reach(compared(20))

"""The page in a real browser: no error, no request, the history's numbers, and every control by mouse and keys."""

import re
import shutil

import numpy as np
import pytest
from test_page import data_of, decoded

import lstmx

webdriver = pytest.importorskip("selenium.webdriver", reason="it drives the browser")
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,  # it starts a browser
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="there is no chromium with its chromedriver"),
]
TEXT = 'def f(x):\n    return g("x", (1, 2))\n\n' * 6
T = len(TEXT)


@pytest.fixture(scope="module")
def passes():
    characters = sorted(set(TEXT))
    xs = np.eye(len(characters), dtype="float32")[[characters.index(c) for c in TEXT]] * 3
    cells = {"LSTM": lstmx.LSTM(len(characters), 40), "SimpleRNN": lstmx.SimpleRNN(len(characters), 30)}
    return {name: lstmx.record(cell, cell.init(np.random.default_rng(0)), xs) for name, cell in cells.items()}


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1200,1500"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, passes, tmp_path):
    flows = {name: lstmx.gradient_flow(one) for name, one in passes.items()}
    told = {"LSTM": lstmx.attribute(passes["LSTM"], np.ones(40, "float32"), "cell_path")}
    signals = {"ramp": np.arange(T)}
    path = lstmx.page(passes, tmp_path / "page.html", text=TEXT, flow=flows, attribution=told, signals=signals)
    browser.told = told["LSTM"].steps
    browser.get(path.as_uri())
    browser.data = data_of(path)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def by_id(page, name):
    return page.find_element("id", name)


def view(page):
    return page.execute_script("return view")


def press(page, *sequence, shift=False):
    actions = webdriver.ActionChains(page)
    if shift:
        actions.key_down(keys.SHIFT)
    for key in sequence:
        actions.send_keys(key)
    if shift:
        actions.key_up(keys.SHIFT)
    actions.perform()


def choose(page, select, text):
    by_id(page, select).find_element("xpath", f"./option[normalize-space()='{text}']").click()


def focus(page):
    page.execute_script("document.getElementById('stage').focus()")


def number(text):
    return float("nan") if text == "–" else float(text.replace("−", "-"))


def test_numbers_shown_are_those_of_the_history(page, passes):
    history = passes["LSTM"]
    focus(page)
    rng = np.random.default_rng(0)
    for _ in range(6):
        step, unit = int(rng.integers(T)), int(rng.integers(40))
        page.execute_script("change({step: arguments[0], unit: arguments[1]}); draw()", step, unit)
        rows = {
            row.find_element("tag name", "th").text: number(row.find_element("tag name", "td").text)
            for row in page.find_elements("css selector", "#numbers tbody tr")
        }
        assert len(rows) == 8
        for name in ("hidden state", "cell state", "input gate", "forget gate", "candidate", "output gate"):
            values = np.asarray(getattr(history, name.replace(" ", "_")))[:, unit]
            bound = np.ptp(values) / 255 + 0.006 * abs(values[step])  # three digits are shown
            assert abs(rows[name] - values[step]) <= bound
        assert f"step {step} ‘" in by_id(page, "status").text


def test_every_control_has_a_name_and_every_picture_words(page):
    nameless = page.execute_script(
        """return [...document.querySelectorAll("input, select, button, canvas, [tabindex]")].filter((one) =>
        one.offsetParent && !(one.labels && one.labels.length && one.labels[0].textContent.trim())
        && !one.getAttribute("aria-label") && !(one.tagName === "BUTTON" && one.textContent.trim()))
        .map((one) => one.id)"""
    )
    assert nameless == []
    assert "heat map of the hidden state: 40 units of LSTM, steps 0 to" in by_id(page, "map").get_attribute(
        "aria-label"
    )


def test_keys_move_mark_zoom_and_let_go(page):
    focus(page)
    assert view(page)["step"] == T - 1
    press(page, keys.HOME)
    press(page, keys.ARROW_RIGHT, keys.ARROW_RIGHT, keys.ARROW_LEFT)
    assert view(page)["step"] == 1
    press(page, keys.PAGE_DOWN)
    assert view(page)["step"] == 1 + round(T / 10)
    press(page, keys.PAGE_UP, keys.END)
    assert view(page)["step"] == T - 1
    press(page, keys.HOME)
    press(page, keys.ARROW_DOWN, keys.ARROW_DOWN, keys.ARROW_UP)
    assert view(page)["unit"] == 1
    press(page, keys.ARROW_RIGHT, keys.ARROW_RIGHT, keys.ARROW_RIGHT, shift=True)
    assert view(page)["mark"] == [0, 4]
    press(page, keys.ARROW_LEFT, shift=True)
    assert view(page)["mark"] == [0, 3]
    press(page, "+", "+")
    wide = view(page)["to"] - view(page)["from"]
    assert wide < T
    press(page, "-")
    assert view(page)["to"] - view(page)["from"] > wide
    press(page, "0")
    assert (view(page)["from"], view(page)["to"]) == (0, T)
    press(page, keys.ENTER)
    assert view(page)["held"]
    press(page, keys.ESCAPE)
    assert view(page)["mark"] is None
    assert not view(page)["held"]


def test_the_mouse_moves_holds_marks_and_zooms(page):
    heat = by_id(page, "map")
    half = heat.size["width"] / 2
    left, right = page.execute_script("return [LEFT, RIGHT]")
    inner = heat.size["width"] - left - right

    def at(step):
        return round(left + (step + 0.5) / T * inner - half)

    webdriver.ActionChains(page).move_to_element_with_offset(heat, at(50), 0).perform()
    assert abs(view(page)["step"] - 50) <= 1
    assert view(page)["unit"] in (19, 20)  # the middle of 40
    webdriver.ActionChains(page).move_to_element_with_offset(heat, at(60), 0).click().perform()
    assert view(page)["held"]
    webdriver.ActionChains(page).move_to_element_with_offset(heat, at(90), 0).perform()
    assert abs(view(page)["step"] - 60) <= 1  # held
    drag = webdriver.ActionChains(page).move_to_element_with_offset(heat, at(20), 0).click_and_hold()
    drag.move_to_element_with_offset(heat, at(40), 0).release().perform()
    start, stop = view(page)["mark"]
    assert abs(start - 20) <= 1
    assert abs(stop - 41) <= 1
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(heat)
    webdriver.ActionChains(page).scroll_from_origin(origin, 0, -240).perform()
    zoomed = view(page)
    assert zoomed["to"] - zoomed["from"] < T
    webdriver.ActionChains(page).key_down(keys.SHIFT).scroll_from_origin(origin, 0, 240).key_up(
        keys.SHIFT
    ).perform()
    assert view(page)["from"] > zoomed["from"]
    by_id(page, "all").click()
    assert view(page)["to"] == T
    by_id(page, "closer").click()
    assert view(page)["to"] - view(page)["from"] == round(T / 2)
    by_id(page, "wider").click()
    assert view(page)["to"] - view(page)["from"] == 2 * round(T / 2)
    by_id(page, "clear").click()
    assert view(page)["mark"] is None
    letter = page.find_elements("css selector", "#text span")[30]
    letter.click()
    assert view(page)["step"] == 30


def test_orders_of_units(page, passes):
    (field,) = [one for one in page.data["series"][0]["fields"] if one["name"] == "forget gate"]
    gate = decoded(field, T)
    choose(page, "field", "forget gate")
    saturated = ((gate < 0.1) | (gate > 0.9)).mean(axis=0)
    by_hand = {
        "variance": gate.var(axis=0),
        "time scale": np.asarray(lstmx.gate_statistics(passes["LSTM"]).timescale),
        "correlation: ramp": np.abs([np.corrcoef(x, np.arange(T))[0, 1] for x in gate.T]),
        "saturation": saturated,
    }
    for name, score in by_hand.items():
        choose(page, "sort", name)
        order = page.execute_script("return orderOf(data.series[0], data.series[0].fields[view.field])")
        assert sorted(order) == list(range(40))
        assert (-np.diff(score[order])).min() >= -1e-4 * np.ptp(score)
    choose(page, "sort", "as they are")
    assert page.execute_script("return orderOf(data.series[0], data.series[0].fields[view.field])") == list(
        range(40)
    )


def test_units_passes_and_what_stands_beside(page):
    choose(page, "unit", "17")
    assert view(page)["unit"] == 17
    assert not by_id(page, "map2").is_displayed()
    choose(page, "beside", "SimpleRNN")
    page.execute_script("draw()")
    assert by_id(page, "map2").is_displayed()
    assert "SimpleRNN: joint state" in by_id(page, "norms").get_attribute("aria-label")
    legend = page.find_elements("css selector", "#norms-legend span")
    looks = {one.text: one.value_of_css_property("color") for one in legend}
    assert looks["——— LSTM: joint state"] == looks["– – – SimpleRNN: joint state"] != looks["——— LSTM: h"]
    edges = page.execute_script(
        "return ['norms-legend', 'stage'].map((one) => byId(one).getBoundingClientRect().right)"
    )
    assert edges[0] <= edges[1]
    choose(page, "field", "forget gate")
    page.execute_script("draw()")
    assert not by_id(page, "map2").is_displayed()  # it has no gates
    assert by_id(page, "other").text == "SimpleRNN has no forget gate."
    choose(page, "series", "SimpleRNN")
    assert view(page)["series"] == 1
    fields = [option.text for option in by_id(page, "field").find_elements("tag name", "option")]
    assert fields == ["hidden state", "candidate", "gradient of h, log₁₀"]


PIXELS = """const from = byId(arguments[0]), copy = new OffscreenCanvas(from.width, from.height);
const inner = from.clientWidth - LEFT - RIGHT, scale = from.width / from.clientWidth;
const context = copy.getContext("2d", { willReadFrequently: true });
context.drawImage(from, 0, 0);
const at = (x, y) => [...context.getImageData(Math.round((LEFT + x * inner) * scale), Math.round(y * from.height),
  1, 1).data].slice(0, 3);
"""


def colour_at(page, canvas, x, y):
    """The colour of a panel at shares of its inner width and of its height."""
    return page.execute_script(PIXELS + "return at(arguments[1], arguments[2])", canvas, x, y)


def test_two_passes_have_one_scale_and_each_its_own_numbers(page, passes):
    choose(page, "beside", "SimpleRNN")
    choose(page, "sort", "variance")
    fields = [series["fields"][0] for series in page.data["series"]]
    most = max(field["limits"][1] for field in fields)
    assert fields[0]["limits"] != fields[1]["limits"]
    assert page.execute_script("return limits()") == [-most, most]
    orders = [np.argsort(-decoded(field, T).var(axis=0), kind="stable") for field in fields]
    for second, (canvas, name) in enumerate([("map", "LSTM"), ("map2", "SimpleRNN")]):
        heat = by_id(page, canvas)
        for row, step in ((3, 20), (len(orders[second]) - 2, 90)):
            unit = int(orders[second][row])
            x, y = (step + 0.5) / T, (row + 0.5) / len(orders[second])
            left, right = page.execute_script("return [LEFT, RIGHT]")
            inner = heat.size["width"] - left - right
            at = round(left + x * inner - heat.size["width"] / 2), round((y - 0.5) * heat.size["height"])
            webdriver.ActionChains(page).move_to_element_with_offset(heat, *at).perform()
            page.execute_script("draw()")
            assert by_id(page, "status").text.startswith(f"{name}, step {step} ")
            assert f", unit {unit}: hidden state" in by_id(page, "status").text
            value = float(np.asarray(passes[name].hidden_state)[step, unit])
            first = page.find_element("css selector", "#numbers tbody td").text
            assert abs(number(first) - value) <= 0.01
            page.execute_script("change({step: 0}); draw()")  # moves the line out of the way
            expected = page.execute_script(f"return ramp('diverging')[Math.round(255 * ({value / most} + 1) / 2)]")
            assert np.abs(np.subtract(colour_at(page, canvas, x, y), expected)).max() <= 6
    assert by_id(page, "other").text == "above: LSTM, below: SimpleRNN"
    choose(page, "sort", "as they are")
    choose(page, "series", "SimpleRNN")
    choose(page, "beside", "LSTM")
    page.execute_script("change({second: true, unit: 35}); draw()")  # of 40; the SimpleRNN has 30
    assert by_id(page, "status").text.startswith("LSTM, step ")
    assert by_id(page, "unit").find_element("css selector", ":checked").text == "35"
    assert by_id(page, "other").text.endswith("no unit 35 of SimpleRNN is shown")
    focus(page)
    press(page, "o")
    page.execute_script("draw()")
    assert by_id(page, "status").text.startswith("SimpleRNN, step ")


def test_cells_are_crisp_where_there_are_fewer_than_pixels(page):
    page.execute_script("change({from: 0, to: 20, step: 19}); draw()")
    colours = page.execute_script(
        PIXELS + "return new Set(Array.from({ length: 900 }, (_, k) => at(k / 1000, 10.5 / 40).join())).size",
        "map",
    )
    assert colours <= 20


def test_a_long_list_says_how_many_there_are(page):
    page.execute_script(
        """const field = data.series[0].fields[0]; field.codes.fill(0);
        for (let i = 0; i < N; i += 2) field.codes[i] = 254;
        change({mark: [0, 1]}); byId("above").value = field.high[0]; find()"""
    )
    expected = (
        f"Searched in LSTM alone. 1 unit is on (0); all of them again in the 50 longest of {T // 2 - 1} stretches:"
    )
    assert by_id(page, "found").text == expected
    assert len(page.find_elements("css selector", "#matches li")) == 50


def test_what_is_read_has_the_mean_of_the_unit(page, passes):
    choose(page, "field", "forget gate")
    choose(page, "unit", "5")
    page.execute_script("draw()")
    gate = np.asarray(passes["LSTM"].forget_gate)[:, 5]
    letters = np.array(list(TEXT))
    means = {c: gate[letters == c].mean() for c in set(TEXT)}
    rows = [
        [cell.text for cell in row.find_elements("css selector", "th, td")]
        for row in page.find_elements("css selector", "#letters tbody tr")
    ]
    spelled = {"\n": "⏎", " ": "␣"}
    best, worst = max(means, key=means.get), min(means, key=means.get)
    for (read, mean, times), letter in ((rows[0], best), (rows[-1], worst)):
        assert (read, int(times)) == (spelled.get(letter, letter), TEXT.count(letter))
        assert abs(float(mean) - means[letter]) < 0.005
    choose(page, "span", "lowest to highest")
    (field,) = [one for one in page.data["series"][0]["fields"] if one["name"] == "forget gate"]
    assert page.execute_script("return limits()") == [min(field["low"]), max(field["high"])]
    choose(page, "field", "hidden state")
    assert not by_id(page, "span").is_displayed()  # whose colours span what there is


def test_paper_is_light_and_keeps_proportions(page):
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.execute_script(
            """window.addEventListener("beforeprint", () => { const { width, clientWidth } = byId("map");
            window.seen = [ramp("diverging")[127], css("--ink"), width / (window.devicePixelRatio * clientWidth),
            document.body.clientWidth]; })"""
        )
        page.execute_cdp_cmd("Page.printToPDF", {})
        middle, ink, share, width = page.execute_script("return seen")
        assert min(middle) > 240
        assert ink == "#000"
        assert share == pytest.approx(1, abs=0.01)
        assert width == 680
        page.execute_script("draw()")
        assert max(page.execute_script("return ramp('diverging')[127]")) < 60  # dark again
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def swipe(page, *places):
    """A finger that goes from one place to the next."""

    def touch(kind, *place):
        points = [{"x": x, "y": y} for x, y in place]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", places[0])
    for k in range(1, 9):
        touch("touchMove", tuple(a + (b - a) * k / 8 for a, b in zip(*places, strict=True)))
    touch("touchEnd")


def test_a_finger_scrolls_up_and_down_and_marks_sideways(page):
    size = {"width": 420, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page.execute_script("draw(); scrollTo(0, 0)")
        top = page.execute_script("return byId('map').getBoundingClientRect().top")
        swipe(page, (120, top + 60), (320, top + 60))
        start, stop = view(page)["mark"]
        assert stop - start > T / 4
        swipe(page, (200, top + 200), (200, top + 20))
        page.execute_async_script("setTimeout(arguments[0], 400)")
        assert page.execute_script("return scrollY") > 50
        assert view(page)["mark"] == [start, stop]
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_wheel_scrolls_the_page_where_all_steps_are_shown(page):
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(by_id(page, "map"))
    page.execute_script("document.body.style.paddingBottom = '2000px'")
    webdriver.ActionChains(page).scroll_from_origin(origin, 0, 300).perform()
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.execute_script("return scrollY") > 0
    assert view(page)["to"] == T


def test_a_padded_batch_and_some_units(browser, tmp_path):
    cell = lstmx.LSTM(3, 8)
    xs = np.random.default_rng(1).normal(size=(40, 3, 3)).astype("float32")
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), xs, lengths=np.array([40, 20, 7]))
    path = lstmx.page(history, tmp_path / "page.html", units=[5, 2, 7], sequences=[2, 0])
    browser.get(path.as_uri())
    assert by_id(browser, "status").text.startswith("sequence 2, step 6, unit 5")  # its last
    assert colour_at(browser, "line", 0.9, 0.5) != colour_at(browser, "line", 0.05, 0.05)  # shaded
    browser.execute_script("change({step: 30}); draw()")
    status = by_id(browser, "status").text
    assert status == "sequence 2, step 30, which does not count, unit 5: hidden state –"
    browser.execute_script("change({mark: [30, 33]}); byId('above').value = -1; find()")
    assert by_id(browser, "found").text == "Searched in sequence 2 alone. No step of the marked stretch counts."
    browser.execute_script("change({mark: [5, 12]}); byId('above').value = -1; find()")
    assert by_id(browser, "found").text.startswith("Searched in sequence 2 alone. 3 units are on (5, 2, 7)")
    box = by_id(browser, "unit")
    assert [one.text for one in box.find_elements("tag name", "option")] == ["5", "2", "7"]
    box.send_keys(keys.ARROW_DOWN)
    browser.execute_script("draw()")
    assert ", unit 2:" in by_id(browser, "status").text
    choose(browser, "series", "sequence 0")
    browser.execute_script("draw()")
    assert by_id(browser, "status").text.startswith("sequence 0, step 30, unit 2")
    choose(browser, "series", "sequence 2")
    browser.execute_script("draw()")
    assert by_id(browser, "status").text.startswith("sequence 2, step 6, unit 2")
    assert browser.get_log("browser") == []


def test_one_step_is_a_dot(browser, tmp_path):
    cell = lstmx.SimpleRNN(3, 4)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((1, 3), "float32"))
    browser.get(lstmx.page(history, tmp_path / "page.html").as_uri())
    ink = browser.execute_script("return css('--one')")
    row = browser.execute_script(
        PIXELS + "return Array.from({ length: 2000 }, (_, k) => at(k / 2000, 0.5).join())", "line"
    )
    assert ",".join(str(int(ink[k : k + 2], 16)) for k in (1, 3, 5)) in row


def test_a_search_finds_what_a_plain_loop_finds(page):
    choose(page, "field", "hidden state")
    field = page.data["series"][0]["fields"][0]
    values = decoded(field, T)
    start, stop = 12, 15
    above = round(float(np.sort(values[start:stop].min(axis=0))[-3]) - 0.01, 3)
    units = [unit for unit in range(40) if (values[start:stop, unit] >= above).all()]
    hit = [*(values[:, units] >= above).all(axis=1), False]
    runs, first = [], None
    for step, here in enumerate(hit):
        if here and first is None:
            first = step
        elif not here and first is not None:
            if step <= start or first >= stop:
                runs.append((first, step))
            first = None
    runs.sort(key=lambda run: (run[0] - run[1], run[0]))
    assert len(units) >= 3
    assert runs
    by_id(page, "find").click()
    assert "Mark a stretch first" in by_id(page, "found").text
    box = by_id(page, "above")
    box.clear()
    box.send_keys(str(above))
    page.execute_script("change({mark: arguments[0]})", [start, stop])
    focus(page)
    press(page, "s")
    said = f"Searched in LSTM alone. {len(units)} units are on ({', '.join(map(str, units[:12]))}"
    assert by_id(page, "found").text.startswith(said)
    found = [button.text for button in page.find_elements("css selector", "#matches button")]
    assert [words.split(":")[0] for words in found] == [f"steps {a} to {b - 1}" for a, b in runs[:50]]
    page.find_element("css selector", "#matches button").click()
    assert view(page)["step"] == runs[0][0]


def test_small_functions_of_the_script(page):
    shown = page.execute_script("return [0, -0.5, 123456, 1e-5, NaN, -Infinity].map(shown)")
    assert shown == ["0.00", "−0.500", "1.23e+5", "1.00e−5", "–", "–"]
    assert page.execute_script(r"return ['\n', '\t', ' ', 'a b'].map(spelled)") == ["⏎", "⇥", "␣", "a b"]
    assert page.execute_script("return inkOn([250, 250, 250]) + inkOn([10, 10, 60])") == "#000#fff"
    ends = page.execute_script(
        "return ['sequential', 'diverging'].map((kind) => [ramp(kind)[0], ramp(kind)[255]])"
    )
    assert ends == [[[68, 1, 84], [253, 231, 37]], [[33, 102, 172], [178, 24, 43]]]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_dark_and_light(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert colour == {"dark": "rgb(22, 22, 22)", "light": "rgb(255, 255, 255)"}[scheme]
        middle = page.execute_script("return ramp('diverging')[127]")
        assert (max(middle) < 60) == (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_text_and_strip_are_coloured_by_contributions(page):
    """Red for what raises the target, blue for what lowers it, the strongest for the greatest."""
    choose(page, "ink", "contribution")
    raised, lowered = int(np.argmax(page.told)), int(np.argmin(page.told))
    painted = page.execute_script(
        "return [...document.getElementById('text').children].map((one) => one.style.background)"
    )
    most = max(page.told.max(), -page.told.min())
    for step, sign in ((raised, 1), (lowered, -1)):
        red, _, blue = (int(x) for x in re.findall(r"\d+", painted[step]))
        strength = abs(page.told[step]) / most
        assert sign * (red - blue) > 40 * strength
    page.execute_script(f"change({{ step: {raised} }})")
    told = re.search(r"contribution (−?[\d.e−]+)", by_id(page, "status").text)[1].replace("−", "-")
    assert float(told) == pytest.approx(page.told[raised], rel=6e-3)
    choose(page, "series", "SimpleRNN")  # which has none
    assert view(page)["ink"] == ""
    choose(page, "ink", "ramp")
    assert "ramp" in by_id(page, "strip").get_attribute("aria-label")

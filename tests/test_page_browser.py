"""The page in a real browser: no error, no request, the history's numbers, and every control by mouse and keys."""

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
    path = lstmx.page(passes, tmp_path / "page.html", text=TEXT, flow=flows, signals={"ramp": np.arange(T)})
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
    choose(page, "field", "forget gate")
    page.execute_script("draw()")
    assert not by_id(page, "map2").is_displayed()  # it has no gates
    choose(page, "series", "SimpleRNN")
    assert view(page)["series"] == 1
    fields = [option.text for option in by_id(page, "field").find_elements("tag name", "option")]
    assert fields == ["hidden state", "candidate", "gradient of h, log₁₀"]


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
    said = f"In LSTM alone: {len(units)} units are on ({', '.join(map(str, units[:12]))}"
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

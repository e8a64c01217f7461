"""The live demo, the budget slider and the divider in a real browser."""

import json
import re

import numpy as np
import pytest
from built_book import AXE_NEEDED, HTML, NEEDED, REQUIRED, obstacles, watch
from PIL import Image

from i2i_lib.counts import short_count

MODELS = HTML / "_static" / "models"
SHOWN = sorted(path.parent.name for path in MODELS.glob("*/demo.json"))
DRAWN = next((task for task in ("fluent", "openmoji") if task in SHOWN), "fluent")  # the first on the page
PRUNING, EVALUATION = (HTML / "notebooks" / name for name in ("03-pruning.html", "05-evaluation.html"))
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
HEADER = 56  # of the theme, in pixels
pytestmark = NEEDED


def needs(task: str):
    return pytest.mark.skipif(task not in SHOWN and not REQUIRED, reason=f"this book has no demo of {task}")


drawn, earth = needs(DRAWN), needs("earth")


def part(page, name: str, task: str = DRAWN):
    """A part of the demo of a task."""
    return page.locator(f'.demo[data-models$="/{task}/"] {name}')


def live(browser, address, task):
    """A phone's page with one demo live, the requests that came before, and what went wrong."""
    page, trouble = browser.new_page(viewport=PHONE), []
    watch(page, address, trouble)
    page.goto(f"{address}/demo.html")
    page.wait_for_load_state("networkidle")
    before = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    part(page, "[data-part=load]", task).click()
    caption = f'.demo[data-models$="/{task}/"] [data-part="caption"]'
    page.wait_for_function(f"document.querySelector('{caption}').textContent", timeout=280_000)
    return page, before, trouble


@pytest.fixture(scope="module")
def drawing(browser, address):
    page, before, trouble = live(browser, address, DRAWN)
    yield page, before, trouble
    page.close()


@pytest.fixture(scope="module")
def places(browser, address):
    page, before, trouble = live(browser, address, "earth")
    yield page, before, trouble
    page.close()


def pixels(page, canvas: str, task: str = DRAWN) -> list[int]:
    read = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
    return part(page, f"canvas{canvas}", task).evaluate(read)


BIG = {name: f'[data-part="{name}"]' for name in ("source", "student", "teacher")}


def shown(page, task: str = DRAWN) -> dict[str, list[int]]:
    """The large pictures once all networks have answered."""
    page.wait_for_function("!document.querySelector('.demo .demo-old')")
    return {name: pixels(page, canvas, task) for name, canvas in BIG.items()}


def choose(page, radios: str, value: str, task: str = DRAWN) -> None:
    """A radio button, whose picture covers it."""
    part(page, f'input[name="{radios}-{task}"][value="{value}"]', task).check(force=True)


# --- before anything is loaded ---

FINISHED = """async section => Promise.all([...section.querySelectorAll(":is(.demo-pictures, .demo-cards) img")].map(
    async image => {
        image.loading = "eager";
        await image.decode();
        return image.naturalWidth;
    }))"""


@drawn
@pytest.mark.parametrize("scripts", [True, False])
def test_the_finished_example_is_there_without_a_script_and_from_a_folder(browser, scripts):
    page = browser.new_page(java_script_enabled=scripts)
    page.goto((HTML / "demo.html").as_uri())
    about = json.loads((MODELS / DRAWN / "demo.json").read_text())
    pictures = part(page, ":is(.demo-pictures, .demo-cards) img")
    teacher = any(network["name"] == "teacher" for network in about["networks"])
    assert pictures.count() == 2 + teacher + len(about["networks"]) + 1  # the large ones, the cards and the truth
    for box in [pictures.nth(i).bounding_box() for i in range(pictures.count())]:
        assert box["width"] > 30 and abs(box["width"] - box["height"]) < 2
    if scripts:
        assert min(part(page, "").first.evaluate(FINISHED)) > 0
        assert part(page, "[data-part=load]").is_disabled()
        assert "make serve" in part(page, "[data-part=status]").inner_text()
        place = "image => getComputedStyle(image).objectPosition"
        before = pictures.first.evaluate(place)
        choose(page, "example", "1" if about["first"] != 1 else "2")
        assert pictures.first.evaluate(place) != before
        cheapest = about["networks"][0]["name"]
        choose(page, "student", cheapest)
        assert part(page, "[data-part=student-image]").get_attribute("src").endswith(f"{cheapest}.webp")
    else:
        assert part(page, "[data-part=load]").is_hidden() and part(page, "noscript p").is_visible()
    page.close()


@drawn
def test_the_networks_come_only_when_asked_for_and_without_trouble(drawing):
    _, before, trouble = drawing
    assert any(name.endswith(".webp") for name in before)
    heavy = re.compile(r"onnx|wasm|\.mjs|\.jpg|models/.*\.json")
    assert [name for name in before if heavy.search(name)] == []
    assert trouble == []


# --- a drawing ---


@drawn
def test_the_pictures_are_those_of_pytorch(drawing):
    """Compared on values that are not rounded to a picture."""
    about = json.loads((MODELS / DRAWN / "demo.json").read_text())
    made = np.array(drawing[0].evaluate(STUDENT, {"folder": f"_static/models/{DRAWN}/", **about}))
    size, first = about["size"], about["first"]
    strip = np.asarray(Image.open(MODELS / DRAWN / f"{about['main']}.webp"), float)
    wanted = strip[:, first * size : (first + 1) * size].transpose(2, 0, 1)
    levels = np.abs((made.reshape(3, size, size) + 1) * 127.5 - wanted)
    assert np.ptp(wanted) > 10 and levels.max() < 0.52
    said = part(drawing[0], "[data-part=caption]").inner_text()
    assert re.search(r"at most 1 of 255 grey levels|exactly those of PyTorch", said)


# The main student's values for the first example.
STUDENT = """async ({ folder, main, size, first }) => {
    const at = path => new URL(path, document.baseURI);
    const { download, loadRuntime, openNetwork, toPlanes } = await import(at("_static/demo/network.mjs"));
    const image = Object.assign(new Image(), { src: at(`${folder}sources.webp`) });
    await image.decode();
    const pen = new OffscreenCanvas(size, size).getContext("2d");
    pen.drawImage(image, -first * size, 0);
    const network = await openNetwork(await loadRuntime(), await download(at(`${folder}${main}.onnx`)), "wasm");
    return [...await network.run(toPlanes(pen.getImageData(0, 0, size, size)), size, size)];
}"""


@drawn
def test_the_first_stroke_shows_on_the_example_and_around_it(drawing):
    about = json.loads((MODELS / DRAWN / "demo.json").read_text())
    size, first = about["size"], about["first"]
    strip = np.asarray(Image.open(MODELS / DRAWN / "sources.webp").convert("RGB"), int)
    colours, counts = np.unique(strip[:, first * size :][:, :size].reshape(-1, 3), axis=0, return_counts=True)
    number = part(drawing[0], "input[name^=brush]:checked").get_attribute("value")
    brush = np.array([*bytes.fromhex(about["palette"][int(number)]["colour"][1:])])
    assert np.linalg.norm(colours[counts.argsort()[-2:]] - brush, axis=1).min() > 128


@drawn
def test_what_is_drawn_with_the_mouse_changes_the_pictures_until_it_is_undone(drawing):
    page = drawing[0]
    choose(page, "example", "0")
    before = shown(page)
    part(page, BIG["source"]).scroll_into_view_if_needed()
    box = part(page, BIG["source"]).bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=3)
    page.wait_for_function(  # the student follows while the button is down
        "before => [...document.querySelector('.demo [data-part=student]').getContext('2d')"
        ".getImageData(0, 0, before.size, before.size).data].some((value, i) => value !== before.data[i])",
        arg={"size": int((len(before["student"]) / 4) ** 0.5), "data": before["student"]},
    )
    page.mouse.up()
    after = shown(page)
    assert all(after[name] != before[name] for name in before)
    part(page, "[data-part=undo]").click()
    assert shown(page) == before


@drawn
def test_a_shape_is_drawn_and_undone_by_keyboard_alone(drawing):
    page = drawing[0]
    choose(page, "example", "empty")
    assert part(page, "[data-part=truth]").is_hidden()
    sheets = [shown(page)]
    assert set(sheets[0]["source"]) == {255}
    tools = part(page, "input[name^=tool]").evaluate_all("all => all.map(tool => tool.value)") or ["brush"]
    for tool in tools:
        if len(tools) > 1:
            choose(page, "tool", tool)
        part(page, BIG["source"]).focus()
        for key in ("Space", "Shift+ArrowLeft", "Space", "Shift+ArrowUp", "Space", "Enter", "Shift+ArrowRight"):
            page.keyboard.press(key)
        sheets.append(shown(page))
        assert all(sheets[-1][name] != sheets[-2][name] for name in BIG)
    marks = sum(1 if tool == "shape" else 3 for tool in tools)
    for _ in range(marks):
        page.keyboard.press("Backspace")
    assert shown(page) == sheets[0]


@drawn
def test_another_student_shows_its_picture_and_its_time(drawing):
    page = drawing[0]
    names = part(page, ".demo-students input").evaluate_all("all => all.map(radio => radio.value)")
    if len(names) < 2:
        pytest.skip("this book has one student")
    choose(page, "example", "0")
    pictures = []
    for name in names:
        choose(page, "student", name)
        pictures.append(shown(page)["student"])
        assert pictures[-1] == pixels(page, f'[data-network="{name}"]')
        time = part(page, f'[data-time="{name}"]')
        time.filter(has_text="ms here").wait_for()
        assert float(re.findall(r"([\d.]+) ms", time.inner_text())[0]) > 0
        label = part(page, "[data-part=student-label]").inner_text()
        assert label and label in part(page, ".demo-students input:checked").get_attribute("aria-label")
    assert len({tuple(picture) for picture in pictures}) == len(names)


@drawn
def test_each_network_has_its_costs_beside_its_picture(drawing):
    about = json.loads((MODELS / DRAWN / "demo.json").read_text())
    cards = part(drawing[0], ".demo-card:has([data-network])").all_inner_texts()
    assert len(cards) == len(about["networks"])
    for card, network in zip(cards, about["networks"], strict=True):
        card = card.replace("\N{NO-BREAK SPACE}", " ")
        assert f"{short_count(network['macs'][str(about['size'])])} MACs" in card
        assert card.strip().startswith(network["label"].replace(" of the MACs", ""))
        assert f"{network['bytes'] / 1e3:,.0f} kB" in card


@drawn
def test_drawing_and_pictures_share_a_phones_screen(drawing):
    page = drawing[0]
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert part(page, ".demo-pictures").bounding_box()["height"] < PHONE["height"] - HEADER
    for target in part(page, ":is(button, select, .demo-choices label, label.demo-card, input[type=range])").all():
        if target.is_visible():
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 36, target.evaluate("element => element.outerHTML")


@drawn
def test_drawing_tools_pictures_and_costs_share_a_desktops_screen(drawing):
    page = drawing[0]
    page.set_viewport_size(DESKTOP)
    top = part(page, ".demo-pictures").bounding_box()["y"]
    cards, tools = part(page, ".demo-cards").bounding_box(), part(page, "[data-part=tools]").bounding_box()
    assert cards["y"] + cards["height"] - top < DESKTOP["height"] - HEADER
    assert tools["y"] + tools["height"] < cards["y"]
    page.set_viewport_size(PHONE)


@drawn
@AXE_NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_live_demo_puts_no_serious_obstacle_before_anyone(drawing, scheme):
    page = drawing[0]
    page.emulate_media(color_scheme=scheme)
    assert obstacles(page, {"include": [".demo-live"]}) == []


# --- a place ---


@earth
def test_a_place_and_paint_change_the_pictures_by_keyboard_alone(places):
    page, _, trouble = places
    before = shown(page, "earth")
    truth = pixels(page, '[data-part="truth-canvas"]', "earth")
    part(page, "[data-part=world]", "earth").focus()
    page.keyboard.press("Shift+ArrowDown")
    moved = shown(page, "earth")
    assert all(moved[name] != before[name] for name in BIG)
    there = pixels(page, '[data-part="truth-canvas"]', "earth")
    assert there != truth
    choose(page, "brush", "5", "earth")
    part(page, BIG["source"], "earth").focus()
    for key in ("Shift+ArrowLeft", "ArrowUp", "Space"):
        page.keyboard.press(key)
    painted = shown(page, "earth")
    assert all(painted[name] != moved[name] for name in BIG)
    assert pixels(page, '[data-part="truth-canvas"]', "earth") == there
    part(page, "[data-part=clear]", "earth").click()
    assert shown(page, "earth") == moved
    assert trouble == []


@earth
def test_a_larger_frame_has_its_own_costs(places):
    page = places[0]
    about = json.loads((MODELS / "earth" / "demo.json").read_text())
    size = about["sizes"][1]
    part(page, "[data-part=size]", "earth").select_option(str(size))
    assert len(shown(page, "earth")["teacher"]) == 4 * size * size
    cards = part(page, ".demo-card:has([data-network])", "earth").all_inner_texts()
    for card, network in zip(cards, about["networks"], strict=True):
        card = card.replace("\N{NO-BREAK SPACE}", " ")
        assert f"{short_count(network['macs'][str(size)])} MACs" in card
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


# --- figures of the chapters ---


@pytest.mark.skipif(not PRUNING.exists() or "budgets" not in PRUNING.read_text(), reason="chapter 3 has not been run")
def test_the_budget_slider_moves_by_keyboard_and_from_a_folder(browser):
    page = browser.new_page()
    page.goto(PRUNING.as_uri())
    slider = page.get_by_role("slider", name="Budget of the student")
    slider.focus()
    page.keyboard.press("Home")
    narrow = page.locator(".budget").inner_text()
    page.keyboard.press("End")
    whole = page.locator(".budget").inner_text()
    assert "100.0 %" in whole and "100.0 %" not in narrow
    # The bars of the teacher are full, and its parameters are those of the table's last row.
    bars = page.locator(".budget-bars span")
    assert set(bars.evaluate_all("all => all.map(e => e.style.getPropertyValue('--share'))")) == {"1"}
    last = page.locator("table.budgets tbody tr").last.locator("td").all_text_contents()
    assert last[3] in whole and last[3] not in narrow
    page.close()


@pytest.mark.skipif(
    not EVALUATION.exists() or "compare" not in EVALUATION.read_text(), reason="chapter 5 has not been run"
)
def test_the_divider_moves_by_keyboard_and_pictures_can_be_chosen(browser):
    page = browser.new_page()
    page.goto(EVALUATION.as_uri())
    divider = page.get_by_role("slider", name="Divider")
    divider.focus()
    page.keyboard.press("End")
    right = page.locator(".compare-frame > div").nth(1)
    assert right.evaluate("pane => getComputedStyle(pane).clipPath") == "inset(0px 0px 0px 100%)"
    before = right.locator("img").get_attribute("src")
    page.get_by_label("Image on the right").select_option(label="teacher")
    assert right.locator("img").get_attribute("src") != before
    # One image at a time: the pane is square, and the next one is the mosaic moved by a pane.
    assert re.fullmatch(r"image 1 of \d+", page.locator(".compare output").inner_text())
    box, image = right.bounding_box(), right.locator("img").bounding_box()
    assert abs(box["width"] - box["height"]) < 1 and image["x"] == pytest.approx(box["x"], abs=1)
    page.get_by_role("button", name="Next image").press("Enter")
    assert page.locator(".compare output").inner_text().startswith("image 2 of ")
    box, image = right.bounding_box(), right.locator("img").bounding_box()
    assert image["x"] == pytest.approx(box["x"] - box["width"], abs=1)
    page.close()

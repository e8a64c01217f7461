"""The live demo, the budget slider and the divider in a real browser."""

import json
import re

import pytest
from built_book import HTML, NEEDED, REQUIRED, watch

MODELS = HTML / "_static" / "models" / "earth"
PRUNING, EVALUATION = (HTML / "notebooks" / name for name in ("03-pruning.html", "05-evaluation.html"))
pytestmark = NEEDED
trained = pytest.mark.skipif(not MODELS.exists() and not REQUIRED, reason="this book has no trained networks")


@pytest.fixture(scope="module")
def demo(browser, address):
    """The page of the demo with its networks loaded, the bytes that came before, and what went wrong on the way."""
    page, trouble = browser.new_page(viewport={"width": 390, "height": 800}), []
    watch(page, address, trouble)
    page.goto(f"{address}/demo.html")
    page.wait_for_load_state("networkidle")
    before = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    page.get_by_role("button", name=re.compile("Load the networks")).first.click()
    page.wait_for_function(
        "document.querySelector('.demo [role=status]').textContent.startsWith('Ready')", timeout=280_000
    )
    yield page, before, trouble
    page.close()


def pixels(page, part: str) -> list[int]:
    return page.evaluate(
        """name => { const canvas = document.querySelector(`.demo [data-part="${name}"]`);
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }""",
        part,
    )


def settled(page) -> None:
    """Wait until both networks have answered."""
    page.wait_for_function("!document.querySelector('.demo .demo-old')")


# The student's values for the first example, not rounded to a picture.
STUDENT = """async () => {
    const at = path => new URL(path, document.baseURI);
    const { download, loadRuntime, openNetwork, toPlanes } = await import(at("_static/demo/network.mjs"));
    const image = Object.assign(new Image(), { src: at("_static/models/earth/sources.png") });
    await image.decode();
    const size = image.height, pen = new OffscreenCanvas(size, size).getContext("2d");
    pen.drawImage(image, 0, 0);
    const file = await download(at("_static/models/earth/student.onnx"));
    const network = await openNetwork(await loadRuntime(), file, "wasm");
    return [...await network.run(toPlanes(pen.getImageData(0, 0, size, size)), size, size)];
}"""


@trained
def test_the_networks_come_only_when_asked_for_and_without_trouble(demo):
    page, before, trouble = demo
    assert not [name for name in before if "onnxruntime" in name or "models" in name or name.endswith(".mjs")]
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@trained
def test_the_student_agrees_with_pytorch(demo):
    import numpy as np

    made = np.array(demo[0].evaluate(STUDENT))
    wanted = np.fromfile(MODELS / "student.f32", "<f4")
    assert made.shape == wanted.shape and np.ptp(wanted) > 0.01
    assert np.abs(made - wanted).max() < 1e-3


@trained
def test_a_place_and_paint_change_the_pictures_by_keyboard_alone(demo):
    page = demo[0]
    part_of_page = page.locator(".demo").first  # a book of several tasks has several
    shown = {part: pixels(page, part) for part in ("source", "student", "teacher", "truth")}
    part_of_page.locator('[data-part="world"]').focus()
    page.keyboard.press("Shift+ArrowDown")
    settled(page)
    moved = {part: pixels(page, part) for part in shown}
    assert all(moved[part] != shown[part] for part in shown)
    part_of_page.get_by_role("radio", name="ice").check()
    part_of_page.locator('[data-part="source"]').focus()
    for key in ("Shift+ArrowLeft", "ArrowUp", "Space"):
        page.keyboard.press(key)
    settled(page)
    painted = {part: pixels(page, part) for part in shown}
    assert {part for part in shown if painted[part] != moved[part]} == {"source", "student", "teacher"}
    part_of_page.get_by_role("button", name="Undo all painting").click()
    settled(page)
    assert pixels(page, "student") == moved["student"]


@trained
def test_the_table_gives_price_and_time(demo):
    rows = demo[0].locator(".demo").first.locator('[data-part="rows"] tr').all_inner_texts()
    about = json.loads((MODELS / "demo.json").read_text())
    assert len(rows) == len(about["networks"])
    for row, network in zip(rows, about["networks"].values(), strict=True):
        exact = network["macs"][str((about["sizes"] * 2)[1])]["exact"] / 1e6  # the second size is the first shown
        assert f"{exact:.1f} M" in row and f"{network['parameters']:,}" in row
        assert float(re.findall(r"([\d.]+) ms", row)[0]) > 0


def test_from_a_folder_the_demo_says_what_to_do(browser):
    if not MODELS.exists():
        pytest.skip("this book has no trained networks")
    page = browser.new_page()
    page.goto((HTML / "demo.html").as_uri())
    assert page.get_by_role("button", name=re.compile("Load the networks")).first.is_disabled()
    assert "make serve" in page.locator(".demo [role=status]").first.inner_text()
    page.close()


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
    assert last[4] in whole and last[4] not in narrow
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
    right = page.locator(".compare-frame img").nth(1)
    assert right.evaluate("image => getComputedStyle(image).clipPath") == "inset(0px 0px 0px 100%)"
    before = right.get_attribute("src")
    page.get_by_label("Picture on the right").select_option(label="teacher")
    assert page.locator(".compare-frame img").nth(1).get_attribute("src") != before
    page.close()

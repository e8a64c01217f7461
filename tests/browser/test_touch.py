"""The search in the page and the figure of what looks alike, in a real browser."""

import json

import pytest
from built_book import AXE_NEEDED, HTML, NEEDED, REQUIRED, obstacles, watch

from i2i_lib.counts import short_count

PRUNING, DISTILLATION = "notebooks/03-pruning.html", "notebooks/04-distillation.html"
PHONE = {"width": 390, "height": 844}
pytestmark = NEEDED


def offers(page: str, section: str):
    there = (HTML / page).exists() and f'<section class="{section}"' in (HTML / page).read_text()
    return pytest.mark.skipif(not there and not REQUIRED, reason=f"{page} has no section {section}")


searches, compares = offers(PRUNING, "search"), offers(DISTILLATION, "alike")


@pytest.fixture(scope="module")
def search(browser, address):
    """A phone's page of chapter 3 with the search live, what was loaded before, and what went wrong."""
    page, trouble = browser.new_page(viewport=PHONE), []
    watch(page, address, trouble)
    page.goto(f"{address}/{PRUNING}")
    page.wait_for_load_state("networkidle")
    before = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    page.locator("section.search button").click()
    page.locator(".search-live").wait_for(timeout=120_000)
    yield page, before, trouble
    page.close()


def result(page) -> dict:
    return json.loads(page.locator("section.search").get_attribute("data-result"))


def ask(page, budget: float) -> dict:
    """Type a budget and wait for what is found."""
    old = page.locator("section.search").get_attribute("data-result")
    page.get_by_label("Budget, exact MACs").fill(str(round(budget)))
    page.keyboard.press("Enter")
    page.wait_for_function("old => document.querySelector('section.search').dataset.result !== old", arg=old)
    return result(page)


@searches
def test_python_comes_only_when_asked_for_and_without_trouble(search):
    _, before, trouble = search
    assert [name for name in before if "pyodide" in name or "searched" in name or name.endswith((".mjs", ".py"))] == []
    assert trouble == []


@searches
def test_the_page_finds_the_students_of_the_table(search):
    """Those that the library found when the chapter ran."""
    page = search[0]
    heads = page.locator("table.budgets thead th").all_text_contents()
    rows = page.locator("table.budgets tbody tr").all()
    times = []
    whole = ask(page, 1e15)["macs"]
    for row in rows[2:-1:4]:
        cells = dict(zip(heads, row.locator("td").all_text_contents(), strict=True))
        found = ask(page, float(cells["budget, %"]) / 100 * whole)
        times.append(found["milliseconds"])
        counted = {"MACs": found["macs"], "parameters": found["parameters"]}
        assert {name: cells[name].replace("\xa0", " ") for name in counted} == {
            name: short_count(count) for name, count in counted.items()
        }
        assert [str(width) for width in found["config"]["stem"]] == [cells[f"stem {i}"] for i in (1, 2, 3)]
    assert sorted(times)[len(times) // 2] <= 100, times


@searches
def test_a_budget_below_the_floor_is_the_librarys_own_error(search):
    page = search[0]
    assert "is below the floor of" in ask(page, 1000)["error"]
    assert "is below the floor of" in page.locator(".search-live > .budget-said").first.inner_text()
    assert page.locator(".search-live .budget-bars").count() == 0


@searches
def test_slider_and_teacher_work_by_keyboard_and_the_nearest_picture_follows(search):
    page = search[0]
    slider = page.get_by_label("Budget, share of the teacher's MACs")
    slider.press("End")
    page.wait_for_function("JSON.parse(document.querySelector('section.search').dataset.result).share === 1")
    shown = page.locator(".search-pictures")
    shown.get_by_text("nearest trained network").wait_for()
    large = shown.inner_text()
    ask(page, 0.1 * result(page)["macs"])
    page.wait_for_function("large => document.querySelector('.search-pictures').innerText !== large", arg=large)
    teachers = page.get_by_role("combobox", name="Teacher")
    old = page.locator("section.search").get_attribute("data-result")
    teachers.press("ArrowDown")
    page.wait_for_function("old => document.querySelector('section.search').dataset.result !== old", arg=old)
    teachers.press("ArrowUp")


@searches
def test_a_cell_runs_what_a_reader_wrote(search):
    page = search[0]
    cell = page.get_by_role("textbox", name="Python").first
    cell.fill("print(generator_macs(config, image_size, 'exact'))\nnothing_of_that_name")
    cell.press("Shift+Enter")
    out = page.locator(".search-cells pre").first
    out.filter(has_text="NameError").wait_for()
    whole = out.inner_text().split()[0]
    assert int(whole) == ask(page, 1e15)["macs"]


@pytest.fixture(scope="module", params=["http", "file"])
def alike(request, browser, address):
    """A phone's page of chapter 4 with the figure open, from a server and from a folder."""
    page, trouble = browser.new_page(viewport=PHONE), []
    base = address if request.param == "http" else HTML.as_uri()
    watch(page, base, trouble)
    page.goto(f"{base}/{DISTILLATION}")
    page.wait_for_load_state("load")
    early = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    page.locator("section.alike button").click()
    page.locator(".alike-parts").wait_for()
    yield page, early, trouble
    page.close()


@compares
def test_the_pages_gcka_is_that_of_pytorch(alike):
    page, early, trouble = alike
    assert not [name for name in early if name.endswith("models/fluent/alike.js")] and trouble == []
    script = (HTML / "_static" / "models" / "fluent" / "alike.js").read_text()
    networks = json.loads(script.removeprefix("alike(").removesuffix(");\n"))["networks"]
    made = json.loads(page.locator("section.alike").get_attribute("data-gcka"))
    for name, aligned in made.items():
        assert aligned == pytest.approx(networks[name]["aligned"], abs=1e-3)
    shown = page.locator(".alike tbody tr").nth(2).locator("td").all_text_contents()
    assert shown == [f"{value:.3f}" for value in made["student-gcka"]]


@compares
def test_a_position_is_chosen_by_keyboard_and_by_pointer(alike):
    page = alike[0]
    said = page.locator(".alike-said")
    picture = page.locator(".alike-source")
    before = [said.inner_text(), page.locator(".alike td canvas").first.evaluate("c => c.toDataURL()")]
    picture.press("Shift+ArrowUp")
    picture.press("ArrowLeft")
    after = [said.inner_text(), page.locator(".alike td canvas").first.evaluate("c => c.toDataURL()")]
    assert all(a != b for a, b in zip(after, before, strict=True))
    box = picture.bounding_box()
    picture.click(position={"x": 2, "y": box["height"] - 2})
    assert "column 1:" in said.inner_text()


@compares
def test_the_figure_fits_a_phone_and_another_student_another_alignment(alike):
    page = alike[0]
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    student = page.get_by_label("Student", exact=True)
    if student.count():
        row = page.locator(".alike tbody tr").nth(2)
        before = row.inner_text()
        student.select_option(index=1)
        assert row.inner_text() != before


@searches
@compares
@AXE_NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_can_be_touched_puts_no_serious_obstacle_before_anyone(search, alike, scheme):
    for page, part in ((search[0], "section.search"), (alike[0], "section.alike")):
        page.emulate_media(color_scheme=scheme)
        assert obstacles(page, {"include": [part]}) == []

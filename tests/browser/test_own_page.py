"""The page of `i2i export --demo` in a real browser, behind an ordinary server and from a folder."""

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from built_book import AXE_NEEDED, CHROMIUM, REQUIRED, obstacles, watch
from conftest import Quiet
from PIL import Image
from toys import tiles, trained

from i2i_lib.checkpoint import save_generator
from i2i_lib.config import ResnetConfig, cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.demo.page import RUNTIME, write_site
from i2i_lib.files import root
from i2i_lib.translate import translate

PACKAGE = root() / "node_modules" / "onnxruntime-web"
HERE = CHROMIUM and all((PACKAGE / name).exists() for name in RUNTIME)
pytestmark = pytest.mark.skipif(not HERE and not REQUIRED, reason="needs Chromium and onnxruntime-web (npm ci)")
STUDENT = trained(cat_teacher(4, 3), 1)
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("own")
    data = tiles("cyclegan", size=32)
    save_task(Task("pictures", "cyclegan", data, data, {"domains": ["source", "picture"]}), home / "data")
    save_generator(STUDENT, home / "student")
    save_generator(trained(ResnetConfig(8, 3), 2), home / "teacher")
    write_site(home / "student", home / "page", runtime=PACKAGE)
    return home / "page"


@pytest.fixture(scope="module")
def served(page_folder) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(page_folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def live(browser, served):
    """The page with its networks running, and what went wrong on the way."""
    page, trouble = browser.new_page(viewport=PHONE), []
    watch(page, served, trouble)
    page.goto(served)
    page.locator("[data-part=load]").click()
    page.wait_for_function("document.querySelector('[data-part=caption]').textContent", timeout=280_000)
    yield page, trouble
    page.close()


def pixels(page, part: str) -> np.ndarray:
    """The picture of a canvas [H, W, 3] once every network has answered."""
    page.wait_for_function("!document.querySelector('.demo .demo-old')")
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    values = np.array(page.locator(f"canvas[data-part={part}]").evaluate(read))
    side = int((len(values) / 4) ** 0.5)
    return values.reshape(side, side, 4)[..., :3]


def test_it_runs_behind_any_server_and_loads_nothing_from_elsewhere(live):
    page, trouble = live
    assert trouble == []
    said = page.locator("[data-part=caption]").inner_text()
    assert re.search(r"at most 1 of 255 grey levels|exactly those of PyTorch", said)
    assert page.locator(".demo-card").count() == 2, "student and teacher, and no truth where there are no pairs"


def test_a_picture_of_ones_own_is_translated_as_pytorch_does(live, tmp_path):
    page, trouble = live
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    page.locator("[data-part=own]").set_input_files(tmp_path / "mine.png")
    page.wait_for_function("document.querySelector('[data-part=name]').textContent === 'mine.png'")
    middle = noise[:, 8:40]
    np.testing.assert_array_equal(pixels(page, "source"), middle)
    wanted = translate(STUDENT, torch.tensor(middle).permute(2, 0, 1).contiguous()).permute(1, 2, 0).numpy()
    assert np.ptp(wanted) > 50 and np.abs(pixels(page, "student") - wanted.astype(int)).max() <= 1
    assert page.locator(".demo-examples input:checked").count() == 0

    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("[data-part=own]").set_input_files(tmp_path / "notes.txt")
    page.locator("[data-part=status]").filter(has_text="The browser cannot read notes.txt").wait_for()
    assert trouble == []


def test_what_is_drawn_changes_the_picture_until_it_is_undone(live):
    page, _ = live
    page.locator(".demo-examples input").first.check(force=True)
    before = pixels(page, "student")
    page.locator("canvas[data-part=source]").focus()
    page.keyboard.press("Space")
    assert (pixels(page, "student") != before).any()
    page.locator("[data-part=undo]").click()
    np.testing.assert_array_equal(pixels(page, "student"), before)


def test_it_fits_a_phone(live):
    page, _ = live
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@AXE_NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_puts_no_serious_obstacle_before_anyone(live, scheme):
    page, _ = live
    page.emulate_media(color_scheme=scheme)
    assert obstacles(page) == []


def test_from_a_folder_it_shows_finished_examples_and_says_how_to_go_on(browser, page_folder):
    page = browser.new_page()
    page.goto((page_folder / "index.html").as_uri())
    assert page.locator("[data-part=load]").is_disabled()
    assert "python -m http.server 8000" in page.locator("[data-part=status]").inner_text()
    width = page.locator("[data-part=student-image]").evaluate("image => image.decode().then(() => image.naturalWidth)")
    about = json.loads((page_folder / "models/demo.json").read_text())
    assert width == about["size"] * about["examples"]
    page.close()

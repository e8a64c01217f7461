"""The walk of the page "Your own images" by its commands, on two thousand pairs of emoji; its pictures and outputs.

    python benchmarks/bench_walk.py FOLDER [STEPS]

makes in FOLDER what the reader of the page has (pairs, and a ResNet's latest_net_G.pth, trained for twenty minutes of
processor time with the layout of pytorch-CycleGAN-and-pix2pix), gives the page's commands there, and writes their
output and pictures of each step to book/measured/walk-*. What is done already is not done again. STEPS bounds the
training, for a machine that has other things to do. Needs the task `fluent`, Chromium and onnxruntime-web.
"""

import io
import json
import resource
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "browser")]
from built_book import CHROMIUM  # pyright: ignore[reportMissingImports]
from goldens import widely_used_resnet  # pyright: ignore[reportMissingImports]

from i2i_lib.data.pictures import list_pictures, read_picture, to_image, write_picture
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import encode
from i2i_lib.files import root

SIZE = 64  # pixels
MINUTES = 20.0  # of the ResNet's training, on one thread
MEASURED = root() / "book" / "measured"


def pairs(folder: Path) -> None:
    """The emoji as pictures side by side, flat and 3-D, in `train` and `test`."""
    task = load_task("fluent", image_size=SIZE)
    for part, tiles in (("train", task.train), ("test", task.test)):
        for i in range(len(tiles)):
            write_picture(torch.cat([tiles.source[i], tiles.target[i]], 2), folder / part / f"{i:04}.png")


def resnet(folder: Path, file: Path) -> None:
    """A ResNet generator of six blocks that learns the pairs in L1, saved as the widely used code saves it."""
    both = torch.stack([read_picture(folder / "train" / name) for name in list_pictures(folder / "train")])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net: Any = widely_used_resnet("instance", dropout=False, base=24, n_blocks=6).train()
    net.to(memory_format=torch.channels_last)
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    optimiser = torch.optim.Adam(net.parameters(), betas=(0.5, 0.999), fused=True)
    draw, started = torch.Generator().manual_seed(0), time.thread_time()
    while (spent := (time.thread_time() - started) / 60) < MINUTES:
        chosen = both[torch.randint(len(both), (16,), generator=draw)]
        y, x = torch.randint(9, (2,), generator=draw).tolist()
        source, target = (
            F.pad(encode(half), (4,) * 4, mode="reflect")[..., y : y + SIZE, x : x + SIZE]
            for half in chosen.split(SIZE, 3)
        )
        if torch.rand(1, generator=draw) < 0.5:
            source, target = source.flip(-1), target.flip(-1)
        with torch.autocast("cpu", torch.bfloat16):
            made = net.model(source.contiguous(memory_format=torch.channels_last))
        loss = F.l1_loss(made.float(), target)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, 2 * (1 - spent / MINUTES))
        optimiser.step()
    torch.save(net.eval().state_dict(), file)


def command(folder: Path, *words: str) -> str:
    """Give one of the page's commands in the folder; returns its words and output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    called = [sys.executable, "-m", "i2i_lib.cli", *words]
    done = subprocess.run(called, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"i2i {words[0]}: {spent / 60:.1f} minutes of processor time")
    return f"$ i2i {' '.join(words)}\n{done.stdout}"


def photograph(folder: Path) -> None:
    """Pictures of the pairs, the report, and the page once its networks run."""
    from playwright.sync_api import sync_playwright

    names = [*list_pictures(folder / "pairs" / "test")]
    shown = [read_picture(folder / "pairs" / "test" / name) for name in names[:: len(names) // 6][:6]]
    strip = torch.cat([torch.cat(shown[:3], 2), torch.cat(shown[3:], 2)], 1)
    _save(to_image(strip), "pairs")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder / "page")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 960, "height": 720})
        page.goto((folder / "student" / "report.html").as_uri())
        _save(Image.open(io.BytesIO(page.screenshot())), "report")
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.locator("[data-part=load]").click()
        page.wait_for_function("document.querySelector('[data-part=caption]').textContent", timeout=280_000)
        page.locator("[data-part=empty] input").check(force=True)
        page.locator("canvas[data-part=source]").scroll_into_view_if_needed()
        box: Any = page.locator("canvas[data-part=source]").bounding_box()
        page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.85 * box["width"], box["y"] + 0.8 * box["height"], steps=3)
        page.mouse.up()
        page.wait_for_function("!document.querySelector('.demo .demo-old')")
        page.wait_for_timeout(1000)
        page.evaluate("scrollTo(0, 0)")
        _save(Image.open(io.BytesIO(page.screenshot())), "page")
        browser.close()
    server.shutdown()


def _save(image: Image.Image, name: str) -> None:
    image.convert("RGB").save(MEASURED / f"walk-{name}.webp", quality=80, method=6)


def main(folder: Path, steps: str | None = None) -> None:
    """Walk."""
    if not (folder / "pairs").exists():
        pairs(folder / "pairs")
    if not (folder / "latest_net_G.pth").exists():
        resnet(folder / "pairs", folder / "latest_net_G.pth")
    length = ("--steps", steps) if steps else ()
    said = command(folder, "compress", "latest_net_G.pth", "pairs", "student", "--share", "0.1", *length)
    (MEASURED / "walk-compress.txt").write_text(said)
    (MEASURED / "walk-compare.txt").write_text(command(folder, "export", "student/student", "--compare"))
    runtime = str(root() / "node_modules" / "onnxruntime-web")
    command(folder, "export", "student/student", "--demo", "page", "--runtime", runtime)
    photograph(folder)
    record = json.loads((folder / "student" / "compress.json").read_text())["record"]
    own, whole = (record[f"l1_{who}_to_target"]["mean"] for who in ("student", "teacher"))
    print(f"L1 to the truth: student {own:.4f}, teacher {whole:.4f}, {own / whole - 1:+.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:])

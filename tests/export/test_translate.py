"""A saved student on pictures as users have them."""

import math
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from toys import network, same

from i2i_lib import translate as module
from i2i_lib.checkpoint import build, load_generator, save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.config import cat_spade_teacher, cat_teacher
from i2i_lib.data.pictures import read_picture, write_picture
from i2i_lib.translate import translate


@pytest.fixture(scope="module")
def generator():
    return network(cat_teacher(base=8, n_blocks=3), gain=0.2).eval()


@pytest.fixture
def student(generator, tmp_path):
    save_generator(generator, tmp_path / "student")
    return str(tmp_path / "student")


def noise(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(height).integers(0, 256, (3, height, width), dtype=np.uint8))


def fill(folder, *names, size=(24, 20)):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(noise(size[1], size[0]).roll(i).permute(1, 2, 0).numpy()).save(folder / name)


def test_a_fitting_picture_is_what_the_network_makes_of_it(generator):
    picture = noise(32, 48)
    with torch.no_grad():
        expected = ((generator(picture[None] / 127.5 - 1)[0] + 1) * 127.5).round().byte()
    made = translate(generator, picture)
    assert made.dtype == torch.uint8 and (made.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(33, 18), (1, 1), (3, 200), (17, 16)])
def test_any_size_comes_back(generator, size):
    made = translate(generator, noise(*size))
    assert made.shape == (3, *size) and made.float().std() > 0


def test_the_border_is_a_reflection(generator):
    """What is appended continues the picture, so that an already reflected one is translated alike."""
    picture = noise(30, 30)
    whole = torch.cat([picture, picture[:, :, [28, 27]]], 2)
    whole = torch.cat([whole, whole[:, [28, 27]]], 1)
    assert torch.equal(translate(generator, picture), translate(generator, whole)[:, :30, :30])


def test_training_networks_are_used_as_if_evaluated():
    net = network(cat_teacher(base=8, n_blocks=3, norm="batch"), gain=0.2).train()
    before = deepcopy(net)
    translate(net, noise(16, 16))
    assert net.training and same(net, before)


def test_what_cannot_be_translated_says_why(generator, monkeypatch):
    with pytest.raises(ValueError, match="reads label maps, not pictures"):
        translate(build(cat_spade_teacher(6, 9, upsamplings=4, hidden=18)), noise(16, 16))
    with pytest.raises(ValueError, match=r"expected a uint8 picture \[3, H, W\], got torch.float32 \[1, 3, 16, 16\]"):
        translate(generator, noise(16, 16)[None].float())

    def exhausted(x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(generator, "forward", exhausted)
    with pytest.raises(MemoryError, match="--max-side"):
        translate(generator, noise(16, 16))

    def broken(x):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(generator, "forward", broken)
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        translate(generator, noise(16, 16))


@pytest.mark.parametrize(
    "folder, limit, used",
    [("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)
def test_a_containers_limit_bounds_the_memory_that_is_free(tmp_path, monkeypatch, folder, limit, used):
    assert module._container_memory(tmp_path) == math.inf
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / limit).write_text("5000\n")
    (group / used).write_text("4000\n")
    (group / "memory.stat").write_text("anon 3300\ninactive_file 400\nactive_file 300\n")
    assert module._container_memory(tmp_path) == 1700, "copies of files give way"
    (group / limit).write_text("max\n")
    assert module._container_memory(tmp_path) == math.inf
    monkeypatch.setattr(module, "_container_memory", lambda _: 1700)
    assert module.free_memory() == 1700


def test_a_folder_with_bad_files_goes_on_and_tells(student, generator, tmp_path, capsys):
    fill(tmp_path / "in", "a.jpg", "b.PNG", "c.webp")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 18), "red").save(tmp_path / "in" / "turned.jpg", exif=exif)
    (tmp_path / "in" / "empty.jpg").touch()
    (tmp_path / "in" / "text.jpg").write_text("hello")
    Image.new("L", (9, 9)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "notes.txt").write_text("not a picture, and not meant as one")
    assert main(["translate", student + ".safetensors", str(tmp_path / "in"), str(tmp_path / "deep" / "out")]) == 1
    said = capsys.readouterr().err
    for message in (r"in/empty\.jpg", r"in/text\.jpg", r"in/a\.png would overwrite what a\.jpg"):
        assert len(re.findall(message, said)) == 1
    assert "3 pictures could not be translated" in said and "notes" not in said
    out = tmp_path / "deep" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png", "turned.png"]
    assert torch.equal(read_picture(out / "b.png"), translate(generator, read_picture(tmp_path / "in" / "b.PNG")))
    assert read_picture(out / "turned.png").shape == (3, 24, 18)


def test_what_is_not_a_picture_that_can_be_read_is_said(student, tmp_path, capsys):
    fill(tmp_path / "in", "a.png")
    (tmp_path / "in" / "IMG_1.HEIC").touch()
    assert main(["translate", student, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert "not read: other files: 1 of .heic: export those" in capsys.readouterr().err


def test_files_patterns_and_sizes(student, tmp_path, capsys):
    fill(tmp_path / "in", "a.jpg", "b.png", size=(80, 40))
    assert (
        main(["translate", student, str(tmp_path / "in" / "a.jpg"), str(tmp_path / "one.png"), "--max-side", "20"]) == 0
    )
    assert read_picture(tmp_path / "one.png").shape == (3, 10, 20)
    assert main(["translate", student, str(tmp_path / "in" / "*.[jp][pn]g"), str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    for arguments, message in [
        ([student, str(tmp_path / "in" / "b.png"), str(tmp_path / "in" / "b.png")], "would overwrite"),
        ([student, str(tmp_path / "in"), str(tmp_path / "two.png")], r"two\.png should be a folder"),
        ([student, str(tmp_path / "in" / "a.jpg"), str(tmp_path / "a.jpg")], r"a name in \.png"),
        ([str(tmp_path / "none"), str(tmp_path / "in"), str(tmp_path)], r"none\.json"),
        ([student, str(tmp_path / "in"), str(tmp_path / "out"), "--max-side", "0"], "must be at least 1, got 0"),
    ]:
        assert main(["translate", *arguments]) == 1
        assert re.search(message, capsys.readouterr().err)


def test_the_example_in_the_documentation_runs(student, tmp_path, monkeypatch):
    fill(tmp_path, "map.png")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^    (.+)$", module.__doc__ or "", re.M)
    code = "\n".join(lines).replace("runs/cpu/earth/seed0/student-gcka", student)
    names = (load_generator, translate, read_picture, write_picture)
    exec(code, {name.__name__: name for name in names})
    assert len(lines) == 3 and read_picture("satellite.png").shape == read_picture("map.png").shape

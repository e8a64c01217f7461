"""What is put beside the live demo fits together, before any browser reads it."""

import json

import numpy as np
from PIL import Image
from toys import GENERATORS, tiles, trained

from i2i_book.demo import EXAMPLES, make
from i2i_lib.checkpoint import save_generator
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.export.onnx import session
from i2i_lib.macs import generator_macs

CONFIG = GENERATORS["pix2pix"]


def test_the_files_of_a_demo_belong_together(tmp_path):
    """The networks, run on the first of the pictures, give the values that the browser will compare with."""
    info = {"domains": ["line", "colour"], "credit": "its maker", "test": [{"name": f"drawing {i}"} for i in range(12)]}
    save_task(Task("openmoji", "pix2pix", tiles(size=16), tiles(size=16), info), tmp_path / "data")
    save_generator(trained(CONFIG, 1), tmp_path / "student-gcka")
    make(tmp_path, tmp_path / "alone")
    save_generator(trained(CONFIG, 2), tmp_path / "teacher")
    make(tmp_path, tmp_path / "demo")

    assert list(json.loads((tmp_path / "alone/demo.json").read_text())["networks"]) == ["student"]
    about = json.loads((tmp_path / "demo/demo.json").read_text())
    assert len(about["names"]) == about["examples"] == EXAMPLES and about["sizes"] == [16]
    strip = np.array(Image.open(tmp_path / "demo/sources.png"))
    assert strip.shape == (16, 16 * EXAMPLES, 3)
    first = strip[:, :16].transpose(2, 0, 1)[None].astype("f4") / 127.5 - 1
    for name, tolerance in (("student", 1e-4), ("teacher", 2e-2)):
        made = np.asarray(session(tmp_path / f"demo/{name}.onnx").run(None, {"source": first})[0])
        wanted = np.fromfile(tmp_path / f"demo/{name}.f32", "<f4").reshape(made.shape)
        assert np.ptp(wanted) > 0.01 and np.abs(made - wanted).max() < tolerance
        network = about["networks"][name]
        assert network["bytes"] == (tmp_path / f"demo/{name}.onnx").stat().st_size
        assert network["macs"]["16"]["exact"] == generator_macs(CONFIG, 16, "exact")

"""Every sentence about speed quotes the one table, and its words follow the numbers."""

import json
from typing import Any

import pandas as pd
import pytest
from fake_run import row
from matplotlib.patches import Rectangle

from i2i_book.claims import details, prices
from i2i_book.figures.speed import draw_speed
from i2i_book.runs import root
from i2i_book.speed import (
    gains_sentence,
    has_speed,
    milliseconds,
    shown_speed,
    speed_note,
    speed_sentence,
    speed_ups,
)
from i2i_lib.results import WAYS, collect, load_evaluation, load_table, save_evaluation

TIMES = {
    (64, "original"): (6.0, 5.0, 4.0),
    (64, "teacher"): (12.0, 8.0, 5.0),
    (64, "gcka"): (8.0, 4.0, 2.0),
    (256, "original"): (90.0, 60.0, 64.0),
    (256, "teacher"): (100.0, 70.0, 60.0),
    (256, "gcka"): (40.0, 20.0, 16.0),
}


def speed(times: Any = TIMES, ways: Any = WAYS, scale: float = 1, **facts: Any) -> dict[str, Any]:
    rows = []
    for (size, name), values in reversed(times.items()):
        found = {"network": name, "same": ["none", "mse"] * (name == "gcka"), "size": [size, size]}
        rows += [found | {"way": way, "ms": scale * ms} for way, ms in zip(ways, values, strict=False)]
    return {"device": "cpu", "repeats": 15, "rows": rows} | facts


def evaluation(**facts: Any) -> dict[str, Any]:
    return {"results": [], "per_image": {}, "speed": speed(**facts)}


def test_the_table_has_a_row_for_each_size_and_architecture():
    table = milliseconds([evaluation()])
    assert list(table.index) == [(str(size), name) for size, name in TIMES]
    assert list(table.columns) == list(WAYS)
    assert table.to_numpy().tolist() == [list(values) for values in TIMES.values()]
    wide = [found | {"size": [256, 512]} for found in speed()["rows"] if found["size"] == [64, 64]]
    sizes = milliseconds([{"speed": {"rows": [*wide, *speed()["rows"]]}}]).index.unique("size")
    assert list(sizes) == ["64", "256", "256 x 512"], "by area"


def test_speed_ups_are_quotients_of_the_table_in_the_same_way():
    table, ups = milliseconds([evaluation()]), speed_ups([evaluation()])
    for size, rival in ups.index:
        for way in WAYS:
            assert ups.loc[(size, rival), way] == table.loc[(size, rival), way] / table.loc[(size, "gcka"), way]
    assert speed_ups([evaluation()], "mse").equals(ups), "the same network"
    seeds = [evaluation(), evaluation(scale=3)]
    assert milliseconds(seeds).equals(2 * table) and "Mean over 2 seeds" in speed_note(seeds)


def test_the_words_follow_the_numbers():
    said = speed_sentence([evaluation()])
    assert said == (
        "At 256 px, fused, the student is 3.5 times as fast as its teacher and 3.0 times as fast as the uncompressed "
        "ResNet; at 64 px in plain PyTorch, it is 1.5 times as fast as its teacher and not faster than the "
        "uncompressed ResNet (0.8 times as fast)."
    )
    swift = TIMES | {(64, "gcka"): (2.0, 4.0, 2.0)}
    assert "it is 6.0 times as fast as its teacher and 3.0 times as fast as" in speed_sentence(
        [evaluation(times=swift)]
    )
    alone = {key: values for key, values in TIMES.items() if key[1] != "original"}
    assert "ResNet" not in speed_sentence([evaluation(times=alone)]) + speed_note([evaluation(times=alone)])
    own = [found | {"size": [128, 128]} for found in speed()["rows"] if found["size"] == [256, 256]]
    third = {"speed": speed() | {"rows": [*speed()["rows"], *own]}}
    assert speed_sentence([third]) == said.replace("256 px", "128 px"), "the task's own size, where it is a third one"
    for found in own:
        found["size"] = [48, 48]
    assert speed_sentence([third]) == said, "but not where it is smaller than the small one"
    plain = speed_sentence([evaluation(ways=WAYS[:1])])  # SPADE is not fused
    assert plain.startswith("In plain PyTorch, the student at 256 px is 2.5 times as fast as its teacher and 2.2 times")
    assert gains_sentence([evaluation()]) == (
        "At 256 px, it is fused 2.0 times and in ONNX Runtime 2.5 times as fast as in plain PyTorch."
    )


def test_the_note_says_what_clock_ran():
    note = speed_note([evaluation()])
    assert "one thread of the CPU, by the thread's own clock" in note and "median of 15 passes" in note
    assert "none, mse: the same network as gcka." in note
    assert "on a GPU (A Large GPU), by the clock on the wall" in speed_note([evaluation(device="A Large GPU")])


def test_pages_quote_the_table():
    """The headline and the table as it is shown, number by number."""
    rows = pd.DataFrame([row(macs_exact=10), row(model="teacher", macs_exact=40)])
    assert speed_sentence([evaluation()]) in details([evaluation()], rows)
    shown = shown_speed([evaluation()]).to_string()
    for text in ("original, ms 6.0 5.0 4.0", "gcka, ms 40.0 20.0 16.0", "gcka: times as fast as teacher 2.5 3.5 3.8"):
        assert text in shown
    figure = draw_speed(milliseconds([evaluation()]))
    bars = [bar for axis in figure.axes for bar in axis.patches if isinstance(bar, Rectangle)]
    assert {bar.get_width() for bar in bars} == {ms for values in TIMES.values() for ms in values}


def test_no_page_has_a_clock_of_its_own_for_networks():
    """Chapter 5 measures; others read its table."""
    measuring = {}
    for path in (root() / "notebooks").glob("*.ipynb"):
        assert "latency_ms" not in path.read_text(), path.name
        for cell in json.loads(path.read_text())["cells"]:
            if "speed = measure_speed(" in "".join(cell["source"]):
                measuring[path.stem] = "".join(cell["source"])
    assert sorted(measuring) == ["05-evaluation", "07-deployment"]
    by_hand, run = measuring["07-deployment"].split("else:")
    assert by_hand.startswith('if run == "lab":')
    assert 'speed = load_evaluation(where.find("eval").with_suffix(".json"))["speed"]' in run


def test_old_recordings_still_load(tmp_path):
    """Format 1 had times on the wall in every row; they are read over, and nothing is said of speed."""
    path = tmp_path / "eval.json"
    save_evaluation(path, [row(macs_exact=10), row(model="teacher", macs_exact=40)], {})
    content = json.loads(path.read_text())
    assert content["format"] == 2
    for result in content["results"]:
        result |= {"latency_ms": 2.0, "latency_p95_ms": 3.0}
    path.write_text(json.dumps(content | {"format": 1}))
    old = load_evaluation(path)
    assert old["results"][0] == row(macs_exact=10) and not has_speed([old])
    (tmp_path / "results.jsonl").write_text(collect([path]))
    table = load_table(tmp_path / "results.jsonl")
    assert "latency_ms" not in table
    assert "as fast" not in " ".join(details([old], table))
    recorded = root() / "book" / "recorded" / "three-seeds" / "earth" / "seed0" / "eval.json"
    assert "latency_ms" in recorded.read_text() and load_evaluation(recorded)["results"]


@pytest.mark.parametrize(("paper", "columns"), [(10, 0), (12, 1)])
def test_the_papers_count_is_shown_where_it_differs(paper, columns):
    shown = prices(pd.DataFrame([row(macs_exact=10, macs_paper=paper), row(macs_exact=8, macs_paper=8)]))
    assert shown.count("macs_paper") == columns and "macs_exact" in shown

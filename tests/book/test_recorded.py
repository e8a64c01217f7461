"""A run packed in one checkout appears in the book of another, and nothing that was tampered with does."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from fake_run import checkout, fill, finished_run, row
from project import Project, dry_run

from i2i_book.questions import questions
from i2i_book.recorded.__main__ import main
from i2i_book.recorded.check import check
from i2i_book.recorded.importing import import_recording, join
from i2i_book.recorded.pack import compact_json, pack
from i2i_book.recorded.tables import tables
from i2i_book.runs import root
from i2i_lib.checkpoint import load_generator
from i2i_lib.config import cat_teacher
from i2i_lib.files import sha256, write_json
from i2i_lib.generators import InceptionGenerator
from i2i_lib.results import collect, save_evaluation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """The recording of a finished run, as a folder."""
    top = tmp_path_factory.mktemp("there")
    return pack(finished_run(top), top / "gpu-recording")


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "copy")


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_a_run_packed_in_one_checkout_appears_in_the_book_of_another(tmp_path, monkeypatch):
    def demo(home: Path, out: Path, students: Path) -> None:
        assert (home / "student-gcka.safetensors").exists() and students.parent.parent.name == "recorded"
        asked.append(home.parent.name)

    asked = []
    monkeypatch.setattr("i2i_book.demo.make", demo)  # of networks that no page could run
    run = finished_run(tmp_path / "there")
    archive = pack(run, tmp_path / "gpu.zip")
    book = checkout(tmp_path / "here")
    kept = import_recording(archive, book / "recorded")
    assert kept == book / "recorded" / "gpu" and list((book / "recorded").iterdir()) == [kept]

    fill(book, "gpu")
    assert asked == ["fluent"]
    page = (book / "notebooks" / "01-data.ipynb").read_text()
    assert ">Recorded <span" in page and "preset gpu" in page and "A Large GPU" in page and "2026-11-20" in page
    assert "a number" in page
    line = next(line for line in (book / "status.md").read_text().splitlines() if "`/notebooks/01-data`" in line)
    assert line.split("|")[3].strip() == "recorded"

    fill(book, "cpu")  # the book of another preset shows what was measured, not the pages
    shown = (book / "notebooks" / "recorded.md").read_text()
    assert "## gpu: recorded on A Large GPU, 2026-11-20" in shown and "a protocol" in shown
    assert "| gcka | 0.200 ± 0.141 | 25.5 | 0.500 ± 0.000 |" in shown and "| 2 |" in shown
    assert "Not run" in (book / "notebooks" / "01-data.ipynb").read_text()


def test_under_a_name_of_its_own_a_recording_is_shown_beside_a_run(packed: Path, tmp_path):
    book = checkout(tmp_path)
    kept = import_recording(packed, book / "recorded", name="two-seeds")
    assert kept == book / "recorded" / "two-seeds"
    shutil.copytree(kept, kept.with_name("unpaired"))  # a name of the plan, which comes first
    fill(book, "gpu")
    shown = (book / "notebooks" / "recorded.md").read_text()
    assert 0 <= shown.find("## unpaired: recorded on") < shown.find("## two-seeds: recorded on A Large GPU")
    assert "Not run" in (book / "notebooks" / "01-data.ipynb").read_text()
    with pytest.raises(ValueError, match=r"'\.\./up' is no name for a recording"):
        import_recording(packed, book / "recorded", name="../up")


def test_a_recording_of_three_seeds_makes_its_claims(tmp_path):
    line = "| distillation: gcka \N{MINUS SIGN} none | -0.200 (-0.200 to -0.200) **gcka** |\n"  # KD varies nowhere
    homes = [tmp_path / "fluent" / f"seed{seed}" / "eval.json" for seed in range(3)]
    for seed, home in enumerate(homes):
        per_image = {"l1": {"gcka": [0.1, 0.1], "none": [0.3, 0.3]}}
        save_evaluation(home, [row(seed, "gcka"), row(seed, "none")], per_image, blocks=[0, 1])
    for seeds, claimed in ((2, False), (3, True)):
        (tmp_path / "results.jsonl").write_text(collect(homes[:seeds]))
        assert (line in tables(tmp_path)) == claimed


def test_what_is_packed_is_small_and_loads(packed: Path):
    names = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert {
        "manifest.json",
        "results.jsonl",
        "fluent/seed1/eval.json",
        "fluent/seed0/student-gcka.safetensors",
    } <= names
    assert not [name for name in names if "teacher" in name or name.endswith("data.safetensors")]
    original = packed.parent / "runs/gpu/fluent/seed0/student-gcka.safetensors"
    small = packed / "fluent/seed0/student-gcka.safetensors"
    assert small.stat().st_size < 0.7 * original.stat().st_size
    torch.manual_seed(0)
    exact = InceptionGenerator(cat_teacher(base=4, n_blocks=3)).state_dict()
    for name, value in load_generator(small.with_suffix("")).state_dict().items():
        torch.testing.assert_close(value, exact[name], rtol=2**-8, atol=0, msg=name)
    # Pictures of one seed are enough; of the other the manifest holds what its notebooks noted.
    assert "a number" in (packed / "fluent/seed0/notebooks/05-evaluation.ipynb").read_text()
    assert not (packed / "fluent/seed1/notebooks").exists()
    runs = json.loads((packed / "manifest.json").read_text())["runs"]
    assert runs["fluent/seed1/05-evaluation"]["seed"] == 1 and runs["06-results"]["machine"]["gpu"] == "A Large GPU"


def test_numbers_are_packed_without_pages_if_asked_for(packed: Path, tmp_path):
    assert main(["pack", str(packed.parent / "runs/gpu"), str(tmp_path / "numbers"), "--no-pages"]) == 0
    assert not list((tmp_path / "numbers").rglob("*.ipynb"))
    runs = json.loads((tmp_path / "numbers/manifest.json").read_text())["runs"]
    assert runs == json.loads((packed / "manifest.json").read_text())["runs"]
    assert (tmp_path / "numbers/results.jsonl").read_text() == (packed / "results.jsonl").read_text()


@pytest.mark.parametrize("first", [0, 1])
def test_weights_of_the_first_seed_alone_are_packed_if_asked_for(packed: Path, tmp_path, monkeypatch, first):
    asked = replace(questions()[0], recording="gpu", seeds=range(first, 2))
    monkeypatch.setattr("i2i_book.questions.questions", lambda: [asked])
    assert main(["pack", str(packed.parent / "runs/gpu"), str(tmp_path / "small"), "--first-weights"]) == 0
    files = set(check(tmp_path / "small")["files"])
    seeds = {name: {path.split("/")[1] for path in files if path.endswith(name)} for name in (".safetensors", ".ipynb")}
    assert seeds == {".safetensors": {f"seed{first}"}, ".ipynb": {f"seed{first}", "06-results.ipynb"}}
    assert {f"fluent/seed{seed}/{name}" for seed in (0, 1) for name in ("student-gcka.json", "eval.json")} <= files


def test_teachers_are_packed_if_asked_for(packed: Path, tmp_path):
    folder = packed.parent / "runs" / "gpu"
    assert (pack(folder, tmp_path / "a") / "fluent/seed0/teacher.json").exists() is False
    # This run's teacher was written by no notebook, which is what the check is for.
    with pytest.raises(ValueError, match=r"teacher\.json is not the file that its notebook wrote"):
        pack(folder, tmp_path / "b", teachers=True)
    assert not (tmp_path / "b").exists()


FILES = ["fluent/seed0/eval.json", "fluent/seed1/student-gcka.safetensors", "results.jsonl"]
FILES += ["fluent/seed0/notebooks/04-distillation-gcka.ipynb"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_one_changed_byte_is_refused_by_file_name(copy: Path, name, form, tmp_path):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    source = copy if form == "folder" else zipped(copy)
    with pytest.raises(ValueError, match=f"{name} does not match the manifest"):
        import_recording(source, tmp_path / "recorded")
    assert list((tmp_path / "recorded").iterdir()) == []


@contextmanager
def changed(path: Path) -> Iterator[Any]:
    """The content of a JSON file, which is written back as the block leaves it."""
    content = json.loads(path.read_text())
    yield content
    write_json(path, content)


def seal(folder: Path) -> None:
    """Write a manifest that fits the files as they are now: what a careful forger does."""
    with changed(folder / "manifest.json") as manifest:
        for name in manifest["files"]:
            manifest["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}


def better(folder: Path) -> None:
    with changed(folder / "fluent/seed0/eval.json") as content:
        content["results"][0]["l1"] = 0.01


def better_everywhere(folder: Path) -> None:
    better(folder)
    (folder / "results.jsonl").write_text(collect(sorted(folder.glob("*/seed*/eval.json"))))


def other_weights(folder: Path) -> None:
    for suffix in ("json", "safetensors"):
        shutil.copy(folder / f"fluent/seed0/student-gcka.{suffix}", folder / f"fluent/seed1/student-gcka.{suffix}")


def a_script(folder: Path) -> None:
    with changed(folder / "fluent/seed0/notebooks/01-data.ipynb") as notebook:
        notebook["cells"][1]["outputs"][0]["data"]["text/html"] = ["<p><script>alert(1)</script>"]


def a_script_in_a_figure(folder: Path) -> None:
    with changed(folder / "fluent/seed0/notebooks/01-data.ipynb") as notebook:
        notebook["cells"][1]["outputs"][1]["data"]["image/svg+xml"] = ["<svg><script>alert(1)</script></svg>"]


def a_handler(folder: Path) -> None:
    with changed(folder / "manifest.json") as manifest:
        manifest["runs"]["06-results"]["machine"]["cpu"] = '<img src=x onerror="alert(1)">'


def another_run(folder: Path) -> None:
    with changed(folder / "manifest.json") as manifest:
        manifest["runs"]["fluent/seed0/01-data"]["seconds"] = 1.0


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (better, r"results\.jsonl is not what the evaluations beside it say"),
        (better_everywhere, r"seed0/eval\.json is not the file that its notebook wrote"),
        (other_weights, r"seed1/student-gcka\.json is not the file that its notebook wrote"),
        (a_script, r"01-data\.ipynb holds active content"),
        (a_script_in_a_figure, r"01-data\.ipynb holds active content"),
        (a_handler, r"manifest\.json holds active content"),
        (another_run, r"01-data\.ipynb is not of the run that the manifest lists"),
    ],
)
def test_a_forged_manifest_is_not_enough(copy: Path, tmp_path, forge, says):
    forge(copy)
    seal(copy)
    with pytest.raises(ValueError, match=says):
        import_recording(copy, tmp_path / "recorded")


def test_links_and_files_too_many_or_too_few_are_refused(copy: Path, tmp_path):
    (copy / "fluent/seed0/plan.json").rename(copy / "fluent/seed0/student-plan.json")
    with pytest.raises(ValueError, match=r"seed0/plan\.json is missing"):
        import_recording(copy, tmp_path / "recorded")
    (copy / "fluent/seed0/student-plan.json").rename(copy / "fluent/seed0/plan.json")
    shutil.copy(copy / "fluent/seed0/plan.json", copy / "fluent/seed0/student-plan.json")
    with pytest.raises(ValueError, match=r"student-plan\.json is not in the manifest"):
        import_recording(copy, tmp_path / "recorded")
    (copy / "fluent/seed0/plan.json").unlink()
    (copy / "fluent/seed0/plan.json").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=r"plan\.json is a link"):
        import_recording(copy, tmp_path / "recorded")


def test_the_book_is_not_assembled_from_a_recording_that_was_changed(copy: Path, tmp_path):
    book = checkout(tmp_path / "here")
    kept = import_recording(copy, book / "recorded")
    better(kept)
    for preset in ("gpu", "cpu"):
        with pytest.raises(ValueError, match=r"eval\.json does not match the manifest"):
            fill(book, preset)
    (kept / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        fill(book, "gpu")


@pytest.mark.parametrize("name", ["../escaped.json", "fluent\\seed0\\eval.json", "run.sh", "a\0b"])
def test_an_archive_that_reaches_outside_is_refused(copy: Path, tmp_path, name):
    """As the archives of downloads are, by the same function; and what no recording holds."""
    archive = zipped(copy)
    with zipfile.ZipFile(archive, "a") as file:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        file.writestr(info, "{}")
    with pytest.raises(ValueError, match=r"is not safe to unpack|is not in the manifest"):
        import_recording(archive, tmp_path / "inner" / "recorded")
    assert not list(tmp_path.rglob("escaped*")) and list((tmp_path / "inner" / "recorded").iterdir()) == []


def test_bombs_and_other_files_are_refused(copy: Path, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"neither a folder nor a \.zip archive"):
        import_recording(tmp_path / "recording.rar", tmp_path / "recorded")
    monkeypatch.setattr("i2i_book.recorded.check.LIMIT", 1000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        import_recording(zipped(copy), tmp_path / "recorded")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"preset": "../gpu"}, "a plain name"),
        ({"format": 1}, "format 1"),
        ({"files": {"../x.json": {"sha256": "", "bytes": 1}}}, r"lists '\.\./x\.json', which no recording holds"),
        ({"files": []}, "is not the manifest of a recording"),
        ({"runs": {"fluent/seed0/01-data": {"status": "failed"}}}, r"01-data', which did not end well"),
    ],
)
def test_manifests_that_are_none_are_refused(copy: Path, tmp_path, change, says):
    with changed(copy / "manifest.json") as manifest:
        manifest.update(change)
    with pytest.raises(ValueError, match=says):
        import_recording(copy, tmp_path / "recorded")


def test_a_recording_is_replaced_only_if_asked(packed: Path, tmp_path):
    kept = import_recording(packed, tmp_path / "recorded")
    with pytest.raises(ValueError, match="has fluent already: pass --replace"):
        import_recording(packed, tmp_path / "recorded")
    assert import_recording(packed, tmp_path / "recorded", replace=True) == kept
    check(kept)
    assert list((tmp_path / "recorded").iterdir()) == [kept]


def test_a_damaged_recording_can_be_replaced(packed: Path, tmp_path):
    kept = import_recording(packed, tmp_path / "recorded")
    (kept / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is not the manifest of a recording"):
        import_recording(packed, tmp_path / "recorded")
    check(import_recording(packed, tmp_path / "recorded", replace=True))


def test_another_task_joins_a_recording(packed: Path, tmp_path):
    recorded, other = tmp_path / "recorded", pack(finished_run(tmp_path / "there", "openmoji"), tmp_path / "other")
    kept = import_recording(packed, recorded)
    before = {name: facts for name, facts in check(kept)["files"].items() if name.startswith("fluent/")}
    assert import_recording(other, recorded) == kept and list(recorded.iterdir()) == [kept]
    joined = check(kept)
    assert before.items() <= joined["files"].items() and check(other)["runs"].items() <= joined["runs"].items()
    assert {row["task"] for row in map(json.loads, (kept / "results.jsonl").read_text().splitlines())} == {
        "fluent",
        "openmoji",
    }
    import_recording(other, recorded, replace=True)
    assert check(kept)["files"] == joined["files"], "the other task stays"
    page = "notebooks/06-results.ipynb"  # of no task: that of the main one stays, whichever comes last
    assert sha256(kept / page) == sha256(packed / page) != sha256(other / page)
    import_recording(packed, recorded, replace=True)
    assert sha256(kept / page) == sha256(packed / page) and len(check(kept)["files"]) == len(joined["files"])
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"preset": "paper"}))
    with pytest.raises(ValueError, match=r"gpu is of the preset gpu, this recording of paper"):
        import_recording(other, recorded, name="gpu", replace=True)


def part(packed: Path, folder: Path, seed: int, **facts: Any) -> Path:
    """A recording of one seed of the run that was `packed`, whose evaluation noted other `facts`."""
    run = shutil.copytree(packed.parent / "runs" / "gpu", folder / "gpu")
    shutil.rmtree(run / "fluent" / f"seed{1 - seed}")
    (run / "results.jsonl").write_text(collect(sorted(run.glob("*/seed*/eval.json"))))
    with changed(run / "fluent" / f"seed{seed}" / "notebooks" / "05-evaluation.ipynb") as notebook:
        notebook["metadata"]["i2i"] |= facts
    return pack(run, folder / "part.zip", pages=False)


def test_parts_with_other_seeds_are_taken_in_as_one(packed: Path, tmp_path, monkeypatch):
    numbers = pack(packed.parent / "runs/gpu", tmp_path / "numbers", pages=False)
    parts = [part(packed, tmp_path / str(seed), seed) for seed in (0, 1)]
    joined = join(parts, tmp_path / "joined")
    whole, manifest = check(numbers), check(joined)
    assert manifest["files"] == whole["files"]
    assert manifest["runs"] == {name: facts for name, facts in whole["runs"].items() if name != "06-results"}
    with pytest.raises(ValueError, match=r"part\.zip has fluent/seed1, as has another part"):
        join([*parts, parts[1]], tmp_path / "twice")

    # The plan asks for both, and for no other.
    def ask(*seeds: int) -> None:
        asked = replace(questions()[0], recording="gpu", task="fluent", seeds=range(*seeds))
        monkeypatch.setattr("i2i_book.recorded.importing.questions", lambda: [asked])

    ask(2)
    for name in (None, "peek"):
        with pytest.raises(ValueError, match="gpu: the plan asks for seeds 0 to 1 of fluent, and 1 is not there"):
            import_recording(parts[0], tmp_path / "recorded", name=name)
    ask(1)
    with pytest.raises(ValueError, match="gpu: the plan asks for seeds 0 to 0 of fluent, not for 1"):
        import_recording(joined, tmp_path / "recorded")
    ask(1, 3)
    with pytest.raises(ValueError, match="gpu: the plan asks for seeds 1 to 2 of fluent, not for 0"):
        import_recording(joined, tmp_path / "recorded")
    ask(2)
    monkeypatch.setattr("i2i_book.recorded.__main__.root", lambda: tmp_path)
    assert main(["import", *map(str, parts)]) == 0
    assert check(tmp_path / "book/recorded/gpu") == manifest


def test_parts_of_other_recordings_do_not_join(packed: Path, tmp_path):
    first = part(packed, tmp_path / "first", 0)
    others = {"parameters": {"run": "gpu", "steps": 3}, "source_sha256": "other", "modules_sha256": "other"}
    for key, value in others.items():
        second = part(packed, tmp_path / key, 1, **{key: value})
        with pytest.raises(ValueError, match="ran fluent/05-evaluation by other code or with other parameters"):
            join([first, second], tmp_path / "joined")
    assert not (tmp_path / "joined").exists() and not list(tmp_path.glob(".join-*"))


def test_the_command_line_says_in_a_sentence_what_is_wrong(tmp_path, capsys):
    assert main(["pack", str(tmp_path / "runs"), str(tmp_path / "out.zip")]) == 1
    assert "results.jsonl is missing: expected the folder of a finished run" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "absent.zip")]) == 1
    assert "absent.zip" in capsys.readouterr().err


def test_a_recorded_preset_is_shown_and_not_run(packed: Path, tmp_path):
    project = Project(tmp_path)
    import_recording(packed, tmp_path / "book" / "recorded").rename(tmp_path / "book" / "recorded" / "smoke")
    smoke = ["preset=smoke", "task=fluent", "seeds=1"]
    shown = dry_run(project.folder, *smoke)
    assert "search_space" not in shown and "book" in shown
    assert "search_space" in dry_run(project.folder, *smoke, RECORDED="no")
    another = dry_run(project.folder, "preset=smoke", "task=earth", "seeds=1")
    assert "search_space" in another, "which the recording does not have"


def test_recorded_students_are_those_of_the_first_seed():
    asked = ["preset=cpu", "task=fluent", "seeds=2", "--printshellcmds", "--forceall"]
    said = dry_run(root(), *asked)
    for seed, arm, ends in ((0, "none", " -p weights recorded"), (0, "gcka", ""), (1, "none", "")):
        page = f"runs/cpu/fluent/seed{seed}/notebooks/04-distillation-{arm}.ipynb"
        assert f"-p seed {seed} -p arm {arm}{ends} --publish {page}" in said
    assert "-p weights recorded" not in dry_run(root(), "teacher=train", *asked)


def test_a_part_of_a_recording_is_made_without_pages(tmp_path):
    project = Project(tmp_path)
    part = dry_run(project.folder, "preset=smoke", "task=fluent", "seeds=1-2", "--", "record")
    assert all(f"runs/smoke/fluent/seed{seed}/eval.json" in part for seed in (1, 2))
    assert "seed0" not in part and "06-results" not in part and "_build" not in part


def test_a_preset_that_is_recorded_says_how_it_is_run_again():
    for path in (ROOT / "book" / "recorded").glob("*/manifest.json"):
        preset = ROOT / "presets" / f"{path.parent.name}.yml"
        calls = re.findall(r"make book PRESET=[^;\n]*", preset.read_text()) if preset.exists() else []
        assert all("RECORDED=no" in call for call in calls), preset


def test_the_recordings_of_this_checkout_fit_and_are_compact():
    for path in sorted((ROOT / "book" / "recorded").glob("*/manifest.json")):
        check(path.parent)
        for page in path.parent.rglob("*.ipynb"):
            notebook: Any = nbformat.read(page, as_version=4)
            assert any(cell.get("outputs") for cell in notebook.cells), f"{page}: the manifest holds what it noted"
        for table in path.parent.rglob("*.json"):
            content = table.read_bytes()
            assert content == compact_json(json.loads(content)), table

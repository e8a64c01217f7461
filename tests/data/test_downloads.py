"""Downloads against a server on this machine that cuts, changes and lies; archives that are hostile."""

import json
import re
import stat
import tarfile

import pytest
from server import CYCLEGAN, PIX2PIX, picture, taped, zipped

from i2i_lib import data
from i2i_lib.archives import unpack
from i2i_lib.cli.__main__ import main
from i2i_lib.data import downloads
from i2i_lib.data.downloads import Source, fetch


def left_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.parametrize("name, files, pack", [("horse2zebra", CYCLEGAN, zipped), ("maps", PIX2PIX, taped)])
def test_a_data_set_arrives_whole_and_makes_a_task(server, tmp_path, name, files, pack):
    server.content = pack(files)
    target = fetch(name, tmp_path)
    assert {str(p.relative_to(tmp_path)): p.read_bytes() for p in target.rglob("*.png")} == files
    assert left_in(tmp_path) == {name, f"{name}.json"}, "neither the archive nor anything half-done stays"
    assert json.loads((tmp_path / f"{name}.json").read_text())["bytes"] == len(server.content)
    assert len(data.load_task(name, image_size=12, path=target).test) >= 2
    assert fetch(name, tmp_path) == target and len(server.asked) == 1, "what is there is not fetched again"


def test_a_cut_connection_is_resumed(server, tmp_path):
    server.content, server.cut_after = zipped(CYCLEGAN), 20_000
    fetch("horse2zebra", tmp_path)
    assert server.asked == list(range(0, len(server.content), 20_000)) and len(server.asked) > 2


def test_a_download_that_only_begins_again_is_given_up(server, tmp_path):
    """A part without the server's date cannot be told from that of another file."""
    server.content, server.cut_after, server.changed = zipped(CYCLEGAN), 20_000, None
    with pytest.raises(ConnectionError, match=r"could not be downloaded \(the connection was cut\)"):
        fetch("horse2zebra", tmp_path)
    assert server.asked == [0] * (1 + downloads.ATTEMPTS)


def test_a_download_goes_on_in_the_next_process(server, tmp_path, monkeypatch):
    server.content, server.cut_after = zipped(CYCLEGAN), 30_000
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    rest = downloads._fetch_rest

    def dies(url, part, version, have):
        if have:
            server.cut_after = 0
        return rest(url, part, version, have)

    monkeypatch.setattr(downloads, "_fetch_rest", dies)
    with pytest.raises(ConnectionError, match="30,000 bytes are kept: the same command goes on from there"):
        fetch("horse2zebra", tmp_path)
    monkeypatch.setattr(downloads, "_fetch_rest", rest)
    server.cut_after, server.asked = None, []
    fetch("horse2zebra", tmp_path)
    assert server.asked == [30_000] and left_in(tmp_path) == {"horse2zebra", "horse2zebra.json"}


@pytest.mark.parametrize("how", ["changed in the meantime", "no ranges", "complete already"])
def test_a_resumed_download_is_never_spliced(server, tmp_path, how):
    server.content = zipped(CYCLEGAN)
    part = tmp_path / "horse2zebra.zip.part"
    part.write_bytes(server.content if how == "complete already" else b"x" * 5000)
    (tmp_path / "horse2zebra.zip.part.version").write_text(server.changed)
    if how == "changed in the meantime":
        server.changed = "Tue, 02 Jan 2024 00:00:00 GMT"
    server.ranges = how != "no ranges"
    assert len(list(fetch("horse2zebra", tmp_path).rglob("*.png"))) == 8
    assert server.asked == [len(server.content) if how == "complete already" else 5000]


def test_a_file_that_changed_since_its_first_download_is_refused(server, tmp_path):
    server.content = taped(PIX2PIX)
    (fetch("maps", tmp_path)).rename(tmp_path / "moved")
    server.content = taped({**PIX2PIX, "maps/train/1.png": b"tampered"})
    with pytest.raises(ValueError, match=r"maps\.tar\.gz is not the file whose checksum is recorded in .*maps\.json"):
        fetch("maps", tmp_path)
    assert left_in(tmp_path) == {"moved", "maps.json"}


def test_a_file_that_the_server_lacks_is_named(server, tmp_path, monkeypatch):
    source = downloads.SOURCES["maps"]
    monkeypatch.setitem(downloads.SOURCES, "maps", Source(source.url.replace("maps.tar.gz", "missing.zip"), (), ""))
    with pytest.raises(ConnectionError, match=r"missing\.zip could not be downloaded: 404"):
        fetch("maps", tmp_path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.zip", zipped({"../evil": b"x"}), r"not safe to unpack: its member '\.\./evil' leads outside"),
        ("a.zip", zipped({"/tmp/evil": b"x"}), "leads outside"),
        ("a.zip", zipped({"a\\..\\evil": b"x"}), "leads outside"),
        ("a.zip", zipped({"C:/evil": b"x"}), "leads outside"),
        ("a.zip", zipped({"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "'link' is a link or device"),
        ("a.zip", zipped({"big": b"0" * 70_000}), "unpacks to more than 50,000 bytes"),
        ("a.zip", zipped({"a/b": b"x", "a": b"y"}), "holds .*a twice"),
        ("a.zip", zipped({"a/b": b"x", "a/./b": b"y"}), "holds 'a/./b' twice"),
        ("a.zip", zipped({"a.png": b"x", "A.PNG": b"y"}), "holds 'A.PNG' twice"),
        ("a.tar.gz", taped({"\u00e9": b"x", "e\u0301": b"y"}), "holds 'e\u0301' twice"),
        ("a.zip", zipped({"a": b"x" * 3000})[:1500], "is damaged or cut short"),
        ("a.zip", zipped({"a": b"x"})[:-6] + b"\xff\xff\0\0\0\0", "is damaged or cut short"),  # "a" before the start
        ("a.zip", b"<html>Not found</html>", "is damaged or cut short"),
        ("a.tar.gz", taped({"../evil": b"x"}), "leads outside"),
        ("a.tar.gz", taped({"/tmp/evil": b"x"}), "leads outside"),
        ("a.tar.gz", taped({"l": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'l' is a link or device"),
        ("a.tar.gz", taped({"l": b""}, type=tarfile.LNKTYPE, linkname="../x"), "'l' is a link or device"),
        ("a.tar.gz", taped({"d": b""}, type=tarfile.CHRTYPE), "'d' is a link or device"),
        ("a.tar.gz", taped({"big": b"0" * 70_000}), "unpacks to more than 50,000 bytes"),
        ("a.tar.gz", taped({"a": picture(0)})[:3000], "is damaged or cut short"),
        ("a.tar.gz", taped({"a": picture(0)})[:-9] + b"123456789", "is damaged or cut short"),
        ("a.tar.gz", b"<html>Not found</html>", "is damaged or cut short"),
        # tarfile of Python 3.11 reads a member of negative size again for ever where it can go back.
        ("a.tar.gz", taped({"a": b""}, pax_headers={"size": "-2048"}), "is damaged or cut short"),
    ],
)  # fmt: skip
def test_hostile_and_damaged_archives_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        unpack(tmp_path / name, tmp_path / "inside" / "out", max_bytes=50_000)
    outside = {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "inside" / "out")}
    assert outside == {name, "inside"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_refused_archive_leaves_nothing_behind(server, tmp_path):
    for content in (zipped({"other/a": b"x"}), zipped({**CYCLEGAN, "../evil": b"x"})):
        server.content = content
        with pytest.raises(ValueError, match=r"does not hold the folders trainA|not safe to unpack"):
            fetch("horse2zebra", tmp_path)
        assert left_in(tmp_path) == set()
    server.content = zipped(CYCLEGAN)
    assert fetch("horse2zebra", tmp_path).is_dir(), "and stands in nobody's way"


def test_the_command_line_lists_and_explains(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "data_folder", lambda: tmp_path / "data")
    for arguments in ([], ["fetch"], ["get", "maps"]):
        assert main(["data", *arguments]) == 1
        assert re.search(r"error: .*(i2i data --help|i2i data list)", capsys.readouterr().err)
    assert main(["data", "list"]) == 0
    assert re.search(r"horse2zebra .*maps .*cityscapes", capsys.readouterr().out, re.S)
    assert main(["data", "fetch", "horses"]) == 1
    assert re.search("unknown data set 'horses'\nknown data sets:\n  horse2zebra", capsys.readouterr().err)
    server.content = taped(PIX2PIX)
    assert main(["data", "fetch", "maps"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "data" / "maps")
    assert main(["data", "check", str(tmp_path)]) == 0
    (tmp_path / "data" / "maps" / "val" / "1.png").write_bytes(b"")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert re.search(r"val/1\.png is empty", capsys.readouterr().out)


def test_recorded_checksums_are_documented():
    readme = (downloads.data_folder() / "README.md").read_text()
    for name, source in downloads.SOURCES.items():
        assert f"`{name}`" in readme and source.url in readme and (source.sha256 or name) in readme

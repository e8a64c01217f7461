"""The published numbers: each has a source that the bibliography knows, and those that can be counted are right."""

import csv
import re

import pytest

from i2i_book.runs import root
from i2i_lib.config import ResnetConfig, SpadeResnetConfig
from i2i_lib.macs import generator_macs, generator_params

FOLDER = root() / "book" / "published"
# Where a number was read. Nothing is entered from memory.
READ = {"table", "readme", "abstract", "figure", "thread"}


def table(name: str) -> list[dict[str, str]]:
    """Every field as the text that was published: its digits say how precise it is."""
    with open(FOLDER / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def as_published(text: str, value: float) -> str:
    return f"{value:.{len(text.partition('.')[2])}f}"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.csv")))
def test_every_number_has_a_source_in_the_bibliography(name):
    keys = re.findall(r"^@\w+\{(\w+),", (root() / "book" / "references.bib").read_text(), re.M)
    rows = table(name)
    assert rows and len({tuple(row.values()) for row in rows}) == len(rows)
    for row in rows:
        assert row["source"] in keys and row.get("cite", row["source"]) in keys, row
        assert row["read"] in READ and None not in row, row
        assert name != "results" or row["fid"] or row["miou"], row


def test_our_counts_are_the_published_ones_to_their_last_digit():
    counted = [row for row in table("results") if row["network"] and row["macs"]]
    assert {row["macs"] for row in counted} == {"56.8", "1.41", "0.86", "0.44", "281"}
    for row in counted:
        config, size = ResnetConfig(int(row["base"]), separable=row["network"] == "mobile", norm="batch"), 256
        if row["network"] == "spade":
            config, size = SpadeResnetConfig(int(row["base"])), (256, 512)
        assert as_published(row["macs"], generator_macs(config, size) / 1e9) == row["macs"]
        if row["params"]:
            assert as_published(row["params"], generator_params(config) / 1e6) == row["params"]


def test_claimed_ratios_follow_from_the_table():
    rows = [row for row in table("results") if row["group"] == "paper"]
    original = {(row["model"], row["dataset"]): float(row["macs"]) for row in rows if row["method"] == "Original"}
    claimed = [row for row in rows if row["claimed"]]
    assert len(claimed) == 4
    for row in claimed:
        ratio = original[row["model"], row["dataset"]] / float(row["macs"])
        assert as_published(row["claimed"], ratio) == row["claimed"]

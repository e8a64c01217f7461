"""The published numbers: each has a source that the bibliography knows, and those that can be counted are right."""

import re

import pandas as pd
import pytest

from i2i_lib.config import ResnetConfig
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.runs import root

FOLDER = root() / "book" / "published"
# Where a number was read. Nothing is entered from memory.
READ = {"table", "readme", "abstract", "figure", "thread"}


def table(name: str) -> pd.DataFrame:
    """Every field as the text that was published: its digits say how precise it is."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.csv")))
def test_every_number_has_a_source_in_the_bibliography(name):
    rows = table(name)
    keys = set(re.findall(r"^@\w+\{(\w+),", (root() / "book" / "references.bib").read_text(), re.M))
    assert len(rows) and set(rows.source) <= keys and set(rows.get("cite", [])) <= keys
    assert set(rows.read) <= READ
    assert not rows.duplicated().any()
    if name == "results":
        assert (rows.fid != "").eq(rows.miou == "").where(rows.model != "GauGAN", True).all(), "one quality each"


def test_our_counts_are_the_published_ones_to_their_last_digit():
    rows = table("results")
    counted = rows[(rows.network != "") & (rows.macs != "")]
    assert set(counted.macs) == {"56.8", "1.41", "0.86", "0.44"}
    for row in counted.itertuples():
        config = ResnetConfig(base=int(str(row.base)), separable=row.network == "mobile", norm="batch")
        for published, ours in (
            (row.macs, generator_macs(config, 256) / 1e9),
            (row.params, generator_params(config) / 1e6),
        ):
            digits = len(str(published).partition(".")[2])
            assert not published or f"{ours:.{digits}f}" == published, row


def test_claimed_ratios_follow_from_the_table():
    rows = table("results")
    rows = rows[rows.group == "paper"].astype({"macs": float})
    original = rows[rows.method == "Original"].set_index(["model", "dataset"]).macs
    claimed = rows[rows.claimed != ""]
    assert len(claimed) == 4
    for row in claimed.itertuples():
        digits = len(str(row.claimed).partition(".")[2])
        assert f"{original[row.model, row.dataset] / row.macs:.{digits}f}" == row.claimed

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bids_cmb.bids.tables import (
    CANDIDATE_COLUMN_NOTES,
    CANDIDATE_COLUMNS,
    format_cell,
    read_table,
    table_text,
    to_number,
    write_table,
)
from bids_cmb.detector.cleanup import ZONE_PENALTY


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
        ("", "n/a"),
        (" \t\n", "n/a"),
        ("two\tcells\nand lines\x0b", "two cells and lines"),
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("+cmd", "'+cmd"),
        ("-2.5", "-2.5"),
        ("+1e-3", "+1e-3"),
        (-0.25, "-0.25"),
        (7, "7"),
        ("sub-01", "sub-01"),
    ],
)
def test_cells(value: str | float | None, text: str) -> None:
    assert format_cell(value) == text


def test_fixed_decimals_and_no_minus_zero() -> None:
    rows = [{"x": -0.001, "probability": 0.5}, {"x": 12.346, "probability": 1.0}]
    assert table_text(["x", "probability"], rows) == "x\tprobability\n0.00\t0.5000\n12.35\t1.0000\n"


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    write_table(path, ["a", "b"], [{"a": "x y", "b": None}, {"a": "line\u2028separator"}])
    assert read_table(path) == [{"a": "x y", "b": "n/a"}, {"a": "line separator", "b": "n/a"}]


def test_a_table_without_rows_has_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    write_table(path, ["a", "b"], [])
    assert path.read_text() == "a\tb\n"
    assert read_table(path) == []


def test_tables_from_a_spreadsheet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"\xef\xbb\xbfa\tb\r\n1\t2\r\n\r\n")
    assert read_table(path) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("content", [b"", b"a\tb\n1\n", b"\xff\xfe\x00", None])
def test_damaged_tables_say_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^The table .*t\.tsv .*\.$"):
        read_table(path)


def test_numbers_in_cells() -> None:
    assert [to_number(cell) for cell in ("1.5", "n/a", "nan", None)] == [1.5, None, None, None]


def test_every_fate_of_a_candidate_is_explained() -> None:
    assert set(CANDIDATE_COLUMN_NOTES) == set(CANDIDATE_COLUMNS)
    levels = CANDIDATE_COLUMN_NOTES["fate"]["Levels"]
    rules = {"outside_brain", "too_large", "negative_susceptibility", "low_contrast", "edge"}
    assert set(levels) == {"accepted", "stage2", *rules, *ZONE_PENALTY}

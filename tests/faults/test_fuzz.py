"""The readers under made-up content: whatever bytes they get, they return what they promise or raise what they say."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_case import nifti
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_cmb.bids.entities import join_name, parse_name
from bids_cmb.bids.quality import quality_rows
from bids_cmb.bids.records import read_record
from bids_cmb.bids.results import ScanOutcome
from bids_cmb.bids.sidecars import load_json_object, tidy_metadata
from bids_cmb.bids.tables import read_table, table_text, to_number
from bids_cmb.errors import InputError
from bids_cmb.files import json_text
from bids_cmb.group import CMB_COLUMNS, cmb_row, mars_row
from bids_cmb.imaging.volume import load_image
from bids_cmb.report.data import read_findings, read_json, read_number, read_tsv

fuzz = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
IMAGE = nifti()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
KEYS = (
    "EchoTime", "MagneticFieldStrength", "ImageType", "Units", "Manufacturer", "ManufacturersModelName", "Model",
    "Warnings", "VoxelSize", "BrainVolume", "SNR", "RegistrationQuality", "Sources", "Contrast",
)  # fmt: skip
SIDECARS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), JSON, max_size=8)


def with_file(content: bytes, name: str, read: Callable[[Path], Any]) -> Any:
    """Read a file of this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read(path)


def load(path: Path) -> None:
    """Load an image; it is sound, or refused in a sentence that names the file."""
    try:
        loaded = load_image(path)
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    data = loaded.volume.data
    assert data.ndim == 3
    assert math.isfinite(float(data.min()))
    assert math.isfinite(float(data.max()))
    assert all(math.isfinite(zoom) and zoom > 0 for zoom in loaded.volume.zooms)
    assert loaded.restore(data).shape == loaded.shape


@given(
    changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, len(IMAGE)) | st.just(len(IMAGE)),
    packed=st.booleans(),
)
@fuzz
def test_headers(changes: list[tuple[int, int]], cut: int, packed: bool) -> None:
    content = bytearray(IMAGE)
    for place, value in changes:
        content[place] = value
    stored = bytes(content[:cut])
    with_file(gzip.compress(stored, 1) if packed else stored, "x.nii.gz" if packed else "x.nii", load)


@given(st.binary(max_size=600))
@fuzz
def test_anything_as_an_image(content: bytes) -> None:
    for name in ("x.nii", "x.nii.gz"):
        with_file(content, name, load)
    with_file(gzip.compress(content, 1), "x.nii.gz", load)


def check_sidecar(content: bytes) -> None:
    fields, problem = with_file(content, "x.json", load_json_object)
    assert not (fields and problem)
    tidy, notes = tidy_metadata(fields)
    for key in ("EchoTime", "MagneticFieldStrength"):
        assert key not in tidy or (math.isfinite(tidy[key]) and tidy[key] > 0)
    json_text({"Notes": notes, "Problem": problem, "Text": str(tidy.get("Manufacturer"))}).encode("utf-8")
    assert isinstance(with_file(content, "x.json", read_json), dict)
    with_file(content, "x.json", read_record)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
@fuzz
def test_anything_as_a_sidecar(content: bytes) -> None:
    check_sidecar(content)


@given(SIDECARS)
@fuzz
def test_sidecars(fields: dict[str, Any]) -> None:
    check_sidecar(json.dumps(fields).encode())


@given(SIDECARS, st.lists(st.text(max_size=6), min_size=3, max_size=3))
@fuzz
def test_group_rows_of_any_sidecar(fields: dict[str, Any], cells: list[str]) -> None:
    lesion = dict(zip(("certainty", "mars_category", "volume"), cells, strict=True))
    scan = ScanOutcome("sub-01", None, "bids:raw:x", "gre", "done", fields, (lesion,))
    table_text(list(CMB_COLUMNS), [cmb_row(scan)])
    mars_row(scan)
    quality_rows([scan] * 9)


@given(st.binary(max_size=300) | st.text("a\t\n\r\"'=\0", max_size=80).map(str.encode))
@fuzz
def test_anything_as_a_table(content: bytes) -> None:
    def read(path: Path) -> None:
        try:
            rows = read_table(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(cell, str) for row in rows for cell in row.values())
        read_tsv(path)
        read_findings(path)

    with_file(content, "x.tsv", read)


@given(
    st.lists(st.lists(st.text(max_size=12) | st.integers() | st.floats(), min_size=2, max_size=2), max_size=4)
)
@fuzz
def test_tables_come_back_as_they_were_written(rows: list[list[Any]]) -> None:
    text = table_text(["one", "two"], [dict(zip(("one", "two"), row, strict=True)) for row in rows])
    back = with_file(text.encode("utf-8", "backslashreplace"), "x.tsv", read_table)
    assert len(back) == len(rows)
    for cells, row in zip(back, rows, strict=True):
        for cell, value in zip(cells.values(), row, strict=True):
            if isinstance(value, str):
                assert cell[:1] not in ("=", "@")
            elif math.isfinite(value):
                assert to_number(cell) == pytest.approx(value)


@given(
    st.text(max_size=30)
    | st.from_regex(r"sub-[0-9a-zA-Z+]{1,4}(_[a-z]{2,4}-[^_.]{1,4}){0,3}_[a-zA-Z]{2,6}\.nii")
)
@fuzz
def test_names(name: str) -> None:
    parsed = parse_name(name)
    if parsed is not None:
        entities, suffix, extension = parsed
        again = join_name(entities, suffix, extension)
        assert sorted(again.split(".")[0].split("_")) == sorted(name.split(".")[0].split("_"))
        assert not set("/\\<>\"'\n\t ") & set(name.split(".")[0])


@given(SCALARS | st.text(max_size=10))
@fuzz
def test_numbers(value: object) -> None:
    number = read_number(value)
    assert math.isnan(number) or math.isfinite(number)

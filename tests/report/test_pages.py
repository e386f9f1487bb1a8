"""The pages: complete, self-contained, escaped, the same every time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bids_cmb.report.group import write_group_page
from bids_cmb.report.subject import write_subject_page

from .simulated_outputs import Case, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("study")
    return write_dataset(root, {"01": [Case("swi", 3, acq="swi"), Case("qsm", 2)], "02": [Case("gre", 0)]})


def test_a_subject_page_shows_every_microbleed_and_asks_for_nothing(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert len(re.findall(r'id="scan-\d-cmb-\d+"', text)) == 5
    assert "Research use only" in text
    assert "data:image/png" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "default-src 'none'" in text


def test_a_scan_without_microbleeds_says_so(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    assert "no microbleeds found" in write_subject_page(out, "sub-02", bids_dir=bids).read_text(
        encoding="utf-8"
    )


def test_a_missing_image_costs_the_pictures_not_the_page(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = dataset
    text = write_subject_page(out, "01", bids_dir=tmp_path).read_text(encoding="utf-8")
    assert len(re.findall(r'id="scan-\d-cmb-\d+"', text)) == 5


def test_the_same_files_give_the_same_page(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    first = write_subject_page(out, "01", bids_dir=bids).read_bytes()
    assert write_subject_page(out, "01", bids_dir=bids).read_bytes() == first


def test_the_group_page_links_and_escapes(tmp_path: Path) -> None:
    header = "participant_id\tsession_id\tsource\tcontrast\tstatus\tn_cmb\twarnings\n"
    rows = "sub-01\tn/a\tbids:raw:x\tswi\tdone\t3\tn/a\nsub-02\tn/a\tbids:raw:y\tgre\tfailed\tn/a\t<script>alert(1)</script>\n"
    (tmp_path / "group_cmb.tsv").write_text(header + rows, encoding="utf-8")
    (tmp_path / "sub-01.html").write_text("x", encoding="utf-8")
    text = write_group_page(tmp_path).read_text(encoding="utf-8")
    assert 'href="sub-01.html"' in text
    assert "<script>alert" not in text
    assert "1 scan of 2 participants: 3 microbleeds, at least one in 1 scan (100 %); 1 scan failed." in text


def test_an_empty_folder_still_gives_a_group_page(tmp_path: Path) -> None:
    assert "0 scans" in write_group_page(tmp_path).read_text(encoding="utf-8")

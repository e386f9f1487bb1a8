"""What the group page holds: counts, regions, strips, outliers, failures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from bids_cmb.report.group import write_group_page

from .simulated_outputs import write_tsv


def study(folder: Path, counts: Sequence[int], **scans: str) -> str:
    """Write the tables of scans with so many microbleeds, and return the page; `scans` adds cells to every row."""
    cmb, mars, quality = [], [], []
    for number, count in enumerate(counts):
        name = f"sub-{number:03}"
        own = {"participant_id": name, "source": f"bids:raw:{name}", "contrast": "swi", **scans}
        cmb.append({**own, "status": "done", "n_cmb": count, "n_lobar": count, "n_deep": 0})
        mars.append({**own, "F_L_definite": count, "Th_R_possible": 1})
        odd = {"outliers": "signal to noise; registration"} if number == 3 else {}
        quality.append({**own, "n_cmb": count, "snr": 20 + number, "brain_volume": 1.2e6 + 1000 * number,
                        "registration_similarity": 0.8, "field_strength": "3" if number % 2 else "1.5", **odd})  # fmt: skip
        (folder / f"{name}.html").write_text("x", encoding="utf-8")
    for name, rows in (("cmb", cmb), ("mars", mars), ("quality", quality)):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_tsv(folder / f"group_{name}.tsv", columns, rows)
    return write_group_page(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return study(tmp_path_factory.mktemp("group"), [0, 0, 1, 2, 4, 5, 10, 11, 300])


def test_scans_are_counted_in_the_bands_of_trials(page: str) -> None:
    table = re.search(r'<table class="bands">.*?</table>', page, re.S)
    assert table is not None
    shown = re.findall(r'<th scope="row">([^<]+)</th><td class="n">(\d+)</td>', table[0])
    assert shown == [("0", "2"), ("1", "1"), ("2-4", "2"), ("5-10", "2"), ("more than 10", "2")]


def test_the_heat_map_adds_up_both_certainties_by_region_and_side(page: str) -> None:
    table = re.search(r'<table class="heat">.*?</table>', page, re.S)
    assert table is not None
    rows = {
        name: cells
        for name, *cells in re.findall(
            r'<th scope="row">([^<]+)</th><td class="n" style="--share: ([\d.]+)">(\d+)</td>'
            r'<td class="n" style="--share: ([\d.]+)">(\d+)</td>',
            table[0],
        )
    }
    assert len(rows) == 13
    assert rows["frontal"] == ["0.0", "0", "1.0", "333"]
    assert rows["thalamus"] == ["0.03", "9", "0.0", "0"]
    assert "without a region" not in table[0]


def test_the_heat_map_says_how_many_microbleeds_have_no_region(tmp_path: Path) -> None:
    write_tsv(
        tmp_path / "group_cmb.tsv",
        ["participant_id", "source", "contrast", "status", "n_cmb", "n_lobar", "n_deep"],
        [
            {
                "participant_id": "sub-1",
                "source": "bids:raw:a",
                "contrast": "swi",
                "status": "done",
                "n_cmb": 4,
            }
        ],
    )
    for name in ("mars", "quality"):
        row = {"participant_id": "sub-1", "source": "bids:raw:a", "contrast": "swi", "F_L_definite": 1}
        write_tsv(tmp_path / f"group_{name}.tsv", list(row), [row])
    assert "3 without a region or a side" in write_group_page(tmp_path).read_text(encoding="utf-8")


def test_strips_have_a_linked_dot_per_scan_in_its_group_and_ring_what_is_unusual(page: str) -> None:
    strips = dict(
        re.findall(r'<figure class="chart strip"><figcaption>([^<]+)</figcaption>(.*?)</figure>', page, re.S)
    )
    assert list(strips) == ["Microbleeds", "Brain volume (ml)", "Signal to noise", "Registration, similarity"]
    for strip in strips.values():
        assert "SWI 1.5 T (5)" in strip
        assert "SWI 3 T (4)" in strip
        assert re.findall(r'<a href="(sub-\d+\.html)"><circle', strip).__len__() == 9
    assert [strip.count('class="outlier"') for strip in strips.values()] == [0, 0, 1, 1]


def test_unusual_scans_are_listed_with_why_and_a_link(page: str) -> None:
    listed = re.search(r'<section aria-labelledby="unusual">.*?</section>', page, re.S)
    assert listed is not None
    assert '<a href="sub-003.html">sub-003 swi</a>: signal to noise; registration' in listed[0]
    assert listed[0].count("<li>") == 1
    assert "3.5 robust standard deviations" in listed[0]


def test_failed_scans_are_listed_with_why_and_a_link(tmp_path: Path) -> None:
    columns = ["participant_id", "source", "contrast", "status", "n_cmb", "warnings"]
    rows = [
        {"participant_id": "sub-1", "source": "bids:raw:a", "contrast": "gre", "status": "done", "n_cmb": 1},
        {"participant_id": "sub-2", "source": "bids:raw:b", "contrast": "gre", "status": "failed",
         "warnings": "The image is empty."},
    ]  # fmt: skip
    write_tsv(tmp_path / "group_cmb.tsv", columns, rows)
    (tmp_path / "sub-2.html").write_text("x", encoding="utf-8")
    text = write_group_page(tmp_path).read_text(encoding="utf-8")
    listed = re.search(r'<section aria-labelledby="failed">.*?</section>', text, re.S)
    assert listed is not None
    assert '<a href="sub-2.html"><code>bids:raw:b</code></a> The image is empty.' in listed[0]
    assert "bids:raw:a" not in listed[0]


def test_two_thousand_scans_stay_under_ten_megabytes(tmp_path: Path) -> None:
    text = study(
        tmp_path, [number % 30 for number in range(2000)], warnings="A sentence of usual length " * 4
    )
    assert text.count("<tr><td>") == 2000
    assert len(text.encode("utf-8")) < 10e6

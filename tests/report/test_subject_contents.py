"""What a subject page holds: every number in its place, every picture with its words."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bids_cmb.bids.tables import read_table
from bids_cmb.report.scan_view import NEAR_MISSES, flag_text
from bids_cmb.report.subject import write_subject_page
from bids_cmb.types import MARS_REGIONS

from .simulated_outputs import Case, write_dataset

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def page(dataset: tuple[Path, Path]) -> str:
    bids, out = dataset
    return write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sections(page: str) -> dict[str, str]:
    """The part of the page about each scan, by contrast."""
    swi, qsm = re.findall(r'<section class="scan".*?(?=<section class="scan"|<section id=)', page, re.S)
    return {"swi": swi, "qsm": qsm}


@pytest.fixture(scope="module")
def tables(dataset: tuple[Path, Path]) -> dict[str, Rows]:
    folder = dataset[1] / "sub-01" / "anat"
    names = {"swi": "sub-01_acq-swi_space-T2starw", "qsm": "sub-01_space-Chimap"}
    return {c: read_table(folder / f"{name}_seg-CMB_dseg.tsv") for c, name in names.items()}


def cards(section: str) -> dict[int, str]:
    """Cards of the microbleeds of a scan, by number."""
    found = re.findall(r'<article class="card" id="scan-\d-cmb-(\d+)".*?</article>', section, re.S)
    texts = re.findall(r'<article class="card" id="scan-\d-cmb-\d+".*?</article>', section, re.S)
    return {int(number): text for number, text in zip(found, texts, strict=True)}


def near_misses(section: str) -> list[str]:
    return re.findall(r'<article class="card" id="scan-\d-near-\d+".*?</article>', section, re.S)


def test_the_headline_and_the_mars_form_count_what_the_table_has(
    sections: dict[str, str], tables: dict[str, Rows]
) -> None:
    for contrast, name in (("swi", "SWI: 3 microbleeds"), ("qsm", "QSM: 2 microbleeds")):
        rows = tables[contrast]
        section = sections[contrast]
        assert name in section
        stats = dict(re.findall(r"<dt>([a-z]+)</dt><dd[^>]*>(\d+)</dd></div>", section))
        counts = Counter(r["certainty"] for r in rows) + Counter(r["mars_category"] for r in rows)
        assert {k: int(v) for k, v in stats.items()} == {
            k: counts[k] for k in ("definite", "possible", "lobar", "deep", "infratentorial")
        }
        form = re.search(r'<table class="mars">.*?</table>', section, re.S)
        assert form is not None
        shown = {
            label.lower(): [int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", cells)]
            for label, cells in re.findall(r'<th scope="row">([^<]+)</th>(.*?)</tr>', form[0], re.S)
        }
        placed = Counter((r["mars_region"], r["certainty"], r["hemisphere"]) for r in rows)
        assert shown == {
            region: [placed[code, c, side] for c in ("definite", "possible") for side in ("R", "L")]
            for code, region, _ in MARS_REGIONS
        }


def test_every_picture_of_the_overview_carries_the_numbers_of_the_table(
    sections: dict[str, str], tables: dict[str, Rows]
) -> None:
    for contrast, section in sections.items():
        known = sorted((row["index"], row["certainty"]) for row in tables[contrast])
        outlines = re.findall(r'<figure class="pic projection (\w+)">(.*?)</figure>', section, re.S)
        assert [plane for plane, _ in outlines] == ["axial", "coronal", "sagittal"]
        mosaic = re.search(r'<div class="mosaic".*?</div>\s*\n\s*(?=<div|<details|\n)', section, re.S)
        assert mosaic is not None
        for drawing in (*(text for _, text in outlines), mosaic[0]):
            marks = re.findall(r'class="mark (\w+)" aria-label="(\d+):[^"]*">.*?</a>', drawing, re.S)
            assert sorted((number, kind) for kind, number in marks) == known


def test_a_card_shows_three_planes_neighbours_and_a_slab(sections: dict[str, str]) -> None:
    for contrast, slab in (("swi", "minIP"), ("qsm", "MIP")):
        for text in cards(sections[contrast]).values():
            captions = re.findall(r"<figcaption>([^<]*)</figcaption>", text)
            assert {"Axial", "Coronal", "Sagittal"} <= set(captions)
            assert sum(c.endswith((" mm below", " mm above")) for c in captions) == 2
            assert sum(c.startswith(f"{slab}, ") for c in captions) == 1
            assert 'class="outline lesion' in text


def test_a_card_says_where_and_how_sure(sections: dict[str, str], tables: dict[str, Rows]) -> None:
    names = {code: name for code, name, _ in MARS_REGIONS}
    for contrast, section in sections.items():
        found = cards(section)
        assert sorted(found) == sorted(int(row["index"]) for row in tables[contrast])
        for row in tables[contrast]:
            text = found[int(row["index"])].replace("\N{MINUS SIGN}", "-")
            assert names[row["mars_region"]] in text.lower() or names[row["mars_region"]] in text
            assert f"probability {float(row['probability']):.2f}" in text
            assert f"<dt>Diameter</dt><dd>{float(row['diameter']):.1f} mm" in text
            world = ", ".join(f"{float(row[axis]):.1f}" for axis in "xyz")
            assert f"<dt>World</dt><dd>{world} mm" in text
            assert "<dt>Voxel</dt>" in text
            assert "<dt>MNI</dt>" in text


def test_a_card_shows_the_same_place_on_the_session_s_other_contrast(sections: dict[str, str]) -> None:
    for text in (*cards(sections["swi"]).values(), *near_misses(sections["swi"])):
        assert re.search(r"<figcaption>QSM, [+-]\d\.\d\d ppm</figcaption>", text)
        assert re.search(r"QSM here .* ppm: (para|dia)magnetic|QSM shows no marked susceptibility", text)
    for text in cards(sections["qsm"]).values():
        assert "<figcaption>SWI</figcaption>" in text


def test_near_misses_are_folded_below_with_what_removed_them(sections: dict[str, str]) -> None:
    folded = re.search(r'<details class="near">.*</details>', sections["swi"], re.S)
    assert folded is not None
    texts = near_misses(folded[0])
    assert len(texts) == len(near_misses(sections["swi"])) == NEAR_MISSES
    reasons = [re.search(r'<p class="reason">([^<]+)</p>', text) for text in texts]
    assert all(reasons)
    assert any("second stage did not take it" in reason[1] for reason in reasons if reason)


def test_checks_show_mask_regions_and_quality(sections: dict[str, str]) -> None:
    checks = re.search(r'<div class="checks">.*', sections["swi"], re.S)
    assert checks is not None
    for words in (
        'class="outline brain"',
        'class="outline region lobar"',
        "histogram",
        "Signal to noise",
        "1300 ml",
    ):
        assert words in checks[0]


def test_a_scan_outside_the_training_data_is_warned_about_and_a_usual_one_is_not(
    sections: dict[str, str], tmp_path: Path
) -> None:
    assert "training data" not in sections["swi"]
    strange = {
        "EchoTime": 0.09,
        "MagneticFieldStrength": 7.0,
        "VoxelSize": [0.9, 0.9, 7.0],
        "BrainVolume": 2.5e6,
    }
    bids, out = write_dataset(tmp_path, {"01": [Case("gre", 0, sidecar=strange)]})
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    warned = dict(
        re.findall(
            r'<tr class="outside"><th scope="row">([^<]+)</th>.*?<span class="warning">([^<]+)', text, re.S
        )
    )
    assert set(warned) == {"Voxel", "Echo time", "Field strength", "Brain volume"}
    assert "Slices over 6 mm" in warned["Voxel"]
    assert "Outside the training data" in warned["Echo time"]
    assert "Outside the training data" in warned["Field strength"]


def test_every_picture_has_words_and_its_sides_are_said(page: str) -> None:
    images = re.findall(r"<img [^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    for drawing in re.findall(r"<svg [^>]*>", page):
        assert 'aria-hidden="true"' in drawing or "aria-label=" in drawing or "viewBox" in drawing
    assert page.count('<figure class="pic ') == len(
        re.findall(r'<figure class="pic (?:projection )?(?:axial|coronal|sagittal)"', page)
    )
    assert "the patient’s right is on the left" in page


def test_a_failed_scan_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    bids, out = write_dataset(tmp_path, {"01": [Case("gre", 0)]})
    log = Path("logs") / "run" / "sub-01_run-2_T2starw.log"
    record = {
        "status": "failed",
        "participant_id": "sub-01",
        "message": "The image is empty.",
        "log": log.as_posix(),
    }
    (out / "logs" / "scans").mkdir(parents=True)
    (out / "logs" / "scans" / "sub-01_run-2_T2starw.json").write_text(json.dumps(record), encoding="utf-8")
    (out / log).parent.mkdir(parents=True)
    (out / log).write_text("first line\n" + "later\n" * 40 + "what went wrong at last\n", encoding="utf-8")
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert "1 scan of this participant could not be processed" in text
    assert "The image is empty." in text
    assert "what went wrong at last" in text
    assert "first line" not in text


def test_the_methods_text_cites_and_names_the_version(page: str) -> None:
    text = re.search(r'<div id="methods-text".*?</div>', page, re.S)
    assert text is not None
    assert re.search(r"bids_cmb \d+\.\d+", text[0])
    cited = {int(n) for group in re.findall(r"\[([\d,]+)\]", text[0]) for n in group.split(",")}
    assert cited == set(range(1, text[0].count("<li>") + 1))
    for name in ("brain imaging data structure", "N4ITK", "Microbleed Anatomical Rating Scale"):
        assert name in text[0]


@pytest.mark.slow
def test_twenty_microbleeds_on_fine_voxels_stay_under_five_megabytes(tmp_path: Path) -> None:
    bids, out = write_dataset(tmp_path, {"01": [Case("swi", 20, spacing=(0.8, 0.8, 1.5))]})
    page = write_subject_page(out, "01", bids_dir=bids)
    assert page.read_text(encoding="utf-8").count('data-id="') == 20
    assert page.stat().st_size < 5e6


def test_flags_are_written_as_sentences() -> None:
    assert flag_text("border:P") == "Near the border with parietal."
    assert flag_text("border:other_side") == "Near the midline: it may lie on the other side."
    assert flag_text("choroid_plexus") == "Choroid plexus"

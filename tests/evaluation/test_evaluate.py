"""The figures of a made-up study, against counts done by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from simulated_pairs import made_up_scan

from bids_cmb.evaluation.bootstrap import Resamples, median_of_items, wilson
from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.evaluation.detection import ONE_TO_ONE, TOUCH, VALDO, f1
from bids_cmb.evaluation.evaluate import evaluate
from bids_cmb.evaluation.froc import RATES, froc
from bids_cmb.evaluation.matching import match_scan
from bids_cmb.evaluation.page import write_evaluation_page
from bids_cmb.evaluation.reliability import reliability
from bids_cmb.evaluation.tables import write_tables

STUDY = [
    made_up_scan("01", lesions=4, found=3, false=1),
    made_up_scan("02", lesions=1, found=1, false=0, diameter=2.0, thickness="4.00"),
    made_up_scan("03", lesions=0, found=0, false=2),
    made_up_scan("04", lesions=0, found=0, false=0),
]


def test_pooled_figures_are_the_counts_by_hand() -> None:
    (part,) = evaluate(STUDY, replicates=200)
    value = {f.name: f.value for f in part.figures if f.group == ONE_TO_ONE}
    assert value["sensitivity"] == pytest.approx(4 / 5)
    assert value["precision"] == pytest.approx(4 / 7)
    assert value["F1"] == pytest.approx(2 * 4 / (2 * 4 + 3 + 1))
    assert value["false per scan"] == pytest.approx(3 / 4)
    assert value["false per scan with bleeds"] == pytest.approx(1 / 2)
    assert value["false per bleed-free scan"] == pytest.approx(1.0)
    assert value["sensitivity, median over subjects"] == pytest.approx((0.75 + 1.0) / 2)


def test_strata_add_up_and_empty_ones_are_left_out() -> None:
    (part,) = evaluate(STUDY, replicates=100)
    assert part.figure("size 2 to 3 mm", "sensitivity").n == 1
    assert part.figure("size 3 to 5 mm", "sensitivity").value == pytest.approx(3 / 4)
    assert part.figure("MARS category lobar", "sensitivity").n == 2
    assert part.figure("slice thickness above 3 mm", "sensitivity").value == 1.0
    assert part.figure("slice thickness up to 1.5 mm", "false per scan").value == pytest.approx(1.0)
    assert not [f for f in part.figures if f.group == "size 5 to 10 mm"]


def test_case_level_figures() -> None:
    (part,) = evaluate(STUDY, replicates=100)
    assert part.figure("case level", "accuracy of any bleed").value == pytest.approx(3 / 4)
    assert part.figure("case level", "sensitivity for any bleed").value == 1.0
    assert part.figure("case level", "specificity for any bleed").value == pytest.approx(1 / 2)
    assert part.figure("case level", "kappa of any bleed").value == pytest.approx(0.5)
    assert part.causes == (("vein", 3),)


def test_a_scan_with_an_uncertain_lesion_is_neither_case_nor_control() -> None:
    doubtful = ScanPair(
        "05",
        "e",
        (Reference((0, 0, 0), visible=False),),
        (Prediction((60.0, 0, 0), 0.9),),
        attributes=STUDY[0].attributes,
    )
    (part,) = evaluate([*STUDY, doubtful], replicates=50)
    assert part.figure("case level", "specificity for any bleed").value == pytest.approx(1 / 2)
    assert part.figure("case level", "sensitivity for any bleed").value == 1.0
    assert part.figure(ONE_TO_ONE, "false per bleed-free scan").value == pytest.approx(2 / 2)
    assert part.figure(ONE_TO_ONE, "false per scan").value == pytest.approx(4 / 5)


def test_each_contrast_has_its_part_and_all_scans_one() -> None:
    parts = evaluate([*STUDY, made_up_scan("01", lesions=1, found=0, false=0, contrast="qsm")], replicates=50)
    assert [part.name for part in parts] == ["all", "qsm", "swi"]
    assert parts[0].figure(ONE_TO_ONE, "sensitivity").n == 6
    assert parts[0].figure("contrast qsm", "sensitivity").value == 0.0


def test_conventions_differ_where_they_should() -> None:
    # 4.5 mm off: near enough for VALDO alone.
    far = ScanPair("01", "a", (Reference.ball((0, 0, 0), 1.5),), (Prediction((4.5, 0, 0), 0.9),))
    (part,) = evaluate([far], replicates=20)
    found = {name: part.figure(name, "sensitivity").value for name in (ONE_TO_ONE, VALDO, TOUCH)}
    assert found == {ONE_TO_ONE: 0.0, VALDO: 1.0, TOUCH: 0.0}


def test_places_of_matched_lesions_are_compared_where_both_are_known() -> None:
    def seen(x: float, category: str) -> Prediction:
        return Prediction((x, 0, 0), 0.9, attributes={"mars_category": category} if category else {})

    references = tuple(Reference.ball((20.0 * i, 0, 0), 1.5, mars_category="lobar") for i in range(4))
    for nothing in ("", "n/a"):
        # One has no place, one lesion is missed.
        found = (seen(0, "Lobar"), seen(20, "deep"), seen(40, nothing))
        (part,) = evaluate([ScanPair("01", "a", references, found)], replicates=20)
        figure = part.figure("place", "MARS category of matched lesions")
        assert (figure.value, figure.n) == (0.5, 2)
    assert part.figure("size 2 to 10 mm", "sensitivity").n == 4


def test_f1_without_lesions_is_undefined_and_without_hits_zero() -> None:
    one, none = np.array([1.0]), np.array([0.0])
    assert math.isnan(f1(none, none, one, none)[0])
    assert f1(one, none, none, none)[0] == 0.0
    assert f1(one, none, one, none)[0] == 0.0


def test_froc_of_a_study_done_by_hand() -> None:
    matches = [match_scan(pair) for pair in STUDY]
    curve = froc(matches, Resamples.of([pair.subject for pair in STUDY], replicates=50))
    # Four true ones score above all three false ones: 4 of 5 at no false detection.
    named = {f.name: f.value for f in curve.figures}
    assert [named[f"sensitivity at {r:g} false per scan"] for r in RATES] == pytest.approx([0.8] * 7)
    assert named["mean of the seven"] == pytest.approx(0.8)
    assert curve.false_per_scan[-1] == pytest.approx(0.75)
    assert (np.diff(curve.sensitivity) >= 0).all()


def test_froc_reads_a_step_at_its_foot() -> None:
    # A false detection outscores the only lesion: it is found at one false per scan, not before.
    pair = ScanPair(
        "01",
        "a",
        (Reference.ball((0, 0, 0), 1.5),),
        (Prediction((0, 40, 0), 0.9), Prediction((0, 0, 0), 0.5)),
    )
    curve = froc([match_scan(pair)], Resamples.of(["01"], replicates=10))
    named = {f.name: f.value for f in curve.figures}
    assert named["sensitivity at 0.5 false per scan"] == 0.0
    assert named["sensitivity at 1 false per scan"] == 1.0
    assert named["mean of the seven"] == pytest.approx(4 / 7)


def test_brier_and_calibration_error_by_hand() -> None:
    pair = ScanPair(
        "01",
        "a",
        (Reference.ball((0, 0, 0), 1.5),),
        (Prediction((0, 0, 0), 0.75), Prediction((0, 40, 0), 0.75), Prediction((0, 80, 0), 0.05)),
    )
    result = reliability([match_scan(pair)], Resamples.of(["01"], replicates=10))
    brier, ece, brier_likely, ece_likely = result.figures
    assert brier_likely.value == pytest.approx((0.25**2 + 0.75**2) / 2)
    assert ece_likely.value == pytest.approx(0.25)
    assert brier.value == pytest.approx((0.25**2 + 0.75**2 + 0.05**2) / 3)
    assert ece.value == pytest.approx((2 * abs(0.75 - 0.5) + 0.05) / 3)
    full = result.bins[7]
    assert (full.count, full.share, full.mean) == (2, 0.5, 0.75)


def test_wilson_interval_of_the_literature() -> None:
    # Newcombe, Stat Med 1998;17:857-872, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_certainty_comes_from_subjects_not_scans() -> None:
    # Ten scans of one subject are no ten subjects: resampling cannot vary, and no bootstrap is claimed.
    scans = [made_up_scan("01", lesions=2, found=1, false=0, scan=f"run-{i}") for i in range(10)]
    (part,) = evaluate(scans, replicates=50)
    assert part.subjects == 1
    assert part.figure(ONE_TO_ONE, "sensitivity").interval == "Wilson"
    assert part.figure("count agreement", "mean difference").interval == "none"


def test_all_found_of_a_few_is_no_certainty() -> None:
    scans = [made_up_scan(f"0{i}", lesions=1, found=1, false=0) for i in (1, 2)]
    (part,) = evaluate(scans, replicates=50)
    for name in ("sensitivity at 0.5 false per scan", "sensitivity at 8 false per scan"):
        figure = part.figure("FROC", name)
        assert (figure.value, figure.interval) == (1.0, "Wilson")
        assert (figure.low, figure.high) == pytest.approx((0.3424, 1.0), abs=1e-4)
    assert part.figure("FROC", "mean of the seven").interval == "none"
    assert part.figure(ONE_TO_ONE, "F1").interval == "none"


def test_tables_and_page_say_the_same_and_escape(tmp_path: Path) -> None:
    hostile = made_up_scan(
        "<b>", lesions=1, found=1, false=1, contrast="gre", scan="<script>alert(1)</script>"
    )
    parts = evaluate([*STUDY, hostile], replicates=50)
    paths = write_tables(parts, tmp_path)
    rows = {p.name: list(csv.DictReader(p.open(encoding="utf-8"), delimiter="\t")) for p in paths}
    assert len(rows["scans.tsv"]) == 5
    assert sum(r["kind"] == "missed" for r in rows["lesions.tsv"]) == 1
    assert sum(r["kind"] == "false" for r in rows["lesions.tsv"]) == 4
    page = write_evaluation_page(
        parts, tmp_path / "e.html", title="A <simulated> study", facts={"model": "<i>x</i>"}, notes=["<u>"]
    )
    text = page.read_text(encoding="utf-8")
    assert "<i>x" not in text
    assert "&lt;simulated&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    sensitivity = next(r for r in rows["figures.tsv"] if r["figure"] == "sensitivity" and r["scans"] == "swi")
    assert sensitivity["value"] == "0.8000"
    bins = [r for r in rows["reliability.tsv"] if r["scans"] == "swi"]
    assert len(bins) == 10
    assert sum(int(r["candidates"]) for r in bins) == sum(len(pair.predictions) for pair in STUDY)
    assert "0.80 (" in text


def test_an_evaluation_without_any_lesion_or_detection_still_has_a_page(tmp_path: Path) -> None:
    parts = evaluate([made_up_scan("01", lesions=0, found=0, false=0)], replicates=20)
    write_tables(parts, tmp_path)
    page = write_evaluation_page(parts, tmp_path / "e.html", title="empty (simulated)", facts={})
    assert "nan" not in page.read_text(encoding="utf-8")


def test_the_interval_of_a_median_is_over_subjects_not_over_their_items() -> None:
    rng = np.random.default_rng(3)
    of_subject = np.repeat(rng.uniform(0, 1, 20), 6)  # six alike in each of twenty subjects
    whose = [f"{number // 6}" for number in range(120)]
    figure = median_of_items("outlines", "x", of_subject, Resamples.of(whose), unit="lesions")
    alone = median_of_items(
        "outlines", "x", of_subject, Resamples.of([str(n) for n in range(120)]), unit="lesions"
    )
    assert figure.value == alone.value == np.median(of_subject)
    assert figure.n == 120
    assert figure.high - figure.low > 1.5 * (alone.high - alone.low)
    one = median_of_items("outlines", "x", np.array([0.2, 0.4]), Resamples.of(["a", "a"]), unit="lesions")
    assert (one.low, one.value, one.high) == pytest.approx((0.3, 0.3, 0.3))

"""Pictures of errors on simulated scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bids_cmb.evaluation.evaluate import evaluate
from bids_cmb.evaluation.page import write_evaluation_page
from bids_cmb.training.gallery import failure_gallery, failure_sheet
from bids_cmb.training.held_out import compared
from bids_cmb.training.simulate.corpus import save_scan
from bids_cmb.types import Candidate, Detection
from tests.training.tiny import tiny_scan


def test_missed_and_false_ones_are_drawn_worst_first(tmp_path: Path) -> None:
    scan = tiny_scan(1, 3)
    deepest = replace(scan.lesions[1], depth=0.9)
    scan = replace(scan, lesions=(scan.lesions[0], deepest, scan.lesions[2]))
    path = tmp_path / "gre_ball1_1.npz"
    save_scan(scan, path)
    labels = np.zeros(scan.image.shape, np.int32)
    labels[scan.lesion_labels == 1] = 1
    found = Candidate(1, scan.lesions[0].position, 1, 1, 100.0, 5.8, 0.7, 1, probability=0.9)
    wrong = replace(found, index=2, position=(0.0, 0.0, 25.0), probability=0.4)
    result = compared(path.stem, scan, Detection((found, wrong), labels))
    assert (result.found, result.visible, result.false) == (1, 3, 1)

    gallery = failure_gallery([(path, result)])
    assert [failure.kind for failure in gallery] == ["missed", "missed", "false"]
    assert "depth 0.90" in gallery[0].caption
    assert "probability 0.40" in gallery[2].caption
    assert all(len(failure.pictures) == 3 for failure in gallery)
    sheet = failure_sheet(gallery)
    assert sheet is not None
    tile = sheet.crop((96, 16, 192, 112))  # the second missed one
    assert len(np.unique(np.asarray(tile))) > 20
    assert failure_sheet([]) is None
    facts = {"Model": "x"}
    page = write_evaluation_page(
        evaluate([result.pair]), tmp_path / "e.html", title="t", facts=facts, gallery=gallery
    )
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 9
    assert text.index("depth 0.90") < text.index("depth 0.70") < text.index("probability 0.40")

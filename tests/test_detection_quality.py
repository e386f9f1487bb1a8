"""The whole job with the shipped weights on simulated scans: a guard against changes that make the detector blind.

The anatomy is the MNI template's, which was trained on, and the bounds are loose: what the detector is worth stands in
``models/README.md``.
"""

from __future__ import annotations

from pathlib import Path

from bids_cmb.detector.weights import load_model
from bids_cmb.training.held_out import judge_scan
from bids_cmb.training.simulate.corpus import save_scan
from bids_cmb.training.simulate.heads import shipped_head
from bids_cmb.training.simulate.scan import simulate_session


def test_most_microbleeds_of_a_simulated_subject_are_found_on_every_contrast(tmp_path: Path) -> None:
    head = shipped_head()
    model = load_model()
    results = []
    for scan in simulate_session(head, 7, ("gre", "swi", "qsm"), count=16, spacing=1.0):
        path = tmp_path / f"{scan.protocol.contrast}.npz"
        save_scan(scan, path)
        results.append(judge_scan(path, model))
    told = [(r.contrast, r.visible, r.found, r.false) for r in results]
    assert all(visible >= 8 for _, visible, _, _ in told), told  # else the test could not fail
    assert all(found >= 0.6 * visible for _, visible, found, _ in told), told
    assert sum(found for _, _, found, _ in told) >= 0.75 * sum(visible for _, visible, _, _ in told), told
    assert all(false <= 4 for _, _, _, false in told), told

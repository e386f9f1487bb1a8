"""Which peaks of stage 1 are taught as microbleeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bids_cmb.training.prepared import prepared_scan
from bids_cmb.training.samples import TrainingScan
from bids_cmb.training.scan_candidates import label_peaks

from .tiny import tiny_scan


def thick_scan() -> TrainingScan:
    """One lesion that 5 mm slices show twice."""
    scan = prepared_scan(tiny_scan(1, bleeds=1), "x")
    x, y, z = np.round(scan.lesions[0]).astype(int)
    segmentation = scan.segmentation.clone().zero_()
    segmentation[x - 1 : x + 2, y - 1 : y + 2, z : z + 2] = 1
    return replace(scan, segmentation=segmentation, lesions=np.array([[x, y, z]], np.float32))


def test_a_peak_on_the_next_slice_of_a_lesion_is_no_example_of_what_is_none() -> None:
    scan = thick_scan()
    centre = np.round(scan.lesions[0]).astype(np.int64)
    peaks = centre + np.array([[0, 0, 0], [0, 0, 1], [0, 0, 3]])  # there, on the next slice, beyond
    labels, found = label_peaks(peaks, scan)
    assert labels.tolist() == [1, -1, 0]
    assert found.tolist() == [True]


def test_a_lesion_takes_its_highest_peak_and_the_others_on_it_are_left_open() -> None:
    scan = thick_scan()
    centre = np.round(scan.lesions[0]).astype(np.int64)
    labels, found = label_peaks(centre + np.array([[1, 0, 0], [0, 0, 0], [0, 30, 0]]), scan)
    assert labels.tolist() == [1, -1, 0]
    assert found.all()

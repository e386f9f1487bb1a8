"""Stages 1 to 3 on a phantom: grids, peaks, outlines, rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bids_cmb.detector.candidates import find_peaks, heat_map
from bids_cmb.detector.cleanup import clean_up
from bids_cmb.detector.devices import choose_device
from bids_cmb.detector.discriminate import CUBE_IN_PLANE, CUBE_SLICES, cut_cubes, stage2_cubes
from bids_cmb.detector.grid import WorkingGrid, resize_matrix
from bids_cmb.detector.network_input import local_contrast, network_input
from bids_cmb.detector.networks import CandidateNet, _joined
from bids_cmb.detector.outline import outline_candidate
from bids_cmb.detector.pipeline import detect
from bids_cmb.detector.weights import Model
from bids_cmb.errors import UsageError
from bids_cmb.types import Candidate, Detection, Volume

from .conftest import phantom

BALL = (36.0, 30.0, 12.0)
WORLD = (6.0, -5.0, 0.0)


@pytest.mark.parametrize("zooms", [(0.5, 0.5, 0.8), (0.9, 0.9, 5.0), (1.0, 4.0, 1.0), (5.0, 0.8, 0.8)])
def test_working_voxels_come_back(zooms: tuple[float, float, float]) -> None:
    mask = np.zeros((80, 90, 40), bool)
    mask[10:70, 12:80, 5:35] = True
    grid = WorkingGrid.around(np.diag([*zooms, 1.0]), mask)
    points = torch.tensor([[20.0, 30.0, 10.0], [60.5, 70.25, 30.0]])
    torch.testing.assert_close(grid.image_voxels(grid.working_voxels(points)), points, atol=1e-3, rtol=0)
    assert grid.spacing[0] == pytest.approx(0.75, rel=0.02)
    assert grid.order[2] == (int(np.argmax(zooms)) if max(zooms) > 2 else 2)


def test_resizing_keeps_constants_and_commutes_with_flips() -> None:
    matrix = resize_matrix(37, 20)
    torch.testing.assert_close(matrix.sum(1), torch.ones(20))
    values = torch.rand(37)
    torch.testing.assert_close((matrix @ values).flip(0), matrix @ values.flip(0), atol=1e-5, rtol=0)


def test_a_point_keeps_its_place_on_the_working_grid() -> None:
    image, mask = phantom()
    channels, grid = network_input(image, mask, "swi", torch.device("cpu"))
    darkest = torch.nonzero(channels[0] == channels[0].max())[0].float()[None]
    assert np.abs(grid.image_voxels(darkest)[0].numpy() - BALL).max() < 1.5


def test_blood_is_bright_for_the_network_on_every_contrast() -> None:
    image, mask = phantom()
    inside = torch.from_numpy(mask)
    dark = local_contrast(torch.from_numpy(image.data), inside, image.zooms, "gre")
    bright = local_contrast(torch.from_numpy((100 - image.data) / 100), inside, image.zooms, "qsm")
    at = tuple(int(v) for v in BALL)
    assert float(dark[at]) > 0.5
    assert float(bright[at]) > 1.0
    assert float(dark[~inside].abs().max()) == 0


@pytest.mark.parametrize("unit", [1e-12, 1e-4, 1e12])
def test_intensity_units_do_not_matter(unit: float) -> None:
    image, mask = phantom()
    inside = torch.from_numpy(mask)
    one = local_contrast(torch.from_numpy(image.data), inside, image.zooms, "swi")
    other = local_contrast(torch.from_numpy(image.data * unit).float(), inside, image.zooms, "swi")
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_peaks_are_apart_and_sorted() -> None:
    heat = torch.zeros(40, 40, 10)
    for (x, y, z), height in {(10, 10, 5): 0.9, (12, 10, 5): 0.8, (30, 20, 3): 0.95}.items():
        heat[x, y, z] = height
    voxels, heights = find_peaks(heat, (0.75, 0.75, 3.0), 0.1)
    assert voxels.tolist() == [[30, 20, 3], [10, 10, 5]]
    assert heights.tolist() == pytest.approx([0.95, 0.9])


@pytest.fixture
def lively() -> CandidateNet:
    """A network whose heat map goes up and down, unlike that of an untrained one."""
    torch.manual_seed(3)
    network = CandidateNet(2, (4, 4, 4, 4)).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    torch.nn.init.zeros_(network.head.bias)  # type: ignore[arg-type]
    return network


def test_blocks_of_slices_do_not_show(lively: CandidateNet, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = torch.rand(2, 30, 41, 37)
    whole = heat_map(lively, channels)
    assert whole.std() > 0.02
    monkeypatch.setattr("bids_cmb.detector.candidates._BLOCK_SLICES", 10)
    torch.testing.assert_close(heat_map(lively, channels), whole, atol=1e-5, rtol=0)
    monkeypatch.setattr("bids_cmb.detector.candidates._HALO", 8)
    assert (heat_map(lively, channels) - whole).abs().max() > 1e-3  # it does reach that far


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kernel", "pool"), [((3, 3, 1), (2, 2, 1)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (2, 2, 1))]
)
def test_enlarging_and_convolving_in_one_is_the_same(
    kernel: tuple[int, int, int], pool: tuple[int, int, int]
) -> None:
    convolution = nn.Conv3d(5, 4, kernel, padding=tuple(n // 2 for n in kernel))
    fine, coarse = (
        torch.rand(2, 2, 8, 6, 4),
        torch.rand(2, 3, *(n // p for n, p in zip((8, 6, 4), pool, strict=True))),
    )
    enlarged = nn.functional.interpolate(coarse, scale_factor=pool, mode="nearest")
    expected = convolution(torch.cat([fine, enlarged], dim=1))
    torch.testing.assert_close(_joined(convolution, fine, coarse, pool), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_folded_normalisation_gives_the_same_heat(lively: CandidateNet) -> None:
    channels = torch.rand(2, 16, 24, 12)
    torch.testing.assert_close(
        heat_map(lively, channels), torch.sigmoid(lively(channels[None]))[0, 0], atol=1e-5, rtol=0
    )


def test_cubes_are_centred_even_at_the_border() -> None:
    channels = torch.zeros(1, 20, 20, 6)
    channels[0, 0, 19, 5] = 1
    cube = cut_cubes(channels, torch.tensor([[0, 19, 5]]))
    assert cube.shape == (1, 1, CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)
    assert float(cube[0, 0, CUBE_IN_PLANE // 2, CUBE_IN_PLANE // 2, CUBE_SLICES // 2]) == 1


def test_the_outline_measures_the_ball() -> None:
    image, mask = phantom()
    outline = outline_candidate(image, mask, np.array(BALL) + np.array([1.0, -1.0, 0.0]), "swi")
    assert np.linalg.norm(np.array(outline.position) - WORLD) < 0.7
    assert outline.diameter == pytest.approx(4.0, abs=0.9)
    assert outline.contrast == pytest.approx(0.7, abs=0.08)
    assert outline.elongation < 1.3


@pytest.mark.parametrize("beside", ["vein", "sulcus"])
def test_what_a_ball_touches_is_not_part_of_it(beside: str) -> None:
    image, mask = phantom()
    data = image.data.copy()
    if beside == "vein":
        data[37:39, 33:50, 11:14] = 25
    else:
        data[29:44, 32:34, 9:16] = 25
    outline = outline_candidate(Volume(data, image.affine), mask, np.array(BALL), "swi")
    # Whole, the outline would lie 3 mm and more away, and be twice as wide.
    assert np.linalg.norm(np.array(outline.position) - WORLD) < 2.0
    assert outline.diameter == pytest.approx(4.0, abs=1.2)


@pytest.mark.parametrize("covered", [1, 2, 3])
def test_an_outline_does_not_leave_the_brain(covered: int) -> None:
    image, mask = phantom()
    mask[: int(BALL[0]) - covered] = False
    outside = np.where(mask, image.data, 0)  # stripped: beyond the mask it is darker than any bleed
    outline = outline_candidate(Volume(outside, image.affine), mask, np.array(BALL), "swi")
    assert mask[tuple(outline.voxels.T)].all()
    assert outline.contrast < 0.8
    assert outline.diameter < 5.0


def test_two_balls_that_touch_are_outlined_apart() -> None:
    image, mask = phantom()
    data = image.data.copy()
    grid = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1) * np.array([1.0, 1.0, 2.0])
    second = np.array([40.0, 30.0, 12.0])
    data[np.linalg.norm(grid - second * [1, 1, 2], axis=-1) < 2] = 30
    peaks = np.array([BALL, second])
    dark = Volume(data, image.affine)
    one, other = (outline_candidate(dark, mask, p, "swi", peaks) for p in peaks)
    assert not {*map(tuple, one.voxels)} & {*map(tuple, other.voxels)} - {(38, y, 12) for y in range(70)}
    assert np.linalg.norm(np.array(one.position) - other.position) == pytest.approx(4, abs=0.8)


def test_a_vessel_is_longer_than_a_ball() -> None:
    image, mask = phantom(depth=0.0)
    data = image.data.copy()
    data[30:33, 20:50, 12] = 20
    assert (
        outline_candidate(Volume(data, image.affine), mask, np.array([31.0, 35.0, 12.0]), "swi").elongation
        > 2
    )


def test_detection_is_the_same_on_any_number_of_threads(model: Model) -> None:
    image, mask = phantom()
    before = torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(detect(image, mask, "swi", model, device="cpu"))
    torch.set_num_threads(before)
    assert results[0].candidates == results[1].candidates
    assert np.array_equal(results[0].labels, results[1].labels)
    assert results[0].candidates
    assert set(np.unique(results[0].labels)) == {0, *(c.index for c in results[0].candidates)}


def candidate(**changes: object) -> Candidate:
    base = Candidate(1, WORLD, 0.9, 0.9, 30.0, 3.9, 0.5, 1.1, probability=0.9)
    return replace(base, **changes)  # type: ignore[arg-type]


def judge(model: Model, zones: dict | None = None, modality: str = "swi", **changes: object) -> Candidate:
    labels = np.zeros((20, 20, 10), np.int32)
    labels[9:12, 9:12, 5] = 1
    mask = np.ones(labels.shape, bool)
    return clean_up(
        Detection((candidate(**changes),), labels), mask, zones or {}, modality, model
    ).candidates[0]


@pytest.mark.parametrize(
    ("changes", "contrast", "fate"),
    [
        ({}, "swi", "accepted"),
        ({"stage2_probability": 0.3}, "swi", "stage2"),
        ({"diameter": 11.0}, "swi", "too_large"),
        ({"contrast": 0.05}, "swi", "low_contrast"),
        ({"contrast": -0.4}, "qsm", "negative_susceptibility"),
    ],
)
def test_each_removal_names_its_rule(model: Model, changes: dict, contrast: str, fate: str) -> None:
    judged = judge(model, modality=contrast, **changes)
    assert judged.fate == fate
    assert judged.accepted == (judged.probability >= model.thresholds[contrast])


@pytest.mark.parametrize("threshold", [0.02, 0.5])
def test_what_cannot_be_a_microbleed_has_no_probability_at_any_operating_point(
    model: Model, threshold: float
) -> None:
    judged = judge(model.at(threshold), diameter=11.0, stage2_probability=0.95)
    assert (judged.probability, judged.stage2_probability) == (0.0, 0.95)


def test_a_doubtful_place_lowers_the_probability_and_is_flagged(model: Model) -> None:
    zones = {"pineal": lambda voxels: np.ones(len(voxels), np.float32)}
    sure, unsure = (judge(model, zones, stage2_probability=p) for p in (0.999, 0.7))
    assert sure.fate == "accepted"
    assert sure.flags == ("pineal",)
    assert sure.certainty == "possible"
    assert unsure.fate == "pineal"
    rounded = judge(model, zones, stage2_probability=1.0)
    assert sure.probability <= rounded.probability < 1


def test_definite_needs_probability(model: Model) -> None:
    assert judge(model, stage2_probability=0.95).certainty == "definite"
    assert judge(model, stage2_probability=0.7).certainty == "possible"


def test_a_gpu_that_is_not_there_is_refused_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UsageError, match="no CUDA GPU"):
        choose_device("cuda")


def test_more_candidates_than_are_judged_are_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = phantom()
    none = detect(image, mask, "swi", replace(model, candidate_threshold=1.0))
    assert none.warnings == ()
    for place in ("candidates", "pipeline"):
        monkeypatch.setattr(f"bids_cmb.detector.{place}.MOST_CANDIDATES", 3)
    few = detect(image, mask, "swi", replace(model, candidate_threshold=0.0))
    assert len(few.candidates) <= 3
    assert "More than 3 candidates" in few.warnings[0]


@pytest.mark.parametrize("slice_mm, pooled", [(1.5, 2), (5.0, 1)])
def test_the_wide_view_reaches_twice_as_far_about_the_same_candidate(slice_mm: float, pooled: int) -> None:
    channels, heat = torch.zeros(2, 80, 80, 40), torch.zeros(80, 80, 40)
    channels[0, 40, 41, 20] = 1.0
    channels[0, 40 + 20, 41, 20] = 1.0  # 15 mm away: beyond the near view
    cube = stage2_cubes(channels, heat, torch.tensor([[40, 41, 20]]), (0.75, 0.75, slice_mm))[0]
    near, wide = cube[:3], cube[3:]
    middle = (CUBE_IN_PLANE // 2, CUBE_IN_PLANE // 2, CUBE_SLICES // 2)
    assert torch.nonzero(near[0]).tolist() == [list(middle)]
    assert torch.nonzero(wide[0]).tolist() == [list(middle), [middle[0] + 10, *middle[1:]]]
    assert float(wide[0][middle]) == pytest.approx(1 / (4 * pooled))


def test_probabilities_follow_the_scan_where_the_model_says_so(model: Model) -> None:
    image, mask = phantom()
    plain = detect(image, mask, "swi", model, device="cpu").candidates
    assert len(plain) > 3
    mean = float(np.mean([c.stage2_probability for c in plain]))
    for prevalence, sign in ((mean / 4, 1), (min(0.99, mean * 2), -1)):  # a rich scan, a poor one
        calibration = {c: replace(x, prevalence=prevalence) for c, x in model.calibration.items()}
        found = detect(image, mask, "swi", replace(model, calibration=calibration), device="cpu").candidates
        pairs = zip(found, plain, strict=True)
        assert all(sign * (a.stage2_probability - b.stage2_probability) > 0 for a, b in pairs)

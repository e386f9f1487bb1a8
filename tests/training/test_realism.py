"""The realism statistics on images whose answer is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_cmb.detector.weights import load_model
from bids_cmb.errors import UsageError
from bids_cmb.training.lesion_statistics import as_lines, compare_bleeds, visible_bleeds
from bids_cmb.training.real_image import RealImage, load_real, matched_protocol
from bids_cmb.training.realism import (
    WAVELENGTHS,
    Statistics,
    differences,
    line_strength,
    texture_spectrum,
    vein_density,
)
from bids_cmb.training.realism_page import measure_real
from tests.training.tiny import invisible, tiny_scan

#: Real images beside the repository, where there are any.
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPACING = (0.75, 0.75, 2.0)


def test_a_wave_shows_in_its_own_band() -> None:
    x = np.arange(96) * SPACING[0]
    wave = np.sin(2 * np.pi * x / 6.0)[:, None, None] * np.ones((96, 96, 3))
    spectrum = texture_spectrum(wave.astype(np.float32), np.ones(wave.shape, bool), SPACING, 1.5)
    assert WAVELENGTHS[int(np.nanargmax(spectrum))] == 6.0


def test_bands_beyond_the_resolution_are_unknown() -> None:
    noise = np.random.default_rng(0).normal(size=(96, 96, 3)).astype(np.float32)
    spectrum = texture_spectrum(noise, np.ones(noise.shape, bool), SPACING, 3.0)
    assert np.isnan(spectrum[-2:]).all()
    assert np.ptp(spectrum[:-3]) < 0.4  # white noise is flat


def test_a_line_is_stronger_than_a_dot_or_an_edge() -> None:
    line, dot, edge = (np.zeros((40, 40, 20), np.float32) for _ in range(3))
    fine = (0.75, 0.75, 0.75)
    line[20, :, 10] = 1
    dot[20, 20, 10] = 1
    edge[20:] = 1
    at = (20, 20, 10)
    strength = {k: float(line_strength(v, fine)[at]) for k, v in (("line", line), ("dot", dot))}
    assert strength["line"] > 3 * strength["dot"]
    assert float(line_strength(edge, fine).max()) < 0.2 * strength["line"]


def test_veins_are_counted_as_one_sees_them_through_a_slab() -> None:
    lines = np.zeros((40, 40, 12), np.float32)
    lines[20, :, 3] = lines[30, :, 3] = lines[30, :, 4] = 1.0  # one below the other counts once
    mask = np.ones(lines.shape, bool)
    assert vein_density(lines, mask, SPACING) == pytest.approx((2 / 40 + 0) / 2)  # of two slabs
    assert np.isnan(vein_density(lines[..., :3], mask[..., :3], SPACING))


def test_bleeds_are_compared_with_published_ones() -> None:
    bleeds = [b for seed in range(4) for b in visible_bleeds(tiny_scan(seed))]
    figures = {f.name: f for f in compare_bleeds(bleeds)}
    assert figures["diameter, median, mm"].simulated == 6.0
    assert figures["share of 5 to 10 mm"].simulated == 1.0
    assert figures["share lobar"].simulated == 1.0
    loss = figures["share of signal lost, median"]
    assert loss.low <= loss.simulated <= loss.high
    assert loss.simulated == pytest.approx(0.7, abs=0.03)
    assert loss.count == 12
    assert "published  2.840  simulated  6.000 (6.000 to 6.000), 12 bleeds" in " ".join(
        as_lines([*figures.values()])
    )
    assert not visible_bleeds(invisible(tiny_scan(1)))
    assert compare_bleeds([]) == []


def _statistics(**values: float) -> Statistics:
    empty = np.zeros(1)
    return Statistics(values, empty, {}, empty, empty)


def test_the_largest_difference_comes_first() -> None:
    simulated = [_statistics(a=1.0 + 0.1 * i, b=5.0 + i, c=float("nan")) for i in range(5)]
    listed = differences(_statistics(a=3.0, b=7.0, c=1.0), simulated)
    assert [d.name for d in listed] == ["a", "b"]
    assert listed[0].distance > 5
    assert listed[1].distance == pytest.approx(0.0)


def test_real_images_are_named_with_their_contrast_and_volume(tmp_path: Path) -> None:
    assert RealImage.parse("gre=a@b.nii@4") == RealImage("gre", Path("a@b.nii"), 4)
    assert RealImage.parse("qsm=x.nii.gz") == RealImage("qsm", Path("x.nii.gz"), None)
    with pytest.raises(UsageError, match="CONTRAST=FILE"):
        RealImage.parse("t1w=x.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(Exception, match="FILE@0"):
        load_real(RealImage("gre", tmp_path / "x.nii"))
    with pytest.raises(Exception, match="none numbered 5"):
        load_real(RealImage("gre", tmp_path / "x.nii", 5))


@pytest.mark.parametrize(
    ("sidecar", "echo", "field"),
    [
        ('{"EchoTime": 20, "MagneticFieldStrength": "3T"}', 0.020, 3.0),
        ('{"EchoTime": 0.03, "MagneticFieldStrength": 1.5}', 0.030, 1.5),
        ("[1]", 0.020, 3.0),
        ("{", 0.020, 3.0),
    ],
)
def test_a_sidecar_is_read_as_in_the_main_job(
    tmp_path: Path, sidecar: str, echo: float, field: float
) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "x.nii")
    (tmp_path / "x.json").write_text(sidecar)
    real = RealImage("gre", tmp_path / "x.nii")
    volume, facts = load_real(real)
    protocol = matched_protocol(real, volume, facts, snr=20.0)
    assert (protocol.echo_time, protocol.field_strength) == pytest.approx((echo, field))


@pytest.mark.shared_data
@pytest.mark.slow
def test_a_real_slab_can_be_measured(untrained: Path) -> None:
    slabs = sorted(SHARED.glob("gre_12echo/*.nii.gz"))
    if not slabs:
        pytest.skip("../shared/data is not here")
    measured, protocol, height = measure_real(RealImage("gre", slabs[0], 4), load_model(untrained))
    assert height == pytest.approx(14.0)
    assert protocol.voxel[2] == pytest.approx(2.0)
    assert not protocol.stripped
    assert 0.5 < measured.statistics.values["intensity, 25 % of voxels below"] < 1.0
    assert len(measured.pictures) == 4

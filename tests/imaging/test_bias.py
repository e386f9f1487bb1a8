"""Bias field: flattened, the same bytes each time, and nothing broken at the edges."""

import numpy as np
import pytest

from bids_cmb.imaging.bias import correct_bias
from bids_cmb.imaging.n4 import fit_log_field
from bids_cmb.types import Volume

from .phantoms import brain

SHAPE, ZOOMS = (90, 104, 48), (2.0, 2.0, 3.0)


def _biased(shape=SHAPE, zooms=ZOOMS, noise=3.0, along_z=0.3):
    inside = brain(shape, zooms)
    x, y, z = (np.linspace(-1, 1, n) for n in shape)
    field = np.exp(0.5 * x[:, None, None] + 0.4 * (y**2)[:, None] - along_z * z)
    tissue = np.where(np.random.default_rng(1).random(shape) < 0.4, 80, 100)
    data = tissue + noise * np.random.default_rng(0).standard_normal(shape)
    data = np.where(inside, data * field, 0).astype(np.float32)
    return Volume(data, np.diag([*zooms, 1.0])), inside, field


def _spread(values):
    return values.std() / values.mean()


def test_the_field_is_removed():
    volume, inside, field = _biased()
    out = correct_bias(volume, inside)
    flat = volume.data[inside] / field[inside]
    assert _spread(volume.data[inside]) > 2 * _spread(flat)
    assert _spread(out.data[inside]) < 1.05 * _spread(flat)
    assert out.data.dtype == np.float32
    np.testing.assert_array_equal(out.affine, volume.affine)


def test_the_same_bytes_for_any_number_of_threads():
    import torch

    volume, inside, _ = _biased()
    before = torch.get_num_threads()
    outs = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            outs.append(correct_bias(volume, inside).data.tobytes())
    finally:
        torch.set_num_threads(before)
    assert outs[0] == outs[1]


def test_a_microbleed_keeps_its_contrast():
    volume, inside, _ = _biased(noise=0.5)
    data = volume.data.copy()
    data[44:46, 52:54, 24] *= 0.3
    out = correct_bias(Volume(data, volume.affine), inside).data
    plain = correct_bias(volume, inside).data
    np.testing.assert_allclose(out[44, 52, 24] / plain[44, 52, 24], 0.3, rtol=0.03)


def test_a_slab_of_few_slices():
    volume, inside, field = _biased((100, 110, 4), (2.0, 2.0, 2.0), along_z=0.02)
    out = correct_bias(volume, inside)
    assert _spread(out.data[inside]) < 1.05 * _spread(volume.data[inside] / field[inside])


@pytest.mark.parametrize("value", [0.0, 50.0])
def test_nothing_to_fit_changes_nothing(value):
    volume = Volume(np.full((20, 20, 10), value, np.float32), np.diag([1.0, 1, 1, 1]))
    mask = np.zeros((20, 20, 10), bool)
    mask[5:15, 5:15, 2:8] = True
    np.testing.assert_allclose(correct_bias(volume, mask).data, value)


@pytest.mark.slow
def test_agrees_with_the_reference_implementation():
    ants = pytest.importorskip("ants")
    volume, inside, _ = _biased((52, 60, 30), (4.0, 4.0, 4.0))
    ours = fit_log_field(volume.data, inside & (volume.data > 0), 4.0)
    field = ants.n4_bias_field_correction(
        ants.from_numpy(volume.data, spacing=(4.0, 4.0, 4.0)),
        mask=ants.from_numpy(inside.astype(np.float32), spacing=(4.0, 4.0, 4.0)),
        shrink_factor=1,
        convergence={"iters": [50, 40, 30], "tol": 1e-6},
        spline_param=200.0,
        return_bias_field=True,
    ).numpy()
    theirs = np.log(field[inside])
    assert np.corrcoef(ours[inside], theirs)[0, 1] > 0.98

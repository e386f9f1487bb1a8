"""Weights are loaded by manifest and checksum; input is scaled by the image's own percentiles."""

import json

import numpy as np
import pytest
import torch

from bids_cmb.errors import ModelError
from bids_cmb.imaging.mask_network import MULTIPLE, MaskNet, load_mask_model, models_folder, network_input


def test_the_shipped_weights_are_those_of_the_manifest():
    model = load_mask_model()
    assert model.manifest["license"] == "Apache-2.0"
    assert model.manifest["trained_on"]["sources"]
    assert not model.network.training


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="reinstall"):
        load_mask_model(tmp_path)


def test_changed_weights_are_refused(tmp_path):
    for name in ("brain-mask.json", "brain-mask.safetensors"):
        (tmp_path / name).write_bytes((models_folder() / name).read_bytes())
    content = bytearray((tmp_path / "brain-mask.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "brain-mask.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelError, match="not those of the manifest"):
        load_mask_model(tmp_path)


def test_a_manifest_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "brain-mask.json").write_text("{")
    with pytest.raises(ModelError):
        load_mask_model(tmp_path)


def test_the_manifest_holds_no_paths():
    text = json.dumps(dict(load_mask_model().manifest))
    assert "/work" not in text
    assert "/tmp" not in text  # noqa: S108 - looking for a leak, not writing


def test_the_output_has_the_size_of_the_input():
    network = MaskNet().eval()
    with torch.inference_mode():
        out = network(torch.rand(1, 2, MULTIPLE, 2 * MULTIPLE, 3 * MULTIPLE))
    assert out.shape == (1, 1, MULTIPLE, 2 * MULTIPLE, 3 * MULTIPLE)


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1000.0, -3.0), (1e-6, 5e-6)])
def test_the_input_does_not_depend_on_the_unit(factor, offset):
    image = torch.from_numpy(np.random.default_rng(0).random((1, 1, 16, 16, 16)))
    coverage = torch.ones_like(image)
    coverage[..., 12:] = 0
    first = network_input(image, coverage)
    other = network_input(image * factor + offset, coverage)
    torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5)
    assert (first[:, 0, ..., 12:] == 0).all()


def test_a_constant_image_gives_finite_input():
    image = torch.full((1, 1, 16, 16, 16), 3.0)
    assert torch.isfinite(network_input(image, torch.ones_like(image))).all()

"""Weights are loaded by manifest and checksum; input is scaled by the image's own percentiles."""

import json

import numpy as np
import pytest
import torch

from bids_cmb.errors import ModelError
from bids_cmb.imaging.mask_network import MULTIPLE, MaskNet, load_mask_model, network_input
from bids_cmb.shipped import models_folder
from bids_cmb.training.brain_mask.release import write_release

SHIPPED = (models_folder() / "brain-mask" / "brain-mask.json").is_file()
needs_weights = pytest.mark.skipif(not SHIPPED, reason="no weights of the mask network are shipped")


@pytest.fixture
def release(tmp_path):
    """Weights and manifest of an untrained network."""
    write_release(MaskNet(), tmp_path, heads=["a"], scans=0, training={})
    return tmp_path


@needs_weights
def test_the_shipped_weights_are_those_of_the_manifest():
    model = load_mask_model()
    assert model.manifest["licence"] == "Apache-2.0"
    assert model.manifest["training"]["anatomy"]
    assert not model.network.training


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="reinstall"):
        load_mask_model(tmp_path)


def test_changed_weights_are_refused(release):
    content = bytearray((release / "brain-mask.safetensors").read_bytes())
    content[-1] ^= 1
    (release / "brain-mask.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelError, match="not those of the manifest"):
        load_mask_model(release)


@pytest.mark.parametrize("change", [{"widths": [8, 16]}, {"widths": "wide"}, {"widths": None}])
def test_weights_of_another_network_are_refused(release, change):
    manifest = json.loads((release / "brain-mask.json").read_text())
    (release / "brain-mask.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ModelError, match="another version"):
        load_mask_model(release)


def test_a_manifest_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "brain-mask.json").write_text("{")
    with pytest.raises(ModelError):
        load_mask_model(tmp_path)


@needs_weights
def test_the_manifest_holds_no_paths():
    text = json.dumps(dict(load_mask_model().manifest))
    assert "/work" not in text
    assert "/home" not in text


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

"""Training of the mask network on small made-up heads and scans: samples, learning, resume, the command."""

import json

import numpy as np
import pytest
import torch

from bids_cmb.imaging.mask_network import MaskNet, load_mask_model, network_input
from bids_cmb.training.brain_mask.release import write_release
from bids_cmb.training.brain_mask.synthesis import Painter, WholeHead, anatomy_of, whole_heads
from bids_cmb.training.brain_mask.train import mask_loss, train
from bids_cmb.training.cli import main
from bids_cmb.training.loop import Pace
from bids_cmb.training.simulate.corpus import save_scan
from bids_cmb.training.simulate.heads import Head, save_head
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.training.simulate.tissues import Tissue

CPU = torch.device("cpu")
SHAPE = (32, 32, 32)


def _radius(size):
    axis = np.arange(size) - (size - 1) / 2
    return np.sqrt(sum(g**2 for g in np.meshgrid(axis, axis, axis, indexing="ij")))


def _head(name="a", size=63):
    """Nested spheres of 1 mm voxels: ventricle, white matter, cortex, bone, scalp."""
    radius = _radius(size)
    labels = np.zeros((size,) * 3, np.uint8)
    for reach, value in (
        (30, Tissue.FAT),
        (26, Tissue.BONE),
        (20, Tissue.CORTEX),
        (12, Tissue.WHITE_MATTER),
        (4, Tissue.VENTRICLE),
    ):
        labels[radius < reach] = value
    return Head(name, labels, np.eye(4), np.eye(4))


def _scan(contrast="gre", *, stripped=False):
    """A bright brain in a dark skull in a bright scalp."""
    radius = _radius(64)
    image = np.select([radius < 20, radius < 26, radius < 30], [1.0, 0.1, 0.7], 0.0).astype(np.float32)
    protocol = Protocol(
        contrast,
        (1.0, 1.0, 1.0),
        interpolation=1.0,
        three_d=True,
        echo_time=0.02,
        field_strength=3.0,
        snr=50.0,
        stripped=stripped,
        tilt=(0.0, 0.0, 0.0),
    )
    nothing = np.zeros(image.shape, np.uint8)
    return SimulatedScan(image, np.eye(4), radius < 20, nothing, (), (), nothing, protocol, 1, "a")


@pytest.fixture(autouse=True)
def _small_samples(monkeypatch):
    """Samples small enough for a test."""
    monkeypatch.setattr("bids_cmb.training.brain_mask.synthesis.SAMPLE_SHAPE", SHAPE)


@pytest.fixture
def scans(tmp_path):
    """The whole heads of a folder of three scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, scan in (("a", _scan()), ("b", _scan(stripped=True)), ("c", _scan("qsm"))):
        save_scan(scan, folder / f"{name}.npz")
    return whole_heads(sorted(folder.glob("*.npz")), 1)


def _painter(scans=(), seed=3):
    return Painter([anatomy_of(_head(), CPU)], scans, seed, CPU)


def _train(steps, **options):
    return train([anatomy_of(_head(), CPU)], [], Pace(steps, 5e-3, **options), batch=1)


def _dice(network):
    """Mean Dice on samples of another seed than training's."""
    scores = []
    for number in range(20):
        sample = _painter(seed=99).sample(number)
        with torch.inference_mode():
            found = network(network_input(sample.image[None], sample.coverage[None]))[0] > 0
        found, brain = found & (sample.coverage > 0), sample.brain > 0.5
        scores.append(2 * float((found & brain).sum()) / max(1, int(found.sum() + brain.sum())))
    return np.mean(scores)


def test_a_sample_depends_on_its_number_alone(scans):
    painter = _painter(scans)
    first = painter.sample(5)
    painter.sample(6)
    again = painter.sample(5)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.brain, again.brain)
    assert not torch.equal(first.image, _painter(scans, seed=4).sample(5).image)


def test_samples_are_sound_whatever_is_drawn(scans):
    painter = _painter(scans)
    partial = stripped = 0
    for index in range(60):
        sample = painter.sample(index)
        assert sample.image.shape == sample.brain.shape == sample.coverage.shape == (1, *SHAPE)
        assert torch.isfinite(sample.image).all()
        assert 0 <= sample.brain.min() <= sample.brain.max() <= 1.001
        assert (sample.image[sample.coverage == 0] == 0).all()
        assert (sample.brain[sample.coverage == 0] == 0).all()
        assert sample.coverage.sum() > 0
        partial += bool((sample.coverage == 0).any())
        stripped += bool((sample.image == 0).float().mean() > 0.3)
    assert partial > 10
    assert stripped > 3


def test_most_samples_hold_most_of_the_brain(scans):
    for painter in (_painter(), _painter(scans)):
        volumes = [float(painter.sample(index).brain.sum()) * 8 for index in range(40)]
        assert 0.5 < np.median(volumes) / (4 / 3 * np.pi * 20**3) < 1.5


def test_scans_that_are_stripped_or_masked_are_left_out(scans):
    (scan,) = scans
    assert scan.image.shape == (32, 32, 32)
    assert scan.centre == (15.5, 15.5, 15.5)


def test_a_simulated_scan_keeps_its_own_contrast(scans):
    """The brain of a sample made of the scan is as bright against its skull as the scan's; paint is not."""
    painter = _painter([WholeHead(scans[0].image, scans[0].brain, scans[0].centre)])
    sample = painter._scanned(scans[0])
    inside = sample.image[sample.brain > 0.9]
    ring = sample.image[(sample.brain < 0.01) & (sample.image > 0.02)]
    assert inside.mean() > 2 * ring.quantile(0.2)


def test_training_learns_and_is_seeded():
    once, again = _train(3), _train(3)
    for one, two in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert _dice(_train(20)) > _dice(MaskNet().eval()) + 0.1


def test_an_interrupted_training_goes_on_where_it_was(tmp_path):
    checkpoint = tmp_path / "mask.ckpt"
    _train(4, checkpoint=checkpoint)
    before = checkpoint.stat().st_mtime_ns
    finished = _train(4, checkpoint=checkpoint)
    assert checkpoint.stat().st_mtime_ns == before
    for one, two in zip(finished.parameters(), _train(4).parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_loss_ignores_what_the_scan_does_not_cover():
    brain = torch.zeros(1, 1, 4, 4, 4)
    brain[..., :2, :] = 1
    coverage = torch.ones_like(brain)
    coverage[..., 2:] = 0
    good = (brain - 0.5) * 20
    bad_outside = torch.where(coverage > 0, good, -good)
    torch.testing.assert_close(
        mask_loss(good, brain * coverage, coverage), mask_loss(bad_outside, brain * coverage, coverage)
    )
    assert mask_loss(-good, brain * coverage, coverage) > mask_loss(good, brain * coverage, coverage) + 1


def test_a_release_is_what_the_loader_accepts(tmp_path):
    network = MaskNet().eval()
    write_release(network, tmp_path, heads=["a"], scans=0, training={"steps": 1})
    model = load_mask_model(tmp_path)
    assert model.manifest["training"]["anatomy"] == ["a"]
    for one, two in zip(network.parameters(), model.network.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.usefixtures("scans")
def test_the_command_makes_a_model_that_loads(tmp_path):
    save_head(_head("anatomy of a"), tmp_path / "a.npz")
    arguments = ["brain-mask", "--heads", str(tmp_path / "a.npz"), "--scans", str(tmp_path / "scans")]
    arguments += ["--out", str(tmp_path / "out"), "--steps", "2", "--batch", "1", "--processes", "1"]
    assert main(arguments) == 0
    manifest = json.loads((tmp_path / "out" / "brain-mask.json").read_text())
    assert manifest["training"]["anatomy"] == ["anatomy of a"]
    assert manifest["training"]["scans"] == 1
    assert manifest["training"]["command"].startswith("bids-cmb-train")
    load_mask_model(tmp_path / "out")


def test_a_folder_begun_with_other_settings_is_refused(tmp_path, capsys):
    save_head(_head(), tmp_path / "a.npz")
    arguments = ["brain-mask", "--heads", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out")]
    arguments += ["--batch", "1", "--processes", "1", "--steps"]
    assert main([*arguments, "1"]) == 0
    assert main([*arguments, "2"]) == 2
    assert "other scans or settings" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "message"), [("--heads", "No such head"), ("--scans", "no simulated")])
def test_missing_input_is_a_sentence(tmp_path, capsys, option, message):
    save_head(_head(), tmp_path / "a.npz")
    arguments = {"--heads": str(tmp_path / "a.npz"), "--out": str(tmp_path / "out")}
    arguments[option] = str(tmp_path / "absent")
    assert main(["brain-mask", *(x for pair in arguments.items() for x in pair)]) == 2
    assert message in capsys.readouterr().err

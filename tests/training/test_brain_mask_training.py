"""Training of the mask network on small made-up heads: seeded samples, resume, honest hold-out, release."""

import json

import numpy as np
import pytest
import torch

from bids_cmb.imaging.mask_network import MaskNet, load_mask_model
from bids_cmb.training.brain_mask import anatomies
from bids_cmb.training.brain_mask.__main__ import main
from bids_cmb.training.brain_mask.anatomies import FIRST_OUTER_LABEL, GAP_LABEL, Head
from bids_cmb.training.brain_mask.evaluate import evaluate, summarise
from bids_cmb.training.brain_mask.release import write_release
from bids_cmb.training.brain_mask.synthesis import Painter, to_device
from bids_cmb.training.brain_mask.train import Schedule, mask_loss, train

CPU = torch.device("cpu")
SHAPE = (32, 32, 32)


def _head(name="a", groups=("a",), size=63):
    """Nested spheres of 1 mm voxels: two tissues, a gap, bone, scalp."""
    axis = np.arange(size) - (size - 1) / 2
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(axis, axis, axis, indexing="ij")))
    labels = np.zeros((size,) * 3, np.uint8)
    for reach, value in ((30, 22), (26, FIRST_OUTER_LABEL), (22, GAP_LABEL), (20, 3), (12, 4), (4, 2)):
        labels[radius < reach] = value
    return Head(name, groups, labels)


@pytest.fixture(autouse=True)
def _small_samples(monkeypatch):
    """Samples small enough for a test."""
    original = Painter.__init__
    monkeypatch.setattr(
        Painter, "__init__", lambda self, a, seed, device: original(self, a, seed, device, SHAPE)
    )


def _painter(seed=3):
    return Painter([to_device(_head(), CPU)], seed, CPU)


def test_a_sample_depends_on_its_number_alone():
    painter = _painter()
    first = painter.sample(5)
    painter.sample(6)
    again = painter.sample(5)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.brain, again.brain)
    assert not torch.equal(first.image, _painter(seed=4).sample(5).image)


def test_samples_are_sound_whatever_is_drawn():
    painter = _painter()
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


def test_most_samples_hold_most_of_the_brain():
    painter = _painter()
    volumes = [float(painter.sample(index).brain.sum()) * 8 for index in range(40)]
    assert 0.5 < np.median(volumes) / (4 / 3 * np.pi * 20**3) < 1.5


def test_training_learns_and_is_seeded():
    ready = [to_device(_head(), CPU)]
    schedule = Schedule(steps=20, batch=1, rate=5e-3, seed=1)
    network = train(ready, schedule, CPU)
    short = Schedule(steps=3, batch=1, seed=1)
    once, again = train(ready, short, CPU), train(ready, short, CPU)
    for one, two in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    untrained = evaluate(MaskNet().eval(), ready, 20, CPU)
    assert evaluate(network, ready, 20, CPU).mean > untrained.mean + 0.1


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("bids_cmb.training.brain_mask.train._CHECKPOINT_EVERY", 2)
    ready = [to_device(_head(), CPU)]
    whole = train(ready, Schedule(steps=6, batch=1), CPU)
    checkpoint = tmp_path / "checkpoint.safetensors"
    calls = iter(range(4))

    def until_power_fails(*_):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(*_)

    from bids_cmb.training.brain_mask import train as module

    original = module._update
    monkeypatch.setattr(module, "_update", until_power_fails)
    with pytest.raises(KeyboardInterrupt):
        train(ready, Schedule(steps=6, batch=1), CPU, checkpoint)
    monkeypatch.setattr(module, "_update", original)
    resumed = train(ready, Schedule(steps=6, batch=1), CPU, checkpoint)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_time_limit_ends_the_run():
    network = train([to_device(_head(), CPU)], Schedule(steps=10**6, batch=1, minutes=0.02), CPU)
    assert not network.training


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


def test_summary_figures():
    figures = summarise([0.9] * 50 + [0.98] * 50, "a").as_dict()
    assert figures["images"] == 100
    assert figures["low"] < figures["mean"] == 0.94 < figures["high"]
    assert figures["worst_tenth"] == 0.9


def test_a_release_is_what_the_loader_accepts(tmp_path):
    network = MaskNet().eval()
    write_release(network, tmp_path, version="9", heads=["a"], training={"steps": 1}, held_out=[])
    model = load_mask_model(tmp_path)
    assert model.manifest["version"] == "9"
    for one, two in zip(network.parameters(), model.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_label_maps_travel_in_one_file(tmp_path):
    heads = [_head(), _head("b+a", ("b", "a"))]
    anatomies.save(heads, tmp_path / "maps.npz")
    back = anatomies.load(tmp_path / "maps.npz")
    assert [(h.name, h.groups) for h in back] == [("a", ("a",)), ("b+a", ("b", "a"))]
    assert (back[0].labels > 0).sum() == (heads[0].labels > 0).sum()


def test_hold_out_trains_without_every_map_that_shares_the_head(tmp_path, caplog):
    caplog.set_level("INFO")
    anatomies.save([_head(), _head("b", ("b",)), _head("c+a", ("c", "a"))], tmp_path / "maps.npz")
    arguments = ["train", "--anatomies", str(tmp_path / "maps.npz"), "--out", str(tmp_path / "out")]
    arguments += ["--hold-out", "a", "--steps", "2", "--batch", "1", "--images", "8", "--device", "cpu"]
    status = main(arguments)
    assert status == 0
    assert "training on b\n" in caplog.text
    manifest = json.loads((tmp_path / "out" / "brain-mask.json").read_text())
    (figures,) = manifest["figures"]["held_out_heads"]
    assert figures["head"] == "a"
    assert manifest["trained_on"]["label_maps"] == ["a", "b", "c+a"]


def test_an_unknown_head_to_hold_out_is_an_error(tmp_path, caplog):
    anatomies.save([_head()], tmp_path / "maps.npz")
    arguments = [
        "train",
        "--anatomies",
        str(tmp_path / "maps.npz"),
        "--out",
        str(tmp_path),
        "--hold-out",
        "x",
    ]
    assert main(arguments) == 2
    assert "there are a" in caplog.text


def test_gif_labels_become_ours(tmp_path):
    import nibabel as nib

    ids = np.zeros((60, 60, 60), np.uint8)
    ids[5:55, 5:55, 5:55] = 3
    ids[8:52, 8:52, 8:52] = 4
    ids[12:48, 12:48, 12:48] = 150
    ids[20:40, 20:40, 20:40] = 45
    ids[28:32, 28:32, 28:32] = 52
    nib.save(nib.Nifti1Image(ids, np.eye(4)), tmp_path / "gif.nii.gz")
    labels = anatomies._gif_labels(tmp_path / "gif.nii.gz")
    assert labels[30, 30, 30] == 2
    assert labels[22, 22, 22] == 4
    assert labels[14, 30, 30] == 3
    assert labels[9, 30, 30] == GAP_LABEL
    assert labels[6, 30, 30] == 19
    assert labels[0, 0, 0] == 0


def test_intensity_groups_and_borrowed_outer_tissue():
    head = _head()
    levels = np.zeros(256, np.float32)
    levels[[2, 3, 4, GAP_LABEL, FIRST_OUTER_LABEL, 22]] = (20, 70, 100, 10, 5, 130)
    noise = np.random.default_rng(0).normal(0, 1, head.labels.shape)
    image = np.where(head.labels > 0, levels[head.labels] + noise, 0).astype(np.float32)
    brain = (head.labels > 0) & (head.labels < FIRST_OUTER_LABEL)
    labels = anatomies.labels_from_intensity(image, brain)
    assert ((labels > 0) & (labels < FIRST_OUTER_LABEL)).sum() == brain.sum()
    assert labels[31, 31, 31] == 1
    assert (labels[(head.labels == GAP_LABEL)] == GAP_LABEL).mean() > 0.3
    assert labels[0, 0, 0] == 0
    small = np.where(head.labels == 4, 4, 0).astype(np.uint8)
    merged = anatomies._with_outer(small, labels)
    assert merged[31, 31, 31 + 16] == GAP_LABEL
    assert (merged >= FIRST_OUTER_LABEL).any()

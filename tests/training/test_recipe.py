"""The training itself, in miniature: made-up scans, a handful of steps."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_cmb.detector.networks import CandidateNet, Student
from bids_cmb.detector.probability import Calibration, probabilities
from bids_cmb.detector.weights import load_model
from bids_cmb.errors import BidsCmbError, InputError, ModelError, UsageError
from bids_cmb.training.calibrate import (
    FALSE_PER_SCAN,
    choose_candidate_threshold,
    fit_calibration,
    fit_contrast,
)
from bids_cmb.training.cubes import CubePool
from bids_cmb.training.loop import Pace
from bids_cmb.training.parallel import arrays_of_all, average_gradients, train_together
from bids_cmb.training.prepared import load_prepared, save_prepared
from bids_cmb.training.recipe import (
    Recipe,
    averaged,
    collect_all,
    earlier_anatomy,
    earlier_networks,
    known_subjects,
    train_model,
)
from bids_cmb.training.samples import Target, TrainingScan, training_scan
from bids_cmb.training.scan_candidates import ScanCandidates, label_peaks
from bids_cmb.training.stage1 import STAGE1_RATE, train_candidates
from bids_cmb.types import CONTRASTS, Contrast

SPACING = (1.5, 1.5, 3.0)


def made_up(contrast: Contrast = "gre", seed: int = 0) -> TrainingScan:
    """A box of tissue with three dark (or, on QSM, bright) balls; one more lies outside the brain mask."""
    rng = np.random.default_rng(seed)
    shape = (72, 80, 30)
    affine = np.diag([*SPACING, 1.0])
    grid = np.stack(
        np.meshgrid(*[np.arange(n) * d for n, d in zip(shape, SPACING, strict=True)], indexing="ij"), -1
    )
    mask = np.zeros(shape, bool)
    mask[6:-6, 6:-6, 2:-2] = True
    places = [tuple(rng.uniform((20, 20, 15), (80, 90, 70))) for _ in range(3)]
    balls = sum(np.exp(-0.5 * (np.linalg.norm(grid - p, axis=-1) / 1.8) ** 2) for p in places)
    clean, sign = (0.0, 0.5) if contrast == "qsm" else (100.0, -70.0)
    image = (clean + sign * balls + rng.normal(0, 0.02 * abs(sign), shape)) * mask
    targets = [Target(p, 4.0, True) for p in [*places, (1.5, 1.5, 3.0)]]  # type: ignore[arg-type]
    return training_scan(
        f"{contrast}{seed}",
        contrast,
        image.astype(np.float32),
        affine,
        mask,
        targets,
        (balls > 0.5).astype(np.uint8),
        seed=seed,
    )


def test_a_lesion_that_the_mask_cut_away_is_not_taught() -> None:
    assert len(made_up().lesions) == 3


def box_of_tissue(targets: list[Target]) -> TrainingScan:
    shape = (72, 80, 30)
    mask = np.zeros(shape, bool)
    mask[6:-6, 6:-6, 2:-2] = True
    image = np.where(mask, 100.0, 0.0).astype(np.float32)
    return training_scan(
        "box", "gre", image, np.diag([*SPACING, 1.0]), mask, targets, np.zeros(shape, np.uint8), seed=1
    )


def at(scan: TrainingScan, *mm: float) -> tuple[int, ...]:
    """Working voxel of a place in the world of `box_of_tissue`."""
    voxel = torch.tensor([[x / d for x, d in zip(mm, SPACING, strict=True)]])
    return tuple(scan.grid.working_voxels(voxel)[0].round().int().tolist())


def test_what_is_left_of_a_lesion_that_the_mask_cut_away_is_no_other_thing() -> None:
    scan = box_of_tissue([Target((7.5, 60.0, 45.0), 4.0, True), Target((-400.0, 60.0, 45.0), 4.0, True)])
    assert len(scan.lesions) == 0
    assert len(scan.ignored) == len(scan.ignored_diameters) == 2
    rest = at(scan, 9.5, 60.0, 45.0)
    assert not scan.weight[rest]
    assert scan.weight[at(scan, 40.0, 60.0, 45.0)]
    labels, _ = label_peaks(np.array([rest, at(scan, 40.0, 60.0, 45.0)]), scan)
    assert labels.tolist() == [-1, 0]


def test_a_lesion_that_does_not_count_hides_no_neighbour() -> None:
    scan = box_of_tissue([Target((40.0, 60.0, 45.0), 4.0, True), Target((44.0, 60.0, 45.0), 5.0, False)])
    assert scan.weight[at(scan, 40.0, 60.0, 45.0)]
    assert not scan.weight[at(scan, 44.0, 60.0, 45.0)]


def test_a_prepared_scan_survives_its_file(tmp_path: Path) -> None:
    scan = made_up("qsm")
    save_prepared(scan, tmp_path / "one.safetensors")
    kept = load_prepared(tmp_path / "one.safetensors")
    for field in fields(TrainingScan):
        one, other = getattr(scan, field.name), getattr(kept, field.name)
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else np.array_equal(one, other)
        assert same, field.name
    save_prepared(box_of_tissue([]), tmp_path / "one.safetensors")
    nothing = load_prepared(tmp_path / "one.safetensors")
    assert len(nothing.lesions) == len(nothing.ignored) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["one.safetensors"]


@pytest.fixture
def data() -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


def one_step(data: torch.Tensor, ranks: int) -> torch.Tensor:
    def train(rank: int) -> torch.nn.Linear:
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 1)
        network(data.chunk(ranks)[rank]).square().mean().backward()
        average_gradients(network)
        torch.optim.SGD(network.parameters(), 0.1).step()
        return network

    return train_together(train, ranks, torch.nn.Linear(3, 1)).weight.detach()


def test_processes_share_a_step_as_one_would_do_it(data: torch.Tensor) -> None:
    shared = one_step(data, 2)  # before the other: forked processes must not inherit a backward pass
    assert torch.allclose(shared, one_step(data, 1), atol=1e-6)


def test_a_process_that_fails_stops_the_training(capfd: pytest.CaptureFixture[str]) -> None:
    def train(rank: int) -> torch.nn.Linear:
        raise RuntimeError(f"rank {rank} is out of luck")

    with pytest.raises(BidsCmbError, match="resumes"):
        train_together(train, 2, torch.nn.Linear(3, 1))
    assert "out of luck" in capfd.readouterr().err


def test_work_shared_out_comes_back_in_order() -> None:
    made = arrays_of_all(lambda i: {"square": np.array([i * i])}, 5, 2)
    assert [int(x["square"][0]) for x in made] == [0, 1, 4, 9, 16]


def test_candidates_are_the_same_from_one_process_or_two() -> None:
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    torch.manual_seed(0)
    network = CandidateNet(2, (4, 4, 4, 4)).eval()
    recipe = Recipe("tiny", candidate_threshold=0.0, processes=2)
    shared = collect_all(recipe, network, scans, add_missed=True)
    alone = collect_all(replace(recipe, processes=1), network, scans, add_missed=True)
    for one, other in zip(shared, alone, strict=True):
        assert len(one.labels) > 0
        assert torch.equal(one.cubes, other.cubes)
        assert torch.equal(one.labels, other.labels)
        assert one.missed == other.missed


def test_a_checkpoint_of_the_last_step_is_the_result(tmp_path: Path) -> None:
    scans, pace = [made_up()], Pace(3, STAGE1_RATE, checkpoint=tmp_path / "c")
    steps: list[int] = []
    first = train_candidates(scans, pace, seed=1, batch=1, report=lambda s, _: steps.append(s))
    again = train_candidates(scans, pace, seed=1, batch=1, report=lambda s, _: steps.append(s))
    assert len(steps) == 3
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_recipe_ends_in_a_model_that_loads(tmp_path: Path) -> None:
    recipe = Recipe(
        "tiny", stage1_steps=2, teacher_steps=1, student_steps=1, students=2, candidate_threshold=0.0
    )
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    manifest = train_model(
        recipe,
        scans[:2],
        scans,
        tmp_path / "tiny",
        trained_on=["a box"],
        subjects={"raw/sub-1"},
        command="none",
    )
    model = load_model(str(manifest))
    assert known_subjects(model) == {"raw/sub-1"}
    assert model.name == "tiny"
    assert set(model.thresholds) == set(CONTRASTS)
    for other, shown in ((replace(recipe, seed=2), scans[:2]), (recipe, scans[1:2])):
        with pytest.raises(UsageError, match="other scans or settings"):
            train_model(other, shown, scans, tmp_path / "tiny", trained_on=[], command="none")
    assert earlier_anatomy(tmp_path / "tiny") == {"a box"}
    assert earlier_anatomy(None) == set()
    # A training that goes on from it begins with its networks.
    on = replace(recipe, continued_from=str(tmp_path / "tiny"))
    earlier = earlier_networks(on)
    assert earlier.teacher is not None
    for one, other in ((model.candidate_net, earlier.stage1), (model.student, earlier.student)):
        assert other is not None
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    for other_state in ({}, {"classifier.place.0.bias": torch.zeros(3)}):
        torch.save({"average": other_state}, tmp_path / "tiny" / "teacher.ckpt")
        with pytest.raises(InputError, match="another network"):
            earlier_networks(on)


def test_students_without_a_teacher_begin_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Student] = []

    def began(_pool: object, _teacher: object, _pace: object, *, start: Student, **_: object) -> Student:
        begun.append(copy.deepcopy(start))
        return copy.deepcopy(start).eval()

    monkeypatch.setattr("bids_cmb.training.recipe.train_student", began)
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    recipe = Recipe("tiny", 1, 1, 1, 1, candidate_threshold=0.0, students=2, distil=False)
    train_model(recipe, scans, scans, tmp_path / "m", trained_on=[], command="none")
    one, other = (student.state_dict() for student in begun)
    assert all(map(torch.equal, one.values(), other.values()))


def test_the_weights_of_students_are_averaged() -> None:
    one, other = Student(), Student()
    mean = averaged([one, other])
    for a, b, c in zip(*(x.state_dict().values() for x in (one, other, mean)), strict=True):
        torch.testing.assert_close(c, (a + b) / 2 if a.is_floating_point() else a)


def test_what_is_learnt_is_averaged_with_what_it_began_with(tmp_path: Path) -> None:
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    recipe = Recipe("tiny", stage1_steps=1, teacher_steps=1, student_steps=1, candidate_threshold=0.0)
    before = load_model(
        train_model(recipe, scans[:2], scans, tmp_path / "before", trained_on=[], command="none")
    )
    on = replace(recipe, seed=2, continued_from=str(tmp_path / "before"), averaged_with_start=True)
    after = load_model(train_model(on, scans[:2], scans, tmp_path / "after", trained_on=[], command="none"))
    learnt = torch.load(tmp_path / "after" / "student.ckpt", weights_only=True)["average"]
    name = "classifier.place.0.weight"
    one, other, mean = before.student.state_dict()[name], learnt[name], after.student.state_dict()[name]
    assert not torch.equal(one, other)
    torch.testing.assert_close(mean, (one + other) / 2)


def test_how_long_a_training_took_is_said_where_it_is_known(tmp_path: Path) -> None:
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    recipe = Recipe("tiny", stage1_steps=0, teacher_steps=1, student_steps=1, candidate_threshold=0.0)
    for known in (True, False):  # the second time, all is there
        manifest = train_model(recipe, scans[:2], scans, tmp_path, trained_on=[], command="none")
        assert (load_model(manifest).card["training"]["seconds"] is not None) == known


def test_a_training_goes_on_from_a_finished_model(tmp_path: Path) -> None:
    scans = [made_up(c, s) for s, c in enumerate(CONTRASTS)]
    recipe = Recipe("tiny", stage1_steps=1, teacher_steps=1, student_steps=1, candidate_threshold=0.0)
    manifest = train_model(recipe, scans[:2], scans, tmp_path, trained_on=["a box"], command="none")
    for checkpoint in tmp_path.glob("*.ckpt"):
        checkpoint.unlink()
    model = load_model(manifest)
    for named in (tmp_path, manifest):
        assert earlier_anatomy(named) == {"a box"}
        earlier, again = (earlier_networks(replace(recipe, continued_from=str(named))) for _ in "12")
        assert earlier.stage1 is not None
        assert earlier.teacher is not None
        assert again.teacher is not None
        assert earlier.student is not None
        for one, other in (
            (model.candidate_net, earlier.stage1),
            (model.student, earlier.student),
            (model.student.features, earlier.teacher.features),
            (model.student.classifier, earlier.teacher.classifier),
            (again.teacher, earlier.teacher),
        ):
            assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    manifest.unlink()
    with pytest.raises(ModelError, match="0 manifests"):
        earlier_networks(replace(recipe, continued_from=str(tmp_path)))


@pytest.mark.parametrize(
    ("label", "words"), [(1, "3 microbleeds and 0 other"), (0, "0 microbleeds and 3 other")]
)
def test_candidates_of_one_kind_end_in_a_sentence(label: int, words: str) -> None:
    cubes, labels = torch.zeros(3, 6, 4, 4, 2), torch.full((3,), label)
    found = ScanCandidates(made_up(), cubes, cubes[:, :1], torch.zeros(3, 8), torch.ones(3), labels, 0)
    with pytest.raises(InputError, match=rf"{words} candidates .*--stage1-steps"):
        CubePool.of([found])


def test_probabilities_are_shares() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(-1, 3, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(np.int64)
    fitted = fit_calibration(logits, labels)
    probability = 1 / (1 + np.exp(-(fitted.scale * logits + fitted.offset)))
    near = (probability > 0.6) & (probability < 0.8)
    assert labels[near].mean() == pytest.approx(0.7, abs=0.08)
    for neither in (np.zeros_like(labels), labels[:0]):
        assert fit_calibration(logits[: len(neither)], neither) == Calibration(1.0, 0.0)


def test_a_contrast_is_calibrated_scan_by_scan() -> None:
    rng = np.random.default_rng(1)
    labels = [(rng.random(40) < share).astype(np.int64) for share in (0.05, 0.1, 0.5, 0.6) * 5]
    logits = [rng.normal(np.where(y == 1, 1.5, -1.5), 1.7) for y in labels]
    labels = [np.where(rng.random(40) < 0.1, -1, y) for y in labels]
    fitted = fit_contrast([*logits, np.zeros(0)], [*labels, np.zeros(0, np.int64)])
    calibration = fitted.calibration
    every = [probabilities(z, replace(calibration, prevalence=None)) for z in logits]
    assert calibration.prevalence == pytest.approx(np.concatenate(every).mean())
    p = np.concatenate([probabilities(z, calibration) for z in logits])
    y = np.concatenate(labels)
    assert fitted.false == ((p >= fitted.threshold) & (y == 0)).sum() <= FALSE_PER_SCAN * 21  # scans
    assert fitted.found == ((p >= fitted.threshold) & (y == 1)).sum() > 0.38 * (y == 1).sum()
    assert fitted.brier == pytest.approx(np.mean((p - y)[y >= 0] ** 2), abs=1e-4)
    assert fitted.brier < np.mean((np.concatenate(every) - y)[y >= 0] ** 2)
    assert fit_contrast([], []).brier is None


def test_the_candidate_threshold_keeps_nearly_all_that_was_found() -> None:
    heights = np.linspace(0.0, 1.0, 201)
    labels = (heights > 0.5).astype(np.int64)
    chosen = choose_candidate_threshold(heights, labels, 1, least=0.06)
    assert (heights[labels == 1] >= chosen).mean() >= 0.99
    assert chosen > 0.5
    assert (heights >= choose_candidate_threshold(heights, labels, 3, least=0.06)).sum() == 145  # 48 a scan
    assert choose_candidate_threshold(heights, labels, 9, least=0.06) == 0.06
    assert choose_candidate_threshold(heights, np.zeros_like(labels), 1, least=0.06) == 0.06

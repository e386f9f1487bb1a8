"""Stand-ins for the rooms that need weights or time, importable in worker processes.

A dark spot in the image is a microbleed. Names of scans ask for trouble: ``acq-crash`` raises, ``acq-die`` kills
its process, ``acq-slow`` takes a minute.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bids_cmb.errors import ModelError
from bids_cmb.files import write_text
from bids_cmb.imaging.volume import load_image as _real_load_image
from bids_cmb.types import Anatomy, Candidate, Detection, Prepared, mars_label

THRESHOLD = 0.5


@dataclass(frozen=True)
class FakeModel:
    name: str = "fake"
    version: str = "1"
    sha256: str = "0" * 64
    candidate_threshold: float = 0.1
    card: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("swi", "gre", "qsm"), THRESHOLD)
    )
    definite: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("swi", "gre", "qsm"), 0.8))

    def at(self, threshold: float) -> FakeModel:
        return replace(self, thresholds=dict.fromkeys(self.thresholds, threshold))


def load_model(name: str | None) -> FakeModel:
    if name == "nosuch":
        raise ModelError("There is no model 'nosuch'.")
    if name == "recalibrated":
        return FakeModel(card={"calibration": "new"})
    return FakeModel(sha256=(name or "0") * 64)


def prepare(volume: Any, contrast: str, *, brain_mask: Any = None, metadata: Any = None) -> Prepared:
    del metadata
    mask = brain_mask if brain_mask is not None else ndimage.binary_fill_holes(volume.data > 10)
    method = "given" if brain_mask is not None else "support" if contrast == "qsm" else "thresholds"
    return Prepared(volume, np.asarray(mask), 21.5, method, ("Simulated warning.",))


def detect(image: Any, mask: Any, contrast: str, model: FakeModel, *, device: str) -> Detection:
    del contrast, device
    labels, count = ndimage.label((image.data < 100) & mask)
    candidates = []
    for index in range(1, count + 1):
        voxels = np.argwhere(labels == index)
        place = image.affine[:3, :3] @ voxels.mean(0) + image.affine[:3, 3]
        probability = round(0.95 - 0.25 * (index - 1), 4)
        volume = len(voxels) * image.voxel_volume
        candidates.append(
            Candidate(
                index=index,
                position=(float(place[0]), float(place[1]), float(place[2])),
                stage1_score=0.9,
                stage2_probability=probability,
                probability=probability,
                volume=volume,
                diameter=(6 * volume / np.pi) ** (1 / 3),
                contrast=0.9,
                elongation=1.2,
                fate="accepted" if probability >= model.thresholds["gre"] else "stage2",
            )
        )
    return Detection(tuple(candidates), labels.astype(np.int32))


def locate(image: Any, mask: Any, contrast: str, *, t1w: Any = None, finer: bool = False) -> Anatomy:
    del contrast, finer
    world_x = image.affine[0, 0] * np.arange(image.data.shape[0]) + image.affine[0, 3]
    sides = np.where(world_x < 0, mars_label("F", "L"), mars_label("F", "R"))
    mars = np.where(mask, sides[:, None, None], 0).astype(np.int32)
    return Anatomy(mars, np.eye(4), {}, {"similarity": 0.7, "t1w_used": float(t1w is not None)})


def assign_regions(detection: Detection, anatomy: Anatomy, image: Any) -> Detection:
    del anatomy, image
    placed = tuple(
        replace(
            c,
            mars_region="F",
            mars_category="lobar",
            hemisphere="L" if c.position[0] < 0 else "R",
            mni=c.position,
            flags=("border:P", "edge"),
        )
        for c in detection.candidates
    )
    return Detection(placed, detection.labels)


def clean_up(detection: Detection, mask: Any, zones: Any, contrast: str, model: FakeModel) -> Detection:
    del mask, zones
    graded = tuple(
        replace(c, certainty="definite" if c.probability >= model.definite[contrast] else "possible")
        for c in detection.candidates
    )
    return Detection(graded, detection.labels)


def write_subject_page(
    output_dir: Path, subject: str, *, bids_dir: Path | None, viewer: bool = False
) -> Path:
    del bids_dir, viewer
    page = output_dir / f"sub-{subject}.html"
    write_text(page, f"<title>sub-{subject}</title>")
    return page


def write_group_page(output_dir: Path) -> Path:
    page = output_dir / "group_cmb.html"
    page.write_text("<title>group</title>")
    return page


def choose_device(wanted: str) -> str:
    return "cpu" if wanted == "auto" else wanted


def load_image(path: Path, *, constant: bool = False) -> Any:
    if "acq-crash" in path.name:
        raise RuntimeError("library bug\nsecond line")
    if "acq-die" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "acq-slow" in path.name:
        time.sleep(60)
    return _real_load_image(path, constant=constant)


_ROOMS: dict[str, tuple[Callable[..., Any], ...]] = {
    "detector.weights": (load_model,),
    "detector.devices": (choose_device,),
    "detector.pipeline": (detect,),
    "detector.cleanup": (clean_up,),
    "anatomy.locate": (locate,),
    "anatomy.mars": (assign_regions,),
    "imaging.prepare": (prepare,),
    "report.subject": (write_subject_page,),
    "report.group": (write_group_page,),
}


def install(put: Callable[[dict[str, Any], str, Any], None]) -> None:
    """Put the stand-ins where the main job imports the rooms from; `put` sets one item of a dictionary."""
    for name, functions in _ROOMS.items():
        module = types.ModuleType(f"bids_cmb.{name}")
        for function in functions:
            setattr(module, function.__name__, function)
        put(sys.modules, module.__name__, module)
    import bids_cmb.imaging.volume as volume

    put(sys.modules, "bids_cmb.imaging.volume", _with(volume, load_image))


def _with(module: types.ModuleType, function: Callable[..., Any]) -> types.ModuleType:
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__)
    setattr(copy, function.__name__, function)
    return copy


def work(job: Any) -> Any:
    """Do one job with the stand-ins, in a worker process."""
    from bids_cmb.participant import work as real_work

    if "fake" not in _installed:
        install(lambda modules, name, module: modules.__setitem__(name, module))
        _installed.add("fake")
    return real_work(job)


_installed: set[str] = set()


def complete_scans(out: Path) -> list[Path]:
    """The sidecars that say of a scan that it is complete; all its files must be there."""
    found = []
    for path in out.glob("sub-*/**/*_seg-CMB_dseg.json"):
        stem = path.name.removesuffix("seg-CMB_dseg.json")
        present = {other.name.removeprefix(stem) for other in path.parent.glob(f"{stem}*")}
        assert present >= _FILES, f"{path} without {_FILES - present}"
        found.append(path)
    return found


def unfinished(folder: Path) -> list[Path]:
    """Temporary files that were left."""
    return [path for path in folder.rglob(".*") if path.name != ".bidsignore"]


_FILES = {
    f"{name}{extension}"
    for name, extensions in {
        "desc-brain_mask": (".nii.gz", ".json"),
        "label-CMB_probseg": (".nii.gz", ".json"),
        "label-CMB_mask": (".nii.gz", ".json"),
        "seg-CMB_dseg": (".nii.gz", ".json", ".tsv"),
        "seg-candidates_dseg": (".nii.gz", ".json", ".tsv"),
        "seg-MARS_dseg": (".nii.gz", ".json"),
    }.items()
    for extension in extensions
}

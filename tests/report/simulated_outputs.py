"""Write output folders as the contract has them, from simulated scans, for the report's tests and benchmark.

The head is nilearn's bundled MNI152 template (grey and white matter maps) given a T2*-like or susceptibility-like
contrast, with simulated veins, noise and microbleeds. Nothing here stands for a real person.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.bids.tables import CANDIDATE_COLUMNS, LESION_COLUMNS
from bids_cmb.types import MARS_REGIONS, Contrast, mars_label

Array = npt.NDArray[Any]
SUFFIX = {"gre": "T2starw", "swi": "T2starw", "qsm": "Chimap"}
FATES = ("stage2", "vessel", "edge", "calcification", "contrast")


@dataclass(frozen=True)
class Case:
    """What to simulate: one scan of one subject."""

    contrast: Contrast = "gre"
    n_cmb: int = 3
    session: str | None = None
    acq: str | None = None
    seed: int = 0
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0)
    warnings: tuple[str, ...] = ()
    sidecar: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=4)
def head(spacing: tuple[float, float, float]) -> tuple[Array, Array, Array, Array]:
    """Return grey matter, white matter, brain mask and affine on a grid of this spacing (mm)."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    grey, white = load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1)
    mask = load_mni152_brain_mask(resolution=1)
    factor = [1 / s for s in spacing]
    maps = [
        ndimage.zoom(np.asarray(image.dataobj, dtype=np.float32), factor, order=1)
        for image in (grey, white, mask)
    ]
    shape = maps[0].shape
    start = grey.affine[:3, 3]
    steps = np.array([size / new for size, new in zip(grey.shape, shape, strict=True)])
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = start + (steps - 1) / 2
    brain = ndimage.binary_fill_holes(ndimage.binary_opening(maps[2] > 0.5))
    return maps[0] / max(maps[0].max(), 1), maps[1] / max(maps[1].max(), 1), brain, affine


def mars_labels(spacing: tuple[float, float, float]) -> Array:
    """Return a rough MARS map on the head: ellipsoids and planes in MNI millimetres, enough to draw borders of."""
    _, white, brain, affine = head(spacing)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in brain.shape], indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(grid @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    side = np.abs(x)

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> Array:
        return ((side - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1

    regions = [
        ("F", brain),
        ("P", brain & (y < -22) & (z > 10)),
        ("O", brain & (y < -68)),
        ("T", brain & (z < 6 - 0.25 * (y + 20)) & (y < 12) & (y > -68) & (side > 22)),
        ("DPWM", brain & (white > 0.4) & ball(18, -15, 18, 20, 58, 22)),
        ("Cc", brain & ball(0, -8, 18, 9, 42, 16) & (white > 0.3)),
        ("I", brain & ball(37, 4, 2, 6, 22, 16)),
        ("Ec", brain & ball(31, 3, 2, 4, 20, 15)),
        ("Bg", brain & ball(20, 6, 2, 12, 20, 14)),
        ("Ic", brain & ball(18, -6, 6, 5, 16, 12)),
        ("Th", brain & ball(9, -18, 6, 10, 14, 9)),
        ("C", brain & (z < -14) & (y < -42) & (z < -8 + 0.3 * (y + 60))),
        ("B", brain & ball(0, -28, -28, 16, 14, 32)),
    ]
    labels = np.zeros(brain.shape, dtype=np.uint8)
    for code, where in regions:
        for hemisphere, half in (("L", x < 0), ("R", x >= 0)):
            labels[where & half] = mars_label(code, hemisphere)  # type: ignore[arg-type]
    return labels


def simulate(case: Case) -> tuple[Array, Array, list[dict[str, Any]], Array, list[dict[str, Any]]]:
    """Return image, microbleed labels and rows, candidate labels and rows of a case."""
    rng = np.random.default_rng(case.seed)
    grey, white, brain, affine = head(case.spacing)
    steps = np.diag(affine)[:3]
    if case.contrast == "qsm":
        image = np.where(brain, 0.05 * grey - 0.03 * white, 0.0)
        noise, depth, vein = 0.012, 0.45, 0.18
    else:
        image = np.where(brain, 150 - 32 * white - 18 * grey, 0.0)
        noise, depth, vein = 3.0, -105.0, -60.0
    image += vein * _veins(rng, brain, steps)
    mars = mars_labels(case.spacing)
    inner = ndimage.binary_erosion(brain, iterations=max(1, round(4 / steps[0])))
    places = _places(rng, inner, affine, case.n_cmb + 12)
    labels, candidates = np.zeros(brain.shape, np.uint16), np.zeros(brain.shape, np.uint16)
    found, rows = [], []
    for number, place in enumerate(places, start=1):
        real = number <= case.n_cmb
        radius = float(np.exp(rng.normal(1.07, 0.3))) / 2
        blob = _blob(brain.shape, affine, place, max(radius, steps[0] * 0.75))
        image += depth * (1 if real else 0.45) * blob * brain
        inside = (blob > 0.45) & brain
        probability = round(float(np.clip(0.99 - 0.55 * (number / max(case.n_cmb, 1)) ** 1.5, 0.4, 1)), 3)
        row = _row(number, place, inside, mars, affine, probability if real else 0.0, radius)
        row["stage1_score"] = round(float(rng.uniform(0.3, 0.9)), 3)
        row["stage2_probability"] = probability if real else round(float(rng.uniform(0.02, 0.39)), 3)
        row["fate"] = "accepted" if real else FATES[number % len(FATES)]
        rows.append(row)
        candidates[inside] = number
        if real:
            labels[inside] = number
            found.append(row)
    image += rng.normal(0, noise, brain.shape) * (brain if case.contrast == "qsm" else 1)
    if case.contrast != "qsm":
        image = np.abs(image)
    return image.astype(np.float32), labels, found, candidates, rows


def _veins(rng: np.random.Generator, brain: Array, steps: Array) -> Array:
    """Return thin bright tubes of 0..1 that wander through the brain."""
    canvas = np.zeros(brain.shape, dtype=np.float32)
    inside = np.argwhere(brain)
    for _ in range(60):
        point = inside[rng.integers(len(inside))].astype(float)
        heading = rng.normal(size=3)
        for _ in range(60):
            heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.15, 3)
            point = point + heading / steps
            voxel = tuple(np.rint(point).astype(int))
            if not all(0 <= v < n for v, n in zip(voxel, brain.shape, strict=True)) or not brain[voxel]:
                break
            canvas[voxel] = 1
    return np.clip(ndimage.gaussian_filter(canvas, 0.45) * 2, 0, 1)


def _places(rng: np.random.Generator, inside: Array, affine: Array, count: int) -> list[Array]:
    """Draw places at least 9 mm apart, world mm."""
    voxels = np.argwhere(inside)
    places: list[Array] = []
    for _ in range(4000):
        place = affine[:3, :3] @ voxels[rng.integers(len(voxels))] + affine[:3, 3]
        if all(np.linalg.norm(place - other) > 9 for other in places):
            places.append(place)
        if len(places) == count:
            break
    return places


def _blob(shape: Sequence[int], affine: Array, place: Array, radius: float) -> Array:
    """Return a smooth ball of 0..1."""
    steps = np.diag(affine)[:3]
    axes = [np.arange(n) * step + start for n, step, start in zip(shape, steps, affine[:3, 3], strict=True)]
    squares = [
        (((axis - p) / max(radius, 0.6 * s)) ** 2).astype(np.float32)
        for axis, p, s in zip(axes, place, steps, strict=True)
    ]
    return np.exp(-0.7 * (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]))


def _row(
    number: int, place: Array, inside: Array, mars: Array, affine: Array, probability: float, radius: float
) -> dict[str, Any]:
    voxel = tuple(np.rint(np.linalg.solve(affine, [*place, 1])[:3]).astype(int))
    label = int(mars[voxel])
    code, _, category = MARS_REGIONS[max(label % 100, 1) - 1]
    return {
        "index": number,
        "name": "CMB",
        "probability": probability,
        "certainty": "definite" if probability >= 0.7 else "possible",
        "mars_region": code,
        "mars_category": category,
        "hemisphere": "R" if label > 100 else "L",
        **{axis: round(float(v), 2) for axis, v in zip("xyz", place, strict=True)},
        **{f"{axis}_mni": round(float(v), 1) for axis, v in zip("xyz", place, strict=True)},
        "volume": round(float(inside.sum() * abs(np.linalg.det(affine[:3, :3]))), 2),
        "diameter": round(2 * radius, 2),
        "contrast": 0.52,
        "elongation": 1.31,
        "flags": "border:P" if number % 7 == 3 else "n/a",
    }


def write_scan(output_dir: Path, bids_dir: Path, subject: str, case: Case) -> str:
    """Write one scan's source image and outputs; return its BIDS URI."""
    image, labels, found, candidates, rows = simulate(case)
    _, _, brain, affine = head(case.spacing)
    suffix = SUFFIX[case.contrast]
    parts = [f"sub-{subject}"] + ([f"ses-{case.session}"] if case.session else [])
    folder = Path(*parts, "anat")
    acq = case.acq or ("swi" if case.contrast == "swi" else None)
    name = "_".join(parts + ([f"acq-{acq}"] if acq else []))
    source = bids_dir / folder / f"{name}_{suffix}.nii.gz"
    source.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, affine), source)
    uri = f"bids:raw:{(folder / source.name).as_posix()}"
    stem = output_dir / folder / f"{name}_space-{suffix}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    sidecar = {
        "Description": "Simulated microbleeds.",
        "Sources": [uri],
        "SpatialReference": uri,
        "Contrast": case.contrast,
        "Warnings": list(case.warnings),
        **case.sidecar,
    }
    images = {
        "desc-brain_mask": brain.astype(np.uint8),
        "label-CMB_mask": (labels > 0).astype(np.uint8),
        "seg-CMB_dseg": labels,
        "seg-candidates_dseg": candidates,
        "seg-MARS_dseg": mars_labels(case.spacing),
    }
    for ending, data in images.items():
        nib.save(nib.Nifti1Image(data, affine), stem.with_name(f"{stem.name}_{ending}.nii.gz"))
        stem.with_name(f"{stem.name}_{ending}.json").write_text(json.dumps(sidecar), encoding="utf-8")
    write_tsv(stem.with_name(f"{stem.name}_seg-CMB_dseg.tsv"), LESION_COLUMNS, found)
    write_tsv(stem.with_name(f"{stem.name}_seg-candidates_dseg.tsv"), CANDIDATE_COLUMNS, rows)
    return uri


def write_dataset(root: Path, subjects: dict[str, Sequence[Case]]) -> tuple[Path, Path]:
    """Write a raw dataset and its outputs under `root`; return (bids_dir, output_dir)."""
    bids_dir, output_dir = root / "raw", root / "out"
    for folder in (bids_dir, output_dir):
        folder.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "bids_cmb results",
        "BIDSVersion": "1.11.1",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "bids_cmb", "Version": "0.1.0"}],
        "DatasetLinks": {"raw": str(bids_dir)},
    }
    (output_dir / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    for subject, cases in subjects.items():
        for case in cases:
            write_scan(output_dir, bids_dir, subject, case)
    return bids_dir, output_dir


def write_tsv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write a table as the contract has it."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(str(row.get(column, "n/a")) for column in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

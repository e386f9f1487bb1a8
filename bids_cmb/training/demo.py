"""A small simulated BIDS dataset to try the command on, and a comparison of what was found with what was planted."""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.evaluation.matching import match_scan
from bids_cmb.files import write_json
from bids_cmb.training.simulate.heads import shipped_head
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.scan import SimulatedScan, simulate_session
from bids_cmb.types import Contrast

#: Fine grid of the demo, mm: coarser than in training, for speed.
_SPACING = 0.8
_SUFFIX: dict[Contrast, str] = {"swi": "acq-swi_T2starw", "gre": "T2starw", "qsm": "Chimap"}


@dataclass(frozen=True)
class DemoSubject:
    """One subject of the demo: label, number of microbleeds and protocols."""

    label: str
    seed: int
    count: int
    protocols: tuple[Protocol, ...]


SUBJECTS: tuple[DemoSubject, ...] = (
    DemoSubject(
        "01",
        9012,
        6,
        (
            Protocol("swi", (0.8, 0.8, 2.0), 1.0, True, 0.020, 3.0, 22.0, True, (6.0, 2.0, 1.0)),
            Protocol("qsm", (0.8, 0.8, 2.0), 1.0, True, 0.020, 3.0, 45.0, True, (6.0, 2.0, 1.0)),
        ),
    ),
    DemoSubject(
        "02",
        9002,
        5,
        (Protocol("gre", (0.9, 0.9, 4.0), 1.0, False, 0.022, 3.0, 35.0, False, (-4.0, 0.0, 2.0)),),
    ),
    DemoSubject(
        "03", 9005, 0, (Protocol("swi", (0.8, 0.8, 2.0), 1.0, True, 0.020, 3.0, 22.0, True, (3.0, 0.0, 0.0)),)
    ),
)


def make_demo(folder: Path, subjects: Sequence[DemoSubject] = SUBJECTS, *, processes: int = 3) -> None:
    """Write the demo dataset, with the planted microbleeds in ``derivatives/truth``.

    Parameters
    ----------
    folder
        The BIDS dataset to make.
    subjects
        What to make.
    processes
        Subjects at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "Name": "bids_cmb demo (simulated)",
        "BIDSVersion": "1.11.1",
        "DatasetType": "raw",
        "License": "CC0",
        "Authors": ["The bids_cmb developers"],
    }
    write_json(folder / "dataset_description.json", about)
    (folder / "README.md").write_text(
        "Simulated scans with planted microbleeds. No person was scanned.\n", encoding="utf-8"
    )
    truth = folder / "derivatives" / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    generator = [{"Name": "bids_cmb simulator"}]
    write_json(
        truth / "dataset_description.json",
        {**about, "Name": "truth of the demo", "DatasetType": "derivative", "GeneratedBy": generator},
    )
    jobs = [(subject, folder) for subject in subjects]
    if processes == 1:
        for job in jobs:
            _make_subject(job)
        return
    workers = min(processes, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (threads,)) as pool:
        pool.map(_make_subject, jobs, chunksize=1)


def _make_subject(job: tuple[DemoSubject, Path]) -> None:
    subject, folder = job
    protocols: dict[Contrast, Protocol] = {p.contrast: p for p in subject.protocols}
    session = simulate_session(
        shipped_head(),
        subject.seed,
        tuple(protocols),
        count=subject.count,
        protocols=protocols,
        spacing=_SPACING,
    )
    for scan in session:
        write_scan(scan, folder, subject.label, _SUFFIX[scan.protocol.contrast])


def write_scan(scan: SimulatedScan, folder: Path, label: str, suffix: str) -> Path:
    """Write one simulated scan into a BIDS dataset, and its truth as a table of points.

    Parameters
    ----------
    scan
        What to write.
    folder
        BIDS dataset.
    label
        Subject label.
    suffix
        Entities after the subject and the suffix, e.g. ``acq-swi_T2starw``.

    Returns
    -------
    Path
        The image.
    """
    stem = f"sub-{label}_{suffix}"
    image_path = folder / f"sub-{label}" / "anat" / f"{stem}.nii.gz"
    image_path.parent.mkdir(parents=True, exist_ok=True)
    qsm = scan.protocol.contrast == "qsm"
    data = scan.image.astype(np.float32) if qsm else np.clip(scan.image, 0, 32767).round().astype(np.int16)
    image = nib.Nifti1Image(data, scan.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(scan.affine, 1)
    image.set_qform(scan.affine, 1)
    nib.save(image, image_path)
    facts = {"EchoTime": scan.protocol.echo_time, "MagneticFieldStrength": scan.protocol.field_strength}
    write_json(image_path.with_name(f"{stem}.json"), {**facts, **({"Units": "ppm"} if qsm else {})})
    table = (
        folder
        / "derivatives"
        / "truth"
        / f"sub-{label}"
        / "anat"
        / f"{stem.rsplit('_', 1)[0]}_space-{suffix.split('_')[-1]}_seg-CMB_dseg.tsv"
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", "x", "y", "z", "diameter", "visible", "place"])
        for lesion in scan.lesions:
            place = [f"{v:.2f}" for v in lesion.position]
            writer.writerow(
                [
                    lesion.index,
                    "CMB",
                    *place,
                    f"{lesion.diameter:.2f}",
                    int(lesion.visible),
                    lesion.deposit.place,
                ]
            )
    return image_path


def compare(folder: Path, derivatives: Path) -> str:
    """Compare found with planted microbleeds, scan by scan.

    Parameters
    ----------
    folder
        The demo dataset.
    derivatives
        What `bids-cmb` wrote for it.

    Returns
    -------
    str
        A table to print. Too faint ones (that a rater would not mark) count neither way.
    """
    lines = [f"{'scan (simulated)':34}{'planted':>8}{'visible':>8}{'found':>7}{'false':>7}"]
    for truth in sorted((folder / "derivatives" / "truth").rglob("*_dseg.tsv")):
        relative = truth.relative_to(folder / "derivatives" / "truth")
        found = derivatives / relative
        references = tuple(
            Reference(
                (float(r["x"]), float(r["y"]), float(r["z"])),
                volume=np.pi / 6 * float(r["diameter"]) ** 3,
                visible=r["visible"] == "1",
            )
            for r in _rows(truth)
        )
        if not found.exists():
            lines.append(
                f"{truth.name.split('_space')[0]:34}{len(references):8}   no result: {found} is missing"
            )
            continue
        predictions = tuple(
            Prediction(
                (float(r["x"]), float(r["y"]), float(r["z"])),
                float(r["probability"]),
                volume=float(r["volume"]),
            )
            for r in _rows(found)
        )
        match = match_scan(ScanPair(relative.parts[0], truth.name, references, predictions))
        visible = sum(r.visible for r in references)
        name = truth.name.split("_seg")[0].replace("_space-", " ")
        lines.append(f"{name:34}{len(references):8}{visible:8}{len(match.matches):7}{len(match.false):7}")
    return "\n".join(lines)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))

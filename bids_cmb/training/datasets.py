"""A user's annotated BIDS dataset: its scans with their lesions, as the networks are shown them and as pairs to judge."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_cmb.bids.inputs import find_scans
from bids_cmb.bids.outputs import ScanFiles
from bids_cmb.bids.records import read_record, record_path
from bids_cmb.bids.sidecars import load_json_object
from bids_cmb.bids.tables import read_table
from bids_cmb.detector.cleanup import LARGEST_DIAMETER
from bids_cmb.detector.weights import Model
from bids_cmb.errors import BidsCmbError, InputError, UsageError
from bids_cmb.evaluation.cases import Grid, Prediction, Reference, ScanPair
from bids_cmb.evaluation.components import components, predictions_of
from bids_cmb.imaging.prepare import prepare
from bids_cmb.imaging.volume import load_image
from bids_cmb.scan_inputs import load_brain_mask, load_t1w
from bids_cmb.training.annotations import find_annotation, read_label_image, read_references
from bids_cmb.training.samples import Target, TrainingScan, training_scan
from bids_cmb.types import Prepared, Scan, Volume

#: Diameter of a lesion that is known by its place alone, mm: the median of published ones.
_TYPICAL_DIAMETER = 3.0


@dataclass(frozen=True)
class AnnotatedScan:
    """A scan and the file that says where its lesions are."""

    scan: Scan
    annotation: Path

    @property
    def name(self) -> str:
        """File name of the image without extension."""
        return self.scan.path.name.split(".")[0]


def annotated_scans(
    bids_dir: Path,
    annotations: Path,
    *,
    derivatives: Sequence[tuple[str, Path]] = (),
    wanted: Mapping[str, str] | None = None,
) -> tuple[list[AnnotatedScan], list[str]]:
    """Find the scans of a dataset that have an annotation.

    Parameters
    ----------
    bids_dir, derivatives
        As for the main job.
    annotations
        Derivatives dataset with the annotations.
    wanted
        Entities that an annotation must have.

    Returns
    -------
    tuple
        Scans with annotations, and sentences on what was left out. A scan without a file is *not annotated*, and
        left out; an empty mask or table says that it has no microbleed.

    Raises
    ------
    UsageError
        If no scan has an annotation.
    """
    scans = find_scans(bids_dir, derivatives=derivatives)
    found, without = [], []
    for scan in scans:
        path = find_annotation(scan, annotations, wanted or {})
        if path is None:
            without.append(scan.path.name)
        else:
            found.append(AnnotatedScan(scan, path))
    if not found:
        raise UsageError(
            f"None of the {len(scans)} scans of {bids_dir} has an annotation in {annotations}: expected a _mask or _dseg image, or a .tsv with x, y and z in mm, named like the scan."
        )
    notes = []
    if without:
        shown = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
        notes.append(f"{len(without)} of {len(scans)} scans have no annotation and were left out: {shown}.")
    return found, notes


def left_out_because(item: AnnotatedScan, error: BidsCmbError) -> str:
    """Say that a scan was left out, and why."""
    return f"{item.scan.path.name} was left out: {error}"


def load_annotated(item: AnnotatedScan) -> tuple[Prepared, tuple[Reference, ...], Grid]:
    """Prepare a scan as the main job does, and read its lesions on the same grid.

    Raises
    ------
    InputError
        If image or annotation can't be used.
    """
    scan = item.scan
    volume = load_image(scan.path).volume
    ready = prepare(volume, scan.contrast, brain_mask=load_brain_mask(scan), metadata=scan.metadata)
    grid = _grid(volume)
    return ready, read_references(item.annotation, grid), grid


def _grid(volume: Volume) -> Grid:
    x, y, z = volume.data.shape
    return Grid((x, y, z), volume.affine)


def to_training_scan(item: AnnotatedScan) -> TrainingScan:
    """Bring an annotated scan onto the working grid; points become balls of their diameter."""
    ready, references, grid = load_annotated(item)
    targets, outlines = [], np.zeros(grid.shape, np.uint8)
    for reference in references:
        diameter = reference.diameter if reference.diameter > 0 else _TYPICAL_DIAMETER
        counts = reference.visible and diameter <= LARGEST_DIAMETER
        targets.append(Target(reference.position, diameter, counts))
        if counts:
            voxels = reference.voxels if reference.voxels is not None else _ball(reference, diameter, grid)
            outlines.reshape(-1)[voxels] = 1
    return training_scan(
        item.name,
        item.scan.contrast,
        ready.image.data,
        grid.affine,
        ready.brain_mask,
        targets,
        outlines,
        seed=zlib.crc32(item.name.encode()),
    )


def _ball(reference: Reference, diameter: float, grid: Grid) -> np.ndarray:
    zooms = np.linalg.norm(grid.affine[:3, :3], axis=0)
    centre = grid.to_index(np.array([reference.position]))[0]
    reach = np.ceil(diameter / 2 / zooms)
    low = np.maximum(0, np.floor(centre - reach)).astype(int)
    high = np.minimum(grid.shape, np.ceil(centre + reach) + 1).astype(int)
    if (high <= low).any():
        return np.zeros(0, np.int64)
    box = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
    near = np.linalg.norm((box - centre) * zooms, axis=-1) <= max(diameter / 2, 0.6 * float(zooms.max()))
    return np.ravel_multi_index(tuple(box[near].T), grid.shape)


def detected_pair(
    item: AnnotatedScan, model: Model, *, device: str = "cpu", with_anatomy: bool = True
) -> ScanPair:
    """Run the whole detector on an annotated scan, through the same rooms as the main job.

    Parameters
    ----------
    item
        The scan.
    model
        The detector.
    device
        ``cpu``, ``cuda`` or ``auto``.
    with_anatomy
        Register to MNI space for regions and for the zones of the clean-up.
    """
    from bids_cmb.anatomy.locate import locate
    from bids_cmb.anatomy.mars import assign_regions
    from bids_cmb.detector.cleanup import clean_up
    from bids_cmb.detector.pipeline import detect

    ready, references, grid = load_annotated(item)
    scan = item.scan
    detection = detect(ready.image, ready.brain_mask, scan.contrast, model, device=device)
    zones = {}
    if with_anatomy:
        anatomy = locate(ready.image, ready.brain_mask, scan.contrast, t1w=load_t1w(scan)[0])
        detection, zones = assign_regions(detection, anatomy, ready.image), dict(anatomy.zones)
    detection = clean_up(detection, ready.brain_mask, zones, scan.contrast, model)
    found = predictions_of(
        detection, grid, lambda c: {"mars_category": c.mars_category} if c.mars_category else {}
    )
    return _pair(item, references, found, grid)


def written_pair(item: AnnotatedScan, results: Path) -> ScanPair | None:
    """Compare an annotated scan with what ``bids-cmb`` wrote for it; None if it wrote nothing.

    Raises
    ------
    InputError
        If its files can't be read.
    """
    files = ScanFiles(item.scan, results)
    table, image = files.path("candidates", ".tsv"), files.path("candidates")
    # The sidecar of the microbleeds is written last; a record may say that the files are of an earlier run.
    record = read_record(record_path(results, files.stem))
    complete = all(path.is_file() for path in (table, image, files.path("lesions", ".json")))
    if not complete or (record is not None and record.status != "done"):
        return None
    try:
        rows = read_table(table)
        labels, grid = read_label_image(image)
        outlines = {c.label: c.voxels for c in components(labels, grid)}
        predictions = tuple(
            Prediction(
                (float(row["x"]), float(row["y"]), float(row["z"])),
                float(row["probability"]),
                float(row["volume"]),
                outlines.get(int(row["index"])),
                row["fate"] == "accepted",
                {"mars_category": row["mars_category"]},
            )
            for row in rows
        )
    except (ValueError, KeyError) as error:
        raise InputError(f"The results {table} cannot be read ({error}); run bids-cmb again.") from error
    return _pair(item, read_references(item.annotation, grid), predictions, grid)


def written_model(item: AnnotatedScan, results: Path) -> str:
    """Name, version and short SHA-256 of the model that made the results of a scan; empty if they don't say."""
    sidecar, _ = load_json_object(ScanFiles(item.scan, results).path("candidates", ".json"))
    model = sidecar.get("Model")
    if not isinstance(model, dict) or not model.get("Name"):
        return ""
    name, version, checksum = (str(model.get(key, "?")) for key in ("Name", "Version", "SHA256"))
    return f"{name} {version}, SHA-256 {checksum[:12]}"


def _pair(
    item: AnnotatedScan, references: tuple[Reference, ...], predictions: tuple[Prediction, ...], grid: Grid
) -> ScanPair:
    scan = item.scan
    attributes = {"contrast": scan.contrast, "slice_thickness": f"{grid.slice_thickness:.2f}"}
    if scan.field_strength is not None:
        attributes["field_strength"] = f"{scan.field_strength:g}"
    return ScanPair(scan.subject, item.name, references, predictions, grid, attributes=attributes)

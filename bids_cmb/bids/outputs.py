"""The files of one scan: their names, their sidecars, and writing them in an order that survives a crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import bids_cmb
from bids_cmb.bids.entities import bids_uri, join_name, scan_entities
from bids_cmb.bids.images import label_type, nifti_bytes
from bids_cmb.bids.tables import (
    CANDIDATE_COLUMN_NOTES,
    CANDIDATE_COLUMNS,
    LESION_COLUMN_NOTES,
    LESION_COLUMNS,
    lesion_row,
    table_text,
)
from bids_cmb.bids.transforms import MNI_SPACE, displacement_field
from bids_cmb.files import compress, has_content, json_text, write_bytes
from bids_cmb.types import Affine, Anatomy, Candidate, Detection, MaskMethod, Prepared, Scan

#: What is written of each scan: entities that are added to its name, and the suffix.
_KINDS: Final[Mapping[str, tuple[tuple[str, str], str]]] = {
    "brain_mask": (("desc", "brain"), "mask"),
    "probability": (("label", "CMB"), "probseg"),
    "mask": (("label", "CMB"), "mask"),
    "mars": (("seg", "MARS"), "dseg"),
    "candidates": (("seg", "candidates"), "dseg"),
    "lesions": (("seg", "CMB"), "dseg"),
}
#: What ``--save-preproc`` adds.
_SAVED: Final = ("preproc", "transform")
#: How the name of the sidecar ends that is written last: where it is, the scan is complete.
LESIONS_ENDING: Final = "_seg-CMB_dseg"
#: What the sidecar of a brain mask says of its origin.
_MASK_METHODS: Final[Mapping[MaskMethod, str]] = {
    "given": "It was given by the user.",
    "support": "The image came masked; this is what was left of it.",
    "thresholds": "It was found by thresholds and shapes.",
}


@dataclass(frozen=True)
class Provenance:
    """Which detector made the results.

    Attributes
    ----------
    model_name, model_version, model_sha256
        The weights.
    thresholds
        Operating points by name, as they were used.
    """

    model_name: str
    model_version: str
    model_sha256: str
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class ScanResult:
    """All that was found out about one scan, on the canonical grid, and the way back to the file's grid.

    Attributes
    ----------
    prepared, detection, anatomy
        What the rooms returned.
    restore
        Takes an array on the canonical grid to the shape and order of the file.
    header
        nibabel header of the file.
    provenance
        Which detector made it.
    warnings
        Sentences of all steps, in their order.
    """

    prepared: Prepared
    detection: Detection
    anatomy: Anatomy
    restore: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    header: Any
    provenance: Provenance
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class ScanFiles:
    """Names of the files of one scan in an output folder."""

    scan: Scan
    output_dir: Path

    @property
    def folder(self) -> Path:
        """``sub-X/[ses-Y/]anat``."""
        session = [f"ses-{self.scan.session}"] if self.scan.session else []
        return self.output_dir.joinpath(f"sub-{self.scan.subject}", *session, "anat")

    @property
    def stem(self) -> str:
        """Name of the scan in logs: its own file name without extension and derived entities."""
        return join_name(scan_entities(self.scan.entities), self.scan.suffix)

    def path(self, kind: str, extension: str = ".nii.gz") -> Path:
        """Path of one output; `kind` is ``brain_mask``, ``probability``, ``mask``, ``mars``, ``candidates``,
        ``lesions``, ``preproc`` or ``transform``.
        """  # noqa: D205
        own = scan_entities(self.scan.entities)
        if kind == "transform":
            ends = (("from", self.scan.suffix), ("to", MNI_SPACE), ("mode", "image"))
            return self.folder / join_name((*own, *ends), "xfm", extension)
        added, suffix = (("desc", "preproc"), self.scan.suffix) if kind == "preproc" else _KINDS[kind]
        return self.folder / join_name((*own, ("space", self.scan.suffix), added), suffix, extension)

    def expected(self, *, save_preproc: bool) -> list[Path]:
        """Every file of the scan when it is complete."""
        kinds = [*_KINDS, *(_SAVED if save_preproc else [])]
        paths = [self.path(kind, extension) for kind in kinds for extension in (".nii.gz", ".json")]
        return [*paths, self.path("lesions", ".tsv"), self.path("candidates", ".tsv")]


def source_uri(scan: Scan) -> str:
    """BIDS URI of the image."""
    return bids_uri(scan.dataset_name, scan.path.relative_to(scan.dataset_root).as_posix())


def write_scan(
    scan: Scan,
    result: ScanResult,
    output_dir: Path,
    *,
    sources: Mapping[str, str],
    save_preproc: bool = False,
) -> None:
    """Write all files of one scan.

    The sidecar of the microbleed map goes first if it is there from an earlier run, and comes back last: a
    scan whose writing was interrupted never looks complete. Where everything is there already, as when another
    process did the same scan meanwhile, nothing is written.

    Parameters
    ----------
    scan
        The scan.
    result
        What was found.
    output_dir
        Root of the output dataset.
    sources
        BIDS URIs of what was used besides the image: ``brain_mask`` and ``t1w``, where there were any.
    save_preproc
        Whether to write the intensities that the detector saw, and the transform to MNI space.

    Raises
    ------
    OSError
        If the disk is full or the folder can't be written.
    """
    files = ScanFiles(scan, output_dir)
    sidecars = _sidecars(scan, result, sources)
    images = _images(result)
    if save_preproc:
        images["preproc"] = result.prepared.image.data.astype(np.float32)
    else:
        for kind in _SAVED:
            files.path(kind).unlink(missing_ok=True)
            files.path(kind, ".json").unlink(missing_ok=True)
    contents = {
        files.path(kind): compress(nifti_bytes(result.restore(data), result.header))
        for kind, data in images.items()
    }
    if save_preproc:
        contents[files.path("transform")] = compress(displacement_field(result.anatomy))
        contents[files.path("transform", ".json")] = json_text(sidecars["transform"]).encode()
    everything, accepted = _rows(result.detection)
    contents[files.path("candidates", ".tsv")] = table_text(CANDIDATE_COLUMNS, everything).encode()
    contents[files.path("lesions", ".tsv")] = table_text(LESION_COLUMNS, accepted).encode()
    for kind in (*(kind for kind in images if kind != "lesions"), "lesions"):
        contents[files.path(kind, ".json")] = json_text(sidecars[kind]).encode("utf-8", "backslashreplace")
    if all(has_content(path, content) for path, content in contents.items()):
        return
    files.path("lesions", ".json").unlink(missing_ok=True)
    for path, content in contents.items():
        write_bytes(path, content)


def ranked_microbleeds(detection: Detection) -> list[Candidate]:
    """Return the accepted candidates in table order, most probable first; ties by their place in the map."""
    return sorted(detection.microbleeds, key=lambda candidate: (-candidate.probability, candidate.index))


def _rows(detection: Detection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    everything = sorted(detection.candidates, key=lambda candidate: (-candidate.probability, candidate.index))
    accepted = enumerate(ranked_microbleeds(detection), start=1)
    return (
        [lesion_row(candidate, candidate.index) for candidate in everything],
        [lesion_row(candidate, index) for index, candidate in accepted],
    )


def _images(result: ScanResult) -> dict[str, npt.NDArray[Any]]:
    """Arrays of all maps on the canonical grid, in the types that they are stored in."""
    labels = result.detection.labels
    size = 1 + max([int(labels.max(initial=0)), *(c.index for c in result.detection.candidates)])
    probability = np.zeros(size, dtype=np.float32)
    number = np.zeros(size, dtype=np.int32)
    for candidate in result.detection.candidates:
        probability[candidate.index] = candidate.probability
    for index, candidate in enumerate(ranked_microbleeds(result.detection), start=1):
        number[candidate.index] = index
    lesions = number[labels]
    return {
        "brain_mask": result.prepared.brain_mask.astype(np.uint8),
        "probability": probability[labels],
        "mask": (lesions > 0).astype(np.uint8),
        "mars": result.anatomy.mars.astype(np.int16),
        "candidates": labels.astype(label_type(size)),
        "lesions": lesions.astype(label_type(size)),
    }


def _sidecars(scan: Scan, result: ScanResult, sources: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    image = source_uri(scan)
    made_from_mask = [sources["brain_mask"]] if "brain_mask" in sources else []
    made_from_t1w = [sources["t1w"]] if "t1w" in sources else []
    everything = [image, *made_from_mask, *made_from_t1w]
    detection = _detection_fields(scan, result)
    software = {"Software": detection["Software"]}

    def sidecar(description: str, used: list[str], **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"Description": description, "Sources": used, "SpatialReference": image, **fields}

    return {
        "brain_mask": sidecar(
            "Brain mask in which microbleeds were looked for. " + _MASK_METHODS[result.prepared.mask_method],
            [image, *made_from_mask],
            Type="Brain",
            **software,
        ),
        "probability": sidecar(
            "Probability of being part of a microbleed: each candidate's voxels hold its final probability.",
            everything,
            Type="Lesion",
            **detection,
        ),
        "mask": sidecar("Cerebral microbleeds (CMB).", everything, Type="Lesion", **detection),
        "mars": sidecar(
            "Regions of the Microbleed Anatomical Rating Scale (MARS) on the image's own grid; the values "
            "are explained in seg-MARS_dseg.tsv at the root of this dataset.",
            [image, *made_from_mask, *made_from_t1w],
            RegistrationQuality=_finite(result.anatomy.quality),
            # The affine part of the registration; a deformation of a few millimetres may follow it (``transform``).
            Template=MNI_SPACE,
            **_affine_field("WorldToMNI152", result.anatomy.world_to_mni),
            **software,
        ),
        "transform": {
            "Description": "Displacements (mm, as ITK counts them) from points of MNI space to the scan: brings the scan "
            "to the template. All zero where no registration was to be believed.",
            "Sources": [image, *made_from_mask, *made_from_t1w],
            "Template": MNI_SPACE,
            "RegistrationQuality": _finite(result.anatomy.quality),
            **software,
        },
        "candidates": sidecar(
            "Everything that the first stage of the detector proposed, one label for each, with its fate.",
            everything,
            **detection,
            **CANDIDATE_COLUMN_NOTES,
        ),
        "lesions": sidecar(
            "Cerebral microbleeds, one label and one row of the table for each, most probable first. A table "
            "without rows means that none was found. For research use only.",
            everything,
            **detection,
            **LESION_COLUMN_NOTES,
        ),
        "preproc": sidecar(
            "Susceptibility in ppm as the detector saw it, blood positive."
            if scan.contrast == "qsm"
            else "Intensities as the detector saw them, corrected for bias.",
            [image, *made_from_mask],
            SkullStripped=result.prepared.mask_method == "support",
            **({"Units": "ppm"} if scan.contrast == "qsm" else {}),
            **software,
        ),
    }


def _detection_fields(scan: Scan, result: ScanResult) -> dict[str, Any]:
    """Fields that say how a detection came about; the group tables are made from them."""
    origin, image = result.provenance, result.prepared.image
    voxels = int(np.count_nonzero(result.prepared.brain_mask))
    fields: dict[str, Any] = {
        "Contrast": scan.contrast,
        "Model": {
            "Name": origin.model_name,
            "Version": origin.model_version,
            "SHA256": origin.model_sha256,
        },
        "Thresholds": _finite(origin.thresholds),
        "Software": {"Name": "bids_cmb", "Version": bids_cmb.__version__},
        "MagneticFieldStrength": scan.field_strength,
        "EchoTime": scan.echo_time,
        **{
            key: scan.metadata[key]
            for key in ("Manufacturer", "ManufacturersModelName")
            if isinstance(scan.metadata.get(key), str)
        },
        **_conversion(scan, result.prepared),
        "VoxelSize": [round(edge, 4) for edge in image.zooms],
        "BrainVolume": round(voxels * image.voxel_volume, 1),
        "SNR": round(result.prepared.snr, 4) if math.isfinite(result.prepared.snr) else None,
        "RegistrationQuality": _finite(result.anatomy.quality),
        "Warnings": list(dict.fromkeys(result.warnings)),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _conversion(scan: Scan, prepared: Prepared) -> dict[str, dict[str, float]]:
    """How the stored values of a QSM became ppm with blood positive: Factor x (value - Offset)."""
    if scan.contrast != "qsm":
        return {}
    factor, offset = prepared.conversion
    return {"SusceptibilityConversion": {"Factor": factor, "Offset": offset}}


def _affine_field(name: str, affine: Affine) -> dict[str, list[list[float]]]:
    """A field with an affine, or none where nothing was registered."""
    return {name: [[round(float(v), 6) for v in row] for row in affine]} if np.isfinite(affine).all() else {}


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {k: round(float(v), 6) if math.isfinite(v) else None for k, v in sorted(figures.items())}

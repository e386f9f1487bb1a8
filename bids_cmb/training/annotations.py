"""Lesions that a reader marked: found in a derivatives dataset, read from masks, label maps or tables of points."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import pdist

from bids_cmb.bids.entities import DERIVED_ENTITIES, BidsFile, as_file, same_value
from bids_cmb.detector.cleanup import LARGEST_DIAMETER
from bids_cmb.errors import InputError, UsageError
from bids_cmb.evaluation.cases import Grid, Reference
from bids_cmb.evaluation.components import components, label_components, on_grid
from bids_cmb.types import Scan

#: Suffix and extension of what can be an annotation, the most telling first.
_KINDS = (("dseg", (".nii.gz", ".nii")), ("mask", (".nii.gz", ".nii")), (None, (".tsv",)))
#: ``label`` and ``seg`` values (small letters) that name microbleeds; files with others are something else.
_NAMES = frozenset({"cmb", "cmbs", "microbleed", "microbleeds", "mb", "lesion", "lesions", "bleed", "bleeds"})
#: Words in a table that say no.
_NO = frozenset({"0", "no", "false", "n"})


def parse_filter(texts: list[str]) -> dict[str, str]:
    """Read ``desc=rater1`` and the like.

    Raises
    ------
    UsageError
        If one is not KEY=VALUE.
    """
    wanted = {}
    for text in texts:
        key, is_, value = text.partition("=")
        if not is_ or not key or not value:
            raise UsageError(f"'{text}' is not ENTITY=VALUE, e.g. desc=rater1.")
        wanted[key] = value
    return wanted


def find_annotation(scan: Scan, root: Path, wanted: Mapping[str, str]) -> Path | None:
    """Return the annotation of a scan in a derivatives dataset, or None.

    Parameters
    ----------
    scan
        The image.
    root
        The dataset of annotations.
    wanted
        Entities that the annotation must have, e.g. ``{"desc": "rater1"}``.

    Returns
    -------
    Path or None
        A ``_dseg`` or ``_mask`` image, or a ``.tsv`` of points, of the same subject and session whose entities agree
        with the scan's. ``space`` must be absent, ``orig``, or the scan's suffix. A ``label`` or ``seg`` must name
        microbleeds or lesions.

    Raises
    ------
    InputError
        If two files fit equally well.
    """
    ranked = sorted(
        (_rank(scan, file), file.relative, file.path)
        for file in _files(root, scan.subject)
        if _fits(scan, file, wanted)
    )
    if not ranked:
        return None
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        raise InputError(
            f"{ranked[0][1]} and {ranked[1][1]} both fit {scan.path.name}; say which with --annotation-filter, e.g. desc=rater1."
        )
    return ranked[0][2]


def _files(root: Path, subject: str) -> Iterator[BidsFile]:
    for path in sorted((root / f"sub-{subject}").rglob("*")):
        file = as_file(path, root)
        if file is not None and path.is_file():
            yield file


def _kind(file: BidsFile) -> int | None:
    for number, (suffix, extensions) in enumerate(_KINDS):
        if suffix in (None, file.suffix) and file.extension in extensions:
            return number
    return None


def _fits(scan: Scan, file: BidsFile, wanted: Mapping[str, str]) -> bool:
    if _kind(file) is None or any(file.get(key) != value for key, value in wanted.items()):
        return False
    if file.get("ses") != scan.session or file.get("space") not in (None, "orig", "individual", scan.suffix):
        return False
    if file.get("desc") == "brain" and "desc" not in wanted:
        return False
    named = [file.get(key) for key in ("label", "seg") if key not in wanted]
    if any(name is not None and name.lower() not in _NAMES for name in named):
        return False
    if file.extension == ".tsv" and not _has_points(file.path):
        return False
    own = dict(scan.entities)
    return all(
        key in own and same_value(key, own[key], value)
        for key, value in file.entities
        if key not in DERIVED_ENTITIES and key not in wanted
    )


def _rank(scan: Scan, file: BidsFile) -> tuple[int, int, int]:
    """Sort key, the best first: made for this image, most entities in common, most telling kind."""
    shared = sum(1 for key, _ in file.entities if key not in DERIVED_ENTITIES)
    kind = _kind(file)
    return (0 if file.get("space") == scan.suffix else 1, -shared, len(_KINDS) if kind is None else kind)


def _has_points(path: Path) -> bool:
    # What follows may be no UTF-8, or closed to us: whoever reads the lesions of this scan says so.
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            return {"x", "y", "z"} <= set(stream.readline().rstrip("\r\n").split("\t"))
    except OSError:
        return True


def read_references(path: Path, grid: Grid) -> tuple[Reference, ...]:
    """Read the lesions of an annotation.

    Parameters
    ----------
    path
        ``_mask`` (connected components, 26 neighbours, are lesions, whatever their values), label map (labels are
        lesions; one that has a single label is a mask), or table with columns ``x y z`` in mm of the image's RAS+ world and, where known,
        ``diameter`` (mm), ``visible`` (0: neither missed nor false) and ``mars_category``.
    grid
        The image's canonical grid: outlines refer to it. Another grid is brought to it by nearest neighbour.

    Raises
    ------
    InputError
        If it can't be read.
    """
    return _points(path) if path.suffix == ".tsv" else _outlined(path, grid)


def read_label_image(path: Path) -> tuple[npt.NDArray[np.int32], Grid]:
    """Read a mask or label map: labels of the closest canonical grid, and that grid.

    Raises
    ------
    InputError
        If it can't be read, or is not three-dimensional.
    """
    import nibabel as nib

    try:
        image = nib.as_closest_canonical(nib.load(path))
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"The label image {path} cannot be read ({error}).") from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise InputError(f"The label image {path} is not three-dimensional.")
    labels = np.rint(np.nan_to_num(data)).astype(np.int32)
    return labels, Grid(
        (labels.shape[0], labels.shape[1], labels.shape[2]), np.asarray(image.affine, np.float64)
    )


def _outlined(path: Path, grid: Grid) -> tuple[Reference, ...]:
    labels, own = read_label_image(path)
    is_mask = path.name.partition(".")[0].endswith("_mask")
    if is_mask or np.unique(labels[labels != 0]).size == 1:
        labels = label_components(labels != 0)
    else:
        labels = _without_classes(labels, own)
    here = components(on_grid(labels, own, grid), grid)
    lost = set(np.unique(labels).tolist()) - {0} - {c.label for c in here}
    # A lesion between the voxels of a coarser image, or beyond it, is still a place.
    points = [c for c in components(labels, own) if c.label in lost]
    return (
        *(Reference(c.position, c.volume, c.voxels) for c in here),
        *(Reference(c.position, c.volume) for c in points),
    )


def _without_classes(labels: npt.NDArray[np.int32], grid: Grid) -> npt.NDArray[np.int32]:
    """Number the lesions of a label map; of a label that is a class (definite, possible), each part is a lesion."""
    numbered = np.zeros_like(labels)
    marked = labels != 0
    values, numbered[marked] = np.unique(labels[marked], return_inverse=True)
    numbered[marked] += 1
    count = len(values)
    for value, box in enumerate(ndimage.find_objects(numbered, count), start=1):
        parts = label_components(numbered[box] == value)
        centres = [c.position for c in components(parts, replace(grid, shape=parts.shape))]
        # Parts further apart than a microbleed is wide are no single one.
        if len(centres) > 1 and pdist(centres).max() > LARGEST_DIAMETER:
            numbered[box][parts > 0] = count + parts[parts > 0]
            count += len(centres)
    return numbered


def _points(path: Path) -> tuple[Reference, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The annotation {path} cannot be read ({error}).") from error
    references = []
    for number, row in enumerate(rows, start=2):
        try:
            x, y, z = (float(row[axis]) for axis in "xyz")
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"{path}, line {number}: x, y and z must be numbers (mm).") from error
        if not all(math.isfinite(v) for v in (x, y, z)):
            raise InputError(f"{path}, line {number}: x, y and z must be numbers (mm).")
        volume = math.pi / 6 * _diameter(row.get("diameter")) ** 3
        visible = (row.get("visible") or "1").strip().lower() not in _NO
        category = {"mars_category": row["mars_category"]} if row.get("mars_category") else {}
        references.append(Reference((x, y, z), volume, visible=visible, attributes=category))
    return tuple(references)


def _diameter(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if value > 0 else math.nan

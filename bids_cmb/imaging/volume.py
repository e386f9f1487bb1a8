"""One image file in, one `Volume` out, and results back onto the grid of the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.errors import InputError
from bids_cmb.imaging.nifti import NiftiHeader, read_nifti
from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

_Scalar = TypeVar("_Scalar", bound=np.generic)

#: Voxel edges outside this range, in mm, are not those of a brain scan.
PLAUSIBLE_ZOOM_MM = (0.05, 25.0)
#: Corners of the image that sform and qform place further apart than this, in mm, are worth a note.
FORM_DISAGREEMENT_MM = 1.0
#: Groups of at most this many invalid voxels are filled from around them; larger ones become background.
MAX_FILLED_GROUP = 64

_UNIT_FACTORS = {"metres": 1000.0, "millimetres": 1.0, "micrometres": 0.001}
_UNIT_CODES = {1: "metres", 2: "millimetres", 3: "micrometres"}


@dataclass(frozen=True)
class LoadedImage:
    """An image with the way back to the grid of its file.

    Attributes
    ----------
    volume
        Closest canonical (RAS+) grid in mm, float32, scaled, every value finite.
    shape
        Shape in the file, with trailing axes of length one.
    affine
        Affine in the file, exactly as stored, in the file's own unit.
    orientation
        nibabel orientation of the file's voxel axes (axis, flip), shape (3, 2).
    header
        The file's NIfTI header.
    unit_note
        A sentence if the voxel unit had to be converted or corrected, else empty.
    notes
        All sentences about the file that a user should see, ``unit_note`` included.
    """

    volume: Volume
    shape: tuple[int, ...]
    affine: Affine
    orientation: npt.NDArray[np.float64]
    header: NiftiHeader
    unit_note: str = ""
    notes: tuple[str, ...] = ()

    def restore(self, array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """Bring an array on the canonical grid back to the grid of the file.

        Parameters
        ----------
        array
            Array of ``volume.data``'s shape.

        Returns
        -------
        numpy.ndarray
            The same values, in the order and shape (``shape``) of the file.
        """
        orientations = _orientations()
        if array.shape != self.volume.data.shape:
            raise ValueError(f"array of shape {array.shape} is not on the grid {self.volume.data.shape}")
        back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), self.orientation)
        turned: npt.NDArray[_Scalar] = orientations.apply_orientation(array, back)
        return np.ascontiguousarray(turned).reshape(self.shape)


def load_image(path: Path, *, constant: bool = False) -> LoadedImage:
    """Load one 3-D image on its closest canonical grid.

    Parameters
    ----------
    path
        A NIfTI file. A 4-D file with one volume is as good as a 3-D one.
    constant
        Whether all voxels may have the same value, as in a mask of a stripped and cropped image.

    Returns
    -------
    LoadedImage
        The image and the way back.

    Raises
    ------
    InputError
        If the file cannot be read, is not one volume of real numbers, has no usable affine, or is constant.
    """
    raw = read_nifti(path)
    affine, notes = _source_affine(raw.header, raw.shape[:3], path)
    factor, unit_note = _millimetres(affine, raw.header, path)
    if unit_note:
        notes.insert(0, unit_note)
    data, invalid = _finite(raw.data, path)
    if invalid:
        share = invalid / data.size
        notes.append(f"{invalid} voxels ({share:.1%}) were NaN or infinite and were replaced.")
    if not constant and data.min() == data.max():
        raise InputError(f"{path}: every voxel has the same value ({data.flat[0]:g}); the image is empty.")
    orientations = _orientations()
    orientation = orientations.io_orientation(affine)
    canonical_affine = affine @ orientations.inv_ornt_aff(orientation, data.shape)
    canonical_affine[:3] *= factor
    canonical = np.ascontiguousarray(orientations.apply_orientation(data, orientation))
    return LoadedImage(
        volume=Volume(canonical, canonical_affine),
        shape=raw.shape,
        affine=affine,
        orientation=orientation,
        header=raw.header,
        unit_note=unit_note,
        notes=tuple(notes),
    )


def _orientations() -> Any:  # noqa: ANN401 - nibabel's functions are untyped
    """Import nibabel's orientation tools where they are needed."""
    from nibabel import orientations

    return orientations


# --- geometry ----------------------------------------------------------------------------------------------


def _source_affine(header: NiftiHeader, shape: tuple[int, ...], path: Path) -> tuple[Affine, list[str]]:
    """Return the affine that every NIfTI reader would use, and notes on what is odd about it."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    notes: list[str] = []
    affine = _form(header, "best")
    if affine is None or not _invertible(affine):
        raise InputError(
            f"{path}: the header's affine is not usable (zero or undefined voxel sizes); repair the sform or "
            "qform of the file."
        )
    if sform_code <= 0 and qform_code <= 0:
        notes.append(
            "The header states no orientation (sform and qform codes are 0): left and right follow the NIfTI "
            "default and should be checked."
        )
    if sform_code > 0 and qform_code > 0:
        qform = _form(header, "qform")
        if qform is not None and _invertible(qform):
            corners = _corners(shape)
            apart = float(np.abs(corners @ (affine - qform)[:3].T).max())
            if apart > FORM_DISAGREEMENT_MM:
                notes.append(f"sform and qform disagree by up to {apart:.1f} mm; the sform was used.")
    return affine, notes


def _form(header: NiftiHeader, which: str) -> Affine | None:
    """Return one affine of a header, or None if it cannot even be computed."""
    # As the standard says, and as every reader takes it: sizes have no sign, and no handedness is the usual one.
    header = header.copy()
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    try:
        form = header.get_qform() if which == "qform" else header.get_best_affine()
    except Exception:  # noqa: BLE001 - nibabel raises several kinds for broken quaternions
        return None
    return np.asarray(form, dtype=np.float64)


def _invertible(affine: Affine) -> bool:
    """Whether an affine is finite and maps voxels to a volume, whatever its unit."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths > 0).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _corners(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return homogeneous voxel coordinates of the eight corners, shape (8, 4)."""
    ends = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
    return np.concatenate([ends, np.ones((8, 1))], axis=1)


def _millimetres(affine: Affine, header: NiftiHeader, path: Path) -> tuple[float, str]:
    """Return the factor from the file's unit to mm and a note if it is not simply one."""
    declared = _UNIT_CODES.get(int(header["xyzt_units"]) & 7)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    tried = [declared] if declared else []
    tried += [unit for unit in ("millimetres", "metres", "micrometres") if unit != declared]
    for unit in tried:
        factor = _UNIT_FACTORS[unit]
        low, high = PLAUSIBLE_ZOOM_MM
        if (zooms * factor).min() >= low and (zooms * factor).max() <= high:
            break
    else:
        sizes = " x ".join(f"{z:g}" for z in zooms)
        raise InputError(f"{path}: voxels of {sizes} fit a brain scan in no unit; repair the header.")
    if declared and unit != declared:
        return (
            factor,
            f"The header says {declared}, but the voxel sizes only make sense in {unit}, which was used.",
        )
    if unit != "millimetres":
        return factor, f"The header's voxel sizes are in {unit} and were converted to millimetres."
    return factor, ""


# --- values ------------------------------------------------------------------------------------------------


def _finite(data: FloatArray, path: Path) -> tuple[FloatArray, int]:
    """Replace NaN and infinities: small groups by the mean around them, large ones by zero."""
    invalid = ~np.isfinite(data)
    count = int(invalid.sum())
    if count == 0:
        return data, 0
    if count == data.size:
        raise InputError(f"{path}: holds no valid number (all NaN or infinite).")
    filled = np.where(invalid, np.float32(0), data)
    groups, n_groups = ndimage.label(invalid)
    sizes = np.bincount(groups.ravel(), minlength=n_groups + 1)
    small = (sizes <= MAX_FILLED_GROUP)[groups] & invalid
    if small.any():
        filled = _filled_from_around(filled, small, ~invalid)
    return filled, count


def _filled_from_around(data: FloatArray, holes: BoolArray, known: BoolArray) -> FloatArray:
    """Fill holes layer by layer with the mean of the known voxels among their 26 neighbours."""
    out = data.copy()
    known = known.copy()
    holes = holes.copy()
    while holes.any():
        weight = ndimage.uniform_filter(known.astype(np.float64), 3)
        total = ndimage.uniform_filter(np.where(known, out, 0).astype(np.float64), 3)
        layer = holes & (weight > 1e-6)
        if not layer.any():
            break
        out[layer] = total[layer] / weight[layer]
        known |= layer
        holes &= ~layer
    return out

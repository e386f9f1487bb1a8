"""Write results as NIfTI files on exactly the grid of the image that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: Header fields that place the voxels in the world. They are copied as stored, never recomputed.
# fmt: off
_GRID_FIELDS = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)
# fmt: on


def nifti_bytes(data: npt.NDArray[Any], header: Any) -> bytes:  # noqa: ANN401 - nibabel has no types
    """Build a NIfTI file in memory with the grid of another image.

    Parameters
    ----------
    data
        Array of the shape of the other image; its type is kept.
    header
        nibabel header of the other image. NIfTI-1 and NIfTI-2 stay what they are, so that no digit of the
        affine is lost; the byte order becomes little-endian.

    Returns
    -------
    bytes
        Header and data, uncompressed.
    """
    new = type(header)(endianness="<")
    new.set_data_shape(data.shape)
    new.set_data_dtype(data.dtype)
    for name in _GRID_FIELDS:
        new[name] = header[name]
    new["magic"] = type(header).single_magic
    new["vox_offset"] = type(header).single_vox_offset
    new["scl_slope"], new["scl_inter"] = 1, 0
    gap = bytes(type(header).single_vox_offset - len(new.binaryblock))
    voxels = np.asarray(data, dtype=data.dtype.newbyteorder("<")).tobytes(order="F")
    return bytes(new.binaryblock) + gap + voxels


def label_type(largest: int) -> type[np.int16] | type[np.int32]:
    """Return the smaller integer type that holds all labels up to `largest`."""
    return np.int16 if largest <= np.iinfo(np.int16).max else np.int32


def count_voxels(path: Path) -> int:
    """Return the number of voxels that a file's header declares; 0 if it can't be read."""
    import nibabel as nib

    try:
        shape = nib.load(path).shape  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - whatever is wrong with the file is said when its turn comes
        return 0
    return int(np.prod(shape, dtype=np.int64))

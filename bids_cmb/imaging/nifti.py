"""Reading one NIfTI file without believing its header.

Everything a header declares is checked against the file before memory is taken for it; each problem is one
`InputError` sentence that names the file and says what to do.

Layout of the header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import math
import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from bids_cmb.errors import InputError

#: Largest grid accepted. The finest brain scans in use (7 T, 0.2 mm) stay below it.
MAX_VOXELS = 600_000_000
#: DEFLATE cannot shrink data to less than about 1/1032 of its size: a header that declares more lies.
MAX_GZIP_RATIO = 1040
#: Images shrink to a half or a tenth, nearly empty masks to a thousandth. What is larger than this (bytes) and
#: shrank more than this is no image, but a file made to fill the memory.
BOMB_BYTES, BOMB_RATIO = 1_000_000_000, 200
#: Extensions of the header are text; the data begin no further behind it than this, bytes.
MAX_EXTENSION = 64_000_000
#: Nor does more than this lie behind the data, bytes.
MAX_TRAILING = 16_777_216
#: An image must have at least this many voxels along two of its axes.
MIN_IN_PLANE = 16

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 544
_CHUNK = 1_048_576
_SINGLE_FILE_MAGICS = (b"n+1\x00", b"n+2\x00\r\n\x1a\n")
_PAIR_MAGICS = (b"ni1\x00", b"ni2\x00\r\n\x1a\n")
_POINTERS = (
    (b"annex/objects/", "datalad get"),
    (b"version https://git-lfs", "git lfs pull"),
)
_COMPLEX_CODES = (32, 1792, 2048)
_COLOUR_CODES = (128, 2304)


class NiftiHeader(Protocol):
    """What is used of nibabel's ``Nifti1Header`` and ``Nifti2Header``."""

    def __getitem__(self, field: str) -> Any:  # noqa: ANN401 - scalars and arrays of every type
        """Value of one header field."""

    def copy(self) -> NiftiHeader:
        """The same fields again."""

    def get_data_dtype(self) -> Any:  # noqa: ANN401
        """NumPy type of the stored values, in the file's byte order."""

    def get_best_affine(self) -> npt.NDArray[np.float64]:
        """Affine by sform, else qform, else voxel sizes."""

    def get_qform(self) -> npt.NDArray[np.float64]:
        """Affine by qform."""


@dataclass(frozen=True)
class RawImage:
    """What a NIfTI file holds, checked and scaled.

    Attributes
    ----------
    data
        Scaled values, shape (i, j, k) as stored, float32; may hold NaN and infinities.
    shape
        The shape that the header declares, with trailing axes of length one.
    header
        The file's header.
    """

    data: npt.NDArray[np.float32]
    shape: tuple[int, ...]
    header: NiftiHeader


def read_nifti(path: Path) -> RawImage:
    """Read a NIfTI-1 or NIfTI-2 single file.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file; never resolved through symbolic links.

    Returns
    -------
    RawImage
        Values of the one volume in it.

    Raises
    ------
    InputError
        If the file is missing, is not NIfTI, is damaged or truncated, or holds something other than one
        volume of real numbers.
    """
    size = _file_size(path)
    try:
        with _opened(path) as stream:
            header = _parsed_header(stream.read(_HEADER_BYTES), path)
            shape, dtype, offset = _layout(header, size, path)
            # Read from the start again: extensions may lie between the header and the data.
            stream.seek(offset)
            count = math.prod(shape)
            block = stream.read(count * dtype.itemsize)
            complete = len(block) == count * dtype.itemsize
            # Only at its end does gzip look at the checksum, and damage may have made the data longer.
            _read_rest(stream, path)
    except EOFError:
        complete = False
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: the compressed data are damaged ({error}); fetch the file again."
        ) from error
    except MemoryError as error:
        raise InputError(f"{path}: the image does not fit into memory.") from error
    except PermissionError as error:
        raise InputError(f"{path}: the file cannot be read; check its permissions.") from error
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error}).") from error
    if not complete:
        raise InputError(f"{path}: the file is truncated: it ends before the image that its header declares.")
    stored = np.frombuffer(block, dtype=dtype).reshape(shape[:3], order="F")
    return RawImage(_scaled(stored, header), shape, header)


# --- the file ----------------------------------------------------------------------------------------------


def _file_size(path: Path) -> int:
    """Return the size of a file in bytes after looking whether there is one."""
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path}: a link whose data are not here; fetch them first, for example with "
            f"`datalad get {shlex.quote(str(path))}`."
        )
    if path.is_dir():
        raise InputError(f"{path}: a folder where an image was expected.")
    if not path.exists():
        raise InputError(f"{path}: there is no such file.")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: not a NIfTI file name; images must end in .nii or .nii.gz.")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error}).") from error
    if not path.is_file():
        raise InputError(f"{path}: is no file but a pipe or a device; give a file.")
    if size == 0:
        raise InputError(f"{path}: the file is empty.")
    return size


def _opened(path: Path) -> IO[bytes]:
    """Open a file for reading its uncompressed bytes, after a look at its first ones."""
    with path.open("rb") as stream:
        start = stream.read(256)
    for mark, command in _POINTERS:
        if mark in start:
            raise InputError(
                f"{path}: a placeholder whose data are not here; fetch them first, for example with "
                f"`{command}`."
            )
    compressed = start.startswith(_GZIP_MAGIC)
    if path.name.lower().endswith(".gz"):
        if not compressed:
            what = "holds text" if _is_text(start) else "is not gzip-compressed"
            raise InputError(f"{path}: the file {what} although its name ends in .gz.")
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if compressed:
        raise InputError(f"{path}: the file is gzip-compressed; rename it to end in .nii.gz.")
    return path.open("rb")


def _is_text(start: bytes) -> bool:
    """Whether bytes look like a text file."""
    return b"\x00" not in start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _read_rest(stream: IO[bytes], path: Path) -> None:
    """Read what lies behind the image, as far as it can be an oversight."""
    for _ in range(MAX_TRAILING // _CHUNK):
        if not stream.read(_CHUNK):
            return
    raise InputError(
        f"{path}: the file goes on far behind the image that its header declares; it is damaged, fetch it again."
    )


# --- the header --------------------------------------------------------------------------------------------


def _parsed_header(block: bytes, path: Path) -> NiftiHeader:
    """Return the nibabel header of a file's first bytes."""
    import nibabel as nib

    not_nifti = InputError(f"{path}: not a NIfTI image; its first bytes are not those of a NIfTI header.")
    if len(block) < 348:
        raise not_nifti if len(block) < 4 else InputError(f"{path}: the file is truncated within its header.")
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    kind: Any
    if 348 in sizes:
        kind, length, magic = nib.Nifti1Header, 348, block[344:348]
    elif 540 in sizes:
        kind, length, magic = nib.Nifti2Header, 540, block[4:12]
    else:
        raise not_nifti
    if magic in _PAIR_MAGICS:
        raise InputError(f"{path}: header and data lie in two files; convert them to one .nii.gz file.")
    if magic not in _SINGLE_FILE_MAGICS:
        raise not_nifti
    if len(block) < length:
        raise InputError(f"{path}: the file is truncated within its header.")
    # check=False: nibabel repairs or rejects odd fields on its own terms; here each is looked at by name.
    parsed: NiftiHeader = kind(block[:length], check=False)
    return parsed


def _layout(header: NiftiHeader, file_size: int, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, stored type and offset of the data, all plausible for a file of this size."""
    shape = _shape(header, path)
    dtype = _stored_type(header, path)
    offset_field = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    offset = least if offset_field == 0 else offset_field
    count = math.prod(shape)
    available = file_size * (MAX_GZIP_RATIO if path.name.lower().endswith(".gz") else 1)
    if not math.isfinite(offset) or not least <= offset <= min(available, least + MAX_EXTENSION):
        raise InputError(f"{path}: the header places the data at an impossible position ({offset_field:g}).")
    if count > MAX_VOXELS:
        grid = " x ".join(str(n) for n in shape)
        raise InputError(f"{path}: the header declares {grid} voxels, more than any brain scan has.")
    if int(offset) + count * dtype.itemsize > available:
        raise InputError(
            f"{path}: the header declares {count * dtype.itemsize / 1e6:.0f} MB of data, more than a file of "
            f"{file_size / 1e6:.2f} MB can hold; it is truncated or its header is damaged."
        )
    if count * dtype.itemsize > max(BOMB_BYTES, BOMB_RATIO * file_size):
        raise InputError(
            f"{path}: {file_size / 1e6:.1f} MB claim to unfold to {count * dtype.itemsize / 1e9:.1f} GB; no image "
            "shrinks so much, so it was not unpacked."
        )
    return shape, dtype, int(offset)


def _shape(header: NiftiHeader, path: Path) -> tuple[int, ...]:
    """Return the declared shape if it is one volume of several slices."""
    dims = [int(n) for n in header["dim"]]
    axes = dims[0]
    if not 1 <= axes <= 7 or any(n < 1 for n in dims[1 : axes + 1]):
        raise InputError(f"{path}: the header declares no usable dimensions ({dims}).")
    shape = tuple(dims[1 : axes + 1])
    volumes = math.prod(shape[3:])
    if volumes > 1:
        raise InputError(
            f"{path}: holds {volumes} volumes; microbleeds are looked for on one, so split the file and keep "
            "one (of several echoes the one nearest 20 ms at 3 T)."
        )
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(f"{path}: holds a single slice; a volume of several slices is needed.")
    if sorted(shape[:3])[1] < MIN_IN_PLANE:
        grid = " x ".join(str(n) for n in shape[:3])
        raise InputError(f"{path}: a grid of {grid} voxels is too small to hold a brain.")
    return shape


def _stored_type(header: NiftiHeader, path: Path) -> np.dtype[Any]:
    """Return the type of the stored values if they are real numbers."""
    code = int(header["datatype"])
    if code in _COMPLEX_CODES:
        raise InputError(f"{path}: holds complex numbers; give the magnitude image.")
    if code in _COLOUR_CODES:
        raise InputError(
            f"{path}: holds colours (RGB), not intensities; give the image itself, not a rendering."
        )
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:
        raise InputError(f"{path}: the header declares an unknown data type ({code}).") from error
    if dtype.kind not in "iuf" or dtype.itemsize < 1:
        raise InputError(f"{path}: the header declares an unusable data type ({code}).")
    return dtype


# --- the values --------------------------------------------------------------------------------------------


def _scaled(stored: npt.NDArray[Any], header: NiftiHeader) -> npt.NDArray[np.float32]:
    """Apply slope and intercept slice by slice in double precision."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        inter = 0.0
    out = np.empty(stored.shape, dtype=np.float32, order="F")
    # Values beyond float32 become infinite here and are replaced with a note by the caller.
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):
            plane = stored[:, :, k]
            if slope == 1.0 and inter == 0.0:
                out[:, :, k] = plane
            else:
                out[:, :, k] = plane.astype(np.float64) * slope + inter
    return out

"""Images that are damaged, odd, or no images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from bad_case import QSM, Build, Case, World, damaged, nifti, packed, scan
from conftest import AFFINE, SHAPE, head_image, make_dataset
from nibabel.nifti1 import header_dtype


def values(change: Callable[[np.ndarray], Any], dtype: str = "float32") -> Build:
    """A scan with other values: `change` works on the array of shape `SHAPE`, or returns another one."""

    def content() -> bytes:
        data = np.asarray(head_image().dataobj).astype(dtype)
        changed = change(data)
        image = nib.Nifti1Image(data if changed is None else changed, AFFINE)
        image.set_sform(AFFINE, code=1)
        return packed(image.to_bytes())

    return scan(content)


def placed(affine: np.ndarray, unit: str = "mm") -> Build:
    def content() -> bytes:
        image = nib.Nifti1Image(np.asarray(head_image().dataobj), affine)
        image.header.set_xyzt_units(unit)
        return packed(image.to_bytes())

    return scan(content)


def setting(**items: Any) -> Callable[[np.ndarray], None]:
    """Overwrite a small box (``inside``) or the corner (``outside``) with a value."""

    def change(data: np.ndarray) -> None:
        if "inside" in items:
            data[14:16, 8:10, 7] = items["inside"]
        if "outside" in items:
            data[:3, :3, :] = items["outside"]

    return change


def rotated() -> np.ndarray:
    """An affine turned by 45 degrees about two axes."""
    turn = np.sqrt(0.5)
    about_x = np.array([[1, 0, 0], [0, turn, -turn], [0, turn, turn]])
    about_z = np.array([[turn, -turn, 0], [turn, turn, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([0.9, 0.9, 2.0])
    return affine


def sagittal() -> np.ndarray:
    """An affine of sagittal slices: voxel axes run back to front, down to up, left to right."""
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 0.9, 0.9, 2.0, 1
    return affine


def head_with(affine: np.ndarray = AFFINE, qform: np.ndarray | None = None) -> nib.Nifti1Image:
    image = head_image()
    image.set_sform(affine, code=1)
    image.set_qform(affine if qform is None else qform, code=1)
    return image


def susceptibility(factor: float = 1.0, offset: float = 0.0) -> Build:
    """A map with veins, in ppm times a factor, with the brain mask that it needs."""

    def build(world: World) -> Sequence[str]:
        rng = np.random.default_rng(5)
        shape = (40, 40, 24)
        grid = np.indices(shape) / np.reshape(shape, (3, 1, 1, 1)) - 0.5
        brain = (grid**2).sum(0) < 0.2
        data = rng.normal(0, 0.02, shape)
        data[rng.random(shape) < 0.01] += 0.25
        data[12:16, 18:22, 10:14] += 0.1
        affine = np.diag([3.0, 3.0, 3.0, 1.0])
        chi = nib.Nifti1Image((np.where(brain, data * factor + offset, 0)).astype(np.float32), affine)
        world.put(packed(chi.to_bytes()), QSM)
        masks = make_dataset(world.root / "masks", {})
        folder = masks / "sub-bad" / "anat"
        folder.mkdir(parents=True)
        nib.save(
            nib.Nifti1Image(brain.astype(np.uint8), affine),
            folder / "sub-bad_space-Chimap_desc-brain_mask.nii.gz",
        )
        return ["-d", str(masks)]

    return build


def typed(dtype: Any, order: str = "<") -> Build:
    def content() -> bytes:
        data = (np.asarray(head_image().dataobj) // 4).astype(np.dtype(dtype).newbyteorder(order)) * 4
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
        return packed(nib.Nifti1Image(data.astype(dtype), AFFINE, header).to_bytes())

    return scan(content)


def bomb() -> bytes:
    """A small gzip file of half a billion zeros, with a header that honestly declares them."""
    from zlib import Z_FULL_FLUSH, compressobj

    header = np.zeros((), dtype=header_dtype)
    source = np.frombuffer(nifti()[:348], dtype=header_dtype)[0]
    for field in header_dtype.names or ():
        header[field] = source[field]
    header["dim"] = [3, 800, 800, 800, 1, 1, 1, 1]
    header["datatype"], header["bitpix"], header["vox_offset"] = 16, 32, 352
    packer = compressobj(9, wbits=31)
    parts = [packer.compress(header.tobytes() + bytes(4)), packer.flush(Z_FULL_FLUSH)]
    zeros = bytes(1 << 24)
    # After a full flush the same bytes say the same again.
    block = packer.compress(zeros) + packer.flush(Z_FULL_FLUSH)
    return b"".join([*parts, block * (800**3 * 4 // len(zeros) + 1), packer.flush()])


def stretched(shape: tuple[int, ...]) -> bytes:
    return packed(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)).to_bytes())


def coloured() -> bytes:
    colour = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return packed(nib.Nifti1Image(np.zeros(SHAPE, colour), AFFINE).to_bytes())


def flipped_bit() -> bytes:
    stored = bytearray(packed(nifti()))
    stored[len(stored) // 2] ^= 0x40
    return bytes(stored)


IMAGES: tuple[Case, ...] = (
    Case("truncated gzip", scan(lambda: packed(nifti())[:-200]), "the file is truncated"),
    Case(
        "truncated data",
        scan(lambda: nifti()[:-500], "sub-bad/anat/sub-bad_T2starw.nii"),
        "it is truncated or its header is damaged",
    ),
    Case(
        "truncated header",
        scan(lambda: nifti()[:300], "sub-bad/anat/sub-bad_T2starw.nii"),
        "truncated within its header",
    ),
    Case("zero bytes", scan(lambda: b""), "the file is empty"),
    Case("text named .nii.gz", scan(lambda: b"Not found\n"), "holds text although its name ends in .gz"),
    Case("binary named .nii.gz", scan(lambda: nifti()), "is not gzip-compressed although"),
    Case(
        "gzip named .nii",
        scan(lambda: packed(nifti()), "sub-bad/anat/sub-bad_T2starw.nii"),
        "rename it to end in .nii.gz",
    ),
    Case("a flipped bit in the gzip data", scan(flipped_bit), "sub-bad_T2starw.nii.gz: the "),
    Case("wrong magic", damaged(magic=b"abc"), "not a NIfTI image"),
    Case("wrong header size", damaged(sizeof_hdr=0), "not a NIfTI image"),
    Case("header and data in two files", damaged(magic=b"ni1"), "header and data lie in two files"),
    Case("gzip of text", scan(lambda: packed(b"hello " * 100)), "not a NIfTI image"),
    Case(
        "header larger than data", damaged(dim=[3, 600, 600, 600, 1, 1, 1, 1]), "more than a file of 0.00 MB"
    ),
    Case("huge: 20000 x 20000 x 20000", damaged(dim=[3, 20000, 20000, 20000, 1, 1, 1, 1]), "more than any"),
    Case("gzip bomb", scan(bomb), "no image shrinks so much"),
    Case(
        "gzip bomb behind the image",
        scan(lambda: packed(nifti()[:-2] + b"\0\0" + bytes(50_000_000))),
        "goes on far behind the image",
    ),
    Case("data far behind the header", damaged(vox_offset=5e8), "impossible position"),
    Case("data before the header's end", damaged(vox_offset=10), "impossible position"),
    Case("data at an undefined place", damaged(vox_offset=np.nan), "impossible position"),
    Case("no dimensions", damaged(dim=[0] * 8), "no usable dimensions"),
    Case("a negative dimension", damaged(dim=[3, -32, 32, 16, 1, 1, 1, 1]), "no usable dimensions"),
    Case("4-D with many volumes", scan(lambda: stretched((*SHAPE, 3))), "holds 3 volumes"),
    Case("2-D", scan(lambda: stretched((64, 64))), "holds a single slice"),
    Case("one slice", scan(lambda: stretched((64, 64, 1))), "holds a single slice"),
    Case("tiny: 8 x 8 x 8", scan(lambda: stretched((8, 8, 8))), "too small to hold a brain"),
    Case("RGB", scan(coloured), "holds colours (RGB)"),
    Case("complex", values(lambda data: data.astype(np.complex64)), "give the magnitude image"),
    Case("an unknown data type", damaged(datatype=999), "unknown data type"),
    Case("all zero", values(lambda data: data * 0), "every voxel has the same value (0)"),
    Case("constant", values(lambda data: data * 0 + 7), "every voxel has the same value (7)"),
    Case("all NaN", values(lambda data: data * np.nan), "holds no valid number"),
    Case("NaN inside the brain", values(setting(inside=np.nan)), "were NaN or infinite and", 0),
    Case("inf inside the brain", values(setting(inside=np.inf)), "were NaN or infinite and", 0),
    Case("NaN outside the brain", values(setting(outside=np.nan)), "were NaN or infinite and", 0),
    Case("-inf outside the brain", values(setting(outside=-np.inf)), "were NaN or infinite and", 0),
    Case(
        "values beyond float32",
        values(setting(inside=1e300), "float64"),
        "were NaN or infinite and",
        0,
    ),
    Case(
        "GRE as negative as positive",
        values(lambda data: np.random.default_rng(1).normal(0, 100, data.shape).astype(np.float32)),
        "give the magnitude",
        real=("imaging.prepare",),
    ),
    Case(
        "QSM in ppb",
        susceptibility(1000.0),
        "were taken for ppb by their spread",
        0,
        real=("imaging.prepare",),
    ),
    Case(
        "QSM of the wrong sign", susceptibility(-1.0), "had its sign reversed", 0, real=("imaging.prepare",)
    ),
    Case(
        "QSM that is a magnitude",
        susceptibility(1.0, offset=900.0),
        "lie around 900",
        real=("imaging.prepare",),
    ),
    Case("singular affine", damaged(srow_x=[0, 0, 0, 0]), "affine is not usable"),
    Case("NaN in the affine", damaged(srow_y=[np.nan] * 4), "affine is not usable"),
    Case(
        "sform and qform disagreeing",
        damaged(head_with(qform=np.diag([0.9, 0.9, 2.0, 1]))),
        "sform and qform disagree",
        0,
    ),
    Case("no sform and no qform", damaged(sform_code=0, qform_code=0), "states no orientation", 0),
    Case(
        "zero voxel sizes and no form",
        damaged(sform_code=0, qform_code=0, pixdim=[0] * 8),
        "affine is not usable",
    ),
    Case("zero voxel sizes beside a sform", damaged(qform_code=0, pixdim=[0] * 8), status=0),
    Case("negative voxel sizes", damaged(qform_code=0, pixdim=[-1, -0.9, -0.9, -2, 0, 0, 0, 0]), status=0),
    Case("units in metres", placed(np.diag([9e-4, 9e-4, 2e-3, 1]), "meter"), "are in metres", 0),
    Case("units in microns", placed(np.diag([900.0, 900.0, 2000.0, 1]), "micron"), "are in micrometres", 0),
    Case("units that cannot be", placed(np.diag([900.0, 900.0, 2000.0, 1])), "only make sense in micro", 0),
    Case("voxels of a kilometre", placed(np.diag([1e6, 1e6, 1e6, 1])), "fit a brain scan in no unit"),
    Case("oblique by 45 degrees", damaged(head_with(rotated())), status=0),
    Case("sagittal slices", damaged(head_with(sagittal())), status=0),
    Case("big-endian", typed(np.int16, ">"), status=0),
    Case("scl_slope 0", damaged(scl_slope=0, scl_inter=5), status=0),
    Case("scl_slope NaN", damaged(scl_slope=np.nan, scl_inter=np.nan), status=0),
    Case("scl_slope that makes all infinite", damaged(scl_slope=3e38), "every voxel has the same value"),
    *(
        Case(f"stored as {np.dtype(kind).name}", typed(kind), status=0)
        for kind in (np.uint8, np.uint16, np.int64, np.float64)
    ),
)

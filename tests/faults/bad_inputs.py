"""A corpus of bad and odd inputs, each with the sentence and the exit status that it must end in.

``python tests/faults/bad_inputs.py FOLDER`` writes each case as a dataset of its own into FOLDER (for other tools to
try) and prints the table of cases. `test_bad_inputs` runs them all.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import header_dtype

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import AFFINE, SHAPE, head_image, make_dataset

BAD = "sub-bad/anat/sub-bad_T2starw.nii.gz"
GOOD = "sub-good/anat/sub-good_T2starw.nii.gz"
QSM = "sub-bad/anat/sub-bad_Chimap.nii.gz"
MODELS = Path(__file__).parents[2] / "models"


@dataclass(frozen=True)
class World:
    """The folders of one case: a dataset with one good scan, and a place for its results."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def make(self) -> World:
        make_dataset(self.raw, {GOOD: None})
        return self

    def put(self, content: bytes, name: str = BAD) -> Path:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


Build = Callable[[World], Sequence[str] | None]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    name
        What is wrong.
    build
        Makes it and returns the options of the run.
    says
        What must be said: in the terminal, or among the warnings in the scan's sidecar.
    status
        Exit status.
    good
        Whether the good scan beside it is done.
    level
        Level of the run.
    real
        Rooms whose real code runs instead of a stand-in.
    earlier
        Whether a run without the bad scan came before.
    privileges
        False where the case needs a user whom permissions bind.
    """

    name: str
    build: Build
    says: str = ""
    status: int = 1
    good: bool = True
    level: str = "participant"
    real: tuple[str, ...] = ()
    earlier: bool = False
    privileges: bool = True


# --- images ------------------------------------------------------------------------------------------------


def nifti(image: nib.Nifti1Image | None = None, **fields: Any) -> bytes:
    """The bytes of an uncompressed image with some header fields overwritten as they are."""
    stored = bytearray((image or head_image()).to_bytes())
    header = np.ndarray((), dtype=header_dtype, buffer=stored)
    for name, value in fields.items():
        header[name] = value
    return bytes(stored)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def damaged(image: nib.Nifti1Image | None = None, **fields: Any) -> Build:
    """A scan whose header says something else than it should."""
    return scan(lambda: packed(nifti(image, **fields)))


def scan(content: Callable[[], bytes], name: str = BAD, sidecar: Any = None) -> Build:
    """A scan with any bytes for content."""

    def build(world: World) -> None:
        path = world.put(content(), name)
        if sidecar is not None:
            text = sidecar if isinstance(sidecar, bytes) else json.dumps(sidecar).encode()
            path.with_name(path.name.split(".")[0] + ".json").write_bytes(text)

    return build


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


# --- files -------------------------------------------------------------------------------------------------


def link(target: str) -> Build:
    def build(world: World) -> None:
        world.put(b"")
        (world.raw / BAD).unlink()
        (world.raw / BAD).symlink_to(target)

    return build


def folder_as_image(world: World) -> None:
    (world.raw / BAD / "inside").mkdir(parents=True)


def unreadable(world: World) -> None:
    world.put(packed(nifti())).chmod(0)


def pipe_as_image(world: World) -> None:
    (world.raw / BAD).parent.mkdir(parents=True)
    os.mkfifo(world.raw / BAD)


def pipe_as_sidecar(world: World) -> None:
    path = world.put(packed(nifti()))
    os.mkfifo(path.with_name("sub-bad_T2starw.json"))


def folder_as_sidecar(world: World) -> None:
    path = world.put(packed(nifti()))
    path.with_name("sub-bad_T2starw.json").mkdir()


def sidecar(content: Any) -> Build:
    return scan(lambda: packed(nifti()), BAD, content)


def huge_sidecar(world: World) -> None:
    sidecar(b'{"EchoTime": 0.02, "Comment": "' + b"x" * 50_000_000 + b'"}')(world)


_WRONG = {"EchoTime": "long", "MagneticFieldStrength": [3], "ImageType": 7, "Units": {}, "Manufacturer": 3}
FILES: tuple[Case, ...] = (
    Case("broken symlink", link("../../.git/annex/objects/ab/cd"), "datalad get"),
    Case("symlink to itself", link("sub-bad_T2starw.nii.gz"), "sub-bad_T2starw.nii.gz: "),
    Case("symlink to /dev/zero", link("/dev/zero"), "is no file"),
    Case("git-annex pointer", scan(lambda: b"/annex/objects/MD5E-s1--ab\n"), "datalad get"),
    Case(
        "git-lfs pointer",
        scan(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"),
        "git lfs pull",
    ),
    Case("directory named like a file", folder_as_image, "is a folder", 0),
    Case("named pipe", pipe_as_image, "is no file"),
    Case("unreadable permission", unreadable, "check its permissions", privileges=False),
    Case("sidecar empty", sidecar(b""), status=0),
    Case("sidecar of broken JSON", sidecar(b'{"EchoTime": 0.02,'), "it is not valid JSON", 0),
    Case("sidecar is a list", sidecar([1, 2]), "it holds no JSON object", 0),
    Case("sidecar of wrong types", sidecar(_WRONG), "EchoTime in the sidecar is not a positive", 0),
    Case("sidecar of 50 MB", huge_sidecar, "its 50 MB are too much", 0),
    Case("sidecar nested without end", sidecar(b'{"a":' * 100_000), "it is not valid JSON", 0),
    Case("sidecar in Latin-1", sidecar(b'{"Manufacturer": "M\xfcller"}'), "it is not UTF-8 text", 0),
    Case(
        "sidecar with a number beyond float",
        sidecar(b'{"EchoTime": 1' + b"0" * 400 + b"}"),
        "EchoTime in the sidecar is not a positive",
        0,
    ),
    Case("sidecar with NaN", sidecar(b'{"EchoTime": NaN}'), "EchoTime in the sidecar is not a positive", 0),
    Case("sidecar with half a character", sidecar(b'{"Manufacturer": "\\ud800"}'), status=0),
    Case("sidecar is a named pipe", pipe_as_sidecar, "it is no file", 0),
    Case("sidecar is a folder", folder_as_sidecar, "it is no file", 0),
)


# --- datasets ----------------------------------------------------------------------------------------------


def without_description(world: World) -> None:
    world.put(packed(nifti()))
    (world.raw / "dataset_description.json").unlink()


def broken_description(world: World) -> None:
    (world.raw / "dataset_description.json").write_text('{"Name": ')


def phase_only(world: World) -> Sequence[str]:
    world.put(packed(nifti()), "sub-bad/anat/sub-bad_part-phase_T2starw.nii.gz")
    return ["--participant-label", "bad"]


def duplicate_runs(world: World) -> Sequence[str]:
    for run in ("run-1", "run-01"):
        world.put(packed(nifti()), f"sub-bad/anat/sub-bad_{run}_T2starw.nii.gz")
    return ["-v"]


def twice_the_same(world: World) -> Sequence[str]:
    world.put(packed(nifti()))
    world.put(nifti(), "sub-bad/anat/sub-bad_T2starw.nii")
    return ["-v"]


def named(*names: str, options: Sequence[str] = ()) -> Build:
    def build(world: World) -> Sequence[str]:
        for name in names:
            world.put(packed(nifti()), name)
        return options

    return build


def nothing_there(world: World) -> Sequence[str]:
    (world.raw / "sub-bad").mkdir()
    return ["--participant-label", "bad"]


def filtered(content: bytes | None) -> Build:
    def build(world: World) -> Sequence[str]:
        path = world.root / "filter.json"
        if content is not None:
            path.write_bytes(content)
        return ["--bids-filter-file", str(path)]

    return build


def options(*given: str) -> Build:
    return lambda world: [text.format(root=world.root, raw=world.raw, out=world.out) for text in given]


def lost_subject(world: World) -> None:
    (world.raw / "sub-lost").symlink_to("nowhere")
    (world.raw / "sub-loop").symlink_to("sub-loop")
    (world.raw / "sub-file").write_text("x")


def unreadable_subject(world: World) -> None:
    (world.raw / "sub-bad" / "anat").mkdir(parents=True)
    (world.raw / "sub-bad" / "anat").chmod(0)


def companion(name: str, content: Callable[[], bytes], *options: str) -> Build:
    """A scan with a file that may go with it in a derivatives dataset."""

    def build(world: World) -> Sequence[str]:
        world.put(packed(nifti()))
        folder = make_dataset(world.root / "more", {}) / "sub-bad" / "anat"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content())
        return ["-d", str(world.root / "more"), *options]

    return build


_MASK, _T1W = "sub-bad_space-T2starw_desc-brain_mask.nii.gz", "sub-bad_T1w.nii.gz"
DATASETS: tuple[Case, ...] = (
    Case("no dataset_description.json", without_description, "has no dataset_description.json", 0),
    Case("broken dataset_description.json", broken_description, "it is not valid JSON", 0),
    Case(
        "phase without magnitude", phase_only, "nothing to do: no SWI, GRE or QSM scan of sub-bad", 1, False
    ),
    Case("a run twice", duplicate_runs, "was passed over: another image of the same", 0),
    Case("a scan twice, .nii and .nii.gz", twice_the_same, "was passed over: another image", 0),
    Case("labels with +", named("sub-a+b/ses-1+2/anat/sub-a+b_ses-1+2_T2starw.nii.gz"), status=0),
    Case("labels in Unicode", named("sub-Zoë/anat/sub-Zoë_acq-µ_T2starw.nii.gz"), status=0),
    Case(
        "names that are no BIDS names",
        named("sub-bad/anat/sub-bad_T2starw (1).nii.gz", "sub-bad/anat/T2starw.nii.gz"),
        status=0,
    ),
    Case(
        "a label with a line end",
        named("sub-b\nad/anat/sub-b\nad_T2starw.nii.gz"),
        "was left out: its name is no BIDS name",
        0,
    ),
    Case(
        "a label of HTML",
        named("sub-<b onload=x>/anat/sub-<b onload=x>_T2starw.nii.gz"),
        "was left out: its name is no BIDS name",
        0,
    ),
    Case(
        "a label that is no text",
        named(os.fsdecode(b"sub-\xff\xfe/anat/sub-\xff\xfe_T2starw.nii.gz")),
        "was left out: its name is no BIDS name",
        0,
    ),
    Case(
        "labels that differ from the folder's", named("sub-bad/anat/sub-x_T2starw.nii.gz"), "was left out", 0
    ),
    Case(
        "a subject without scans",
        nothing_there,
        "nothing to do: no SWI, GRE or QSM scan of sub-bad",
        1,
        False,
    ),
    Case("links to no subject", lost_subject, status=0),
    Case(
        "an unreadable subject",
        unreadable_subject,
        "cannot be read (Permission denied)",
        1,
        False,
        privileges=False,
    ),
    Case("a brain mask that is truncated", companion(_MASK, lambda: packed(nifti())[:-400]), "truncated"),
    Case("a brain mask that is no image", companion(_MASK, lambda: b"x" * 900), "was not used", 0),
    Case("a brain mask of zero bytes", companion(_MASK, lambda: b""), "was not used", 0),
    Case(
        "a brain mask of another grid",
        companion(_MASK, lambda: stretched((20, 20, 20)), "-v"),
        "was not used",
        0,
    ),
    Case(
        "a T1w image that is truncated",
        companion(_T1W, lambda: packed(nifti())[:-400]),
        "T1w image was not",
        0,
    ),
    Case("no BIDS_DIR", lambda world: shutil.rmtree(world.raw), "does not exist or is no folder", 2, False),
    Case("a label that is not there", options("--participant-label", "nobody"), "is not in", 2, False),
    Case("a label that climbs", options("--participant-label", "../.."), "is not a sub- label", 2, False),
    Case("no filter file", filtered(None), "cannot be read", 2, False),
    Case("filter file of broken JSON", filtered(b"{"), "is not valid JSON", 2, False),
    Case("filter file nested without end", filtered(b"[" * 100_000), "is not valid JSON", 2, False),
    Case("filter file of binary data", filtered(b"\xff\xfe\x00"), "is not valid JSON", 2, False),
    Case("filter file of a list", filtered(b"[]"), "must look like", 2, False),
    Case("filter file of another contrast", filtered(b'{"t1w": {}}'), "is not one of", 2, False),
    Case("filter file of no entity", filtered(b'{"gre": {"colour": "x"}}'), "is not an entity", 2, False),
    Case("filter file of wrong values", filtered(b'{"gre": {"run": {}}}'), "must give 'run'", 2, False),
    Case(
        "a filter that nothing passes", filtered(b'{"gre": {"run": 7}}'), "passes the filter file", 1, False
    ),
    Case("no derivatives folder", options("-d", "{root}/none"), "does not exist", 2, False),
)


# --- places ------------------------------------------------------------------------------------------------


def file_as_output(world: World) -> None:
    world.out.write_text("x")


def output_is_input(world: World) -> None:
    world.out.symlink_to(world.raw)


def protected_output(world: World) -> None:
    world.out.mkdir()
    world.out.chmod(0o555)


def foreign_output(world: World) -> None:
    make_dataset(world.out, {})
    (world.out / "dataset_description.json").write_text(
        '{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}'
    )


def linked_output(*parts: str) -> Build:
    """Something in the output folder that leads out of it."""

    def build(world: World) -> None:
        world.put(packed(nifti()))
        outside = world.root / "outside"
        outside.mkdir()
        place = world.out.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        place.symlink_to(outside)

    return build


def linked_table(world: World) -> None:
    """Earlier files that are links, as someone else may have put there: they are replaced, not written through."""
    world.put(packed(nifti()))
    victim = world.root / "outside"
    victim.write_text("precious")
    for name in ("sub-bad_space-T2starw_seg-CMB_dseg.tsv", "sub-bad_space-T2starw_label-CMB_mask.nii.gz"):
        path = world.out / "sub-bad" / "anat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(victim)


def spoiled(name: str, content: bytes | None) -> Build:
    """An output of an earlier run is not as it was."""

    def build(world: World) -> None:
        path = world.out / "sub-good" / "anat" / f"sub-good_space-T2starw_{name}"
        stored = path.read_bytes()
        path.write_bytes(stored[: len(stored) // 2] if content is None else content)

    return build


def spoiled_record(world: World) -> None:
    (world.out / "logs" / "scans" / "sub-good_T2starw.json").write_text('{"name": 3, "status": []}')


def only_outputs(change: Build) -> Build:
    def build(world: World) -> None:
        change(world)
        shutil.rmtree(world.raw)
        world.raw.mkdir()

    return build


def copied_model(change: Callable[[Path, Path], None]) -> Build:
    """A copy of the shipped weights with something wrong."""

    def build(world: World) -> Sequence[str]:
        folder = world.root / "model"
        folder.mkdir()
        manifest = folder / "bids-cmb-1.json"
        card = json.loads((MODELS / "bids-cmb-1.json").read_text())
        manifest.write_text(json.dumps(card))
        weights = folder / card["weights"]
        shutil.copy(MODELS / card["weights"], weights)
        change(manifest, weights)
        return ["--model", str(folder)]

    return build


def _flip(_: Path, weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def _cut(_: Path, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:1000])


def _edited(**fields: Any) -> Callable[[Path, Path], None]:
    def change(manifest: Path, _: Path) -> None:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **fields}))

    return change


def _resealed(manifest: Path, weights: Path) -> None:
    """Weights that are no weights, with a manifest that vouches for them."""
    import hashlib

    weights.write_bytes(b"\xff" * 64)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    _edited(sha256=digest)(manifest, weights)


_WEIGHTS = ("detector.weights",)
PLACES: tuple[Case, ...] = (
    Case("OUTPUT_DIR is a file", file_as_output, "is a file; name a folder", 2, False),
    Case("OUTPUT_DIR is BIDS_DIR through a link", output_is_input, "is BIDS_DIR itself", 2, False),
    Case("OUTPUT_DIR is read-only", protected_output, "cannot be written to", 2, False, privileges=False),
    Case("OUTPUT_DIR is of another program", foreign_output, "already holds a dataset of fMRIPrep", 2, False),
    Case("sub-bad in OUTPUT_DIR leads out of it", linked_output("sub-bad"), "leads out of"),
    Case("anat in OUTPUT_DIR leads out of it", linked_output("sub-bad", "anat"), "leads out of"),
    Case("logs in OUTPUT_DIR lead out of it", linked_output("logs"), "leads out of", 2, False),
    Case("logs/scans in OUTPUT_DIR lead out of it", linked_output("logs", "scans"), "leads out of", 2, False),
    Case("files in OUTPUT_DIR are links", linked_table, status=0),
    Case("work folder inside BIDS_DIR", options("-w", "{raw}/work"), "lies inside BIDS_DIR", 2, False),
    Case("work folder is a file", options("-w", "{raw}/../raw/dataset_description.json"), "", 2, False),
    Case(
        "an earlier map is truncated",
        spoiled("label-CMB_mask.nii.gz", None),
        "1 done, 0 skipped",
        0,
        earlier=True,
    ),
    Case(
        "an earlier table is truncated",
        spoiled("seg-CMB_dseg.tsv", None),
        "1 done, 0 skipped",
        0,
        earlier=True,
    ),
    Case(
        "an earlier sidecar is garbage",
        spoiled("seg-CMB_dseg.json", b"\xff"),
        "1 done, 0 skipped",
        0,
        earlier=True,
    ),
    Case(
        "an earlier file is empty", spoiled("seg-CMB_dseg.nii.gz", b""), "1 done, 0 skipped", 0, earlier=True
    ),
    Case("an earlier record is garbage", spoiled_record, "1 done, 0 skipped", 0, earlier=True),
    Case("weights are corrupt", copied_model(_flip), "are damaged: their SHA-256", 2, False, real=_WEIGHTS),
    Case("weights are truncated", copied_model(_cut), "are damaged: their SHA-256", 2, False, real=_WEIGHTS),
    Case(
        "weights have a wrong SHA-256",
        copied_model(_edited(sha256="0" * 64)),
        "the manifest says 000000000000",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case(
        "weights of another version",
        copied_model(_edited(format=99)),
        "made for this",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case(
        "weights that are none",
        copied_model(_resealed),
        "does not hold weights",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case(
        "weights of other networks",
        copied_model(_edited(student={"channels": 2, "widths": [3]})),
        "does not describe its weights",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case(
        "no manifest",
        copied_model(lambda card, _: card.unlink()),
        "has 0 manifests",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case(
        "manifest without thresholds",
        copied_model(_edited(thresholds=[])),
        "does not describe",
        2,
        False,
        real=_WEIGHTS,
    ),
    Case("no model of that name", options("--model", "nosuch"), "There is no model", 2, False, real=_WEIGHTS),
    Case(
        "CUDA where there is none",
        options("--device", "cuda"),
        "--device cuda cannot be used",
        2,
        False,
        real=("detector.devices",),
    ),
)


# --- the group level ---------------------------------------------------------------------------------------


def emptied(world: World) -> None:
    shutil.rmtree(world.out)
    world.out.mkdir()


def foreign_only(world: World) -> None:
    emptied(world)
    foreign_output(world)


def no_output(world: World) -> None:
    shutil.rmtree(world.out)


def without(name: str) -> Build:
    return lambda world: (world.out / "sub-good" / "anat" / f"sub-good_space-T2starw_{name}").unlink()


def foreign_files(world: World) -> None:
    folder = world.out / "sub-x" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-x_space-MNI_seg-CMB_dseg.json").write_text("{}")
    (folder / "sub-x_T1w.nii.gz").write_bytes(b"x")
    (world.out / "sub-y").write_text("x")


def review_of_nobody(world: World) -> None:
    (world.out / "review").mkdir()
    (world.out / "review" / "a.tsv").write_bytes(b"\xff\xfe")
    (world.out / "review" / "b.tsv").write_text("x\ty\n1\t2\n")


def group_case(name: str, build: Build, says: str, status: int = 0) -> Case:
    return Case(name, only_outputs(build), says, status, False, "group", earlier=True)


GROUP: tuple[Case, ...] = (
    group_case("group on no folder", no_output, "run the participant level first", 2),
    group_case("group on an empty folder", emptied, "nothing to do", 1),
    group_case("group on another program's", foreign_only, "fMRIPrep", 2),
    group_case(
        "group on partial outputs", without("seg-CMB_dseg.json"), "are incomplete: run the participant"
    ),
    group_case("group without a table", without("seg-CMB_dseg.tsv"), "cannot be read (No such file"),
    group_case(
        "group on a truncated table", spoiled("seg-CMB_dseg.tsv", b"index\tx\n1\n"), "is damaged: line 2"
    ),
    group_case(
        "group on a table of another kind", spoiled("seg-CMB_dseg.tsv", b"a\tb\n1\t2\n"), "lacks columns"
    ),
    group_case("group on an empty table", spoiled("seg-CMB_dseg.tsv", b""), "is empty"),
    group_case("group on a binary table", spoiled("seg-CMB_dseg.tsv", b"\xff\x00"), "it is not UTF-8 text"),
    group_case("group on a broken sidecar", spoiled("seg-CMB_dseg.json", b'{"a'), "it is not valid JSON"),
    group_case("group on a foreign sidecar", spoiled("seg-CMB_dseg.json", b"{}"), "not of this program"),
    group_case("group beside foreign files", foreign_files, "not of this program"),
    group_case("group on broken records", spoiled_record, "1 done, 0 failed"),
    group_case("group with broken reviews", review_of_nobody, "is no review table"),
)

CASES = (*IMAGES, *FILES, *DATASETS, *PLACES, *GROUP)


def main() -> None:
    """Write the cases and print their table."""
    folder = Path(sys.argv[1])
    print("case\tlevel\texit status\tsays")
    for number, case in enumerate(CASES):
        if not case.earlier:  # the others spoil what an earlier run wrote
            world = World(folder / f"{number:03d}")
            world.root.mkdir(parents=True)
            case.build(world.make())
        print(f"{case.name}\t{case.level}\t{case.status}\t{case.says or '(nothing: it is done as usual)'}")
    print(f"{len(CASES)} cases")


if __name__ == "__main__":
    main()

"""Files, sidecars and datasets that are not as they should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from bad_case import BAD, Build, Case, World, nifti, options, packed, scan
from bad_images import stretched
from conftest import make_dataset


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

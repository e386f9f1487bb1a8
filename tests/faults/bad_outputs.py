"""Places that results can't go to, results and weights that were spoiled, and group levels over them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bad_case import Build, Case, World, nifti, options, packed
from conftest import make_dataset

MODELS = Path(__file__).parents[2] / "models"


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
        "group on a table of another kind", spoiled("seg-CMB_dseg.tsv", b"a\tb\n1\t2\n"), "lacks the columns"
    ),
    group_case("group on an empty table", spoiled("seg-CMB_dseg.tsv", b""), "is empty"),
    group_case("group on a binary table", spoiled("seg-CMB_dseg.tsv", b"\xff\x00"), "it is not UTF-8 text"),
    group_case("group on a broken sidecar", spoiled("seg-CMB_dseg.json", b'{"a'), "it is not valid JSON"),
    group_case("group on a foreign sidecar", spoiled("seg-CMB_dseg.json", b"{}"), "not of this program"),
    group_case("group beside foreign files", foreign_files, "not of this program"),
    group_case("group on broken records", spoiled_record, "1 done, 0 failed"),
    group_case("group with broken reviews", review_of_nobody, "is no review table"),
)

"""The files at the root of the output dataset that say what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import bids_cmb
from bids_cmb.bids.sidecars import load_json_object
from bids_cmb.bids.tables import table_text
from bids_cmb.errors import UsageError
from bids_cmb.files import is_inside, read_text, write_json, write_text
from bids_cmb.types import MARS_REGIONS, MARS_RIGHT_OFFSET

Datasets = Sequence[tuple[str, Path]]

BIDS_VERSION: Final = "1.11.1"
SOFTWARE_NAMES: Final = ("bids_cmb", "bids-cmb")

#: Files that BIDS has no place for yet. A pattern for a folder must not end in a slash.
IGNORED: Final = (
    "*.html",
    "group_*",
    "review",
    "review/**",
    "*_desc-preproc_swi.*",
    "*_desc-preproc_GRE.*",
    "*_xfm.*",
)

#: What tells a folder of results whose description is gone from other datasets.
_OUR_FILES: Final = ("seg-MARS_dseg.tsv", "logs/scans")

_COLOURS: Final = {"infratentorial": (64, 110, 200), "deep": (214, 96, 60), "lobar": (70, 150, 90)}

README: Final = """# Cerebral microbleeds found by bids_cmb

For research use only: not a medical device. No count here was checked by a reader, unless `review/` says so.

For each image (`sub-*/[ses-*/]anat/`; `space-<suffix>` names the image whose grid a file lies on):

| file | holds |
|---|---|
| `*_seg-CMB_dseg.tsv` | one row per microbleed: probability, MARS region, position, size |
| `*_seg-CMB_dseg.nii.gz` | the same microbleeds as a label map; the label is the table's `index` |
| `*_label-CMB_mask.nii.gz` | all microbleeds as one mask |
| `*_label-CMB_probseg.nii.gz` | every candidate's voxels with its final probability |
| `*_seg-candidates_dseg.nii.gz`, `.tsv` | everything that was considered, with what became of it |
| `*_seg-MARS_dseg.nii.gz` | MARS regions; values in `seg-MARS_dseg.tsv` |
| `*_desc-brain_mask.nii.gz` | where microbleeds were looked for |
| `*_desc-preproc_*.nii.gz` | intensities as the detector saw them (with `--save-preproc` only) |
| `*_to-MNI152NLin2009aSym_mode-image_xfm.nii.gz` | displacements that bring the image to MNI space (with `--save-preproc` only) |

A table without rows and an empty mask mean that none was found. Columns are explained in the `.json` files.
`sub-*.html` is the report of one subject. `group_*.tsv` and `group_cmb.html` are made by the group level.
`logs/` holds the configuration and log of each run, and in `logs/scans/` what became of each scan.

Files that BIDS has no place for yet are listed in `.bidsignore`. Validate this folder by itself: a validator that
descends from a raw dataset into its derivatives does not read that list and reports those files as errors.
"""


def check_output_dir(output_dir: Path, *, to_fill: bool = True) -> None:
    """Make sure that an output folder is new, empty, or one of ours.

    Parameters
    ----------
    output_dir
        The folder.
    to_fill
        Whether subjects' results will be written: then a dataset without a description must be ours by other files.

    Raises
    ------
    UsageError
        If it is no folder, can't be written to, or holds another dataset, whose description would be lost.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UsageError(f"OUTPUT_DIR {output_dir} is a file; name a folder.")
    nearest = next(folder for folder in (output_dir, *output_dir.parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"OUTPUT_DIR {output_dir} cannot be written to; name another folder, or mount it.")
    description = output_dir / "dataset_description.json"
    instead = "name a folder of its own, e.g. derivatives/bids_cmb."
    if not os.path.lexists(description):
        ours = any((output_dir / name).exists() for name in _OUR_FILES)
        # Raw images have no space in their names, and what a run that was killed left unfinished begins with a point.
        files = (file.name for file in output_dir.glob("sub-*/**/*.*"))
        strange = (name for name in files if not name.startswith(".") and "_space-" not in name)
        if to_fill and not ours and any(strange):
            raise UsageError(
                f"OUTPUT_DIR {output_dir} holds subjects that are not results of bids_cmb; {instead}"
            )
        return
    content, problem = load_json_object(description)
    if problem or not content:
        # A crash of the machine may leave an empty file; anything else is somebody's.
        if description.is_file() and description.stat().st_size == 0:
            return
        raise UsageError(
            f"OUTPUT_DIR {output_dir} already holds a dataset whose dataset_description.json cannot be read; "
            f"mend that file, or {instead}"
        )
    if _generator(content) not in SOFTWARE_NAMES:
        owner = _generator(content) or content.get("Name") or "something else"
        raise UsageError(f"OUTPUT_DIR {output_dir} already holds a dataset of {owner}; {instead}")


def _generator(description: Mapping[str, Any]) -> str | None:
    generators = description.get("GeneratedBy")
    first = generators[0] if isinstance(generators, list) and generators else None
    name = first.get("Name") if isinstance(first, dict) else None
    return name if isinstance(name, str) else None


def write_dataset_files(
    output_dir: Path, bids_dir: Path, derivatives: Sequence[tuple[str, Path]] = ()
) -> None:
    """Write the description of the output dataset and what belongs to it.

    Any number of processes may do this at the same time: each file is replaced whole by the same content.
    Links to datasets that other runs used are kept.

    Raises
    ------
    OSError
        If the folder can't be written.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "dataset_description.json", _description(output_dir, bids_dir, derivatives))
    if not (output_dir / "README.md").exists():
        write_text(output_dir / "README.md", README)
    write_text(output_dir / ".bidsignore", _ignore_file(output_dir / ".bidsignore"))
    write_text(output_dir / "descriptions.tsv", _descriptions())
    write_text(output_dir / "seg-MARS_dseg.tsv", mars_lookup())


def _description(output_dir: Path, bids_dir: Path, derivatives: Datasets) -> dict[str, Any]:
    earlier, _ = load_json_object(output_dir / "dataset_description.json")
    links = earlier.get("DatasetLinks")
    links = dict(links) if isinstance(links, dict) else {}
    links |= {name: _relative(root, output_dir) for name, root in (("raw", bids_dir), *derivatives)}
    raw, _ = load_json_object(bids_dir / "dataset_description.json")
    doi = raw.get("DatasetDOI")
    source = {"URL": links["raw"], **({"DOI": doi} if isinstance(doi, str) and doi else {})}
    # Where the folder lies in a raw dataset's derivatives/, BIDS wants the name to be part of the folder's.
    folder = output_dir.name
    name = next((name for name in SOFTWARE_NAMES if name in folder), SOFTWARE_NAMES[0])
    return {
        "Name": "Cerebral microbleeds found by bids_cmb",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": name,
                "Version": bids_cmb.__version__,
                "Description": "Detection of cerebral microbleeds on SWI, T2*-weighted GRE and QSM. "
                "Research use only.",
            }
        ],
        "SourceDatasets": [source],
        "DatasetLinks": dict(sorted(links.items())),
    }


def _relative(root: Path, output_dir: Path) -> str:
    """Path from the output folder to another dataset: stays true when both are moved or mounted together."""
    try:
        return Path(os.path.relpath(root.resolve(), output_dir.resolve())).as_posix()
    except ValueError:  # another drive
        return root.as_posix()


def _ignore_file(path: Path) -> str:
    """Our patterns, after whatever a user added to the file."""
    try:
        # A link could lead to a file that nobody means to publish.
        lines = read_text(path).splitlines() if is_inside(path, path.parent) else []
    except (OSError, UnicodeDecodeError):
        lines = []
    return "\n".join([*lines, *(pattern for pattern in IGNORED if pattern not in lines)]) + "\n"


def _descriptions() -> str:
    rows = [
        {"desc_id": "desc-brain", "description": "Brain mask on the grid of the image."},
        {"desc_id": "desc-preproc", "description": "The image as the detector saw it."},
    ]
    return table_text(["desc_id", "description"], rows)


def mars_lookup() -> str:
    """Return the table of label values of ``seg-MARS_dseg``: left regions 1 to 13, right ones 101 to 113."""
    rows: list[dict[str, str | int]] = []
    for offset, side, letter in ((0, "left", "L"), (MARS_RIGHT_OFFSET, "right", "R")):
        for number, (code, name, category) in enumerate(MARS_REGIONS, start=1):
            shade = [
                min(255, value + 6 * number + (0 if letter == "L" else 20)) for value in _COLOURS[category]
            ]
            rows.append(
                {
                    "index": offset + number,
                    "name": f"{side} {name}",
                    "abbreviation": f"{code}_{letter}",
                    "color": "#" + "".join(f"{value:02x}" for value in shade),
                }
            )
    return table_text(["index", "name", "abbreviation", "color"], rows)

"""Arrange the real images of ../shared/data as a BIDS dataset and run the command on it.

    python benchmarks/real_images.py WORK_FOLDER [--model NAME_OR_PATH]

No image of that folder carries annotated microbleeds: the run shows false detections, not sensitivity. Exits with a
sentence where the folder is absent. Nothing is copied into the project.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def arrange(folder: Path) -> None:
    """Write the QSM and the 12-echo slab into a BIDS dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "real images", "BIDSVersion": "1.11.1"}\n')
    qsm = folder / "sub-qsm" / "anat" / "sub-qsm_Chimap.nii.gz"
    qsm.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.load(DATA / "qsm_hemorrhage" / "msQSM.nii.gz"), qsm)
    slab = nib.load(next((DATA / "gre_12echo").glob("*.nii.gz")))
    anat = folder / "sub-slab" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    data = np.asarray(slab.dataobj)
    for echo in range(data.shape[3]):
        image = nib.Nifti1Image(data[..., echo], slab.affine)
        nib.save(image, anat / f"sub-slab_echo-{echo + 1}_part-mag_MEGRE.nii.gz")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print("The real images (../shared/data) are not here: nothing to do.")
        return 0
    bids, out = arguments.folder / "bids", arguments.folder / "out"
    arrange(bids)
    command = [
        sys.executable,
        "-m",
        "bids_cmb",
        str(bids),
        str(out),
        "participant",
        "--skip-bids-validation",
        "--force",
    ]
    status = subprocess.run(
        [*command, *(["--model", arguments.model] if arguments.model else [])], check=False
    ).returncode
    for table in sorted(out.rglob("*_seg-CMB_dseg.tsv")):
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        print(f"{table.name}: {len(rows)} found")
        for row in rows:
            keys = (
                "index",
                "probability",
                "certainty",
                "mars_region",
                "hemisphere",
                "x",
                "y",
                "z",
                "diameter",
                "contrast",
                "flags",
            )
            print("   ", "  ".join(f"{key}={row.get(key, '?')}" for key in keys))
    return status


if __name__ == "__main__":
    sys.exit(main())

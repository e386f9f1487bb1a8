"""Time and size of the group page for a made-up study, and the time that a browser takes to show it.

Run as ``python benchmarks/group_page.py [SCANS]`` (default 2000). The tables are random numbers, no results.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_cmb.bids.quality import QUALITY_COLUMNS, quality_rows
from bids_cmb.bids.results import ScanOutcome
from bids_cmb.bids.tables import write_table
from bids_cmb.group import CMB_COLUMNS, MARS_COLUMNS, cmb_row, mars_row
from bids_cmb.report.group import write_group_page
from bids_cmb.types import MARS_REGIONS

_SCANNERS = (("Siemens", "Prisma", 3.0), ("GE", "Signa HDxt", 1.5), ("Philips", "Ingenia", 3.0))
_EXTRA = 30  # failed scans and outliers, so that their parts of the page are there


def made_up_study(folder: Path, scans: int, seed: int = 1) -> None:
    """Write the group tables of a study that does not exist, and empty subject pages."""
    rng = np.random.default_rng(seed)
    outcomes = []
    for number in range(scans):
        contrast = ("swi", "gre", "qsm")[number % 3]
        participant = f"sub-{number // 3 + 1:04d}"
        (folder / f"{participant}.html").touch()
        source = f"bids:raw:{participant}/anat/{participant}_{contrast}.nii.gz"
        if number % (scans // _EXTRA + 1) == 5:
            outcomes.append(
                ScanOutcome(participant, None, source, contrast, "failed", problem="The file is damaged.")
            )
            continue
        count = 0 if rng.random() < 0.6 else int(min(200, np.exp(rng.normal(0.8, 1.2))))
        lesions = []
        for index in range(count):
            code, _, category = MARS_REGIONS[rng.choice(len(MARS_REGIONS))]
            lesions.append(
                {
                    "index": str(index + 1),
                    "certainty": str(rng.choice(["definite", "possible"])),
                    "mars_category": category,
                    "mars_region": code,
                    "hemisphere": str(rng.choice(["L", "R"])),
                    "volume": "14.0",
                }
            )
        maker, model, field = _SCANNERS[number // 3 % 3]
        odd = number % (scans // _EXTRA + 1) == 11
        sidecar = {
            "Manufacturer": maker,
            "ManufacturersModelName": model,
            "MagneticFieldStrength": field,
            "EchoTime": 0.02,
            "VoxelSize": [0.9, 0.9, 2.0],
            "BrainVolume": 700_000.0 if odd else float(rng.normal(1.25e6, 9e4)),
            "SNR": float(rng.normal(22, 3)),
            "RegistrationQuality": {"similarity": float(rng.normal(0.8, 0.03)), "overlap": 0.95},
            "Model": {"Name": "bids-cmb-1", "Version": "0.1.0"},
        }
        outcomes.append(ScanOutcome(participant, None, source, contrast, "done", sidecar, tuple(lesions)))
    write_table(folder / "group_cmb.tsv", list(CMB_COLUMNS), map(cmb_row, outcomes))
    write_table(folder / "group_mars.tsv", list(MARS_COLUMNS), map(mars_row, outcomes))
    write_table(folder / "group_quality.tsv", list(QUALITY_COLUMNS), quality_rows(outcomes))


def main() -> None:
    """Print the figures."""
    scans = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up_study(folder, scans)
        started = time.perf_counter()
        page = write_group_page(folder)
        written = time.perf_counter() - started
        print(f"{scans} scans: written in {written:.2f} s, {page.stat().st_size / 1e6:.2f} MB")
        if len(sys.argv) > 2:
            shutil.copy(page, sys.argv[2])
        for what, uri in (("an empty page", "about:blank"), ("the group page", page.as_uri())):
            if browser is None:
                print("no Chromium here: the time to open is not measured")
                break
            started = time.perf_counter()
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={name}/profile",
                 "--dump-dom", uri],
                capture_output=True, check=True, timeout=120,
            )  # fmt: skip
            print(f"Chromium, start to end, {what}: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()

"""A quick look at whether a folder says that it is a BIDS dataset."""

from __future__ import annotations

import logging
from pathlib import Path

from bids_cmb.bids.sidecars import load_json_object

_log = logging.getLogger(__name__)


def check_description(bids_dir: Path) -> list[str]:
    """Look for what every BIDS dataset must have, and warn of what is missing.

    Parts of a dataset, as job systems check them out, lack such files; that alone stops nothing. The scans that
    this app is for have names that validators of BIDS still refuse, hence no call of a validator here.

    Returns
    -------
    list of str
        The warnings, which are logged as well.
    """
    path = bids_dir / "dataset_description.json"
    if not path.exists():
        found = [f"{bids_dir} has no dataset_description.json, which a BIDS dataset must have."]
    else:
        content, problem = load_json_object(path)
        missing = [key for key in ("Name", "BIDSVersion") if not content.get(key)]
        found = [problem.replace("The sidecar ", "")] if problem else []
        found += [f"{path} lacks {' and '.join(missing)}."] if missing and not problem else []
    for warning in found:
        _log.warning("%s", warning)
    return found

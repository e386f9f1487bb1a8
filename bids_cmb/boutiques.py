"""The Boutiques descriptor of the command, made from its argument parser.

``python -m bids_cmb.boutiques > boutiques.json`` writes it anew. Format: https://github.com/boutiques/boutiques,
schema 0.5, in the form that ``bosh validate --bids`` asks of BIDS Apps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import bids_cmb
from bids_cmb.cli import DESCRIPTION, build_parser
from bids_cmb.config import ExitCode

#: What the parser does not say: of which kind the value of an option is, and within which bounds.
#: A folder that may not exist yet is text, because Boutiques wants files to be there.
_VALUES: Final[Mapping[str, Mapping[str, Any]]] = {
    "bids_dir": {"type": "File"},
    "participant_label": {"type": "String"},
    "session_label": {"type": "String"},
    "contrast": {"type": "String"},
    "bids_filter_file": {"type": "File"},
    "derivatives": {"type": "File"},
    "bids_database_dir": {"type": "String"},
    "model": {"type": "String"},
    "threshold": {
        "type": "Number",
        "minimum": 0,
        "maximum": 1,
        "exclusive-minimum": True,
        "exclusive-maximum": True,
    },
    "device": {"type": "String"},
    "registration": {"type": "String"},
    "nprocs": {"type": "Number", "integer": True, "minimum": 1},
    "omp_nthreads": {"type": "Number", "integer": True, "minimum": 1},
    "mem_gb": {"type": "Number", "minimum": 0, "exclusive-minimum": True},
    "work_dir": {"type": "String"},
}
_OUTPUT: Final = "[OUTPUT_DIR]"
#: `bosh validate --bids` wants these first, in this order.
_FIRST: Final = ("bids_dir", "output_dir", "analysis_level", "participant_label", "session_label")


def descriptor() -> dict[str, Any]:
    """Return the Boutiques descriptor of ``bids-cmb``.

    Raises
    ------
    KeyError
        If the parser has an option with a value of which the table here does not say what kind it is.
    """
    inputs = list(_inputs())
    keys = list(dict.fromkeys(item["value-key"] for item in inputs))
    first = [f"[{name.upper()}]" for name in _FIRST]
    words = " ".join([*first, *(key for key in keys if key not in first)])
    return {
        "name": "bids_cmb",
        "description": DESCRIPTION,
        "tool-version": bids_cmb.__version__,
        "schema-version": "0.5",
        "command-line": f"mkdir -p {_OUTPUT}; bids-cmb {words}",
        "container-image": {"type": "docker", "image": "bids-cmb:cpu", "entrypoint": True},
        "inputs": inputs,
        "groups": [
            {
                "id": "output_directory",
                "name": "Output folder",
                "description": "One of them; the group level takes the folder of the participant level.",
                "members": ["output_dir", "participant_results"],
                "mutually-exclusive": True,
                "one-is-required": True,
            }
        ],
        "output-files": [
            {
                "id": "results",
                "name": "Results",
                "description": "BIDS derivatives, a page per subject, group tables, logs.",
                "path-template": _OUTPUT,
                "optional": False,
            }
        ],
        "error-codes": [
            {
                "code": int(ExitCode.FAILED),
                "description": "At least one scan failed, or there was nothing to do.",
            },
            {"code": int(ExitCode.USAGE), "description": "Wrong usage."},
        ],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "nodes": 1},
        "tags": {"domain": ["neuroinformatics", "mri", "bids"], "toolType": "BIDS App"},
    }


def _inputs() -> Iterator[dict[str, Any]]:
    for action in build_parser()._actions:
        if isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
            continue
        if action.dest == "output_dir":
            yield from _output_dirs(action)
        elif action.dest == "level":
            yield {
                **_described("analysis_level", action),
                "type": "String",
                "value-choices": list(action.choices or ()),
                "optional": False,
            }
        else:
            yield _input(action)


def _input(action: argparse.Action) -> dict[str, Any]:
    entry = _described(action.dest, action)
    if action.option_strings:
        # The long form, first among long ones: it says what it is for.
        entry["command-line-flag"] = next(name for name in action.option_strings if name.startswith("--"))
    entry["optional"] = bool(action.option_strings)
    if action.nargs == 0:
        return {**entry, "type": "Flag"}
    entry |= _VALUES[action.dest]
    if action.nargs == "+":
        entry |= {"list": True, "min-list-entries": 1}
    if action.choices:
        entry["value-choices"] = list(action.choices)
    return entry


def _output_dirs(action: argparse.Action) -> Iterator[dict[str, Any]]:
    """The output folder by name, and again as a folder that is there: `bosh validate --bids` asks for both.

    The name comes first: bosh 0.5 drops the key from the command line where the first of the two is not given.
    """
    yield {**_described("output_dir", action), "type": "String", "value-key": _OUTPUT, "optional": True}
    yield {
        **_described("participant_results", action),
        "description": "OUTPUT_DIR as a folder that is there, for platforms that keep it as a file; bosh itself: output_dir.",
        "type": "File",
        "value-key": _OUTPUT,
        "optional": True,
    }


def _described(name: str, action: argparse.Action) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.replace("_", " "),
        "description": action.help or "",
        "value-key": f"[{name.upper()}]",
    }


def text() -> str:
    """Return the content of ``boutiques.json``."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())

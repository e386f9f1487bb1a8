"""Coverage-guided fuzzing of the readers, for as long as wanted.

``pip install atheris``, then ``python tests/faults/fuzz_atheris.py {header,sidecar,table} -max_total_time=600``.
It ends with a report of the input where a reader raises what it does not promise. `test_fuzz` holds the same promises
under Hypothesis in the ordinary tests.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

with atheris.instrument_imports(include=["bids_cmb"]):
    import test_fuzz
    from bad_case import nifti

    from bids_cmb.bids.tables import read_table
    from bids_cmb.report.data import read_findings

IMAGE = nifti()


def header(content: bytes, folder: Path) -> None:
    """The bytes take the place of the header's first ones; every other time the image is compressed."""
    stored = content[1:] + IMAGE[len(content) - 1 :] if content else IMAGE
    packed = bool(content and content[0] & 1)
    path = folder / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(stored, 1) if packed else stored)
    test_fuzz.load(path)


def sidecar(content: bytes, _: Path) -> None:
    test_fuzz.check_sidecar(content)


def table(content: bytes, folder: Path) -> None:
    path = folder / "x.tsv"
    path.write_bytes(content)
    try:
        read_table(path)
    except ValueError as error:
        assert str(path) in str(error)
    read_findings(path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {"header": header, "sidecar": sidecar, "table": table}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    target = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seed = folder / "seed"
        seed.mkdir()
        (seed / "a").write_bytes(
            {"header": b"\0" + IMAGE[:352], "sidecar": b'{"EchoTime": 0.02}'}.get(
                sys.argv[1], b"a\tb\n1\t2\n"
            )
        )
        atheris.Setup([sys.argv[0], *sys.argv[2:], str(seed)], lambda content: target(content, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    main()

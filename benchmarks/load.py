"""Time and memory of large studies: listing, the group level, and a long run.

``python benchmarks/load.py [SUBJECTS]`` (default 10000) makes, in a temporary folder,

- a dataset of that many subjects with two empty images each, and lists its scans: all, and those of ten labels;
- outputs of that many subjects, copied from one scan of the tests' stand-in detector, and runs the group level;
- a dataset of fifty small scans, and runs the participant level with the stand-in detector.

``python benchmarks/load.py long SCAN`` runs the participant level, with the shipped detector, over fifty subjects who all
have that T2*-weighted scan.

Each is measured in a process of its own: wall time, processor time (what the wall time is on an idle machine) and
peak memory as the system reports them. The page cache is warm. Only ``long`` has a network take part; no figure says anything about detection.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
FAKE = [sys.executable, str(TESTS / "fake_command.py")]
FIFTY = 50
_LIST = """
import resource, sys, time
from pathlib import Path
from bids_cmb.bids.inputs import find_scans
started, before = time.perf_counter(), time.process_time()
scans = find_scans(Path(sys.argv[1]), participant_labels=sys.argv[2:])
seconds = time.perf_counter() - started
busy = time.process_time() - before
print(f"{len(scans)} scans in {seconds:.2f} s ({busy:.2f} s of the processor), {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
"""


#: As many fields as converters write.
_SIDECAR = json.dumps({"EchoTime": 0.02, **{f"Field{n}": f"value {n}" for n in range(60)}})


def made_index(root: Path, subjects: int) -> Path:
    """A dataset of empty images with full sidecars."""
    for number in range(subjects):
        folder = root / f"sub-{number:05d}" / "anat"
        folder.mkdir(parents=True)
        for suffix in ("T2starw", "swi"):
            (folder / f"sub-{number:05d}_{suffix}.nii.gz").touch()
            (folder / f"sub-{number:05d}_{suffix}.json").write_text(_SIDECAR)
    (root / "dataset_description.json").write_text('{"Name": "Empty", "BIDSVersion": "1.11.1"}')
    return root


def made_outputs(root: Path, subjects: int) -> Path:
    """An output folder whose subjects are copies of one that a run with the stand-in detector wrote."""
    first = "sub-00000"
    raw = simulated(root / "one", [first])
    out = root / "outputs"
    subprocess.run([*FAKE, str(raw), str(out), "participant", "-q"], check=True, stdout=subprocess.DEVNULL)
    kept = ("seg-CMB_dseg.json", "seg-CMB_dseg.tsv", "label-CMB_mask.nii.gz")
    files = [path for path in (out / first / "anat").iterdir() if path.name.endswith(kept)]
    files += [out / "logs" / "scans" / f"{first}_T2starw.json", out / f"{first}.html"]
    for number in range(1, subjects):
        label = f"sub-{number:05d}"
        (out / label / "anat").mkdir(parents=True)
        for path in files:
            copy = out / str(path.relative_to(out)).replace(first, label)
            if path.suffix == ".gz":
                shutil.copy(path, copy)
            else:
                copy.write_text(path.read_text().replace(first, label))
    return out


def simulated(root: Path, subjects: list[str]) -> Path:
    """A dataset of one tiny simulated scan each."""
    sys.path.insert(0, str(TESTS))
    from conftest import head_image, make_dataset

    image = head_image((48, 48, 24))
    return make_dataset(root, {f"{label}/anat/{label}_T2starw.nii.gz": image for label in subjects})


def measured(command: list[str]) -> tuple[float, float, float, str]:
    """Run a command; return seconds, seconds of the processor, megabytes at its peak, and what it said."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    busy = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started, busy, usage.ru_maxrss / 1e3, said.strip()


def resident_mb(pid: int) -> float:
    """Memory of a process now, megabytes; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1e3


def repeated(root: Path, scan: Path) -> Path:
    """A dataset of fifty subjects with one and the same T2*-weighted scan."""
    for number in range(FIFTY):
        folder = root / f"sub-{number:02d}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{number:02d}_T2starw.nii.gz").symlink_to(scan.resolve())
    (root / "dataset_description.json").write_text('{"Name": "One scan", "BIDSVersion": "1.11.1"}')
    return root


def long_run(raw: Path, out: Path, program: list[str]) -> str:
    """Memory of a run over fifty scans and of its worker after each scan, as the records appear."""
    process = subprocess.Popen([*program, str(raw), str(out), "participant", "-q"], stdout=subprocess.DEVNULL)
    seen: dict[int, tuple[float, float]] = {}
    while process.poll() is None:
        done = len(list((out / "logs" / "scans").glob("sub-*.json")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            workers = [resident_mb(int(child)) for child in children.read_text().split()]
        except OSError:
            workers = []
        if done < FIFTY and max(workers, default=0) > 0:
            seen[done] = resident_mb(process.pid), max(workers)  # the last while so many were done
        time.sleep(0.05)
    after = sorted({min(n for n in seen if n >= at) for at in (FIFTY // 10, FIFTY // 2)} | {max(seen)})
    return "; ".join(f"after {n} scans: run {seen[n][0]:.0f} MB, worker {seen[n][1]:.0f} MB" for n in after)


def main() -> None:
    """Print the figures."""
    if sys.argv[1:2] == ["long"]:
        with tempfile.TemporaryDirectory(prefix="load-") as name:
            root = Path(name)
            raw = repeated(root / "fifty", Path(sys.argv[2]))
            program = [sys.executable, "-m", "bids_cmb"]
            print(f"Participant level, shipped detector, {long_run(raw, root / 'out', program)}")
        return
    subjects = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        root = Path(name)
        index = made_index(root / "index", subjects)
        listing = [sys.executable, "-c", _LIST, str(index)]
        print(f"Listing {subjects} subjects with two empty images each:", flush=True)
        print(f"  all: {measured(listing)[3]}", flush=True)
        labels = [f"{n:05d}" for n in range(0, subjects, max(1, subjects // 10))]
        print(f"  {len(labels)} labels: {measured([*listing, *labels])[3]}", flush=True)

        out = made_outputs(root, subjects)
        (root / "empty").mkdir()
        command = [sys.executable, "-m", "bids_cmb", str(root / "empty"), str(out), "group"]
        seconds, busy, peak, _ = measured(command)
        page = (out / "group_cmb.html").stat().st_size / 1e6
        rows = (out / "group_cmb.tsv").read_text().count("\n") - 1
        print(
            f"Group level over {rows} scans: {seconds:.1f} s ({busy:.1f} s of the processor), {peak:.0f} MB; its page has {page:.1f} MB"
        )
        print(json.dumps({path.name: path.stat().st_size for path in sorted(out.glob("group_*.tsv"))}))

        raw = simulated(root / "fifty", [f"sub-{n:02d}" for n in range(FIFTY)])
        print(f"Participant level, stand-in detector, {long_run(raw, root / 'fifty-out', FAKE)}")


if __name__ == "__main__":
    main()

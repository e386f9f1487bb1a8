"""What the computer offers and what a scan takes: processors, memory, threads, scratch space."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bids_cmb.errors import UsageError
from bids_cmb.files import has_lost_owner, private_prefix

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig

#: Memory of one scan at its peak, gigabytes: what the libraries take, and what each million voxels adds.
#: Measured 1.8 GB at 6.6 and 4.1 GB at 40 million voxels (CPU), with a tenth on top.
BASE_GB, GB_PER_MILLION_VOXELS = 1.5, 0.075

#: How the names of scratch folders begin.
SCRATCH_PREFIX = "bids_cmb-"

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CACHE_VARIABLES = (
    "MPLCONFIGDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "NUMBA_CACHE_DIR",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
)


def available_cpus() -> int:
    """Return how many processors this process may use: its affinity, and a container's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cpus = min(cpus, max(1, int(quota[0]) // int(quota[1])))
    return cpus


def available_memory_gb() -> float | None:
    """Return the memory that is free within a container's limit, gigabytes; None if nothing says."""
    free = [
        line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")
    ]
    limits = [int(free[0]) * 1024] if free else []
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        limits.append(max(0, int(limit) - int(used)))
    return min(limits) / 1e9 if limits else None


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii")
    except OSError:
        return ""


def scan_memory_gb(voxels: int) -> float:
    """Estimate the memory that one scan takes at its peak, gigabytes."""
    return BASE_GB + GB_PER_MILLION_VOXELS * voxels / 1e6


def workers_within_memory(wanted: int, largest_voxels: int, mem_gb: float | None) -> int:
    """Return how many scans to work on at once so that they fit into memory; at least one.

    Parameters
    ----------
    wanted
        How many the user would like.
    largest_voxels
        Voxels of the largest scan.
    mem_gb
        Gigabytes to stay under; None means what is free.
    """
    memory = mem_gb if mem_gb is not None else available_memory_gb()
    if memory is None:
        return wanted
    return max(1, min(wanted, int(memory / scan_memory_gb(largest_voxels))))


@contextlib.contextmanager
def settled(config: RunConfig) -> Iterator[Path]:
    """Give a private scratch folder, and the environment for heavy libraries; both are gone afterwards.

    Enter before any heavy library is imported. Caches and temporary files go to the scratch folder, so that a
    read-only system without a home will do; child processes inherit this. ITK gets one thread: with more, its
    sums depend on which thread is first.

    Raises
    ------
    UsageError
        If no scratch files can be written.
    """
    environment, temporary = dict(os.environ), tempfile.tempdir
    with _scratch_folder(config.work_dir, config.output_dir) as folder:
        try:
            os.environ.update(_settings(folder, config.omp_nthreads))
            tempfile.tempdir = str(folder)
            yield folder
        finally:
            os.environ.clear()
            os.environ.update(environment)
            tempfile.tempdir = temporary


@contextlib.contextmanager
def _scratch_folder(parent: Path | None, output_dir: Path) -> Iterator[Path]:
    """Make a folder in `parent` or, without one, where temporary files go or, if nothing can be written there, in the output
    folder: a container with a read-only root and no /tmp has no other place.
    """  # noqa: D205
    prefix = SCRATCH_PREFIX
    if parent is None and output_dir.is_dir() and not _has_temporary_folder():
        parent, prefix = output_dir, f".{SCRATCH_PREFIX}"
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=private_prefix(prefix), dir=parent))
    except OSError as error:
        raise UsageError(
            f"No scratch files can be written in {parent or 'the temporary folder'} "
            f"({error.strerror or error}); name a folder with --work-dir."
        ) from error
    try:
        _remove_abandoned_scratch(folder.parent, prefix)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_temporary_folder() -> bool:
    try:
        return os.access(tempfile.gettempdir(), os.W_OK)
    except FileNotFoundError:  # none of the usual places can be written to
        return False


def _remove_abandoned_scratch(parent: Path, prefix: str) -> None:
    """Remove the scratch folders that killed runs of this user left on this machine."""
    try:
        with os.scandir(parent) as entries:
            left = [
                entry.path
                for entry in entries
                if has_lost_owner(entry.name, prefix)
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
    except OSError:
        return
    for name in left:
        shutil.rmtree(name, ignore_errors=True)


def _settings(folder: Path, threads: int) -> dict[str, str]:
    """Environment variables for a run that keeps its scratch files in one folder."""
    caches = folder / "caches"
    caches.mkdir()
    settings = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | dict.fromkeys(_CACHE_VARIABLES, str(caches))
    settings |= {
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
        # Threads that wait give up their core: on a busy node they would take it from those that they wait for.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # with no other setting is cuBLAS deterministic
        "MPLBACKEND": "Agg",
        "TMPDIR": str(folder),
    }
    home = os.environ.get("HOME")
    return settings if home and os.access(home, os.W_OK) else settings | {"HOME": str(folder)}

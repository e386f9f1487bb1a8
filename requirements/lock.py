"""Write what the image installs, with the SHA-256 of every file that pip may take.

``.venv/bin/python requirements/lock.py`` (after ``make install``) reads constraints.txt and pyproject.toml and writes,
beside this file:

``run.txt``
    All that runs beside torch: what the project needs and what that needs in turn.
``torch.txt``
    torch alone: the image is built with the build of it that was asked for.
``build.txt``
    What makes wheels of the project and of packages that offer none, and is not in ``run.txt``. It does not stay in the image.

Versions are those of constraints.txt. Files are the wheels for the Python and the processor below, and the source
archive where there is no wheel. Their hashes are those of the package index that pip is set to use. PyTorch's CPU build
lies in an index of its own: let pip see that too (``PIP_EXTRA_INDEX_URL`` or ``PIP_FIND_LINKS``), or its wheel is missing from
``torch.txt``.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import requires
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

HERE = Path(__file__).parent
ROOT = HERE.parent
#: Python and processor of the image (antspyx offers Linux wheels for this one alone); Debian 12 has glibc 2.36.
PYTHON = (3, 11)
PROCESSOR = "x86_64"
GLIBC = 36
#: What a source archive of setuptools' is made a wheel with, beside the project's own build system.
BUILDERS = ("setuptools",)
_HEADS = {
    "run": "What runs in the image beside torch.",
    "torch": "torch: any of its builds of this version, CPU or CUDA, that was known when this was written.",
    "build": "What makes wheels in the image's first stage; nothing of it is kept.",
}
_ENVIRONMENT = {
    "python_version": "3.11", "python_full_version": "3.11.9", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
    "platform_machine": PROCESSOR, "extra": "",
}  # fmt: skip
_LINK = re.compile(
    r"(?:https?|file)://\S+?/([^/\s#]+\.(?:whl|tar\.gz|zip))(?:#sha256=([0-9a-f]{64}))?(?=[\s,)]|$)"
)


def pins() -> dict[str, str]:
    """Read constraints.txt.

    Returns
    -------
    dict
        Name of a package (canonical) -> version.
    """
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def wanted() -> dict[str, set[str]]:
    """Find which packages each list holds, from the metadata of those that are installed here.

    Returns
    -------
    dict
        ``run``, ``torch`` and ``build`` -> canonical names.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If one is not installed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = {*map(_name, project["build-system"]["requires"]), *BUILDERS}
    # torch names setuptools, which it compiles extensions with: nothing that runs here.
    run = closure(map(_name, project["project"]["dependencies"])) - {"torch", *BUILDERS}
    return {"run": run, "torch": {"torch"}, "build": closure(build) - run}


def closure(names: Iterable[str]) -> set[str]:
    """Add to packages all that they need on the image's platform."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(_ENVIRONMENT):
                waiting.append(canonicalize_name(requirement.name))
    return found


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def tags() -> set[Tag]:
    """All tags of wheels that the image's Python takes."""
    platforms = [f"manylinux_2_{minor}_{PROCESSOR}" for minor in range(5, GLIBC + 1)]
    platforms += [f"manylinux{old}_{PROCESSOR}" for old in ("1", "2010", "2014")]
    return {*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, "cp311", platforms)}


def files(name: str, version: str) -> Iterator[tuple[str, str]]:
    """Ask pip which files of a package there are; none is downloaded.

    Yields
    ------
    tuple
        Name of the file, SHA-256.
    """
    command = [sys.executable, "-m", "pip", "-vv", "--no-cache-dir", "index", "versions", name]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own pip
    for match in _LINK.finditer(shown.stdout):
        file, digest = unquote(match[1]), match[2]
        if _is_of(file, name, version):
            yield file, digest or hashlib.sha256(_local(match[0]).read_bytes()).hexdigest()


def _is_of(file: str, name: str, version: str) -> bool:
    try:
        parse = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
        found, number = parse(file)[:2]
    except ValueError:  # names that old tools gave
        return False
    return found == name and number.public == version


def _local(link: str) -> Path:
    return Path(unquote(urlsplit(link).path))


def locked(name: str, version: str) -> str:
    """One package's lines.

    Raises
    ------
    SystemExit
        If pip knows no file of it that fits.
    """
    known = dict(files(name, version))
    fitting = tags()
    wheels = {file for file in known if file.endswith(".whl") and parse_wheel_filename(file)[3] & fitting}
    chosen = wheels or {file for file in known if not file.endswith(".whl")}
    if not chosen:
        raise SystemExit(f"pip knows no file of {name} {version}")
    for file in sorted(chosen):
        print(file, flush=True)
    hashes = sorted({known[file] for file in chosen})
    return " \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{digest}" for digest in hashes)])


def main() -> int:
    """Write the three lists."""
    versions = pins()
    for kind, names in wanted().items():
        if missing := sorted(names - versions.keys()):
            raise SystemExit(f"constraints.txt has no version of: {', '.join(missing)}")
        with ThreadPoolExecutor(8) as at_once:  # most of the time goes into waiting for the index
            packages = list(at_once.map(lambda name: locked(name, versions[name]), sorted(names)))
        head = f"# {_HEADS[kind]} Written by requirements/lock.py."
        (HERE / f"{kind}.txt").write_text("\n".join([head, *packages]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

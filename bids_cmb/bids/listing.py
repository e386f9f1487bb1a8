"""List the image files of a dataset without walking through what is not asked for.

A plain walk over ``sub-*/[ses-*]/{anat,swi}`` lists a thousand subjects in a tenth of a second and never
enters other folders, above all not ``derivatives/``. Where the user keeps a pybids database, the files come
from there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

from bids_cmb.bids.entities import BidsFile, as_file, is_label
from bids_cmb.errors import InputError, UsageError

_log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".nii.gz", ".nii")
#: Folders that images of these contrasts lie in; ``swi`` is the proposal that was never adopted.
FOLDERS = ("anat", "swi")


def list_subjects(root: Path) -> list[str]:
    """Return the subject labels of the dataset at `root`, sorted.

    Raises
    ------
    InputError
        If the folder can't be read.
    """
    return [path.name[4:] for path in _folders(root, "sub-")]


def list_images(root: Path, subjects: Sequence[str], unreadable: list[str] | None = None) -> list[BidsFile]:
    """Return the NIfTI files in the `FOLDERS` of some subjects, whatever their session, sorted by place.

    Files whose links lead nowhere (data not fetched) are listed too; files that carry another subject's or
    session's label than their folder does are not.

    Parameters
    ----------
    root
        The dataset.
    subjects
        Labels without ``sub-``.
    unreadable
        Takes a sentence for each folder that can't be read; the rest is listed.

    Raises
    ------
    InputError
        If a folder can't be read and there is no such list.
    """
    problems: list[str] = []
    found = list(_all_images(root, subjects, problems))
    if problems and unreadable is None:
        raise InputError(problems[0])
    if unreadable is not None:
        unreadable.extend(problems)
    return sorted(found, key=lambda file: file.relative)


def _all_images(root: Path, subjects: Sequence[str], problems: list[str]) -> Iterator[BidsFile]:
    """Images of some subjects; a folder that can't be read is a sentence in `problems`."""
    for subject in subjects:
        home = root / f"sub-{subject}"
        if not home.is_dir():
            continue
        places = [home]
        with _noted(problems):
            places.extend(_folders(home, "ses-"))
        for place, folder in product(places, FOLDERS):
            with _noted(problems):
                session = place.name[4:] if place != home else None
                yield from _images(root, place / folder, subject, session)


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Turn an `InputError` into a sentence in a list."""
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def list_sessions(root: Path, subjects: Sequence[str]) -> list[str]:
    """Return the session labels that some subjects have folders of, sorted; folders that can't be read have none."""
    labels: set[str] = set()
    for subject in subjects:
        with suppress(InputError):
            labels.update(path.name[4:] for path in _folders(root / f"sub-{subject}", "ses-"))
    return sorted(labels)


def _folders(root: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix) and _is_folder(entry)]
    except OSError as error:
        raise InputError(f"The folder {root} cannot be read ({error.strerror}).") from error
    for name in sorted(names):
        if not is_label(name.removeprefix(prefix)):
            _log.warning("The folder %r in %s was left out: its name is no BIDS name.", name, root)
    return [root / name for name in sorted(names) if is_label(name.removeprefix(prefix))]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _images(root: Path, folder: Path, subject: str, session: str | None) -> Iterator[BidsFile]:
    try:
        with os.scandir(folder) as entries:
            images = [entry for entry in entries if entry.name.endswith(IMAGE_EXTENSIONS)]
            names = {entry.name: _is_folder(entry) for entry in images}
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({error.strerror}).") from error
    for name, is_folder in names.items():
        file = as_file(folder / name, root)
        if file is None:
            _log.info("%r in %s was left out: its name is no BIDS name.", name, folder)
        elif is_folder:
            _log.warning("%s was left out: it is a folder.", file.path)
        elif file.get("sub") != subject or file.get("ses") != session:
            _log.warning("%s was left out: its labels are not those of its folder.", folder / name)
        else:
            yield file


def list_from_database(root: Path, database: Path, subjects: Sequence[str]) -> list[BidsFile]:
    """Return what `list_images` returns, from a pybids database that is made where there is none yet.

    Raises
    ------
    UsageError
        If the database is not one of this dataset, knows none of a subject's images, or can't be read or made.
    """
    wanted = set(subjects)
    paths = _indexed_paths(root, database)
    if not all(path.is_relative_to(root) for path in paths):
        raise UsageError(
            f"The pybids database in {database} is of another dataset than {root}; name an empty folder."
        )
    files = (as_file(path, root) for path in paths)
    kept = [
        file
        for file in files
        if file is not None
        and file.get("sub") in wanted
        and file.folder in FOLDERS
        and file.extension in IMAGE_EXTENSIONS
        and file.relative.split("/")[0] == f"sub-{file.get('sub')}"
    ]
    known = {path.relative_to(root).parts[0] for path in paths}
    for subject in subjects:
        if f"sub-{subject}" not in known and list_images(root, [subject]):
            raise UsageError(
                f"The pybids database in {database} does not know sub-{subject}: it is older than the dataset; "
                "remove it, or name an empty folder."
            )
    return sorted(kept, key=lambda file: file.relative)


def _indexed_paths(root: Path, database: Path) -> list[Path]:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    try:
        if not (database / "layout_index.sqlite").exists():
            _make_database(root, database)
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
        layout = BIDSLayout(root, validate=False, database_path=database, indexer=indexer)
        return [Path(name) for name in layout.get(return_type="filename", extension=list(IMAGE_EXTENSIONS))]
    except Exception as error:  # pybids raises what its database layer raises
        message = " ".join(str(error).split())
        raise UsageError(
            f"The pybids database in {database} cannot be used for {root} ({message}); name an empty folder."
        ) from error


def _make_database(root: Path, database: Path) -> None:
    """Index the whole dataset beside its final place first: jobs that run at the same time don't collide."""
    import tempfile

    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}-") as scratch:
        made = Path(scratch) / "database"
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
        BIDSLayout(root, validate=False, database_path=made, indexer=indexer)
        database.mkdir(exist_ok=True)
        for part in sorted(made.iterdir(), key=lambda path: path.suffix == ".sqlite"):
            part.replace(database / part.name)


def check_labels(prefix: str, wanted: Sequence[str], present: Sequence[str], root: Path) -> list[str]:
    """Return the labels to work on, sorted: those wanted, or all.

    Raises
    ------
    UsageError
        If a label is not there, with a sentence that lists what is.
    """
    missing = sorted(set(wanted) - set(present))
    if missing:
        shown = ", ".join(prefix + label for label in present[:20]) or f"no {prefix} folders"
        more = f" and {len(present) - 20} more" if len(present) > 20 else ""
        names = ", ".join(prefix + label for label in missing)
        raise UsageError(
            f"{names} {'is' if len(missing) == 1 else 'are'} not in {root}, which has {shown}{more}."
        )
    return sorted(set(wanted) or present)


def names_in(folder: Path) -> list[str]:
    """Names of what lies in a folder, sorted; none if it is not there or can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []

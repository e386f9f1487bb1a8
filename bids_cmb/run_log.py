"""What a run says and keeps of itself: its folder in ``logs/``, the terminal, and the closing lines."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import faulthandler
import logging
import os
import platform
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import bids_cmb
from bids_cmb.bids.records import FOLDER
from bids_cmb.files import check_inside, write_json

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def now() -> str:
    """Return the local time with its offset, ISO 8601, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


class RunLog:
    """The log of one run and its voice in the terminal.

    Parameters
    ----------
    config
        The run.

    Attributes
    ----------
    folder
        ``OUTPUT_DIR/logs/<time>-<random>``: configuration, log of the run, and a log for each scan.

    Raises
    ------
    UsageError
        If ``logs`` leads out of the output folder by a link.
    """

    def __init__(self, config: RunConfig) -> None:
        run = datetime.datetime.now().strftime("%Y%m%dT%H%M%S") + "-" + secrets.token_hex(3)
        check_inside(config.output_dir / FOLDER, config.output_dir)
        self.folder = config.output_dir / "logs" / run
        self.folder.mkdir(parents=True)
        self._quiet = config.verbosity < 0
        self._done, self._total = 0, 0
        self._bar: Any = None
        self._file = logging.FileHandler(self.folder / "run.log", encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(logging.Formatter(_FORMAT))

    def __enter__(self) -> RunLog:
        logging.getLogger("bids_cmb").addHandler(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        logging.getLogger("bids_cmb").removeHandler(self._file)
        self._file.close()

    def begin(self, config: RunConfig, total: int, **more: Any) -> None:  # noqa: ANN401
        """Keep what the run was asked to do, and get ready to tell of `total` steps."""
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        content = {
            "started": now(),
            "command": sys.argv,
            "software": {"bids_cmb": bids_cmb.__version__, "python": platform.python_version()},
            "platform": platform.platform(),
            **more,
            "options": _plain(options),
        }
        write_json(self.folder / "config.json", content)
        self._total = total
        if total and not self._quiet and sys.stderr.isatty():
            self._bar = _progress_bar(total)

    def progress(self, sentence: str) -> None:
        """Tell that one step is finished."""
        self._done += 1
        self._file.emit(_record(sentence))
        if self._bar is not None:
            self._bar.write(sentence, file=sys.stderr)
            self._bar.update()
        elif not self._quiet:
            sys.stderr.write(f"[{self._done}/{self._total}] {sentence}\n")
            sys.stderr.flush()

    def say(self, sentence: str) -> None:
        """Tell something, unless the run is to be quiet."""
        self._file.emit(_record(sentence))
        if not self._quiet:
            sys.stderr.write(sentence + "\n")

    def conclude(self, lines: str) -> None:
        """Tell how the run went, quiet or not, on the standard output."""
        if self._bar is not None:
            self._bar.close()
        self._file.emit(_record(lines))
        sys.stdout.write(lines + "\n")
        sys.stdout.flush()


def _record(sentence: str) -> logging.LogRecord:
    return logging.LogRecord("bids_cmb.run", logging.INFO, __file__, 0, sentence, None, None)


def _progress_bar(total: int) -> Any:  # noqa: ANN401 - tqdm is generic over what it iterates
    from tqdm import tqdm

    return tqdm(total=total, unit="scan", file=sys.stderr, dynamic_ncols=True)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


@contextlib.contextmanager
def terminal_logging(verbosity: int, stream: TextIO | None = None) -> Iterator[None]:
    """Send the package's log to the terminal inside the block.

    Parameters
    ----------
    verbosity
        Up to 0: warnings; 1: also what is done; 2: everything.
    stream
        Where to; by default the standard error.
    """
    logger = logging.getLogger("bids_cmb")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setLevel({0: logging.WARNING, 1: logging.INFO}.get(max(0, verbosity), logging.DEBUG))
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    earlier = logger.level
    logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(earlier)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Give a list that the package's warnings inside the block are added to."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("bids_cmb")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def job_log(path: Path, verbosity: int) -> Iterator[None]:
    """Send all that this process says to a file inside the block, what libraries written in C say included.

    With a verbosity of 1 or more, the package's own log goes to the terminal as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    lenient: Any = {"encoding": "utf-8", "errors": "backslashreplace"}
    with path.open("a", **lenient) as file, os.fdopen(os.dup(2), "w", **lenient) as terminal:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in kept:
            os.dup2(file.fileno(), number)
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter(_FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        logging.captureWarnings(True)
        logging.getLogger("bids_cmb").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
        faulthandler.enable(file)
        aloud = terminal_logging(verbosity, terminal) if verbosity > 0 else contextlib.nullcontext()
        try:
            with aloud:
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            faulthandler.disable()
            root.removeHandler(handler)
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)

"""How the C library of this process handles the memory of large arrays."""

from __future__ import annotations

import ctypes

#: Parameters of glibc's ``mallopt``: how many blocks may be mapped one by one, and above how much free memory to give back.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Let this process keep memory that arrays have freed, for the next ones, until it ends.

    By default glibc asks the system for each large array anew and gives it back at once; the system then clears every
    page of it. Work that makes thousands of arrays of 50 MB spends a third of its time so.

    Returns
    -------
    bool
        False where the C library is another one, which is left as it is.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; on Windows there is no CDLL(None)
        return False
    return bool(set_option(_MMAP_MAX, 0)) and bool(set_option(_TRIM_THRESHOLD, -1))

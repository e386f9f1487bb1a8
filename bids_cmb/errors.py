"""Errors that a user can act on. Each message is one sentence: what is wrong, where, what to do."""

from __future__ import annotations


class BidsCmbError(Exception):
    """A problem whose message is meant for the user and needs no traceback."""


class InputError(BidsCmbError):
    """A dataset, image or sidecar that cannot be used as it is."""


class UsageError(BidsCmbError):
    """A command line that asks for something that does not exist or cannot be done."""


class ModelError(BidsCmbError):
    """Weights that are missing, damaged, or not what their manifest says."""

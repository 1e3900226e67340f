"""Errors that a user can correct: one line that names the file or option, what is wrong, and what to do."""

import math


class AvscError(Exception):
    """A mistake in the input; the command line prints it as one line and exits with status 2."""


class MediaError(AvscError):
    """A recording that cannot be read; `path` names the file and `reason` what is wrong with it."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self):  # so that it crosses the process boundary of a loader's worker
        return type(self), (self.path, self.reason)


def within(flag: str, value: float, least: float, most: float = math.inf, note: str = "") -> None:
    """Raises AvscError for a number outside of its range, or for none."""
    if not least <= value <= most or math.isnan(value):
        span = f"{least:g} or more" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise AvscError(f"{flag} {value:g}: give {span}{f' ({note})' if note else ''}")

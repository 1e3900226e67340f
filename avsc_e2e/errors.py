"""Errors that a user can correct: one line that names the file or option, what is wrong, and what to do."""

import math
import re

_OPTION = re.compile(r"`[^`]*`|(?<![\w-])--([a-z]+\.)?(no-)?([a-z][a-z-]*[a-z])")
"""A command in backticks, or an option."""


def _argument(match: re.Match[str]) -> str:
    """An option as an argument of Python; commands stay as they are."""
    group, negated, name = match.groups(default="")
    return f"{group}{name.replace('-', '_')}{'=False' * bool(negated)}" if name else match[0]


class AvscError(Exception):
    """A mistake in the input; the command line prints it as one line and exits with status 2.

    Messages name an option as the command line has it, `--data.on-bad`. This is how an f-string shows the error; `str`
    shows it as Python has it, `data.on_bad`, for tracebacks and for whoever catches it.
    """

    def __str__(self) -> str:
        return _OPTION.sub(_argument, super().__str__())

    def __format__(self, spec: str) -> str:
        return format(super().__str__(), spec)


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

"""From a command line to a call: a verb is a typed function, its signature is its flags and its docstring their help.
A user's mistake is one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from avsc_e2e.errors import AvscError

Positional = tyro.conf.Positional
Paths = Annotated[tuple[Path, ...], Positional]


def likely(given: str, known: Sequence[str]) -> str:
    """ "did you mean X?", or nothing where no known name is close."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""


def unknown(what: str, given: str, known: Sequence[str]) -> str:
    """That a name is unknown, and the likely one or all known ones."""
    return f"unknown {what} {given!r}: {likely(given, known) or 'known are ' + ', '.join(known)}"


def call(function: Callable[..., int | None], program: str, argv: Sequence[str]) -> int | None:
    """Call a function with flags; a mistake in them is one line, not a box. Raises AvscError."""
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            bound = tyro.cli(_deferred(function), prog=program, args=list(argv))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise AvscError(f"{program}: {_flattened(caught.getvalue())}") from None
    return bound()


def flags_of(verb: Callable, value: object) -> Callable:
    """A verb whose first parameter, a dataclass, has the defaults of `value`, its fields flags without a prefix."""
    signature = inspect.signature(verb)
    first, *others = signature.parameters.values()
    hints = typing.get_type_hints(verb, localns={type(value).__name__: type(value)}, include_extras=True)
    hints[first.name] = Annotated[type(value), tyro.conf.arg(name="")]
    signature = signature.replace(parameters=[first.replace(default=value), *others])
    return _dressed(lambda **values: verb(**values), verb, hints, signature)


def _dressed(function: Callable, like: Callable, hints: dict, signature: inspect.Signature) -> Callable:
    """`function` with the name and help of `like`, and these types and defaults."""
    function.__name__, function.__doc__, function.__module__ = like.__name__, like.__doc__, like.__module__
    function.__annotations__, function.__signature__ = hints, signature
    return function


def _deferred(function: Callable) -> Callable:
    """The same signature, but calling it only binds the arguments, so that parsing and working are told apart."""

    hints = typing.get_type_hints(function, include_extras=True)
    bind = lambda *args, **kwargs: functools.partial(function, *args, **kwargs)  # noqa: E731
    return _dressed(bind, function, hints, inspect.signature(function))


def _flattened(box: str) -> str:
    """The words of tyro's box of an error as one line, its advice on the likely flag included."""
    lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in box.splitlines()]
    words = [line for line in lines if line and not line.startswith("For full helptext")]
    heading, *rest = words or ["mistaken flags"]
    text = " ".join(rest) or heading
    text = re.sub(r"\s+", " ", text).replace(" .", ".")
    text = re.sub(r"Perhaps you meant:", "- perhaps you meant", text)
    return f"{text} (--help explains the flags)"


@contextlib.contextmanager
def one_line_errors():
    """A user's mistake ends with one line on stderr and status 2, a defect of ours with its traceback."""
    try:
        yield
    except AvscError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)

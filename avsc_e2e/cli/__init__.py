"""The command line: `avsc VERB`, and `run` for recipe files. A verb imports what is heavy when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from avsc_e2e.cli import app, data, demo, doctor, explain, export, look, models, outputs, recipes, submission
from avsc_e2e.cli.completion import options_of, script_of
from avsc_e2e.cli.parsing import Positional, call, log_to_stderr, one_line_errors, unknown
from avsc_e2e.cli.recipes import run
from avsc_e2e.errors import AvscError

__all__ = ["main", "run"]


def completion(shell: Annotated[Literal["bash", "zsh"], Positional] = "bash") -> None:
    """Print a script by which a shell completes commands, options and recipes.

    Put `eval "$(avsc completion bash)"` into ~/.bashrc, or `eval "$(avsc completion zsh)"` into ~/.zshrc.

    Args:
        shell: The shell that reads it.
    """
    flags = [*options_of(recipes.train_data), *(f"--{name.replace('_', '-')}" for name in recipes.FIRST)]
    print(script_of(VERBS, recipes.STAGE_VERBS, flags, shell), end="")


VERBS: dict[str, Callable[..., int | None]] = {
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "data render": data.render,
    "data download": data.download,
    "data check": data.check,
    "data prepare": data.prepare,
    "look": look.look,
    "recipes": recipes.recipes,
    **recipes.STAGE_VERBS,
    "models": models.models,
    "predict": models.predict,
    "explain": explain.explain,
    "app": app.app,
    "average": models.average,
    "export": export.export,
    "score": outputs.score,
    "calibrate": outputs.calibrate,
    "fuse": outputs.fuse,
    "compare": outputs.compare,
    "submission people": submission.people,
    "submission pack": submission.pack,
    "submission check": submission.check,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `avsc`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    log_to_stderr()
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    if argv[0] == "--version":
        from avsc_e2e import __version__

        print(f"avsc_e2e {__version__}")
        return
    words = 2 if " ".join(argv[:2]) in VERBS else 1
    name = " ".join(argv[:words])
    with one_line_errors():
        if name not in VERBS:
            group = [verb for verb in VERBS if verb.startswith(argv[0] + " ")]
            if group and (len(argv) == 1 or argv[1] in ("-h", "--help")):
                print(_overview(group))
                return
            raise AvscError(unknown("command", " ".join(argv[:2] if group else argv[:1]), group or list(VERBS)))
        if name in recipes.STAGE_VERBS:
            sys.exit(recipes.call_on_target(name, argv[words:]) or 0)
        sys.exit(call(VERBS[name], f"avsc {name}", argv[words:]) or 0)


def _overview(verbs: Sequence[str] | None = None) -> str:
    rows = [(name, (VERBS[name].__doc__ or "").strip().split("\n")[0]) for name in verbs or VERBS]
    width = max(len(name) for name, _ in rows)
    lines = [f"  avsc {name:<{width}}  {text}" for name, text in rows]
    return "\n".join(
        ["usage: avsc COMMAND ...", "", *lines, "", "`avsc COMMAND --help` explains the options of a command."]
    )

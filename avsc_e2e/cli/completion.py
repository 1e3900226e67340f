"""The script by which a shell completes commands, options and recipes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence

from avsc_e2e.cli.targets import recipe_files, stages_of

BASH = """\
_avsc() {
    local current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words= index=2
    [[ -n $verb && " GROUPS " == *" $verb "* ]] && verb="$verb ${COMP_WORDS[2]}" && index=3
    if (( COMP_CWORD == 1 )); then words="FIRST"
    elif (( COMP_CWORD < index )); then
        case ${COMP_WORDS[1]} in
SECOND
        esac
    else
        case $verb in
OPTIONS
        esac
        [[ $current != -* ]] && words=
        (( COMP_CWORD == 2 )) && case $verb in STAGED) words="STAGES";; esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -o bashdefault -F _avsc avsc
"""


def script_of(verbs: Mapping[str, Callable], staged: Collection[str], flags: Sequence[str], shell: str) -> str:
    """For bash or zsh. Options are those of a verb's signature, and of the verbs on stages these `flags` too."""
    groups: dict[str, list[str]] = {}
    for verb in verbs:
        first, _, second = verb.partition(" ")
        groups.setdefault(first, []).extend([second] * bool(second))
    seconds = [f'            {name}) words="{" ".join(subs)}";;' for name, subs in groups.items() if subs]
    options = [
        f'            "{verb}") words="{" ".join((*(flags if verb in staged else ()), *options_of(function)))}";;'
        for verb, function in verbs.items()
    ]
    stages = [f"{name}/{stage}" for name, file in recipe_files().items() for stage in stages_of(file)]
    script = (
        BASH.replace("GROUPS", " ".join(name for name, subs in groups.items() if subs))
        .replace("FIRST", " ".join(groups))
        .replace("SECOND", "\n".join(seconds))
        .replace("OPTIONS", "\n".join(options))
        .replace("STAGED", "|".join(staged))
        .replace("STAGES", " ".join(stages))
    )
    return script if shell == "bash" else f"autoload -U +X compinit bashcompinit\ncompinit\nbashcompinit\n{script}"


def options_of(function: Callable) -> list[str]:
    """The options of a command, from its signature, whose annotations are text."""
    found = ["--help"]
    for name, parameter in inspect.signature(function).parameters.items():
        if not any(word in parameter.annotation for word in ("Positional", "Paths", "Places", "Recipe", "Flat")):
            found.append("--" + name.replace("_", "-"))
    return found

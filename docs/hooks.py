"""What the site shows that is no page of docs/: the commands with their options, the recipes, the terms."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = ("SECURITY.md", "CHANGELOG.md")
"""Files of the repository that are pages of the site too."""


FIRST = (
    "fit",
    "SceneClassifier",
    "predict",
    "Predictor",
    "load_model",
    "Checkpoint",
    "read_corpus",
    "train",
    "evaluate",
)
"""What most readers of the reference look for."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    os.environ["COLUMNS"] = "100"
    pages = {
        "reference/commands.md": commands(),
        "reference/python.md": python(),
        "glossary.md": glossary(),
        "recipes.md": inside(ROOT.joinpath("recipes/README.md").read_text(encoding="utf-8")),
    }
    pages |= {name.lower(): inside(ROOT.joinpath(name).read_text(encoding="utf-8")) for name in REPOSITORY}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Links of a page to files out of docs/ lead to the pages that stand for them."""
    return re.sub(r"\]\(\.\./(?:recipes/README|(\w+))\.md", lambda m: f"]({(m[1] or 'recipes').lower()}.md", markdown)


def inside(markdown: str) -> str:
    """Links of a file out of docs/ to pages of docs/, as from within it."""
    return re.sub(r"\]\((?:\.\./)?docs/", "](", markdown)


def commands() -> str:
    """All verbs with their help, as the command line prints it."""
    from avsc_e2e.cli import VERBS, main

    lines = [
        "# Commands",
        "",
        "`python -m avsc_e2e` and `avsc` are the same. Status 2 means a mistake, told in one line.",
    ]
    for verb in VERBS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([*verb.split(), "--help"])
        text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).rstrip()
        lines += ["", f"## avsc {verb}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def python() -> str:
    """The public names, each with the docstring that it has."""
    package = importlib.import_module("avsc_e2e")
    lines = ["# Python", "", "All names below are attributes of `avsc_e2e`, imported when they are first asked for."]
    first = [name for name in FIRST if name in package._HOMES]
    names = [*first, *sorted(set(package._HOMES) - set(first))]
    lines += [f"\n::: avsc_e2e.{package._HOMES[name]}.{name}" for name in names]
    return "\n".join(lines) + "\n"


def glossary() -> str:
    """The terms that reports explain."""
    from avsc_e2e.report.glossary import TERMS

    lines = ["# Glossary", "", "The terms of these pages and of every report, in plain words.", ""]
    for term, meaning in sorted(TERMS.items(), key=lambda item: item[0].lower()):
        lines += [f"## {term}", "", meaning, ""]
    return "\n".join(lines)

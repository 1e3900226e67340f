"""The code of the pages is run, their links lead somewhere, and their commands have verbs and options that exist."""

import dataclasses
import re
from pathlib import Path

import pytest
from support import AVSC, run_commands

from avsc_e2e.cli import VERBS
from avsc_e2e.cli.completion import options_of
from avsc_e2e.cli.learner import train_data
from avsc_e2e.cli.recipes import STAGE_VERBS, evaluate_checkpoint
from avsc_e2e.cli.targets import recipe_files, stages_of
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.transforms.disturbance import Disturbances

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    """The Python code of a page in docs."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def test_a_system_of_existing_parts():
    names: dict = {}
    exec(blocks("extend.md")[0], names)
    assert names["model"].architecture.heads == ("audio", "video", "fusion")


def test_a_new_system_in_forty_lines_trains_and_evaluates(toy_city, tmp_path):
    code = blocks("extend.md")[1]
    assert len(code.splitlines()) <= 40
    recipe = tmp_path / "listener.py"
    recipe.write_text(code)
    flags = f"--data.root {toy_city} --runs {tmp_path} --epochs 1 --batch-size 10 --data.windows 1 --no-pretrained"
    flags += " --model.video test_efficientnet --model.size 32"
    script = [recipe, "train", "joint", *flags.split()]
    verb = [AVSC, "evaluate", f"{recipe}:joint", *flags.split()]
    for done in run_commands(script, verb):
        assert done.status == 0, done.err
    assert "listener/joint" in done.out
    assert (tmp_path / "listener" / "joint" / "evaluation" / "report.html").is_file()


PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "recipes/README.md"))]


GENERATED = re.findall(r'^        "([a-z/]+\.md)":', (ROOT / "docs" / "hooks.py").read_text(), re.MULTILINE)
"""Pages that the site makes of the code."""


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may name, as GitHub makes it of the heading's text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """Where a page's links lead, but for those to other sites."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def test_links_are_found():
    assert sum(len(links(page)) for page in PAGES) > 40
    assert any("#" in target for page in PAGES for target in links(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        if page.parent.name == "docs" and path in GENERATED:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def commands(page: Path) -> list[list[str]]:
    """The words of every `avsc ...` line of a page's code, without comments and what follows a pipe."""
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in code for line in block.replace("\\\n", " ").splitlines()]
    lines += [span.replace("\n", " ") for span in re.findall(r"`(avsc [^`]*)`", text)]
    found = []
    for line in lines:
        for one in re.split(r"&&|\||;|#|>", line):
            words = one.split()
            if words[:1] == ["avsc"]:
                found.append(words[1:])
    return found


def fields(value: object, prefix: str = "--") -> set[str]:
    """The options of a recipe."""
    found = set()
    for field in dataclasses.fields(value):
        name, inner = prefix + field.name.replace("_", "-"), getattr(value, field.name)
        found |= fields(inner, f"{name}.") if dataclasses.is_dataclass(inner) else {name}
    return found


def options(verb: str) -> set[str]:
    """All options of a verb, whatever its target is."""
    known = {"--help", "--help-all", *options_of(VERBS[verb])}
    if verb in STAGE_VERBS:
        known |= fields(Recipe("any"))
    if verb == "train":
        known |= set(options_of(train_data))
    if verb == "evaluate":
        known |= fields(Disturbances()) | set(options_of(evaluate_checkpoint))
    return known | {flag.replace("--", "--no-", 1) for flag in known}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_verbs_stages_and_options(page):
    files = recipe_files()
    for words in commands(page):
        if not words or words[0] in ("--help", "--version", "COMMAND", "VERB", "..."):
            continue
        verb = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
        assert verb in VERBS, words
        known = options(verb)
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0].rstrip(".,") in known, words
        if verb in STAGE_VERBS and len(words) > 1 and words[1].partition("/")[0] in files:
            name, _, stage = words[1].partition("/")
            assert stage in stages_of(files[name]), words


def test_commands_are_found():
    assert ["train", "VIDEOS", "--minutes", "15"] in commands(ROOT / "README.md")
    assert sum(len(commands(page)) for page in PAGES) > 100
    assert "--optim.audio-lr" in options("train")
    assert "--minutes" not in options("predict")

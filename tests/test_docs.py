"""The code of the pages is run."""

import re
from pathlib import Path

from support import AVSC, run_commands

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

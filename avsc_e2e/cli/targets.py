"""The TARGET of a verb: a stage of an installed recipe, a stage of a recipe file, or data."""

from __future__ import annotations

import ast
import glob
import importlib.util
import os
import re
import sys
import traceback
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, NamedTuple

from avsc_e2e.cli.parsing import likely, unknown
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.files import HUB

if TYPE_CHECKING:
    from avsc_e2e.training.recipe import Recipe


class StageTarget(NamedTuple):
    """A stage of a recipe file, not yet run."""

    file: Path
    stage: str

    def load(self) -> Recipe:
        """Run the file and return the stage that it passes to `run`, or that it defines if it does not call `run`.
        Raises AvscError if the file fails or the stage is not a Recipe."""
        from avsc_e2e.training.recipe import Recipe

        handed, names = stages_of(self.file), load_file(self.file)
        if not handed and self.stage not in names:
            known = [name for name, value in names.items() if isinstance(value, Recipe)]
            raise AvscError(f"{self.file}: {unknown('stage', self.stage, known)}")
        value = eval(handed[self.stage], names) if handed else names[self.stage]
        if not isinstance(value, Recipe):
            raise AvscError(f"{self.file}: stage {self.stage} is of type {type(value).__name__}, not a Recipe")
        return value


class DataTarget(NamedTuple):
    """A folder, a file or a URL with data, or the address of a checkpoint on a hub."""

    path: str


def recipe_files() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package: `avsc_e2e.recipes` where installed, `recipes/` beside the
    package in a source tree that is used without being installed."""
    spec = importlib.util.find_spec("avsc_e2e.recipes")
    folder = Path(spec.origin).parent if spec and spec.origin else Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def stages_of(file: Path) -> dict[str, CodeType]:
    """Stage -> expression of its value, as a recipe file passes them to `run`. The file is parsed but not run, so that
    mistyped names are reported at once. Raises AvscError if the file is not Python."""
    calls = [node for node in ast.walk(_parsed(file)) if isinstance(node, ast.Call)]
    return {
        keyword.arg: compile(ast.Expression(keyword.value), str(file), "eval")
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "run"
        for keyword in call.keywords
        if keyword.arg
    }


def title_of(file: Path) -> str:
    """The first line of a recipe file's docstring. Raises AvscError where the file is not Python."""
    return (ast.get_docstring(_parsed(file)) or "").split("\n")[0]


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise AvscError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except SyntaxError as error:
        where = f"{file}, line {error.lineno}" if error.lineno else str(file)
        raise AvscError(f"{where}: not Python: {error.msg}") from error


def load_file(file: Path) -> dict[str, object]:
    """The names that a recipe file defines at its top level. The file sees the modules beside it, as a script does.
    Raises AvscError with the line where it fails."""
    path, name = str(file.resolve()), file.stem
    before = sys.modules.get(name)
    if before and getattr(before, "__file__", "") == path:
        return vars(before)
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(0, os.path.dirname(path))
    # Loader workers unpickle what the file defines by its module's name; they share sys.path.
    name = f"recipe_{name}" if before else name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a Python file always has one
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, AvscError):
            raise AvscError(f"{file}: {error}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        raise AvscError(f"{where}: {type(error).__name__}: {error}") from error
    return vars(module)


def target_of(text: str) -> StageTarget | DataTarget:
    """The target that `text` names. It is tried as FILE.py:STAGE, a URL, NAME/STAGE of an installed recipe, and an
    existing path, in this order; so `./zhang_ioa` is always a path. Raises AvscError with the likely name."""
    if match := re.fullmatch(r"(.+\.py)(?::(.*))?", text):
        return _stage(Path(match[1]), match[2] or "", f"{match[1]}:")
    if re.match(r"[a-z][a-z0-9+.-]+://", text) or text.startswith(HUB):
        return DataTarget(text)
    name, _, stage = text.rstrip("/").partition("/")
    files = recipe_files()
    if name in files and (stage in stages_of(files[name]) or not os.path.exists(text)):
        return _stage(files[name], stage, f"{name}/")
    if os.path.exists(text):
        return DataTarget(text)
    stages = [f"{name}/{stage}" for name, file in files.items() for stage in stages_of(file)]
    hint = likely(text, [*stages, *files]) or "`avsc recipes` lists the recipes"
    raise AvscError(f"{text}: no recipe and no file or folder of that name; {hint}")


GPUS = ("/dev/nvidia*", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""Device files of Linux, one of which there is where torch finds a GPU: of NVIDIA, its Jetson, AMD and WSL."""


def refuse_root(root: str) -> None:
    """Raises AvscError if a root is clearly not a data set, before modules that take seconds are imported."""
    from avsc_e2e.data.sets.listing import scan
    from avsc_e2e.data.sets.table import is_table
    from avsc_e2e.data.sets.taulayout import find_layout
    from avsc_e2e.data.store.layout import is_store

    if root and not root.startswith("-") and not is_store(root):
        find_layout(root)
        if is_table(root):
            scan(root)


def refuse_device(name: str) -> None:
    """Raises AvscError where a device cannot exist, as far as that is known without torch."""
    if not re.fullmatch(r"|cpu|[a-z]+(:[0-9]+)?", name) or name.startswith("gpu"):
        raise AvscError(f"--device {name}: is no device; give cpu, cuda or cuda:N")
    if name.startswith("cuda") and sys.platform == "linux" and not any(map(glob.glob, GPUS)):
        raise AvscError(f"--device {name}: this machine has no GPU; give cpu, or leave it out")


def refuse_out(out: str | os.PathLike[str], flag: str = "--out") -> None:
    """Raises AvscError for a file to write whose folder is not there."""
    folder = Path(out).absolute().parent
    if not folder.is_dir():
        raise AvscError(f"{flag} {out}: there is no folder {folder}; make it first")


def _stage(file: Path, stage: str, prefix: str) -> StageTarget:
    names = list(stages_of(file))
    if not stage:
        listed = ", ".join(prefix + name for name in names) or f"{prefix}STAGE"
        raise AvscError(f"{prefix.rstrip(':/')}: name a stage of this recipe: {listed}")
    if names and stage not in names:
        raise AvscError(f"{prefix}{stage}: {unknown('stage', stage, names)}")
    return StageTarget(file, stage)

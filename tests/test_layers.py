"""The walls of the package, read from its imports: layers, owners of third-party packages, light entry points."""

import ast
import configparser
import importlib
import importlib.metadata
import inspect
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import avsc_e2e

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avsc_e2e"

PARTS = {
    "base": ("", "clip", "durable", "errors", "memory", "processes", "randomness"),
    "data": (
        "data", "data.check", "data.corpus", "data.dataset", "data.download", "data.folder", "data.media",
        "data.places", "data.prepare", "data.remote", "data.rows", "data.store", "data.tau", "data.toycity",
        "data.toypicture", "data.toysound", "data.workers",
    ),
    "transforms": ("transforms", "transforms.batch", "transforms.compose", "transforms.frames", "transforms.waveform"),
    "models": (
        "models", "models.aisfx", "models.architecture", "models.audionet", "models.audioset", "models.card",
        "models.checkpoint", "models.complexity", "models.conversion", "models.dcase", "models.filterbanks",
        "models.frontend", "models.fusion", "models.l3", "models.nets", "models.pooling", "models.published",
        "models.scenenet", "models.segmentmodel", "models.systems", "models.text", "models.texthead",
        "models.trunk", "models.weights", "models.zoo",
    ),
    "scores": (
        "calibration", "comparison", "entry", "folds", "fusion", "loglinear", "metrics", "outputs", "submission",
        "submission_check",
    ),
    "recipe": ("recipe",),
    "inference": ("inference",),
    "report": ("charts", "page", "report"),
    "training": (
        "acceleration", "averaging", "distillation", "initialisation", "losses", "optimiser", "profiling", "run",
        "runlog", "sharding", "training",
    ),
    "evaluation": ("evaluation",),
    "demo": ("demo",),
    "cli": ("cli",),
}  # fmt: skip
"""Every module of the package; a new one belongs into a part here before it passes."""

LAYERS = (
    ("base",),
    ("data", "transforms", "models", "scores"),
    ("recipe",),
    ("inference",),
    ("report",),
    ("training",),
    ("evaluation",),
    ("demo",),
    ("cli",),
)
"""A part imports itself and the parts of lower layers; parts of one layer do not know each other."""

KNOTS = {
    ("models.architecture", "models.scenenet"),  # Architecture.build() makes the model that an Architecture describes
    ("models.zoo", "models.systems"),  # listing the zoo imports the entries that register with it
    ("report", "page"),  # Report.write() lays out the page, which is told what a Report is
}
"""Imports inside functions that close a circle on purpose."""

OWNERS = {
    "PIL": {"data.media", "data.toycity", "data.toypicture"},
    "aiohttp": {"data.remote"},
    "albumentations": {"transforms.frames"},
    "audiomentations": {"transforms.waveform"},
    "av": {"data.media", "data.toycity"},
    "cv2": {"data.store"},
    "decord": {"data.media"},
    "fsspec": {"data.remote"},
    "h5py": {"models.conversion"},
    "huggingface_hub": {"models.weights"},
    "open_clip": {"models.text"},
    "matplotlib": {"charts"},
    "pytorch_lightning": {"training"},
    "safetensors": {"models.checkpoint", "models.conversion"},
    "scipy": {"comparison", "loglinear", "metrics"},
    "sklearn": {"calibration", "folds", "models.segmentmodel"},
    "soundfile": {"data.media", "data.toycity"},
    "soxr": {"data.media"},
    "threadpoolctl": {"loglinear"},
    "timm": {
        "models.aisfx",
        "models.audioset",
        "models.dcase",
        "models.l3",
        "models.nets",
        "models.trunk",
        "models.weights",
    },
    "torchaudio": {"models.filterbanks"},
    "torchvision": {"data.places"},
    "tyro": {"cli"},
    "yaml": {"submission", "submission_check"},
}
"""The files that may know a package: media.py reads what toycity.py writes. numpy and torch are everybody's."""

EXTRAS = ("clip", "keras")
"""Extras of setup.cfg whose packages some files import when they need them."""

UNSEEN = {"tensorboard"}
"""Declared although no file imports it: Lightning's TensorBoardLogger does."""


class Import(NamedTuple):
    module: str
    lazy: bool


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def imports(path: Path) -> list[Import]:
    """All imports of a file but those for type checkers: at its top, and those inside functions as lazy."""
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # `from package import module` is an import of the module
                whole = f"{node.module}.{alias.name}"
                file = ROOT.joinpath(*whole.split("."))
                is_module = file.is_dir() or file.with_suffix(".py").is_file()
                found.append(Import(whole if is_module else node.module, lazy))
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {name: imports(path) for name, path in FILES.items()}
PART = {module: part for part, modules in PARTS.items() for module in modules}
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def own(module: str) -> str | None:
    """The name of a module of this package within it."""
    if module.split(".")[0] != "avsc_e2e":
        return None
    return module.removeprefix("avsc_e2e").removeprefix(".")


def third_party(found: list[Import]) -> set[str]:
    tops = {item.module.split(".")[0] for item in found}
    return tops - set(sys.stdlib_module_names) - {"avsc_e2e"}


def test_every_module_has_its_place():
    assert sorted(FILES) == sorted(PART)
    assert sorted(PARTS) == sorted(LEVEL)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    part = PART[name]
    for item in IMPORTS[name]:
        target = own(item.module)
        if target is not None:
            assert PART[target] == part or LEVEL[PART[target]] < LEVEL[part], f"{name} imports {target}"


def test_no_circles():
    graph, seen = {}, set()
    for name, found in IMPORTS.items():
        for item in found:
            target = own(item.module)
            if target is None:
                continue
            if item.lazy and (name, target) in KNOTS:
                seen.add((name, target))
            else:
                graph.setdefault(name, set()).add(target)
    TopologicalSorter(graph).prepare()  # raises CycleError
    assert seen == KNOTS


def test_owners_of_third_party_packages():
    owners: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        for package in third_party(found) - {"numpy", "torch"}:
            owners.setdefault(package, set()).add(name)
    assert owners == OWNERS


def test_recipes_are_values():
    for path in (ROOT / "recipes").glob("*.py"):
        found = imports(path)
        assert not third_party(found), path
        parts = {PART[own(item.module)] for item in found if own(item.module) is not None}
        assert parts <= {"cli", "recipe", "models", "transforms"}, path


def test_all_that_is_imported_is_declared():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split("\n")
    for extra in EXTRAS:
        lines += config["options.extras_require"][extra].split("\n")
    declared = {line.split()[0].lower() for line in lines if line.strip()}
    distributions = importlib.metadata.packages_distributions()
    used = set().union(*(third_party(found) for found in IMPORTS.values()))
    # decord2 brings the module decord, as the older package decord does.
    needed = {name: {dist.lower().replace("_", "-") for dist in distributions[name]} for name in used}
    for name, candidates in needed.items():
        assert candidates & declared, f"{name} is imported, but setup.cfg asks for none of {sorted(candidates)}"
    assert declared - set().union(*needed.values()) == UNSEEN


@pytest.mark.parametrize("code", ["import avsc_e2e", "from avsc_e2e.cli import main; main(['--help'])"])
def test_light_to_import(code):
    code += "; import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "avsc_e2e" in loaded
    heavy = (set(OWNERS) | {"numpy", "torch", "cv2", "librosa", "tensorboard"}) - {"tyro"}
    assert not loaded & heavy


def test_public_names():
    assert len(avsc_e2e.__all__) == len(set(avsc_e2e.__all__))
    assert set(avsc_e2e.__all__) <= set(dir(avsc_e2e))
    for name, home in avsc_e2e._HOMES.items():
        value = getattr(avsc_e2e, name)
        assert value is getattr(importlib.import_module(f"avsc_e2e.{home}"), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == f"avsc_e2e.{home}", f"{name} is only passing through {home}"
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Klip'"):
        avsc_e2e.Klip  # noqa: B018

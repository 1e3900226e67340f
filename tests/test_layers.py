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

import pytest

import avsc_e2e

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avsc_e2e"

ROOMS = (
    (
        "avsc_e2e",
        "apart",
        "arguments",
        "clip",
        "cluster",
        "devices",
        "durable",
        "errors",
        "memory",
        "parquet",
        "processes",
        "randomness",
    ),
    ("data", "toycity", "transforms", "models", "outputs"),
    ("submission",),
    ("report",),
    ("inference", "segments", "survey"),
    ("captions",),
    ("prediction", "clusterinference"),
    ("tables", "hub"),
    ("timelines", "explanation"),
    ("export",),
    ("app",),
    ("doctor",),
    ("training",),
    ("evaluation",),
    ("challenge",),
    ("learner",),
    ("classifier",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
"""Folders and files of the package, each above those that it may import; those of one floor do not know each other.
The words of the first floor may."""

OWNERS = {
    "PIL": {
        "data.media.images",
        "toycity.city",
        "toycity.image",
        "toycity.indoors",
        "toycity.sprites",
        "toycity.stage",
    },
    "aiohttp": {"app.server", "data.store.remote"},
    "albumentations": {"transforms.frames"},
    "audiomentations": {"transforms.waveform"},
    "av": {
        "toycity.example",
        "data.media.audio",
        "data.media.conversion",
        "data.media.packets",
        "data.media.source",
        "toycity.city",
    },
    "cv2": {"data.store.reader", "data.store.shard", "transforms.frames"},
    "datasets": {"tables"},
    "decord": {"data.media.decord"},
    "fsspec": {"data.store.remote"},
    "h5py": {"models.weights.keras"},
    "huggingface_hub": {
        "hub.checkpoint",
        "models.weights.files",
        "models.weights.published",
        "models.weights.sources",
    },
    "onnxruntime": {"export.onnx", "export.runtime"},
    "open_clip": {"models.text"},
    "jinja2": {"report.template"},
    "markupsafe": {"report.template"},
    "matplotlib": {"report.images"},
    "pandas": {"tables"},
    "pyarrow": {"parquet"},
    "ray": {"cluster"},
    "pytorch_lightning": {
        "training.callbacks",
        "training.launch",
        "training.machine",
        "training.module",
        "training.strategy",
        "training.trainer",
    },
    "safetensors": {"models.weights.checkpoint", "models.weights.tensors"},
    "scipy": {"outputs.comparison", "outputs.loglinear"},
    "sklearn": {"classifier", "outputs.calibration", "outputs.folds", "models.segmentmodel"},
    "soundfile": {"data.media.audio", "data.media.header", "toycity.city"},
    "soxr": {"data.media.audio"},
    "threadpoolctl": {"outputs.loglinear"},
    "timm": {
        "models.nets.aisfx",
        "models.nets.audioset",
        "models.nets.beats",
        "models.nets.clipnets",
        "models.nets.dcase",
        "models.nets.dymn",
        "models.nets.efficientat",
        "models.nets.htsat",
        "models.nets.l3",
        "models.nets.logmel",
        "models.nets.patchtransformer",
        "models.nets.residual",
        "models.nets.speech",
        "models.trunk",
        "models.weights.published",
        "models.weights.sources",
        "training.batchnorm",
    },
    "torchaudio": {"models.filterbanks"},
    "torchvision": {"data.sets.places", "models.nets.clipnets"},
    "tqdm": {"cli.progress"},
    "tyro": {"cli.parsing"},
    "yaml": {"submission.metafile", "submission.package"},
}
"""The files that may know a package: media.py reads what toycity.py writes. numpy and torch are everybody's."""

EXTRAS = ("clip", "datasets", "keras", "onnx", "pandas", "ray")
"""Extras of setup.cfg whose packages some files import when they need them."""

UNSEEN = {"onnx", "onnxscript", "tensorboard"}
"""Declared although no file imports them: the exporter and Lightning's TensorBoardLogger do."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def imports(path: Path) -> set[str]:
    """All modules that a file imports: at its top, inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # `from package import module` is an import of the module
                whole = f"{node.module}.{alias.name}"
                file = ROOT.joinpath(*whole.split("."))
                found.add(whole if file.is_dir() or file.with_suffix(".py").is_file() else node.module)
    return found


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {name: imports(path) for name, path in FILES.items()}
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def own(module: str) -> str | None:
    """The name of a module of this package within it."""
    if module.split(".")[0] != "avsc_e2e":
        return None
    return module.removeprefix("avsc_e2e").removeprefix(".")


def room(module: str) -> str:
    return module.split(".")[0] or "avsc_e2e"


def third_party(found: set[str]) -> set[str]:
    return {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"avsc_e2e"}


def test_every_module_has_its_room():
    assert {room(name) for name in FILES} == set(FLOOR)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    for target in filter(None, map(own, IMPORTS[name])):
        here, there = room(name), room(target)
        assert here == there or FLOOR[there] < FLOOR[here] or FLOOR[here] == 0, f"{name} imports {target}"


def test_no_circles():
    graph = {name: {own(item) for item in found} - {None, ""} for name, found in IMPORTS.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_owners_of_third_party_packages():
    owners: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        for package in third_party(found) - {"numpy", "torch"}:
            owners.setdefault(package, set()).add(name)
    assert owners == OWNERS


def test_recipes_are_values():
    for path in (ROOT / "recipes").glob("[!_]*.py"):
        found = imports(path)
        assert not third_party(found), path
        own_modules = set(filter(None, map(own, found)))
        assert {room(name) for name in own_modules} <= {"cli", "training", "models", "transforms"}, path
        assert {name for name in own_modules if room(name) == "training"} <= {"training.recipe"}, path


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


def test_every_folder_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(config["options"]["packages"].split()) == folders | {"avsc_e2e.recipes"}


HELP = "from avsc_e2e.cli import main; main(['--help'])"
LISTS = "import contextlib; from avsc_e2e.cli import main\nwith contextlib.suppress(SystemExit): main({})"


@pytest.mark.parametrize(
    ("code", "torch"),
    [
        ("import avsc_e2e", False),
        (HELP, False),
        (LISTS.format(["recipes"]), False),
        (LISTS.format(["train", "zhang_ioa/hybrid", "--help"]), False),
        (LISTS.format(["train", "zhang_ioa/hybrid", "--epohcs", "3"]), False),
        (LISTS.format(["predict", "absent.safetensors", "absent.mp4"]), False),
        (LISTS.format(["models", "--no-count"]), True),
    ],
)
def test_light_to_import(code, torch):
    code += "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "avsc_e2e" in loaded
    heavy = (set(OWNERS) | {"numpy", "torch", "cv2", "librosa", "tensorboard"}) - {"tyro"}
    assert bool(loaded & heavy) == torch


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

"""The launch files of deploy/: their syntax, the fields that their systems require, and the options of `avsc`."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from avsc_e2e.cli import VERBS
from avsc_e2e.cli.completion import options_of
from avsc_e2e.cli.targets import target_of

DEPLOY = Path(__file__).parents[1] / "deploy"

REQUIRED = {
    "kuberay.yaml": {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "spec.entrypoint": str,
        "spec.rayClusterSpec.headGroupSpec.rayStartParams": dict,
        "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.image": str,
        "spec.rayClusterSpec.workerGroupSpecs.0.groupName": str,
        "spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams": dict,
        "spec.rayClusterSpec.workerGroupSpecs.0.replicas": int,
        "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.name": str,
    },
    "pytorchjob.yaml": {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec.nprocPerNode": str,
        "spec.elasticPolicy.minReplicas": int,
        "spec.elasticPolicy.maxReplicas": int,
        "spec.elasticPolicy.rdzvBackend": str,
        "spec.pytorchReplicaSpecs.Worker.replicas": int,
        "spec.pytorchReplicaSpecs.Worker.restartPolicy": str,
        "spec.pytorchReplicaSpecs.Worker.template.spec.containers.0.name": "pytorch",
    },
    "skypilot.yaml": {
        "name": str,
        "num_nodes": int,
        "resources.accelerators": str,
        "envs.STORE": str,
        "setup": str,
        "run": str,
    },
}
"""Fields that each system's documentation requires: a value, or its type."""


def field(value: object, path: str) -> object:
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else value[name]
    return value


def test_every_file_is_listed():
    listed = set(re.findall(r"^\| `(\S+)`", (DEPLOY / "README.md").read_text(), re.M))
    assert listed == {path.name for path in DEPLOY.iterdir()} - {"README.md"}


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_fields(name):
    [document] = yaml.safe_load_all((DEPLOY / name).read_text())
    for path, wanted in REQUIRED[name].items():
        value = field(document, path)
        assert isinstance(value, wanted) if isinstance(wanted, type) else value == wanted, path


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sbatch"])
def test_scripts_are_of_the_shell(name):
    subprocess.run(["bash", "-n", DEPLOY / name], check=True)
    directives = re.findall(r"^#SBATCH (.*)", (DEPLOY / name).read_text(), re.M)
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", line) for line in directives)
    assert bool(directives) == (name == "slurm.sbatch")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Verb and options of each call of avsc in a file."""
    flat = re.sub(r"\\\n", " ", text)
    flat = re.sub(r"\n\s+- (?=-|avsc_e2e|train|zhang)", " ", flat)  # a list of words in YAML
    found = re.findall(r"(?:avsc|avsc_e2e) (data prepare|train) ([^\n#]*)", flat)
    return [(verb, [w.split("=")[0] for w in shlex.split(rest) if w.startswith("--")]) for verb, rest in found]


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sbatch", "kuberay.yaml", "pytorchjob.yaml", "skypilot.yaml"])
def test_options_exist(name):
    [(verb, flags), *_] = commands((DEPLOY / name).read_text())
    assert flags
    if verb == "data prepare":
        assert set(flags) <= set(options_of(VERBS[verb]))
        return
    for flag in flags:
        if flag not in ("--requeue", "--resume"):
            value: object = target_of("zhang_ioa/video").load()
            for part in flag.removeprefix("--").replace("-", "_").split("."):
                value = getattr(value, part)  # raises AttributeError where there is none

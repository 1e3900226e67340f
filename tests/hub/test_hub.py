"""Checkpoints to and from a local stand-in of the hub's file layout."""

import json
import logging
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from avsc_e2e.cli.targets import DataTarget, target_of
from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import evaluate_checkpoint
from avsc_e2e.hub.checkpoint import Checkpoint
from avsc_e2e.models.ensemble import Ensemble, Member
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights import fetching
from avsc_e2e.models.weights.checkpoint import add_notes, load_model, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.outputs.output import SystemOutput, write_output

CLASSES = ("beach", "street")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def scenenet():
    from dataclasses import replace

    torch.manual_seed(0)
    return SceneNet(replace(tiny(), classes=CLASSES))


def ensemble():
    from dataclasses import replace

    torch.manual_seed(0)
    sound = replace(tiny(), video="", fusion="", classes=CLASSES)
    return Ensemble(CLASSES, [Member("tiny", sound)], {"tiny probe": ("tiny",)}, "best head")


@pytest.fixture(params=[scenenet, ensemble])
def run(request, tmp_path):
    """The folder of a run that was tested on four recordings."""
    folder = tmp_path / "runs" / "mine"
    save_model(request.param(), folder / "model.safetensors", {"ladder": "[]"})
    files = tuple(f"{name}_{take}" for name in CLASSES for take in "ab")
    right = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    (folder / "evaluation").mkdir()
    write_output(folder / "evaluation/segments.csv", SystemOutput(files, CLASSES, right, np.zeros(4)))
    lines = [f"{file}\t{file.partition('_')[0]}\n" for file in files]
    (folder / "evaluation/reference.csv").write_text("filename\tscene_label\n" + "".join(lines))
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache in the layout of the hub's client; what is uploaded lies in it. There is no network."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    def upload_folder(self, *, repo_id, folder_path, **_):
        stored = cache / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder_path, stored / "snapshots" / COMMIT)
        (stored / "refs").mkdir()
        (stored / "refs" / "main").write_text(COMMIT)
        return f"stand-in/{repo_id}"

    created = type("Created", (), {"repo_id": "user/name"})
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, repo_id, **_: created)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    return cache


def clip(model):
    arch = model.architecture
    draw = torch.Generator().manual_seed(1)
    audio = torch.randn(2, arch.input_channels, round(arch.window * arch.sample_rate), generator=draw)
    frames = arch.frames if arch.video else 0
    video = torch.randint(0, 255, (2, frames, 3, arch.size, arch.size), dtype=torch.uint8, generator=draw)
    return Clip(audio, video, torch.zeros(2), torch.tensor([[True, bool(arch.video)]] * 2), ["", ""], torch.zeros(2))


@torch.no_grad()
def says(model):
    given = model.preprocess(clip(model))
    return model.decide(model(given), given.present)


def test_saved_and_loaded(run, tmp_path):
    Checkpoint(run).save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert json.loads((tmp_path / "saved/config.json").read_text())["classes"] == list(CLASSES)
    assert str(tmp_path) not in (tmp_path / "saved/config.json").read_text()
    again = Checkpoint.from_pretrained(str(tmp_path / "saved")).model
    assert torch.equal(says(again), says(load_model(run)))


def test_pushed_and_fetched_by_its_address(run, hub):
    about = {"data": "my holidays", "licence": "mit"}
    assert Checkpoint(run).push_to_hub("user/name", model_card_kwargs=about) == "stand-in/user/name"
    expected = says(load_model(run))
    for address in ("hf-hub:user/name", f"hf-hub:user/name@{COMMIT}"):
        assert torch.equal(says(load_model(address)), expected)
    assert torch.equal(says(Checkpoint.from_pretrained("user/name").model), expected)
    card = next(hub.rglob("README.md")).read_text()
    assert card.startswith("---\nlibrary_name: avsc_e2e\nlicense: mit\n")
    assert "# user/name\n" in card
    assert 'avsc_e2e.predict("hf-hub:user/name"' in card


def test_the_card_holds_what_is_known_and_what_is_not(run):
    about = {"data": "my holidays", "data_licence": "CC BY 4.0"}
    card = str(Checkpoint(run).generate_model_card(**about))
    assert "Trained on my holidays (CC BY 4.0)." in card
    assert "beach, street" in card
    # mean of -log .9, .8, .7, .4 and three right of four; one recording a class is right in half
    assert "| 1 s segments (4) | 0.400 (" in card
    assert "| 75.0 % (" in card
    assert "few test data: 4 recordings in all" in card
    assert "Its author has not stated the licence of the checkpoint." in card
    assert "stated the training data" not in card
    assert "fitted out of fold; how well it is calibrated elsewhere is not known" in card


def test_an_address_is_a_target_that_is_not_written_to(hub):
    assert target_of("hf-hub:user/name") == DataTarget("hf-hub:user/name")
    with pytest.raises(AvscError, match="on a hub, which cannot be changed"):
        add_notes("hf-hub:user/name", {"calibration": "{}"})
    with pytest.raises(AvscError, match="on a hub, so name a folder for its evaluation with out"):
        evaluate_checkpoint("hf-hub:user/name", "VIDEOS")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf-hub:user/other", r"127\.0\.0\.1:9 cannot be reached, and the model is not in "),
        ("hf-hub:user/name/more", "not an address on a hub; give hf-hub:user/name"),
        ("hf-hub:", "not an address on a hub"),
    ],
)
def test_what_is_not_there_is_one_line(hub, monkeypatch, address, message):
    monkeypatch.setattr(fetching, "PATIENCE", 0.5)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with pytest.raises(AvscError, match=message) as error:
        load_model(address)
    assert "\n" not in str(error.value)

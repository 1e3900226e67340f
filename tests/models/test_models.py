"""Whole models: every entry of the zoo learns, decides as it should, and comes back from its file."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from support import Malice
from torch.nn.functional import cross_entropy

from avsc_e2e.clip import SCENES, Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.heads import decide
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, read_checkpoint, read_notes, save_model
from avsc_e2e.models.zoo.catalogue import architecture, create_model, describe, list_models
from avsc_e2e.models.zoo.own import lite0, tiny
from avsc_e2e.models.zoo.registry import system

SMALLEST = 64
"""Pixels at which every trunk still has something to see."""


def batch(arch: Architecture, clips: int = 3) -> Clip:
    """As a loader gives it: noise, the second clip without pictures and the third without sound."""
    draw = torch.Generator().manual_seed(0)
    present = torch.tensor([[bool(arch.audio), bool(arch.video)]]).repeat(clips, 1)
    if len(arch.modalities) == 2:
        present[1, 1] = present[2, 0] = False
    samples = round(arch.window * arch.sample_rate) if arch.audio else 0
    side = arch.size if arch.video else 0
    audio = torch.rand(clips, arch.input_channels, samples, generator=draw) - 0.5
    video = torch.randint(0, 256, (clips, arch.frames, 3, side, side), generator=draw).to(torch.uint8)
    return Clip(
        audio * present[:, 0, None, None],
        video * present[:, 1, None, None, None, None],
        torch.arange(clips) % len(arch.classes),
        present,
        [""] * clips,
        torch.zeros(clips),
    )


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_gets_a_gradient(name):
    arch = architecture(name)
    frames = arch.frames if arch.fusion in ("recurrent", "segments") else min(arch.frames, 2)
    arch = replace(arch, size=SMALLEST if arch.video else arch.size, frames=frames, window=1.0)
    if arch.fusion == "sequence":
        arch = replace(arch, audio_hop=0.5)  # few embeddings, which are repeated anyway
    if name == "flagship":  # of the same families, without the weights of a ViT-L
        arch = replace(arch, audio="mn04", video="test_vit")
    torch.manual_seed(0)
    model = SceneNet(arch).train()
    for module in model.modules():  # timm begins residual branches at nought, which holds their gradients back at first
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.dim() == 1 and not weight.any():
            torch.nn.init.ones_(weight)
    given = batch(arch)
    if not model.embeddings_fitted:
        model.fit([batch(arch) for _ in range(20 if arch.fusion == "segments" else 1)])
        model.train()
    logits = model(model.preprocess(given))
    assert tuple(logits) == arch.heads
    for value in logits.values():
        assert value.shape == (3, 10)
        assert bool(value.isfinite().all())
    loss = sum(cross_entropy(value, given.target) for value in logits.values())
    loss.backward()
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    without = [name for name, grad in learning.items() if grad is None]
    assert not without
    assert all(bool(grad.isfinite().all()) for grad in learning.values())
    still = [name for name, grad in learning.items() if not grad.any()]
    assert len(still) <= 0.02 * len(learning), still  # a unit that noise never wakes is no defect


def test_learned_embeddings_stand_for_what_is_missing():
    model = create_model("tiny", size=32).train()
    given = model.preprocess(batch(model.architecture))
    model(given)["fusion"].sum().backward()
    assert all(bool(missing.grad.any()) for missing in model.heads["fusion"].missing)
    model.zero_grad()
    whole = given._replace(present=torch.ones(3, 2, dtype=torch.bool))
    model(whole)["fusion"].sum().backward()
    assert all(not missing.grad.any() for missing in model.heads["fusion"].missing)


def test_frames_are_normalised_as_the_trunk_was_trained():
    model = create_model("tiny", size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    given = batch(model.architecture)
    video = model.preprocess(given).video
    assert video.dtype == torch.float32
    expected = (given.video[0, 0, :, 3, 4] / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.25, 1.0])
    torch.testing.assert_close(video[0, 0, :, 3, 4], expected)


def test_evaluation_treats_each_clip_alone():
    model = create_model("tiny", size=32, frames=2).eval()
    given = model.preprocess(batch(model.architecture))
    together = model(given)
    for index in range(3):
        alone = model(Clip(*(value[index : index + 1] for value in given)))
        for name, value in together.items():
            torch.testing.assert_close(alone[name], value[index : index + 1], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------- the decision


def logits_of(*probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_decision_by_hand():
    logits = {
        "audio": logits_of([0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]),
        "video": logits_of([0.1, 0.9], [0.7, 0.3], [0.3, 0.7], [0.2, 0.8]),
        "fusion": logits_of([0.4, 0.6], [0.8, 0.2], [0.5, 0.5], [0.9, 0.1]),
    }
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    found = decide(logits, {"audio": 1.0, "video": 3.0, "fusion": 4.0}, present)
    expected = [
        (0.5 + 3 * 0.1 + 4 * 0.4) / 8,
        (0.9 + 4 * 0.8) / 5,  # no picture: its head has no vote
        (3 * 0.3 + 4 * 0.5) / 7,
        0.9,  # only the fusion head is left
    ]
    assert found.dtype == torch.float32
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.sum(dim=1).tolist() == pytest.approx([1] * 4)
    single = {name: logits[name] for name in ("audio", "video")}
    found = decide(single, {"audio": 1.0, "video": 3.0}, present)
    expected = [(0.5 + 0.3) / 4, 0.9, 0.3, (0.6 + 0.2) / 2]  # the last: nobody knows anything, so all are heard
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_head_without_weight_has_no_vote():
    model = create_model("tiny", size=32, decision=(0.0, 1.0, 3.0), decision_rule="mean").eval()
    assert model.architecture.heads == ("video", "fusion")
    given = batch(model.architecture)
    logits = model(model.preprocess(given))
    assert tuple(logits) == ("video", "fusion")
    probabilities = {name: value.softmax(1) for name, value in logits.items()}
    found = model.decide(logits, given.present)
    torch.testing.assert_close(found[0], (probabilities["video"][0] + 3 * probabilities["fusion"][0]) / 4)
    torch.testing.assert_close(found[1], probabilities["fusion"][1])


# ---------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("changes", [{}, {"audio": ""}, {"video": ""}, {"fusion": ""}, {"channels": "mono"}])
def test_a_file_brings_the_model_back(tmp_path, changes):
    classes = ("Bäckerei", "b", "c")
    model = create_model("tiny", size=32, classes=classes, **changes)
    given = batch(model.architecture)
    model.train()
    if model.architecture.audio:
        model.frontend.fit([given.audio])
    model(model.preprocess(given))  # so that the statistics of batch norm are no longer those of the start
    path = save_model(model, tmp_path / "new" / "model.safetensors", {"note": "one"})
    back = load_model(path)
    assert not back.training
    assert back.architecture == model.architecture
    assert read_checkpoint(path)[1]["note"] == "one"
    model.eval()
    with torch.no_grad():
        mine, theirs = (m(m.preprocess(given)) for m in (model, back))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    same = create_model("tiny", checkpoint=str(path), size=32, classes=classes, **changes).eval()
    with torch.no_grad():
        again = same(same.preprocess(given))
    assert all(torch.equal(mine[name], again[name]) for name in mine)


def test_architecture_survives_json():
    for name in list_models():
        arch = replace(architecture(name), classes=("ä", "b"))
        assert Architecture.from_json(arch.to_json()) == arch
        assert hash(Architecture.from_json(arch.to_json())) == hash(arch)
    values = json.loads(tiny().to_json()) | {"spread": 3}
    with pytest.raises(AvscError, match="does not know: spread"):
        Architecture.from_json(json.dumps(values))


def test_files_that_are_no_checkpoints(tmp_path):
    good = save_model(create_model("tiny", size=32), tmp_path / "good.safetensors")
    tensors, metadata = read_checkpoint(good)
    run = tmp_path / "run"
    pickled = tmp_path / "pickle.safetensors"
    pickled.write_bytes(pickle.dumps(Malice(run)))
    zipped = tmp_path / "zip.safetensors"
    torch.save({"weight": Malice(run)}, zipped)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-7])

    def variant(name: str, tensors: dict, metadata: dict) -> Path:
        safetensors.torch.save_file(tensors, tmp_path / name, metadata=metadata)
        return tmp_path / name

    changed = json.loads(metadata["architecture"])
    first = next(iter(tensors))
    cases = {
        pickled: "is not a checkpoint of avsc_e2e",
        zipped: "is not a checkpoint of avsc_e2e",
        cut: "this checkpoint is cut off",
        tmp_path / "none.safetensors": "no such checkpoint",
        tmp_path: "no model.safetensors in this folder",
        variant("bare.safetensors", tensors, {}): "has no Architecture inside",
        variant("words.safetensors", tensors, {"architecture": "nonsense"}): "words.safetensors: ",
        variant("list.safetensors", tensors, {"architecture": "[1]"}): "list.safetensors: ",
        variant("less.safetensors", {k: v for k, v in tensors.items() if k != first}, metadata): "less.safetensors: ",
        variant("wide.safetensors", tensors, {"architecture": json.dumps(changed | {"hidden": 64})}): "wide",
        variant("trunk.safetensors", tensors, {"architecture": json.dumps(changed | {"video": "resnet5"})}): "resnet50",
    }
    for path, reason in cases.items():
        with pytest.raises(AvscError, match=reason) as caught:
            load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not run.exists()
    with pytest.raises(AvscError, match="does not fit tiny with these changes"):
        create_model("tiny", checkpoint=str(good), size=32, hidden=64)


def test_permissions_are_the_users(tmp_path):
    before = os.umask(0o027)
    try:
        path = save_model(create_model("tiny"), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


# ------------------------------------------------------------------------------------------------ the zoo


def test_names():
    names = list_models()
    assert {"zhang_ioa", "resnet50_video", "lite0", "tiny"} <= set(names)
    assert list_models("*ioa*") == [name for name in names if "ioa" in name]
    assert list_models("nothing*") == []
    assert all(describe(name) for name in names)
    assert architecture("zhang_ioa").name == "zhang_ioa"
    for name, likely in (("zhang_iao", "zhang_ioa"), ("lite1", "lite0"), ("tinny", "tiny")):
        with pytest.raises(AvscError, match=rf"unknown model '{name}': did you mean .*{likely}"):
            create_model(name)
    with pytest.raises(AvscError, match=r"known are .*zhang_ioa"):
        create_model("???")
    with pytest.raises(AvscError, match="unknown field 'framse': did you mean frames"):
        create_model("tiny", framse=2)
    with pytest.raises(AvscError, match=r"unknown trunk 'resnet5': did you mean .*resnet50"):
        create_model("tiny", video="resnet5")


def test_an_entry_is_a_function(monkeypatch):
    table = {}
    monkeypatch.setattr("avsc_e2e.models.zoo.catalogue.entries", table)
    monkeypatch.setattr("avsc_e2e.models.zoo.registry.entries", table)

    @system
    def mine2() -> Architecture:
        """Mine (2026)."""
        return tiny()

    @system
    def mine10() -> Architecture:
        """Mine, larger (2026)."""
        return replace(tiny(), hidden=64)

    assert list_models("mine*") == ["mine2", "mine10"]
    assert describe("mine2") == "Mine (2026)."
    assert (mine10().name, mine10().hidden) == ("mine10", 64)
    assert isinstance(create_model("mine10", size=32), SceneNet)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"audio": "", "video": ""}, "needs at least one"),
        ({"classes": ("a",)}, "at least two different names"),
        ({"classes": ("a", "a")}, "at least two different names"),
        ({"decision": (0.0, 0.0, 0.0), "fusion": ""}, "needs a weight above 0"),
    ],
)
def test_architectures_that_make_no_model(changes, reason):
    with pytest.raises(AvscError, match=reason):
        replace(tiny(), **changes)


def test_heads_and_their_weights():
    both = replace(tiny(), decision=(1.0, 2.0, 4.0))
    assert (both.heads, both.weights) == (("audio", "video", "fusion"), (1.0, 2.0, 4.0))
    late = replace(both, fusion="")
    assert (late.heads, late.weights) == (("audio", "video"), (1.0, 2.0))
    sound = replace(both, video="", decision=(0.0, 2.0, 4.0))
    assert (sound.heads, sound.weights, sound.modalities) == (("audio",), (1.0,), ("audio",))
    joint = replace(both, decision=(0.0, 0.0, 1.0))
    assert (joint.heads, joint.weights) == (("fusion",), (1.0,))
    assert replace(both, channels="mono").input_channels == 1
    assert both.classes == SCENES


def test_published_weights_see_what_timm_sees():
    """The trunk filled by its package gives the features of timm's net with those tensors."""
    torch.manual_seed(0)
    try:
        model = create_model("lite0", pretrained=True, size=64, audio="").eval()
    except AvscError as error:
        pytest.skip(f"the package with the weights is not installed ({error})")
    net = timm.create_model(lite0().video, num_classes=0).eval()
    random = next(net.parameters()).clone()
    net.load_state_dict(dict(zip(net.state_dict(), model.video.net.state_dict().values(), strict=True)))
    assert not torch.equal(next(net.parameters()), random)
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.video(pictures[:, None]), net(pictures), rtol=1e-4, atol=1e-5)
        responses = net(pictures)
    assert float(responses.std()) > 0.05  # random weights of this net give next to nothing


def test_notes_are_read_without_the_tensors(tmp_path, monkeypatch):
    path = save_model(create_model("tiny", size=32), tmp_path / "model.safetensors", {"recipe": "{}"})
    opened = safetensors.safe_open

    class Watched:
        def __init__(self, *args, **options):
            self.file = opened(*args, **options)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def metadata(self):
            return self.file.metadata()

    monkeypatch.setattr(safetensors, "safe_open", Watched)  # it has no get_tensor
    assert read_notes(path)["recipe"] == "{}"
    with pytest.raises(AttributeError):
        read_checkpoint(path)

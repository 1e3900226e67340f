"""Exported models say what their checkpoints say; the ONNX runtime needs no torch."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import real, write_video

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.export.comparison import export_checkpoint
from avsc_e2e.export.deployed import Deployed
from avsc_e2e.export.runtime import OnnxModel, square
from avsc_e2e.inference import stored_calibration
from avsc_e2e.models.ensemble import Ensemble, Member
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import add_notes, load_model, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.outputs.calibration import Calibration, Floors
from avsc_e2e.outputs.loglinear import LogLinear
from avsc_e2e.prediction import timeline
from avsc_e2e.transforms.frames import CentreCrop

CLASSES = ("bus", "park", "tram")

for name in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(name, reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A hybrid with random weights and a calibration that changes every probability."""
    torch.manual_seed(3)
    model = SceneNet(replace(tiny(), size=32, classes=CLASSES)).eval()
    path = save_model(model, tmp_path_factory.mktemp("export") / "model.safetensors")
    rule = LogLinear(np.array([[2.0, 1.5, 1.0]]), np.array([0.3, 0.0, -0.2]))
    add_notes(path, {"calibration": json.dumps(Calibration("vector", CLASSES, rule).to_json())})
    return path


@pytest.fixture(scope="module")
def exported(checkpoint):
    out = checkpoint.with_name("model.onnx")
    export_checkpoint(checkpoint, out)
    return out


def batch_of(arch, count=5):
    draw = np.random.default_rng(0)
    audio = draw.normal(size=(count, arch.input_channels, round(arch.window * arch.sample_rate))).astype(np.float32)
    video = draw.integers(0, 256, (count, arch.frames, arch.size, arch.size, 3), dtype=np.uint8)
    present = np.array([[True, True], [True, False], [False, True], [True, True], [True, False]])[:count]
    return 0.1 * audio, video, present


def test_the_graph_says_what_the_model_says(checkpoint, exported):
    """Both modalities and either, any size of a batch, the calibration applied."""
    model = load_model(checkpoint)
    audio, video, present = batch_of(model.architecture)
    clip = Clip(
        torch.from_numpy(audio), torch.from_numpy(video).permute(0, 1, 4, 2, 3), torch.zeros(5),
        torch.from_numpy(present), "", 0.0,
    )  # fmt: skip
    with torch.inference_mode():
        logits = model(model.preprocess(clip))
        decided = model.decide(logits, clip.present).double().numpy()
    powered = decided ** np.array([2.0, 1.5, 1.0]) * np.exp([0.3, 0.0, -0.2])
    expected = powered / powered.sum(axis=1, keepdims=True)
    runtime = OnnxModel(exported)
    found = runtime(audio, video, present)
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    for name, values in logits.items():
        assert found[f"{name}_probabilities"] == pytest.approx(values.softmax(dim=1).numpy(), abs=1e-5)
    assert runtime(audio[:1], video[:1], present[:1])["probabilities"] == pytest.approx(expected[:1], abs=1e-5)
    assert (runtime.classes, runtime.modalities) == (CLASSES, ("audio", "video"))


@pytest.mark.parametrize("modality", ["video"])
def test_one_modality_alone_leaves_out_the_other_trunk(checkpoint, exported, modality):
    out = checkpoint.with_name(f"{modality}.onnx")
    export_checkpoint(checkpoint, out, modality=modality)
    runtime, both = OnnxModel(out), OnnxModel(exported)
    audio, video, _ = batch_of(load_model(checkpoint).architecture)
    present = np.tile([modality == "audio", modality == "video"], (5, 1))
    expected = both(audio, video, present)["probabilities"]
    found = runtime(audio if modality == "audio" else None, video if modality == "video" else None)
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert out.stat().st_size < exported.stat().st_size


def test_an_ensemble_is_one_graph(tmp_path):
    """Two members and three heads: what `avsc train FOLDER` makes."""
    torch.manual_seed(5)
    audio, video = (replace(tiny(), size=32, fusion="", **{other: ""}) for other in ("video", "audio"))
    members = [Member("a", audio, ("mean", "maximum")), Member("v", video, ("mean",))]
    model = Ensemble(CLASSES, members, {"a": ["a"], "v": ["v"], "both": ["a", "v"]}).eval()
    for values in (*model.heads.parameters(), model.weights):
        torch.nn.init.normal_(values, std=0.3)
    for pattern, heads in ((1, (1, 2)), (2, (0, 2))):  # heads that lack a modality have no weight
        model.weights[pattern, list(heads)] = 0
    path = save_model(model, tmp_path / "model.safetensors")
    inputs = batch_of(model.architecture)
    clip = Clip(*map(torch.from_numpy, inputs[:2]), torch.zeros(5), torch.from_numpy(inputs[2]), "", 0.0)
    clip = clip._replace(video=clip.video.permute(0, 1, 4, 2, 3))
    with torch.inference_mode():
        expected = model.decide(model(clip), clip.present).numpy()
    export_checkpoint(path, tmp_path / "both.onnx")
    found = OnnxModel(tmp_path / "both.onnx")(*inputs)
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert set(found) == {"probabilities", "a_probabilities", "v_probabilities", "both_probabilities"}
    alone = Deployed(model, "audio")
    assert alone.heads == ("a",)
    with torch.inference_mode():
        assert alone(clip.audio[1:2])[0].numpy() == pytest.approx(expected[1:2], abs=1e-5)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.75), ("int8", 0.65)])
def test_less_precision_is_smaller_and_close(checkpoint, exported, precision, share):
    out = checkpoint.with_name(f"{precision}.onnx")
    export_checkpoint(checkpoint, out, precision=precision)
    inputs = batch_of(load_model(checkpoint).architecture)
    difference = OnnxModel(out)(*inputs)["probabilities"] - OnnxModel(exported)(*inputs)["probabilities"]
    assert 0 < np.abs(difference).max() < 0.01
    assert out.stat().st_size < share * exported.stat().st_size


def test_a_program_says_the_same(checkpoint, exported):
    out = checkpoint.with_name("model.pt2")
    export_checkpoint(checkpoint, out, "torch-export")
    inputs = batch_of(load_model(checkpoint).architecture)
    program = torch.export.load(out).module()
    with torch.inference_mode():
        found = program(*map(torch.from_numpy, inputs))[0].numpy()
    assert found == pytest.approx(OnnxModel(exported)(*inputs)["probabilities"], abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(183, 244), (64, 48), (33, 91)])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.0])
def test_frames_are_cut_as_in_training(height, width, crop):
    draw = np.random.default_rng(1)
    frames = draw.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    clip = Clip(torch.zeros(0), torch.from_numpy(frames).permute(0, 3, 1, 2), 0, torch.ones(2), "", 0.0)
    expected = CentreCrop(32, crop)(clip).video.permute(0, 2, 3, 1).numpy()
    found = square(frames, 32, crop)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_predicts_real_recordings_as_the_checkpoint_does(checkpoint, exported):
    model, calibration, runtime = load_model(checkpoint), stored_calibration(checkpoint), OnnxModel(exported)
    for name in ("real_clips/lyon1029_40200_md.mp4", "real_audio/bus-prague-1102-41514.wav"):
        path = real(name)
        expected = list(timeline(model, path, calibration=calibration))
        found = list(runtime.timeline(path))
        assert [(w.start, w.end, w.modalities) for w in found] == [(w.start, w.end, w.modalities) for w in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=2e-3)


def test_the_runtime_needs_no_torch(exported, tmp_path):
    """Prediction with torch, timm, scikit-learn, albumentations and OpenCV out of reach."""
    frames = [np.full((48, 64, 3), 40 * index, np.uint8) for index in range(5)]
    clip = write_video(tmp_path / "clip.mp4", frames, rate=5.0, sound=np.zeros((2, 48_000), np.float32))
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'torchaudio', 'timm', 'sklearn', 'cv2', 'PIL'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from avsc_e2e.cli import main\n"
        f"main(['predict', {str(exported)!r}, {str(clip)!r}, '--format', 'json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    said = said[0] if isinstance(said, list) else said
    assert set(said["probabilities"]) == set(CLASSES)
    assert said["modalities"] == ["audio", "video"]


def test_what_cannot_be_exported(checkpoint, tmp_path):
    model = load_model(checkpoint)
    audio_only = SceneNet(replace(tiny(), video="", classes=CLASSES))
    with pytest.raises(AvscError, match="has only audio"):
        Deployed(audio_only, "video")
    with pytest.raises(AvscError, match="calibration is floor, which has no graph"):
        Deployed(model, calibration=Calibration("floor", CLASSES, Floors(np.full(3, 0.1))))
    with pytest.raises(AvscError, match="does not exist; make it first"):
        export_checkpoint(checkpoint, tmp_path / "nowhere" / "model.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    for name, reason in (("text.onnx", "is not a model that"), ("absent.onnx", "no such file")):
        with pytest.raises(AvscError, match=reason):
            OnnxModel(tmp_path / name)

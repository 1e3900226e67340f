"""Loading of published weights, or of a file, into a net."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from huggingface_hub.constants import ENDPOINT as HF_ENDPOINT
from timm.models import PretrainedCfg
from torch import Tensor, nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.weights.fetching import check, fetch, look
from avsc_e2e.models.weights.published import PUBLISHED, Source, registered


def sources(trunk: str) -> list[Source]:
    """Sources of weights for a trunk. `pretrained` takes the first one that is available, or else downloads the
    first."""
    known = [source for source in (*registered, *PUBLISHED) if trunk.partition(".")[0] in source.trunks]
    config = timm.get_pretrained_cfg(trunk) if timm.is_model_pretrained(trunk) else None
    if config is not None and (config.hf_hub_id or config.url):
        hub = Source(
            "timm", (trunk,), config.tag or "see its page", config.license or "see its page", _hub_page(config)
        )
        # Places365 must be asked for by name: `pretrained` alone means ImageNet, as in timm.
        known.insert(0 if any(source.name == "places365" for source in known) else len(known), hub)
    return known


def chosen(trunk: str, file: str = "") -> Source | None:
    """The source that `load_pretrained` takes for a trunk; None where there is none, or `file` is a file."""
    known = sources(trunk)
    named = [source for source in known if source.name == file]
    available = [source for source in known if source.available]
    return next(iter(named if file else available or known), None)


def load_pretrained(net: nn.Module, trunk: str, options: Mapping, file: str = "", flag: str = "--video-weights") -> str:
    """Load weights into a net that timm created from `trunk` and `options`, and return where they came from. `file` is
    a file or the name of a source; empty: the trunk's own source. Raises AvscError that says which file to put
    where."""
    known, source = sources(trunk), chosen(trunk, file)
    if not file and not known:
        raise AvscError(f"there are no published weights for the trunk {trunk}: use --no-pretrained, or {flag} FILE")
    if source is None:
        _load_file(net, options, Path(file), known, flag)
        return file
    if source.convert is not None:
        path = fetch(source, flag)
        check(path, source.digest)
        _fill(net, source, options, path)
    else:
        try:
            if not source.available:
                look(HF_ENDPOINT if "huggingface.co" in source.url else source.url)
            _fill(net, source, options, None)
        except AvscError as error:
            raise AvscError(
                f"the weights of {trunk} are not available ({error}): download {source.url} elsewhere and give the "
                f"file with {flag} FILE, or train with --no-pretrained"
            ) from error
    return f"{source.name}, {source.data} ({source.licence})"


def _load_file(net: nn.Module, options: Mapping, path: Path, known: list[Source], flag: str) -> None:
    """Try each source's converter. All are strict, so at most one accepts the file."""
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
    """Load a file, or, if `path` is None, timm's own weights from its hub."""
    if source.convert is not None and path is not None:
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
            raise AvscError(f"{path}: " + f"{error}".removeprefix(f"{path}: ")) from error


def fill_from_tensors(net: nn.Module, trunk: str, options: Mapping, tensors: dict[str, Tensor]) -> None:
    """Load tensors into a net of timm, under any of the names that timm knows for it, such as CLIP's. Raises AvscError
    if they are of another net."""
    if set(tensors) == set(net.state_dict()):
        net.load_state_dict(conversion.match(Path(trunk), tensors, net))
        return
    config: Any = timm.get_pretrained_cfg(trunk)
    biases = [f"{name}.bias" for name in (config.classifier, "head", "fc", "classifier") if isinstance(name, str)]
    classes = next((len(tensors[name]) for name in biases if name in tensors), config.num_classes)
    try:
        _fill_by_timm(net, trunk, options, {"state_dict": tensors, "num_classes": classes})
    except AvscError as error:
        raise AvscError(f"its tensors are not those of {trunk} ({error})") from error


def _fill_by_timm(net: nn.Module, trunk: str, options: Mapping, overlay: dict) -> None:
    # timm loads strictly only if the number of classes is the file's, so the classifier is built and then removed.
    config: Any = timm.get_pretrained_cfg(trunk)
    classes = overlay.get("num_classes", config.num_classes)
    options = {name: value for name, value in options.items() if name not in ("num_classes", "global_pool")}
    try:
        whole = timm.create_model(
            trunk, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay or None, **options
        ).state_dict()
    except Exception as error:  # timm raises its own, torch's and the hub's client's errors
        raise AvscError(textwrap.shorten(str(error), 160, placeholder=" ...")) from error
    net.load_state_dict({name: whole[name] for name in net.state_dict()})


def _hub_page(config: PretrainedCfg) -> str:
    return f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else str(config.url)

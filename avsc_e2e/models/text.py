"""Classification of scenes by their names: CLIP compares images with sentences (Radford et al., 2021), as
Okazaki_LDSLVision's text-guided features do (DCASE 2021). open_clip embeds the sentences once; the model itself needs
no text."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet, freeze
from avsc_e2e.models.texthead import TextHead
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.weights import sources as weights

PLACES = {
    "airport": "an airport terminal",
    "bus": "the inside of a bus",
    "metro": "the inside of a metro train",
    "metro_station": "a metro station",
    "park": "an urban park",
    "public_square": "a public square",
    "shopping_mall": "an indoor shopping mall",
    "street_pedestrian": "a pedestrian street",
    "street_traffic": "a street with traffic",
    "tram": "the inside of a tram",
}
"""The ten scenes in words. Which sentences Okazaki_LDSLVision used is not published: these are our choice."""
TEMPLATES = ("a photo of {}.", "a video frame of {}.", "a blurry photo of {}.", "people in {}.")
"""Sentences whose features are averaged for each class."""

Tokenizer = Callable[[list[str]], Tensor]


def prompts(classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """Sentences for each class. A class that is not in PLACES is described by its own name."""
    return [[one.format(PLACES.get(name, name.replace("_", " "))) for one in templates] for name in classes]


def read_clip(name: str, file: str | Path = "") -> tuple[nn.Module, Tokenizer]:
    """An open_clip model and its tokenizer, with the weights of `file` (OpenAI's or open_clip's names), or random
    weights. Raises AvscError, also if open_clip_torch is not installed."""
    try:
        import open_clip
    except ImportError as error:
        raise AvscError("text guidance needs open_clip_torch: pip install 'avsc-e2e[clip]'") from error
    known = open_clip.list_models()
    if name not in known:
        raise AvscError(f"open_clip knows no model {name!r}; such as ViT-B-32-quickgelu, see open_clip.list_models()")
    level = logging.root.level
    clip = open_clip.create_model(name, pretrained=None)
    logging.root.setLevel(level)
    if file:
        tensors = conversion.read_tensors(Path(file))
        for number in ("input_resolution", "context_length", "vocab_size"):  # OpenAI's, no tensors of the net
            tensors.pop(number, None)
        clip.load_state_dict(conversion.match(Path(file), tensors, clip))
    return clip.eval(), open_clip.get_tokenizer(name)


@torch.no_grad()
def text_features(clip: nn.Module, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> Tensor:
    """(K, D) unit vectors: for each class the mean of its sentences' unit vectors."""
    device = next(clip.parameters()).device
    features = [normalize(clip.encode_text(tokenizer(list(group)).to(device)).float(), dim=-1) for group in sentences]
    return normalize(torch.stack([group.mean(dim=0) for group in features]), dim=-1)


@torch.no_grad()
def fill_head(head: TextHead, clip: nn.Module, features: Tensor) -> None:
    """Turn a head into CLIP's zero-shot classifier. Raises AvscError if the widths differ."""
    projection = getattr(clip.visual, "proj", None)
    if projection is None:
        raise AvscError(f"a text head needs a ViT of CLIP that ends in a projection, not {type(clip.visual).__name__}")
    given = (*projection.shape, *features.shape)
    own = (head.project.in_features, head.project.out_features, *head.text.shape)
    if given != own:
        raise AvscError(
            f"the text head maps {own[0]} to {own[1]} for {own[2]} classes, CLIP's {given[0]} to {given[1]} for "
            f"{given[2]}: set --model.video and --model.text-width to CLIP's"
        )
    head.project.weight.copy_(projection.T)
    head.text.copy_(features)
    head.scale.copy_(clip.logit_scale.clamp(max=math.log(100)))


def guide(model: SceneNet, clip: nn.Module, tokenizer: Tokenizer, templates: Sequence[str] = TEMPLATES) -> None:
    """Load CLIP into the video trunk, one of timm's CLIP encoders, and into its text head, which makes a zero-shot
    classifier of scenes. To train it further, save it and name it in a stage's `init`; `freeze_guidance` keeps its
    logits unchanged. Raises AvscError."""
    arch = model.architecture
    if not arch.video or arch.head != "text" or "video" not in model.heads:
        raise AvscError("text guidance needs a video head of its own: set --model.video to a CLIP encoder of timm and "
                        "--model.head to text")  # fmt: skip
    weights.fill_from_tensors(model.video.net, model.video.name, model.video.options, clip.state_dict())
    fill_head(model.heads["video"], clip, text_features(clip, tokenizer, prompts(arch.classes, templates)))


def freeze_guidance(model: SceneNet) -> None:
    """Keep the zero-shot logits unchanged while the rest of the model trains."""
    freeze(model.video)
    freeze(model.heads["video"])

"""Text guidance against open_clip's own zero-shot classification, with small CLIPs of random weights."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from avsc_e2e.clip import SCENES, Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models import text
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.texthead import TextHead

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed: the extra `clip` brings it")
TINY_TEXT = {"width": 64, "heads": 2, "layers": 1}


def small_clip(width=64, layers=2, patch=16, size=32, embed=32, quick=False):
    torch.manual_seed(0)
    vision = {"width": width, "layers": layers, "patch_size": patch, "image_size": size, "head_width": 64}
    return open_clip.CLIP(embed, vision, TINY_TEXT, quick_gelu=quick).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return open_clip.get_tokenizer("ViT-B-32")


def test_prompts_for_known_and_unknown_classes():
    groups = text.prompts((*SCENES, "band_marching"))
    assert len(groups) == 11
    assert groups[8][0] == "a photo of a street with traffic."
    assert groups[-1][0] == "a photo of band marching."
    assert len({sentence for group in groups for sentence in group}) == 11 * len(text.TEMPLATES)


def test_the_head_is_clips_zero_shot_classifier(tokenizer):
    clip = small_clip()
    sentences = [[f"a photo of {name}."] for name in ("a bus", "a park", "a tram")]
    features = text.text_features(clip, tokenizer, sentences)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    head = TextHead(64, 32, 3)
    text.fill_head(head, clip, features)
    seen = {}
    clip.visual.ln_post.register_forward_hook(lambda _, __, out: seen.update(out=out))
    with torch.no_grad():
        pictures = torch.randn(4, 3, 32, 32)
        expected, _ = clip.get_logits(pictures, tokenizer([group[0] for group in sentences]))
        pooled = seen["out"][:, 0] if seen["out"].dim() == 3 else seen["out"]
        torch.testing.assert_close(head(pooled), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(AvscError, match=r"maps 48 to 32 for 3 classes, CLIP's 64 to 32 for 3"):
        text.fill_head(TextHead(48, 32, 3), clip, features)


def test_sentences_of_a_class_are_averaged(tokenizer):
    clip = small_clip()
    one, two = (text.text_features(clip, tokenizer, [[s]]) for s in ("a bus.", "the inside of a bus."))
    both = text.text_features(clip, tokenizer, [["a bus.", "the inside of a bus."]])
    torch.testing.assert_close(both, normalize(one + two, dim=-1))


def test_guided_model_frozen_and_trainable(tokenizer, tmp_path):
    """timm's CLIP encoder with the head, on frames of a clip, equals open_clip on the same pictures."""
    clip = small_clip(width=768, layers=12, patch=32, size=224, embed=512, quick=True)
    arch = Architecture(
        audio="audio_test",
        bands=32,
        hop=1024,
        video="vit_base_patch32_clip_quickgelu_224",
        frames=2,
        head="text",
        fusion="concat",
        hidden=16,
    )
    model = SceneNet(arch).eval()
    torch.save(clip.state_dict(), tmp_path / "clip.pt")  # the names are OpenAI's, the sentences' net among them
    model.video.load_pretrained(str(tmp_path / "clip.pt"))
    from_file = {name: value.clone() for name, value in model.video.state_dict().items()}
    text.guide(model, clip, tokenizer)
    assert all(torch.equal(value, from_file[name]) for name, value in model.video.state_dict().items())
    pictures = torch.randn(2, 2, 3, 224, 224)
    sound = torch.randn(2, 2, 32, 47)
    batch = Clip(sound, pictures, torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool), ("a", "b"), torch.zeros(2))
    with torch.no_grad():
        logits = model(batch)
        pooled = clip.encode_image(pictures.flatten(0, 1)).unflatten(0, (2, 2)).mean(dim=1)
        features = text.text_features(clip, tokenizer, text.prompts(SCENES))
        expected = clip.logit_scale.exp() * normalize(pooled, dim=-1) @ features.T
    torch.testing.assert_close(logits["video"], expected, atol=1e-3, rtol=1e-3)
    assert logits["audio"].shape == logits["fusion"].shape == (2, 10)

    model.train()
    sum(values.logsumexp(dim=1).sum() for values in model(batch).values()).backward()
    head = model.heads["video"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (head.text, head.scale, head.project.weight))
    model.zero_grad(set_to_none=True)
    text.freeze_guidance(model)
    model.train()
    assert not model.video.training
    sum(values.logsumexp(dim=1).sum() for values in model(batch).values()).backward()
    assert head.text.grad is None
    assert all(p.grad is None for p in model.video.parameters())
    assert model.heads["audio"].text.grad.any()


def test_scale_is_bounded():
    head = TextHead(8, 4, 3)
    torch.nn.init.constant_(head.scale, 50.0)
    assert head(torch.randn(2, 8)).abs().max() <= 100 + 1e-3
    assert math.isclose(TextHead(8, 4, 3).scale.item(), math.log(1 / 0.07), rel_tol=1e-6)


def test_mistakes_are_told(tmp_path, tokenizer):
    with pytest.raises(AvscError, match="no model 'ViT-Q'"):
        text.read_clip("ViT-Q")
    linear = SceneNet(Architecture(audio="", video="test_vit", size=160))
    with pytest.raises(AvscError, match=r"model\.head to text"):
        text.guide(linear, small_clip(), tokenizer)

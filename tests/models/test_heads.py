"""Heads, model-level and decision-level fusion: counts, gradients, missing modalities, what is frozen."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.fusionheads import fusion_head
from avsc_e2e.models.heads import BaselineHead, PointwiseHead, decide, takes_tokens
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet, freeze
from avsc_e2e.models.sequencefusion import SequenceFusion
from avsc_e2e.models.zoo import own, systems

KINDS = ("concat", "gated", "bilinear", "cross_attention", "bottleneck", "early", "sequence")
LEARNED = ("concat", "gated", "bilinear", "cross_attention", "bottleneck")
"""Those that learn what stands for a missing modality."""


def fusion(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return fusion_head(kind, widths(kind), widths(kind), hidden=12, classes=5, dropout=0.0)


def widths(kind: str) -> tuple[int, int]:
    return (SequenceFusion.NARROWEST, 24) if kind == "sequence" else (16, 24)


def inputs(head: nn.Module, clips: int = 6) -> list[torch.Tensor]:
    kind = "sequence" if isinstance(head, SequenceFusion) else ""
    lengths = ([9], [3]) if takes_tokens(head) else ([], [])
    return [torch.randn(clips, *length, width) for length, width in zip(lengths, widths(kind), strict=True)]


def quiet(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_fusion_learns(kind):
    head = quiet(fusion(kind)).train()
    values = inputs(head)
    present = torch.ones(6, 2, dtype=torch.bool)
    present[0, 0] = present[1, 1] = False
    logits = head(values, present)
    assert logits.shape == (6, 5)
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()]
    assert not idle


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_modality_says_nothing(kind):
    head = fusion(kind).eval()
    first, second = inputs(head), inputs(head)
    both = torch.ones(6, 2, dtype=torch.bool)
    for missing in (0, 1):
        present = both.clone()
        present[:, missing] = False
        changed = [second[i] if i == missing else first[i] for i in range(2)]
        with torch.no_grad():
            torch.testing.assert_close(head(first, present), head(changed, present))
            assert not torch.allclose(head(first, both), head(changed, both))


@pytest.mark.parametrize("kind", LEARNED)
def test_what_stands_for_a_missing_modality_is_learned(kind):
    head = fusion(kind).eval()
    values, present = inputs(head), torch.tensor([[False, True]] * 6)
    before = head(values, present)
    with torch.no_grad():
        head.missing[0].add_(1.0)
    assert not torch.allclose(before, head(values, present))


@pytest.mark.parametrize("kind", ["bottleneck", "cross_attention", "sequence"])
def test_sequences_of_any_length(kind):
    head = fusion(kind).eval()
    present = torch.ones(2, 2, dtype=torch.bool)
    for steps, frames in ((1, 1), (6, 10), (120, 4)):
        audio, video = widths(kind)
        assert head([torch.randn(2, steps, audio), torch.randn(2, frames, video)], present).shape == (2, 5)


# ---- Each fusion against its equation, with one modality of two clips missing


def concat(head, pair):
    return head.head(torch.cat(pair, dim=1))


def gated(head, pair):
    """Arevalo et al., 2017: z * tanh(audio) + (1 - z) * tanh(video)."""
    audio, video = (layer(x).tanh() for layer, x in zip(head.layers, pair, strict=True))
    gate = head.gate(torch.cat(pair, dim=1)).sigmoid()
    return head.head(gate * audio + (1 - gate) * video)


def bilinear(head, pair):
    """Kim et al., 2017: the product of both projections."""
    audio, video = pair
    return head.head(torch.tanh(head.layers[0](audio)) * torch.tanh(head.layers[1](video)))


def attended(layer: nn.MultiheadAttention, queries, keys):
    """Vaswani et al., 2017."""
    q, k, v = (
        (x @ weight.T + bias).unflatten(2, (layer.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (queries, keys, keys), layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True
        )
    )
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=3)
    return layer.out_proj((weights @ v).transpose(1, 2).flatten(2))


def cross_attention(head, pair):
    """Each sequence attends to the other, is added to what it was and normalised; the means are joined."""
    audio, video = (layer(x) for layer, x in zip(head.layers, pair, strict=True))
    heard = head.after[0](audio + attended(head.attention[0], audio, video)).mean(dim=1)
    seen = head.after[1](video + attended(head.attention[1], video, audio)).mean(dim=1)
    return head.head(torch.cat([heard, seen], dim=1))


def bottleneck(head, pair):
    """Nagrani et al., 2021, equations 8 and 9: four tokens, updated by both modalities and averaged."""
    clips = len(pair[0])
    streams = [
        torch.cat([first.expand(clips, -1, -1), layer(x)], dim=1)
        for first, layer, x in zip(head.first, head.layers, pair, strict=True)
    ]
    shared = head.bottlenecks.expand(clips, -1, -1)
    for block in head.blocks:
        seen = []
        for layer, stream in zip(block, streams, strict=True):
            x = torch.cat([stream, shared], dim=1)
            normal = layer.norm1(x)
            x = x + attended(layer.self_attn, normal, normal)
            seen.append(x + layer.linear2(nn.functional.gelu(layer.linear1(layer.norm2(x)))))
        streams, shared = [x[:, :-4] for x in seen], torch.stack([x[:, -4:] for x in seen]).mean(dim=0)
    ends = [last(norm(x[:, 0])) for last, norm, x in zip(head.heads, head.norms_after, streams, strict=True)]
    return torch.stack(ends).mean(dim=0)


@pytest.mark.parametrize("equation", [concat, gated, bilinear, cross_attention, bottleneck], ids=lambda e: e.__name__)
def test_a_fusion_equals_its_equation(equation):
    head = fusion(equation.__name__).eval()
    with torch.no_grad():
        for parameter in head.parameters():  # no scale of one, no shift of zero
            parameter.add_(0.3 * torch.randn_like(parameter))
        values, present = inputs(head, 4), torch.ones(4, 2, dtype=torch.bool)
        present[0, 0] = present[1, 1] = False
        pair = [norm(x) for norm, x in zip(head.norms, values, strict=True)]
        for modality, one in enumerate(pair):
            one[~present[:, modality]] = head.missing[modality]
        torch.testing.assert_close(head(values, present), equation(head, pair), atol=1e-5, rtol=1e-4)


def test_early_fusion_puts_the_training_mean_for_what_is_missing():
    """Which is zero once it is standardised."""
    head = fusion("early").eval()
    values = inputs(head, 4)
    with torch.no_grad():
        head.standardise.mean.normal_()
        head.standardise.std.uniform_(0.5, 2)
        present = torch.tensor([[False, True], [True, False], [True, True], [True, True]])
        standard = (torch.cat(values, dim=1) - head.standardise.mean) / head.standardise.std
        standard[0, :16] = 0
        standard[1, 16:] = 0
        x = head.to_second(head.first(standard))
        expected = head.last(head.to_last(head.third(head.to_third(head.second(x)))))
        torch.testing.assert_close(head(values, present), expected, atol=1e-5, rtol=1e-4)


def test_published_heads_by_value():
    """Two linear layers without a non-linearity between; the sum of weighted logits and a bias."""
    torch.manual_seed(0)
    pair, present = (
        [torch.randn(3, 128), torch.randn(3, 128)],
        torch.tensor([[True, True], [False, True], [True, False]]),
    )
    joint = fusion_head("two_heads", (1, 1), (1, 1), 0, 5, 0.0)
    seen = torch.cat([one * present[:, [i]] for i, one in enumerate(pair)], dim=1)
    hidden = seen @ joint.hidden.weight.T + joint.hidden.bias
    torch.testing.assert_close(joint(pair, present), hidden @ joint.last.weight.T + joint.last.bias)
    product = fusion_head("product", (1, 1), (1, 1), 0, 128, 0.0)
    with torch.no_grad():
        product.weights.copy_(torch.tensor([0.5, 2.0]))
        product.bias.normal_()
        expected = 0.5 * pair[0] * present[:, [0]] + 2 * pair[1] * present[:, [1]] + product.bias
        torch.testing.assert_close(product(pair, present), expected)


# ---- The counts that are published


@pytest.mark.parametrize(("width", "count"), [(512, 338_634), (1024, 600_778)])
def test_baseline_head(width, count):
    assert parameter_count(BaselineHead(width, 10)) == count


def test_baseline_fusion():
    assert parameter_count(fusion_head("early", (512, 512), (512, 512), 0, 10, 0.2)) == 600_778
    assert parameter_count(fusion_head("two_heads", (512, 512), (512, 512), 0, 10, 0.2)) == 34_186
    with torch.device("meta"):
        heads = SceneNet(systems.openl3_joint()).heads
    assert {name: parameter_count(head) for name, head in heads.items()} == {
        "audio": 338_634,
        "video": 338_634,
        "fusion": 34_186,
    }
    assert parameter_count(heads) == 711_454


def test_hou():
    """The authors count ResNet-50 with its ImageNet classifier, and the sound's embedding net not at all."""
    with torch.device("meta"):
        count = parameter_count(fusion_head("sequence", (512, 2048), (512, 2048), 256, 10, 0.0))
        count += parameter_count(timm.create_model("resnet50"))
    assert count == 28_329_010


def test_hou_tiles_a_second_to_ten_steps():
    """Six embeddings are repeated to 96, of which the convolutions make ten."""
    head = fusion("sequence").eval()
    audio, video = torch.randn(2, 6, SequenceFusion.NARROWEST), torch.randn(2, 10, 24)
    present = torch.ones(2, 2, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(head([audio, video], present), head([audio.repeat(1, 16, 1), video], present))
        assert head.convs(head.attention(audio.repeat(1, 16, 1))[:, None]).shape[2] == 10


# ---- The baseline's joint model


def toy(**changes) -> Architecture:
    return replace(own.tiny(), head="baseline", fusion="two_heads", decision=(0.0, 0.0, 1.0), **changes)


def batch(clips: int = 8) -> Clip:
    generator = torch.Generator().manual_seed(0)
    return Clip(
        0.1 * torch.randn(clips, 2, 48_000, generator=generator),
        torch.randint(0, 256, (clips, 1, 3, 64, 64), dtype=torch.uint8, generator=generator),
        torch.zeros(clips, dtype=torch.long),
        torch.ones(clips, 2, dtype=torch.bool),
        [""] * clips,
        0.0,
    )


def test_two_heads_are_frozen_and_heard_before_their_second_norm():
    torch.manual_seed(0)
    model = SceneNet(toy()).train()
    assert model.architecture.heads == ("fusion",)
    assert parameter_count(model.heads["fusion"]) == 2 * 128 * 128 + 128 + 128 * 10 + 10
    for name in ("audio", "video"):
        assert not model.heads[name].training
        assert not any(p.requires_grad for p in model.heads[name].parameters())
    clip = model.preprocess(batch())
    statistics = {name: value.clone() for name, value in model.heads.state_dict().items()}
    logits = model(clip)
    assert set(logits) == {"fusion"}
    logits["fusion"].square().sum().backward()
    assert all(p.grad is not None for p in model.heads["fusion"].parameters())
    assert all(p.grad is not None for p in model.audio.parameters())  # fine-tuned through the frozen heads
    for name, value in model.heads.state_dict().items():
        torch.testing.assert_close(value, statistics[name])
    model.eval()
    with torch.no_grad():
        inner = []
        for name, branch in model.branches(clip).items():
            head = model.heads[name]
            hidden = head.to_second(head.first(head.standardise(branch.embedding)))
            inner.append(hidden @ head.second.weight.T + head.second.bias)
        joint = model.heads["fusion"]
        expected = joint.last(joint.hidden(torch.cat(inner, dim=1)))
        torch.testing.assert_close(model(clip)["fusion"], expected)


@pytest.mark.parametrize("decision", [(0.0, 0.0, 1.0), (1.0, 1.0, 2.0)])
def test_product_of_both_heads(decision):
    torch.manual_seed(0)
    model = SceneNet(replace(own.tiny(), fusion="product", decision=decision)).train()
    assert parameter_count(model.heads["fusion"]) == 2 + 10
    assert all(p.requires_grad == (decision[0] > 0) for p in model.heads["audio"].parameters())
    clip = model.preprocess(batch())
    model(clip)["fusion"].square().sum().backward()
    assert all(p.grad is not None for p in (*model.heads["fusion"].parameters(), *model.audio.parameters()))
    model.eval()
    with torch.no_grad():
        each = [model.heads[name](branch.embedding) for name, branch in model.branches(clip).items()]
        product = each[0].softmax(dim=1) * each[1].softmax(dim=1)
        found = model(clip)["fusion"].softmax(dim=1)
        torch.testing.assert_close(found, product / product.sum(dim=1, keepdim=True), atol=1e-6, rtol=1e-4)
        clip.present[0, 0] = False
        torch.testing.assert_close(model(clip)["fusion"][0], each[1][0])


def test_heads_with_a_vote_are_trained():
    model = SceneNet(replace(toy(), decision=(1.0, 0.0, 1.0))).train()
    assert model.heads["audio"].training
    assert all(p.requires_grad for p in model.heads["audio"].parameters())
    assert not model.heads["video"].training
    assert set(model(model.preprocess(batch()))) == {"audio", "fusion"}


def test_frozen_trunks_keep_their_statistics():
    model = SceneNet(own.tiny())
    freeze(model.video)
    model.train()
    assert model.audio.training
    assert not model.video.training
    before = {name: value.clone() for name, value in model.video.state_dict().items()}
    model(model.preprocess(batch()))
    for name, value in model.video.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("kind", ["two_heads", "early", ""])
def test_embeddings_are_standardised_by_training_clips(kind):
    torch.manual_seed(0)
    decision = (1.0, 1.0, 0.0) if not kind else (0.0, 0.0, 1.0)
    model = SceneNet(replace(toy(), fusion=kind, decision=decision)).train()
    assert model.standardises_embeddings
    assert not model.embeddings_fitted
    clips = batch(32)
    model.fit([clips])
    assert model.embeddings_fitted
    assert model.training
    model.eval()
    with torch.no_grad():
        embeddings = {name: b.embedding for name, b in model.branches(model.preprocess(clips)).items()}
    heads = {name: head for name, head in model.heads.items() if isinstance(head, BaselineHead)}
    assert set(heads) == ({"fusion"} if kind == "early" else {"audio", "video"})
    for name, head in heads.items():
        values = torch.cat(list(embeddings.values()), dim=1) if kind == "early" else embeddings[name]
        standard = head.standardise(values)
        torch.testing.assert_close(standard.mean(dim=0), torch.zeros(standard.shape[1]), atol=1e-3, rtol=0)
        assert (standard.std(dim=0) < 1.01).all()
    assert not SceneNet(own.tiny()).standardises_embeddings


def test_statistics_are_of_what_is_there():
    """What a clip lacks is zeros, which say nothing of the training set."""
    torch.manual_seed(0)
    model = SceneNet(replace(toy(), fusion="early", decision=(0.0, 0.0, 1.0))).eval()
    clips = batch(8)
    clips.present[:3, 0] = clips.present[4:6, 1] = False
    clips.present[6] = False
    audio = torch.where(clips.present[:, :1, None], clips.audio, 0.0)
    video = torch.where(clips.present[:, 1, None, None, None, None], clips.video, 0)
    model.fit([clips._replace(audio=audio, video=video)])
    with torch.no_grad():
        found = model.branches(model.preprocess(clips))
    means = [found[name].embedding[clips.present[:, i]].mean(dim=0) for i, name in enumerate(("audio", "video"))]
    torch.testing.assert_close(model.heads["fusion"].standardise.mean, torch.cat(means), atol=1e-5, rtol=1e-4)
    alone = SceneNet(replace(toy(), fusion="early", decision=(0.0, 0.0, 1.0)))
    alone.fit([Clip(*(v[[3, 4, 5, 7]] if isinstance(v, torch.Tensor) else v for v in clips[:4]), [""] * 4, 0.0)])
    torch.testing.assert_close(model.frontend.mean, alone.frontend.mean)


def test_two_heads_need_the_baselines():
    with pytest.raises(AvscError, match="add model\\.head baseline"):
        replace(own.tiny(), fusion="two_heads")


def test_pointwise_head_is_a_convolution_between_norms():
    torch.manual_seed(0)
    head = PointwiseHead(6, 4).train()
    tokens = torch.randn(5, 12, 6)
    found = head(tokens)
    normal = (tokens - tokens.mean((0, 1))) / (tokens.var((0, 1), unbiased=False) + 1e-3).sqrt()
    each = normal @ head.layer.weight[:, :, 0].T
    each = (each - each.mean((0, 1))) / (each.var((0, 1), unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(found, each.mean(dim=1), atol=1e-5, rtol=1e-4)
    # Keras keeps 0.99 of the old statistics
    torch.testing.assert_close(head.norm.running_mean, 0.01 * tokens.mean((0, 1)), atol=1e-6, rtol=1e-4)


# ---- The decision


LOGITS = {
    "audio": torch.tensor([[2.0, 0.0, 1.0]]).repeat(3, 1),
    "video": torch.tensor([[0.0, 3.0, 1.0]]).repeat(3, 1),
    "fusion": torch.tensor([[1.0, 1.0, 0.0]]).repeat(3, 1),
}
WEIGHTS = {"audio": 1.0, "video": 3.0, "fusion": 4.0}
PRESENT = torch.tensor([[True, True], [False, True], [False, False]])
SHARES = ((1 / 8, 3 / 8, 4 / 8), (0, 3 / 7, 4 / 7), (0, 0, 1))
"""Of the heads that are heard, clip by clip."""


def test_the_mean_weighs_the_heads_that_are_heard():
    decided = decide(LOGITS, WEIGHTS, PRESENT, "mean")
    for clip, shares in enumerate(SHARES):
        parts = [share * z[clip].softmax(0) for share, z in zip(shares, LOGITS.values(), strict=True)]
        torch.testing.assert_close(decided[clip], sum(parts))


@pytest.mark.parametrize(("sharpness", "powers"), [(1.5, (1.5, 1.0, 1.0)), (0.5, (0.5, 0.5, 0.5))])
def test_the_product_is_of_powers_and_no_sharper_with_fewer_heads(sharpness, powers):
    """A sharpness that was fitted to two modalities makes one alone too sure: 2.557 nats in place of 1.041 without the
    toy city's audio."""
    decided = decide(LOGITS, WEIGHTS, PRESENT, "product", sharpness)
    for clip, (shares, power) in enumerate(zip(SHARES, powers, strict=True)):
        logs = sum(share * z[clip].log_softmax(0) for share, z in zip(shares, LOGITS.values(), strict=True))
        torch.testing.assert_close(decided[clip], (power * logs).softmax(0))
    one = decide({"video": LOGITS["video"]}, {"video": 1.0}, PRESENT, "product")
    torch.testing.assert_close(one, LOGITS["video"].softmax(1))


def test_where_only_heads_without_a_weight_are_left_all_are_heard():
    logits, weights = {n: LOGITS[n] for n in ("audio", "video")}, {"audio": 1.0, "video": 0.0}
    for rule in ("mean", "product"):
        decided = decide(logits, weights, torch.tensor([[False, True], [False, False], [True, False]]), rule)
        torch.testing.assert_close(decided[0], LOGITS["video"][0].softmax(0))
        torch.testing.assert_close(decided[2], LOGITS["audio"][0].softmax(0))
        assert decided[1].argmax() == 1
        torch.testing.assert_close(decided.sum(1), torch.ones(3))


def test_bottlenecks_are_all_that_modalities_exchange():
    """Without the averaged tokens, a class token would not know the other modality (Nagrani et al., 2021)."""
    head = fusion("bottleneck").eval()
    values, present = inputs(head, 2), torch.ones(2, 2, dtype=torch.bool)
    other = [values[0], values[1] + torch.randn_like(values[1])]
    ends = []
    head.norms_after[0].register_forward_hook(lambda _norm, given, _out: ends.append(given[0]))
    with torch.no_grad():
        for tokens in (values, other):
            head(tokens, present)
        apart = float((ends[0] - ends[1]).abs().max())
        for block in head.blocks:  # the video's layers say nothing new to the bottlenecks
            block[1].forward = lambda x: x
        ends.clear()
        for tokens in (values, other):
            head(tokens, present)
    assert apart > 1e-4
    assert torch.equal(*ends)


# ---- Models


@pytest.mark.parametrize("kind", ["gated", "bilinear", "cross_attention", "bottleneck", "early", "sequence"])
def test_models_train_with_every_fusion(kind):
    torch.manual_seed(0)
    arch = replace(own.tiny(), fusion=kind, frames=2, dropout=0.0, decision=(1.0, 1.0, 1.0))
    if kind == "sequence":
        with pytest.raises(AvscError, match="at least 232 values"):
            SceneNet(arch)
        arch = replace(arch, audio="audio_resnet10")
    model = quiet(SceneNet(arch)).train()
    clip = batch()
    clip = clip._replace(video=clip.video.expand(-1, 2, -1, -1, -1))
    clip.present[0, 0] = clip.present[1, 1] = False
    logits = model(model.preprocess(clip))
    assert {name: tuple(value.shape) for name, value in logits.items()} == dict.fromkeys(
        ("audio", "video", "fusion"), (8, 10)
    )
    sum((value * torch.randn_like(value)).sum() for value in logits.values()).backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not idle
    probabilities = model.decide(logits, clip.present)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(8))

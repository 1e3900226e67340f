"""Every entry of the zoo builds, runs, has the published counts and says what is published."""

from dataclasses import asdict, fields, replace

import pytest
import torch

from avsc_e2e.cli import main
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.card import model_card
from avsc_e2e.models.zoo.catalogue import architecture, describe, list_models
from avsc_e2e.models.zoo.complexity import blank_batch, complexity
from avsc_e2e.models.zoo.published import PUBLISHED, RECIPES, Published, recipe_of, short_count
from avsc_e2e.models.zoo.systems import ENSEMBLES

ENTRIES = list_models()

OF_THE_PAPERS = {
    "openl3_audio", "openl3_video", "openl3_early", "openl3_joint", "mcdonnell_usa", "resnet50_video", "zhang_ioa",
    "du_ustc", "okazaki_ldsl", "okazaki_ldsl_video", "yang_thu", "hou_ugent", "naranjo_uv_audio", "naranjo_uv",
    "ioa_joint",
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_runs(name):
    """On the meta device: shapes without numbers."""
    arch = architecture(name)
    assert arch.name == name
    assert Architecture.from_json(arch.to_json()) == arch
    with torch.device("meta"), torch.no_grad():
        model = SceneNet(arch).eval()
        clip = blank_batch(model, clips=2)
        logits = model(clip)
        assert set(logits) == set(arch.heads)
        assert all(value.shape == (2, 10) for value in logits.values())
        assert model.decide(logits, clip.present).shape == (2, 10)
    if arch.audio:
        assert clip.audio.shape[-3] == arch.planes
    description = describe(name)
    assert description.endswith((".", ")."))
    assert len(description) < 120


def test_every_system_is_there():
    assert set(ENTRIES) >= OF_THE_PAPERS
    assert set(PUBLISHED) == OF_THE_PAPERS
    for name, members in ENSEMBLES.items():
        assert {name, *members} <= set(ENTRIES)
    assert all(recipe_of(name) for name in ENTRIES if name != "tiny")
    assert {recipe_of(name) for name in ENTRIES} - {""} == set(RECIPES.values())


@pytest.mark.parametrize(
    ("name", "trainable", "with_statistics"),
    [
        ("mcdonnell_usa", 3_247_416, 3_254_468),
        ("naranjo_uv_audio", 321_930, 323_274),
        ("openl3_audio", 4_687_042 + 338_634, 4_689_860 + 338_634 + 2 * (512 + 128 + 64)),
    ],
)
def test_published_counts(name, trainable, with_statistics):
    found = complexity(architecture(name))
    assert (found.parameters, found.with_statistics) == (trainable, with_statistics)


def test_hou_counts_as_its_authors_do():
    with torch.device("meta"):
        model = SceneNet(architecture("hou_ugent"))
    unused_classifier = 2048 * 1000 + 1000
    assert parameter_count(model) - parameter_count(model.audio) + unused_classifier == 28_329_010
    clip = blank_batch(model)
    assert clip.audio.shape == (1, 6, 1, 256, 199)  # six windows of a second
    assert clip.video.shape == (1, 10, 3, 224, 224)


def test_multiply_adds():
    """ResNet-50 at 224 pixels: 4.1 G, as everybody counts; each further frame as much again."""
    one = complexity(architecture("resnet50_video")).multiply_adds
    assert one == pytest.approx(4.09e9, rel=0.005)
    three = complexity(replace(architecture("resnet50_video"), frames=3)).multiply_adds
    head = 2048 * 10
    assert three - head == 3 * (one - head)


def test_variants_differ_from_their_system_where_they_say():
    base = asdict(architecture("zhang_ioa"))
    changed = {
        name: {key for key, value in asdict(architecture(name)).items() if value != base[key]} - {"name"}
        for name in list_models("zhang_ioa_*")
    }
    assert changed == {
        "zhang_ioa_wavelet": {"features", "low", "high"},
        "zhang_ioa_bark": {"features", "bands"},
        "zhang_ioa_resnet50": {"video", "size"},
        "zhang_ioa_efficientnetv2": {"video", "size"},
        "zhang_ioa_swin": {"video", "size"},
        "zhang_ioa_jft": {"video"},
    }


def test_checkpoints_of_earlier_versions_mean_the_same():
    """A new field's default is what was before it."""
    first = {
        "name", "classes", "window", "audio", "channels", "sample_rate", "fft", "hop", "bands", "low", "high", "video",
        "frames", "size", "mean", "std", "fusion", "hidden", "dropout", "decision",
    }  # fmt: skip
    arch = Architecture()
    kept = {key: value for key, value in asdict(arch).items() if key in first}
    assert Architecture(**kept) == arch
    added = {field.name: field.default for field in fields(arch) if field.name not in first}
    assert added["features"] == "log_mel"
    assert (added["scale"], added["power"], added["log"], added["floor"]) == ("htk", 2.0, "ln", 1e-7)
    assert (added["head"], added["audio_pool"], added["video_pool"], added["deltas"]) == ("linear", "mean", "mean", 0)


def test_published_in_words():
    text = str(PUBLISHED["openl3_joint"])
    assert text == (
        "baseline of the challenge: rank 24, log loss 0.662, 77.1 % (eval 1 s), dev 1 s 0.658 / 77 %, 711 k parameters"
    )
    assert str(Published("A", protocol="dev 10 s", accuracy=75.8)) == "A: 75.8 % (dev 10 s)"
    assert [short_count(n) for n in (12, 1234, 711_454, 28.3e6, 4.09e9)] == [
        "12",
        "1.23 k",
        "711 k",
        "28.3 M",
        "4.09 G",
    ]


def test_card_stands_beside_what_is_published(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["models", "naranjo_uv_audio"])
    printed = capsys.readouterr().out
    assert printed.strip() == model_card("naranjo_uv_audio")
    for words in ("naranjo_se", "321,930 parameters", "301 M multiply-adds", "rank 32", "1.006", "323 k parameters",
                  "weights: none", "recipes/naranjo_uv.py"):  # fmt: skip
        assert words in printed
    assert "members of its ensemble: du_ustc, du_ustc_fcnn" in model_card("du_ustc", count=False)

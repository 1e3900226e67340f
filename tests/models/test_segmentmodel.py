"""The audio-visual segment model on scenes whose class lies in which sight goes with which sound, and when."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.segmentmodel import SegmentModel, join_frames

PAIRINGS = (((0, 0), (1, 1)), ((0, 1), (1, 0)), ((2, 2), (3, 3)), ((2, 3), (3, 2)))
"""For each class its events (sound, sight). Sounds alone, and sights alone, tell the first pair of classes from the
second and no more."""


def scenes(seed, count=30, length=24, width=6):
    """Recordings of noisy frames (L, width) of sound and of pictures, and their classes."""
    random = np.random.default_rng(seed)
    sounds, sights = (np.random.default_rng(key).normal(size=(4, width)) * 2 for key in (100, 200))
    audio, video, target = [], [], []
    for index in range(count * len(PAIRINGS)):
        events = PAIRINGS[index % len(PAIRINGS)]
        chosen = np.repeat(random.integers(0, 2, 1 + length // 4), 4)[random.integers(0, 4) :][:length]
        heard, seen = np.array(events)[chosen].T
        audio.append(torch.from_numpy(sounds[heard] + random.normal(size=(len(chosen), width))).float())
        video.append(torch.from_numpy(sights[seen] + random.normal(size=(len(chosen), width))).float())
        target.append(index % len(PAIRINGS))
    return audio, video, np.array(target)


def accuracy(train, test, units=8):
    (given, target), (held_out, truth) = train, test
    model = SegmentModel(given[0].shape[1], units=units, topics=12)
    model.fit(given)
    assert model.fitted
    embed = lambda recordings: torch.cat([model(one[None]) for one in recordings]).numpy()  # noqa: E731
    return LogisticRegression(C=10, max_iter=1000).fit(embed(given), target).score(embed(held_out), truth)


@pytest.fixture(scope="module")
def both():
    return scenes(1), scenes(2, count=15)


def joined(audio, video):
    return [join_frames(a[None], v[None])[0] for a, v in zip(audio, video, strict=True)]


def test_joint_units_tell_what_neither_modality_does(both):
    (audio, video, target), (audio2, video2, target2) = both
    alone = accuracy((audio, target), (audio2, target2)), accuracy((video, target), (video2, target2))
    together = accuracy((joined(audio, video), target), (joined(audio2, video2), target2))
    assert all(0.35 < one < 0.65 for one in alone), alone  # chance is 0.25, and half of it is known from either
    assert together > 0.9, (alone, together)


def test_pairs_of_units_tell_order():
    """Two classes of the same three events, in cycles of opposite directions."""
    centres = 4 * np.eye(3)
    random = np.random.default_rng(0)

    def draw(count):
        recordings, target = [], []
        for index in range(count):
            step = 1 if index % 2 else -1
            events = (random.integers(3) + step * np.arange(8)) % 3
            frames = centres[np.repeat(events, 3)] + 0.5 * random.normal(size=(24, 3))
            recordings.append(torch.from_numpy(frames).float())
            target.append(index % 2)
        return recordings, np.array(target)

    assert accuracy(draw(60), draw(40), units=3) > 0.95


def test_segmentation_finds_the_boundaries_and_smooths():
    random = np.random.default_rng(0)
    truth = np.tile(np.repeat([0, 1], 10), 3)
    draw = lambda: torch.from_numpy(2.2 * truth[:, None] + random.normal(size=(60, 1))).float()  # noqa: E731
    model = SegmentModel(1, units=2, gaussians=1, components=1, topics=2)
    model.fit([draw() for _ in range(20)])
    others = torch.stack([draw() for _ in range(20)])
    agreement = (model.transcribe(others).numpy() == truth).mean()
    frame_by_frame = ((others[..., 0].numpy() > 1.1) == truth).mean()
    assert max(agreement, 1 - agreement) > max(0.93, frame_by_frame + 0.05)


def test_viterbi_is_the_best_of_all_paths():
    torch.manual_seed(0)
    model = SegmentModel(2, units=3, gaussians=2, components=2, topics=2)
    for name in ("log_start", "log_transitions", "means", "log_weights"):
        getattr(model, name).normal_()
    model.axes.copy_(torch.eye(2))
    frames = torch.randn(1, 5, 2)
    scores = model._log_likelihood(frames)[0]
    paths = torch.cartesian_prod(*[torch.arange(3)] * 5)
    totals = model.log_start[paths[:, 0]] + scores[torch.arange(5), paths].sum(dim=1)
    totals = totals + model.log_transitions[paths[:, :-1], paths[:, 1:]].sum(dim=1)
    assert torch.equal(model.transcribe(frames)[0], paths[totals.argmax()])


def test_likelihoods_are_those_of_mixtures_of_gaussians():
    torch.manual_seed(0)
    model = SegmentModel(3, units=2, gaussians=2, components=3, topics=2)
    for name in ("means", "log_weights"):
        getattr(model, name).normal_()
    model.variances.uniform_(0.1, 3.0)
    x = torch.randn(2, 4, 3)
    each = torch.distributions.Normal(model.means, model.variances.sqrt()).log_prob(x[:, :, None, None]).sum(dim=-1)
    torch.testing.assert_close(model._log_likelihood(x), (model.log_weights + each).logsumexp(dim=-1))


def test_terms_are_sklearns():
    """Embedding of a transcript by the buffers equals scikit-learn's own tf-idf and truncated SVD."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    audio, video, _ = scenes(3, count=6)
    recordings = joined(audio, video)
    model = SegmentModel(12, units=6, topics=5)
    model.fit(recordings)
    counts = torch.cat([model.counts(model.transcribe(one[None])) for one in recordings]).double().numpy()
    terms = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    svd = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(terms)
    expected = svd.transform(terms)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = torch.cat([model(one[None]) for one in recordings]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_travels_in_a_state_and_a_batch_equals_its_clips():
    audio, video, _ = scenes(4, count=4)
    recordings = [one[:20] for one in joined(audio, video)]
    model = SegmentModel(12, units=6, topics=5)
    assert not model.fitted
    model.fit(recordings)
    again = SegmentModel(12, units=6, topics=5)
    again.load_state_dict(model.state_dict())
    batch = torch.stack(recordings)
    assert torch.equal(again(batch), model(batch))
    torch.testing.assert_close(model(batch)[:1], model(recordings[0][None]))
    assert not list(model.parameters())
    with pytest.raises(AvscError, match="6 units: 6 frames of 1 recordings are too few"):
        model.fit([recordings[0][:6]])


def test_frames_of_different_rates_are_joined():
    audio, video = torch.arange(6.0).reshape(1, 6, 1), torch.arange(3.0).reshape(1, 3, 1)
    assert join_frames(audio, video)[0].tolist() == [[0, 0], [1, 0], [2, 1], [3, 1], [4, 2], [5, 2]]


def test_it_joins_the_fusion():
    """Fitted before training like other statistics, on frozen trunks; saved, loaded, and replaced where a modality is
    missing."""
    architecture = Architecture(
        audio="audio_test",
        bands=32,
        hop=1024,
        video="test_efficientnet",
        size=64,
        frames=3,
        fusion="segments",
        hidden=16,
    )
    torch.manual_seed(0)
    model = SceneNet(architecture)
    assert not model.embeddings_fitted

    def batch():
        sound = 0.1 * torch.randn(16, 2, 48_000) * torch.rand(16, 1, 1)
        pictures = torch.randint(0, 256, (16, 3, 3, 64, 64), dtype=torch.uint8)
        present = torch.ones(16, 2, dtype=torch.bool)
        present[0, 1] = False
        return Clip(sound, pictures, torch.zeros(16, dtype=torch.int64), present, ("",) * 16, torch.zeros(16))

    segments = model.heads["fusion"].segments
    given, fit = [], segments.fit
    segments.fit = lambda frames: (given.extend(frames), fit(frames))
    model.fit([batch() for _ in range(2)])
    assert len(given) == 2 * 15  # those with both modalities
    assert model.embeddings_fitted
    clip = model.preprocess(batch())
    embedding = segments(join_frames(*(branch.tokens for branch in model.eval().branches(clip).values())))
    assert embedding.shape == (16, segments.topics)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(16))
    with torch.no_grad():  # the head reads both means over time and the segment model's embedding
        tokens = [branch.tokens for branch in model.branches(clip).values()]
        means = model.heads["fusion"].inputs([x.mean(dim=1) for x in tokens], clip.present)
        expected = model.heads["fusion"].head(torch.cat([*means, embedding], dim=1))[1:]
        torch.testing.assert_close(model(clip)["fusion"][1:], expected, atol=1e-5, rtol=1e-4)
    logits = model.train()(clip)
    sum(values.logsumexp(dim=1).sum() for values in logits.values()).backward()
    assert all(p.grad is not None for p in model.heads["fusion"].parameters())
    again = SceneNet(architecture)
    again.load_state_dict(model.state_dict())
    assert again.embeddings_fitted
    with torch.no_grad():
        assert torch.equal(again.eval()(clip)["fusion"], model.eval()(clip)["fusion"])
        changed = clip._replace(video=torch.where(clip.present[:, 1, None, None, None, None], clip.video, 9.0))
        assert torch.equal(model(changed)["fusion"][0], model(clip)["fusion"][0])

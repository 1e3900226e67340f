"""Random changes of clips: what each does, that it does it to the whole clip, and that its key alone decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avsc_e2e.clip import Clip
from avsc_e2e.randomness import keyed
from avsc_e2e.transforms import Compose
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixing, Mixup, SpecAugment
from avsc_e2e.transforms.frames import (
    CentreCrop,
    ColourJitter,
    Crops,
    HorizontalFlip,
    RandAugment,
    RandomResizedCrop,
    _rand_augment,
)
from avsc_e2e.transforms.waveform import Waveform

RATE = 16_000


def clip(frames: int = 3, height: int = 40, width: int = 56) -> Clip:
    """A clip of noise, all of whose frames are the same."""
    draw = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=draw)
    audio = torch.rand(2, RATE, generator=draw) - 0.5
    return Clip(audio, picture.repeat(frames, 1, 1, 1), torch.tensor(1), torch.tensor([True, True]), "a", 0.0)


def batch(count: int = 16, classes: int = 4) -> Clip:
    """A preprocessed batch, of whose planes, pictures and targets nothing is zero or alike."""
    draw = torch.Generator().manual_seed(1)
    return Clip(
        torch.rand(count, 2, 32, 50, generator=draw) + 1,
        torch.rand(count, 2, 3, 8, 8, generator=draw) + 1,
        torch.eye(classes)[torch.arange(count) % classes],
        torch.ones(count, 2, dtype=torch.bool),
        ["f"] * count,
        torch.zeros(count),
    )


def same(a: Clip, b: Clip) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


PER_CLIP = [
    RandomResizedCrop(size=32),
    HorizontalFlip(),
    ColourJitter(),
    Waveform(gain=6.0, noise=1.0, shift=0.2, pitch=2.0, sample_rate=RATE),
]
PER_BATCH = [SpecAugment(), Mixup(), DropModality(0.5)]


@pytest.mark.parametrize("transform", [*PER_CLIP, *PER_BATCH], ids=lambda transform: type(transform).__name__)
def test_key_decides_and_input_stays(transform):
    given = clip() if transform in PER_CLIP else batch()
    before = Clip(*(x.clone() if isinstance(x, torch.Tensor) else x for x in given))
    found = []
    for key in (5, *range(8), 5):
        np.random.rand(key)  # what was drawn before has no say
        with keyed(key):
            found.append(transform(given))
    assert same(found[0], found[-1])
    assert any(not same(found[0], other) for other in found)
    assert same(given, before)
    assert any(not same(given, other) for other in found)


@pytest.mark.parametrize(
    "transform",
    [
        HorizontalFlip(0.0),
        ColourJitter(0.0),
        Waveform(gain=0.0),
        SpecAugment(0.0, 0.0),
        Mixup(0.0),
        DropModality(0.0),
        Compose(()),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_off_is_identity(transform):
    given = batch() if type(transform) in map(type, PER_BATCH) else clip()
    assert same(transform(given), given)


def test_flip_swaps_the_ears():
    given = clip()
    flipped = HorizontalFlip(1.0)(given)
    assert torch.equal(flipped.video, given.video.flip(-1))
    assert torch.equal(flipped.audio, given.audio[[1, 0]])
    assert same(HorizontalFlip(1.0)(flipped), given)
    mono = given._replace(audio=given.audio[:1])
    assert torch.equal(HorizontalFlip(1.0)(mono).audio, mono.audio)
    kept = 0
    for key in range(200):
        with keyed(key):
            kept += same(HorizontalFlip(0.25)(given), given)
    assert 120 < kept < 180


@pytest.mark.parametrize("transform", PER_CLIP[:3], ids=lambda transform: type(transform).__name__)
def test_all_frames_change_alike(transform):
    given = clip(frames=4)
    for key in range(5):
        with keyed(key):
            video = transform(given).video
        assert video.dtype == torch.uint8
        assert video.shape[:2] == (4, 3)
        assert all(torch.equal(frame, video[0]) for frame in video)


def test_crop_shows_a_part_of_the_picture():
    """Red tells the column, green the row: a crop is a ramp over a part of both."""
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(240.0), indexing="ij")
    picture = torch.stack([columns, rows, torch.zeros(200, 240)]).to(torch.uint8)[None]
    given = clip()._replace(video=picture)
    shares = []
    for key in range(40):
        with keyed(key):
            video = RandomResizedCrop(smallest=0.25, ratio=1.5, size=64)(given).video
        assert video.shape == (1, 3, 64, 64)
        red, green = video[0, 0].float(), video[0, 1].float()
        wide, high = float(red[:, -1].mean() - red[:, 0].mean()), float(green[-1].mean() - green[0].mean())
        shares.append(wide * high / (200 * 240))
        assert 1 / 1.6 < wide / high < 1.6
    assert min(shares) > 0.2
    assert min(shares) < 0.4
    assert max(shares) > 0.8
    whole = RandomResizedCrop(smallest=1.0, size=64)(given)
    assert same(whole, CentreCrop(64)(given))
    middle = CentreCrop(64)(given).video[0].float()
    assert float(middle[0].mean()) == pytest.approx(119.5, abs=2)
    assert float(middle[1].mean()) == pytest.approx(99.5, abs=2)
    assert float(middle[0][:, -1].mean() - middle[0][:, 0].mean()) == pytest.approx(200, abs=6)


def test_centre_crop_enlarges_what_is_small():
    assert CentreCrop(96)(clip()).video.shape == (3, 3, 96, 96)


def test_colour_jitter_keeps_grey_grey_without_hue():
    grey = clip()._replace(video=torch.full((2, 3, 8, 8), 100, dtype=torch.uint8))
    levels = []
    for key in range(40):
        with keyed(key):
            video = ColourJitter(0.3, 0.0)(grey).video
        assert int(video.amax()) - int(video.amin()) <= 1
        levels.append(float(video.float().mean()))
    assert min(levels) < 85
    assert max(levels) > 115
    assert min(levels) > 100 * 0.7 - 2
    assert max(levels) < 100 * 1.3 + 2


def test_missing_pictures_stay_missing():
    blind = clip()._replace(video=torch.zeros(1, 3, 0, 0, dtype=torch.uint8), present=torch.tensor([True, False]))
    for transform in PER_CLIP[:3]:
        with keyed(1):
            assert transform(blind).video.numel() == 0
    silent = clip()._replace(audio=torch.zeros(2, RATE), present=torch.tensor([False, True]))
    with keyed(1):
        assert not PER_CLIP[3](silent).audio.any()


# ------------------------------------------------------------------------------------------------ waveform


def heard(transform: Waveform, audio: torch.Tensor, key: int) -> torch.Tensor:
    with keyed(key):
        changed = transform(clip()._replace(audio=audio)).audio
    assert changed.shape == audio.shape
    assert changed.dtype == torch.float32
    assert changed.is_contiguous()
    return changed


def tone(frequency: float = 500.0) -> torch.Tensor:
    wave = 0.2 * torch.sin(2 * torch.pi * frequency * torch.arange(RATE) / RATE)
    return torch.stack([wave, 0.5 * wave])


OFF = Waveform(gain=0.0, sample_rate=RATE)


def test_gain_is_one_factor():
    factors = []
    for key in range(40):
        ratio = heard(replace(OFF, gain=6.0), tone(), key)[:, 5] / tone()[:, 5]
        assert float(ratio[0]) == pytest.approx(float(ratio[1]), rel=1e-4)
        factors.append(20 * float(torch.log10(ratio[0])))
    assert -6.01 < min(factors) < -3
    assert 3 < max(factors) < 6.01


def test_noise_lies_below_the_sound():
    for key in range(10):
        noise = heard(replace(OFF, noise=1.0), tone(), key) - tone()
        distance = 20 * float(torch.log10(tone()[0].std() / noise[0].std()))
        assert 6 < distance < 44
    untouched = [torch.equal(heard(replace(OFF, noise=0.5), tone(), key), tone()) for key in range(40)]
    assert 8 < sum(untouched) < 32


def test_shift_moves_both_ears_alike():
    moves = set()
    spike = torch.zeros(2, RATE)
    spike[0, 8000], spike[1, 8100] = 1.0, 0.5
    for key in range(30):
        shifted = heard(replace(OFF, shift=0.25), spike, key)
        places = [int(ear.argmax()) for ear in shifted]
        assert (places[1] - places[0]) % RATE == 100
        assert float(shifted.sum()) == pytest.approx(1.5, abs=1e-3)  # wrapped round, nothing lost
        moves.add((places[0] - 8000) / RATE)
    assert min(moves) < -0.1
    assert max(moves) > 0.1
    assert max(map(abs, moves)) <= 0.251


def test_a_shift_wraps_the_end_to_the_beginning():
    """A spike 10 ms before the end, moved by up to 0.25 s either way, is never lost."""
    spike, late = torch.zeros(1, RATE), RATE - 160
    spike[0, late] = 1.0
    places = [int(heard(replace(OFF, shift=0.25), spike, key)[0].argmax()) for key in range(30)]
    assert min(places) < RATE // 2 < max(places)
    assert all(float(heard(replace(OFF, shift=0.25), spike, key).abs().max()) > 0.5 for key in range(30))


def test_pitch_moves_the_tone():
    ratios = []
    for key in range(12):
        shifted = heard(replace(OFF, pitch=2.0), tone(), key)
        spectrum = torch.fft.rfft(shifted[0, 2000:14_000] * torch.hann_window(12_000)).abs()
        ratios.append(float(spectrum.argmax()) * RATE / 12_000 / 500)
    assert 2 ** (-2.2 / 12) < min(ratios) < 0.97
    assert 1.03 < max(ratios) < 2 ** (2.2 / 12)
    assert any(abs(ratio - 1) < 0.01 for ratio in ratios)  # drawn for half of the clips


# --------------------------------------------------------------------------------------------------- batch


def test_masks_differ_by_clip_and_keep_their_bounds():
    given = batch(64)
    widths, patterns = [], set()
    for axis, transform in ((2, SpecAugment(0.2, 0.0, masks=1)), (3, SpecAugment(0.0, 0.2, masks=1))):
        for key in range(5):
            with keyed(key):
                audio = transform(given).audio
            hidden = audio == 0
            assert torch.equal(audio[~hidden], given.audio[~hidden])
            assert torch.equal(hidden.any(1), hidden.all(1))  # both planes
            lines = hidden.all(dim=5 - axis).all(dim=1)
            assert torch.equal(lines, hidden.any(dim=5 - axis).any(dim=1))  # a whole band or time frame, or nothing
            for line in lines:
                places = line.nonzero()[:, 0]
                widths.append(len(places) / line.numel())
                assert len(places) == 0 or int(places[-1] - places[0]) == len(places) - 1  # one stretch
                patterns.add((axis, tuple(places.tolist())))
    assert max(widths) <= 0.2 + 1 / 32
    assert max(widths) > 0.15
    assert len(patterns) > 100


def test_two_masks_on_each_axis():
    with keyed(3):
        audio = SpecAugment(0.1, 0.1)(batch(64)).audio
    share = float((audio == 0).float().mean())
    assert 0.1 < share < 0.25  # of four masks of 5 % each, in the mean


def test_mixup_blends_everything_by_one_weight():
    given = batch()
    for key in range(10):
        with keyed(key):
            mixed = Mixup(0.5)(given)
        for index in range(16):
            # the partner is found by the picture; then sound and target have to follow with the same weight
            fits = []
            for other in range(16):
                mine, theirs = given.video[index], given.video[other]
                difference = mine - theirs
                weight = (
                    1.0
                    if other == index
                    else float(((mixed.video[index] - theirs) * difference).sum() / (difference**2).sum())
                )
                error = float((torch.lerp(theirs, mine, weight) - mixed.video[index]).abs().max())
                fits.append((error, other, weight))
            error, other, weight = min(fits)
            assert error < 1e-4
            assert 0.5 - 1e-4 <= weight <= 1 + 1e-4
            both = given.target[:, None].expand(-1, 2, -1)
            for before, after in ((given.audio, mixed.audio), (both, mixed.target)):
                torch.testing.assert_close(
                    after[index], torch.lerp(before[other], before[index], weight), atol=1e-4, rtol=1e-4
                )
        assert torch.allclose(mixed.target.sum(2), torch.ones(16, 2))
        assert bool(mixed.present.all())


def test_mixup_of_what_is_missing():
    """Where one of the two lacks a modality, the other's is taken whole."""
    given = batch(2)
    present = torch.tensor([[True, False], [True, True]])
    given = given._replace(present=present, video=given.video * present[:, 1, None, None, None, None])
    for key in range(20):
        with keyed(key):
            mixed = Mixup(0.5)(given)
        if torch.equal(mixed.audio[0], given.audio[0]):
            continue  # each with itself
        assert torch.equal(mixed.video[0], given.video[1])
        assert torch.equal(mixed.video[1], given.video[1])
        assert bool(mixed.present.all())
        return
    pytest.fail("no key blended the two clips")


def test_drop_hides_one_of_two_and_never_the_only_one():
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]]).repeat(200, 1)
    given = batch(800)._replace(present=present)
    with keyed(0):
        after = DropModality(0.5)(given).present
    assert bool(after.any(dim=1).all())
    assert not bool((after & ~present).any())
    assert torch.equal(after[1::4], present[1::4])
    assert torch.equal(after[2::4], present[2::4])
    both = after[present.all(dim=1)]
    gone = (~both).float().mean(dim=0)
    assert float(gone[0]) == pytest.approx(0.25, abs=0.06)
    assert float(gone[1]) == pytest.approx(0.25, abs=0.06)


def test_batches_without_sound_or_pictures():
    for empty in (
        batch()._replace(audio=torch.zeros(16, 2, 0)),
        batch()._replace(video=torch.zeros(16, 1, 3, 0, 0)),
    ):
        for transform in PER_BATCH:
            with keyed(2):
                after = transform(empty)
            assert after.audio.shape == empty.audio.shape
            assert after.video.shape == empty.video.shape


# ---------------------------------------------------------------------------- values at options other than the default


def test_cutmix_is_drawn_as_often_as_it_says():
    """A cut batch holds values of the clips as they were; a blended one holds values between them."""
    given, mixing, cut = batch(), Mixing(Mixup(1.0), CutMix(1.0, 0.2)), 0
    for key in range(300):
        with keyed(key):
            found = mixing(given).video
        cut += bool(torch.isin(found, given.video).all())
    assert cut / 300 == pytest.approx(0.2, abs=0.07)


def test_cutmix_takes_the_same_share_of_frames_audio_and_target():
    given, places = batch(8, classes=8), []
    for key in range(10):
        with keyed(key):
            cut = CutMix(0.7)(given)
        assert torch.equal(cut.target[:, 0], cut.target[:, 1])  # both modalities are there: one share for both
        target = cut.target[:, 0]
        for index in range(8):
            other = int((target[index] * (1 - torch.eye(8)[index])).argmax())
            share = float(target[index, other])
            if share == 0:  # nothing was cut, or the clip was drawn for itself
                assert torch.equal(cut.video[index], given.video[index]) or bool(target[index, index] == 1)
                continue
            taken = (cut.video[index] == given.video[other]).float().mean()
            assert float(taken) == pytest.approx(share, abs=1e-6)  # of 8 x 8 pixels, exactly what the target says
            heard = (cut.audio[index] == given.audio[other]).float().mean()
            assert float(heard) == pytest.approx(share, abs=0.5 / 50 + 1e-6)  # in whole steps of time
            box = (cut.video[index] == given.video[other])[0, 0]
            time = (cut.audio[index] == given.audio[other])[0, 0]
            rows, columns, steps = (torch.where(seen)[0] for seen in (box.any(1), box.any(0), time))
            if min(8 - len(rows), 8 - len(columns), 50 - len(steps)) >= 2 and len(steps):
                free = (8 - len(rows), 8 - len(columns), 50 - len(steps))
                firsts = (int(rows[0]), int(columns[0]), int(steps[0]))
                places.append([first / room for first, room in zip(firsts, free, strict=True)])
    assert len(places) > 20
    assert np.ptp(places, axis=0).min() > 0.9  # from one side to the other
    assert np.abs(np.corrcoef(np.array(places).T) - np.eye(3)).max() < 0.5  # each drawn for itself


def test_five_crops_are_the_corners_and_the_centre():
    """The frame is a ramp: red says the row and green the column of every pixel, in steps of the resized frame."""
    size, side = 28, 32  # a square of 7/8 of the shorter side
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(2 * side), indexing="ij")
    frame = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)[None]
    five = Crops(size, 5)(clip()._replace(video=frame)).video
    starts = [(int(crop[0, 0, 0]), int(crop[1, 0, 0])) for crop in five]
    assert starts == [(0, 0), (0, 36), (4, 0), (4, 36), (2, 18)]
    assert all(
        torch.equal(crop, frame[0, :, y : y + 28, x : x + 28]) for crop, (y, x) in zip(five, starts, strict=True)
    )
    three = Crops(side, 3)(clip()._replace(video=frame)).video
    assert [(int(crop[0, 0, 0]), int(crop[1, 0, 0])) for crop in three] == [(0, 0), (0, 16), (0, 32)]
    tall = Crops(side, 3)(clip()._replace(video=frame.transpose(2, 3).contiguous())).video
    assert [int(crop[1, 0, 0]) for crop in tall] == [0, 16, 32]


@pytest.mark.parametrize("magnitude", [0.2, 1.0])
def test_operations_of_randaugment_go_as_far_as_the_magnitude(magnitude):
    some = _rand_augment(2, magnitude).transforms[0]
    assert some.n == 2
    assert some.replace is False
    found = {}
    for one in some.transforms:
        assert one.p == 1.0
        found.setdefault(type(one).__name__, []).append(one)
    assert {name: len(ones) for name, ones in found.items()} == {
        **dict.fromkeys(("AutoContrast", "CLAHE", "RandomGamma", "Sharpen", "GaussianBlur", "Posterize"), 1),
        "Affine": 3,
    }
    assert found["CLAHE"][0].clip_limit == pytest.approx((1, 1 + 4 * magnitude))
    assert found["RandomGamma"][0].gamma_limit == pytest.approx((100 - 60 * magnitude, 100 + 150 * magnitude))
    assert found["Sharpen"][0].alpha == pytest.approx((0, magnitude))
    assert found["GaussianBlur"][0].sigma_limit == pytest.approx((0.1, 0.1 + 2 * magnitude))
    assert tuple(found["Posterize"][0].num_bits) == (round(8 - 4 * magnitude), 8)
    turn, shear, shift = found["Affine"]
    assert turn.rotate == pytest.approx((-30 * magnitude, 30 * magnitude))
    assert shear.shear["x"] == pytest.approx((-20 * magnitude, 20 * magnitude))
    assert shift.translate_percent["x"] == pytest.approx((-0.3 * magnitude, 0.3 * magnitude))


def test_randaugment_makes_as_many_changes_as_it_says(monkeypatch):
    some = _rand_augment(3, 0.5).transforms[0]
    applied = []
    for one in some.transforms:
        apply = type(one).apply_with_params
        monkeypatch.setattr(
            type(one),
            "apply_with_params",
            lambda self, *args, _apply=apply, **options: applied.append(id(self)) or _apply(self, *args, **options),
        )
    for key in range(5):
        applied.clear()
        with keyed(key):
            RandAugment(3, 0.5)(clip())
        assert len(set(applied)) == 3


@pytest.mark.parametrize("strength", [0.1, 0.6])
def test_colour_jitter_goes_as_far_as_its_strength(strength):
    """Brightness, contrast and saturation change by factors within 1 +- strength: of a grey frame, the level."""
    grey = clip()._replace(video=torch.full((1, 3, 8, 8), 100, dtype=torch.uint8))
    levels = []
    for key in range(60):
        with keyed(key):
            levels.append(float(ColourJitter(strength, hue=0.0)(grey).video.float().mean()))
    assert min(levels) >= 100 * (1 - strength) - 1
    assert max(levels) <= 100 * (1 + strength) + 1
    assert max(levels) - min(levels) > 100 * strength  # half of the span at least


def test_hue_turns_as_far_as_it_says():
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200
    for hue, green in ((0.0, 0), (1 / 12, 100)):  # a twelfth of the circle leads from red half-way to yellow
        most = 0.0
        for key in range(60):
            with keyed(key):
                most = max(most, float(ColourJitter(1e-6, hue)(clip()._replace(video=red)).video[:, 1].float().mean()))
        assert most == pytest.approx(green, abs=12)


def test_a_crop_covers_at_least_its_smallest_share():
    """The frame is a ramp of columns; the span of columns in the crop tells its width."""
    columns = torch.arange(224, dtype=torch.uint8).expand(1, 3, 224, 224).contiguous()
    for smallest, ratio, narrowest in ((0.8, 1.2, (0.8 / 1.2) ** 0.5), (0.3, 1.0, 0.3**0.5)):
        spans = []
        for key in range(80):
            with keyed(key):
                found = RandomResizedCrop(smallest, ratio, size=32)(clip()._replace(video=columns)).video.float()
            spans.append(float(found.max() - found.min()) / 224)
        assert min(spans) > narrowest - 0.05
        assert min(spans) < narrowest + 0.2
        assert max(spans) > 0.9


def test_mirrored_as_often_as_it_says():
    given, flipped = clip(), 0
    for key in range(300):
        with keyed(key):
            flipped += HorizontalFlip(0.2)(given) is not given
    assert flipped / 300 == pytest.approx(0.2, abs=0.07)


def test_modalities_are_hidden_as_often_as_it_says():
    with keyed(1):
        after = DropModality(0.2)(batch(2000)).present
    assert float((~after).float().mean(dim=0).sum()) == pytest.approx(0.2, abs=0.04)


def test_masks_along_one_axis_are_as_many_as_it_says():
    """One narrow mask an axis and clip, or four: the number of hidden stretches, of which some overlap or are empty."""
    counts = {}
    for masks in (1, 4):
        with keyed(2):
            line = SpecAugment(0.0, 0.1, masks=masks)(batch(200)).audio[:, 0, 0] == 0
        edges = torch.diff(torch.nn.functional.pad(line.int(), (1, 1)), dim=1)
        counts[masks] = (edges == 1).sum(dim=1)
    assert int(counts[1].max()) == 1
    assert int(counts[4].max()) == 4


@pytest.mark.parametrize("share", [1.0, 0.875, 0.0])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (61, 43), (20, 33)])
def test_the_centre_crop_is_albumentations_own_without_it(height, width, share):
    import albumentations as a

    wanted = [
        a.SmallestMaxSize(round(32 / (share or 1)), area_for_downscale="image", p=1.0),
        a.CenterCrop(32, 32, p=1.0),
    ]
    pipeline = a.Compose(wanted if share else [a.Resize(32, 32, area_for_downscale="image", p=1.0)])
    given = clip(2, height, width)
    expected = pipeline(images=given.video.permute(0, 2, 3, 1).contiguous().numpy())["images"]
    np.testing.assert_array_equal(CentreCrop(32, share)(given).video.permute(0, 2, 3, 1).numpy(), expected)

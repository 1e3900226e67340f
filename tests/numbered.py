"""Videos whose frames bear their number and whose audio tells its time, in many codecs and containers.

Each frame shows its number as 16 large black or white blocks and their complement, so that it can be read after lossy
coding and scaling, and audio is a noise that is nowhere the same twice. All is encoded by PyAV's own libraries.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

RATE = 25
"""Frames a second."""
AUDIO_RATE = 48_000
WIDTH, HEIGHT, COLUMNS, ROWS = 320, 240, 8, 4


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """The frame of a number, below 65,536, (H, W, 3) uint8."""
    bits = [number >> shift & 1 for shift in range(16)]
    blocks = np.array(bits + [1 - bit for bit in bits], np.uint8).reshape(ROWS, COLUMNS) * 160 + 48
    frame = np.repeat(np.repeat(blocks, height // ROWS, 0), width // COLUMNS, 1).astype(np.int16)
    texture = _texture(height, width)
    return np.stack([frame + np.roll(texture, (number, 2 * number), (0, 1))] * 3, -1).astype(np.uint8)


@functools.cache
def _texture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(-24, 25, (height // 8, width // 8))
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1).astype(np.int16)


def read(frame: np.ndarray) -> int:
    """The number of a frame (H, W, 3) uint8 of any size; -1 where it shows none."""
    height, width = frame.shape[:2]
    rows = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    columns = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    reach = max(height // ROWS // 5, 1)
    blocks = np.array(
        [[frame[r - reach : r + reach + 1, c - reach : c + reach + 1].mean() for c in columns] for r in rows]
    )
    bits = (blocks.reshape(-1) > 128).astype(int)
    if (bits[:16] == bits[16:]).any():
        return -1
    return int((bits[:16] << np.arange(16)).sum())


@functools.cache
def noise(seconds: float) -> np.ndarray:
    """Mono noise (N,) float32 below 4 kHz, which every codec keeps."""
    count = round(seconds * AUDIO_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(0, 1, count))
    spectrum[round(4000 * seconds) :] = 0
    spectrum[: round(100 * seconds)] = 0
    wave = np.fft.irfft(spectrum, count)
    return (0.7 * wave / np.abs(wave).max()).astype(np.float32)


def lag(heard: np.ndarray, start: float, seconds: float) -> float:
    """Seconds by which audio (C, N) that was asked for at `start` is late, out of a recording of `noise(seconds)`;
    infinite where it is none of that noise."""
    source, heard = noise(seconds), heard.mean(0)
    size = 1 << (len(source) + len(heard)).bit_length()
    product = np.fft.rfft(source, size) * np.conj(np.fft.rfft(heard, size))
    correlation = np.fft.irfft(product, size)
    best = int(np.argmax(correlation))
    part = source[best : best + len(heard)]
    norm = np.linalg.norm(part) * np.linalg.norm(heard[: len(part)])
    if norm == 0 or correlation[best] < 0.3 * norm:
        return float("inf")
    return best / AUDIO_RATE - start


class Recipe(NamedTuple):
    """How a numbered file is made."""

    name: str
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = ()
    audio: str = "aac"
    format_options: tuple[tuple[str, str], ...] = ()
    bframes: int | None = None
    gop: int | None = None
    change: Callable[[Path, Path], None] | None = None
    """What is done with the file as encoded: (encoded, target)."""
    source: str = ""
    """Suffix of the file as encoded, where it is changed into another container."""
    times: Callable[[int], list[float]] | None = None
    """When frames are shown, instead of RATE a second."""
    tracks: int = 1
    """Video tracks; a second one shows numbers from 30,000 on."""


def encode(path: Path, count: int, recipe: Recipe) -> None:
    """Encode frames 0 ... count - 1, and noise of their length."""
    clock = 90_000
    times = recipe.times(count) if recipe.times else [index / RATE for index in range(count)]
    seconds = times[-1] + 1 / RATE
    tracks = []
    with av.open(str(path), "w", options=dict(recipe.format_options)) as container:
        for _ in range(recipe.tracks):
            video = container.add_stream(recipe.codec, rate=RATE, options=dict(recipe.options))
            video.width, video.height = WIDTH, HEIGHT
            video.pix_fmt = "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
            if recipe.codec not in ("mpeg4", "mpeg2video", "mpeg1video"):
                video.codec_context.time_base = Fraction(1, clock)
            if recipe.bframes is not None:
                video.codec_context.max_b_frames = recipe.bframes
            if recipe.gop is not None:
                video.codec_context.gop_size = recipe.gop
            video.codec_context.bit_rate = 2_000_000
            video.codec_context.thread_count = 1
            tracks.append(video)
        audio = None
        if recipe.audio:
            audio = container.add_stream(recipe.audio, rate=AUDIO_RATE, layout="mono")
        packets = []
        for number, video in enumerate(tracks):
            for index, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(draw(index + 30_000 * number), "rgb24")
                frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
                packets += video.encode(frame)
            packets += video.encode()
        if audio:
            packets += encode_audio(audio, noise(seconds)[None])
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)


def encode_audio(stream, samples: np.ndarray, layout: str = "mono") -> list:
    """Packets of samples (C, N)."""
    to_codec = av.AudioResampler(stream.codec_context.format, layout, AUDIO_RATE, stream.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.reshape(1, -1)), "flt", layout)
    frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), 0
    packets = []
    for part in (*to_codec.resample(frame), *to_codec.resample(None)):
        packets += stream.encode(part)
    return packets + stream.encode()


def remux(source: Path, target: Path, keep: Callable | None = None, shift: float = 0.0) -> None:
    """Copy packets, those that `keep` says, `shift` seconds earlier."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {}
        for stream in (*old.streams.video, *old.streams.audio):
            streams[stream.index] = new.add_stream_from_template(stream)
        for packet in old.demux():
            if packet.dts is None or (keep and not keep(packet)):
                continue
            move = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - move
            packet.dts = packet.dts - move
            packet.stream = streams[packet.stream.index]
            new.mux(packet)


def cut(at: float) -> Callable[[Path, Path], None]:
    """A stream copy from a time at which there is no key frame, as `ffmpeg -ss AT -i ... -c copy` writes it: video from
    the key frame before, audio from the time itself."""

    def change(source: Path, target: Path) -> None:
        with av.open(str(source)) as old:
            video = old.streams.video[0]
            old.seek(int(at / video.time_base), stream=video)
            first = next(packet.pts for packet in old.demux(video) if packet.pts is not None)
        begun = False

        def keep(packet) -> bool:
            nonlocal begun
            if packet.stream.type == "audio":
                return packet.pts * packet.time_base >= at
            begun = begun or packet.pts == first
            return begun

        remux(source, target, keep, at)

    return change


def without_times(source: Path, target: Path) -> None:
    """H.264 packets in an AVI, which has no place for time stamps."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        filtered = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0], video)
        index = 0
        for packet in old.demux(old.streams.video[0]):
            for part in filtered.filter(packet):
                part.dts = part.pts = index
                part.time_base = Fraction(1, RATE)
                part.stream = video
                new.mux(part)
                index += 1


def stamped_by_decoding(source: Path, target: Path) -> None:
    """Packets with the times at which they are decoded in place of those at which frames are shown, as FFmpeg copies
    an AVI, which has no others."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(packet for packet in old.demux(old.streams.video[0]) if packet.size):
            packet.pts = packet.dts = index
            packet.time_base, packet.stream = Fraction(1, RATE), video
            new.mux(packet)


def packed(source: Path, target: Path) -> None:
    """MPEG-4 as DivX and XviD pack it: a B-frame rides in the packet of the reference frame before it, and an empty
    one takes its place."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        parts = [bytes(packet) for packet in old.demux(old.streams.video[0]) if packet.size]
        kinds = [part[part.index(b"\0\0\1\xb6") + 4] >> 6 for part in parts]
        empty = b"\0\0\1\xb6" + bytes([0b01000000 | 0b00010000, 0b00000100])  # P, time 0, not coded
        tagged, index, written = False, 0, []
        while index < len(parts):
            part = parts[index]
            if not tagged:
                at = part.index(b"\0\0\1\xb6")
                part, tagged = part[:at] + b"\0\0\1\xb2DivX503b1393p" + part[at:], True
            following = []
            while index + 1 < len(parts) and kinds[index + 1] == 2:
                index += 1
                following.append(parts[index])
            index += 1
            if following:
                written += [part + following[0], *following[1:], empty]
            else:
                written.append(part)
        for number, data in enumerate(written):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, RATE), video
            packet.is_keyframe = data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 0
            new.mux(packet)


def gap(seconds: float, after: float) -> Callable[[int], list[float]]:
    """Frame times with a gap of so many seconds."""
    return lambda count: [i / RATE + (seconds if i / RATE >= after else 0.0) for i in range(count)]


def varying(count: int) -> list[float]:
    """Times of a variable frame rate, on a grid of a hundredth of a second."""
    steps = np.random.default_rng(2).choice([0.02, 0.04, 0.04, 0.1, 0.3], count)
    return [round(float(time), 2) for time in np.concatenate([[0.0], np.cumsum(steps)[:-1]])]


def x264(**options: str) -> tuple[tuple[str, str], ...]:
    return (("preset", "fast"), ("threads", "1"), *((key.replace("_", "-"), value) for key, value in options.items()))


def x265(params: str = "") -> tuple[tuple[str, str], ...]:
    # With frame threads the output of x265 does not depend on the machine, but its pools are left alive.
    return (("preset", "fast"), ("x265-params", "log-level=none:pools=1:frame-threads=1" + (params and ":" + params)))


def mpeg4(gop: int, bframes: int) -> dict:
    return {"codec": "mpeg4", "gop": gop, "bframes": bframes, "options": (("qscale", "3"),)}


RECIPES = (
    Recipe("mpeg4_b.avi", audio="pcm_s16le", **mpeg4(12, 2)),
    Recipe("mpeg4_long_b.avi", audio="libmp3lame", **mpeg4(100, 2)),
    Recipe("mpeg4_packed.avi", audio="", change=packed, source=".avi", **mpeg4(24, 1)),
    Recipe("mpeg4_b.mp4", **mpeg4(12, 2)),
    Recipe("h264.mp4", options=x264()),
    Recipe("h264.mkv", options=x264(), audio="libmp3lame"),
    Recipe("h264_open_gop.mp4", options=x264(x264_params="open-gop=1:keyint=30:bframes=3:scenecut=0")),
    Recipe("h264_intra_refresh.mp4", options=x264(x264_params="intra-refresh=1:keyint=40")),
    Recipe("h264_pyramid.mkv", options=x264(x264_params="b-pyramid=normal:bframes=7:b-adapt=0:keyint=60")),
    Recipe("h264_no_times.avi", options=x264(g="48"), audio="", change=without_times, source=".mp4"),
    Recipe("h264_long_no_times.avi", options=x264(), audio="", change=without_times, source=".mp4"),
    Recipe("h264_no_times.mkv", options=x264(g="48"), audio="", change=stamped_by_decoding, source=".mp4"),
    Recipe("mpeg4_no_times.mkv", audio="", change=stamped_by_decoding, source=".avi", **mpeg4(24, 2)),
    Recipe("h264_open_gop.ts", options=x264(x264_params="open-gop=1:keyint=30:bframes=3"), audio="mp2"),
    Recipe("h264_fragments.mp4", options=x264(g="50"), format_options=(("movflags", "frag_keyframe+empty_moov"),)),
    Recipe("h264.flv", options=x264(g="50")),
    Recipe("h264_live.mkv", options=x264(g="50"), audio="libopus", format_options=(("live", "1"),)),
    Recipe("h264_two_tracks.mp4", options=x264(g="50"), tracks=2),
    Recipe("h264_varying.mp4", options=x264(g="50"), times=varying),
    Recipe("h264_varying.mkv", options=x264(g="50"), times=varying, audio="flac"),
    Recipe("h264_cut.mp4", options=x264(), change=cut(3.3), source=".mp4"),
    Recipe("h264_cut.mkv", options=x264(), change=cut(3.3), source=".mp4"),
    Recipe("h264_cut.ts", options=x264(g="60"), change=cut(3.3), source=".ts"),
    Recipe("h264_open_gop_cut.mp4", options=x264(x264_params="open-gop=1:keyint=30:bframes=3"), change=cut(3.3),
           source=".mp4"),
    Recipe("h265.mp4", "libx265", x265()),
    Recipe("h265.mkv", "libx265", x265(), "libopus"),
    Recipe("h265_open_gop.mp4", "libx265", x265("keyint=30:open-gop=1:bframes=4")),
    Recipe("h265_open_gop.mkv", "libx265", x265("keyint=30:open-gop=1:bframes=4")),
    Recipe("h265_cut.mp4", "libx265", x265("keyint=60"), change=cut(3.3), source=".mp4"),
    Recipe("h265_cut.mkv", "libx265", x265("keyint=60"), change=cut(3.3), source=".mp4"),
    Recipe("vp8.webm", "libvpx", (("deadline", "realtime"), ("g", "60"), ("auto-alt-ref", "1"), ("lag-in-frames", "8")),
           "libopus"),
    Recipe("vp9.webm", "libvpx-vp9", (("deadline", "realtime"), ("cpu-used", "8"), ("g", "60"),
                                      ("lag-in-frames", "12")), "libopus"),
    Recipe("vp9_live.webm", "libvpx-vp9", (("deadline", "realtime"), ("cpu-used", "8"), ("g", "60")), "libopus",
           (("live", "1"),)),
    Recipe("av1.mp4", "libsvtav1", (("preset", "8"), ("g", "60"), ("svtav1-params", "lp=1"))),
    Recipe("mjpeg.avi", "mjpeg", (("qscale", "4"),), "pcm_s16le"),
    Recipe("mjpeg.mov", "mjpeg", (("qscale", "4"),), "pcm_s16le"),
    Recipe("mpeg2.mpg", "mpeg2video", (("qscale", "3"),), "mp2", gop=15, bframes=2),
    Recipe("mpeg2.ts", "mpeg2video", (("qscale", "3"),), "mp2", gop=15, bframes=2),
    Recipe("mpeg1.mpg", "mpeg1video", (("qscale", "3"),), "mp2", gop=15, bframes=2),
    Recipe("wmv.asf", "wmv2", (("qscale", "3"),), "", gop=50),
)  # fmt: skip
"""What every frame must be the right one of."""

GAP = Recipe("h264_gap.mp4", options=x264(g="25"), audio="", times=gap(3000.0, 5.0))
"""Ten seconds of content with fifty minutes of nothing between."""


def write(folder: Path, recipe: Recipe, count: int = 10 * RATE) -> Path:
    """Write a numbered file, once."""
    path = folder / recipe.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.change:
        encoded = folder / f"{path.stem}.encoded{recipe.source}"
        encode(encoded, count, recipe)
        recipe.change(encoded, path)
        encoded.unlink()
    else:
        encode(path, count, recipe)
    return path


def frames_in_order(path: Path) -> list[tuple[float, int]]:
    """Seconds on the container's clock, and number, of every frame that decoding from the first to the last packet
    gives: what a file shows, told without seeking. Where a file tells no times, frames are shown in the order in which
    they come out, at the times of its packets."""
    found, stamps = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            stamps += [packet.pts if path.suffix == ".mkv" else packet.dts] if packet.size else []
            try:
                found += [(frame.pts, read(frame.to_ndarray(format="rgb24"))) for frame in packet.decode()]
            except av.FFmpegError:
                continue  # before the first key frame
        if "no_times" in path.name or "packed" in path.name:
            return [(float(at * stream.time_base), number) for at, (_, number) in zip(stamps, found, strict=False)]
        return [(float(pts * stream.time_base), number) for pts, number in sorted(found)]


def write_wav(path: Path, samples: np.ndarray, kind: int = 3, bits: int = 32) -> None:
    """A WAV file of samples (N, C) by hand, so that it may hold what no library would write."""
    data = samples.astype("<f4" if kind == 3 else "<i2").tobytes()
    channels, size = samples.shape[1], samples.shape[1] * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, AUDIO_RATE, AUDIO_RATE * size, size, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    return [read(frame) for frame in frames]

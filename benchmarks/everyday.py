"""Numbered videos as cameras, phones, recorders and converters write them, encoded by the ffmpeg program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numbered import RATE, draw, noise, write_wav

X264 = ("-c:v", "libx264", "-preset", "fast")
AAC = ("-c:a", "aac")


class Everyday(NamedTuple):
    """A file that one or two runs of ffmpeg make of numbered frames and noise."""

    name: str
    words: tuple[str, ...]
    """Of the run that encodes."""
    again: tuple[str, ...] = ()
    """Of a second run, which copies the result of the first."""
    size: tuple[int, int] = (320, 240)
    """Width and height of the numbered frames."""
    rate: int = RATE
    change: Callable[[bytes], bytes] | None = None
    """What is done with the bytes at last."""
    audio: bool = True


def write_everyday(folder: Path, one: Everyday, seconds: int) -> Path:
    """Write a file, once. Raises subprocess.CalledProcessError."""
    path = folder / one.name
    if path.exists():
        return path
    count = seconds * one.rate
    wav = folder / "noise.wav"
    write_wav(wav, np.stack([noise(float(seconds))] * 2, 1))
    video = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*one.size), "-r", str(one.rate), "-i", "-")
    first = path.with_name("first" + path.suffix) if one.again else path
    sound = ("-i", str(wav)) if one.audio else ()
    _ffmpeg(*video, *sound, *one.words, first, frames=(draw(n, *one.size).tobytes() for n in range(count)))
    wav.unlink()
    if one.again:
        words = [str(first) if word == "FIRST" else word for word in one.again]
        _ffmpeg(*words, path)
        first.unlink()
    if one.change:
        path.write_bytes(one.change(path.read_bytes()))
    return path


def _ffmpeg(*words, frames=()) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)]
    if not frames:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return
    command.remove("-nostdin")
    run = subprocess.Popen(command, stdin=subprocess.PIPE)
    for frame in frames:
        run.stdin.write(frame)
    run.stdin.close()
    if run.wait():
        raise subprocess.CalledProcessError(run.returncode, command)


def _unknown_second_audio(data: bytes) -> bytes:
    """The last audio track of an MOV as one of a codec that FFmpeg does not know, like the spatial audio of iPhones."""
    at = data.rindex(b"trak")
    return data[:at] + data[at:].replace(b"mp4a", b"apac").replace(b"esds", b"dapa")


EVERYDAY = (
    # cuts and starts
    Everyday("ff_cut.mp4", (*X264, *AAC), ("-ss", "3.3", "-i", "FIRST", "-c", "copy")),
    Everyday("ff_cut.mov", (*X264, *AAC), ("-ss", "3.3", "-i", "FIRST", "-c", "copy")),
    Everyday("ff_cut.mkv", (*X264, *AAC), ("-ss", "3.3", "-i", "FIRST", "-c", "copy")),
    Everyday("ff_cut_h265.mp4", ("-c:v", "libx265", "-preset", "fast", "-x265-params", "log-level=none", *AAC),
             ("-ss", "2", "-t", "6", "-i", "FIRST", "-c", "copy")),
    Everyday("starts_at_5.mp4", (*X264, *AAC), ("-i", "FIRST", "-c", "copy", "-output_ts_offset", "5")),
    Everyday("starts_at_5.mkv", (*X264, *AAC), ("-i", "FIRST", "-c", "copy", "-output_ts_offset", "5")),
    Everyday("starts_below_0.mp4", (*X264, *AAC),
             ("-itsoffset", "-0.7", "-i", "FIRST", "-c", "copy", "-avoid_negative_ts", "disabled")),
    Everyday("late_video.mp4", (*X264, *AAC),
             ("-itsoffset", "1.5", "-i", "FIRST", "-i", "FIRST", "-map", "0:v", "-map", "1:a", "-c", "copy")),
    Everyday("clock_wraps.ts", (*X264, "-g", "50", "-c:a", "mp2"),
             ("-i", "FIRST", "-c", "copy", "-output_ts_offset", "95440", "-muxdelay", "0")),
    Everyday("camera.m2ts", (*X264, "-g", "25", "-c:a", "ac3")),
    # cameras and phones
    Everyday("gopro.mp4", (*X264, *AAC, "-timecode", "01:00:00:00", "-g", "12", "-bf", "0")),
    Everyday("spatial_audio.mov", (*X264, "-map", "0:v", "-map", "1:a", "-map", "1:a", *AAC),
             change=_unknown_second_audio),
    Everyday("upright_odd.mp4", ("-vf", "crop=327:247,transpose=2", *X264, "-pix_fmt", "yuv444p", *AAC),
             ("-i", "FIRST", "-c", "copy", "-metadata:s:v:0", "rotate=270"), size=(328, 248)),
    Everyday("hdr10.mov", ("-c:v", "libx265", "-preset", "fast", "-x265-params", "log-level=none", "-pix_fmt",
                           "yuv420p10le", "-tag:v", "hvc1", *AAC)),
    Everyday("dv.dv", ("-target", "pal-dv"), size=(720, 576)),
    Everyday("dv.avi", ("-target", "pal-dv", "-f", "avi"), size=(720, 576)),
    Everyday("interlaced.ts", ("-c:v", "mpeg2video", "-q:v", "3", "-flags", "+ildct+ilme", "-bf", "2", "-c:a", "mp2")),
    Everyday("interlaced.mts", (*X264, "-flags", "+ildct+ilme", "-c:a", "ac3", "-f", "mpegts")),
    Everyday("dvd.vob", ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-c:a", "ac3", "-f", "vob")),
    Everyday("phone.3gp", ("-c:v", "h263", "-s", "352x288", "-q:v", "3", "-c:a", "aac"), size=(352, 288)),
    Everyday("broadcast.mxf", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-c:a", "pcm_s16le", "-ar", "48000"),
             size=(320, 240)),
    # screens and the web
    Everyday("slides_1fps.mp4", (*X264, *AAC), rate=1),
    Everyday("slides_1fps.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
             rate=1),
    Everyday("screen_60.mkv", (*X264, "-tune", "zerolatency", "-pix_fmt", "yuv444p", "-c:a", "flac"), rate=60),
    Everyday("rate_29.97.mp4", ("-r", "30000/1001", *X264, *AAC), rate=30),
    Everyday("vp9_alt_ref.webm", ("-c:v", "libvpx-vp9", "-b:v", "600k", "-cpu-used", "5", "-auto-alt-ref", "1",
                                  "-lag-in-frames", "25", "-c:a", "libopus")),
    Everyday("vp8_alt_ref.webm", ("-c:v", "libvpx", "-b:v", "600k", "-cpu-used", "5", "-auto-alt-ref", "1",
                                  "-lag-in-frames", "16", "-c:a", "libvorbis")),
    Everyday("av1.webm", ("-c:v", "libsvtav1", "-preset", "10", "-c:a", "libopus")),
    Everyday("av1_fragments.mp4", ("-c:v", "libsvtav1", "-preset", "10", "-g", "50", *AAC, "-movflags",
                                   "frag_keyframe+empty_moov")),
    Everyday("dash.mp4", (*X264, "-g", "50", *AAC, "-movflags", "dash+delay_moov+frag_keyframe")),
    Everyday("faststart.mp4", (*X264, *AAC, "-movflags", "faststart")),
    Everyday("theora.ogv", ("-c:v", "libtheora", "-q:v", "7", "-g", "64", "-c:a", "libvorbis")),
    Everyday("animation.gif", (), audio=False),
    # depths, alpha and archives
    Everyday("h264_444_10.mkv", (*X264, "-pix_fmt", "yuv444p10le", "-c:a", "flac")),
    Everyday("prores_alpha.mov", ("-c:v", "prores_ks", "-profile:v", "4", "-pix_fmt", "yuva444p10le", "-c:a",
                                  "pcm_s24le")),
    Everyday("vp9_alpha.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt",
                                "yuva420p", "-c:a", "libopus")),
    Everyday("animation_alpha.mov", ("-c:v", "qtrle", "-pix_fmt", "argb", "-c:a", "pcm_s16le")),
    Everyday("ffv1.mkv", ("-c:v", "ffv1", "-c:a", "flac")),
    Everyday("huffyuv.avi", ("-c:v", "huffyuv", "-c:a", "pcm_s16le")),
    Everyday("divx3.avi", ("-c:v", "msmpeg4", "-q:v", "3", "-c:a", "libmp3lame")),
    Everyday("xvid_packed.avi", ("-c:v", "libxvid", "-q:v", "3", "-bf", "2", "-c:a", "libmp3lame")),
    Everyday("old.wmv", ("-c:v", "wmv2", "-q:v", "3", "-c:a", "wmav2")),
    Everyday("old.flv", ("-c:v", "flv1", "-q:v", "3", "-c:a", "libmp3lame", "-ar", "44100")),
    Everyday("h265.ts", ("-c:v", "libx265", "-preset", "fast", "-x265-params", "log-level=none:keyint=50", "-c:a",
                         "aac")),
    Everyday("raw.avi", ("-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le")),
)  # fmt: skip

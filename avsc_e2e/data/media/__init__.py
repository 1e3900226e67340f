"""Reading frames and audio from files: images with PIL, WAV and FLAC with soundfile, all other files with PyAV.

Times are in seconds from the start of the recording, which is the start of its earliest stream. So the same `start`
holds for video and audio. `read_frames` and `read_audio` read any part of a recording; `decode_windows` and
`decode_frames` read all of it in one pass.
"""

from avsc_e2e.data.media.audio import audio_blocks, cut_window, mix_channels, read_audio
from avsc_e2e.data.media.frames import Decoder, read_frames
from avsc_e2e.data.media.header import Media, probe
from avsc_e2e.data.media.live import LiveWindows
from avsc_e2e.data.media.source import TOLERANCE, give_up, known_codecs
from avsc_e2e.data.media.windows import MediaWindow, decode_frames, decode_windows, window_starts

__all__ = [
    "TOLERANCE",
    "Decoder",
    "LiveWindows",
    "Media",
    "MediaWindow",
    "audio_blocks",
    "cut_window",
    "decode_frames",
    "decode_windows",
    "give_up",
    "known_codecs",
    "mix_channels",
    "probe",
    "read_audio",
    "read_frames",
    "window_starts",
]

"""What is read: files to damage, and files that an attacker would write."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from fuzzer import ABSOLUTE

PAYLOAD = "../avsc_payload"
"""A file that payloads make: outside the folder that a case may write to, in which its reader runs."""
CALIBRATION = {"calibration": "vector", "classes": ["a", "b"], "weights": [[1.0, 1.0]], "bias": [0.0, 0.0]}


def seeds(folder: Path, media: Sequence[Path] = ()) -> dict[str, list[Path]]:
    """Files to damage, by reader; a file may serve several."""
    import torch
    from safetensors.torch import save_file

    def write(name: str, text: str | bytes) -> Path:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / name

    output = write(
        "output.csv", "filename\tscene_label\tpark\ttram\n" + "".join(f"{n}.wav\tpark\t0.7\t0.3\n" for n in range(9))
    )
    reference = write("reference.csv", "filename\tscene_label\n" + "".join(f"{n}.wav\tpark\n" for n in range(9)))
    listing = write(
        "meta.csv",
        "filename_audio\tfilename_video\tscene_label\tidentifier\n"
        + "".join(f"audio/park-lyon-{n}-1.wav\tvideo/park-lyon-{n}-1.mp4\tpark\tlyon-{n}\n" for n in range(9)),
    )
    groups = write("groups.csv", "file,group\n" + "".join(f"a/x{n},g{n % 3}\n" for n in range(9)))
    meta = write(
        "a.meta.yaml", "submission:\n  label: A_B_task1b_1\n  name: x\n  authors:\n    - lastname: A\nsystem: {}\n"
    )
    people = write(
        "people.toml",
        '[[author]]\nlastname = "Doe"\nfirstname = "J"\nemail = "a@b.c"\n[author.affiliation]\ninstitute = "I"\n',
    )
    calibration = write("calibration.json", json.dumps(CALIBRATION))
    record = (
        '{"row":{"file":"a/x","audio":"a/x.wav","video":"","scene":"a","location":"","city":"","part":""},"source":{},'
        '"bad":{},"duration":{"audio":1.0},"audio":[512,100,1,8000,16],"video":null,"next":3072,"checksum":1}\n'
    )
    manifest = (
        '{"format": 1, "layout": "folder", "root": "/x", "options": {"short_side": 64, "rate": 5.0, "quality": 90}, '
        '"shards": [["a/x"]]}'
    )
    archive = write("x.zip", _zip({"TAU/audio/x.wav": b"text " * 500, "TAU/README.md": b"text " * 500}))
    package = write("a.zip", _zip({"task1/A_B_task1b_1/A_B_task1b_1.output.csv": output.read_bytes(),
                                   "task1/A_B_task1b_1/A_B_task1b_1.meta.yaml": meta.read_bytes()}))  # fmt: skip
    save_file({"w": torch.zeros(4, 4)}, folder / "model.safetensors", {"architecture": "{}"})
    torch.save({"w": torch.zeros(4, 4)}, folder / "model.pth")
    found = {
        "output": [output], "scored": [output], "reference": [reference], "listing": [listing], "tau": [listing],
        "groups": [groups], "people": [people], "calibration": [calibration], "yaml": [meta], "package": [package],
        "store": [write("index.jsonl", record), write("store.json", manifest)], "archive": [archive],
        "checkpoint": [folder / "model.safetensors"], "weights": [folder / "model.safetensors", folder / "model.pth"],
    }  # fmt: skip
    if media:
        found |= {reader: list(media) for reader in ("media", "decode", "predict", "prepare", "check")}
    return found


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


# ---- files of an attacker


class Malice:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self):
        return (os.system, (f"touch {PAYLOAD}",))


def hostile(folder: Path, port: int, bomb: int = 100 << 20) -> dict[str, list[Path]]:
    """Files by reader, each with a payload that makes a file outside or calls `port` of this machine, or with a header
    that asks for more than there is; zip bombs have files of `bomb` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/x"
    secret = folder / "secret.wav"
    secret.write_bytes(b"RIFF")
    found: dict[str, list[Path]] = {}

    def add(readers: Iterable[str], name: str, data: str | bytes) -> None:
        path = folder / f"{len(list(folder.iterdir()))}" / name
        path.parent.mkdir()
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        for reader in readers:
            found.setdefault(reader, []).append(path)

    media = ("media", "decode", "predict", "prepare", "check")
    for name in ("x.mp4", "x.wav", "x.avi", "x.ts", "x.gif", "x.mkv"):
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}.ts\n#EXT-X-ENDLIST\n",
            f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nconcat:{url}|file:///etc/passwd\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{url}'\nfile '{secret}'\n",
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
            f"a=control:rtsp://127.0.0.1:{port}/x\n",
            f"[Playlist]\nRef1={url}\n", f'<ASX><ENTRY><REF HREF="{url}"/></ENTRY></ASX>', f"RTSPtext{url}",
            f';FFMETADATA1\ntitle={url}\n', f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
            f"push graphic-context\nimage over 0,0 0,0 '{url}'\npop graphic-context\n",
        ):  # fmt: skip
            add(media, name, text)
    reference = _atom(b"dref", struct.pack(">II", 0, 1) + _atom(b"url ", bytes(4) + f"{url}\0".encode()))
    track = _atom(b"trak", _atom(b"mdia", _atom(b"minf", _atom(b"dinf", reference))))
    add(media, "x.mov", _atom(b"ftyp", b"qt  " + bytes(4)) + _atom(b"moov", track))
    add(media, "x.mov", _atom(b"ftyp", b"qt  " + bytes(4)) + _atom(b"moov", _atom(b"rmra", _atom(b"rmda", _atom(
        b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url.encode())))))  # fmt: skip
    for kind in range(5):
        add(("checkpoint", "weights"), "model.safetensors", pickle.dumps(Malice(), protocol=kind))
        add(("weights",), ("model.pth", "model.pt", "model.tar", "model.bin", "model.ckpt")[kind],
            pickle.dumps({"state_dict": Malice()}, protocol=kind))  # fmt: skip
    add(("weights",), "zipped.pth", _zip({"archive/data.pkl": pickle.dumps(Malice(), protocol=2),
                                          "archive/version": b"3\n"}, zipfile.ZIP_STORED))  # fmt: skip
    big = 1 << 40
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for change in (
        {"shape": [big], "data_offsets": [0, 4 * big]}, {"shape": [1 << 62, 4]}, {"shape": [-4]}, {"shape": "x"},
        {"data_offsets": [16, 0]}, {"dtype": "../x"}, {"data_offsets": [0]}, {"data_offsets": [-16, 0]},
    ):  # fmt: skip
        add(("checkpoint", "weights"), "model.safetensors", _safetensors({"w": tensor | change}, bytes(16)))
    add(("checkpoint", "weights"), "model.safetensors", _safetensors({"w": tensor, "v": tensor}, bytes(16)))
    for header in ([], {}, {"__metadata__": {"architecture": 3}}, {"__metadata__": {"architecture": "["}}):
        add(("checkpoint", "weights"), "model.safetensors", _safetensors(header))
    for text in (
        "[]",
        "3",
        "null",
        "[" * 100_000,
        '{"members": [], "heads": []}',
        json.dumps({"members": [[big]] * 9}),
    ):
        about = {"architecture": text, "ensemble": text, "equal": text}
        for named in ({"architecture": text}, about, about | {"architecture": "{}"}):
            add(("checkpoint",), "model.safetensors", _safetensors({"__metadata__": named}))
    for fields in (
        {"video": f"hf-hub:evil/{port}"}, {"audio": f"hf_hub:evil/{port}"}, {"video": f"local-dir:{folder}"},
        {"video": url}, {"video": "../../etc/passwd"}, {"hidden": big}, {"size": 1 << 20}, {"frames": 1 << 30},
        {"window": 1e9}, {"fft": big}, {"bands": 1 << 30}, {"sample_rate": big}, {"hop": 1}, {"classes": "ab"},
        {"classes": [f"c{n}" for n in range(200_000)]}, {"window": "x"}, {"decision": [1]}, {"mean": ["a", "b", "c"]},
        {"audio": 3}, {"text_width": big}, {"window": float("nan")}, {"win_length": -big}, {"pad": big},
        {"audio_window": 1e-9, "audio_hop": 1e-9}, {"features": "constant_q", "low": 1e-9}, {"power": "x"},
    ):  # fmt: skip
        plain = {"audio": "audio_test", "video": "test_efficientnet", "size": 64} | fields
        for about in ({"architecture": json.dumps(plain)},):
            add(("checkpoint",), "model.safetensors", _safetensors({"__metadata__": about}))
    for length in (0, 1 << 63, (1 << 64) - 1, 100_000_001):
        add(("checkpoint", "weights"), "model.safetensors", struct.pack("<Q", length) + b"{}")
    add(("checkpoint", "weights"), "model.safetensors", struct.pack("<Q", 200_000) + b"[" * 200_000)
    for name in ("../avsc_payload", str(ABSOLUTE), "a/../../avsc_payload", "a\\..\\..\\avsc_payload", "C:\\x",
                 "a/\0b", "a//b", "./x", "avsc_payload\n"):  # fmt: skip
        add(("archive", "package"), "x.zip", _zip({"README.md": b"x", name: b"x" * 100}))
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(link, "..")
        archive.writestr("link/avsc_payload", "x")
    add(("archive", "package"), "x.zip", packed.getvalue())
    zeros = bytes(bomb)
    packed_zeros = _zip({"zeros.wav": zeros})
    for data in (packed_zeros, _zip({f"{n}.wav": zeros for n in range(8)}), _zip({"a.zip": packed_zeros}),
                 packed_zeros.replace(struct.pack("<I", len(zeros)), struct.pack("<I", 100)),
                 _zip({f"{n}": b"" for n in range(2_000)}, zipfile.ZIP_STORED)):  # fmt: skip
        add(("archive", "package"), "x.zip", data)
    add(("archive", "package"), "x.zip", _zip({"x": b"y"}) + _zip({"x": b"z"}))
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
    )
    for text in (f"!!python/object/apply:os.system ['touch {PAYLOAD}']", laughs, "a: &a [*a]", "{" * 20_000,
                 "- " * 20_000, "? [[[[" * 5000, "&a a: *a", "!!binary x", "---\n---\n", "a: !include x"):  # fmt: skip
        add(("yaml",), "a.meta.yaml", text)
        add(("package",), "x.zip", _zip({"task1/A_B_task1b_1/A_B_task1b_1.meta.yaml": text.encode()}))
    add(("people",), "people.toml", "[" * 30_000)
    add(("calibration",), "calibration.json", "[" * 300_000)
    add(("store",), "store.json", "[" * 300_000)
    add(("store",), "index.jsonl", "[" * 300_000)
    for place in ("../x.wav", f"{secret}", url, "concat:a|b", "file:///etc/passwd", "audio/../../x.wav", "pipe:0", "-",
                  "subfile,,start,0,end,9,,:/etc/passwd", "lavfi:testsrc", "~/x.wav", "audio//etc/passwd.wav",
                  "audio/park-lyon-1-1.wav\0.txt", "\\\\host\\x.wav", "data:audio/wav;base64,UklGRg=="):  # fmt: skip
        lines = f"filename_audio\tfilename_video\tscene_label\tidentifier\n{place}\t{place}\tpark\tlyon-1\n"
        add(("listing", "tau"), "meta.csv", lines)
        row = {"file": "a/x", "audio": place, "video": place, "scene": "a", "location": "", "city": "", "part": ""}
        record = {
            "row": row,
            "source": {place: [1, 1]},
            "bad": {},
            "duration": {"audio": 1.0},
            "next": 3072,
            "checksum": 1,
        }
        for samples, offset in ((big, 0), (1000, 1 << 60), (1000, 1024)):
            video = {"end": 1.0, "offsets": [offset], "sizes": [9]}
            record |= {"next": 3072, "audio": [512, samples, 1, 8000, 16], "video": video}
            add(("store",), "index.jsonl", json.dumps(record) + "\n")
    for mark in (
        "<script>avsc(1)</script>",
        "<img src=avsc onerror=avsc>",
        '"><b>avsc</b>',
        "javascript:avsc",
        "{{7*7}}",
    ):
        text = f"filename\tscene_label\t{mark}\ttram\n{mark}.wav\t{mark}\t0.7\t0.3\nb.wav\ttram\t0.2\t0.8\n"
        add(("output", "scored"), "output.csv", text)
        add(("names",), "names.json", json.dumps([mark, f"x{mark}", "b"]))
    return found


def _atom(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data

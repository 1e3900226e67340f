"""Check of every byte of a store against the checksums from when it was written."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from avsc_e2e.clip import Row
from avsc_e2e.data.check.findings import Check, Problem, Progress, count_classes
from avsc_e2e.data.store.layout import damage, read_index, read_manifest, shard_file, verify


def check_store(path: Path, progress: Progress | None) -> Check:
    """Compare every byte of a store with the checksums from when it was written."""
    manifest = read_manifest(path)
    mend = f"run `avsc data prepare {manifest['root']} {path}` again"
    problems: list[Problem] = []
    clips: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    rows: list[Row] = []
    size = 0
    for number, files in enumerate(manifest["shards"]):
        shard = shard_file(path, number)
        if not shard.is_file():
            problems.append(Problem("missing", str(shard), f"is not finished: {mend}"))
            continue
        records = read_index(shard)
        size += shard.stat().st_size
        reason = damage(shard.stat().st_size, records, files)
        if reason:
            problems.append(Problem("unreadable", str(shard), f"{reason}: {mend}"))
        problems += [Problem("unreadable", str(shard), f"{file}: {why}: {mend}") for file, why in verify(shard)]
        for record in records:
            row = record["row"]
            rows.append(Row(row["file"], scene=row.get("scene", ""), location=row.get("location", "")))
            clips[row["file"]] += 1
            seconds[rows[-1].scene] += min(record["duration"].values(), default=0.0)
            for modality, why in record["bad"].items():
                problems.append(Problem("unreadable", row["file"], f"its {modality} could not be decoded ({why})"))
        if progress:
            progress(number + 1, len(manifest["shards"]))
    problems += [Problem("extra", file, f"is {n} times in the store: {mend}") for file, n in clips.items() if n > 1]
    about = f"store of the {manifest['layout']} layout, compared with its checksums"
    counts = count_classes({"all": rows}, seconds, None)
    return Check(str(path), about, ("all",), counts, tuple(problems), (), len(manifest["shards"]), size)

"""A trace of some training steps, and a table of the time that each part takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

RANGES = (
    "wait for data", "front end", "teachers", "batch transforms", "forward", "losses", "backward", "optimiser",
)  # fmt: skip
"""Parts of a step, in order."""
SKIPPED, WARM, STEPS = 1, 1, 6
"""Numbers of steps that are skipped, that warm the profiler up, and that are traced."""


class StepProfile:
    """Profiles some early steps of a run and writes trace.json (for Perfetto or chrome://tracing) and where.txt to a
    folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.text = f"profile: no step was traced; it takes more than {SKIPPED + WARM} steps"
        self._seen = 0
        self._inside: record_function | None = None
        self._profile: profile | None = None

    def start(self) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        plan = schedule(wait=SKIPPED, warmup=WARM, active=STEPS, repeat=1)
        # There is only one cycle; without `acc_events` torch warns that earlier ones are dropped.
        self._profile = profile(activities=activities, schedule=plan, on_trace_ready=self._write, acc_events=True)
        self._profile.start()

    def step(self) -> None:
        if self._profile:
            self._seen += 1
            self._profile.step()

    def enter(self, part: str) -> None:
        if self._profile:
            self.leave()
            self._inside = record_function(part)
            self._inside.__enter__()

    def leave(self) -> None:
        if self._inside:
            self._inside.__exit__(None, None, None)
            self._inside = None

    def stop(self) -> str:
        """End the profile and return the table."""
        self.leave()
        if self._profile:
            self._profile.stop()
            self._profile = None
        return self.text

    def _write(self, done: profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        done.export_chrome_trace(str(self.folder / "trace.json"))
        averages = done.key_averages()
        # On a GPU, torch counts the kernels of a range twice: under the range on the host, and as an annotation.
        times = {
            e.key: (e.cpu_time_total, e.device_time_total) for e in averages if e.key in RANGES and e.cpu_time_total
        }
        on_gpu = any(device for _, device in times.values())
        total = sum(device if on_gpu else host for host, device in times.values()) or 1.0
        steps = max(min(self._seen - SKIPPED - WARM, STEPS), 1)  # fewer steps in a short run
        lines = [f"{'part of a step':<18}{'host ms':>10}{'GPU ms':>10}{'share':>9}"]
        for name in RANGES:
            if name in times:
                host, device = (value / 1e3 / steps for value in times[name])
                share = 1e3 * steps * (device if on_gpu else host) / total
                lines.append(f"{name:<18}{host:>10.2f}{device:>10.2f}{100 * share:>7.1f} %")
        sort = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        self.text = "\n".join(lines) + f"\nprofile: {self.folder / 'trace.json'}"
        table = averages.table(sort_by=sort, row_limit=20, max_name_column_width=60)
        (self.folder / "where.txt").write_text("\n".join(lines) + f"\n\n{table}\n")

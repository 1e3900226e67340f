"""Scores under both protocols of the challenge: of one-second segments, and of the clips that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avsc_e2e.clip import Row
from avsc_e2e.outputs.metrics import Scores, score
from avsc_e2e.outputs.output import SystemOutput, to_clips
from avsc_e2e.outputs.reference import targets_of


def scores_of(
    output: SystemOutput, reference: Mapping[str, str], rows: Sequence[Row], window: float = 1.0
) -> dict[str, Scores]:
    """Protocol -> scores, for the segments and for the clips that they belong to."""
    clips = to_clips(output)
    durations = {round(row.duration, 1) for row in rows}
    whole = f"{durations.pop():g} s clips" if len(durations) == 1 else "whole clips"
    return {
        protocol: score(part.probabilities, targets_of(part, dict(reference)), part.classes, protocol)
        for protocol, part in ((f"{window:g} s segments", output), (whole, clips))
    }


def score_table(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """System -> protocol -> scores as text, macro log loss and macro accuracy."""
    protocols = list(dict.fromkeys(protocol for of_system in scores.values() for protocol in of_system))
    width = max(len(name) for name in scores)
    lines = [" " * width + "".join(f"   {protocol:^20}" for protocol in protocols)]
    lines.append(" " * width + "   log loss  accuracy  " * len(protocols))
    for name, of_system in scores.items():
        cells = "".join(f"   {s.log_loss:8.3f}  {100 * s.accuracy:6.1f} % " for s in map(of_system.get, protocols) if s)
        lines.append(f"{name:<{width}}{cells}".rstrip())
    return "\n".join(lines)

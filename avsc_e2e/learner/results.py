"""What a run leaves in its folder: checkpoint, ladder, report, and the figures of the test part."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.durable import replacing
from avsc_e2e.evaluation import REFERENCE, SEGMENTS
from avsc_e2e.inference import evaluation_dataset, predict_rows
from avsc_e2e.learner.embeddings import Segments, read_arrays, segments_of, write_arrays
from avsc_e2e.learner.ladder import Ladder
from avsc_e2e.learner.look import Look
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.weights.checkpoint import load_model, read_notes, save_model
from avsc_e2e.outputs.output import SystemOutput, to_clips, write_output
from avsc_e2e.outputs.protocols import scores_of
from avsc_e2e.report.page import write_report
from avsc_e2e.report.report import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """What a run has left."""

    checkpoint: Path
    report: Path
    ladder: Ladder
    test: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Protocol -> macro log loss and accuracy on the test part, where there is one."""


@dataclass
class Results:
    """The folder of a run."""

    folder: Path
    data: str
    """What was asked to be learnt from, as the report names it."""
    command: str
    seen: Look | None = None
    """The data set as far as it is decoded."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def look(self) -> Look:
        """The data set as far as it is decoded, once something is."""
        assert self.seen is not None
        return self.seen

    @property
    def corpus(self) -> Corpus:
        return self.look.corpus

    def recall(self, segments: Segments, unfinished: str) -> tuple[Ensemble, Ladder, np.ndarray] | None:
        """Model, ladder and log probabilities out of fold (N, K) on these segments, nan where there are none, that an
        earlier run left; None where it left none, or a rung whose name begins with `unfinished`."""
        there, place = read_arrays(self.folder / "decision.npz", segments)
        rung = str(there.get("rung", unfinished))
        known = self.checkpoint.is_file() and not rung.startswith(unfinished)
        if not known or read_notes(self.checkpoint).get("rung") != rung:
            return None
        logs = np.where(place[:, None] >= 0, there["logs"][place], np.nan)
        return load_model(self.checkpoint), Ladder.read(self.folder / "ladder.csv"), logs

    def save(self, model: Ensemble, ladder: Ladder, segments: Segments, logs: np.ndarray) -> None:
        """Leave a checkpoint, with its log probabilities out of fold (N, K), nan where it was not judged."""
        notes = {"ladder": json.dumps([vars(rung) for rung in ladder.rungs]), "rung": ladder.chosen}
        # First what tells how good the checkpoint is: without it, --resume would replace it unseen.
        write_arrays(self.folder / "decision.npz", segments, {"logs": logs, "rung": np.array(ladder.chosen)})
        save_model(model, self.checkpoint, notes)
        ladder.write(self.folder / "ladder.csv")
        judged = ~np.isnan(logs[:, 0])
        rows = [segment for segment, kept in zip(segments.segments, judged, strict=True) if kept]
        output = SystemOutput(
            tuple(segment.row.file for segment in rows),
            self.corpus.classes,
            torch.from_numpy(logs[judged]).softmax(dim=1).numpy(),
            np.array([segment.start for segment in rows]),
        )
        note = "Figures of the training part, out of fold: each recording is judged by models without its source."
        self.report(output, self.corpus.train, note, ladder, segments)

    def report(
        self, decision: SystemOutput, rows: Sequence[Row], note: str, ladder: Ladder, segments: Segments
    ) -> Path:
        """Write the page, of the training or of the test part."""
        page = Report(
            title="avsc train",
            outputs={"decision": decision},
            reference={row.file: row.scene for row in rows},
            headline="decision",
            note=note,
            rows=rows,
            train_rows=self.corpus.train if rows is self.corpus.test else (),
            data=Path(self.data).name,
            command=self.command,
            ladder=ladder.report(len(self.corpus.train), len(np.unique(segments.groups))),
        )
        return write_report(page, self.folder / "report.html")

    def finish(
        self,
        model: Ensemble,
        ladder: Ladder,
        segments: Segments,
        most: float,
        progress: Callable[[int, int], None] | None,
    ) -> Learned:
        """Judge the model on the test part, where there is one, on about as many as `most` of its segments."""
        ladder.write(self.folder / "ladder.csv")
        test = self.corpus.test
        if not test:
            return Learned(self.checkpoint, self.folder / "report.html", ladder)
        store = self.look.store
        dataset = evaluation_dataset(model, test, store.short_side, store=store, on_bad="mask")
        note, count = "Figures of the test part.", len(dataset)
        if count > most:
            every = segments_of(test, self.corpus.classes)
            dataset.segments = list(every.chosen(every.within(most)).segments)
            note = f"Figures of {len(dataset.segments)} of the {count} segments of the test part, spread over it: more"
            note += " do not fit into the minutes; avsc evaluate judges all."
            log.warning(note)
        decision = predict_rows(model, dataset, progress=progress)["decision"]
        reference = {row.file: row.scene for row in test}
        (self.folder / SEGMENTS).parent.mkdir(exist_ok=True)
        lines = ["filename\tscene_label", *(f"{file}\t{scene}" for file, scene in reference.items())]
        with replacing(self.folder / REFERENCE) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_output(self.folder / SEGMENTS, decision)
        write_output(self.folder / "evaluation/clips.csv", to_clips(decision))
        scores = scores_of(decision, reference, test)
        report = self.report(decision, test, note, ladder, segments)
        figures = {protocol: (one.log_loss, one.accuracy) for protocol, one in scores.items()}
        return Learned(self.checkpoint, report, ladder, figures)

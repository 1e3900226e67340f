"""avsc score, calibrate, fuse, compare: verbs on system outputs."""

from __future__ import annotations

import json
import shlex
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from avsc_e2e.cli.parsing import Paths, Positional
from avsc_e2e.errors import AvscError

if TYPE_CHECKING:
    from avsc_e2e.outputs.calibration import Calibration
    from avsc_e2e.outputs.fusion import Fusion
    from avsc_e2e.outputs.output import SystemOutput


def score(
    output: Annotated[Path, Positional],
    reference: Annotated[Path, Positional],
    report: Path | None = None,
    json_to: Path | None = None,
) -> None:
    """Score a system output: macro log loss and accuracy, per class, for segments and whole clips.

    Args:
        output: System output, a CSV with a probability for each class.
        reference: CSV with the true scene of each file, such as fold1_evaluate.csv.
        report: HTML file for a report.
        json_to: JSON file for all figures of the report.
    """
    from avsc_e2e.outputs.output import read_output
    from avsc_e2e.outputs.reference import read_reference
    from avsc_e2e.report.page import write_report
    from avsc_e2e.report.report import Report

    found = read_output(output)
    page = Report(
        title=output.stem,
        outputs={output.stem: found},
        reference=read_reference(reference),
        data=reference.stem,
        command=shlex.join(["avsc", *sys.argv[1:]]),
        calibrate=f"avsc calibrate {output} --reference {reference} --save calibration.json",
    )
    for protocol, of_protocol in page.results.items():
        result = of_protocol[output.stem]
        scores, (loss, accuracy) = result.scores, result.intervals
        spans = (
            f"{loss.low:.4f} to {loss.high:.4f}" if loss else "none",
            f"{accuracy.low:.2%} to {accuracy.high:.2%}" if accuracy else "none",
        )
        print(f"{protocol}, {scores.count} rows, macro averages over classes, 95 % intervals by location")
        print(f"  log loss {scores.log_loss:.4f} ({spans[0]})   accuracy {scores.accuracy:.2%} ({spans[1]})")
        for name, loss, accuracy in zip(scores.classes, scores.class_log_loss, scores.class_accuracy, strict=True):
            print(f"  {name:<20} {loss:8.3f} {100 * accuracy:9.1f} %")
    if page.warning:
        print(f"warning: {page.warning}")
    if report:
        print(f"report: {write_report(page, report)}")
    if json_to:
        json_to.write_text(json.dumps(page.json(), indent=2) + "\n")


def calibrate(
    output: Annotated[Path, Positional],
    reference: Path | None = None,
    method: Literal["temperature", "classwise", "vector", "isotonic", "floor"] = "temperature",
    folds: int = 10,
    apply_to: Path | None = None,
    use: Path | None = None,
    save: Path | None = None,
    out: Path | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Calibrate the probabilities of a system output, for a lower log loss.

    Args:
        output: System output, a CSV with a probability for each class.
        reference: CSV with the true scene of each file, for the fit; the figures are cross-fitted by location.
        method: Temperature: one exponent; classwise: one for each class; vector: exponents and biases; isotonic: rising
            curves; floor: lower bounds of the probabilities.
        folds: Number of folds of the cross-fitting; a location is never divided.
        apply_to: Another output of the same system, to calibrate with the fit to the first.
        use: Saved calibration to apply, instead of a fit to a reference.
        save: JSON file for the calibration, fitted to all rows.
        out: CSV for the calibrated output: of `apply-to` if given, otherwise of the output itself.
        checkpoint: Checkpoint of the system, to store the calibration in; `predict` and `submit` then apply it.
    """
    _one_of("calibration", reference, use)
    from avsc_e2e.outputs import calibration
    from avsc_e2e.outputs.output import protocol_of, read_output
    from avsc_e2e.outputs.reference import read_reference, targets_of

    given = read_output(output)
    if use:
        rule = calibration.Calibration.load(use)
        calibrated = rule(given)
    else:
        assert reference is not None  # one of the two is given
        targets = targets_of(given, read_reference(reference))
        protocol = protocol_of(given)
        result = calibration.calibrate(given, targets, method, folds=folds, protocol=protocol)
        rule, calibrated = result.calibration, result.output
        print(result.table())
    if apply_to:
        calibrated = rule(read_output(apply_to))
    _write("calibration", rule, save, calibrated, out)
    if checkpoint:
        from avsc_e2e.inference import CALIBRATION
        from avsc_e2e.models.weights.checkpoint import add_notes

        print(f"calibration: in {add_notes(checkpoint, {CALIBRATION: json.dumps(rule.to_json())})}")


def fuse(
    systems: Paths,
    reference: Path | None = None,
    method: Literal[
        "all", "mean", "product", "vote", "weights", "pool", "classwise", "stacking", "greedy", "confidence"
    ] = "pool",
    folds: int = 10,
    use: Path | None = None,
    save: Path | None = None,
    out: Path | None = None,
) -> None:
    """Fuse the outputs of several systems into one.

    Args:
        systems: System outputs of the same recordings, CSVs with a probability for each class; NAME=PATH names one.
        reference: CSV with the true scene of each file, for the fit; the figures are cross-fitted by location.
        method: Method of fusion; all compares the methods.
        folds: Number of folds of the cross-fitting; a location is never divided.
        use: Saved fusion to apply, instead of a fit to a reference; outputs are matched by their names.
        save: JSON file for the fusion, fitted to all rows; with several methods, the one with the lowest log loss.
        out: CSV for the fused output.
    """
    _one_of("fusion", reference, use)
    from avsc_e2e.outputs import fusion
    from avsc_e2e.outputs.output import protocol_of, read_outputs
    from avsc_e2e.outputs.reference import read_reference, targets_of

    given = read_outputs(systems)
    if use:
        rule = fusion.Fusion.load(use)
        fused = rule(given)
    else:
        assert reference is not None  # one of the two is given
        if len(given) < 2:
            raise AvscError(f"fuse: {len(given)} system output given; it takes two or more")
        first = next(iter(given.values()))
        targets = targets_of(first, read_reference(reference))
        methods = typing.get_args(fusion.Method) if method == "all" else (method,)
        result = fusion.fuse(given, targets, methods, folds=folds, protocol=protocol_of(first))
        rule, fused = result.fusions[result.best], result.outputs[result.best]
        print(result.table())
    _write(f"fusion by {rule.method}", rule, save, fused, out)


def _one_of(what: str, reference: Path | None, use: Path | None) -> None:
    """A rule is fitted or loaded, never both."""
    if (reference is None) == (use is None):
        raise AvscError(f"{what}: give --reference to fit to, or --use with a saved {what}")


def _write(title: str, rule: Calibration | Fusion, save: Path | None, output: SystemOutput, out: Path | None) -> None:
    """Write the rule and what it makes of the outputs, where that is asked for."""
    from avsc_e2e.outputs.output import write_output

    if save:
        rule.save(save)
        print(f"{title}: {save}")
    if out:
        write_output(out, output)
        print(f"output: {out}")


def compare(
    systems: Paths,
    reference: Path,
    parameters: tuple[int, ...] = (),
    clips: bool = False,
    report: Path | None = None,
    json_to: Path | None = None,
) -> None:
    """Compare systems: intervals, paired tests, vote and oracle, correlations, disagreements.

    Args:
        systems: System outputs of the same recordings, CSVs with a probability for each class; NAME=PATH names one.
        reference: CSV with the true scene of each file.
        parameters: Number of parameters of each system, in the order of the outputs.
        clips: First sum the probabilities of the segments of each clip, and compare whole clips.
        report: HTML file for a page with the comparison and the report of all systems.
        json_to: JSON file for all figures.
    """
    from avsc_e2e.outputs.comparison import compare
    from avsc_e2e.outputs.comparisontable import comparison_table
    from avsc_e2e.outputs.output import protocol_of, read_outputs, to_clips
    from avsc_e2e.outputs.reference import read_reference, targets_of

    given = read_outputs(systems)
    if len(given) < 2:
        raise AvscError(f"compare: {len(given)} system output given; it takes two or more")
    if parameters and len(parameters) != len(given):
        raise AvscError(f"--parameters: {len(parameters)} numbers for {len(given)} outputs; give one for each")
    if clips:
        given = {name: to_clips(one) for name, one in given.items()}
    first, truth = next(iter(given.values())), read_reference(reference)
    result = compare(
        given,
        targets_of(first, truth),
        parameters=dict(zip(given, parameters, strict=True)) if parameters else None,
        protocol=protocol_of(first),
    )
    print(comparison_table(result))
    if report:
        from avsc_e2e.report.page import write_report
        from avsc_e2e.report.report import Report

        page = Report(
            title=f"{len(given)} systems",
            outputs=given,
            reference=truth,
            headline=result.systems[0],
            comparison=result,
            data=reference.stem,
            command=shlex.join(["avsc", *sys.argv[1:]]),
        )
        print(f"report: {write_report(page, report)}")
    if json_to:
        json_to.write_text(json.dumps(result.to_json(), indent=2) + "\n")

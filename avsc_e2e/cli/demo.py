"""avsc demo."""

from __future__ import annotations

from pathlib import Path

from avsc_e2e.cli.progress import progress


def demo(out: Path = Path("demo"), quick: bool = False) -> None:
    """Render a toy city, fine-tune audio, video and hybrid models on it, evaluate, write a report and a submission.

    Args:
        out: Folder for all files of the demo.
        quick: Use a smaller city and tiny networks: checks in under a minute that all parts work.
    """
    from avsc_e2e.demo import run_demo

    print(run_demo(out, quick=quick, progress=progress))

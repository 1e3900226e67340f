"""Exports of a checkpoint against PyTorch on real recordings: largest difference, size, milliseconds a window.

    python benchmarks/exports.py CHECKPOINT [--data DIR]

The recordings are the 15 clips of real_clips and the 8 recordings of real_audio in shared/data beside the repository.
Of smaller precisions the largest difference from PyTorch is printed, and the share of windows with the same decision.
Times are processor time on one core. The last line is of `avsc predict MODEL.onnx` with torch out of reach.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from avsc_e2e.export.comparison import export_checkpoint
from avsc_e2e.models.weights.files import checkpoint_file

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = """
import sys
class WithoutTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, WithoutTorch())
from avsc_e2e.cli import main
main(["predict", *sys.argv[1:]])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    media = [options.data / "real_clips", options.data / "real_audio"]
    checkpoint = checkpoint_file(options.checkpoint)
    print(f"checkpoint: {checkpoint.stat().st_size / 1e6:.1f} MB")
    print(f"{'format':<18}{'MB':>7}{'windows':>9}{'largest difference':>20}{'same decision':>15}{'ms a window':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for form, precision in (("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("torch-export", "fp32")):
            out = Path(folder) / f"{form}-{precision}"
            suffix = ".onnx" if form == "onnx" else ".pt2"
            found = export_checkpoint(checkpoint, out.with_suffix(suffix), form, precision, "both", media)
            print(
                f"{f'{form} {precision}':<18}{found.size / 1e6:>7.1f}{found.windows:>9}{found.difference:>16.1e}"
                f"{100 * found.agreement:>13.1f} %{found.milliseconds:>13.1f}",
                flush=True,
            )
        command = [sys.executable, "-c", WITHOUT_TORCH, str(Path(folder) / "onnx-fp32.onnx"), *map(str, media)]
        done = subprocess.run([*command, "--format", "jsonl"], capture_output=True, text=True)
        lines = done.stdout.splitlines()
        print(f"without torch: status {done.returncode}, {len(lines)} recordings predicted")


if __name__ == "__main__":
    main()

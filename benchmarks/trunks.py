"""A training step of trunks on the CPU: memory format of the convolutions, and keeping freed memory.

    python benchmarks/trunks.py

Each variant is a process of its own, in turn, three rounds; medians of milliseconds a picture or spectrogram, forward
and backward.
"""

import statistics
import subprocess
import sys

TRUNKS = (("tf_efficientnet_lite0", (3, 160, 160)), ("resnet50", (3, 160, 160)), ("audio_resnet10", (2, 64, 101)))
VARIANTS = {"as PyTorch has it": (False, False), "channels last": (True, False), "and memory kept": (True, True)}
STEP = """
import sys, time, torch, timm
import avsc_e2e.models.trunk
from avsc_e2e.memory import keep_freed_memory
name, shape, last, kept = sys.argv[1], eval(sys.argv[2]), sys.argv[3] == "True", sys.argv[4] == "True"
if kept:
    keep_freed_memory()
form = torch.channels_last if last else torch.contiguous_format
net = timm.create_model(name, num_classes=0, in_chans=shape[0], **({"bands": 64} if "audio" in name else {}))
net, x = net.to(memory_format=form), torch.randn(32, *shape).contiguous(memory_format=form)
times = []
for _ in range(6):
    began = time.perf_counter()
    net(x).sum().backward()
    times.append(time.perf_counter() - began)
print(sorted(times)[len(times) // 2] / 32 * 1e3)
"""


def main() -> None:
    print(f"{'trunk':<24}" + "".join(f"{name:>20}" for name in VARIANTS) + f"{'gain':>8}")
    for trunk, shape in TRUNKS:
        rounds = [
            [
                float(subprocess.check_output([sys.executable, "-c", STEP, trunk, str(shape), str(last), str(kept)]))
                for last, kept in VARIANTS.values()
            ]
            for _ in range(3)
        ]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        gain = statistics.median(row[0] / row[-1] for row in rounds)
        print(f"{trunk:<24}" + "".join(f"{value:17.2f} ms" for value in medians) + f"{gain:7.2f}x")


if __name__ == "__main__":
    main()

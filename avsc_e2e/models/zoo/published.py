"""Published figures of the systems, for comparison with our own.

dev is fold 1 of TAU Urban Audio-Visual Scenes 2021, eval the hidden evaluation set of DCASE 2021 Task 1B. "1 s" scores
one-second segments, as the challenge does; "10 s" whole clips by the sum of their segments' probabilities. Accuracies
and log losses are macro averages over the scenes.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import NamedTuple


class Published(NamedTuple):
    """Figures of one system."""

    source: str
    """The report or paper; for a challenge submission its label."""
    rank: int = 0
    """Rank in DCASE 2021 Task 1B; 0: no submission."""
    protocol: str = ""
    """Part of the data and length of its clips, such as "eval 1 s"."""
    log_loss: float | None = None
    accuracy: float | None = None
    """%."""
    dev_log_loss: float | None = None
    """Log loss on dev, 1 s, if the first figures are on eval."""
    dev_accuracy: float | None = None
    """%, likewise."""
    parameters: float | None = None
    """Parameters of the whole submission or model, as its authors count."""
    note: str = ""
    """Reason why our count differs from theirs."""

    def __str__(self) -> str:
        figures = [
            f"rank {self.rank}" if self.rank else "",
            f"log loss {self.log_loss:g}" if self.log_loss is not None else "",
            f"{self.accuracy:g} %" if self.accuracy is not None else "",
            f"({self.protocol})" if self.protocol else "",
            f"dev 1 s {_pair(self.dev_log_loss, self.dev_accuracy)}" if self.dev_accuracy is not None else "",
            f"{short_count(self.parameters)} parameters" if self.parameters else "",
        ]
        return f"{self.source}: " + ", ".join(filter(None, figures)).replace(", (", " (")


def _pair(log_loss: float | None, accuracy: float) -> str:
    return f"{log_loss:g} / {accuracy:g} %" if log_loss is not None else f"{accuracy:g} %"


def short_count(count: float) -> str:
    """1234 -> "1.2 k"; units of a thousand."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g}"


DATASET_PAPER = "Wang et al., ICASSP 2021"
TRUNKS_COUNTED = "theirs counts the heads on frozen embeddings alone, ours the two L3 nets too"

PUBLISHED: dict[str, Published] = {
    "openl3_audio": Published(DATASET_PAPER, 0, "dev 10 s", None, 75.8, parameters=338_634, note=TRUNKS_COUNTED),
    "openl3_video": Published(DATASET_PAPER, 0, "dev 10 s", None, 68.4, parameters=338_634, note=TRUNKS_COUNTED),
    "openl3_early": Published(DATASET_PAPER, 0, "dev 10 s", None, 82.2, parameters=600_778, note=TRUNKS_COUNTED),
    "openl3_joint": Published(
        "baseline of the challenge", 24, "eval 1 s", 0.662, 77.1, 0.658, 77.0, 711_454,
        TRUNKS_COUNTED + "; dev 10 s 84.8 %",
    ),
    "mcdonnell_usa": Published(
        DATASET_PAPER, 0, "dev 10 s", None, 82.84, parameters=3_254_468, note="running statistics counted"
    ),
    "resnet50_video": Published(DATASET_PAPER, 0, "dev 10 s", None, 77.9),
    "zhang_ioa": Published(
        "Zhang_IOA_3", 1, "eval 1 s", 0.195, 93.8, parameters=110e6,
        note="theirs is the whole submission, whose layers and number of models are not published",
    ),
    "du_ustc": Published(
        "Du_USTC_4", 5, "eval 1 s", 0.221, 93.2, parameters=373e6,
        note="theirs is the whole ensemble with its image nets and text model, ours one member; single joint model of "
        "arXiv 2203.04114: dev 94.2 %",
    ),
    "okazaki_ldsl": Published(
        "Okazaki_LDSLVision_4", 9, "eval 1 s", 0.257, 93.5, 0.149, 96.1, 636e6,
        "theirs is the whole ensemble, in sizes not published; dev before confidence replacement 0.238 / 95.8 %",
    ),
    "yang_thu": Published(
        "Yang_THU_3", 10, "eval 1 s", 0.279, 92.1, parameters=121e6, note="which nets is not published"
    ),
    "okazaki_ldsl_video": Published("Okazaki_LDSLVision_1", 12, "eval 1 s", 0.312, 91.6),
    "hou_ugent": Published(
        "Hou_UGent_4", 16, "eval 1 s", 0.416, 85.6, parameters=28_329_010,
        note="theirs leaves out the audio embedding net (4,687,042) and has ResNet-50's unused classifier (2,049,000)",
    ),
    "naranjo_uv_audio": Published(
        "Naranjo-Alcazar_UV_3", 32, "eval 1 s", 1.006, 66.8, None, 69.0, 323_274, "running statistics counted"
    ),
    "naranjo_uv": Published(
        "Naranjo-Alcazar et al., arXiv 2107.13180", 0, "eval 1 s", None, 86.5, None, 90.0, 15_416_148,
        "running statistics counted",
    ),
    "ioa_joint": Published("Chen et al., arXiv 2204.11420", 0, "dev 1 s", 0.1517, 94.59),
}  # fmt: skip
"""Published figures by the name of the zoo entry."""

MAP = "AudioSet mAP"
TRUNKS: dict[str, str] = {
    **{f"mn{width}": f"{MAP} {figure}" for width, figure in
       (("04", ".432"), ("05", ".443"), ("10", ".471"), ("20", ".478"), ("30", ".482"), ("40", ".487"))},
    "dymn04": f"{MAP} .450", "dymn10": f"{MAP} .477", "dymn20": f"{MAP} .493",
    "beats": f"{MAP} .486, fine-tuned", "wavegram_cnn14": f"{MAP} .439",
    "passt_s": f"{MAP} .476", "ast_base": f"{MAP} .459", "cnn14": f"{MAP} .431", "cnn14_16k": f"{MAP} .438",
    "htsat_tiny": "",
    "yamnet": "", "vggish": "", "l3_audio": "", "aisfx": "",
    "tf_efficientnet_lite0": "", "tf_efficientnet_b5.aa_in1k": "", "resnet50.tv_in1k": "ImageNet top 1 76.13 %",
    "convnext_base.fb_in22k_ft_in1k": "", "vit_base_patch32_clip_quickgelu_224.openai": "",
    "vit_large_patch14_clip_224.openai": "", "vit_large_patch16_siglip_256.v2_webli": "",
    "vit_large_patch16_dinov3.lvd1689m": "", "eva02_large_patch14_224.mim_in22k": "",
    "vit_pe_core_large_patch14_336.fb": "",
    "videomae2_small": "Kinetics-400 top 1 83.7 %", "videomae2_base": "Kinetics-400 top 1 86.6 %",
    "tv_mvit_v2_s": "Kinetics-400 top 1 80.76 %", "tv_swin3d_t": "Kinetics-400 top 1 77.72 %",
    "tv_s3d": "Kinetics-400 top 1 68.37 %", "tv_r2plus1d_18": "Kinetics-400 top 1 67.46 %",
}  # fmt: skip
"""Trunks in the table of recipes/README.md, with the figure that their authors or torchvision publish, from the name of
the file or the repository's table. Empty if we have not found a figure."""

RECIPES = {
    "openl3_*": "openl3_baseline.py",
    "mcdonnell_usa": "mcdonnell_usa.py",
    "resnet50_video": "resnet50_video.py",
    "zhang_ioa*": "zhang_ioa.py",
    "ioa_joint": "ioa_joint.py",
    "du_ustc*": "du_ustc.py",
    "okazaki_ldsl*": "okazaki_ldsl.py",
    "yang_thu": "yang_thu.py",
    "hou_ugent": "hou_ugent.py",
    "naranjo_uv*": "naranjo_uv.py",
    "flagship*": "flagship.py",
    "lite0*": "own_videos.py",
}
"""Patterns of entries and the recipe, in the folder `recipes`, that trains them."""


def recipe_of(name: str) -> str:
    """The recipe of an entry; empty where it has none."""
    return next((recipe for pattern, recipe in RECIPES.items() if fnmatch(name, pattern)), "")

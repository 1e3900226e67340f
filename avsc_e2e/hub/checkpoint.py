"""Uploading a checkpoint to a hub, and downloading one."""

from __future__ import annotations

import dataclasses
import os
import shutil
from functools import cached_property
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin

from avsc_e2e.errors import AvscError
from avsc_e2e.hub.card import About, card_of
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.models.weights.files import HUB, MODEL, checkpoint_file


class Checkpoint(
    ModelHubMixin,
    library_name="avsc_e2e",
    pipeline_tag="video-classification",
    tags=["audio-visual-scene-classification"],
):
    """A trained model as a file, with huggingface_hub's three verbs.

        Checkpoint("runs/learner").save_pretrained("FOLDER")
        Checkpoint("runs/learner").push_to_hub("user/name", model_card_kwargs={"data": "my videos", "licence": "mit"})
        Checkpoint.from_pretrained("user/name").model

    The file is copied as it is, with its calibration and notes. The model card is written from it and from the test
    figures beside it; `model_card_kwargs` are the fields of `hub.card.About`, which no run knows.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """`path`: a checkpoint, the folder of a run, or hf-hub:user/name. Raises AvscError."""
        self.path = checkpoint_file(path)

    @cached_property
    def model(self) -> SceneNet | Ensemble:
        """The model in evaluation mode, on the CPU."""
        return load_model(self.path)

    def _save_pretrained(self, save_directory: Path) -> None:
        shutil.copyfile(self.path, save_directory / MODEL)
        # Downloads are counted by this file; it is ours, for the mixin's would hold the path on this machine.
        (save_directory / "config.json").write_text(read_notes(self.path)["architecture"], encoding="utf-8")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's own retries for a config.json that is not needed
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str = ""
    ) -> Checkpoint:
        """Of a folder or a file, or of user/name on the hub, at a `revision` if given. Raises AvscError."""
        name = pretrained_model_name_or_path
        if os.path.exists(name):
            return cls(name)
        return cls(f"{HUB}{name}" + f"@{revision}" * bool(revision))

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Upload file and card to `repo_id`, such as user/name; the options are those of the mixin. The URL of the
        commit."""
        about = {"name": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=about, **options)

    def generate_model_card(self, *, name: str = "", **about: str) -> ModelCard:
        """The model card with the title `name`. Raises AvscError."""
        known = [field.name for field in dataclasses.fields(About)]
        if odd := set(about) - {*known}:
            raise AvscError(f"model_card_kwargs: {', '.join(sorted(odd))} is unknown; give {', '.join(known)}")
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        data.license = about.get("licence") or None
        return ModelCard(f"---\n{data}\n---\n\n" + card_of(self.path, self.model, name, About(**about)))

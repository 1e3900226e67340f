"""Evaluation on a cluster: the outputs of one process."""

import numpy as np
import pytest

from avsc_e2e import clusterinference
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.evaluation import evaluate_checkpoint
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model


@pytest.mark.parametrize("engine", ["in this process", "ray"])
def test_outputs_are_those_of_one_process(engine, toy_city, tmp_path, monkeypatch, request):
    prepare(toy_city, tmp_path / "store", Options(74), workers=1)
    save_model(create_model("tiny").eval(), tmp_path / "model.safetensors", {"recipe": "{}"})
    alone = evaluate_checkpoint(tmp_path / "model.safetensors", str(tmp_path / "store"), out=tmp_path / "alone")
    if engine == "ray":
        request.getfixturevalue("cluster")
    else:  # several jobs, of segments that begin amid a recording
        monkeypatch.setattr(clusterinference, "BATCH", 3)
        monkeypatch.setattr(clusterinference, "BATCHES", 1)
        monkeypatch.setattr(clusterinference, "has_gpus", lambda: False)
        monkeypatch.setattr(
            clusterinference, "spread", lambda function, jobs, gpus: ((n, function(job)) for n, job in enumerate(jobs))
        )
    spread = evaluate_checkpoint(
        tmp_path / "model.safetensors", str(tmp_path / "store"), out=tmp_path / "spread", engine="ray"
    )
    assert len(alone.outputs["decision"].files) == 20
    for name, output in alone.outputs.items():
        assert spread.outputs[name].files == output.files
        np.testing.assert_array_equal(spread.outputs[name].start, output.start)
        np.testing.assert_allclose(spread.outputs[name].probabilities, output.probabilities, atol=1e-5)

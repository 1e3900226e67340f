"""What `avsc doctor` says of a machine."""

import importlib.metadata
import shutil
from pathlib import Path

from support import AVSC, run_commands

from avsc_e2e import doctor
from avsc_e2e.doctor import examine, table


def by_subject(findings):
    return {finding.subject: finding for finding in findings}


def test_this_machine(tmp_path):
    found = by_subject(examine(tmp_path))
    assert found["torch"].text == importlib.metadata.version("torch")
    assert found["Python"].verdict == "ok"
    assert found["decoders"].verdict == "ok"
    assert "H.264" in found["decoders"].text
    assert all(finding.mend for finding in found.values() if finding.verdict == "bad")
    lines = table(list(found.values())).splitlines()
    assert len([line for line in lines if not line.lstrip().startswith("->")]) == len(found)


def test_what_is_missing_is_named_with_its_mend(monkeypatch, tmp_path):
    version = importlib.metadata.version

    def without_timm(name):
        if name == "timm":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without_timm)
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(64 << 20, 0, 64 << 20))
    found = by_subject(examine(tmp_path))
    assert found["timm"] == ("timm", "bad", "not installed", "pip install timm")
    assert found["shared memory"].verdict == "bad"
    assert "--shm-size" in found["shared memory"].mend
    assert found["disk"].verdict == "note"
    assert found["disk"].mend


def test_a_folder_that_is_not_there():
    finding = by_subject(examine(Path("/nowhere/at/all")))["disk"]
    assert finding.verdict == "bad"
    assert "/nowhere/at/all" in finding.text


def test_the_command(tmp_path):
    done = run_commands([AVSC, "doctor", tmp_path])[0]
    assert done.status == 0, done.out
    assert "torch" in done.out

"""Whether the device is deterministic: the same job twice, compared bit for bit."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import jax
import pytest

from transformer_jax import doctor

ROOT = Path(__file__).parent.parent


def answers(monkeypatch: pytest.MonkeyPatch, *runs: tuple[str, float]) -> None:
    """What the four jobs say, in turn: hash and seconds a step."""
    turn = iter(runs)
    monkeypatch.setattr(
        doctor, "_job_in_a_process", lambda deterministic: dict(zip(("hash", "step"), next(turn), strict=True))
    )


def test_a_version_that_is_newer_than_what_was_tried_is_said_to_be(monkeypatch):
    versions = {"jax": "0.13.1", "flax": "1.0", "optax": "0.2.99", "numpy": "2.10.0", "jaxlib": "0.12.99.dev3"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.14.0rc1")
    found = doctor.diagnose()
    assert found["jax"] == "0.13.1"
    assert found["not tried yet"] == (
        "python 3.14.0rc1 (tried up to 3.13), jax 0.13.1 (tried up to 0.12), flax 1.0 (tried up to 0.12), "
        "numpy 2.10.0 (tried up to 2.5): ./launch.sh test tells whether it works"
    )
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "NEWEST_TRIED", {"jax": real("jax")})
    assert doctor.diagnose()["not tried yet"] == "none of these versions"


def test_the_readme_names_what_was_tried():
    readme = " ".join((ROOT / "README.md").read_text().split())
    tried = doctor.NEWEST_TRIED
    assert f"under Python {tried['python']} with JAX {tried['jax']} and NumPy {tried['numpy']};" in readme
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (oldest,) = re.findall(r"'jax>=(\d+\.\d+)\.\d+'", str(project["dependencies"]))
    assert f"under Python {project['requires-python'].removeprefix('>=')} with JAX {oldest} and" in readme


def test_a_device_that_is_not_deterministic_is_said_to_be_so_with_the_cost_of_the_switch(monkeypatch):
    answers(monkeypatch, ("a", 1.0), ("c", 3.0), ("b", 1.0), ("c", 3.0))
    assert doctor.check_determinism() == {
        "the same job twice": "differs",
        "train.deterministic=true": "bit for bit equal, 3.00 times the time of a step",
    }


def test_a_device_that_is(monkeypatch):
    answers(monkeypatch, ("a", 2.0), ("a", 1.0), ("a", 2.0), ("b", 1.0))
    assert doctor.check_determinism() == {
        "the same job twice": "bit for bit equal",
        "train.deterministic=true": "differs, 0.50 times the time of a step",
    }


def test_the_job_in_a_process_is_the_job(monkeypatch):
    """The hash is of what was computed: another seed gives another one, and this device gives it again."""
    there = doctor._job_in_a_process(True)
    here = doctor.run_job(True)
    assert there["step"] > 0
    if jax.device_count() == 1:  # the process has as many as there are, this one perhaps fakes some
        assert there["hash"] == here["hash"]
    monkeypatch.setattr(doctor, "JOB", {**doctor.JOB, "seed": 1})
    assert doctor.run_job(True)["hash"] != here["hash"]


def test_a_job_that_fails_is_a_sentence(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    (said,) = doctor.check_determinism().values()
    assert said.startswith("could not be tried: the job failed (")
    assert "no_such_platform" in said

"""What a run says of what it ran on."""

import os
from importlib import metadata

from doubles_runs import toy_recipe

from rloop.session.environment import PACKAGES, environment

INSTALLED = {"torch": "2.13.0", "vllm": "0.24.0"}


def version(name):
    if name not in INSTALLED:
        raise metadata.PackageNotFoundError(name)
    return INSTALLED[name]


def test_versions_are_kept_and_that_of_vllm_where_it_may_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", version)
    recipe = toy_recipe(tmp_path, explore__sampler="native")
    packages = environment(tmp_path / "recipe.yaml", recipe)["packages"]
    assert set(packages) == set(PACKAGES)
    assert (packages["torch"], packages["numpy"]) == ("2.13.0", None)
    recipe = toy_recipe(tmp_path, explore__sampler="vllm")
    packages = environment(tmp_path / "recipe.yaml", recipe)["packages"]
    assert set(packages) - set(PACKAGES) == {"vllm"}
    assert packages["vllm"] == "0.24.0"


def test_a_machine_that_does_not_tell_its_affinity_counts_its_cores(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert environment(tmp_path / "recipe.yaml")["cores"] == 1

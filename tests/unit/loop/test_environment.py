"""What a run says of what it ran on."""

import os
from importlib import metadata

from doubles_runs import toy_recipe

from rloop.loop.environment import PACKAGES, describe_engine, environment

INSTALLED = {"trl": "1.16.0", "accelerate": "1.15.0", "datasets": "5.0", "torch": "2.13.0"}


def version(name):
    if name not in INSTALLED:
        raise metadata.PackageNotFoundError(name)
    return INSTALLED[name]


def on_trl(recipe, **launch):
    data = recipe.model_dump(mode="json")
    data["engine"] |= {"name": "trl"}
    data["engine"]["trl"]["launch"] |= launch
    return type(recipe).model_validate(data)


def test_versions_of_trl_and_what_it_works_with_are_kept_for_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", version)
    recipe = toy_recipe(tmp_path)
    packages = environment(tmp_path / "recipe.yaml", recipe)["packages"]
    assert set(packages) == set(PACKAGES)
    assert (packages["torch"], packages["numpy"]) == ("2.13.0", None)
    packages = environment(tmp_path / "recipe.yaml", on_trl(recipe))["packages"]
    # peft and deepspeed are not installed.
    assert set(packages) - set(PACKAGES) == {"trl", "accelerate", "datasets"}
    assert packages["trl"] == "1.16.0"


def test_the_engine_stands_in_the_header_where_it_is_not_rloops_own(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", version)
    recipe = toy_recipe(tmp_path)
    assert describe_engine(recipe) == {}
    assert describe_engine(on_trl(recipe)) == {"engine": "TRL 1.16.0, 1 process"}
    many = on_trl(recipe, processes=16, machines=2)
    assert describe_engine(many) == {"engine": "TRL 1.16.0, 16 processes, 2 machines"}


def test_a_machine_that_does_not_tell_its_affinity_counts_its_cores(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert environment(tmp_path / "recipe.yaml")["cores"] == 1

from importlib import metadata

import pytest

from rloop.check.recipe import doctor


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        (["mlflow-skinny"], "1.2 (mlflow-skinny)"),
        (["mlflow", "mlflow-skinny"], "1.2"),
        ([], "present"),
    ],
)
def test_a_package_that_another_distribution_brought_is_named_with_it(owners, said, monkeypatch):
    monkeypatch.setattr("rloop.check.doctor.metadata.version", lambda name: "1.2")
    assert doctor._installed("mlflow", owners) == said


REQUIRES = [
    "transformers>=4.56.2",
    'vllm<=0.24.0,>=0.10.2; extra == "vllm"',
    'deepspeed>=0.14.4; extra == "deepspeed"',
]


@pytest.mark.parametrize(
    ("extra", "installed", "said"),
    [
        ("", {"transformers": "5.19.0"}, []),
        ("", {"transformers": "4.50.0"}, ["transformers 4.50.0 is not >=4.56.2"]),
        ("vllm", {"transformers": "5.0", "vllm": "0.24.0"}, []),
        (
            "vllm",
            {"transformers": "5.0", "vllm": "0.32.0"},
            ["vllm 0.32.0 is not <=0.24.0,>=0.10.2"],
        ),
        ("deepspeed", {"transformers": "5.0"}, ["deepspeed is missing"]),
    ],
)
def test_what_trl_requires_and_is_not_installed_so_is_named(extra, installed, said, monkeypatch):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("rloop.check.doctor.metadata.requires", lambda name: REQUIRES)
    monkeypatch.setattr("rloop.check.doctor.metadata.version", version)
    assert doctor.unmet("trl", extra) == said


def test_doctor_says_whether_several_devices_can_be_used(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "deepspeed" else name)
    monkeypatch.setattr(doctor, "unmet", lambda package, extra: [])
    rows = {row.name: row for row in doctor._distributed()}
    assert rows["engine.name: trl"].value == "usable"
    lost = rows["engine.trl.launch.preset: zero3"]
    assert lost.value == "not usable: deepspeed is missing"
    assert lost.remedy == "pip install 'trl[deepspeed]'"

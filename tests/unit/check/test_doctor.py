import pytest

from rloop.check import doctor


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

"""The page of policies at several temperatures."""

from rloop.report.temperatures import curve_figure, tables_of, write_page


def points(policy: str, *, is_base: bool, **values: tuple[float, float]) -> list[dict[str, object]]:
    """Rows of scores.json; `values` are avg and pass by `tTEMPERATURE`."""
    return [
        {"policy": policy, "temperature": float(name[1:].replace("_", ".")), "is_base": is_base}
        | {
            "task": "sums",
            "metric": metric,
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
        }
        for name, pair in values.items()
        for metric, value in zip(("pass@8", "avg@8"), pair[::-1], strict=True)
    ]


POINTS = [
    *points("base", is_base=True, t0_5=(0.4, 0.6), t1=(0.2, 0.7)),
    *points("<b>iter</b>", is_base=False, t0_5=(0.7, 0.75), t1=(0.6, 0.8)),
]


def test_a_table_has_a_row_for_each_point_and_metrics_in_order() -> None:
    ((task, rows),) = tables_of(POINTS).items()
    assert (task, list(rows[0]["cells"])) == ("sums", ["avg@8", "pass@8"])
    assert [(row["policy"], row["temperature"], row["is_base"]) for row in rows] == [
        ("base", 0.5, True),
        ("base", 1.0, True),
        ("<b>iter</b>", 0.5, False),
        ("<b>iter</b>", 1.0, False),
    ]
    assert [cell.value for cell in rows[3]["cells"].values()] == [0.6, 0.8]


def test_the_curve_has_accuracy_across_and_pass_at_k_upwards() -> None:
    figure = curve_figure("sums", tables_of(POINTS)["sums"], 0)
    assert figure.heading.title == "pass@8 against avg@8: sums"
    assert figure.numbers.rows[0] == ("base", "0.5", "0.4", "0.6")
    assert "Dashed: base" in figure.heading.caption
    assert "base at 0.5 40.0% and 60.0%" in figure.heading.description


def test_a_page_escapes_names_and_holds_every_number(tmp_path) -> None:
    gain = {"policy": "<b>iter</b>", "task": "sums", "verdict": "beyond sharpening", "k": 8}
    gain |= {"temperature": 1.0, "value": 0.2, "low": 0.1, "high": 0.3}
    text = write_page(POINTS, [gain], tmp_path / "page.html").read_text()
    assert "<b>iter</b>" not in text
    assert "75.0 %" in text
    assert "[65.0, 85.0]" in text
    assert "+20.0 points [+10.0, +30.0] against the base" in text

import json

from rloop.report.conclusions import TaskConclusions, conclusions
from rloop.report.held_out import read_held_out
from rloop.report.tables import task_tables
from rloop.run_directory import Run, read_run


def concluded(run: Run) -> list[TaskConclusions]:
    return conclusions(run, task_tables(run), read_held_out(run))


def test_three_questions_are_answered(finished_run) -> None:
    (found,) = concluded(read_run(finished_run))
    assert (found.task, found.between) == ("sums", "base to iter-002")
    questions = [one.question for one in found.found]
    assert questions == ["Did it help?", "Does it overfit?", "What was forgotten?"]
    helped = found.found[0]
    # 0.412 - 0.198 = +21.4 points
    assert (helped.answer, helped.kind) == ("Yes: +21.4 points", "gain")


def test_a_loss_and_an_unclear_change_are_not_called_help(build_run) -> None:
    run_dir = build_run()
    metrics = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    for high, said in ((-0.1, "No: -20.0 points"), (0.1, "Not clear: -20.0 points")):
        for row in rows:
            if row["policy"] == "iter-002" and row["phase"] == "evaluate":
                key = "evaluate/sums/avg@8_diff"
                row |= {key: -0.2, f"{key}_low": -0.3, f"{key}_high": high}
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert concluded(read_run(run_dir))[0].found[0].answer == said


def test_without_an_outcome_there_is_no_verdict(build_run) -> None:
    run_dir = build_run()
    first = (run_dir / "metrics.jsonl").read_text().splitlines()[0]
    (run_dir / "metrics.jsonl").write_text(first + "\n")
    assert concluded(read_run(run_dir)) == []


def test_a_verdict_says_when_the_length_limit_is_part_of_it(build_run) -> None:
    run_dir = build_run()
    metrics = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    for cut, is_said in ((0.453, True), (0.12, False)):
        for row in rows:
            if row["policy"] == "base":
                row["evaluate/sums/truncated_frac"] = cut
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        last = concluded(read_run(run_dir))[0].found[0].sentences[-1]
        # 45.3 - 6.1 = 39.2 points are worth a sentence, 12 - 6.1 = 5.9 are not.
        assert is_said == (
            last == "Completions cut at the length limit went from 45.3 % (base) to 6.1 % "
            "(iter-002): part of the difference may be answers that are no longer cut."
        )

import json

from rloop.evaluation.checkpoints import read_checkpoints
from rloop.report.held_out import held_out_tasks
from rloop.report.results import task_tables
from rloop.report.run_record import RunRecord, read_run
from rloop.report.verdict import TaskVerdict, task_verdicts
from rloop.store.trajectories import TrajectoryStore


def verdicts(record: RunRecord) -> list[TaskVerdict]:
    tasks = held_out_tasks(record, read_checkpoints(TrajectoryStore(record.directory)))
    return task_verdicts(record, task_tables(record), tasks)


def test_a_verdict_answers_three_questions(finished_run) -> None:
    (found,) = verdicts(read_run(finished_run))
    assert (found.task, found.between) == ("sums", "base to iter-002")
    questions = [finding.question for finding in found.findings]
    assert questions == ["Did it help?", "Does it overfit?", "What was forgotten?"]
    helped = found.findings[0]
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
        assert verdicts(read_run(run_dir))[0].findings[0].answer == said


def test_without_an_outcome_there_is_no_verdict(build_run) -> None:
    run_dir = build_run()
    first = (run_dir / "metrics.jsonl").read_text().splitlines()[0]
    (run_dir / "metrics.jsonl").write_text(first + "\n")
    assert verdicts(read_run(run_dir)) == []


def test_a_verdict_says_when_the_length_limit_is_part_of_it(build_run) -> None:
    run_dir = build_run()
    metrics = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    for cut, is_said in ((0.453, True), (0.12, False)):
        for row in rows:
            if row["policy"] == "base":
                row["evaluate/sums/truncated_frac"] = cut
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        last = verdicts(read_run(run_dir))[0].findings[0].sentences[-1]
        # 45.3 - 6.1 = 39.2 points are worth a sentence, 12 - 6.1 = 5.9 are not.
        assert is_said == (
            last == "Completions cut at the length limit went from 45.3 % (base) to 6.1 % "
            "(iter-002): part of the difference may be answers that are no longer cut."
        )

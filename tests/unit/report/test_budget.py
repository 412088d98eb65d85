from rloop.report.budget import phase_budgets
from rloop.report.run_record import read_run


def test_time_and_tokens_add_up_by_phase(finished_run) -> None:
    budgets = {budget.phase: budget for budget in phase_budgets(read_run(finished_run))}
    assert list(budgets) == ["explore", "select", "finetune", "evaluate"]
    explore = budgets["explore"]
    # 2 x 90.5 s of 2 x (90.5 + 0.4 + 21 + 40) = 303.8 s; 40 steps x 4000 tokens
    assert (explore.seconds, explore.tokens) == (181.0, 160_000)
    assert explore.share == 181.0 / 303.8
    assert explore.tokens_per_s == 160_000 / 181.0
    # 11 measurements (base, 2 x (4 inside RL + 1)) x 31,000 tokens
    assert budgets["evaluate"].tokens == 341_000
    assert budgets["select"].tokens is None
    assert budgets["select"].tokens_per_s is None


def test_an_untimed_run_still_has_its_tokens(build_run) -> None:
    run_dir = build_run()
    (run_dir / "events.jsonl").unlink()
    explore, evaluate = phase_budgets(read_run(run_dir))
    assert (explore.tokens, explore.seconds, explore.share) == (160_000, None, None)
    assert evaluate.tokens_per_s is None

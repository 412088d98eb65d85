"""A run of the scripted engine whose report has something in every part of it."""

from pathlib import Path
from typing import Any

from doubles_runs import begin, scripted, toy_recipe

from rloop.types import Problem

HOSTILE = "</script><script>document.title = 1</script><img src=x onerror=alert(1)>\x1b[31mred"


def uneven(problem: Problem, member: int, updates: int) -> str:
    """Answer some members right, others as the policy moves; the last one writes markup."""
    number = int(problem.answer)
    is_right = (7 * number + 5 * member + 3 * updates) % 11 < 4
    said = f"{number if is_right else number + member + 1}"
    return f"{HOSTILE} {said}" if member == 3 else said


def report_run(folder: Path, **changes: Any) -> Path:
    """Run two iterations of two measurements inside RL each; return the run directory."""
    settings = {"evaluate__every": 2, "expert__max_success_rate": 0.3}
    # The scripted engine counts bytes: all of the markup is to be there.
    settings |= {
        f"{name}__sampling__max_completion_tokens": 128 for name in ("explore", "evaluate")
    }
    settings |= changes
    code, run_dir = begin(toy_recipe(folder, **settings), folder, scripted(uneven))
    assert code == 0, "the scripted run ends by itself"
    return run_dir

"""The command `rloop eval`: policies measured, at one temperature or at several."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rloop.cli.options import JsonOption, SetOption
from rloop.cli.tables import print_json, print_table
from rloop.errors import ConfigError

if TYPE_CHECKING:
    from rloop.evaluation.intervals import Estimate
    from rloop.recipe.config import Recipe

Policies = Annotated[
    list[str],
    typer.Argument(
        metavar="POLICY...", help="Directory, hub name or .gguf file of a policy; or several."
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="SOURCE", help="Held-out task; may be given again."),
]
Samples = Annotated[
    int | None, typer.Option(help="Completions per problem, n; 32, or the recipe's.")
]
Ks = Annotated[
    str | None, typer.Option("-k", help="Values of k for pass@k; 1,8,32, or the recipe's.")
]
Temperatures = Annotated[
    str | None,
    typer.Option(help="Measure at each of a list, such as 0.3,0.5,0.7,1.0; 0 is greedy."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Problems of each task; all when absent.")
]
Mix = Annotated[
    str | None,
    typer.Option(
        help="Measure means of weights with the base too; fractions of the policy, as in 0.3,0.5."
    ),
]
RecipePath = Annotated[
    Path | None, typer.Option("--recipe", help="Take prompt, tasks and the rest from here.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="New directory; runs/eval-POLICY, or runs/temperatures-POLICY."),
]


def evaluate(  # noqa: PLR0913 (one for each option)
    policies: Policies,
    tasks: Tasks = None,
    samples: Samples = None,
    k: Ks = None,
    limit: Limit = None,
    temperatures: Temperatures = None,
    mix: Mix = None,
    recipe_path: RecipePath = None,
    out: Out = None,
    overrides: SetOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a policy on held-out tasks: avg@n, maj@n, pass@k and cover@tau with intervals.

    A policy of a run is measured with that run's prompt, sampling and tasks (--task may name one of
    them). Every completion is kept; `rloop resume` goes on after an interrupt. All else is a recipe
    key, such as --set evaluate.sampling.temperature=0.6.

    With --temperatures, or several policies, each is loaded once and measured at every temperature,
    and so is what the loop of its run began with; a page shows avg@n against pass@k. All are
    measured with --recipe, else with the first run's. With --mix the page also has the mean of each
    policy's weights and its base's: what averaging alone gives.

    Example: rloop eval runs/demo/policies/iter-002 --task gsm8k --samples 32 -k 1,8,32
    """
    from rloop.recipe.load import check_policy, evaluation_recipe, recipe_of_policy

    for policy in policies:
        check_policy(policy)
    given = {"evaluate.samples": samples, "evaluate.k": None if k is None else f"[{k}]"}
    values = [f"{key}={value}" for key, value in given.items() if value is not None]
    base = recipe_path or next(filter(None, map(recipe_of_policy, policies)), None)

    def recipe_for(policy: str) -> "Recipe":
        path = f"policy.path={json.dumps(policy)}"
        found = evaluation_recipe(base, [path, *values, *(overrides or ())], tasks or ())
        return found if limit is None else found.limited(limit)

    if temperatures is None and mix is None and len(policies) == 1:
        return _evaluate_one(recipe_for(policies[0]), out, as_json=as_json)
    _evaluate_at(policies, (temperatures, mix), recipe_for, out, as_json=as_json)


def end_evaluation(code: int, folder: Path, *, as_json: bool) -> None:
    """Print an evaluation, unless it stopped; the table leaves out pass@1, which is avg@n again."""
    from rloop.session.evaluate import scores_in

    scores = scores_in(folder)
    if code or scores is None:
        raise typer.Exit(code)
    if as_json:
        return print_json(scores)
    rows = [
        (one.task, one.metric, *(f"{value:.3f}" for value in (one.value, one.low, one.high)))
        for one in scores
        if one.metric != "pass@1"
    ]
    print_table(("task", "metric", "value", "low", "high"), rows)


def end_points(code: int, folder: Path, *, as_json: bool) -> None:
    """Print policies at temperatures, and write their page into the folder, unless it stopped."""
    from rloop.evaluation.sharpening import gain_sentence
    from rloop.observe.metric_keys import headline
    from rloop.report.temperatures import tables_of, write_page
    from rloop.session.temperatures import read_points

    if code:
        raise typer.Exit(code)
    found = read_points(folder)
    if as_json:
        print_json(found)
    for task, table in () if as_json else tables_of(found).items():
        metrics = list(table[0]["cells"])
        shown = [*headline(metrics), *(name for name in metrics if name.startswith("maj@"))]
        rows = [
            (
                row["policy"],
                f"{row['temperature']:g}",
                *(_interval(row["cells"][name]) for name in shown),
            )
            for row in table
        ]
        sys.stdout.write(f"{task}\n")
        print_table(("policy", "temperature", *shown), rows)
    gains = json.loads((folder / "sharpening.json").read_text())
    for gain in () if as_json else gains:
        sys.stdout.write(f"{gain_sentence(gain)}\n")
    page = write_page(found, gains, folder / "temperatures.html")
    sys.stderr.write(f"Every completion and number is in {folder}.\nPage: {page}\n")


def _evaluate_one(recipe: "Recipe", out: Path | None, *, as_json: bool) -> None:
    from rloop.engines.registry import build_engine
    from rloop.session.evaluate import free_folder, unfinished
    from rloop.session.process import start

    for begun in () if out else unfinished(Path("runs"), recipe):
        sys.stderr.write(f"{begun} is not finished: `rloop resume {begun}` goes on with it.\n")
    folder = out or free_folder(Path("runs"), recipe)
    code = start(folder, recipe, folder, build_engine, is_evaluation=True)
    end_evaluation(code, folder, as_json=as_json)


def _evaluate_at(
    policies: Sequence[str],
    wanted: tuple[str | None, str | None],
    recipe_for: "Callable[[str], Recipe]",
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure policies, what their loops began with, and means of both, at temperatures."""
    from rloop.engines.registry import build_engine
    from rloop.session.evaluate import free_folder
    from rloop.session.temperatures import (
        measure_points,
        plan_points,
        with_bases,
        write_means,
    )

    bases, others = with_bases(policies)
    if not bases:
        sys.stderr.write(
            "No policy is in a run that has its base, so no curve shows what sharpening alone "
            "gives. Name the base too.\n"
        )
    recipes = [recipe_for(policy) for policy in (*bases, *others)]
    temperatures, mix = wanted
    usual = str(recipes[0].evaluate.sampling.temperature)
    measured = read_numbers(
        usual if temperatures is None else temperatures,
        lambda one: 0 <= one < float("inf"),
        "--temperatures takes numbers of at least 0, such as 0.3,0.5,0.7,1.0",
    )
    folder = out or free_folder(Path("runs"), recipes[-1], "temperatures")
    if mix is not None:
        what = "--mix takes numbers between 0 and 1, such as 0.3,0.5,0.7"
        fractions = read_numbers(mix, lambda one: 0 < one < 1, what)
        recipes += map(recipe_for, write_means(others, fractions, folder))
    points = plan_points(recipes, measured, bases)
    end_points(measure_points(points, folder, build_engine), folder, as_json=as_json)


def read_numbers(text: str, is_one: Callable[[float], bool], what: str) -> list[float]:
    """Return the numbers of a list with commas, rising, each once; ConfigError says `what` else."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(map(is_one, found)):
        raise ConfigError(f"{what}; got {text!r}.")
    return found


def _interval(found: "Estimate") -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"

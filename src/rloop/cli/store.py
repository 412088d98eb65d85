"""The commands `rloop store ...`: into the trajectories of a run, and out of them."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rloop.cli.groups import Group
from rloop.cli.options import JsonOption, RunArgument
from rloop.cli.tables import print_json, print_records, print_table
from rloop.types import VerdictKind

store_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Look into the trajectories of a run."
)

StoredPhase = Literal["explore", "evaluate"]


@store_app.command("sql")
def store_sql(
    run_dir: RunArgument,
    query: Annotated[str, typer.Argument(help="DuckDB SQL over `trajectories` and `groups`.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Query the trajectories of a run, or its groups: counts for each problem of a step.

    Example: rloop store sql runs/demo "select step, avg(reward) from trajectories group by step"
    """
    from rloop.store.trajectories import open_store

    print_records(open_store(run_dir).query(query).to_pylist(), as_json=as_json)


@store_app.command("show")
def store_show(
    run_dir: RunArgument,
    iteration: Annotated[int | None, typer.Option(help="Iteration, from 0.")] = None,
    phase: Annotated[StoredPhase | None, typer.Option(help="Phase that sampled it.")] = None,
    step: Annotated[int | None, typer.Option(help="Step inside the phase.")] = None,
    problem: Annotated[str | None, typer.Option(help="Problem id.")] = None,
    verdict: Annotated[VerdictKind | None, typer.Option(help="How it was judged.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trajectories at most.")] = 10,
) -> None:
    """Print prompts and completions, filtered by where they are and how they were judged.

    Example: rloop store show runs/demo --iteration 1 --phase explore --step 3 --verdict wrong
    """
    from rloop.cli.browse import find_trajectories, lines_of

    places = {"iteration": iteration, "phase": phase, "step": step}
    filters = {**places, "problem_id": problem, "verdict": verdict}
    rows = find_trajectories(run_dir, filters, limit)
    if not rows:
        sys.stderr.write(f"No trajectories in {run_dir} match these filters.\n")
    for row in rows:
        sys.stdout.writelines(f"{line}\n" for line in lines_of(row))


@store_app.command("export")
def store_export(
    run_dir: RunArgument,
    target: Annotated[
        Path, typer.Argument(help="New .parquet, .jsonl or .csv file; else a new folder.")
    ],
    form: Annotated[
        Literal["table", "datasets", "trl", "inspect"],
        typer.Option("--format", help="One table, or a folder for one of these to read."),
    ] = "table",
    select: Annotated[
        Literal["all", "correct", "expert"] | None,
        typer.Option(help="Which: all; for trl the correct ones, and never held-out."),
    ] = None,
    iteration: Annotated[int | None, typer.Option(help="Of one iteration alone.")] = None,
) -> None:
    """Write trajectories of a run to a file, or to a folder that other trainers read.

    Example: rloop store export runs/demo demo-sft --format trl --select expert
    """
    from rloop.store.export import export_trajectories

    count = export_trajectories(run_dir, target, form, select, iteration)
    sys.stdout.write(f"{count:,} trajectories -> {target}\n")


@store_app.command("verify")
def store_verify(
    run_dir: RunArgument,
    *,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged files to RUN/.damaged, and go on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that all files of a run can be read and no row is missing; exit with 1 otherwise.

    Reads every page against its checksum, and compares row counts with the manifest and the log.

    Example: rloop store verify runs/demo
    """
    from rloop.session.quarantine import quarantine as move_away
    from rloop.store.verify import verify_run

    found = verify_run(run_dir)
    if as_json:
        print_json(found.as_json())
    else:
        print_table(("what", "checked", "wrong"), found.rows())
        sys.stdout.writelines(f"{line}\n" for line in found.lines())
    if quarantine:
        sys.stderr.writelines(f"{line}\n" for line in move_away(run_dir, found.issues))
    raise typer.Exit(0 if found.is_sound else 1)


@store_app.command("rescore")
def store_rescore(
    run_dir: RunArgument,
    verifier: Annotated[
        str | None,
        typer.Option(help="math, numeric, exact or python:MODULE:FUNCTION; the recipe's own."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New directory; RUN-rescored.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Judge every trajectory again into a new run directory; nothing is sampled.

    The run stays as it is. Policies are not copied: they stay in the run.

    Example: rloop store rescore runs/demo --verifier numeric
    """
    from rloop.session.rescore import rescore

    found = rescore(run_dir, verifier, out)
    if as_json:
        return print_json(found.as_json())
    print_table(("task", "was", "correct", "wrong", "error"), found.confusion_rows())
    sys.stdout.writelines(f"{line}\n" for line in found.lines())

"""The command line: arguments to calls. Heavy rooms are imported inside commands, never above.

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 an `RLoopError`,
2 usage or recipe, 130 interrupted after a clean save.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rloop import __version__
from rloop.cli.evaluate import end_evaluation, end_points, evaluate
from rloop.cli.groups import Commands
from rloop.cli.judge import judge
from rloop.cli.options import JsonOption, RecipeArgument, RunArgument, SetOption
from rloop.cli.start import end, new, recipes, run
from rloop.cli.store import store_app
from rloop.cli.tables import print_json, print_records, print_table, progress_bar
from rloop.errors import ConfigError, RLoopError
from rloop.text import format_value
from rloop.threads import set_threads

app = typer.Typer(
    name="rloop",
    cls=Commands,
    help="Train a language model by RLoop: explore, select, fine-tune, evaluate, and again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(store_app, name="store")

INTERRUPTED = 130


def main() -> None:
    """Run the command line; exit with its code."""
    set_threads()
    try:
        if "WORLD_SIZE" in os.environ:
            from rloop.engines.registry import follows

            if follows(sys.argv[1:]):
                return
        app()
    except RLoopError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except OSError as error:
        # What no room expects of a disk or a folder; the reason is the system's own.
        name = error.filename2 or error.filename
        place = "" if name is None else f"{name}: "
        sys.stderr.write(f"{place}{error.strerror or error}.\n")
        sys.exit(1)


def _version(asked: bool) -> None:  # noqa: FBT001 (a callback of typer)
    if asked:
        sys.stdout.write(f"rloop {__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[  # noqa: FBT002 (an option of typer)
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train a language model by RLoop: explore, select, fine-tune, evaluate, and again."""
    del version


app.command("run")(run)
app.command("new")(new)
app.command("recipes")(recipes)


@app.command()
def resume(
    run_dir: RunArgument,
    recipe_path: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="The same recipe with more budget.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Continue an interrupted run at its last saved point, or an interrupted evaluation.

    A run may get more: --set iterations=4 goes on even with a complete one, as if
    it had had 4 from the start. What decides no result may change too. What would change what is
    done is refused.

    Example: rloop resume runs/demo --set iterations=4
    """
    from rloop.engines.registry import build_engine
    from rloop.loop.manifest import Manifest
    from rloop.session.process import resume as resume_run
    from rloop.session.temperatures import is_planned, measure_points, read_plan

    is_plan = is_planned(run_dir)
    if (is_plan or Manifest(run_dir).is_evaluation) and (recipe_path or overrides):
        raise ConfigError(f"{run_dir} is an evaluation: its settings cannot change.")
    if is_plan:
        code = measure_points(read_plan(run_dir), run_dir, build_engine)
        return end_points(code, run_dir, as_json=False)
    code = resume_run(run_dir, build_engine, recipe_path, overrides or ())
    if Manifest(run_dir).is_evaluation:
        return end_evaluation(code, run_dir, as_json=False)
    end(code, run_dir)


@app.command()
def check(
    recipe_path: RecipeArgument, overrides: SetOption = None, *, as_json: JsonOption = False
) -> None:
    """Check a recipe and its problems; print the first prompt, batch arithmetic, disk and memory.

    Without torch: nothing is sampled.

    Example: rloop check recipes/demo.yaml --set explore.group_size=16
    """
    from rloop.check.recipe import check_recipe
    from rloop.policies.prompts import shown
    from rloop.recipe.load import load_recipe

    recipe = load_recipe(recipe_path, overrides or ())
    with progress_bar("Judging reference answers") as on_progress:
        found = check_recipe(recipe, Path("runs"), on_progress)
    if as_json:
        return print_json(found)
    sys.stdout.writelines(f"{line}\n" for line in found.problems)
    if found.prompt is not None:
        sys.stdout.write(f"First prompt:\n{shown(found.prompt)}\n")
    rows = [
        (row.section, row.name, format_value(row.value, row.unit), row.formula)
        for row in found.demands
    ]
    print_table(("about", "what", "value", "from"), rows)
    for warning in found.warnings:
        sys.stderr.write(f"Warning: {warning}\n")


app.command("judge")(judge)


app.command("eval")(evaluate)


@app.command()
def report(
    run_dir: RunArgument,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run; its last policy joins the pass@k curves."),
    ] = None,
) -> None:
    """Write the run's report, one self-contained page, and print where it is.

    Example: rloop report runs/demo --against runs/demo-rl
    """
    from rloop.report.page import write_report

    sys.stdout.write(f"{write_report(run_dir, against or ())}\n")


@app.command()
def compare(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs, or folders of runs.")
    ],
    reference: Annotated[
        str | None, typer.Option(help="Method to compare with; plain RL, else the first.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; compare.html, in a folder of runs if given.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare methods over seeds, paired on the same problems, with budgets; write a page.

    Runs of one recipe are one method, whatever their seeds. Folders of `rloop eval` count as runs.

    Example: rloop compare runs/demo runs/demo-rl
    """
    _compare(paths, reference, out, as_json=as_json)


@app.command()
def sweep(
    recipe_path: RecipeArgument,
    methods: Annotated[
        str,
        typer.Option(
            help="Of rloop, rl, raft, rest_em, keep_weights, from_base, no_hardness, accumulated, "
            "coverage, likelihood, rl_mix, rloop_mix, replay."
        ),
    ] = "rloop,rl,raft,rest_em,keep_weights",
    seeds: Annotated[
        str, typer.Option(help="A count, from the recipe's seed on, or a list such as 0,3,7.")
    ] = "3",
    overrides: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs; runs/NAME-sweep when absent.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time; each gets its share of the cores.")
    ] = 1,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run methods x seeds of a recipe of RLoop under one budget; then compare them.

    The same command again skips what is complete, resumes what has begun and starts the rest.

    Example: rloop sweep recipes/tiny.yaml --methods rloop,rl,raft --seeds 3
    """
    from rloop.recipe.load import load_recipe
    from rloop.session.sweep import announce_sweep, plan_sweep, run_sweep

    recipe = load_recipe(recipe_path, overrides or ())
    folder = out or Path("runs") / f"{recipe.name}-sweep"
    runs = plan_sweep(recipe, methods, seeds, folder)
    announce_sweep(recipe, runs)
    given = [str(recipe_path), *(f"--set={one}" for one in overrides or ())]
    again = shlex.join(["rloop", *sys.argv[1:]])
    code = run_sweep(runs, recipe, given, again=again, jobs=jobs)
    if code != INTERRUPTED:
        _compare([folder], None, None, as_json=as_json)
    raise typer.Exit(code)


def _compare(paths: list[Path], reference: str | None, out: Path | None, *, as_json: bool) -> None:
    """Print a comparison, write its page, and say what makes it unfair."""
    from rloop.report import compare

    page = compare.page_path(paths, out)
    found = compare.compare_runs(paths, reference)
    if as_json:
        print_json(compare.comparison_json(found))
    else:
        print_table(compare.COLUMNS, compare.table_rows(found))
        sys.stdout.writelines(f"{result.sentence}\n" for result in found.curves)
    for warning in found.warnings:
        sys.stderr.write(f"Warning: {warning}\n")
    sys.stderr.write(f"{found.covers}\nPage: {compare.write_comparison(found, page)}\n")


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="Run directory, or a folder of runs.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of this machine; 0 takes a free one.")
    ] = 8787,
) -> None:
    """Show runs in a browser while they go: progress, curves, every trajectory.

    Prints the address; only this machine can reach it. It reads and never writes.

    Example: rloop view runs --port 8800
    """
    from rloop.view.server import serve

    serve(folder, port)


@app.command()
def export(
    run_dir: RunArgument,
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="New directory; with --gguf a new file.")
    ],
    policy: Annotated[
        str | None,
        typer.Option(help="Its name; the last when absent; best: by the recipe's best_by."),
    ] = None,
    gguf: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        typer.Option(help="Write a GGUF file of this type, for llama.cpp, instead."),
    ] = None,
) -> None:
    """Copy a policy of a run to a directory that transformers and vLLM load, with a model card.

    The card (README.md) and recipe.yaml say what it is, what it cost and what was measured. A GGUF
    file has weights, tokenizer and chat template alone.

    Example: rloop export runs/demo my-model --policy iter-001
    """
    from rloop.report.export import export_policy, find_policy
    from rloop.run_directory import read_run

    if gguf is not None:
        from rloop.policies.gguf_writer import write_gguf

        run = read_run(run_dir)
        name, source = find_policy(run, policy)
        write_gguf(source, target, gguf, name=f"{run.name} {name}")
        sys.stdout.write(f"{source} -> {target}\n")
        return
    source = export_policy(run_dir, target, policy)
    sys.stdout.write(f"{source} -> {target}\n")
    sys.stdout.write(f"{target / 'README.md'} is its model card: read it before you share it.\n")


@app.command()
def config(
    section: Annotated[
        str | None, typer.Argument(help="A key, such as explore; all keys when absent.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the keys of a recipe with their type, default and meaning.

    Example: rloop config explore
    """
    from rloop.recipe.keys import fields_below

    print_records(fields_below(section), as_json=as_json)


@app.command()
def doctor(
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="A Tinker server to ask what it offers.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what works on this machine, and what is missing with the command that installs it.

    Example: rloop doctor --server http://127.0.0.1:8000
    """
    from rloop.check.doctor import examine

    print_records(examine(set_threads(), Path.cwd(), server), as_json=as_json)

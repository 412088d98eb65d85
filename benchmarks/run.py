"""Speed against peers: `python benchmarks/run.py [S1 S2 S3 S5] [--tiny | --full] [--json FILE]`.

Contenders take turns (A B A B), each in a process of its own, on the same weights, prompts and
number of tokens, and with the same threads. Figures are good only where nothing else runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from summary import notes, print_set, summarize
from work_sets import MODELS, OURS, WORK_SETS, Contender, Size

from rloop.loop.environment import environment
from rloop.threads import set_threads

HERE = Path(__file__).parent
QUIET_LOAD = 0.5
"""Load average above which a machine is not quiet."""
Measured = dict[str, dict[str, list[dict[str, Any]]]]
"""Work set to contender to its results, round by round."""
console = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code, 1 when a contender failed or did other work."""
    options = parse(arguments)
    size: Size = "tiny" if options.tiny else "full" if options.full else "short"
    names = options.sets or list(WORK_SETS)
    variables = dict(os.environ)
    set_threads(variables)
    facts = environment(HERE) | {
        "threads": variables["OMP_NUM_THREADS"],
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        work_file = Path(folder) / "work.json"
        work = prepare(work_file, names, size, variables)
        measured = measure(options, names, work_file, variables)
    found = {name: summarize(WORK_SETS[name], work, measured[name]) for name in names}
    facts |= {**work.get("machine", {}), "model": work["model"], "dtype": work["dtype"]}
    show(found, facts)
    if options.json:
        whole = {"size": size, "rounds": options.rounds, "machine": facts, "sets": found}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0 if all(one["is_same_work"] and not one["failed"] for one in found.values()) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; all work sets and peers when none is named."""
    peers = {c.name for work_set in WORK_SETS.values() for c in work_set.contenders} - {OURS}
    parser = argparse.ArgumentParser(description="Measure rloop against its peers.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(WORK_SETS))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="a tiny random model: overhead alone")
    size.add_argument("--full", action="store_true", help="the sizes of published figures (hours)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (3)")
    parser.add_argument("--peers", nargs="*", choices=sorted(peers), help="peers, none for rloop")
    parser.add_argument("--python-vllm", type=Path, metavar="PATH", help="a python that has vLLM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sets if name not in WORK_SETS]
    if unknown:
        parser.error(f"{unknown[0]} is no work set; there are {', '.join(WORK_SETS)}")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.python_vllm:
        # Not resolved: the python of a virtual environment is a link. Contenders run elsewhere.
        options.python_vllm = options.python_vllm.expanduser().absolute()
        if not options.python_vllm.is_file():
            parser.error(f"--python-vllm: there is no {options.python_vllm}")
    return options


def prepare(
    work_file: Path, names: Sequence[str], size: Size, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Write the file that every contender reads, and return what is in it."""
    shapes = {name: WORK_SETS[name].sizes[size] for name in names}
    work_file.write_text(json.dumps(MODELS[size] | shapes))
    if any(WORK_SETS[name].needs_model for name in names):
        console.print("preparing the model and the prompts, measuring the machine")
        script = [sys.executable, str(HERE / "prepare.py"), str(work_file)]
        done = subprocess.run(script, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"prepare.py failed:\n{done.stderr}")
    work: dict[str, Any] = json.loads(work_file.read_text())
    return work


def measure(
    options: argparse.Namespace,
    names: Sequence[str],
    work_file: Path,
    variables: Mapping[str, str],
) -> Measured:
    """Let the contenders take turns, `options.rounds` times."""
    measured: Measured = {name: {} for name in names}
    for number in range(options.rounds):
        for name in names:
            for contender in WORK_SETS[name].contenders:
                if not takes_part(contender, options.peers):
                    continue
                python = options.python_vllm if contender.needs_vllm else None
                console.print(f"round {number + 1} of {options.rounds}, {name}: {contender.label}")
                result = run_contender(contender, python or sys.executable, work_file, variables)
                measured[name].setdefault(contender.name, []).append(result)
    return measured


def takes_part(contender: Contender, peers: Sequence[str] | None) -> bool:
    """Whether it is rloop, or among the peers asked for; None asks for all but the extra ones."""
    if peers is None:
        return not contender.is_extra
    return contender.name in (OURS, *peers)


def run_contender(
    contender: Contender, python: Path | str, work_file: Path, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a contender printed last, or how it failed."""
    begin = time.perf_counter()
    command = [str(python), "-m", f"contenders.{contender.module}", str(work_file)]
    done = subprocess.run(
        command + ([contender.argument] if contender.argument else []),
        cwd=HERE,
        env=variables,
        capture_output=True,
        text=True,
    )
    printed = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not printed:
        console.print(done.stderr[-4000:], markup=False)
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        return {"failed": f"exit code {done.returncode}, its last words: {said}"}
    result: dict[str, Any] = json.loads(printed[-1])
    console.print(f"    {time.perf_counter() - begin:.0f} s with its start")
    return result


def show(found: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    """Print the tables, what is missing from them, and what they were measured on."""
    for name, one in found.items():
        labels = {c.name: c.label for c in WORK_SETS[name].contenders}
        print_set(name, one, labels)
        for note in notes(one, labels):
            print_line(note)
    if "flops_per_s" in facts:
        rate = f"{facts['flops_per_s'] / 1e9:,.0f} GFLOP/s"
        print_line(f"{facts['model']} in {facts['dtype']}, its matrix products at {rate}")
    print_line(
        f"{facts['threads']} of {facts['cores']} cores, commit {facts['git_commit']}, "
        f"load before {facts['load_before']:.2f}"
    )
    if facts["load_before"] > QUIET_LOAD:
        print_line("The machine was not quiet: these figures are not for publication.")


def print_line(text: str) -> None:
    """Print to standard output, where results go."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

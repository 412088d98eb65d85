"""Speed against peers: `python benchmarks/run.py [S1 S4 O ...] [--tiny | --full] [--json FILE]`.

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
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from goals import judge
from rich.console import Console
from summary import notes, print_goals, print_set, summarize
from work_sets import OURS, WORK_SETS, Contender, Size, matching

from rloop.session.environment import environment
from rloop.threads import set_threads

HERE = Path(__file__).parent
QUIET_LOAD = 0.5
"""Load average above which a machine is not quiet."""
Works = dict[str, dict[str, Any]]
"""Work set to what its file holds."""
Measured = dict[str, dict[str, list[dict[str, Any]]]]
"""Work set to contender to its results, round by round."""
console = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code, 1 when a contender failed or did other work."""
    options = parse(arguments)
    size: Size = "tiny" if options.tiny else "full" if options.full else "short"
    variables = dict(os.environ)
    set_threads(variables)
    names = with_device(options.sets, options.device, variables)
    facts = environment(HERE) | {
        "threads": variables["OMP_NUM_THREADS"],
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works = prepare(folder, names, size, options.device, variables)
        measured = measure(options, names, folder, variables)
    found = {name: summarize(WORK_SETS[name], works[name], measured[name]) for name in names}
    for name, one in found.items():
        one["goals"] = [] if size == "tiny" else judge(name, one, is_full=size == "full")
    show(found, facts, is_full=size == "full")
    if options.json:
        whole = {"size": size, "rounds": options.rounds, "machine": facts, "sets": found}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0 if all(one["is_same_work"] and not one["failed"] for one in found.values()) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; all work sets and peers when none is named."""
    peers = {c.name for work_set in WORK_SETS.values() for c in work_set.contenders} - {OURS}
    parser = argparse.ArgumentParser(description="Measure rloop against its peers.")
    known = f"{', '.join(WORK_SETS)}; a beginning such as S4 means all that have it"
    parser.add_argument("sets", nargs="*", metavar="SET", help=known)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="a tiny random model: overhead alone")
    size.add_argument("--full", action="store_true", help="the sizes of published figures (hours)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (3)")
    parser.add_argument("--peers", nargs="*", choices=sorted(peers), help="peers, none for rloop")
    parser.add_argument("--python-vllm", type=Path, metavar="PATH", help="a python that has vLLM")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where G1 to G3 run (cuda)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sets if not matching(name)]
    if unknown:
        parser.error(f"{unknown[0]} is no work set; there are {', '.join(WORK_SETS)}")
    wanted = {name for given in options.sets or [""] for name in matching(given)}
    options.sets = [name for name in WORK_SETS if name in wanted]
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.python_vllm:
        # Not resolved: the python of a virtual environment is a link. Contenders run elsewhere.
        options.python_vllm = options.python_vllm.expanduser().absolute()
        if not options.python_vllm.is_file():
            parser.error(f"--python-vllm: there is no {options.python_vllm}")
    return options


def with_device(names: Sequence[str], device: str, variables: Mapping[str, str]) -> list[str]:
    """Return the work sets that can run; say which need a GPU that is not there."""
    on_gpu = [name for name in names if WORK_SETS[name].on_gpu]
    if not on_gpu or device == "cpu":
        return list(names)
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", code], env=variables).returncode == 0:
        return list(names)
    print_line(f"{', '.join(on_gpu)}: need a GPU that torch can use; there is none here.")
    return [name for name in names if name not in on_gpu]


def prepare(
    folder: Path, names: Sequence[str], size: Size, device: str, variables: Mapping[str, str]
) -> Works:
    """Write the file that the contenders of each work set read; return what is in them."""
    works: Works = {}
    for name in names:
        work_set = WORK_SETS[name]
        model = work_set.model_of(size)
        works[name] = {
            "shape": work_set.sizes[size],
            "device": device if work_set.on_gpu else "cpu",
            "on_gpu": work_set.on_gpu,
            **({"model": model.path, "dtype": model.dtype} if model else {}),
        }
        work_file(folder, name).write_text(json.dumps(works[name]))

    def machine(name: str) -> tuple[str, str]:
        return works[name]["model"], works[name]["device"]

    needing = sorted((name for name in names if "model" in works[name]), key=machine)
    for (path, where), those in groupby(needing, machine):
        console.print(f"preparing {path} and the prompts, measuring the {where}", markup=False)
        files = [str(work_file(folder, name)) for name in those]
        command = [sys.executable, str(HERE / "prepare.py"), *files]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"prepare.py failed:\n{done.stderr}")
    return {name: json.loads(work_file(folder, name).read_text()) for name in names}


def work_file(folder: Path, name: str) -> Path:
    """Return the file that a work set's contenders read."""
    return folder / f"{name}.json"


def measure(
    options: argparse.Namespace,
    names: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
) -> Measured:
    """Let the contenders take turns, `options.rounds` times."""
    measured: Measured = {name: {} for name in names}
    for number in range(options.rounds):
        for name in names:
            # What is for the CPU does not see the GPU.
            on_gpu = WORK_SETS[name].on_gpu and options.device == "cuda"
            seen = variables if on_gpu else {**variables, "CUDA_VISIBLE_DEVICES": ""}
            for contender in WORK_SETS[name].contenders:
                if not takes_part(contender, options.peers):
                    continue
                python = options.python_vllm if contender.needs_vllm else None
                console.print(f"round {number + 1} of {options.rounds}, {name}: {contender.label}")
                file = work_file(folder, name)
                result = run_contender(contender, python or sys.executable, file, seen)
                measured[name].setdefault(contender.name, []).append(result)
    return measured


def takes_part(contender: Contender, peers: Sequence[str] | None) -> bool:
    """Whether it is rloop, or among the peers asked for; None asks for all but the extra ones."""
    if peers is None:
        return not contender.is_extra
    return contender.name in (OURS, *peers)


def run_contender(
    contender: Contender, python: Path | str, file: Path, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a contender printed last, or how it failed."""
    if contender.package and find_spec(contender.package) is None:
        return {"skipped": f"{contender.package} is not installed here"}
    begin = time.perf_counter()
    command = [str(python), "-m", f"contenders.{contender.module}", str(file)]
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


def show(found: dict[str, dict[str, Any]], facts: dict[str, Any], *, is_full: bool) -> None:
    """Print the tables, what is missing from them, and what they were measured on."""
    for name, one in found.items():
        labels = {c.name: c.label for c in WORK_SETS[name].contenders}
        print_set(name, one, labels)
        print_goals(name, one["goals"], is_full=is_full)
        for note in notes(one, labels):
            print_line(note)
    for line in dict.fromkeys(rates(one) for one in found.values() if "machine" in one):
        print_line(line)
    print_line(
        f"{facts['threads']} of {facts['cores']} cores, commit {facts['git_commit']}, "
        f"load before {facts['load_before']:.2f}"
    )
    if facts["load_before"] > QUIET_LOAD:
        print_line("The machine was not quiet: these figures are not for publication.")


def rates(one: Mapping[str, Any]) -> str:
    """Return a work set's model and what was measured of the device with it."""
    machine = one["machine"]
    return (
        f"{one['model']} in {one['dtype']} on {one['device']}: its matrix products at "
        f"{machine['flops_per_s'] / 1e9:,.0f} GFLOP/s, square ones at "
        f"{machine['square_flops_per_s'] / 1e9:,.0f}, copies at "
        f"{machine['bytes_per_s'] / 1e9:,.0f} GB/s"
    )


def print_line(text: str) -> None:
    """Print to standard output, where results go."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One value of proof/small.yaml changed at a time: RLoop, then plain RL's own settings.

    python proof/sensitivity.py DIR [SEEDS]     DIR/NAME/rloop-seed-0 ..., two runs at a time

What is complete is skipped, so the same command goes on where it was stopped. docs/results/small.md
has the picture (proof/pictures.py).
"""

import subprocess
import sys
from pathlib import Path

# Half the recipe's samples; the first row is the recipe itself, measured so.
MEASURE = ["evaluate.samples=32", "evaluate.k=[1,8,32]"]
RLOOP = {
    "the recipe": [],
    "all successes, repeats kept": ["expert.per_problem_cap=null", "expert.dedupe=false"],
    "fine-tuning rate 3e-4": ["finetune.optimizer.learning_rate=3e-4"],
    "fine-tuning rate 3e-5": ["finetune.optimizer.learning_rate=3e-5"],
    "6 x 25 steps": ["iterations=6", "explore.steps=25"],
    "2 x 75 steps": ["iterations=2", "explore.steps=75"],
    "cap 2": ["expert.per_problem_cap=2"],
    "cap 32": ["expert.per_problem_cap=32"],
    "8 at random, repeats kept": ["expert.prefer=random", "expert.dedupe=false"],
    "the newest 8": ["expert.prefer=newest"],
    "success rate at most 0.3": ["expert.max_success_rate=0.3"],
    "half the epochs": ["finetune.epochs=2"],
    "twice the epochs": ["finetune.epochs=8"],
    "successes of all iterations": ["expert.window=accumulated"],
    "inverse-frequency weights": ["expert.weight=inverse_frequency"],
    "importance weights": ["expert.weight=importance"],
}
PLAIN_RL = {
    "KL 0.01": ["explore.kl_coef=0.01"],
    "KL 0.1": ["explore.kl_coef=0.1"],
    "entropy bonus 0.01": ["explore.entropy_coef=0.01"],
    "entropy bonus 0.05": ["explore.entropy_coef=0.05"],
}


def main(folder: Path, seeds: str = "2") -> int:
    """Run every sweep; return 1 where one failed."""
    failed = 0
    rloop = str(Path(sys.executable).with_name("rloop"))
    for method, settings in (("rloop", RLOOP), ("rl", PLAIN_RL)):
        for name, changes in settings.items():
            command = [rloop, "sweep", "proof/small.yaml", "--methods", method, "--seeds", seeds]
            command += ["--jobs", "2", "--out", str(folder / method / name)]
            for change in [*MEASURE, *changes]:
                command += ["--set", change]
            sys.stderr.write(f"{method}, {name}\n")
            failed |= subprocess.run(command, check=False).returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))

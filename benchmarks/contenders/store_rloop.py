"""S5 with rloop's store and selection; `select_diverse` is the recipe's own default preference."""

import tempfile
import time
from pathlib import Path

from contenders.measure import plain_write_s, read_work, report
from contenders.records import steps

from rloop.loop.select import select_and_write
from rloop.recipe.load import load_recipe
from rloop.store.trajectories import TrajectoryStore

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RATES = "select problem_id, avg(correct::int) as success_rate from trajectories group by problem_id"


def main() -> None:
    """Store, query, select and report."""
    work = read_work()
    parts, num_steps = {"append": 0.0}, 0
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        store = TrajectoryStore(run_dir)
        for place, groups in steps(work["shape"]):
            begin = time.perf_counter()
            store.append(place, groups)
            parts["append"] += time.perf_counter() - begin
            num_steps += 1
        limits = {"append": plain_write_s(run_dir, num_steps)}
        begin = time.perf_counter()
        store.query(RATES)
        parts["query"] = time.perf_counter() - begin
        for name, prefer in (("select", "newest"), ("select_diverse", "diverse")):
            recipe = load_recipe(
                RECIPE,
                [
                    "expert.max_success_rate=0.5",
                    "expert.per_problem_cap=4",
                    f"expert.prefer={prefer}",
                ],
            )
            begin = time.perf_counter()
            counts = select_and_write(store, run_dir, recipe, 1)
            parts[name] = time.perf_counter() - begin
        count = store.count()
    report(parts, count=count, check=counts["kept_count"], package="rloop-rl", limits=limits)


if __name__ == "__main__":
    main()

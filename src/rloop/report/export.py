"""Copies out of a run directory: a policy that anyone can load."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rloop.errors import ConfigError, StoreError
from rloop.observe import metric_keys
from rloop.report.model_card import card_license, model_card, resolved_recipe
from rloop.run_directory import Run, read_run
from rloop.types import policy_kind


def export_policy(run_dir: Path, directory: Path, name: str | None = None) -> Path:
    """Copy the policy of that name to a new directory and return where it came from.

    With it go a model card (README.md) and the resolved recipe (recipe.yaml); a card or recipe of
    the base model is kept as README.base.md and recipe.base.yaml. All of it is written or nothing.
    The name is as in `find_policy`.
    """
    run = read_run(run_dir)
    name, source = find_policy(run, name)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file. Choose another directory.")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty. Choose another directory.")
    base = finished_policies(run).get("base")
    base_card = None if base is None else base / "README.md"
    texts = _texts(run, name, directory.resolve().name, base_card)
    try:
        with _written_whole(directory) as partial:
            if (source / "adapter_config.json").is_file():
                from rloop.policies.checkpoint import save_merged

                save_merged(source, partial)
            else:
                shutil.copytree(source, partial, dirs_exist_ok=True)
            _add_texts(partial, texts, base_card)
    except OSError as error:
        # copytree gathers what failed as (source, target, reason).
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror
        raise StoreError(
            f"{source} could not be copied to {directory} ({reason}). Choose another directory."
        ) from error
    return source


def find_policy(run: Run, name: str | None = None) -> tuple[str, Path]:
    """Return a policy's own name and its directory.

    Without a name it is the last policy that the run finished; `best` is `best_policy`.
    """
    policies = finished_policies(run)
    if not policies:
        raise StoreError(f"{run.directory} has no finished policy to export.")
    if name == "best" and name not in policies:
        name = best_policy(run)
    name = name or list(policies)[-1]
    if name not in policies:
        if policy_kind(name) == "explored":
            raise ConfigError(
                f"{run.directory} has not kept {name}: RL's weights are deleted after fine-tuning. "
                "Run with --set keep_explored=true to keep them."
            )
        raise ConfigError(f"{run.directory} has no policy {name!r}; it has {', '.join(policies)}.")
    if not run.is_complete:
        sys.stderr.write(f"{run.directory} is not finished: {name} may not be its last policy.\n")
    return name, policies[name]


def _texts(run: Run, policy: str, directory: str, base_card: Path | None) -> dict[str, str]:
    """Return what is written beside the weights, by file name."""
    if not run.config:
        raise StoreError(f"{run.directory} has no config.json; restore it from a backup.")
    license_name = card_license(base_card) if base_card and base_card.is_file() else None
    return {
        "README.md": model_card(run, policy, directory=directory, license_name=license_name),
        "recipe.yaml": resolved_recipe(run),
    }


def _add_texts(partial: Path, texts: Mapping[str, str], base_card: Path | None) -> None:
    """Write the texts; what stands in their place is the base model's, and is kept."""
    if base_card and base_card.is_file():
        shutil.copyfile(base_card, partial / "README.md")
    for file, text in texts.items():
        path = partial / file
        if path.exists():
            path.rename(path.with_name(f"{path.stem}.base{path.suffix}"))
        path.write_text(text, encoding="utf-8")


@contextmanager
def _written_whole(directory: Path) -> Iterator[Path]:
    """Yield a folder whose files become the directory's at the end; it stays empty where not."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".rloop-", dir=directory) as inside:
        partial = Path(inside)
        yield partial
        for path in list(partial.iterdir()):
            path.rename(directory / path.name)


def best_policy(run: Run) -> str:
    """Return the policy with the highest measure that the recipe's `best_by` names; of equals the
    first. StoreError where no policy that is there was measured.

    It is chosen by the problems it was measured on, so its numbers there are too high.
    """
    best_by = run.config.get("best_by", "avg")
    found = metric_keys.best_policy(run.rows("evaluate"), finished_policies(run), best_by)
    if found is None:
        raise StoreError(f"No policy of {run.directory} has been measured yet.")
    return found


def finished_policies(run: Run) -> dict[str, Path]:
    """Return the policies that lie in the run's directory, by name, in the order they were made."""
    made = [phase for phase in run.phases.values() if phase and "policy" in phase]
    named = {str(phase["policy"]): run.directory / str(phase["path"]) for phase in made}
    return {name: path for name, path in named.items() if path.is_dir()}

"""What could run code out of a file is not in the sources, but where it is listed with a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doubles_runs import toy_recipe

from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.recipe.config import PolicyConfig
from rloop.recipe.load import _Loader

SOURCES = Path(__file__).parents[2] / "src" / "rloop"

MODULES = {
    *("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"),
    *("multiprocessing", "code", "codeop"),
}
"""Read pickles, send them between processes, or run what they are given."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("torch.load", "torch.save", "torch.jit", "torch.hub", "torch.package"),
    *("np.load", "numpy.load", "pd.read_pickle", "pd.eval", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("importlib.import_module", "import_module", "runpy.run_path", "runpy.run_module"),
}
KEYWORDS = {"allow_pickle", "shell", "weights_only"}

ALLOWED = {
    ("recipe/load.py", "yaml.load"),  # with a SafeLoader: the test below
    ("tasks/verifiers/python.py", "importlib.import_module"),  # python:MODULE:FUNCTION of a recipe
    ("tasks/verifiers/rubric.py", "importlib.import_module"),  # verifiers:NAME of a recipe
    ("tasks/verifiers/registry.py", "importlib.import_module"),  # rloop's own verifiers
    ("__init__.py", "import_module"),  # rloop.api, when it is first asked for
    ("observe/sinks.py", "import_module"),  # the four trackers that a recipe can name
}


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield the names of imports, calls and keywords that can run code out of data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in MODULES:
                yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name in BUILTINS)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in METHODS:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    if name in BUILTINS or (name in METHODS and isinstance(call.func, ast.Name)):
        yield name
    for keyword in call.keywords:
        is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in KEYWORDS and not is_off:
            yield f"{name}({keyword.arg}=)"
        is_on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        if keyword.arg == "trust_remote_code" and is_on:
            yield f"{name}(trust_remote_code=True)"


def found_in(folder: Path) -> set[tuple[str, str]]:
    return {
        (path.relative_to(folder).as_posix(), danger)
        for path in folder.rglob("*.py")
        for danger in dangers(ast.parse(path.read_text()))
    }


def test_the_sources_hold_only_what_is_listed():
    assert found_in(SOURCES) == ALLOWED


@pytest.mark.parametrize(
    ("line", "danger"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("import multiprocessing.connection", "multiprocessing.connection"),
        ("weights = torch.load(path)", "torch.load"),
        ("read = torch.load", "torch.load"),
        ("x = eval(text)", "eval"),
        ("exec(compile(text, '', 'exec'))", "compile"),
        ("data = yaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("np.load(file, allow_pickle=True)", "np.load(allow_pickle=)"),
        ("subprocess.run(text, shell=True)", "subprocess.run(shell=)"),
        ("A.from_pretrained(x, trust_remote_code=True)", "A.from_pretrained(trust_remote_code=T"),
        ("from importlib import import_module\nimport_module(name)", "import_module"),
    ],
)
def test_the_scan_finds(line: str, danger: str):
    assert any(found.startswith(danger) for found in dangers(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "re.compile(x)",
        "json.load(f)",
        "load(x, trust_remote_code=flag)",
        "a.load(b)",
    ],
)
def test_the_scan_leaves_alone(line: str):
    assert list(dangers(ast.parse(line))) == []


def test_recipes_are_read_by_a_safe_loader():
    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yaml.load("!!python/object/apply:os.system ['true']", Loader=_Loader)


def test_remote_code_is_off_unless_the_recipe_says_so():
    assert PolicyConfig(path="org/name").trust_remote_code is False


def model_loads() -> list[tuple[str, ast.Call]]:
    """Return every call in the sources that reads a model's weights by transformers."""
    calls = []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_complete":
                calls.append((path.name, node))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                loader = ast.unparse(node.func).removesuffix(".from_pretrained")
                if loader not in ("AutoTokenizer", "AutoConfig", "GenerationConfig"):
                    calls.append((path.name, node))
    return calls


def test_weights_are_read_from_safetensors_and_gguf_files_only():
    own = {
        "checkpoint.py": "a check of what was just written, on the meta device",
        "directory.py": "load_complete's own call: its callers' options",
    }
    plain = [
        name
        for name, call in model_loads()
        if not any(k.arg in ("use_safetensors", "gguf_file") for k in call.keywords)
    ]
    assert sorted(plain) == sorted(own)
    assert len(model_loads()) == 4


def test_a_saved_state_is_safetensors(tmp_path: Path):
    recipe = toy_recipe(tmp_path)
    engine = NativeEngine(recipe)
    engine.prepare("random:llama-1x32", tmp_path / "base", seed=0)
    engine.begin(recipe.explore.optimizer, seed=0)
    sequences = [TrainingSequence(prompt_ids=(5, 6), completion_ids=(7, 2))]
    engine.update(sequences, Objective(loss="sft"), learning_rate=1e-3)
    engine.save_state(tmp_path / "state")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["learner.safetensors"]
    for folder in ("state", "base"):
        for path in (tmp_path / folder).rglob("*.safetensors"):
            # a header's length, then JSON: nothing that could be a pickle or a zip of one
            assert path.read_bytes()[8:9] == b"{"

"""No code from data, no unsafe unpickling, no shell: by the syntax tree of every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FOLDERS = ("moebius", "benchmarks", "tests")
FILES = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNSAFE_YAML = {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}
LOADERS = {"SafeLoader", "CSafeLoader", "_Loader"}
"""`_Loader` is the SafeLoader of moebius/config/yaml_text.py."""
ALLOWED = {
    # Optional libraries by a name that stands in the file.
    ("moebius/deploy/onnx_files.py", "__import__"),
    # They load what they have pickled themselves, or forge what must be refused.
    *((str(path.relative_to(ROOT)), "pickle") for path in FILES if path.is_relative_to(TESTS)),
}


def dangers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What is dangerous in a file, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names] if node.module else []
            yield from ((n.split(".")[0], node.lineno) for n in names if n.split(".")[0] in PICKLES)
        elif isinstance(node, ast.Call):
            called = danger(node)
            if called is not None:
                yield called, node.lineno


def danger(call: ast.Call) -> str | None:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in BUILTINS or name in SHELLS or name in UNSAFE_YAML:
        return name
    if name == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name == "yaml.load" and given.get("Loader", "").rpartition(".")[2] not in LOADERS:
        return "yaml.load without a safe loader"
    flags = ("shell", "trust_remote_code", *(["allow_pickle"] if last == "load" else []))
    for flag in flags:
        if given.get(flag, "False") != "False":
            return f"{last}({flag}={given[flag]})"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_called(path: Path):
    relative = str(path.relative_to(ROOT))
    found = [(what, line) for what, line in dangers(ast.parse(path.read_text(encoding="utf-8")))]
    assert [(w, line) for w, line in found if (relative, w) not in ALLOWED] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("eval('1')", 1),
        ("model.eval()", 0),
        ("exec(code)", 1),
        ("import pickle", 1),
        ("from joblib import load", 1),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("yaml.load(text, Loader=yaml.Loader)", 1),
        ("yaml.load(text, Loader=yaml.SafeLoader)", 0),
        ("yaml.unsafe_load(text)", 1),
        ("np.load(path)", 0),
        ("np.load(path, allow_pickle=True)", 1),
        ("subprocess.run(command, shell=True)", 1),
        ("os.system('ls')", 1),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", 1),
        ("__import__(name)", 1),
    ],
)
def test_the_rule_itself(source: str, count: int):
    assert len(list(dangers(ast.parse(source)))) == count

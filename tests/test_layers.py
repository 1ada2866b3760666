"""The layer rule: a package imports only packages above it, and only doors what doors need."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "moebius"
# From the top; a module may import those of its own layer and of the layers before it.
INNER = (
    "torchvision_schemas",
    "config",
    "blocks",
    "models",
    "data",
    "distill",
    "inference",
    "deploy",
    "evaluation",
)
HEAVY = {"models", "pipelines", "training_utils"}  # parts of diffusers that may import torchvision
HELPERS = {
    "assembly",
    "cluster",
    "console",
    "operations",
    "planning",
    "recipes",
    "scoring",
    "sources",
    "storage",
}  # what doors share
ONLY_IN = {
    "ray": {
        "app",
        "cluster",
        "encode",
        "evaluate",
        "pool",
        "restarts",
        "serving",
        "sweeps",
        "train",
        "tune",
    },
    "gradio": {"app"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def unit(path: Path) -> str:
    """The package directly under moebius, or the module, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    if name in INNER:
        return INNER.index(name)
    return len(INNER) + (name not in HELPERS)


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Dotted names that are imported anywhere in a file, in functions too, and their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
                base = ".".join([*parents, *([base] if base else [])])
            # `from moebius import x` may name a module.
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def violations(source: str, path: Path) -> list[str]:
    own, found = unit(path), []
    package = ".".join(["moebius", *path.relative_to(PACKAGE).parts[:-1]])
    for name, line in imports(ast.parse(source), package):
        root, _, rest = name.partition(".")
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        if root in ONLY_IN and own not in ONLY_IN[root]:
            found.append(f"{where}: only {', '.join(sorted(ONLY_IN[root]))} may")
        other = rest.partition(".")[0]
        is_module = (PACKAGE / other).is_dir() or (PACKAGE / f"{other}.py").is_file()
        if root == "moebius" and not (other and is_module):
            found.append(f"{where}: name the module it comes from")
        elif root == "moebius" and layer(other) > layer(own):
            found.append(f"{where}: {other} lies below {own}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_above_it(path: Path):
    assert violations(path.read_text(), path) == []


@pytest.mark.parametrize(
    ("file", "source", "count"),
    [
        ("blocks/x.py", "from moebius.models.unet import UNet", 1),
        ("blocks/x.py", "def f():\n    import moebius.data.samples", 1),
        ("models/x.py", "from moebius import data", 1),
        ("models/x.py", "from ..data import samples", 1),
        ("models/x.py", "from moebius import build", 1),
        ("models/x.py", "from . import unet\nfrom moebius.config import Stage", 0),
        ("distill/x.py", "from moebius.recipes import merge", 1),
        ("recipes.py", "from moebius.train import main", 1),
        ("tune.py", "from moebius.train import main\nimport ray", 0),
        ("planning/x.py", "def f():\n    from ray import tune", 1),
        ("train.py", "import gradio as gr", 1),
        ("app.py", "import gradio as gr", 0),
    ],
)
def test_the_rule_itself(file: str, source: str, count: int):
    assert len(violations(source, PACKAGE / file)) == count


def mended_first(path: Path) -> bool:
    """Whether torchvision is mended before a file's imports load diffusers, which may import it."""
    if path.parent == PACKAGE:  # ruff sorts diffusers before anything of ours
        return False
    top = PACKAGE / path.relative_to(PACKAGE).parts[0] / "__init__.py"
    return top.exists() and "import moebius.torchvision_schemas" in top.read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torchvision_is_mended_before_diffusers_is_imported(path: Path):
    names = [name for name, _ in imports(ast.parse(path.read_text()), "moebius")]
    heavy = [n for n in names if n.split(".")[:2] in (["diffusers", x] for x in HEAVY)]
    assert not heavy or mended_first(path), heavy


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_moebius_is_light():
    run(
        "import sys, moebius\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'ray', 'gradio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(moebius.__all__) <= set(dir(moebius))\n"
        "try:\n    moebius.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )


def test_everything_imports_without_ray_and_gradio():
    """Doors too, but for the page: they import ray when it is used."""
    names = [
        ".".join(["moebius", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for path in MODULES
        if unit(path) not in ONLY_IN["gradio"]
    ]
    run(
        "import importlib, sys\n"
        "sys.modules.update(dict.fromkeys(('ray', 'gradio')))\n"  # None: ImportError when imported
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "import moebius\n"
        "for name in moebius.__all__:\n    assert getattr(moebius, name)\n"
    )

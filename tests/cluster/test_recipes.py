"""The recipes of cluster/: valid for what reads them, and what they start is understood here."""

import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from moebius import train, tune

from .kubernetes_fields import problems

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
RAYJOBS = sorted(CLUSTER.glob("rayjob-*.yaml"))
LAUNCHED = [CLUSTER / "aws.yaml", CLUSTER / "machines.yaml"]


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def rayjob_entrypoints() -> list[str]:
    return [load(path)["spec"]["entrypoint"] for path in RAYJOBS]


def slurm_entrypoint() -> str:
    lines = (CLUSTER / "slurm.sh").read_text().split("set -- ")[1].split("\nfi")[0]
    return lines.replace("\\\n", " ")


def readme_entrypoints() -> list[str]:
    """What the README submits: from `python` on, of every command of its blocks."""
    text = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
    blocks = "\n".join(text.split("```")[1::2])
    lines = [line.partition("python -m moebius.") for line in blocks.splitlines()]
    return [found + rest.partition("#")[0] for _, found, rest in lines if found]


def entrypoints() -> list[str]:
    """Each command once."""
    found = [*rayjob_entrypoints(), slurm_entrypoint(), *readme_entrypoints()]
    return list(dict.fromkeys(shlex.join(shlex.split(each)) for each in found))


def containers(path: Path) -> list[dict[str, Any]]:
    spec = load(path)["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    return [c for group in groups for c in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
def test_a_rayjob_has_only_what_kuberay_and_kubernetes_know(path: Path) -> None:
    manifest = load(path)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert list(problems(manifest)) == []
    assert manifest["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    for container in containers(path):
        names = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        storage = {e["name"]: e["value"] for e in container["env"]}["MOEBIUS_STORAGE"]
        assert storage.startswith(names["storage"] + "/")


def test_a_mistake_in_a_rayjob_is_noticed() -> None:
    manifest = load(RAYJOBS[0])
    spec = manifest["spec"]
    spec["backofLimit"] = 3
    del spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    pod["containers"][0]["env"][0]["valu"] = "x"
    pod["containers"][0]["resources"]["limits"]["cpu"] = 4
    pod["volumes"] = {}
    head = "RayJob.spec.rayClusterSpec.headGroupSpec"
    first = f"{head}.template.spec.containers.0"
    assert sorted(problems(manifest)) == [
        "RayJob.spec.backofLimit: unknown",
        f"{head}.rayStartParams: missing",
        f"{first}.env.0.valu: unknown",
        f"{first}.resources.limits.cpu: 4 is no str",
        f"{head}.template.spec.volumes: not a list",
    ]


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.stem)
def test_ray_up_takes_the_recipe(path: Path) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema")
    util.validate_config(util.prepare_config(load(path)))


def test_every_place_names_one_image() -> None:
    images = {container["image"] for path in RAYJOBS for container in containers(path)}
    images |= {load(path)["docker"]["image"] for path in LAUNCHED}
    (image,) = images
    assert f"-t {image} ." in (CLUSTER / "Dockerfile").read_text()


def test_the_image_pins_what_moebius_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cluster"], *extras["evaluate"], *extras["search"]]
    lines = (CLUSTER / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for text in asked:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{text}, but {pins[name]} is pinned"
    assert f"FROM rayproject/ray:{pins['ray']}-py311" in (CLUSTER / "Dockerfile").read_text()


def test_the_slurm_script_is_sound() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for command in (["bash", "-n"], [shellcheck]):
        script = [*command, CLUSTER / "slurm.sh"]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("entrypoint", entrypoints())
def test_what_a_recipe_starts_is_understood(
    entrypoint: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    """As far as --dry-run goes: files, names, keys, and batches that divide among the workers."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MOEBIUS_STORAGE", str(tmp_path))
    python, flag, module, *arguments = shlex.split(entrypoint)
    assert (python, flag) == ("python", "-m")
    door = {"moebius.train": train, "moebius.tune": tune}[module]
    plans = {"--plan", "--dry-run"} & set(arguments)
    options = tyro.cli(door.Options, args=[*arguments, *([] if plans else ["--dry-run"])])
    door.main(options)
    assert capsys.readouterr().out

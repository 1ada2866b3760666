"""What KubeRay and Kubernetes take, held against a recipe: unknown or missing fields, types."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes import client

# Fields of KubeRay's RayJob (ray.io/v1) that the recipes may use, as its Go types name them in
# ray-operator/apis/ray/v1/{rayjob,raycluster}_types.go; a type in brackets is required.
RAY: dict[str, dict[str, Any]] = {
    "RayJob": {
        "apiVersion": [str],
        "kind": [str],
        "metadata": ["V1ObjectMeta"],
        "spec": ["RayJobSpec"],
    },
    "RayJobSpec": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "entrypoint": [str],
        "entrypointNumCpus": float,
        "entrypointNumGpus": float,
        "rayClusterSpec": ["RayClusterSpec"],
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "submitterPodTemplate": "V1PodTemplateSpec",
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "RayClusterSpec": {
        "authOptions": "AuthOptions",
        "enableInTreeAutoscaling": bool,
        "headGroupSpec": ["HeadGroupSpec"],
        "rayVersion": str,
        "workerGroupSpecs": "list[WorkerGroupSpec]",
    },
    "AuthOptions": {"mode": str},
    "HeadGroupSpec": {
        "rayStartParams": ["Dict[str, str]"],
        "serviceType": str,
        "template": ["V1PodTemplateSpec"],
    },
    "WorkerGroupSpec": {
        "groupName": [str],
        "idleTimeoutSeconds": int,
        "maxReplicas": [int],
        "minReplicas": [int],
        "numOfHosts": int,
        "rayStartParams": ["Dict[str, str]"],
        "replicas": int,
        "template": ["V1PodTemplateSpec"],
    },
}


def problems(value: Any, kind: Any = "RayJob", where: str = "") -> Iterator[str]:
    """What is wrong with a manifest, one line each, nothing where it is right."""
    where = where or str(kind)
    if isinstance(kind, type):
        kind = {"str": "str", "int": "int", "float": "float", "bool": "bool"}[kind.__name__]
    container = re.fullmatch(r"(?i)(list|dict)\[(?:str, )?(\w+)\]", kind)
    if container:
        holder = list if container[1].lower() == "list" else dict
        if not isinstance(value, holder):
            yield f"{where}: not a {holder.__name__}"
            return
        items = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in items:
            yield from problems(item, container[2], f"{where}.{key}")
    elif kind in RAY or hasattr(client, kind):
        yield from _fields(value, kind, where)
    elif kind != "object":
        allowed = {"str": str, "int": int, "float": (int, float), "bool": bool}[kind]
        if not isinstance(value, allowed) or (kind != "bool" and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {kind}"


def _fields(value: Any, kind: str, where: str) -> Iterator[str]:
    known, required = _schema(kind)
    if not isinstance(value, Mapping):
        yield f"{where}: not a mapping"
        return
    for key in sorted(required - value.keys()):
        yield f"{where}.{key}: missing"
    for key, item in value.items():
        if key not in known:
            yield f"{where}.{key}: unknown"
        else:
            yield from problems(item, known[key], f"{where}.{key}")


def _schema(kind: str) -> tuple[dict[str, Any], set[str]]:
    """Fields of a kind with their types, and those that must be there."""
    if kind in RAY:
        fields = RAY[kind]
        required = {key for key, types in fields.items() if isinstance(types, list)}
        return {k: t[0] if isinstance(t, list) else t for k, t in fields.items()}, required
    model = getattr(client, kind)
    fields = {model.attribute_map[name]: types for name, types in model.openapi_types.items()}
    return fields, set()

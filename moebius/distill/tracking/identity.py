"""What trackers are told of a run: its name, its configuration without secrets, its id there."""

import json
import re
from pathlib import Path
from typing import Any

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder, write_text

PROJECT = "moebius"
"""W&B's project and MLflow's experiment, where the environment names none."""
HIDDEN = "***"
_SECRET_KEY = re.compile(r"token|secret|password|passwd|credential|api_?key|access_?key", re.I)
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(://[^\s?]*)\?\S+")


def public_config(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a mapping for JSON, `without_secrets`."""
    return without_secrets(recipe.model_dump(mode="json", by_alias=True))


def without_secrets(value: Any) -> Any:
    """A copy with `***` for passwords and signatures in URLs, and for what secret keys hold."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if _SECRET_KEY.search(key) and item else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        return _QUERY.sub(rf"\1?{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", value))
    return value


def run_name(folder: Path) -> str:
    """A run's name among others: `quickstart/trials/9` for a trial, else `runs/<its folder>`."""
    parts = folder.absolute().parts
    return "/".join(parts[-3:] if parts[-2] == "trials" else parts[-2:])


def read_id(folder: RunFolder, tracker: str) -> str | None:
    """The id that a run has in a tracker, or `None`."""
    return _read_ids(folder).get(tracker)


def write_id(folder: RunFolder, tracker: str, run_id: str) -> None:
    """Keeps the id that a run has in a tracker, for when it resumes."""
    ids = {**_read_ids(folder), tracker: run_id}
    write_text(folder.path / "trackers.json", json.dumps(ids, indent=1))


def _read_ids(folder: RunFolder) -> dict[str, str]:
    path = folder.path / "trackers.json"
    return json.loads(path.read_text()) if path.is_file() else {}

"""Passwords and tokens, kept out of what a run writes and says."""

import os
import re
from typing import Any

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@\"']+(?=@)")
"""`user:password` of an address."""
_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY|ACCESS_KEY_ID)$", re.IGNORECASE)
"""How names of environment variables end: HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY. Others
may name a file that holds a secret, and files are named in configurations."""
SHORTEST = 8
"""Values with fewer characters are no secrets, and would turn up by chance."""
HIDDEN = "HIDDEN"
"""Stands for itself in YAML, JSON and Markdown."""


def hide_secrets(text: str) -> str:
    """The text without credentials of addresses and values of secret environment variables."""
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return _CREDENTIALS.sub(HIDDEN, text)


def without_secrets(data: Any) -> Any:
    """`hide_secrets` in every text of plain data, keys as they are."""
    if isinstance(data, str):
        return hide_secrets(data)
    if isinstance(data, dict):
        return {key: without_secrets(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_secrets(value) for value in data]
    return data

"""What scoring a batch leaves: kept in a file or sent between workers, then reduced."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file


@dataclass(frozen=True)
class BatchScores:
    """Scores of some pictures, in their order.

    Features are kept, 8 KB a picture and kind, and not their moments, which take 34 MB for any
    number of pictures. Moments made of them later do not depend on the batches.
    """

    rows: list[dict[str, float]]
    """A picture's own scores, by name."""
    features: dict[str, np.ndarray] = field(default_factory=dict)
    """(B, 2048) float32 by `<kind>.real` and `<kind>.fake`."""

    def save(self, path: Path) -> None:
        """Writes a safetensors file, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        save_file(self.features, temporary, {"rows": json.dumps(self.rows)})
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote, to the bit.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            with safe_open(path, framework="np") as file:
                rows = json.loads((file.metadata() or {})["rows"])
                features = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path} holds no scores of a batch: remove it ({error})") from error
        return cls(rows, features)

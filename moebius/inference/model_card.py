"""The model card that every saved pipeline carries."""

from collections.abc import Mapping
from typing import Any

import yaml
from diffusers.models.modeling_utils import ModelMixin

from moebius.models.denoiser import Denoiser

CARD = "README.md"


def model_card(denoiser: Denoiser, vae: ModelMixin, config: Mapping[str, Any]) -> str:
    """A README.md with the Hub's header, from what the pipeline knows of itself.

    Args:
        denoiser: the network.
        vae: the codec's autoencoder.
        config: the pipeline's, with `licence`, `provenance`, `guidance_scale` and `max_side`.
    """
    header = {
        # The Hub knows identifiers only; what they do not cover is "other".
        "license": "unknown" if config["licence"] == "unknown" else "other",
        "license_name": config["licence"],
        "library_name": "diffusers",
        "tags": ["inpainting", "moebius"],
    }
    if _is_identifier(config["licence"]):
        header |= {"license": config["licence"]}
        del header["license_name"]
    rows = {
        "architecture": denoiser.architecture.name,
        "parameters": f"{denoiser.num_parameters():,} (denoiser), {vae.num_parameters():,} (codec)",
        "works at": f"{config['max_side']} px",
        "guidance scale": config["guidance_scale"],
        "licence of the weights": config["licence"],
        "provenance of the weights": config["provenance"],
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""---
{yaml.safe_dump(header, sort_keys=False).rstrip()}
---

# Inpainting pipeline

| | |
| --- | --- |
{table}

```python
import moebius

pipe = moebius.InpaintPipeline.from_pretrained("this folder")
pipe(image=photo, mask_image=mask).images[0]  # white = fill
```
"""


def _is_identifier(licence: str) -> bool:
    """Whether it reads like `apache-2.0`, in lower case and without blanks."""
    return licence == licence.lower() and " " not in licence

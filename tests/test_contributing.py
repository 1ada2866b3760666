"""The examples of CONTRIBUTING.md work as they stand there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import moebius
from moebius.blocks import registry
from moebius.models.denoiser import category_ids
from moebius.sweeps.trials import plan_trials, read_sweep

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's code blocks, each under the name in its first line."""
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(text)
    tables = {slot: dict(table) for slot, table in registry._OPERATORS.items()}
    monkeypatch.setattr(registry, "_OPERATORS", tables)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_blocks", None)


def test_the_operator_is_swept_beside_the_built_in_ones(examples: Path) -> None:
    trials = plan_trials(read_sweep(examples / "my_sweep.yaml"), examples / "run")
    crosses = []
    for trial in trials:
        model = moebius.build(trial.recipe.arch, **trial.recipe.model)
        sample, ids = torch.randn(1, 9, 16, 16), category_ids(torch.tensor([0]))
        out = model(sample, torch.tensor([1]), ids).sample
        assert out.shape == (1, 4, 16, 16)
        blocks = [block.attentions[0].transformer_blocks[0] for block in model.unet.down_blocks]
        crosses.append([registry.name_of(block.attn2) for block in blocks])
    assert crosses == [
        ["interactive_lambda"] * 3,
        ["mean_context"] * 3,
        ["interactive_lambda", "interactive_lambda", "mean_context"],
    ]

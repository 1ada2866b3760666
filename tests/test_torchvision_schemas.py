import subprocess
import sys
from importlib.util import find_spec

import pytest


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize(
    ("module", "libraries"),
    [("evaluation.suite", "torchvision, lpips, torch_fidelity"), ("models", "torchvision")],
)
def test_torchvision_can_be_imported_after(module: str, libraries: str):
    run(
        f"import moebius.{module}, {libraries}\n"
        "import torch\n"
        "assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms\n"
    )


def test_operators_that_are_there_stay():
    run(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "import moebius.torchvision_schemas\n"
    )


def test_nothing_happens_without_torchvision():
    run(
        "import sys\n"
        "sys.modules['torchvision'] = None\n"
        "import moebius.torchvision_schemas\n"
        "assert 'torch' not in sys.modules\n"
    )

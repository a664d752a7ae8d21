"""A command starts without the packages that MONAI imports for features it does not use, and has them when it does."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAN = "from medseg.lean import import_monai_lean; import_monai_lean(); import sys, monai\n"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_heavy_packages_are_left_for_later() -> None:
    heavy = ("scipy.stats", "scipy.signal", "matplotlib", "tifffile", "torch.distributed.fsdp", "sympy", "SimpleITK")
    code = LEAN + f"import medseg.workflows.prediction\nprint([name for name in {heavy} if name in sys.modules])"
    assert run(code) == "[]\n"


@pytest.mark.parametrize(
    "code",
    [
        # names that MONAI took from a stand-in
        "import numpy as np; from monai.transforms.signal.array import iirnotch\n"
        "import scipy.signal; assert np.allclose(iirnotch(60, 30, 200), scipy.signal.iirnotch(60, 30, 200))\n"
        "from monai.visualize.utils import plt; plt.switch_backend('agg'); plt.figure()\n"
        "import matplotlib.pyplot; assert plt.figure is matplotlib.pyplot.figure",
        "from monai.data.ultrasound_confidence_map import hilbert; assert hilbert([1.0, 2.0, 3.0]).shape == (3,)\n"
        "from matplotlib.figure import Figure; Figure()",
        # whoever imports one afterwards gets the real one
        "import scipy; assert scipy.signal.__file__; import scipy.signal as s; assert s is scipy.signal\n"
        "from matplotlib import pyplot; import matplotlib; assert matplotlib.__file__ and pyplot.__file__\n"
        "import torch, torch.distributed.optim as optim; assert optim.__file__ and torch.distributed.optim is optim",
        "import matplotlib.colors; assert matplotlib.__file__\n"
        "import torch; from torch.distributed.fsdp import FullyShardedDataParallel",
    ],
)
def test_they_are_the_real_ones_when_used(code: str) -> None:
    run(LEAN + code)


def test_ignite_still_knows_the_sharded_optimizer() -> None:
    code = """
import torch, torch.distributed as dist
from ignite.handlers.checkpoint import ZeroRedundancyOptimizer as asked
model = torch.nn.Linear(2, 2)
assert not isinstance(torch.optim.SGD(model.parameters(), 0.1), asked)
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from torch.distributed.optim import ZeroRedundancyOptimizer
assert isinstance(ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1), asked)
assert not isinstance(torch.optim.SGD(model.parameters(), 0.1), asked)
dist.destroy_process_group()
"""
    run(LEAN + code)


def test_monai_has_the_same_names_as_after_a_plain_import() -> None:
    names = """
print(sorted((name, sorted(vars(module))) for name, module in sys.modules.items()
             if name.startswith(("monai", "ignite")) and module is not None))
"""
    assert run(LEAN + names) == run("import sys, monai\n" + names)

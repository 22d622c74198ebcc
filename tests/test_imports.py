"""What importing the package brings with it."""

from __future__ import annotations

import subprocess
import sys


def test_the_public_names_import_nothing_that_takes_longer_than_torch() -> None:
    code = (
        "import sys, branchtune\n"
        "for name in branchtune.__all__: getattr(branchtune, name)\n"
        "heavy = {'torchmetrics', 'torchvision', 'timm', 'lightning', 'transformers', 'matplotlib', 'peft', 'onnx'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from branchtune.data.augmentation import Augmentation
from branchtune.errors import UserError


def test_the_module_does_not_import_torch():
    code = "import sys, branchtune.data.augmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", -0.1),
        ("flip", 1.1),
        ("flip", math.nan),
        ("scales", ()),
        ("scales", (1.0, 0.5)),
        ("scales", (math.inf,)),
        ("scales", (math.nan,)),
        ("jitter", 1.0),
        ("jitter", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object):
    with pytest.raises(UserError, match=field):
        Augmentation(**{field: value})

"""Lets a checkout be used that is not installed: import this, or give it to pytest with ``-p from_checkout``."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
if find_spec("mixops") is None:
    sys.path.insert(0, str(ROOT))

import mixops  # noqa: E402

if find_spec("mixops.pipelines") is None:  # the folder lies beside the package and is installed into it
    mixops.__path__.append(str(ROOT))

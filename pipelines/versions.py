"""What a report says of where it was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any


def made_with() -> dict[str, Any]:
    """Versions of mixops, Python, NumPy and torch; CPUs and kind of machine.

    Example:
        >>> list(made_with())
        ['mixops', 'python', 'numpy', 'torch', 'cpus', 'machine']
    """
    return {
        "mixops": version("mixops"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "torch": version("torch"),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }

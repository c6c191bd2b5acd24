"""Time the first call of the kernels in this process, and print the seconds as JSON.

``start_rows.py`` starts it in fresh processes: with an empty kernel cache, then with the one that this left behind.
With ``--one`` it stops after the first kernel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def main() -> None:
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - start

    def load_numba() -> None:
        import numba  # noqa: F401

    def load_mixops() -> None:
        import mixops  # noqa: F401

    timed("import mixops", load_mixops)
    timed("import numba", load_numba)
    import numpy as np

    import mixops as mx

    rng = np.random.default_rng(0)
    x = np.ones((64, 3, 224, 224), np.float32)
    kept = np.ones_like(x)
    images = np.ones((64, 224, 224, 3), np.uint8)
    mixup = mx.Mixup(pairing="flip").draw(rng, mx.Spec(64))
    cutmix = mx.CutMix(pairing="flip").draw(rng, mx.Spec(64, (224, 224)), box=[40, 150, 50, 160])
    tail = mx.Output("b c h w", "float32", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    timed("float32 Mixup, first of all", lambda: mx.mix(x, mixup, "b c h w", out=kept))
    if "--one" not in sys.argv:
        timed("float32 CutMix in place", lambda: mx.mix(x, cutmix, "b c h w", out=x))
        timed("uint8 Mixup", lambda: mx.mix(images, mixup, "b h w c"))
        timed("uint8 CutMix to normalised float32", lambda: mx.mix(images, cutmix, "b h w c", to=tail, out=kept))
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

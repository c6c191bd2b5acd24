"""The demonstration: photographs mixed, a small network trained with and without mixing, and how fast it went.

``python -m mixops.pipelines.demo --out out/demo`` writes one page, ``index.html``, and its numbers, ``report.json``.
"""

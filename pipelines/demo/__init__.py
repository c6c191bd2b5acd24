"""The demonstration: photographs and sentences mixed, small networks trained with and without, and how fast it went.

``python -m mixops.pipelines.demo --out out/demo`` writes the pages ``index.html`` and ``text.html``, and their
numbers, ``report.json``.
"""

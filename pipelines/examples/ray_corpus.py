"""A corpus of text, mixed by span on Ray and by this process: the same files. python ray_corpus.py [cluster address]

On a cluster the folder has to be one that every node reaches, and mixops has to be installed on all.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from mixops.pipelines.corpus.mixing import mix_corpus
from pyarrow import parquet

import mixops as mx

rng = np.random.default_rng(0)
words = [f"word{i}" for i in range(500)]
rows = [rng.choice(words, rng.integers(5, 30)).tolist() for _ in range(5000)]
table = pa.table({"tokens": rows, "label": rng.integers(0, 4, len(rows))})
parquet.write_table(table, "train.parquet", row_group_size=1000)

op = mx.SpanMix(0.1)  # or mx.SSMix(0.1), with a column "saliency" or saliency= a function
fields = {"tokens": mx.Field("b t", "discrete"), "label": mx.Labels(form="pair")}
address = sys.argv[1] if len(sys.argv) > 1 else None
settings = {"seed": 7, "group": 256, "shard": 1024}
done = mix_corpus("train.parquet", op, fields, "mixed", engine="ray", workers=2, address=address, **settings)
mix_corpus("train.parquet", op, fields, "mixed_here", **settings)

for path in Path("mixed").iterdir():
    assert path.read_bytes() == (Path("mixed_here") / path.name).read_bytes()
new = parquet.read_table("mixed/part-000000.parquet").slice(0, 1).to_pylist()[0]
print(f"{done.rows} rows in {len(done.shards)} shards; row 0 is {new['mix_shares'][0]:.2f} itself: {new['tokens'][:8]}")

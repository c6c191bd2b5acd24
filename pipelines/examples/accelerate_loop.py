"""A loop of Accelerate: batches carry their key through it, and are mixed in the workers. python accelerate_loop.py"""

import torch
from accelerate import Accelerator
from mixops.pipelines import KeyedBatchSampler, MixCollator, arrays, digits, keyed
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import mixops as mx

images, labels = digits()
data = arrays(image=images[:256], label=labels[:256])
op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(size=2)
fields = {"image": mx.Field("b c h w"), "label": mx.Labels(10)}
to = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.5)}

# Accelerate shares the batches out among its processes, so the sampler is told of one.
sampler = KeyedBatchSampler(data, 32, shuffle=True, seed=7, drop_last=True, rank=0, world_size=1)
loader = DataLoader(
    keyed(data), batch_sampler=sampler, collate_fn=MixCollator(op, fields, seed=7, to=to), num_workers=1
)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
accelerator = Accelerator(cpu=True)
model, optimizer, loader = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 1e-2), loader)

for epoch in range(3):
    sampler.set_epoch(epoch)
    for batch in loader:
        loss = cross_entropy(model(batch["image"]), batch["label"])
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}")

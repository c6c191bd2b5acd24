"""DistributedDataParallel, partners across ranks, checkpoints. python ddp.py, or torchrun --nproc-per-node 2 ddp.py"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from mixops.pipelines import KeyedBatchSampler, arrays, digits, keyed
from mixops.pipelines.exchange import ExchangeLoader  # MixLoader, and all else as it is: partners on the same rank
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import mixops as mx

if "RANK" in os.environ:  # torchrun sets it; without it this is a training in one process
    dist.init_process_group("gloo")  # nccl, with the model on a GPU
images, labels = digits()
data = arrays(image=images[:512], label=labels[:512])
batches = KeyedBatchSampler(data, 32, shuffle=True, seed=7, pad=False)  # finds its rank by itself
fields = {"image": mx.Field("b c h w"), "label": mx.Labels(10)}
to = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.5)}
loader = ExchangeLoader(DataLoader(keyed(data), batch_sampler=batches), mx.CutMix(1.0), fields, seed=7, to=to)

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
trained = torch.nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
optimizer = torch.optim.SGD(model.parameters(), 0.05)
saved = Path("checkpoint.pt")
if saved.exists():  # as many ranks as before, or any other number
    checkpoint = torch.load(saved, weights_only=True)
    model.load_state_dict(checkpoint["model"])
    loader.load_state_dict(checkpoint["loader"])
while loader.epoch < 2:
    for batch in loader:
        optimizer.zero_grad()
        cross_entropy(trained(batch["image"]), batch["label"]).backward()
        optimizer.step()
    if batches.rank == 0:  # the state is the same on all ranks, after any step
        torch.save({"model": model.state_dict(), "loader": loader.state_dict()}, saved)
        print(f"{loader.epoch} epochs on {batches.world_size} ranks")
if dist.is_initialized():
    dist.barrier()  # gloo's threads outlive the group, and must be done before Python ends
    dist.destroy_process_group()

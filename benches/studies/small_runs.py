"""What the studies on sounds and tables share: rows in memory, and the training of a small network on them by Adam."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from grid import Case
from image_runs import mixed_step
from torch import Tensor, nn

import mixops as mx


class Rows(NamedTuple):
    """Inputs (N, ...) floats, labels (N,) int64, and those of the test set."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def normalised(self) -> Rows:
        """With mean 0 and SD 1 over the training set, of each column; a column without spread is 0."""
        mean, sd = self.x.mean(0), self.x.std(0)
        x, test_x = ((part - mean) / torch.where(sd > 0, sd, 1) for part in (self.x, self.test_x))
        return self._replace(x=x, test_x=test_x)


#: What every case says. Mixing begins after ``warm_up`` epochs; the learning rate is divided by 10 after each epoch of
#: ``drops``.
RECIPE: dict[str, Any] = {"batch": 16, "learning_rate": 1e-3, "drops": [], "warm_up": 0}


def fit(net: nn.Module, case: Case, data: Rows, op: mx.Operator | None, seed: int, layout: str) -> None:
    """Train a network from first weights to last."""
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(place)
    x, y = data.x.to(place), data.y.to(place)
    # One call for all parameters: on small networks the optimiser would take most of the time.
    optimizer = torch.optim.Adam(net.parameters(), case["learning_rate"], fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, case["drops"])
    for epoch in range(case["epochs"]):
        order = torch.from_numpy(mx.streams.order_stream(seed, epoch).permutation(len(x))).to(place)
        mixing = op if epoch >= case["warm_up"] else None
        net.train()
        for step, rows in enumerate(order.split(case["batch"])):
            loss = mixed_step(net, mixing, x[rows], y[rows], mx.streams.plan_stream(seed, epoch, step), layout)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()

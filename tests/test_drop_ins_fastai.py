"""The stand-in for fastai's MixUp and CutMix, in trainings of fastai."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import suppress
from typing import Any

import pytest
import real_peers
import torch
from mixops.pipelines.drop_in import fastai_
from small_images import ROWS, SIZE, X, Y, by_hand, drawn, network, pieces
from tiny_bert import close, weights
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import mixops as mx

real_peers.torchvision_schemas()  # fastai imports torchvision where it is installed

with warnings.catch_warnings():  # fastai 2.8 is older than torch 2.13 and pandas 3, and they say so
    warnings.simplefilter("ignore")
    import fastai.callback.progress  # noqa: F401  # gives Learner its no_bar
    from fastai.callback.core import Callback, CancelFitException
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat, MSELossFlat


def learner(callback: Any, *more: Any, loss: Any = None, y: Any = Y, model: Any = None) -> Any:
    loaders = DataLoaders(DataLoader(TensorDataset(X, y), SIZE), DataLoader(TensorDataset(X, y), SIZE))
    made = Learner(
        loaders,
        network() if model is None else model,
        loss_func=CrossEntropyLossFlat() if loss is None else loss,
        opt_func=fastai_optimizer,
        cbs=[callback, *more],
        train_bn=True,
    )
    return made


def fastai_optimizer(params: Any, lr: float) -> Any:
    from fastai.optimizer import SGD

    return SGD(params, lr)


def run(one: Any, epochs: int = 2) -> Any:
    with one.no_bar(), one.no_logging():
        one.fit(epochs, 0.1)
    return one


OF_FASTAI = mx.OneOf([mx.Mixup(0.4), mx.CutMix(1.0)], per="sample")


def test_fastai_learns_what_a_plain_loop_does() -> None:
    loss = CrossEntropyLossFlat()
    callback = pickle.loads(pickle.dumps(fastai_.BatchMixing(OF_FASTAI, seed=7)))
    one = run(learner(callback, loss=loss))
    assert close(weights(one.model), weights(by_hand(network(), op=OF_FASTAI)))
    assert one.loss_func is loss
    assert loss.reduction == "mean"
    with torch.no_grad():
        plain = F.cross_entropy(one.model(X), Y).item()
    assert one.recorder.values[-1][1] == pytest.approx(plain, rel=1e-5)  # validation is not mixed


def test_numbers_to_regress_on_blend() -> None:
    y, model = torch.linspace(-1, 1, ROWS), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    looped = copy.deepcopy(model)
    one = run(learner(fastai_.BatchMixing(OF_FASTAI, seed=7), loss=MSELossFlat(), y=y, model=model), 1)
    optimizer = torch.optim.SGD(looped.parameters(), 0.1)
    for step, (x, _) in enumerate(pieces()):
        plan = drawn(0, step, x, OF_FASTAI)
        optimizer.zero_grad()
        soft = mx.soft_targets(y[step * SIZE : (step + 1) * SIZE], plan)
        F.mse_loss(looped(mx.mix(x, plan, "b c h w"))[:, 0], soft).backward()
        optimizer.step()
    assert close(weights(one.model), weights(looped))


class Stops(Callback):
    """Ends the fit in the middle of an epoch."""

    def __init__(self, event: str, error: type[BaseException]) -> None:
        setattr(self, event, self.stop)
        self.error = error

    def stop(self) -> None:
        if self.training and self.iter == 2:
            raise self.error


@pytest.mark.parametrize("event", ["after_pred", "after_loss", "after_batch"])
@pytest.mark.parametrize("error", [CancelFitException, KeyboardInterrupt])
def test_a_fit_that_is_cancelled_or_breaks_off_has_its_loss_back(event: str, error: type[BaseException]) -> None:
    loss, stops = CrossEntropyLossFlat(), Stops(event, error)
    one = learner(fastai_.BatchMixing(OF_FASTAI, seed=7), stops, loss=loss)
    with suppress(KeyboardInterrupt):
        run(one)
    assert event == "after_pred" or one.loss_func is loss
    one.remove_cb(stops)
    one.model.load_state_dict(network().state_dict())
    assert close(weights(run(one).model), weights(by_hand(network(), op=OF_FASTAI)))
    assert one.loss_func is loss


def test_a_learner_that_was_sent_elsewhere_validates_unmixed_and_goes_on() -> None:
    one = run(learner(fastai_.BatchMixing(OF_FASTAI, seed=7)), 1)
    again = pickle.loads(pickle.dumps(one))
    with again.no_bar(), torch.no_grad():
        plain = F.cross_entropy(again.model(X), Y).item()
        assert again.validate()[0] == pytest.approx(plain, rel=1e-5)
    assert close(*(weights(run(each, 1).model) for each in (one, again)))


def test_a_loss_of_fastai_may_be_any_function_and_is_mixed_once() -> None:
    def mean(logits: Any, y: Any) -> Any:
        return F.cross_entropy(logits, y)

    op = mx.Mixup(0.4)
    one = run(learner(fastai_.BatchMixing(op, seed=7), loss=mean))
    assert close(weights(one.model), weights(by_hand(network(), op=op)))
    with pytest.raises(mx.MixError, match="one number for the batch"):
        run(learner(fastai_.BatchMixing(OF_FASTAI, seed=7), loss=mean))
    with pytest.raises(mx.MixError, match="expected one: choose by"):
        run(learner(fastai_.BatchMixing(op, seed=7), fastai_.BatchMixing(op, seed=8)))
    for wrong in ({"op": "mixup"}, {"seed": -1}, {"layout": "NCHW"}):
        with pytest.raises(mx.MixError):
            fastai_.BatchMixing(**{"op": OF_FASTAI, "seed": 7, **wrong})

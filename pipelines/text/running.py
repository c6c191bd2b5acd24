"""What trainings on sentences share: checks of the data, torch as it was afterwards, logits, and the measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..metrics import accuracy, calibration_error, negative_log_likelihood
from .buckets import BucketBatchSampler
from .padding import pad_batch
from .recipes import Learner, Recipe
from .sentences import Sentences
from .tokenized import TokenizedSentences

#: Sentences of a batch that is only measured. With four times as many, half of what a transformer reads is padding.
_TEST_BATCH = 64


def check_data(owner: str, train: Any, test: Any, word: str = "train") -> None:
    """Refuse data to train on, called ``word``, and to be measured on that are none, or do not fit each other."""
    for name, data in ((word, train), ("test", test)):
        if not isinstance(data, Sentences):
            raise MixTypeError(f"{owner}: {name} is {type(data).__name__}, expected read_sentences(...) or Sentences")
        if not len(data):
            raise MixValueError(f"{owner}: {name} has no sentence")
    if train.classes != test.classes:
        raise MixValueError(
            f"{owner}: {word} has the classes {list(train.classes)[:8]} and test {list(test.classes)[:8]}, expected "
            f"the same: read_sentences(test, classes={word}.classes)"
        )
    if len(train.classes) < 2:
        raise MixValueError(
            f"{owner}: {word} has the classes {list(train.classes)}, expected two or more: are these the labels?"
        )


@contextmanager
def one_state(owner: str, threads: int, seed: int, device: str) -> Iterator[None]:
    """Torch with these threads and with random numbers that begin at the seed; afterwards as it was."""
    import torch

    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise MixValueError(f"{owner}: threads={threads!r}, expected a whole number of 1 or more")
    try:
        place = torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError, TypeError) as error:  # a build without CUDA asserts
        raise MixValueError(f"{owner}: device={device!r}: {str(error).splitlines()[0]}") from None
    cuda = [torch.cuda.current_device() if place.index is None else place.index] if place.type == "cuda" else []
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed devices that are not ours
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def logits_of(owner: str, output: Any, shape: tuple[int, int]) -> Any:
    """Of a network that returns them, or an object that has them; a MixError if there are none of this shape."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    found = tuple(getattr(logits, "shape", ()))
    if found != shape:
        raise MixTypeError(
            f"{owner}: the network put out {type(output).__name__}{f' of shape {found}' if found else ''}, expected "
            f"logits of shape {shape}, one for each row and class, or an object that has them as .logits"
        )
    return logits


def diverged(owner: str, where: str, number: int, what: str, recipe: Recipe) -> MixValueError:
    """The error of a training that does not converge."""
    return MixValueError(f"{owner}: {where} {number} {what}: lower lr={recipe.lr:g}, or look for what is too large")


def measured_batches(learner: Learner, test: Sentences) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(rows, batch) of all test sentences, the long ones together."""
    tokens = TokenizedSentences(test, learner)
    for rows in BucketBatchSampler(tokens.lengths, _TEST_BATCH, shuffle=False, rank=0, world_size=1):
        batch = pad_batch([tokens[row] for row in rows], pad=learner.pad)
        del batch["labels"]
        yield list(rows), batch


def predicted(
    owner: str, net: Any, batches: list[tuple[list[int], dict[str, Any]]], shape: tuple[int, int]
) -> np.ndarray:
    """(N, C) float64 probabilities."""
    import torch

    net.eval()
    device = next(net.parameters()).device
    found = np.empty(shape)
    with torch.no_grad():
        for rows, batch in batches:
            put_out = net(**{name: value.to(device) for name, value in batch.items()})
            logits = logits_of(owner, put_out, (len(rows), shape[1]))
            found[rows] = torch.softmax(logits.double(), 1).cpu().numpy()
    return found


def scores_of(probs: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Accuracy, negative log-likelihood and calibration error of (N, C) probabilities."""
    return accuracy(probs, labels), negative_log_likelihood(probs, labels), calibration_error(probs, labels)

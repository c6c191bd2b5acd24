"""The sentence networks: what they compute, that padding never shows, and that they can be mixed at every layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.text.models import TextCNN, TextLSTM, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import mixops as mx

VOCABULARY, DIM, CLASSES = 30, 6, 4
MAKERS: dict[str, Callable[..., nn.Module]] = {
    "cnn": lambda e, c: TextCNN(e, c, filters=5),
    "lstm": lambda e, c: TextLSTM(e, c, hidden=5),
    "lstm, one way": lambda e, c: TextLSTM(e, c, hidden=5, bidirectional=False),
    "lstm, last": lambda e, c: TextLSTM(e, c, hidden=5, pool="last"),
    "transformer": lambda e, c: TextTransformer(e, c, width=8, heads=2),
}


def made(name: str, seed: int = 0) -> nn.Module:
    """A network in float64, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MAKERS[name](nn.Embedding(VOCABULARY, DIM, padding_idx=0), CLASSES).double().eval()


def padded(sentences: list[list[int]], more: int = 0) -> dict[str, Tensor]:
    """The batch of some sentences, ``more`` places longer than it need be."""
    width = max(map(len, sentences)) + more
    ids = torch.tensor([s + [0] * (width - len(s)) for s in sentences])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


SENTENCES = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=4)


@pytest.mark.parametrize("name", MAKERS)
@given(SENTENCES, st.integers(0, 8))
@settings(max_examples=15)
def test_a_sentence_gives_the_same_however_far_its_batch_is_padded(
    name: str, sentences: list[list[int]], more: int
) -> None:
    model = made(name)
    with torch.no_grad():
        together = model(**padded(sentences, more))
        alone = torch.cat([model(torch.tensor([s])) for s in sentences])
    assert torch.allclose(together, alone, atol=1e-10)


@pytest.mark.parametrize("name", MAKERS)
def test_every_word_of_a_sentence_counts_and_so_does_their_order(name: str) -> None:
    model = made(name, seed=3)
    first = model(torch.tensor([[5, 9, 2]]))
    for other in ([6, 9, 2], [5, 8, 2], [5, 9, 3], [9, 5, 2]):
        assert not torch.allclose(first, model(torch.tensor([other])), atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_reach_every_weight_and_never_the_padding_row(name: str) -> None:
    model = made(name)
    F.cross_entropy(model(**padded([[5, 9, 2, 7], [3], [8, 8]])), torch.tensor([0, 3, 1])).backward()
    for where, weight in model.named_parameters():
        assert weight.grad is not None, where
        assert bool(weight.grad.any()), where
    assert not bool(model.embedding.weight.grad[0].any())


@pytest.mark.parametrize("name", MAKERS)
def test_words_come_first_and_the_head_is_the_last_linear(name: str) -> None:
    model = made(name)
    assert next(iter(dict(model.named_children()))) == "embedding"
    assert [where for where, one in model.named_modules() if isinstance(one, nn.Linear)][-1] == "head"


def test_the_cnn_is_its_formula() -> None:
    model = made("cnn", seed=1)
    with torch.no_grad():
        model.bias.copy_(torch.linspace(-0.2, 0.2, 15))
    sentence = [4, 17, 9, 22, 8]
    words = model.embedding.weight.detach().numpy()[sentence]
    found = []
    for convolution in model.convolutions:
        weight = convolution.weight.detach().numpy()  # (filters, D, width)
        width = weight.shape[2]
        long = np.concatenate([np.zeros((2 * width, DIM)), words, np.zeros((2 * width, DIM))])
        windows = np.array([(weight * long[t : t + width].T).sum((1, 2)) for t in range(len(long) - width + 1)])
        found.append(windows.max(0))
    hidden = np.maximum(np.concatenate(found) + model.bias.detach().numpy(), 0)
    expected = hidden @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    assert np.allclose(model(torch.tensor([sentence])).detach().numpy()[0], expected, atol=1e-10)


def test_the_lstm_is_torchs_own_on_packed_sentences() -> None:
    model = made("lstm", seed=2)
    batch = padded([[5, 9, 2, 7, 11], [3], [8, 8, 4]], more=2)
    block, packed_lstm = model.blocks[0], nn.LSTM(DIM, 5, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for name, weight in block.forwards.named_parameters():
            getattr(packed_lstm, name).copy_(weight)
        for name, weight in block.backwards.named_parameters():
            getattr(packed_lstm, f"{name}_reverse").copy_(weight)
        words = model.embedding(batch["input_ids"])
        lengths = batch["attention_mask"].sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        states = nn.utils.rnn.pad_packed_sequence(packed_lstm(packed)[0], batch_first=True)[0]
        mean = states.sum(1) / lengths[:, None]
        assert torch.allclose(model(**batch), model.head(mean), atol=1e-10)


def test_the_last_states_are_those_that_a_packed_lstm_ends_with() -> None:
    model = made("lstm, last", seed=2)
    sentence = torch.tensor([[5, 9, 2]])
    block = model.blocks[0]
    with torch.no_grad():
        words = model.embedding(sentence)
        ends = [block.forwards(words)[1][0][0], block.backwards(words.flip(1))[1][0][0]]
        assert torch.allclose(model(sentence), model.head(torch.cat(ends, 1)), atol=1e-10)


def mixed_words(model: nn.Module, batch: dict[str, Tensor], partner: list[int], lam: float) -> Tensor:
    """Logits of word vectors that were mixed by hand, under the union of the masks."""
    words = model.embedding(batch["input_ids"])
    words = lam * words + (1 - lam) * words[partner]
    union = batch["attention_mask"] | batch["attention_mask"][partner]
    given = model.embedding
    model.embedding = nn.Identity()  # type: ignore[assignment]  # hands the vectors on
    try:
        return model(words, union)
    finally:
        model.embedding = given


@pytest.mark.parametrize("name", MAKERS)
def test_words_are_mixed_with_the_union_of_the_masks(name: str) -> None:
    from mixops.pipelines.hidden import mix_hidden

    model, batch, partner = made(name), padded([[5, 9, 2, 7, 11], [3], [8, 8, 4]]), [1, 2, 0]
    plan = mx.WordMixup(1.0).draw(np.random.default_rng(0), mx.Spec(3), lam=0.75, partner=partner)
    with mix_hidden(model, plan.layer, plan):
        ours = model(**batch)
    assert torch.allclose(ours, mixed_words(model, batch, partner, 0.75), atol=1e-6)
    assert not torch.allclose(ours, model(**batch), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "cnn"])
@pytest.mark.parametrize("layer", [0, 1])
def test_hidden_states_are_mixed_with_the_union_of_the_masks_for_all_later_blocks(name: str, layer: int) -> None:
    from mixops.pipelines.hidden import mix_hidden

    model, batch, partner = made(name), padded([[5, 9, 2, 7, 11], [3], [8, 8, 4]]), [1, 2, 0]
    plan = mx.TMix((layer,)).draw(np.random.default_rng(0), mx.Spec(3), lam=0.75, partner=partner)
    with mix_hidden(model, plan.layer, plan), torch.no_grad():
        ours = model(**batch)
    seen: list[Tensor] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(**batch)
        hook.remove()
        states, mask = seen[0], batch["attention_mask"]
        for k, block in enumerate(model.blocks):
            if k == layer:
                states, mask = 0.75 * states + 0.25 * states[partner], mask | mask[partner]
            states = block(states, mask)
        assert torch.allclose(ours, model.head(states), atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_sentences_are_mixed_before_the_head(name: str) -> None:
    from mixops.pipelines.hidden import mix_hidden

    model, batch, partner = made(name), padded([[5, 9, 2, 7, 11], [3], [8, 8, 4]]), [1, 2, 0]
    plan = mx.SentenceMixup(1.0).draw(np.random.default_rng(0), mx.Spec(3), lam=0.75, partner=partner)
    with mix_hidden(model, plan.layer, plan):
        ours = model(**batch)
    plain = model(**batch)  # the head is linear, so mixing before it is mixing behind it
    assert torch.allclose(ours, 0.75 * plain + 0.25 * plain[partner], atol=1e-6)


@pytest.mark.parametrize("maker", [TextCNN, TextLSTM, TextTransformer])
def test_what_cannot_be_trained_is_refused(maker: Callable[..., nn.Module]) -> None:
    good = nn.Embedding(9, 4, padding_idx=0)
    with pytest.raises(mx.MixTypeError, match=r"expected torch\.nn\.Embedding"):
        maker(nn.Linear(3, 4), 2)
    with pytest.raises(mx.MixValueError, match="padding"):
        maker(nn.Embedding(9, 4), 2)
    with pytest.raises(mx.MixValueError, match="padding"):
        maker(nn.Embedding.from_pretrained(torch.ones(9, 4), padding_idx=0), 2)
    for classes in (0, -1, 2.0, True):
        with pytest.raises(mx.MixValueError, match="classes="):
            maker(good, classes)
    for dropout in (-0.1, 1.0):
        with pytest.raises(mx.MixValueError, match="dropout="):
            maker(good, 2, dropout=dropout)


def test_what_only_one_of_them_takes_is_checked_too() -> None:
    good = nn.Embedding(9, 4, padding_idx=0)
    for widths in ((), (0,), (2.5,)):
        with pytest.raises(mx.MixValueError, match="widths="):
            TextCNN(good, 2, widths=widths)  # type: ignore[arg-type]
    with pytest.raises(mx.MixValueError, match="pool='first'"):
        TextLSTM(good, 2, pool="first")
    with pytest.raises(mx.MixValueError, match="multiple of 8"):
        TextTransformer(good, 2, width=12, heads=4)

"""Saliency of tokens: gradients at the word embedding of any model, by one clean pass that leaves nothing behind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hidden_models import build, hf_model, hooks_left, sentences
from mixops.pipelines.saliency import attention_saliency, embedding_saliency
from mixops.pipelines.text.models import TextCNN, TextLSTM, TextTransformer
from real_peers import torchvision_schemas
from torch import Tensor, nn
from torch.nn import functional as F

import mixops as mx

torchvision_schemas()  # Transformers imports torchvision

import transformers as hf  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = [9, 5, 2, 7]
FAMILIES = ["bert-sdpa", "roberta-eager", "distilbert-sdpa", "electra-sdpa", "deberta-eager", "gpt2-sdpa"]
NETWORKS = {"cnn": TextCNN, "lstm": TextLSTM, "transformer": TextTransformer}


@pytest.fixture(scope="module")
def one_thread() -> Any:
    """Tiny matrices are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch_of(lengths: list[int] = LENGTHS, seed: int = 0) -> dict[str, Tensor]:
    labels = torch.from_numpy(np.random.default_rng(seed + 1).integers(0, 3, len(lengths)))
    return {**sentences(lengths, seed), "labels": labels}


def network(name: str, dropout: float = 0.0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        embedding = nn.Embedding(60, 8, padding_idx=0)
        return NETWORKS[name](embedding, 3, dropout=dropout)


def by_inputs_embeds(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The same by another way: the words' vectors are what the model is given."""
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).logits
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, batch["labels"], reduction="sum"), [vectors])
    return torch.where(batch["attention_mask"] > 0, gradient.norm(dim=-1), 0)


def by_rows(model: Any, table: nn.Embedding, batch: dict[str, Tensor]) -> Tensor:
    """The same row by row, by what a hook on the table keeps."""
    scores = torch.zeros(batch["input_ids"].shape, dtype=table.weight.dtype)
    for n in range(len(scores)):
        kept: list[Tensor] = []
        handle = table.register_forward_hook(lambda module, args, output, kept=kept: kept.append(output))
        inputs = {name: batch[name][n : n + 1] for name in ("input_ids", "attention_mask")}
        output = model(**inputs)
        handle.remove()
        loss = F.cross_entropy(getattr(output, "logits", output), batch["labels"][n : n + 1])
        (gradient,) = torch.autograd.grad(loss, kept)
        scores[n] = gradient[0].norm(dim=-1) * batch["attention_mask"][n]
    return scores


# -- it is the gradient ------------------------------------------------------------------------------------------------


# GPT-2 finds the last token by the ids, which cannot be given beside vectors.
@pytest.mark.parametrize("name", FAMILIES[:-1])
def test_saliency_is_the_gradient_at_the_vectors_of_the_words(name: str) -> None:
    model, batch = hf_model(name), batch_of()
    torch.testing.assert_close(embedding_saliency(model, batch), by_inputs_embeds(model, batch))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_has_the_same_scores_alone_and_in_a_batch(name: str) -> None:
    model, batch = hf_model(name), batch_of()
    scores = embedding_saliency(model, batch)
    torch.testing.assert_close(scores, by_rows(model, model.get_input_embeddings(), batch))
    assert (scores[batch["attention_mask"] == 0] == 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_network_has_scores_too(name: str) -> None:
    model, batch = network(name).eval(), batch_of()
    scores = embedding_saliency(model, batch)
    torch.testing.assert_close(scores, by_rows(model, model.embedding, batch))
    assert (scores[batch["attention_mask"] > 0] >= 0).all()
    assert scores.max() > 0


def test_an_encoder_decoder_has_the_scores_of_its_encoder() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 60, "d_model": 16, "num_labels": 3, "dropout_rate": 0.0}
    config = hf.T5Config(**sizes, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    model = hf.T5ForSequenceClassification(config).eval()
    batch = batch_of()
    ends = batch["attention_mask"].sum(1) - 1
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == 1, 5)
    batch["input_ids"][torch.arange(len(ends)), ends] = 1  # the head reads the state of </s>
    scores = embedding_saliency(model, batch)
    assert ((scores > 0) == (batch["attention_mask"] > 0)).all()


def test_the_whole_embedding_block_may_be_named() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    block = embedding_saliency(model, batch, embedding="bert.embeddings")
    assert torch.equal(block, embedding_saliency(model, batch, embedding=model.bert.embeddings))
    assert not torch.allclose(block, embedding_saliency(model, batch))
    states = model.bert.embeddings(batch["input_ids"]).detach().requires_grad_()
    with torch.no_grad():
        expected = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    seen = model.bert.embeddings.register_forward_hook(lambda module, args, output: states)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    seen.remove()
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, batch["labels"], reduction="sum"), [states])
    torch.testing.assert_close(block, gradient.norm(dim=-1) * batch["attention_mask"])


def test_another_loss_gives_other_scores() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()

    def double(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return 2 * F.cross_entropy(logits, labels, reduction=reduction)

    def mean_only(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    plain = embedding_saliency(model, batch)
    torch.testing.assert_close(embedding_saliency(model, batch, double), 2 * plain)
    torch.testing.assert_close(embedding_saliency(model, batch, mean_only), plain)
    targets = {**batch, "labels": F.one_hot(batch["labels"], 3).double()}
    torch.testing.assert_close(embedding_saliency(model, targets, F.cross_entropy), plain)


# -- it leaves nothing behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_gradients_weights_mode_and_hooks_stay_as_they_were(training: bool) -> None:
    model, batch = build("bert-sdpa").train(training), batch_of()
    some = model.classifier.weight
    some.grad = torch.ones_like(some)
    state = copy.deepcopy(model.state_dict())
    scores = embedding_saliency(model, batch)
    assert not scores.requires_grad
    assert torch.equal(some.grad, torch.ones_like(some))
    assert all(p.grad is None for p in model.parameters() if p is not some)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training == training
    assert hooks_left(model) == 0


def test_dropout_is_that_of_the_mode() -> None:
    batch = batch_of()
    model = network("cnn", dropout=0.5)
    still = [embedding_saliency(model.eval(), batch) for _ in range(2)]
    drawn = [embedding_saliency(model.train(), batch) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("name", ["bert-sdpa", "deberta-eager"])
def test_frozen_words_have_the_same_scores(name: str) -> None:
    batch = batch_of()
    model = build(name).eval()
    expected = embedding_saliency(model, batch)
    model.get_input_embeddings().weight.requires_grad_(False)
    torch.testing.assert_close(embedding_saliency(model, batch), expected)
    model.requires_grad_(False)
    torch.testing.assert_close(embedding_saliency(model, batch), expected)


def test_it_works_where_gradients_are_off_and_under_autocast() -> None:
    model, batch = build("bert-sdpa").eval(), batch_of()
    expected = embedding_saliency(model, batch)
    with torch.no_grad():
        assert torch.equal(embedding_saliency(model, batch), expected)
        assert not torch.is_grad_enabled()
    with torch.autocast("cpu", torch.bfloat16):
        rough = embedding_saliency(model, batch)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, expected, rtol=0.1, atol=0.05 * float(expected.max()))


def test_a_model_of_halves_has_scores_in_float32() -> None:
    scores = embedding_saliency(build("bert-sdpa").bfloat16().eval(), batch_of())
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()


def test_a_model_that_changes_its_vectors_in_place_has_the_same_scores() -> None:
    class InPlace(nn.Module):
        def __init__(self, inner: Any, in_place: bool) -> None:
            super().__init__()
            self.embedding, self.head, self.in_place = inner.embedding, nn.Linear(8, 3), in_place

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            words = self.embedding(input_ids)
            words = words.mul_(3.0) if self.in_place else words * 3.0
            return self.head((torch.tanh(words) * attention_mask[..., None]).sum(1))

    torch.manual_seed(0)
    batch, one = batch_of(), InPlace(network("cnn"), True)
    other = copy.deepcopy(one)
    other.in_place = False
    for _ in ("trained", "frozen"):
        assert torch.equal(embedding_saliency(one, batch), embedding_saliency(other, batch))
        one.embedding.weight.requires_grad_(False)


def test_entries_for_operators_do_not_reach_the_model() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    more = {
        "special_tokens_mask": torch.zeros_like(batch["input_ids"]),
        "segments": torch.zeros_like(batch["input_ids"]),
        "lengths": torch.tensor(LENGTHS),
    }
    assert torch.equal(embedding_saliency(model, {**batch, **more}), embedding_saliency(model, batch))
    called_label = {"label" if name == "labels" else name: value for name, value in batch.items()}
    assert torch.equal(embedding_saliency(model, called_label), embedding_saliency(model, batch))


def test_ssmix_takes_the_scores() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    scores = embedding_saliency(model, batch)
    spec = mx.Spec.like(batch["input_ids"], "b t", lengths=np.array(LENGTHS))
    plan = mx.SSMix(0.3).draw(np.random.default_rng(0), spec, saliency=scores, partner=[1, 0, 3, 3])
    own, donor = scores[0, 1:8].numpy(), scores[1, 1:4].numpy()
    starts = np.convolve(own, np.ones(2), "valid"), np.convolve(donor, np.ones(2), "valid")
    assert plan.box[0, 0].tolist() == [1 + starts[0].argmin(), 3 + starts[0].argmin()]
    assert plan.donor[0, 0].tolist() == [1 + starts[1].argmax(), 3 + starts[1].argmax()]


# -- refusals ----------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """Reads its words twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(60, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.embedding(input_ids).mean(1) + self.embedding(input_ids.flip(1)).mean(1))


class Apart(nn.Module):
    """Does not look at its words, or looks without gradients."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.embedding, self.head, self.detach = nn.Embedding(60, 8), nn.Linear(8, 3), detach

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.embedding(input_ids).detach().mean(1)
        return self.head(words).detach() if self.detach else self.head(words)


class Says(nn.Module):
    """Gives what it is made with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.embedding, self.answer = nn.Embedding(60, 8), answer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        self.embedding(input_ids)
        return self.answer


REFUSED = [
    (lambda: nn.Sequential(nn.Linear(3, 3)), {}, {}, "expected one nn.Embedding, Sequential has none"),
    (
        lambda: nn.Sequential(nn.Embedding(3, 3), nn.Embedding(3, 3)),
        {},
        {},
        "has several: 0, 1; name the one of the words",
    ),
    (lambda: network("cnn"), {}, {"embedding": "nowhere"}, "TextCNN has no such module"),
    (lambda: network("cnn"), {}, {"embedding": "head"}, "put out torch.float32 .* expected vectors of the words"),
    (lambda: network("cnn"), {"labels": None}, {}, "the batch has no 'labels'"),
    (lambda: network("cnn"), {"labels": torch.zeros(4)}, {}, "takes a loss fn"),
    (lambda: network("cnn"), {"labels": torch.tensor([0, 1, 2, 3])}, {}, "expected class ids of 0 to 2"),
    (lambda: network("cnn"), {"labels": torch.tensor([0, 1])}, {}, r"labels torch.int64 \(2,\) and logits \(4, 3\)"),
    (lambda: Twice(), {}, {}, r"'words' \(embedding\) ran twice in one forward"),
    (lambda: Apart(False), {}, {}, "the loss does not depend on what 'words'"),
    (lambda: Apart(True), {}, {}, "the loss has no gradient"),
    (lambda: Says("yes"), {}, {}, "the model returned str without logits"),
    (lambda: Says({"loss": 1}), {}, {}, "the model returned dict without logits"),
]


@pytest.mark.parametrize(("make", "other", "options", "said"), REFUSED)
def test_what_has_no_saliency_is_refused(make: Any, other: dict[str, Any], options: Any, said: str) -> None:
    model = make()
    with pytest.raises(mx.MixError, match=said):
        embedding_saliency(model, {**batch_of(), **other}, **options)
    assert hooks_left(model) == 0


def test_a_mask_of_another_shape_a_list_and_vectors_in_place_of_ids_are_refused() -> None:
    model, batch = build("bert-sdpa"), batch_of()
    with pytest.raises(mx.MixValueError, match=r"attention_mask has shape \(4, 8\)"):
        embedding_saliency(network("cnn"), {**batch, "attention_mask": batch["attention_mask"][:, :8]})
    with pytest.raises(mx.MixTypeError, match="the batch is list"):
        embedding_saliency(model, [batch])
    vectors = {"inputs_embeds": torch.zeros(4, 9, 32), "labels": batch["labels"]}
    with pytest.raises(mx.MixValueError, match=r"'words' .* did not run"):
        embedding_saliency(model, vectors)


def test_wrappers_that_keep_hooks_out_are_refused() -> None:
    batch = batch_of()
    with pytest.raises(mx.MixTypeError, match="embedding_saliency: DataParallel"):
        embedding_saliency(nn.DataParallel(network("cnn")), batch)
    with pytest.raises(mx.MixValueError, match=r"embedding_saliency: .* is compiled"):
        embedding_saliency(torch.compile(network("cnn"), backend="eager"), batch)


# -- attention ---------------------------------------------------------------------------------------------------------


def received(attentions: list[Tensor], mask: Tensor) -> Tensor:
    """The definition, as loops."""
    scores = torch.zeros(mask.shape)
    for n, k in np.ndindex(*mask.shape):
        if mask[n, k]:
            seen = [one[n, h, q, k] for one in attentions for h in range(one.shape[1]) for q in range(9) if mask[n, q]]
            scores[n, k] = torch.stack(seen).mean()
    return scores


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_attention_scores_are_the_mean_over_layers_heads_and_real_queries(layers: int) -> None:
    model, batch = build("bert-eager").eval(), batch_of()
    mask = batch["attention_mask"]
    with torch.no_grad():
        out = model(input_ids=batch["input_ids"], attention_mask=mask, output_attentions=True)
    scores = attention_saliency(out.attentions, mask, layers=layers)
    torch.testing.assert_close(scores, received(list(out.attentions[-layers:]), mask))
    torch.testing.assert_close(scores.sum(1), torch.ones(len(mask)))
    assert (scores[mask == 0] == 0).all()
    whole = attention_saliency(out.attentions[-1])
    torch.testing.assert_close(whole, received([out.attentions[-1]], torch.ones_like(mask)))


def test_attention_scores_of_a_row_without_tokens_are_zero() -> None:
    assert attention_saliency(torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("attentions", "options", "said"),
    [
        ((), {}, "eager"),
        ((None, None), {}, "eager"),
        (None, {}, "eager"),
        (torch.zeros(2, 1, 3, 3), {"layers": 2}, "layers=2, and there are attentions of 1"),
        (torch.zeros(2, 1, 3, 3), {"layers": 0}, "layers=0"),
        (torch.zeros(2, 1, 3, 4), {}, r"\(2, 1, 3, 4\)"),
        ([torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 4, 4)], {"layers": 2}, "expected .B, H, T, T."),
        (torch.zeros(2, 1, 3, 3), {"attention_mask": torch.ones(2, 4)}, "attention_mask has shape"),
    ],
)
def test_attentions_that_are_none_are_refused(attentions: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        attention_saliency(attentions, **options)

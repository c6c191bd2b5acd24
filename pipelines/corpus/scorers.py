"""What judges a new sentence: functions of lists of sentences that return a perplexity each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .ngrams import NGramModel

__all__ = ["CausalLMScorer", "NGramModel"]

#: Logits of the same tokens may differ by this share of the largest.
_SLACK = 0.05


class CausalLMScorer:
    """Perplexity of sentences under a causal language model of Hugging Face: exp(-mean log p(piece | those before)).

    Called with n sentences (sequences of words), it returns (n,) float64. Every piece of a sentence is predicted, the
    first one from the tokenizer's beginning-of-sequence token (or its end-of-sequence token, as in GPT-2); without
    either the first piece is not, and a sentence of one piece gets NaN, which rejects it. So does a sentence of none.

    Args:
        model: with ``logits`` in what it returns, ``AutoModelForCausalLM.from_pretrained(...)`` say.
        tokenizer: that belongs to it.
        batch_size: sentences at once, 1 or more.
        device: that the model is moved to; None leaves it where it is.
        join: makes a text of the words of a sentence; None puts blanks between them.

    Raises:
        MixError: if batch_size is out of range, or the tokenizer is not callable; when called, if the model returns no
            logits, or its logits depend on tokens that come later, as those of BERT do.

    Source:
        The discriminator of Zhang, Yu, Zhang, "SeqMix: Augmenting Active Sequence Labeling via Sequence Mixup",
        EMNLP 2020, section 3.3: GPT-2, accepted where the perplexity lies in (0, 500).

    Differs from it:
        The first word is judged, too. Sentences longer than the model's positions are judged by their first pieces.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int = 32,
        device: Any = None,
        *,
        join: Callable[[Sequence[str]], str] | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise MixValueError(f"CausalLMScorer: batch_size={batch_size!r}, expected a whole number of 1 or more")
        if not hasattr(model, "parameters") or not callable(model):
            raise MixTypeError(f"CausalLMScorer: model is {type(model).__name__}, expected a causal language model")
        if not callable(tokenizer):
            raise MixTypeError(f"CausalLMScorer: tokenizer is {type(tokenizer).__name__}, expected that of the model")
        self.model = model.to(device) if device is not None else model
        self.tokenizer, self.batch_size, self.join = tokenizer, int(batch_size), join or " ".join
        begin = tokenizer.bos_token_id
        self._checked = False
        self._begin: list[int] = [begin if begin is not None else tokenizer.eos_token_id]
        if self._begin == [None]:
            self._begin = []

    def __repr__(self) -> str:
        return f"<CausalLMScorer: {type(self.model).__name__}, {self.batch_size} sentences at once>"

    def __call__(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        import torch

        if isinstance(sentences, str) or any(isinstance(words, str) for words in sentences):
            raise MixTypeError("CausalLMScorer: got a text, expected a list of sentences, each a list of words")
        most = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        rows = [[*self._begin, *self._pieces(words)][:most] for words in sentences]
        scores = np.full(len(rows), np.nan)
        # Sentences of one length lie in one batch, so little of it is padding. The longest come first: if memory is
        # short, that is known at once.
        order = sorted((i for i, row in enumerate(rows) if len(row) > 1), key=lambda i: (-len(rows[i]), i))
        was_training = bool(self.model.training)
        self.model.eval()
        try:
            with torch.inference_mode():
                if order and not self._checked:
                    self._check_causal()
                for start in range(0, len(order), self.batch_size):
                    chosen = order[start : start + self.batch_size]
                    scores[chosen] = self._perplexities([rows[i] for i in chosen])
        finally:
            self.model.train(was_training)
        return scores

    def _check_causal(self) -> None:
        """What a token is predicted by must not depend on those behind it: BERT answers, too, and means nothing."""
        import torch

        ids = torch.tensor([[0, 0, 0], [0, 0, 1]], device=next(self.model.parameters()).device)
        logits = getattr(self.model(input_ids=ids, attention_mask=torch.ones_like(ids)), "logits", None)
        if logits is None:
            raise MixTypeError(
                f"CausalLMScorer: {type(self.model).__name__} returns no logits, expected a model with a language "
                "modelling head: AutoModelForCausalLM"
            )
        one, other = logits[:, :2].float()
        # Half precision in two rows of a batch may differ by a rounding; what is seen ahead changes far more.
        if float((one - other).abs().max()) > _SLACK * max(float(one.abs().max()), 1.0):
            raise MixTypeError(
                f"CausalLMScorer: {type(self.model).__name__} sees the tokens that it is to predict, expected a causal "
                "language model, such as GPT-2"
            )
        self._checked = True

    def _pieces(self, words: Sequence[str]) -> list[int]:
        return list(self.tokenizer(self.join(list(words)), add_special_tokens=False)["input_ids"])

    def _perplexities(self, rows: list[list[int]]) -> list[float]:
        """Of rows of two pieces or more, the longest of them first."""
        import torch

        device = next(self.model.parameters()).device
        ids = torch.zeros(len(rows), len(rows[0]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        # Padding is to the right, where a causal model does not look, so what it is made of is nobody's business.
        output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        logits = output.logits
        return [
            # One row at a time: the logits of a whole batch in float32 would be the largest array by far.
            float(
                torch.nn.functional.cross_entropy(logits[i, : len(row) - 1].float(), ids[i, 1 : len(row)].to(device))
                .double()
                .exp()
            )
            for i, row in enumerate(rows)
        ]

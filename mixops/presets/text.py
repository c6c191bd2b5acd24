"""Methods of papers on text that are configurations of what is there already."""

from __future__ import annotations

from ..ops.sentence_mixup import SentenceMixup


def mixup_transformer(
    lam: float | None = 0.5, alpha: float = 1.0, start_step: int | None = None, layer: str | int = "sentence"
) -> SentenceMixup:
    """Mixup-Transformer: blend the vectors that a transformer makes of two texts, before the classifier.

    Args:
        lam: the fixed own share, in [0, 1]; None draws λ ~ Beta(alpha, alpha), one a batch.
        alpha: concentration of the Beta, 0 or more; without a say where lam is given.
        start_step: first step of the training at which it acts ("dynamic" mixing, late in the training); None: from
            the start. See ``Spec(step=...)``.
        layer: where the vector is; "sentence": what the last linear layer takes. The pooled output of a BERT before its
            dropout is "bert.pooler".

    Returns:
        A SentenceMixup.

    Raises:
        MixError: if lam, alpha or start_step is out of range.

    Example:
        >>> mixup_transformer(start_step=500)
        SentenceMixup(lam=0.5, start_step=500)

    Source:
        Sun, Xia, Yin, Liang, Yu, He, "Mixup-Transformer: Dynamic Data Augmentation for NLP Tasks", COLING 2020.

    Differs from it:
        By default after the classifier's dropout rather than before it. No code of the authors is public to compare.
    """
    return SentenceMixup(alpha, layer, lam=lam, start_step=start_step)

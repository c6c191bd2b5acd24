"""Stand-ins for what people type already, one module for each library: change the import, keep the line.

``mixops.pipelines.drop_in.timm_``: ``Mixup``, ``FastCollateMixup``.
``.torchvision_``: ``MixUp``, ``CutMix``, ``BatchMix``.
``.huggingface``: ``ImageMixing``, a callback and a loss for Trainer.
``.lightning_``: ``BatchMixing``, a callback that mixes batches.
``.fastai_``: ``BatchMixing``, a callback that mixes batches.

None of them imports its library before it is used.
"""

"""A ViT in Hugging Face's Trainer, on Mixup and CutMix and a loss for soft labels. python trainer_vit.py"""

import tempfile

import torch
from mixops.pipelines import digits
from mixops.pipelines.drop_in.huggingface import ImageMixing
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import mixops as mx

images, labels = digits()
data = [
    {"pixel_values": torch.from_numpy(image).float() / 255, "labels": int(label)}
    for image, label in zip(images[:288], labels[:288], strict=True)
]
size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
config = ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **size)
mixing = ImageMixing(mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]), seed=7, smoothing=0.1)  # 1 of 2
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(
        folder, num_train_epochs=2, per_device_train_batch_size=32, report_to="none", use_cpu=True, logging_steps=8
    )
    trainer = Trainer(
        ViTForImageClassification(config),
        args,
        train_dataset=data[:256],
        eval_dataset=data[256:],  # never mixed
        callbacks=[mixing],
        compute_loss_func=mixing.loss,  # 2 of 2
    )
    trainer.train()
    print(trainer.evaluate())

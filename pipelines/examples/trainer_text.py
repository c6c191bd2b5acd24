"""TMix inside a BERT, in Hugging Face's Trainer: a mixin and two arguments. python trainer_text.py"""

import tempfile

import torch
from mixops.pipelines.trainer import TrainerMixin
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import mixops as mx

torch.manual_seed(0)
data = []
for _ in range(128):
    ids = torch.randint(1, 100, (12,))
    data.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids[0]) % 4})


class MixTrainer(TrainerMixin, Trainer):  # the mixin comes first
    """Hugging Face's Trainer, mixing."""


size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
model = BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=4, **size))
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(
        folder, num_train_epochs=2, per_device_train_batch_size=16, report_to="none", use_cpu=True, logging_steps=8
    )
    trainer = MixTrainer(model, args, train_dataset=data, eval_dataset=data[:32], mix=mx.TMix({1, 2}), mix_seed=7)
    trainer.train()
    print(trainer.evaluate())

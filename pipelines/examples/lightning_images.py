"""Lightning: a callback mixes every training batch, on the device, before training_step. python lightning_images.py"""

import lightning
import torch
from mixops.pipelines import digits
from mixops.pipelines.drop_in.lightning_ import BatchMixing
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import mixops as mx


class Classifier(lightning.LightningModule):
    """A small network; its step takes soft labels as cross_entropy does."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        """Loss on what was mixed."""
        images, soft = batch
        loss = cross_entropy(self.net(images), soft)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-2)


images, labels = digits()
data = TensorDataset(torch.from_numpy(images[:256]).float() / 255, torch.from_numpy(labels[:256]))
mixing = BatchMixing(mx.CutMix(1.0), {0: mx.Field("b c h w"), 1: mx.Labels(10)}, seed=7)
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", callbacks=[mixing], logger=False, enable_checkpointing=False, log_every_n_steps=1
)
trainer.fit(Classifier(), DataLoader(data, 64, shuffle=True))
print(mixing.plan)  # what was drawn for the last batch

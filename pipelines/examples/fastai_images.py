"""fastai: cbs=BatchMixing(op, seed) where cbs=MixUp() was. python fastai_images.py"""

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from mixops.pipelines import digits
from mixops.pipelines.drop_in.fastai_ import BatchMixing  # was: from fastai.callback.mixup import MixUp
from torch.utils.data import DataLoader, TensorDataset

import mixops as mx

images, labels = digits()
x, y = torch.from_numpy(images[:320]).float() / 255, torch.from_numpy(labels[:320])
train, valid = TensorDataset(x[:256], y[:256]), TensorDataset(x[256:], y[256:])
loaders = DataLoaders(DataLoader(train, 64, shuffle=True), DataLoader(valid, 64))

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
mixing = BatchMixing(mx.OneOf([mx.Mixup(0.4), mx.CutMix(1.0)]), seed=7)
learner = Learner(loaders, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, cbs=mixing)
learner.fit(3, 1e-2)
print(mixing.plan)  # what was drawn for the last batch

"""Keras 3 on the backend that KERAS_BACKEND names: mixed batches for fit. KERAS_BACKEND=jax python keras_fit.py"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
from mixops.pipelines import digits
from mixops.pipelines.keras_ import FollowEpochs, MixPyDataset

import mixops as mx

images, labels = digits()
images = images.reshape(-1, 8, 8, 1).astype("float32") / 255
op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], until=3) | mx.Cutout(size=2)  # mixing is off in the last epoch
fields = {0: mx.Field("b h w c"), 1: mx.Labels(10)}
data = MixPyDataset((images[:1500], labels[:1500]), op, fields, seed=7, batch_size=64)
held_out = MixPyDataset((images[1500:], labels[1500:]), op, fields, seed=7, batch_size=64, training=False)

model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
loss = keras.losses.CategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
options = {"shuffle": False, "callbacks": [FollowEpochs(data)], "verbose": 0}  # the data set shuffles rows itself
history = model.fit(data, epochs=4, validation_data=held_out, **options).history
print(f"on {keras.backend.backend()}: accuracy on held-out digits {history['val_accuracy'][-1]:.2f}")

"""A tf.data pipeline mixed on the host, two lines more. python tf_data.py"""

import numpy as np
import tensorflow as tf
from mixops.pipelines import digits
from mixops.pipelines.tf_ import mixed_dataset

import mixops as mx

images, labels = digits()
images = np.ascontiguousarray(images.reshape(-1, 8, 8, 1)).astype("float32") / 255
data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(2048, seed=1).batch(64)

op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)])
data = data.apply(mixed_dataset(op, {0: mx.Field("b h w c"), 1: mx.Labels(10)}, seed=7)).prefetch(2)

weights, bias = tf.Variable(tf.zeros((64, 10))), tf.Variable(tf.zeros(10))
for epoch in range(3):  # each pass over the dataset is the next epoch of its draws
    for x, soft in data:
        with tf.GradientTape() as tape:
            logits = tf.reshape(x, (-1, 64)) @ weights + bias
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(soft, logits))
        for variable, gradient in zip((weights, bias), tape.gradient(loss, (weights, bias)), strict=True):
            variable.assign_sub(0.5 * gradient)
    print(f"epoch {epoch}: loss {loss.numpy():.3f}, {data.element_spec[1].shape} soft labels a batch")

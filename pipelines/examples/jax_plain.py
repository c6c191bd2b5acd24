"""A training step of JAX that mixes: the plan is an argument, compiled once. python jax_plain.py"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from mixops.pipelines import digits

import mixops as mx
from mixops.streams import plan_stream

images, labels = digits()  # uint8, (1797, 1, 8, 8)
op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.5])
to = mx.Output("b c h w", "float32", mean=0.3, std=0.4)
compilations = []


def loss_of(weights, x, y, plan):
    mixed = mx.mix(x, plan, "b c h w", to=to)
    logits = mixed.reshape(len(mixed), -1) @ weights
    soft = mx.soft_targets(y, plan, 10)
    return -(soft * jax.nn.log_softmax(logits)).sum(1).mean()


@partial(jax.jit, donate_argnums=0)  # the weights are overwritten in place
def step(weights, x, y, plan):
    compilations.append(plan)
    loss, gradient = jax.value_and_grad(loss_of)(weights, x, y, plan)
    return weights - 0.5 * gradient, loss


weights = jnp.zeros((64, 10))
for epoch in range(3):
    order = np.random.default_rng(epoch).permutation(len(images))[:1792].reshape(-1, 64)
    for number, rows in enumerate(order):
        plan = op.draw(plan_stream(7, epoch, number), mx.Spec(n=64, shape=(8, 8)))  # outside of jit
        weights, loss = step(weights, images[rows], labels[rows], plan)
    print(f"epoch {epoch}: loss {loss:.3f}")
print(f"{3 * len(order)} steps, {len(compilations)} compilation")

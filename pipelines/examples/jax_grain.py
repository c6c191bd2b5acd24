"""Grain reads, shuffles and draws the plans; the compiled step mixes. python jax_grain.py"""

import grain
import jax
import jax.numpy as jnp
from mixops.pipelines import digits

import mixops as mx

images, labels = digits()  # uint8, (1797, 1, 8, 8)
op = mx.CutMix(1.0) | mx.Cutout(2)


class Draw(grain.transforms.RandomMap):
    """Gives every batch its plan. The generator is Grain's own: its seed and its place decide, in any worker."""

    def random_map(self, batch, rng):
        return batch | {"plan": op.draw(rng, mx.Spec.like(batch["image"], "b c h w"))}


rows = grain.MapDataset.range(len(images)).seed(7).shuffle().map(lambda i: {"image": images[i], "label": labels[i]})
batches = rows.batch(64, drop_remainder=True).random_map(Draw())


@jax.jit
def step(weights, batch):
    def loss(weights):
        x = mx.mix(batch["image"], batch["plan"], "b c h w", to=mx.Output("b c h w", mean=0.3, std=0.4))
        soft = mx.soft_targets(batch["label"], batch["plan"], 10)
        return -(soft * jax.nn.log_softmax(x.reshape(len(x), -1) @ weights)).sum(1).mean()

    value, gradient = jax.value_and_grad(loss)(weights)
    return weights - 0.5 * gradient, value


weights, iterator = jnp.zeros((64, 10)), iter(batches.to_iter_dataset())
for _ in range(20):
    weights, loss = step(weights, next(iterator))
state = iterator.get_state()  # Grain's place is the place of the plans as well
first = next(iterator)["plan"]
iterator.set_state(state)
print(f"loss {loss:.3f}; the plan after a restart is the same: {next(iterator)['plan'] == first}")

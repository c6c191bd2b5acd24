"""Keras 3 on the backend that KERAS_BACKEND names. Run by test_keras.py, in one process for each of them."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from frameworks import run_shown, shown
from mixops.pipelines import ArrayLoader, keras_, keras_layer
from mixops.pipelines.keras_ import FollowEpochs, MixLayer, MixPyDataset

import mixops as mx
from mixops import streams

BACKEND = keras.backend.backend()
OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(size=3)
FIELDS = {0: mx.Field("b h w c"), 1: mx.Labels(5)}
NAMED = {"x": mx.Field("b h w c"), "y": mx.Labels(5)}
TO = {0: mx.Output("b h w c", "float32")}
X = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
Y = np.arange(50) % 5


class Seen(MixPyDataset):
    """Notes which batches were asked for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.asked: list[tuple[int, int]] = []
        super().__init__(*args, **options)

    def __getitem__(self, index: int) -> Any:
        self.asked.append((self.epoch, index))
        return super().__getitem__(index)


class Given(keras.utils.PyDataset):
    """Batches of somebody else's."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * 12, (index + 1) * 12)
        return {"image": X[rows]}, Y[rows]


def dataset(**options: Any) -> MixPyDataset:
    return Seen((X, Y), OP, FIELDS, seed=7, batch_size=16, to=TO, **options)


def model(*front: Any) -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([*front, keras.layers.Flatten(), keras.layers.Dense(5)])
    made.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    return made


def numpy(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))


# -- MixPyDataset ------------------------------------------------------------------------------------------------------


def test_batches_are_those_of_the_loader_of_arrays() -> None:
    loader, data = ArrayLoader((X, Y), OP, FIELDS, 16, seed=7, to=TO, framework="numpy"), dataset()
    for epoch in (0, 1):
        data.set_epoch(epoch)
        for got, want in zip(data, loader, strict=True):
            np.testing.assert_array_equal(got[0], want[0])
            np.testing.assert_array_equal(got[1], want[1])
    assert len(data) == 4


def test_fit_gets_the_batches_of_its_epoch_and_resumes_at_one() -> None:
    data, trained = dataset(), model()
    history = trained.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=[FollowEpochs(data)]).history
    assert np.isfinite(history["loss"]).all()
    assert data.asked[-8:] == [(epoch, step) for epoch in (0, 1) for step in range(4)]
    data.asked.clear()
    trained.fit(data, epochs=4, initial_epoch=3, verbose=0, shuffle=False, callbacks=[FollowEpochs(data)])
    assert data.asked[-4:] == [(3, step) for step in range(4)]


@pytest.mark.parametrize("workers", [{"workers": 3}, {"workers": 2, "use_multiprocessing": True}])
def test_any_number_of_workers_trains_alike(workers: dict[str, Any]) -> None:
    if BACKEND == "jax":
        workers.pop("use_multiprocessing", None)  # JAX must not be forked
    losses = []
    for options in ({}, workers):
        data, trained = dataset(**options), model()
        trained.test_on_batch(*data[0])
        losses += [
            trained.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=[FollowEpochs(data)]).history["loss"]
        ]
    assert losses[0] == losses[1]


def test_without_a_callback_every_pass_is_the_next_epoch() -> None:
    data = dataset()
    data.on_epoch_end()  # Keras says so before the first pass
    assert data.epoch == 0
    for _ in range(2):
        data.on_epoch_begin()
        data.on_epoch_end()
    assert data.epoch == 2


def test_another_data_set_is_mixed_batch_by_batch() -> None:
    fields = {"image": mx.Field("b h w c"), 1: mx.Labels(5)}
    data = MixPyDataset(Given(), OP, fields, seed=7)
    data.set_epoch(2)
    inputs, soft = data[3]
    batch = {"image": X[36:48], 1: Y[36:48]}
    plan = OP.draw(streams.plan_stream(7, 2, 3), mx.Spec(12, (8, 8), epoch=2))
    want = mx.mix_batch(batch, plan, fields)
    np.testing.assert_array_equal(inputs["image"], want["image"])
    np.testing.assert_array_equal(soft, want[1])
    assert len(data) == data.num_batches == 4


def test_evaluation_does_not_mix() -> None:
    images, soft = dataset(training=False, shuffle=False)[1]
    np.testing.assert_allclose(images, X[16:32] / 255, rtol=1e-6)
    np.testing.assert_array_equal(soft, np.eye(5)[Y[16:32]])


def test_what_does_not_fit_a_data_set_is_refused_in_words() -> None:
    with pytest.raises(mx.MixValueError, match="arrays without batch_size"):
        MixPyDataset((X, Y), OP, FIELDS, seed=7)
    with pytest.raises(mx.MixValueError, match="batch_size=4 with a PyDataset"):
        MixPyDataset(Given(), OP, FIELDS, seed=7, batch_size=4)
    with pytest.raises(mx.MixValueError, match="field 'image' is not among the arrays"):
        MixPyDataset((X, Y), OP, {"image": mx.Field("b h w c")}, seed=7, batch_size=4)
    with pytest.raises(mx.MixValueError, match="field 1"):
        MixPyDataset((X, Y), OP, {0: FIELDS[0], 1: mx.Labels(1)}, seed=7, batch_size=4)
    with pytest.raises(mx.MixTypeError, match="has no set_epoch"):
        FollowEpochs(Given())


# -- MixLayer ----------------------------------------------------------------------------------------------------------


def test_a_layer_mixes_in_training_only_and_counts() -> None:
    layer = MixLayer(OP, NAMED, seed=7)
    for step in range(2):
        plan = OP.draw(streams.plan_stream(7, 0, step), mx.Spec(50, (8, 8)))
        got = layer({"x": X, "y": Y}, training=True)
        np.testing.assert_array_equal(numpy(got["x"]), mx.mix(X, plan, "b h w c"))
        np.testing.assert_allclose(numpy(got["y"]), mx.soft_targets(Y, plan, 5), atol=1e-6)
    plain = layer({"x": X, "y": Y})
    np.testing.assert_array_equal(numpy(plain["x"]), X)
    np.testing.assert_array_equal(numpy(plain["y"]), np.eye(5)[Y])
    assert int(layer.step.value) == 2


class SoftLoss(keras.layers.Layer):
    """Hands logits on, and adds their loss."""

    def call(self, inputs: Any) -> Any:
        logits, soft = inputs
        self.add_loss(keras.ops.mean(keras.losses.categorical_crossentropy(soft, logits, from_logits=True)))
        return logits


def test_a_model_with_a_layer_in_front_trains_is_saved_and_goes_on(tmp_path: Path) -> None:
    inputs = {"x": keras.Input((8, 8, 3), name="x"), "y": keras.Input((), dtype="int32", name="y")}
    mixed = MixLayer(OP, NAMED, seed=7)(inputs)
    assert (mixed["x"].shape, mixed["y"].shape) == ((None, 8, 8, 3), (None, 5))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(mixed["x"]))
    whole = keras.Model(inputs, SoftLoss()([logits, mixed["y"]]))
    whole.compile("sgd")
    given = {"x": X.astype(np.float32) / 255, "y": Y}
    losses = whole.fit(given, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    whole.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"SoftLoss": SoftLoss})
    layer = next(layer for layer in again.layers if isinstance(layer, MixLayer))
    assert int(layer.step.value) == 8
    assert (layer.op, layer.fields, layer.seed) == (OP, NAMED, 7)
    np.testing.assert_allclose(numpy(again(given)), numpy(whole(given)), atol=1e-5)


def test_cutout_needs_no_labels_and_the_batch_that_is_short_is_mixed_too() -> None:
    trained = model(MixLayer(mx.Cutout(4), "b h w c", seed=1))
    trained.fit(X.astype(np.float32), np.eye(5)[Y], batch_size=16, epochs=1, verbose=0)
    assert int(trained.layers[0].step.value) == 4


class Weighed(keras.layers.Layer):
    """Adds the sum of weight · m as a loss."""

    def build(self, shapes: Any) -> None:
        self.one = self.add_weight(shape=(), initializer="ones")  # there has to be something to train

    def call(self, inputs: Any) -> Any:
        m, weight = inputs
        self.add_loss(keras.ops.sum(keras.ops.cast(m, "float32") * weight) * self.one)
        return m


def weighed_in_fit(layer: MixLayer, given: dict[str, np.ndarray]) -> float:
    """The weighed sum of what the layer makes of m, inside the function that the backend compiles for ``fit``."""
    inputs = {name: keras.Input(x.shape[1:], dtype=x.dtype.name, name=name) for name, x in given.items()}
    mixed = layer(inputs)
    whole = keras.Model(inputs, Weighed()([mixed["m"], mixed["weight"]]))
    whole.compile("sgd")
    history = whole.fit(given, batch_size=len(X), epochs=1, verbose=0, shuffle=False).history
    return float(history["loss"][0])


MASK = np.random.default_rng(1).integers(0, 5, (50, 4, 4)).astype(np.int32)
WEIGHTS = np.random.default_rng(2).random((50, 4, 4), np.float32)
MASKED = {**NAMED, "m": mx.Field("b h w", "discrete", fill=9)}


@pytest.mark.parametrize("op", [mx.CutMix(per="sample") | mx.Cutout(4), mx.Cutout(4) | mx.CutMix()])
def test_a_mask_of_another_stride_follows_as_it_does_in_a_loader(op: mx.Operator) -> None:
    batch = {"x": X, "y": Y.astype(np.int32), "m": MASK, "weight": WEIGHTS}
    plan = op.draw(streams.plan_stream(7, 0, 0), mx.Spec(50, (8, 8)))
    want = mx.mix_batch(batch, plan, MASKED)
    got = MixLayer(op, MASKED, seed=7)(batch, training=True)
    for name in ("x", "m"):
        np.testing.assert_array_equal(numpy(got[name]), want[name])
    found = weighed_in_fit(MixLayer(op, MASKED, seed=7), batch)
    np.testing.assert_allclose(found, (want["m"] * WEIGHTS).sum(), rtol=1e-5)


def test_a_blend_of_ids_is_refused_in_compiled_functions_too() -> None:
    batch = {"x": X, "y": Y.astype(np.int32), "m": MASK, "weight": WEIGHTS}
    with pytest.raises(mx.MixTypeError, match="field 'm' is discrete: ids and class masks cannot be averaged"):
        MixLayer(mx.Mixup(), MASKED, seed=7)(batch, training=True)
    with pytest.raises(Exception, match="field 'm' is discrete: ids and class masks cannot be averaged"):
        weighed_in_fit(MixLayer(mx.Mixup(), MASKED, seed=7), batch)


def test_operators_that_draw_a_layer_mix_what_they_are_given() -> None:
    layer = MixLayer(mx.ManifoldMixup(["a", "b"]), "b h w c", seed=7)
    with pytest.raises(Exception, match="mixes labels too"):
        layer(X, training=True)
    given = {"x": X, "y": Y.astype(np.int32), "m": WEIGHTS, "weight": WEIGHTS}
    fields = {**NAMED, "m": mx.Field("b h w")}
    for seed in range(3):  # some of which draw another layer than the first
        op = mx.ManifoldMixup(["a", "b"])
        plan = op.draw(streams.plan_stream(seed, 0, 0), mx.Spec(50, (8, 8)))
        want = mx.mix(WEIGHTS, plan, "b h w")
        found = weighed_in_fit(MixLayer(op, fields, seed=seed), given)
        np.testing.assert_allclose(found, (want * WEIGHTS).sum(), rtol=1e-5)


class Own(mx.Mixup):
    """An operator that this library does not know."""


def test_a_config_is_json_and_what_has_none_is_refused() -> None:
    layer = MixLayer(OP, {**NAMED, "m": mx.Field("b h w", "discrete", fill=255)}, seed=3)
    again = MixLayer.from_config(json.loads(json.dumps(layer.get_config())))
    assert (again.op, again.fields, again.seed) == (layer.op, layer.fields, 3)
    with pytest.raises(mx.MixValueError, match="cannot be saved"):
        MixLayer(Own(0.8), NAMED, seed=3).get_config()


def test_what_does_not_fit_a_layer_is_refused_in_words() -> None:
    with pytest.raises(Exception, match="mixes labels too, and fields have none") as caught:
        MixLayer(mx.Mixup(), "b h w c", seed=7)(X, training=True)
    assert isinstance(caught.value, mx.MixError)
    with pytest.raises(mx.MixValueError, match="field 'y' is not among the inputs"):
        MixLayer(OP, NAMED, seed=7)({"x": X}, training=True)
    with pytest.raises(mx.MixValueError, match="field 'y' is not among the inputs"):
        MixLayer(OP, NAMED, seed=7)({"x": keras.Input((8, 8, 3))})
    with pytest.raises(mx.MixValueError, match="soft labels"):
        MixLayer(OP, {"x": NAMED["x"], "y": mx.Labels(5, form="pair")}, seed=7)
    with pytest.raises(mx.MixTypeError, match="no Field"):
        MixLayer(OP, {"y": mx.Labels(5)}, seed=7)


@pytest.mark.parametrize("module", [keras_, keras_layer])
def test_the_examples_run(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 3
    assert not found.failed


SHOWN = shown("keras")


@pytest.mark.parametrize("block", SHOWN)
def test_what_the_page_shows_runs(block: str) -> None:
    run_shown(block)


def test_the_page_shows_something() -> None:
    assert SHOWN

"""Models that are tried on: the small one, and what a user's own may do wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from mixops.pipelines.small_net import small_network
from trials import failed, here, run, write_sentences

import mixops as mx

pytestmark = pytest.mark.usefixtures(here.__name__)


def test_a_model_with_another_number_of_outputs_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "odd_net.py").write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
        "def tight(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(65, 2))\n"
    )
    assert "put out Tensor of shape (2, 7), expected logits of shape (2, 2)" in failed(
        capsys, "--model", "odd_net:make"
    )
    assert "odd_net:tight cannot take float32 of shape (2, 1, 8, 8)" in failed(capsys, "--model", "odd_net:tight")
    (here / "torn_net.py").write_text("raise RuntimeError('torn')\n")
    assert "torn_net cannot be imported: RuntimeError: torn" in failed(capsys, "--model", "torn_net:make")


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 8), (1, 28, 28), (3, 33, 47), (5,)])
def test_the_small_network_takes_images_of_any_size_and_rows(shape: tuple[int, ...]) -> None:
    import torch

    assert small_network(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(3, 3, 8), (8, 8), (), (0,), (0, 8, 8)])
def test_the_small_network_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(mx.MixError, match=r"expected \(features,\)"):
        small_network(shape, 7)


def write_net(name: str, forward: str, make: str = "Net(nn.Flatten(), nn.Linear(math.prod(shape), classes))") -> None:
    """A module NAME.py of a linear network with such a forward."""
    Path(f"{name}.py").write_text(
        "import math\n"
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
        "def make(shape, classes):\n"
        f"    return {make}\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("name", "forward", "told"),
    [
        (
            "net_a",
            "raise KeyError('deep')",
            "--model net_a:make cannot take float32 of shape (2, 1, 8, 8): KeyError: 'deep'",
        ),
        (
            "net_b",
            "assert not self.training, 'no'; return super().forward(x)",
            "--model net_b:make failed in training: AssertionError: no",
        ),
        (
            "net_c",
            "return super().forward(x).detach()",
            "--model net_c:make failed in training: RuntimeError: element 0 of tensors",
        ),
        ("net_d", "return super().forward(x) / self.training", "probabilities are not finite: lower lr"),
    ],
)
def test_a_network_that_fails_is_named_with_what_it_raised(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, forward: str, told: str
) -> None:
    write_net(name, forward)
    assert told in failed(capsys, "--op", "Mixup(0.2)", "--epochs", "1", "--model", f"{name}:make")


def test_a_network_on_words_that_fails_is_named_with_what_it_raised(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sentences(here / "asked.tsv")
    (here / "words_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, embedding):\n"
        "        super().__init__()\n"
        "        self.embedding = embedding\n"
        "    def forward(self, input_ids, attention_mask):\n"
        "        raise KeyError('deep')\n"
        "def make(embedding, classes):\n"
        "    return Net(embedding)\n"
    )
    assert "--model words_net:make failed in training: KeyError: 'deep'" in failed(
        capsys, "--model", "words_net:make", data="asked.tsv"
    )


def test_a_function_that_makes_no_new_network_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_net("net_once", "return super().forward(x)", "NETS.setdefault(0, Net(nn.Flatten(), nn.Linear(64, classes)))")
    with Path("net_once.py").open("a") as file:
        file.write("NETS = {}\n")
    assert "weights of one that it made before" in failed(capsys, "--model", "net_once:make")
    write_net("net_none", "return super().forward(x)", "Net(nn.Flatten())")
    assert "no parameter that trains" in failed(capsys, "--model", "net_none:make")


def test_runs_of_a_model_that_was_changed_are_not_those_of_the_new_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--op", "Mixup(0.2)", "--epochs", "1", "--model", "net_grown:make")
    write_net("net_grown", "return super().forward(x)")
    assert run(*args) == 0
    write_net("net_grown", "return super().forward(2 * x)")
    capsys.readouterr()
    assert "file of the model was" in failed(capsys, *args)

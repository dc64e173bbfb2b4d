"""The examples in docstrings run and print what they say, and the book's reference names what there is."""

import doctest
import importlib
import importlib.resources
import pkgutil
import re
from pathlib import Path

import pytest

import consensus_lib

MODULES = [
    module.name
    for module in pkgutil.walk_packages(consensus_lib.__path__, "consensus_lib.")
    if not module.name.rpartition(".")[2].startswith("_")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name):
    if name == "consensus_lib.losses.triton":
        pytest.importorskip("triton", reason="Triton is not installed: CUDA builds of torch bring it")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_loss_of_the_readme_runs():
    readme = (importlib.resources.files(consensus_lib).parent / "README.md").read_text(encoding="utf-8")
    snippet = readme.split("## Use: the loss in three lines")[1].split("```python\n")[1].split("```")[0]
    scope = {}
    exec(
        "import torch\n"
        "logits = torch.randn(2, 3, 8, 8, requires_grad=True)\n"
        "labels = torch.randint(0, 3, (2, 8, 8))\n" + snippet,
        scope,
    )
    assert scope["logits"].grad.abs().sum() > 0


def test_the_reference_of_the_book_names_what_there_is():
    pages = (Path(__file__).parents[1] / "docs/api.md").read_text(encoding="utf-8")
    names = re.findall(r"^\.\. auto\w+:: (\S+)", pages, re.MULTILINE)
    assert names
    for name in names:
        pkgutil.resolve_name(name)  # raises where there is none

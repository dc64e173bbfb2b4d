import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import consensus_lib

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch"}


def named(requirements):
    """Return name → version bound of requirement strings."""
    return dict(re.fullmatch(r"([A-Za-z0-9-]+)(\S*)", line).groups() for line in requirements)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_conda_and_pip_install_the_same_lab():
    conda = named(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"])
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    lab = PROJECT["dependencies"] + EXTRAS["lab"]
    assert {CONDA_NAMES.get(name, name): bound for name, bound in conda.items()} == named(lab)


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = itertools.chain(*(EXTRAS[name] for name in ("lab", "onnx", "test", "docs", "browser")))
    assert set(named([*PROJECT["dependencies"], *wanted])) <= pins


CORE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # importing one of them now fails
import torch
from consensus_lib import ConsensusLoss, FaceDataset, FaceOccNet, SegmentationScores, evaluate, fit
train, test = (FaceDataset(sys.argv[1], split, "parts") for split in ("train", "test"))
network = FaceOccNet(width=0.125)
fit(network, train, ConsensusLoss(), epochs=1, batch_size=4)
assert evaluate(network, test).compute()["mean_iou"] >= 0
"""


@pytest.mark.slow
def test_the_core_trains_without_the_lab(tiny_folder):
    lab = {name.replace("-", "_") for name in named(EXTRAS["lab"])}
    modules = lab - {"pyyaml"} | {"yaml", "dask", "IPython"}
    subprocess.run([sys.executable, "-c", CORE, tiny_folder, *modules], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("consensus_lib", "torch numpy pandas matplotlib nbformat"),
        ("synthetic_faces", "torch pandas matplotlib"),
        ("consensus_lib.experiments.sweeps", "torch pandas matplotlib nbformat distributed"),
        ("consensus_lib.experiments.notebooks", "torch matplotlib"),
        *(
            pytest.param(f"consensus_lib.{module}", unwanted, marks=pytest.mark.slow)
            for module, unwanted in {
                "losses.consensus": "torch._dynamo triton pandas matplotlib",
                "data.dataset": "pandas matplotlib",
                "training.trainer": "pandas matplotlib",
                "metrics.structure": "pandas matplotlib",
            }.items()
        ),
    ],
)
def test_an_import_loads_no_more_than_it_needs(module, unwanted):
    unwanted += " IPython ipywidgets papermill pooch"
    code = f"import sys, {module}; print(sorted(set('{unwanted}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_version_is_stated_once():
    assert consensus_lib.__version__ == PROJECT["version"]


def test_no_file_names_a_folder_of_one_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    texts = [
        path
        for path in map(ROOT.joinpath, tracked.stdout.split())
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".txt"} and path.is_file()
    ]
    named = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users)/")
    found = {str(path.relative_to(ROOT)) for path in texts if named.search(path.read_text(encoding="utf-8"))}
    assert found <= {"tests/test_packaging.py"}

"""What a sweep runs: a YAML file and a notebook → runs with an id each, or an error before anything starts.

Nothing here runs a notebook, or imports Jupyter: parameters are read from the notebook's source.
"""

import ast
import dataclasses
import hashlib
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import yaml

KEYS = ("notebook", "parameters", "grid", "lists", "seeds", "timeout", "threads")
KINDS = (int, float, str, bool, list)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to run.

    Attributes:
        notebook: its file.
        runs: id → all parameters, but for ``out``.
        varied: the parameters in which runs differ, in the order of the file.
        code: hash of the notebook's code.
        timeout: of a run in seconds; None sets no limit.
        threads: of numerical libraries in each run. One, so that results do not depend on the machine.
    """

    notebook: Path
    runs: dict[str, dict]
    varied: tuple[str, ...]
    code: str
    timeout: float | None = None
    threads: int = 1


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep from its YAML file.

    Raises:
        ValueError: the file, or a parameter in it, is not what the notebook takes; see :func:`plan`.
    """
    path = Path(path)
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"sweep: expected a YAML file, got {error}") from None
    return plan(described, path.parent)


def plan(described: dict, folder: str | Path = ".") -> Sweep:
    """Return the runs of a sweep, checked against the parameters that the notebook declares.

    Args:
        described: what a YAML file would say; values may also be of NumPy.
        folder: that the notebook's path starts from.

    Raises:
        ValueError: an unknown key, a parameter that the notebook does not declare or that has another type,
            a value that is not finite, lists of unequal length, or a run that occurs twice.
    """
    if not isinstance(described, dict) or set(described) - set(KEYS):
        raise ValueError(f"sweep: expected a mapping of {list(KEYS)}, got {described!r}")
    notebook = (Path(folder) / str(described.get("notebook", ""))).resolve()
    declared = read_parameters(notebook)
    if "out" not in declared:
        raise ValueError(f"notebook: expected a parameter out in {notebook.name}, got {list(declared)}")
    places = {key: described.get(key) or {} for key in ("parameters", "grid", "lists")}
    if (seeds := described.get("seeds")) is not None:
        places["seeds"] = {"seed": range(seeds) if type(seeds) is int else seeds}
    for place, given in places.items():
        if not isinstance(given, dict):
            raise ValueError(f"{place}: expected a mapping, got {given!r}")
        for name, values in given.items() if place != "parameters" else ():
            if not isinstance(values, list | tuple | range | np.ndarray) or not len(values):
                raise ValueError(f"{place}: expected a list of values for {name}, got {values!r}")
    names = [name for given in places.values() for name in given]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"sweep: expected each parameter in one place, got {sorted(twice)} in several")
    fixed, lists = places.pop("parameters"), places.pop("lists")
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lists: expected the same length, got {lengths}")
    limits = {key: described[key] for key in ("timeout", "threads") if described.get(key) is not None}
    for key, value in limits.items():
        if type(value) not in ((int,) if key == "threads" else (int, float)) or not 1 <= value < math.inf:
            raise ValueError(f"{key}: expected a number of at least 1, got {value!r}")

    common = {name: default for name, default in declared.items() if name != "out"}
    common |= {name: check(name, value, declared) for name, value in fixed.items()}
    crossed = {name: values for given in places.values() for name, values in given.items()}
    code, runs = notebook_hash(notebook), {}
    for *point, row in itertools.product(*crossed.values(), list(zip(*lists.values(), strict=True)) or [()]):
        values = dict(zip([*crossed, *lists], [*point, *row], strict=True))
        parameters = common | {name: check(name, value, declared) for name, value in values.items()}
        number = run_id(parameters, code)
        if number in runs:
            raise ValueError(f"sweep: expected each run once, got {values} twice")
        runs[number] = parameters
    varied = [name for name in names if name not in fixed]
    return Sweep(notebook, runs, tuple(varied), code, **limits)


def read_parameters(notebook: str | Path) -> dict[str, object]:
    """Return name → default of a notebook's parameters, from its cell tagged ``parameters``; no code runs.

    Raises:
        ValueError: there is not one such cell, or it has more than names and literals.
    """
    cells = [source for source, tags in read_code(notebook) if "parameters" in tags]
    if len(cells) != 1:
        raise ValueError(f"notebook: expected one cell tagged parameters in {notebook}, got {len(cells)}")
    found = {}
    try:
        for line in ast.parse(cells[0]).body:
            annotation = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else ""
            name = line.target.id if annotation else line.targets[0].id
            default = ast.literal_eval(line.value)
            found[name] = float(default) if (annotation, type(default)) == ("float", int) else default
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(
            f"notebook: expected lines name = literal in the parameters of {notebook}, got {error}"
        ) from None
    return found


def check(name: str, value, declared: dict[str, object]):
    """Return a parameter's value in the one form in which it is hashed and stored, of Python's own types.

    Args:
        name: of the parameter.
        value: what was given: of the default's type, or a whole number for a float. Where the default is
            None, any of ``KINDS`` will do.
        declared: of the notebook, from :func:`read_parameters`.

    Raises:
        ValueError: there is no such parameter, or the value does not suit it.

    >>> check("alpha", 1, {"alpha": 10.0})
    1.0
    """
    if name == "out" or name not in declared:
        names = [known for known in declared if known != "out"]
        raise ValueError(f"parameter: expected one of {names}, got {name}")
    return _canonical(name, value, declared[name])


def _canonical(name: str, value, default):
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
    kinds = [type(default)] if type(default) in KINDS else [*KINDS, type(None)]
    if type(value) is int and kinds == [float]:
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
        value += 0.0  # -0.0 is 0.0
    if isinstance(value, list | tuple):
        inner = default[0] if isinstance(default, list) and len(set(map(type, default))) == 1 else None
        value = [_canonical(f"{name}[{i}]", part, inner) for i, part in enumerate(value)]
    expected = f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}"
    if isinstance(value, str) and kinds != [str] and NUMBER.fullmatch(value):
        raise ValueError(
            f"{expected}, got the text {value!r}; YAML takes a number for one only without quotes and with a "
            "point before its exponent, as in 1.0e-3"
        )
    if type(value) not in kinds:
        raise ValueError(f"{expected}, got {value!r} ({type(value).__name__})")
    return value


def run_id(parameters: dict, code: str) -> str:
    """Return the id of a run: the same for the same parameters, in any order, and the same notebook's code.

    The library is not part of it: a comment in one of its files would make every result outdated. What it was
    is recorded beside the result: see :func:`consensus_lib.experiments.results.provenance`.
    """
    text = json.dumps([parameters, code], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def notebook_hash(path: str | Path) -> str:
    """Return a hash of what a notebook computes: its code cells, not its prose and outputs.

    An executed copy has the hash of its original: papermill's own cell of parameters is left out.
    """
    cells = [source for source, tags in read_code(path) if "injected-parameters" not in tags]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:12]


def read_code(path: str | Path) -> list[tuple[str, list[str]]]:
    """Return the source and the tags of each code cell.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        book = json.loads(Path(path).read_text(encoding="utf-8"))
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        return [("".join(cell["source"]), cell.get("metadata", {}).get("tags", [])) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"notebook: expected a notebook of version 4 in {path}, got {error!r}") from None

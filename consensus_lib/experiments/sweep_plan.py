"""What a sweep runs: a YAML file and a notebook → runs with an id each, or an error before anything starts.

Nothing here runs a notebook, or imports Jupyter: parameters are read from the notebook's source.
"""

import ast
import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
from pathlib import Path

import yaml

KEYS = ("notebook", "parameters", "grid", "lists", "seeds", "seconds", "timeout", "threads")
KINDS = ("int", "float", "str", "bool", "list")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to run.

    Attributes:
        notebook: its file.
        runs: id → all parameters, but for ``out``.
        varied: the parameters of which runs differ, in the order of the file.
        code: hash of the notebook's code.
        seconds: that a run may take; None if nobody said.
        timeout: of a run in seconds; None lets it take as long as it likes.
        threads: of numerical libraries in each run. One, so that results do not depend on the machine.
    """

    notebook: Path
    runs: dict[str, dict]
    varied: tuple[str, ...]
    code: str
    seconds: float | None = None
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
        described: what a YAML file would say; values may also be NumPy scalars and paths.
        folder: that the notebook's path starts from.

    Raises:
        ValueError: an unknown key, a parameter that the notebook does not declare or that has another type,
            a value that is not finite, lists of unequal length, or a run that occurs twice.
    """
    if not isinstance(described, dict):
        raise ValueError(f"sweep: expected a mapping of {list(KEYS)}, got {described!r}")
    if unknown := set(described) - set(KEYS):
        raise ValueError(f"sweep: expected keys of {list(KEYS)}, got {sorted(map(str, unknown))}")
    if not isinstance(described.get("notebook"), str | os.PathLike):
        raise ValueError(f"notebook: expected a path, got {described.get('notebook')!r}")
    notebook = (Path(folder) / described["notebook"]).resolve()
    declared = read_parameters(notebook)
    if "out" not in declared:
        raise ValueError(f"notebook: expected a parameter out in {notebook.name}, got {list(declared)}")
    fixed, grid, lists, seeds = _design(described)
    settled = {name: default for name, (_, default) in declared.items() if name != "out"}
    settled |= {name: check(name, value, declared) for name, value in fixed.items()}
    code = notebook_hash(notebook)
    runs = {}
    varied = [*grid, *lists, *seeds]
    rows = zip(*lists.values(), strict=True) if lists else [()]
    for *pick, row, seed in itertools.product(*grid.values(), rows, *(seeds.values() or [[()]])):
        values = [*pick, *row, *([seed] if seeds else [])]
        given = dict(zip(varied, values, strict=True))
        parameters = settled | {name: check(name, value, declared) for name, value in given.items()}
        number = run_id(parameters, code)
        if number in runs:
            raise ValueError(f"sweep: expected each run once, got {given} twice")
        runs[number] = parameters
    return Sweep(notebook, runs, tuple(varied), code, **_numbers(described))


def _design(described: dict) -> tuple[dict, dict, dict, dict]:
    """Return what is fixed, the grid, the lists and the seeds, each a mapping from parameters."""
    parts = {key: described.get(key) or {} for key in ("parameters", "grid", "lists")}
    for key, value in parts.items():
        if not isinstance(value, dict):
            raise ValueError(f"{key}: expected a mapping, got {value!r}")
    fixed, grid, lists = parts.values()
    grid = {name: _values("grid", name, values) for name, values in grid.items()}
    lists = {name: _values("lists", name, values) for name, values in lists.items()}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lists: expected the same length, got {lengths}")
    seeds = described.get("seeds")
    if type(seeds) is int and seeds > 0:
        seeds = range(seeds)
    seeds = {} if seeds is None else {"seed": _values("seeds", "seed", seeds)}
    names = [*fixed, *grid, *lists, *seeds]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"sweep: expected each parameter in one place, got {sorted(twice)} in several")
    return fixed, grid, lists, seeds


def _numbers(described: dict) -> dict:
    """Return what is said of time and threads."""
    found = {}
    for key, kinds in (("seconds", (int, float)), ("timeout", (int, float)), ("threads", (int,))):
        value = described.get(key)
        if value is not None:
            if type(value) not in kinds or not 1 <= value < math.inf:
                raise ValueError(f"{key}: expected a number of at least 1, got {value!r}")
            found[key] = value
    return found


def _values(place: str, name: str, values) -> list:
    if hasattr(values, "tolist"):  # a NumPy array
        values = values.tolist()
    if not isinstance(values, list | tuple | range) or not values:
        raise ValueError(f"{place}: expected a list of values for {name}, got {values!r}")
    return list(values)


def read_parameters(notebook: str | Path) -> dict[str, tuple[str, object]]:
    """Return name → kind (one of ``KINDS``, or ``"any"`` where the default is None) and default.

    They are read from the notebook's cell tagged ``parameters``; no code runs.

    Raises:
        ValueError: there is not one such cell, or it has more than names and literals.
    """
    cells = [source for source, tags in read_code(notebook) if "parameters" in tags]
    if len(cells) != 1:
        raise ValueError(f"notebook: expected one cell tagged parameters in {notebook}, got {len(cells)}")
    found = {}
    try:
        lines = ast.parse(cells[0]).body
    except SyntaxError as error:
        raise ValueError(f"notebook: expected Python in the parameters of {notebook}, got {error}") from None
    for line in lines:
        target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
        try:
            default = ast.literal_eval(line.value)
            name = target.id
        except (ValueError, AttributeError):
            raise ValueError(
                f"notebook: expected name = literal in the parameters of {notebook}, got {ast.unparse(line)}"
            ) from None
        stated = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else type(default).__name__
        found[name] = (stated if stated in KINDS and default is not None else "any", default)
    return found


def check(name: str, value, declared: dict[str, tuple[str, object]]):
    """Return a parameter's value in the one form in which it is hashed, stored and handed on.

    A whole number for a float becomes one; NumPy scalars and paths become Python's numbers and text.

    Args:
        name: of the parameter.
        value: what was given.
        declared: of the notebook, from :func:`read_parameters`.

    Raises:
        ValueError: there is no such parameter, or the value does not suit it.

    >>> check("alpha", 1, {"alpha": ("float", 10.0)})
    1.0
    """
    if name == "out" or name not in declared:
        names = [known for known in declared if known != "out"]
        raise ValueError(f"parameter: expected one of {names}, got {name}")
    kind, default = declared[name]
    return _canonical(name, value, kind, default)


def _canonical(name: str, value, kind: str, default=None):
    if hasattr(value, "tolist"):  # NumPy's, arrays as well
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
        value += 0.0  # -0.0 is 0.0
    if kind not in ("str", "list") and isinstance(value, str) and _NUMBER.fullmatch(value):
        number = f"{float(value):e}" if "e" in value.lower() else value
        number = re.sub(r"0*e", "e", number).replace(".e", ".0e")
        raise ValueError(
            f"{name}: expected {'a number' if kind == 'any' else kind}, got the text {value!r}; YAML takes a "
            f"number for one only without quotes and with a point before its exponent: {number}"
        )
    if isinstance(value, list | tuple):
        inner = {type(part).__name__ for part in default or []}
        inner = inner.pop() if len(inner) == 1 else "any"
        value = [_canonical(f"{name}[{i}]", part, inner) for i, part in enumerate(value)]
    if kind == "any" and (value is None or type(value).__name__ in KINDS):
        return value
    if type(value).__name__ != kind:
        wanted = kind if kind != "any" else f"one of {', '.join(KINDS)}"
        raise ValueError(f"{name}: expected {wanted}, got {value!r} ({type(value).__name__})")
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

    Read as JSON, because nbformat takes longer to import than a run may lose.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        book = json.loads(Path(path).read_text(encoding="utf-8"))
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        return [("".join(cell["source"]), cell.get("metadata", {}).get("tags", [])) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"notebook: expected a notebook of version 4 in {path}, got {error!r}") from None

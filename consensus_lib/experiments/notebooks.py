"""Notebooks: execute them in order into one new folder, or store their outputs in place.

``python -m consensus_lib run --data synthetic --profile quick`` is what ``make run`` calls. The folder holds
one folder for each notebook: the executed notebook, its figures, its checkpoints and the results of its
trainings (:mod:`consensus_lib.experiments.results`).
"""

import datetime
import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

from consensus_lib import paths
from consensus_lib.data.folder import is_folder
from consensus_lib.experiments import command_line
from consensus_lib.experiments.results import as_text, read_results
from consensus_lib.experiments.sweep_plan import check, read_parameters
from consensus_lib.paths import shown

_KERNEL = {
    "kernel_name": "python3",
    "extra_arguments": ["--log-level=ERROR"],  # no remarks about loopback traffic in the middle of the bar
}

_WIDGET = "application/vnd.jupyter.widget-view+json"


def notebooks() -> list[Path]:
    """Return the project's notebooks, in reading order.

    Raises:
        ValueError: there are none: the library is not in a checkout.
    """
    folder = paths.root() / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ValueError(f"notebooks: expected NN_name.ipynb in {folder}, got none; run from a checkout")
    return found


def read_profile(data: str, profile: str) -> dict[str, dict]:
    """Return the parameters of each notebook for a data set and a profile.

    They stand in ``notebooks/params/DATA-PROFILE.yaml``: one mapping for each notebook's name, and ``all``
    for what every notebook gets, but for those with ``null`` instead of a mapping. A prepared folder has the
    parameters of photographs and its own classes; notebook 04, which needs an occlusion class and exact
    labels, then takes rendered faces.

    Raises:
        ValueError: there is no such file.
    """
    if is_folder(data):
        rendered = "04_teacher_distillation"
        own = {"dataset": str(Path(data).absolute()), "task": "source"}
        read = read_profile("lfw_part_labels", profile)
        read = {book: given and given | own for book, given in read.items()}
        return read | {rendered: read_profile("synthetic", profile)[rendered]}
    folder = paths.root() / "notebooks" / "params"
    file = folder / f"{data}-{profile}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in folder.glob("*-*.yaml"))
        raise ValueError(f"data and profile: expected one of {known}, got {data}-{profile}")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    common = values.pop("all", {})
    own = {notebook.stem: values.get(notebook.stem, {}) for notebook in notebooks()}
    return {name: {} if given is None else common | given for name, given in own.items()}


def execute(notebook: Path, out: Path, parameters: dict, *, progress: bool = True) -> None:
    """Execute a notebook, which declares a parameter ``out``, with papermill into the folder ``out``.

    Raises:
        RuntimeError: it did not run to its end. The partly executed notebook stays in ``out``.
    """
    import papermill  # here, so that a wrong argument is refused without waiting for it
    from traitlets.config import Config

    out.mkdir(parents=True, exist_ok=True)
    # papermill formats both paths with str.format: braces would be read as fields.
    source, target = (
        str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, out / notebook.name)
    )
    with tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        config = Config()
        if os.name == "posix":  # kernels that start at the same time can be given the same ports
            config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        try:
            papermill.execute_notebook(
                source,
                target,
                parameters | {"out": str(out.absolute())},
                progress_bar={"desc": notebook.stem, "ncols": 90} if progress else False,
                start_timeout=120,
                cwd=str(notebook.parent),  # from where the notebooks import what supports them
                config=config,
                **_KERNEL,
            )
        except Exception as error:
            raise RuntimeError(
                f"{notebook.stem} stopped: {error}\nIts cells so far: {shown(out / notebook.name)}"
            ) from error


def store(notebook: Path) -> None:
    """Execute a notebook with its defaults and store the outputs in place, for readers on a code host.

    Progress bars (stderr), times and widget states are not kept, so that two runs differ in pictures and
    measured values only.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the file stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(notebook, as_version=4)
    NotebookClient(
        book,
        timeout=None,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(notebook.parent)}},
        **_KERNEL,
    ).execute()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_kept(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(_WIDGET, None)
    book.metadata["language_info"] = {"name": "python"}  # without the version of the machine at hand
    with paths.atomic(notebook) as part:
        nbformat.write(book, part)


def _is_kept(output) -> bool:
    """Say whether an output is stored: no progress, and of a widget its still, where it has one."""
    data = output.get("data", {})
    still = "image/png" in data or "text/html" in data
    return output.get("name") != "stderr" and (_WIDGET not in data or still)


def _chosen(numbers: list[str] | None) -> list[Path]:
    """Return the notebooks of these numbers, or all."""
    known = {book.stem[:2]: book for book in notebooks()}
    if unknown := [number for number in numbers or [] if number not in known]:
        raise ValueError(f"--only: expected some of {list(known)}, got {unknown}")
    return [book for number, book in known.items() if not numbers or number in numbers]


def _given(chosen: list[Path], values: dict[str, object]) -> dict[str, dict]:
    """Return the given values for each notebook that declares them, in the type that it declares."""
    declared = {book.stem: read_parameters(book) for book in chosen}
    if unknown := set(values).difference(*declared.values()):
        raise ValueError(f"--set: expected a parameter of {list(declared)}, got {', '.join(unknown)}")
    return {
        stem: {name: check(name, value, own) for name, value in values.items() if name in own}
        for stem, own in declared.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks; return the exit code."""
    parser = command_line.Parser(
        prog="python -m consensus_lib run", description="Run the notebooks in order."
    )
    add = parser.add_argument
    add("--data", default="synthetic", help="synthetic (default), lfw_part_labels, or a folder")
    add("--profile", default="quick", help="smoke, quick (default) or full")
    add("--only", nargs="+", metavar="NN", help="numbers of the notebooks to run, such as 02")
    new = "run folder (default: a new one under the runs folder)"
    add("--out", type=command_line.folder, help=new)
    change = "parameters of the notebooks to change, such as seed=1"
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help=change)
    in_place = (
        "execute with the notebooks' defaults and store the outputs in place; without --only also studies"
    )
    add("--store", action="store_true", help=in_place)
    arguments = parser.parse_args(argv)
    with command_line.refusing(parser):
        profile = {} if arguments.store else read_profile(arguments.data, arguments.profile)
        chosen = _chosen(arguments.only)
        changed = _given(chosen, command_line.parse_options(arguments.set))
    if arguments.store:
        studies = [] if arguments.only else sorted((paths.root() / "notebooks/studies").glob("*.ipynb"))
        for notebook in [*chosen, *studies]:
            print(f"{notebook.stem} …", flush=True)
            store(notebook)
        return 0
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = arguments.out or paths.runs_dir() / f"{stamp}-{Path(arguments.data).name}-{arguments.profile}"
    begin = time.perf_counter()
    for notebook in chosen:
        try:
            execute(notebook, out / notebook.stem, profile[notebook.stem] | changed[notebook.stem])
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    print(
        f"\n{len(chosen)} notebooks in {time.perf_counter() - begin:.0f} s. Executed notebooks, figures and "
        f"checkpoints: {shown(out)}\n\n{as_text(read_results(out))}"
    )
    return 0

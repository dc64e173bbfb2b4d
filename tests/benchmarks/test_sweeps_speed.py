"""What a sweep costs beside its kernels, and that many runs lose nothing and do not fill the memory."""

import os
import time

import nbformat
import psutil

from consensus_lib.experiments import notebooks, results, sweeps

RUN = f"""
from consensus_lib.experiments import results
results.write_result(out, **{dict.fromkeys(results.RESULT_KEYS, 1)} | {{"seed": seed}})
"""


def write_notebook(path):
    parameters = nbformat.v4.new_code_cell('seed: int = 0\nout: str = ""', metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [parameters, nbformat.v4.new_code_cell(RUN)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_a_run_costs_little_beyond_its_kernel(tmp_path):
    """The fastest of eight, because whatever else the machine does slows down both."""
    book = write_notebook(tmp_path / "book.ipynb")
    sweep = sweeps.plan({"notebook": book, "seeds": 8})
    alone = []
    for seed in range(8):  # in a process that has imported all it needs
        begin = time.perf_counter()
        notebooks.execute(book, tmp_path / f"alone-{seed}", {"seed": seed}, progress=False)
        alone.append(time.perf_counter() - begin)
    found = sweeps.run_sweep(sweep, tmp_path / "out", progress=False).values()
    swept = min(run["seconds"] for run in found)
    print(f"\na run: {swept:.2f} s in a sweep, {min(alone):.2f} s of it for a kernel and the notebook")
    assert all(run["status"] == "done" for run in found)
    assert swept - min(alone) <= 1


def test_two_hundred_runs_lose_nothing_and_keep_the_memory_flat(tmp_path):
    book = write_notebook(tmp_path / "book.ipynb")
    memory, begin = {}, time.perf_counter()
    for count in (20, 200):
        sweep = sweeps.plan({"notebook": book, "seeds": count})
        found = sweeps.run_sweep(sweep, tmp_path / "out", workers=2, progress=False)
        memory[count] = psutil.Process().memory_info().rss / 2**20
    seconds = time.perf_counter() - begin
    table = sweeps.gather(sweep, tmp_path / "out")
    print(
        f"\n200 runs, 2 workers, {os.cpu_count()} cores: {seconds:.0f} s, {seconds / 100:.2f} s a run; "
        f"memory of the driver {memory[20]:.0f} MB after 20 runs, {memory[200]:.0f} MB after 200"
    )
    assert len(found) == len(table) == 200
    assert table.status.eq("done").all()
    assert sorted(table.seed) == list(range(200))
    assert memory[200] - memory[20] < 20

"""What a sweep costs beside its kernels, and that many runs lose nothing and do not fill the memory."""

import os
import time

import psutil
from test_sweeps import write_notebook

from consensus_lib.experiments import notebooks, sweeps


def test_a_run_costs_little_beyond_its_kernel(tmp_path):
    """The fastest of eight, because whatever else the machine does slows down both."""
    book = write_notebook(tmp_path / "book.ipynb")
    sweep = sweeps.plan({"notebook": book, "seeds": 8})
    alone = []
    for seed in range(8):  # in a process that has imported all it needs
        begin = time.perf_counter()
        notebooks.execute(book, tmp_path / f"alone-{seed}", {"seed": seed}, progress=False)
        alone.append(time.perf_counter() - begin)
    found = sweeps.run_sweep(sweep, tmp_path / "out").values()
    swept = min(run["seconds"] for run in found)
    print(f"\na run: {swept:.2f} s in a sweep, {min(alone):.2f} s of it for a kernel and the notebook")
    assert all(run["status"] == "done" for run in found)
    assert swept - min(alone) <= 1


def test_two_hundred_runs_lose_nothing_and_keep_the_memory_flat(tmp_path):
    sweep = sweeps.plan({"notebook": write_notebook(tmp_path / "book.ipynb"), "seeds": 200})
    memory = {}

    def watch(progress):
        memory[progress.done] = psutil.Process().memory_info().rss / 2**20

    begin = time.perf_counter()
    found = sweeps.run_sweep(sweep, tmp_path / "out", workers=2, on_change=watch)
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

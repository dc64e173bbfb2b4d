"""Processes that train or score beside this one."""

import subprocess
import sys

HOLD = """
import os, time
from consensus_lib.training.devices import one_thread_pool

if __name__ == "__main__":
    with one_thread_pool(1) as pool:
        pool.submit(print, "begun", flush=True).result()
        pool.submit(time.sleep, 600).result()
"""


def test_processes_of_a_pool_end_with_their_parent_even_if_it_is_killed(tmp_path):
    (tmp_path / "hold.py").write_text(HOLD)
    with subprocess.Popen([sys.executable, tmp_path / "hold.py"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"begun\n"
        parent.kill()
        parent.communicate(timeout=60)  # until nobody is left who could write

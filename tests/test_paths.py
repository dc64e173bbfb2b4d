"""consensus_lib/paths.py: files that appear whole or not at all."""

import concurrent.futures
import os
import subprocess
import sys

import pytest

from consensus_lib import paths
from consensus_lib.paths import atomic, write_json


def fail_halfway(path):
    with atomic(path) as part:
        part.write_text("ne")
        raise RuntimeError


def test_atomic_replaces_only_on_success(tmp_path):
    path = tmp_path / "folder" / "result.txt"
    with atomic(path) as part:
        assert (part.parent, part.suffix) == (path.parent, ".txt")
        part.write_text("old")
        assert not path.exists()
    with pytest.raises(RuntimeError):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_atomic_leaves_modes_to_the_umask_in_every_thread(tmp_path):
    umask = os.umask(0o027)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: write_json(tmp_path / f"{n}.json", n), range(50)))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)


def test_a_lock_has_one_holder_and_ends_with_it_even_if_it_is_killed(tmp_path):
    hold = (
        "import sys, time; from consensus_lib import paths\n"
        "with paths.locked(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    lock = tmp_path / "new/lock"
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with paths.locked(lock, wait=False) as held:
            assert not held
        holder.kill()
    with paths.locked(lock) as held:
        assert held
        with paths.locked(lock, wait=False) as other:
            assert not other
    with paths.locked(lock, wait=False) as again:
        assert again

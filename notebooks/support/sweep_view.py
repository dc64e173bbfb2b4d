"""The runs of a sweep as a notebook shows them: one row each, its state read from its folder."""

import threading
from pathlib import Path

import ipywidgets
import pandas as pd

from consensus_lib import paths
from consensus_lib.experiments import sweep_run, sweeps

OPEN = ("waiting", "running")


def read_progress(sweep: sweeps.Sweep, folder: str | Path) -> pd.DataFrame:
    """Return a row for each run: what varies, its ``state``, its ``seconds`` and what went wrong.

    A state is that of :func:`.sweeps.read_states`, or, without a result, ``running`` or ``waiting``.
    """
    rows = []
    for number, found in sweeps.read_states(sweep, folder).items():
        state, lock = found["status"], Path(folder) / number / sweep_run.LOCK
        if state != "done" and lock.is_file():
            with paths.locked(lock, wait=False) as free:
                state = state if free else "running"
        varied = {name: sweep.runs[number][name] for name in sweep.varied}
        error = str(found.get("error") or "") if state not in OPEN else ""
        state = "waiting" if state == "missing" else state
        rows.append(varied | {"state": state, "seconds": found["seconds"], "error": error[:80]})
    return pd.DataFrame(rows)


class SweepProgress:
    """A table of a sweep's runs that follows their folders, whoever runs them.

    It holds no state of its own: shown again, after a reload of the page or a restart of the kernel, it says
    what lies on the disk then.
    """

    def __init__(self, sweep: sweeps.Sweep, folder: str | Path, every: float = 1.0):
        self._read, self._every = lambda: read_progress(sweep, folder), every
        self.table = ipywidgets.HTML()
        self._shown = False
        self.refresh()

    def show(self) -> None:
        """Display the table, and follow the runs until none waits or runs."""
        self._display()
        self._shown = True
        threading.Thread(target=self._follow, daemon=True).start()

    def refresh(self) -> bool:
        """Read the folders again; return whether any run waits or runs."""
        runs = self._read()
        counts = runs.state.value_counts()
        head = f"{counts.get('done', 0)} of {len(runs)} done"
        head += "".join(f" · {counts[state]} {state}" for state in counts.index if state != "done")
        known = runs.seconds.dropna()
        left = int(runs.state.isin(OPEN).sum())
        if left and len(known):
            head += f" · about {known.mean() * left / max(1, counts.get('running', 0)):.0f} s left"
        seconds = {"seconds": lambda value: "" if pd.isna(value) else f"{value:.0f}"}
        text = f"<p>{head}</p>{runs.to_html(index=False, border=0, formatters=seconds)}"
        if text != self.table.value:
            self.table.value = text
            if self._shown and not left:
                self._display(update=True)
        return bool(left)

    def _display(self, **more) -> None:
        from IPython.display import display

        plain = self.table.value
        data = self.table._repr_mimebundle_() | {"text/html": plain, "text/plain": "the runs of the sweep"}
        display(data, raw=True, display_id=str(id(self)), **more)

    def _follow(self) -> None:
        wait = threading.Event()
        while self.refresh():
            wait.wait(self._every)

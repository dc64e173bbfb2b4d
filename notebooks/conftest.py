"""The notebooks as tests: with the parameters of the profile ``smoke``, so that they take minutes."""

from consensus_lib.experiments.notebooks import read_profile

collect_ignore = ["studies"]  # train.ipynb is run by the tests of trainings and sweeps


def pytest_collection_modifyitems(items):
    """Give each notebook's cell of parameters those of the profile."""
    profile = read_profile("synthetic", "smoke")
    for item in items:
        cell = getattr(item, "cell", None)  # of nbval's items alone
        if cell and "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in profile[item.path.stem].items())

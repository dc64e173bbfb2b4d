"""What losses and post-processing cost, over cross-entropy and over the bare network: one run, one table."""

import pandas as pd
import torch

from consensus_lib.losses import BASELINES
from consensus_lib.models import POSTPROCESSING
from support.costs import measure_costs


def test_costs_of_all_methods():
    torch.set_num_threads(1)
    rows = measure_costs()
    table = pd.DataFrame(rows).set_index("name").drop(columns=["title", "source"])
    print("\n16×3×64×64, 1 thread; ratios, 1 costs nothing\n" + table.round(3).to_string())
    assert {*BASELINES, *POSTPROCESSING} < set(table.index)
    assert (table.training <= 1.3).all()  # no loss weighs much beside the network
    assert (table.inference.drop(["crf", "flip"]) <= 2).all()

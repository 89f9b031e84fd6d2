#!/usr/bin/env python3
"""The golden input for polygraphy, and outputs that polygraphy saved against the golden ones.

    golden.py PRECISION OUTPUTS.json

Made by emoc; tolerances and names are read from plan.json.
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def plan():
    return json.loads((ROOT / "plan.json").read_text(encoding="utf-8"))


def load_data():
    """What polygraphy asks for: the inputs of each run."""
    golden = plan()["golden"]["input"]
    yield {golden["name"]: np.load(ROOT / golden["npy"])}


def compare(precision, path):
    """Whether saved outputs are within the tolerance of the golden ones."""
    from polygraphy.comparator import RunResults

    models = {model["precision"]: model for model in plan()["models"]}
    tolerances = models[precision]["tolerance"]["absolute"]
    good = True
    for runner, runs in RunResults.load(path):
        for golden in plan()["golden"]["outputs"]:
            expected = np.load(ROOT / golden["npy"]).astype(np.float64)
            found = np.asarray(runs[0][golden["name"]]).astype(np.float64)
            if found.shape != expected.shape:
                print(f"{runner}: {golden['name']}: shape {found.shape}, not {expected.shape}")
                good = False
                continue
            # Not a number is no agreement either.
            difference = np.abs(found - expected).max()
            tolerance = tolerances[golden["name"]]
            agrees = bool(difference <= tolerance)
            verdict = "agrees" if agrees else "DIFFERS"
            measured = f"{difference:.3g} (tolerance {tolerance:.3g})"
            print(f"{runner}: {golden['name']}: {verdict}, {measured}")
            good = good and agrees
    return good


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(0 if compare(sys.argv[1], sys.argv[2]) else 1)

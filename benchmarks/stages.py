"""Seconds and peak memory of each stage for a simulated 256 x 256 x 160 SWI.

python benchmarks/stages.py [--threads 4] [--model NAME_OR_PATH]
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--model", default=None)
    arguments = parser.parse_args()
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

    import numpy as np
    import torch

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:28}{now - started:8.2f} s   peak {peak:5.2f} GB", flush=True)
        started = time.perf_counter()

    from bids_cmb.anatomy.locate import locate
    from bids_cmb.anatomy.mars import assign_regions
    from bids_cmb.detector.cleanup import clean_up
    from bids_cmb.detector.pipeline import detect
    from bids_cmb.detector.weights import load_model
    from bids_cmb.imaging.prepare import prepare
    from bids_cmb.training.demo import template_head
    from bids_cmb.training.simulate.protocol import Protocol
    from bids_cmb.training.simulate.scan import simulate_scan
    from bids_cmb.types import Volume

    cache = Path("benchmarks/.stages.npz")
    if cache.exists():
        with np.load(cache) as store:
            data, affine = store["data"], store["affine"]
    else:
        protocol = Protocol("swi", (0.8, 0.8, 1.0), 1.0, True, 0.02, 3.0, 20.0, False, (5.0, 0.0, 0.0))
        scan = simulate_scan(template_head(), 77, "swi", count=8, protocol=protocol, spacing=0.8)
        data = np.zeros((256, 256, 160), np.float32)
        take = [min(a, b) for a, b in zip(data.shape, scan.image.shape, strict=True)]
        data[: take[0], : take[1], : take[2]] = scan.image[: take[0], : take[1], -take[2] :]
        affine = scan.affine
        np.savez_compressed(cache, data=data, affine=affine)
    lap("imports and image")
    model = load_model(arguments.model)
    lap("load model")
    total = time.perf_counter()
    ready = prepare(Volume(data, affine), "swi")
    lap("prepare (mask, N4, SNR)")
    detection = detect(ready.image, ready.brain_mask, "swi", model, device="cpu")
    lap("detect (stages 1 and 2)")
    anatomy = locate(ready.image, ready.brain_mask, "swi")
    lap("locate (registration, MARS)")
    detection = clean_up(
        assign_regions(detection, anatomy, ready.image), ready.brain_mask, anatomy.zones, "swi", model
    )
    lap("regions and clean-up")
    print(
        f"{'one scan in all':28}{time.perf_counter() - total:8.2f} s   {len(detection.microbleeds)} microbleeds"
    )


if __name__ == "__main__":
    main()

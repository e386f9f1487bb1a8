"""Seconds and peak memory of each stage for a simulated 256 x 256 x 160 SWI.

    python benchmarks/stages.py [--threads 4] [--model NAME_OR_PATH] [--anatomy]

`--anatomy` leaves the detection out. Seconds are given by the clock and of all cores together. The reference is a
Gaussian filter of the same image on one core, before and after: it tells a slow or busy machine from slow code.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--model", default=None)
    parser.add_argument("--anatomy", action="store_true", help="mask, N4, registration and regions only")
    arguments = parser.parse_args()
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

    import numpy as np
    import torch
    from scipy import ndimage

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter(), time.process_time()

    def lap(name: str) -> float:
        nonlocal started
        now = time.perf_counter(), time.process_time()
        clock, cores = now[0] - started[0], now[1] - started[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:32}{clock:8.2f} s, of cores {cores:8.2f} s   peak {peak:5.2f} GB", flush=True)
        started = time.perf_counter(), time.process_time()
        return clock

    from bids_cmb.anatomy.locate import locate, region_map
    from bids_cmb.anatomy.mars import assign_regions
    from bids_cmb.anatomy.registration import register
    from bids_cmb.detector.cleanup import clean_up
    from bids_cmb.detector.pipeline import detect
    from bids_cmb.detector.weights import load_model
    from bids_cmb.imaging.bias import correct_bias
    from bids_cmb.imaging.brain_mask import mask_brain
    from bids_cmb.imaging.prepare import prepare
    from bids_cmb.training.simulate.heads import shipped_head
    from bids_cmb.training.simulate.protocol import Protocol
    from bids_cmb.training.simulate.scan import simulate_scan
    from bids_cmb.types import Volume

    cache = Path("benchmarks/.stages.npz")
    if cache.exists():
        with np.load(cache) as store:
            data, affine = store["data"], store["affine"]
    else:
        protocol = Protocol("swi", (0.8, 0.8, 1.0), 1.0, True, 0.02, 3.0, 20.0, False, (5.0, 0.0, 0.0))
        scan = simulate_scan(shipped_head(), 77, "swi", count=8, protocol=protocol, spacing=0.8)
        data = np.zeros((256, 256, 160), np.float32)
        take = [min(a, b) for a, b in zip(data.shape, scan.image.shape, strict=True)]
        data[: take[0], : take[1], : take[2]] = scan.image[: take[0], : take[1], -take[2] :]
        affine = scan.affine
        np.savez_compressed(cache, data=data, affine=affine)
    lap("imports and image")

    def reference() -> None:
        ndimage.gaussian_filter(data, 2.0)
        lap("reference: Gaussian filter")

    image = Volume(data, affine)
    reference()
    found = mask_brain(image, "swi")
    mask = found.mask
    seconds = lap(f"brain mask ({found.method})")
    correct_bias(image, mask)
    lap("N4")
    ready = prepare(image, "swi", brain_mask=mask)
    lap("prepare with a given mask")
    registration = register(ready.image, mask)
    both = seconds + lap("registration")
    region_map(ready.image, mask, registration)
    both += lap("regions on the image's grid")
    print(f"{'mask, registration and regions':32}{both:8.2f} s")
    reference()
    if arguments.anatomy:
        return
    model = load_model(arguments.model)
    lap("load model")
    total = time.perf_counter()
    ready = prepare(image, "swi")
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
        f"{'one scan in all':32}{time.perf_counter() - total:8.2f} s   {len(detection.microbleeds)} microbleeds"
    )
    reference()


if __name__ == "__main__":
    main()

"""Speed, memory and overlap of the brain mask.

    python benchmarks/brain_mask.py speed                 256 x 256 x 160 voxels, simulated
    python benchmarks/brain_mask.py real                  overlap on the real heads and the real QSM of ../shared/data
    python benchmarks/brain_mask.py heads T1W [T1W ...]   overlap with masks made for training
    python benchmarks/brain_mask.py simulated FOLDER [FOLDER ...] [--whole]
                                                          overlap with the truth of simulated scans, or whole heads only
    python benchmarks/brain_mask.py look IMAGE OUT.png --contrast gre

The reference of a T1-weighted head is the mask that training derives from it (a registered template and the
intensities); that of the QSM is the mask its authors give.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_cmb.errors import InputError
from bids_cmb.evaluation.bootstrap import Resamples, ratio
from bids_cmb.imaging.brain_mask import mask_brain
from bids_cmb.imaging.prepare import prepare
from bids_cmb.imaging.volume import load_image
from bids_cmb.types import BoolArray, FloatArray, Volume

SHARED = Path(__file__).parents[2] / "shared/data"


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("speed")
    commands.add_parser("real")
    heads = commands.add_parser("heads")
    heads.add_argument("t1w", type=Path, nargs="+")
    simulated = commands.add_parser("simulated")
    simulated.add_argument("folders", type=Path, nargs="+")
    simulated.add_argument("--whole", action="store_true", help="leave out scans that are stripped already")
    look = commands.add_parser("look")
    look.add_argument("image", type=Path)
    look.add_argument("out", type=Path)
    look.add_argument("--contrast", choices=("gre", "swi", "qsm"), default="gre")
    arguments = parser.parse_args()
    if arguments.command == "speed":
        speed()
    elif arguments.command == "heads":
        overlap(arguments.t1w)
    elif arguments.command == "simulated":
        truth(arguments.folders, whole=arguments.whole)
    elif arguments.command == "real":
        real()
    else:
        picture(arguments.image, arguments.out, arguments.contrast)


def head_256() -> FloatArray:
    """Simulated head, 256 x 256 x 160 of 0.8 x 0.8 x 1 mm: template brain, shells, bias and noise."""
    from nilearn.datasets import load_mni152_template
    from scipy import ndimage

    template = np.asarray(load_mni152_template(resolution=1).dataobj, dtype=np.float32)
    rough = ndimage.zoom(template, (1.25, 1.25, 1), order=1)
    data = np.zeros((256, 256, 160), np.float32)
    box = [min(a, b) for a, b in zip(rough.shape, data.shape, strict=True)]
    put = tuple(slice((n - b) // 2, (n - b) // 2 + b) for n, b in zip(data.shape, box, strict=True))
    take = tuple(slice((n - b) // 2, (n - b) // 2 + b) for n, b in zip(rough.shape, box, strict=True))
    data[put] = rough[take] / rough.max()
    distance = ndimage.distance_transform_edt(data < 0.1, sampling=(0.8, 0.8, 1.0))
    data[(distance > 9) & (distance < 16)] = 0.9
    data *= np.exp(np.linspace(-0.4, 0.4, 256, dtype=np.float32))[:, None, None]
    rng = np.random.default_rng(0)
    return np.abs(data * 1000 + 20 * rng.standard_normal(data.shape).astype(np.float32))


def speed() -> None:
    """Time `prepare` on a large SWI, first run and later runs."""
    volume = Volume(head_256(), np.diag([0.8, 0.8, 1.0, 1.0]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    for run in range(3):
        start = time.perf_counter()
        out = prepare(volume, "swi")
        seconds = time.perf_counter() - start
        millilitres = out.brain_mask.sum() * volume.voxel_volume / 1000
        print(f"run {run}: {seconds:.2f} s, mask {millilitres:.0f} ml, warnings {list(out.warnings)}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {after:.2f} GB ({before:.2f} GB before)")


def share(found: BoolArray, reference: BoolArray) -> float:
    """Dice coefficient."""
    return 2 * float((found & reference).sum()) / float(found.sum() + reference.sum())


def overlap(paths: Sequence[Path]) -> None:
    """Dice with the masks that training derives from T1-weighted heads."""
    from bids_cmb.training.simulate import t1w_brain

    template, template_mask, _ = t1w_brain.template_brain()
    for path in paths:
        image = t1w_brain.read_t1w(path)
        reference, _ = t1w_brain.segment_t1w(image, template, template_mask)
        start = time.perf_counter()
        found = mask_brain(Volume(image, np.eye(4)), "gre")
        seconds = time.perf_counter() - start
        print(
            f"{path.name}: Dice {share(found.mask, reference):.4f} ({found.method}, {seconds:.1f} s), "
            f"{found.mask.sum() / 1000:.0f} ml for {reference.sum() / 1000:.0f} ml, {list(found.warnings)}",
            flush=True,
        )


def real() -> None:
    """Overlap on the T1-weighted heads and on the QSM of ../shared/data."""
    from scipy.io import loadmat

    if not SHARED.is_dir():
        print("../shared/data is absent: nothing to compare with")
        return
    volume = load_image(SHARED / "qsm_hemorrhage/msQSM.nii.gz").volume
    given = loadmat(SHARED / "qsm_hemorrhage/data.mat")["mask"] > 0
    # The file's axes may run the other way: of the mirror images, the one on the susceptibility's own support.
    support = volume.data != 0
    mirrors = [np.flip(given, axes) for n in range(4) for axes in itertools.combinations(range(3), n)]
    reference = max(mirrors, key=lambda mask: share(mask, support))
    found = mask_brain(volume, "qsm")
    print(
        f"msQSM.nii.gz: Dice {share(found.mask, reference):.4f} ({found.method}), {list(found.warnings)}",
        flush=True,
    )
    overlap(sorted((SHARED / "t1w_heads").glob("*.nii.gz")))


def truth(folders: Sequence[Path], *, whole: bool) -> None:
    """Print overlap and lost microbleeds on the scans of `bids-cmb-train simulate`, with 95 % intervals over subjects."""
    from bids_cmb.training.simulate.corpus import load_scan, scans_in

    rows: dict[str, list[tuple[float, int, int, str]]] = {}
    for path in (p for f in folders for p in scans_in(f)):
        scan = load_scan(path)
        if whole and scan.protocol.stripped:
            continue
        volume, contrast = Volume(scan.image, scan.affine), scan.protocol.contrast
        try:
            brain = mask_brain(volume, contrast)
            found, method = brain.mask, brain.method
        except InputError:
            found, method = np.zeros_like(scan.brain_mask), "none"
        dice = share(found, scan.brain_mask)
        outlined = [x.index for x in scan.lesions if x.visible and (scan.lesion_labels == x.index).any()]
        lost = sum(not found[scan.lesion_labels == index].any() for index in outlined)
        kind = f"{scan.protocol.contrast} {'stripped' if scan.protocol.stripped else 'whole head'}"
        rows.setdefault(kind, []).append((dice, lost, len(outlined), f"{scan.head} {scan.seed}"))
        print(
            f"{path.stem} {kind}: Dice {dice:.3f} ({method}), {lost} of {len(outlined)} visible microbleeds outside",
            flush=True,
        )
    for kind, values in sorted(rows.items()):
        dice = np.array([v[0] for v in values])
        draws = Resamples.of([v[3] for v in values])
        mean = ratio("", "Dice", dice, np.ones(len(dice)), draws, unit="scans", proportion=False)
        print(
            f"{kind}: {len(dice)} scans of {draws.subjects} subjects, Dice {mean.value:.3f} (95 % CI {mean.low:.3f}-{mean.high:.3f}), worst {dice.min():.3f};"
            f" {sum(v[1] for v in values)} of {sum(v[2] for v in values)} visible microbleeds outside"
        )


def picture(path: Path, out: Path, contrast: str) -> None:
    """Draw the outline of the mask on slices along the three axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    volume = load_image(path).volume
    found = mask_brain(volume, contrast)  # type: ignore[arg-type]
    low, high = np.percentile(volume.data, (1, 99.5))
    figure, axes = pyplot.subplots(3, 6, figsize=(24, 12), facecolor="k")
    for row, axis in enumerate((2, 1, 0)):
        there = np.flatnonzero(found.mask.any(axis=tuple(k for k in range(3) if k != axis)))
        sides = [volume.zooms[k] for k in range(3) if k != axis]
        for panel, index in zip(
            axes[row], np.linspace(there[0], there[-1], 8)[1:-1].astype(int), strict=True
        ):
            shown = np.take(volume.data, index, axis).T
            panel.imshow(shown, cmap="gray", origin="lower", vmin=low, vmax=high, aspect=sides[1] / sides[0])
            panel.contour(np.take(found.mask, index, axis).T, [0.5], colors="r", linewidths=1)
            panel.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=60)
    print(found.method, list(found.warnings))


if __name__ == "__main__":
    main()

"""Where planted lesions are said to lie, and how the atlas compares with an independent one.

    python benchmarks/anatomy.py planted [--heads 10] [--contrast gre swi qsm] [--seed 0] [--source NAME] [--t1w]
    python benchmarks/anatomy.py atlas
    python benchmarks/anatomy.py speed

`planted` draws lesions into heads whose anatomy is known (`drawn_heads.py`: no physics), corrects their bias field as the
main job does, runs `locate` and `assign_regions`, and counts right categories, regions and sides: how well places are found on heads of another shape, not
how a scanner's image fares. With `--t1w`, the same heads come with a T1w image of the session. Heads of the independent parcellation are drawn where ../shared/data is there.

`atlas` needs ../shared/data too.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from drawn_heads import Head, Source, gif_source, make_head, template_source
from scipy import ndimage

from bids_cmb.anatomy.landmarks import world_grid
from bids_cmb.anatomy.locate import locate
from bids_cmb.anatomy.mars import assign_regions
from bids_cmb.anatomy.registration import register
from bids_cmb.anatomy.structures import STRUCTURES
from bids_cmb.anatomy.template import load_mars
from bids_cmb.imaging.bias import correct_bias
from bids_cmb.types import MARS_REGIONS, Candidate, Contrast, Detection, Volume, mars_region

SHARED = Path(__file__).parents[2] / "shared/data"
#: Shares of microbleeds by place: cortex, white matter of the lobes, deep, infratentorial.
PLACES = (0.33, 0.40, 0.14, 0.13)


def places(head: Head, rng: np.random.Generator) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Voxels to plant lesions at: twelve as microbleeds fall, and one in each region of MARS on a random side."""
    category = np.zeros(256, np.uint8)
    for side in (0, 100):
        for k, (_, _, name) in enumerate(MARS_REGIONS, 1):
            category[side + k] = {"lobar": 1, "deep": 2, "infratentorial": 3}[name]
    kind = np.where(head.mask, category[head.mars], 0)
    tissue = ~np.isin(
        head.structures, [STRUCTURES[n] for n in ("sulcal_csf", "lateral_ventricle", "third_ventricle")]
    )
    white = head.structures == STRUCTURES["white_matter"]
    groups = [(kind == 1) & tissue & ~white, (kind == 1) & white, (kind == 2) & tissue, (kind == 3) & tissue]
    for group in rng.choice(4, 12, p=PLACES):
        choices = np.argwhere(groups[group])
        if len(choices):
            yield "incidence", tuple(choices[rng.integers(len(choices))])
    for k in range(1, 14):
        choices = np.argwhere((head.mars == k + 100 * rng.integers(2)) & head.mask & tissue)
        if len(choices):
            yield "balanced", tuple(choices[rng.integers(len(choices))])


def plant(
    head: Head, contrast: Contrast, rng: np.random.Generator
) -> tuple[Volume, Detection, list[tuple[str, int]]]:
    """Draw lesions into a head: the image, the outlines as a detection, and set and true label of each."""
    image = head.image.data.copy()
    labels = np.zeros(image.shape, np.int32)
    candidates, truth = [], []
    zooms = np.asarray(head.image.zooms)
    for kind, place in places(head, rng):
        diameter = float(np.clip(np.exp(rng.normal(1.07, 0.28)), 1.5, 9))
        reach = np.ceil(diameter / 2 / zooms).astype(int)
        box = tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(place, reach, strict=True))
        offsets = np.meshgrid(
            *[np.arange(b.start, min(b.stop, n)) for b, n in zip(box, image.shape, strict=True)],
            indexing="ij",
        )
        distance = np.sqrt(sum(((o - p) * z) ** 2 for o, p, z in zip(offsets, place, zooms, strict=True)))
        blob = (distance <= diameter / 2) & (labels[box] == 0)
        if not blob.any():
            continue
        index = len(candidates) + 1
        labels[box][blob] = index
        image[box][blob] = image[box][blob] + 0.4 if contrast == "qsm" else image[box][blob] * 0.4
        position = head.image.affine[:3, :3] @ np.asarray(place) + head.image.affine[:3, 3]
        x, y, z = (float(v) for v in position)
        candidates.append(
            Candidate(index, (x, y, z), 1, 1, float(blob.sum() * np.prod(zooms)), diameter, 1, 1)
        )
        truth.append((kind, int(head.mars[place])))
    return Volume(image, head.image.affine), Detection(tuple(candidates), labels), truth


def wilson(right: int, total: int) -> str:
    """Share with its 95 % interval (Wilson)."""
    if not total:
        return "n/a"
    share, z = right / total, 1.96
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return f"{share:.3f} ({right}/{total}, 95 % CI {middle - half:.3f}-{middle + half:.3f})"


def planted(heads: range, contrasts: list[Contrast], seed: int, only: str | None, *, with_t1w: bool) -> None:
    """Plant, locate, count."""
    sources = [template_source()]
    gif = SHARED / "labels/gif_parcellation_dseg.nii.gz"
    if gif.is_file():
        sources.append(gif_source(gif))
    else:
        print("../shared/data is absent: no independent head")
    for source in sources:
        for contrast in contrasts:
            if only in (None, source.name):
                one_cell(source, contrast, heads, seed, with_t1w=with_t1w)


def one_cell(source: Source, contrast: Contrast, heads: range, seed: int, *, with_t1w: bool) -> None:
    """One anatomy in one contrast: a line for every head, then the shares of all."""
    counts: Counter[tuple[str, str]] = Counter()
    regions: Counter[tuple[str, str]] = Counter()
    seconds, warnings = [], 0
    for number in heads:
        rng = np.random.default_rng(
            [seed, number, ("gre", "swi", "qsm").index(contrast), source.name == "template"]
        )
        head = make_head(source, contrast, rng)
        image, detection, truth = plant(head, contrast, rng)
        # As in the main job, which places regions on the prepared scan.
        image = image if contrast == "qsm" else correct_bias(image, head.mask)
        start = time.process_time()
        anatomy = locate(image, head.mask, contrast, t1w=head.t1w if with_t1w else None)
        found = assign_regions(detection, anatomy, image)
        seconds.append(time.process_time() - start)
        warnings += bool(anatomy.warnings)
        missed = []
        for candidate, (kind, label) in zip(found.candidates, truth, strict=True):
            code, category, side = mars_region(label)
            counts[kind, "n"] += 1
            counts[kind, "category"] += candidate.mars_category == category
            counts[kind, "region"] += candidate.mars_region == code
            named = {candidate.mars_region} | {f[7:] for f in candidate.flags if f.startswith("border:")}
            counts[kind, "region or border"] += code in named
            counts[kind, "side"] += candidate.hemisphere == side
            if (candidate.mars_region, candidate.hemisphere) != (code, side):
                regions[kind, f"{code}>{candidate.mars_region}"] += candidate.mars_region != code
                missed.append(f"{kind[0]}:{code}_{side}>{candidate.mars_region}_{candidate.hemisphere}")
        slices = np.flatnonzero(head.mask.any(axis=(0, 1)))
        print(
            f"{source.name}, {contrast}, head {number}: voxels {head.image.zooms[0]:g} x {head.image.zooms[2]:g} mm, "
            f"{len(slices) * head.image.zooms[2]:.0f} mm high, similarity {anatomy.quality['similarity']:.3f}, "
            f"overlap {anatomy.quality['overlap']:.3f}, T1w {anatomy.quality.get('t1w_used', 'none')}, {seconds[-1]:.1f} s of one core, "
            f"{len(truth)} lesions, missed: {' '.join(missed) or 'none'}"
            + "".join(f"\n    {sentence}" for sentence in anatomy.warnings),
            flush=True,
        )
    print(
        f"\n{source.name}, {contrast}: {len(heads)} heads, {np.mean(seconds):.1f} s of one core a scan "
        f"(slowest {max(seconds):.1f} s), {warnings} heads with a warning"
    )
    for kind in ("incidence", "balanced"):
        total = counts[kind, "n"]
        for figure in ("category", "region", "region or border", "side"):
            print(f"  {kind:9} {figure:16} {wilson(counts[kind, figure], total)}")
        pairs = Counter({pair: n for (k, pair), n in regions.items() if k == kind and n})
        print(f"  {kind}, confusions:", ", ".join(f"{p} {n}" for p, n in pairs.most_common(8)), flush=True)


def atlas() -> None:
    """Compare the atlas with the independent map."""
    import nibabel as nib

    path = SHARED / "mars_map/MARS_scale_parcellation_map_mni.nii.gz"
    if not path.is_file():
        print("../shared/data is absent: nothing to compare with")
        return
    reference = nib.load(path)
    codes = np.rint(np.sqrt(np.asarray(reference.dataobj))).astype(np.uint8)
    own = load_mars()
    x, y, z = np.broadcast_arrays(*world_grid(own.labels.shape, own.affine))
    back = np.linalg.inv(reference.affine)
    places = [back[k, 0] * x + back[k, 1] * y + back[k, 2] * z + back[k, 3] for k in range(3)]
    theirs = ndimage.map_coordinates(codes, places, order=0)
    ours = own.labels % 100
    both = (ours > 0) & (theirs > 0)
    category = np.array([0] + [{"lobar": 1, "deep": 2, "infratentorial": 3}[r[2]] for r in MARS_REGIONS])
    print(f"voxels labelled by both: {both.sum()}")
    print(f"category agreement {np.mean(category[ours[both]] == category[theirs[both]]):.4f}")
    print(f"region agreement   {np.mean(ours[both] == theirs[both]):.4f}")
    for k, (code, name, _) in enumerate(MARS_REGIONS, 1):
        a, b = (ours == k) & both, (theirs == k) & both
        goes = Counter(ours[b].tolist())
        shown = ", ".join(f"{MARS_REGIONS[j - 1][0]} {n / b.sum():.2f}" for j, n in goes.most_common(4))
        print(f"{code:5} {name:38} Dice {2 * (a & b).sum() / (a.sum() + b.sum()):.3f}  "
              f"ml {(ours == k).sum() / 1000:6.1f} (theirs {(theirs == k).sum() / 1000:6.1f})  theirs is ours: {shown}")  # fmt: skip


def speed() -> None:
    """Seconds of both registrations of one drawn head, by the clock and of all cores together."""
    rng = np.random.default_rng(0)
    head = make_head(template_source(), "swi", rng)
    register(head.image, head.mask)  # reads the template
    for name, finer in (("default", False), ("syn", True)):
        start = time.perf_counter(), time.process_time()
        found = register(head.image, head.mask, finer=finer)
        clock, cores = time.perf_counter() - start[0], time.process_time() - start[1]
        taken = "" if found.quality.get("syn_taken", 1) else ", not taken"
        print(
            f"registration {name}: {clock:.1f} s, of cores {cores:.1f} s, "
            f"similarity {found.quality['similarity']:.3f}{taken}",
            flush=True,
        )


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("planted")
    run.add_argument("--heads", type=int, default=10)
    run.add_argument("--first", type=int, default=0, help="number of the first head, to go on after a stop")
    run.add_argument("--source", choices=("template", "GIF subject"), help="one anatomy only")
    run.add_argument("--contrast", nargs="+", choices=("gre", "swi", "qsm"), default=["gre", "swi", "qsm"])
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--t1w", action="store_true", help="with a T1w image of the session")
    commands.add_parser("atlas")
    commands.add_parser("speed")
    arguments = parser.parse_args()
    if arguments.command == "planted":
        heads = range(arguments.first, arguments.first + arguments.heads)
        planted(heads, arguments.contrast, arguments.seed, arguments.source, with_t1w=arguments.t1w)
    else:
        {"atlas": atlas, "speed": speed}[arguments.command]()


if __name__ == "__main__":
    main()

"""Microbleeds implanted through physics into the real images of ../shared/data: found or missed.

    python benchmarks/implants.py [--model NAME_OR_PATH] [--copies 10] [--show FOLDER]

No real image there carries annotated microbleeds. Here spheres like the small deposits of the simulator are added to
real anatomy, noise and veins: on complex crops the signal of each voxel is multiplied by that of its parts in the dipole
field of the sphere, and an SWI is made of the product; on magnitude (the 12-echo slab) by its absolute value; on QSM the
field of the sphere is inverted as a susceptibility map is, and added. Whether an implant can be seen is judged as in the
simulator. Echo time times field is taken as 60 T ms (20 ms at 3 T): the files do not say it of these volumes.

What the figures are not: implants keep 4 mm off the brain's border and off what is dark or bright already, so that they
are easier than bleeds in cortex or beside veins; the slab has 7 slices, the crops have edges of 19 to 41 mm (their mask
is given, all of them); copies share one image, so that no interval is printed; there is no registration. What is found
on an image without implants is printed first, and said apart where a copy shows it again: on the QSM it is a haemorrhage.
Exits with a sentence where the folder is absent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from bids_cmb.detector.cleanup import clean_up
from bids_cmb.detector.pipeline import detect
from bids_cmb.detector.weights import Model, load_model
from bids_cmb.evaluation.matching import match_scan
from bids_cmb.imaging.prepare import prepare
from bids_cmb.imaging.susceptibility import MHZ_PER_TESLA
from bids_cmb.training.held_out import compared
from bids_cmb.training.simulate.corpus import save_scan
from bids_cmb.training.simulate.lesions import DIAMETER, STATIC_DEPHASING, STRENGTH, Deposit
from bids_cmb.training.simulate.products import invert_truncated, susceptibility_weighted
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.training.simulate.truth import outline
from bids_cmb.types import BoolArray, Candidate, Contrast, Detection, FloatArray, Volume

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
#: Field strength (T) and echo time (s) where the files do not say.
FIELD, ECHO = 3.0, 0.02
#: Parts of a voxel along each axis; reach of an implant and least distance between two, mm.
PARTS, REACH, APART = 5, 14.0, 8.0


@dataclass(frozen=True)
class Source:
    """A real image: complex, magnitude or susceptibility (X, Y, Z), RAS+, and where implants may go."""

    name: str
    contrast: Contrast
    data: npt.NDArray[np.complex64] | FloatArray
    affine: npt.NDArray[np.float64]
    mask: BoolArray
    implants: int
    mask_given: bool


def sources() -> Iterator[Source]:
    """The real images of the folder."""
    for folder in sorted((DATA / "gre_crops").iterdir()):
        magnitude, phase = (
            np.asarray(nib.load(folder / f"{part}.nii").dataobj, np.float32)[..., 2]
            for part in ("Mag", "Phase")
        )
        phase = phase * (math.pi / np.abs(phase).max())
        affine = np.diag([0.46875, 0.46875, 1.0, 1.0])
        image = (magnitude / magnitude.mean() * 1000 * np.exp(1j * phase)).astype(np.complex64)
        yield Source(f"crop {folder.name}", "swi", image, affine, np.ones(image.shape, bool), 2, True)
    slab = nib.as_closest_canonical(nib.load(next((DATA / "gre_12echo").glob("*.nii.gz"))))
    image = np.asarray(slab.dataobj, np.float32)[..., 6]
    mask = prepare(Volume(image, slab.affine), "gre").brain_mask
    yield Source("slab", "gre", image, slab.affine, mask, 6, False)
    qsm = nib.as_closest_canonical(nib.load(DATA / "qsm_hemorrhage" / "msQSM.nii.gz"))
    image = np.asarray(qsm.dataobj, np.float32)
    yield Source("QSM", "qsm", image, qsm.affine, image != 0, 15, False)


def places(source: Source, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Voxels for the implants: inside the brain, in ordinary tissue, apart from one another."""
    zooms = np.linalg.norm(source.affine[:3, :3], axis=0)
    depth = ndimage.distance_transform_edt(np.pad(source.mask, 1), sampling=zooms)[1:-1, 1:-1, 1:-1]
    level = np.abs(source.data)
    low, high = np.quantile(level[source.mask], [0.2, 0.9])
    ordinary = ndimage.uniform_filter(((level > low) & (level < high)).astype(np.float32), 3) > 0.8
    if source.contrast == "qsm":
        ordinary = ndimage.uniform_filter(level, 5) < 0.04
    pool = np.argwhere(ordinary & (depth > 4.0))
    chosen: list[tuple[int, int, int]] = []
    for where in rng.permutation(pool):
        if all(np.linalg.norm((where - c) * zooms) > APART for c in chosen):
            chosen.append((int(where[0]), int(where[1]), int(where[2])))
        if len(chosen) == source.implants:
            break
    return chosen


def draw(where: tuple[int, int, int], rng: np.random.Generator) -> Deposit:
    """A sphere of the size and strength of most deposits of `bids_cmb.training.simulate.lesions.draw_deposits`."""
    diameter = float(np.clip(np.exp(rng.normal(np.log(DIAMETER[0]), DIAMETER[1])), 0.5, 6.0))
    chi = float(np.exp(rng.uniform(np.log(STRENGTH[0]), np.log(STRENGTH[1]))))
    x, y, z = (float(w + s) for w, s in zip(where, rng.uniform(-0.5, 0.5, 3), strict=True))
    return Deposit((x, y, z), diameter, chi, min(500.0, STATIC_DEPHASING * chi * 0.85), "implant")


def sphere(
    source: Source, deposit: Deposit
) -> tuple[tuple[slice, ...], npt.NDArray[np.complex128], FloatArray]:
    """Box around a sphere, share of each voxel's signal that is left there (complex), and its mean field (ppm)."""
    zooms = np.linalg.norm(source.affine[:3, :3], axis=0)
    centre, shape = np.array(deposit.centre), np.array(source.data.shape)
    low = np.maximum(0, np.floor(centre - REACH / zooms)).astype(int)
    high = np.minimum(shape, np.ceil(centre + REACH / zooms).astype(int) + 1)
    steps = (np.arange(PARTS) + 0.5) / PARTS - 0.5
    axes = [
        ((np.arange(a, b)[:, None] + steps).ravel() - c) * d
        for a, b, c, d in zip(low, high, centre, zooms, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    squared = np.maximum(x**2 + y**2 + z**2, 1e-6)
    b0 = np.linalg.inv(source.affine[:3, :3] / zooms) @ [0, 0, 1]
    squared_cosine = (x * b0[0] + y * b0[1] + z * b0[2]) ** 2 / squared
    radius = deposit.diameter / 2
    outside = squared > radius**2
    field = np.where(outside, deposit.chi / 3 * (radius**2 / squared) ** 1.5 * (3 * squared_cosine - 1), 0.0)
    kept = np.exp(
        2j * np.pi * MHZ_PER_TESLA * FIELD * ECHO * field - np.where(outside, 0, ECHO * deposit.r2star)
    )
    blocks = [n for pair in zip(high - low, [PARTS] * 3, strict=True) for n in pair]
    mean = [part.reshape(blocks).mean(axis=(1, 3, 5)) for part in (kept, field)]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), mean[0], mean[1]


def implanted(source: Source, seed: int) -> SimulatedScan:
    """Implant microbleeds into a copy of a real image; the truth is outlined as in the simulator."""
    rng = np.random.default_rng(seed)
    deposits = [draw(where, rng) for where in places(source, rng)]
    zooms = tuple(float(z) for z in np.linalg.norm(source.affine[:3, :3], axis=0))
    data = source.data.copy()
    field = np.zeros(data.shape, np.float32)
    for deposit in deposits:
        box, kept, shift = sphere(source, deposit)
        field[box] += shift.astype(np.float32)
        if source.contrast != "qsm":
            data[box] = data[box] * (kept if np.iscomplexobj(data) else np.abs(kept))
    if source.contrast == "qsm":
        b0 = torch.from_numpy(np.linalg.inv(source.affine[:3, :3] / zooms) @ [0, 0, 1]).float()
        gain = invert_truncated(torch.from_numpy(field), zooms, b0, threshold=0.15).numpy()  # type: ignore[arg-type]
        data = np.where(source.mask, data + gain, 0).astype(np.float32)
    clean, image = (product(x, source.contrast) for x in (source.data, data))
    wide = ndimage.gaussian_filter(clean * source.mask, [3 / z for z in zooms])
    wide /= np.maximum(ndimage.gaussian_filter(source.mask.astype(np.float32), [3 / z for z in zooms]), 0.05)
    rough = clean - ndimage.gaussian_filter(clean, 1.0)
    noise = 1.5 * float(np.median(np.abs(rough[source.mask])))
    depth = image - clean if source.contrast == "qsm" else (clean - image) / np.maximum(wide, 1e-6)
    if source.contrast != "qsm":
        noise /= float(np.median(wide[source.mask]))
    labels, lesions = outline(
        depth, clean, image, source.mask, deposits, np.ones(3), source.affine, zooms, source.contrast, noise
    )
    protocol = Protocol(source.contrast, zooms, 1.0, True, ECHO, FIELD, 0.0, True, (0.0, 0.0, 0.0))  # type: ignore[arg-type]
    return SimulatedScan(
        image,
        source.affine,
        source.mask,
        labels,
        lesions,
        (),
        np.zeros_like(labels),
        protocol,
        seed,
        f"{source.name} with implants",
    )


def product(data: npt.NDArray[np.complex64] | FloatArray, contrast: Contrast) -> FloatArray:
    """The image of a contrast: SWI of complex data, the others as they are."""
    if contrast != "swi":
        return np.asarray(data, np.float32)
    weighted = susceptibility_weighted(torch.from_numpy(data), window=0.25, power=4).numpy()
    return np.asarray(weighted, np.float32)


def found_on(image: FloatArray, source: Source, model: Model) -> Detection:
    """What the detector finds on an image, without the zones that a registration would give."""
    given = source.mask if source.mask_given else None
    ready = prepare(Volume(image, source.affine), source.contrast, brain_mask=given)
    found = detect(ready.image, ready.brain_mask, source.contrast, model)
    return clean_up(found, ready.brain_mask, {}, source.contrast, model)


def shown_before(place: tuple[float, float, float], before: Sequence[Candidate]) -> bool:
    """Whether a false detection lies on something that is found without implants too."""
    return any(math.dist(place, c.position) <= c.diameter / 2 + 3.0 for c in before)


def main() -> None:
    """Implant, detect, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument(
        "--show", type=Path, help="keep the images here, as `bids-cmb-train simulate` keeps its scans"
    )
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print("The real images (../shared/data) are not here: nothing to do.")
        return
    model = load_model(arguments.model)
    for source in sources():
        before = found_on(product(source.data, source.contrast), source, model).microbleeds
        told = "; ".join(
            f"at {c.position[0]:.0f}, {c.position[1]:.0f}, {c.position[2]:.0f} mm, {c.diameter:.1f} mm wide, "
            f"probability {c.probability:.2f}"
            for c in before
        )
        print(f"{source.name} ({source.contrast}) without implants: {len(before)} found {told}".rstrip())
        results, again = [], 0
        for seed in range(arguments.copies):
            scan = implanted(source, seed)
            if arguments.show is not None:
                arguments.show.mkdir(parents=True, exist_ok=True)
                save_scan(
                    scan, arguments.show / f"{source.contrast}_{source.name.replace(' ', '-')}_{seed}.npz"
                )
            results.append(compared(f"{source.name} {seed}", scan, found_on(scan.image, source, model)))
            pair = results[-1].pair
            again += sum(shown_before(pair.predictions[i].position, before) for i in match_scan(pair).false)
        drawn, visible, found, offered, false = (
            sum(values)
            for values in zip(
                *((len(r.pair.references), r.visible, r.found, r.stage1_found, r.false) for r in results),
                strict=True,
            )
        )
        print(
            f"{source.name} ({source.contrast}): {drawn} implants in {len(results)} copies, {visible} visible, "
            f"{found} found ({found / max(1, visible):.2f}), {offered} offered by stage 1, {false} false, {again} of them found without implants too",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""The pages: complete, self-contained, escaped, the same every time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_cmb.report.group import write_group_page
from bids_cmb.report.subject import write_subject_page

from .simulated_outputs import Case, write_dataset


def test_a_subject_page_shows_every_microbleed_and_asks_for_nothing(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert len(re.findall(r'id="scan-\d-cmb-\d+"', text)) == 5
    assert "Research use only" in text
    assert "data:image/png" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "default-src 'none'" in text


def test_a_scan_without_microbleeds_says_so(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    assert "no microbleeds found" in write_subject_page(out, "sub-02", bids_dir=bids).read_text(
        encoding="utf-8"
    )


def test_a_missing_image_costs_the_pictures_not_the_page(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = dataset
    text = write_subject_page(out, "01", bids_dir=tmp_path).read_text(encoding="utf-8")
    assert len(re.findall(r'id="scan-\d-cmb-\d+"', text)) == 5


def test_the_same_files_give_the_same_page(dataset: tuple[Path, Path]) -> None:
    bids, out = dataset
    first = write_subject_page(out, "01", bids_dir=bids).read_bytes()
    assert write_subject_page(out, "01", bids_dir=bids).read_bytes() == first


def test_the_group_page_links_and_escapes(tmp_path: Path) -> None:
    header = "participant_id\tsession_id\tsource\tcontrast\tstatus\tn_cmb\twarnings\n"
    rows = "sub-01\tn/a\tbids:raw:x\tswi\tdone\t3\tn/a\nsub-02\tn/a\tbids:raw:y\tgre\tfailed\tn/a\t<script>alert(1)</script>\n"
    (tmp_path / "group_cmb.tsv").write_text(header + rows, encoding="utf-8")
    (tmp_path / "sub-01.html").write_text("x", encoding="utf-8")
    text = write_group_page(tmp_path).read_text(encoding="utf-8")
    assert 'href="sub-01.html"' in text
    assert "<script>alert" not in text
    assert "1 scan of 2 participants: 3 microbleeds, at least one in 1 scan (100 %); 1 scan failed." in text


def test_an_empty_folder_still_gives_a_group_page(tmp_path: Path) -> None:
    assert "0 scans" in write_group_page(tmp_path).read_text(encoding="utf-8")


def test_twelve_microbleeds_are_twelve_cards(tmp_path: Path) -> None:
    bids, out = write_dataset(tmp_path, {"04": [Case("gre", 12)]})
    text = write_subject_page(out, "04", bids_dir=bids).read_text(encoding="utf-8")
    assert len(re.findall(r'id="scan-1-cmb-\d+"', text)) == 12
    assert "T2*-GRE: 12 microbleeds" in text


def test_text_of_sidecars_and_logs_is_shown_and_never_run(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    case = Case("gre", 1, warnings=(bad,), sidecar={"Manufacturer": bad, "Model": {"Name": bad}})
    bids, out = write_dataset(tmp_path, {"05": [case]})
    record = {"status": "failed", "participant_id": "sub-05", "message": bad, "log": "../../secret"}
    (out / "logs" / "scans").mkdir(parents=True, exist_ok=True)
    (out / "logs" / "scans" / "sub-05_run-2_T2starw.json").write_text(json.dumps(record), encoding="utf-8")
    text = write_subject_page(out, "05", bids_dir=bids).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x") >= 2
    assert 'id="errors"' in text


@pytest.mark.parametrize("status", ["failed", "superseded"])
def test_results_of_an_earlier_run_are_not_shown(tmp_path: Path, status: str) -> None:
    # Since then the scan may come from a file of another kind, or from another dataset: its name tells.
    bids, out = write_dataset(tmp_path, {"01": [Case("gre", 2), Case("swi", 1)]})
    assert 'id="scan-2"' in (page := write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8"))
    assert "2 scans" in page
    record = {
        "participant_id": "sub-01", "status": status, "message": "The image is empty.", "log": "",
        "source": "bids:other:sub-01/anat/sub-01_T2starw.nii",
    }  # fmt: skip
    (out / "logs" / "scans").mkdir(parents=True, exist_ok=True)
    (out / "logs" / "scans" / "sub-01_T2starw.json").write_text(json.dumps(record), encoding="utf-8")
    page = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert "1 scan." in page
    assert ("The image is empty." in page) == (status == "failed")


def test_the_methods_text_names_ants_where_its_registration_was_taken_and_only_there(tmp_path: Path) -> None:
    cases = {
        "fast": [Case("gre", 0)],
        "tried": [Case("gre", 0, sidecar={"RegistrationQuality": {"similarity": 0.7, "syn_taken": 0.0}})],
        "syn": [Case("gre", 0, sidecar={"RegistrationQuality": {"similarity": 0.7, "syn_taken": 1.0}})],
    }
    bids, out = write_dataset(tmp_path, cases)
    texts = {name: write_subject_page(out, name, bids_dir=bids).read_text(encoding="utf-8") for name in cases}
    for name in ("fast", "tried"):
        assert "ANTs" not in texts[name]
        assert "Avants" not in texts[name]
    assert "refined by symmetric diffeomorphic normalisation [5] as implemented in ANTs [6]" in texts["syn"]
    assert "Avants BB et al. Symmetric diffeomorphic image registration" in texts["syn"]
    assert "The ANTsX ecosystem" in texts["syn"]


@pytest.mark.parametrize(
    ("fallback", "said"),
    [
        (0, ""),
        (1, "on 1 of 1 scans by the affine alone"),
        (2, "by the position of the head alone"),
        (None, "not on 1 of 1 scans with too little brain"),
    ],
)
def test_the_methods_text_says_where_registration_failed(
    tmp_path: Path, fallback: int | None, said: str
) -> None:
    quality = {"similarity": 0.7} | ({} if fallback is None else {"fallback": float(fallback)})
    cases = {"01": [Case("gre", 0, sidecar={"RegistrationQuality": quality})]}
    bids, out = write_dataset(tmp_path, cases)
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert said in text
    assert (" alone)" in text) == (fallback in (1, 2))
    assert ("too little brain" in text) == (fallback is None)


def test_scans_at_the_same_counts_lie_side_by_side(tmp_path: Path) -> None:
    header = "participant_id\tcontrast\tstatus\tn_cmb\tn_lobar\tn_deep\n"
    rows = "sub-01\tswi\tdone\t3\t2\t1\nsub-01\tqsm\tdone\t3\t2\t1\nsub-03\tgre\tdone\t300\t260\t40\n"
    (tmp_path / "group_cmb.tsv").write_text(header + rows, encoding="utf-8")
    text = write_group_page(tmp_path).read_text(encoding="utf-8")
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="3"><title>([^<]+)', text)
    assert [what for _, _, what in dots] == [
        "sub-01 swi: 2 lobar, 1 deep",
        "sub-01 qsm: 2 lobar, 1 deep",
        "sub-03 gre: 260 lobar, 40 deep",
    ]
    assert dots[0][:2] != dots[1][:2]
    assert "in these numbers several times" in text


@pytest.mark.browser
def test_a_browser_shows_both_pages_without_complaint(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    bids, out = dataset
    (out / "group_cmb.tsv").write_text(
        "participant_id\tcontrast\tstatus\tn_cmb\nsub-01\tswi\tdone\t3\n", encoding="utf-8"
    )
    for page in (write_subject_page(out, "01", bids_dir=bids), write_group_page(out)):
        shown = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--enable-logging=stderr", f"--user-data-dir={tmp_path / page.stem}", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=90, check=True,
        )  # fmt: skip
        # The page's policy forbids every request: one that it tried would be a complaint, as an error is.
        assert "CONSOLE" not in shown.stderr
        assert "Research use only" in shown.stdout
        if page.stem == "sub-01":
            # The script has run: it writes how far the review has come.
            assert "0 of 5 reviewed" in shown.stdout


def test_pages_show_the_image_as_the_detector_read_it(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    """A file in metres, and a QSM in ppb with blood negative: the same pictures and readings."""
    bids, out = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in dataset)
    expected = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert "paramagnetic" in expected
    changed = {"metres": 0, "qsm": 0}
    for path in sorted(bids.rglob("sub-01*.nii.gz")):
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        if path.name.endswith("_Chimap.nii.gz"):
            nib.Nifti1Image((data * -1000).astype(np.float32), image.affine).to_filename(path)  # type: ignore[no-untyped-call]
            changed["qsm"] += 1
        elif path.name.endswith("_T2starw.nii.gz"):
            metres = nib.Nifti1Image(data, np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)  # type: ignore[no-untyped-call]
            metres.header.set_xyzt_units("meter")
            metres.to_filename(path)
            changed["metres"] += 1
    for path in out.rglob("sub-01*_space-Chimap_seg-CMB_dseg.json"):
        conversion = {"SusceptibilityConversion": {"Factor": -0.001, "Offset": 0.0}}
        path.write_text(json.dumps(json.loads(path.read_text()) | conversion))
    assert all(changed.values()), changed
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    pictures = re.compile(r"data:image/png[^\"]*|QSM here [^<]*|<dd>[^<]*</dd>")
    assert pictures.findall(text) == pictures.findall(expected)


def test_a_scan_whose_writing_was_interrupted_is_not_shown(
    dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    bids, out = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in dataset)
    last = sorted(out.rglob("sub-01*_seg-CMB_dseg.json"))
    shown = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8").count('id="scan-')
    last[0].unlink()
    text = write_subject_page(out, "01", bids_dir=bids).read_text(encoding="utf-8")
    assert 0 < text.count('id="scan-') < shown

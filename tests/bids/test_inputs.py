from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import AFFINE, head_image

from bids_cmb.bids.companions import _agree, _grid
from bids_cmb.bids.inputs import find_scans
from bids_cmb.errors import UsageError

Make = Callable[..., Path]


def found(root: Path, **options: Any) -> dict[str, str]:
    """Contrast by file name."""
    return {scan.path.name.split(".")[0]: scan.contrast for scan in find_scans(root, **options)}


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("anat/sub-1_swi", "swi"),
        ("anat/sub-1_acq-swi_T2starw", "swi"),
        ("anat/sub-1_acq-highresSWI_T2starw", "swi"),
        ("anat/sub-1_rec-SWI_T2starw", "swi"),
        ("swi/sub-1_swi", "swi"),
        ("anat/sub-1_T2starw", "gre"),
        ("anat/sub-1_part-mag_T2starw", "gre"),
        ("anat/sub-1_echo-2_T2starw", "gre"),
        ("anat/sub-1_echo-1_part-mag_MEGRE", "gre"),
        ("swi/sub-1_GRE", "gre"),
        ("swi/sub-1_part-mag_GRE", "gre"),
        ("anat/sub-1_Chimap", "qsm"),
        ("anat/sub-1_acq-3dmmiPAT2_T2starw", "gre"),
        ("anat/sub-1_rec-semipar_T2starw", "gre"),
        ("anat/sub-1_acq-hemipons_swi", "swi"),
        ("anat/sub-1_acq-multiphase_T2starw", "gre"),
    ],
)
def test_every_kind_of_input_scan_is_found(dataset: Make, name: str, contrast: str) -> None:
    root = dataset({f"sub-1/{name}.nii.gz": None})
    assert list(found(root).values()) == [contrast]


@pytest.mark.parametrize(
    "name",
    [
        "anat/sub-1_minIP",
        "anat/sub-1_acq-swi_rec-minip_T2starw",
        "anat/sub-1_acq-SWImIP_T2starw",
        "anat/sub-1_proc-minIP_swi",
        "anat/sub-1_acq-mnIP_swi",
        "anat/sub-1_acq-phase_T2starw",
        "anat/sub-1_acq-swiphase_T2starw",
        "anat/sub-1_acq-swipha_T2starw",
        "anat/sub-1_acq-3Dmip_swi",
        "anat/sub-1_part-phase_T2starw",
        "anat/sub-1_acq-swi_part-phase_T2starw",
        "anat/sub-1_echo-1_part-real_MEGRE",
        "anat/sub-1_echo-1_part-imag_MEGRE",
        "swi/sub-1_part-phase_GRE",
        "swi/sub-1_minIP",
        "anat/sub-1_T1w",
        "anat/sub-1_T2starmap",
        "func/sub-1_task-rest_bold",
        "anat/sub-2_T2starw",
        "anat/T2starw",
    ],
)
def test_other_images_are_never_detected_on(dataset: Make, name: str) -> None:
    assert found(dataset({f"sub-1/{name}.nii.gz": None})) == {}


def test_a_sidecar_that_says_phase_rules_an_image_out(dataset: Make) -> None:
    root = dataset(
        {
            "sub-1/anat/sub-1_run-1_T2starw.nii.gz": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
            "sub-1/anat/sub-1_run-2_T2starw.nii.gz": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
        }
    )
    assert list(found(root)) == ["sub-1_run-2_T2starw"]


def test_first_rule_wins_for_one_acquisition_and_run_only(dataset: Make) -> None:
    anat = "sub-1/ses-a/anat/sub-1_ses-a"
    root = dataset(
        dict.fromkeys(
            [
                f"{anat}_swi.nii.gz",
                f"{anat}_rec-swi_T2starw.nii.gz",
                f"{anat}_T2starw.nii.gz",
                f"{anat}_part-mag_T2starw.nii.gz",
                f"{anat}_acq-fast_T2starw.nii.gz",
                f"{anat}_run-1_T2starw.nii.gz",
                f"{anat}_run-02_T2starw.nii.gz",
                f"{anat}_Chimap.nii.gz",
                "sub-1/ses-a/swi/sub-1_ses-a_swi.nii.gz",
                "sub-1/ses-b/anat/sub-1_ses-b_rec-swi_T2starw.nii.gz",
            ]
        )
    )
    assert found(root) == {
        "sub-1_ses-a_swi": "swi",
        "sub-1_ses-a_T2starw": "gre",
        "sub-1_ses-a_acq-fast_T2starw": "gre",
        "sub-1_ses-a_run-1_T2starw": "gre",
        "sub-1_ses-a_run-02_T2starw": "gre",
        "sub-1_ses-a_Chimap": "qsm",
        "sub-1_ses-b_rec-swi_T2starw": "swi",
    }
    assert next(s for s in find_scans(root) if s.suffix == "swi").path.parent.name == "anat"


@pytest.mark.parametrize(("field", "echo"), [(3, "2"), (1.5, "4"), (7, "1"), (None, "2")])
def test_echo_nearest_20_ms_at_3_t_is_chosen(dataset: Make, field: float | None, echo: str) -> None:
    more = {"MagneticFieldStrength": field} if field else {}
    files = {
        f"sub-1/anat/sub-1_echo-{n}_part-mag_MEGRE.nii.gz": {"EchoTime": n / 100, **more}
        for n in (1, 2, 3, 4)
    }
    (scan,) = find_scans(dataset(files))
    assert scan.entity("echo") == echo
    assert scan.warnings == ()


def test_middle_echo_with_a_warning_where_echo_times_are_missing(dataset: Make) -> None:
    files = {
        f"sub-1/anat/sub-1_echo-{n}_T2starw.nii.gz": {"EchoTime": 0.01} if n == 1 else None for n in (1, 2, 3)
    }
    (scan,) = find_scans(dataset(files))
    assert scan.entity("echo") == "2"
    assert "EchoTime" in scan.warnings[0]


def test_a_combined_image_comes_before_its_echoes(dataset: Make) -> None:
    root = dataset({f"sub-1/anat/sub-1{e}_T2starw.nii.gz": None for e in ("", "_echo-1", "_echo-2")})
    assert list(found(root)) == ["sub-1_T2starw"]


def test_the_compressed_of_two_equal_files_is_taken(dataset: Make) -> None:
    root = dataset({f"sub-1/anat/sub-1_swi.{extension}": None for extension in ("nii", "nii.gz")})
    assert [scan.path.name for scan in find_scans(root)] == ["sub-1_swi.nii.gz"]


def test_echoes_are_compared_whether_compressed_or_not(dataset: Make) -> None:
    root = dataset(
        {
            "sub-1/anat/sub-1_echo-1_MEGRE.nii.gz": {"EchoTime": 0.005},
            "sub-1/anat/sub-1_echo-2_MEGRE.nii": {"EchoTime": 0.02},
        }
    )
    assert list(found(root)) == ["sub-1_echo-2_MEGRE"]


def test_qsm_comes_from_derivatives_that_are_named_and_from_no_others(dataset: Make) -> None:
    root = dataset(
        {"sub-1/anat/sub-1_T2starw.nii.gz": None, "derivatives/qsm/sub-1/anat/sub-1_Chimap.nii.gz": None}
    )
    assert list(found(root).values()) == ["gre"]
    scans = find_scans(root, derivatives=[("qsm", root / "derivatives" / "qsm")])
    assert [(scan.contrast, scan.dataset_name) for scan in scans] == [("qsm", "qsm"), ("gre", "raw")]


def test_raw_qsm_comes_before_derived_and_standard_space_is_left_alone(dataset: Make) -> None:
    root = dataset({"sub-1/anat/sub-1_Chimap.nii.gz": None})
    qsm = dataset(
        {
            "sub-1/anat/sub-1_Chimap.nii.gz": None,
            "sub-2/anat/sub-2_space-MNI152NLin2009cAsym_Chimap.nii.gz": None,
            "sub-1/anat/sub-1_T2starw.nii.gz": None,
        },
        name="qsm",
    )
    (scan,) = find_scans(root, derivatives=[("qsm", qsm)])
    assert scan.dataset_name == "raw"


def test_labels_sessions_and_contrasts_select(dataset: Make) -> None:
    root = dataset(
        {
            f"sub-{s}/ses-{t}/anat/sub-{s}_ses-{t}_{x}.nii.gz": None
            for s in ("1", "2")
            for t in ("a", "b")
            for x in ("swi", "T2starw")
        }
    )
    assert len(found(root)) == 8
    assert found(root, participant_labels=["2"], session_labels=["b"], contrasts=["swi"]) == {
        "sub-2_ses-b_swi": "swi"
    }


def test_an_unknown_label_is_an_error_that_lists_what_is_there(dataset: Make) -> None:
    root = dataset({f"sub-{n:02d}/ses-a/anat/sub-{n:02d}_ses-a_swi.nii.gz": None for n in range(25)})
    with pytest.raises(UsageError, match=r"sub-77 is not in .* sub-00, sub-01.* and 5 more"):
        find_scans(root, participant_labels=["01", "77"])
    with pytest.raises(UsageError, match=r"ses-b is not in .* ses-a"):
        find_scans(root, session_labels=["b"])
    # A session without such scans is no error of the label.
    (root / "sub-03" / "ses-b" / "func").mkdir(parents=True)
    assert find_scans(root, session_labels=["b"]) == []


def test_a_session_may_be_in_a_derivatives_dataset_only(dataset: Make) -> None:
    root = dataset({"sub-1/ses-a/anat/sub-1_ses-a_T2starw.nii.gz": None})
    qsm = dataset({"sub-1/ses-b/anat/sub-1_ses-b_Chimap.nii.gz": None}, name="qsm")
    assert found(root, session_labels=["b"], derivatives=[("qsm", qsm)]) == {"sub-1_ses-b_Chimap": "qsm"}


def test_filters_take_labels_as_the_command_line_does_and_say_when_nothing_passes(
    dataset: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = dataset(
        {"sub-1/ses-a/anat/sub-1_ses-a_T2starw.nii.gz": None, "sub-1/ses-a/anat/sub-1_ses-a_swi.nii.gz": None}
    )
    assert found(root, filters={"gre": {"session": "ses-a"}, "swi": {"session": "a"}}) == found(root)
    assert found(root, filters={"gre": {"run": "Query.NONE", "session": ["Query.ANY"]}}) == found(root)
    for extension in ("nii.gz", ".nii.gz", [".nii", "nii.gz"], "*"):
        assert found(root, filters={"gre": {"extension": extension, "nucleus": None}}) == found(root)
    assert caplog.text == ""
    assert set(found(root, filters={"gre": {"session": "b"}}).values()) == {"swi"}
    assert "The filter for gre passes no image." in caplog.text


def test_filters_narrow_and_with_a_suffix_replace_the_rules(dataset: Make) -> None:
    root = dataset(
        {
            "sub-1/anat/sub-1_acq-venous_T2starw.nii.gz": None,
            "sub-1/anat/sub-1_acq-other_T2starw.nii.gz": None,
            "sub-1/anat/sub-1_acq-venous_part-phase_T2starw.nii.gz": None,
            "sub-1/anat/sub-1_acq-swi_run-1_T2starw.nii.gz": None,
        }
    )
    assert found(root, filters={"gre": {"acquisition": "venous"}, "swi": {"run": 2}}) == {
        "sub-1_acq-venous_T2starw": "gre"
    }
    assert found(root, filters={"swi": {"suffix": "T2starw", "acquisition": ["venous"]}}) == {
        "sub-1_acq-venous_T2starw": "swi",
        "sub-1_acq-other_T2starw": "gre",
    }
    assert list(found(root, filters={"gre": {"acquisition": None}, "swi": {"run": "*"}}).values()) == ["swi"]


def test_sidecars_are_inherited_and_broken_ones_ignored(
    dataset: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = dataset(
        {
            "T2starw.json": {"MagneticFieldStrength": 3, "EchoTime": 0.5},
            "sub-1/sub-1_T2starw.json": {"EchoTime": 0.03, "Manufacturer": "A"},
            "sub-1/anat/sub-1_acq-x_T2starw.nii.gz": {"EchoTime": 0.02},
            "sub-1/anat/sub-1_acq-other_T2starw.json": {"EchoTime": 0.9},
            "sub-1/anat/sub-1_T2starw.json": "{broken",
            "sub-2/anat/sub-2_T2starw.nii.gz": None,
            "sub-2/anat/sub-2_T2starw.json": "",
        }
    )
    one, two = find_scans(root)
    assert one.metadata == {"MagneticFieldStrength": 3.0, "EchoTime": 0.02, "Manufacturer": "A"}
    assert two.metadata == {"MagneticFieldStrength": 3.0, "EchoTime": 0.5}
    assert "not valid JSON" in caplog.text
    assert one.warnings == ("The sidecar sub-1_T2starw.json was ignored (it is not valid JSON).",)
    (root / "sub-1/anat/sub-1_acq-x_T2starw.json").write_text("[1]", encoding="utf-8")
    assert "The sidecar sub-1_acq-x_T2starw.json was ignored" in find_scans(root)[0].warnings[1]


def test_echo_time_in_milliseconds_and_field_in_gauss_are_put_right(dataset: Make) -> None:
    root = dataset(
        {
            "sub-1/anat/sub-1_T2starw.nii.gz": {
                "EchoTime": 25.0,
                "MagneticFieldStrength": 15000,
                "X": float("nan"),
            }
        }
    )
    (scan,) = find_scans(root)
    assert (scan.echo_time, scan.field_strength) == (0.025, 1.5)
    assert len(scan.warnings) == 2


def test_a_link_to_data_that_are_not_fetched_is_a_scan(dataset: Make) -> None:
    root = dataset({"sub-1/anat/sub-1_T2starw.nii.gz": "../../.git/annex/objects/x"})
    (scan,) = find_scans(root)
    assert scan.path == root / "sub-1/anat/sub-1_T2starw.nii.gz"


def test_users_brain_mask_is_taken_if_it_lies_on_the_grid(dataset: Make) -> None:
    root = dataset({"sub-1/anat/sub-1_acq-x_T2starw.nii.gz": None, "sub-1/anat/sub-1_swi.nii.gz": None})
    shifted = AFFINE + np.diag([0, 0, 0, 0.0])
    shifted[0, 3] += 5
    masks = dataset(
        {
            "sub-1/anat/sub-1_acq-x_space-T2starw_desc-brain_mask.nii.gz": None,
            "sub-1/anat/sub-1_desc-brain_mask.nii.gz": head_image(affine=shifted),
        },
        name="masks",
    )
    scans = find_scans(root, derivatives=[("masks", masks)])
    assert {s.suffix: s.brain_mask and s.brain_mask.name for s in scans} == {
        "T2starw": "sub-1_acq-x_space-T2starw_desc-brain_mask.nii.gz",
        "swi": None,
    }


def test_a_brain_mask_may_be_stored_with_its_axes_another_way_round(
    dataset: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = dataset({"sub-1/anat/sub-1_T2starw.nii.gz": None})
    image = head_image()
    turn = nib.orientations.axcodes2ornt("PLS")
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), turn)
    )
    masks = dataset({"sub-1/anat/sub-1_desc-brain_mask.nii.gz": turned}, name="masks")
    (scan,) = find_scans(root, derivatives=[("masks", masks)])
    assert scan.brain_mask is not None
    shifted = image.affine.copy()
    shifted[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shifted), scan.brain_mask)
    (scan,) = find_scans(root, derivatives=[("masks", masks)])
    assert scan.brain_mask is None
    assert "not on the grid of sub-1_T2starw.nii.gz" in caplog.text


def test_t1w_of_the_session_comes_first_and_never_from_another(dataset: Make) -> None:
    t1w = [f"sub-1/ses-{s}/anat/sub-1_ses-{s}_T1w.nii.gz" for s in ("a", "b")]
    scans = [f"sub-1/ses-{s}/anat/sub-1_ses-{s}_swi.nii.gz" for s in ("a", "c")]
    root = dataset(dict.fromkeys([*t1w, *scans]))
    assert [s.t1w and s.t1w.name for s in find_scans(root)] == ["sub-1_ses-a_T1w.nii.gz", None]
    derived = dataset({"sub-1/anat/sub-1_desc-preproc_T1w.nii.gz": None}, name="t1")
    later = find_scans(root, derivatives=[("t1", derived)])
    assert [s.t1w and s.t1w.name for s in later] == [
        "sub-1_ses-a_T1w.nii.gz",
        "sub-1_desc-preproc_T1w.nii.gz",
    ]


def test_the_root_may_lie_below_a_folder_named_like_a_subject(dataset: Make) -> None:
    root = dataset({"sub-1/anat/sub-1_swi.nii.gz": None}, name="sub-study/ses-9/raw")
    (scan,) = find_scans(root)
    assert (scan.subject, scan.session) == ("1", None)


def test_pybids_database_is_made_and_used(dataset: Make, tmp_path: Path) -> None:
    root = dataset(
        {
            "sub-1/anat/sub-1_swi.nii.gz": None,
            "sub-2/ses-a/anat/sub-2_ses-a_echo-1_MEGRE.nii.gz": None,
            "derivatives/x/sub-1/anat/sub-1_Chimap.nii.gz": None,
        }
    )
    database = tmp_path / "db"
    assert found(root, database_dir=database) == found(root)
    (root / "sub-1/anat/sub-1_swi.nii.gz").rename(root / "sub-1/anat/sub-1_T2starw.nii.gz")
    assert "sub-1_swi" in found(root, database_dir=database), "the database, not the disk, is asked"
    other = dataset({"sub-1/anat/sub-1_swi.nii.gz": None}, name="other")
    with pytest.raises(UsageError, match="pybids database"):
        find_scans(other, database_dir=database)
    dataset({"sub-3/anat/sub-3_swi.nii.gz": None})
    with pytest.raises(UsageError, match="does not know sub-3: it is older"):
        find_scans(root, database_dir=database, participant_labels=["3"])


def test_listing_some_subjects_of_a_large_dataset_is_quick(tmp_path: Path) -> None:
    for subject in range(1000):
        folder = tmp_path / f"sub-{subject:04d}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{subject:04d}_T2starw.nii.gz").touch()
    start = time.perf_counter()
    assert len(find_scans(tmp_path, participant_labels=["0500", "0501"])) == 2
    assert time.perf_counter() - start < 1.0


def test_nifti_is_not_opened_to_list_scans(dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nib, "load", lambda *_: pytest.fail("opened an image"))
    assert found(dataset({"sub-1/anat/sub-1_swi.nii.gz": b"", "sub-1/anat/sub-1_T1w.nii.gz": b""}))


def test_a_mask_whose_voxels_are_a_little_larger_lies_elsewhere(tmp_path: Path) -> None:
    for name, edge in (("a", 1.0), ("b", 1.0002), ("c", 1.0095)):
        nib.Nifti1Image(np.zeros((200, 200, 100), np.uint8), np.diag([edge, edge, edge, 1])).to_filename(  # type: ignore[no-untyped-call]
            tmp_path / f"{name}.nii"
        )
    grids = [_grid(tmp_path / f"{name}.nii") for name in "abc"]
    assert all(grid is not None for grid in grids)
    assert _agree(grids[0], grids[1])  # type: ignore[arg-type]
    assert not _agree(grids[0], grids[2]), "two millimetres off at the far corner"  # type: ignore[arg-type]


def test_digits_that_are_no_numbers_in_a_name_cost_no_other_scan(dataset: Make) -> None:
    root = dataset({"sub-1/anat/sub-1_run-1_swi.nii.gz": None, "sub-1/anat/sub-1_run-²_swi.nii.gz": None})
    assert "sub-1_run-1_swi" in found(root)

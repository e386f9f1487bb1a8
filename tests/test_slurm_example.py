"""`examples/slurm` with stand-ins for Slurm and for the command, which keep what they were asked to do."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_cmb.cli import parse

EXAMPLE = Path(__file__).parents[1] / "examples" / "slurm"
Run = Callable[..., subprocess.CompletedProcess[str]]

# A job runs at once; its number, its options and its exit status go to a file.
SBATCH = r"""#!/bin/bash
id=$(($(wc -l < "$KEPT/jobs") + 1)); options=()
while [[ $1 == --* ]]; do options+=("$1"); [[ $1 == --array=* ]] && array=${1#--array=1-}; shift; done
echo "$id ${options[*]}" >> "$KEPT/jobs"
for ((task = 1; task <= ${array%%%*}; task++)); do
  SLURM_CPUS_PER_TASK=4 SLURM_ARRAY_TASK_ID=$task "$@" > /dev/null 2>&1
  echo "$id $task $?" >> "$KEPT/tasks"
done
[[ -n $array ]] || { "$@" > "$KEPT/group" 2>&1; echo "$id group $?" >> "$KEPT/tasks"; }
echo "$id;cluster"
"""
SCONTROL = "#!/bin/bash\necho 'MaxArraySize            = 1001'\n"
# The plan lists all folders; a subject with a file `bad` fails; the tables hold those that were done.
BIDS_CMB = r"""#!/bin/bash
echo "$*" >> "$KEPT/calls"
header=$'participant_id\tsession_id\t'
if [[ $* == *--dry-run* ]]; then
  echo "${header}contrast"$'\tsource'
  for s in "$1"/sub-*; do for c in gre swi; do printf '%s\tn/a\t%s\tbids:raw:%s/%s\n' "${s##*/}" $c "${s##*/}" $c; done; done
elif [[ $3 == participant ]]; then
  [[ ! -e $1/$5/bad ]] || exit 1
  touch "$2/$5"
else
  echo "${header}source"$'\tcontrast\tstatus' > "$2/group_cmb.tsv"
  for s in "$1"/sub-*; do
    for c in gre swi; do
      status=failed; [[ -e $2/${s##*/} ]] && status=done
      printf '%s\tn/a\tbids:raw:%s/%s\t%s\t%s\n' "${s##*/}" "${s##*/}" $c $c $status >> "$2/group_cmb.tsv"
    done
  done
fi
"""


@pytest.fixture
def submit(tmp_path: Path) -> Run:
    kept = tmp_path / "kept"
    programs = tmp_path / "bin"
    for folder in (kept, programs, tmp_path / "raw"):
        folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("bids-cmb", BIDS_CMB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("sub-01", "sub-02", "sub-03"):
        (tmp_path / "raw" / name).mkdir()

    def run(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name in ("jobs", "tasks", "calls", "group"):
            (kept / name).write_text("")
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KEPT": str(kept),
            **variables,
        }
        command = [str(EXAMPLE / "submit.sh"), "raw", "out", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_a_task_per_subject_then_the_group_and_again_after_failures(submit: Run, tmp_path: Path) -> None:
    kept, bad = tmp_path / "kept", tmp_path / "raw/sub-02/bad"
    bad.touch()
    done = submit("--contrast", "gre", "swi", ARRAY_MAX="2")
    assert done.returncode == 0, done.stderr
    assert "3 subjects: jobs 1:2, then group: job 3" in done.stdout
    jobs = (kept / "jobs").read_text().splitlines()
    assert "--array=1-2%50" in jobs[0]
    assert "--array=1-1%50" in jobs[1]
    assert "--dependency=afterany:1:2" in jobs[2]
    assert (kept / "tasks").read_text().splitlines() == ["1 1 0", "1 2 1", "2 1 0", "3 group 1"]
    assert (kept / "group").read_text().splitlines() == [
        "no results of sub-02: bids:raw:sub-02/gre",
        "no results of sub-02: bids:raw:sub-02/swi",
    ]
    calls = [shlex.split(line) for line in (kept / "calls").read_text().splitlines()]
    for call in calls:
        parse(call)
    assert [parse(call).participant_labels for call in calls[1:4]] == [("01",), ("02",), ("03",)]
    assert all(parse(call).omp_nthreads == 4 for call in calls[1:4])
    assert all(parse(call).contrasts == ("gre", "swi") for call in calls[:4])

    bad.unlink()
    assert submit("--contrast", "gre", "swi").returncode == 0
    assert (kept / "tasks").read_text().splitlines() == ["1 1 0", "1 2 0", "1 3 0", "2 group 0"]
    assert (kept / "group").read_text() == ""


def test_labels_choose_subjects_and_go_no_further(submit: Run, tmp_path: Path) -> None:
    options = ["--participant_label", "01", "02", "--contrast", "gre", "--participant-label=03", "--force"]
    assert submit(*options).returncode == 0
    plan, *tasks, _ = map(shlex.split, (tmp_path / "kept/calls").read_text().splitlines())
    assert parse(plan).participant_labels == ("01", "02", "03")
    assert [parse(task).participant_labels for task in tasks] == [("01",), ("02",), ("03",)]
    assert all(parse(task).contrasts == ("gre",) and parse(task).force for task in tasks)


def test_nothing_is_submitted_when_the_plan_fails(submit: Run, tmp_path: Path) -> None:
    # As the command does: what it has to say instead of a plan goes where the plan would.
    (tmp_path / "bin/bids-cmb").write_text("#!/bin/bash\necho nothing to do; exit 1\n")
    done = submit()
    assert done.returncode == 1
    assert "nothing to do" in done.stderr
    assert (tmp_path / "kept/jobs").read_text() == ""


def test_the_image_sees_the_dataset_read_only_and_nothing_else(submit: Run, tmp_path: Path) -> None:
    (tmp_path / "bin/apptainer").write_text('#!/bin/bash\necho "$*" >> "$KEPT/apptainer"\nexit 1\n')
    (tmp_path / "bin/apptainer").chmod(0o755)
    (tmp_path / "cmb.sif").touch()
    assert submit("--device", "cpu", IMAGE="cmb.sif", TMPDIR=str(tmp_path)).returncode == 1
    raw, out = tmp_path / "raw", tmp_path / "out"
    assert (tmp_path / "kept/apptainer").read_text() == (
        f"run --containall --no-home --bind {tmp_path}:/tmp --bind {raw}:{raw}:ro --bind {out}:{out} "
        f"{tmp_path}/cmb.sif {raw} {out} participant --dry-run --device cpu\n"
    )

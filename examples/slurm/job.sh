#!/bin/bash
#SBATCH --job-name=bids-cmb
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=01:00:00
# What one task does: a task of an array one subject, any other the group level. `submit.sh` sends it.
set -euo pipefail

bids_cmb() { # LEVEL [options]
  if [[ -n ${IMAGE:-} ]]; then
    # The node's own scratch: what --containall gives as /tmp is small. GPU nodes: APPTAINER_NV=1.
    apptainer run --containall --no-home --bind "${TMPDIR:-/tmp}:/tmp" --bind "$BIDS_DIR:$BIDS_DIR:ro" \
      --bind "$OUTPUT_DIR:$OUTPUT_DIR" "$IMAGE" "$BIDS_DIR" "$OUTPUT_DIR" "$@"
  else
    bids-cmb "$BIDS_DIR" "$OUTPUT_DIR" "$@"
  fi
}

participant() { # [options]; the exit status is that of bids-cmb: not 0 if a scan of the subject failed
  local subject
  subject=$(sed -n "$((FIRST + SLURM_ARRAY_TASK_ID))p" "$RUN_DIR/subjects.txt")
  echo "$subject on $(hostname)"
  bids_cmb participant --participant-label "$subject" --omp-nthreads "${SLURM_CPUS_PER_TASK:-1}" "$@"
}

group() { # not 0 if a planned scan has no results
  bids_cmb group
  awk -F '\t' '
    NR == FNR { if ($5 == "done") done[$3]; next }
    FNR > 1 && !($4 in done) { print "no results of " $1 ": " $4; missing = 1 }
    END { exit missing }' "$OUTPUT_DIR/group_cmb.tsv" "$RUN_DIR/plan.tsv"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then participant "$@"; else group; fi
fi

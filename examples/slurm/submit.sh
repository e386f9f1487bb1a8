#!/bin/bash
# One Slurm task per subject, then the group level when all have ended.
#
#   IMAGE=bids-cmb.sif ./submit.sh BIDS_DIR OUTPUT_DIR [options of bids-cmb's participant level]
#
# Submit the same again after failures: scans that are complete and current are skipped, the others are redone.
# Without IMAGE the `bids-cmb` on the PATH is run. Options of sbatch go into SBATCH_* variables, e.g. SBATCH_PARTITION.
set -euo pipefail

if (($# < 2)); then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
fi
BIDS_DIR=$(realpath -s "$1")
mkdir -p "$2"
OUTPUT_DIR=$(realpath -s "$2")
shift 2
IMAGE=${IMAGE:+$(realpath "$IMAGE")}
RUN_DIR=$OUTPUT_DIR/logs/slurm/$(date +%Y%m%dT%H%M%S)-$$
HERE=$(cd "$(dirname "$0")" && pwd)
# Leave room under the cluster's limit; a longer list becomes several arrays.
ARRAY_MAX=${ARRAY_MAX:-$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 - 1 }')}
AT_ONCE=${AT_ONCE:-50}
export BIDS_DIR OUTPUT_DIR IMAGE RUN_DIR

mkdir -p "$RUN_DIR"
# shellcheck source-path=SCRIPTDIR
source "$HERE/job.sh"
bids_cmb participant --dry-run "$@" > "$RUN_DIR/plan.tsv" || {
  status=$?
  cat "$RUN_DIR/plan.tsv" >&2 # where there is nothing to do, it says why
  exit "$status"
}
awk -F '\t' 'NR > 1 && !seen[$1]++ { print $1 }' "$RUN_DIR/plan.tsv" > "$RUN_DIR/subjects.txt"
count=$(wc -l < "$RUN_DIR/subjects.txt")

# A task names its own subject: labels that were asked for have done their work in the plan.
job_options=() label=
for word in "$@"; do
  case $word in
    --participant[-_]label) label=next ;;
    --participant[-_]label=*) label= ;;
    -*) label= && job_options+=("$word") ;;
    *) [[ -n $label ]] || job_options+=("$word") ;;
  esac
done

dependency=afterany
for ((first = 0; first < count; first += ARRAY_MAX)); do
  last=$((count - first < ARRAY_MAX ? count - first : ARRAY_MAX))
  array=$(FIRST=$first sbatch --parsable --array="1-$last%$AT_ONCE" --output="$RUN_DIR/%A_%a.log" "$HERE/job.sh" ${job_options[@]+"${job_options[@]}"})
  dependency+=":${array%%;*}"
done
# afterany, not afterok: a subject that fails must not withhold the tables; the group's task then fails by name.
group=$(sbatch --parsable --dependency="$dependency" --output="$RUN_DIR/group.log" "$HERE/job.sh")
echo "$count subjects: jobs ${dependency#afterany:}, then group: job ${group%%;*}. Logs: $RUN_DIR"

#!/usr/bin/env bash
# Make the shipped weights anew, in one command: the last four rounds of training, from the weights of the sixth (kept in
# this repository's history), the seeds and two heads. Each step runs with code that does what the code did that it was
# first run with. What is done is kept: the same command goes on where it stopped.
#
#   models/make_anew.sh GIF_PARCELLATION.nii.gz PHILIPS_T1W.nii.gz FOLDER
#
#   PROCESSES=4    processes for simulation and training (with another number the weights are others)
#   DEVICE=cpu     or cuda, for simulation and training (likewise)
#   PYTHON=...     with the packages of this project (default: its .venv)
#   TRIAL=1        tries all steps with one subject for each simulation and a few training steps (in another FOLDER)
#
# The heads are named in models/README.md. About 3 h 40 min on 4 CPU cores; the new model is FOLDER/models.
set -euo pipefail
if [[ $# -ne 3 ]]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed -n '5,13p' >&2
    exit 2
fi
project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$project/.venv/bin/python}
[[ -x $python ]] || {
    echo "$python is not there: run make install first, or name a Python with PYTHON=." >&2
    exit 1
}
for commit in 8e5fa6b 851ad4d 4a4e2f8 8e2a7e4 1351dce c46fa89 8401da2 36f8805 095d21c 8648661; do
    git -C "$project" cat-file -e "$commit^{commit}" 2>/dev/null || {
        echo "Commit $commit is not here: this needs a clone with the whole history (git fetch --unshallow)." >&2
        exit 1
    }
done
gif=$(realpath "$1") philips=$(realpath "$2")
mkdir -p "$3"
cd "$3"
processes=${PROCESSES:-4} device=${DEVICE:-cpu}
export OMP_NUM_THREADS=1

# at COMMIT ARGUMENTS ...: bids-cmb-train of that commit
at() {
    local commit=$1
    shift
    if [[ ! -d code/$commit ]]; then
        rm -rf "code/$commit.part"
        mkdir -p "code/$commit.part"
        git -C "$project" archive "$commit" bids_cmb models | tar -x -C "code/$commit.part"
        mv "code/$commit.part" "code/$commit"
    fi
    PYTHONPATH=$PWD/code/$commit "$python" -m bids_cmb.training.cli "$@"
}

# subjects or steps: all of them, or a few in a trial
of() { if [[ -n ${TRIAL:-} ]]; then echo "$2"; else echo "$1"; fi; }

# simulate COMMIT FOLDER SUBJECTS OPTIONS ...
simulate() {
    at "$1" simulate "$2" --subjects "$(of "$3" 1)" --spacing 0.75 --processes "$processes" --device "$device" "${@:4}"
}

# train COMMIT OPTIONS ...
train() { at "$1" train --processes "$processes" --device "$device" "${@:2}"; }

# head_of NAME IMAGE SCHEME
head_of() {
    if [[ ! -f $1.npz ]]; then
        mkdir -p part
        at 8e5fa6b heads "$2" --scheme "$3" --out "part/$1.npz"
        mv "part/$1.npz" "$1.npz"
    fi
}

head_of gif "$gif" gif
head_of philips "$philips" t1w
git -C "$project" show 8e5fa6b:bids_cmb/data/mni_head.npz > mni.npz
simulate 8e5fa6b VALIDATION 16 --heads philips.npz --seed 22000
simulate 851ad4d SEVENTH 18 --heads mni.npz gif.npz --seed 27000 \
    --contrasts gre swi qsm gre swi qsm gre --microbleeds 8 45 --large-share 0.15
simulate 4a4e2f8 EIGHTH 8 --heads mni.npz gif.npz --seed 28000 \
    --contrasts qsm gre swi qsm gre qsm --microbleeds 12 45 --large-share 0.4 --largest 14
simulate c46fa89 NINTH 12 --heads mni.npz gif.npz --seed 30000 \
    --contrasts swi gre qsm swi gre qsm swi --microbleeds 8 45 --large-share 0.1
simulate 36f8805 TENTH 36 --heads mni.npz gif.npz --seed 32000 \
    --contrasts gre swi qsm gre swi qsm gre --microbleeds 8 45 --large-share 0.12
simulate 36f8805 VALIDATION10 16 --heads philips.npz --seed 22200
mkdir -p SEVENTH+EIGHTH SEVENTH+EIGHTH+NINTH
ln -sf "$PWD"/SEVENTH/*.npz "$PWD"/EIGHTH/*.npz SEVENTH+EIGHTH/
ln -sf "$PWD"/SEVENTH/*.npz "$PWD"/EIGHTH/*.npz "$PWD"/NINTH/*.npz SEVENTH+EIGHTH+NINTH/

train 8e2a7e4 SEVENTH VALIDATION --out seventh --continue-from code/8e5fa6b/models \
    --stage1-rate 0.002 --stage1-steps "$(of 900 4)" \
    --stage2-rate 0.0015 --teacher-steps "$(of 300 4)" --student-steps "$(of 2200 4)"
train 1351dce SEVENTH+EIGHTH VALIDATION --out eighth --continue-from seventh \
    --stage1-rate 0.0015 --stage1-steps "$(of 500 4)" \
    --stage2-rate 0.0015 --teacher-steps "$(of 200 4)" --student-steps "$(of 1500 4)"
train 8401da2 SEVENTH+EIGHTH+NINTH VALIDATION --out ninth --continue-from eighth \
    --stage1-rate 0.0015 --stage1-steps "$(of 300 4)" \
    --stage2-rate 0.0015 --teacher-steps "$(of 200 4)" --student-steps "$(of 1200 4)" --students 3
train 095d21c TENTH VALIDATION10 --out tenth --continue-from ninth \
    --stage1-rate 0.002 --stage1-steps "$(of 800 4)" \
    --stage2-rate 0.0015 --teacher-steps "$(of 300 4)" --student-steps "$(of 1500 4)" --students 3
mkdir -p models
cp tenth/bids-cmb-1.json tenth/bids-cmb-1.safetensors models/
at 8648661 operating-points VALIDATION10 --model models --false-per-scan 0.75 --processes "$processes"
echo "The new model is $PWD/models."

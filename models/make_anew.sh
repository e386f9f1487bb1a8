#!/usr/bin/env bash
# Make the shipped weights anew, in one command: simulate, go on training from the weights before, set the operating points.
# The weights before come from this repository's history (models/README.md says how they were made).
# What is done is kept: the same command goes on where it stopped.
#
#   models/make_anew.sh GIF_PARCELLATION.nii.gz PHILIPS_T1W.nii.gz FOLDER
#
#   PROCESSES=2    processes for simulation and training (with another number the weights are others)
#   DEVICE=cpu     or cuda, for simulation and training (likewise)
#   PYTHON=...     with the packages of this project (default: its .venv)
#   TRIAL=1        tries all steps with two subjects and a few training steps (in another FOLDER)
#
# The heads are named in models/README.md. About two hours on 2 CPU cores that compute in bfloat16, four on others; the new model is FOLDER/models.
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
gif=$(realpath "$1") philips=$(realpath "$2")
mkdir -p "$3"
cd "$3"
processes=${PROCESSES:-2} device=${DEVICE:-cpu}
weights_before=d476688
export OMP_NUM_THREADS=1 PYTHONPATH=$project

app() { "$python" -m bids_cmb.training.cli "$@"; }

# subjects or steps: all of them, or a few in a trial
of() { if [[ -n ${TRIAL:-} ]]; then echo "$2"; else echo "$1"; fi; }

# simulate FOLDER SUBJECTS OPTIONS ...
simulate() {
    app simulate "$1" --subjects "$(of "$2" 2)" --spacing 0.75 --processes "$processes" --device "$device" "${@:3}"
}

# head_of NAME IMAGE SCHEME
head_of() {
    if [[ ! -f $1.npz ]]; then
        mkdir -p part
        app heads "$2" --scheme "$3" --out "part/$1.npz"
        mv "part/$1.npz" "$1.npz"
    fi
}

head_of gif "$gif" gif
head_of philips "$philips" t1w
cp "$project/bids_cmb/data/mni_head.npz" mni.npz
simulate TRAINING 24 --heads mni.npz gif.npz --seed 38000 \
    --contrasts gre swi qsm gre swi qsm gre --microbleeds 8 45 --large-share 0.12
# T2*-GRE varies most, above all in its slices, and is what the weights before miss most.
simulate MORE_GRE 16 --heads mni.npz gif.npz --seed 39000 \
    --contrasts gre gre gre gre --microbleeds 8 45 --large-share 0.25
ln -f MORE_GRE/*.npz TRAINING/
for seed in 22200 22300; do
    simulate VALIDATION 16 --heads philips.npz --seed "$seed"
done
mkdir -p before
for part in json safetensors; do
    git -C "$project" show "$weights_before:models/bids-cmb-1.$part" > "before/bids-cmb-1.$part"
done
app train TRAINING VALIDATION --name bids-cmb-1 --out trained --processes "$processes" --device "$device" --continue-from before \
    --stage1-steps 0 --teacher-steps "$(of 300 4)" --student-steps "$(of 800 4)" \
    --average-with-start --stage2-rate 0.0003 --precision bfloat16
mkdir -p models
cp trained/bids-cmb-1.json trained/bids-cmb-1.safetensors models/
app operating-points VALIDATION --model models --false-per-scan 0.75 --processes "$processes"
echo "The new model is $PWD/models."

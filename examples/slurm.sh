#!/bin/bash
# RLoop as a SLURM job that goes on after its time limit: sbatch examples/slurm.sh RECIPE RUN
#SBATCH --job-name=rloop
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=160G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
recipe=$1
run=$2

if [ -e "$run/config.json" ]; then
    rloop resume "$run" &
else
    rloop run "$recipe" --out "$run" &
fi
pid=$!
# Ten minutes before the limit: rloop saves at the end of its step and exits with 130.
trap 'kill -TERM $pid' TERM
wait $pid
code=$?
while kill -0 $pid 2>/dev/null; do
    wait $pid
    code=$?
done
if [ $code = 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code

"""The commands that compute, each on directories that it locks.

process.py      `rloop run`, `eval` and `resume`: a directory begun or resumed, with the exit code
resume.py       what a resumed run skips, and which recipe it may go on with
sweep.py        methods x seeds, each run a process
evaluate.py     the directory of `rloop eval`; temperatures.py: policies at several temperatures
rescore.py      every trajectory judged again, without sampling
quarantine.py   damaged files moved away
environment.py  what a run ran on
"""

"""The commands that compute, each on directories that it locks.

process.py      `rloop run` and `rloop resume`: a run as a process, with its exit code
resume.py       what a resumed run skips, and which recipe it may go on with
sweep.py        methods x seeds, one after another or side by side (parallel.py)
evaluate.py     `rloop eval`, at several temperatures too (temperatures.py)
rescore.py      every trajectory judged again, without sampling
quarantine.py   damaged files moved away
environment.py  what a run ran on
"""

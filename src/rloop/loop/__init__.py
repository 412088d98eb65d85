"""The method. Read it in this order:

    run.py      the outer loop, as the RLoop paper has it
    phases.py   its phases, each done once: evaluate, cold start, explore, select, fine-tune, mix
    rl.py       one RL step: draw, sample, judge, refill, advantages, update (DAPO)
    explore.py  RL steps as a phase: stored, evaluated, saved, ended early
    select.py   what comes back from the store: expert set, problem weights, replayed successes
    sft.py      supervised updates, and the phase around them

Equations stand in `algo`, what a run is asked for in `recipe`. Phases lean on context.py (a run's
tools), manifest.py (what is complete), stopping.py (when a phase or the run ends), alarms.py (what
looks wrong), problems.py, heartbeat.py and interrupt.py. `session` makes a process of it.
"""

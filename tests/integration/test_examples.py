"""The examples that need something outside: a judge on a server, a cluster's queue."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import rloop

EXAMPLES = Path(__file__).parents[2] / "examples"


class Judge(BaseHTTPRequestHandler):
    """Grades 7 what has a question mark in it, and 2 what has none."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        student = json.loads(asked["messages"][-1]["content"])
        grade = "72"["?" not in student["answer"]]
        reply = json.dumps({"choices": [{"message": {"content": f" {grade}\n"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format, *args):
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Resets no connection of a step's completions, which all ask at the same moment."""

    request_queue_size = 128


def test_a_judge_on_a_local_server_is_a_reward(tmp_path, monkeypatch):
    server = Server(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm_judge.py").write_text((EXAMPLES / "llm_judge.py").read_text())
    lines = [f"{a} + {b},{a + b}" for a in range(2, 6) for b in range(2, 5)]
    Path("sums.csv").write_text("\n".join(["question,answer", *lines]))
    monkeypatch.setenv("JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    recipe = {
        "policy": {"path": "random:llama-2x64"},
        "tasks": {"train": [{"source": "file:sums.csv"}]},
        "rewards": [
            {"function": "accuracy"},
            {"function": "python:llm_judge:score", "weight": 0.3, "timeout_s": 30},
        ],
        "explore": {
            "steps": 1,
            "prompts_per_step": 4,
            "group_size": 8,
            "sampling": {"max_completion_tokens": 16},
        },
        "iterations": 1,
        "expert": None,
        "evaluate": {"samples": 1, "k": [1], "temperatures": []},
    }
    run = rloop.train(recipe)
    server.shutdown()
    server.server_close()
    rows = run.trajectories(["completion_text", "rewards"], phase="explore").to_pylist()
    assert len(rows) == 32
    for row in rows:
        judged = {one["name"]: one["value"] for one in row["rewards"]}
        assert judged["score"] == (0.7 if "?" in row["completion_text"] else 0.2)


@pytest.mark.slow
def test_a_job_is_put_back_into_the_queue_and_goes_on(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in (
        ("rloop", f'exec {sys.executable} -m rloop "$@"'),
        ("scontrol", f'echo "$@" >> {tmp_path}/queue'),
    ):
        (commands / name).write_text(f"#!/bin/bash\n{line}\n")
        (commands / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "OMP_NUM_THREADS": "1",
    }
    recipe = tmp_path / "long.yaml"
    tiny = (EXAMPLES.parent / "recipes/tiny.yaml").read_text()
    recipe.write_text(
        tiny.replace("steps: 4", "steps: 60").replace("iterations: 2", "iterations: 1")
    )
    run = tmp_path / "run"
    job = [str(EXAMPLES / "slurm.sh"), str(recipe), str(run)]
    process = subprocess.Popen(job, env=environment, stdout=subprocess.DEVNULL)
    explored = run / "trajectories/iteration-1/phase-explore"
    until = time.monotonic() + 120
    while not explored.exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "queue").read_text() == "requeue 17\n"
    assert not rloop.Run(run).is_complete
    assert (
        subprocess.run(job, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
    )
    assert rloop.Run(run).is_complete
    assert [line["step"] for line in rloop.Run(run).metrics("explore")] == list(range(1, 61))

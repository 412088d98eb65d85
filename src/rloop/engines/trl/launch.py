"""Starting many workers by `accelerate launch`, and what it takes to know why they ended.

FOLDER/recipe.json    the resolved recipe, for the workers
FOLDER/socket         where the first worker meets rloop
FOLDER/workers.log    what the workers and their libraries write
FOLDER/failure.txt    which worker ended first, and of what: written by the launcher
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from rloop.config import Recipe
from rloop.config_trl import LaunchConfig
from rloop.engines.trl.channel import SocketChannel
from rloop.engines.trl.group import CLOSE_S, OwnWorker, Workers
from rloop.engines.trl.meeting import MEET_S, Waiting, check_meeting, prompt_interrupt
from rloop.engines.trl.messages import WORKER_LOST, Close, Failed, Message
from rloop.engines.trl.options import check_recipe
from rloop.errors import ConfigError, EngineError
from rloop.threads import allowed_cores

LOST_S = 5.0
"""After a worker is lost the others may take so long to end; then they are killed (seconds)."""
SAY_S = 20.0
"""After its last worker the launcher has so long to say why it ended; then it is killed."""
STOP_S = 60.0
"""A launcher that is told to stop has so long: 30 s for its workers, the rest for the machines."""


def start_workers(recipe: Recipe) -> Workers:
    """Return the recipe's workers: a thread, or processes started here, as many as it says."""
    launch = recipe.engine.trl.launch
    if is_launched():
        check_world(launch)
        return OwnWorker(recipe)
    return LaunchedWorkers(recipe) if needs_launcher(launch) else OwnWorker(recipe)


def is_launched() -> bool:
    """Whether a launcher of the user's (torchrun, accelerate, SLURM) started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def check_world(launch: LaunchConfig) -> None:
    """Raise ConfigError unless the user's launcher started what the recipe says."""
    size = int(os.environ["WORLD_SIZE"])
    if size != launch.processes:
        raise ConfigError(
            f"The launcher started {size} processes (WORLD_SIZE), engine.trl.launch.processes is "
            f"{launch.processes}. Add --set engine.trl.launch.processes={size}."
        )


def needs_launcher(launch: LaunchConfig) -> bool:
    """Whether one process alone will not do."""
    return launch.processes > 1 or launch.config_file is not None or launch.preset in SHARDING


def only_helps(recipe: Recipe) -> bool:
    """Whether this process is a worker, or starts some, for a run that another one holds."""
    if is_launched():
        return int(os.environ["RANK"]) > 0
    return recipe.engine.trl.launch.machine_rank > 0


def help_out(recipe: Recipe) -> None:
    """Work for the run that another process holds until it ends; raise when that goes wrong."""
    if is_launched():
        from rloop.engines.trl.worker import serve

        try:
            serve(recipe, None)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise EngineError(f"This worker cannot go on without the others: {reason}") from error
        return
    check_recipe(recipe)
    check_meeting(recipe.engine.trl.launch)
    folder = Path(tempfile.mkdtemp(prefix="rloop-trl-"))
    # SIGINT too: a shell starts what it puts in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    waiting = Waiting(recipe.engine.trl.launch, folder / "workers.log")
    launcher = start_launcher(recipe, folder)
    try:
        while not has_ended(launcher, 1.0) and not has_workers(launcher):
            waiting.tell()
        launcher.wait()
    except KeyboardInterrupt:
        launcher.terminate()  # it tells the other machines, where it has met them
        has_ended(launcher, STOP_S)
        raise
    finally:
        kill_family(launcher)
    if launcher.returncode:
        raise EngineError(failure(folder))
    shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.write("The run has ended on machine 0.\n")


class LaunchedWorkers:
    """Worker processes, on this machine and on others; the first one is here."""

    def __init__(self, recipe: Recipe) -> None:
        """Start them, and wait for the first one; KeyboardInterrupt ends them while it waits."""
        check_meeting(recipe.engine.trl.launch)
        self._folder = Path(tempfile.mkdtemp(prefix="rloop-trl-"))
        self._channel: SocketChannel | None = None
        waiting = Waiting(recipe.engine.trl.launch, self._folder / "workers.log")
        with socket.socket(socket.AF_UNIX) as listener, prompt_interrupt():
            listener.bind(str(self._folder / "socket"))
            listener.listen(1)
            listener.settimeout(1.0)
            self._launcher = start_launcher(recipe, self._folder)
            try:
                while self._channel is None and self._launcher.poll() is None:
                    with suppress(TimeoutError):
                        self._channel = SocketChannel(listener.accept()[0])
                    waiting.tell()
            except BaseException:
                kill_family(self._launcher)
                shutil.rmtree(self._folder, ignore_errors=True)
                raise

    def ask(self, command: Message) -> Message:
        """Return the answer; where a worker is lost, say which one and why."""
        if self._channel is None:
            return self._lost()
        with suppress(OSError):  # who is gone may have said why: that can be read still
            self._channel.send(command)
        try:
            while (answer := self._channel.receive(1.0)) is None:
                pass
        except EOFError:
            return self._lost()
        if isinstance(answer, Failed) and answer.error == WORKER_LOST:
            return self._lost(answer.message)
        return answer

    def close(self) -> None:
        """Let the workers end; kill those that do not."""
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send(Close())
        self._end(CLOSE_S)
        if self._channel is not None:
            self._channel.close()
        if self._launcher.returncode == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _lost(self, seen: str = "") -> Failed:
        self._end(LOST_S)
        return Failed(error="EngineError", message=failure(self._folder, seen))

    def _end(self, patience_s: float) -> None:
        """Wait for the workers to end; kill those that hang, and a launcher that outlives them."""
        try:
            if has_ended(self._launcher, patience_s):
                return
            # torch's own patience with a worker that hangs is 30 s.
            for worker in psutil.Process(self._launcher.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            has_ended(self._launcher, SAY_S)
        finally:
            kill_family(self._launcher)


def has_ended(process: "subprocess.Popen[bytes]", patience_s: float) -> bool:
    """Whether the process ends in this time."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    return process.poll() is not None


def has_workers(launcher: "subprocess.Popen[bytes]") -> bool:
    """Whether a launcher has met those of the other machines: it starts its workers then."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(launcher.pid).children())
    return False


def kill_family(launcher: "subprocess.Popen[bytes]") -> None:
    """Kill a launcher that still runs, its group, and its workers, which are in none of its own."""
    if launcher.poll() is not None:
        return
    family = psutil.Process(launcher.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGKILL)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    launcher.wait()


def failure(folder: Path, seen: str = "") -> str:
    """Return why workers ended, in a sentence: the launcher's word, else what another one saw."""
    log = folder / "workers.log"
    note = folder / "failure.txt"
    reason = note.read_text() if note.exists() else seen or "they ended without a word"
    return f"TRL's workers could not go on: {reason}. What they wrote stands in {log}."


def start_launcher(recipe: Recipe, folder: Path) -> "subprocess.Popen[bytes]":
    """Start `accelerate launch` in a session of its own, so that Ctrl-C reaches rloop alone."""
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    launch = recipe.engine.trl.launch
    is_cpu = launch.preset == "cpu" or recipe.engine.device == "cpu"
    environment = dict(os.environ)
    if is_cpu:
        num_here = max(1, launch.processes // launch.machines)
        threads = max(1, int(environment.get("OMP_NUM_THREADS", allowed_cores())) // num_here)
        environment |= {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
    command = [
        *(sys.executable, "-m", "rloop.engines.trl.launcher"),
        *(str(os.getpid()), str(folder / "failure.txt")),
        *launch_arguments(launch),
        *("--module", "rloop.engines.trl.member", str(folder)),
    ]
    with (folder / "workers.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )


SHARDING = {
    "fsdp2": (
        *("--use_fsdp", "--fsdp_version=2", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"),
        "--fsdp_state_dict_type=SHARDED_STATE_DICT",
    ),
    "zero3": ("--use_deepspeed", "--zero_stage=3", "--zero3_save_16bit_model=true"),
}
"""Presets that shard, in options of `accelerate launch`."""


def launch_arguments(launch: LaunchConfig) -> list[str]:
    """Return the options of `accelerate launch`."""
    if launch.config_file is not None:
        kind: tuple[str, ...] = ("--config_file", launch.config_file)
    else:
        kind = SHARDING.get(launch.preset, ("--multi_gpu",))
    return [
        *kind,
        f"--num_processes={launch.processes}",
        f"--num_machines={launch.machines}",
        f"--machine_rank={launch.machine_rank}",
        f"--main_process_ip={launch.address}",
        f"--main_process_port={launch.port or free_port()}",
        f"--rdzv_conf=timeout={MEET_S}",
        *("--mixed_precision=no", "--dynamo_backend=no"),
    ]


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

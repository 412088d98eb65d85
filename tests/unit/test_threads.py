"""Threads: as many as cores allowed, and the user's environment has the last word."""

from rloop.threads import allowed_cores, cgroup_cores, set_threads


def test_what_the_environment_leaves_open_is_set():
    environment: dict[str, str] = {}
    assert set_threads(environment) == environment
    assert environment["OMP_NUM_THREADS"] == str(allowed_cores())
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_what_the_user_set_stays():
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "HOME": "/x"}
    settings = set_threads(environment)
    assert settings["OMP_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "7"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "HOME" not in settings


def test_the_users_allocator_settings_stay_under_either_name():
    older = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512"}
    assert set_threads(older)["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:512"
    newer = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:512"}
    assert "PYTORCH_CUDA_ALLOC_CONF" not in set_threads(newer)


def test_version_2_quota_is_the_tightest_on_the_way_up(tmp_path):
    member = tmp_path / "membership"
    member.write_text("0::/pod/job\n")
    group = tmp_path / "pod" / "job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("250000 100000\n")
    # 250000 us in each 100000 us = 2.5 cores
    assert cgroup_cores(tmp_path, member) == 2.5


def test_version_1_quota_is_read_below_the_cpu_controller(tmp_path):
    member = tmp_path / "membership"
    member.write_text("4:memory:/a\n2:cpu,cpuacct:/job\n")
    group = tmp_path / "cpu" / "job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("300000")
    (group / "cpu.cfs_period_us").write_text("100000")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    # 300000 / 100000 = 3 cores; -1 means no quota
    assert cgroup_cores(tmp_path, member) == 3.0


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cgroup_cores(tmp_path, tmp_path / "absent") is None

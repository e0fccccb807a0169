"""What a machine offers, with the limits of containers, and the settings that say otherwise."""

import os
from pathlib import Path

import pytest

from tq.errors import BadRequest, ConfigurationError
from tq.net.address import Address
from tq.worker.context import _capacity
from tq.worker.machine import look
from tq.worker.settings import Server, Settings, check_server, check_settings

GIB = 1 << 30


def proc(tmp_path: Path, cgroup: str, *mounts: str) -> Path:
    directory = tmp_path / "proc"
    directory.mkdir()
    (directory / "cgroup").write_text(cgroup)
    (directory / "mountinfo").write_text("".join(f"{mount}\n" for mount in mounts))
    return directory


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_without_limits_it_is_the_whole_machine(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.cpus_milli == 8_000
    assert found.mem_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found.host


def test_limits_of_version_2_count_along_the_whole_path(tmp_path: Path) -> None:
    mount = tmp_path / "cg"
    put(mount / "cpu.max", "max 100000")
    put(mount / "a" / "cpu.max", "250000 100000")
    put(mount / "a" / "b" / "cpu.max", "max 100000")
    put(mount / "a" / "memory.max", str(GIB // 2))
    put(mount / "a" / "b" / "memory.max", "max")
    found = look(proc(tmp_path, "0::/a/b\n", f"30 24 0:26 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw"))
    assert (found.cpus_milli, found.mem_bytes) == (2_500, GIB // 2)


def test_limits_of_version_1_count(tmp_path: Path) -> None:
    cpu, memory = tmp_path / "cpu", tmp_path / "memory"
    put(cpu / "x" / "cpu.cfs_quota_us", "150000")
    put(cpu / "x" / "cpu.cfs_period_us", "100000")
    put(memory / "y" / "memory.limit_in_bytes", str(GIB // 4))
    put(memory / "memory.limit_in_bytes", "9223372036854771712")
    found = look(
        proc(
            tmp_path,
            "4:memory:/y\n1:cpu,cpuacct:/x\n0::/\n",
            f"32 31 0:29 / {cpu} rw - cgroup cgroup rw,cpu,cpuacct",
            f"35 31 0:32 / {memory} rw - cgroup cgroup rw,memory",
        )
    )
    assert (found.cpus_milli, found.mem_bytes) == (1_500, GIB // 4)


def test_a_quota_of_minus_one_is_none(tmp_path: Path) -> None:
    put(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1")
    put(tmp_path / "cpu" / "cpu.cfs_period_us", "100000")
    found = look(proc(tmp_path, "1:cpu:/\n", f"32 31 0:29 / {tmp_path}/cpu rw - cgroup cgroup rw,cpu"))
    assert found.cpus_milli == 8_000


def test_the_path_of_a_container_is_seen_from_its_mount(tmp_path: Path) -> None:
    mount = tmp_path / "cg"
    put(mount / "cpu.max", "100000 100000")
    found = look(proc(tmp_path, "0::/docker/1f\n", f"30 24 0:26 /docker/1f {mount} rw - cgroup2 cgroup rw"))
    assert found.cpus_milli == 1_000


def test_a_fraction_of_a_cpu_is_one_slot() -> None:
    offers = [_capacity(Settings(Path("/state"), cpus=cpus), "group") for cpus in (0.3, 1.0, 2.9)]
    assert [offer.slots for offer in offers] == [1, 1, 2]


SETTINGS = Settings(Path("/state"))
SERVER = Server(Address("127.0.0.1", 7878), "tqw_secret", ca_pem="pem")


def test_sensible_settings_are_accepted_and_their_secret_is_not_shown() -> None:
    check_settings(
        SETTINGS._replace(
            queues=("default", "a.b-c"), labels=("zone=a", "gpu"), slots=3, name="rack-7.x", tasks_max=1, idle_s=0.5
        )
    )
    check_server(SERVER)
    assert "secret" not in repr(SERVER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": -1}, {"slots": 5_000}, {"cpus": -0.5}, {"mem_bytes": -1}, {"drain_s": -1.0},
        {"drain_s": float("nan")}, {"queues": ("a b",)}, {"queues": ("a=b",)}, {"queues": ("",)},
        {"queues": ("q",) * 300}, {"labels": ("x" * 200,)}, {"labels": ("=a",)}, {"labels": ("zone=",)},
        {"labels": ("a=b=c",)}, {"labels": ("",)},
        {"name": "two words"}, {"name": "x" * 200}, {"name": "esc\x1b[2J"}, {"tasks_max": 0}, {"tasks_max": -1},
        {"idle_s": 0.0}, {"idle_s": -1.0}, {"idle_s": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_senseless_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        check_settings(SETTINGS._replace(**wrong))


def test_what_is_wrong_with_the_machine_is_no_matter_of_options() -> None:
    with pytest.raises(ConfigurationError):
        check_settings(SETTINGS._replace(state=Path("relative")))


@pytest.mark.parametrize("wrong", [{"ca_pem": ""}, {"ca_sha256": "00"}, {"token": ""}], ids=str)
def test_a_server_that_cannot_be_asked_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        check_server(SERVER._replace(**wrong))

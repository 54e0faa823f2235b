import doctest

import numpy as np
import pytest

from benchmarks import protocol
from benchmarks.protocol import Config, Entry, Work

ZEN_3 = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC 7763 64-Core Processor
stepping	: 1
flags		: fpu vme sse4_2 fma avx f16c avx2 bmi2 sha_ni vaes
bugs		: sysret_ss_attrs

processor	: 1
vendor_id	: AuthenticAMD
cpu family	: 99
model		: 9
model name	: the second core is not read
flags		: avx512f
"""

SAPPHIRE_RAPIDS = """\
processor	: 0
cpu family	: 6
model		: 143
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu avx avx2 avx512f avx512dq avx512_bf16 amx_bf16 avx512_fp16 amx_tile
"""

NEOVERSE = """\
processor	: 0
BogoMIPS	: 2000.00
Features	: fp asimd evtstrm aes sve bf16
CPU implementer	: 0x41
"""


@pytest.mark.parametrize(
    "text, model, sets",
    [
        (ZEN_3, "AMD EPYC 7763 64-Core Processor (family 25 model 1)", ("avx2",)),
        (
            SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz (family 6 model 143)",
            ("avx2", "avx512f", "avx512_bf16", "amx"),
        ),
    ],
)
def test_processor_reads_model_and_instruction_sets(text, model, sets):
    assert protocol.processor(text) == (model, sets)


@pytest.mark.parametrize("text", [NEOVERSE, ""])
def test_processor_without_a_model_name_asks_platform(text, monkeypatch):
    monkeypatch.setattr(protocol.platform, "processor", lambda: "aarch64")
    assert protocol.processor(text) == ("aarch64", ())


def test_processor_without_cpuinfo_asks_platform(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(protocol.platform, "processor", lambda: "arm")
    assert protocol.processor() == ("arm", ())


def test_describe_prints_cpu_cores_threads_and_versions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(protocol, "CPUINFO", tmp_path / "cpuinfo")
    protocol.CPUINFO.write_text(ZEN_3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    protocol.describe()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("Processor (family 25 model 1); avx2")
    assert lines[1].startswith(f"{protocol.cores()} cores")
    assert "OMP_NUM_THREADS=3" in lines[1]
    for name in ("python", "jax", "jaxlib", "flax", "optax", "numpy"):
        assert f"{name} " in lines[2], name
    protocol.CPUINFO.write_text(ZEN_3.replace("avx2", ""))
    protocol.describe()
    assert "none of avx2, avx512f" in capsys.readouterr().out


def test_slow_settings_of_a_peer_are_dropped(monkeypatch, capsys):
    seconds = {"one": 1.0, "fast": 1.0, "close": 1.2, "slow": 1.3}
    monkeypatch.setattr(Entry, "seconds", lambda self: seconds[self.setting])
    work = Work(lambda _: None)
    entries = [Entry("ffnlab", "one", work)]
    entries += [Entry("peer", setting, work) for setting in ("fast", "close", "slow")]
    kept = protocol.drop_slow_settings(entries)
    assert [entry.setting for entry in kept] == ["one", "fast", "close"]
    assert "peer, slow" in capsys.readouterr().out


def test_every_entry_runs_once_a_round():
    runs = {"a": 0, "b": 0}

    def entry(name):
        def run(_):
            runs[name] += 1

        return Entry(name, "", Work(run), units=2)

    times = protocol.measure("t", [entry("a"), entry("b")], Config(rounds=4))
    assert times.shape == (4, 2) and (times > 0).all()
    assert runs == {"a": 4, "b": 4}


def test_ratios_are_of_one_round():
    work = Work(lambda _: None)
    entries = [Entry("ffnlab", "", work), Entry("peer", "", work, target=0.5)]
    times = np.array([[1.0, 2.0], [10.0, 20.0], [4.0, 8.0]])  # [rounds, N]
    table = protocol.tabulate("s", entries, times)
    assert table.rows[1][2:] == [
        "8.00",
        "0.50",
        "0.50–0.50",
        "0.50–0.50",
        "ahead",
        "≤ 0.5 met",
    ]


def test_unequal_results_are_an_error():
    with pytest.raises(AssertionError, match="peer"):
        protocol.check_equal("peer", {"a": np.ones(2)}, {"a": np.zeros(2)}, rtol=1e-3)


def test_doctests():
    assert doctest.testmod(protocol).failed == 0

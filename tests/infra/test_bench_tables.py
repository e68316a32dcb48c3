"""What a benchmark found is shown as tables, without its single repeats."""

from io import StringIO

from rich.console import Console

from odradek.infra.app.bench.tables import show


def target(cpu_ms, **more):
    load = {"cpu_ms": cpu_ms, "per_s": 1234.5, "p50_ms": 1.5, "p99_ms": 2.5, "repeats": {"x": [7]}}
    return {"c1": load, "c32": load, **more}


def shown(figures):
    out = StringIO()
    show(figures, Console(file=out, width=200))
    return [line for line in out.getvalue().splitlines() if line.strip()]


def test_each_target_is_a_line_wherever_it_stands():
    """Those of further workloads and of other proxies under their own headings."""
    lines = shown(
        {
            "bare": target(0.4),
            "times_bare": {"c32": 1.5},
            "workloads": {"stream": {"proxy": target(1.6), "lost": 0}},
            "peers": {"another": target(4.5, rss_kb_per_call=90.25, lost_on_kill=None)},
            "parts_us": {"bare": {"the log": 99.0}, "proxy": {"the log": 88.0, "the call": 77.0}},
        }
    )
    assert ["0.4", "1.6", "4.5"] == [
        line.split()[1]
        for name in ("bare ", "proxy ", "another")
        for line in lines
        if name in line and "1,234" in line
    ]
    assert ["90.2", "-"] == [
        cell for line in lines if "another" in line for cell in line.split()[-2:]
    ]
    assert 1 == sum("stream" in line for line in lines)
    assert any("times_bare.c32" in line and "1.5" in line for line in lines)
    assert any("the call" in line and "-" in line and "77" in line for line in lines)


def test_single_repeats_are_left_to_the_json():
    """Tables are for people."""
    lines = shown(
        {"lost": 0, "runs": [5.5, 6.5], "stages": {"group": 36290.3}, "bare": target(0.4)}
    )
    assert not any("5.5" in line or "repeats" in line for line in lines)
    assert any("stages.group" in line and "36,290" in line for line in lines)

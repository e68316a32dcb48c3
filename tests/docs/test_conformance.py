"""The page of A2A's conformance kits."""

import re
import xml.etree.ElementTree as ET

from tests.itk import table as itk
from tests.itk.kit import TRANSPORTS, WAYS, edges, scenarios
from tests.support.agents.conformance_table import BEGIN, END, PAGE, table, written

RESULTS = """<testsuite>
<testcase classname="tests.compatibility.grpc.test_a.TestB" name="c"/>
<testcase classname="tests.compatibility.grpc.test_a.TestB" name="d"><failure message="no"/></testcase>
<testcase classname="tests.compatibility.test_e" name="f"><skipped type="pytest.skip" message="why; so"/></testcase>
<testcase classname="tests.compatibility.test_e" name="g"><skipped type="pytest.xfail" message="y"/></testcase>
</testsuite>"""


def test_the_kits_results_become_rows_of_its_files():
    """A failure is named, a skipped case counted by its reason."""
    text = table(ET.fromstring(RESULTS).iter("testcase"))
    assert "| `grpc/test_a.py` | 1 | 1 | 0 | 0 |" in text
    assert "| `test_e.py` | 0 | 0 | 1 | 1 |" in text
    assert "* failed: `d`" in text
    assert "| why | 1 |" in text
    assert f"a{BEGIN}\n{text}\n{END}b" == written(f"a{BEGIN}old{END}b", text)


def test_the_pages_rows_add_up_and_each_failure_is_explained():
    """By its name, behind the tables."""
    page = PAGE.read_text()
    rows = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    *files, whole = [[int(number) for number in row[1:]] for row in rows]
    assert whole == [sum(column) for column in zip(*files, strict=True)]
    assert 265 == sum(whole)
    explained = page.split(END)[1]
    assert [] == [name for name in re.findall(r"\* failed: `(\w+)", page) if name not in explained]


def test_the_integration_kits_scenarios_are_each_pair_and_the_star_over_each_transport_each_way():
    """Ours is the first of each, and asks and is asked by every other that speaks the transport."""
    cases = list(scenarios(["python_v10", "go_v03"]))
    assert (3 * len(TRANSPORTS) - 1) * len(WAYS) == len(cases)
    assert {"current"} == {names[0] for _, names, _, _ in cases}
    assert ["0->1", "1->0", "0->2", "2->0"] == edges(cases[-1][1])
    assert {"python_v10"} == {
        each for _, (_, *rest), kind, _ in cases if kind == "http_json" for each in rest
    }


def test_the_integration_kits_results_become_a_row_for_each_agent():
    """A cell names the transports that passed, then those that did not; one not tried is left out."""
    results = [
        ["go_v10", "jsonrpc", "send", True, ""],
        ["go_v10", "grpc", "send", False, "why"],
        ["star", "http_json", "push", True, ""],
    ]
    text = itk.table(results)
    assert "| `go_v10` | JSON-RPC; **not** gRPC |  |  |  |" in text
    assert "| `star` |  |  | REST |  |" in text
    assert "2 of 3 scenarios passed." in text
    page = f"a{BEGIN}kept{END}{itk.BEGIN}old{END}b"
    assert f"a{BEGIN}kept{END}{itk.BEGIN}\n{text}\n{END}b" == written(page, text, begin=itk.BEGIN)

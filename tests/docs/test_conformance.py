"""The page of A2A's conformance kits."""

import re
import xml.etree.ElementTree as ET

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

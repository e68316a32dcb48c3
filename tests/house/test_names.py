"""Names: one noun for one thing, and the field's where there is one."""

from tests.support.suite import house


def test_no_two_public_classes_bear_one_name():
    """Whoever reads a class name knows which class it is."""
    twice = {name: places for name, places in house.public_classes().items() if len(places) > 1}
    assert {} == twice


def test_files_are_named_with_the_words_of_the_glossary():
    """A file's name is a term of docs/glossary.md, or of the field, as listed there."""
    assert {} == house.unlisted()


def test_the_glossary_has_thirty_terms():
    """As many as a reader must know; a new one takes an old one's place."""
    text = (house.ROOT / "docs/glossary.md").read_text().split("## Words of the field")[0]
    assert 30 == text.count("\n| ") - 1

"""The YAML reader: what it takes, where everything stood, and every refusal word for word."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from codesign.errors import EXIT_BAD_INPUT, CodesignError
from codesign.yaml_reader import MAX_BYTES, parse_yaml, read_yaml


def refusal(content: bytes) -> str:
    with pytest.raises(CodesignError) as caught:
        parse_yaml(content, "x.yaml")
    assert caught.value.exit_code == EXIT_BAD_INPUT
    return str(caught.value)


def test_positions_are_those_of_keys_and_list_items() -> None:
    document = parse_yaml(b"# a comment\na: 1\nb:\n  - {c: 2, d: [3, 44]}\n  - e\n", "x.yaml")
    assert document.data == {"a": 1, "b": [{"c": 2, "d": [3, 44]}, "e"]}
    assert document.position(("a",)) == (2, 1)
    assert document.position(("b", 0, "d")) == (4, 12)
    assert document.position(("b", 0, "d", 1)) == (4, 19)
    assert document.position(("b", 1)) == (5, 5)
    assert document.where(("b", 1)) == "x.yaml:5:5"


def test_position_of_what_is_missing_is_that_of_its_surroundings() -> None:
    document = parse_yaml(b"a:\n  b: {c: 1}\n", "x.yaml")
    assert document.position(("a", "b", "gone", "too")) == (2, 3)
    assert document.position(("nowhere",)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("65_536", 65536),
        ("0x1F", 31),
        ("010", 10),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-2.5E-2", -0.025),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        (".nan", ".nan"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("1_", "1_"),
        ("5 KiB", "5 KiB"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    data = parse_yaml(f"key: {text}\n".encode(), "x.yaml").data
    assert data == {"key": value}
    assert isinstance(data, dict) and type(data["key"]) is type(value)


def test_keys_are_always_text() -> None:
    assert parse_yaml(b"on: 1\n3: 2\nnull: 3\n<<: 4\n", "x.yaml").data == {"on": 1, "3": 2, "null": 3, "<<": 4}


def test_text_and_hash_are_those_of_the_file(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa: 1 # caf\xc3\xa9\r\n"
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    document = read_yaml(path)
    assert document.data == {"a": 1}
    assert document.text == "a: 1 # caf\u00e9\r\n"
    assert document.sha256 == sha256(content).hexdigest()


def test_a_duplicate_key_is_refused_with_both_positions() -> None:
    assert refusal(b"a: {b: 1}\nc: 2\na: {b: 2, b: 3}\n") == (
        "x.yaml:3:1: a: duplicate key, first given at 1:1\n  hint: remove one of the two"
    )
    assert refusal(b"a:\n  b: 1\n  b: 2\n  c: {d: 1, d: 2}\n") == (
        "x.yaml:3:3: a.b: duplicate key, first given at 2:3\n  hint: remove one of the two\n"
        "x.yaml:4:13: a.c.d: duplicate key, first given at 4:7\n  hint: remove one of the two"
    )


def test_an_alias_bomb_is_refused_at_its_first_alias() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert refusal("\n".join(lines).encode()) == (
        "x.yaml:2:10: aliases are not allowed: *a0\n  hint: write the value out"
    )


def test_a_self_reference_is_refused() -> None:
    assert refusal(b"a: &a {b: *a}\n") == "x.yaml:1:11: aliases are not allowed: *a\n  hint: write the value out"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.yaml: the file is empty"),
        (b"# nothing but a comment\n", "x.yaml: the file is empty"),
        (b"a: \x00", "x.yaml: this is a binary file, not YAML text"),
        (b"a: 1\nb: \xff\xfe", "x.yaml:2:4: byte 0xff is not UTF-8\n  hint: save the file as UTF-8"),
        (b"a: 1\nbc: \x07", "x.yaml:2:5: the character U+0007 is not allowed in YAML"),
        (b"a: " + b"1" * MAX_BYTES, "x.yaml: the file is larger than 1 MiB\n  hint: is it a YAML file at all?"),
        (b"a: b: c", "x.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        (b"a: !!python/name:os.system x", "x.yaml:1:4: tags are not allowed: !!python/name:os.system\n"
            "  hint: write the plain value"),
        (b"a: !x 1", "x.yaml:1:4: tags are not allowed: !x\n  hint: write the plain value"),
        (b"a:\n\tb: 1", "x.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token\n"
            "  hint: indent with spaces, not tabs"),
        (b"a: [1, 2\nb: 3\n", "x.yaml:2:2: not valid YAML: expected ',' or ']', but got ':'\n"
            "  hint: while parsing a flow sequence that begins at 1:4"),
        (b"a: 'b", "x.yaml:1:6: not valid YAML: found unexpected end of stream\n"
            "  hint: while scanning a quoted scalar that begins at 1:4"),
        (b"a: 1\n---\nb: 2\n", "x.yaml:2:1: not valid YAML: expected a single document in the stream, "
            "but found another document"),
        (b"? [a]\n: 1\n", "x.yaml:1:3: a key must be plain text, not a list or a mapping"),
        (b"[" * 5000, "x.yaml:1:65: nested more than 64 levels deep"),
    ],
)  # fmt: skip
def test_refusals_word_for_word(content: bytes, message: str) -> None:
    assert refusal(content) == message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CodesignError) as caught:
        read_yaml(tmp_path)
    assert str(caught.value) == f"{tmp_path}: this is a folder, not a YAML file"
    with pytest.raises(CodesignError) as caught:
        read_yaml(tmp_path / "gone.yaml")
    assert str(caught.value) == f"{tmp_path}/gone.yaml: there is no such file"
    with pytest.raises(CodesignError) as caught:
        read_yaml(Path("/dev/null"))
    assert str(caught.value) == "/dev/null: this is not a regular file"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text("abcxyz_019 ", min_size=1, max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


class QuotingDumper(yaml.SafeDumper):
    """Writes every text in quotes: bare, YAML 1.1 and 1.2 differ in what `1e3` or `yes` means."""


QuotingDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"'))
QuotingDumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


@given(st.dictionaries(st.text("abcxyz_", min_size=1, max_size=8), plain, min_size=1, max_size=5), st.booleans())
def test_what_pyyaml_writes_is_read_back(data: dict[str, object], flow: bool) -> None:
    text = yaml.dump(data, Dumper=QuotingDumper, allow_unicode=True, default_flow_style=flow)
    assert parse_yaml(text.encode(), "x.yaml").data == data


@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_reader_as_a_traceback(content: bytes) -> None:
    try:
        parse_yaml(content, "x.yaml")
    except CodesignError as error:
        assert str(error).startswith("x.yaml")


@given(st.text("ab:-[]{},&*!|>'\"%@?# \n\t0", max_size=60))
def test_no_text_gets_past_the_reader_as_a_traceback(text: str) -> None:
    try:
        parse_yaml(text.encode(), "x.yaml")
    except CodesignError as error:
        assert str(error).startswith("x.yaml")

"""The generated documents are current, and what they show works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ctl import docs, docs_schema
from ctl.validate import registered, review
from gtm.config import read_text
from gtm.decode import readers
from gtm.model import TYPES

VARIANTS = registered()
CORPUS = Path(__file__).parent.parent / "corpus"


def test_every_generated_document_is_current() -> None:
    for path, text in docs.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run make docs"


def test_a_stale_document_is_found_and_mended(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    assert docs.main(["--check"]) == 1
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    (tmp_path / "configuration.md").write_text("old")
    assert docs.main(["--check"]) == 1


def test_the_examples_of_the_page_are_valid_without_a_warning() -> None:
    page = (docs.DOCS / "configuration.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert review(read_text(example, VARIANTS), VARIANTS).problems == ()


def test_every_key_stands_on_the_page() -> None:
    page = (docs.DOCS / "configuration.md").read_text(encoding="utf-8")
    for struct in [*TYPES.values(), *VARIANTS.probes.values(), *VARIANTS.steering.values()]:
        for key in readers(struct):
            if key != "options":
                assert f"| `{key}` |" in page, (struct, key)


def keys_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from keys_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from keys_of(value)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits, by the few words of JSON Schema that ours uses."""
    names = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    }  # fmt: skip
    if "anyOf" in schema and not any(accepts(part, value) for part in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(accepts(part, value) for part in schema["oneOf"]) != 1:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    wanted = schema.get("type")
    if wanted in ("integer", "number"):
        number = int if wanted == "integer" else (int, float)
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return False
    elif wanted:
        listed = wanted if isinstance(wanted, list) else [wanted]
        if not any(isinstance(value, names[name]) for name in listed):
            return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        if not set(schema.get("required", ())) <= set(value):
            return False
        for key, part in value.items():
            inner = known.get(key, more)
            if inner is False or not accepts(inner, part):
                return False
    if isinstance(value, list):
        fixed = schema.get("prefixItems")
        items = fixed or [schema.get("items", {})] * len(value)
        if len(items) != len(value):
            return False
        return all(accepts(part, item) for part, item in zip(items, value, strict=True))
    return True


def test_the_schema_takes_every_valid_file_of_the_corpus() -> None:
    schema = docs_schema.schema(VARIANTS)
    for path in sorted((CORPUS / "valid").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            assert accepts(schema, document or {}), path


def test_the_schema_refuses_unknown_keys_words_and_types() -> None:
    schema = docs_schema.schema(VARIANTS)
    for name in ("key-unknown", "key-missing", "type-wrong", "word", "range"):
        document = yaml.safe_load((CORPUS / "invalid" / f"{name}.yaml").read_text())
        for kind, resources in document.items():
            for resource in resources:
                one = {kind: {resource: resources[resource]}}
                assert not accepts(schema, one), (name, one)

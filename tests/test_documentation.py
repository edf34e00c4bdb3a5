"""README, docs and configs say what is true."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from linreg.spec.schema import ExperimentSpec, json_schema, load_spec
from tests.conftest import CONFIGS, ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def make_spec():
    spec = importlib.util.spec_from_file_location("make_spec", ROOT / "docs" / "make_spec.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def beside_configs(own_folder):
    (own_folder / "configs").symlink_to(ROOT / "configs")
    for text in blocks("python"):
        if match := re.match(r"# (\w+\.py)\n", text):
            (own_folder / match[1]).write_text(text)


def test_the_commands_of_the_readme_work_in_their_order(linreg, beside_configs):
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 11
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "linreg"
        answer = linreg(*arguments)
        assert answer.code == 0, (line, answer)
        assert answer.out


def test_the_python_of_the_readme_works(beside_configs):
    code = next(text for text in blocks("python") if "linreg.fit" in text)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 22


def test_the_spec_of_the_readme_is_one(linreg):
    Path("curve.yaml").write_text(blocks("yaml")[0])
    assert linreg("check", "curve.yaml").code == 0


def test_the_mistakes_of_the_readme_are_told_so(linreg):
    shown = [line[4:] for line in README.partition("    $ cat bad.yaml\n")[2].partition("\n\n")[0].splitlines()]
    command = shown.index("$ linreg check bad.yaml")
    Path("bad.yaml").write_text("\n".join(shown[:command]))
    told = linreg("check", "bad.yaml").err.splitlines()
    assert told == shown[command + 1 :]


def test_every_command_and_exit_code_is_in_the_readme(linreg):
    commands = linreg("--help").out.split("Commands:\n")[1].split("\n\n")[0]
    for line in commands.splitlines():
        assert f"| `{line.split()[0]}" in README
    for code in (*range(8), 129, 130, 143):
        assert re.search(rf"\| [\d, ]*\b{code}\b[\d, ]* \|", README)


def test_the_make_targets_of_the_readme_are_there():
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_docs_spec_and_the_schema_are_made_from_the_code():
    assert (ROOT / "docs" / "spec.md").read_text() == make_spec().page()
    assert (ROOT / "configs" / "linreg.schema.json").read_text() == make_spec().schema()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_checked_and_named_like_its_file(linreg, beside_configs, path):
    assert linreg("check", path).code == 0
    assert load_spec(path).name == path.stem
    assert path.read_text().startswith("# yaml-language-server: $schema=linreg.schema.json\n")


def test_one_config_shows_every_key():
    def keys(value, prefix=""):
        for key, item in value.items():
            yield prefix + key
            if isinstance(item, dict):
                yield from keys(item, f"{prefix}{key}.")

    shown = set(keys(load_spec(ROOT / "configs" / "everything.yaml")._document.value))

    def wanted(model, prefix=""):
        for name, field in model.model_fields.items():
            yield prefix + name
            for option in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(option, "model_fields"):
                    yield from wanted(option, f"{prefix}{name}.")

    assert set(wanted(ExperimentSpec)) <= shown


def test_the_schema_takes_the_configs_and_no_misspelt_key():
    """A reader of its own, of the part of JSON Schema that ours uses."""
    schema = json_schema()

    def fits(value, part):
        if "$ref" in part:
            return fits(value, schema["$defs"][part["$ref"].rpartition("/")[2]])
        for word, combine in (("anyOf", any), ("oneOf", lambda found: sum(found) == 1)):
            if word in part and not combine([fits(value, option) for option in part[word]]):
                return False
        if "const" in part and value != part["const"]:
            return False
        kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
        if "type" in part and part["type"] != "null" and not isinstance(value, kinds[part["type"]]):
            return False
        if part.get("type") == "null" and value is not None:
            return False
        if isinstance(value, dict) and "properties" in part:
            known = part["properties"]
            return (
                set(part.get("required", ())) <= set(value) <= set(known)
                and all(fits(item, known[key]) for key, item in value.items())
            )  # fmt: skip
        return True

    for path in CONFIGS:
        value = load_spec(path)._document.value
        assert fits(value, schema), path
        assert not fits({**value, "epoch": 3}, schema)
        assert not fits({**value, "model": {"name": "liner"}}, schema)


def test_no_file_of_the_project_holds_a_path_of_a_machine():
    for path in [*ROOT.glob("*.*"), *(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *CONFIGS]:
        if path.suffix in {".md", ".py", ".toml", ".txt", ".yaml"}:
            assert f"{ROOT.parent}/" not in path.read_text(), path

"""README, docs and configs are true: every example runs, every link leads somewhere, generated pages are current."""

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import linreg as linreg_package
from linreg.cli.app import app
from linreg.data.tables.remote import file_system
from linreg.spec.schema import ExperimentSpec, json_schema, load_spec
from tests.conftest import CONFIGS, ROOT, small_spec
from tests.data.stores import moto, send

README = (ROOT / "README.md").read_text()
TASKS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = {"spec", "accuracy", "performance", "reliability"}  # generated or measured: nothing to run
PAGES = [page for page in TASKS if page.stem not in REFERENCE]
NOT_RUN = ("tensorboard",)  # a server
FENCE = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page):
    """Yield the language and the text of each block. Those of other tools, on one page, are marked and left out."""
    text = page.read_text()
    found = FENCE.findall(text)
    assert 2 * len(found) == len(re.findall("^```", text, re.MULTILINE))
    for language, title, block in found:
        if title:
            assert (page.stem, title.partition(", ")[2]) == ("coming", "not run")
        else:
            yield language, block


def generator(name):
    """Import docs/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def beside_configs(own_folder):
    (own_folder / "configs").symlink_to(ROOT / "configs")
    (own_folder / "houses.csv").write_text("rooms,price\n" + "".join(f"{i},{10 * i + i % 3}\n" for i in range(30)))


@pytest.fixture
def object_store(request, monkeypatch):
    """Run a server of S3 with configs/cars.csv in the bucket `tables`, if a page has an example with one."""
    if "linreg init s3://tables" not in request.node.callspec.params["page"].read_text():
        yield
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with moto() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        send(f"{address}/tables")
        send(f"{address}/tables/cars.csv", (ROOT / "configs" / "cars.csv").read_bytes())
        yield
    file_system.cache_clear()


@pytest.fixture
def own_commands(monkeypatch):
    """Forget the commands and modules of a page after its test."""
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))


def run_python(text, capfd, monkeypatch):
    """Run a block, in the namespace of the module that its first line names; return what it prints."""
    namespace = {"__name__": "example"}
    if match := re.match(r"# (append to|new file) (\S+)\.py\n", text):
        name = match[2].removeprefix("src/").replace("/", ".")
        if match[1] == "new file":
            module = ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            namespace = vars(module)
        else:
            namespace = dict(vars(importlib.import_module(name)))
    before = set(namespace)
    capfd.readouterr()
    exec(compile(text, "example", "exec"), namespace)
    for name in set(namespace) - before:
        if name.startswith("test_"):
            namespace[name]()
    return capfd.readouterr().out


def run_line(line, linreg):
    """Run a line of a shell: linreg in this process; of make, see that the target is there."""
    command, _, output = line.partition(" > ")
    program, *arguments = shlex.split(command, comments=True) or ["make"]
    if program == "linreg":
        answer = linreg(*arguments)
        assert answer.code == 0, (line, answer)
        assert answer.out or "runs rm" in line or "cache clear" in line, line
        if output:
            Path(output).write_text(answer.out)
    elif program in ("torchrun", "srun"):
        run_torchrun(arguments[arguments.index("torchrun") + 1 :] if program == "srun" else arguments)
    elif program == "make":
        for target in arguments[:1]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    else:
        assert program in NOT_RUN, line


def run_torchrun(arguments):
    """Read a line by torchrun's own parser; run it if it needs one machine."""
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    command, path, *overrides = [word for word in parsed.training_script_args if word != "--resume"]
    assert (parsed.module, parsed.training_script, command) == (True, "linreg", "train")
    assert load_spec(path, overrides).data.shards >= int(parsed.nproc_per_node)
    if parsed.nnodes == "1:1":
        run = [sys.executable, "-m", "torch.distributed.run", *arguments]
        subprocess.run(run, check=True, capture_output=True, timeout=120)


def check_yaml(text, linreg):
    """Check a spec, or a part of one in the place of the same part of a small one."""
    part = yaml.safe_load(text)
    if "name" not in part:
        small = small_spec()
        text = yaml.safe_dump({**small, **{key: {**small[key], **value} for key, value in part.items()}})
    match = re.match(r"# (\w+\.yaml)\n", text)
    path = Path(match[1] if match else "example.yaml")
    path.write_text(text)
    assert linreg("check", path).code == 0, text


def run_console(text, linreg):
    """Compare what commands print with what a page shows; `cat` of a file that is not there makes it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, shown = part.split("\n", 1)
        program, *arguments = shlex.split(command)
        if program == "cat":
            Path(arguments[0]).write_text(shown)
        else:
            answer = linreg(*arguments)
            assert answer.err + answer.out == shown, command


def run_c(text):
    """Compile a program, with the file of the exported function, and return what it prints."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc)")
    Path("main.c").write_text(text)
    files = sorted(map(str, Path().glob("*.c")))
    subprocess.run(["cc", "-std=c99", "-o", "program", *files, "-lm"], check=True, timeout=60)
    return subprocess.run(["./program"], check=True, timeout=60, capture_output=True, text=True).stdout


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "tutorial"], ids=lambda page: page.stem)
def test_every_example_of_a_page_runs_in_its_order(
    linreg, capfd, beside_configs, object_store, own_commands, monkeypatch, page
):
    printed = ""
    for language, text in blocks(page):
        if language == "sh":
            for line in text.splitlines():
                run_line(line, linreg)
        elif language == "python":
            if match := re.match(r"# (\w+\.py)\n", text):
                Path(match[1]).write_text(text)
            else:
                printed = run_python(text, capfd, monkeypatch)
        elif language == "yaml":
            if not text.startswith("apiVersion"):  # a manifest, which test_torchrun.py checks
                check_yaml(text, linreg)
        elif language == "console":
            run_console(text, linreg)
        elif language == "pyi":
            ast.parse(text)
        elif language == "c":
            printed = run_c(text)
        else:
            assert (language, text) == ("text", printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_an_example(page):
    if page.stem != "README":
        assert FENCE.search(page.read_text().partition("\n## ")[0])


@pytest.mark.parametrize("page", [*TASKS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


def test_the_readme_is_short_and_links_every_page():
    assert len(README.splitlines()) <= 150
    for page in TASKS[1:]:
        assert f"](docs/{page.name})" in README
    for code in (*range(8), 129, 130, 143):
        assert re.search(rf"\b{code}\b", README.partition("## Exit codes")[2].partition("\n## ")[0])


def test_the_generated_pages_and_the_schema_are_current():
    assert (ROOT / "docs" / "spec.md").read_text() == generator("make_spec").page()
    assert (ROOT / "docs" / "cli.md").read_text() == generator("make_cli").page()
    assert (ROOT / "docs" / "api.md").read_text() == generator("make_api").page()
    assert (ROOT / "docs" / "tutorial.ipynb").read_text() == generator("make_notebook").text()
    assert (ROOT / "configs" / "linreg.schema.json").read_text() == generator("make_spec").schema()


def test_the_command_line_reference_has_the_exit_codes_of_every_command():
    make_cli = generator("make_cli")
    assert sorted(make_cli.CODES) == sorted(name for name, _ in make_cli.commands())


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
    shown |= {key for key in keys(load_spec(ROOT / "configs" / "penalty.yaml")._document.value) if "penalty" in key}

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


def test_the_citation_has_the_version_and_the_license_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], str(citation["version"]), citation["license"]) == (
        "linreg",
        linreg_package.__version__,
        "MIT",
    )


def test_no_file_of_the_project_holds_a_path_of_a_machine():
    for path in [*ROOT.glob("*.*"), *(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *CONFIGS]:
        if path.suffix in {".md", ".py", ".toml", ".txt", ".yaml"}:
            assert f"{ROOT.parent}/" not in path.read_text(), path

"""The public names have complete types, as a type checker of another program sees them."""

import os
import re
import subprocess
import sys
import sysconfig
import venv

import linreg
from tests.conftest import ROOT


def test_a_strict_program_passes_and_every_public_name_has_complete_types(tmp_path):
    """linreg is beside the other packages here, so mypy uses its types only because of py.typed."""
    venv.create(tmp_path / "env", with_pip=False)
    packages = next((tmp_path / "env" / "lib").iterdir()) / "site-packages"
    (packages / "paths.pth").write_text(f"{ROOT / 'src'}\n{sysconfig.get_path('purelib')}\n")
    shown = tmp_path / "shown.py"
    shown.write_text("import linreg\n" + "".join(f"reveal_type(linreg.{name})\n" for name in linreg.__all__))

    mypy = [
        sys.executable, "-m", "mypy", "--strict", "--disallow-any-unimported", "--no-color-output",
        "--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache" / "typing",
        "--python-executable", tmp_path / "env" / "bin" / "python", ROOT / "tests" / "consumer.py", shown,
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    run = subprocess.run(mypy, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout

    types = re.findall(r'note: Revealed type is "(.*)"', run.stdout)
    assert len(types) == len(linreg.__all__)
    for name, text in zip(linreg.__all__, types, strict=True):
        assert "linreg" in text or "def" in text, (name, text)
        assert not re.search(r"(^|: |-> )(Any|Unknown)\b", text), (name, text)

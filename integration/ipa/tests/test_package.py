"""The wheel that pip builds from the package: it is complete, and requires only IPA."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    # The build leaves directories beside what it builds.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True)
    [wheel] = tmp_path.glob("careen_ipa-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        [licence] = [name for name in names if name.startswith(info) and name.endswith("/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    modules = {f"careen_ipa/{path.name}" for path in (ROOT / "src" / "careen_ipa").glob("*.py")}
    assert modules | {"careen_ipa/py.typed"} == {name for name in names if not name.startswith(info)}
    wanted = [text for text in metadata.get_all("Requires-Dist") or [] if "extra ==" not in text]
    assert wanted == ["ironic-python-agent"]
    assert "[ironic_python_agent.hardware_managers]" in entry_points
    assert "careen = careen_ipa.manager:CareenHardwareManager" in entry_points

    # Installed by unpacking, beside an IPA that finds it by its entry point.
    target = tmp_path / "target"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "from importlib.metadata import entry_points; import careen_ipa; from ironic_python_agent import config;"
        "[p] = [p for p in entry_points(group='ironic_python_agent.hardware_managers') if p.name == 'careen'];"
        "print(careen_ipa.__file__, p.load().HARDWARE_MANAGER_NAME)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(target), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(target / "careen_ipa" / "__init__.py"), "CareenHardwareManager"]

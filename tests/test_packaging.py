"""The distribution: what it claims, what it carries, and that it works where nothing else of the project is."""

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACES = PROJECT["tool"]["setuptools"]["package-dir"]
FOLDERS = tuple(folder for package, folder in PLACES.items() if package != "relmem")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the working tree, built from a copy so that nothing is left behind in it."""
    source = tmp_path_factory.mktemp("source")
    for folder in PLACES.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", source / "dist", source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with relmem installed from the wheel, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    _run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    return target


def _run(*command, **options) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _python(installed: Path, code: str, cwd: Path) -> str:
    """Run code where relmem comes from ``installed`` and the other packages from this environment.

    Without the ``site`` module no .pth file is read, so an editable install of the working tree is out of sight.
    """
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    setup = f"import sys; sys.path += {paths!r}\n"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return _run(sys.executable, "-S", "-c", setup + code, cwd=cwd, env=environment)


def test_whatever_is_asked_for_is_pinned_within_its_range():
    groups = (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values())
    pins = _pins()
    for requirement in map(Requirement, itertools.chain(*groups)):
        if requirement.name == "relmem":  # the extras that the tests use
            assert requirement.extras <= PROJECT["project"]["optional-dependencies"].keys()
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parts = (line.partition("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in parts}


def test_rl_zoo3_can_be_installed_beside():
    assert Requirement("python-dateutil<3,>=2.8").specifier.contains(_pins()["python-dateutil"])  # through typepy


def test_editors_find_relmem_in_a_clone_and_python_imports_from_its_folders(tmp_path):
    """Editors and type checkers look into the folders that .pth files name, and follow no other mapping."""
    pth = Path(sysconfig.get_path("purelib")) / "relmem_links.pth"
    if not pth.exists():
        pytest.skip("relmem was not installed by make")
    links = Path(pth.read_text().splitlines()[0])
    assert [(links / "relmem" / folder).resolve() for folder in FOLDERS] == [ROOT / folder for folder in FOLDERS]
    assert (links / "relmem" / "__init__.py").resolve() == ROOT / "package" / "__init__.py"
    modules = [f"relmem.{folder}" for folder in FOLDERS]
    code = f"import importlib\nfor name in {modules!r}: print(importlib.import_module(name).__file__)"
    files = _run(sys.executable, "-c", code, cwd=tmp_path).split()
    assert files == [str(ROOT / folder / "__init__.py") for folder in FOLDERS]


def test_the_wheel_claims_no_name_but_relmem(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"relmem"}


def test_the_wheel_holds_every_module_and_config_and_says_that_it_is_typed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".yaml")]
    assert {f"relmem/{path.relative_to(ROOT).as_posix()}" for path in sources} <= names
    packages = {name.rpartition("/")[0] for name in names if name.endswith("/__init__.py")}
    assert {f"{package}/py.typed" for package in packages} <= names


def test_the_installed_wheel_imports_every_module(installed, tmp_path):
    modules = [
        path.relative_to(installed).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in sorted(installed.glob("relmem/**/*.py"))
    ]
    assert "relmem.agents.cores.lstm" in modules
    code = f"import importlib\nfor name in {modules!r}: print(importlib.import_module(name).__file__)"
    files = _python(installed, code, tmp_path).split()
    assert len(files) == len(modules) and all(Path(file).is_relative_to(installed) for file in files)


def test_the_installed_wheel_trains_256_steps(installed, tmp_path):
    flags = ["--config", "cartpole/masked_lstm", "--total_timesteps", "256", "--algo.n_steps", "32", "--run_dir", "run"]
    _python(installed, f"from relmem.cli import main; sys.exit(main(['train', *{flags!r}]))", tmp_path)
    code = "from relmem.agents import MemoryPPO; print(MemoryPPO.load('run/model.zip').num_timesteps)"
    assert _python(installed, code, tmp_path) == "256\n"


def test_the_version_is_that_of_the_distribution(installed, tmp_path):
    code = "import relmem; from relmem.cli import main; print(relmem.__version__); main(['--version'])"
    version = PROJECT["project"]["version"]
    assert _python(installed, code, tmp_path) == f"{version}\nrelmem {version}\n"


def test_the_console_command_is_there(installed):
    (entry_points,) = installed.glob("relmem-*.dist-info/entry_points.txt")
    assert "relmem = relmem.cli:main" in entry_points.read_text()


def test_train_py_is_relmem_train(tmp_path):
    text = _run(sys.executable, ROOT / "train.py", "--help", cwd=tmp_path)
    assert text.startswith("usage: relmem train")


# Each may know those before it; agents know the supervised classes by their old names, and import them when asked.
ONE_WAY = ("common", "tasks", "envs", "agents", "supervised", "experiment", "cli")


def test_dependencies_point_one_way():
    code = f"""
import importlib, pkgutil, sys
order = {ONE_WAY!r}
for place, name in enumerate(order):
    package = importlib.import_module(f"relmem.{{name}}")
    for module in pkgutil.walk_packages(package.__path__, f"{{package.__name__}}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known = [later for later in order[place + 1 :] if f"relmem.{{later}}" in sys.modules]
    assert not known, f"{{name}} imports {{known}}"
"""
    _run(sys.executable, "-c", code)

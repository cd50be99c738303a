"""Rows that are real programs: a root of some lines, and static archives of Debian.

As programs are linked, members of archives are extracted as far as they are needed, and shared
libraries have the rest.

- `llvm`: a program that compiles a function with LLJIT and the x86 back end, with LLVM's archives.
- `grpc`: a gRPC server and a client in one process, with the archives of gRPC and abseil.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
_LLVM_CONFIG = "llvm-config-22"

_LLVM_ROOT = """
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/TargetSelect.h"
using namespace llvm;
using namespace llvm::orc;

extern "C" int bench_entry() {
  InitializeNativeTarget();
  InitializeNativeTargetAsmPrinter();
  auto context = std::make_unique<LLVMContext>();
  auto module = std::make_unique<Module>("module", *context);
  IRBuilder<> builder(*context);
  auto *type = FunctionType::get(builder.getInt32Ty(), {builder.getInt32Ty()}, false);
  auto *function = Function::Create(type, Function::ExternalLinkage, "add", *module);
  builder.SetInsertPoint(BasicBlock::Create(*context, "entry", function));
  builder.CreateRet(builder.CreateAdd(function->getArg(0), builder.getInt32(1)));
  auto jit = cantFail(LLJITBuilder().create());
  cantFail(jit->addIRModule(ThreadSafeModule(std::move(module), std::move(context))));
  return cantFail(jit->lookup("add")).toPtr<int(int)>()(41);
}
"""

_GRPC_ROOT = """
#include <grpcpp/grpcpp.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>

extern "C" int bench_entry() {
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterAsyncGenericService(&service);
  auto queue = builder.AddCompletionQueue();
  auto server = builder.BuildAndStart();
  if (!server || port == 0)
    return -1;
  auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                     grpc::InsecureChannelCredentials());
  auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(20);
  int result = channel->WaitForConnected(deadline) ? 42 : -2;
  server->Shutdown();
  queue->Shutdown();
  void *tag;
  bool ok;
  while (queue->Next(&tag, &ok))
    ;
  return result;
}
"""


class ProgramError(Exception):
    """The archives or the compiler of a program are missing; the message has the reason."""


class RealProgram(NamedTuple):
    """How a program is compiled and linked.

    Attributes:
        root: C++ source of the function ``bench_entry``, which returns 42.
        options: the compiler's options.
        archives: the static archives, in an order in which references lead forward.
        libraries: names of the shared libraries that have the rest.
        fills_tls: whether it takes most of the static TLS of a process.
    """

    root: str
    options: Sequence[str]
    archives: Sequence[Path]
    libraries: Sequence[str]
    fills_tls: bool = False


def load_libraries(names: Sequence[str]) -> None:
    """Load shared libraries, for all code of the process."""
    for name in names:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


@cache
def llvm() -> RealProgram:
    """LLVM's LLJIT; raises ProgramError if LLVM's archives are missing."""
    flags = _output(_LLVM_CONFIG, "--cxxflags").split()
    files = _output(_LLVM_CONFIG, "--link-static", "--libfiles", "orcjit", "native").split()
    libraries = ("libz3.so.4", "libz.so.1", "libzstd.so.1", "libxml2.so.2", "libstdc++.so.6")
    return _existing(
        RealProgram(_LLVM_ROOT, flags, list(map(Path, files)), libraries), "llvm-22-dev"
    )


_GRPC = ("grpc++", "grpc", "gpr", "upb", "address_sorting", "re2", "cares")


@cache
def grpc() -> RealProgram:
    """gRPC; raises ProgramError if its archives are missing."""
    archives = [_LIBRARIES / f"lib{name}.a" for name in _GRPC]
    archives += sorted(_LIBRARIES.glob("libabsl_*.a"))
    libraries = (
        "libprotobuf.so.32",
        "libssl.so.3",
        "libcrypto.so.3",
        "libz.so.1",
        "libstdc++.so.6",
    )
    program = RealProgram(_GRPC_ROOT, ("-std=c++17",), archives, libraries, fills_tls=True)
    return _existing(program, "libgrpc++-dev")


def _existing(program: RealProgram, package: str) -> RealProgram:
    for archive in program.archives:
        if not archive.exists():
            raise ProgramError(f"{archive} is missing (Debian package {package})")
    return program


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise ProgramError(f"{command[0]} is not installed (Debian package llvm-22-dev)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProgramError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout

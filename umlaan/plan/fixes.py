"""umlaan's own fixes for old kernels on newer toolchains: version range, condition, change.

Each is applied to umlaan's own copy of the source, only within its range of kernels (since
included, until not), only where the toolchain's C library (UML) or gcc (a host kernel) is new
enough to need it, and only where the text that it looks for is there. All of them were made in
later kernels as well.
"""

from __future__ import annotations

from typing import Any

FIXES: tuple[dict[str, Any], ...] = (
    {
        "name": "sysmacros",
        "why": "major() and makedev() come from <sys/sysmacros.h> since glibc 2.28",
        "since": "2.6.0",
        "until": "4.18.0",
        "glibc": "2.25",
        "edits": [
            {
                "file": "arch/um/os-Linux/file.c",
                "when": r"\bmajor\(",
                "unless": r"<sys/sysmacros\.h>",
                "find": r"^#include <sys/stat\.h>$",
                "put": "#include <sys/stat.h>\n#include <sys/sysmacros.h>",
            },
        ],
    },
    {
        "name": "ucontext",
        "why": "struct ucontext is called ucontext_t only since glibc 2.26",
        "since": "2.6.0",
        "until": "4.18.0",
        "glibc": "2.26",
        "edits": [
            {
                "file": "arch/um/os-Linux/signal.c",
                "find": r"\bstruct ucontext \*uc = p;",
                "put": "ucontext_t *uc = p;",
            },
            {
                "file": "arch/x86/um/stub_segv.c",
                "find": r"\bstruct ucontext \*uc = p;",
                "put": "ucontext_t *uc = p;",
            },
            {
                "file": "arch/x86/um/stub_segv.c",
                "unless": r"<sys/ucontext\.h>",
                "find": r"^#include <sysdep/stub\.h>$",
                "put": "#include <sysdep/stub.h>\n#include <sys/ucontext.h>",
            },
        ],
    },
    {
        "name": "ptrace-sysemu",
        "why": "glibc 2.27 defines PTRACE_SYSEMU as an enumerator; the kernel's macro breaks it",
        "since": "2.6.0",
        "until": "4.20.0",
        "glibc": "2.27",
        "edits": [
            {
                "file": f"arch/x86/um/shared/sysdep/ptrace_{bits}.h",
                "find": rf"^#ifndef {name}\n#define {name} \d+\n#endif\n",
                "put": "",
            }
            for bits in (32, 64)
            for name in ("PTRACE_SYSEMU", "PTRACE_SYSEMU_SINGLESTEP")
        ],
    },
)

# A host kernel's. UML is linked with the C library, a host kernel is not.
HOST_FIXES: tuple[dict[str, Any], ...] = (
    {
        "name": "stack-protector",
        "why": "gcc 10 ends start_secondary() and start_kernel() by a jump, behind a check of the "
        "canary that they set themselves: the kernel panics as its second CPU starts",
        "since": "3.10.0",
        "until": "5.8.0",
        "gcc": "10",
        "edits": [
            {
                "file": file,
                "unless": r"\bprevent_tail_call_optimization\b",
                "find": rf"^\t{call};\n\}}",
                "put": r"\t\g<call>;\n\tmb();\n}",
            }
            for file, call in (
                ("arch/x86/kernel/smpboot.c", r"(?P<call>cpu_startup_entry\(\w+\))"),
                # Since 4.20 start_kernel() reaches it through another function.
                ("init/main.c", r"(?P<call>(?:arch_call_)?rest_init\(\))"),
            )
        ],
    },
)


def fixes(arch: str) -> tuple[dict[str, Any], ...]:
    """The fixes that a kernel of this architecture may need."""
    return FIXES if arch == "um" else HOST_FIXES

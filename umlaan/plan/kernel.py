"""A kernel: what the agent is to build, and why it differs from what is there."""

from __future__ import annotations

from typing import Any

from umlaan.model.kernel import Kernel
from umlaan.model.lab import Lab
from umlaan.plan.fixes import fixes
from umlaan.plan.toolchain import build_root

_MOST = 6


def kernels_on(lab: Lab, host: str) -> tuple[Kernel, ...]:
    """The distinct UML kernels of the nodes that a lab host carries."""
    return tuple({node.kernel.id: node.kernel for node in lab.nodes_on(host)}.values())


def kernel_ids(lab: Lab, host: str) -> list[str]:
    """Names of the kernels that a lab host's part of the lab still speaks of."""
    found = {kernel.id for kernel in kernels_on(lab, host)}
    if own := lab.host_settings[host].host_kernel:
        found.add(own.id)
    return sorted(found)


def implied(kernel: Kernel, options: dict[str, str], *, elsewhere: bool = False) -> dict[str, str]:
    """The options with what follows from the rest of the data where the user said nothing.

    A UML kernel made in a build root, or elsewhere on a builder, must run on the lab host, whose C
    library is another one or of another width: it is linked statically. (A dynamic 4.9 on a
    host's glibc of 2.35 or newer boots and then dies with its first process: that library
    registers rseq in every process.) It is a wish: with the vector driver newer kernels cannot be.
    """
    foreign = elsewhere or kernel.toolchain != "native"
    if kernel.arch == "um" and foreign and not kernel.source.ready:
        return {"STATIC_LINK": "y", **options}
    return options


def spec(
    kernel: Kernel,
    options: dict[str, str],
    state_dir: str,
    cache_dir: str,
    base_text: str | None = None,
    ranges: dict[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """The agent's description of one kernel.

    options: fragments and single options merged; ranges: which kernels some of them are for.
    base_text: the base configuration where it is a
    file of the machine that runs pyinfra; a base file that is not is one of the lab host's.
    """
    source = kernel.source
    is_file = kernel.base not in ("allnoconfig", "defconfig", "tinyconfig")
    return {
        "id": kernel.id,
        "dir": f"{state_dir}/kernels/{kernel.id}",
        "cache": cache_dir,
        "source": source.model_dump(exclude_none=True, exclude={"ready"}),
        "ready": source.ready,
        "overlays": list(kernel.overlays),
        "patches": list(kernel.patches),
        "beside": dict(kernel.beside),
        "arch": kernel.arch,
        "subarch": kernel.subarch,
        "base": kernel.base,
        "base_text": base_text,
        "base_file": kernel.base if is_file and base_text is None else None,
        "options": options,
        "wishes": [n for n in ("STATIC_LINK",) if n in options and n not in kernel.options],
        "ranges": {name: list(only) for name, only in (ranges or {}).items()},
        "make": dict(kernel.make),
        "modules": kernel.modules,
        "toolchain": build_root(kernel.toolchain, cache_dir),
        "fixes": list(fixes(kernel.arch)) if kernel.fixes else [],
    }


def reasons(found: dict[str, Any], what: str = "UML kernel") -> list[str]:
    """Why the kernel must be built or brought again; empty where nothing differs."""
    ready = "options" not in found["inputs"]
    verb = "take from the cache" if found["cached"] else "take" if ready else "build"
    stamp = found["stamp"]
    previous = stamp or found["previous"]
    if previous is None:
        return [f"{what}: {verb}, {found['inputs']['source']['label']}: none there yet"]
    again = "take from the cache" if found["cached"] else "take anew" if ready else "rebuild"
    # The key is content alone: under another name it is the same kernel.
    same = stamp is not None and stamp["key"] == found["key"]
    rows = [] if same else differences(previous["inputs"], found["inputs"])
    if rows:
        more = f" and {len(rows) - _MOST} more changes" if len(rows) > _MOST else ""
        return [f"{what}: {again}, {', '.join(rows[:_MOST])}{more}"]
    if stamp is None:
        return [f"{what}: {verb}, as another one here but with a name of its own"]
    if found["artifact"] != "ok":
        how = "restore from the cache" if found["cached"] else again
        return [f"{what}: {how}, {found['artifact']}"]
    return []


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Field by field, in words: what a kernel was built from and what it would be built from."""
    rows: list[str] = []
    for field in sorted({*then, *now}, key=_rank):
        before, after = then.get(field), now.get(field)
        if before == after:
            continue
        if field in ("options", "make"):
            rows += _words(before or {}, after or {}, "CONFIG_" if field == "options" else "make ")
        elif field in ("overlays", "patches", "beside"):
            rows += _layers(field, before or [], after or [])
        elif field == "source":
            rows += _source(before or {}, after or {})
        elif field in ("base", "toolchain"):
            if _id(before) != _id(after):
                what = "compiler" if field == "toolchain" else "base configuration"
                rows.append(f"{what} {_label(before)} → {_label(after)}")
        elif field == "fixes":
            rows += _fixes(before or {}, after or {})
        elif field == "arch":
            rows.append(f"{'/'.join(before or ['?'])} → {'/'.join(after or ['?'])}")
        elif field == "recipe":
            rows.append("umlaan builds in another way now")
        else:
            rows.append(f"{field} {before} → {after}")
    return rows


def _rank(field: str) -> tuple[int, str]:
    order = ("source", "overlays", "patches", "beside", "options")
    return (order.index(field) if field in order else len(order), field)


def _id(value: Any) -> Any:
    return (value.get("hash") or value.get("id")) if isinstance(value, dict) else value


def _label(value: Any) -> str:
    return str(value["label"]) if isinstance(value, dict) else "not there yet"


def _words(then: dict[str, str], now: dict[str, str], prefix: str) -> list[str]:
    absent = "n" if prefix == "CONFIG_" else "unset"
    return [
        f"{prefix}{name} {then.get(name, absent)} → {now.get(name, absent)}"
        for name in sorted({*then, *now})
        if then.get(name, absent) != now.get(name, absent)
    ]


def _source(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if then.get("hash") == now.get("hash"):
        return []
    if then.get("label") == now.get("label"):
        return [f"source changed: {now.get('label')}"]
    return [f"source changed: {then.get('label')} → {now.get('label')}"]


def _fixes(then: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"umlaan's fix {name} {'changed' if name in then and name in now else 'new'}"
        if name in now
        else f"umlaan's fix {name} no longer needed"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _layers(field: str, then: list[dict[str, str]], now: list[dict[str, str]]) -> list[str]:
    one = {"overlays": "overlay", "patches": "patch", "beside": "tree"}[field]
    before = {row["path"]: row["hash"] for row in then}
    after = {row["path"]: row["hash"] for row in now}
    rows = [f"{one} {path} new" for path in after if path not in before]
    rows += [f"{one} {path} gone" for path in before if path not in after]
    changed = [path for path in after if path in before and before[path] != after[path]]
    rows += [f"{one} {path} changed" for path in changed]
    if not rows and [row["hash"] for row in then] != [row["hash"] for row in now]:
        rows.append(f"{field} in another order")
    return rows

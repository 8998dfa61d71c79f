"""Identity and DVS tree: what a node holds -> exact commands, and nothing where nothing differs."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.operations import guest as operations
from umlaan.plan import guest as plan
from umlaan.plan import userroot
from umlaan.plan.dvssides import sides
from umlaan.plan.guestmodules import Release
from umlaan.plan.look import IFUP, INTERFACES, SSHD, SSHD_SNIPPETS, Look

KEYS = {"authorised_key": "ssh-ed25519 A", "host_key": "PRIVATE\n", "host_key_public": "PUBLIC\n"}
DATA: dict[str, Any] = {"root": {"made": {}}}
USERS: dict[str, Any] = {"root": "/dev/sdb6"}
ROW = {"running": False, "root_exists": True, "kernel": {"transports": ["tuntap"]}}
MANIFEST = {"a": ["file", 0o644, "11"]}
CONFIG = (0o644, b"Include /etc/ssh/sshd_config.d/*.conf\n")


def lab_of(data: dict[str, Any]) -> Lab:
    return build_lab([HostData(LAB, False, data), HostData(NODE, True, {**data, "lab_host": LAB})])


def wanted(data: dict[str, Any], found: Look) -> list[plan.GuestFile]:
    lab, keys = lab_of(data), plan.Secrets(**KEYS)
    given = plan.values(lab, lab.node("node1"), "eth0", keys)
    if data is DATA:
        return [*plan.made_files(given, keys), *plan.service_files(sides(lab)[1])]
    return userroot.files(given, keys, found)


def whole(data: dict[str, Any], found: Look) -> dict[str, tuple[int, bytes]]:
    """The files of a node as they are after a run."""
    files = dict(found.files)
    for edit in plan.edits(lab_of(data).node("node1"), wanted(data, found), found):
        mode = files.get(edit.file.path, (edit.file.mode, b""))[0]
        files[edit.file.path] = (
            edit.file.mode if edit.file.kind == "whole" else mode,
            edit.text.encode(),
        )
    return files


def printed(found: Look) -> str:
    """What the look's command prints in such a node."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (mode, content) in found.files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    rows = b"".join(
        b"f\0%o\0%s\0\0" % (0o755 if row[1] else 0o644, name.encode())
        for name, row in found.tree.items()
    )
    sums = b"".join(f"{row[2]}  ./{name}\0".encode() for name, row in found.tree.items())
    lines = [base64.b64encode(buffer.getvalue()).decode()]
    lines += [f"has {name}" for name in sorted(found.exists)]
    lines += [f"modules {name} {c or '-'} {s or '-'}" for name, (c, s) in found.modules.items()]
    lines += ["tree", base64.b64encode(rows + b"\0" + sums).decode()]
    return "\n".join([*lines, *(f"left {path}" for path in found.leftovers)])


def run(
    operation: Any,
    found: Look,
    data: dict[str, Any],
    free: str = "9999999999 99999",
    row: dict[str, Any] = ROW,
    **more: Any,
) -> tuple[list[str], list[str]]:
    lab, said = lab_of(data), []  # type: ignore[var-annotated]
    args = (lab.node("node1"),)
    if operation is operations.dvs_tree:
        args += (lab.settings(NODE).dvs,)  # type: ignore[assignment]
    responses = {
        "node-state": json.dumps({"node1": row}),
        "keys read": json.dumps(KEYS),
        "dvs stamp": json.dumps({"manifest": MANIFEST, "bytes": 1000}),
        "df -B1": f" Avail IFree\n{free}",
        "base64 -w0": printed(found),
    }
    commands = commands_of(
        operation, *args, on=NODE, responses=responses, data=data, reasons=said, **more
    )
    return commands, [text for _, text in said]


def test_a_made_root_with_its_identity_is_left_alone() -> None:
    assert run(operations.identity, Look(whole(DATA, Look())), DATA) == ([], [])


def test_the_dvs_services_are_put_into_a_root_that_is_stopped_and_not_into_a_guest() -> None:
    """A boot starts them; in a guest that runs their own stage starts anew what it changes."""
    commands, _ = run(operations.identity, Look(), DATA)
    assert "place etc/umlaan/dvs/dvs-proxy-node0/run" in commands[1]
    assert "/etc/service/$n" in commands[1]
    running = {**ROW, "running": True, "answers": True}
    commands, _ = run(operations.identity, Look(), DATA, row=running)
    assert "etc/umlaan/dvs" not in commands[1] and "/etc/service/" not in commands[1]


def test_one_edited_file_is_written_and_no_other() -> None:
    files = whole(DATA, Look())
    files["etc/hosts"] = (0o644, b"edited\n")
    commands, reasons = run(operations.identity, Look(files), DATA)
    assert reasons == ["node1 /etc/hosts: write, it differs"]
    assert len(commands) == 2 and "place etc/hosts whole" in commands[1]
    assert "keep etc/hosts" not in commands[1] and "place etc/fstab" not in commands[1]


def test_a_private_key_that_all_may_read_is_written_again() -> None:
    files = whole(DATA, Look())
    files[plan.KEY] = (0o644, files[plan.KEY][1])
    _, reasons = run(operations.identity, Look(files), DATA)
    assert reasons == [f"node1 /{plan.KEY}: write, it has mode 644, not 600"]


def test_a_full_root_is_told_with_figures_before_anything_is_written() -> None:
    commands, _ = run(operations.identity, Look(whole(USERS, USER)), DATA, free="1000 5")
    assert len(commands) == 1
    assert "it has 0.0 MB and 5 inodes; nothing was changed there" in commands[0]


USER = Look(
    files={"etc/hostname": (0o644, b"mine\n"), "etc/ssh/sshd_config": CONFIG},
    exists=frozenset({SSHD, SSHD_SNIPPETS, IFUP, "etc/os-release"}),
)


def test_a_users_root_with_its_identity_is_left_alone() -> None:
    after = Look(whole(USERS, USER), USER.exists)
    assert run(operations.identity, after, USERS) == ([], [])


def test_a_users_files_are_kept_before_the_first_change() -> None:
    commands, reasons = run(operations.identity, USER, USERS)
    assert "node1 /etc/hostname: write, it differs" in reasons
    script = commands[-1].split("\n")
    assert script.index("keep etc/hostname") == script.index("place etc/hostname whole") - 1
    assert f"place {INTERFACES} edited" in script


def test_a_users_root_without_sshd_is_told_or_gets_it() -> None:
    bare = Look(USER.files, USER.exists - {SSHD, SSHD_SNIPPETS})
    commands, _ = run(operations.identity, bare, USERS)
    assert len(commands) == 1 and "root.install_sshd: True installs" in commands[0]
    data = {"root": {"device": "/dev/sdb6", "install_sshd": True}}
    commands, reasons = run(operations.identity, bare, data)
    assert commands[0].startswith("apt-get update") and len(commands) == 3
    assert reasons[0] == "node1: install openssh-server in its root"


def test_a_root_that_cannot_be_given_an_address_is_told() -> None:
    bare = Look(USER.files, USER.exists - {IFUP})
    commands, _ = run(operations.identity, bare, USERS)
    assert len(commands) == 1 and "install ifupdown in it" in commands[0]


TREE = Look(files={"x": (0o644, b"")}, tree={"a": ["file", False, "11"]})


def test_a_tree_as_built_is_left_alone() -> None:
    assert run(operations.dvs_tree, TREE, DATA) == ([], [])


def test_a_tree_that_differs_is_unpacked() -> None:
    found = Look(files=TREE.files, tree={"a": ["file", False, "22"]})
    commands, reasons = run(operations.dvs_tree, found, DATA)
    assert reasons == ["node1 /usr/src/dvs: unpack dvs.tar.gz, a differ from what was built"]
    assert len(commands) == 1 and "tar -xzf -" in commands[0]


def test_a_tree_that_does_not_fit_is_told_with_figures() -> None:
    commands, _ = run(operations.dvs_tree, Look(files=TREE.files), DATA, free="1000 5")
    assert len(commands) == 1 and "it has 0.0 MB and 5 inodes" in commands[0]


def test_what_a_killed_unpack_left_is_removed() -> None:
    found = Look(TREE.files, tree=TREE.tree, leftovers=("/usr/src/.dvs.umlaan-old",))
    commands, reasons = run(operations.dvs_tree, found, DATA)
    assert commands == ["rm -rf /usr/src/.dvs.umlaan-new /usr/src/.dvs.umlaan-old"]
    assert "left by a killed unpack" in reasons[0]


def test_a_plan_says_the_same_without_asking_for_space() -> None:
    _, reasons = run(operations.dvs_tree, Look(files=TREE.files), DATA, stage=StateStage.Prepare)
    assert reasons == ["node1 /usr/src/dvs: unpack dvs.tar.gz, the tree is missing"]


@pytest.mark.parametrize("stage", [StateStage.Prepare, StateStage.Execute])
@pytest.mark.parametrize(
    "answer",
    [
        {"success": False, "stderr": "umlaan: node1: it said more than 33554432 bytes"},
        "no base64 of a tar!",
    ],
)
def test_a_node_whose_answer_is_refused_is_not_taken_for_an_empty_one(
    stage: StateStage, answer: Any
) -> None:
    """A plan said that it would write all files of a node that floods it, or answers nonsense."""
    lab, said = lab_of(DATA), []  # type: ignore[var-annotated]
    responses = {
        "node-state": json.dumps({"node1": ROW}),
        "keys read": json.dumps(KEYS),
        "base64 -w0": answer,
    }
    commands = commands_of(
        *(operations.identity, lab.node("node1")),
        **{"on": NODE, "responses": responses, "data": DATA, "stage": stage, "reasons": said},
        before=lambda state: [*map(state.activate_host, state.inventory)] and None,
    )
    assert len(commands) == 1 and not [text for _, text in said if "write" in text]
    assert "said more than 33554432 bytes" in commands[0] or "is not taken" in commands[0]


PACKED = {"content": "cc", "sizes": "55", "bytes": 105_000_000, "entries": 1030}
BUILT = {**ROW, "kernel": {"transports": ["tuntap"], "release": "6.1.7", "packed": PACKED}}
BARE = {**ROW, "kernel": {**BUILT["kernel"], "packed": None}}
FILES = {"etc/hostname": (0o644, b"node1\n")}


def test_modules_as_built_are_left_alone() -> None:
    found = Look(FILES, modules={"6.1.7": Release("cc", "55"), "5.10-theirs": Release()})
    assert run(operations.modules, found, DATA, row=BUILT) == ([], [])


def test_a_kernel_without_modules_asks_nothing_of_a_root() -> None:
    assert run(operations.modules, Look(FILES), DATA, row=BARE) == ([], [])


def test_missing_modules_are_unpacked_from_the_kernels_folder() -> None:
    for data in (DATA, USERS):
        commands, reasons = run(operations.modules, Look(FILES), data, row=BUILT)
        assert reasons == ["node1 /lib/modules/6.1.7: unpack the kernel's modules, there are none"]
        assert len(commands) == 1 and "tar -xzf -" in commands[0]
        assert "mv /lib/modules/6.1.7" not in commands[0]


def test_a_foreign_folder_of_the_release_is_moved_out_of_the_way() -> None:
    found = Look(FILES, modules={"6.1.7": Release()})
    commands, reasons = run(operations.modules, found, DATA, row=BUILT)
    assert "not umlaan's and are kept beside them" in reasons[0]
    assert "mv /lib/modules/6.1.7 /lib/modules/6.1.7.umlaan-kept-$(date" in commands[0]


def test_modules_of_another_kernel_go() -> None:
    found = Look(FILES, modules={"6.1.6": Release("aa", "11")})
    commands, reasons = run(operations.modules, found, DATA, row=BARE)
    assert reasons == [
        "node1 /lib/modules/6.1.6: remove umlaan's modules, its kernel has no modules"
    ]
    assert len(commands) == 1 and "cd /lib/modules/6.1.6" in commands[0]


def test_modules_that_do_not_fit_are_told_with_figures_and_a_way_out() -> None:
    commands, _ = run(operations.modules, Look(FILES), DATA, row=BUILT, free="1000 5")
    assert len(commands) == 1
    assert "needs 110.3 MB and 1046 inodes free in /" in commands[0]
    assert "kernel.modules: False leaves them out" in commands[0]


def test_a_plan_says_what_modules_a_root_will_get() -> None:
    _, reasons = run(operations.modules, Look(FILES), DATA, row=BUILT, stage=StateStage.Prepare)
    assert reasons == ["node1 /lib/modules/6.1.7: unpack the kernel's modules, there are none"]


def test_before_its_kernel_is_there_nothing_is_known_of_its_modules() -> None:
    row = {**ROW, "kernel": None}
    assert run(operations.modules, Look(FILES), DATA, row=row) == ([], [])

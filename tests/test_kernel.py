"""What the kernel tells in files of its own."""

from kvbench.kernel import mounts


def test_mounts_with_blanks_in_their_names_are_read_right() -> None:
    line = r"41 31 0:38 /a\040b /mnt/my\040disk rw,noatime shared:9 - nfs4 server:/export\040one rw,vers=4.2"
    found = list(mounts(line))
    assert found == [("41", "/a b", "nfs4", "/mnt/my disk", "rw,noatime,vers=4.2", "server:/export one")]

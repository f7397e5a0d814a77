"""Disk images: a GPT with one EFI system partition. No root, no loop devices; the same input gives the same
bytes."""
import os
import struct
import tempfile
import uuid
import zlib

import ui

SECTOR = 512
ALIGNMENT = 2048            # sectors: the partition starts at 1 MiB, as every partitioning tool does
ENTRY_COUNT = 128
ENTRY_SIZE = 128
TABLE_SECTORS = ENTRY_COUNT * ENTRY_SIZE // SECTOR
ESP_TYPE = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
NAMESPACE = uuid.UUID("6d5f6b5e-1a53-4d2f-9f54-62756c6b6864")
FAT16_MIN_CLUSTERS = 4085   # below it the same layout is FAT12, by definition
FAT16_MAX_CLUSTERS = 65524
EPOCH = "946684800"         # 2000-01-01: every file's time stamp in the image


def write(out, files):
    """Writes the image `out`. files: list of (path in the ESP with '/', host path)."""
    cluster, sectors = _geometry(files)
    total = ALIGNMENT + sectors + TABLE_SECTORS + 1
    temporary = out + ".part"
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    try:
        with open(temporary, "wb") as image:
            image.truncate(total * SECTOR)
            _write_gpt(image, total, ALIGNMENT, ALIGNMENT + sectors - 1)
        _write_fat(temporary, cluster, sectors, files)
        os.replace(temporary, out)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _geometry(files):
    """(sectors per cluster, sectors of the partition): a FAT16 just large enough for the files."""
    sizes = [os.path.getsize(host) for _, host in files]
    directories = len({part for path, _ in files for part in _parents(path)})
    for cluster in (1, 2, 4, 8, 16, 32, 64):
        span = cluster * SECTOR
        clusters = sum((size + span - 1) // span for size in sizes) + directories + 16
        clusters = max(clusters, FAT16_MIN_CLUSTERS + 16)
        if clusters <= FAT16_MAX_CLUSTERS and (cluster >= 8 or clusters < 2 * FAT16_MIN_CLUSTERS):
            overhead = 1 + 2 * ((clusters + 2) * 2 // SECTOR + 1) + 32
            return cluster, clusters * cluster + overhead
    raise ui.Failure("the files are too large for one image (2 GiB)")


def _parents(path):
    parts = path.strip("/").split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _write_gpt(image, total, first, last):
    """UEFI specification 2.10, chapter 5: protective MBR, header and table, and their copies at the end."""
    disk = uuid.uuid5(NAMESPACE, "disk")
    entry = struct.pack("<16s16sQQQ72s", ESP_TYPE.bytes_le, uuid.uuid5(NAMESPACE, "esp").bytes_le, first, last, 0,
                        "BULKHEAD".encode("utf-16-le"))
    table = entry + bytes(ENTRY_COUNT * ENTRY_SIZE - len(entry))

    def header(own, other, table_lba):
        def pack(crc):
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x00010000, 92, crc, 0, own, other,
                               2 + TABLE_SECTORS, total - TABLE_SECTORS - 2, disk.bytes_le, table_lba, ENTRY_COUNT,
                               ENTRY_SIZE, zlib.crc32(table))
        return pack(zlib.crc32(pack(0)))

    protective = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(total - 1, 0xFFFFFFFF))
    image.seek(446)
    image.write(protective)
    image.seek(510)
    image.write(b"\x55\xaa")
    image.write(header(1, total - 1, 2).ljust(SECTOR, b"\0"))
    image.write(table)
    image.seek((total - 1 - TABLE_SECTORS) * SECTOR)
    image.write(table)
    image.write(header(total - 1, 1, total - 1 - TABLE_SECTORS))


def _write_fat(image, cluster, sectors, files):
    drive = "%s@@%d" % (image, ALIGNMENT * SECTOR)
    env = dict(os.environ, MTOOLS_SKIP_CHECK="1", SOURCE_DATE_EPOCH=EPOCH)
    ui.command(["mformat", "-i", drive, "-T", str(sectors), "-h", "16", "-s", "63", "-c", str(cluster), "-r", "32",
                "-H", str(ALIGNMENT), "-v", "BULKHEAD", "-N", "42554c4b", "::"], env=env, what="formatting the ESP")
    made = set()
    with tempfile.TemporaryDirectory(prefix="bulkhead-image-") as staging:
        for index, (path, host) in enumerate(files):
            for parent in _parents(path):
                if parent.upper() not in made:
                    made.add(parent.upper())
                    ui.command(["mmd", "-i", drive, "::/" + parent], env=env, what="making \\%s" % parent)
            # A copy of the link: mcopy takes the time stamp (-m) of what it is given.
            stamped = os.path.join(staging, str(index))
            _copy(host, stamped)
            os.utime(stamped, (int(EPOCH), int(EPOCH)))
            ui.command(["mcopy", "-m", "-i", drive, stamped, "::/" + path.strip("/")], env=env,
                       what="copying %s into the image" % path)


def _copy(source, target):
    try:
        with open(source, "rb") as reading, open(target, "wb") as writing:
            while chunk := reading.read(1 << 20):
                writing.write(chunk)
    except OSError as error:
        raise ui.Failure("%s: %s" % (source, error.strerror)) from None

#include "hv/guest/acpi_build.h"
#include "drivers/vdev/acpi_pm.h"
#include "drivers/vdev/hpet.h"
#include "drivers/vdev/ioapic.h"
#include "drivers/vdev/kbd.h"
#include "drivers/vdev/rtc.h"
#include "drivers/vdev/sysctl.h"
#include "drivers/vdev/uart.h"
#include "hv/guest/layout.h"
#include "hv/lib/string.h"

/* ---- bytes into a buffer; an overflow is remembered, and the buffer stays untouched beyond its end ---- */

struct out {
    uint8_t *buf;
    size_t size, at;
    bool overflow;
};

/* Not inlined: it is called some 200 times, once per start of a VM, and would be most of this file. */
static __attribute__((noinline)) void put(struct out *o, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        if (o->at < o->size)
            o->buf[o->at] = (uint8_t)(value >> (8 * i));
        else
            o->overflow = true;
        o->at++;
    }
}

static void put_text(struct out *o, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(o, (uint8_t)text[i], 1);
}

static void put_zeros(struct out *o, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(o, 0, 1);
}

static void patch(struct out *o, size_t at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        if (at + i < o->size)
            o->buf[at + i] = (uint8_t)(value >> (8 * i));
}

static void align(struct out *o, size_t to)
{
    while (o->at % to)
        put(o, 0, 1);
}

/* The byte at `checksum` makes [from, from+n) sum to 0. */
static void put_checksum(struct out *o, size_t from, size_t n, size_t checksum)
{
    uint8_t sum = 0;
    if (o->overflow)
        return;
    o->buf[checksum] = 0;
    for (size_t i = from; i < from + n; i++)
        sum = (uint8_t)(sum + o->buf[i]);
    o->buf[checksum] = (uint8_t)(0 - sum);
}

/* ---- tables: ACPI 6.5, chapter 5 ---- */

#define TABLE_HEADER    36u
#define HEADER_LENGTH   4u
#define HEADER_CHECKSUM 9u
#define OEM_ID          "BULKHD"
#define OEM_TABLE_ID    "BULKHEAD"
#define CREATOR_ID      "BLKH"

static size_t table_begin(struct out *o, const char *signature, uint8_t revision)
{
    align(o, 16);
    size_t start = o->at;
    put_text(o, signature, 4);
    put(o, 0, 4); /* length: table_end */
    put(o, revision, 1);
    put(o, 0, 1); /* checksum: table_end */
    put_text(o, OEM_ID, 6);
    put_text(o, OEM_TABLE_ID, 8);
    put(o, 1, 4);
    put_text(o, CREATOR_ID, 4);
    put(o, 1, 4);
    return start;
}

static void table_end(struct out *o, size_t start)
{
    patch(o, start + HEADER_LENGTH, o->at - start, 4);
    put_checksum(o, start, o->at - start, start + HEADER_CHECKSUM);
}

static void put_gas(struct out *o, uint16_t port, unsigned bytes)
{
    enum { SPACE_IO = 1 };
    put(o, port ? SPACE_IO : 0, 1);
    put(o, bytes * 8, 1);
    put(o, 0, 1);                     /* bit offset */
    put(o, bytes < 4 ? bytes : 3, 1); /* access size: 1 byte, 2 word, 3 dword */
    put(o, port, 8);
}

#define RSDP_SIZE    36u
#define RSDP_V1_SIZE 20u

static void put_rsdp(struct out *o, uint64_t xsdt)
{
    size_t start = o->at;
    put_text(o, "RSD PTR ", 8);
    put(o, 0, 1);
    put_text(o, OEM_ID, 6);
    put(o, 2, 1);
    put(o, 0, 4); /* no RSDT */
    put(o, RSDP_SIZE, 4);
    put(o, xsdt, 8);
    put(o, 0, 4);
    put_checksum(o, start, RSDP_V1_SIZE, start + 8);
    put_checksum(o, start, RSDP_SIZE, start + 32);
}

static void put_facs(struct out *o)
{
    align(o, 64);
    put_text(o, "FACS", 4);
    put(o, 64, 4);
    put_zeros(o, 24);
    put(o, 2, 1); /* version */
    put_zeros(o, 31);
}

/* FADT: ACPI 6.5, table 5.9. */
#define BOOT_ARCH_LEGACY   (1u << 0)
#define BOOT_ARCH_8042     (1u << 1)
#define BOOT_ARCH_NO_VGA   (1u << 2)
#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_SLP_BUTTON    (1u << 5) /* no fixed sleep button */
#define FADT_FIX_RTC       (1u << 6) /* no RTC wake status in the fixed registers */
#define FADT_TMR_VAL_EXT   (1u << 8)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_NO_C2         0x0fffu
#define FADT_NO_C3         0x0fffu

static void put_fadt(struct out *o, uint32_t facs, uint32_t dsdt)
{
    size_t start = table_begin(o, "FACP", 6);
    put(o, facs, 4);
    put(o, dsdt, 4);
    put(o, 0, 2); /* reserved; profile: unspecified */
    put(o, ACPI_PM_SCI_IRQ, 2);
    put(o, ACPI_PM_SMI_CMD_PORT, 4);
    put(o, ACPI_PM_ENABLE, 1);
    put(o, ACPI_PM_DISABLE, 1);
    put(o, 0, 2); /* no S4BIOS, no P-state control */
    put(o, ACPI_PM_EVT_PORT, 4);
    put(o, 0, 4);
    put(o, ACPI_PM_CNT_PORT, 4);
    put(o, 0, 4);
    put(o, 0, 4); /* no PM2 */
    put(o, ACPI_PM_TMR_PORT, 4);
    put(o, 0, 8); /* no GPE blocks */
    put(o, ACPI_PM_EVT_LEN, 1);
    put(o, ACPI_PM_CNT_LEN, 1);
    put(o, 0, 1);
    put(o, ACPI_PM_TMR_LEN, 1);
    put(o, 0, 4); /* GPE lengths, base, C-state control */
    put(o, FADT_NO_C2, 2);
    put(o, FADT_NO_C3, 2);
    put_zeros(o, 8); /* cache flush sizes, duty cycle, RTC alarms */
    put(o, RTC_CENTURY, 1);
    put(o, BOOT_ARCH_LEGACY | BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA, 2);
    put(o, 0, 1);
    put(o,
        FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_TMR_VAL_EXT | FADT_RESET_REG_SUP,
        4);
    put_gas(o, SYSCTL_RESET_PORT, 1);
    put(o, SYSCTL_RESET_VALUE, 1);
    put(o, 0, 2); /* ARM */
    put(o, 3, 1); /* minor revision: 6.3 */
    put(o, 0, 8); /* X_FIRMWARE_CTRL: the 32-bit one is given */
    put(o, dsdt, 8);
    put_gas(o, ACPI_PM_EVT_PORT, ACPI_PM_EVT_LEN);
    put_zeros(o, 12);
    put_gas(o, ACPI_PM_CNT_PORT, ACPI_PM_CNT_LEN);
    put_zeros(o, 24);
    put_gas(o, ACPI_PM_TMR_PORT, ACPI_PM_TMR_LEN);
    put_zeros(o, 4 * 12 + 8); /* GPE0, GPE1, sleep control and status, hypervisor identity */
    table_end(o, start);
}

/* MADT: ACPI 6.5, 5.2.12. */
#define MADT_PCAT_COMPAT 1u
#define MADT_ENABLED     1u
#define MADT_ALL_CPUS    0xffu
#define INTI_CONFORMS    0u
#define INTI_HIGH_LEVEL  0x0du /* active high, level-triggered */
#define PIT_IRQ          0u
#define PIT_GSI          2u

static void put_override(struct out *o, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    put(o, 2, 1);
    put(o, 10, 1);
    put(o, 0, 1); /* ISA */
    put(o, irq, 1);
    put(o, gsi, 4);
    put(o, flags, 2);
}

static void put_madt(struct out *o, uint32_t vcpus)
{
    size_t start = table_begin(o, "APIC", 5);
    put(o, GUEST_LAPIC, 4);
    put(o, MADT_PCAT_COMPAT, 4);
    for (uint32_t i = 0; i < vcpus; i++) {
        put(o, 0, 1); /* processor local APIC */
        put(o, 8, 1);
        put(o, i, 1); /* _UID */
        put(o, i, 1); /* APIC ID */
        put(o, MADT_ENABLED, 4);
    }
    put(o, 1, 1); /* I/O APIC */
    put(o, 12, 1);
    put(o, 0, 2); /* ID 0 */
    put(o, IOAPIC_BASE, 4);
    put(o, 0, 4);
    put_override(o, PIT_IRQ, PIT_GSI, INTI_CONFORMS);
    put_override(o, ACPI_PM_SCI_IRQ, ACPI_PM_SCI_IRQ, INTI_HIGH_LEVEL);
    put(o, 4, 1); /* local APIC NMI: LINT1 of every CPU */
    put(o, 6, 1);
    put(o, MADT_ALL_CPUS, 1);
    put(o, INTI_CONFORMS, 2);
    put(o, 1, 1);
    table_end(o, start);
}

static void put_mcfg(struct out *o)
{
    size_t start = table_begin(o, "MCFG", 1);
    put(o, 0, 8);
    put(o, GUEST_ECAM, 8);
    put(o, 0, 2); /* segment */
    put(o, 0, 1); /* buses 0 .. 255 */
    put(o, 255, 1);
    put(o, 0, 4);
    table_end(o, start);
}

/* IA-PC HPET specification 1.0a, 3.2.4. */
#define GAS_MEMORY      0u
#define GAS_BITS_64     64u
#define HPET_MIN_TICK   1000u /* of periodic mode: 10 us */
#define HPET_PROTECT_4K 1u    /* its page is its own */

static void put_hpet(struct out *o)
{
    size_t start = table_begin(o, "HPET", 1);
    put(o, HPET_BLOCK_ID, 4);
    put(o, GAS_MEMORY, 1);
    put(o, GAS_BITS_64, 1);
    put(o, 0, 2);
    put(o, HPET_BASE, 8);
    put(o, 0, 1); /* the first of its kind */
    put(o, HPET_MIN_TICK, 2);
    put(o, HPET_PROTECT_4K, 1);
    table_end(o, start);
}

/* ---- AML: ACPI 6.5, chapter 20. Package lengths are always written in three bytes, so that they can be
 * patched. ---- */

#define AML_NAME         0x08u
#define AML_BYTE         0x0au
#define AML_WORD         0x0bu
#define AML_DWORD        0x0cu
#define AML_STRING       0x0du
#define AML_SCOPE        0x10u
#define AML_BUFFER       0x11u
#define AML_PACKAGE      0x12u
#define AML_METHOD       0x14u
#define AML_EXT          0x5bu
#define AML_EXT_DEVICE   0x82u
#define AML_ARG0         0x68u
#define AML_ARG3         0x6bu
#define AML_OR           0x7du
#define AML_CREATE_DWORD 0x8au
#define AML_LEQUAL       0x93u
#define AML_IF           0xa0u
#define AML_RETURN       0xa4u

#define PKG_LENGTH_BYTES 3u

static size_t aml_length_begin(struct out *o)
{
    put(o, 0, PKG_LENGTH_BYTES);
    return o->at - PKG_LENGTH_BYTES;
}

static void aml_length_end(struct out *o, size_t at)
{
    size_t n = o->at - at; /* includes the length itself */
    /* Bits 7:6 of the first byte: two more bytes follow; its low nibble: bits 3:0 of the length. */
    patch(o, at, 0x80 | (n & 0xf) | (n >> 4) << 8, PKG_LENGTH_BYTES);
}

static void aml_int(struct out *o, uint32_t v)
{
    if (v <= 1) {
        put(o, v, 1); /* ZeroOp, OneOp */
    } else if (v <= 0xff) {
        put(o, AML_BYTE, 1);
        put(o, v, 1);
    } else if (v <= 0xffff) {
        put(o, AML_WORD, 1);
        put(o, v, 2);
    } else {
        put(o, AML_DWORD, 1);
        put(o, v, 4);
    }
}

static void aml_name(struct out *o, const char *name)
{
    put(o, AML_NAME, 1);
    put_text(o, name, 4);
}

static void aml_name_int(struct out *o, const char *name, uint32_t v)
{
    aml_name(o, name);
    aml_int(o, v);
}

/* "PNP0501" as the compressed 32-bit EISA ID. */
static void aml_eisa(struct out *o, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - '@') << 10 | (uint32_t)(id[1] - '@') << 5 | (uint32_t)(id[2] - '@');
    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    put(o, AML_DWORD, 1);
    for (unsigned i = 0; i < 4; i++) /* big-endian */
        put(o, v >> (24 - 8 * i), 1);
}

static size_t aml_device(struct out *o, const char *name, const char *eisa, uint32_t uid)
{
    put(o, AML_EXT, 1);
    put(o, AML_EXT_DEVICE, 1);
    size_t length = aml_length_begin(o);
    put_text(o, name, 4);
    aml_name(o, "_HID");
    aml_eisa(o, eisa);
    aml_name_int(o, "_UID", uid);
    return length;
}

/* A resource template: Name (_CRS, Buffer (size) { ... }). */
struct crs {
    size_t length, size, start;
};

static struct crs crs_begin(struct out *o)
{
    struct crs c;
    aml_name(o, "_CRS");
    put(o, AML_BUFFER, 1);
    c.length = aml_length_begin(o);
    put(o, AML_WORD, 1);
    c.size = o->at;
    put(o, 0, 2);
    c.start = o->at;
    return c;
}

static void crs_end(struct out *o, struct crs c)
{
    put(o, 0x79, 1); /* end tag, no checksum */
    put(o, 0, 1);
    patch(o, c.size, o->at - c.start, 2);
    aml_length_end(o, c.length);
}

static void crs_io(struct out *o, uint16_t port, uint8_t count)
{
    put(o, 0x47, 1);
    put(o, 1, 1); /* decodes 16 bits */
    put(o, port, 2);
    put(o, port, 2);
    put(o, 1, 1);
    put(o, count, 1);
}

static void crs_irq(struct out *o, unsigned irq)
{
    put(o, 0x22, 1);
    put(o, 1u << irq, 2);
}

static void crs_memory32(struct out *o, uint32_t base, uint32_t size)
{
    put(o, 0x86, 1);
    put(o, 9, 2);
    put(o, 1, 1); /* read/write */
    put(o, base, 4);
    put(o, size, 4);
}

enum crs_window { WINDOW_MEMORY = 0, WINDOW_IO = 1, WINDOW_BUS = 2 };

/* A range that the bridge passes on; `bytes` is the width of the descriptor's fields (2, 4 or 8). */
static void crs_window(struct out *o, enum crs_window kind, uint64_t first, uint64_t last, unsigned bytes)
{
    enum { WORD_SPACE = 0x88, DWORD_SPACE = 0x87, QWORD_SPACE = 0x8a };
    static const uint8_t type_flags[] = {
        [WINDOW_MEMORY] = 1 /* read/write */, [WINDOW_IO] = 3, [WINDOW_BUS] = 0};
    put(o, bytes == 2 ? WORD_SPACE : bytes == 4 ? DWORD_SPACE : QWORD_SPACE, 1);
    put(o, 3 + 5 * bytes, 2);
    put(o, kind, 1);
    put(o, 0x0c, 1); /* both ends fixed */
    put(o, type_flags[kind], 1);
    put(o, 0, bytes); /* granularity */
    put(o, first, bytes);
    put(o, last, bytes);
    put(o, 0, bytes); /* translation */
    put(o, last - first + 1, bytes);
}

/* INTx of slot `slot`, pin `pin` (0 = INTA) is wired to one of the eight PCI inputs of the IOAPIC. */
static void put_prt(struct out *o)
{
    aml_name(o, "_PRT");
    put(o, AML_PACKAGE, 1);
    size_t all = aml_length_begin(o);
    put(o, ACPI_PCI_SLOTS * ACPI_PCI_PINS, 1);
    for (uint32_t slot = 0; slot < ACPI_PCI_SLOTS; slot++) {
        for (uint32_t pin = 0; pin < ACPI_PCI_PINS; pin++) {
            put(o, AML_PACKAGE, 1);
            size_t one = aml_length_begin(o);
            put(o, 4, 1);
            aml_int(o, slot << 16 | 0xffff); /* every function */
            aml_int(o, pin);
            aml_int(o, 0); /* no link device: the next number is a GSI */
            aml_int(o, acpi_pci_gsi(slot, pin));
            aml_length_end(o, one);
        }
    }
    aml_length_end(o, all);
}

/* Method (_OSC, 4): for the PCI host bridge's UUID the OS may have every control it asks for, there is no
 * firmware that would share; for another UUID say "unrecognized UUID" (bit 2 of the first dword). */
static void put_osc(struct out *o)
{
    static const uint8_t uuid[16] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                     0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
    put(o, AML_METHOD, 1);
    size_t method = aml_length_begin(o);
    put_text(o, "_OSC", 4);
    put(o, 4, 1); /* arguments */
    put(o, AML_IF, 1);
    size_t then = aml_length_begin(o);
    put(o, AML_LEQUAL, 1);
    put(o, AML_ARG0, 1);
    put(o, AML_BUFFER, 1);
    size_t buffer = aml_length_begin(o);
    aml_int(o, sizeof(uuid));
    for (size_t i = 0; i < sizeof(uuid); i++)
        put(o, uuid[i], 1);
    aml_length_end(o, buffer);
    put(o, AML_RETURN, 1);
    put(o, AML_ARG3, 1);
    aml_length_end(o, then);
    put(o, AML_CREATE_DWORD, 1); /* CreateDWordField (Arg3, 0, CDW1) */
    put(o, AML_ARG3, 1);
    aml_int(o, 0);
    put_text(o, "CDW1", 4);
    put(o, AML_OR, 1);
    put_text(o, "CDW1", 4);
    aml_int(o, 4);
    put_text(o, "CDW1", 4);
    put(o, AML_RETURN, 1);
    put(o, AML_ARG3, 1);
    aml_length_end(o, method);
}

static void put_pci(struct out *o, const struct acpi_build *params)
{
    size_t pci = aml_device(o, "PCI0", "PNP0A08", 0);
    aml_name(o, "_CID");
    aml_eisa(o, "PNP0A03");
    aml_name_int(o, "_SEG", 0);
    aml_name_int(o, "_BBN", 0);
    struct crs c = crs_begin(o);
    crs_window(o, WINDOW_BUS, 0, 255, 2);
    crs_io(o, 0xcf8, 8);
    crs_window(o, WINDOW_IO, 0x0000, 0x0cf7, 2);
    crs_window(o, WINDOW_IO, 0x0d00, 0xffff, 2);
    for (unsigned i = 0; i < VPCI_WINDOWS; i++) {
        const struct vpci_window *w = &params->windows[i];
        if (w->first <= w->last)
            crs_window(o, WINDOW_MEMORY, w->first, w->last, w->last > UINT32_MAX ? 8 : 4);
    }
    crs_end(o, c);
    put_osc(o);
    put_prt(o);
    aml_length_end(o, pci);
}

/* Ports and memory that belong to the board, so that nothing is placed over them; this also confirms ECAM. */
static void put_board(struct out *o)
{
    size_t dev = aml_device(o, "MBRD", "PNP0C02", 0);
    struct crs c = crs_begin(o);
    crs_memory32(o, GUEST_ECAM, GUEST_ECAM_SIZE);
    crs_io(o, ACPI_PM_BASE, ACPI_PM_PORT_COUNT);
    crs_io(o, ACPI_PM_SMI_CMD_PORT, 2);
    crs_io(o, SYSCTL_PORT_A, 1);
    crs_end(o, c);
    aml_length_end(o, dev);
}

static void put_isa(struct out *o)
{
    size_t dev = aml_device(o, "COM1", "PNP0501", 1);
    struct crs c = crs_begin(o);
    crs_io(o, UART_COM1_PORT, UART_PORT_COUNT);
    crs_irq(o, UART_COM1_IRQ);
    crs_end(o, c);
    aml_length_end(o, dev);
    dev = aml_device(o, "RTC0", "PNP0B00", 0);
    c = crs_begin(o);
    crs_io(o, RTC_INDEX_PORT, 2);
    crs_irq(o, RTC_IRQ);
    crs_end(o, c);
    aml_length_end(o, dev);
    dev = aml_device(o, "HPET", "PNP0103", 0);
    c = crs_begin(o);
    crs_memory32(o, HPET_BASE, HPET_SIZE);
    crs_end(o, c);
    aml_length_end(o, dev);
    dev = aml_device(o, "KBD0", "PNP0303", 0);
    c = crs_begin(o);
    crs_io(o, KBD_DATA_PORT, 1);
    crs_io(o, KBD_COMMAND_PORT, 1);
    crs_irq(o, KBD_IRQ);
    crs_end(o, c);
    aml_length_end(o, dev);
}

static void put_processor(struct out *o, uint32_t i)
{
    static const char digits[] = "0123456789ABCDEF";
    put(o, AML_EXT, 1);
    put(o, AML_EXT_DEVICE, 1);
    size_t length = aml_length_begin(o);
    put_text(o, "CP", 2);
    put(o, (uint8_t)digits[i >> 4], 1);
    put(o, (uint8_t)digits[i & 0xf], 1);
    aml_name(o, "_HID");
    put(o, AML_STRING, 1);
    put_text(o, "ACPI0007", 9);
    aml_name_int(o, "_UID", i);
    aml_length_end(o, length);
}

static void put_dsdt(struct out *o, const struct acpi_build *params)
{
    size_t start = table_begin(o, "DSDT", 2);
    aml_name(o, "_S5_"); /* SLP_TYP for PM1a and PM1b */
    put(o, AML_PACKAGE, 1);
    size_t s5 = aml_length_begin(o);
    put(o, 4, 1);
    aml_int(o, ACPI_PM_SLP_TYP_S5);
    aml_int(o, ACPI_PM_SLP_TYP_S5);
    aml_int(o, 0);
    aml_int(o, 0);
    aml_length_end(o, s5);
    put(o, AML_SCOPE, 1);
    size_t scope = aml_length_begin(o);
    put_text(o, "_SB_", 4);
    for (uint32_t i = 0; i < params->vcpu_count; i++)
        put_processor(o, i);
    put_pci(o, params);
    put_board(o);
    put_isa(o);
    aml_length_end(o, scope);
    table_end(o, start);
}

enum status acpi_build(const struct acpi_build *params, uint8_t *buf, size_t size, struct acpi_built *out)
{
    uint64_t base = params->base.v;
    if (params->vcpu_count == 0 || params->vcpu_count > ACPI_BUILD_MAX_VCPUS || base % 64 ||
        base > UINT32_MAX - ACPI_BUILD_SIZE)
        return ERR_INVALID;
    struct out o = {.buf = buf, .size = size};
    /* The RSDP is found first; what it points to is filled in when the addresses are known. */
    put_zeros(&o, RSDP_SIZE);
    put_facs(&o);
    uint32_t facs = (uint32_t)(base + o.at - 64);
    align(&o, 16);
    uint64_t dsdt = base + o.at;
    put_dsdt(&o, params);
    align(&o, 16);
    uint64_t fadt = base + o.at;
    put_fadt(&o, facs, (uint32_t)dsdt);
    align(&o, 16);
    uint64_t madt = base + o.at;
    put_madt(&o, params->vcpu_count);
    align(&o, 16);
    uint64_t mcfg = base + o.at;
    put_mcfg(&o);
    align(&o, 16);
    uint64_t hpet = base + o.at;
    put_hpet(&o);
    size_t xsdt = table_begin(&o, "XSDT", 1);
    put(&o, fadt, 8);
    put(&o, madt, 8);
    put(&o, mcfg, 8);
    put(&o, hpet, 8);
    table_end(&o, xsdt);
    if (o.overflow)
        return ERR_NO_MEMORY;
    out->rsdp = params->base;
    out->size = (uint32_t)o.at;
    o.at = 0;
    put_rsdp(&o, base + xsdt);
    return STATUS_OK;
}

/* A hostile driver of a virtual function: everything that the VF, its configuration space and its PF's
 * mailbox let it try against the other VMs and Bulkhead. What must not happen elsewhere (memory changes, time
 * is lost) the victim watches; here each step says what this VM saw. */
#include "vf.h"

#define GIB             (1ull << 30)
#define PAUSE_US        30000u /* between accesses that are blocked: fewer than what makes a storm */
#define STORM_ACCESSES  3000u
#define MAILS           600u
#define MAIL_WAIT_US    15000u /* a PF looks every 10 ms */
#define MAIL_MAC        2u
#define MAIL_PROMISC    6u
#define PROMISC_UNICAST (1u << 16)
#define SURE_US         1000000u
#define MAIL_REST_MS    1500u /* then what was used up has come back */
#define CHECK_EVERY     10u
#define TABLE_WRITES    4000u
#define RESETS          30u
#define MSI_ADDRESS     0xfee00000ull
#define MSI_REMAPPABLE  0x10ull
#define HANDLES         64u
#define MSIX_CONTROL    2u
#define VECTORS         3u /* of a VF */
#define FIRST_VECTOR    0x50u
#define MSIX_WAIT_US    20000u
#define MSIX_ENABLE     0x8000u
#define RX_DESCRIPTORS  8u
#define RX_BUFFER_2K    2u
#define RX_ADVANCED     (1u << 25)
#define RX_DROP         (1u << 31)
#define RX_ENABLE       (1u << 25)
#define PATTERN_BYTES   0x10000u
#define BUSY_FRAMES     12u
#define BUSY_REST_MS    20u /* others live on the same emulated processor */

static uint8_t pattern[PATTERN_BYTES] __attribute__((aligned(4096)));

static void fill(void)
{
    for (unsigned i = 0; i < PATTERN_BYTES; i++)
        pattern[i] = (uint8_t)(i * 7 + (i >> 8));
}

static uint64_t wrong_bytes(void)
{
    uint64_t wrong = 0;
    for (unsigned i = 0; i < PATTERN_BYTES; i++)
        wrong += pattern[i] != (uint8_t)(i * 7 + (i >> 8));
    return wrong;
}

static uint64_t interrupts_seen(void)
{
    uint64_t sum = 0;
    for (unsigned i = 32; i < 256; i++)
        sum += i == VECTOR_TIMER ? 0 : cpus[0].interrupts[i];
    return sum;
}

/* ---- DMA to what is not ours ---- */

static uint64_t tried, stuck, lost;
static uint8_t own[64] __attribute__((aligned(64)));

/* The card writes there, then it reads there. That it could have is looked at now and then. */
static void attack(uint64_t at)
{
    uint32_t value;
    stuck += !vf_dma((uintptr_t)own, at, &value);
    spin_us(PAUSE_US);
    stuck += !vf_dma(at, (uintptr_t)own, &value);
    spin_us(PAUSE_US);
    if (++tried % CHECK_EVERY == 0)
        lost += !vf_arrives();
}

/* Receive buffers there, for whatever comes in. */
static void receive_at(uint64_t at)
{
    static uint64_t ring[RX_DESCRIPTORS][2] __attribute__((aligned(4096)));
    for (unsigned i = 0; i < RX_DESCRIPTORS; i++) {
        ring[i][0] = at + i * PAGE;
        ring[i][1] = 0;
    }
    vf_write(VF_RXDCTL, 0);
    vf_write(VF_RDBAL, (uint32_t)(uintptr_t)ring);
    vf_write(VF_RDBAH, 0);
    vf_write(VF_RDLEN, sizeof(ring));
    vf_write(VF_SRRCTL, RX_BUFFER_2K | RX_ADVANCED | RX_DROP);
    vf_write(VF_RXDCTL, RX_ENABLE);
    vf_write(VF_RDT, RX_DESCRIPTORS - 1);
}

static void attack_receive(uint64_t at)
{
    receive_at(at);
    sleep_ms(300);
    vf_write(VF_RXDCTL, 0);
    tried++;
}

void program_vf_dma(unsigned step)
{
    static const uint64_t devices[] = {
        ECAM_PAGE, IOAPIC_PAGE, 0xfed00000, 0xfed90000, 0xff000000, 0xfffff000,         4 * GIB,
        5 * GIB,   64 * GIB,    1ull << 39, 1ull << 46, 1ull << 47, 0xfffffffffffff000,
    };
    (void)step;
    if (!vf_open("vf_dma"))
        return;
    fill();
    tried = stuck = lost = 0;
    /* Physical memory of the machine, as far as it is not this VM's: other VMs', Bulkhead's, the firmware's.
     */
    for (uint64_t at = (memory_top + LARGE_PAGE) & ~(LARGE_PAGE - 1); at < 2 * GIB;
         at += at < GIB / 4 ? 8 * LARGE_PAGE : 32 * LARGE_PAGE)
        attack(at);
    for (unsigned i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        attack(devices[i]);
    attack(vf.bars[0]);
    attack(vf.bars[1]);
    attack_receive((memory_top + LARGE_PAGE) & ~(LARGE_PAGE - 1));
    attack_receive(IOAPIC_PAGE);
    lost += !vf_arrives();
    verdict("vf_dma", lost == 0 && wrong_bytes() == 0,
            "%u places outside of this VM written to and read, %u times the queue did not get on; own "
            "memory: %u bytes wrong, "
            "%u times own DMA did not arrive",
            tried, stuck, wrong_bytes(), lost);
}

/* As fast as it can: the card is taken from the bus until it is reset. */
void program_vf_storm(unsigned step)
{
    uint32_t value;
    (void)step;
    if (!vf_open("vf_storm"))
        return;
    uint64_t outside = (memory_top + LARGE_PAGE) & ~(LARGE_PAGE - 1);
    uint64_t begin = rdtsc(), stopped_at = 0;
    for (uint64_t i = 0; i < STORM_ACCESSES && stopped_at == 0; i++) {
        (void)vf_dma(outside, outside, &value);
        if (i % 100 == 99 && !vf_arrives())
            stopped_at = i + 1;
    }
    uint64_t ms = (rdtsc() - begin) / (tsc_hz / 1000);
    bool again = vf_flr() && vf_reopen() && vf_arrives();
    verdict("vf_storm", stopped_at && again,
            "cut off by access %u of a storm, after %u ms; after a reset its DMA %s", stopped_at, ms,
            again ? "arrives" : "is LOST");
}

/* ---- interrupts that nobody gave us ---- */

void program_vf_msi(unsigned step)
{
    uint32_t value;
    (void)step;
    if (!vf_open("vf_msi"))
        return;
    uint64_t before = interrupts_seen();
    tried = stuck = 0;
    /* The head is written as the data, and runs through all vectors. */
    for (unsigned i = 0; i < 256; i++, tried++) {
        stuck += !vf_dma((uintptr_t)own, MSI_ADDRESS, &value);
        spin_us(PAUSE_US);
    }
    uint64_t forged = interrupts_seen() - before;
    for (uint64_t handle = 0; handle < HANDLES; handle++, tried++) {
        stuck += !vf_dma((uintptr_t)own, MSI_ADDRESS | MSI_REMAPPABLE | handle << 5, &value);
        spin_us(PAUSE_US);
    }
    interrupts_on();
    spin_us(1000);
    interrupts_off();
    bool arrives = vf_arrives() || (vf_flr() && vf_reopen() && vf_arrives());
    verdict(
        "vf_msi", arrives,
        "%u forged messages, each vector and %u handles: %u interrupts here by vector, %u in all; own DMA %s",
        tried, (uint64_t)HANDLES, forged, interrupts_seen() - before, arrives ? "arrives" : "LOST");
}

/* ---- the PF ---- */

/* To be somebody else, and to see what is somebody else's: the PF must say no. That the card stops frames
 * from another's address is for real cards, and their model in the unit tests: QEMU's does not look. */
void program_vf_spoof(unsigned step)
{
    static const uint32_t wishes[][3] = {
        {MAIL_MAC, 0x82005452, 0x6057}, /* the PF's own address, 52:54:00:82:57:60 */
        {MAIL_MAC, 0xaa005452, 0x0200}, /* a neighbour's, 52:54:00:aa:00:02 */
        {MAIL_PROMISC | PROMISC_UNICAST, 0, 0},
    };
    unsigned refused = 0, count = sizeof(wishes) / sizeof(wishes[0]);
    (void)step;
    if (!vf_open("vf_spoof"))
        return;
    for (unsigned i = 0; i < count; i++) {
        uint32_t words[3];
        memcpy(words, wishes[i], sizeof(words));
        refused += vf_mail(words, 3, SURE_US) & MAIL_NACK ? 1 : 0;
    }
    bool again = vf_reopen() && vf_arrives();
    verdict("vf_spoof", refused == count && again,
            "%u of %u wishes refused: others' addresses, others' frames", (uint64_t)refused, (uint64_t)count);
}

void program_vf_mail(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint32_t words[MAIL_DWORDS];
    uint64_t answers = 0, refused = 0;
    (void)step;
    if (!vf_open("vf_mail"))
        return;
    for (unsigned i = 0; i < MAILS; i++) {
        unsigned count = 1 + chance_below(&c, MAIL_DWORDS);
        for (unsigned n = 0; n < count; n++)
            words[n] = (uint32_t)chance_next(&c);
        if (i & 1) /* half of them are such that a PF knows them, more or less */
            words[0] = chance_below(&c, 8) | chance_below(&c, 256) << 16;
        uint32_t answer = vf_mail(words, count, i % 8 ? 0 : MAIL_WAIT_US); /* mostly it does not wait */
        answers += answer != 0;
        refused += answer & MAIL_NACK ? 1 : 0;
        vf_write(VF_MAILBOX, chance_below(&c, 256)); /* every bit of it */
    }
    sleep_ms(MAIL_REST_MS);
    bool again = vf_reopen() && vf_arrives();
    verdict("vf_mail", again, "%u messages, %u answers, %u of them refusals; then a reset is %s",
            (uint64_t)MAILS, answers, refused, again ? "answered" : "NOT answered");
}

/* ---- configuration space ---- */

void program_vf_config(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint64_t writes = 0, changed = 0, unready = 0;
    (void)step;
    if (!vf_open("vf_config"))
        return;
    uint32_t id = vf_config_read(0), class = vf_config_read(8), subsystem = vf_config_read(0x2c);
    const uint64_t home[] = {vf.bars[0], vf.bars[1]};
    for (unsigned round = 0; round < 3; round++)
        for (uint32_t at = 0; at < PAGE; at++) {
            uint32_t v = round == 0 ? UINT32_MAX : (uint32_t)chance_next(&c);
            *(volatile uint8_t *)vf_config(at) = (uint8_t)v;
            if (at % 2 == 0)
                *(volatile uint16_t *)vf_config(at) = (uint16_t)v;
            if (at % 4 == 0)
                vf_config_write(at, v);
            writes += 1 + (at % 2 == 0) + (at % 4 == 0);
            if (at % 4 == 3) /* it may have been told to reset itself */
                unready += !vf_ready();
            changed += at % 64 == 63 && (vf_config_read(0) != id || vf_config_read(8) != class ||
                                         vf_config_read(0x2c) != subsystem);
        }
    vf_config_write(PCI_COMMAND, 0);
    for (unsigned n = 0; n < 2; n++)
        vf_place(n, home[n]);
    bool again = vf_flr() && vf_reopen() && vf_arrives();
    verdict("vf_config", changed == 0 && unready == 0 && again,
            "%u writes of each width; ids changed %u times; then it %s", writes, changed,
            again ? "works" : "does NOT work");
}

/* BARs over memory, over other devices, over each other. */
void program_vf_bars(unsigned step)
{
    uint64_t wrong = 0, moves = 0;
    (void)step;
    if (!vf_open("vf_bars"))
        return;
    fill();
    uint32_t apic = apic_read(APIC_ID);
    const uint64_t places[] = {(uintptr_t)pattern, 0,          0x100000,           APIC_PAGE,  IOAPIC_PAGE,
                               ECAM_PAGE,          vf.bars[1], memory_top,         0xfffff000, 4 * GIB,
                               1ull << 46,         0xfed00000, 0xfffffffffffff000, GIB,        2 * GIB};
    for (unsigned n = 0; n < 2; n++) {
        uint64_t home = vf.bars[n];
        for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++, moves++) {
            vf_place(n, places[i]); /* it decodes all the while */
            wrong += wrong_bytes() + (apic_read(APIC_ID) != apic);
        }
        vf_place(n, home);
    }
    bool again = vf_reopen() && vf_arrives();
    verdict("vf_bars", wrong == 0 && again, "%u places, memory and APIC were wrong %u times; then it %s",
            moves, wrong, again ? "works" : "does NOT work");
}

/* ---- the MSI-X table ---- */

/* As a driver does it: how many interrupts come of a vector each. */
static uint64_t fire_all(void)
{
    uint64_t before = interrupts_seen();
    for (unsigned i = 0; i < VECTORS; i++) {
        volatile uint32_t *entry = (volatile uint32_t *)map_physical(vf.bars[1] + 16 * i);
        entry[0] = (uint32_t)MSI_ADDRESS;
        entry[1] = 0;
        entry[2] = FIRST_VECTOR + i;
        entry[3] = 0;
    }
    *(volatile uint16_t *)vf_config(vf.msix + MSIX_CONTROL) = MSIX_ENABLE;
    vf_write(VF_EIAC, (1u << VECTORS) - 1);
    vf_write(VF_EIMS, (1u << VECTORS) - 1);
    vf_write(VF_EICS, (1u << VECTORS) - 1);
    interrupts_on();
    spin_us(MSIX_WAIT_US);
    interrupts_off();
    return interrupts_seen() - before;
}

void program_vf_msix(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    (void)step;
    if (!vf_open("vf_msix"))
        return;
    uint64_t good = fire_all(), before = interrupts_seen();
    low_vectors(true); /* 16 to 31 are vectors like others */
    interrupts_on();
    for (unsigned i = 0; i < TABLE_WRITES; i++) {
        volatile uint8_t *p = map_physical(vf.bars[1] + (chance_below(&c, 0x4000) & ~7u));
        if (i & 3) /* mostly the entries */
            p = map_physical(vf.bars[1] + (chance_below(&c, 64) & ~7u));
        uint64_t v = chance_next(&c);
        if (v & 1) /* something like a message */
            v = (v & 0x1000000ff) | MSI_ADDRESS;
        switch (chance_below(&c, 5)) {
        case 0:
            *(volatile uint64_t *)p = v;
            break;
        case 1:
            *(volatile uint32_t *)(p + (v & 4)) = (uint32_t)v;
            break;
        case 2:
            *(volatile uint16_t *)(p + (v & 6)) = (uint16_t)v;
            break;
        case 3:
            p[v & 7] = (uint8_t)v;
            break;
        default:
            *(volatile uint16_t *)vf_config(vf.msix + MSIX_CONTROL) =
                (uint16_t)(v | (i & 1 ? MSIX_ENABLE : 0));
        }
        if (i % 16 == 0)
            vf_write(VF_EICS, (1u << VECTORS) - 1);
    }
    *(volatile uint16_t *)vf_config(vf.msix + MSIX_CONTROL) = 0;
    spin_us(MSIX_WAIT_US);
    interrupts_off();
    low_vectors(false);
    bool again = vf_flr() && vf_reopen() && vf_arrives();
    uint64_t wild = interrupts_seen() - before, after = again ? fire_all() : 0;
    verdict("vf_msix", good && good == after,
            "%u interrupts when asked for; %u writes, %u interrupts meanwhile; then it works, %u interrupts "
            "when asked for",
            good, (uint64_t)TABLE_WRITES, wild, after);
}

/* ---- resets ---- */

void program_vf_flr(unsigned step)
{
    uint64_t back = 0;
    (void)step;
    if (!vf_open("vf_flr"))
        return;
    uint64_t begin = rdtsc();
    for (unsigned i = 0; i < RESETS; i++) {
        uint32_t value;
        if (i & 1) /* with work under way */
            (void)vf_dma((uintptr_t)pattern, (uintptr_t)pattern, &value);
        back += i & 4 ? vf_flr_storm() : vf_flr();
        if (i & 2)
            vf_config_write(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    }
    uint64_t ms = (rdtsc() - begin) / (tsc_hz / 1000);
    bool again = vf_reopen() && vf_arrives();
    verdict("vf_flr", back == RESETS && again, "%u of %u resets in %u ms; then it %s", back, (uint64_t)RESETS,
            ms, again ? "works" : "does NOT work");
}

/* ---- no attack, but work that does not end: for who ends the VM ---- */

static bool key_came(void)
{
    return in8(COM1 + 5) & LSR_DATA;
}

/* Frames go out by the dozen, and what comes in is written to this VM's memory. A key ends this VM with a
 * triple fault, while the card has frames to send. */
void program_vf_busy(unsigned step)
{
    uint32_t value;
    (void)step;
    if (!vf_open("vf_busy"))
        return;
    receive_at((uintptr_t)pattern);
    memset(own, 0, sizeof(own));
    own[0] = 2; /* to nobody, from us, local experimental */
    memcpy(own + 6, vf.mac, 6);
    own[12] = 0x88;
    own[13] = 0xb5;
    for (uint64_t sent = 0, failed = 0;; sent++) {
        failed += !vf_dma((uintptr_t)own, (uintptr_t)pattern, &value);
        if (sent == BUSY_FRAMES)
            verdict("vf_busy", failed == 0, "at work, %u frames were not sent", failed);
        if (sent % BUSY_FRAMES != 0)
            continue;
        sleep_ms(BUSY_REST_MS);
        if (!key_came())
            continue;
        for (unsigned i = 0; i < BUSY_FRAMES; i++)
            (void)vf_begin_dma((uintptr_t)own, (uintptr_t)pattern);
        triple_fault();
    }
}

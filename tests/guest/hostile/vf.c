#include "vf.h"

#define VENDOR_INTEL    0x8086u
#define DEVICE_82576_VF 0x10cau
#define DEVICE_I350_VF  0x1520u
#define FIRST_SLOT      0x10u
#define LAST_SLOT       0x1fu
#define DESCRIPTORS     256u /* so that each vector is a head once */
#define QUEUE_ENABLE    (1u << 25)
#define HEAD_WRITE_BACK 1u
#define FRAME_BYTES     64u
#define DESCRIPTOR_DATA (3u << 20)                                  /* advanced data descriptor */
#define DESCRIPTOR_CMD  (1u << 24 | 1u << 25 | 1u << 27 | 1u << 29) /* EOP, IFCS, RS, DEXT */
#define CTRL_RESET      (1u << 26)
#define DEVCTL          8u
#define DEVCTL_FLR      (1u << 15)
#define KICK_US         20000u
#define LOCK_TRIES      100u
#define ANSWER_US       1000000u
#define READY_US        1000000u
#define STORM_WRITES    2000u

struct vf vf;

static struct {
    uint64_t address;
    uint32_t command, length;
} ring[DESCRIPTORS] __attribute__((aligned(4096)));
static uint8_t frame[FRAME_BYTES] __attribute__((aligned(64)));
static volatile uint32_t landing __attribute__((aligned(64)));

volatile void *vf_config(uint32_t at)
{
    return (volatile void *)(ECAM_PAGE + (vf.device << 15) + at);
}

uint32_t vf_config_read(uint32_t at)
{
    return *(volatile uint32_t *)vf_config(at);
}

void vf_config_write(uint32_t at, uint32_t v)
{
    *(volatile uint32_t *)vf_config(at) = v;
}

uint32_t vf_read(uint32_t at)
{
    return *(volatile uint32_t *)map_physical(vf.bars[0] + at);
}

void vf_write(uint32_t at, uint32_t v)
{
    *(volatile uint32_t *)map_physical(vf.bars[0] + at) = v;
}

static uint64_t bar(unsigned n)
{
    uint32_t low = vf_config_read(PCI_BAR0 + 4 * n);
    uint64_t high = (low & 6) == 4 ? vf_config_read(PCI_BAR0 + 4 * n + 4) : 0;
    return high << 32 | (low & ~15u);
}

void vf_place(unsigned n, uint64_t address)
{
    uint32_t at = PCI_BAR0 + 12 * n;
    uint32_t wide = (vf_config_read(at) & 6) == 4;
    vf_config_write(at, (uint32_t)address);
    if (wide)
        vf_config_write(at + 4, (uint32_t)(address >> 32));
}

static uint32_t capability(uint8_t id)
{
    uint32_t at = vf_config_read(PCI_CAPABILITIES) & 0xfc;
    for (unsigned i = 0; at && i < 48; i++) {
        uint32_t head = vf_config_read(at);
        if ((head & 0xff) == id)
            return at;
        at = head >> 8 & 0xfc;
    }
    return 0;
}

static bool find(void)
{
    for (vf.device = FIRST_SLOT; vf.device <= LAST_SLOT; vf.device++) {
        uint32_t id = vf_config_read(0);
        if (id == (DEVICE_82576_VF << 16 | VENDOR_INTEL) || id == (DEVICE_I350_VF << 16 | VENDOR_INTEL))
            return true;
    }
    return false;
}

/* ---- the mailbox: PFSTS and PFACK are cleared when they are read ---- */

static uint32_t mailbox_seen;

static bool mailbox_wait(uint32_t bits, uint64_t us)
{
    uint64_t end = rdtsc() + us * (tsc_hz / 1000000);
    do {
        mailbox_seen |= vf_read(VF_MAILBOX);
        if (mailbox_seen & bits) {
            mailbox_seen &= ~bits;
            return true;
        }
        relax();
    } while (rdtsc() < end);
    return false;
}

static bool mailbox_lock(void)
{
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        vf_write(VF_MAILBOX, MAILBOX_VFU);
        uint32_t now = vf_read(VF_MAILBOX);
        mailbox_seen |= now;
        if (now & MAILBOX_VFU)
            return true;
        spin_us(10);
    }
    return false;
}

uint32_t vf_mail(uint32_t *words, unsigned count, uint64_t us)
{
    if (!mailbox_lock())
        return 0;
    mailbox_seen &= ~(MAILBOX_PFSTS | MAILBOX_PFACK);
    for (unsigned i = 0; i < count; i++)
        vf_write(VF_MEMORY + 4 * i, words[i]);
    vf_write(VF_MAILBOX, MAILBOX_REQ);
    if (!mailbox_wait(MAILBOX_PFSTS, us) || !mailbox_lock())
        return 0;
    for (unsigned i = 0; i < MAIL_DWORDS && i < count; i++)
        words[i] = vf_read(VF_MEMORY + 4 * i);
    vf_write(VF_MAILBOX, MAILBOX_ACK);
    return words[0];
}

/* ---- the queue ---- */

static void make_queue(void)
{
    memset(frame, 0, sizeof(frame));
    frame[0] = 2; /* to 02:00:00:00:00:01, who does not exist */
    frame[5] = 1;
    memcpy(frame + 6, vf.mac, 6);
    frame[12] = 0x88; /* local experimental */
    frame[13] = 0xb5;
    vf_write(VF_TXDCTL, 0);
    vf_write(VF_TDBAL, (uint32_t)(uintptr_t)ring);
    vf_write(VF_TDBAH, 0);
    vf_write(VF_TDLEN, sizeof(ring));
    vf_write(VF_TDH, 0);
    vf_write(VF_TDT, 0);
    vf_write(VF_TXDCTL, QUEUE_ENABLE);
}

uint32_t vf_begin_dma(uint64_t from, uint64_t to)
{
    uint32_t tail = vf_read(VF_TDT) % DESCRIPTORS, next = (tail + 1) % DESCRIPTORS;
    ring[tail].address = from;
    ring[tail].command = FRAME_BYTES | DESCRIPTOR_DATA | DESCRIPTOR_CMD;
    ring[tail].length = FRAME_BYTES << 14;
    vf_write(VF_TDWBAL, (uint32_t)to | HEAD_WRITE_BACK);
    vf_write(VF_TDWBAH, (uint32_t)(to >> 32));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    vf_write(VF_TDT, next);
    return next;
}

bool vf_dma(uint64_t from, uint64_t to, uint32_t *value)
{
    uint32_t next = vf_begin_dma(from, to);
    *value = (next + DESCRIPTORS - 1) % DESCRIPTORS; /* the head as it is until the descriptor is done with */
    uint64_t end = rdtsc() + KICK_US * (tsc_hz / 1000000);
    while (rdtsc() < end) {
        if (vf_read(VF_TDH) == next)
            return true;
        relax();
    }
    return false;
}

bool vf_arrives(void)
{
    uint32_t value;
    landing = 0xffffffff;
    bool moved = vf_dma((uintptr_t)frame, (uintptr_t)&landing, &value);
    /* Some write the head before, some after they count it. */
    return moved && (landing == value || landing == (value + 1) % DESCRIPTORS);
}

/* ---- the whole ---- */

bool vf_reopen(void)
{
    uint32_t words[3] = {MAIL_RESET, 0, 0};
    vf_config_write(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    vf.bars[0] = bar(0);
    vf.bars[1] = bar(3);
    vf_write(VF_CTRL, CTRL_RESET);
    spin_us(10000);
    mailbox_seen = 0;
    uint32_t answer = vf_mail(words, 3, ANSWER_US);
    memcpy(vf.mac, &words[1], 6);
    make_queue();
    return (answer & 0xffff) == MAIL_RESET && answer & (MAIL_ACK | MAIL_NACK);
}

bool vf_open(const char *program)
{
    if (!find()) {
        verdict(program, false, "there is no VF of an 82576 or I350 in slots 0x10 to 0x1f");
        return false;
    }
    vf.pcie = capability(PCI_CAP_ID_PCIE);
    vf.msix = capability(PCI_CAP_ID_MSIX);
    if (!vf_reopen()) {
        verdict(program, false, "the PF of the VF in slot %x does not answer a reset", (uint64_t)vf.device);
        return false;
    }
    if (!vf_arrives()) {
        verdict(program, false, "the VF in slot %x does no DMA to this VM's own memory: nothing to try with",
                (uint64_t)vf.device);
        return false;
    }
    return true;
}

bool vf_ready(void)
{
    for (uint64_t begin = rdtsc(); (rdtsc() - begin) / (tsc_hz / 1000000) < READY_US;) {
        if (vf_config_read(PCI_COMMAND) != UINT32_MAX)
            return true;
    }
    return false;
}

static bool ask_for_flr(uint32_t *id)
{
    bool ready = vf_ready();
    *id = vf_config_read(0);
    vf_config_write(vf.pcie + DEVCTL, DEVCTL_FLR);
    return ready && vf_read(VF_STATUS) == UINT32_MAX;
}

static bool is_back(uint32_t id)
{
    return vf_ready() && vf_config_read(0) == id && !(vf_config_read(PCI_COMMAND) & PCI_COMMAND_MASTER);
}

bool vf_flr(void)
{
    uint32_t id;
    return ask_for_flr(&id) && is_back(id);
}

bool vf_flr_storm(void)
{
    uint32_t id;
    bool good = ask_for_flr(&id);
    for (unsigned i = 0; i < STORM_WRITES; i++)
        vf_config_write(vf.pcie + DEVCTL, DEVCTL_FLR);
    return is_back(id) && good;
}
